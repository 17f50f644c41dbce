//! The value of an identity: its labels as text (spec §1.6).
use isthmus_topology::Labels;

use crate::ValueError;

/// Reads a value; an empty one is an error.
pub fn decode(bytes: &[u8]) -> Result<Labels, ValueError> {
    let text = std::str::from_utf8(bytes).map_err(|_| ValueError::NotUtf8)?;
    Ok(Labels::parse(text)?)
}

/// The value's bytes: `source:key=value;…` sorted by key, nothing escaped.
pub fn encode(labels: &Labels) -> Vec<u8> {
    labels.to_string().into_bytes()
}
