//! Real routers from Debian, each in the namespace of the top-of-rack switch, with its own files only.
mod bird;
mod frr;
mod gobgp;
mod openbgpd;
mod own;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use isthmus_testkit::{Need, Process};

use crate::support::{NODE_V4, NODE_V6, Namespace, TOR_V4, TOR_V6};

/// What a router originates itself.
pub(crate) const ROUTER_ROUTES: [&str; 2] = ["192.0.2.0/24", "2001:db8:ffff::/48"];

/// Which implementation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// FRRouting 8.4: zebra and bgpd.
    Frr,
    /// BIRD 2.0.12.
    Bird,
    /// GoBGP 3.10: what Cilium embeds.
    Gobgp,
    /// OpenBGPD 7.7. It dies (decision process, NULL dereference) on an UPDATE that has IPv4 NLRI and an MP_REACH_NLRI but
    /// no NEXT_HOP; our speaker never sends such an UPDATE, so no story here does.
    Openbgpd,
    /// Our own speaker.
    Own,
}

/// How the router is set up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// TCP-MD5 key.
    pub(crate) password: Option<&'static str>,
    /// It waits for the node.
    pub(crate) passive: bool,
    /// Hold time that it proposes, in seconds.
    pub(crate) hold_time: u16,
    /// It keeps the node's routes over a restart.
    pub(crate) graceful: bool,
    /// The AS that it expects.
    pub(crate) node_as: u32,
    /// The session runs over IPv6 (GoBGP and OpenBGPD are not told so).
    pub(crate) over_ipv6: bool,
}

impl Settings {
    /// Our address and the node's on the link, in the family of the session.
    pub(crate) fn addresses(self) -> (&'static str, &'static str) {
        match self.over_ipv6 {
            true => (TOR_V6, NODE_V6),
            false => (TOR_V4, NODE_V4),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            password: None,
            passive: false,
            hold_time: 90,
            graceful: false,
            node_as: crate::support::NODE_AS,
            over_ipv6: false,
        }
    }
}

/// A running router.
pub(crate) trait Router {
    /// Whether its session with the node is up.
    fn established(&self) -> bool;
    /// What it has learnt from the node, both families.
    fn learnt(&self) -> BTreeSet<String>;
    /// Hold time in force, in seconds.
    fn hold_time(&self) -> Option<u64>;
    /// Asks the node for its routes again (RFC 2918); false if this implementation never does.
    fn refresh(&self) -> bool;
    /// How often the node has asked for the router's routes again, if it counts that.
    fn refreshes_received(&self) -> Option<u64> {
        None
    }
    /// Everything a person wants to see when a story goes wrong.
    fn report(&self) -> String;
}

impl Kind {
    /// What must be installed.
    pub(crate) fn needs(self) -> Vec<Need> {
        let program = |name, package| Need::Program { name, package };
        let own = match self {
            Self::Frr => vec![program("zebra", "frr"), program("vtysh", "frr")],
            Self::Bird => vec![program("bird", "bird2"), program("birdc", "bird2")],
            Self::Gobgp => vec![program("gobgpd", "gobgpd"), program("gobgp", "gobgpd")],
            Self::Openbgpd => vec![program("bgpctl", "openbgpd")],
            Self::Own => Vec::new(),
        };
        [vec![Need::Root, program("ip", "iproute2")], own].concat()
    }

    /// Starts it.
    pub(crate) fn start(self, tor: &Namespace, settings: Settings) -> Box<dyn Router> {
        match self {
            Self::Frr => Box::new(frr::Frr::start(tor, settings)),
            Self::Bird => Box::new(bird::Bird::start(tor, settings)),
            Self::Gobgp => Box::new(gobgp::Gobgp::start(tor, settings)),
            Self::Openbgpd => Box::new(openbgpd::Openbgpd::start(tor, settings)),
            Self::Own => Box::new(own::Own::start(tor, settings)),
        }
    }
}

fn start(name: &str, command: Command) -> Process {
    Process::start(name, command).expect("nsenter runs")
}

/// The output of a control program; empty if it fails (the router may not answer yet).
fn ask(mut command: Command) -> String {
    let output = command.output().expect("the control program runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn write(directory: &Path, name: &str, text: &str) -> std::path::PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, text).expect("a writable directory");
    path
}

/// The words of a text that are prefixes, without the router's own.
fn prefixes_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| c.is_whitespace() || "\",{}[]".contains(c));
    let prefixes = words.filter_map(|word| word.parse::<ipnet::IpNet>().ok());
    prefixes
        .map(|prefix| prefix.to_string())
        .filter(|prefix| !ROUTER_ROUTES.contains(&prefix.as_str()))
        .collect()
}
