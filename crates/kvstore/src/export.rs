//! What the etcd of a cluster must hold: a function of the cluster's tables (spec §1, §4.1).
//!
//! The daemon around it only compares the result with what it wrote before, and puts and deletes the difference.
use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use isthmus_topology::{
    ClusterId, ClusterName, GlobalNamespaces, Identity, IpIdentity, Labels, LocalService, Node, NodeName,
    ServiceExport, ServiceName, ServiceSlice,
};

use crate::{ExportMode, Family, Tree, entry_key, identity, ip, node, service, service_export, slice};

/// The label that says in which namespace the pods of an identity are.
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";

/// The keys of one family with their values.
pub type Table = BTreeMap<String, Vec<u8>>;

/// Who exports, and how.
#[derive(Debug, Clone, Copy)]
pub struct ExportInputs<'a> {
    /// The exporting cluster.
    pub cluster: &'a ClusterName,
    /// Its id.
    pub id: ClusterId,
    /// Which of its namespaces take part: the others keep their addresses, identities and services to themselves.
    pub namespaces: &'a GlobalNamespaces,
    /// In which form services are written.
    pub mode: ExportMode,
    /// Whether service exports are written.
    pub service_exports_enabled: bool,
}

/// The tables of the exporting cluster, whole: what is not for others is left out here.
#[derive(Debug, Clone, Copy)]
pub struct ExportTables<'a> {
    /// Nodes by name.
    pub nodes: &'a BTreeMap<NodeName, Arc<Node>>,
    /// Identities with their labels.
    pub identities: &'a BTreeMap<Identity, Arc<Labels>>,
    /// Addresses of pods.
    pub ips: &'a BTreeMap<IpNet, Arc<IpIdentity>>,
    /// Services with their endpoints.
    pub services: &'a BTreeMap<ServiceName, Arc<LocalService>>,
    /// Slices by namespace/name of the slice.
    pub slices: &'a BTreeMap<ServiceName, Arc<ServiceSlice>>,
    /// Service exports.
    pub service_exports: &'a BTreeMap<ServiceName, Arc<ServiceExport>>,
}

/// All entries of one family. Slices and service exports also depend on the table of services.
pub fn export_table(inputs: &ExportInputs<'_>, tables: &ExportTables<'_>, family: Family) -> Table {
    let services = tables.services;
    match family {
        Family::Nodes => tables.nodes.values().map(|n| export_node(inputs, n)).collect(),
        Family::Identities => tables
            .identities
            .iter()
            .filter_map(|(id, labels)| export_identity(inputs, *id, labels))
            .collect(),
        Family::Ip => tables.ips.values().filter_map(|e| export_ip(inputs, e)).collect(),
        Family::Services => services
            .values()
            .filter_map(|s| export_service(inputs, s))
            .collect(),
        Family::EndpointSlices => tables
            .slices
            .values()
            .filter_map(|slice| export_slice(inputs, services, slice))
            .collect(),
        Family::ServiceExports => tables
            .service_exports
            .values()
            .filter_map(|export| export_service_export(inputs, services, export))
            .collect(),
    }
}

/// All entries of all families.
pub fn export(inputs: &ExportInputs<'_>, tables: &ExportTables<'_>) -> Table {
    let families = Family::ALL.into_iter();
    families
        .flat_map(|family| export_table(inputs, tables, family))
        .collect()
}

/// What is exported of a node: everything, always.
pub fn export_node(inputs: &ExportInputs<'_>, node: &Node) -> (String, Vec<u8>) {
    let key = entry_key(Tree::State, Family::Nodes, inputs.cluster, &node.name);
    (key, node::encode(node))
}

/// What is exported of an identity: nothing if its pods are in a namespace that does not take part.
pub fn export_identity(
    inputs: &ExportInputs<'_>,
    id: Identity,
    labels: &Labels,
) -> Option<(String, Vec<u8>)> {
    let namespace = labels.0.get(POD_NAMESPACE).map(|(_, namespace)| namespace);
    if namespace.is_some_and(|ns| !inputs.namespaces.is_global(ns)) {
        return None;
    }
    let key = entry_key(Tree::State, Family::Identities, inputs.cluster, id);
    Some((key, identity::encode(labels)))
}

/// What is exported of an address: nothing if its pod is in a namespace that does not take part.
pub fn export_ip(inputs: &ExportInputs<'_>, entry: &IpIdentity) -> Option<(String, Vec<u8>)> {
    if !entry.namespace.is_empty() && !inputs.namespaces.is_global(&entry.namespace) {
        return None;
    }
    let key = entry_key(Tree::State, Family::Ip, inputs.cluster, ip::suffix(entry));
    Some((key, ip::encode(entry)))
}

/// What is exported of a service: nothing unless it is global and shared.
pub fn export_service(inputs: &ExportInputs<'_>, local: &LocalService) -> Option<(String, Vec<u8>)> {
    if !inputs.mode.services() || !is_exported(inputs, local) {
        return None;
    }
    let key = entry_key(Tree::State, Family::Services, inputs.cluster, &local.name);
    let value = service::encode(&service::exported(local, inputs.cluster, inputs.id));
    Some((key, value))
}

/// What is exported of a slice: nothing unless its service is.
pub fn export_slice(
    inputs: &ExportInputs<'_>,
    services: &BTreeMap<ServiceName, Arc<LocalService>>,
    slice: &ServiceSlice,
) -> Option<(String, Vec<u8>)> {
    if !inputs.mode.slices() {
        return None;
    }
    let name = ServiceName::new(slice.namespace.as_str(), slice.service()?).ok()?;
    services.get(&name).filter(|local| is_exported(inputs, local))?;
    let suffix = format!("{}/{}", slice.namespace, slice.name);
    let key = entry_key(Tree::State, Family::EndpointSlices, inputs.cluster, suffix);
    Some((key, slice::encode(slice, inputs.cluster, inputs.id)))
}

/// What is exported of a service export: nothing if they are switched off, if its namespace does not take part, or if its
/// service is not there (spec §1.10).
pub fn export_service_export(
    inputs: &ExportInputs<'_>,
    services: &BTreeMap<ServiceName, Arc<LocalService>>,
    export: &ServiceExport,
) -> Option<(String, Vec<u8>)> {
    let global = inputs.namespaces.is_global(&export.name.namespace);
    if !inputs.service_exports_enabled || !global || !services.contains_key(&export.name) {
        return None;
    }
    let key = entry_key(Tree::State, Family::ServiceExports, inputs.cluster, &export.name);
    Some((key, service_export::encode(export, inputs.cluster)))
}

fn is_exported(inputs: &ExportInputs<'_>, local: &LocalService) -> bool {
    local.global && local.shared && inputs.namespaces.is_global(&local.name.namespace)
}
