//! Everything that is printed: data to stdout, all else to stderr; tables that need no colour.

use std::io::{self, Write};

use serde::Serialize;

/// Writes data to stdout. A closed pipe is an error here and a success for the process.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Writes one line about the run to stderr; if nobody listens, that is all right.
pub(crate) fn note(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// One JSON object, indented, with a newline at the end. Numbers that are not finite become `null`.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

/// Where the text of a cell stands in its column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Rows of text in columns as wide as their widest cell, two spaces apart.
#[derive(Debug)]
pub(crate) struct Table {
    aligns: Vec<Align>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with one title per column.
    pub(crate) fn new(columns: &[(&str, Align)]) -> Self {
        let (titles, aligns) = columns.iter().map(|&(title, align)| (title.to_string(), align)).unzip();
        Self { aligns, rows: vec![titles] }
    }

    /// Adds a row with a cell for each column.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.aligns.len(), "a cell for each column");
        self.rows.push(cells);
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let width =
            |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.aligns.len()).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for ((cell, &width), align) in row.iter().zip(&widths).zip(&self.aligns) {
                match align {
                    Align::Left => line.push_str(&format!("{cell:<width$}  ")),
                    Align::Right => line.push_str(&format!("{cell:>width$}  ")),
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align_words_and_numbers() {
        let mut table = Table::new(&[("name", Align::Left), ("bits", Align::Right), ("note", Align::Left)]);
        table.row(vec!["q_proj".into(), "10.25".into(), "é".into()]);
        table.row(vec!["a".into(), "2".into(), String::new()]);
        assert_eq!(table.to_string(), "name     bits  note\nq_proj  10.25  é\na           2\n");
    }

    #[test]
    fn json_has_no_nan() {
        assert_eq!(json(&[1.0, f64::NAN]).unwrap(), "[\n  1.0,\n  null\n]\n");
    }
}
