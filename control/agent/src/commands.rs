//! What the command line does with a daemon: ask, render, print.

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cli::{
    Clear, CommitArgs, ConfirmArgs, DiffArgs, ExplainArgs, FlowFormat, GroupCommand, ObserveArgs,
    RollbackArgs, Show, ShowArgs,
};
use crate::client::Client;
use crate::configuration::Configuration;
use crate::output::{Format, print, render as rendered};
use crate::protocol::{Command, Failure};
use crate::report::{Cleared, Committed, Confirmed, Explanation, Flow, ShownConfig};
use crate::{diff, output, render, words};

/// `show …`
pub fn show(what: Show) -> Result<()> {
    match what {
        Show::Interfaces(args) => ask(&args, &Command::ShowInterfaces {}, render::interfaces),
        Show::Zones(args) => ask(&args, &Command::ShowZones {}, render::zones),
        Show::Policies(args) => ask(&args, &Command::ShowPolicies {}, render::policies),
        Show::Nat(args) => ask(&args, &Command::ShowNat {}, render::nat),
        Show::Screens(args) => ask(&args, &Command::ShowScreens {}, render::screens),
        Show::Groups(args) => {
            let command = Command::ShowGroups {
                group: args.name,
                members: args.members,
            };
            ask(&args.show, &command, render::groups)
        }
        Show::Counters(args) if args.memory => ask(&args.show, &Command::ShowMemory {}, render::memory),
        Show::Counters(args) => ask(
            &args.show,
            &Command::ShowCounters { all: args.all },
            render::counters,
        ),
        Show::Config(args) => ask(
            &args.show,
            &Command::ShowConfig {
                revision: args.revision,
            },
            // As it was written: for a file, for a pipe.
            |shown: &ShownConfig| shown.document.clone(),
        ),
        Show::Sessions(args) => {
            let command = Command::ShowSessions {
                filter: args.filter.into(),
                limit: args.limit,
            };
            ask(&args.show, &command, render::sessions)
        }
    }
}

/// `commit`
pub fn commit(args: CommitArgs) -> Result<()> {
    let document = Configuration::bytes(&args.file)?;
    let command = Command::Commit {
        bytes: document.len(),
        file: args.file.display().to_string(),
        options: args.options.into(),
    };
    let mut client = Client::connect(&args.show.socket.socket).context("nothing was committed")?;
    let committed: Committed = client.ask_with(&command, &document).map_err(uncertain)?;
    print(&output::render(&committed, args.show.output, render::committed)?)
}

/// A daemon that dies in the middle may have committed.
fn uncertain(error: anyhow::Error) -> anyhow::Error {
    match error.is::<Failure>() {
        true => error,
        false => error
            .context("whether it was committed is not known; `bulkhead history` says when the daemon runs"),
    }
}

/// `confirm`
pub fn confirm(args: ConfirmArgs) -> Result<()> {
    let command = Command::Confirm { author: args.author };
    ask(&args.show, &command, |confirmed: &Confirmed| {
        format!("revision {} stays\n", confirmed.revision)
    })
}

/// `rollback`
pub fn rollback(args: RollbackArgs) -> Result<()> {
    let command = Command::Rollback {
        revision: args.revision,
        options: args.options.into(),
    };
    let mut client = Client::connect(&args.show.socket.socket).context("nothing was committed")?;
    let committed: Committed = client.ask(&command).map_err(uncertain)?;
    print(&output::render(&committed, args.show.output, render::committed)?)
}

/// `history`
pub fn history(args: &ShowArgs) -> Result<()> {
    ask(args, &Command::History {}, render::history)
}

/// `diff`
pub fn diff(args: DiffArgs) -> Result<()> {
    let differences = diff::differences(args.first, args.second, &args.show.socket.socket)?;
    print(&output::render(
        &differences,
        args.show.output,
        render::differences,
    )?)
}

/// `clear …`
pub fn clear(what: Clear) -> Result<()> {
    let Clear::Sessions(args) = what;
    let command = Command::ClearSessions {
        filter: args.filter.into(),
        all: args.all,
    };
    ask(&args.show, &command, |cleared: &Cleared| {
        format!(
            "{} cleared\n",
            words::count(cleared.cleared as u64, "session", "sessions")
        )
    })
}

/// `group …`
pub fn group(what: GroupCommand) -> Result<()> {
    let (command, show) = match what {
        GroupCommand::Add(args) => {
            let command = Command::AddToGroup {
                group: args.name,
                addresses: args.addresses,
                seconds: args.lasting.map(|lasting| lasting.as_secs()),
            };
            (command, args.show)
        }
        GroupCommand::Remove(args) => {
            let command = Command::RemoveFromGroup {
                group: args.name,
                addresses: args.addresses,
            };
            (command, args.show)
        }
    };
    ask(&show, &command, render::group_changed)
}

/// `explain`
pub fn explain(args: &ExplainArgs) -> Result<()> {
    let command = Command::Explain {
        question: args.question(),
    };
    ask(&args.show, &command, |report: &Explanation| {
        render::explanation(report)
    })
}

/// `observe`
pub fn observe(args: &ObserveArgs) -> Result<()> {
    let command = Command::Observe {
        filter: args.filter(),
        last: args.past(),
        follow: args.follow,
    };
    let mut client = Client::connect(&args.socket.socket)?;
    let node = nix::sys::utsname::uname()
        .map(|name| name.nodename().to_string_lossy().into_owned())
        .unwrap_or_default();
    if args.output == FlowFormat::Table {
        print(&render::flow_header())?;
    }
    client.stream(&command, |flow: Flow| {
        print(&match args.output {
            FlowFormat::Table => render::flow(&flow),
            FlowFormat::Json => line(&flow)?,
            FlowFormat::Jsonpb => line(&render::flow_jsonpb(&flow, &node))?,
            FlowFormat::Yaml => format!("---\n{}", rendered(&flow, Format::Yaml, |_| String::new())?),
        })
    })
}

fn line(value: &impl Serialize) -> Result<String> {
    Ok(serde_json::to_string(value)? + "\n")
}

fn ask<T: Serialize + DeserializeOwned>(
    args: &ShowArgs,
    command: &Command,
    table: impl FnOnce(&T) -> String,
) -> Result<()> {
    let report: T = Client::connect(&args.socket.socket)?.ask(command)?;
    print(&output::render(&report, args.output, table)?)
}
