//! Routes of both families, both ways, and their withdrawal with the last backend.
//!
//! ```text
//!   node 65001                                   tor 65000
//!   pods  10.1.1.0/24, fd00:10:1::/64   ------>  learnt
//!   vips  203.0.113.10, 2001:db8:113::10 ----->  learnt while a backend lives
//!   learnt  <---------------------------------   192.0.2.0/24, 2001:db8:ffff::/48
//! ```
use std::collections::BTreeSet;
use std::time::Duration;

use isthmus_admin::bgp::{AdvertisementView, RouteView};
use isthmus_testkit::wait_until;

use super::{Stage, everything, ready, with_every_router};
use crate::routers::{Kind, ROUTER_ROUTES, Settings};
use crate::support::{Cluster, Link, NODE_V6, PATIENCE, PeerSettings, Speaker, alone, beside_others};

with_every_router!(routes_both_ways);

fn routes_both_ways(kind: Kind) {
    let _others = beside_others();
    let stage = Stage::new(kind, Settings::default(), &PeerSettings::default());
    let up = stage.speaker.wait_established();
    stage.wait_learnt("the router has all routes", &everything());

    let theirs: BTreeSet<String> = ROUTER_ROUTES.map(str::to_owned).into();
    wait_until(PATIENCE, "we have the router's routes", || {
        stage.speaker.prefixes("in") == theirs
    })
    .unwrap_or_else(|timeout| panic!("{timeout}: {:?}", stage.speaker.prefixes("in")));

    stage.speaker.cluster.set_backends(&[]);
    let withdrawn = stage.wait_learnt("only the pod CIDRs are left", &Cluster::PODS);
    println!(
        "{kind:?}: session up {} ms after start, withdrawal at the router {} ms",
        up.as_millis(),
        withdrawn.as_millis()
    );
    withheld_routes_say_why(&stage);

    stage.speaker.cluster.set_backends(&Cluster::BACKENDS);
    stage.wait_learnt("the service is back", &everything());
    route_refresh_both_ways(&stage);
    assert_eq!(
        stage.speaker.peer().expect("a peer").counters.flaps,
        0,
        "one session for the whole story"
    );
}

fn withheld_routes_say_why(stage: &Stage) {
    let views: Vec<AdvertisementView> = stage.speaker.read("/v1/advertisements").expect("answers");
    let vip = views
        .iter()
        .find(|view| view.prefix.to_string() == Cluster::VIPS[0]);
    let vip = vip.expect("it is listed although it is withheld");
    assert!(!vip.advertised);
    assert_eq!(vip.origins[0].origin, "service demo/web");
    assert_eq!(vip.origins[0].reason, "no live backend");
    let out: Vec<RouteView> = stage
        .speaker
        .read("/v1/routes?table=out&peer=tor")
        .expect("answers");
    let vip = out
        .iter()
        .find(|route| route.prefix.to_string() == Cluster::VIPS[0])
        .expect("listed");
    assert_eq!(
        (vip.active, vip.reason.as_deref()),
        (false, Some("service demo/web: no live backend"))
    );
}

fn route_refresh_both_ways(stage: &Stage) {
    let counters = || stage.speaker.peer().expect("a peer").counters;
    let before = counters().updates_sent;
    if stage.router.refresh() {
        let again = || counters().updates_sent > before;
        wait_until(PATIENCE, "the router gets our routes again", again).expect("sent again");
    }
    let before = counters().updates_received;
    stage.speaker.act("/v1/peers/refresh?peer=tor").expect("it can");
    // OpenBGPD takes the request, and does not repeat what it has already sent.
    let answered = || match stage.router.refreshes_received() {
        Some(count) => count >= 2,
        None => counters().updates_received > before,
    };
    wait_until(
        PATIENCE,
        "the router takes our request for both families",
        answered,
    )
    .expect("taken");
    stage.wait_learnt("nothing is lost by it", &everything());
}

/// The promises with a figure: session up within 2 s of the start, withdrawal at the router within 1 s of the change.
#[test]
fn frr_figures() {
    let kind = Kind::Frr;
    if !ready("frr_figures", kind) {
        return;
    }
    let _quiet = alone();
    let stage = Stage::new(kind, Settings::default(), &PeerSettings::default());
    let up = stage.speaker.wait_established();
    stage.wait_learnt("the router has all routes", &everything());
    let complete = stage.speaker.started.elapsed();

    let mut withdrawals = Vec::new();
    for _ in 0..5 {
        stage.speaker.cluster.set_backends(&[]);
        withdrawals.push(stage.wait_learnt("the service is gone", &Cluster::PODS));
        stage.speaker.cluster.set_backends(&Cluster::BACKENDS);
        stage.wait_learnt("the service is back", &everything());
    }
    withdrawals.sort();
    let (median, worst) = (withdrawals[2], withdrawals[4]);
    println!(
        "FRR: session up {} ms after start, all routes {} ms, withdrawal at the router {} ms (worst of 5: {} ms), {} KiB of memory of its own",
        up.as_millis(),
        complete.as_millis(),
        median.as_millis(),
        worst.as_millis(),
        stage.speaker.own_memory_kib()
    );
    assert!(up <= Duration::from_secs(2), "session up after {up:?}");
    assert!(worst <= Duration::from_secs(1), "withdrawn after {worst:?}");
}

#[test]
fn metrics_have_ciliums_names() {
    let kind = Kind::Bird;
    if !ready("metrics_have_ciliums_names", kind) {
        return;
    }
    let _others = beside_others();
    let stage = Stage::new(kind, Settings::default(), &PeerSettings::default());
    stage.wait_up();
    stage.wait_learnt("the router has all routes", &everything());
    let labels = r#"vrouter="65001",neighbor="10.0.0.254",neighbor_asn="65000""#;
    let wanted = [
        format!("cilium_bgp_control_plane_session_state{{{labels}}} 1"),
        format!("cilium_bgp_control_plane_advertised_routes{{{labels},afi=\"ipv4\",safi=\"unicast\"}} 2"),
        format!("cilium_bgp_control_plane_received_routes{{{labels},afi=\"ipv6\",safi=\"unicast\"}} 1"),
        format!("isthmus_bgp_session_flaps_total{{{labels}}} 0"),
    ];
    let all = || stage.speaker.text("/metrics").unwrap_or_default();
    wait_until(PATIENCE, "the metrics tell it", || {
        let all = all();
        wanted.iter().all(|line| all.contains(line))
    })
    .unwrap_or_else(|timeout| panic!("{timeout}\n{}", all()));
    assert_eq!(stage.speaker.text("/readyz").as_deref(), Ok("ready\n"));
}

/// ```text
///   node: 10.0.0.1 only  ----  tor        => IPv6 routes have no next hop: not sent, counted, and the listing says what to do
/// ```
#[test]
fn routes_without_a_next_hop_say_so() {
    let kind = Kind::Own;
    if !ready("routes_without_a_next_hop_say_so", kind) {
        return;
    }
    let _others = beside_others();
    let link = Link::new();
    link.node
        .ip(&["addr", "del", &format!("{NODE_V6}/64"), "dev", "eth0"]);
    let router = kind.start(&link.tor, Settings::default());
    let speaker = Speaker::start(&link, &PeerSettings::default());
    let stage = Stage {
        speaker,
        router,
        link,
    };
    stage.wait_up();
    stage.wait_learnt("the IPv4 routes are there", &[Cluster::PODS[0], Cluster::VIPS[0]]);
    let family = stage.speaker.peer().expect("a peer").families[1].clone();
    assert_eq!((family.advertised, family.no_next_hop), (0, 2), "{family:?}");
    let out: Vec<RouteView> = stage
        .speaker
        .read("/v1/routes?table=out&family=ipv6-unicast")
        .expect("answers");
    let wanted = "no next hop for ipv6-unicast: set nextHop, or give the interface of the session an address of this family";
    assert_eq!(out.len(), 2);
    assert!(
        out.iter().all(|route| route.reason.as_deref() == Some(wanted)),
        "{out:?}"
    );

    stage
        .speaker
        .configure(&PeerSettings::default().with("nextHop: {ipv6: \"fd00::1\"}"));
    stage.wait_learnt("with a next hop all routes are there", &everything());
    assert_eq!(
        stage.speaker.peer().expect("a peer").counters.established,
        1,
        "the same session"
    );
}
