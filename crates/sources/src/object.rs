//! The objects that the mesh is made of, each reduced to what the mesh needs of it.
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use isthmus_topology::{
    ExportPort, Identity, IpIdentity, Labels, NamedPort, Node, ServiceAffinity, ServicePort, ServiceSlice,
    SessionAffinity, TrafficPolicy,
};

/// Which kind an object is of; the order in which problems of several kinds are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// v1 Namespace.
    Namespace,
    /// v1 Node.
    Node,
    /// cilium.io/v2 CiliumNode.
    CiliumNode,
    /// cilium.io/v2 CiliumIdentity.
    CiliumIdentity,
    /// cilium.io/v2 CiliumEndpoint.
    CiliumEndpoint,
    /// v1 Pod.
    Pod,
    /// v1 Service.
    Service,
    /// discovery.k8s.io/v1 EndpointSlice.
    EndpointSlice,
    /// multicluster.x-k8s.io ServiceExport.
    ServiceExport,
}

/// What names an object in its cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace, or empty.
    pub namespace: Box<str>,
    /// Its name.
    pub name: Box<str>,
}

impl ObjectKey {
    pub(crate) fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self {
            kind,
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} ", self.kind)?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

/// An object, reduced.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    /// A namespace.
    Namespace(NamespaceObject),
    /// A Node or CiliumNode: the key's kind tells which.
    Node(Box<Node>),
    /// A CiliumIdentity.
    Identity(Identity, Arc<Labels>),
    /// A CiliumEndpoint: the rows of the ip table that it makes.
    Endpoint(Vec<(IpNet, Arc<IpIdentity>)>),
    /// A pod.
    Pod(Box<PodObject>),
    /// A service.
    Service(Box<ServiceObject>),
    /// An endpoint slice of an IP family.
    Slice(Arc<ServiceSlice>),
    /// A service export.
    Export(Box<ExportObject>),
}

/// What the mesh needs of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NamespaceObject {
    /// What its annotation says, if it has one.
    pub global: Option<bool>,
    /// Its labels: part of the identities of its pods.
    pub labels: BTreeMap<String, String>,
}

/// What the mesh needs of a pod; a pod that has no address of its own has no `ips`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PodObject {
    /// Its own addresses, if it is running and does not share its node's.
    pub ips: Vec<IpAddr>,
    /// status.hostIP.
    pub host_ip: Option<IpAddr>,
    /// spec.nodeName, or empty.
    pub node: String,
    /// spec.serviceAccountName, `default` if it has none.
    pub service_account: String,
    /// Its labels, in the order of their keys: a slice, because there may be a hundred thousand of them.
    pub labels: Box<[(Box<str>, Box<str>)]>,
    /// Its containers' named ports.
    pub named_ports: Vec<NamedPort>,
}

/// What the mesh needs of a service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceObject {
    /// An ExternalName service is no service for the mesh.
    pub external_name: bool,
    /// Annotated global.
    pub global: bool,
    /// Not annotated `shared: "false"`.
    pub shared: bool,
    /// Affinity annotation.
    pub affinity: ServiceAffinity,
    /// An affinity annotation that nobody knows.
    pub unknown_affinity: Option<String>,
    /// ClusterIP None, or labelled headless.
    pub headless: bool,
    /// ClusterIPs.
    pub cluster_ips: Vec<IpAddr>,
    /// LoadBalancer addresses.
    pub load_balancer_ips: Vec<IpAddr>,
    /// External IPs.
    pub external_ips: Vec<IpAddr>,
    /// LoadBalancer class.
    pub load_balancer_class: Option<String>,
    /// Ports by name.
    pub ports: BTreeMap<String, ServicePort>,
    /// Ports in their order, for service exports.
    pub export_ports: Vec<ExportPort>,
    /// externalTrafficPolicy.
    pub external_traffic_policy: TrafficPolicy,
    /// internalTrafficPolicy.
    pub internal_traffic_policy: TrafficPolicy,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Pod selector.
    pub selector: BTreeMap<String, String>,
    /// Session affinity.
    pub session_affinity: SessionAffinity,
    /// Seconds of client-IP affinity, if configured.
    pub session_affinity_timeout: Option<i32>,
    /// IP families.
    pub ip_families: Vec<String>,
    /// trafficDistribution, if set.
    pub traffic_distribution: Option<String>,
}

/// What the mesh needs of a service export.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExportObject {
    /// metadata.creationTimestamp, if the manifest has one.
    pub created: Option<jiff::Timestamp>,
    /// Exported labels.
    pub labels: BTreeMap<String, String>,
    /// Exported annotations.
    pub annotations: BTreeMap<String, String>,
}
