//! The value of a service export of MCS-API (spec §1.10).
use std::collections::BTreeMap;

use isthmus_topology::{
    ClusterName, ExportKind, ExportPort, ServiceExport, ServiceName, SessionAffinity, TrafficPolicy,
};
use serde::{Deserialize, Serialize};

use crate::{ValueError, json};

/// A service export and whose it is. The value carries no cluster id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportValue {
    /// The exporting cluster.
    pub cluster: ClusterName,
    /// The export.
    pub export: ServiceExport,
}

/// Labels and annotations come twice: older readers know only the capitalised members.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    #[serde(default, deserialize_with = "json::nullable")]
    cluster: String,
    #[serde(default, deserialize_with = "json::nullable")]
    name: String,
    #[serde(default, deserialize_with = "json::nullable")]
    namespace: String,
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "json::nullable"
    )]
    annotations: BTreeMap<String, String>,
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "json::nullable"
    )]
    labels: BTreeMap<String, String>,
    #[serde(
        rename = "Labels",
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "json::nullable"
    )]
    old_labels: BTreeMap<String, String>,
    #[serde(
        rename = "Annotations",
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "json::nullable"
    )]
    old_annotations: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "json::nullable")]
    export_creation_timestamp: String,
    #[serde(default, deserialize_with = "json::nullable")]
    ports: Vec<WirePort>,
    #[serde(rename = "type")]
    kind: ExportKind,
    session_affinity: SessionAffinity,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session_affinity_config: Option<AffinityConfig>,
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "json::nullable"
    )]
    ip_families: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    internal_traffic_policy: Option<TrafficPolicy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    traffic_distribution: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WirePort {
    #[serde(
        default,
        skip_serializing_if = "String::is_empty",
        deserialize_with = "json::nullable"
    )]
    name: String,
    #[serde(
        default,
        skip_serializing_if = "String::is_empty",
        deserialize_with = "json::nullable"
    )]
    protocol: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    app_protocol: Option<String>,
    #[serde(default, deserialize_with = "json::nullable")]
    port: i32,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AffinityConfig {
    #[serde(rename = "clientIP", default, skip_serializing_if = "Option::is_none")]
    client_ip: Option<ClientIp>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClientIp {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeout_seconds: Option<i32>,
}

/// Reads a value; an unset time of creation is an error, because the oldest export decides conflicts.
pub fn decode(bytes: &[u8]) -> Result<ExportValue, ValueError> {
    let wire: Wire = json::decode("service export", bytes)?;
    let created = wire.export_creation_timestamp;
    if created.is_empty() || created.starts_with("0001-01-01") {
        return Err(ValueError::member("exportCreationTimestamp", "is not set"));
    }
    if let Some(family) = wire.ip_families.iter().find(|f| *f != "IPv4" && *f != "IPv6") {
        return Err(ValueError::member(
            "ipFamilies",
            format!("{family:?} is not IPv4 or IPv6"),
        ));
    }
    let port = |p: WirePort| ExportPort {
        name: p.name,
        protocol: p.protocol,
        app_protocol: p.app_protocol,
        port: p.port,
    };
    let export = ServiceExport {
        name: ServiceName::new(wire.namespace, wire.name)?,
        created,
        annotations: first_filled(wire.annotations, wire.old_annotations),
        labels: first_filled(wire.labels, wire.old_labels),
        ports: wire.ports.into_iter().map(port).collect(),
        kind: wire.kind,
        session_affinity: wire.session_affinity,
        session_affinity_timeout: wire
            .session_affinity_config
            .and_then(|config| config.client_ip?.timeout_seconds),
        ip_families: wire.ip_families,
        internal_traffic_policy: wire.internal_traffic_policy,
        traffic_distribution: wire.traffic_distribution,
    };
    let cluster = ClusterName::new(wire.cluster)?;
    Ok(ExportValue { cluster, export })
}

/// The value's bytes.
pub fn encode(export: &ServiceExport, cluster: &ClusterName) -> Vec<u8> {
    let port = |p: &ExportPort| WirePort {
        name: p.name.clone(),
        protocol: p.protocol.clone(),
        app_protocol: p.app_protocol.clone(),
        port: p.port,
    };
    let config = |seconds: i32| AffinityConfig {
        client_ip: Some(ClientIp {
            timeout_seconds: Some(seconds),
        }),
    };
    json::encode(&Wire {
        cluster: cluster.to_string(),
        name: export.name.name.clone(),
        namespace: export.name.namespace.clone(),
        annotations: export.annotations.clone(),
        labels: export.labels.clone(),
        old_labels: export.labels.clone(),
        old_annotations: export.annotations.clone(),
        export_creation_timestamp: export.created.clone(),
        ports: export.ports.iter().map(port).collect(),
        kind: export.kind,
        session_affinity: export.session_affinity,
        session_affinity_config: export.session_affinity_timeout.map(config),
        ip_families: export.ip_families.clone(),
        internal_traffic_policy: export.internal_traffic_policy,
        traffic_distribution: export.traffic_distribution.clone(),
    })
}

fn first_filled(new: BTreeMap<String, String>, old: BTreeMap<String, String>) -> BTreeMap<String, String> {
    if new.is_empty() { old } else { new }
}
