//! JSON as Go's encoding/json writes and reads it: the peers are Go programs, and our bytes should equal theirs.
use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::ser::Formatter;

use crate::ValueError;

/// Compact, and with Go's HTML-safe escapes.
struct GoFormatter;

impl Formatter for GoFormatter {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            let (plain, tail) = rest.split_at(at);
            writer.write_all(plain.as_bytes())?;
            let special = tail.chars().next().unwrap_or_default();
            write!(writer, "\\u{:04x}", u32::from(special))?;
            rest = &tail[special.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }
}

/// The bytes that Go would write for the same struct.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256);
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, GoFormatter);
    value
        .serialize(&mut serializer)
        .expect("structs with text keys always serialise into memory");
    bytes
}

/// Reads a value; unknown members are ignored, as everywhere in ClusterMesh.
pub(crate) fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, ValueError> {
    serde_json::from_slice(bytes).map_err(|error| ValueError::Json {
        what,
        reason: error.to_string(),
    })
}

/// Go reads `null` as the zero value of any type.
pub(crate) fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_as_go_does() {
        assert_eq!(
            encode(&"a<b>&\u{2028}\"\\\n\u{8}ü\u{1}"),
            br#""a\u003cb\u003e\u0026\u2028\"\\\n\b"#
                .iter()
                .copied()
                .chain("ü\\u0001\"".bytes())
                .collect::<Vec<u8>>()
        );
    }
}
