//! The stories. Those with a router run with every router.
mod malformed;
mod opening;
mod remote;
mod restart;
mod routes;
mod scripted;
mod security;

use isthmus_testkit::{needs, wait_until};

use crate::routers::{Kind, Router, Settings};
use crate::support::{Cluster, Link, PATIENCE, PeerSettings, Speaker};

/// A link with a router on one end and our speaker on the other.
struct Stage {
    speaker: Speaker,
    router: Box<dyn Router>,
    link: Link,
}

impl Stage {
    /// Both are started; nothing is waited for.
    fn new(kind: Kind, settings: Settings, peer: &PeerSettings) -> Self {
        let link = Link::new();
        let router = kind.start(&link.tor, settings);
        let speaker = Speaker::start(&link, peer);
        Self {
            speaker,
            router,
            link,
        }
    }

    /// Waits until both ends say that the session is up.
    fn wait_up(&self) {
        self.speaker.wait_established();
        let up = || self.router.established();
        wait_until(PATIENCE, "the router says that the session is up", up).expect("a session");
    }

    /// Waits until the router has learnt exactly these.
    fn wait_learnt(&self, what: &str, wanted: &[&str]) -> std::time::Duration {
        let wanted = wanted
            .iter()
            .map(|prefix| (*prefix).to_owned())
            .collect::<std::collections::BTreeSet<_>>();
        let outcome = wait_until(PATIENCE, what, || self.router.learnt() == wanted);
        outcome.unwrap_or_else(|timeout| {
            panic!(
                "{timeout}; the router has {:?}, our peer is {:?}\n{}",
                self.router.learnt(),
                self.speaker.peer(),
                self.router.report()
            )
        })
    }
}

/// Pod CIDRs and LoadBalancer addresses.
fn everything() -> Vec<&'static str> {
    [Cluster::PODS, Cluster::VIPS].concat()
}

/// Makes a test of a story for each router.
macro_rules! with_every_router {
    ($($story:ident),* $(,)?) => {
        with_every_router!(@router frr, Frr, $($story),*);
        with_every_router!(@router bird, Bird, $($story),*);
        with_every_router!(@router gobgp, Gobgp, $($story),*);
        with_every_router!(@router openbgpd, Openbgpd, $($story),*);
        with_every_router!(@router own, Own, $($story),*);
    };
    (@router $module:ident, $kind:ident, $($story:ident),*) => {
        mod $module {
            $(#[test]
            fn $story() {
                let kind = crate::routers::Kind::$kind;
                if super::ready(stringify!($story), kind) {
                    super::$story(kind);
                }
            })*
        }
    };
}
use with_every_router;

/// Whether the machine can run a story; prints why not.
fn ready(story: &str, kind: Kind) -> bool {
    needs(&format!("{story} with {kind:?}"), &kind.needs())
}
