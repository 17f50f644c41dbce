//! Aligned columns, without lines: easy to read, to cut and to grep.
use std::time::Duration;

/// A row of a listing.
pub(crate) trait TableRow {
    /// Headings of the columns that every table shows, then of those that `-o wide` adds.
    const HEADINGS: (&'static [&'static str], &'static [&'static str]);

    /// The cells, in the order of the headings; empty ones are shown as a dash.
    fn cells(&self) -> Vec<String>;
}

/// Two spaces between columns.
const GAP: usize = 2;

/// The rows as a table.
pub(crate) fn render<T: TableRow>(rows: &[T], wide: bool) -> String {
    let (narrow, more) = T::HEADINGS;
    let columns = if wide {
        narrow.len() + more.len()
    } else {
        narrow.len()
    };
    let headings: Vec<String> = narrow.iter().chain(more).map(|h| (*h).to_owned()).collect();
    let mut lines = vec![headings];
    lines.extend(
        rows.iter()
            .map(|row| row.cells().into_iter().map(shown).collect()),
    );
    for line in &mut lines {
        line.truncate(columns);
    }
    align(&lines)
}

fn shown(cell: String) -> String {
    if cell.is_empty() { "-".into() } else { cell }
}

/// Pads every column to its widest cell; no spaces at the end of a line.
fn align(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let mut row = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            row += cell;
            row += &" ".repeat(width - cell.chars().count() + GAP);
        }
        text += row.trim_end();
        text.push('\n');
    }
    text
}

/// A duration as people say it: `42s`, `7m`, `3h`, `12d`.
pub(crate) fn age(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7_200 => format!("{}m", seconds / 60),
        seconds @ 7_200..172_800 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Peer(&'static str, &'static str, &'static str);

    impl TableRow for Peer {
        const HEADINGS: (&'static [&'static str], &'static [&'static str]) = (&["NAME", "STATE"], &["WHY"]);

        fn cells(&self) -> Vec<String> {
            [self.0, self.1, self.2].map(str::to_owned).to_vec()
        }
    }

    #[test]
    fn columns_line_up_and_wide_adds_more() {
        let rows = [
            Peer("west", "ready", ""),
            Peer("a-long-name", "waiting", "no heartbeat"),
        ];
        let table = "NAME         STATE\nwest         ready\na-long-name  waiting\n";
        assert_eq!(render(&rows, false), table);
        let wide = "NAME         STATE    WHY\nwest         ready    -\na-long-name  waiting  no heartbeat\n";
        assert_eq!(render(&rows, true), wide);
    }

    #[test]
    fn ages_are_short() {
        let said = [5, 119, 120, 7_200, 200_000].map(|s| age(Duration::from_secs(s)));
        assert_eq!(said, ["5s", "119s", "2m", "2h", "2d"]);
    }
}
