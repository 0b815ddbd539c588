//! `bulkhead run`: from a file to an enforced configuration, until a signal.
//!
//! Owns the order: the configuration is checked before anything is touched, the socket's path and the revisions are claimed
//! before the engine starts, the engine enforces before anybody is told that it does. SIGHUP reads the file again and commits it; a file
//! that is refused changes nothing. SIGTERM and SIGINT stop; what is pinned goes on enforcing until the next daemon takes it
//! over, and if nothing is, or with `--on-exit detach`, the fail-closed rules stay, so nothing is forwarded until a daemon
//! runs again. Assumes that the main thread is in the network namespace of the data interfaces.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::{Context as _, Result};
use bulkhead_config::Config;
use bulkhead_dataplane::{
    engine::{Engine, Options},
    heap,
};
use bulkhead_revisions::{Source, Store};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::configuration::Configuration;
use crate::firewall::{Asked, Firewall as _};
use crate::groups::{Groups, Tables};
use crate::live::{CommitError, Commits, LiveFirewall, Proposal, log_error, now_ms};
use crate::log::{self, LogFormat};
use crate::pins::{self, OnExit, Pins};
use crate::report::Committed;
use crate::server::Claim;
use crate::startup::Beginning;
use crate::{notify, protocol, startup, state, translate, words};

/// Arguments of `bulkhead run`.
#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    /// The configuration at the first start, and whenever it has changed since it was last taken; read again on SIGHUP.
    /// Else the last committed revision is used
    #[arg(long, short, value_name = "FILE", required_unless_present = "state")]
    config: Option<PathBuf>,
    /// Where to keep committed revisions and whatever else must outlive a restart [default: /var/lib/bulkhead]
    #[arg(long, value_name = "DIRECTORY")]
    state: Option<PathBuf>,
    /// How many revisions to keep
    #[arg(long, value_name = "NUMBER", default_value_t = bulkhead_revisions::DEFAULT_KEPT, value_parser = revisions)]
    revisions: usize,
    /// Where to listen for the command line
    #[arg(long, value_name = "PATH", default_value = protocol::DEFAULT_SOCKET)]
    socket: PathBuf,
    /// How to write the log
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
    /// A directory in a bpffs in which what is enforced outlives the daemon, or `none` [default: /sys/fs/bpf/bulkhead if a
    /// bpffs is mounted there or can be]
    #[arg(long, value_name = "DIR|none")]
    pins: Option<Pins>,
    /// What becomes of the programs on SIGTERM, if they are pinned
    #[arg(long, value_name = "WHAT", default_value = "keep")]
    on_exit: OnExit,
}

fn revisions(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 2..=10_000) => Ok(number),
        _ => Err("it can be 2 to 10000".to_owned()),
    }
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// [`Refused`] before anything was changed; anything else if the firewall could not start. With a log of JSON the
/// error is a line of it and only the exit status is returned.
pub fn run(args: &RunArgs) -> Result<ExitCode> {
    log::init(args.log_format);
    match (enforce(args), args.log_format) {
        (Ok(()), _) => Ok(ExitCode::SUCCESS),
        (Err(error), LogFormat::Text) => Err(error),
        (Err(error), LogFormat::Json) => {
            log::refusal(&error);
            Ok(crate::exit_code(&error))
        }
    }
}

fn enforce(args: &RunArgs) -> Result<()> {
    let began = Instant::now();
    heap::configure();
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).context("cannot install signal handlers")?;
    // A first start that is refused makes nothing, not even a directory.
    let first = match &args.config {
        Some(file) if !state::has_revisions(args.state.as_deref()) => {
            Some(Configuration::read(file)?.check_interfaces()?)
        }
        _ => None,
    };
    let claim = Claim::new(&args.socket)?;
    let state = state::directory(args.state.as_deref())?;
    let (mut store, durable) = state::revisions(state.as_deref(), args.state.is_some(), args.revisions)?;
    let user = words::user_name(nix::unistd::getuid());
    let (engine, config, groups) = start(args, first, &mut store, &user, state.as_deref())?;
    groups.begun();
    let events = log_events(&engine)?;
    let commits = Commits::new(store, durable, args.config.clone());
    let firewall = Arc::new(LiveFirewall::new(engine, config, commits, groups));
    log_interfaces(&firewall);
    let deadline = watch_deadline(&firewall)?;
    let sources = keep_groups(&firewall)?;
    let server = claim.serve(firewall.clone())?;
    let pins = firewall.engine().pinned_at();
    let pinned = pins.map_or_else(|| "none".to_owned(), |pins| pins.display().to_string());
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        name = firewall.config().name,
        config = args.config.as_ref().map(|file| tracing::field::display(file.display())),
        state = state.as_ref().map(|state| tracing::field::display(state.display())),
        socket = %server.path().display(),
        pins = pinned,
        generation = firewall.engine().generation(),
        milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        "enforcing"
    );
    notify::ready();

    for signal in &mut signals {
        if signal == SIGHUP {
            reload(args.config.as_deref(), &user, &firewall);
        } else {
            tracing::info!(signal = signal_hook::low_level::signal_name(signal), "stopping");
            break;
        }
    }
    notify::stopping();
    // Nobody asks any more, so nobody holds the firewall; with the engine go the event channel and its thread.
    drop(server);
    firewall.close();
    if deadline.join().is_err() {
        tracing::error!("the thread that waits for confirmations has panicked");
    }
    firewall.sources().close();
    if sources.join().is_err() {
        tracing::error!("the thread that keeps the groups has panicked");
    }
    let stays = args.on_exit == OnExit::Keep && firewall.engine().is_pinned();
    if stays {
        firewall.engine().leave();
    } else {
        firewall.engine().stop();
    }
    drop(firewall);
    if events.join().is_err() {
        tracing::error!("the thread that logs events has panicked");
    }
    if stays {
        tracing::info!(
            pins = pinned,
            "stopped; what is enforced goes on, and the next daemon takes it over; `bulkhead detach` ends it"
        );
    } else {
        tracing::info!(
            "stopped; the kernel forwards nothing between data interfaces until the firewall runs again"
        );
    }
    Ok(())
}

/// Starts the engine with what a start uses. Where that cannot be kept, and nothing can be started in its place, what
/// enforces it is taken off.
fn start(
    args: &RunArgs,
    first: Option<Configuration>,
    store: &mut Store,
    user: &str,
    state: Option<&Path>,
) -> Result<(Engine, Config, Arc<Groups>)> {
    let mut unkept = None;
    let outcome = start_some(args, first, store, user, state, &mut unkept);
    if let (Err(_), Some(directory)) = (&outcome, unkept) {
        close(&directory);
    }
    outcome
}

/// A changed file that the data plane refuses is like one that is wrong: the last committed revision is used. So it is for
/// one that should come back for want of a confirmation; the deadline stands.
fn start_some(
    args: &RunArgs,
    first: Option<Configuration>,
    store: &mut Store,
    user: &str,
    state: Option<&Path>,
    unkept: &mut Option<PathBuf>,
) -> Result<(Engine, Config, Arc<Groups>)> {
    let mut beginning = startup::choose(args.config.as_deref(), first, store, user, now_ms())?;
    loop {
        let source = beginning.draft.as_ref().map(|draft| draft.source);
        let instead = source.filter(|_| store.current().is_some());
        match (start_with(args, beginning, store, state, unkept), instead) {
            (Err(error), Some(Source::File)) => {
                log::refusal(&error);
                tracing::error!("the file is refused by the data plane, the last committed revision is used");
                beginning = startup::choose(None, None, store, user, now_ms())?;
            }
            (Err(error), Some(_)) => {
                log::refusal(&error);
                tracing::error!(
                    "the revision to come back to is refused by the data plane, the last one is used"
                );
                beginning = startup::last(store, "the one to come back to is refused by the data plane")?;
            }
            (outcome, _) => return outcome,
        }
    }
}

/// Takes off what enforces a configuration that no revision tells of.
fn close(directory: &Path) {
    match bulkhead_dataplane::pins::detach(directory) {
        Ok(_) => tracing::error!("a configuration that could not be kept is taken off: nothing is forwarded"),
        Err(error) => tracing::error!(
            %error,
            "a configuration that could not be kept is in force: `bulkhead detach` takes it off"
        ),
    }
}

/// What is said of a data plane that does not start.
const CANNOT_START: &str =
    "cannot start the firewall; nothing is forwarded. `bulkhead doctor` says what this machine lacks";

/// What is new is on the disk before the engine enforces it and a revision when it does: see `live::commits`. If it cannot become
/// one, `unkept` says where it is pinned, and goes on until the start that is tried instead takes over.
fn start_with(
    args: &RunArgs,
    beginning: Beginning,
    store: &mut Store,
    state: Option<&Path>,
    unkept: &mut Option<PathBuf>,
) -> Result<(Engine, Config, Arc<Groups>)> {
    log::warnings(&beginning.configuration);
    let document = beginning.configuration.source;
    let config = beginning.configuration.parsed.config;
    let options = Options {
        sizes: translate::sizes(&config),
        pins: pins::directory(args.pins.as_ref(), &config.name)?,
        ..Options::default()
    };
    let groups = Groups::load(state, &config);
    let mut ruleset = translate::ruleset(&config);
    groups.fill(&config, &mut ruleset);
    let starting = Engine::begin(ruleset, &options).context(CANNOT_START)?;
    // The verifier is at work meanwhile.
    let prepared = match beginning.draft {
        Some(draft) => Some(store.prepare(draft, document.as_bytes())?),
        None => None,
    };
    let engine = match starting.enforce() {
        Ok(engine) => engine,
        Err(error) => {
            if let Some(prepared) = prepared {
                store.discard(prepared);
            }
            return Err(error).context(CANNOT_START);
        }
    };
    if let Some(prepared) = prepared
        && let Err(error) = store.publish(prepared)
    {
        *unkept = engine.pinned_at();
        return Err(error).context("the configuration was in force and could not be kept on the disk");
    }
    if let Some(revision) = store.current() {
        tracing::info!(
            revision = revision.number,
            source = %revision.source,
            author = revision.author,
            reason = beginning.reason,
            "configuration chosen"
        );
    }
    Ok((engine, config, groups))
}

/// Commits the file.
fn reload(path: Option<&Path>, user: &str, firewall: &LiveFirewall) {
    let Some(path) = path else {
        tracing::warn!("there is no file to read again: the daemon was started without --config");
        return;
    };
    let committed = Configuration::bytes(path)
        .map_err(CommitError::from)
        .and_then(|document| {
            firewall.commit(Proposal {
                document,
                file: path.display().to_string(),
                source: Source::File,
                repeats: None,
                asked: Asked {
                    user: user.to_owned(),
                    ..Asked::default()
                },
            })
        });
    let generation = firewall.engine().generation();
    match committed {
        Ok(committed) => {
            for warning in &committed.warnings {
                tracing::warn!(problem = warning, "configuration warning");
            }
            let Committed {
                revision, changed, ..
            } = committed;
            tracing::info!(revision, generation, changed, "configuration reloaded");
            log_interfaces(firewall);
        }
        Err(CommitError::Engine(error)) => {
            tracing::error!(%error, generation, "reload failed, the configuration stays as it was");
        }
        Err(error) => {
            log_error(error);
            tracing::error!(generation, "reload refused, the configuration stays as it was");
        }
    }
}

/// Ends when the firewall is closed.
fn watch_deadline(firewall: &Arc<LiveFirewall>) -> Result<JoinHandle<()>> {
    let firewall = firewall.clone();
    thread::Builder::new()
        .name("bulkhead-confirm".to_owned())
        .spawn(move || firewall.watch_deadline())
        .context("cannot start a thread")
}

/// What was chosen for each interface, why, and what would hurt.
fn log_interfaces(firewall: &LiveFirewall) {
    let report = match firewall.interfaces() {
        Ok(report) => report,
        Err(error) => {
            tracing::warn!(%error, "cannot tell how the interfaces are hooked");
            return;
        }
    };
    for interface in report.interfaces {
        tracing::info!(
            interface = interface.name,
            zone = interface.zone,
            kind = interface.kind,
            hook = interface.hook,
            reason = interface.hook_reason,
            addresses = interface.addresses.join(" "),
            up = interface.up,
            attached = interface.attached,
            fails_closed = interface.fails_closed,
            "interface"
        );
        for warning in interface.warnings {
            tracing::warn!(interface = interface.name, warning, "interface warning");
        }
    }
}

/// Ends when the groups are closed.
fn keep_groups(firewall: &Arc<LiveFirewall>) -> Result<JoinHandle<()>> {
    let groups = firewall.sources().clone();
    let tables: Weak<dyn Tables> = Arc::downgrade(&(firewall.clone() as Arc<dyn Tables>));
    thread::Builder::new()
        .name("bulkhead-groups".to_owned())
        .spawn(move || groups.keep(&tables))
        .context("cannot start a thread")
}

/// Ends with the engine, which closes the channel.
fn log_events(engine: &Engine) -> Result<JoinHandle<()>> {
    let events = engine.subscribe();
    thread::Builder::new()
        .name("bulkhead-log".to_owned())
        .spawn(move || events.iter().for_each(|event| log::event(&event)))
        .context("cannot start a thread")
}

#[cfg(test)]
mod tests;
