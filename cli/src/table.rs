//! Columns under headings, as wide as their widest cell. Pure text; no colour, no frame.
//!
//! Stands between the commands and their output. Invariants: every row has as many cells as there are columns; a cell
//! is one line without control characters; no line ends with spaces.

use crate::human::one_line;

/// The space between two columns.
const GAP: &str = "  ";

/// On which side of its column a cell stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    /// Texts.
    Left,
    /// Numbers.
    Right,
}

/// Rows of cells under headings.
#[derive(Debug)]
pub(crate) struct Table {
    headings: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
    indent: &'static str,
}

impl Table {
    /// A table without rows.
    pub(crate) fn new(headings: &[(&'static str, Align)]) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new(), indent: "" }
    }

    /// The same, each line led by `indent`.
    pub(crate) fn indented(self, indent: &'static str) -> Self {
        Self { indent, ..self }
    }

    /// Adds a row, one cell for each column.
    pub(crate) fn row<const CELLS: usize>(&mut self, cells: [String; CELLS]) {
        debug_assert_eq!(cells.len(), self.headings.len(), "a row of another table");
        self.rows.push(cells.iter().map(|cell| one_line(cell)).collect());
    }

    /// The headings and the rows, a line each.
    pub(crate) fn render(&self) -> String {
        let headings: Vec<String> = self.headings.iter().map(|(heading, _)| (*heading).to_string()).collect();
        let lines = || std::iter::once(&headings).chain(&self.rows);
        let widths: Vec<usize> = (0..headings.len())
            .map(|column| {
                lines().filter_map(|cells| cells.get(column)).map(|cell| width(cell)).max().unwrap_or(0)
            })
            .collect();
        lines().map(|cells| self.line(cells, &widths)).collect()
    }

    fn line(&self, cells: &[String], widths: &[usize]) -> String {
        let mut line = self.indent.to_string();
        for (position, ((cell, width_wanted), (_, align))) in
            cells.iter().zip(widths).zip(&self.headings).enumerate()
        {
            let padding = " ".repeat(width_wanted.saturating_sub(width(cell)));
            if position > 0 {
                line.push_str(GAP);
            }
            match align {
                Align::Left => line.extend([cell.as_str(), &padding]),
                Align::Right => line.extend([padding.as_str(), cell]),
            }
        }
        line.truncate(line.trim_end().len());
        line.push('\n');
        line
    }
}

/// Names and values below each other, the values aligned; for one thing with many properties.
pub(crate) fn properties(rows: &[(&str, String)]) -> String {
    let name_width = rows.iter().map(|(name, _)| width(name)).max().unwrap_or(0);
    let line = |(name, value): &(&str, String)| {
        let padding = " ".repeat(name_width.saturating_sub(width(name)));
        format!("{name}{padding}{GAP}{}", one_line(value)).trim_end().to_string() + "\n"
    };
    rows.iter().map(line).collect()
}

/// How many columns of a terminal a text takes, as far as characters tell.
fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table =
            Table::new(&[("NAME", Align::Left), ("RECORDS", Align::Right), ("REASON", Align::Left)]);
        table.row(["word_count".into(), "1,234,567".into(), String::new()]);
        table.row(["wörter".into(), "7".into(), "waits".into()]);
        let expected = concat!(
            "NAME          RECORDS  REASON\n",
            "word_count  1,234,567\n",
            "wörter              7  waits\n",
        );
        assert_eq!(table.render(), expected);
    }

    #[test]
    fn a_table_without_rows_has_headings_only() {
        let table = Table::new(&[("ID", Align::Right), ("ADDRESS", Align::Left)]).indented("  ");
        assert_eq!(table.render(), "  ID  ADDRESS\n");
    }

    #[test]
    fn a_cell_stays_one_line() {
        let mut table = Table::new(&[("A", Align::Left), ("B", Align::Left)]);
        table.row(["x\ny".into(), "z\u{1b}[2J".into()]);
        assert_eq!(table.render(), "A    B\nx y  z [2J\n");
    }

    #[test]
    fn properties_are_aligned() {
        let rows = [("Id", "7".to_string()), ("Status", "RUNNING".to_string()), ("Reason", String::new())];
        assert_eq!(properties(&rows), "Id      7\nStatus  RUNNING\nReason\n");
    }
}
