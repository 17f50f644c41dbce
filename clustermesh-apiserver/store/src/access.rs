//! Who may read and write what: Cilium's roles, known by the common name of the certificate (clustermesh.md §2.6).

use isthmus_trust::ClientName;

use crate::mvcc::Span;

/// What a client may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Reads and writes everything: `root`, `admin-<own cluster>`.
    Root,
    /// Reads what a peer needs: `remote`, `remote-<peer>`.
    Remote,
    /// Reads what the cluster's own agents need: `local-<own cluster>`.
    Local,
}

impl Role {
    /// Cilium's name of the role.
    pub fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Remote => "remote",
            Self::Local => "local",
        }
    }

    /// All roles.
    pub const ALL: [Self; 3] = [Self::Local, Self::Remote, Self::Root];
}

/// Which names count as peers (Helm value `clustermesh.apiserver.tls.authMode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuthMode {
    /// All peers share the name `remote`.
    Legacy,
    /// `remote` and `remote-<peer>`; the chart's default since 1.19.
    #[default]
    Migration,
    /// Only `remote-<peer>`.
    Cluster,
}

/// The roles of one cluster's store.
#[derive(Clone, Debug)]
pub struct AccessPolicy {
    cluster: String,
    mode: AuthMode,
}

impl AccessPolicy {
    /// The roles of `cluster`.
    pub fn new(cluster: &str, mode: AuthMode) -> Self {
        Self {
            cluster: cluster.to_owned(),
            mode,
        }
    }

    /// The role of a common name; `None` if it has none here, so that everything is denied to it.
    pub fn role(&self, common_name: &str) -> Option<Role> {
        match ClientName::parse(common_name)? {
            ClientName::Root => Some(Role::Root),
            ClientName::Admin(cluster) => (cluster == self.cluster).then_some(Role::Root),
            ClientName::Local(cluster) => (cluster == self.cluster).then_some(Role::Local),
            ClientName::Remote => (self.mode != AuthMode::Cluster).then_some(Role::Remote),
            // The own name is no peer's.
            ClientName::RemotePeer(peer) => {
                (self.mode != AuthMode::Legacy && peer != self.cluster).then_some(Role::Remote)
            }
        }
    }

    /// What a role may read, as `key` and `range_end` of the API.
    pub fn readable(&self, role: Role) -> Vec<(Vec<u8>, Vec<u8>)> {
        let prefix = |prefix: &str| {
            let end = crate::mvcc::after_prefix(prefix.as_bytes()).unwrap_or_else(|| vec![0]);
            (prefix.as_bytes().to_vec(), end)
        };
        match role {
            Role::Root => vec![(vec![0], vec![0])],
            Role::Remote => vec![
                prefix("cilium/.heartbeat"),
                (
                    format!("cilium/cluster-config/{}", self.cluster).into_bytes(),
                    Vec::new(),
                ),
                prefix("cilium/state/"),
                prefix(&format!("cilium/synced/{}/", self.cluster)),
            ],
            Role::Local => vec![
                prefix("cilium/.heartbeat"),
                prefix("cilium/cache/"),
                prefix("cilium/cluster-config/"),
                prefix("cilium/synced/"),
            ],
        }
    }

    /// Whether a role may read all keys of a span.
    pub fn may_read(&self, role: Role, span: &Span) -> bool {
        role == Role::Root
            || self
                .readable(role)
                .iter()
                .any(|(key, end)| Span::new(key, end).covers(span))
    }

    /// The users that exist without being asked for: everybody but single peers.
    pub fn users(&self) -> Vec<String> {
        let own = self.cluster.clone();
        let mut users = vec![
            ClientName::Admin(own.clone()).common_name(),
            ClientName::Local(own).common_name(),
        ];
        if self.mode != AuthMode::Cluster {
            users.push(ClientName::Remote.common_name());
        }
        users.push(ClientName::Root.common_name());
        users
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_follow_the_common_name() {
        let policy = |mode| AccessPolicy::new("east", mode);
        let table = [
            ("root", [Some(Role::Root); 3]),
            ("admin-east", [Some(Role::Root); 3]),
            ("admin-west", [None; 3]),
            ("local-east", [Some(Role::Local); 3]),
            ("local-west", [None; 3]),
            ("remote", [Some(Role::Remote), Some(Role::Remote), None]),
            ("remote-west", [None, Some(Role::Remote), Some(Role::Remote)]),
            ("remote-east", [None; 3]),
            ("clustermesh-apiserver.cilium.io", [None; 3]),
            ("", [None; 3]),
        ];
        for (name, want) in table {
            let modes = [AuthMode::Legacy, AuthMode::Migration, AuthMode::Cluster];
            assert_eq!(modes.map(|mode| policy(mode).role(name)), want, "{name}");
        }
    }

    #[test]
    fn peers_read_this_cluster_only() {
        let policy = AccessPolicy::new("east", AuthMode::Migration);
        let may =
            |role, key: &str, end: &str| policy.may_read(role, &Span::new(key.as_bytes(), end.as_bytes()));
        assert!(may(Role::Remote, "cilium/cluster-config/east", ""));
        assert!(!may(Role::Remote, "cilium/cluster-config/west", ""));
        assert!(!may(
            Role::Remote,
            "cilium/cluster-config/",
            "cilium/cluster-config0"
        ));
        assert!(may(
            Role::Remote,
            "cilium/state/identities/v1/id",
            "cilium/state/identities/v1/ie"
        ));
        assert!(may(Role::Remote, "cilium/.heartbeat", "cilium/.heartbeau"));
        assert!(may(Role::Remote, "cilium/synced/east/cilium/state/nodes/v1", ""));
        assert!(!may(Role::Remote, "cilium/synced/west/cilium/cache/nodes/v1", ""));
        assert!(!may(
            Role::Remote,
            "cilium/cache/ip/v1/west/",
            "cilium/cache/ip/v1/west0"
        ));
        assert!(may(
            Role::Local,
            "cilium/cache/ip/v1/west/",
            "cilium/cache/ip/v1/west0"
        ));
        assert!(!may(
            Role::Local,
            "cilium/state/ip/v1/default/",
            "cilium/state/ip/v1/default0"
        ));
        assert!(may(Role::Root, "\0", "\0"));
        assert!(!may(Role::Remote, "\0", "\0"));
    }
}
