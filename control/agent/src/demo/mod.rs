//! `bulkhead demo`: four segments and the Internet around one firewall, real conversations between all of them, and a
//! matrix of who reached whom.
//!
//! Owns every namespace, process, server and directory it makes; all of it goes when this returns, fails, panics or is
//! interrupted. The expected matrix is written by hand ([`matrix`]) and three witnesses are held against it: what
//! the clients experienced, the source addresses the servers saw, and what the firewall says of itself. Refuses to
//! call a run good in which any of them differs. Assumes root.

mod conversations;
mod firewall;
mod judge;
mod keeper;
mod leftovers;
mod matrix;
mod report;
mod segments;
mod stop;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use bulkhead_testkit::Topology;

use self::conversations::{OpenConnection, Servers};
use self::firewall::Firewall;
use self::judge::{Cell, Said};
use self::matrix::Conversation;
use self::report::{Kept, Place, Report};
use self::segments::{Family, Segment};
use self::stop::{Interrupted, Stop};
use crate::client::Client;
use crate::doctor;
use crate::output::{self, print};
use crate::protocol::Command;
use crate::report::{CheckStatus, Sessions};

/// Arguments of `bulkhead demo`.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {
    /// Leave everything up when the report is done, and say what to try
    #[arg(long, conflicts_with = "clean")]
    keep: bool,
    /// Remove what earlier demos left up
    #[arg(long)]
    clean: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// Print every conversation by itself, and the firewall's log
    #[arg(long, short)]
    verbose: bool,
    /// Be the process that keeps everything up; started by --keep.
    #[arg(long, hide = true, requires = "keep")]
    keeper: bool,
}

/// The exit status of a demo that ran to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    /// Every cell is as the policy says.
    Good = 0,
    /// Some are not.
    Wrong = 1,
}

/// Runs the demo.
///
/// # Errors
/// If it cannot run here, or the firewall does not start.
pub fn run(args: DemoArgs) -> Result<ExitCode> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the demo makes network namespaces and loads eBPF programs, which takes root; run it with sudo"
    );
    if args.clean {
        print(&format!("{}\n", leftovers::clean()?.join("\n")))?;
        return Ok(ExitCode::SUCCESS);
    }
    let stop = Stop::install()?;
    if args.keep && !args.keeper {
        return keeper::start(&args, &stop);
    }
    match perform(&args, &stop) {
        Ok(status) => Ok(ExitCode::from(status as u8)),
        Err(error) => match error.downcast_ref() {
            Some(interrupted @ Interrupted(signal)) => {
                eprintln!("{interrupted}; everything is cleaned up");
                // What a shell reports of a process that a signal ended.
                let number = u8::try_from(*signal).unwrap_or(0);
                Ok(ExitCode::from(128_u8.saturating_add(number)))
            }
            None => Err(error),
        },
    }
}

/// All of it. Whatever was made is gone when this returns.
fn perform(args: &DemoArgs, stop: &Stop) -> Result<Status> {
    let began = Instant::now();
    let text = |text: &str| if args.json { Ok(()) } else { print(text) };
    text(&format!("{}\n", report::announcement()))?;
    require_kernel()?;
    for line in leftovers::sweep()? {
        eprintln!("{line}");
    }
    text(&report::plan())?;

    let topology = segments::build()?;
    stop.check()?;
    let servers = Servers::start(&topology)?;
    stop.check()?;
    let firewall = Firewall::start(topology.firewall(), stop)?;
    text(&format!(
        "\n  `bulkhead run` guards all {} interfaces after {} ms.\n",
        Segment::ALL.len(),
        firewall.started_in.as_millis()
    ))?;

    let mut client = firewall.connect()?;
    let cells = converse(&topology, &mut client, stop)
        .with_context(|| format!("the firewall's log:\n{}", firewall.last_words()))?;
    text(&report::matrix(&cells))?;
    text(&report::explanations(&cells))?;
    if args.verbose {
        text(&report::every_conversation(&cells))?;
    }

    let live = live_sessions(&topology, &mut client, stop)?;
    text(&report::sessions(&live.sessions, &live.open, args.verbose))?;
    let ok = live.faults.is_empty() && cells.iter().all(|cell| cell.faults.is_empty());
    let report = Report {
        ok,
        firewall_started_in_ms: milliseconds(firewall.started_in),
        elapsed_ms: milliseconds(began.elapsed()),
        segments: places(&topology),
        conversations: cells,
        sessions: live.sessions,
        session_faults: live.faults,
        kept: args.keep.then(|| kept(&topology, &firewall)).transpose()?,
    };
    if args.verbose {
        text(&format!("\nThe firewall's log:\n{}", firewall.log()))?;
    }
    text(&report::conclusion(&report))?;
    if let Some(kept) = &report.kept {
        text(&report::hints(&report, kept))?;
    }
    if args.json {
        print(&output::json(&report)?)?;
    }
    let status = if ok { Status::Good } else { Status::Wrong };
    if args.keep {
        keeper::stay(status, stop)?;
    }
    // In this order, whatever the compiler would choose: nobody talks when the firewall goes.
    drop((client, servers, firewall, topology));
    Ok(status)
}

/// Refuses a machine on which the firewall would not start, with what to do about it.
fn require_kernel() -> Result<()> {
    let lacking: Vec<_> = doctor::examine(None)?
        .checks
        .into_iter()
        .filter(|check| check.status == CheckStatus::Fail)
        .map(|check| {
            let remedy = check
                .remedy
                .map(|remedy| format!("; {remedy}"))
                .unwrap_or_default();
            format!("  {}: {}{remedy}", check.name, check.found)
        })
        .collect();
    ensure!(
        lacking.is_empty(),
        "the demo cannot run on this machine:\n{}",
        lacking.join("\n")
    );
    Ok(())
}

/// Asks the firewall about each conversation, then holds them all, and judges.
fn converse(topology: &Topology, client: &mut Client, stop: &Stop) -> Result<Vec<Cell>> {
    let conversations = Conversation::all();
    // Before anything was said, so that no answer speaks of a session that exists already.
    let said: Vec<Said> = conversations
        .iter()
        .map(|conversation| Ok(firewall::explain(client, conversation)?.into()))
        .collect::<Result<_>>()?;
    let held = conversations::hold_all(topology, &conversations, stop)?;
    Ok(conversations
        .into_iter()
        .zip(held)
        .zip(said)
        .map(|((conversation, held), said)| Cell::new(conversation, held, said))
        .collect())
}

/// The session table while connections are open.
struct Live {
    sessions: Sessions,
    /// The sessions of the open connections.
    open: Vec<u64>,
    /// Connections that did not open, and open ones that have no session.
    faults: Vec<String>,
}

fn live_sessions(topology: &Topology, client: &mut Client, stop: &Stop) -> Result<Live> {
    let connections = conversations::open_connections(topology, stop)?;
    let sessions: Sessions = client.ask(&Command::ShowSessions {
        filter: Default::default(),
        limit: crate::protocol::DEFAULT_SESSIONS,
    })?;
    let (mut open, mut faults) = (Vec::new(), Vec::new());
    for connection in &connections {
        let OpenConnection { own, server, .. } = match connection {
            Ok(connection) => connection,
            Err(fault) => {
                faults.push(fault.clone());
                continue;
            }
        };
        let found = sessions.sessions.iter().find(|session| {
            let first = &session.original;
            session.established
                && (first.source_address, first.source_port) == (own.ip(), own.port())
                && (first.destination_address, first.destination_port) == (server.ip(), server.port())
        });
        match found {
            Some(session) => open.push(session.id),
            None => faults.push(format!(
                "the open connection {own} to {server} is not in the session table"
            )),
        }
    }
    Ok(Live {
        sessions,
        open,
        faults,
    })
}

fn places(topology: &Topology) -> Vec<Place> {
    Segment::ALL
        .into_iter()
        .map(|segment| Place {
            segment,
            namespace: segments::host(topology, segment).namespace.name().to_owned(),
            firewall_interface: segment.interface(),
            ipv4: segment.host(Family::V4).to_string(),
            ipv6: segment.host(Family::V6).to_string(),
        })
        .collect()
}

fn kept(topology: &Topology, firewall: &Firewall) -> Result<Kept> {
    Ok(Kept {
        keeper_process: std::process::id(),
        firewall_namespace: topology.firewall().name().to_owned(),
        firewall_process: firewall.process_id(),
        socket: firewall.socket().display().to_string(),
        log: firewall.log_path().display().to_string(),
        binary: firewall::own_binary()?.display().to_string(),
    })
}

fn milliseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
