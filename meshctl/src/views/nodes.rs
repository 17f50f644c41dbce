//! `meshctl nodes`: every node of the mesh once, with what each cluster says of it.
use std::collections::BTreeMap;

use isthmus_admin::agent::NodeView;
use serde::Serialize;

use super::show;
use super::source::{Answer, Kind, ask, sources};
use crate::cli::ListArgs;
use crate::exit::Exit;
use crate::failure::Outcome;
use crate::output::{List, TableRow};
use crate::progress::Progress;

/// A node of the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeRow {
    cluster: String,
    node: String,
    /// `up`, `unknown`, or `down` if anybody's probes say so.
    state: &'static str,
    endpoint: String,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Vec<String>,
    /// Cluster → what its agents say: `self`, `alive`, `dead`, … with the round-trip time of the probes.
    seen_by: BTreeMap<String, String>,
    /// What of it is not used, and why.
    refused: Vec<String>,
}

impl TableRow for NodeRow {
    const HEADINGS: (&'static [&'static str], &'static [&'static str]) = (
        &["CLUSTER", "NODE", "STATE", "ENDPOINT", "POD CIDRS"],
        &["SEEN BY", "REFUSED"],
    );

    fn cells(&self) -> Vec<String> {
        let seen: Vec<String> = self
            .seen_by
            .iter()
            .map(|(who, what)| format!("{who}: {what}"))
            .collect();
        vec![
            self.cluster.clone(),
            self.node.clone(),
            self.state.into(),
            self.endpoint.clone(),
            self.pod_cidrs.join(" "),
            seen.join(", "),
            self.refused.join("; "),
        ]
    }
}

/// The command.
pub(crate) fn nodes(args: &ListArgs, progress: &Progress) -> Outcome<Exit> {
    show(args, progress, || {
        let answers = ask(&sources(args, Kind::Agent)?, "/v1/nodes")?;
        Ok(list(&answers))
    })
}

fn list(answers: &[Answer<Vec<NodeView>>]) -> List<NodeRow> {
    let mut rows: BTreeMap<(String, String), NodeRow> = BTreeMap::new();
    for answer in answers {
        let Ok(view) = &answer.view else { continue };
        let viewer = match answer.source.cluster.as_str() {
            "" => view
                .iter()
                .find(|n| n.this)
                .map_or_else(String::new, |n| n.cluster.clone()),
            cluster => cluster.to_owned(),
        };
        for node in view {
            let row = rows
                .entry((node.cluster.clone(), node.name.clone()))
                .or_insert_with(|| NodeRow {
                    cluster: node.cluster.clone(),
                    node: node.name.clone(),
                    state: "up",
                    endpoint: node.endpoint.map_or_else(String::new, |ip| ip.to_string()),
                    pod_cidrs: node.pod_cidrs.iter().map(ToString::to_string).collect(),
                    seen_by: BTreeMap::new(),
                    refused: node.refused.clone(),
                });
            match node.state.as_str() {
                "dead" => row.state = "down",
                "unknown" if row.state == "up" => row.state = "unknown",
                _ => {}
            }
            if let Some(said) = said(node) {
                row.seen_by.entry(viewer.clone()).or_insert(said);
            }
        }
    }
    let silent: Vec<&str> = answers
        .iter()
        .filter(|a| a.view.is_err())
        .map(|a| a.source.node.as_str())
        .collect();
    for row in rows
        .values_mut()
        .filter(|row| silent.contains(&row.node.as_str()))
    {
        row.seen_by
            .insert(row.cluster.clone(), "its agent does not answer".into());
    }
    let rows: Vec<NodeRow> = rows.into_values().collect();
    let good = silent.is_empty() && rows.iter().all(|r| r.state == "up" && r.refused.is_empty());
    let exit = if good { Exit::Ok } else { Exit::Degraded };
    List::new("NodeList", rows, exit).because("a node does not answer")
}

/// Nodes of the own cluster are not probed: only what an agent says of itself counts.
fn said(node: &NodeView) -> Option<String> {
    let rtt = node
        .rtt_us
        .map_or_else(String::new, |us| format!(" {:.1}ms", us as f64 / 1e3));
    match node.state.as_str() {
        "" if node.this => Some("self".into()),
        "" => None,
        state => Some(format!("{state}{rtt}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;
    use crate::views::source::Source;

    fn view(cluster: &str, name: &str, this: bool, state: &str, rtt_us: Option<u64>) -> NodeView {
        NodeView {
            cluster: cluster.into(),
            cluster_id: 1,
            name: name.into(),
            this,
            endpoint: "172.30.1.6".parse().ok(),
            overlay: Vec::new(),
            pod_cidrs: vec!["10.1.1.0/24".parse().expect("CIDR")],
            state: state.into(),
            rtt_us,
            refused: Vec::new(),
        }
    }

    fn answer(cluster: &str, node: &str, view: Result<Vec<NodeView>, String>) -> Answer<Vec<NodeView>> {
        let source = Source::for_test(cluster, node);
        Answer { source, view }
    }

    #[test]
    fn a_node_is_listed_once_with_what_each_cluster_says() -> Outcome {
        let answers = [
            answer(
                "east",
                "east-1",
                Ok(vec![
                    view("east", "east-1", true, "", None),
                    view("west", "west-1", false, "dead", None),
                ]),
            ),
            answer(
                "west",
                "west-1",
                Ok(vec![
                    view("west", "west-1", true, "", None),
                    view("east", "east-1", false, "alive", Some(420)),
                ]),
            ),
        ];
        let list = list(&answers);
        let table = "\
CLUSTER  NODE    STATE  ENDPOINT    POD CIDRS    SEEN BY                         REFUSED
east     east-1  up     172.30.1.6  10.1.1.0/24  east: self, west: alive 0.4ms   -
west     west-1  down   172.30.1.6  10.1.1.0/24  east: dead, west: self          -
! a node does not answer
";
        let wide = list.text(Format::Wide)?;
        let squeeze = |t: &str| t.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(squeeze(&wide), squeeze(table));
        assert_eq!(list.exit(), Exit::Degraded);
        Ok(())
    }
}
