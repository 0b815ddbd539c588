//! `bulkhead`: the daemon and the command line of one firewall.
//!
//! The daemon is `bulkhead run`; every other command is a client of its socket, or needs none. Exit status 0: it
//! worked; 1: it did not; 2: bad usage, or a configuration that was refused and changed nothing.
#![forbid(unsafe_code)]

mod check;
mod cli;
mod client;
mod commands;
mod configuration;
mod convert;
mod daemon;
mod demo;
mod diff;
mod doctor;
mod filter;
mod firewall;
#[cfg(test)]
mod fixture;
mod groups;
mod hint;
mod kubernetes;
mod launch;
mod live;
mod log;
mod notify;
mod output;
mod own_file;
mod pins;
mod probes;
mod protocol;
mod render;
mod report;
mod server;
mod startup;
mod state;
mod table;
mod translate;
mod words;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use cli::{CheckArgs, Cli, Command, DoctorArgs};
use configuration::Refused;
use launch::Refusal;
use output::Format;
use protocol::{Failure, FailureCode};

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        // Whoever reads has had enough.
        Err(error) if output::is_closed(&error) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(refusal) = error.downcast_ref::<Refusal>() {
                eprintln!("{refusal}");
                return exit_code(&error);
            }
            match (error.downcast_ref::<Refused>(), error.downcast_ref::<Failure>()) {
                (Some(refused), _) => eprintln!("{refused}"),
                // The same, from a daemon.
                (_, Some(failure)) if failure.code == FailureCode::ConfigurationRefused => {
                    eprintln!("{failure}")
                }
                _ => eprintln!("bulkhead: {}", abridged(&format!("{error:#}"))),
            }
            exit_code(&error)
        }
    }
}

/// The beginning and the end of a long message: what the kernel's verifier has to say runs to thousands of lines, of
/// which the last ones tell.
fn abridged(message: &str) -> String {
    const FIRST: usize = 3;
    const LAST: usize = 12;
    let lines: Vec<&str> = message.trim_end().lines().collect();
    let Some(left_out) = lines.len().checked_sub(FIRST + LAST).filter(|number| *number > 1) else {
        return lines.join("\n");
    };
    tracing::debug!(message, "the whole error");
    let omission = format!("[… {left_out} lines, shown by RUST_LOG=debug …]");
    [&lines[..FIRST], &[&*omission], &lines[FIRST + left_out..]]
        .concat()
        .join("\n")
}

/// The exit status that an error means.
fn exit_code(error: &anyhow::Error) -> ExitCode {
    let refused = match error.downcast_ref::<Failure>() {
        Some(failure) => failure.code == FailureCode::ConfigurationRefused,
        None => error.is::<Refused>() || error.is::<Refusal>(),
    };
    ExitCode::from(if refused { 2 } else { 1 })
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Run(args) => return daemon::run(&args),
        Command::Demo(args) => return demo::run(args),
        Command::Hold => hold()?,
        Command::Check(args) => return check(&args),
        Command::Detach(args) => output::print(&pins::detach(&args)?)?,
        Command::Doctor(args) => return doctor(&args),
        Command::Commit(args) => commands::commit(args)?,
        Command::Confirm(args) => commands::confirm(args)?,
        Command::Rollback(args) => commands::rollback(args)?,
        Command::History(args) => commands::history(&args)?,
        Command::Diff(args) => commands::diff(args)?,
        Command::Crds => output::print(&bulkhead_kube::crd::yaml().map_err(anyhow::Error::msg)?)?,
        Command::Schema => output::print(&output::json(&bulkhead_config::json_schema())?)?,
        Command::Show(what) => commands::show(what)?,
        Command::Clear(what) => commands::clear(what)?,
        Command::Group(what) => commands::group(what)?,
        Command::Explain(args) => commands::explain(&args)?,
        Command::Observe(args) => commands::observe(&args)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What is wrong goes to standard error with its carets; programs read it from standard output.
fn check(args: &CheckArgs) -> Result<ExitCode> {
    let outcome = check::check(&args.files, args.interfaces)?;
    if args.output == Format::Table {
        eprint!("{}", outcome.findings);
    }
    output::print(&output::render(&outcome.report, args.output, render::checked)?)?;
    Ok(ExitCode::from(if outcome.report.ok { 0 } else { 2 }))
}

/// Interfaces are a container's, and go with it; those of this one stay, whatever becomes of the firewall's.
fn hold() -> Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT]).context("cannot install signal handlers")?;
    signals.forever().next();
    Ok(())
}

fn doctor(args: &DoctorArgs) -> Result<ExitCode> {
    let report = doctor::examine(args.config.as_deref())?;
    output::print(&output::render(&report, args.output, render::doctor)?)?;
    Ok(ExitCode::from(u8::from(!report.ok)))
}

#[cfg(test)]
mod tests {
    use super::abridged;

    #[test]
    fn long_messages_keep_both_ends() {
        let lines = |range: std::ops::Range<u32>| {
            range
                .map(|number| number.to_string())
                .collect::<Vec<_>>()
                .join("\n")
        };
        assert_eq!(abridged("one line\n"), "one line");
        assert_eq!(
            abridged(&lines(0..16)),
            lines(0..16),
            "one line left out would save nothing"
        );
        let shown = abridged(&lines(0..5_000));
        assert_eq!(shown.lines().count(), 16);
        assert!(
            shown.starts_with("0\n1\n2\n[… 4985 lines, ") && shown.ends_with("\n4998\n4999"),
            "{shown}"
        );
    }
}
