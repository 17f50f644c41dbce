//! BIRD 2.
use std::collections::BTreeSet;
use std::process::Command;

use isthmus_testkit::{Process, wait_until};
use tempfile::TempDir;

use super::{Router, Settings, ask, prefixes_in, start, write};
use crate::support::{Namespace, PATIENCE, TOR_AS, TOR_V4};

/// A running BIRD.
pub(crate) struct Bird {
    dir: TempDir,
    _process: Process,
}

impl Bird {
    pub(crate) fn start(tor: &Namespace, settings: Settings) -> Self {
        let dir = TempDir::new().expect("a directory");
        let config = write(dir.path(), "bird.conf", &configuration(settings));
        let mut command = tor.command("bird");
        command.arg("-f").arg("-c").arg(config);
        command.arg("-s").arg(dir.path().join("bird.ctl"));
        command.arg("-P").arg(dir.path().join("bird.pid"));
        let process = start("bird", command);
        let new = Self {
            dir,
            _process: process,
        };
        wait_until(PATIENCE, "bird answers", || {
            new.show("status").contains("Daemon is up")
        })
        .expect("bird");
        new
    }

    fn show(&self, what: &str) -> String {
        self.control(&format!("show {what}"))
    }

    fn control(&self, what: &str) -> String {
        let mut command = Command::new("birdc");
        command
            .arg("-s")
            .arg(self.dir.path().join("bird.ctl"))
            .args(what.split(' '));
        ask(command)
    }
}

impl Router for Bird {
    fn established(&self) -> bool {
        self.show("protocols node").contains("Established")
    }

    fn learnt(&self) -> BTreeSet<String> {
        prefixes_in(&self.show("route protocol node"))
    }

    fn hold_time(&self) -> Option<u64> {
        let all = self.show("protocols all node");
        let line = all.lines().find(|line| line.contains("Hold timer:"))?;
        line.rsplit('/').next()?.trim().parse().ok()
    }

    fn refresh(&self) -> bool {
        self.control("reload in node");
        true
    }

    fn report(&self) -> String {
        self.show("protocols all node") + &self.show("route all")
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
    let (ours, node) = settings.addresses();
    let password = password.map_or(String::new(), |key| format!("  password \"{key}\";\n"));
    let passive = if passive { "  passive on;\n" } else { "" };
    let graceful = if graceful { "on" } else { "aware" };
    format!(
        "router id {TOR_V4};
protocol device {{ }}
protocol static s4 {{ ipv4; route 192.0.2.0/24 blackhole; }}
protocol static s6 {{ ipv6; route 2001:db8:ffff::/48 blackhole; }}
protocol bgp node {{
  local {ours} as {TOR_AS};
  neighbor {node} as {node_as};
  hold time {hold_time};
  connect delay time 1;
  connect retry time 1;
  error wait time 1, 2;
  graceful restart {graceful};
{password}{passive}  ipv4 {{ import all; export where source = RTS_STATIC; }};
  ipv6 {{ import all; export where source = RTS_STATIC; }};
}}
"
    )
}
