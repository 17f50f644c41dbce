//! What a user can write, and what every mistake says.
use super::*;
use std::path::Path;

const GOOD: &str = "\
localASN: 65001
routerID: 10.0.0.1
listen: {port: 179}
peers:
- name: tor
  peerAddress: 10.0.0.254
  peerASN: 65000
  holdTimeSeconds: 3
  password: s3cret
  gracefulRestart: {enabled: true}
- name: tor6
  peerAddress: fd00::254
  families: [ipv6-unicast]
  nextHop: {ipv6: fd00::1}
";

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("speaker.yaml")).map_err(|error| error.to_string())
}

/// The message for GOOD with one line replaced.
fn mistake(line: &str, by: &str) -> String {
    assert!(GOOD.contains(line), "{line} is not in the sample");
    parse(&GOOD.replacen(line, by, 1)).expect_err("a mistake")
}

#[test]
fn a_good_file_with_its_defaults() {
    let config = parse(GOOD).expect("a good file");
    assert_eq!(config.local_asn, 65001);
    assert_eq!(config.listen.len(), 2, "one socket for each family");
    let tor = &config.peers[0];
    assert_eq!(tor.address, "10.0.0.254:179".parse().expect("an address"));
    assert_eq!(tor.hold_time, Duration::from_secs(3));
    assert_eq!(tor.graceful_restart, Some(Duration::from_secs(120)));
    assert_eq!(tor.families.len(), 2);
    assert_eq!((tor.ttl, tor.passive, tor.import), (1, false, Import::Accept));
    let tor6 = &config.peers[1];
    assert_eq!(tor6.asn, 0, "any AS");
    assert_eq!(tor6.hold_time, Duration::from_secs(90));
    assert_eq!(tor6.graceful_restart, None);
    assert!(
        !format!("{config:?}").contains("s3cret"),
        "secrets are never printed"
    );
}

#[test]
fn without_listen_the_speaker_only_dials() {
    for listen in ["", "listen: {port: 0}"] {
        let text = GOOD.replacen("listen: {port: 179}", listen, 1);
        assert!(parse(&text).expect("a good file").listen.is_empty());
    }
}

/// | mistake                | line and message                                      |
/// |------------------------|-------------------------------------------------------|
/// | a key misspelt         | its line, and the key that was meant                  |
/// | a value out of range   | the line of its peer, the value, and what it may be   |
/// | two peers, one address | the line of the second, both names                    |
#[test]
fn every_mistake_names_line_cause_and_cure() {
    let cases = [
        (
            "  holdTimeSeconds: 3",
            "  holdTimeSecond: 3",
            "speaker.yaml:8: unknown key \"holdTimeSecond\", did you mean \"holdTimeSeconds\"?",
        ),
        (
            "localASN: 65001",
            "localAsn: 65001",
            "speaker.yaml:1: unknown key \"localAsn\", did you mean \"localASN\"?",
        ),
        (
            "[ipv6-unicast]",
            "[ipv6]",
            "speaker.yaml:13: unknown value \"ipv6\", known are: ipv4-unicast, ipv6-unicast",
        ),
        (
            "  holdTimeSeconds: 3",
            "  holdTimeSeconds: 2",
            "speaker.yaml:5: peer \"tor\": holdTimeSeconds is 2: it must be 0 (off) or 3 to 65535 (RFC 4271 §4.2)",
        ),
        (
            "{enabled: true}",
            "{enabled: true, restartTimeSeconds: 5000}",
            "speaker.yaml:5: peer \"tor\": restartTimeSeconds is 5000: it must be 1 to 4095",
        ),
        (
            "fd00::254",
            "10.0.0.254",
            "speaker.yaml:11: peer \"tor6\" has the address 10.0.0.254 of peer \"tor\": one session for each address",
        ),
        (
            "fd00::254",
            "fe80::1",
            "speaker.yaml:11: peer \"tor6\": peerAddress fe80::1 is link-local, which is not supported: use the global or unique-local address that the router has on the link",
        ),
        (
            "- name: tor6",
            "- name: tor",
            "speaker.yaml:11: peer \"tor\" is there twice: give every peer its own name",
        ),
        (
            "localASN: 65001",
            "localASN: 0",
            "speaker.yaml:1: localASN is 0: write the AS number of this speaker, 1 to 4294967295",
        ),
        (
            "password: s3cret",
            "passwordFile: no-such-file",
            "speaker.yaml:5: peer \"tor\": cannot read passwordFile no-such-file: No such file or directory (os error 2)",
        ),
        (
            "  peerAddress: fd00::254\n",
            "",
            "speaker.yaml:13: peerAddress is missing: add it",
        ),
    ];
    for (line, by, message) in cases {
        assert_eq!(mistake(line, by), message);
    }
    let text = mistake("10.0.0.254", "10.0.0.256");
    assert!(text.starts_with("speaker.yaml:6: "), "{text}");
}

#[test]
fn a_changed_file_is_read_once_for_each_change() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("speaker.yaml");
    std::fs::write(&path, GOOD).expect("written");
    let (mut file, config) = ConfigFile::open(&path).expect("a good file");
    assert!(file.changed().is_none());
    std::fs::write(&path, "localASN: 0\n").expect("written");
    assert!(file.changed().expect("changed").is_err());
    assert!(file.changed().is_none(), "told once");
    std::fs::write(&path, GOOD).expect("written");
    assert_eq!(file.changed().expect("changed").expect("good again"), config);
}

#[test]
fn a_new_key_in_a_key_file_is_a_change() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, key) = (dir.path().join("speaker.yaml"), dir.path().join("key"));
    std::fs::write(&key, "first\n").expect("written");
    std::fs::write(&path, GOOD.replacen("password: s3cret", "passwordFile: key", 1)).expect("written");
    let (mut file, config) = ConfigFile::open(&path).expect("a good file");
    assert_eq!(config.peers[0].password, Password::new(b"first"));
    assert!(file.changed().is_none());
    std::fs::write(&key, "another\n").expect("written");
    let config = file.changed().expect("changed").expect("good");
    assert_eq!(config.peers[0].password, Password::new(b"another"));
    std::fs::remove_file(&key).expect("removed");
    let error = file.changed().expect("changed").expect_err("no key").to_string();
    assert!(error.contains("cannot read passwordFile"), "{error}");
}
