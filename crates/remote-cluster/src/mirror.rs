//! From bytes to tables: decodes what a cluster exports, believes only what is valid, and keeps the last good value.
use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use isthmus_kvstore::{Exporter, validate};
use isthmus_topology::{ClusterName, Identity, IpIdentity, NodeName, ServiceName};
use jiff::Timestamp;

use crate::{Rejection, RemoteClusterState, RemoteConfig, Resource};

/// The tables of one remote cluster, as they are filled.
#[derive(Debug)]
pub(crate) struct Mirror {
    /// What is published.
    pub(crate) state: RemoteClusterState,
    exporter: Option<Exporter>,
    /// Prefixes of full length that a host entry of the same address hides (spec §1.7).
    hidden: BTreeMap<IpNet, IpIdentity>,
}

impl Mirror {
    /// The empty tables of a cluster.
    pub(crate) fn new(name: ClusterName) -> Self {
        Self {
            state: RemoteClusterState::new(name),
            exporter: None,
            hidden: BTreeMap::new(),
        }
    }

    /// What follows is checked against this configuration.
    pub(crate) fn adopt(&mut self, config: RemoteConfig) {
        self.state.config = Some(config);
        self.exporter = Some(Exporter {
            cluster: self.state.name.clone(),
            id: config.id,
            max: config.max_clusters,
        });
    }

    /// Takes a value; `at` is for the record of a refusal. Says whether it was accepted.
    pub(crate) fn put(&mut self, resource: Resource, suffix: &[u8], value: &[u8], at: Timestamp) -> bool {
        let key = String::from_utf8_lossy(suffix);
        match self.accept(resource, suffix, value) {
            Ok(()) => true,
            Err(reason) => {
                let cluster = &self.state.name;
                tracing::warn!(%cluster, %resource, %key, %reason, "value refused, the last good one stays");
                let key = format!("{resource}/{key}");
                self.state.rejected.push(resource, Rejection { key, reason, at });
                false
            }
        }
    }

    fn accept(&mut self, resource: Resource, suffix: &[u8], value: &[u8]) -> Result<(), String> {
        let suffix = std::str::from_utf8(suffix).map_err(|_| "the key is not UTF-8".to_owned())?;
        match resource {
            Resource::Nodes => self.put_node(suffix, value),
            Resource::Identities => self.put_identity(suffix, value),
            Resource::Ips => self.put_ip(suffix, value),
            Resource::Services => self.put_service(suffix, value),
            Resource::EndpointSlices => self.put_slice(suffix, value),
            Resource::ServiceExports => self.put_export(suffix, value),
        }
    }

    fn exporter(&self) -> Result<&Exporter, String> {
        self.exporter
            .as_ref()
            .ok_or_else(|| "the cluster configuration is not known yet".to_owned())
    }

    fn put_node(&mut self, suffix: &str, value: &[u8]) -> Result<(), String> {
        let node = isthmus_kvstore::node::decode(value).map_err(text)?;
        validate::node(suffix, &node, self.exporter()?).map_err(text)?;
        self.state.nodes.insert(node.name.clone(), node);
        Ok(())
    }

    fn put_identity(&mut self, suffix: &str, value: &[u8]) -> Result<(), String> {
        let id = identity(suffix)?;
        let labels = isthmus_kvstore::identity::decode(value).map_err(text)?;
        validate::identity(id, &labels, self.exporter()?).map_err(text)?;
        self.state.identities.insert(id, labels);
        Ok(())
    }

    fn put_ip(&mut self, suffix: &str, value: &[u8]) -> Result<(), String> {
        let mut entry = isthmus_kvstore::ip::decode(value).map_err(text)?;
        validate::ip(suffix, &entry, self.exporter()?).map_err(text)?;
        entry.identity = entry.identity.received();
        let prefix = entry.prefix;
        let host_is_there = self.state.ips.get(&prefix).is_some_and(|old| old.host_entry);
        if host_is_there && !entry.host_entry {
            self.hidden.insert(prefix, entry);
            return Ok(());
        }
        if entry.host_entry
            && !host_is_there
            && let Some(old) = self.state.ips.get(&prefix)
        {
            self.hidden.insert(prefix, old.clone());
        }
        self.state.ips.insert(prefix, entry);
        Ok(())
    }

    fn put_service(&mut self, suffix: &str, value: &[u8]) -> Result<(), String> {
        let service = isthmus_kvstore::service::decode(value).map_err(text)?;
        validate::service(suffix, &service, self.exporter()?).map_err(text)?;
        if service.shared {
            self.state.services.insert(service.name.clone(), service);
        } else {
            self.state.services.remove(&service.name);
        }
        Ok(())
    }

    fn put_slice(&mut self, suffix: &str, value: &[u8]) -> Result<(), String> {
        let decoded = isthmus_kvstore::slice::decode(value).map_err(text)?;
        validate::slice(suffix, &decoded, self.exporter()?).map_err(text)?;
        self.state.slices.insert(name(suffix)?, decoded.slice);
        Ok(())
    }

    fn put_export(&mut self, suffix: &str, value: &[u8]) -> Result<(), String> {
        let decoded = isthmus_kvstore::service_export::decode(value).map_err(text)?;
        validate::service_export(suffix, &decoded, self.exporter()?).map_err(text)?;
        self.state.exports.insert(name(suffix)?, decoded.export);
        Ok(())
    }

    /// Deletes an entry. A key whose value was never good has none.
    pub(crate) fn delete(&mut self, resource: Resource, suffix: &[u8]) {
        let Ok(suffix) = std::str::from_utf8(suffix) else {
            return;
        };
        let state = &mut self.state;
        match resource {
            Resource::Nodes => NodeName::new(suffix).map(|key| state.nodes.remove(&key)).ok(),
            Resource::Identities => identity(suffix).map(|key| state.identities.remove(&key)).ok(),
            Resource::Services => name(suffix).map(|key| state.services.remove(&key)).ok(),
            Resource::EndpointSlices => name(suffix).map(|key| state.slices.remove(&key)).ok(),
            Resource::ServiceExports => name(suffix).map(|key| state.exports.remove(&key)).ok(),
            Resource::Ips => ip_key(suffix).map(|(prefix, host)| self.delete_ip(prefix, host)),
        };
    }

    fn delete_ip(&mut self, prefix: IpNet, host: bool) -> bool {
        let shown = self.state.ips.get(&prefix).map(|entry| entry.host_entry);
        if shown != Some(host) {
            return self.hidden.remove(&prefix).is_some();
        }
        match self.hidden.remove(&prefix) {
            Some(entry) => self.state.ips.insert(prefix, entry),
            None => self.state.ips.remove(&prefix),
        }
    }

    /// Deletes all entries of a table.
    pub(crate) fn clear(&mut self, resource: Resource) {
        let state = &mut self.state;
        match resource {
            Resource::Nodes => state.nodes.clear(),
            Resource::Identities => state.identities.clear(),
            Resource::Services => state.services.clear(),
            Resource::EndpointSlices => state.slices.clear(),
            Resource::ServiceExports => state.exports.clear(),
            Resource::Ips => {
                self.hidden.clear();
                state.ips.clear();
            }
        }
    }
}

fn text(error: impl std::error::Error) -> String {
    error.to_string()
}

fn identity(suffix: &str) -> Result<Identity, String> {
    let digits = suffix.bytes().all(|b| b.is_ascii_digit());
    let id = suffix.parse().ok().filter(|_| digits);
    id.map(Identity)
        .ok_or_else(|| format!("the key {suffix:?} is not a decimal identity"))
}

fn name(suffix: &str) -> Result<ServiceName, String> {
    suffix.parse().map_err(text)
}

/// The prefix that a key names, and whether it is a host entry (an address without a length).
fn ip_key(suffix: &str) -> Option<(IpNet, bool)> {
    match suffix.parse::<IpAddr>() {
        Ok(ip) => Some((IpNet::from(ip), true)),
        Err(_) => Some((suffix.parse().ok()?, false)),
    }
}

#[cfg(test)]
mod tests;
