//! An EndpointSlice as the mesh carries it (spec §1.9).
use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Address family of a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SliceFamily {
    /// IPv4 addresses.
    IPv4,
    /// IPv6 addresses.
    IPv6,
}

/// One endpoint of a slice; conditions are kept as given (absent is not false).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SliceEndpoint {
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Condition ready.
    pub ready: Option<bool>,
    /// Condition serving.
    pub serving: Option<bool>,
    /// Condition terminating.
    pub terminating: Option<bool>,
    /// Host name.
    pub hostname: Option<String>,
    /// Old topology labels.
    pub deprecated_topology: BTreeMap<String, String>,
    /// Node.
    pub node_name: Option<String>,
    /// Zone.
    pub zone: Option<String>,
    /// Zones it is hinted for.
    pub for_zones: Vec<String>,
}

impl SliceEndpoint {
    /// The parsed addresses.
    pub fn ips(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.addresses.iter().filter_map(|a| a.parse().ok())
    }
}

/// One port of a slice.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SlicePort {
    /// Port name (empty if none was given).
    pub name: Option<String>,
    /// Protocol.
    pub protocol: Option<String>,
    /// Port number.
    pub port: Option<i32>,
    /// Application protocol.
    pub app_protocol: Option<String>,
}

/// A slice of a service's endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSlice {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Slice name.
    pub name: String,
    /// Labels; `kubernetes.io/service-name` links it to its service.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Address family.
    pub family: SliceFamily,
    /// Endpoints.
    pub endpoints: Vec<SliceEndpoint>,
    /// Ports.
    pub ports: Vec<SlicePort>,
}

impl ServiceSlice {
    /// The label that names the slice's service.
    pub const SERVICE_NAME: &'static str = "kubernetes.io/service-name";

    /// The service that the slice belongs to.
    pub fn service(&self) -> Option<&str> {
        self.labels.get(Self::SERVICE_NAME).map(String::as_str)
    }
}
