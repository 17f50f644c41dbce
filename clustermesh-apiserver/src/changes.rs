//! From two snapshots to the keys that may differ. Pure.
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use isthmus_kvstore::{
    ExportInputs, ExportMode, Family, export_identity, export_ip, export_node, export_service,
    export_service_export, export_slice,
};
use isthmus_sources::Snapshot;

use crate::args::Cluster;

/// An entry of the store.
pub(crate) type Entry = (String, Vec<u8>);

/// How this cluster is exported, apart from what it holds.
#[derive(Clone, Debug)]
pub(crate) struct Exporting {
    pub(crate) cluster: Cluster,
    pub(crate) mode: ExportMode,
    pub(crate) service_exports: bool,
}

impl Exporting {
    fn inputs<'a>(&'a self, snapshot: &'a Snapshot) -> ExportInputs<'a> {
        ExportInputs {
            cluster: &self.cluster.name,
            id: self.cluster.id,
            namespaces: &snapshot.namespaces,
            mode: self.mode,
            service_exports_enabled: self.service_exports,
        }
    }
}

/// One row that may have changed: what it exported before and what it exports now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) before: Option<String>,
    pub(crate) now: Option<Entry>,
}

/// The rows of a family that may export something else in `new` than in `old`: those that are not the same object, or
/// all if something changed on which the whole family depends. Lazy, so that 100,000 encoded values are never held at once.
pub(crate) fn family_changes<'a>(
    exporting: &'a Exporting,
    family: Family,
    old: &'a Snapshot,
    new: &'a Snapshot,
    all: bool,
) -> Box<dyn Iterator<Item = Change> + Send + 'a> {
    let (before, now) = (exporting.inputs(old), exporting.inputs(new));
    let all = all || old.namespaces != new.namespaces;
    let (was, is) = (&*old.services, &*new.services);
    let services = all || !Arc::ptr_eq(&old.services, &new.services);
    match family {
        Family::Nodes => rows(&old.nodes, &new.nodes, all, move |_, node, at| {
            Some(export_node(at.of(&before, &now), node))
        }),
        Family::Identities => rows(&old.identities, &new.identities, all, move |id, labels, at| {
            export_identity(at.of(&before, &now), *id, labels)
        }),
        Family::Ip => rows(&old.ips, &new.ips, all, move |_, entry, at| {
            export_ip(at.of(&before, &now), entry)
        }),
        Family::Services => rows(&old.services, &new.services, all, move |_, service, at| {
            export_service(at.of(&before, &now), service)
        }),
        Family::EndpointSlices => rows(&old.slices, &new.slices, services, move |_, slice, at| {
            export_slice(at.of(&before, &now), at.of(was, is), slice)
        }),
        Family::ServiceExports => rows(
            &old.service_exports,
            &new.service_exports,
            services,
            move |_, export, at| export_service_export(at.of(&before, &now), at.of(was, is), export),
        ),
    }
}

/// Which of two snapshots a row is taken from.
#[derive(Clone, Copy)]
enum At {
    Old,
    New,
}

impl At {
    fn of<'a, T: ?Sized>(self, old: &'a T, new: &'a T) -> &'a T {
        match self {
            Self::Old => old,
            Self::New => new,
        }
    }
}

/// Walks two sorted tables side by side.
fn rows<'a, K: Ord + Sync, V: Send + Sync>(
    old: &'a BTreeMap<K, Arc<V>>,
    new: &'a BTreeMap<K, Arc<V>>,
    all: bool,
    export: impl Fn(&K, &V, At) -> Option<Entry> + Send + 'a,
) -> Box<dyn Iterator<Item = Change> + Send + 'a> {
    if !all && std::ptr::eq(old, new) {
        return Box::new(std::iter::empty());
    }
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    Box::new(std::iter::from_fn(move || {
        loop {
            let order = match (old.peek(), new.peek()) {
                (Some((was, _)), Some((is, _))) => was.cmp(is),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return None,
            };
            let was = if order.is_le() { old.next() } else { None };
            let is = if order.is_ge() { new.next() } else { None };
            if let (Some((_, was)), Some((_, is))) = (was, is)
                && !all
                && Arc::ptr_eq(was, is)
            {
                continue;
            }
            let before = was
                .and_then(|(key, value)| export(key, value, At::Old))
                .map(|(key, _)| key);
            let now = is.and_then(|(key, value)| export(key, value, At::New));
            if before.is_some() || now.is_some() {
                return Some(Change { before, now });
            }
        }
    }))
}
