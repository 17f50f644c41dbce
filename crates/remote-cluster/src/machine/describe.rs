//! What a remote cluster does now, in words for people.
use std::time::Instant;

use super::{Machine, Phase, Step};
use crate::Resource;
use crate::feed::Feed;

impl Machine {
    /// One line about what it does now.
    pub(crate) fn describe(&self, now: Instant) -> String {
        match self.phase {
            Phase::Away { until } if self.facts.failures > 0 => {
                let wait = until.saturating_duration_since(now).as_secs_f32();
                format!("{}; next attempt in {wait:.1} s", self.facts.last_reason)
            }
            Phase::Away { .. } | Phase::Connecting if self.facts.failures == 0 => "connecting".to_owned(),
            Phase::Away { .. } | Phase::Connecting => format!("connecting again; {}", self.facts.last_reason),
            Phase::Up(up) => self.describe_step(up.step),
        }
    }

    fn describe_step(&self, step: Step) -> String {
        match step {
            Step::Heartbeat => "connected, reading the heartbeat".to_owned(),
            Step::Config { again: None } => "reading the cluster configuration".to_owned(),
            Step::Config { again: Some(_) } => {
                let key = isthmus_kvstore::cluster_config_key(&self.settings.cluster);
                if self.facts.refused.is_empty() {
                    format!("waiting for {key}: its exporter has not written it yet")
                } else {
                    format!("waiting for {key}: {}", self.facts.refused)
                }
            }
            Step::Reserving(_) => "checking the cluster id".to_owned(),
            Step::Following if self.is_ready() => "ready".to_owned(),
            Step::Following => {
                let waiting: Vec<_> = self
                    .wanted()
                    .into_iter()
                    .filter(|r| !self.is_synced_now(*r))
                    .collect();
                let names: Vec<_> = waiting.iter().map(|r| self.waiting_for(*r)).collect();
                format!("waiting for {}", names.join(", "))
            }
        }
    }

    fn waiting_for(&self, resource: Resource) -> String {
        match self.feeds.get(&Feed::Table(resource)) {
            Some(lw) if !lw.is_started() => format!("the canary of {resource}"),
            Some(lw) if lw.failures() > 0 => format!("{resource} (refused: {})", self.facts.refused),
            _ => format!("the list of {resource}"),
        }
    }
}
