//! The command line: arguments, exit codes, errors in every format. Nothing here needs root or a lab.
mod rig;

use std::os::unix::process::CommandExt;
use std::process::Command;

use rig::{MESHCTL, meshctl, run};

/// | command line                         | exit | said on standard error            |
#[test]
fn a_wrong_command_line_ends_with_1_and_says_what_is_right() {
    let rows: [(&[&str], &str); 9] = [
        (&[], "Usage: meshctl"),
        (&["lap", "up"], "similar subcommand exists: 'lab'"),
        (
            &["status", "-o", "xml"],
            "possible values: table, wide, json, yaml",
        ),
        (&["connect", "east"], "<SECOND>"),
        (&["lab", "up", "--name", "../x"], "is no name for a lab"),
        (
            &["lab", "up", "--tor", "cisco"],
            "possible values: frr, bird, self",
        ),
        (&["lab", "exec", "client"], "<COMMAND>"),
        (
            &["status", "--lab", "x", "--context-dir", "/tmp"],
            "cannot be used with",
        ),
        (&["bgp", "routes", "sideways"], "possible values: in, out, best"),
    ];
    for (args, said) in rows {
        let run = meshctl(args);
        assert_eq!(run.code, 1, "{args:?}: {}", run.err);
        assert!(run.err.contains(said), "{args:?}: {}", run.err);
    }
}

#[test]
fn help_version_and_completion_end_with_0() {
    let help = meshctl(&["--help"]);
    assert_eq!(help.code, 0);
    assert!(
        help.out
            .contains("Exit codes: 0 ok, 1 usage, 2 degraded, 3 down, 4 unreachable, 5 timeout")
    );
    assert!(!help.out.contains("__run"), "hidden commands stay hidden");
    assert_eq!(meshctl(&["--version"]).code, 0);
    for shell in ["bash", "zsh", "fish"] {
        let script = meshctl(&["completion", shell]);
        assert_eq!(script.code, 0);
        assert!(script.out.contains("disconnect"), "{shell}");
    }
}

#[test]
fn a_lab_that_is_not_up_is_down_in_every_format_and_the_next_command_is_named() {
    for format in ["table", "wide", "json", "yaml"] {
        for args in [
            &["status", "--lab", "nowhere", "-o", format][..],
            &["lab", "status", "--name", "nowhere", "-o", format],
        ] {
            let run = meshctl(args);
            assert_eq!(run.code, 3, "{args:?}: {}", run.err);
            assert!(run.err.contains("no lab nowhere is up"), "{}", run.err);
            assert!(run.err.contains("meshctl lab up --name nowhere"), "{}", run.err);
            let object = matches!(format, "json" | "yaml");
            assert_eq!(run.out.contains("cli.isthmus.io/v1"), object, "{}", run.out);
        }
    }
    assert_eq!(
        meshctl(&["lab", "down", "--name", "nowhere"]).code,
        0,
        "nothing to do is no failure"
    );
}

#[test]
fn a_socket_where_nobody_listens_is_unreachable() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("agent.sock");
    let socket = socket.display().to_string();
    for verb in [
        &["status"][..],
        &["services"],
        &["nodes"],
        &["bgp", "peers"],
        &["bgp", "routes", "in"],
    ] {
        let run = meshctl(&[verb, &["--socket", &socket]].concat());
        assert_eq!(run.code, 4, "{verb:?}: {}", run.err);
        assert!(run.err.contains(&socket), "{}", run.err);
    }
    let waited = meshctl(&["status", "--socket", &socket, "--wait", "--timeout", "0"]);
    assert_eq!(waited.code, 5, "{}", waited.err);
    Ok(())
}

#[test]
fn clusters_that_cannot_be_joined_are_left_as_they_are() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    for (name, cidr) in [("east", "10.1.0.0/16"), ("west", "10.1.0.0/17")] {
        std::fs::create_dir_all(dir.path().join(name))?;
        let text = format!(
            "name: {name}\nid: 1\npodCIDRs: [{cidr}]\nendpoints: [\"https://192.0.2.1:2379\"]\nnodes: []\n"
        );
        std::fs::write(dir.path().join(name).join("cluster.yaml"), text)?;
    }
    let dir = dir.path().display().to_string();
    let run = meshctl(&["connect", "east", "west", "--context-dir", &dir]);
    assert_eq!(run.code, 1, "{}", run.err);
    for found in [
        "both have id 1",
        "pod CIDRs overlap: 10.1.0.0/16 of east and 10.1.0.0/17 of west",
        "authority of east",
        "the clustermesh-apiserver of west does not answer",
        "nothing was changed",
    ] {
        assert!(run.err.contains(found), "{found}: {}", run.err);
    }
    assert!(!std::path::Path::new(&dir).join("east/clustermesh").exists());
    let unknown = meshctl(&["connect", "east", "north", "--context-dir", &dir]);
    assert!(
        unknown.err.contains("there is no cluster north"),
        "{}",
        unknown.err
    );
    assert!(unknown.err.contains("east, west"), "{}", unknown.err);
    Ok(())
}

#[test]
fn without_root_the_lab_says_so_in_one_sentence() {
    if !rig::can_make_labs("without_root_the_lab_says_so_in_one_sentence") {
        return; // Only root can become somebody else.
    }
    let nobody = 65_534;
    let mut command = Command::new(MESHCTL);
    command
        .args(["lab", "up", "--name", "nobody"])
        .uid(nobody)
        .gid(nobody);
    if command.get_program().is_empty()
        || Command::new(MESHCTL)
            .uid(nobody)
            .gid(nobody)
            .arg("--version")
            .output()
            .is_err()
    {
        eprintln!("SKIPPED: {MESHCTL} cannot be executed by another user");
        return;
    }
    let run = run(&mut command);
    assert_eq!(run.code, 4, "{}", run.err);
    assert!(
        run.err.contains("the lab needs root") && run.err.contains("sudo meshctl lab up"),
        "{}",
        run.err
    );
}
