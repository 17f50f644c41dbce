//! OpenBGPD.
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use isthmus_testkit::{Process, wait_until};
use serde_json::Value;
use tempfile::TempDir;

use super::{Router, Settings, ask, prefixes_in, start, write};
use crate::support::{NODE_V4, Namespace, PATIENCE, TOR_AS, TOR_V4};

/// A running OpenBGPD.
pub(crate) struct Openbgpd {
    dir: TempDir,
    _process: Process,
}

impl Openbgpd {
    pub(crate) fn start(tor: &Namespace, settings: Settings) -> Self {
        let dir = TempDir::new().expect("a directory");
        let socket = dir.path().join("bgpd.sock");
        let text = configuration(settings, &socket.display().to_string());
        let config = write(dir.path(), "bgpd.conf", &text);
        // It refuses a configuration, which may hold keys, that others can read.
        std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o600)).expect("ours");
        // Its processes chroot to /run/openbgpd, which only the service makes: they get a /run of their own.
        let script = "mount -t tmpfs tmpfs /run && mkdir /run/openbgpd && exec bgpd -d -f \"$0\"";
        let mut command = tor.command("unshare");
        command.args(["--mount", "sh", "-c", script]).arg(config);
        let socket = dir.path().join("bgpd.sock");
        let process = answering(command, || !neighbor_at(&socket).is_null());
        Self {
            dir,
            _process: process,
        }
    }

    fn control(&self, arguments: &[&str]) -> String {
        control(&self.dir.path().join("bgpd.sock"), arguments)
    }

    fn neighbor(&self) -> Value {
        neighbor_at(&self.dir.path().join("bgpd.sock"))
    }
}

impl Router for Openbgpd {
    fn established(&self) -> bool {
        self.neighbor()["state"] == "Established"
    }

    fn learnt(&self) -> BTreeSet<String> {
        prefixes_in(&self.control(&["show", "rib", "in", "neighbor", NODE_V4]))
    }

    fn hold_time(&self) -> Option<u64> {
        self.neighbor()["session"]["holdtime"].as_u64()
    }

    fn refresh(&self) -> bool {
        self.control(&["neighbor", NODE_V4, "refresh"]);
        true
    }

    fn refreshes_received(&self) -> Option<u64> {
        self.neighbor()["stats"]["message"]["received"]["route_refresh"].as_u64()
    }

    fn report(&self) -> String {
        self.control(&["show", "neighbor", NODE_V4]) + &self.control(&["show", "rib"])
    }
}

/// Starts it until it answers: the children of one that was killed may still hold the port, and then it gives up at once.
fn answering(mut command: Command, answers: impl Fn() -> bool) -> Process {
    let respawn = |command: &mut Command| {
        let mut copy = Command::new(command.get_program());
        copy.args(command.get_args())
            .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
        start("bgpd", copy)
    };
    let mut process = respawn(&mut command);
    wait_until(PATIENCE, "bgpd answers", || {
        if process.exited().expect("our child").is_some() {
            process = respawn(&mut command);
        }
        answers()
    })
    .expect("bgpd");
    process
}

fn control(socket: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("bgpctl");
    command.arg("-j").arg("-s").arg(socket).args(arguments);
    ask(command)
}

fn neighbor_at(socket: &Path) -> Value {
    let text = control(socket, &["show", "neighbor", NODE_V4]);
    let value: Value = serde_json::from_str(&text).unwrap_or_default();
    value["neighbors"][0].clone()
}

fn configuration(settings: Settings, socket: &str) -> String {
    let Settings {
        password,
        passive,
        hold_time,
        graceful,
        node_as,
        ..
    } = settings;
    let password = password.map_or(String::new(), |key| format!("  tcp md5sig password {key}\n"));
    let passive = if passive { "  passive\n" } else { "" };
    let graceful = if graceful { "yes" } else { "no" };
    format!(
        "AS {TOR_AS}
router-id {TOR_V4}
holdtime {hold_time}
socket \"{socket}\"
fib-update no
network 192.0.2.0/24
network 2001:db8:ffff::/48
neighbor {NODE_V4} {{
  remote-as {node_as}
  announce IPv4 unicast
  announce IPv6 unicast
  announce restart {graceful}
{password}{passive}}}
allow from any
allow to any
"
    )
}
