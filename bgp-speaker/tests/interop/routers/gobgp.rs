//! GoBGP, the engine inside Cilium.
use std::collections::BTreeSet;

use isthmus_testkit::{Process, wait_until};
use serde_json::Value;
use tempfile::TempDir;

use super::{ROUTER_ROUTES, Router, Settings, ask, start, write};
use crate::support::{NODE_V4, Namespace, PATIENCE, TOR_AS, TOR_V4, TOR_V6};

/// A running GoBGP. Its API listens on loopback of the namespace.
pub(crate) struct Gobgp {
    _dir: TempDir,
    _process: Process,
    namespace: String,
}

impl Gobgp {
    pub(crate) fn start(tor: &Namespace, settings: Settings) -> Self {
        let dir = TempDir::new().expect("a directory");
        let config = write(dir.path(), "gobgp.toml", &configuration(settings));
        let mut command = tor.command("gobgpd");
        command.arg("-f").arg(config);
        command.args(["--api-hosts", "127.0.0.1:50051", "--pprof-disable"]);
        let process = start("gobgpd", command);
        let new = Self {
            _dir: dir,
            _process: process,
            namespace: tor.name().to_owned(),
        };
        wait_until(PATIENCE, "gobgpd answers", || new.neighbor().is_object()).expect("gobgpd");
        for (prefix, family, next_hop) in [
            (ROUTER_ROUTES[0], "ipv4", TOR_V4),
            (ROUTER_ROUTES[1], "ipv6", TOR_V6),
        ] {
            new.control(&["global", "rib", "add", prefix, "nexthop", next_hop, "-a", family]);
        }
        new
    }

    fn control(&self, arguments: &[&str]) -> String {
        let mut command = std::process::Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.namespace));
        command.args(["gobgp", "-u", "127.0.0.1", "-p", "50051"]);
        command.args(arguments);
        ask(command)
    }

    fn neighbor(&self) -> Value {
        let text = self.control(&["neighbor", NODE_V4, "-j"]);
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        if value.is_array() { value[0].clone() } else { value }
    }
}

impl Router for Gobgp {
    fn established(&self) -> bool {
        self.neighbor()["state"]["session_state"] == 6
    }

    fn learnt(&self) -> BTreeSet<String> {
        let family = |family: &str| -> Vec<String> {
            let text = self.control(&["global", "rib", "-a", family, "-j"]);
            let value: Value = serde_json::from_str(&text).unwrap_or_default();
            let table = value.as_object().cloned().unwrap_or_default();
            table
                .into_iter()
                .filter(|(_, paths)| paths[0]["neighbor-ip"] == NODE_V4)
                .map(|(prefix, _)| prefix)
                .collect()
        };
        ["ipv4", "ipv6"].into_iter().flat_map(family).collect()
    }

    fn hold_time(&self) -> Option<u64> {
        self.neighbor()["timers"]["state"]["negotiated_hold_time"].as_u64()
    }

    fn refresh(&self) -> bool {
        // `softresetin` only runs its import policy again.
        false
    }

    fn report(&self) -> String {
        let shown: [&[&str]; 3] = [
            &["neighbor", NODE_V4],
            &["global", "rib", "-a", "ipv4"],
            &["global", "rib", "-a", "ipv6"],
        ];
        shown.map(|arguments| self.control(arguments)).concat()
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
    let password = password.map_or(String::new(), |key| format!("    auth-password = \"{key}\"\n"));
    let keepalive = hold_time / 3;
    let family = |name: &str| {
        format!(
            "  [[neighbors.afi-safis]]
    [neighbors.afi-safis.config]
      afi-safi-name = \"{name}\"
    [neighbors.afi-safis.mp-graceful-restart.config]
      enabled = {graceful}
"
        )
    };
    format!(
        "[global.config]
  as = {TOR_AS}
  router-id = \"{TOR_V4}\"
[[neighbors]]
  [neighbors.config]
    neighbor-address = \"{NODE_V4}\"
    peer-as = {node_as}
{password}  [neighbors.timers.config]
    connect-retry = 1
    hold-time = {hold_time}
    keepalive-interval = {keepalive}
    idle-hold-time-after-reset = 1
  [neighbors.transport.config]
    passive-mode = {passive}
  [neighbors.graceful-restart.config]
    enabled = {graceful}
    restart-time = 30
{}{}",
        family("ipv4-unicast"),
        family("ipv6-unicast")
    )
}
