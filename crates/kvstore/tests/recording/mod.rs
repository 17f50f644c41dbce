//! Reads the recordings of Cilium's own exporter under `tests/replay` (their format is told in the README there).
#![allow(dead_code, reason = "each test file uses a part of it")]
use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::Engine as _;

/// A file of the recordings.
pub(crate) fn file(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/replay")
        .join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The keys and values of a recorded etcd.
pub(crate) fn dump(name: &str) -> BTreeMap<String, Vec<u8>> {
    let text = String::from_utf8(file(name)).expect("dumps are text");
    let mut entries = BTreeMap::new();
    let mut key = None;
    for line in text.lines() {
        if let Some(k) = line.strip_prefix("KEY   ") {
            key = Some(k.to_owned());
        } else if let Some(value) = line.strip_prefix("VALUE ") {
            let key = key.take().expect("a KEY line before every VALUE line");
            entries.insert(key, value_bytes(value));
        }
    }
    entries
}

fn value_bytes(value: &str) -> Vec<u8> {
    match value
        .strip_prefix("zstd frame ")
        .and_then(|rest| rest.split_once("base64:"))
    {
        Some((_, encoded)) => base64::engine::general_purpose::STANDARD
            .decode(encoded)
            .expect("the recorded frame is base64"),
        None => value.as_bytes().to_vec(),
    }
}

/// What followed one recorded mutation.
#[derive(Debug)]
pub(crate) struct Step {
    /// The command that changed the cluster's objects.
    pub(crate) command: String,
    /// Puts (`Some`) and deletes (`None`), in the order in which they came.
    pub(crate) events: Vec<(String, Option<Vec<u8>>)>,
}

/// The recorded mutations with the events that followed each.
pub(crate) fn steps(name: &str) -> Vec<Step> {
    let bytes = file(name);
    let mut steps = Vec::new();
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let line = take_line(&mut rest);
        if let Some(command) = line.strip_prefix(b"### ") {
            let command = String::from_utf8_lossy(command).into_owned();
            steps.push(Step {
                command,
                events: Vec::new(),
            });
        } else if line == b"PUT" || line == b"DELETE" {
            let key = String::from_utf8_lossy(take_line(&mut rest)).into_owned();
            let value = take_value(&mut rest);
            let step = steps.last_mut().expect("a mutation before every event");
            step.events.push((key, (line == b"PUT").then_some(value)));
        }
    }
    steps
}

fn take_line<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let end = rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
    let line = &rest[..end];
    *rest = &rest[(end + 1).min(rest.len())..];
    line
}

/// Binary values contain newlines, so a value ends where the next event or mutation begins.
fn take_value(rest: &mut &[u8]) -> Vec<u8> {
    let ends = [&b"\nPUT\n"[..], b"\nDELETE\n", b"\n### "];
    let starts_next = |at: usize| ends.iter().any(|end| rest[at..].starts_with(end));
    let end = (0..rest.len()).find(|at| starts_next(*at)).unwrap_or(rest.len());
    let value = rest[..end].strip_suffix(b"\n").unwrap_or(&rest[..end]).to_vec();
    *rest = &rest[(end + 1).min(rest.len())..];
    value
}
