//! Many watches on one stream (spec §2.2): creations wait for each other, replies are told apart by the id that the server
//! gave.
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::feed::Feed;

/// The watches of one connection.
#[derive(Debug)]
pub(crate) struct WatchPlane {
    /// Wanted watches that are not created yet, with their first revision.
    queue: VecDeque<(Feed, i64)>,
    /// The watch whose creation waits for its answer.
    pending: Option<Feed>,
    by_id: BTreeMap<i64, Feed>,
    /// The stream ended without an error: a new one is opened then.
    reopen: Option<Instant>,
}

/// To whom a reply belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Addressee {
    /// This watch now exists.
    Created,
    /// Events or a progress report of this watch.
    Running(Feed),
    /// The end of this watch.
    Ended(Feed),
    /// A watch that we do not know of.
    Nobody,
}

impl WatchPlane {
    pub(crate) fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            pending: None,
            by_id: BTreeMap::new(),
            reopen: None,
        }
    }

    /// The connection is gone.
    pub(crate) fn clear(&mut self) {
        *self = Self::new();
    }

    /// A watch is wanted.
    pub(crate) fn want(&mut self, feed: Feed, revision: i64) {
        self.queue.push_back((feed, revision));
    }

    /// The watch to create now, if one may be created.
    pub(crate) fn next(&mut self) -> Option<(Feed, i64)> {
        if self.pending.is_some() || self.reopen.is_some() {
            return None;
        }
        let (feed, revision) = self.queue.pop_front()?;
        self.pending = Some(feed);
        Some((feed, revision))
    }

    /// Says whom a reply is for, and keeps what it says about the watch.
    pub(crate) fn reply(&mut self, id: i64, created: bool, canceled: bool) -> Addressee {
        match (created, canceled) {
            (true, true) => self.pending.take().map_or(Addressee::Nobody, Addressee::Ended),
            (true, false) => match self.pending.take() {
                Some(feed) => {
                    self.by_id.insert(id, feed);
                    Addressee::Created
                }
                None => Addressee::Nobody,
            },
            (false, true) => self.by_id.remove(&id).map_or(Addressee::Nobody, Addressee::Ended),
            (false, false) => self
                .by_id
                .get(&id)
                .map_or(Addressee::Nobody, |feed| Addressee::Running(*feed)),
        }
    }

    /// The stream ended without an error: all its watches have to be created again, on a new stream after `delay`.
    pub(crate) fn ended(&mut self, now: Instant, delay: Duration) {
        self.clear();
        self.reopen = Some(now + delay);
    }

    /// When a new stream may be opened.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.reopen
    }

    /// True once when it is time for a new stream.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> bool {
        let due = self.reopen.is_some_and(|at| at <= now);
        if due {
            self.reopen = None;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Resource;

    const NODES: Feed = Feed::Table(Resource::Nodes);
    const IPS: Feed = Feed::Table(Resource::Ips);

    #[test]
    fn creations_wait_for_each_other() {
        let mut plane = WatchPlane::new();
        plane.want(NODES, 11);
        plane.want(IPS, 12);
        assert_eq!(plane.next(), Some((NODES, 11)));
        assert_eq!(plane.next(), None);
        assert_eq!(plane.reply(0, true, false), Addressee::Created);
        assert_eq!(plane.next(), Some((IPS, 12)));
        assert_eq!(plane.reply(0, false, false), Addressee::Running(NODES));
        assert_eq!(plane.reply(-1, true, true), Addressee::Ended(IPS));
        assert_eq!(plane.reply(0, false, true), Addressee::Ended(NODES));
        assert_eq!(plane.reply(0, false, false), Addressee::Nobody);
    }

    #[test]
    fn a_stream_that_ends_is_opened_again_after_a_delay() {
        let (mut plane, now) = (WatchPlane::new(), Instant::now());
        let delay = Duration::from_millis(50);
        plane.want(NODES, 11);
        plane.next();
        plane.ended(now, delay);
        plane.want(NODES, 11);
        assert_eq!(plane.next(), None);
        assert_eq!(plane.poll_timeout(), Some(now + delay));
        assert!(!plane.handle_timeout(now));
        assert!(plane.handle_timeout(now + delay));
        assert_eq!(plane.next(), Some((NODES, 11)));
    }
}
