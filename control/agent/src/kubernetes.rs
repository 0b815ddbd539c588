//! The daemon's side of Kubernetes: where its configuration is, and how a document from there becomes a revision.
//!
//! Owns [`Link`], through which the thread of [`bulkhead_kube`] reaches the firewall, before there is one too: a start without a
//! sound revision waits for a sound document as long as it takes, since a daemon that ends for want of an API server would be
//! started again and again. With a revision on the disk that still fits nothing is waited for. Everything that reaches the firewall goes the way of any commit.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use anyhow::{Context as _, Result};
use bulkhead_config::PodSelection;
use bulkhead_dataplane::pulse::Pulse;
use bulkhead_kube::mnp::Isolation;
use bulkhead_kube::mounted::{self, Mounted};
use bulkhead_kube::{
    Agent, Document, FoundPods, InForce, Kubernetes, NotIsolated, ObjectMembers, Origin, OwnFile, Place,
    Reason, Refusal, Settings,
};
use bulkhead_revisions::{Source, digest};
use signal_hook::consts::SIGHUP;
use signal_hook::iterator::Signals;

use crate::configuration::{Configuration, Refused};
use crate::firewall::{Asked, Firewall as _};
use crate::launch::{Launch, Terms};
use crate::live::{CommitError, LiveFirewall, Proposal};
use crate::own_file::{self, Teller};
use crate::probes::Probes;
use crate::startup::First;

/// How soon a signal is noticed while the first document is waited for.
const SIGNALS: Duration = Duration::from_millis(200);
/// How many findings a status shows; the log has all.
const FINDINGS: usize = 5;

/// Starts to follow what there is to follow: the configuration, and the pods of its groups.
///
/// # Errors
/// If there can be no thread.
pub fn follow(launch: &Launch, probes: &Probes) -> Result<Following> {
    let settings = Settings {
        place: launch.object.clone(),
        mounted: launch.mounted.clone(),
        kubeconfig: launch.kubeconfig.clone(),
        instance: launch.instance.clone().unwrap_or_else(instance),
        network_policies: launch.network_policies,
        pod: own_file::pod(launch),
    };
    let name = settings.instance.clone();
    let link = Arc::new(Link::new(launch.terms.clone(), probes.pulse("bulkhead-kube")));
    let kubernetes = Kubernetes::start(settings, link.clone()).context("cannot start a thread")?;
    let kubernetes = Arc::new(kubernetes);
    Ok(Following {
        link,
        teller: Teller::new(kubernetes.clone(), name),
        kubernetes,
    })
}

/// The pod's name, which is its host name too unless somebody has set another.
fn instance() -> String {
    let pod = std::env::var("POD_NAME").ok().filter(|name| !name.is_empty());
    let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = pod.or_else(host).unwrap_or_default();
    match name.trim() {
        "" => "bulkhead".to_owned(),
        name => name.to_owned(),
    }
}

/// What is followed; ends when it is dropped.
#[derive(Debug)]
pub struct Following {
    link: Arc<Link>,
    teller: Teller,
    kubernetes: Arc<Kubernetes>,
}

impl Following {
    /// Who tells what became of the daemon's own file.
    pub fn teller(&self) -> Teller {
        self.teller.clone()
    }

    /// Waits for the first sound document; `None`: a signal to stop came first.
    pub fn first(&self, place: &Place, signals: &mut Signals, probes: &Probes) -> Option<First> {
        tracing::info!(object = %place, "there is no revision to begin with, a sound document is waited for");
        probes.waiting(format!("waiting for a sound document in {place}"));
        loop {
            if signals.pending().any(|signal| signal != SIGHUP) {
                return None;
            }
            let state = self.link.lock();
            let waited = self.link.changed.wait_timeout(state, SIGNALS);
            let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
            if let Some(first) = state.first.take() {
                return Some(first);
            }
        }
    }

    /// The document that has come meanwhile, if it is sound.
    pub fn offered(&self) -> Option<First> {
        self.link.lock().first.take()
    }

    /// From here on documents are commits of this firewall, and its groups are followed, whoever commits them.
    pub fn attach(&self, firewall: &Arc<LiveFirewall>) {
        let mut state = self.link.lock();
        (state.firewall, state.first) = (Arc::downgrade(firewall), None);
        drop(state);
        let kubernetes = Arc::downgrade(&self.kubernetes);
        firewall.sources().on_change(move || {
            if let Some(kubernetes) = kubernetes.upgrade() {
                kubernetes.changed();
            }
        });
        self.kubernetes.changed();
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        if !self.kubernetes.stop() {
            tracing::error!("the thread that follows Kubernetes has panicked");
        }
    }
}

/// What the thread of Kubernetes knows of the firewall.
#[derive(Debug)]
struct Link {
    /// What documents are judged by.
    terms: Terms,
    /// The thread's; this end of it outlives the thread, which then beats no more.
    pulse: Pulse,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    firewall: Weak<LiveFirewall>,
    /// The last document, if it is sound and came before the firewall was up.
    first: Option<First>,
}

impl Link {
    fn new(terms: Terms, pulse: Pulse) -> Self {
        Self {
            terms,
            pulse,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is one assignment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a document for a start that has nothing else to begin with. It is a commit when the firewall is up.
    fn offer(&self, document: &Document) -> Refusal {
        let judged = judge(document, &self.terms);
        let mut state = self.lock();
        state.first = None;
        match judged {
            Ok(configuration) => {
                state.first = Some(First {
                    configuration,
                    source: source(document.origin),
                });
                self.changed.notify_all();
                refusal(Reason::Starting, "the firewall is not up yet")
            }
            Err(refusal) => refusal,
        }
    }
}

impl Agent for Link {
    fn beat(&self) {
        self.pulse.beat();
    }

    fn commit(&self, document: &Document) -> Result<(), Refusal> {
        let firewall = self.lock().firewall.upgrade();
        let firewall = firewall.ok_or_else(|| self.offer(document))?;
        let current = firewall.current_revision();
        let taken = |current: &bulkhead_revisions::Revision| {
            // Somebody committed another one since; whoever changes the object means it.
            current.taken.as_ref() == Some(&document.hash) && current.sha256 != document.hash
        };
        if let Some(current) = current.filter(taken) {
            let message = format!(
                "it was in force already, and revision {} by {} ({}) came after it; change the object to have it in force \
                 again",
                current.number, current.author, current.source
            );
            return Err(refusal(Reason::Superseded, &message));
        }
        let committed = firewall.commit(Proposal {
            document: document.text.clone(),
            file: document.name.clone(),
            source: source(document.origin),
            repeats: None,
            asked: Asked {
                user: crate::words::user_name(nix::unistd::getuid()),
                author: Some(document.name.clone()),
                ..Asked::default()
            },
        });
        let outcome = match committed {
            Ok(committed) => {
                for warning in &committed.warnings {
                    tracing::warn!(problem = warning, "configuration warning");
                }
                Ok(())
            }
            // Once more, to tell what is wrong from what may pass; if it is sound by now, it passed.
            Err(CommitError::Refused(refused)) => {
                let again = judge(document, &self.terms).err();
                Err(again.unwrap_or_else(|| refusal(Reason::Failed, &findings(&refused))))
            }
            Err(error @ CommitError::Conflict(_)) => {
                Err(refusal(Reason::AwaitingConfirmation, &error.to_string()))
            }
            Err(error @ CommitError::Impossible(_)) => Err(refusal(Reason::Invalid, &error.to_string())),
            Err(error) => Err(refusal(Reason::Failed, &error.to_string())),
        };
        match &outcome {
            Ok(()) => drop(firewall.note_accepted(&document.name)),
            Err(refusal) => firewall.note_refused(&document.name, refusal.reason.name(), &refusal.message),
        }
        outcome
    }

    fn in_force(&self) -> Option<InForce> {
        let firewall = self.lock().firewall.upgrade()?;
        let revision = firewall.current_revision()?;
        let problems = match firewall.interfaces() {
            Ok(report) => report
                .interfaces
                .iter()
                .filter(|interface| !interface.attached)
                .map(|interface| format!("interface {} has no program", interface.name))
                .collect(),
            Err(error) => vec![format!("the interfaces cannot be read: {error}")],
        };
        let problems = [
            problems,
            firewall.sources().stale(),
            firewall.isolations().problems(),
        ]
        .concat();
        Some(InForce {
            revision: revision.number,
            generation: firewall.engine().generation(),
            by: format!("{} ({})", revision.author, revision.source),
            hash: revision.sha256,
            problems,
        })
    }

    fn own_file(&self) -> Option<OwnFile> {
        let firewall = self.lock().firewall.upgrade()?;
        let file = firewall.own_file()?;
        let content = Configuration::bytes(file).ok();
        let hash = content.map(|content| digest(&content));
        let taken = firewall.current_revision().and_then(|current| current.taken);
        let refused = firewall.last_refused(&file.display().to_string());
        Some(OwnFile {
            taken: hash.is_some() && hash == taken,
            hash,
            refusal: refused.map(|refused| Refusal {
                reason: Reason::named(&refused.reason),
                message: refused.message,
            }),
        })
    }

    fn pod_groups(&self) -> Vec<(String, PodSelection)> {
        let firewall = self.lock().firewall.upgrade();
        firewall.map_or_else(Vec::new, |firewall| firewall.sources().pod_selections())
    }

    fn set_pods(&self, group: &str, selection: &PodSelection, found: &FoundPods) -> bool {
        let firewall = self.lock().firewall.upgrade();
        firewall.is_some_and(|firewall| firewall.sources().set_pods(group, selection, found, &*firewall))
    }

    fn pods_unknown(&self, group: &str, selection: &PodSelection, error: &str) {
        let firewall = self.lock().firewall.upgrade();
        if let Some(firewall) = firewall {
            firewall.sources().pods_unknown(group, selection, error);
        }
    }

    fn isolate(&self, isolation: &Isolation) -> Result<(), NotIsolated> {
        let firewall = self.lock().firewall.upgrade().ok_or(NotIsolated::NotYet)?;
        firewall.isolate(isolation).map_err(NotIsolated::Failed)
    }

    fn policies_refused(&self, error: Option<&str>) {
        let firewall = self.lock().firewall.upgrade();
        if let Some(firewall) = firewall {
            firewall.isolations().refused(error);
        }
    }

    fn keep_snapshot(&self, snapshot: &[u8]) -> Result<(), String> {
        let firewall = self.lock().firewall.upgrade();
        let firewall = firewall.ok_or("the firewall is not up")?;
        firewall.isolations().keep(snapshot)
    }

    fn snapshot(&self) -> Option<Vec<u8>> {
        let firewall = self.lock().firewall.upgrade()?;
        firewall.isolations().snapshot()
    }

    fn policies_unknown(&self, error: Option<&str>) {
        let firewall = self.lock().firewall.upgrade();
        if let Some(firewall) = firewall {
            firewall.isolations().unknown(error);
        }
    }

    fn address_groups(&self) -> Vec<String> {
        let firewall = self.lock().firewall.upgrade();
        firewall.map_or_else(Vec::new, |firewall| firewall.sources().address_groups())
    }

    fn set_address_group(&self, object: &str, members: &ObjectMembers) -> Result<(), String> {
        let firewall = self.lock().firewall.upgrade();
        let firewall = firewall.ok_or("the firewall is not up")?;
        firewall.sources().set_address_group(object, members, &*firewall)
    }

    fn address_group_unknown(&self, object: &str, error: &str) {
        let firewall = self.lock().firewall.upgrade();
        if let Some(firewall) = firewall {
            firewall.sources().address_group_unknown(object, error);
        }
    }
}

const fn source(origin: Origin) -> Source {
    match origin {
        Origin::ConfigMap => Source::ConfigMap,
        Origin::Firewall => Source::Firewall,
    }
}

fn refusal(reason: Reason, message: &str) -> Refusal {
    Refusal {
        reason,
        message: message.to_owned(),
    }
}

/// What is written stays wrong; an interface that is not there may come, and another may be the last, which is for management.
fn judge(document: &Document, terms: &Terms) -> Result<Configuration, Refusal> {
    let told = |error: anyhow::Error, reason| match error.downcast::<Refused>() {
        Ok(refused) => refusal(reason, &findings(&refused)),
        Err(error) => refusal(Reason::Failed, &format!("{error:#}")),
    };
    Configuration::of(&document.name, &document.text, terms)
        .map_err(|error| told(error, Reason::Invalid))?
        .check_interfaces(terms)
        .map_err(|error| told(error, Reason::Failed))
}

/// The first findings, each on one line.
pub fn findings(refused: &Refused) -> String {
    let mut findings: Vec<String> = refused
        .diagnostics
        .iter()
        .take(FINDINGS)
        .map(ToString::to_string)
        .collect();
    let more = refused.diagnostics.len().saturating_sub(FINDINGS);
    if more > 0 {
        findings.push(format!("and {more} more"));
    }
    findings.join("\n")
}

/// What the daemon's file says, before the start judges it: see [`watch_mounted`].
pub fn seen(file: Option<&Path>) -> Option<String> {
    Configuration::bytes(file?).ok().map(|content| digest(&content))
}

/// Watches a mounted ConfigMap; `None`: the file is not of one. A start has judged what was `seen`; what has come since is
/// committed now. A swap that leaves the document as it was taken is no change, whoever has committed another one since.
pub fn watch_mounted(
    file: Option<&Path>,
    mut seen: Option<String>,
    firewall: &Arc<LiveFirewall>,
    probes: &Probes,
    reload: impl Fn(&Path, &LiveFirewall) + Send + 'static,
) -> Option<Mounted> {
    let file = file?.to_owned();
    if mounted::is_sub_path(&file) {
        tracing::warn!(
            file = %file.display(),
            "the configuration is mounted with subPath: a change of the ConfigMap never arrives; mount its directory"
        );
    }
    if !mounted::is_mounted(&file) {
        return None;
    }
    let firewall = Arc::downgrade(firewall);
    let changed = {
        let file = file.clone();
        move || {
            let Some(firewall) = firewall.upgrade() else {
                return;
            };
            let now = self::seen(Some(&file));
            let taken = firewall.current_revision().and_then(|current| current.taken);
            // Of the start, so that it counts once.
            let judged = seen.take();
            // One that cannot be read is an error that somebody should hear of.
            if now.is_some() && (now == taken || now == judged) {
                if now == taken {
                    // What was refused meanwhile is not there any more.
                    let _mended = firewall.note_accepted(&file.display().to_string());
                }
                tracing::debug!(file = %file.display(), "the mounted configuration is the one that was judged");
            } else {
                reload(&file, &firewall);
            }
        }
    };
    let pulse = probes.pulse("bulkhead-mount");
    match Mounted::watch(&file, move || pulse.beat(), changed) {
        Ok(watch) => {
            tracing::info!(file = %file.display(), "the mounted configuration is watched");
            Some(watch)
        }
        Err(error) => {
            tracing::error!(file = %file.display(), %error, "the mounted configuration cannot be watched; SIGHUP reads it");
            None
        }
    }
}
