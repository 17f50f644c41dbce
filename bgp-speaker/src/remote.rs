//! Live backends in other clusters, as the agent of this node counts them.
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use isthmus_admin::agent::{AgentStatus, GroupView, ServiceView};
use isthmus_admin::{AdminClient, AdminError};
use isthmus_topology::{ClusterName, Scope, ServiceName};
use tokio::sync::watch;

use crate::advertise::RemoteBackends;

/// How often the agent's status (small) is read; its services (large) only when the status says that something changed.
const EVERY: Duration = Duration::from_millis(100);

/// How often the services are read although nothing seems to have changed.
const ANYWAY: Duration = Duration::from_secs(10);

/// Follows the agent; without one nothing is ever reported. When the agent goes away its last answer stays: the datapath goes
/// on with it too.
pub(crate) fn follow(socket: Option<PathBuf>, own: ClusterName) -> watch::Receiver<Arc<RemoteBackends>> {
    let (counts, receiver) = watch::channel(Arc::default());
    tokio::spawn(async move {
        match socket {
            Some(socket) => Follower::new(socket, own).run(counts).await,
            // Somebody must hold the sender: a closed channel would look like an end.
            None => counts.closed().await,
        }
    });
    receiver
}

#[derive(Debug)]
struct Follower {
    client: AdminClient,
    own: ClusterName,
    services: Vec<ServiceView>,
    read: Option<(Change, Instant)>,
    connected: bool,
}

/// What tells that the agent's services may have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Change {
    started_at: String,
    map_entries: u64,
}

impl Follower {
    fn new(socket: PathBuf, own: ClusterName) -> Self {
        Self {
            client: AdminClient::new(socket),
            own,
            services: Vec::new(),
            read: None,
            connected: false,
        }
    }

    async fn run(mut self, counts: watch::Sender<Arc<RemoteBackends>>) {
        let mut first = true;
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !counts.is_closed() {
            ticks.tick().await;
            match self.read().await {
                Ok(now) => {
                    counts.send_if_modified(|last| {
                        let news = first || **last != now;
                        *last = Arc::new(now);
                        news
                    });
                    first = false;
                    if !std::mem::replace(&mut self.connected, true) {
                        tracing::info!("following the agent's view of remote backends");
                    }
                }
                Err(error) if std::mem::replace(&mut self.connected, false) => {
                    tracing::warn!(%error, "the agent is away; its last count of remote backends stays");
                }
                Err(error) => tracing::debug!(%error, "no agent yet"),
            }
        }
    }

    async fn read(&mut self) -> Result<RemoteBackends, AdminError> {
        let status: AgentStatus = self.client.read("/v1/status").await?;
        let change = Change {
            started_at: status.started_at.clone(),
            map_entries: status.writes.map_entries,
        };
        let fresh = self
            .read
            .as_ref()
            .is_some_and(|(last, at)| *last == change && at.elapsed() < ANYWAY);
        if !fresh {
            self.services = self.client.read("/v1/services").await?;
            self.read = Some((change, Instant::now()));
        }
        Ok(count(&self.own, &status, &self.services))
    }
}

/// Backends of each global service in other clusters that are alive. Whether the affinity would choose them now does not
/// matter: when the local ones die it will.
fn count(own: &ClusterName, status: &AgentStatus, services: &[ServiceView]) -> RemoteBackends {
    let alive: BTreeSet<&str> = status
        .clusters
        .iter()
        .filter(|cluster| cluster.eligible && cluster.name != own.as_str())
        .map(|cluster| cluster.name.as_str())
        .collect();
    let live = |service: &ServiceView| {
        let mut by_ip: BTreeMap<IpAddr, BTreeSet<(u16, IpAddr)>> = BTreeMap::new();
        for frontend in service.frontends.iter().filter(|f| f.scope == Scope::External) {
            let alive = |group: &&GroupView| alive.contains(group.cluster.as_str());
            for group in frontend.groups.iter().filter(alive) {
                let used = group.backends.iter().filter(|backend| backend.used);
                let used = used.map(|backend| (group.cluster_id, backend.ip));
                by_ip.entry(frontend.ip).or_default().extend(used);
            }
        }
        by_ip.into_iter().map(|(ip, set)| (ip, set.len())).collect()
    };
    let named = |service: &ServiceView| Some((service.name.parse::<ServiceName>().ok()?, live(service)));
    services
        .iter()
        .filter(|service| service.global)
        .filter_map(named)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// ```text
    ///   east (here) ---- west (alive): 10.2.0.7 used, 10.2.0.8 left out
    ///               \--- north (cut off): 10.3.0.7
    /// ```
    #[test]
    fn only_used_backends_of_living_clusters_count() {
        let cluster = |name: &str, eligible: bool| {
            json!({
                "name": name, "id": 2, "eligible": eligible, "reason": "", "control": {"ready": true, "connected": true, "status": "",
                "endpoint": "", "failures": 0, "rejected": 0, "nodes": 0, "services": 0, "endpoints": 0, "identities": 0},
                "data": {"state": "alive", "probes": []}
            })
        };
        let status = json!({
            "cluster": "east", "clusterId": 1, "node": "east-1", "version": "", "startedAt": "", "ready": true, "waitingFor": [],
            "clusters": [cluster("west", true), cluster("north", false)], "features": [], "problems": [],
            "writes": {"mapEntries": 0, "network": 0, "hooks": 0, "nft": 0, "sysctls": 0, "lastChangeUs": 0}
        });
        let group = |cluster: &str, id: u16, backends: &[(&str, bool)]| {
            let backends: Vec<_> = backends
                .iter()
                .map(|(ip, used)| json!({"ip": ip, "port": 80, "node": null, "used": used}))
                .collect();
            json!({"cluster": cluster, "clusterId": id, "eligible": true, "reason": "", "backends": backends})
        };
        let groups = [
            group("east", 1, &[("10.1.0.7", true)]),
            group("west", 2, &[("10.2.0.7", true), ("10.2.0.8", false)]),
            group("north", 3, &[("10.3.0.7", true)]),
        ];
        let services = json!([{
            "name": "demo/echo", "global": true, "affinity": "local", "frontends": [{
                "ip": "203.0.113.10", "port": 80, "protocol": "TCP", "scope": "external", "portName": "http",
                "programmed": true, "choice": "", "groups": groups
            }]
        }]);
        let status: AgentStatus = serde_json::from_value(status).expect("a status");
        let services: Vec<ServiceView> = serde_json::from_value(services).expect("services");
        let east = "east".parse().expect("a name");
        let vip: IpAddr = "203.0.113.10".parse().expect("an address");
        let counts = count(&east, &status, &services);
        assert_eq!(
            counts,
            BTreeMap::from([("demo/echo".parse().expect("a name"), BTreeMap::from([(vip, 1)]))])
        );
    }
}
