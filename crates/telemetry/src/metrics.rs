//! The registry that a daemon hands down to its parts.
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::{Metric, Registry};

/// A daemon's metrics: cheap to clone, shared by its parts.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
}

impl Metrics {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a metric or family under its full name. The encoder appends `_total` to counters: leave it out here.
    pub fn register(&self, name: impl Into<String>, help: impl Into<String>, metric: impl Metric) {
        self.registry
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .register(name, help, metric);
    }

    /// All metrics in the OpenMetrics text format.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        match encode(&mut text, &registry) {
            Ok(()) => text,
            Err(error) => format!("# metrics could not be encoded: {error}\n# EOF\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn a_registered_counter_is_served_with_its_suffix() {
        let metrics = Metrics::new();
        let drops = Counter::<u64>::default();
        metrics.register("cilium_drop_count", "Packets dropped", drops.clone());
        drops.inc_by(3);
        assert!(metrics.encode().contains("cilium_drop_count_total 3"));
    }
}
