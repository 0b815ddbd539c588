//! `bulkhead run`: from a file to an enforced configuration, until a signal.
//!
//! Owns the order: the configuration is checked before anything is touched, the socket's path is claimed before the
//! engine starts, the engine enforces before anybody is told that it does. SIGHUP reads the file again; a file that
//! is refused changes nothing. SIGTERM and SIGINT stop; what is pinned goes on enforcing until the next daemon takes it
//! over, and if nothing is, or with `--on-exit detach`, the fail-closed rules stay, so nothing is forwarded until a daemon
//! runs again. Assumes that the main thread is in the network namespace of the data interfaces.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::{Context as _, Result};
use bulkhead_config::{Config, Severity};
use bulkhead_dataplane::engine::{Engine, Options};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::configuration::{Configuration, Refused};
use crate::firewall::Firewall as _;
use crate::live::LiveFirewall;
use crate::log::{self, LogFormat};
use crate::pins::{self, OnExit, Pins};
use crate::server::Claim;
use crate::{notify, protocol, translate};

/// Arguments of `bulkhead run`.
#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    /// The configuration; read again on SIGHUP
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
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
            log_refusal(&error);
            Ok(crate::exit_code(&error))
        }
    }
}

fn enforce(args: &RunArgs) -> Result<()> {
    let began = Instant::now();
    let configuration = read(&args.config)?;
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).context("cannot install signal handlers")?;
    let claim = Claim::new(&args.socket)?;

    let config = configuration.parsed.config;
    let pins = pins::directory(args.pins.as_ref(), &config.name)?;
    let pinned = pins
        .as_ref()
        .map_or_else(|| "none".to_owned(), |pins| pins.display().to_string());
    let options = Options {
        sizes: translate::sizes(&config),
        pins,
    };
    let engine = Engine::start(translate::ruleset(&config), &options).context(
        "cannot start the firewall; nothing is forwarded. `bulkhead doctor` says what this machine lacks",
    )?;
    let events = log_events(&engine)?;
    let firewall = Arc::new(LiveFirewall::new(engine, config));
    log_interfaces(&firewall);
    let server = claim.serve(firewall.clone())?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        name = firewall.config().name,
        config = %args.config.display(),
        socket = %server.path().display(),
        pins = pinned,
        generation = firewall.engine().generation(),
        milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        "enforcing"
    );
    notify::ready();

    for signal in &mut signals {
        if signal == SIGHUP {
            reload(&args.config, &firewall);
        } else {
            tracing::info!(signal = signal_hook::low_level::signal_name(signal), "stopping");
            break;
        }
    }
    notify::stopping();
    // Nobody asks any more, so nobody holds the firewall; with the engine go the event channel and its thread.
    drop(server);
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

/// Reads the file, checks it against itself and against the machine, and says what is doubtful about it.
fn read(path: &Path) -> Result<Configuration> {
    let configuration = Configuration::read(path)?.check_interfaces()?;
    for warning in &configuration.parsed.warnings {
        tracing::warn!(
            file = warning.file,
            line = warning.line,
            column = warning.column,
            field = warning.path,
            help = warning.help,
            problem = warning.message,
            "configuration warning"
        );
    }
    Ok(configuration)
}

fn reload(path: &Path, firewall: &LiveFirewall) {
    let began = Instant::now();
    let config = match read(path) {
        Ok(configuration) => configuration.parsed.config,
        Err(error) => {
            log_refusal(&error);
            tracing::error!(
                generation = firewall.engine().generation(),
                "reload refused, the configuration stays as it was"
            );
            return;
        }
    };
    warn_of_fixed_sizes(&firewall.config(), &config);
    match firewall.commit(config) {
        Ok(generation) => {
            let milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            tracing::info!(generation, milliseconds, "configuration reloaded");
            log_interfaces(firewall);
        }
        Err(error) => {
            let generation = firewall.engine().generation();
            tracing::error!(%error, generation, "reload failed, the configuration stays as it was");
        }
    }
}

/// The tables have the size they were made with.
fn warn_of_fixed_sizes(current: &Config, next: &Config) {
    let (now, then) = (current.sessions, next.sessions);
    if (now.max, now.half_open) != (then.max, then.half_open) {
        tracing::warn!(
            sessions = now.max,
            half_open = now.half_open,
            "spec.sessions.max and halfOpen take effect at the next start"
        );
    }
}

/// One line per finding of a refused configuration, with the fields a person would look for; one line for anything else.
fn log_refusal(error: &anyhow::Error) {
    match error.downcast_ref::<Refused>() {
        Some(Refused {
            diagnostics,
            unreadable: None,
            ..
        }) => {
            for found in diagnostics
                .iter()
                .filter(|found| found.severity == Severity::Error)
            {
                tracing::error!(
                    file = found.file,
                    line = found.line,
                    column = found.column,
                    field = found.path,
                    help = found.help,
                    problem = found.message,
                    "configuration refused"
                );
            }
        }
        Some(Refused {
            file,
            unreadable: Some(reason),
            ..
        }) => tracing::error!(file, problem = reason, "configuration refused"),
        None => tracing::error!(problem = crate::abridged(&format!("{error:#}")), "failed"),
    }
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

/// Ends with the engine, which closes the channel.
fn log_events(engine: &Engine) -> Result<JoinHandle<()>> {
    let events = engine.subscribe();
    thread::Builder::new()
        .name("bulkhead-log".to_owned())
        .spawn(move || events.iter().for_each(|event| log::event(&event)))
        .context("cannot start a thread")
}
