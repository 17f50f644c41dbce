//! Whether a remote cluster may be joined.
use isthmus_kvstore::ClusterConfig;

use super::Settings;
use crate::RemoteConfig;

impl Settings {
    /// Says why a cluster with this configuration must not be joined (spec §3.2 step 6), naming both sides.
    pub(crate) fn check_config(&self, bytes: &[u8]) -> Result<RemoteConfig, String> {
        let name = &self.cluster;
        let config = ClusterConfig::decode(bytes)
            .map_err(|e| format!("the cluster configuration of {name} is not valid: {e}"))?;
        let ours = self.max;
        let max = config
            .max_clusters()
            .map_err(|e| format!("the cluster configuration of {name} is not valid: {e}"))?;
        if max != ours {
            return Err(format!(
                "max-connected-clusters differs: {} here in {}, {} in {name}; it must be the same in every cluster of the mesh",
                ours.max_id(),
                self.local,
                max.max_id()
            ));
        }
        let id = config
            .cluster_id()
            .map_err(|e| format!("the cluster configuration of {name} is not valid: {e}"))?;
        if id == self.local_id {
            return Err(format!(
                "{name} has cluster id {id}, which is the id of the local cluster {}: give one of them another id",
                self.local
            ));
        }
        Ok(RemoteConfig {
            id,
            max_clusters: max,
            synced_canaries: config.synced_canaries,
            cached: config.cached,
            service_exports: config.service_exports_enabled,
            slices: config.export_mode,
        })
    }
}
