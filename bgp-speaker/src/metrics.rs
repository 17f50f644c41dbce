//! Metrics under Cilium's names, and our own for what Cilium does not count.
use std::sync::atomic::AtomicU64;

use isthmus_admin::bgp::PeerView;
use isthmus_telemetry::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PeerLabels {
    vrouter: String,
    neighbor: String,
    neighbor_asn: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FamilyLabels {
    vrouter: String,
    neighbor: String,
    neighbor_asn: String,
    afi: String,
    safi: String,
}

type PeerCounter = Family<PeerLabels, Counter<u64, AtomicU64>>;
type PeerCounterOf = (PeerCounter, fn(&PeerView) -> u64);
type PeerCounterSpec = (&'static str, &'static str, fn(&PeerView) -> u64);

/// All metrics of the speaker.
#[derive(Debug)]
pub(crate) struct SpeakerMetrics {
    session_state: Family<PeerLabels, Gauge>,
    advertised_routes: Family<FamilyLabels, Gauge>,
    received_routes: Family<FamilyLabels, Gauge>,
    counters: Vec<PeerCounterOf>,
    /// Configurations that could not be used.
    pub(crate) reconcile_errors: Counter,
    /// Time that a change of the plan took until the engine had it.
    pub(crate) reconcile_duration: Histogram,
    /// Connections from strangers, and others that were not wanted.
    pub(crate) refused_connections: Counter,
}

impl SpeakerMetrics {
    /// Registers everything.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let new = Self {
            session_state: Family::default(),
            advertised_routes: Family::default(),
            received_routes: Family::default(),
            counters: PEER_COUNTERS
                .iter()
                .map(|(_, _, value)| (PeerCounter::default(), *value))
                .collect(),
            reconcile_errors: Counter::default(),
            reconcile_duration: Histogram::new(exponential_buckets(0.0001, 4.0, 8)),
            refused_connections: Counter::default(),
        };
        let cilium = |name: &str| format!("cilium_bgp_control_plane_{name}");
        let peer_state = "1 if the session with the peer is established";
        metrics.register(cilium("session_state"), peer_state, new.session_state.clone());
        let advertised = "Routes that the peer has been sent";
        metrics.register(
            cilium("advertised_routes"),
            advertised,
            new.advertised_routes.clone(),
        );
        let received = "Routes that the peer has sent";
        metrics.register(cilium("received_routes"), received, new.received_routes.clone());
        let errors = "Configurations that could not be used";
        metrics.register(cilium("reconcile_errors"), errors, new.reconcile_errors.clone());
        let duration = "Time to turn a change of the cluster into routes";
        metrics.register(
            cilium("reconcile_run_duration_seconds"),
            duration,
            new.reconcile_duration.clone(),
        );
        let refused = "Connections that no configured peer may open now";
        metrics.register(
            "isthmus_bgp_refused_connections",
            refused,
            new.refused_connections.clone(),
        );
        for ((name, help, _), (family, _)) in PEER_COUNTERS.iter().zip(&new.counters) {
            metrics.register(format!("isthmus_bgp_{name}"), *help, family.clone());
        }
        new
    }

    /// Takes over the figures of all peers; a peer that is gone keeps none.
    pub(crate) fn update(&self, peers: &[PeerView]) {
        self.session_state.clear();
        self.advertised_routes.clear();
        self.received_routes.clear();
        for (family, _) in &self.counters {
            family.clear();
        }
        for peer in peers {
            let labels = labels(peer);
            self.session_state
                .get_or_create(&labels)
                .set(i64::from(peer.established()));
            for (family, value) in &self.counters {
                family.get_or_create(&labels).inc_by(value(peer));
            }
            for family in peer.families.iter().filter(|family| family.negotiated) {
                let labels = family_labels(&labels, &family.family);
                let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
                self.advertised_routes
                    .get_or_create(&labels)
                    .set(gauge(family.advertised));
                self.received_routes
                    .get_or_create(&labels)
                    .set(gauge(family.received));
            }
        }
    }
}

const PEER_COUNTERS: [PeerCounterSpec; 8] = [
    ("messages_received", "Messages received", |peer| {
        peer.counters.messages_received
    }),
    ("messages_sent", "Messages sent", |peer| {
        peer.counters.messages_sent
    }),
    ("updates_received", "UPDATEs received", |peer| {
        peer.counters.updates_received
    }),
    ("updates_sent", "UPDATEs sent", |peer| peer.counters.updates_sent),
    (
        "treated_as_withdraw",
        "Malformed UPDATEs whose routes were withdrawn (RFC 7606)",
        |peer| peer.counters.treated_as_withdraw,
    ),
    (
        "attributes_discarded",
        "UPDATEs that lost a malformed attribute (RFC 7606)",
        |peer| peer.counters.attributes_discarded,
    ),
    ("routes_refused", "Routes refused for their path", |peer| {
        peer.counters.routes_refused
    }),
    ("session_flaps", "Established sessions that ended", |peer| {
        peer.counters.flaps
    }),
];

fn labels(peer: &PeerView) -> PeerLabels {
    PeerLabels {
        vrouter: peer.local_asn.to_string(),
        neighbor: peer.peer_address.ip().to_string(),
        neighbor_asn: peer.peer_asn.to_string(),
    }
}

fn family_labels(peer: &PeerLabels, family: &str) -> FamilyLabels {
    let (afi, safi) = family.split_once('-').unwrap_or((family, ""));
    FamilyLabels {
        vrouter: peer.vrouter.clone(),
        neighbor: peer.neighbor.clone(),
        neighbor_asn: peer.neighbor_asn.clone(),
        afi: afi.to_owned(),
        safi: safi.to_owned(),
    }
}
