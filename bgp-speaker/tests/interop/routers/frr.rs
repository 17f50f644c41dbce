//! FRRouting: zebra and bgpd, without the service and without /etc/frr.
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use isthmus_testkit::{Process, find_program, wait_until};
use serde_json::Value;
use tempfile::TempDir;

use super::{Router, Settings, ask, start, write};
use crate::support::{Namespace, PATIENCE, TOR_AS, TOR_V4};

/// A running FRR.
pub(crate) struct Frr {
    dir: TempDir,
    _bgpd: Process,
    _zebra: Process,
    node: &'static str,
}

impl Frr {
    pub(crate) fn start(tor: &Namespace, settings: Settings) -> Self {
        let dir = TempDir::new().expect("a directory");
        write(dir.path(), "zebra.conf", "hostname tor\n");
        write(dir.path(), "bgpd.conf", &configuration(settings));
        give_to_frr(dir.path());
        let zebra = start("zebra", daemon(tor, dir.path(), "zebra"));
        let zserv = dir.path().join("zserv.api");
        wait_until(PATIENCE, "zebra listens", || zserv.exists()).expect("zebra");
        let bgpd = start("bgpd", daemon(tor, dir.path(), "bgpd"));
        let new = Self {
            dir,
            _bgpd: bgpd,
            _zebra: zebra,
            node: settings.addresses().1,
        };
        wait_until(PATIENCE, "bgpd answers", || !new.neighbor().is_null()).expect("bgpd");
        new
    }

    fn show(&self, what: &str) -> String {
        let mut command = Command::new("vtysh");
        command
            .arg("--vty_socket")
            .arg(self.dir.path())
            .args(["-c", what]);
        ask(command)
    }

    fn neighbor(&self) -> Value {
        let text = self.show(&format!("show bgp neighbors {} json", self.node));
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        value[self.node].clone()
    }
}

impl Router for Frr {
    fn established(&self) -> bool {
        self.neighbor()["bgpState"] == "Established"
    }

    fn learnt(&self) -> BTreeSet<String> {
        let family = |family: &str| -> Vec<String> {
            let text = self.show(&format!("show bgp {family} unicast json"));
            let value: Value = serde_json::from_str(&text).unwrap_or_default();
            let routes = value["routes"].as_object().cloned().unwrap_or_default();
            routes
                .into_iter()
                .filter(|(_, paths)| paths[0]["peerId"] == self.node)
                .map(|(prefix, _)| prefix)
                .collect()
        };
        ["ipv4", "ipv6"].into_iter().flat_map(family).collect()
    }

    fn hold_time(&self) -> Option<u64> {
        Some(self.neighbor()["bgpTimerHoldTimeMsecs"].as_u64()? / 1000)
    }

    fn refresh(&self) -> bool {
        self.show("clear bgp * soft in");
        true
    }

    fn report(&self) -> String {
        self.show("show bgp neighbors") + &self.show("show bgp all")
    }
}

fn configuration(settings: Settings) -> String {
    let Settings {
        password,
        passive,
        hold_time,
        graceful,
        node_as,
        ..
    } = settings;
    let (_, node) = settings.addresses();
    let keepalive = hold_time / 3;
    let password = password.map_or(String::new(), |key| format!(" neighbor {node} password {key}\n"));
    let passive = if passive {
        format!(" neighbor {node} passive\n")
    } else {
        String::new()
    };
    let graceful = if graceful { " bgp graceful-restart\n" } else { "" };
    format!(
        "hostname tor
log stdout
debug bgp neighbor-events
debug bgp updates in
router bgp {TOR_AS}
 bgp router-id {TOR_V4}
 no bgp ebgp-requires-policy
 no bgp network import-check
 no bgp default ipv4-unicast
{graceful} neighbor {node} remote-as {node_as}
 neighbor {node} timers {keepalive} {hold_time}
 neighbor {node} timers connect 1
{password}{passive} address-family ipv4 unicast
  network 192.0.2.0/24
  neighbor {node} activate
 exit-address-family
 address-family ipv6 unicast
  network 2001:db8:ffff::/48
  neighbor {node} activate
 exit-address-family
"
    )
}

/// bgpd and zebra insist on running as user frr.
fn give_to_frr(dir: &Path) {
    let user = nix::unistd::User::from_name("frr")
        .expect("a user database")
        .expect("the package made user frr");
    std::os::unix::fs::chown(dir, Some(user.uid.as_raw()), Some(user.gid.as_raw())).expect("root may");
    for name in ["zebra.conf", "bgpd.conf"] {
        let file = dir.join(name);
        std::os::unix::fs::chown(file, Some(user.uid.as_raw()), Some(user.gid.as_raw())).expect("root may");
    }
}

fn daemon(tor: &Namespace, dir: &Path, name: &str) -> Command {
    let program = find_program_of_frr(name);
    let mut command = tor.command(program);
    command.args([
        "-u",
        "frr",
        "-g",
        "frr",
        "-A",
        "127.0.0.1",
        "-P",
        "0",
        "--log",
        "stdout",
    ]);
    command.arg("--vty_socket").arg(dir);
    command.arg("-z").arg(dir.join("zserv.api"));
    command.arg("-i").arg(dir.join(format!("{name}.pid")));
    command.arg("-f").arg(dir.join(format!("{name}.conf")));
    command
}

/// OpenBGPD has a program of the same name, bgpd, on PATH.
fn find_program_of_frr(name: &str) -> std::path::PathBuf {
    let debian = Path::new("/usr/lib/frr").join(name);
    if debian.exists() {
        debian
    } else {
        find_program(name).expect("checked before")
    }
}
