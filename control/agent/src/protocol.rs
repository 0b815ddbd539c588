//! The daemon's protocol: one line of JSON asks, one line answers, over a Unix stream socket.
//!
//! A request is `{"version": 1, "command": "show_sessions", …}` with the fields of its [`Command`]; unknown ones are
//! refused. An answer is `{"version": 1, "ok": …}` with a shape of [`crate::report`], or `{"version": 1, "error":
//! {"code": …, "message": …}}`. A connection carries any number of requests, one after the other. `commit` alone is followed by
//! bytes: the document, as many as its `bytes` says. `observe` alone is answered by a stream: one `ok` per flow, ended by
//! `{"version": 1, "end": true}`; a stream that stops without it was cut off.

use std::fmt;
use std::io::{self, BufRead, Read as _};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::filter::{FlowFilter, SessionFilter};
use crate::report::Question;

/// Raised when something that exists changes its meaning.
pub const VERSION: u64 = 1;
/// Where the daemon listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/bulkhead/bulkhead.sock";
/// Longest request line.
pub const MAX_REQUEST_BYTES: usize = 64 * 1024;
/// Longest comment of a commit, and longest author.
pub const MAX_COMMENT_BYTES: usize = 4 * 1024;
/// Longest answer line that the command line takes: a hundred thousand sessions.
pub const MAX_ANSWER_BYTES: usize = 128 * 1024 * 1024;
/// Most sessions in one answer: about 70 MB of JSON.
pub const MAX_SESSIONS: usize = 100_000;
/// Sessions in one answer unless told otherwise.
pub const DEFAULT_SESSIONS: usize = 1_000;

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// [`crate::report::Interfaces`]
    ShowInterfaces {},
    /// [`crate::report::Zones`]
    ShowZones {},
    /// [`crate::report::Policies`]
    ShowPolicies {},
    /// [`crate::report::Nat`]
    ShowNat {},
    /// [`crate::report::Screens`]
    ShowScreens {},
    /// [`crate::report::Groups`]
    ShowGroups {
        /// Only this one.
        #[serde(default)]
        group: Option<String>,
        /// All members of each source, not only the first few.
        #[serde(default)]
        members: bool,
    },
    /// [`crate::report::GroupChanged`]
    AddToGroup {
        /// The group.
        group: String,
        /// Addresses, prefixes and ranges.
        addresses: Vec<String>,
        /// Only for so long.
        #[serde(default)]
        seconds: Option<u64>,
    },
    /// [`crate::report::GroupChanged`]
    RemoveFromGroup {
        /// The group.
        group: String,
        /// Addresses, prefixes and ranges.
        addresses: Vec<String>,
    },
    /// [`crate::report::Counters`]
    ShowCounters {
        /// Those that are zero too.
        #[serde(default)]
        all: bool,
    },
    /// [`crate::report::Memory`]
    ShowMemory {},
    /// [`crate::report::Sessions`]
    ShowSessions {
        /// Which.
        #[serde(default)]
        filter: SessionFilter,
        /// How many, at most [`MAX_SESSIONS`].
        #[serde(default = "default_sessions")]
        limit: usize,
    },
    /// [`crate::report::Cleared`]
    ClearSessions {
        /// Which.
        #[serde(default)]
        filter: SessionFilter,
        /// Must be set for an empty filter, so that nobody ends every session by leaving something out.
        #[serde(default)]
        all: bool,
    },
    /// [`crate::report::Explanation`]
    Explain {
        /// The conversation.
        question: Question,
    },
    /// [`crate::report::Committed`]. The document follows the line, byte by byte.
    Commit {
        /// Its length.
        bytes: usize,
        /// Its name, for diagnostics and the history.
        file: String,
        /// The circumstances.
        #[serde(default)]
        options: CommitOptions,
    },
    /// [`crate::report::Confirmed`]
    Confirm {
        /// Who says they do it.
        #[serde(default)]
        author: Option<String>,
    },
    /// [`crate::report::Committed`]
    Rollback {
        /// The revision whose document comes back; without it, the one before that in force.
        #[serde(default)]
        revision: Option<u64>,
        /// The circumstances.
        #[serde(default)]
        options: CommitOptions,
    },
    /// [`crate::report::History`]
    History {},
    /// [`crate::report::ShownConfig`]
    ShowConfig {
        /// Which; without it, that in force.
        #[serde(default)]
        revision: Option<u64>,
    },
    /// A stream of [`crate::report::Flow`]
    Observe {
        /// Which.
        #[serde(default)]
        filter: FlowFilter,
        /// How many past flows first.
        #[serde(default)]
        last: usize,
        /// Whether to go on with those to come.
        #[serde(default)]
        follow: bool,
    },
}

/// The circumstances of a commit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitOptions {
    /// Who says they do it; without it, the user that the kernel names.
    #[serde(default)]
    pub author: Option<String>,
    /// Why.
    #[serde(default)]
    pub comment: String,
    /// The revision it was made against: refused if another is in force.
    #[serde(default)]
    pub onto: Option<u64>,
    /// After how many seconds the revision before comes back unless this one is confirmed.
    #[serde(default)]
    pub confirm_seconds: Option<u64>,
}

const fn default_sessions() -> usize {
    DEFAULT_SESSIONS
}

/// A request that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// For programs.
    pub code: FailureCode,
    /// For people: what is wrong, and what to do.
    pub message: String,
}

/// Kinds of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// The request is not JSON, names no known command or has a wrong field.
    BadRequest,
    /// The request speaks another version of the protocol.
    UnsupportedVersion,
    /// The request is longer than [`MAX_REQUEST_BYTES`].
    TooLarge,
    /// Too many connections at once.
    Busy,
    /// What was asked for does not exist, or may not be done like this.
    Refused,
    /// The document is wrong; the message shows every fault with its line.
    ConfigurationRefused,
    /// Another revision is in force than the commit was made against, or one awaits confirmation.
    Conflict,
    /// The data plane failed.
    Failed,
}

impl Failure {
    /// A failure for a person to read.
    pub fn new(code: FailureCode, message: impl fmt::Display) -> Self {
        Self {
            code,
            message: message.to_string(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// A line of the daemon's answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer<'a, T> {
    /// It worked.
    Ok(&'a T),
    /// It did not.
    Error(&'a Failure),
    /// A stream is complete.
    End(bool),
}

#[derive(Serialize)]
struct Line<'a, T> {
    version: u64,
    #[serde(flatten)]
    answer: &'a Answer<'a, T>,
}

/// Writes one line of an answer.
pub fn write_answer<T: Serialize>(mut out: impl io::Write, answer: &Answer<'_, T>) -> io::Result<()> {
    let line = Line {
        version: VERSION,
        answer,
    };
    serde_json::to_writer(&mut out, &line).map_err(io::Error::from)?;
    out.write_all(b"\n")
}

/// The line of a request, its end included.
pub fn request_line(command: &Command) -> serde_json::Result<String> {
    let mut value = serde_json::to_value(command)?;
    if let Value::Object(fields) = &mut value {
        fields.insert("version".to_owned(), VERSION.into());
    }
    Ok(format!("{value}\n"))
}

/// Reads a request.
pub fn parse_request(line: &[u8]) -> Result<Command, Failure> {
    let bad =
        |error: &dyn fmt::Display| Failure::new(FailureCode::BadRequest, format!("bad request: {error}"));
    let mut value: Value = serde_json::from_slice(line).map_err(|error| bad(&error))?;
    let version = value.as_object_mut().and_then(|fields| fields.remove("version"));
    match version.as_ref().map(Value::as_u64) {
        Some(Some(VERSION)) => {}
        Some(_) => {
            let version = version.unwrap_or_default();
            let message = format!(
                "this daemon speaks version {VERSION} of the protocol, not {version}; use its own command line"
            );
            return Err(Failure::new(FailureCode::UnsupportedVersion, message));
        }
        None => {
            return Err(bad(&format!(
                "\"version\" is missing; this daemon speaks version {VERSION}"
            )));
        }
    }
    serde_json::from_value(value).map_err(|error| bad(&error))
}

/// Reads one line of at most `limit` bytes without its end. `None`: the other side has closed.
///
/// # Errors
/// `InvalidData` for a longer line, after which the connection is of no more use; `UnexpectedEof` for half a line.
pub fn read_line(reader: &mut impl BufRead, limit: usize) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    reader
        .by_ref()
        .take(limit as u64 + 1)
        .read_until(b'\n', &mut line)?;
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(line)),
        Some(_) if line.len() >= limit => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a line is longer than {limit} bytes"),
        )),
        Some(_) => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    #[test]
    fn requests_survive_the_way() {
        let commands = [
            Command::ShowInterfaces {},
            Command::ShowCounters { all: true },
            Command::ShowScreens {},
            Command::ShowSessions {
                filter: SessionFilter {
                    protocol: Some(6),
                    source: Some("10.0.0.0/8".parse().expect("a prefix")),
                    ..SessionFilter::default()
                },
                limit: 7,
            },
            Command::Observe {
                filter: FlowFilter::default(),
                last: 3,
                follow: true,
            },
        ];
        for command in commands {
            let line = request_line(&command).expect("JSON");
            assert!(
                line.ends_with('\n') && line.matches('\n').count() == 1,
                "{line:?}"
            );
            assert_eq!(parse_request(line.trim_end().as_bytes()), Ok(command));
        }
    }

    #[test]
    fn optional_fields_may_be_left_out() {
        let parsed = parse_request(br#"{"version":1,"command":"show_sessions"}"#);
        let expected = Command::ShowSessions {
            filter: SessionFilter::default(),
            limit: DEFAULT_SESSIONS,
        };
        assert_eq!(parsed, Ok(expected));
    }

    #[test]
    fn bad_requests_are_named() {
        for (line, code, part) in [
            ("", FailureCode::BadRequest, "EOF"),
            ("[]", FailureCode::BadRequest, "\"version\" is missing"),
            (
                r#"{"command":"show_zones"}"#,
                FailureCode::BadRequest,
                "\"version\" is missing",
            ),
            (
                r#"{"version":2,"command":"show_zones"}"#,
                FailureCode::UnsupportedVersion,
                "version 1 of the protocol, not 2",
            ),
            (
                r#"{"version":"1","command":"show_zones"}"#,
                FailureCode::UnsupportedVersion,
                "not \"1\"",
            ),
            (
                r#"{"version":1,"command":"format_disk"}"#,
                FailureCode::BadRequest,
                "format_disk",
            ),
            (
                r#"{"version":1,"command":"show_zones","x":1}"#,
                FailureCode::BadRequest,
                "unknown field `x`",
            ),
            (
                r#"{"version":1,"command":"clear_sessions","filter":{"protocl":6}}"#,
                FailureCode::BadRequest,
                "unknown field `protocl`",
            ),
        ] {
            let failure = parse_request(line.as_bytes()).expect_err(line);
            assert_eq!(failure.code, code, "{line}");
            assert!(failure.message.contains(part), "{line}: {}", failure.message);
        }
    }

    #[test]
    fn answers_are_single_lines_of_a_stable_shape() {
        let line = |answer: &Answer<'_, [u8; 2]>| {
            let mut out = Vec::new();
            write_answer(&mut out, answer).expect("a vector");
            String::from_utf8(out).expect("JSON")
        };
        assert_eq!(line(&Answer::Ok(&[1, 2])), "{\"version\":1,\"ok\":[1,2]}\n");
        assert_eq!(line(&Answer::End(true)), "{\"version\":1,\"end\":true}\n");
        let failure = Failure::new(FailureCode::TooLarge, "line\nbreak");
        assert_eq!(
            line(&Answer::Error(&failure)),
            "{\"version\":1,\"error\":{\"code\":\"too_large\",\"message\":\"line\\nbreak\"}}\n"
        );
    }

    #[test]
    fn lines_are_limited() {
        let read = |text: &'static str| read_line(&mut BufReader::new(text.as_bytes()), 4);
        assert_eq!(read("").unwrap(), None);
        assert_eq!(read("\n").unwrap(), Some(vec![]));
        assert_eq!(read("abcd\nrest").unwrap(), Some(b"abcd".to_vec()));
        assert_eq!(read("abcde\n").unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(read("abcdef").unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(read("abc").unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
