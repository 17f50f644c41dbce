//! The lab as data: who there is, and every address. Pure: the same name gives the same plan.
//!
//! ```text
//!   client ── tor AS 65000 ─┬─ east-1  AS 65001  10.1.1.0/24   pods echo-east-1, box-east-1
//!   198.51.100.2            ├─ east-2            10.1.2.0/24        echo-east-2, box-east-2
//!                           ├─ east-cp           (the cluster's clustermesh-apiserver)
//!                           ├─ west-1  AS 65002  10.2.1.0/24
//!                           ├─ west-2            10.2.2.0/24
//!                           └─ west-cp
//! ```
//! Cluster `c`, node `n` (0 is the control plane): uplink 172.30.c.4n/30 and fd00:30:c:n::/64, the router has the first
//! address; pods 10.c.n.0/24 and fd00:10:c:n::/64; ClusterIPs 10.(100+c).0.0/16 and fd00:5:c::/64.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::failure::{Failure, Outcome};

/// The lab that is meant when none is named.
pub(crate) const DEFAULT_NAME: &str = "demo";
/// The router's AS number.
pub(crate) const TOR_AS: u32 = 65_000;
/// The address that both clusters announce for the service `echo`.
pub(crate) const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// The same in IPv6.
pub(crate) const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x203, 0, 0, 0, 0, 0x10);
/// Port of the service.
pub(crate) const SERVICE_PORT: u16 = 80;
/// Port of the echo servers.
pub(crate) const ECHO_PORT: u16 = 8080;
/// Namespace of everything in the lab's clusters.
pub(crate) const NAMESPACE: &str = "default";
/// The global service of the demo.
pub(crate) const ECHO: &str = "echo";
/// Where a node's link to the router is called so inside the node.
pub(crate) const UPLINK: &str = "uplink";
/// MTU of the pods: room for a VXLAN header in the uplinks' 1500 bytes.
pub(crate) const POD_MTU: u32 = 1450;

/// Both ends of a link to the router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Uplink {
    /// Its name on the router: the name of what is behind it.
    pub(crate) tor_link: String,
    /// The router's addresses.
    pub(crate) tor: [IpNet; 2],
    /// The other end's addresses.
    pub(crate) own: [IpNet; 2],
}

impl Uplink {
    fn new(tor_link: &str, v4: Ipv4Net, v6: Ipv6Net) -> Self {
        let host4 = |n: u32| Ipv4Addr::from(u32::from(v4.network()) + n);
        let host6 = |n: u128| Ipv6Addr::from(u128::from(v6.network()) + n);
        let end = |n: u8| {
            [
                net(host4(n.into()).into(), v4.prefix_len()),
                net(host6(n.into()).into(), v6.prefix_len()),
            ]
        };
        Self {
            tor_link: tor_link.into(),
            tor: end(1),
            own: end(2),
        }
    }

    /// The IPv4 address of the end away from the router.
    pub(crate) fn ip(&self) -> IpAddr {
        self.own[0].addr()
    }
}

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pod {
    /// Its name, also that of its namespace after the lab's name.
    pub(crate) name: String,
    /// What runs in it: `echo`, or `box` to connect from.
    pub(crate) app: &'static str,
    /// The node it is on.
    pub(crate) node: String,
    /// IPv4 and IPv6.
    pub(crate) ips: [IpAddr; 2],
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// Its name.
    pub(crate) name: String,
    /// Its link to the router.
    pub(crate) uplink: Uplink,
    /// Its pods' addresses.
    pub(crate) pod_cidrs: [IpNet; 2],
    /// Its own addresses among its pods: their gateway.
    pub(crate) gateways: [IpAddr; 2],
    /// Its pods.
    pub(crate) pods: Vec<Pod>,
}

/// A cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cluster {
    /// Its name.
    pub(crate) name: String,
    /// Its id.
    pub(crate) id: u8,
    /// The AS number of its nodes.
    pub(crate) asn: u32,
    /// All its pods' addresses.
    pub(crate) pod_cidrs: [IpNet; 2],
    /// ClusterIPs of the service `echo`.
    pub(crate) echo_ips: [IpAddr; 2],
    /// Its control plane: a namespace in which the clustermesh-apiserver runs.
    pub(crate) control: ControlPlane,
    /// Its nodes.
    pub(crate) nodes: Vec<Node>,
}

/// Where a cluster's clustermesh-apiserver runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ControlPlane {
    /// Its name, e.g. `east-cp`.
    pub(crate) name: String,
    /// Its link to the router.
    pub(crate) uplink: Uplink,
}

impl Cluster {
    /// All pods of an app, node by node.
    pub(crate) fn pods<'a>(&'a self, app: &'a str) -> impl Iterator<Item = &'a Pod> + 'a {
        self.nodes
            .iter()
            .flat_map(|n| &n.pods)
            .filter(move |p| p.app == app)
    }

    /// Every uplink of the cluster: its nodes' and its control plane's.
    pub(crate) fn uplinks(&self) -> impl Iterator<Item = (&str, &Uplink)> {
        let nodes = self.nodes.iter().map(|n| (n.name.as_str(), &n.uplink));
        nodes.chain([(self.control.name.as_str(), &self.control.uplink)])
    }
}

/// The whole lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Its name, the prefix of everything it makes.
    pub(crate) name: String,
    /// The clusters.
    pub(crate) clusters: Vec<Cluster>,
    /// The outside client's link to the router.
    pub(crate) client: Uplink,
}

impl Plan {
    /// The plan of a lab: clusters east and west, two nodes each.
    pub(crate) fn new(name: &str) -> Outcome<Self> {
        check_name(name)?;
        let clusters = vec![cluster("east", 1, 2), cluster("west", 2, 2)];
        let client4 = v4(Ipv4Addr::new(198, 51, 100, 0), 24);
        let client6 = v6(Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 0), 64);
        Ok(Self {
            name: name.into(),
            clusters,
            client: Uplink::new("client", client4, client6),
        })
    }

    /// A cluster by name.
    pub(crate) fn cluster(&self, name: &str) -> Outcome<&Cluster> {
        self.clusters.iter().find(|c| c.name == name).ok_or_else(|| {
            let known: Vec<_> = self.clusters.iter().map(|c| c.name.as_str()).collect();
            Failure::usage(format!("there is no cluster {name} in lab {}", self.name))
                .next(format!("use one of: {}", known.join(", ")))
        })
    }

    /// A node by name, with its cluster.
    pub(crate) fn node(&self, name: &str) -> Outcome<(&Cluster, &Node)> {
        self.nodes().find(|(_, n)| n.name == name).ok_or_else(|| {
            let known: Vec<_> = self.nodes().map(|(_, n)| n.name.as_str()).collect();
            Failure::usage(format!("there is no node {name} in lab {}", self.name))
                .next(format!("use one of: {}", known.join(", ")))
        })
    }

    /// All nodes with their clusters.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (&Cluster, &Node)> {
        self.clusters
            .iter()
            .flat_map(|c| c.nodes.iter().map(move |n| (c, n)))
    }

    /// The names of all places, without the lab's prefix: the router, the client, control planes, nodes, pods.
    pub(crate) fn places(&self) -> Vec<String> {
        let mut places = vec!["tor".to_owned(), "client".to_owned()];
        places.extend(self.clusters.iter().map(|c| c.control.name.clone()));
        for (_, node) in self.nodes() {
            places.push(node.name.clone());
            places.extend(node.pods.iter().map(|p| p.name.clone()));
        }
        places
    }

    /// The network namespace of a place.
    pub(crate) fn netns(&self, place: &str) -> String {
        format!("{}-{place}", self.name)
    }

    /// The node that a place belongs to: itself, or the node of a pod; none for the router, the client, control planes.
    pub(crate) fn node_of(&self, place: &str) -> Option<&str> {
        self.nodes()
            .find(|(_, n)| n.name == place || n.pods.iter().any(|p| p.name == place))
            .map(|(_, n)| n.name.as_str())
    }
}

/// Names are file names, cgroup names and prefixes of namespaces; sockets under them must fit 108 bytes.
fn check_name(name: &str) -> Outcome {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let starts = name.starts_with(|c: char| c.is_ascii_lowercase());
    if starts && name.len() <= 20 && name.chars().all(good) {
        return Ok(());
    }
    Err(Failure::usage(format!("{name:?} is no name for a lab"))
        .next("use up to 20 small letters, digits and dashes, with a letter first, e.g. --name demo"))
}

fn cluster(name: &str, id: u8, nodes: u8) -> Cluster {
    let c = u16::from(id);
    let control = format!("{name}-cp");
    Cluster {
        name: name.into(),
        id,
        asn: TOR_AS + u32::from(id),
        pod_cidrs: [
            IpNet::V4(v4(Ipv4Addr::new(10, id, 0, 0), 16)),
            IpNet::V6(v6(Ipv6Addr::new(0xfd00, 0x10, c, 0, 0, 0, 0, 0), 48)),
        ],
        echo_ips: [
            Ipv4Addr::new(10, 100 + id, 0, 10).into(),
            Ipv6Addr::new(0xfd00, 0x5, c, 0, 0, 0, 0, 0x10).into(),
        ],
        control: ControlPlane {
            uplink: uplink(&control, id, 0),
            name: control,
        },
        nodes: (1..=nodes).map(|n| node(name, id, n)).collect(),
    }
}

fn node(cluster: &str, c: u8, n: u8) -> Node {
    let name = format!("{cluster}-{n}");
    let ip = |host: u8| -> [IpAddr; 2] {
        [
            Ipv4Addr::new(10, c, n, host).into(),
            Ipv6Addr::new(0xfd00, 0x10, c.into(), n.into(), 0, 0, 0, host.into()).into(),
        ]
    };
    let pod = |app: &'static str, host: u8| Pod {
        name: format!("{app}-{name}"),
        app,
        node: name.clone(),
        ips: ip(host),
    };
    let [base4, base6] = ip(0);
    Node {
        uplink: uplink(&name, c, n),
        pod_cidrs: [net(base4, 24), net(base6, 64)],
        gateways: ip(1),
        pods: vec![pod(ECHO, 10), pod("box", 11)],
        name,
    }
}

fn uplink(name: &str, c: u8, n: u8) -> Uplink {
    let base4 = v4(Ipv4Addr::new(172, 30, c, 4 * n), 30);
    let base6 = v6(Ipv6Addr::new(0xfd00, 0x30, c.into(), n.into(), 0, 0, 0, 0), 64);
    Uplink::new(name, base4, base6)
}

fn v4(ip: Ipv4Addr, len: u8) -> Ipv4Net {
    Ipv4Net::new_assert(ip, len)
}

fn v6(ip: Ipv6Addr, len: u8) -> Ipv6Net {
    Ipv6Net::new_assert(ip, len)
}

fn net(ip: IpAddr, len: u8) -> IpNet {
    IpNet::new_assert(ip, len)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_plan_is_what_the_drawing_says() -> Result<(), Failure> {
        let plan = Plan::new("demo")?;
        let (west, node) = plan.node("west-2")?;
        assert_eq!((west.id, west.asn), (2, 65_002));
        assert_eq!(
            node.uplink.tor.map(|n| n.to_string()),
            ["172.30.2.9/30", "fd00:30:2:2::1/64"]
        );
        assert_eq!(
            node.uplink.own.map(|n| n.to_string()),
            ["172.30.2.10/30", "fd00:30:2:2::2/64"]
        );
        assert_eq!(node.pods[0].name, "echo-west-2");
        assert_eq!(
            node.pods[0].ips.map(|i| i.to_string()),
            ["10.2.2.10", "fd00:10:2:2::a"]
        );
        assert_eq!(
            west.echo_ips.map(|i| i.to_string()),
            ["10.102.0.10", "fd00:5:2::10"]
        );
        assert_eq!(plan.node_of("box-east-1"), Some("east-1"));
        assert_eq!(plan.node_of("tor"), None);
        Ok(())
    }

    #[test]
    fn no_address_and_no_name_is_given_twice() -> Result<(), Failure> {
        let plan = Plan::new("demo")?;
        let places = plan.places();
        assert_eq!(places.iter().collect::<BTreeSet<_>>().len(), places.len());
        let mut seen = BTreeSet::new();
        for cluster in &plan.clusters {
            for (_, uplink) in cluster.uplinks() {
                assert!(
                    uplink
                        .tor
                        .iter()
                        .chain(&uplink.own)
                        .all(|n| seen.insert(n.addr()))
                );
                assert!(uplink.tor_link.len() < 16, "interface names have 15 bytes");
            }
            for pod in cluster.nodes.iter().flat_map(|n| &n.pods) {
                assert!(pod.ips.iter().all(|ip| seen.insert(*ip)));
            }
        }
        Ok(())
    }

    #[test]
    fn a_name_that_is_no_file_name_is_refused() {
        for name in ["", "../x", "Demo", "1st", "a b", "a-name-that-is-far-too-long"] {
            let failure = Plan::new(name).expect_err(name);
            assert!(failure.to_string().contains("is no name for a lab"), "{failure}");
        }
    }
}
