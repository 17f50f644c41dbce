//! The end of the demo: a table, and a picture of the mesh.
use isthmus_admin::agent::NodeView;
use isthmus_admin::bgp::PeerView;
use isthmus_topology::picture::{Picture, PictureCluster, PictureLink, PictureNode, draw};

use super::script::StepResult;
use crate::lab::plan::{Cluster, Node, TOR_AS};
use crate::lab::{Lab, admin};
use crate::output::TableRow;

impl TableRow for StepResult {
    const HEADINGS: (&'static [&'static str], &'static [&'static str]) =
        (&["STEP", "HELD", "MUST", "MEASURED"], &[]);

    fn cells(&self) -> Vec<String> {
        let held = if self.held { "yes" } else { "NO" };
        vec![
            self.name.into(),
            held.into(),
            self.target.into(),
            self.measured.clone(),
        ]
    }
}

/// The mesh as it stands now.
pub(super) fn picture(lab: &Lab) -> String {
    let clusters: Vec<PictureCluster> = lab.plan.clusters.iter().map(|c| cluster(lab, c)).collect();
    let links = lab
        .plan
        .clusters
        .windows(2)
        .map(|pair| link(lab, &pair[0], &pair[1].name))
        .collect();
    draw(&Picture {
        clusters,
        links,
        router: Some(format!("tor {} AS {TOR_AS} ── client", lab.tor)),
    })
}

fn cluster(lab: &Lab, cluster: &Cluster) -> PictureCluster {
    let run = lab.cluster_dir(&cluster.name).join("run");
    let node = |node: &Node| {
        let peers: Vec<PeerView> =
            admin::read(&run.join(format!("{}.bgp.sock", node.name)), "/v1/peers").unwrap_or_default();
        PictureNode {
            name: node.name.clone(),
            detail: node.pod_cidrs[0].to_string(),
            up: admin::ready(&run.join(format!("{}.agent.sock", node.name))).is_ok(),
            session: peers.first().map(|p| p.session_state.clone()),
        }
    };
    PictureCluster {
        title: format!("{} (id {}, AS {})", cluster.name, cluster.id, cluster.asn),
        nodes: cluster.nodes.iter().map(node).collect(),
    }
}

fn link(lab: &Lab, own: &Cluster, peer: &str) -> Option<PictureLink> {
    let node = own.nodes.first()?;
    let socket = lab
        .cluster_dir(&own.name)
        .join(format!("run/{}.agent.sock", node.name));
    let nodes: Vec<NodeView> = admin::read(&socket, "/v1/nodes").ok()?;
    let remote: Vec<&NodeView> = nodes.iter().filter(|n| n.cluster == peer).collect();
    let rtt = remote.iter().filter_map(|n| n.rtt_us).min();
    (!remote.is_empty()).then(|| PictureLink {
        label: match rtt {
            Some(us) => format!("vxlan  {:.1} ms", us as f64 / 1e3),
            None => "vxlan".into(),
        },
        up: remote.iter().all(|n| n.state == "alive"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_did_not_hold_stands_out() {
        let step = |name, held| StepResult {
            name,
            measured: "12 ms".into(),
            target: "50 ms",
            held,
        };
        let expected = "\
STEP      HELD  MUST   MEASURED
failover  yes   50 ms  12 ms
cut       NO    50 ms  12 ms
";
        let rows = [step("failover", true), step("cut", false)];
        assert_eq!(crate::output::render(&rows, false), expected);
    }
}
