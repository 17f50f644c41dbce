//! Figures from records: pure, so that what the demo prints is tested.
use std::collections::BTreeMap;

use crate::traffic::Record;

/// Requests that nobody answered.
pub(super) fn lost(records: &[Record]) -> usize {
    records.iter().filter(|r| r.answer.is_err()).count()
}

/// Answers by cluster, e.g. `east 20, west 21`.
pub(super) fn by_cluster(records: &[Record]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for cluster in records.iter().filter_map(Record::cluster) {
        *counts.entry(cluster.to_owned()).or_insert(0) += 1;
    }
    counts
}

/// The pods that answered.
pub(super) fn pods(records: &[Record]) -> usize {
    let mut pods: Vec<&str> = records.iter().filter_map(Record::pod).collect();
    pods.sort_unstable();
    pods.dedup();
    pods.len()
}

/// `east 20, west 21`.
pub(super) fn said(counts: &BTreeMap<String, usize>) -> String {
    let each: Vec<String> = counts
        .iter()
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    if each.is_empty() {
        "nobody".into()
    } else {
        each.join(", ")
    }
}

/// Median and 99th percentile of the time to an answer, in microseconds.
pub(super) fn latency_us(records: &[Record]) -> (u64, u64) {
    let mut times: Vec<u64> = records
        .iter()
        .filter(|r| r.answer.is_ok())
        .map(|r| r.took_us)
        .collect();
    times.sort_unstable();
    let at = |percent: usize| {
        times
            .get((times.len().saturating_sub(1)) * percent / 100)
            .copied()
            .unwrap_or(0)
    };
    (at(50), at(99))
}

/// How long after `since` the first answer of a cluster to a request sent after it was there, in milliseconds.
pub(super) fn first_answer_ms(records: &[Record], since_us: u64, cluster: &str) -> Option<f64> {
    let answers = records
        .iter()
        .filter(|r| r.sent_us >= since_us && r.cluster() == Some(cluster));
    let first = answers.map(Record::done_us).min()?;
    Some((first - since_us) as f64 / 1e3)
}

/// How long after `since` the last request was sent that was lost, in milliseconds; none if none was lost after it.
pub(super) fn last_loss_ms(records: &[Record], since_us: u64) -> Option<f64> {
    let losses = records
        .iter()
        .filter(|r| r.answer.is_err() && r.sent_us >= since_us);
    let last = losses.map(|r| r.sent_us).max()?;
    Some((last - since_us) as f64 / 1e3)
}

/// Requests lost that were sent after a moment.
pub(super) fn lost_after(records: &[Record], moment_us: u64) -> usize {
    records
        .iter()
        .filter(|r| r.answer.is_err() && r.sent_us > moment_us)
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(sent_ms: u64, took_ms: u64, answer: Result<&str, &str>) -> Record {
        Record {
            sent_us: sent_ms * 1000,
            took_us: took_ms * 1000,
            answer: answer.map(str::to_owned).map_err(str::to_owned),
        }
    }

    /// Time in ms:  0   10  20(kill)  21   25   30   40
    ///              e1  e2            lost lost w1   w2
    fn failover() -> Vec<Record> {
        vec![
            record(0, 1, Ok("east east-1 echo-east-1")),
            record(10, 1, Ok("east east-2 echo-east-2")),
            record(21, 1, Err("connect: refused")),
            record(25, 1, Err("connect: refused")),
            record(30, 2, Ok("west west-1 echo-west-1")),
            record(40, 1, Ok("west west-2 echo-west-2")),
        ]
    }

    #[test]
    fn a_failover_in_figures() {
        let records = failover();
        assert_eq!(lost(&records), 2);
        assert_eq!(said(&by_cluster(&records)), "east 2, west 2");
        assert_eq!(pods(&records), 4);
        assert_eq!(first_answer_ms(&records, 20_000, "west"), Some(12.0));
        assert_eq!(last_loss_ms(&records, 20_000), Some(5.0));
        assert_eq!(lost_after(&records, 30_000), 0);
        assert_eq!(latency_us(&records), (1000, 1000));
    }

    #[test]
    fn nothing_measured_is_nothing_claimed() {
        assert_eq!(first_answer_ms(&failover(), 20_000, "north"), None);
        assert_eq!(last_loss_ms(&[], 0), None);
        assert_eq!(latency_us(&[]), (0, 0));
        assert_eq!(said(&by_cluster(&[])), "nobody");
    }
}
