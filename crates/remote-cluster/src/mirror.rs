//! From bytes to tables: decodes what a cluster exports, believes only what is valid, and keeps the last good value.
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use isthmus_kvstore::{Exporter, Tree, entry_key, validate};
use isthmus_topology::{ClusterName, Identity, IpIdentity, NodeName, ServiceName, ServiceSlice};
use jiff::Timestamp;

mod services;

use crate::feed::family;
use crate::{Rejection, RemoteClusterState, RemoteConfig, Resource};

/// The tables of one remote cluster, as they are filled.
#[derive(Debug)]
pub(crate) struct Mirror {
    /// What is published.
    pub(crate) state: RemoteClusterState,
    exporter: Option<Exporter>,
    /// The cluster exports slices only: its services are made of them.
    slices_only: bool,
    /// The slices of each service.
    slices_of: BTreeMap<ServiceName, BTreeSet<ServiceName>>,
    /// Prefixes of full length that a host entry of the same address hides (spec §1.7).
    hidden: BTreeMap<IpNet, IpIdentity>,
}

impl Mirror {
    /// The empty tables of a cluster.
    pub(crate) fn new(name: ClusterName) -> Self {
        Self {
            state: RemoteClusterState::new(name),
            exporter: None,
            slices_only: false,
            slices_of: BTreeMap::new(),
            hidden: BTreeMap::new(),
        }
    }

    /// What follows is checked against this configuration.
    pub(crate) fn adopt(&mut self, config: RemoteConfig) {
        self.state.config = Some(config);
        let slices_only = !config.slices.services();
        if self.slices_only != slices_only {
            self.slices_only = slices_only;
            self.state.services.clear();
        }
        self.exporter = Some(Exporter {
            cluster: self.state.name.clone(),
            id: config.id,
            max: config.max_clusters,
        });
    }

    /// Takes a value; `at` is for the record of a refusal. Says whether it was accepted.
    pub(crate) fn put(&mut self, resource: Resource, suffix: &[u8], value: &[u8], at: Timestamp) -> bool {
        let Err(reason) = self.accept(resource, suffix, value) else {
            return true;
        };
        let (cluster, tree) = (&self.state.name, self.tree());
        let key = entry_key(tree, family(resource), cluster, String::from_utf8_lossy(suffix));
        tracing::warn!(%cluster, key, reason, "value refused, the last good one stays");
        self.state.rejected.push(resource, Rejection { key, reason, at });
        false
    }

    fn tree(&self) -> Tree {
        match self.state.config {
            Some(config) if config.cached => Tree::Cache,
            _ => Tree::State,
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
        let key = name(suffix)?;
        let before = self.unlink_slice(&key);
        let after = service_of(&decoded.slice);
        if let Some(service) = &after {
            self.slices_of
                .entry(service.clone())
                .or_default()
                .insert(key.clone());
        }
        self.state.slices.insert(key, decoded.slice);
        if before != after {
            self.derive(before);
        }
        self.derive(after);
        Ok(())
    }

    fn put_export(&mut self, suffix: &str, value: &[u8]) -> Result<(), String> {
        let decoded = isthmus_kvstore::service_export::decode(value).map_err(text)?;
        validate::service_export(suffix, &decoded, self.exporter()?).map_err(text)?;
        self.state.exports.insert(name(suffix)?, decoded.export);
        Ok(())
    }

    fn delete_slice(&mut self, key: &ServiceName) -> bool {
        let service = self.unlink_slice(key);
        self.derive(service);
        self.state.slices.remove(key)
    }

    /// Takes a slice away from the service that it has belonged to, and answers that.
    fn unlink_slice(&mut self, key: &ServiceName) -> Option<ServiceName> {
        let service = self.state.slices.get(key).and_then(service_of)?;
        if let Some(slices) = self.slices_of.get_mut(&service) {
            slices.remove(key);
            if slices.is_empty() {
                self.slices_of.remove(&service);
            }
        }
        Some(service)
    }

    /// Makes a service anew of its slices, if the cluster exports nothing else.
    fn derive(&mut self, service: Option<ServiceName>) {
        let (Some(service), Some(exporter), true) = (service, &self.exporter, self.slices_only) else {
            return;
        };
        let keys = self.slices_of.get(&service).into_iter().flatten();
        let slices = keys.filter_map(|key| self.state.slices.get(key));
        match services::of_slices(exporter, &service, slices) {
            Some(made) => self.state.services.insert(service, made),
            None => self.state.services.remove(&service),
        };
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
            Resource::EndpointSlices => name(suffix).map(|key| self.delete_slice(&key)).ok(),
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
            Resource::EndpointSlices => {
                if self.slices_only {
                    state.services.clear();
                }
                self.slices_of.clear();
                state.slices.clear();
            }
            Resource::ServiceExports => state.exports.clear(),
            Resource::Ips => {
                self.hidden.clear();
                state.ips.clear();
            }
        }
    }
}

/// The service that a slice belongs to.
fn service_of(slice: &ServiceSlice) -> Option<ServiceName> {
    ServiceName::new(slice.namespace.as_str(), slice.service()?).ok()
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
