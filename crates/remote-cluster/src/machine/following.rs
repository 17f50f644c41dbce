//! How the tables of a remote cluster are read: opened by their canaries, listed, watched, dropped.
use isthmus_kvstore::{canary_key, canary_prefix};

use super::{Cache, Machine, Output, Phase, Step};
use crate::Resource;
use crate::feed::{Feed, family};
use crate::listwatch::{Action, ListWatch};

impl Machine {
    /// A canary is there: its table may be read, if the cluster exports it.
    pub(super) fn canary(&mut self, key: &[u8]) {
        let (cluster, tree) = (&self.settings.cluster, self.tree());
        let prefix = canary_prefix(cluster).len();
        let is_for =
            |r: &Resource| canary_key(cluster, tree, family(*r)).as_bytes().get(prefix..) == Some(key);
        if let Some(resource) = self.wanted().into_iter().find(is_for) {
            self.start(Feed::Table(resource));
        }
    }

    pub(super) fn revoke_caches(&mut self) {
        self.cache = Cache::Revoked;
        self.facts.revocations += 1;
        self.clear(Resource::Services);
        self.clear(Resource::EndpointSlices);
    }

    pub(super) fn clear(&mut self, resource: Resource) {
        if let Some(lw) = self.feeds.get_mut(&Feed::Table(resource)) {
            lw.forget();
        }
        self.outputs.push_back(Output::Clear(resource));
    }

    pub(super) fn prefix(&self, feed: Feed) -> String {
        feed.prefix(&self.settings.cluster, self.tree())
    }

    pub(super) fn start(&mut self, feed: Feed) {
        self.feed(feed, ListWatch::start);
    }

    /// Lets one list-and-watch take an input, and does what it then wants.
    pub(super) fn feed(&mut self, feed: Feed, input: impl FnOnce(&mut ListWatch)) {
        if let Some(lw) = self.feeds.get_mut(&feed) {
            input(lw);
        }
        self.work(feed);
    }

    pub(super) fn work(&mut self, feed: Feed) {
        while let Some(action) = self.feeds.get_mut(&feed).and_then(ListWatch::poll_action) {
            match action {
                Action::List { from, revision } => self.list(feed, &from, revision),
                Action::Watch { revision } => self.plane.want(feed, revision),
                Action::Put { suffix, value } => match feed {
                    Feed::Table(resource) => self.outputs.push_back(Output::Put {
                        resource,
                        suffix,
                        value,
                    }),
                    Feed::Canaries => self.canary(&suffix),
                    Feed::Heartbeat => {}
                },
                Action::Delete { suffix } => {
                    if let Feed::Table(resource) = feed {
                        self.outputs.push_back(Output::Delete { resource, suffix });
                    }
                }
                Action::Synced => self.synced(feed),
            }
        }
    }

    pub(super) fn list(&mut self, feed: Feed, from: &[u8], revision: i64) {
        let prefix = self.prefix(feed);
        let range_end = Feed::range_end(&prefix);
        let mut key = prefix.into_bytes();
        key.extend_from_slice(from);
        self.outputs.push_back(Output::List {
            feed,
            key,
            range_end,
            revision,
        });
    }

    pub(super) fn synced(&mut self, feed: Feed) {
        match feed {
            Feed::Heartbeat => {
                if matches!(self.phase, Phase::Up(up) if up.step == Step::Heartbeat) {
                    self.read_config();
                }
            }
            Feed::Canaries => {}
            Feed::Table(resource) => {
                self.facts.synced.insert(resource);
            }
        }
    }
}
