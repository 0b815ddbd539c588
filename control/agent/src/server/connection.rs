//! One connection: requests in, answers out, until either side has enough.
//!
//! A panic in a request ends its connection, not the daemon. A client that stops reading is dropped when its socket's
//! buffer has been full for [`PATIENCE`].

use std::io::{self, BufRead, BufReader, BufWriter, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bulkhead_config::MAX_DOCUMENT_BYTES;
use crossbeam::channel::RecvTimeoutError;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::Uid;
use serde::Serialize;

use crate::filter::FlowFilter;
use crate::firewall::{Answered, Asked, Firewall};
use crate::protocol::{
    Answer, Command, CommitOptions, Failure, FailureCode, MAX_COMMENT_BYTES, MAX_REQUEST_BYTES, MAX_SESSIONS,
    parse_request, read_line, write_answer,
};
use crate::report::Flow;
use crate::words;

/// How long a client may take for a request, and for reading what it asked for.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// How often a stream without flows looks whether its client is still there.
const GLANCE: Duration = Duration::from_millis(250);

pub(super) fn set_timeouts(stream: &UnixStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

/// Serves until the client has gone. Takes the firewall along to its end.
pub(super) fn serve(stream: &UnixStream, firewall: Arc<dyn Firewall>) {
    if let Err(error) = converse(stream, &*firewall) {
        tracing::debug!(%error, "a connection ended early");
    }
}

fn converse(stream: &UnixStream, firewall: &dyn Firewall) -> io::Result<()> {
    let user = user(stream);
    let mut reader = BufReader::new(stream);
    let mut out = BufWriter::new(stream);
    loop {
        let line = match read_line(&mut reader, MAX_REQUEST_BYTES) {
            Ok(Some(line)) => line,
            Ok(None) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                // What follows is the rest of that line: there is no telling where the next request begins.
                let failure = Failure::new(FailureCode::TooLarge, error);
                write_answer(&mut out, &Answer::<()>::Error(&failure))?;
                return out.flush();
            }
            Err(error) => return Err(error),
        };
        match parse_request(&line) {
            Ok(Command::Observe { filter, last, follow }) => {
                observe(stream, &mut out, firewall, &filter, last, follow)?;
            }
            Ok(Command::Commit { bytes, file, options }) => {
                let Some(document) = document(&mut reader, bytes)? else {
                    let message = format!(
                        "{file} has {bytes} bytes, and a document {MAX_DOCUMENT_BYTES} at most; nothing was changed"
                    );
                    let failure = Failure::new(FailureCode::TooLarge, message);
                    write_answer(&mut out, &Answer::<()>::Error(&failure))?;
                    return out.flush();
                };
                let outcome = asked(&user, options);
                reply(
                    &mut out,
                    outcome.and_then(|asked| firewall.commit(document, file, asked)),
                )?;
            }
            Ok(command) => answer(&mut out, firewall, &user, command)?,
            Err(failure) => write_answer(&mut out, &Answer::<()>::Error(&failure))?,
        }
        out.flush()?;
    }
}

/// Who is at the other end, as the kernel knows it.
fn user(stream: &UnixStream) -> String {
    match getsockopt(stream, PeerCredentials) {
        Ok(credentials) => words::user_name(Uid::from_raw(credentials.uid())),
        Err(_) => "unknown".to_owned(),
    }
}

/// The bytes behind a request; `None`, and nothing read, if there are more than a document may have.
fn document(reader: &mut impl BufRead, bytes: usize) -> io::Result<Option<Vec<u8>>> {
    if bytes > MAX_DOCUMENT_BYTES {
        return Ok(None);
    }
    let mut document = Vec::new();
    reader.by_ref().take(bytes as u64).read_to_end(&mut document)?;
    if document.len() < bytes {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(document))
}

fn asked(user: &str, options: CommitOptions) -> Answered<Asked> {
    let CommitOptions {
        author,
        comment,
        onto,
        confirm_seconds,
    } = options;
    if [Some(&comment), author.as_ref()]
        .into_iter()
        .flatten()
        .any(|text| text.len() > MAX_COMMENT_BYTES)
    {
        let message =
            format!("comment and author have {MAX_COMMENT_BYTES} bytes at most; nothing was changed");
        return Err(Failure::new(FailureCode::Refused, message));
    }
    Ok(Asked {
        user: user.to_owned(),
        author,
        comment,
        onto,
        confirm_seconds,
    })
}

fn answer(out: &mut impl io::Write, firewall: &dyn Firewall, user: &str, command: Command) -> io::Result<()> {
    match command {
        Command::ShowInterfaces {} => reply(out, firewall.interfaces()),
        Command::ShowZones {} => reply(out, firewall.zones()),
        Command::ShowPolicies {} => reply(out, firewall.policies()),
        Command::ShowNat {} => reply(out, firewall.nat()),
        Command::ShowScreens {} => reply(out, firewall.screens()),
        Command::ShowGroups { group, members } => reply(out, firewall.groups(group.as_deref(), members)),
        Command::AddToGroup {
            group,
            addresses,
            seconds,
        } => {
            let lasting = seconds.map(Duration::from_secs);
            reply(out, firewall.add_to_group(&group, &addresses, lasting))
        }
        Command::RemoveFromGroup { group, addresses } => {
            reply(out, firewall.remove_from_group(&group, &addresses))
        }
        Command::ShowCounters { all } => reply(out, firewall.counters(all)),
        Command::ShowMemory {} => reply(out, firewall.memory()),
        Command::ShowSessions { filter, limit } => {
            reply(out, firewall.sessions(&filter, limit.min(MAX_SESSIONS)))
        }
        Command::ClearSessions { filter, all } if filter.is_empty() && !all => {
            let message = "this would end every session; narrow it down, or say --all";
            reply::<()>(out, Err(Failure::new(FailureCode::Refused, message)))
        }
        Command::ClearSessions { filter, .. } => reply(out, firewall.clear_sessions(&filter)),
        Command::Explain { question } => reply(out, firewall.explain(&question)),
        Command::Confirm { author } => {
            let options = CommitOptions {
                author,
                ..CommitOptions::default()
            };
            reply(
                out,
                asked(user, options).and_then(|asked| firewall.confirm(&asked)),
            )
        }
        Command::Rollback { revision, options } => reply(
            out,
            asked(user, options).and_then(|asked| firewall.roll_back(revision, asked)),
        ),
        Command::History {} => reply(out, firewall.history()),
        Command::ShowConfig { revision } => reply(out, firewall.shown_config(revision)),
        Command::Commit { .. } | Command::Observe { .. } => {
            unreachable!("these are answered where the stream is at hand")
        }
    }
}

fn reply<T: Serialize>(out: &mut impl io::Write, outcome: Answered<T>) -> io::Result<()> {
    match outcome {
        Ok(report) => write_answer(out, &Answer::Ok(&report)),
        Err(failure) => write_answer(out, &Answer::<()>::Error(&failure)),
    }
}

/// Past flows, then those to come. It subscribes first, so that none is missed in between; what was both remembered
/// and delivered in that moment is told once.
fn observe(
    stream: &UnixStream,
    out: &mut impl io::Write,
    firewall: &dyn Firewall,
    filter: &FlowFilter,
    last: usize,
    follow: bool,
) -> io::Result<()> {
    let next = follow.then(|| firewall.subscribe());
    let mut recent = if last > 0 {
        firewall.recent_flows()
    } else {
        Vec::new()
    };
    let matching: Vec<&Flow> = recent.iter().filter(|flow| filter.matches(flow)).collect();
    for flow in &matching[matching.len().saturating_sub(last)..] {
        write_answer(&mut *out, &Answer::Ok(flow))?;
    }
    let Some(next) = next else {
        return write_answer(out, &Answer::<()>::End(true));
    };
    out.flush()?;
    let mut glance = Instant::now() + GLANCE;
    loop {
        match next(GLANCE) {
            Ok(flow) if filter.matches(&flow) && !recent.contains(&flow) => {
                write_answer(&mut *out, &Answer::Ok(&flow))?;
                out.flush()?;
            }
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return write_answer(out, &Answer::<()>::End(true)),
        }
        if Instant::now() >= glance {
            if has_gone(stream)? {
                return Ok(());
            }
            // What arrives from here on happened after the past was read.
            recent.clear();
            glance = Instant::now() + GLANCE;
        }
    }
}

/// A client that watches sends nothing, so anything readable is its end.
fn has_gone(stream: &UnixStream) -> io::Result<bool> {
    let mut waiting = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
    let ready = poll(&mut waiting, PollTimeout::ZERO)?;
    Ok(ready > 0 && waiting[0].any().unwrap_or(true))
}
