//! The list-and-watch bookkeeping against a model of an etcd server.
use proptest::prelude::*;

use super::*;

fn listwatch() -> ListWatch {
    ListWatch::new(Duration::from_millis(50), Duration::from_secs(60), 7)
}

fn suffix(text: &str) -> Suffix {
    text.as_bytes().into()
}

fn entry(key: &str, value: &str) -> (Suffix, Vec<u8>) {
    (suffix(key), value.into())
}

fn put(key: &str, value: &str) -> Action {
    Action::Put {
        suffix: suffix(key),
        value: value.into(),
    }
}

fn delete(key: &str) -> Action {
    Action::Delete { suffix: suffix(key) }
}

fn list(from: &str, revision: i64) -> Action {
    Action::List {
        from: from.into(),
        revision,
    }
}

fn event(key: &str, value: Option<&str>, revision: i64) -> Event {
    Event {
        suffix: suffix(key),
        value: value.map(Into::into),
        revision,
    }
}

fn actions(lw: &mut ListWatch) -> Vec<Action> {
    std::iter::from_fn(|| lw.poll_action()).collect()
}

fn watch(revision: i64) -> Action {
    Action::Watch { revision }
}

/// Three entries in pages of two at revision 10, then a watch from 11 on.
#[test]
fn pages_are_read_at_the_revision_of_the_first() {
    let mut lw = listwatch();
    lw.start();
    assert_eq!(actions(&mut lw), [list("", 0)]);
    lw.page(10, vec![entry("a", "1"), entry("b", "1")], true)
        .expect("in order");
    assert_eq!(actions(&mut lw), [list("b\0", 10), put("a", "1"), put("b", "1")]);
    assert!(!lw.is_synced());
    // The server went on to revision 12 meanwhile: the list is still the one of revision 10.
    lw.page(12, vec![entry("c", "1")], false).expect("in order");
    assert_eq!(actions(&mut lw), [put("c", "1"), Action::Synced, watch(11)]);
    assert!(lw.is_synced());
}

#[test]
fn pages_that_do_not_go_on_are_refused() {
    let mut lw = listwatch();
    lw.start();
    let twice = vec![entry("b", "1"), entry("a", "1")];
    assert_eq!(lw.page(10, twice, true), Err(OutOfOrder));
    lw.page(10, vec![entry("a", "1"), entry("b", "1")], true)
        .expect("in order");
    // The same page again, for ever.
    assert_eq!(
        lw.page(10, vec![entry("a", "1"), entry("b", "1")], true),
        Err(OutOfOrder)
    );
    lw.page(10, vec![entry("c", "1")], false).expect("in order");
    assert!(lw.is_synced());
}

#[test]
fn an_empty_page_ends_a_list_even_if_it_says_more() {
    let mut lw = listwatch();
    lw.start();
    lw.page(10, vec![], true).expect("in order");
    assert_eq!(actions(&mut lw), [list("", 0), Action::Synced, watch(11)]);
}

/// While the connection was away, b was deleted and c was made: b's delete is made up at the end of the list.
#[test]
fn deletes_that_nobody_saw_are_made_up_when_the_list_ends() {
    let mut lw = listwatch();
    lw.start();
    lw.page(10, vec![entry("a", "1"), entry("b", "1")], false)
        .expect("in order");
    actions(&mut lw);
    lw.disconnected();
    assert_eq!(actions(&mut lw), []);
    lw.start();
    assert_eq!(actions(&mut lw), [list("", 0)]);
    lw.page(20, vec![entry("a", "1")], true).expect("in order");
    assert_eq!(actions(&mut lw), [list("a\0", 20), put("a", "1")]);
    lw.page(20, vec![entry("c", "1")], false).expect("in order");
    let synced = [put("c", "1"), delete("b"), Action::Synced, watch(21)];
    assert_eq!(actions(&mut lw), synced);
}

#[test]
fn a_compacted_page_starts_the_list_again_without_deletes() {
    let mut lw = listwatch();
    lw.start();
    lw.page(10, vec![entry("a", "1")], true).expect("in order");
    actions(&mut lw);
    lw.compacted();
    assert_eq!(actions(&mut lw), [list("", 0)]);
    lw.page(15, vec![entry("b", "1")], false).expect("in order");
    let synced = [put("b", "1"), delete("a"), Action::Synced, watch(16)];
    assert_eq!(actions(&mut lw), synced);
}

#[test]
fn a_compacted_watch_is_a_new_list() {
    let mut lw = listwatch();
    lw.start();
    lw.page(10, vec![entry("a", "1")], false).expect("in order");
    actions(&mut lw);
    lw.compacted();
    assert!(!lw.is_synced());
    assert_eq!(actions(&mut lw), [list("", 0)]);
}

/// Events move the revision by their own, not by the header's: a stream that ends goes on right after the last event.
#[test]
fn a_stream_that_ends_goes_on_after_the_last_event() {
    let mut lw = listwatch();
    lw.start();
    lw.page(10, vec![entry("a", "1")], false).expect("in order");
    actions(&mut lw);
    let unknown = lw.events(vec![
        event("b", Some("1"), 12),
        event("a", None, 14),
        event("x", None, 14),
    ]);
    assert_eq!(unknown, 1);
    assert_eq!(actions(&mut lw), [put("b", "1"), delete("a")]);
    lw.rewatch();
    assert_eq!(actions(&mut lw), [watch(15)]);
}

#[test]
fn a_refused_list_is_tried_again_after_a_growing_delay() {
    let mut lw = listwatch();
    let start = Instant::now();
    lw.start();
    actions(&mut lw);
    lw.failed(start);
    let first = lw.poll_timeout().expect("a delay") - start;
    lw.handle_timeout(start);
    assert_eq!(actions(&mut lw), []);
    lw.handle_timeout(start + first);
    assert_eq!(actions(&mut lw), [list("", 0)]);
    (0..5).for_each(|_| lw.failed(start));
    assert!(lw.poll_timeout().expect("a delay") - start > first * 4);
    assert_eq!(lw.failures(), 6);
}

#[test]
fn what_comes_after_a_disconnect_is_not_used() {
    let mut lw = listwatch();
    lw.start();
    actions(&mut lw);
    lw.disconnected();
    lw.page(10, vec![entry("a", "1")], false).expect("in order");
    lw.events(vec![event("a", Some("1"), 11)]);
    lw.compacted();
    lw.failed(Instant::now());
    lw.rewatch();
    assert_eq!(actions(&mut lw), []);
    assert_eq!(lw.poll_timeout(), None);
}

/// An etcd server: its whole history, and how much of it is compacted away.
#[derive(Debug, Default)]
struct Server {
    history: Vec<Event>,
    compacted: i64,
}

impl Server {
    fn revision(&self) -> i64 {
        i64::try_from(self.history.len()).expect("small") + 1
    }

    fn change(&mut self, key: u8, value: Option<u8>) {
        let suffix = Suffix::from([key]);
        if value.is_none() && !self.at(self.revision()).contains_key(&suffix) {
            return;
        }
        let revision = self.revision() + 1;
        self.history.push(Event {
            suffix,
            value: value.map(|v| vec![v]),
            revision,
        });
    }

    fn at(&self, revision: i64) -> BTreeMap<Suffix, Vec<u8>> {
        let mut map = BTreeMap::new();
        for event in self.history.iter().filter(|e| e.revision <= revision) {
            match &event.value {
                Some(value) => map.insert(event.suffix.clone(), value.clone()),
                None => map.remove(&event.suffix),
            };
        }
        map
    }
}

/// The connection between the two: at most one request waits for its reply, at most one watch runs.
#[derive(Debug)]
struct Rig {
    server: Server,
    lw: ListWatch,
    table: BTreeMap<Suffix, Vec<u8>>,
    request: Option<(Vec<u8>, i64)>,
    watch: Option<i64>,
    now: Instant,
}

impl Rig {
    fn new() -> Self {
        let mut lw = listwatch();
        lw.start();
        Self {
            server: Server::default(),
            lw,
            table: BTreeMap::new(),
            request: None,
            watch: None,
            now: Instant::now(),
        }
    }

    fn work(&mut self) {
        while let Some(action) = self.lw.poll_action() {
            match action {
                Action::List { from, revision } => self.request = Some((from, revision)),
                Action::Watch { revision } => self.watch = Some(revision),
                Action::Put { suffix, value } => drop(self.table.insert(suffix, value)),
                Action::Delete { suffix } => {
                    assert!(
                        self.table.remove(&suffix).is_some(),
                        "deletes are of entries that are there"
                    );
                }
                Action::Synced => {}
            }
        }
    }

    /// The server answers what waits, if anything does: a page of two, or up to `n` events.
    fn serve(&mut self, n: usize) -> bool {
        if let Some((from, revision)) = self.request.take() {
            if revision != 0 && revision < self.server.compacted {
                self.lw.compacted();
            } else {
                let at = if revision == 0 {
                    self.server.revision()
                } else {
                    revision
                };
                let all = self.server.at(at);
                let mut page: Vec<_> = all
                    .range(Suffix::from(from)..)
                    .map(|(k, v)| (k.clone(), v.clone()))
                    .collect();
                let more = page.len() > 2;
                page.truncate(2);
                self.lw
                    .page(self.server.revision(), page, more)
                    .expect("in order");
            }
        } else if let Some(next) = self.watch {
            if next < self.server.compacted {
                self.watch = None;
                self.lw.compacted();
            } else {
                let missing = self.server.history.iter().filter(|e| e.revision >= next);
                let events: Vec<_> = missing.take(n).cloned().collect();
                let Some(last) = events.last() else {
                    return false;
                };
                self.watch = Some(last.revision + 1);
                self.lw.events(events);
            }
        } else if let Some(until) = self.lw.poll_timeout() {
            self.now = until;
            self.lw.handle_timeout(until);
        } else {
            return false;
        }
        self.work();
        true
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Put(key, value) => self.server.change(key, Some(value)),
            Step::Delete(key) => self.server.change(key, None),
            Step::Compact => self.server.compacted = self.server.revision(),
            Step::Serve(n) => drop(self.serve(n)),
            Step::Disconnect => {
                (self.request, self.watch) = (None, None);
                self.lw.disconnected();
                self.lw.start();
            }
            Step::EndStream => {
                if self.watch.take().is_some() {
                    self.lw.rewatch();
                }
            }
            Step::Fail => {
                (self.request, self.watch) = (None, None);
                self.lw.failed(self.now);
            }
            Step::Wipe => {
                // Another server answers from now on: the connection breaks and its revisions begin anew.
                self.server = Server::default();
                self.step(&Step::Disconnect);
            }
        }
        self.work();
    }
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8, u8),
    Delete(u8),
    Compact,
    Serve(usize),
    Disconnect,
    EndStream,
    Fail,
    Wipe,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..12_u8, 0..3_u8).prop_map(|(k, v)| Step::Put(k, v)),
        6 => (0..12_u8).prop_map(Step::Delete),
        2 => Just(Step::Compact),
        10 => (1..4_usize).prop_map(Step::Serve),
        1 => Just(Step::Disconnect),
        1 => Just(Step::EndStream),
        1 => Just(Step::Fail),
        1 => Just(Step::Wipe),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// However puts, deletes, compactions, broken connections, ended streams, refusals and whole new servers interleave with
    /// the reading: once everything is quiet, the table is the server's, and no entry was deleted that was not there.
    #[test]
    fn the_table_ends_as_the_servers(steps in proptest::collection::vec(step(), 0..120)) {
        let mut rig = Rig::new();
        rig.work();
        steps.iter().for_each(|step| rig.step(step));
        while rig.serve(3) {}
        prop_assert!(rig.lw.is_synced());
        prop_assert_eq!(&rig.table, &rig.server.at(i64::MAX));
    }
}
