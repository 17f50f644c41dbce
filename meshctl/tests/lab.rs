//! The lab without its daemons: what `up` makes, `down` takes away, whatever happens between.
mod rig;

use std::process::{Command, Stdio};
use std::time::Duration;

use isthmus_testkit::wait_until;
use rig::{LabGuard, MESHCTL, Run, can_make_labs};

fn good(run: &Run) -> &Run {
    assert_eq!(run.code, 0, "{}\n{}", run.out, run.err);
    run
}

/// ```text
///   up ─► up again ─► down ─► down again
///   ok    refused     ok      nothing to do
/// ```
#[test]
fn up_twice_is_refused_and_down_leaves_nothing() {
    if !can_make_labs("up_twice_is_refused_and_down_leaves_nothing") {
        return;
    }
    let lab = LabGuard::new("a");
    good(&lab.lab("up", &["--bare"]));
    let ledger = std::fs::read(lab.root().join("ledger")).expect("ledger");
    let again = lab.lab("up", &["--bare"]);
    assert_eq!(again.code, 1, "{}", again.err);
    assert!(
        again.err.contains("is already up, and stays as it is"),
        "{}",
        again.err
    );
    assert_eq!(
        std::fs::read(lab.root().join("ledger")).expect("ledger"),
        ledger,
        "state untouched"
    );
    good(&lab.lab("status", &[]));

    let down = lab.lab("down", &[]);
    assert!(good(&down).err.contains("nothing is left"), "{}", down.err);
    assert_eq!(lab.traces(), Vec::<String>::new());
    assert!(good(&lab.lab("down", &[])).err.contains("nothing to do"));
}

/// `lab up` is killed after 0, 3, 6, … entries of its ledger; `lab down` must find all that it had made.
#[test]
fn down_after_a_crash_in_the_middle_of_up_leaves_nothing() {
    if !can_make_labs("down_after_a_crash_in_the_middle_of_up_leaves_nothing") {
        return;
    }
    for entries in (0..27).step_by(3) {
        let lab = LabGuard::new("b");
        let mut up = Command::new(MESHCTL)
            .args(["lab", "up", "--bare", "--name", &lab.name])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let ledger = lab.root().join("ledger");
        let lines = || {
            std::fs::read_to_string(&ledger)
                .unwrap_or_default()
                .lines()
                .count()
        };
        wait_until(Duration::from_secs(20), "the ledger grows", || {
            ledger.exists() && lines() >= entries || up.try_wait().ok().flatten().is_some()
        })
        .expect("in time");
        up.kill().expect("killed");
        up.wait().expect("collected");
        good(&lab.lab("down", &[]));
        assert_eq!(lab.traces(), Vec::<String>::new(), "after {entries} entries");
    }
}

/// `lab down` is killed when so many of the lab's 16 namespaces are left; a second one does the rest.
#[test]
fn down_after_a_crash_in_the_middle_of_down_leaves_nothing() {
    if !can_make_labs("down_after_a_crash_in_the_middle_of_down_leaves_nothing") {
        return;
    }
    for left in [16, 12, 6, 0] {
        let lab = LabGuard::new("i");
        good(&lab.lab("up", &["--bare"]));
        let mut down = Command::new(MESHCTL)
            .args(["lab", "down", "--name", &lab.name])
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let namespaces = || lab.traces().iter().filter(|t| t.starts_with("namespace")).count();
        wait_until(Duration::from_secs(20), "namespaces go", || {
            namespaces() <= left || down.try_wait().ok().flatten().is_some()
        })
        .expect("in time");
        down.kill().expect("killed");
        down.wait().expect("collected");
        good(&lab.lab("down", &[]));
        assert_eq!(lab.traces(), Vec::<String>::new(), "with {left} namespaces left");
    }
}

#[test]
fn a_namespace_that_the_lab_did_not_make_stays_and_is_named() {
    if !can_make_labs("a_namespace_that_the_lab_did_not_make_stays_and_is_named") {
        return;
    }
    let lab = LabGuard::new("c");
    let foreign = format!("{}-tor", lab.name);
    isthmus_netlink::Netns::create(&foreign).expect("a namespace");
    let up = lab.lab("up", &["--bare"]);
    assert_eq!(up.code, 1, "{}", up.err);
    assert!(
        up.err.contains(&foreign) && up.err.contains("choose another --name"),
        "{}",
        up.err
    );
    assert_eq!(
        lab.traces(),
        [format!("namespace {foreign}")],
        "only the foreign one is there"
    );
    isthmus_netlink::Netns::delete(&foreign).expect("deleted");
}

/// Two labs have the same addresses and do not see each other; what is broken in one is whole in the other.
#[test]
fn two_labs_side_by_side() {
    if !can_make_labs("two_labs_side_by_side") {
        return;
    }
    let (one, two) = (LabGuard::new("d"), LabGuard::new("e"));
    good(&one.lab("up", &["--bare"]));
    good(&two.lab("up", &["--bare"]));
    let ask = |lab: &LabGuard| {
        let echo = [
            "box-east-1",
            "--",
            MESHCTL,
            "__traffic",
            "--target",
            "10.1.1.10:8080",
            "--count",
            "1",
        ];
        lab.lab("exec", &echo).out
    };
    assert!(ask(&one).contains("+ east east-1 echo-east-1"));
    good(&one.lab("break", &["pods:east/echo"]));
    assert!(ask(&one).contains("Connection refused"), "{}", ask(&one));
    assert!(ask(&two).contains("+ east east-1 echo-east-1"));

    good(&one.lab("down", &[]));
    assert_eq!(one.traces(), Vec::<String>::new());
    assert!(
        ask(&two).contains("+ east east-1 echo-east-1"),
        "the other lab lives on"
    );
    good(&two.lab("down", &[]));
    assert_eq!(two.traces(), Vec::<String>::new());
}

/// | broken             | what a client in the same place sees      | lab status            |
/// |--------------------|-------------------------------------------|-----------------------|
/// | pods:east/echo     | refused                                   | pods dead             |
/// | node:east-2        | nothing, in both families                 | link cut              |
/// | link:tor-east-2    | nothing, in both families                 | link cut              |
#[test]
fn what_is_broken_is_seen_and_what_is_healed_works() {
    if !can_make_labs("what_is_broken_is_seen_and_what_is_healed_works") {
        return;
    }
    let lab = LabGuard::new("f");
    good(&lab.lab("up", &["--bare"]));
    let ask = |from: &str, target: &str| {
        let args = [
            from,
            "--",
            MESHCTL,
            "__traffic",
            "--timeout-ms",
            "300",
            "--count",
            "1",
            "--target",
            target,
        ];
        lab.lab("exec", &args).out
    };
    // Nobody listens on the node itself: refused means that packets pass, no answer that they do not.
    let reach = |v6: bool| {
        let target = if v6 {
            "[fd00:30:1:2::2]:8080"
        } else {
            "172.30.1.10:8080"
        };
        ask("client", target).contains("refused")
    };
    assert!(
        reach(false) && reach(true),
        "both families reach east-2 from the client"
    );
    for part in ["node:east-2", "link:tor-east-2"] {
        for _ in 0..2 {
            good(&lab.lab("break", &[part]));
            assert!(!reach(false) && !reach(true), "{part} is broken");
        }
        let status = lab.lab("status", &["-o", "json"]);
        assert_eq!(status.code, 2, "{}", status.out);
        assert!(status.out.contains(r#""state": "cut""#), "{}", status.out);
        for _ in 0..2 {
            good(&lab.lab("heal", &[part]));
            assert!(reach(false) && reach(true), "{part} is healed");
        }
    }
    good(&lab.lab("break", &["pods:east/echo"]));
    assert!(ask("box-east-1", "10.1.1.10:8080").contains("refused"));
    let slice = lab.root().join("east/manifests/endpointslice-echo-ipv4.yaml");
    assert!(
        !std::fs::read_to_string(&slice)
            .expect("slice")
            .contains("ready: true")
    );
    assert_eq!(lab.lab("status", &[]).code, 2);
    good(&lab.lab("heal", &[]));
    assert!(ask("box-east-1", "[fd00:10:1:1::a]:8080").contains("+ east east-1 echo-east-1"));
    assert!(
        !std::fs::read_to_string(&slice)
            .expect("slice")
            .contains("ready: false")
    );
    good(&lab.lab("status", &[]));

    for (part, said) in [
        ("node:north-1", "use one of: east-1"),
        ("pods:east/web", "no service web"),
        ("moon", "pods:east/echo"),
    ] {
        let run = lab.lab("break", &[part]);
        assert_eq!(run.code, 1, "{}", run.err);
        assert!(run.err.contains(said), "{}", run.err);
    }
    assert!(
        lab.lab("exec", &["moon", "--", "true"])
            .err
            .contains("there is no place moon")
    );
    assert_eq!(
        lab.lab("exec", &["client", "--", "sh", "-c", "exit 7"]).code,
        7,
        "exec passes the exit code on"
    );
}

/// The daemons are shell scripts that end at once: `lab up` does not wait for its time-out, says which one ended and what it
/// said last, and leaves nothing behind.
#[test]
fn a_daemon_that_ends_at_once_is_named_with_its_last_words() -> std::io::Result<()> {
    if !can_make_labs("a_daemon_that_ends_at_once_is_named_with_its_last_words") {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let meshctl = dir.path().join("meshctl");
    std::fs::copy(MESHCTL, &meshctl)?;
    for daemon in ["clustermesh-apiserver", "isthmus-agent", "bgp-speaker"] {
        let script = dir.path().join(daemon);
        std::fs::write(&script, "#!/bin/sh\necho the kernel is too old >&2\nexit 1\n")?;
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    }
    let lab = LabGuard::new("h");
    let start = std::time::Instant::now();
    let up = rig::run(Command::new(&meshctl).args(["lab", "up", "--name", &lab.name, "--timeout", "60"]));
    assert_eq!(up.code, 5, "{}", up.err);
    for said in [
        "apiserver:east",
        "but it has ended",
        "the kernel is too old",
        "removed again",
    ] {
        assert!(up.err.contains(said), "{said}: {}", up.err);
    }
    assert!(
        start.elapsed() < Duration::from_secs(30),
        "it did not wait in vain"
    );
    assert_eq!(lab.traces(), Vec::<String>::new());

    std::fs::remove_file(dir.path().join("isthmus-agent"))?;
    let mut command = Command::new(&meshctl);
    command
        .env("PATH", "/nowhere")
        .args(["lab", "up", "--name", &lab.name]);
    let up = rig::run(&mut command);
    assert_eq!(up.code, 4, "{}", up.err);
    assert!(
        up.err.contains("isthmus-agent") && up.err.contains("make build"),
        "{}",
        up.err
    );
    Ok(())
}
