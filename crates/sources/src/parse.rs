//! From the text of a file to objects and faults. Pure.
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Settings;
use crate::cilium::{CiliumEndpoint, CiliumIdentity, CiliumNode, McsServiceExport};
use crate::document::{Document, Header, header_of_block_style, split};
use crate::fault::{Fault, FieldError, Segment, lines_of_items, locate, path_text};
use crate::kind::Reduce;
use crate::object::{Object, ObjectKey};
use crate::vocabulary::{closest, fields_at};

/// What a file holds.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    /// Objects of known kinds, with their first line.
    pub(crate) objects: Vec<(ObjectKey, Object, u32)>,
    /// Objects that only some daemons know, with their first line.
    pub(crate) raw: Vec<(Loose, Value, u32)>,
    /// Objects that nobody knows, with their first line.
    pub(crate) ignored: Vec<(Loose, u32)>,
    /// What is wrong with it.
    pub(crate) faults: Vec<Fault>,
}

/// What names an object whose kind we do not read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Loose {
    pub(crate) api_version: String,
    pub(crate) kind: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// Reads all documents of a file. A document that is broken does not hurt the others.
pub(crate) fn parse_file(text: &str, settings: &Settings) -> Parsed {
    let mut parsed = Parsed::default();
    for document in split(text) {
        let before = parsed.faults.len();
        let outcome = parse_document(document, settings, &mut parsed);
        if let Err(mut faults) = outcome {
            parsed.faults.append(&mut faults);
        }
        for fault in &mut parsed.faults[before..] {
            if fault.line > 0 {
                fault.line += document.lines_before;
            }
        }
    }
    refuse_doubles(&mut parsed);
    parsed
}

/// Of an object that a file holds twice, the first one counts.
fn refuse_doubles(parsed: &mut Parsed) {
    let mut seen = BTreeMap::new();
    let faults = &mut parsed.faults;
    parsed.objects.retain(|(key, _, line)| match seen.get(key) {
        None => {
            seen.insert(key.clone(), *line);
            true
        }
        Some(first) => {
            let reason =
                format!("{key} is in this file twice; the one of line {first} counts: remove one of them");
            faults.push(Fault {
                line: *line,
                column: 0,
                reason,
            });
            false
        }
    });
}

type Faults = Vec<Fault>;

fn parse_document(document: Document<'_>, settings: &Settings, parsed: &mut Parsed) -> Result<(), Faults> {
    let text = document.text;
    let header = match header_of_block_style(text) {
        Some(header) => header,
        None => serde_saphyr::from_str_with_options(text, options()).map_err(|e| vec![fault_of(&e)])?,
    };
    if header.kind.is_empty() || header.api_version.is_empty() {
        let reason = "not a Kubernetes object: apiVersion or kind is missing";
        let (line, column) = locate(text, &[]);
        return Err(vec![Fault {
            line,
            column,
            reason: reason.to_owned(),
        }]);
    }
    let line = document.lines_before + first_line(text);
    if header.kind.ends_with("List") {
        let list: Value = yaml(text)?;
        if list.get("items").is_some_and(Value::is_array) {
            return parse_list(document, &header, list, settings, parsed);
        }
    }
    let mut body = Body::Text(text);
    parse_object(&mut body, &header, &[], line, settings, parsed).map_err(|faults| faults.placed(text))
}

/// The first line of a document that is not empty or a comment, from 1.
fn first_line(text: &str) -> u32 {
    let is_note = |line: &&str| line.trim().is_empty() || line.trim_start().starts_with('#');
    u32::try_from(text.lines().take_while(is_note).count()).unwrap_or(0) + 1
}

fn parse_list(
    document: Document<'_>,
    header: &Header,
    mut list: Value,
    settings: &Settings,
    parsed: &mut Parsed,
) -> Result<(), Faults> {
    let mut faults = Vec::new();
    let lines = lines_of_items(document.text, "items");
    let items = list.get_mut("items").and_then(Value::as_array_mut);
    for (i, item) in items.into_iter().flatten().enumerate() {
        let item = std::mem::take(item);
        let text_of = |field: &str| item.get(field).and_then(Value::as_str).map(str::to_owned);
        // The items of a typed list (PodList) do not repeat what they are.
        let of_list = header.kind.trim_end_matches("List");
        let header = Header {
            api_version: text_of("apiVersion").unwrap_or_else(|| header.api_version.clone()),
            kind: text_of("kind").unwrap_or_else(|| of_list.to_owned()),
        };
        let path = ["items".into(), i.into()];
        let mut body = Body::Value(item);
        let line = document.lines_before + lines.get(i).copied().unwrap_or(1);
        let outcome = parse_object(&mut body, &header, &path, line, settings, parsed);
        if let Err(refused) = outcome {
            faults.extend(refused.placed(document.text));
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

/// An object as text, or as an element of a list that has been read already.
enum Body<'a> {
    Text(&'a str),
    Value(Value),
}

/// Why an object was refused.
enum Refusal {
    /// The text is broken; the place is known.
    Text(Faults),
    /// Fields are wrong; the place is to be found in the text.
    Fields(Vec<FieldError>),
}

impl Refusal {
    fn placed(self, text: &str) -> Faults {
        let fields = match self {
            Self::Text(faults) => return faults,
            Self::Fields(fields) => fields,
        };
        let place = |field: FieldError| {
            let (line, column) = locate(text, &field.path);
            let reason = match path_text(&field.path).as_str() {
                "" => field.reason,
                path => format!("{path}: {}", field.reason),
            };
            Fault { line, column, reason }
        };
        fields.into_iter().map(place).collect()
    }
}

fn parse_object(
    body: &mut Body<'_>,
    header: &Header,
    under: &[Segment],
    line: u32,
    settings: &Settings,
    parsed: &mut Parsed,
) -> Result<(), Refusal> {
    let reduce = match (header.api_version.as_str(), header.kind.as_str()) {
        ("v1", "Node") => typed::<Node>,
        ("v1", "Namespace") => typed::<Namespace>,
        ("v1", "Pod") => typed::<Pod>,
        ("v1", "Service") => typed::<Service>,
        ("discovery.k8s.io/v1", "EndpointSlice") => typed::<EndpointSlice>,
        ("cilium.io/v2", "CiliumNode") => typed::<CiliumNode>,
        ("cilium.io/v2", "CiliumIdentity") => typed::<CiliumIdentity>,
        ("cilium.io/v2", "CiliumEndpoint") => typed::<CiliumEndpoint>,
        ("multicluster.x-k8s.io/v1alpha1" | "multicluster.x-k8s.io/v1beta1", "ServiceExport") => {
            typed::<McsServiceExport>
        }
        _ => return parse_loose(body, header, line, parsed),
    };
    if let Some((key, object)) = reduce(body, under, settings)? {
        parsed.objects.push((key, object, line));
    }
    Ok(())
}

/// Reads an object strictly: a field that its type does not know is an error.
fn typed<T: DeserializeOwned + Reduce>(
    body: &mut Body<'_>,
    under: &[Segment],
    settings: &Settings,
) -> Result<Option<(ObjectKey, Object)>, Refusal> {
    let mut unknown = Vec::new();
    let mut note = |path: serde_ignored::Path<'_>| unknown.push(segments(&path));
    let read: T = match body {
        Body::Text(text) => serde_saphyr::with_deserializer_from_str_with_options(text, options(), |de| {
            serde_ignored::deserialize(de, &mut note)
        })
        .map_err(|error| Refusal::Text(vec![fault_of(&error)]))?,
        Body::Value(value) => serde_ignored::deserialize(value.take(), &mut note).map_err(|error| {
            let path = under.to_vec();
            Refusal::Fields(vec![FieldError {
                path,
                reason: error.to_string(),
            }])
        })?,
    };
    let below = |error: FieldError| {
        let path = under.iter().cloned().chain(error.path).collect();
        FieldError {
            path,
            reason: error.reason,
        }
    };
    if !unknown.is_empty() {
        let errors = unknown.into_iter().map(unknown_field::<T>).map(below);
        return Err(Refusal::Fields(errors.collect()));
    }
    read.reduce(settings)
        .map_err(|error| Refusal::Fields(vec![below(error)]))
}

fn unknown_field<T: DeserializeOwned>(path: Vec<Segment>) -> FieldError {
    let wrong = match path.last() {
        Some(Segment::Key(key)) => key.as_str(),
        _ => "",
    };
    let reason = match closest(wrong, fields_at::<T>(&path)) {
        Some(name) => format!("unknown field, did you mean {name:?}?"),
        None => "unknown field".to_owned(),
    };
    FieldError { path, reason }
}

fn segments(path: &serde_ignored::Path<'_>) -> Vec<Segment> {
    use serde_ignored::Path;
    let (parent, last) = match path {
        Path::Root => return Vec::new(),
        Path::Seq { parent, index } => (parent, Some(Segment::Index(*index))),
        Path::Map { parent, key } => (parent, Some(Segment::Key(key.clone()))),
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => {
            (parent, None)
        }
    };
    let mut path = segments(parent);
    path.extend(last);
    path
}

/// Kinds that some daemons know are kept whole; of the others only the name is noted.
fn parse_loose(body: &mut Body<'_>, header: &Header, line: u32, parsed: &mut Parsed) -> Result<(), Refusal> {
    let value = match body {
        Body::Text(text) => yaml(text).map_err(Refusal::Text)?,
        Body::Value(value) => value.take(),
    };
    let member = |field: &str| {
        let found = value
            .pointer(&format!("/metadata/{field}"))
            .and_then(Value::as_str);
        found.unwrap_or_default().to_owned()
    };
    let loose = Loose {
        namespace: member("namespace"),
        name: member("name"),
        api_version: header.api_version.clone(),
        kind: header.kind.clone(),
    };
    if is_raw(header) {
        parsed.raw.push((loose, value, line));
    } else {
        parsed.ignored.push((loose, line));
    }
    Ok(())
}

/// Cilium's and our own kinds, and the secrets that they point at.
fn is_raw(header: &Header) -> bool {
    let group = header.api_version.split_once('/').map_or("", |(group, _)| group);
    matches!(group, "cilium.io" | "isthmus.io") || (header.api_version == "v1" && header.kind == "Secret")
}

fn yaml<T: DeserializeOwned>(text: &str) -> Result<T, Faults> {
    serde_saphyr::from_str_with_options(text, options()).map_err(|error| vec![fault_of(&error)])
}

/// Files of the machine's owner may be large, so there is no budget for honest text; aliases stay limited.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: usize::MAX,
            max_nodes: usize::MAX,
            max_total_scalar_bytes: usize::MAX,
            max_documents: usize::MAX,
        },
        // `defaultMode: 0644` is octal, as for kubectl.
        legacy_octal_numbers: true,
        with_snippet: false,
        emit_comments: false,
    }
}

fn fault_of(error: &serde_saphyr::Error) -> Fault {
    let location = error.without_snippet().location();
    let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    let (line, column) = location.map_or((0, 0), |l| (number(l.line()), number(l.column())));
    // The text ends in "at line 3, column 5", which is told in the fault's own fields.
    let text = error.without_snippet().to_string();
    let reason = text.split(" at line ").next().unwrap_or(&text).to_owned();
    Fault { line, column, reason }
}

#[cfg(test)]
mod tests {
    use isthmus_topology::{ClusterId, ClusterName, MaxClusters};
    use proptest::prelude::*;

    use super::*;

    fn settings() -> Settings {
        Settings {
            cluster: ClusterName::new("clustera").expect("valid"),
            id: ClusterId::new(1, MaxClusters::C255).expect("valid"),
            max: MaxClusters::C255,
            default_global_namespace: true,
            state_dir: None,
        }
    }

    const GOOD: &str = include_str!("../../../tests/replay/clustermesh-1.20/input-clustera.yaml");

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "(?s).{0,300}", yaml in "[a-z{}\\[\\]:,\"'&*|>\n -]{0,200}") {
            let _ = parse_file(&text, &settings());
            let _ = parse_file(&yaml, &settings());
        }

        /// Faults point into the file, whatever was done to it.
        #[test]
        fn no_damage_makes_the_reader_panic(
            at in 0..GOOD.len(), len in 0_usize..40, put in "[a-z{}\\[\\]:,\"'&*|>\n -]{0,20}",
        ) {
            let floor = |mut at: usize| {
                while !GOOD.is_char_boundary(at) {
                    at -= 1;
                }
                at
            };
            let (from, to) = (floor(at), floor((at + len).min(GOOD.len())));
            let text = [&GOOD[..from], &put, &GOOD[to..]].concat();
            let lines = text.lines().count() + 1;
            for fault in parse_file(&text, &settings()).faults {
                prop_assert!(fault.line as usize <= lines, "{fault:?}");
            }
        }
    }
}
