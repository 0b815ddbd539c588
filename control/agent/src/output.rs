//! What goes to standard output: tables, JSON, YAML.
//!
//! A reader that has gone away (`bulkhead show sessions | head`) is no error: see [`is_closed`].

use std::io::{self, Write as _};

use anyhow::{Context as _, Result};
use serde::Serialize;

/// How a report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people
    Table,
    /// For programs: one document, stable names
    Json,
    /// For programs: the same as YAML
    Yaml,
}

/// A report in a format; `table` is only called for people.
pub fn render<T: Serialize>(report: &T, format: Format, table: impl FnOnce(&T) -> String) -> Result<String> {
    match format {
        Format::Table => Ok(table(report)),
        Format::Json => json(report),
        Format::Yaml => serde_saphyr::to_string(report).context("cannot write the report as YAML"),
    }
}

/// A report as JSON, indented.
pub fn json<T: Serialize>(report: &T) -> Result<String> {
    let text = serde_json::to_string_pretty(report).context("cannot write the report as JSON")?;
    Ok(text + "\n")
}

/// Writes to standard output at once.
pub fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .context("cannot write to standard output")
}

/// Whether the error is that nobody reads standard output any more.
pub fn is_closed(error: &anyhow::Error) -> bool {
    let io = error.root_cause().downcast_ref::<io::Error>();
    io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::report::Sessions;

    fn report() -> Sessions {
        let sessions = fixture::reported_sessions();
        Sessions {
            total: sessions.len(),
            sessions,
        }
    }

    #[test]
    fn json_is_read_back_as_it_was() {
        let json = render(&report(), Format::Json, |_| unreachable!()).expect("JSON");
        assert_eq!(
            serde_json::from_str::<Sessions>(&json).expect("a report"),
            report()
        );
    }

    #[test]
    fn yaml_says_what_json_says() {
        let yaml = render(&report(), Format::Yaml, |_| unreachable!()).expect("YAML");
        for line in [
            "total: 3",
            "nat_rule: null",
            "source_port: 43210",
            "timeout_seconds: 7440.0",
        ] {
            assert!(
                yaml.lines()
                    .any(|found| found.trim_start_matches([' ', '-']) == line),
                "{line:?} is not in\n{yaml}"
            );
        }
        // An IPv6 address has colons, which plain YAML scalars may not have everywhere.
        assert!(yaml.contains("2001:db8:10:4::20"), "{yaml}");
    }

    #[test]
    fn a_closed_pipe_is_told_from_other_errors() {
        let error =
            |kind| anyhow::Error::from(io::Error::from(kind)).context("cannot write to standard output");
        assert!(is_closed(&error(io::ErrorKind::BrokenPipe)));
        assert!(!is_closed(&error(io::ErrorKind::StorageFull)));
    }
}
