//! A cluster without Cilium, from plain manifests: what the mesh makes of nodes, pods, services.
mod rig;

use isthmus_sources::{Snapshot, Source};
use isthmus_topology::{BackendState, NodeAddressKind, ServiceAffinity};
use rig::Rig;

const CLUSTER: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: demo, labels: {team: blue}}
---
apiVersion: v1
kind: Namespace
metadata: {name: private, annotations: {clustermesh.cilium.io/global: "No"}}
---
apiVersion: v1
kind: Node
metadata:
  name: east-1
  annotations: {isthmus.io/overlay-ip: "10.1.0.1, fd00:1::1", io.cilium.network.wg-pub-key: "a2V5"}
spec: {podCIDR: 10.1.0.0/24}
status:
  addresses: [{type: InternalIP, address: 192.0.2.1}, {type: Hostname, address: east-1}]
  nodeInfo: {bootID: boot}
---
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Pod
  metadata: {name: web-1, namespace: demo, labels: {app: web, pod-template-hash: x, app.kubernetes.io/name: w}}
  spec: {nodeName: east-1, serviceAccountName: sa, containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]}
  status: {phase: Running, podIPs: [{ip: 10.1.0.21}, {ip: "fd00:1::21"}], hostIP: 192.0.2.1}
- apiVersion: v1
  kind: Pod
  metadata: {name: web-2, namespace: demo, labels: {app: web, pod-template-hash: z, app.kubernetes.io/name: w}}
  spec: {nodeName: east-1, serviceAccountName: sa}
  status: {podIP: 10.1.0.22}
- apiVersion: v1
  kind: Pod
  metadata: {name: done, namespace: demo}
  status: {phase: Succeeded, podIP: 10.1.0.23}
- apiVersion: v1
  kind: Pod
  metadata: {name: on-host, namespace: demo}
  spec: {hostNetwork: true}
  status: {phase: Running, podIP: 192.0.2.1}
---
apiVersion: v1
kind: Service
metadata:
  name: web
  namespace: demo
  annotations: {io.cilium/global-service: "True", service.cilium.io/affinity: local}
spec: {clusterIP: 10.96.0.1, ports: [{name: http, port: 80}]}
status: {loadBalancer: {ingress: [{ip: 203.0.113.1}]}}
---
apiVersion: v1
kind: Service
metadata: {name: hidden, namespace: private, annotations: {service.cilium.io/global: "true"}}
spec: {clusterIP: None, ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-a, namespace: demo, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints:
- {addresses: [10.1.0.21], conditions: {}, nodeName: east-1}
- {addresses: [10.1.0.22], conditions: {ready: false, serving: true, terminating: true}}
- {addresses: [10.1.0.23], conditions: {ready: false, serving: false, terminating: true}}
- {addresses: [10.1.0.24], conditions: {ready: false}}
ports: [{name: http, port: 8080}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-b, namespace: demo, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{addresses: [10.1.0.21]}]
ports: [{name: dns, port: 53, protocol: UDP}]
---
# What Cilium's operator mirrors of another cluster: its endpoints come through the mesh already.
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: web-west
  namespace: demo
  labels:
    kubernetes.io/service-name: web
    endpointslice.kubernetes.io/managed-by: endpointslice-mesh-controller.cilium.io
addressType: IPv4
endpoints: [{addresses: [10.2.0.21]}]
ports: [{name: http, port: 8080}]
"#;

#[tokio::test]
async fn nodes_pods_and_identities() {
    let rig = Rig::with(&[("cluster.yaml", CLUSTER)]).await;
    let snapshot = rig.source.snapshot();
    assert!(snapshot.problems.is_empty(), "{:?}", snapshot.problems);

    let node = snapshot.nodes.values().next().expect("a node");
    let address = |kind, v6| node.address(kind, v6).map(|ip| ip.to_string());
    assert_eq!(
        address(NodeAddressKind::InternalIP, false).as_deref(),
        Some("192.0.2.1")
    );
    assert_eq!(
        address(NodeAddressKind::CiliumInternalIP, true).as_deref(),
        Some("fd00:1::1")
    );
    assert_eq!(
        (node.wireguard_pub_key.as_str(), node.boot_id.as_str()),
        ("a2V5", "boot")
    );
    assert_eq!(node.hostnames[0].1, "east-1");

    // Both pods have one identity; the finished one and the one on its node's network have no address of their own.
    let rows: Vec<_> = snapshot
        .ips
        .values()
        .map(|r| (r.prefix.addr().to_string(), r.pod.as_str()))
        .collect();
    assert_eq!(
        rows,
        [
            ("10.1.0.21".to_owned(), "web-1"),
            ("10.1.0.22".into(), "web-2"),
            ("fd00:1::21".into(), "web-1")
        ]
    );
    assert_eq!(snapshot.identities.len(), 1);
    let (identity, labels) = snapshot.identities.iter().next().expect("an identity");
    assert_eq!(
        labels.to_string(),
        "k8s:app=web;k8s:app.kubernetes.io/name=w;\
         k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=demo;\
         k8s:io.cilium.k8s.namespace.labels.team=blue;k8s:io.cilium.k8s.policy.cluster=east;\
         k8s:io.cilium.k8s.policy.serviceaccount=sa;k8s:io.kubernetes.pod.namespace=demo;"
    );
    for row in snapshot.ips.values() {
        assert_eq!(row.identity, *identity);
        assert_eq!(
            row.host_ip.map(|ip| ip.to_string()).as_deref(),
            Some("192.0.2.1"),
            "from status or from the node"
        );
        assert_eq!(row.key, 255, "the node has a WireGuard key");
    }
    assert_eq!(
        snapshot.ips.values().next().expect("a row").named_ports[0].port,
        8080
    );
}

#[tokio::test]
async fn services_and_their_endpoints() {
    let rig = Rig::with(&[("cluster.yaml", CLUSTER)]).await;
    let snapshot = rig.source.snapshot();
    let service = |name: &str| {
        snapshot
            .services
            .values()
            .find(|s| s.name.name == name)
            .expect("it")
            .clone()
    };
    let web = service("web");
    assert_eq!(
        (web.global, web.shared, web.affinity),
        (true, true, ServiceAffinity::Local)
    );
    assert_eq!(web.load_balancer_ips[0].to_string(), "203.0.113.1");
    let states: Vec<_> = web.backends.iter().map(|b| b.state).collect();
    use BackendState::{Active, NotReady, Terminating};
    assert_eq!(states, [Active, Terminating, NotReady, NotReady]);
    let ports: Vec<_> = web.backends[0]
        .ports
        .iter()
        .map(|(name, p)| format!("{name} {} {}", p.protocol, p.port))
        .collect();
    assert_eq!(ports, ["dns UDP 53", "http TCP 8080"], "the ports of both slices");
    let hidden = service("hidden");
    assert!(
        hidden.headless && !hidden.global,
        "its namespace does not take part"
    );
}

/// The identity of labels is the same after a restart and in every daemon; a remembered one wins over the hash.
#[tokio::test]
async fn identities_are_stable() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("c.yaml"), CLUSTER).expect("written");
    let state = tempfile::tempdir().expect("a directory");
    let remembering = || isthmus_sources::Settings {
        state_dir: Some(state.path().to_owned()),
        ..rig::settings()
    };
    let first = |s: Snapshot| *s.identities.keys().next().expect("an identity");
    let open = |settings| async {
        Source::directory(directory.path(), settings)
            .await
            .expect("a source")
            .snapshot()
    };
    let hashed = first(open(rig::settings()).await);
    assert_eq!(first(open(rig::settings()).await), hashed);
    assert_eq!(first(open(remembering()).await), hashed);
    let file = state.path().join("identities");
    let text = std::fs::read_to_string(&file).expect("remembered");
    std::fs::write(&file, text.replace(&hashed.to_string(), "70000")).expect("written");
    assert_eq!(first(open(remembering()).await).0, 70_000);
    std::fs::write(&file, "{").expect("written");
    let damaged = open(remembering()).await;
    assert!(
        damaged.problems.iter().any(|p| p.reason.contains("damaged")),
        "{:?}",
        damaged.problems
    );
    assert_eq!(first(damaged), hashed);
}

/// Dumps of a real API server, `managedFields` and all, are manifests too.
#[tokio::test]
async fn lists_as_a_real_api_server_serves_them() {
    let recordings = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/replay/kube-1.36");
    let mut settings = rig::settings();
    settings.cluster = isthmus_topology::ClusterName::new("clustera").expect("valid");
    let source = Source::directory(std::path::Path::new(recordings), settings)
        .await
        .expect("a source");
    let snapshot = source.snapshot();
    assert!(snapshot.problems.is_empty(), "{:#?}", snapshot.problems);
    let counts = [
        snapshot.nodes.len(),
        snapshot.ips.len(),
        snapshot.services.len(),
        snapshot.slices.len(),
    ];
    assert_eq!(counts, [2, 3, 5, 3], "{:#?}", snapshot.ips);
    assert_eq!(
        snapshot.service_exports.values().next().expect("one").created,
        "2026-11-20T12:19:42Z"
    );
}

/// What people write in pods and nodes beyond what the mesh needs of them is known and accepted, alone and in a List.
#[tokio::test]
async fn manifests_with_everything_in_them() {
    let rich = r#"apiVersion: v1
kind: Pod
metadata:
  name: web
  namespace: demo
  creationTimestamp: "2026-01-02T03:04:05Z"
  annotations: {prometheus.io/port: "9090"}
  ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web, uid: u, controller: true}]
spec:
  terminationGracePeriodSeconds: 30
  containers:
  - name: c
    image: nginx
    command: [sh, -c, "sleep 1"]
    env: [{name: A, value: "1"}, {name: B, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]
    resources: {limits: {cpu: 2, memory: 1Gi}, requests: {cpu: 100m, memory: "128974848"}}
    livenessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 5}
    readinessProbe: {tcpSocket: {port: http}}
    ports: [{containerPort: 8080, name: http, hostPort: 80}]
    volumeMounts: [{name: data, mountPath: /data, readOnly: yes}]
    securityContext: {runAsUser: 1000, capabilities: {drop: [ALL]}}
  volumes:
  - {name: data, emptyDir: {sizeLimit: 1Gi}}
  - name: projected
    projected: {sources: [{serviceAccountToken: {path: token}}], defaultMode: 0644}
  tolerations: [{operator: Exists}]
  affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: kubernetes.io/hostname}]}}
  nodeName: east-1
status:
  phase: Running
  conditions: [{type: Ready, status: "True", lastTransitionTime: "2026-01-02T03:04:05Z", lastProbeTime: null}]
  podIP: 10.1.0.5
  hostIPs: [{ip: 192.0.2.1}]
  containerStatuses:
  - {name: c, ready: true, restartCount: 0, image: nginx, imageID: x, state: {running: {startedAt: "2026-01-02T03:04:05Z"}}}
"#;
    let node = r#"apiVersion: v1
kind: Node
metadata: {name: east-1}
spec: {podCIDR: 10.1.0.0/24, taints: [{key: a, effect: NoSchedule}], providerID: kind://x, unschedulable: false}
status:
  addresses: [{address: 192.0.2.1, type: InternalIP}]
  allocatable: {cpu: 4, memory: 8Gi, pods: 110}
  capacity: {cpu: "4", memory: 8Gi, pods: "110"}
  nodeInfo: {architecture: amd64, kernelVersion: "6.1", osImage: d, systemUUID: u, machineID: m, bootID: b,
    containerRuntimeVersion: c, kubeletVersion: v, kubeProxyVersion: "", operatingSystem: linux}
  images: [{names: [a], sizeBytes: 1}]
"#;
    let indented: String = rich.lines().map(|line| format!("  {line}\n")).collect();
    let list = format!("apiVersion: v1\nkind: List\nitems:\n-{}", &indented[1..])
        .replace("name: web\n", "name: web2\n");
    let list = list.replace("10.1.0.5", "10.1.0.6");
    let rig = Rig::with(&[("pod.yaml", rich), ("node.yaml", node), ("list.yaml", &list)]).await;
    assert_eq!(rig.problems(), Vec::<String>::new());
    assert_eq!(rig.source.snapshot().ips.len(), 2);
}
