//! The life of a remote cluster against a model of its store.
use std::time::Duration;

use proptest::prelude::*;

use super::world::{CONFIG, Server, TABLES, World, settings};
use super::*;
use crate::feed::family;
use isthmus_kvstore::canary_key;

const NODE: &str = "cilium/state/nodes/v1/west/";
const IP: &str = "cilium/state/ip/v1/default/";

fn entries(server: &mut Server) {
    server.put(&format!("{NODE}n1"), "1");
    server.put(&format!("{IP}10.0.0.1"), "1");
    server.put(&format!("{IP}10.0.0.2"), "1");
    server.put(&format!("{IP}10.0.0.3"), "1");
}

fn ready() -> World {
    let mut server = Server::new(7);
    entries(&mut server);
    let mut world = World::new(server);
    world.quiet();
    world
}

#[test]
fn a_cluster_becomes_ready_and_has_its_entries() {
    let world = ready();
    assert!(world.machine.is_connected());
    assert_eq!(world.machine.describe(world.now), "ready");
    assert_eq!(world.table(Resource::Ips).len(), 3);
    assert_eq!(world.table(Resource::Nodes).len(), 1);
    // Only what it exports is read: no slices, no service exports.
    assert_eq!(world.watches.len(), 2 + TABLES.len());
    assert_eq!(world.machine.facts.synced.len(), TABLES.len());
}

#[test]
fn a_reply_of_another_etcd_breaks_the_connection_and_reads_everything_anew() {
    let mut world = ready();
    let mut other = Server::new(8);
    other.put(&format!("{IP}10.0.0.2"), "2");
    world.server = other;
    assert!(world.machine.is_connected());
    // The next message on the same stream comes from the other one.
    world.server.put("cilium/.heartbeat", "later");
    world.watches[0].next = 0;
    world
        .watches
        .iter_mut()
        .for_each(|w| w.next = world.server.revision());
    assert!(world.serve(0));
    assert!(!world.machine.is_connected());
    assert!(world.machine.facts.last_reason.contains("another etcd answers"));
    assert_eq!(
        world.table(Resource::Ips).len(),
        3,
        "all entries stay until the list ends"
    );
    world.quiet();
    assert_eq!(world.table(Resource::Ips), world.server.table(Resource::Ips));
    assert!(world.table(Resource::Nodes).is_empty());
}

#[test]
fn a_reply_without_a_header_breaks_the_connection() {
    let mut world = World::new(Server::new(7));
    world.serve(0);
    let page = Page {
        header: None,
        entries: Vec::new(),
        more: false,
    };
    world.input(Input::Listed(Feed::Heartbeat, Ok(page)));
    assert!(world.machine.facts.last_reason.contains("without a header"));
    assert_eq!(world.machine.facts.failures, 1);
}

#[test]
fn silence_for_two_minutes_breaks_the_connection_and_a_heartbeat_prevents_it() {
    let mut world = ready();
    for _ in 0..5 {
        world.pass(Duration::from_secs(60));
        world.server.put("cilium/.heartbeat", "now");
        while world.serve(0) {}
    }
    assert!(world.machine.is_ready());
    world.pass(Duration::from_secs(119));
    assert!(world.machine.is_ready());
    world.pass(Duration::from_secs(1));
    assert!(!world.machine.is_connected());
    assert_eq!(world.machine.facts.last_reason, "no heartbeat for 120.0 s");
    assert_eq!(world.table(Resource::Ips).len(), 3);
}

#[test]
fn a_configuration_that_is_not_there_is_waited_for_three_minutes() {
    let mut server = Server::new(7);
    server.delete("cilium/cluster-config/west");
    let mut world = World::new(server);
    let start = world.now;
    while world.machine.facts.failures == 0 {
        while world.serve(0) {}
        world.server.put("cilium/.heartbeat", "now");
        let next = world.machine.poll_timeout().expect("a deadline");
        world.pass(
            next.saturating_duration_since(world.now)
                .max(Duration::from_millis(1)),
        );
    }
    let waited = world.now - start;
    assert!(
        world
            .machine
            .facts
            .last_reason
            .contains("did not appear for 180 s")
    );
    assert!((180..182).contains(&waited.as_secs()), "{waited:?}");
    world.server.put("cilium/cluster-config/west", CONFIG);
    world.quiet();
}

#[test]
fn a_canary_that_comes_later_opens_its_table() {
    let mut server = Server::new(7);
    entries(&mut server);
    let canary = canary_key(&settings().cluster, Tree::State, family(Resource::Ips));
    server.delete(&canary);
    let mut world = World::new(server);
    while world.serve(0) {}
    assert!(!world.machine.is_ready());
    assert_eq!(world.machine.describe(world.now), "waiting for the canary of ip");
    assert_eq!(
        (
            world.table(Resource::Nodes).len(),
            world.table(Resource::Ips).len()
        ),
        (1, 0)
    );
    world.server.put(&canary, "now");
    while world.serve(0) {}
    assert!(world.machine.is_ready());
    assert_eq!(world.table(Resource::Ips).len(), 3);
    // Deleting a canary does nothing to a running reader.
    world.server.delete(&canary);
    while world.serve(0) {}
    assert!(world.machine.is_ready());
}

#[test]
fn without_canaries_nothing_is_waited_for() {
    let mut server = Server::new(7);
    entries(&mut server);
    for table in TABLES {
        server.delete(&canary_key(&settings().cluster, Tree::State, family(table)));
    }
    server.put("cilium/cluster-config/west", r#"{"id":1,"capabilities":{}}"#);
    let mut world = World::new(server);
    while world.serve(0) {}
    assert!(world.machine.is_ready());
}

#[test]
fn an_id_that_another_cluster_holds_is_refused_until_it_is_free() {
    let mut world = World::new(Server::new(7));
    world.holder = Some(ClusterName::new("north").expect("name"));
    while world.serve(0) {}
    assert!(
        world
            .machine
            .facts
            .last_reason
            .contains("west has cluster id 1, which is the id of north")
    );
    world.holder = None;
    world.quiet();
}

#[test]
fn another_id_clears_every_table_before_it_is_read() {
    let mut world = ready();
    world.input(Input::WatchEnded(Some("reset".into())));
    world.server = Server::new(8);
    world
        .server
        .put("cilium/cluster-config/west", r#"{"id":2,"capabilities":{}}"#);
    world.quiet();
    assert!(world.table(Resource::Ips).is_empty());
    assert_eq!(
        world.reserved.iter().map(|id| id.value()).collect::<Vec<_>>(),
        [1, 2]
    );
}

#[test]
fn a_tree_that_moves_from_state_to_cache_loses_nothing() {
    let mut world = ready();
    world.input(Input::WatchEnded(Some("reset".into())));
    world.server = Server::new(8);
    world.server.put(
        "cilium/cluster-config/west",
        r#"{"id":1,"capabilities":{"cached":true}}"#,
    );
    world.server.put("cilium/cache/ip/v1/west/10.0.0.1", "1");
    world.server.put("cilium/cache/ip/v1/west/10.0.0.9", "1");
    world.quiet();
    let ips: Vec<_> = world.table(Resource::Ips).into_keys().collect();
    assert_eq!(ips, [b"10.0.0.1".to_vec(), b"10.0.0.9".to_vec()]);
}

#[test]
fn services_expire_once_after_the_ttl_and_come_back() {
    let mut server = Server::new(7);
    server.put("cilium/state/services/v1/west/demo/web", "1");
    entries(&mut server);
    let mut world = World::new(server);
    world.machine.settings.cache_ttl = Some(Duration::from_secs(300));
    world.quiet();
    world.up = false;
    world.input(Input::WatchEnded(Some("reset".into())));
    world.pass(Duration::from_secs(299));
    assert_eq!(world.table(Resource::Services).len(), 1);
    world.pass(Duration::from_secs(1));
    assert!(world.table(Resource::Services).is_empty());
    assert_eq!(world.table(Resource::Ips).len(), 3, "flows and policy go on");
    world.pass(Duration::from_secs(1000));
    assert_eq!(world.machine.facts.revocations, 1);
    world.quiet();
    assert_eq!(world.table(Resource::Services).len(), 1);
}

#[test]
fn a_refusal_is_told_and_tried_again_on_the_same_connection() {
    let mut world = World::new(Server::new(7));
    world.serve(0);
    while world
        .lists
        .iter()
        .all(|(feed, ..)| *feed != Feed::Table(Resource::Ips))
    {
        assert!(world.serve(0));
    }
    world
        .lists
        .retain(|(feed, ..)| *feed != Feed::Table(Resource::Ips));
    let refused = Failure::Refused("permission denied".into());
    world.input(Input::Listed(Feed::Table(Resource::Ips), Err(refused)));
    while world.serve(0) {}
    assert_eq!(
        world.machine.describe(world.now),
        "waiting for ip (refused: permission denied)"
    );
    assert_eq!(world.machine.facts.failures, 0);
    world.quiet();
}

#[test]
fn a_stream_that_ends_without_an_error_is_opened_again_after_50_ms() {
    let mut world = ready();
    world.watches.clear();
    world.input(Input::WatchEnded(None));
    assert!(world.watches.is_empty());
    world.server.put(&format!("{IP}10.0.0.4"), "1");
    world.pass(Duration::from_millis(50));
    while world.serve(0) {}
    assert!(world.machine.is_ready());
    assert_eq!(world.table(Resource::Ips).len(), 4);
    assert_eq!(world.machine.facts.failures, 0);
}

#[test]
fn a_new_configuration_connects_at_once_without_a_failure() {
    let mut world = ready();
    world.input(Input::Reconfigured("its certificate files changed"));
    assert!(!world.machine.is_connected());
    world.pass(Duration::ZERO);
    assert!(world.dialing);
    world.quiet();
    assert_eq!(world.machine.facts.failures, 0);
}

#[test]
fn delays_between_attempts_grow_and_begin_anew_when_it_was_ready() {
    let mut world = ready();
    let broken = |world: &mut World| {
        world.input(Input::WatchEnded(Some("reset".into())));
        world.machine.poll_timeout().expect("a retry") - world.now
    };
    let first = broken(&mut world);
    world.up = false;
    world.pass(Duration::from_secs(60));
    let later = world.machine.poll_timeout().expect("a retry") - world.now;
    assert!(
        first <= Duration::from_millis(100) && later > Duration::from_millis(100),
        "{first:?} {later:?}"
    );
    assert!(world.machine.facts.failures > 5);
    world.quiet();
    assert!(broken(&mut world) <= Duration::from_millis(100));
}

#[derive(Debug, Clone)]
enum Step {
    Put(usize, u8, u8),
    Delete(usize, u8),
    Compact,
    Serve(usize),
    Break,
    EndStream,
    Down,
    Up,
    Replace,
    Pass(u16),
    Reconfigure,
    Beat,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..TABLES.len(), 0..6_u8, 0..3_u8).prop_map(|(t, k, v)| Step::Put(t, k, v)),
        6 => (0..TABLES.len(), 0..6_u8).prop_map(|(t, k)| Step::Delete(t, k)),
        2 => Just(Step::Compact),
        40 => (0..7_usize).prop_map(Step::Serve),
        1 => Just(Step::Break),
        2 => Just(Step::EndStream),
        1 => Just(Step::Down),
        2 => Just(Step::Up),
        1 => Just(Step::Replace),
        4 => (0..5000_u16).prop_map(Step::Pass),
        1 => Just(Step::Reconfigure),
        1 => Just(Step::Beat),
    ]
}

fn entry(table: usize, key: u8) -> String {
    format!(
        "{}k{key}",
        Feed::Table(TABLES[table]).prefix(&settings().cluster, Tree::State)
    )
}

fn take(world: &mut World, step: &Step) {
    match *step {
        Step::Put(t, k, v) => world.server.put(&entry(t, k), &v.to_string()),
        Step::Delete(t, k) => world.server.delete(&entry(t, k)),
        Step::Compact => world.server.compacted = world.server.revision(),
        Step::Serve(pick) => drop(world.serve(pick)),
        Step::Break => world.input(Input::WatchEnded(Some("reset".into()))),
        Step::EndStream => {
            if !world.watches.is_empty() {
                world.watches.clear();
                world.input(Input::WatchEnded(None));
            }
        }
        Step::Down => {
            world.up = false;
            world.input(Input::WatchEnded(Some("cut".into())));
        }
        Step::Up => world.up = true,
        // Another replica: nobody tells the machine but the next reply.
        Step::Replace => world.server = Server::new(world.server.id + 1),
        Step::Pass(ms) => world.pass(Duration::from_millis(ms.into())),
        Step::Reconfigure => world.input(Input::Reconfigured("test")),
        Step::Beat => world.server.put("cilium/.heartbeat", "now"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    /// Whatever happens to the store, the network and the configuration, in whatever order: once everything is quiet, the
    /// cluster is ready and every table is the server's.
    #[test]
    fn every_table_ends_as_the_servers(steps in proptest::collection::vec(step(), 0..200)) {
        let mut world = World::new(Server::new(7));
        steps.iter().for_each(|step| take(&mut world, step));
        // Something that every watch sees, so that a replaced server is noticed.
        world.server.put("cilium/.heartbeat", "last");
        if !world.watches.is_empty() {
            world.watches.iter_mut().filter(|w| w.next > world.server.revision()).for_each(|w| w.next = 1);
        }
        world.quiet();
        // A stream that has ended is opened again after 50 ms.
        world.pass(Duration::from_millis(60));
        while world.serve(0) {}
        world.quiet();
        for table in TABLES {
            prop_assert_eq!(world.table(table), world.server.table(table), "{:?}", table);
        }
    }
}
