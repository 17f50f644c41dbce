//! Backends in another cluster, as the agent of the node tells.
//!
//! ```text
//!   tor --- node-1 (east)  service demo/web, global, no backend here
//!              |  admin socket
//!            agent: cluster west, backend 10.2.0.7
//!
//!   agent says            route to 203.0.113.10
//!   west is eligible      yes
//!   west is cut off       no
//!   nothing (it died)     as it said last
//! ```
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use axum::routing::get;
use axum::{Json, Router};
use isthmus_admin::AdminServer;
use isthmus_admin::bgp::AdvertisementView;
use isthmus_testkit::{Need, needs, wait_until};
use serde_json::{Value, json};

use crate::support::{Cluster, Link, PATIENCE, PeerSettings, Speaker, beside_others};

/// What the scripted agent says now.
#[derive(Debug, Default)]
struct Said {
    west_is_eligible: AtomicBool,
    asked: AtomicU64,
}

fn status(said: &Said) -> Value {
    said.asked.fetch_add(1, Ordering::Relaxed);
    let eligible = said.west_is_eligible.load(Ordering::Relaxed);
    let control = json!({
        "ready": true, "connected": true, "status": "", "endpoint": "", "failures": 0, "rejected": 0, "nodes": 1,
        "services": 1, "endpoints": 0, "identities": 0
    });
    let west = json!({
        "name": "west", "id": 2, "eligible": eligible, "reason": "", "control": control,
        "data": {"state": "alive", "probes": []}
    });
    json!({
        "cluster": "east", "clusterId": 1, "node": "node-1", "version": "", "startedAt": "now", "ready": true,
        "waitingFor": [], "clusters": [west], "features": [], "problems": [],
        "writes": {"mapEntries": 7, "network": 0, "hooks": 0, "nft": 0, "sysctls": 0, "lastChangeUs": 0}
    })
}

fn services() -> Value {
    let backend = json!({"ip": "10.2.0.7", "port": 8080, "node": null, "used": true});
    let west =
        json!({"cluster": "west", "clusterId": 2, "eligible": true, "reason": "", "backends": [backend]});
    let frontend = json!({
        "ip": "203.0.113.10", "port": 80, "protocol": "TCP", "scope": "external", "portName": "http",
        "programmed": true, "choice": "", "groups": [west]
    });
    json!([{"name": "demo/web", "global": true, "affinity": "none", "frontends": [frontend]}])
}

/// An agent that answers until it is dropped.
struct Agent {
    _server: AdminServer,
    _runtime: tokio::runtime::Runtime,
}

impl Agent {
    fn start(socket: &Path, said: &Arc<Said>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let said = Arc::clone(said);
        let router = Router::new()
            .route("/v1/status", get(async move || Json(status(&said))))
            .route("/v1/services", get(async || Json(services())));
        let server = runtime
            .block_on(AdminServer::start(socket, router))
            .expect("a free socket");
        Self {
            _server: server,
            _runtime: runtime,
        }
    }
}

fn advertised(speaker: &Speaker) -> Option<bool> {
    let views: Vec<AdvertisementView> = speaker.read("/v1/advertisements").ok()?;
    let vip = views
        .iter()
        .find(|view| view.prefix.to_string() == Cluster::VIPS[0])?;
    Some(vip.advertised)
}

#[test]
fn remote_backends_count_while_their_cluster_is_alive() {
    let ip = Need::Program {
        name: "ip",
        package: "iproute2",
    };
    if !needs(
        "remote_backends_count_while_their_cluster_is_alive",
        &[Need::Root, ip],
    ) {
        return;
    }
    let _others = beside_others();
    let link = Link::new();
    let said = Arc::new(Said::default());
    said.west_is_eligible.store(true, Ordering::Relaxed);
    let mut speaker = Speaker::prepare(&PeerSettings::default(), true);
    speaker.cluster.make_global();
    speaker.cluster.set_backends(&[]);
    let socket = speaker.agent_socket();
    let agent = Agent::start(&socket, &said);
    speaker.follow_agent();
    speaker.restart(&link.node);

    let first = isthmus_testkit::wait_for(PATIENCE, "the speaker answers", || advertised(&speaker));
    assert!(first.expect("an answer"), "its first table waits for the agent");
    said.west_is_eligible.store(false, Ordering::Relaxed);
    wait_until(PATIENCE, "the route goes with the cluster", || {
        advertised(&speaker) == Some(false)
    })
    .expect("withdrawn");
    said.west_is_eligible.store(true, Ordering::Relaxed);
    wait_until(PATIENCE, "the route is back", || {
        advertised(&speaker) == Some(true)
    })
    .expect("advertised");

    drop(agent);
    wait_until(PATIENCE, "the speaker sees that the agent is away", || {
        speaker.process().log().contains("the agent is away")
    })
    .expect("seen");
    assert_eq!(advertised(&speaker), Some(true), "its last word holds");
    let asked = said.asked.load(Ordering::Relaxed);
    let _agent = Agent::start(&socket, &said);
    wait_until(PATIENCE, "the speaker finds the new agent", || {
        said.asked.load(Ordering::Relaxed) > asked
    })
    .expect("found");
}
