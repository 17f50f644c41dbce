//! `meshctl status`: one line for each cluster.
use std::collections::BTreeMap;

use isthmus_admin::agent::{AgentStatus, ServiceView};
use isthmus_admin::apiserver::ApiserverStatus;
use isthmus_admin::bgp::PeerView;
use jiff::Timestamp;
use serde::Serialize;

use super::show;
use super::source::{Answer, Kind, ask, sources};
use crate::cli::ListArgs;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::output::{List, TableRow};
use crate::progress::Progress;

/// How a cluster stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StatusRow {
    cluster: String,
    id: u32,
    /// `ok`, `degraded` or `down`.
    state: &'static str,
    /// `ready`, or what it waits for, or why it does not answer.
    apiserver: String,
    agents: Count,
    /// Remote clusters: how many of this cluster's agents may send new connections there.
    peers: BTreeMap<String, Count>,
    /// Global services.
    services: usize,
    /// BGP sessions.
    bgp: Count,
    /// Days until the apiserver's certificate expires.
    certificate_days: Option<i64>,
    /// What is wrong, in words.
    problems: Vec<String>,
}

/// So many of so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub(super) struct Count {
    good: usize,
    all: usize,
}

impl Count {
    fn add(&mut self, good: bool) {
        self.all += 1;
        self.good += usize::from(good);
    }

    fn full(self) -> bool {
        self.good == self.all
    }

    fn text(self) -> String {
        match self.all {
            0 => String::new(),
            all => format!("{}/{all}", self.good),
        }
    }
}

impl TableRow for StatusRow {
    const HEADINGS: (&'static [&'static str], &'static [&'static str]) = (
        &[
            "CLUSTER",
            "ID",
            "STATE",
            "APISERVER",
            "AGENTS",
            "PEERS",
            "SERVICES",
            "BGP",
            "CERT",
        ],
        &[],
    );

    fn cells(&self) -> Vec<String> {
        let peers: Vec<String> = self
            .peers
            .iter()
            .map(|(name, count)| format!("{name} {}", count.text()))
            .collect();
        vec![
            self.cluster.clone(),
            self.id.to_string(),
            self.state.into(),
            self.apiserver.clone(),
            self.agents.text(),
            peers.join(", "),
            self.services.to_string(),
            self.bgp.text(),
            self.certificate_days
                .map_or_else(String::new, |d| format!("{d}d")),
        ]
    }
}

/// What was asked for it.
struct Gathered {
    apiservers: Vec<Answer<ApiserverStatus>>,
    agents: Vec<Answer<AgentStatus>>,
    services: Vec<Answer<Vec<ServiceView>>>,
    speakers: Vec<Answer<Vec<PeerView>>>,
}

/// The command.
pub(crate) fn status(args: &ListArgs, progress: &Progress) -> Outcome<Exit> {
    show(args, progress, || {
        let none = |_: Failure| Vec::new();
        let agents = ask(&sources(args, Kind::Agent)?, "/v1/status");
        let apiservers = sources(args, Kind::Apiserver)?;
        let speakers = sources(args, Kind::Speaker)?;
        let one = args.socket.is_some();
        let gathered = Gathered {
            apiservers: if one {
                Vec::new()
            } else {
                ask(&apiservers, "/v1/status").unwrap_or_else(none)
            },
            services: ask(&sources(args, Kind::Agent)?, "/v1/services").unwrap_or_else(|_| Vec::new()),
            speakers: if one {
                Vec::new()
            } else {
                ask(&speakers, "/v1/peers").unwrap_or_else(|_| Vec::new())
            },
            agents: match agents {
                Err(failure) if one => return Err(failure),
                other => other.unwrap_or_else(|_| Vec::new()),
            },
        };
        if gathered.agents.is_empty() && gathered.apiservers.is_empty() && gathered.speakers.is_empty() {
            return Err(
                Failure::new(Exit::Unreachable, "no daemon of any cluster answers")
                    .next("meshctl lab status"),
            );
        }
        Ok(list(&gathered, Timestamp::now()))
    })
}

fn list(gathered: &Gathered, now: Timestamp) -> List<StatusRow> {
    let mut rows: BTreeMap<String, StatusRow> = BTreeMap::new();
    for answer in &gathered.apiservers {
        add_apiserver(row(&mut rows, &answer.source.cluster), answer, now);
    }
    for answer in &gathered.agents {
        let cluster = match (&answer.view, answer.source.cluster.as_str()) {
            (Ok(view), "") => view.cluster.clone(),
            (_, cluster) => cluster.to_owned(),
        };
        add_agent(row(&mut rows, &cluster), answer);
    }
    for answer in &gathered.services {
        let global = |v: &Vec<ServiceView>| v.iter().filter(|s| s.global).count();
        if let Ok(view) = &answer.view
            && let Some(row) = rows.get_mut(&answer.source.cluster)
        {
            row.services = row.services.max(global(view));
        }
    }
    for answer in &gathered.speakers {
        add_speaker(row(&mut rows, &answer.source.cluster), answer);
    }
    let mut rows: Vec<StatusRow> = rows.into_values().collect();
    let alone = gathered.apiservers.is_empty() && rows.len() == 1;
    rows.iter_mut().for_each(|row| row.state = judge(row, alone));
    let exit = match rows.iter().any(|r| r.state == "down") {
        true => Exit::Down,
        false if rows.iter().any(|r| r.state == "degraded") => Exit::Degraded,
        false => Exit::Ok,
    };
    let problems = |row: &StatusRow| -> Vec<String> {
        let said = |what: &String| format!("{}: {what}", row.cluster);
        match row.problems.is_empty() && row.state != "ok" {
            true => vec![format!("{} is {}", row.cluster, row.state)],
            false => row.problems.iter().map(said).collect(),
        }
    };
    let notes: Vec<String> = rows.iter().flat_map(problems).collect();
    let list = List::new("ClusterStatusList", rows, exit);
    notes.into_iter().fold(list, List::because)
}

fn row<'r>(rows: &'r mut BTreeMap<String, StatusRow>, cluster: &str) -> &'r mut StatusRow {
    rows.entry(cluster.to_owned()).or_insert_with(|| StatusRow {
        cluster: cluster.to_owned(),
        id: 0,
        state: "ok",
        apiserver: String::new(),
        agents: Count::default(),
        peers: BTreeMap::new(),
        services: 0,
        bgp: Count::default(),
        certificate_days: None,
        problems: Vec::new(),
    })
}

fn add_apiserver(row: &mut StatusRow, answer: &Answer<ApiserverStatus>, now: Timestamp) {
    let view = match &answer.view {
        Ok(view) => view,
        Err(why) => {
            row.apiserver = "silent".into();
            row.problems.push(why.clone());
            return;
        }
    };
    row.id = view.cluster_id;
    row.apiserver = if view.ready { "ready" } else { "waiting" }.into();
    row.problems.extend(
        view.waiting_for
            .iter()
            .map(|w| format!("the apiserver waits for {w}")),
    );
    row.problems.extend(view.certificate_fault.clone());
    for error in &view.manifest_errors {
        row.problems.push(format!(
            "{}:{}: {}",
            error.file.display(),
            error.line,
            error.reason
        ));
    }
    let end: Option<Timestamp> = view.certificate.not_after.parse().ok();
    row.certificate_days = end.map(|end| (end.as_second() - now.as_second()) / 86_400);
}

fn add_agent(row: &mut StatusRow, answer: &Answer<AgentStatus>) {
    let view = match &answer.view {
        Ok(view) => view,
        Err(why) => {
            row.agents.add(false);
            row.problems.push(why.clone());
            return;
        }
    };
    row.id = view.cluster_id.into();
    row.agents.add(view.ready);
    row.problems.extend(
        view.waiting_for
            .iter()
            .map(|w| format!("{} waits for {w}", view.node)),
    );
    row.problems
        .extend(view.problems.iter().map(|p| format!("{}: {p}", view.node)));
    for cluster in &view.clusters {
        let good = cluster.eligible && cluster.control.ready;
        row.peers.entry(cluster.name.clone()).or_default().add(good);
        // What the agent says itself says more.
        if !good && view.problems.is_empty() {
            let why = if cluster.eligible {
                &cluster.control.status
            } else {
                &cluster.reason
            };
            row.problems
                .push(format!("{} → {}: {why}", view.node, cluster.name));
        }
    }
}

fn add_speaker(row: &mut StatusRow, answer: &Answer<Vec<PeerView>>) {
    match &answer.view {
        Ok(peers) => {
            for peer in peers {
                row.bgp.add(peer.established());
                if !peer.established() {
                    let why = peer
                        .last_error
                        .clone()
                        .unwrap_or_else(|| peer.session_state.clone());
                    row.problems
                        .push(format!("BGP {} → {}: {why}", peer.node, peer.name));
                }
            }
        }
        Err(why) => {
            row.bgp.add(false);
            row.problems.push(why.clone());
        }
    }
}

/// Down is a cluster whose nodes serve nobody; degraded one of which not all is well.
fn judge(row: &StatusRow, alone: bool) -> &'static str {
    let apiserver = alone || row.apiserver == "ready";
    let peers = row.peers.values().all(|c| c.full());
    match row.agents {
        Count { good: 0, .. } => "down",
        agents if agents.full() && apiserver && peers && row.bgp.full() && row.problems.is_empty() => "ok",
        _ => "degraded",
    }
}

#[cfg(test)]
mod tests;
