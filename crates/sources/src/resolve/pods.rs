//! The tables of addresses and identities: from CiliumEndpoints and CiliumIdentities where they are, else from pods.
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use isthmus_topology::{Identity, IpIdentity, Labels, Node, NodeName};

use super::allocate::{Allocator, Exhausted};
use super::{Conflict, settle};
use crate::object::{Kind, NamespaceObject, Object, ObjectKey, PodObject};
use crate::objects::{Objects, Placed};
use crate::{Settings, Table};

/// Key index of entries that are reached through WireGuard (spec §1.7).
const WIREGUARD_KEY: u8 = 255;

/// Beginnings of label keys that are part of an identity although a later rule would leave them out, as in Cilium's
/// defaults ("Limiting Identity-Relevant Labels" of its documentation).
const INCLUDED: [&str; 5] = [
    "io.kubernetes.pod.namespace",
    "io.cilium.k8s.namespace.labels",
    "io.cilium.k8s.policy.cluster",
    "io.cilium.k8s.policy.serviceaccount",
    "app.kubernetes.io",
];

/// Beginnings of label keys that are not part of an identity.
const EXCLUDED: [&str; 13] = [
    "io.kubernetes",
    "kubernetes.io",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/job-completion-index",
    "batch.kubernetes.io/controller-uid",
    "k8s.io",
    "pod-template-generation",
    "pod-template-hash",
    "controller-revision-hash",
    "annotation",
    "controller-uid",
    "etcd_node",
];

/// The rows of one address table, and the identities that they need.
pub(super) struct Resolved {
    pub(super) ips: Table<IpNet, IpIdentity>,
    pub(super) identities: Table<Identity, Labels>,
    pub(super) conflicts: Vec<Conflict>,
}

/// What the rows depend on.
pub(super) struct Context<'a> {
    pub(super) settings: &'a Settings,
    pub(super) objects: &'a Objects,
    pub(super) nodes: &'a Table<NodeName, Node>,
    pub(super) previous_ips: &'a Table<IpNet, IpIdentity>,
    pub(super) previous_identities: &'a Table<Identity, Labels>,
}

/// What was made of each pod: pods that did not change are not looked at again.
#[derive(Debug, Default)]
pub(super) struct Memo {
    made: BTreeMap<Arc<ObjectKey>, PodRows>,
    /// Pods for which there was no identity left: they are looked at every time.
    without: BTreeSet<Arc<ObjectKey>>,
}

#[derive(Debug)]
struct PodRows {
    rows: Vec<(IpNet, Arc<IpIdentity>)>,
    identity: Identity,
    labels: Arc<Labels>,
}

/// A pod that is looked at.
type NewPod<'a> = (&'a Arc<ObjectKey>, &'a Placed, &'a PodObject);

impl Memo {
    pub(super) fn resolve(
        &mut self,
        context: &Context<'_>,
        changed: &BTreeSet<Arc<ObjectKey>>,
        allocator: &mut Allocator,
    ) -> Resolved {
        let mut identities = cilium_identities(context.objects);
        let pods = self.pods_to_look_at(context.objects, changed);
        let exhausted = self.give_identities(context, pods, &identities, allocator);
        let mut table = Addresses {
            previous: context.previous_ips,
            claims: Vec::new(),
        };
        for (key, placed) in context.objects.of_kind(Kind::CiliumEndpoint) {
            if let Object::Endpoint(rows) = &*placed.object {
                table.add(key, placed, rows);
            }
        }
        for (key, placed) in context.objects.of_kind(Kind::Pod) {
            if let Some(made) = self.made.get(key) {
                table.add(key, placed, &made.rows);
                identities
                    .entry(made.identity)
                    .or_insert_with(|| made.labels.clone());
            }
        }
        let (ips, mut conflicts) = table.settle();
        conflicts.extend(exhausted);
        Resolved {
            ips,
            identities: settle(identities, context.previous_identities),
            conflicts,
        }
    }

    /// The pods that changed; all of them if something changed on which every row depends. A pod for which a CiliumEndpoint
    /// speaks is not looked at.
    fn pods_to_look_at<'a>(
        &mut self,
        objects: &'a Objects,
        changed: &BTreeSet<Arc<ObjectKey>>,
    ) -> Vec<(&'a Arc<ObjectKey>, &'a Placed)> {
        use Kind::{CiliumEndpoint, CiliumIdentity, CiliumNode, Namespace, Node, Pod};
        let mut pods = Vec::new();
        if changed
            .iter()
            .any(|key| matches!(key.kind, Namespace | Node | CiliumNode | CiliumIdentity))
        {
            self.made.clear();
            self.without.clear();
            pods.extend(objects.of_kind(Pod));
        } else {
            let changed = changed
                .iter()
                .filter(|key| matches!(key.kind, CiliumEndpoint | Pod))
                .cloned();
            for key in changed
                .chain(std::mem::take(&mut self.without))
                .collect::<BTreeSet<_>>()
            {
                let key = ObjectKey {
                    kind: Pod,
                    ..(*key).clone()
                };
                self.made.remove(&key);
                pods.extend(objects.find_with_key(&key));
            }
        }
        let spoken_for = objects
            .of_kind(CiliumEndpoint)
            .map(|(key, _)| (&key.namespace, &key.name));
        let spoken_for: BTreeSet<_> = spoken_for.collect();
        pods.retain(|(key, _)| !spoken_for.contains(&(&key.namespace, &key.name)));
        pods
    }

    /// Makes the rows of these pods. New sets of labels get their identities in the order of their text, which is the same for
    /// every daemon that sees the same pods.
    fn give_identities(
        &mut self,
        context: &Context<'_>,
        pods: Vec<(&Arc<ObjectKey>, &Placed)>,
        cilium: &BTreeMap<Identity, Arc<Labels>>,
        allocator: &mut Allocator,
    ) -> Vec<Conflict> {
        let by_text: BTreeMap<String, Identity> = cilium.iter().map(|(id, l)| (l.to_string(), *id)).collect();
        let foreign: BTreeSet<Identity> = cilium.keys().copied().collect();
        let mut in_use: BTreeSet<Identity> = context.previous_identities.keys().copied().collect();
        let mut conflicts = Vec::new();
        for (text, (labels, pods)) in by_labels(context, pods) {
            let known = by_text.get(&text).copied();
            let given = known.map_or_else(
                || allocator.identity(&text, &foreign, &|id| in_use.contains(&id)),
                Ok,
            );
            let Ok(identity) = given else {
                conflicts.extend(pods.iter().map(|(key, placed, _)| exhausted(key, placed)));
                self.without.extend(pods.into_iter().map(|(key, ..)| key.clone()));
                continue;
            };
            in_use.insert(identity);
            let labels = Arc::new(labels);
            for (key, _, pod) in pods {
                let rows = rows_of(context, key, pod, identity);
                let labels = labels.clone();
                self.made.insert(
                    key.clone(),
                    PodRows {
                        rows,
                        identity,
                        labels,
                    },
                );
            }
        }
        conflicts
    }
}

/// Pods with an address, by the text of the labels that make their identity.
fn by_labels<'a>(
    context: &Context<'_>,
    pods: Vec<(&'a Arc<ObjectKey>, &'a Placed)>,
) -> BTreeMap<String, (Labels, Vec<NewPod<'a>>)> {
    let mut sets: BTreeMap<String, (Labels, Vec<NewPod<'_>>)> = BTreeMap::new();
    for (key, placed) in pods {
        let Object::Pod(pod) = &*placed.object else {
            continue;
        };
        if !pod.ips.is_empty() {
            let labels = pod_labels(context, &key.namespace, pod);
            let set = sets
                .entry(labels.to_string())
                .or_insert_with(|| (labels, Vec::new()));
            set.1.push((key, placed, pod));
        }
    }
    sets
}

fn exhausted(key: &ObjectKey, placed: &Placed) -> Conflict {
    let Exhausted = Exhausted;
    let cure = "use fewer distinct pod labels or a mesh with max-connected-clusters=255";
    Conflict::at(
        placed,
        format!("{key} gets no identity: all identities of this cluster are in use; {cure}"),
    )
}

fn cilium_identities(objects: &Objects) -> BTreeMap<Identity, Arc<Labels>> {
    let of_object = |(_, placed): (&Arc<ObjectKey>, &Placed)| match &*placed.object {
        Object::Identity(identity, labels) => Some((*identity, labels.clone())),
        _ => None,
    };
    objects
        .of_kind(Kind::CiliumIdentity)
        .filter_map(of_object)
        .collect()
}

/// The labels that make a pod's identity, as Cilium derives them (spec §1.6).
fn pod_labels(context: &Context<'_>, namespace: &str, pod: &PodObject) -> Labels {
    let mut labels = Labels::default();
    for (key, value) in pod.labels.iter().filter(|(key, _)| is_relevant(key)) {
        labels.insert("k8s", &**key, &**value);
    }
    let none = NamespaceObject::default();
    let key = ObjectKey::new(Kind::Namespace, "", namespace);
    let object = context.objects.find(&key).map(|placed| &*placed.object);
    let of_namespace = match object {
        Some(Object::Namespace(found)) => found,
        _ => &none,
    };
    // Every namespace has this label: an API server adds it.
    labels.insert(
        "k8s",
        "io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name",
        namespace,
    );
    for (key, value) in &of_namespace.labels {
        labels.insert("k8s", format!("io.cilium.k8s.namespace.labels.{key}"), value);
    }
    labels.insert("k8s", Labels::CLUSTER, context.settings.cluster.as_str());
    labels.insert("k8s", "io.cilium.k8s.policy.serviceaccount", &pod.service_account);
    labels.insert("k8s", "io.kubernetes.pod.namespace", namespace);
    labels
}

fn is_relevant(key: &str) -> bool {
    let begins = |names: &[&str]| names.iter().any(|name| key.starts_with(name));
    begins(&INCLUDED) || !(begins(&EXCLUDED) || key.contains("beta.kubernetes.io"))
}

fn rows_of(
    context: &Context<'_>,
    key: &ObjectKey,
    pod: &PodObject,
    identity: Identity,
) -> Vec<(IpNet, Arc<IpIdentity>)> {
    let node = NodeName::new(pod.node.as_str()).ok();
    let node = node.and_then(|name| context.nodes.get(&name));
    let host_ip = pod
        .host_ip
        .or_else(|| node.and_then(|node| node.tunnel_endpoint()));
    let encrypted = node.is_some_and(|node| !node.wireguard_pub_key.is_empty());
    let row = |ip: &IpAddr| IpIdentity {
        prefix: IpNet::from(*ip),
        host_entry: true,
        host_ip,
        identity,
        key: if encrypted { WIREGUARD_KEY } else { 0 },
        namespace: key.namespace.to_string(),
        pod: key.name.to_string(),
        service_account: pod.service_account.clone(),
        named_ports: pod.named_ports.clone(),
    };
    pod.ips
        .iter()
        .map(|ip| (IpNet::from(*ip), Arc::new(row(ip))))
        .collect()
}

/// The table in the making: what every pod says that it has.
struct Addresses<'a> {
    previous: &'a Table<IpNet, IpIdentity>,
    claims: Vec<Claim<'a>>,
}

struct Claim<'a> {
    ip: IpNet,
    row: Arc<IpIdentity>,
    key: &'a ObjectKey,
    placed: &'a Placed,
}

impl<'a> Addresses<'a> {
    fn add(&mut self, key: &'a ObjectKey, placed: &'a Placed, rows: &[(IpNet, Arc<IpIdentity>)]) {
        let claim = |(ip, row): &(IpNet, Arc<IpIdentity>)| Claim {
            ip: *ip,
            row: row.clone(),
            key,
            placed,
        };
        self.claims.extend(rows.iter().map(claim));
    }

    /// An address belongs to one pod: to the one that had it, else to the first by name.
    fn settle(mut self) -> (Table<IpNet, IpIdentity>, Vec<Conflict>) {
        self.claims.sort_by_key(|claim| claim.ip);
        let (mut rows, mut conflicts) = (Vec::with_capacity(self.claims.len()), Vec::new());
        for of_one in self.claims.chunk_by(|a, b| a.ip == b.ip) {
            let [first, others @ ..] = of_one else {
                continue;
            };
            let owner = match others {
                [] => first,
                _ => of_one.iter().find(|claim| self.had(claim)).unwrap_or(first),
            };
            rows.push((owner.ip, owner.row.clone()));
            let losers = of_one.iter().filter(|claim| !std::ptr::eq(*claim, owner));
            conflicts.extend(losers.map(|claim| claim.lost_to(owner)));
        }
        (settle(BTreeMap::from_iter(rows), self.previous), conflicts)
    }

    fn had(&self, claim: &Claim<'_>) -> bool {
        let old = self.previous.get(&claim.ip);
        old.is_some_and(|old| (&old.namespace, &old.pod) == (&claim.row.namespace, &claim.row.pod))
    }
}

impl Claim<'_> {
    fn lost_to(&self, owner: &Self) -> Conflict {
        let (key, other, ip) = (self.key, owner.key, self.ip.addr());
        let reason =
            format!("{other} and {key} both have address {ip}: it stays with the former; mend the latter");
        Conflict::at(self.placed, reason)
    }
}
