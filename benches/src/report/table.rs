//! Rows of text under a title, for the terminal and as Markdown.

use std::fmt::Write as _;

/// A table.
pub struct Table {
    /// What stands above.
    pub title: &'static str,
    head: Vec<String>,
    /// Cells, as many in each as the head has.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty one.
    pub fn new(title: &'static str, head: &[&str]) -> Self {
        Self::with_head(title, head.iter().map(|&cell| cell.to_owned()).collect())
    }

    /// An empty one with a head of any length.
    pub const fn with_head(title: &'static str, head: Vec<String>) -> Self {
        Self {
            title,
            head,
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.push(cells.into());
    }

    /// Adds a row of as many cells as the head has.
    pub fn push(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.head.len());
        self.rows.push(cells);
    }

    /// As Markdown.
    pub fn markdown(&self) -> String {
        let mut text = format!("## {}\n\n", self.title);
        let rule = vec!["---".to_owned(); self.head.len()];
        for row in [&self.head, &rule].into_iter().chain(&self.rows) {
            let _infallible = writeln!(text, "| {} |", row.join(" | "));
        }
        text
    }

    /// In columns.
    pub fn terminal(&self) -> String {
        let rows: Vec<&Vec<String>> = std::iter::once(&self.head).chain(&self.rows).collect();
        let widths: Vec<usize> = (0..self.head.len())
            .map(|column| {
                rows.iter()
                    .map(|row| row[column].chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let mut text = format!("{}\n", self.title);
        for row in rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let _infallible = write!(line, "  {cell:width$}");
            }
            let _infallible = writeln!(text, "{}", line.trim_end());
        }
        text
    }
}
