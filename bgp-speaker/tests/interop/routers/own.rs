//! Our own speaker as the router: what the lab uses where neither FRR nor BIRD is installed.
use std::collections::BTreeSet;

use isthmus_admin::bgp::{PeerView, RouteView};
use isthmus_testkit::{Process, wait_until};
use tempfile::TempDir;

use super::{ROUTER_ROUTES, Router, Settings, start, write};
use crate::support::{Namespace, PATIENCE, TOR_AS, TOR_V4, read};

/// A running speaker whose "pod CIDRs" are the router's routes.
pub(crate) struct Own {
    dir: TempDir,
    _process: Process,
}

impl Own {
    pub(crate) fn start(tor: &Namespace, settings: Settings) -> Self {
        let dir = TempDir::new().expect("a directory");
        let config = write(dir.path(), "speaker.yaml", &configuration(settings));
        let manifests = dir.path().join("manifests");
        std::fs::create_dir(&manifests).expect("a writable directory");
        let node = format!(
            "apiVersion: cilium.io/v2\nkind: CiliumNode\nmetadata: {{name: tor}}\nspec:\n  addresses: [{{type: InternalIP, \
             ip: {TOR_V4}}}]\n  ipam: {{podCIDRs: [{}, \"{}\"]}}\n",
            ROUTER_ROUTES[0], ROUTER_ROUTES[1]
        );
        write(&manifests, "node.yaml", &node);
        let mut command = tor.command(env!("CARGO_BIN_EXE_bgp-speaker"));
        command.args(["--node-name", "tor"]);
        command.arg("--manifests").arg(manifests);
        command.arg("--config").arg(config);
        command.arg("--admin-socket").arg(dir.path().join("admin.sock"));
        let process = start("bgp-speaker of the router", command);
        let new = Self {
            dir,
            _process: process,
        };
        wait_until(PATIENCE, "the router answers", || new.peer().is_some()).expect("our speaker");
        new
    }

    fn read<T: serde::de::DeserializeOwned>(&self, path: &str) -> Option<T> {
        read(&self.dir.path().join("admin.sock"), path).ok()
    }

    fn peer(&self) -> Option<PeerView> {
        self.read::<Vec<PeerView>>("/v1/peers")?.into_iter().next()
    }
}

impl Router for Own {
    fn established(&self) -> bool {
        self.peer().is_some_and(|peer| peer.established())
    }

    fn learnt(&self) -> BTreeSet<String> {
        let routes: Vec<RouteView> = self.read("/v1/routes?table=in").unwrap_or_default();
        routes.iter().map(|route| route.prefix.to_string()).collect()
    }

    fn hold_time(&self) -> Option<u64> {
        Some(u64::from(self.peer()?.hold_time_seconds?))
    }

    fn refresh(&self) -> bool {
        // Only the operator of the router may ask, over its admin socket.
        crate::support::act(&self.dir.path().join("admin.sock"), "/v1/peers/refresh?peer=node").is_ok()
    }

    fn report(&self) -> String {
        format!("{:#?}", self.peer())
    }
}

fn configuration(settings: Settings) -> String {
    let Settings {
        password,
        passive,
        hold_time,
        graceful,
        node_as,
        ..
    } = settings;
    let password = password.map_or(String::new(), |key| format!("  password: {key}\n"));
    let (_, node) = settings.addresses();
    format!(
        "localASN: {TOR_AS}
listen: {{port: 179}}
peers:
- name: node
  peerAddress: \"{node}\"
  peerASN: {node_as}
  holdTimeSeconds: {hold_time}
  connectRetryTimeSeconds: 1
  passive: {passive}
  gracefulRestart: {{enabled: {graceful}, restartTimeSeconds: 30}}
{password}"
    )
}
