//! The value of an endpoint slice: a zstd frame around a proto2 message (spec §1.9).
use std::collections::BTreeMap;
use std::io::Read as _;

use isthmus_topology::{
    ClusterId, ClusterName, MaxClusters, ServiceSlice, SliceEndpoint, SliceFamily, SlicePort,
};
use prost::Message as _;

use crate::ValueError;

/// No frame may hold more: a peer's value must not fill our memory.
pub const MAX_DECOMPRESSED: usize = 16 << 20;

/// log2 of [`MAX_DECOMPRESSED`]: no frame needs a larger window.
const WINDOW_LOG: u32 = 24;

/// zstd's own default: slices are small, and more effort gains nothing.
const LEVEL: i32 = 3;

/// A slice and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceValue {
    /// The exporting cluster.
    pub cluster: ClusterName,
    /// Its id.
    pub cluster_id: ClusterId,
    /// The slice.
    pub slice: ServiceSlice,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Wire {
    #[prost(string, optional, tag = "1")]
    cluster: Option<String>,
    #[prost(uint32, optional, tag = "2")]
    cluster_id: Option<u32>,
    #[prost(string, optional, tag = "3")]
    namespace: Option<String>,
    #[prost(string, optional, tag = "4")]
    name: Option<String>,
    #[prost(message, repeated, tag = "5")]
    labels: Vec<Entry>,
    #[prost(message, repeated, tag = "6")]
    annotations: Vec<Entry>,
    #[prost(string, optional, tag = "7")]
    address_type: Option<String>,
    #[prost(message, repeated, tag = "8")]
    endpoints: Vec<WireEndpoint>,
    #[prost(message, repeated, tag = "9")]
    ports: Vec<WirePort>,
}

/// A map entry, spelt out because the Go writer emits empty keys and values, which prost's own maps leave out.
#[derive(Clone, PartialEq, prost::Message)]
struct Entry {
    #[prost(string, required, tag = "1")]
    key: String,
    #[prost(string, required, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireEndpoint {
    #[prost(string, repeated, tag = "1")]
    addresses: Vec<String>,
    #[prost(message, optional, tag = "2")]
    conditions: Option<Conditions>,
    #[prost(string, optional, tag = "3")]
    hostname: Option<String>,
    #[prost(message, repeated, tag = "5")]
    deprecated_topology: Vec<Entry>,
    #[prost(string, optional, tag = "6")]
    node_name: Option<String>,
    #[prost(string, optional, tag = "7")]
    zone: Option<String>,
    #[prost(message, optional, tag = "8")]
    hints: Option<Hints>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Conditions {
    #[prost(bool, optional, tag = "1")]
    ready: Option<bool>,
    #[prost(bool, optional, tag = "2")]
    serving: Option<bool>,
    #[prost(bool, optional, tag = "3")]
    terminating: Option<bool>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Hints {
    #[prost(message, repeated, tag = "1")]
    for_zones: Vec<ForZone>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ForZone {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WirePort {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, optional, tag = "2")]
    protocol: Option<String>,
    #[prost(int32, optional, tag = "3")]
    port: Option<i32>,
    #[prost(string, optional, tag = "4")]
    app_protocol: Option<String>,
}

/// Reads a value. Addresses must parse in the declared family; `FQDN` slices are refused.
pub fn decode(bytes: &[u8]) -> Result<SliceValue, ValueError> {
    let message = decompress(bytes)?;
    let wire = Wire::decode(message.as_slice()).map_err(|error| ValueError::Protobuf(error.to_string()))?;
    let family = match wire.address_type.as_deref() {
        Some("IPv4") => SliceFamily::IPv4,
        Some("IPv6") => SliceFamily::IPv6,
        other => {
            return Err(ValueError::member(
                "addressType",
                format!("{other:?} is not IPv4 or IPv6"),
            ));
        }
    };
    let slice = ServiceSlice {
        namespace: required("namespace", wire.namespace)?,
        name: required("name", wire.name)?,
        labels: map(wire.labels),
        annotations: map(wire.annotations),
        family,
        endpoints: wire.endpoints.into_iter().map(read_endpoint).collect(),
        ports: wire.ports.into_iter().map(read_port).collect(),
    };
    for address in slice.endpoints.iter().flat_map(|e| &e.addresses) {
        let fits = match family {
            SliceFamily::IPv4 => address.parse::<std::net::Ipv4Addr>().is_ok(),
            SliceFamily::IPv6 => address.parse::<std::net::Ipv6Addr>().is_ok(),
        };
        if !fits {
            return Err(ValueError::member(
                "endpoints.addresses",
                format!("{address:?} is not {family:?}"),
            ));
        }
    }
    Ok(SliceValue {
        cluster: ClusterName::new(wire.cluster.unwrap_or_default())?,
        cluster_id: ClusterId::new(wire.cluster_id.unwrap_or_default(), MaxClusters::C511)?,
        slice,
    })
}

/// The value's bytes.
pub fn encode(slice: &ServiceSlice, cluster: &ClusterName, id: ClusterId) -> Vec<u8> {
    let mut compressor = zstd::bulk::Compressor::new(LEVEL).expect("the level is in zstd's range");
    compressor
        .include_checksum(true)
        .expect("every zstd can write checksums");
    let message = encode_message(slice, cluster, id);
    compressor
        .compress(&message)
        .expect("the buffer has the size that zstd asks for")
}

/// The message inside the frame: equal bytes for equal slices, whatever the compressor.
pub fn encode_message(slice: &ServiceSlice, cluster: &ClusterName, id: ClusterId) -> Vec<u8> {
    let address_type = match slice.family {
        SliceFamily::IPv4 => "IPv4",
        SliceFamily::IPv6 => "IPv6",
    };
    let wire = Wire {
        cluster: Some(cluster.to_string()),
        cluster_id: Some(id.value().into()),
        namespace: Some(slice.namespace.clone()),
        name: Some(slice.name.clone()),
        labels: entries(&slice.labels),
        annotations: entries(&slice.annotations),
        address_type: Some(address_type.to_owned()),
        endpoints: slice.endpoints.iter().map(write_endpoint).collect(),
        ports: slice.ports.iter().map(write_port).collect(),
    };
    wire.encode_to_vec()
}

/// The bytes inside a value's frame, at most [`MAX_DECOMPRESSED`] of them.
pub fn decompress(bytes: &[u8]) -> Result<Vec<u8>, ValueError> {
    let broken = |error: std::io::Error| ValueError::Zstd(error.to_string());
    let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes).map_err(broken)?;
    decoder.window_log_max(WINDOW_LOG).map_err(broken)?;
    let mut message = Vec::new();
    decoder
        .take(MAX_DECOMPRESSED as u64 + 1)
        .read_to_end(&mut message)
        .map_err(broken)?;
    if message.len() > MAX_DECOMPRESSED {
        return Err(ValueError::TooLarge(MAX_DECOMPRESSED));
    }
    Ok(message)
}

fn required(member: &str, value: Option<String>) -> Result<String, ValueError> {
    value
        .filter(|text| !text.is_empty())
        .ok_or_else(|| ValueError::member(member, "is not set"))
}

fn map(entries: Vec<Entry>) -> BTreeMap<String, String> {
    entries.into_iter().map(|e| (e.key, e.value)).collect()
}

fn entries(map: &BTreeMap<String, String>) -> Vec<Entry> {
    let entry = |(key, value): (&String, &String)| Entry {
        key: key.clone(),
        value: value.clone(),
    };
    map.iter().map(entry).collect()
}

fn read_endpoint(wire: WireEndpoint) -> SliceEndpoint {
    let conditions = wire.conditions.unwrap_or_default();
    let for_zones = wire.hints.map(|h| h.for_zones).unwrap_or_default();
    SliceEndpoint {
        addresses: wire.addresses,
        ready: conditions.ready,
        serving: conditions.serving,
        terminating: conditions.terminating,
        hostname: wire.hostname,
        deprecated_topology: map(wire.deprecated_topology),
        node_name: wire.node_name,
        zone: wire.zone,
        for_zones: for_zones
            .into_iter()
            .map(|z| z.name.unwrap_or_default())
            .collect(),
    }
}

/// The recorded writer emits conditions always, hints only where there are some.
fn write_endpoint(endpoint: &SliceEndpoint) -> WireEndpoint {
    let zone = |name: &String| ForZone {
        name: Some(name.clone()),
    };
    let for_zones: Vec<_> = endpoint.for_zones.iter().map(zone).collect();
    WireEndpoint {
        addresses: endpoint.addresses.clone(),
        conditions: Some(Conditions {
            ready: endpoint.ready,
            serving: endpoint.serving,
            terminating: endpoint.terminating,
        }),
        hostname: endpoint.hostname.clone(),
        deprecated_topology: entries(&endpoint.deprecated_topology),
        node_name: endpoint.node_name.clone(),
        zone: endpoint.zone.clone(),
        hints: (!for_zones.is_empty()).then_some(Hints { for_zones }),
    }
}

fn read_port(wire: WirePort) -> SlicePort {
    SlicePort {
        name: wire.name,
        protocol: wire.protocol,
        port: wire.port,
        app_protocol: wire.app_protocol,
    }
}

fn write_port(port: &SlicePort) -> WirePort {
    WirePort {
        name: port.name.clone(),
        protocol: port.protocol.clone(),
        port: port.port,
        app_protocol: port.app_protocol.clone(),
    }
}
