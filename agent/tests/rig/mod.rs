//! Two nodes of two clusters in namespaces of their own, each with one pod, joined by one wire:
//!
//! ```text
//!  east pod 10.1.1.10 ── east node 172.30.0.1 ══ under, MTU 1500 ══ west node 172.30.0.2 ── west pod 10.2.1.10
//!           fd00:10:1::a      │ agent            (can be cut)             │ agent            fd00:10:2::a
//!                             │ store of east                             │ store of west
//! ```
//! Every agent is the real binary, every store is our own etcd API over mutual TLS, with keys as an apiserver writes them.
#![allow(dead_code, reason = "each test file uses its part")]

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use isthmus_admin::AdminClient;
use isthmus_admin::agent::AgentStatus;
use isthmus_datapath::Datapath;
use isthmus_netlink::{Netlink, Netns, NextHop, Route, Veth, sysctl};
use isthmus_store::mvcc::Retention;
use isthmus_store::{AccessPolicy, AuthMode, ServeOptions, Server, StoreHandle};
use isthmus_testkit::{Need, Process, needs, wait_for_async};
use isthmus_trust::{
    Authority, ClientName, LeafRequest, PairFiles, ServerNames, ServerTls, TlsFiles, Validity,
};
use serde_json::{Value, json};

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// For whatever should happen soon.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// The identity of the pod of cluster `id`.
pub(crate) const fn identity(id: u32) -> u32 {
    (id << 16) + 4242
}

/// One node with its cluster.
pub(crate) struct Side {
    pub(crate) name: &'static str,
    pub(crate) id: u32,
    pub(crate) node: Netns,
    pub(crate) pod: Netns,
    pub(crate) net: Netlink,
    pub(crate) store: StoreHandle,
    pub(crate) admin: AdminClient,
    dir: PathBuf,
    cgroup: PathBuf,
}

/// Both sides.
pub(crate) struct Rig {
    pub(crate) east: Side,
    pub(crate) west: Side,
    _dir: tempfile::TempDir,
}

pub(crate) fn possible(test: &str) -> bool {
    needs(
        test,
        &[
            Need::Root,
            Need::Path {
                path: "/sys/fs/cgroup".into(),
                what: "mount cgroup2",
            },
        ],
    )
}

fn cgroup_root() -> PathBuf {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let found = mounts
        .lines()
        .map(|l| l.split(' ').collect::<Vec<_>>())
        .find(|f| f.get(2) == Some(&"cgroup2"));
    found
        .and_then(|f| f.get(1).map(PathBuf::from))
        .unwrap_or_else(|| "/sys/fs/cgroup".into())
}

impl Rig {
    pub(crate) fn new(story: &str) -> Outcome<Self> {
        let dir = tempfile::tempdir()?;
        let certificates = certificates(&dir.path().join("pki"))?;
        let east = Side::new(story, "east", 1, dir.path())?;
        let west = Side::new(story, "west", 2, dir.path())?;
        east.net
            .add_veth(&Veth::new("under", "under").peer_in(&west.node).mtu(1500))?;
        for side in [&east, &west] {
            side.net
                .add_address("under", net(&format!("172.30.0.{}/24", side.id)))?;
            side.net.set_up("under")?;
            side.serve(&certificates)?;
        }
        Ok(Self {
            east,
            west,
            _dir: dir,
        })
    }

    /// Tells each side where the other's store is.
    pub(crate) fn mesh(&self) -> Outcome {
        self.east.join(&self.west)?;
        self.west.join(&self.east)
    }

    /// No packet crosses the wire any more.
    pub(crate) fn cut(&self) -> Outcome {
        Ok(self.west.net.set_down("under")?)
    }

    pub(crate) fn heal(&self) -> Outcome {
        Ok(self.west.net.set_up("under")?)
    }
}

pub(crate) fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

struct Certificates(PathBuf);

fn certificates(dir: &Path) -> Outcome<Certificates> {
    fs::create_dir_all(dir)?;
    let now = jiff::Timestamp::now();
    let (ca, _) = Authority::ensure("test CA", &dir.join("ca.crt"), &dir.join("ca.key"), now)?;
    let server = LeafRequest::server(&ServerNames::default(), Validity::days(now, 30))?;
    ca.ensure_leaf(
        &server,
        &PairFiles::new(dir.join("server.crt"), dir.join("server.key")),
        now,
    )?;
    let client = LeafRequest::client(&ClientName::Remote, Validity::days(now, 30));
    ca.ensure_leaf(
        &client,
        &PairFiles::new(dir.join("remote.crt"), dir.join("remote.key")),
        now,
    )?;
    Ok(Certificates(dir.to_owned()))
}

impl Side {
    fn new(story: &str, name: &'static str, id: u32, dir: &Path) -> Outcome<Self> {
        let namespace = |what: &str| format!("agent-{}-{story}-{name}-{what}", std::process::id());
        let (node, pod) = (
            Netns::create(&namespace("node"))?,
            Netns::create(&namespace("pod"))?,
        );
        let net_of_node = node.netlink()?;
        let dir = dir.join(name);
        for sub in ["manifests", "clustermesh", "pins"] {
            fs::create_dir_all(dir.join(sub))?;
        }
        let cgroup = cgroup_root().join(namespace("cgroup"));
        fs::create_dir_all(&cgroup)?;
        let side = Self {
            name,
            id,
            admin: AdminClient::new(dir.join("agent.sock")),
            store: StoreHandle::new(AccessPolicy::new(name, AuthMode::Migration), Retention::default()),
            node,
            pod,
            net: net_of_node,
            dir,
            cgroup,
        };
        side.plug_pod()?;
        side.write_manifests(true)?;
        side.export(true)?;
        Ok(side)
    }

    pub(crate) fn pod_ip(&self, v6: bool) -> IpAddr {
        let text = if v6 {
            format!("fd00:10:{}::a", self.id)
        } else {
            format!("10.{}.1.10", self.id)
        };
        text.parse().expect("an address")
    }

    pub(crate) fn gateway(&self, v6: bool) -> IpAddr {
        let text = if v6 {
            format!("fd00:10:{}::1", self.id)
        } else {
            format!("10.{}.1.1", self.id)
        };
        text.parse().expect("an address")
    }

    pub(crate) fn cidr(&self, v6: bool) -> IpNet {
        net(&if v6 {
            format!("fd00:10:{}::/64", self.id)
        } else {
            format!("10.{}.1.0/24", self.id)
        })
    }

    pub(crate) fn underlay(&self) -> IpAddr {
        IpAddr::from([172, 30, 0, u8::try_from(self.id).expect("small")])
    }

    /// The address of the service `default/echo`, the same in both clusters.
    pub(crate) const ECHO: SocketAddr =
        SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(10, 100, 0, 10)), 80);

    /// Its LoadBalancer address.
    pub(crate) const OUTSIDE: SocketAddr =
        SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 10)), 80);

    /// A client behind a router that sends the LoadBalancer address to this node; the router's end is called `outside`.
    pub(crate) fn client(&self) -> Outcome<Client> {
        let netns = Netns::create(&format!("{}-client", self.node.name()))?;
        self.net.add_veth(&Veth::new("outside", "eth0").peer_in(&netns))?;
        let inside = netns.netlink()?;
        self.net.add_address("outside", net("198.51.100.1/24"))?;
        inside.add_address("eth0", net("198.51.100.2/24"))?;
        self.net.set_up("outside")?;
        inside.set_up("eth0")?;
        inside.put_route(&Route::default_v4().via("198.51.100.1".parse()?))?;
        Ok(Client(netns))
    }

    /// What a CNI does: a veth pair, addresses, routes.
    fn plug_pod(&self) -> Outcome {
        self.net
            .add_veth(&Veth::new("lxc0", "eth0").peer_in(&self.pod).mtu(1450))?;
        let inside = self.pod.netlink()?;
        self.net.set_up("lxc0")?;
        self.net.add_address("lxc0", net("fe80::1/64"))?;
        inside.set_up("eth0")?;
        let (out, within) = (self.net.link("lxc0")?.index, inside.link("eth0")?.index);
        for v6 in [false, true] {
            self.net.add_address("lo", self.gateway(v6).into())?;
            inside.add_address("eth0", self.pod_ip(v6).into())?;
            self.net.put_route(&Route::to(self.pod_ip(v6).into()).dev(out))?;
        }
        let gateway = self.gateway(false);
        inside.put_route(&Route::default_v4().next_hop(NextHop::via(gateway).on(within).onlink()))?;
        inside.put_route(&Route::default_v6().next_hop(NextHop::via("fe80::1".parse()?).on(within)))?;
        self.node
            .run(|| sysctl::write("net.ipv4.conf.lxc0.proxy_arp", "1"))??;
        Ok(())
    }

    pub(crate) fn write_manifest(&self, name: &str, object: &Value) -> Outcome {
        let (next, path) = (
            self.dir.join(format!("{name}.next")),
            self.dir.join(format!("manifests/{name}.yaml")),
        );
        fs::File::create(&next)?.write_all(object.to_string().as_bytes())?;
        Ok(fs::rename(next, path)?)
    }

    pub(crate) fn write_manifests(&self, ready: bool) -> Outcome {
        let address = |kind: &str, ip: IpAddr| json!({"type": kind, "ip": ip});
        self.write_manifest(
            "node",
            &json!({"apiVersion": "cilium.io/v2", "kind": "CiliumNode", "metadata": {"name": self.node_name()}, "spec": {
                "addresses": [address("InternalIP", self.underlay()), address("CiliumInternalIP", self.gateway(false)),
                    address("CiliumInternalIP", self.gateway(true))],
                "ipam": {"podCIDRs": [self.cidr(false), self.cidr(true)]}}}),
        )?;
        self.write_manifest(
            "identity",
            &json!({"apiVersion": "cilium.io/v2", "kind": "CiliumIdentity", "metadata": {"name": identity(self.id).to_string()},
                "security-labels": self.labels()}),
        )?;
        let addressing = json!([{"ipv4": self.pod_ip(false), "ipv6": self.pod_ip(true)}]);
        self.write_manifest(
            "endpoint",
            &json!({"apiVersion": "cilium.io/v2", "kind": "CiliumEndpoint", "metadata": {"name": "echo", "namespace": "default"},
                "status": {"id": 1, "identity": {"id": identity(self.id), "labels": []}, "networking": {"addressing": addressing,
                    "node": self.underlay()}, "state": "ready"}}),
        )?;
        self.write_manifest(
            "service",
            &json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "echo", "namespace": "default", "annotations": {
                    "service.cilium.io/global": "true", "service.cilium.io/affinity": "local"}},
                "status": {"loadBalancer": {"ingress": [{"ip": Self::OUTSIDE.ip()}]}},
                "spec": {"type": "LoadBalancer", "clusterIP": Self::ECHO.ip(), "clusterIPs": [Self::ECHO.ip()],
                    "ports": [{"name": "tcp", "protocol": "TCP", "port": 80, "targetPort": 8080}]}}),
        )?;
        self.write_endpoints(ready)
    }

    pub(crate) fn write_endpoints(&self, ready: bool) -> Outcome {
        self.write_manifest(
            "slice",
            &json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "echo-1",
                    "namespace": "default", "labels": {"kubernetes.io/service-name": "echo"}}, "addressType": "IPv4",
                "endpoints": [{"addresses": [self.pod_ip(false)], "conditions": {"ready": ready, "serving": ready,
                    "terminating": false}, "nodeName": self.node_name()}],
                "ports": [{"name": "tcp", "protocol": "TCP", "port": 8080}]}),
        )
    }

    pub(crate) fn node_name(&self) -> String {
        format!("{}-1", self.name)
    }

    fn labels(&self) -> Value {
        json!({"k8s:app": "echo", "k8s:io.kubernetes.pod.namespace": "default",
            "k8s:io.cilium.k8s.policy.cluster": self.name})
    }

    /// Writes what this cluster's apiserver would export.
    pub(crate) fn export(&self, ready: bool) -> Outcome {
        let put = |key: String, value: String| self.store.put(key.as_bytes(), value.as_bytes(), 0).map(drop);
        let (name, node) = (self.name, self.node_name());
        let config =
            json!({"id": self.id, "capabilities": {"syncedCanaries": true, "maxConnectedClusters": 255}});
        put(format!("cilium/cluster-config/{name}"), config.to_string())?;
        put("cilium/.heartbeat".into(), "2026-01-01T00:00:00Z".into())?;
        put(
            format!("cilium/state/nodes/v1/{name}/{node}"),
            self.node_value(&[self.cidr(false)]).to_string(),
        )?;
        let labels: String = [
            "k8s:app=echo;".to_owned(),
            format!("k8s:io.cilium.k8s.policy.cluster={name};"),
            "k8s:io.kubernetes.pod.namespace=default;".to_owned(),
        ]
        .concat();
        put(
            format!("cilium/state/identities/v1/id/{}", identity(self.id)),
            labels,
        )?;
        for v6 in [false, true] {
            let ip = self.pod_ip(v6);
            let value = json!({"IP": ip, "Mask": null, "HostIP": self.underlay(), "ID": identity(self.id), "Key": 0,
                "Metadata": "", "K8sNamespace": "default", "K8sPodName": "echo"});
            put(format!("cilium/state/ip/v1/default/{ip}"), value.to_string())?;
        }
        let backends: &[IpAddr] = if ready { &[self.pod_ip(false)] } else { &[] };
        self.export_service(backends)?;
        for resource in ["nodes", "services", "identities", "ip"] {
            put(
                format!("cilium/synced/{name}/cilium/state/{resource}/v1"),
                "2026-01-01T00:00:00Z".into(),
            )?;
        }
        Ok(())
    }

    fn export_service(&self, backends: &[IpAddr]) -> Outcome {
        let name = self.name;
        let port = |number: u16| json!({"tcp": {"Protocol": "TCP", "Port": number}});
        let backends: serde_json::Map<String, Value> =
            backends.iter().map(|ip| (ip.to_string(), port(8080))).collect();
        let service = json!({"cluster": name, "namespace": "default", "name": "echo",
            "frontends": {Self::ECHO.ip().to_string(): port(80)}, "backends": backends, "labels": {}, "selector": {},
            "includeExternal": true, "shared": true, "clusterID": self.id});
        let key = format!("cilium/state/services/v1/{name}/default/echo");
        self.store
            .put(key.as_bytes(), service.to_string().as_bytes(), 0)?;
        Ok(())
    }

    /// Exports a second node that is not there, with a backend on it.
    pub(crate) fn export_dead_node(&self) -> Outcome {
        let name = format!("{}-2", self.name);
        let mut node = self.node_value(&[net(&format!("10.{}.2.0/24", self.id))]);
        node["Name"] = json!(name);
        node["IPv6AllocCIDR"] = Value::Null;
        node["IPAddresses"] = json!([{"Type": "InternalIP", "IP": "172.30.0.99"},
            {"Type": "CiliumInternalIP", "IP": format!("10.{}.2.1", self.id)}]);
        let key = format!("cilium/state/nodes/v1/{}/{name}", self.name);
        self.store.put(key.as_bytes(), node.to_string().as_bytes(), 0)?;
        let lost = format!("10.{}.2.10", self.id).parse()?;
        self.export_service(&[self.pod_ip(false), lost])
    }

    /// The node as the wire carries it.
    pub(crate) fn node_value(&self, v4: &[IpNet]) -> Value {
        let address = |kind: &str, ip: IpAddr| json!({"Type": kind, "IP": ip});
        json!({"Name": self.node_name(), "Cluster": self.name, "IPAddresses": [address("InternalIP", self.underlay()),
                address("CiliumInternalIP", self.gateway(false)), address("CiliumInternalIP", self.gateway(true))],
            "IPv4AllocCIDR": v4.first(), "IPv6AllocCIDR": self.cidr(true), "IPv4SecondaryAllocCIDRs": v4.get(1..),
            "IPv6SecondaryAllocCIDRs": null, "IPv4HealthIP": "", "IPv6HealthIP": "", "IPv4IngressIP": "",
            "IPv6IngressIP": "", "ClusterID": self.id, "Source": "custom-resource", "EncryptionKey": 0, "Labels": null,
            "Annotations": null, "WireguardPubKey": "", "BootID": ""})
    }

    /// Serves the store inside the node's namespace, as an apiserver would.
    fn serve(&self, pki: &Certificates) -> Outcome {
        let files = TlsFiles {
            pair: PairFiles::new(pki.0.join("server.crt"), pki.0.join("server.key")),
            bundle: pki.0.join("ca.crt"),
        };
        let tls = Arc::new(ServerTls::load(files, jiff::Timestamp::now())?);
        let listen = SocketAddr::new(self.underlay(), 2379);
        let (store, node) = (self.store.clone(), self.node.clone());
        let (told, ready) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            node.run(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                runtime.block_on(async {
                    let server = Server::start(&store, ServeOptions { listen, tls })
                        .await
                        .map_err(|e| e.to_string());
                    let up = server.is_ok();
                    let _ = told.send(server.as_ref().map(drop).map_err(Clone::clone));
                    if up {
                        std::future::pending::<()>().await;
                    }
                });
                std::io::Result::Ok(())
            })
        });
        Ok(ready.recv()??)
    }

    /// Writes the configuration of another cluster.
    pub(crate) fn join(&self, other: &Self) -> Outcome {
        let pki = self.dir.parent().map(|d| d.join("pki")).unwrap_or_default();
        let file = |name: &str| pki.join(name).display().to_string();
        let (name, ip) = (other.name, other.underlay());
        let text = format!(
            "endpoints:\n- https://{name}.mesh.cilium.io:2379\ntrusted-ca-file: {}\ncert-file: {}\nkey-file: {}\n\
             cilium-host-aliases:\n- hostname: {name}.mesh.cilium.io\n  ips: [{ip}]\n",
            file("ca.crt"),
            file("remote.crt"),
            file("remote.key"),
        );
        Ok(fs::write(self.dir.join("clustermesh").join(name), text)?)
    }

    pub(crate) fn manifest_path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("manifests/{name}.yaml"))
    }

    pub(crate) fn config_of(&self, cluster: &str) -> PathBuf {
        self.dir.join("clustermesh").join(cluster)
    }

    pub(crate) fn pins(&self) -> PathBuf {
        self.dir.join("pins")
    }

    /// The agent, as the lab starts it.
    pub(crate) fn agent(&self) -> Outcome<Process> {
        self.agent_with(&[])
    }

    pub(crate) fn agent_with(&self, more: &[&str]) -> Outcome<Process> {
        let path = |name: &str| self.dir.join(name).display().to_string();
        let mut command = self.node.command(env!("CARGO_BIN_EXE_isthmus-agent"));
        command.args([
            "--cluster-name",
            self.name,
            "--cluster-id",
            &self.id.to_string(),
            "--node-name",
            &self.node_name(),
        ]);
        command.args([
            "--manifests",
            &path("manifests"),
            "--clustermesh-config",
            &path("clustermesh"),
        ]);
        command.args([
            "--pin-dir",
            &path("pins"),
            "--cgroup",
            &self.cgroup.display().to_string(),
        ]);
        command.args([
            "--admin-socket",
            &path("agent.sock"),
            "--map-size",
            "small",
            "--uplink",
            "under",
        ]);
        command.args(more).env("ISTHMUS_LOG", "info");
        Ok(Process::start(format!("agent {}", self.name), command)?)
    }

    pub(crate) async fn status(&self) -> Outcome<AgentStatus> {
        Ok(self.admin.read("/v1/status").await?)
    }

    /// Waits until the status is as wanted.
    pub(crate) async fn wait(
        &self,
        what: &str,
        wanted: impl Fn(&AgentStatus) -> bool,
    ) -> Outcome<AgentStatus> {
        let admin = &self.admin;
        let wanted = &wanted;
        let look = || async move {
            let status: Option<AgentStatus> = admin.read("/v1/status").await.ok();
            status.filter(wanted)
        };
        Ok(wait_for_async(SOON, &format!("{}: {what}", self.name), look).await?)
    }

    /// Waits until the other cluster can be used.
    pub(crate) async fn wait_for_mesh(&self) -> Outcome<AgentStatus> {
        self.wait("the other cluster is ready and reachable", |s| {
            s.ready
                && s.clusters
                    .iter()
                    .any(|c| c.control.ready && c.eligible && c.data.state == "alive")
        })
        .await
    }

    /// Runs a command in the pod, with the node's socket load balancing.
    pub(crate) fn in_pod(&self, script: &str) -> Outcome<Output> {
        let procs = self.cgroup.join("cgroup.procs");
        let script = format!("echo $$ > {}; {script}", procs.display());
        let mut command = self.pod.command("bash");
        Ok(command.args(["-c", &script]).output()?)
    }

    /// Connects from the pod and says who answered.
    pub(crate) fn ask(&self, address: SocketAddr) -> Outcome<String> {
        let script = format!(
            "exec 3<>/dev/tcp/{}/{} && timeout 2 cat <&3",
            address.ip(),
            address.port()
        );
        let output = self.in_pod(&script)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if text.is_empty() {
            return Err(format!("nobody answers: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        Ok(text)
    }

    /// Something in the pod that answers every connection with the cluster's name.
    pub(crate) fn answer(&self) -> Outcome {
        let name = self.name;
        let listener = self.pod.run(|| TcpListener::bind("0.0.0.0:8080"))??;
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let _ = stream.write_all(name.as_bytes());
            }
        });
        Ok(())
    }
}

/// Somebody outside of all clusters.
pub(crate) struct Client(Netns);

impl Client {
    /// Connects and says who answered.
    pub(crate) fn ask(&self, address: SocketAddr) -> Outcome<String> {
        let wait = Duration::from_secs(2);
        let mut stream = self.0.run(move || TcpStream::connect_timeout(&address, wait))??;
        stream.set_read_timeout(Some(wait))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = Netns::delete(self.0.name());
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        let pins = self.dir.join("pins");
        let _ = Datapath::remove(&pins);
        let _ = Command::new("umount").arg(&pins).output();
        let _ = fs::remove_dir(&self.cgroup);
        for namespace in [&self.node, &self.pod] {
            let _ = Netns::delete(namespace.name());
        }
    }
}
