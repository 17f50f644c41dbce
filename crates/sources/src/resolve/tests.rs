//! The resolver against itself: whatever happened before, its tables are those that a new one makes of the same objects.
//! (What history may decide, who keeps an address that two claim, has its stories in `tests/`.)
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use isthmus_topology::{ClusterId, ClusterName, MaxClusters};
use jiff::Timestamp;
use proptest::prelude::*;

use super::Resolver;
use crate::Settings;
use crate::objects::Origin;
use crate::parse::parse_file;

fn settings() -> Settings {
    Settings {
        cluster: ClusterName::new("east").expect("valid"),
        id: ClusterId::new(1, MaxClusters::C255).expect("valid"),
        max: MaxClusters::C255,
        default_global_namespace: true,
        state_dir: None,
    }
}

/// What one file of the little cluster may say: object `n` of a kind in variant `v`; variant 0 is absent.
fn manifest(kind: usize, n: usize, v: usize) -> String {
    let meta = |labels: &str| format!("metadata: {{name: x{n}, namespace: demo, labels: {{{labels}}}}}");
    if v == 0 {
        return String::new();
    }
    match kind {
        0 => format!(
            "apiVersion: v1\nkind: Pod\n{}\nspec: {{nodeName: x{n}}}\nstatus: {{podIP: 10.1.{n}.{v}}}\n",
            meta(&format!("app: v{v}"))
        ),
        1 => format!(
            "apiVersion: cilium.io/v2\nkind: CiliumEndpoint\n{}\nstatus: {{identity: {{id: 6600{v}}}, networking: {{addressing: \
             [{{ipv4: 10.2.{n}.{v}}}]}}}}\n",
            meta("")
        ),
        2 => format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: x{n}, namespace: demo, annotations: {{service.cilium.io/global: \
             \"true\"}}}}\nspec: {{clusterIP: 10.96.{n}.{v}, ports: [{{port: 80}}]}}\n"
        ),
        3 => format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n{}\naddressType: IPv4\nendpoints: [{{addresses: [10.1.{n}.{v}]}}]\n\
             ports: [{{port: 8080}}]\n",
            meta(&format!("kubernetes.io/service-name: x{}", (n + v) % 3))
        ),
        4 => format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: demo, labels: {{v: v{v}}}, annotations: \
             {{clustermesh.cilium.io/global: \"{}\"}}}}\n",
            v == 1
        ),
        5 => format!(
            "apiVersion: v1\nkind: Node\nmetadata: {{name: x{n}}}\nspec: {{podCIDR: 10.{n}.{v}.0/24}}\nstatus: {{addresses: [{{type: \
             InternalIP, address: 192.0.{n}.{v}}}]}}\n"
        ),
        _ => format!(
            "apiVersion: multicluster.x-k8s.io/v1alpha1\nkind: ServiceExport\nmetadata: {{name: x{n}, namespace: demo}}\nspec: \
             {{exportedLabels: {{v: v{v}}}}}\n"
        ),
    }
}

fn read(resolver: &mut Resolver, file: &str, text: &str) {
    let parsed = parse_file(text, &settings());
    assert_eq!(parsed.faults, [], "{text}");
    let (file, written) = (Arc::from(Path::new(file)), Timestamp::UNIX_EPOCH);
    let origin = Arc::new(Origin { file, written });
    resolver.objects.replace_file(&origin, parsed.objects);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn tables_do_not_depend_on_what_was_before(
        steps in prop::collection::vec((0_usize..7, 0_usize..3, 0_usize..3), 1..40),
    ) {
        let mut running = Resolver::new(settings(), BTreeMap::new());
        let mut files = BTreeMap::new();
        for (kind, n, v) in steps {
            // There is one namespace.
            let n = if kind == 4 { 0 } else { n };
            let file = format!("{kind}-{n}.yaml");
            let text = manifest(kind, n, v);
            read(&mut running, &file, &text);
            files.insert(file, text);
            let now = running.resolve();
            let mut fresh = Resolver::new(settings(), BTreeMap::new());
            files.iter().for_each(|(file, text)| read(&mut fresh, file, text));
            let new = fresh.resolve();
            prop_assert_eq!(&now.nodes, &new.nodes);
            prop_assert_eq!(&now.namespaces, &new.namespaces);
            prop_assert_eq!(&now.ips, &new.ips);
            prop_assert_eq!(&now.identities, &new.identities);
            prop_assert_eq!(&now.services, &new.services);
            prop_assert_eq!(&now.slices, &new.slices);
            prop_assert_eq!(&now.service_exports, &new.service_exports);
            prop_assert_eq!(running.conflicts(), fresh.conflicts());
            let again = running.resolve();
            prop_assert!(Arc::ptr_eq(&now.ips, &again.ips) && Arc::ptr_eq(&now.services, &again.services));
        }
    }
}
