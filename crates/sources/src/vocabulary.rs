//! Which fields a type knows: asked of the type itself, for "did you mean".
use std::cell::Cell;
use std::fmt;

use serde::de::value::{MapDeserializer, SeqDeserializer, StrDeserializer};
use serde::de::{self, Deserialize, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

use crate::fault::Segment;

/// The field names that `T` accepts where the last segment of the path stands.
pub(crate) fn fields_at<'de, T: Deserialize<'de>>(path: &[Segment]) -> &'static [&'static str] {
    let found = Cell::new(&[][..]);
    // The probe always ends in an error; what it found on the way is what counts.
    let _ = T::deserialize(Probe { path, found: &found });
    found.get()
}

/// The name that was probably meant: the closest one, if it is close.
pub(crate) fn closest<'a>(wrong: &str, names: &[&'a str]) -> Option<&'a str> {
    let limit = (wrong.len() / 3).max(2);
    let by_distance = names.iter().map(|name| (distance(wrong, name), *name));
    let (near, name) = by_distance.min()?;
    (near <= limit).then_some(name)
}

/// How many letters must be changed, added or left out; case counts little enough to be ignored.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.to_ascii_lowercase(), b.to_ascii_lowercase());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// A deserializer that walks a type along a path and notes the fields of the struct at its end.
#[derive(Clone, Copy)]
struct Probe<'a> {
    path: &'a [Segment],
    found: &'a Cell<&'static [&'static str]>,
}

#[derive(Debug)]
struct Stop;

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the probe has ended")
    }
}

impl std::error::Error for Stop {}

impl de::Error for Stop {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

impl<'a> Probe<'a> {
    fn enter<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        let (first, rest) = self.path.split_first().ok_or(Stop)?;
        let inner = Self { path: rest, ..self };
        match first {
            Segment::Key(key) => {
                visitor.visit_map(MapDeserializer::new(std::iter::once((KeyOf(key), inner))))
            }
            Segment::Index(_) => visitor.visit_seq(SeqDeserializer::new(std::iter::once(inner))),
        }
    }
}

impl<'de> de::Deserializer<'de> for Probe<'_> {
    type Error = Stop;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stop> {
        Err(Stop)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        if self.path.len() == 1 {
            self.found.set(fields);
            return Err(Stop);
        }
        self.enter(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.enter(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.enter(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct tuple
        tuple_struct enum identifier ignored_any
    }
}

impl IntoDeserializer<'_, Stop> for Probe<'_> {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

struct KeyOf<'a>(&'a str);

impl<'de, 'a> IntoDeserializer<'de, Stop> for KeyOf<'a> {
    type Deserializer = StrDeserializer<'a, Stop>;
    fn into_deserializer(self) -> Self::Deserializer {
        self.0.into_deserializer()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_tells_its_fields() {
        use k8s_openapi::api::core::v1::Service;
        let path = ["spec".into(), "ports".into(), 0.into(), "prot".into()];
        let fields = fields_at::<Service>(&path);
        assert!(
            fields.contains(&"targetPort") && fields.contains(&"protocol"),
            "{fields:?}"
        );
        assert_eq!(closest("targetport", fields), Some("targetPort"));
        assert_eq!(
            closest("clusterIp", fields_at::<Service>(&["spec".into(), "x".into()])),
            Some("clusterIP")
        );
        assert_eq!(closest("zzzzzzzz", fields), None);
    }
}
