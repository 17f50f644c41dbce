//! Our own speaker as the router, where neither FRR nor BIRD is installed. The speaker installs no routes, so a helper of
//! the lab copies what it learns into the router's kernel.
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use ipnet::IpNet;
use isthmus_admin::AdminClient;
use isthmus_admin::bgp::RouteView;
use isthmus_netlink::{Netlink, Route};

use super::super::paths::{Paths, own_program};
use super::super::plan::{Plan, TOR_AS};
use super::super::process::Spec;
use crate::failure::{Doing, Failure, Outcome};

/// rtproto of BGP, as the other routers use it.
const PROTOCOL: u8 = 186;

/// The hidden command that copies routes into the kernel.
#[derive(Debug, Args)]
pub(crate) struct FibArgs {
    /// The speaker's admin socket.
    #[arg(long)]
    socket: PathBuf,
}

/// Writes the configuration and gives the speaker, then the helper.
pub(super) fn processes(plan: &Plan, paths: &Paths) -> Outcome<Vec<(Spec, PathBuf)>> {
    let dir = paths.tor();
    let manifests = dir.join("manifests");
    fs::create_dir_all(&manifests).doing(format!("make {}", manifests.display()))?;
    let (conf, socket) = (dir.join("speaker.yaml"), dir.join("bgp.sock"));
    fs::write(&conf, speaker_conf(plan)).doing("write speaker.yaml")?;
    let speaker =
        own_program("bgp-speaker").ok_or_else(|| Failure::unreachable("bgp-speaker was not found"))?;
    let meshctl = std::env::current_exe().doing("find meshctl itself")?;
    let text = |path: &PathBuf| path.display().to_string();
    let args = vec![
        "--node-name".into(),
        "tor".into(),
        "--manifests".into(),
        text(&manifests),
        "--config".into(),
        text(&conf),
        "--admin-socket".into(),
        text(&socket),
    ];
    let helper = vec!["__fib".into(), "--socket".into(), text(&socket)];
    Ok(vec![
        (
            super::spec(plan, paths, "bgp-speaker", &speaker, args),
            socket.clone(),
        ),
        (super::spec(plan, paths, "fib", &meshctl, helper), socket),
    ])
}

fn speaker_conf(plan: &Plan) -> String {
    let mut text = format!(
        "localASN: {TOR_AS}\nrouterID: {}\nlisten: {{port: 179}}\npeers:\n",
        super::router_id(plan)
    );
    for (name, ip, asn) in super::neighbours(plan) {
        let _ = write!(
            text,
            "- name: {name}\n  peerAddress: {ip}\n  peerASN: {asn}\n  passive: true\n  holdTimeSeconds: 3\n  \
             gracefulRestart: {{enabled: true}}\n"
        );
    }
    text
}

/// Copies until it is killed.
pub(crate) async fn keep_fib(args: &FibArgs) -> Outcome {
    let client = AdminClient::new(&args.socket);
    let netlink = Netlink::open().doing("open a netlink socket")?;
    let mut installed: BTreeMap<IpNet, BTreeSet<IpAddr>> = BTreeMap::new();
    loop {
        if let Ok(learned) = client.read::<Vec<RouteView>>("/v1/routes?table=in").await {
            apply(&netlink, &mut installed, wanted(&learned))?;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The next hops of the shortest AS paths.
fn wanted(learned: &[RouteView]) -> BTreeMap<IpNet, BTreeSet<IpAddr>> {
    let mut best: BTreeMap<IpNet, (usize, BTreeSet<IpAddr>)> = BTreeMap::new();
    for route in learned.iter().filter(|r| r.active || !r.as_path.is_empty()) {
        let Some(hop) = route.next_hop else { continue };
        let entry = best
            .entry(route.prefix)
            .or_insert_with(|| (usize::MAX, BTreeSet::new()));
        let length = route.as_path.len();
        if length < entry.0 {
            *entry = (length, BTreeSet::new());
        }
        if length == entry.0 {
            entry.1.insert(hop);
        }
    }
    best.into_iter()
        .map(|(prefix, (_, hops))| (prefix, hops))
        .collect()
}

fn apply(
    netlink: &Netlink,
    installed: &mut BTreeMap<IpNet, BTreeSet<IpAddr>>,
    wanted: BTreeMap<IpNet, BTreeSet<IpAddr>>,
) -> Outcome {
    let route = |prefix: &IpNet, hops: &BTreeSet<IpAddr>| {
        hops.iter()
            .fold(Route::to(*prefix).protocol(PROTOCOL).metric(20), |route, hop| {
                route.via(*hop)
            })
    };
    for (prefix, hops) in installed
        .iter()
        .filter(|(prefix, _)| !wanted.contains_key(*prefix))
    {
        netlink
            .delete_route(&route(prefix, hops))
            .doing(format!("delete the route to {prefix}"))?;
    }
    for (prefix, hops) in wanted
        .iter()
        .filter(|(prefix, hops)| installed.get(*prefix) != Some(*hops))
    {
        netlink
            .put_route(&route(prefix, hops))
            .doing(format!("put the route to {prefix}"))?;
    }
    *installed = wanted;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learned(prefix: &str, hop: Option<&str>, as_path: &[u32]) -> RouteView {
        RouteView {
            node: "tor".into(),
            local_asn: TOR_AS,
            peer: Some("east-1".into()),
            family: "ipv4-unicast".into(),
            prefix: prefix.parse().expect("prefix"),
            next_hop: hop.map(|h| h.parse().expect("address")),
            source: "east-1".into(),
            as_path: as_path.to_vec(),
            origin: "igp".into(),
            med: None,
            local_pref: None,
            communities: Vec::new(),
            active: true,
            stale: false,
            reason: None,
        }
    }

    #[test]
    fn only_the_shortest_paths_share_a_prefix() {
        let vip = "203.0.113.10/32";
        let wanted = wanted(&[
            learned(vip, Some("172.30.1.6"), &[65_001]),
            learned(vip, Some("172.30.2.6"), &[65_002]),
            learned(vip, Some("172.30.2.10"), &[65_002, 65_009]),
            learned("10.1.1.0/24", None, &[]),
        ]);
        let hops: Vec<_> = wanted.values().flatten().map(ToString::to_string).collect();
        assert_eq!(hops, ["172.30.1.6", "172.30.2.6"]);
    }
}
