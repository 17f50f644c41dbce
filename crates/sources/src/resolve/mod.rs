//! From objects to the tables of a snapshot. Pure: a directory and an API server can feed it alike.
//!
//! Only the tables whose objects changed are built anew, and a row that comes out equal keeps its `Arc`, so that who reads
//! the tables sees at once what changed.
mod allocate;
mod nodes;
mod pods;
mod services;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use isthmus_topology::{GlobalNamespaces, Identity, IdentityRange, ServiceName};
use jiff::Timestamp;

use crate::object::{Kind, Object, ObjectKey};
use crate::objects::{Objects, Placed};
use crate::{Settings, Snapshot, Table};
use allocate::Allocator;

/// Objects that are good each for itself, but not together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Where the object that gave way was written.
    pub file: Arc<Path>,
    /// Its first line, 0 if unknown.
    pub line: u32,
    /// What is wrong, naming both.
    pub reason: String,
}

impl Conflict {
    fn at(placed: &Placed, reason: String) -> Self {
        Self {
            file: placed.origin.file.clone(),
            line: placed.line,
            reason,
        }
    }
}

/// Turns objects into tables, and remembers what must not change from one snapshot to the next.
#[derive(Debug)]
pub struct Resolver {
    settings: Settings,
    /// The objects: change them, then call [`Self::resolve`].
    pub objects: Objects,
    allocator: Allocator,
    pods: pods::Memo,
    services: services::Memo,
    /// When each service export was seen first, for those that do not say when they were created.
    first_seen: BTreeMap<ServiceName, Timestamp>,
    conflicts: Conflicts,
    tables: Snapshot,
}

#[derive(Debug, Default)]
struct Conflicts {
    nodes: Vec<Conflict>,
    pods: Vec<Conflict>,
    services: Vec<Conflict>,
}

impl Resolver {
    /// Starts with the identities that were given before.
    pub fn new(settings: Settings, remembered: BTreeMap<String, Identity>) -> Self {
        let range = IdentityRange::of(settings.id, settings.max);
        let namespaces = Arc::new(GlobalNamespaces {
            default: settings.default_global_namespace,
            annotated: BTreeMap::new(),
        });
        let tables = Snapshot {
            namespaces,
            ..Snapshot::default()
        };
        Self {
            settings,
            objects: Objects::default(),
            allocator: Allocator::new(range, remembered),
            pods: pods::Memo::default(),
            services: services::Memo::default(),
            first_seen: BTreeMap::new(),
            conflicts: Conflicts::default(),
            tables,
        }
    }

    /// The tables of the objects as they are now. Everything else of the snapshot is the caller's to fill.
    pub fn resolve(&mut self) -> Snapshot {
        use Kind::{
            CiliumEndpoint, CiliumIdentity, CiliumNode, EndpointSlice, Namespace, Node, Pod, Service,
        };
        let changed = self.objects.take_changed();
        let kinds: BTreeSet<Kind> = changed.iter().map(|key| key.kind).collect();
        let any = |wanted: &[Kind]| wanted.iter().any(|kind| kinds.contains(kind));
        if any(&[Namespace]) {
            self.tables.namespaces = self.namespaces();
        }
        if any(&[Node, CiliumNode]) {
            let (table, conflicts) = nodes::resolve(&self.objects, &self.tables.nodes);
            self.tables.nodes = table;
            self.conflicts.nodes = conflicts;
        }
        if any(&[Namespace, Node, CiliumNode, CiliumIdentity, CiliumEndpoint, Pod]) {
            self.resolve_pods(&changed);
        }
        if any(&[Namespace, Service, EndpointSlice]) {
            self.tables.slices = services::slices(&self.objects, &self.tables.slices);
            let namespaces = self.tables.namespaces.clone();
            let (table, conflicts) = self
                .services
                .resolve(&self.objects, &namespaces, &self.tables.services);
            self.tables.services = table;
            self.conflicts.services = conflicts;
        }
        if any(&[Service, Kind::ServiceExport]) {
            let previous = self.tables.service_exports.clone();
            self.tables.service_exports = services::exports(&self.objects, &mut self.first_seen, &previous);
        }
        self.tables.clone()
    }

    /// What is wrong between the objects, after the last [`Self::resolve`].
    pub fn conflicts(&self) -> Vec<Conflict> {
        let Conflicts {
            nodes,
            pods,
            services,
        } = &self.conflicts;
        let doubles = self.objects.doubles().map(|(key, first, other)| {
            let (file, line) = (first.origin.file.display(), first.line);
            let reason = format!("{key} is also in {file}:{line}, which counts: remove one of them");
            Conflict::at(other, reason)
        });
        let all = nodes.iter().chain(pods).chain(services).cloned();
        all.chain(doubles).collect()
    }

    /// Which identity was given to which labels, if that changed since the last call: to be remembered.
    pub fn take_given_identities(&mut self) -> Option<BTreeMap<String, Identity>> {
        self.allocator.take_changed()
    }

    fn resolve_pods(&mut self, changed: &BTreeSet<Arc<ObjectKey>>) {
        let context = pods::Context {
            settings: &self.settings,
            objects: &self.objects,
            nodes: &self.tables.nodes,
            previous_ips: &self.tables.ips,
            previous_identities: &self.tables.identities,
        };
        let resolved = self.pods.resolve(&context, changed, &mut self.allocator);
        self.tables.ips = resolved.ips;
        self.tables.identities = resolved.identities;
        self.conflicts.pods = resolved.conflicts;
    }

    fn namespaces(&self) -> Arc<GlobalNamespaces> {
        let annotated =
            self.objects
                .of_kind(Kind::Namespace)
                .filter_map(|(key, placed)| match &*placed.object {
                    Object::Namespace(namespace) => Some((key.name.to_string(), namespace.global?)),
                    _ => None,
                });
        let now = GlobalNamespaces {
            default: self.settings.default_global_namespace,
            annotated: annotated.collect(),
        };
        if now == *self.tables.namespaces {
            self.tables.namespaces.clone()
        } else {
            Arc::new(now)
        }
    }
}

/// The new table, made of the old one's rows where they are equal; the old one itself if all are.
fn settle<K: Ord, V: PartialEq>(mut now: BTreeMap<K, Arc<V>>, before: &Table<K, V>) -> Table<K, V> {
    let mut same = now.len() == before.len();
    for (key, row) in &mut now {
        match before.get(key) {
            Some(old) if Arc::ptr_eq(old, row) => {}
            Some(old) if *old == *row => *row = old.clone(),
            _ => same = false,
        }
    }
    if same { before.clone() } else { Arc::new(now) }
}
