//! What a cluster says about itself and its exporter (spec §1.3).
use isthmus_topology::{ClusterId, MaxClusters, NameError};
use serde::{Deserialize, Serialize};

use crate::{ValueError, json};

/// In which form an exporter writes the endpoints of its services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub enum ExportMode {
    /// Only the old service values; what an exporter before 1.20 does.
    #[default]
    #[serde(rename = "")]
    Services,
    /// Both: the default of 1.20.
    #[serde(rename = "services-and-endpointslices")]
    ServicesAndEndpointSlices,
    /// Only the slices.
    #[serde(rename = "endpointslices-only")]
    EndpointSlicesOnly,
}

impl ExportMode {
    /// True if service values are written.
    pub const fn services(self) -> bool {
        !matches!(self, Self::EndpointSlicesOnly)
    }

    /// True if slices are written.
    pub const fn slices(self) -> bool {
        !matches!(self, Self::Services)
    }

    fn is_default(&self) -> bool {
        *self == Self::Services
    }
}

/// The value of `cilium/cluster-config/C`. Ids are as they came: [`Self::cluster_id`] and [`Self::max_clusters`] check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClusterConfig {
    /// The cluster's id; 0 if it has none.
    pub id: u32,
    /// A canary appears for each resource, and a reader must wait for it.
    pub synced_canaries: bool,
    /// The data sits under `cilium/cache`.
    pub cached: bool,
    /// 255 or 511; 0 means absent, which counts as 255.
    pub max_connected_clusters: u32,
    /// Absent: the exporter predates MCS-API; false: supported but off.
    pub service_exports_enabled: Option<bool>,
    /// In which form services are written.
    pub export_mode: ExportMode,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    #[serde(default, skip_serializing_if = "is_zero", deserialize_with = "json::nullable")]
    id: u32,
    #[serde(default, deserialize_with = "json::nullable")]
    capabilities: Capabilities,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Capabilities {
    #[serde(
        default,
        skip_serializing_if = "is_false",
        deserialize_with = "json::nullable"
    )]
    synced_canaries: bool,
    #[serde(
        default,
        skip_serializing_if = "is_false",
        deserialize_with = "json::nullable"
    )]
    cached: bool,
    #[serde(default, skip_serializing_if = "is_zero", deserialize_with = "json::nullable")]
    max_connected_clusters: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    service_exports_enabled: Option<bool>,
    #[serde(
        default,
        skip_serializing_if = "ExportMode::is_default",
        deserialize_with = "json::nullable"
    )]
    endpoint_slices_export_mode: ExportMode,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

fn is_false(b: &bool) -> bool {
    !*b
}

impl ClusterConfig {
    /// Reads a value. An export mode that we do not know is an error: its data could not be understood (spec §1.3).
    pub fn decode(bytes: &[u8]) -> Result<Self, ValueError> {
        let wire: Wire = json::decode("cluster config", bytes)?;
        let capabilities = wire.capabilities;
        Ok(Self {
            id: wire.id,
            synced_canaries: capabilities.synced_canaries,
            cached: capabilities.cached,
            max_connected_clusters: capabilities.max_connected_clusters,
            service_exports_enabled: capabilities.service_exports_enabled,
            export_mode: capabilities.endpoint_slices_export_mode,
        })
    }

    /// The value's bytes.
    pub fn encode(&self) -> Vec<u8> {
        json::encode(&Wire {
            id: self.id,
            capabilities: Capabilities {
                synced_canaries: self.synced_canaries,
                cached: self.cached,
                max_connected_clusters: self.max_connected_clusters,
                service_exports_enabled: self.service_exports_enabled,
                endpoint_slices_export_mode: self.export_mode,
            },
        })
    }

    /// The size of the exporter's mesh: 255 unless it says otherwise.
    pub fn max_clusters(&self) -> Result<MaxClusters, NameError> {
        match self.max_connected_clusters {
            0 => Ok(MaxClusters::C255),
            other => other.try_into(),
        }
    }

    /// The exporter's id, checked against the size of its mesh.
    pub fn cluster_id(&self) -> Result<ClusterId, NameError> {
        ClusterId::new(self.id, self.max_clusters()?)
    }

    /// What a mirror writes for a cluster that it copies (spec §3.5): cached and with canaries, all else as it came.
    #[must_use]
    pub const fn mirrored(mut self) -> Self {
        self.cached = true;
        self.synced_canaries = true;
        self
    }
}
