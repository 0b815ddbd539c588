//! `bulkhead run`: from a file to an enforced configuration, until a signal.
//!
//! Owns the order: the configuration is checked before anything is touched, the socket's path and the revisions are claimed
//! before the engine starts, the engine enforces before anybody is told that it does. SIGHUP reads the file again and commits it; a file
//! that is refused changes nothing. SIGTERM and SIGINT stop; what is pinned goes on enforcing until the next daemon takes it
//! over, and if nothing is, or with `--on-exit detach`, the fail-closed rules stay, so nothing is forwarded until a daemon
//! runs again. What it is started with is [`launch`]'s matter. Assumes that the main thread is in the network namespace of the
//! data interfaces.

mod cpus;
mod waiting;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::{Context as _, Result};
use bulkhead_config::Config;
use bulkhead_dataplane::{
    engine::{Engine, EngineError, NeighbourTimes, Options, Starting},
    heap,
    pulse::Pulse,
};
use bulkhead_revisions::{Source, Store};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::configuration::Configuration;
use crate::firewall::{Asked, Firewall as _};
use crate::groups::{Groups, Tables};
use crate::kubernetes;
use crate::launch::{self, Launch, Listen, ManagementInterface, RunArgs};
use crate::live::{CommitError, Commits, Isolations, LiveFirewall, Proposal, log_error, now_ms};
use crate::log::{self, LogFormat};
use crate::output::{self, Format};
use crate::own_file::Teller;
use crate::pins::{self, OnExit};
use crate::probes::{Probes, http};
use crate::report::Committed;
use crate::server::Claim;
use crate::startup::{Beginning, First};
use crate::{notify, startup, state, translate, words};

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// [`Refusal`](launch::Refusal) or [`Refused`](crate::configuration::Refused) before anything was changed; anything else if
/// the firewall could not start. With a log of JSON the error is a line of it and only the exit status is returned.
pub fn run(args: &RunArgs) -> Result<ExitCode> {
    let launch = launch::resolve(args, std::env::vars_os())?;
    if args.print_contract {
        let format = args.output.unwrap_or(Format::Table);
        output::print(&output::render(&launch.contract()?, format, launch::render)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    log::init(launch.log_format);
    let format = launch.log_format;
    match (enforce(launch), format) {
        (Ok(()), _) => Ok(ExitCode::SUCCESS),
        (Err(error), LogFormat::Text) => Err(error),
        (Err(error), LogFormat::Json) => {
            log::refusal(&error);
            Ok(crate::exit_code(&error))
        }
    }
}

/// Serves probes, if they are to be served. Sets what no configuration may name.
fn serve_probes(launch: &mut Launch, probes: &Arc<Probes>) -> Result<Option<http::Server>> {
    let Some(listen) = launch.management else {
        return Ok(None);
    };
    let place = http::place(listen, &launch.terms.management)?;
    let server = http::Server::start(&place, probes.clone())?;
    tracing::info!(address = %server.address, interface = place.interface, "probes and metrics are served");
    launch.terms.listening_on = Some(place.interface);
    Ok(Some(server))
}

fn enforce(mut launch: Launch) -> Result<()> {
    let began = Instant::now();
    for warning in &launch.warnings {
        tracing::warn!(problem = warning, "launch warning");
    }
    heap::configure();
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).context("cannot install signal handlers")?;
    cpus::are_online(&launch.data_cpus)?;
    cpus::stay_on(&launch.control_cpus)?;
    let probes = Arc::new(Probes::default());
    // Which interface is the last is not known before all are there.
    let late = matches!(launch.management, Some(Listen::Interface(_)))
        && launch.terms.management == ManagementInterface::Last;
    let mut served = match late {
        true => None,
        false => serve_probes(&mut launch, &probes)?,
    };
    let seen = kubernetes::seen(launch.config.as_deref());
    // A first start that is refused makes nothing, not even a directory.
    let mut first = None;
    if let Some(file) = launch.config.as_ref()
        && !state::has_revisions(launch.state.as_deref())
    {
        let terms = &launch.terms;
        let read = || Configuration::read(file, terms)?.check_interfaces(terms);
        let Some(read) = waiting::patiently(terms, &mut signals, &probes, read)? else {
            return Ok(());
        };
        first = Some(First {
            configuration: read,
            source: Source::File,
        });
    }
    let claim = Claim::new(&launch.socket)?;
    let state = state::directory(launch.state.as_deref())?;
    let (mut store, durable) = state::revisions(state.as_deref(), launch.state.is_some(), launch.revisions)?;
    let user = words::user_name(nix::unistd::getuid());
    let following = kubernetes::follow(&launch, &probes)?;
    if let Some(object) = &launch.object
        && startup::needs_a_document(&store, &launch.terms)
    {
        // Nothing to begin with but what the API has: that is waited for.
        first = following.first(object, &mut signals, &probes);
        if first.is_none() {
            return Ok(());
        }
    }
    let started = waiting::patiently(&launch.terms, &mut signals, &probes, || {
        let mut first = first.take();
        // A revision that waits for interfaces gives way to what the API has by now.
        if launch.object.is_some() && first.is_none() && startup::unusable(&store, &launch.terms).is_some() {
            first = following.offered();
        }
        start(&launch, first, &mut store, &user, state.as_deref())
    })?;
    let Some(Started {
        engine,
        config,
        groups,
        isolations,
    }) = started
    else {
        return Ok(());
    };
    groups.begun();
    let events = log_events(&engine)?;
    let commits = Commits::new(store, durable, launch.config.clone(), launch.terms.clone());
    let firewall = Arc::new(LiveFirewall::new(engine, config, commits, groups, isolations));
    log_interfaces(&firewall);
    following.attach(&firewall);
    let teller = following.teller();
    if let Some((file, current)) = launch.config.as_deref().zip(firewall.current_revision())
        && let Some(refused) = startup::refused(file, &current, &launch.terms)
    {
        teller.refused_at_start(&firewall, file, &refused);
    }
    let mounted = kubernetes::watch_mounted(launch.config.as_deref(), seen, &firewall, &probes, {
        let (user, teller) = (user.clone(), teller.clone());
        move |file, firewall| reload(Some(file), &user, firewall, &teller)
    });
    let deadline = watch_deadline(&firewall, probes.pulse("bulkhead-confirm"))?;
    let sources = keep_groups(&firewall, probes.pulse("bulkhead-groups"))?;
    let server = claim.serve(firewall.clone())?;
    let pins = firewall.engine().pinned_at();
    let pinned = pins.map_or_else(|| "none".to_owned(), |pins| pins.display().to_string());
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        name = firewall.config().name,
        config = launch.config.as_ref().map(|file| tracing::field::display(file.display())),
        state = state.as_ref().map(|state| tracing::field::display(state.display())),
        socket = %server.path().display(),
        pins = pinned,
        generation = firewall.engine().generation(),
        milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        "enforcing"
    );
    probes.enforcing(&firewall);
    if late {
        served = serve_probes(&mut launch, &probes)?;
    }
    notify::ready();

    for signal in signals.forever() {
        if signal == SIGHUP {
            reload(launch.config.as_deref(), &user, &firewall, &teller);
        } else {
            tracing::info!(signal = signal_hook::low_level::signal_name(signal), "stopping");
            break;
        }
    }
    notify::stopping();
    waiting::drain(launch.drain, &mut signals, &probes);
    drop((mounted, teller, following));
    // Nobody asks any more, so nobody holds the firewall; with the engine go the event channel and its thread.
    drop(served);
    drop(server);
    probes.closing();
    firewall.close();
    if deadline.join().is_err() {
        tracing::error!("the thread that waits for confirmations has panicked");
    }
    firewall.sources().close();
    if sources.join().is_err() {
        tracing::error!("the thread that keeps the groups has panicked");
    }
    let stays = launch.on_exit == OnExit::Keep && firewall.engine().is_pinned();
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

/// What a start has come to.
struct Started {
    engine: Engine,
    config: Config,
    groups: Arc<Groups>,
    isolations: Isolations,
}

/// Starts the engine with what a start uses. Where that cannot be kept, and nothing can be started in its place, what
/// enforces it is taken off.
fn start(
    launch: &Launch,
    first: Option<First>,
    store: &mut Store,
    user: &str,
    state: Option<&Path>,
) -> Result<Started> {
    let mut unkept = None;
    let outcome = start_some(launch, first, store, user, state, &mut unkept);
    if let (Err(_), Some(directory)) = (&outcome, unkept) {
        close(&directory);
    }
    outcome
}

/// A changed file that the data plane refuses is like one that is wrong: the last committed revision is used. So it is for
/// one that should come back for want of a confirmation; the deadline stands.
fn start_some(
    launch: &Launch,
    first: Option<First>,
    store: &mut Store,
    user: &str,
    state: Option<&Path>,
    unkept: &mut Option<PathBuf>,
) -> Result<Started> {
    let mut beginning = startup::choose(
        launch.config.as_deref(),
        first,
        store,
        &launch.terms,
        user,
        now_ms(),
    )?;
    loop {
        let source = beginning.draft.as_ref().map(|draft| draft.source);
        let instead = source.filter(|_| store.current().is_some());
        match (start_with(launch, beginning, store, state, unkept), instead) {
            (Err(error), Some(Source::File)) => {
                log::refusal(&error);
                tracing::error!("the file is refused by the data plane, the last committed revision is used");
                beginning = startup::choose(None, None, store, &launch.terms, user, now_ms())?;
            }
            (Err(error), Some(_)) => {
                log::refusal(&error);
                tracing::error!(
                    "the revision to come back to is refused by the data plane, the last one is used"
                );
                beginning = startup::last(
                    store,
                    &launch.terms,
                    "the one to come back to is refused by the data plane",
                )?;
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
    launch: &Launch,
    beginning: Beginning,
    store: &mut Store,
    state: Option<&Path>,
    unkept: &mut Option<PathBuf>,
) -> Result<Started> {
    log::warnings(&beginning.configuration);
    let document = beginning.configuration.source;
    let config = beginning.configuration.parsed.config;
    anyhow::ensure!(
        config.wires.is_empty() || !launch.network_policies,
        "{} has wires, which --network-policies cannot guard: what a team permits to a block of addresses would cross them by \
         multicast, past the isolation of others; start without --network-policies, or route",
        config.name
    );
    let options = Options {
        sizes: translate::sizes(&config),
        pins: pins::directory(launch.pins.as_ref(), &config.name)?,
        neighbours: NeighbourTimes {
            v4: launch.arp_timeout,
            v6: launch.ndp_timeout,
        },
        cpus: launch.data_cpus.clone(),
        object: None,
    };
    let groups = Groups::load(state, &config);
    let isolations = match launch.network_policies {
        true => Isolations::load(state, &config),
        false => Isolations::none(state),
    };
    let begin = || {
        let mut ruleset = translate::ruleset(&config);
        groups.fill(&config, &mut ruleset);
        translate::isolation::around(&mut ruleset, &isolations.in_force());
        Engine::begin(ruleset, &options)
    };
    let starting = match begin() {
        Err(error) if gives_up(&isolations, &error) => begin(),
        begun => begun,
    };
    let starting = starting.context(CANNOT_START)?;
    // The verifier is at work meanwhile.
    let prepared = match beginning.draft {
        Some(draft) => Some(store.prepare(draft, document.as_bytes())?),
        None => None,
    };
    let enforced = match starting.enforce() {
        Err(error) if gives_up(&isolations, &error) => begin().and_then(Starting::enforce),
        enforced => enforced,
    };
    let engine = match enforced {
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
    Ok(Started {
        engine,
        config,
        groups,
        isolations,
    })
}

/// Whether a start is tried again without the network policies of the last run: they may be what the data plane refuses, and
/// only a daemon that runs learns of others.
fn gives_up(isolations: &Isolations, error: &EngineError) -> bool {
    let may_be = matches!(
        error,
        EngineError::TooMany { .. } | EngineError::Compile(_) | EngineError::Table(_)
    );
    let gives_up = may_be && isolations.give_up();
    if gives_up {
        tracing::error!(
            %error,
            "the data plane refuses the start with the last network policies; without them everything is denied until \
             the API says which there are"
        );
    }
    gives_up
}

/// Commits the file.
fn reload(path: Option<&Path>, user: &str, firewall: &LiveFirewall, teller: &Teller) {
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
            teller.accepted(firewall, path, revision, changed);
        }
        Err(error @ CommitError::Engine(_)) => {
            teller.refused(firewall, path, &error);
            tracing::error!(%error, generation, "reload failed, the configuration stays as it was");
        }
        Err(error) => {
            teller.refused(firewall, path, &error);
            log_error(error);
            tracing::error!(generation, "reload refused, the configuration stays as it was");
        }
    }
}

/// Ends when the firewall is closed.
fn watch_deadline(firewall: &Arc<LiveFirewall>, pulse: Pulse) -> Result<JoinHandle<()>> {
    let firewall = firewall.clone();
    thread::Builder::new()
        .name("bulkhead-confirm".to_owned())
        .spawn(move || firewall.watch_deadline(&pulse))
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
fn keep_groups(firewall: &Arc<LiveFirewall>, pulse: Pulse) -> Result<JoinHandle<()>> {
    let groups = firewall.sources().clone();
    let tables: Weak<dyn Tables> = Arc::downgrade(&(firewall.clone() as Arc<dyn Tables>));
    thread::Builder::new()
        .name("bulkhead-groups".to_owned())
        .spawn(move || groups.keep(&tables, &pulse))
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
