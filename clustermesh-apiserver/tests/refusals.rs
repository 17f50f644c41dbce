//! Bad flags and files: one clear sentence with cause and cure, exit code 1, nothing left behind.

mod rig;

use std::net::TcpListener;
use std::process::Command;

use isthmus_trust::{LeafRequest, PairFiles, ServerNames, Validity};
use jiff::{SignedDuration, Timestamp};
use rig::{Rig, run};

#[track_caller]
fn refused(rig: &Rig, command: &mut Command, words: &[&str]) {
    let output = run(command);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let said = said.trim_end();
    assert!(
        said.starts_with("clustermesh-apiserver: ") && said.lines().count() == 1,
        "one sentence: {said}"
    );
    for word in words {
        assert!(said.contains(word), "{word:?} in: {said}");
    }
    assert!(!rig.path("admin.sock").exists(), "nothing is left behind");
}

#[test]
fn names_and_numbers() {
    let rig = Rig::new("east");
    let cases: [(&[&str], &[&str]); 8] = [
        (&["--cluster-id", "0"], &["--cluster-id", "1", "255"]),
        (&["--cluster-id", "256"], &["--cluster-id", "256", "255"]),
        (
            &["--cluster-id", "512", "--max-connected-clusters", "511"],
            &["512", "511"],
        ),
        (
            &["--max-connected-clusters", "300"],
            &["--max-connected-clusters", "255", "511"],
        ),
        (&["--cluster-name", "East"], &["--cluster-name", "East"]),
        (&["--cluster-name", "default"], &["--cluster-name", "default"]),
        (&["--kvstore-lease-ttl", "5"], &["--kvstore-lease-ttl", "25"]),
        (
            &["--manifests", "/no/such/place"],
            &["--manifests", "/no/such/place", "create"],
        ),
    ];
    for (spoil, words) in cases {
        // A later flag may not repeat an earlier one, so the spoiled one replaces it.
        let good = rig.command();
        let mut command = Command::new(good.get_program());
        let args: Vec<_> = good
            .get_args()
            .map(|arg| arg.to_string_lossy().into_owned())
            .collect();
        for pair in args.chunks(2).filter(|pair| !spoil.contains(&pair[0].as_str())) {
            command.args(pair);
        }
        refused(&rig, command.args(spoil), words);
    }
}

#[test]
fn a_port_in_use() {
    let rig = Rig::new("east");
    let _holder = TcpListener::bind(("127.0.0.1", rig.port)).unwrap();
    refused(
        &rig,
        &mut rig.command(),
        &[
            &rig.port.to_string(),
            "cannot listen",
            "another program has the port",
        ],
    );
}

#[test]
fn certificates() {
    let rig = Rig::new("east");
    let pair = PairFiles::new(rig.path("tls.crt"), rig.path("tls.key"));
    let days = |n: i64| SignedDuration::from_hours(24 * n);
    let now = Timestamp::now();
    let old = Validity {
        from: now - days(90),
        until: now - days(60),
    };
    let request = LeafRequest::server(&ServerNames::default(), old).unwrap();
    rig.ca.issue(&request).unwrap().save(&pair).unwrap();
    refused(&rig, &mut rig.command(), &["tls.crt", "expired", "meshctl"]);

    let request = LeafRequest::server(&ServerNames::default(), Validity::days(now, 30)).unwrap();
    Rig::new("west").ca.issue(&request).unwrap().save(&pair).unwrap();
    refused(&rig, &mut rig.command(), &["tls.crt", "CA west", "CA east"]);

    let key = std::fs::read(&pair.key).unwrap();
    rig.ca.issue(&request).unwrap().save(&pair).unwrap();
    std::fs::write(&pair.key, key).unwrap();
    refused(&rig, &mut rig.command(), &["tls.key", "is not the private key"]);

    std::fs::remove_file(&pair.key).unwrap();
    refused(&rig, &mut rig.command(), &["tls.key", "cannot be read"]);

    let mut command = Command::new(rig::PROGRAM);
    command
        .args(["--cluster-name", "east", "--cluster-id", "1"])
        .arg("--manifests")
        .arg(rig.path("manifests"));
    refused(&rig, &mut command, &["--tls-dir"]);
}

#[test]
fn help_is_no_failure_and_an_unknown_flag_is() {
    let help = run(Command::new(rig::PROGRAM).arg("--help"));
    assert!(help.status.success() && String::from_utf8(help.stdout).unwrap().contains("--cluster-name"));
    let unknown = run(Command::new(rig::PROGRAM).arg("--no-such-flag"));
    assert_eq!(unknown.status.code(), Some(1));
}
