//! `meshctl services`: the services of each cluster and who serves them now.
use std::collections::BTreeSet;

use isthmus_admin::agent::{FrontendView, ServiceView};
use serde::Serialize;

use super::show;
use super::source::{Answer, Kind, ask, sources};
use crate::cli::ListArgs;
use crate::exit::Exit;
use crate::failure::Outcome;
use crate::output::{List, TableRow};
use crate::progress::Progress;

/// A service of a cluster, as that cluster's nodes serve it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct ServiceRow {
    cluster: String,
    service: String,
    global: bool,
    affinity: String,
    /// `ADDRESS:PORT/PROTOCOL` of each frontend.
    frontends: Vec<String>,
    /// Backends by cluster, and whether new connections go there.
    backends: Vec<ClusterBackends>,
    /// What happens to a new connection, in the agent's words.
    choice: String,
    /// Nodes of the cluster that serve it like this, of all that answered.
    nodes: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct ClusterBackends {
    cluster: String,
    count: usize,
    eligible: bool,
    reason: String,
}

impl TableRow for ServiceRow {
    const HEADINGS: (&'static [&'static str], &'static [&'static str]) = (
        &[
            "CLUSTER",
            "SERVICE",
            "GLOBAL",
            "AFFINITY",
            "FRONTEND",
            "BACKENDS",
            "NEW CONNECTIONS",
        ],
        &["NODES", "ALL FRONTENDS", "CHOICE"],
    );

    fn cells(&self) -> Vec<String> {
        let first = self.frontends.first().cloned().unwrap_or_default();
        let frontend = match self.frontends.len() {
            0 | 1 => first,
            more => format!("{first} +{}", more - 1),
        };
        let count = |b: &ClusterBackends| format!("{} {}", b.cluster, b.count);
        let eligible: Vec<&str> = self
            .backends
            .iter()
            .filter(|b| b.eligible)
            .map(|b| b.cluster.as_str())
            .collect();
        vec![
            self.cluster.clone(),
            self.service.clone(),
            if self.global { "yes" } else { "no" }.into(),
            self.affinity.clone(),
            frontend,
            self.backends.iter().map(count).collect::<Vec<_>>().join(", "),
            if eligible.is_empty() {
                "refused".into()
            } else {
                eligible.join(", ")
            },
            self.nodes.clone(),
            self.frontends.join(" "),
            self.choice.clone(),
        ]
    }
}

/// The command.
pub(crate) fn services(args: &ListArgs, progress: &Progress) -> Outcome<Exit> {
    show(args, progress, || {
        Ok(list(&ask(&sources(args, Kind::Agent)?, "/v1/services")?))
    })
}

fn list(answers: &[Answer<Vec<ServiceView>>]) -> List<ServiceRow> {
    let mut rows: Vec<ServiceRow> = Vec::new();
    let clusters: BTreeSet<&str> = answers.iter().map(|a| a.source.cluster.as_str()).collect();
    for cluster in clusters {
        let views: Vec<&Vec<ServiceView>> = answers
            .iter()
            .filter(|a| a.source.cluster == cluster)
            .filter_map(|a| a.view.as_ref().ok())
            .collect();
        let Some(first) = views.first() else { continue };
        for service in *first {
            let alike = views
                .iter()
                .filter(|v| v.iter().any(|s| same(s, service)))
                .count();
            rows.push(row(cluster, service, format!("{alike}/{}", views.len())));
        }
    }
    let good =
        answers.iter().all(|a| a.view.is_ok()) && rows.iter().all(|r| r.backends.iter().any(|b| b.eligible));
    let exit = if good { Exit::Ok } else { Exit::Degraded };
    List::new("ServiceList", rows, exit).because("a service has no backend, or an agent does not answer")
}

/// Two nodes serve a service alike; which backends are of a dead node may differ for a moment and does not count.
fn same(a: &ServiceView, b: &ServiceView) -> bool {
    let groups = |s: &ServiceView| -> Vec<(String, bool, usize)> {
        let all = s.frontends.iter().flat_map(|f| &f.groups);
        all.map(|g| (g.cluster.clone(), g.eligible, g.backends.len()))
            .collect()
    };
    a.name == b.name && a.affinity == b.affinity && groups(a) == groups(b)
}

fn row(cluster: &str, service: &ServiceView, nodes: String) -> ServiceRow {
    let frontend = |f: &FrontendView| format!("{}/{}", std::net::SocketAddr::new(f.ip, f.port), f.protocol);
    let groups = service.frontends.first().map_or(&[][..], |f| &f.groups);
    ServiceRow {
        cluster: cluster.to_owned(),
        service: service.name.clone(),
        global: service.global,
        affinity: format!("{:?}", service.affinity).to_lowercase(),
        frontends: service.frontends.iter().map(frontend).collect(),
        backends: groups
            .iter()
            .map(|g| ClusterBackends {
                cluster: g.cluster.clone(),
                count: g.backends.len(),
                eligible: g.eligible,
                reason: g.reason.clone(),
            })
            .collect(),
        choice: service
            .frontends
            .first()
            .map_or_else(String::new, |f| f.choice.clone()),
        nodes,
    }
}

#[cfg(test)]
mod tests {
    use isthmus_admin::agent::{BackendView, GroupView};
    use isthmus_topology::{Scope, ServiceAffinity};

    use super::*;
    use crate::output::Format;
    use crate::views::source::Source;

    fn echo(west_eligible: bool) -> ServiceView {
        let backend = |ip: &str| BackendView {
            ip: ip.parse().expect("ip"),
            port: 8080,
            node: None,
            used: true,
        };
        let group = |cluster: &str, eligible: bool, ip: &str| GroupView {
            cluster: cluster.into(),
            cluster_id: 1,
            eligible,
            reason: if eligible {
                String::new()
            } else {
                "no probe is answered".into()
            },
            backends: vec![backend(ip)],
        };
        ServiceView {
            name: "default/echo".into(),
            global: true,
            affinity: ServiceAffinity::None,
            frontends: vec![FrontendView {
                ip: "10.101.0.10".parse().expect("ip"),
                port: 80,
                protocol: "TCP".into(),
                scope: Scope::Internal,
                port_name: "tcp".into(),
                programmed: true,
                choice: "all clusters that are alive".into(),
                groups: vec![
                    group("east", true, "10.1.1.10"),
                    group("west", west_eligible, "10.2.1.10"),
                ],
            }],
        }
    }

    /// east-1 and east-2 serve echo; then east-2's agent is gone, and west is dead.
    #[test]
    fn the_same_row_in_every_format() -> Outcome {
        let answer = |node: &str, view| Answer {
            source: Source::for_test("east", node),
            view,
        };
        let both = list(&[
            answer("east-1", Ok(vec![echo(true)])),
            answer("east-2", Ok(vec![echo(true)])),
        ]);
        assert_eq!(both.exit(), Exit::Ok);
        let table = "\
CLUSTER  SERVICE       GLOBAL  AFFINITY  FRONTEND            BACKENDS        NEW CONNECTIONS
east     default/echo  yes     none      10.101.0.10:80/TCP  east 1, west 1  east, west
";
        assert_eq!(both.text(Format::Table)?, table);
        let json = both.text(Format::Json)?;
        let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(value["apiVersion"], "cli.isthmus.io/v1");
        assert_eq!(value["kind"], "ServiceList");
        assert_eq!(value["items"][0]["backends"][1]["cluster"], "west");
        let yaml: serde_json::Value = serde_saphyr::from_str(&both.text(Format::Yaml)?).expect("YAML");
        assert_eq!(yaml, value, "one view, whatever the format");

        let one = list(&[
            answer("east-1", Ok(vec![echo(false)])),
            answer("east-2", Err("gone".into())),
        ]);
        assert_eq!(one.exit(), Exit::Degraded);
        assert!(one.text(Format::Table)?.contains("east 1, west 1  east\n"));
        Ok(())
    }
}
