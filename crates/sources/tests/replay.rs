//! The recorded cluster, read from manifests and exported: the same keys and values as Cilium's own exporter wrote, and the
//! same puts and deletes after each recorded change.
//!
//! ```text
//! input-clustera.yaml ──▶ directory of files ──▶ Source ──▶ export ══ export-clustera.txt
//!         change of one file ──▶ next snapshot ──▶ difference ══ events-clustera.txt
//! ```
#[path = "../../kvstore/tests/recording/mod.rs"]
mod recording;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use isthmus_kvstore::{ExportInputs, ExportMode, ExportTables, Family, Key, STATE, Table, export, slice};
use isthmus_sources::{Settings, Snapshot, Source};
use isthmus_topology::{ClusterId, ClusterName, MaxClusters};
use serde_json::{Value, json};

fn settings() -> Settings {
    Settings {
        cluster: ClusterName::new("clustera").expect("valid"),
        id: ClusterId::new(1, MaxClusters::C255).expect("valid"),
        max: MaxClusters::C255,
        default_global_namespace: true,
        state_dir: None,
    }
}

/// What the exporter makes of a snapshot; frames are opened, because compressors differ.
fn exported(snapshot: &Snapshot) -> Table {
    let settings = settings();
    let inputs = ExportInputs {
        cluster: &settings.cluster,
        id: settings.id,
        namespaces: &snapshot.namespaces,
        mode: ExportMode::ServicesAndEndpointSlices,
        service_exports_enabled: true,
    };
    let tables = ExportTables {
        nodes: &snapshot.nodes,
        identities: &snapshot.identities,
        ips: &snapshot.ips,
        services: &snapshot.services,
        slices: &snapshot.slices,
        service_exports: &snapshot.service_exports,
    };
    let table = export(&inputs, &tables).into_iter();
    table
        .map(|(key, value)| (key.clone(), opened(&key, value)))
        .collect()
}

fn opened(key: &str, value: Vec<u8>) -> Vec<u8> {
    match Key::parse(key.as_bytes()) {
        Ok(Key::Entry {
            family: Family::EndpointSlices,
            ..
        }) => slice::decompress(&value).expect("a frame"),
        _ => value,
    }
}

/// The recorded input, one file for each object, with what the API server added: ClusterIPs and the time of creation.
struct Manifests {
    directory: PathBuf,
    written: BTreeMap<String, Value>,
}

impl Manifests {
    fn write_all(directory: &Path) -> Self {
        let text = String::from_utf8(recording::file("clustermesh-1.20/input-clustera.yaml")).expect("text");
        let mut manifests = Self {
            directory: directory.to_owned(),
            written: BTreeMap::new(),
        };
        for document in text.split("---\n") {
            let mut object: Value = serde_saphyr::from_str(document).expect("the recorded input is YAML");
            match manifests_name(&object).as_str() {
                "service-web" => object["spec"]["clusterIP"] = json!("10.96.246.25"),
                "service-affinity" => object["spec"]["clusterIP"] = json!("10.96.250.17"),
                "serviceexport-web" => {
                    object["metadata"]["creationTimestamp"] = json!("2026-11-20T10:54:44Z");
                }
                _ => {}
            }
            manifests.write(object);
        }
        manifests
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.yaml"))
    }

    /// As careful programs do: a new file, renamed over the old one.
    fn write(&mut self, object: Value) {
        let name = manifests_name(&object);
        let new = self.directory.join(format!(".{name}.tmp"));
        std::fs::write(&new, serde_json::to_vec_pretty(&object).expect("JSON")).expect("written");
        std::fs::rename(&new, self.path(&name)).expect("renamed");
        self.written.insert(name, object);
    }

    /// Does to the files what the recorded command did to the cluster.
    fn apply(&mut self, command: &str) {
        let words: Vec<&str> = command
            .split(' ')
            .filter(|w| !["./k", "a", "-n", "demo"].contains(w))
            .collect();
        match words.as_slice() {
            ["patch", "endpointslice", name, "--type=json", "-p", patch] => {
                let mut object = self.written[&format!("endpointslice-{name}")].clone();
                let patch: Value = serde_json::from_str(patch).expect("a JSON patch");
                for step in patch.as_array().expect("steps") {
                    let pointer = step["path"].as_str().expect("a path");
                    *object.pointer_mut(pointer).expect("a recorded field") = step["value"].clone();
                }
                self.write(object);
            }
            ["annotate", kind, rest @ ..] => {
                let name = match (*kind, rest) {
                    ("ns", _) => "namespace-demo".to_owned(),
                    (_, [name, ..]) => format!("service-{name}"),
                    _ => panic!("{command}"),
                };
                let mut object = self.written[&name].clone();
                let annotation = rest.last().expect("an annotation");
                match annotation.split_once('=') {
                    Some((key, value)) => object["metadata"]["annotations"][key] = json!(value),
                    None => {
                        let annotations = object["metadata"]["annotations"]
                            .as_object_mut()
                            .expect("annotations");
                        annotations.remove(annotation.trim_end_matches('-'));
                    }
                }
                self.write(object);
            }
            ["delete", kind, name] => {
                let kind = if *kind == "svc" { "service" } else { kind };
                std::fs::remove_file(self.path(&format!("{kind}-{name}"))).expect("removed");
            }
            ["apply", ..] => *self = Self::write_all(&self.directory),
            other => panic!("the recording has a command that this test does not know: {other:?}"),
        }
    }
}

fn manifests_name(object: &Value) -> String {
    let text = |value: &Value| value.as_str().expect("text").to_lowercase();
    format!("{}-{}", text(&object["kind"]), text(&object["metadata"]["name"]))
}

fn show(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}

#[tokio::test]
async fn the_first_export_is_the_recorded_one() {
    let directory = tempfile::tempdir().expect("a directory");
    Manifests::write_all(directory.path());
    let source = Source::directory(directory.path(), settings())
        .await
        .expect("a source");
    let snapshot = source.snapshot();
    assert!(
        snapshot.complete && snapshot.problems.is_empty(),
        "{:?}",
        snapshot.problems
    );
    let ours = exported(&snapshot);
    let dump = recording::dump("clustermesh-1.20/export-clustera.txt");
    let theirs = dump.into_iter().filter(|(key, _)| key.starts_with(STATE));
    let theirs: Table = theirs
        .map(|(key, value)| (key.clone(), opened(&key, value)))
        .collect();
    let keys = |table: &Table| table.keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&ours), keys(&theirs));
    for (key, value) in &theirs {
        assert_eq!(show(&ours[key]), show(value), "{key}");
    }
}

type Event = (String, Option<Vec<u8>>);

fn difference(before: &Table, after: &Table) -> BTreeSet<Event> {
    let puts = after
        .iter()
        .filter(|(key, value)| before.get(*key) != Some(value));
    let deletes = before.keys().filter(|key| !after.contains_key(*key));
    let puts = puts.map(|(key, value)| (key.clone(), Some(value.clone())));
    puts.chain(deletes.map(|key| (key.clone(), None))).collect()
}

#[tokio::test]
async fn every_recorded_change_makes_the_recorded_events() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut manifests = Manifests::write_all(directory.path());
    let mut source = Source::directory(directory.path(), settings())
        .await
        .expect("a source");
    let mut before = exported(&source.changed().await);
    let steps = recording::steps("clustermesh-1.20/events-clustera.txt");
    assert_eq!(steps.len(), 12);
    for step in steps {
        manifests.apply(&step.command);
        // Locks are no part of an export.
        let recorded = step.events.into_iter().filter(|(key, _)| key.starts_with(STATE));
        let recorded: BTreeSet<Event> = recorded
            .map(|(key, value)| (key.clone(), value.map(|v| opened(&key, v))))
            .collect();
        let start = before.clone();
        let reached = tokio::time::timeout(Duration::from_secs(10), async {
            while difference(&start, &before) != recorded {
                before = exported(&source.changed().await);
            }
        });
        if reached.await.is_err() {
            let ours = difference(&start, &before);
            let text =
                |(key, value): &Event| format!("{key} {}", value.as_deref().map(show).unwrap_or_default());
            let missing: Vec<_> = recorded.difference(&ours).map(text).collect();
            let extra: Vec<_> = ours.difference(&recorded).map(text).collect();
            panic!("{}\nmissing: {missing:#?}\nextra: {extra:#?}", step.command);
        }
    }
}
