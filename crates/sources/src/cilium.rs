//! Cilium's own kinds and MCS-API's, as far as the mesh needs them. Fields that exist but say nothing to us are declared
//! [`Opaque`], so that only fields that nobody knows are errors.
use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// Anything at all, read and forgotten.
#[derive(Debug, Default)]
pub(crate) struct Opaque;

impl<'de> Deserialize<'de> for Opaque {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OpaqueVisitor)
    }
}

struct OpaqueVisitor;

impl<'de> Visitor<'de> for OpaqueVisitor {
    type Value = Opaque;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Opaque, E> {
        Ok(Opaque)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Opaque, E> {
        Ok(Opaque)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Opaque, E> {
        Ok(Opaque)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Opaque, E> {
        Ok(Opaque)
    }

    fn visit_str<E>(self, _: &str) -> Result<Opaque, E> {
        Ok(Opaque)
    }

    fn visit_unit<E>(self) -> Result<Opaque, E> {
        Ok(Opaque)
    }

    fn visit_none<E>(self) -> Result<Opaque, E> {
        Ok(Opaque)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Opaque, D::Error> {
        Opaque::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Opaque, A::Error> {
        while seq.next_element::<Opaque>()?.is_some() {}
        Ok(Opaque)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Opaque, A::Error> {
        while map.next_entry::<Opaque, Opaque>()?.is_some() {}
        Ok(Opaque)
    }
}

/// Declares structs whose every field may be absent.
macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident { $($(#[$attr:meta])* $field:ident: $type:ty,)* })*) => { $(
        $(#[$doc])*
        #[derive(Debug, Default, serde::Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        #[allow(dead_code, reason = "opaque fields are declared to be known, not to be read")]
        pub(crate) struct $name { $($(#[$attr])* pub(crate) $field: $type,)* }
    )* };
}

kinds! {
    /// cilium.io/v2 CiliumNode.
    CiliumNode {
        api_version: String,
        kind: String,
        metadata: ObjectMeta,
        spec: CiliumNodeSpec,
        status: Option<Opaque>,
    }

    CiliumNodeSpec {
        addresses: Vec<CiliumNodeAddress>,
        #[serde(rename = "alibaba-cloud")]
        alibaba_cloud: Option<Opaque>,
        azure: Option<Opaque>,
        bootid: Option<String>,
        encryption: Option<EncryptionSpec>,
        eni: Option<Opaque>,
        health: Option<IpPair>,
        ingress: Option<IpPair>,
        #[serde(rename = "instance-id")]
        instance_id: Option<String>,
        ipam: Option<Ipam>,
        nodeidentity: Option<u64>,
    }

    CiliumNodeAddress {
        #[serde(rename = "type")]
        kind: String,
        ip: String,
    }

    EncryptionSpec { key: Option<i64>, }

    IpPair {
        ipv4: Option<String>,
        ipv6: Option<String>,
    }

    Ipam {
        #[serde(rename = "podCIDRs")]
        pod_cidrs: Option<Vec<String>>,
        pools: Option<Pools>,
        pool: Option<Opaque>,
        #[serde(rename = "ipv6-pool")]
        ipv6_pool: Option<Opaque>,
        #[serde(rename = "min-allocate")]
        min_allocate: Option<Opaque>,
        #[serde(rename = "max-allocate")]
        max_allocate: Option<Opaque>,
        #[serde(rename = "pre-allocate")]
        pre_allocate: Option<Opaque>,
        #[serde(rename = "max-above-watermark")]
        max_above_watermark: Option<Opaque>,
        #[serde(rename = "static-ip-tags")]
        static_ip_tags: Option<Opaque>,
    }

    Pools {
        requested: Option<Opaque>,
        allocated: Option<Vec<AllocatedPool>>,
    }

    AllocatedPool {
        pool: String,
        cidrs: Option<Vec<String>>,
    }

    /// cilium.io/v2 CiliumIdentity.
    CiliumIdentity {
        api_version: String,
        kind: String,
        metadata: ObjectMeta,
        #[serde(rename = "security-labels")]
        security_labels: BTreeMap<String, String>,
    }

    /// cilium.io/v2 CiliumEndpoint.
    CiliumEndpoint {
        api_version: String,
        kind: String,
        metadata: ObjectMeta,
        status: CiliumEndpointStatus,
    }

    CiliumEndpointStatus {
        controllers: Option<Opaque>,
        encryption: Option<EncryptionSpec>,
        #[serde(rename = "external-identifiers")]
        external_identifiers: Option<Opaque>,
        health: Option<Opaque>,
        id: Option<i64>,
        identity: Option<EndpointIdentity>,
        log: Option<Opaque>,
        #[serde(rename = "named-ports")]
        named_ports: Option<Vec<EndpointNamedPort>>,
        networking: Option<EndpointNetworking>,
        policy: Option<Opaque>,
        #[serde(rename = "service-account")]
        service_account: Option<String>,
        state: Option<String>,
        #[serde(rename = "visibility-policy-status")]
        visibility_policy_status: Option<Opaque>,
    }

    EndpointIdentity {
        id: Option<i64>,
        labels: Option<Opaque>,
    }

    EndpointNamedPort {
        name: Option<String>,
        port: Option<u16>,
        protocol: Option<String>,
    }

    EndpointNetworking {
        addressing: Option<Vec<IpPair>>,
        node: Option<String>,
    }

    /// multicluster.x-k8s.io ServiceExport, v1alpha1 and v1beta1.
    McsServiceExport {
        api_version: String,
        kind: String,
        metadata: ObjectMeta,
        spec: Option<McsServiceExportSpec>,
        status: Option<Opaque>,
    }

    McsServiceExportSpec {
        exported_labels: Option<BTreeMap<String, String>>,
        exported_annotations: Option<BTreeMap<String, String>>,
    }
}
