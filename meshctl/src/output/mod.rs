//! One view type for each listing, shown as a table, a wide table, JSON or YAML.
mod table;

use std::io::{self, Write};

use clap::ValueEnum;
use serde::Serialize;

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};

pub(crate) use table::{TableRow, age, render};

/// The version of every object that is printed as JSON or YAML.
pub(crate) const API_VERSION: &str = "cli.isthmus.io/v1";

/// So many reasons are shown below a table that is not wide.
const SHOWN_NOTES: usize = 4;

/// How a listing is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns.
    #[default]
    Table,
    /// Aligned columns, more of them.
    Wide,
    /// One JSON object.
    Json,
    /// One YAML document.
    Yaml,
}

/// A listing: what it lists, its rows, and how things stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct List<T> {
    api_version: &'static str,
    kind: &'static str,
    /// The rows.
    pub(crate) items: Vec<T>,
    #[serde(skip)]
    exit: Exit,
    #[serde(skip)]
    notes: Vec<String>,
}

impl<T: Serialize + TableRow> List<T> {
    /// A listing of `kind`, e.g. `ServiceList`, that ends the command with `exit`.
    pub(crate) fn new(kind: &'static str, items: Vec<T>, exit: Exit) -> Self {
        Self {
            api_version: API_VERSION,
            kind,
            items,
            exit,
            notes: Vec::new(),
        }
    }

    /// With a reason why it is not well.
    pub(crate) fn because(mut self, why: impl Into<String>) -> Self {
        if self.exit != Exit::Ok {
            self.notes.push(why.into());
        }
        self
    }

    /// The first reason why it is not well, if it is not.
    pub(crate) fn why(&self) -> &str {
        self.notes.first().map_or("", String::as_str)
    }

    /// How the command ends: the same whatever the format.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// The text in a format.
    pub(crate) fn text(&self, format: Format) -> Outcome<String> {
        match format {
            Format::Table => Ok(render(&self.items, false) + &self.noted(SHOWN_NOTES)),
            Format::Wide => Ok(render(&self.items, true) + &self.noted(usize::MAX)),
            Format::Json | Format::Yaml => object_text(self, format),
        }
    }
}

impl<T> List<T> {
    /// The reasons, a line each, below the table: `! text`.
    fn noted(&self, shown: usize) -> String {
        let lines = self.notes.iter().take(shown).map(|note| format!("! {note}\n"));
        let more = match self.notes.len().saturating_sub(shown) {
            0 => String::new(),
            more => format!("! {more} more: -o wide\n"),
        };
        lines.collect::<String>() + &more
    }
}

/// An object as JSON (also for the table formats, which it has none of) or YAML.
pub(crate) fn object_text(object: &impl Serialize, format: Format) -> Outcome<String> {
    let bug = |e: &dyn std::fmt::Display| Failure::new(Exit::Down, "cannot print the answer").because(e);
    match format {
        Format::Yaml => serde_saphyr::to_string(object).map_err(|e| bug(&e)),
        _ => serde_json::to_string_pretty(object)
            .map(|text| text + "\n")
            .map_err(|e| bug(&e)),
    }
}

/// Writes to standard output. A reader that went away (`meshctl … | head`) is no error.
pub(crate) fn print(text: &str) -> Outcome {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Down, "cannot write to standard output").because(e))
        }
        _ => Ok(()),
    }
}
