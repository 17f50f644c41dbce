//! Cuts a file into its documents, and reads what kind of object each holds.
use serde::Deserialize;

/// One document of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Document<'a> {
    /// Its text.
    pub(crate) text: &'a str,
    /// How many lines of the file are before it.
    pub(crate) lines_before: u32,
}

/// What a document says it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Header {
    pub(crate) api_version: String,
    pub(crate) kind: String,
}

/// Cuts at the lines that begin with `---`, as kubectl does: a document that cannot be read does not hurt the next.
pub(crate) fn split(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let (mut start, mut lines_before, mut offset) = (0, 0, 0);
    for (number, line) in (0_u32..).zip(text.split_inclusive('\n')) {
        if is_marker(line) {
            push(&mut documents, &text[start..offset], lines_before);
            // What follows the marker on its line belongs to the document: keep the columns right by keeping the line.
            let rest = line[3..].trim();
            let skip = rest.is_empty() || rest.starts_with('#');
            start = if skip { offset + line.len() } else { offset };
            lines_before = if skip { number + 1 } else { number };
        }
        offset += line.len();
    }
    push(&mut documents, &text[start..], lines_before);
    documents
}

fn is_marker(line: &str) -> bool {
    line.strip_prefix("---")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn push<'a>(documents: &mut Vec<Document<'a>>, text: &'a str, lines_before: u32) {
    let is_note = |line: &str| {
        let line = line.trim_start_matches('\u{feff}').trim();
        line.is_empty() || line.starts_with(['#', '%']) || line == "---" || line == "..."
    };
    if !text.lines().all(is_note) {
        documents.push(Document { text, lines_before });
    }
}

/// The quick way to a header: the lines `apiVersion:` and `kind:` at the left edge. `None` if they are not written so.
pub(crate) fn header_of_block_style(text: &str) -> Option<Header> {
    let mut header = Header::default();
    for line in text.lines() {
        if let Some(value) = line.strip_prefix("apiVersion:") {
            header.api_version = plain(value)?;
        } else if let Some(value) = line.strip_prefix("kind:") {
            header.kind = plain(value)?;
        }
        if !header.api_version.is_empty() && !header.kind.is_empty() {
            return Some(header);
        }
    }
    None
}

/// A scalar on one line, without quotes and without what follows it.
fn plain(value: &str) -> Option<String> {
    let value = value.split(" #").next().unwrap_or_default().trim();
    let value = value.trim_matches(['"', '\'']);
    let simple = |c: char| c.is_ascii_alphanumeric() || "./-".contains(c);
    (!value.is_empty() && value.chars().all(simple)).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_and_their_first_lines() {
        let text = "# a note\n---\na: 1\n--- # two\nb: 2\n---\n---\n{c: 3}\n";
        let documents = split(text);
        let seen: Vec<_> = documents.iter().map(|d| (d.text, d.lines_before)).collect();
        assert_eq!(seen, [("a: 1\n", 2), ("b: 2\n", 4), ("{c: 3}\n", 7)]);
        assert_eq!(split("a: ---\n----\n").len(), 1);
        assert_eq!(
            split("--- {a: 1}\n")[0],
            Document {
                text: "--- {a: 1}\n",
                lines_before: 0
            }
        );
    }

    #[test]
    fn headers_of_block_style() {
        let header = header_of_block_style("kind: \"Pod\" # a pod\nspec:\n  kind: x\napiVersion: v1\n");
        assert_eq!(
            header,
            Some(Header {
                api_version: "v1".into(),
                kind: "Pod".into()
            })
        );
        assert_eq!(header_of_block_style("{apiVersion: v1, kind: Pod}"), None);
    }
}
