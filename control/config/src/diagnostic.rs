//! What is wrong, where, and what would be right.
//!
//! A diagnostic is complete by itself: it prints as `file:line:column: message; help`, the form editors jump
//! to, and renders with the source line and a caret when the text is at hand. Lines and columns count from 1, columns
//! in characters. Messages are lower case and carry the offending value.

use std::fmt;

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// The configuration is accepted, but this is probably not what was meant.
    Warning,
}

/// One finding in one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Whether it refuses the configuration.
    pub severity: Severity,
    /// The name given to [`parse`](crate::parse).
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// The field, such as `spec.policies[3].destination[0]`; empty for the document as a whole.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl Diagnostic {
    /// The diagnostic with the line of `source` it points at and a caret below the column.
    ///
    /// Tabs become single spaces and a long line is cut around the column, so that the caret is always
    /// under the character it means.
    pub fn render(&self, source: &str) -> String {
        const SHOWN: usize = 100;
        let Some(line) = source.lines().nth((self.line as usize).saturating_sub(1)) else {
            return self.to_string();
        };
        let column = (self.column as usize).saturating_sub(1);
        let characters: Vec<char> = line
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let start = if characters.len() <= SHOWN {
            0
        } else {
            column.saturating_sub(SHOWN / 2)
        };
        let shown: String = characters.iter().skip(start).take(SHOWN).collect();
        let margin = " ".repeat(self.line.to_string().len());
        let label = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let mut text = format!(
            "{label}: {}\n{margin}--> {}:{}:{}\n{margin} |\n{} | {}\n{margin} | {}^",
            self.message,
            self.file,
            self.line,
            self.column,
            self.line,
            shown.trim_end(),
            " ".repeat(column - start.min(column)),
        );
        if let Some(help) = &self.help {
            text.push_str(&format!(" {help}"));
        }
        text
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let warning = if self.severity == Severity::Warning {
            "warning: "
        } else {
            ""
        };
        write!(
            f,
            "{}:{}:{}: {warning}{}",
            self.file, self.line, self.column, self.message
        )?;
        match &self.help {
            Some(help) => write!(f, "; {help}"),
            None => Ok(()),
        }
    }
}

/// The values of a hostile document end up in terminals and logs: no control characters, no endless lines.
fn printable(text: String) -> String {
    const LONGEST: usize = 400;
    if text.len() <= LONGEST && !text.contains(char::is_control) {
        return text;
    }
    let mut shown = String::with_capacity(text.len().min(2 * LONGEST));
    for (index, character) in text.chars().enumerate() {
        if index == LONGEST {
            shown.push('…');
            break;
        }
        match character.is_control() {
            true => shown.extend(character.escape_default()),
            false => shown.push(character),
        }
    }
    shown
}

/// All findings of one text, in the order of its lines once [`parse`](crate::parse) has returned them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Diagnostics {
    #[serde(skip)]
    file: String,
    found: Vec<Diagnostic>,
}

impl Diagnostics {
    pub(crate) fn new(file: &str) -> Self {
        Self {
            file: file.to_owned(),
            found: Vec::new(),
        }
    }

    pub(crate) fn file(&self) -> &str {
        &self.file
    }

    pub(crate) fn push(
        &mut self,
        severity: Severity,
        (line, column): (u32, u32),
        path: String,
        (message, help): (String, Option<String>),
    ) {
        self.found.push(Diagnostic {
            severity,
            file: self.file.clone(),
            line,
            column,
            path: printable(path),
            message: printable(message),
            help: help.map(printable),
        });
    }

    /// Stable: findings of one place stay in the order in which they were made.
    pub(crate) fn sort(&mut self) {
        self.found.sort_by_key(|found| (found.line, found.column));
    }

    /// Whether at least one finding refuses the configuration.
    pub fn has_errors(&self) -> bool {
        self.errors().next().is_some()
    }

    /// The findings that refuse the configuration.
    pub fn errors(&self) -> impl Iterator<Item = &Diagnostic> {
        self.found
            .iter()
            .filter(|found| found.severity == Severity::Error)
    }

    /// Every finding, errors and warnings.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.found.iter()
    }

    /// How many findings there are.
    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Every finding with its source line and caret, separated by an empty line.
    pub fn render(&self, source: &str) -> String {
        let rendered: Vec<String> = self.found.iter().map(|found| found.render(source)).collect();
        rendered.join("\n\n")
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for Diagnostics {
    type Item = Diagnostic;
    type IntoIter = std::vec::IntoIter<Diagnostic>;
    fn into_iter(self) -> Self::IntoIter {
        self.found.into_iter()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, found) in self.found.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{found}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}
