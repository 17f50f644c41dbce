//! The cluster of the node: one node with pods of both families, one service of both families.
use std::path::{Path, PathBuf};

/// A directory of manifests.
#[derive(Debug)]
pub(crate) struct Cluster(PathBuf);

const NODES: &str = "\
apiVersion: cilium.io/v2
kind: CiliumNode
metadata: {name: node-1}
spec:
  addresses: [{type: InternalIP, ip: 10.0.0.1}, {type: InternalIP, ip: \"fd00::1\"}]
  ipam: {podCIDRs: [10.1.1.0/24, \"fd00:10:1::/64\"]}
---
apiVersion: v1
kind: Namespace
metadata: {name: demo}
";

const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata: {name: web, namespace: demo}
spec:
  type: LoadBalancer
  clusterIP: 10.96.0.10
  ports: [{name: http, port: 80, targetPort: 8080, protocol: TCP}]
status:
  loadBalancer: {ingress: [{ip: 203.0.113.10}, {ip: \"2001:db8:113::10\"}]}
";

impl Cluster {
    /// The pod CIDRs of the node.
    pub(crate) const PODS: [&str; 2] = ["10.1.1.0/24", "fd00:10:1::/64"];
    /// The LoadBalancer addresses of the service.
    pub(crate) const VIPS: [&str; 2] = ["203.0.113.10/32", "2001:db8:113::10/128"];

    /// One pod, in both families.
    pub(crate) const BACKENDS: [&str; 2] = ["10.1.1.7", "fd00:10:1::7"];

    /// Writes the manifests, with one live backend.
    pub(crate) fn new(directory: &Path) -> Self {
        let new = Self(directory.to_owned());
        std::fs::create_dir_all(directory).expect("a writable directory");
        new.write("nodes.yaml", NODES);
        new.write("web.yaml", SERVICE);
        new.set_backends(&Self::BACKENDS);
        new
    }

    /// Lets backends of other clusters take part in the service.
    pub(crate) fn make_global(&self) {
        let annotated =
            "metadata: {name: web, namespace: demo, annotations: {service.cilium.io/global: \"true\"}}";
        let global = SERVICE.replacen("metadata: {name: web, namespace: demo}", annotated, 1);
        self.write("web.yaml", &global);
    }

    /// Replaces the backends of the service, of both families; all run on this node.
    pub(crate) fn set_backends(&self, backends: &[&str]) {
        let (v6, v4): (Vec<&str>, Vec<&str>) = backends.iter().partition(|ip| ip.contains(':'));
        self.write(
            "web-endpoints.yaml",
            &(slice("IPv4", &v4) + "---\n" + &slice("IPv6", &v6)),
        );
    }

    /// Writes a file in one step, as every careful writer does.
    fn write(&self, name: &str, text: &str) {
        let fresh = self.0.join(format!(".{name}.new"));
        std::fs::write(&fresh, text).expect("a writable directory");
        std::fs::rename(fresh, self.0.join(name)).expect("renamed");
    }
}

fn slice(family: &str, backends: &[&str]) -> String {
    let conditions = "{ready: true, serving: true, terminating: false}";
    let endpoint =
        |ip: &&str| format!("- {{addresses: [\"{ip}\"], conditions: {conditions}, nodeName: node-1}}\n");
    let endpoints: String = match backends.is_empty() {
        true => "endpoints: []\n".to_owned(),
        false => "endpoints:\n".to_owned() + &backends.iter().map(endpoint).collect::<String>(),
    };
    let name = format!("web-{}", family.to_lowercase());
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: {name}, namespace: demo, labels: {{kubernetes.io/service-name: web}}}}\n\
         addressType: {family}\nports: [{{name: http, port: 8080, protocol: TCP}}]\n{endpoints}"
    )
}
