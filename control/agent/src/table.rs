//! Columns of text.
//!
//! Two spaces between columns, numbers to the right, no trailing blanks, no borders: what `awk` and people read. Width
//! counts characters; control characters in a cell are escaped, so that no name can write to the terminal.

use std::borrow::Cow;

/// How a column is aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A table in the making.
#[derive(Debug)]
pub struct Table<const COLUMNS: usize> {
    headers: [(&'static str, Align); COLUMNS],
    rows: Vec<[String; COLUMNS]>,
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    /// A table with these headers; units belong into them.
    pub const fn new(headers: [(&'static str, Align); COLUMNS]) -> Self {
        Self {
            headers,
            rows: Vec::new(),
        }
    }

    /// Adds a row. Empty cells are shown as `-`, so that columns can be counted.
    pub fn row(&mut self, cells: [String; COLUMNS]) {
        self.rows.push(cells.map(|cell| match cell.is_empty() {
            true => "-".to_owned(),
            false => printable(&cell).into_owned(),
        }));
    }

    /// The text, one line each, the last one ended too.
    pub fn render(&self) -> String {
        let headers = self.headers.map(|(header, _)| header.to_owned());
        let width = |column: usize| {
            let rows = self.rows.iter().chain([&headers]);
            rows.map(|row| row[column].chars().count()).max().unwrap_or(0)
        };
        let widths: [usize; COLUMNS] = std::array::from_fn(width);
        let mut text = String::new();
        for row in [&headers].into_iter().chain(&self.rows) {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let padding = " ".repeat(widths[column] - cell.chars().count());
                let gap = if column == 0 { "" } else { "  " };
                match self.headers[column].1 {
                    Align::Left => line.extend([gap, cell, &padding]),
                    Align::Right => line.extend([gap, &padding, cell]),
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// The text without control characters.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return text.into();
    }
    let escaped = |c: char| match c.is_control() {
        true => c.escape_default().collect::<String>(),
        false => c.to_string(),
    };
    text.chars().map(escaped).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use super::{Align, Table};

    #[test]
    fn columns_line_up() {
        let mut table = Table::new([
            ("NAME", Align::Left),
            ("BYTES", Align::Right),
            ("NOTE", Align::Left),
        ]);
        table.row(["net1".into(), "7".into(), String::new()]);
        table.row(["größer".into(), "1234567".into(), "a\u{1b}[31m".into()]);
        let expected = "NAME      BYTES  NOTE\nnet1          7  -\ngrößer  1234567  a\\u{1b}[31m\n";
        assert_eq!(table.render(), expected);
    }

    #[test]
    fn an_empty_table_has_its_headers() {
        assert_eq!(
            Table::new([("A", Align::Left), ("B", Align::Right)]).render(),
            "A  B\n"
        );
    }
}
