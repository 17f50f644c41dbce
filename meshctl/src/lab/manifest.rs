//! What a cluster's objects look like: ordinary Kubernetes manifests. The lab plays the controllers that write them.
use std::fs;
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use super::plan::{Cluster, ECHO, ECHO_PORT, NAMESPACE, Node, Pod, SERVICE_PORT, VIP, VIP6};
use crate::failure::{Doing, Outcome};

/// Which clusters a service prefers, as its annotation says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Affinity {
    /// No preference.
    None,
    /// The cluster of the client.
    Local,
}

impl Affinity {
    fn annotation(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Local => "local",
        }
    }
}

/// Writes all objects of a cluster.
pub(crate) fn write_cluster(dir: &Path, cluster: &Cluster) -> Outcome {
    fs::create_dir_all(dir).doing(format!("make {}", dir.display()))?;
    write(dir, "namespace", &namespace())?;
    write_service(dir, cluster, Affinity::None)?;
    write_endpoints(dir, cluster, |_| true)?;
    for node in &cluster.nodes {
        write(dir, &format!("node-{}", node.name), &node_object(node))?;
        write(dir, &format!("ciliumnode-{}", node.name), &cilium_node(node))?;
        for pod in &node.pods {
            write(dir, &format!("pod-{}", pod.name), &pod_object(node, pod))?;
        }
    }
    Ok(())
}

/// Writes the service `echo`.
pub(crate) fn write_service(dir: &Path, cluster: &Cluster, affinity: Affinity) -> Outcome {
    write(dir, "service-echo", &service(cluster, affinity))
}

/// Writes the endpoints of `echo`, as the endpoint slice controller does when the kubelets report.
pub(crate) fn write_endpoints(dir: &Path, cluster: &Cluster, ready: impl Fn(&Pod) -> bool) -> Outcome {
    for v6 in [false, true] {
        let (slice, name) = endpoints(cluster, v6, &ready);
        write(dir, &name, &slice)?;
    }
    Ok(())
}

/// Puts a file in place as a whole: whoever reads it sees the old one or the new one.
fn write(dir: &Path, name: &str, object: &Value) -> Outcome {
    let path = dir.join(format!("{name}.yaml"));
    let doing = || format!("write {}", path.display());
    let text = serde_saphyr::to_string(object).doing(doing())?;
    let next = dir.join(format!(".{name}.next"));
    let mut file = fs::File::create(&next).doing(doing())?;
    file.write_all(text.as_bytes()).doing(doing())?;
    fs::rename(&next, &path).doing(doing())
}

fn namespace() -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
}

fn node_object(node: &Node) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": node.name, "labels": {"kubernetes.io/hostname": node.name}},
        "spec": {"podCIDR": node.pod_cidrs[0], "podCIDRs": node.pod_cidrs},
        "status": {"addresses": [
            {"type": "InternalIP", "address": node.uplink.own[0].addr()},
            {"type": "InternalIP", "address": node.uplink.own[1].addr()},
            {"type": "Hostname", "address": node.name},
        ]},
    })
}

fn cilium_node(node: &Node) -> Value {
    let address = |kind: &str, ip: std::net::IpAddr| json!({"type": kind, "ip": ip});
    json!({
        "apiVersion": "cilium.io/v2", "kind": "CiliumNode",
        "metadata": {"name": node.name, "labels": {"kubernetes.io/hostname": node.name}},
        "spec": {
            "addresses": [
                address("InternalIP", node.uplink.own[0].addr()),
                address("InternalIP", node.uplink.own[1].addr()),
                address("CiliumInternalIP", node.gateways[0]),
                address("CiliumInternalIP", node.gateways[1]),
            ],
            "ipam": {"podCIDRs": node.pod_cidrs},
        },
    })
}

fn pod_object(node: &Node, pod: &Pod) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": pod.name, "namespace": NAMESPACE, "labels": {"app": pod.app}},
        "spec": {
            "nodeName": node.name, "serviceAccountName": "default",
            "containers": [{"name": pod.app, "image": "isthmus/echo"}],
        },
        "status": {
            "phase": "Running", "hostIP": node.uplink.own[0].addr(),
            "podIP": pod.ips[0], "podIPs": [{"ip": pod.ips[0]}, {"ip": pod.ips[1]}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    })
}

fn service(cluster: &Cluster, affinity: Affinity) -> Value {
    let port = |name: &str, protocol: &str| json!({"name": name, "protocol": protocol, "port": SERVICE_PORT, "targetPort": ECHO_PORT});
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": ECHO, "namespace": NAMESPACE, "labels": {"app": ECHO},
            "annotations": {
                "service.cilium.io/global": "true",
                "service.cilium.io/affinity": affinity.annotation(),
            },
        },
        "spec": {
            "type": "LoadBalancer",
            "selector": {"app": ECHO},
            "clusterIP": cluster.echo_ips[0], "clusterIPs": cluster.echo_ips,
            "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack",
            "ports": [port("tcp", "TCP"), port("udp", "UDP")],
        },
        "status": {"loadBalancer": {"ingress": [{"ip": VIP}, {"ip": VIP6}]}},
    })
}

fn endpoints(cluster: &Cluster, v6: bool, ready: impl Fn(&Pod) -> bool) -> (Value, String) {
    let family = if v6 { "IPv6" } else { "IPv4" };
    let name = format!("{ECHO}-{}", family.to_ascii_lowercase());
    let endpoint = |pod: &Pod| {
        let ready = ready(pod);
        json!({
            "addresses": [pod.ips[usize::from(v6)]],
            "conditions": {"ready": ready, "serving": ready, "terminating": false},
            "nodeName": pod.node,
            "targetRef": {"kind": "Pod", "namespace": NAMESPACE, "name": pod.name},
        })
    };
    let port = |name: &str, protocol: &str| json!({"name": name, "protocol": protocol, "port": ECHO_PORT});
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": name, "namespace": NAMESPACE,
            "labels": {
                "kubernetes.io/service-name": ECHO,
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            },
        },
        "addressType": family,
        "endpoints": cluster.pods(ECHO).map(endpoint).collect::<Vec<_>>(),
        "ports": [port("tcp", "TCP"), port("udp", "UDP")],
    });
    (slice, format!("endpointslice-{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::plan::Plan;

    #[test]
    fn a_cluster_is_written_as_kubernetes_has_it() -> Result<(), Box<dyn std::error::Error>> {
        let plan = Plan::new("demo")?;
        let east = plan.cluster("east")?;
        let dir = tempfile::tempdir()?;
        write_cluster(dir.path(), east)?;
        let read = |name: &str| -> Result<Value, Box<dyn std::error::Error>> {
            let text = fs::read_to_string(dir.path().join(name))?;
            Ok(serde_saphyr::from_str(&text)?)
        };
        let service = read("service-echo.yaml")?;
        assert_eq!(
            service["metadata"]["annotations"]["service.cilium.io/global"],
            "true"
        );
        assert_eq!(
            service["spec"]["clusterIPs"],
            json!(["10.101.0.10", "fd00:5:1::10"])
        );
        let slice = read("endpointslice-echo-ipv6.yaml")?;
        assert_eq!(slice["endpoints"][1]["addresses"], json!(["fd00:10:1:2::a"]));

        // The kubelet of east-1 reports its pod as not ready.
        write_endpoints(dir.path(), east, |pod| pod.node != "east-1")?;
        let slice = read("endpointslice-echo-ipv4.yaml")?;
        let ready = |i: usize| slice["endpoints"][i]["conditions"]["ready"].clone();
        assert_eq!((ready(0), ready(1)), (json!(false), json!(true)));
        // Nothing half-written is left behind.
        let hidden = fs::read_dir(dir.path())?
            .flatten()
            .filter(|e| e.file_name().as_encoded_bytes()[0] == b'.');
        assert_eq!(hidden.count(), 0);
        Ok(())
    }
}
