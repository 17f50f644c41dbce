//! Where and why a document was refused.
use serde_saphyr::granit_parser::{Event, Parser, Span};

/// One step of the way to a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Segment {
    /// A member of a mapping.
    Key(String),
    /// An element of a sequence.
    Index(usize),
}

impl From<&str> for Segment {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

impl From<usize> for Segment {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// `spec.ports[1].port`.
pub(crate) fn path_text(path: &[Segment]) -> String {
    let mut text = String::new();
    for segment in path {
        match segment {
            Segment::Key(key) if text.is_empty() => text.push_str(key),
            Segment::Key(key) => {
                text.push('.');
                text.push_str(key);
            }
            Segment::Index(index) => {
                text.push_str(&format!("[{index}]"));
            }
        }
    }
    text
}

/// A field of an object whose value cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FieldError {
    /// The way to it.
    pub(crate) path: Vec<Segment>,
    /// What is wrong with it, and what to write instead.
    pub(crate) reason: String,
}

impl FieldError {
    pub(crate) fn new<const N: usize>(path: [Segment; N], reason: impl ToString) -> Self {
        Self {
            path: path.to_vec(),
            reason: reason.to_string(),
        }
    }

    /// Puts what a nested conversion found under the path of the object around it.
    pub(crate) fn under<const N: usize>(mut self, path: [Segment; N]) -> Self {
        self.path.splice(0..0, path);
        self
    }
}

/// What is wrong with a file, and where in it (lines and columns from 1, 0 if unknown).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) line: u32,
    pub(crate) column: u32,
    pub(crate) reason: String,
}

/// Line and column of a field in the text of a document, both from 1; the closest parent's if the field is not there.
pub(crate) fn locate(text: &str, path: &[Segment]) -> (u32, u32) {
    let mut events = Events {
        parser: Parser::new_from_str(text),
        best: (1, 1),
    };
    events.find(path);
    events.best
}

/// What a document is made of.
enum Mark {
    Scalar(String),
    Mapping,
    Sequence,
    Alias,
    End,
}

/// The first line of each element of the sequence under a key at the top, from 1.
pub(crate) fn lines_of_items(text: &str, key: &str) -> Vec<u32> {
    let mut events = Events {
        parser: Parser::new_from_str(text),
        best: (1, 1),
    };
    let mut lines = Vec::new();
    let is_sequence = events.enter(key).is_some();
    while is_sequence && let Some((mark, span)) = events.next() {
        let read = match mark {
            Mark::End => None,
            Mark::Mapping | Mark::Sequence => events.skip_open(),
            Mark::Scalar(_) | Mark::Alias => Some(()),
        };
        if read.is_none() {
            break;
        }
        events.mark(&span);
        lines.push(events.best.0);
    }
    lines
}

struct Events<'a> {
    parser: Parser<'a, serde_saphyr::granit_parser::StrInput<'a>>,
    best: (u32, u32),
}

impl Events<'_> {
    /// The next event that is a node or ends one.
    fn next(&mut self) -> Option<(Mark, Span)> {
        loop {
            let (event, span) = self.parser.next()?.ok()?;
            let mark = match event {
                Event::Scalar(value, ..) => Mark::Scalar(value.into_owned()),
                Event::MappingStart(..) => Mark::Mapping,
                Event::SequenceStart(..) => Mark::Sequence,
                Event::MappingEnd | Event::SequenceEnd => Mark::End,
                Event::Alias(_) => Mark::Alias,
                Event::StreamEnd => return None,
                _ => continue,
            };
            return Some((mark, span));
        }
    }

    fn mark(&mut self, span: &Span) {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        self.best = (number(span.start.line()), number(span.start.col() + 1));
    }

    /// Goes into the sequence under a key at the top.
    fn enter(&mut self, wanted: &str) -> Option<()> {
        self.next()?;
        loop {
            match self.next()?.0 {
                Mark::Scalar(key) if key == wanted => {
                    return matches!(self.next()?.0, Mark::Sequence).then_some(());
                }
                Mark::End => return None,
                Mark::Mapping | Mark::Sequence => {
                    self.skip_open()?;
                    self.skip()?;
                }
                Mark::Scalar(_) | Mark::Alias => self.skip()?,
            }
        }
    }

    /// Reads one node, following the path into it.
    fn find(&mut self, path: &[Segment]) -> Option<()> {
        let (mark, span) = self.next()?;
        let Some((first, rest)) = path.split_first() else {
            self.mark(&span);
            return None;
        };
        match (mark, first) {
            (Mark::Mapping, Segment::Key(wanted)) => self.find_key(wanted, rest),
            (Mark::Sequence, Segment::Index(wanted)) => {
                for _ in 0..*wanted {
                    self.skip()?;
                }
                self.find(rest)
            }
            _ => None,
        }
    }

    fn find_key(&mut self, wanted: &str, rest: &[Segment]) -> Option<()> {
        loop {
            match self.next()? {
                (Mark::Scalar(key), span) if key == wanted => {
                    self.mark(&span);
                    return if rest.is_empty() { None } else { self.find(rest) };
                }
                (Mark::End, _) => return None,
                (Mark::Mapping | Mark::Sequence, _) => {
                    self.skip_open()?;
                    self.skip()?;
                }
                _ => self.skip()?,
            }
        }
    }

    fn skip(&mut self) -> Option<()> {
        match self.next()?.0 {
            Mark::Mapping | Mark::Sequence => self.skip_open(),
            _ => Some(()),
        }
    }

    fn skip_open(&mut self) -> Option<()> {
        let mut depth = 1;
        while depth > 0 {
            match self.next()?.0 {
                Mark::Mapping | Mark::Sequence => depth += 1,
                Mark::End => depth -= 1,
                _ => {}
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_in_block_and_flow_style() {
        let text = "# note\nspec:\n  ports:\n  - name: a\n    port: 1\n  - {name: b, port: 2}\n";
        let at = |path: &[Segment]| locate(text, path);
        assert_eq!(
            at(&["spec".into(), "ports".into(), 0.into(), "port".into()]),
            (5, 5)
        );
        assert_eq!(
            at(&["spec".into(), "ports".into(), 1.into(), "port".into()]),
            (6, 15)
        );
        assert_eq!(at(&["spec".into(), "missing".into()]), (2, 1));
        let list = "a: [1]\nitems:\n- x: 1\n  y: 2\n# note\n- {x: 3}\nkind: List\n";
        assert_eq!(lines_of_items(list, "items"), [3, 6]);
        assert_eq!(
            path_text(&["spec".into(), "ports".into(), 1.into(), "port".into()]),
            "spec.ports[1].port"
        );
    }
}
