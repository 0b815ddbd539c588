//! The one thread in which all of this runs, and how the daemon's own threads talk to it.
//!
//! Async stays in here: a runtime of one thread, one task for each thing that is followed. A call of the firewall blocks the
//! others for as long as a commit takes, which is less than what the API server takes for an answer.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{io, thread};

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::address_group::follow_address_groups;
use crate::agent::Agent;
use crate::follow::{describe, follow};
use crate::group::follow_groups;
use crate::network_policies::follow_network_policies;
use crate::notice::{Notice, OwnPod, tell};
use crate::patience::Patience;
use crate::place::Place;

/// How long what is on its way may take when the daemon stops.
const FAREWELL: Duration = Duration::from_secs(3);

/// What to follow.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The object that has the configuration.
    pub place: Option<Place>,
    /// A kubeconfig; `None`: the pod's own service account.
    pub kubeconfig: Option<PathBuf>,
    /// What this instance is called.
    pub instance: String,
    /// Whether MultiNetworkPolicies are enforced.
    pub network_policies: bool,
    /// The pod that it runs in, if it may write events about it.
    pub pod: Option<OwnPod>,
}

/// What the daemon tells the thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Told {
    /// Counts what has changed.
    changes: u64,
    stop: bool,
}

/// What a task hears of the daemon.
#[derive(Clone, Debug)]
pub struct Signals(watch::Receiver<Told>);

impl Signals {
    /// Returns when the daemon stops.
    pub async fn stop(&self) {
        let mut own = self.0.clone();
        // An error: the daemon is gone without a word.
        let _ = own.wait_for(|told| told.stop).await;
    }

    /// Returns when something has changed since this returned last.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The running thread.
#[derive(Debug)]
pub struct Kubernetes {
    told: watch::Sender<Told>,
    notices: watch::Sender<Option<Notice>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Kubernetes {
    /// Starts the thread.
    ///
    /// # Errors
    /// If there can be none.
    pub fn start(settings: Settings, agent: Arc<dyn Agent>) -> io::Result<Self> {
        let (told, heard) = watch::channel(Told::default());
        let (notices, said) = watch::channel(None);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = thread::Builder::new()
            .name("bulkhead-kube".to_owned())
            .spawn(move || {
                runtime.block_on(run(settings, agent, Signals(heard), said));
                // Whatever hangs in a name lookup does not keep the daemon.
                runtime.shutdown_background();
            })?;
        Ok(Self {
            told,
            notices,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Says that another configuration is in force, or that something else about the firewall has changed.
    pub fn changed(&self) {
        self.told.send_modify(|told| told.changes += 1);
    }

    /// Writes an event about the firewall's own pod, if that is known: in a while, or not at all if the API does not take it.
    pub fn notice(&self, notice: Notice) {
        self.notices.send_replace(Some(notice));
    }

    /// Ends the thread, after the status that it has written is taken away. Whether it ended well.
    pub fn stop(&self) -> bool {
        self.told.send_modify(|told| told.stop = true);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        thread.is_none_or(|thread| thread.join().is_ok())
    }
}

async fn run(
    settings: Settings,
    agent: Arc<dyn Agent>,
    mut signals: Signals,
    mut notices: watch::Receiver<Option<Notice>>,
) {
    // Where nothing is to be followed and nothing to be said, the API is none of our business.
    let stop = signals.clone();
    let silent =
        |notices: &watch::Receiver<Option<Notice>>| settings.pod.is_none() || notices.borrow().is_none();
    let nothing = || {
        settings.place.is_none()
            && !settings.network_policies
            && agent.pod_groups().is_empty()
            && agent.address_groups().is_empty()
    };
    while nothing() && silent(&notices) {
        tokio::select! {
            () = stop.stop() => return,
            () = signals.changed() => {}
            // An error: the daemon is gone, and `stop` says so.
            Ok(()) = notices.changed(), if settings.pod.is_some() => {}
        }
    }
    let Some(client) = connect(&settings, &*agent, &signals).await else {
        return;
    };
    let mut tasks = JoinSet::new();
    if let Some(place) = settings.place.clone() {
        tasks.spawn(follow(
            client.clone(),
            place,
            settings.instance.clone(),
            agent.clone(),
            signals.clone(),
        ));
    }
    if settings.network_policies {
        let (client, agent) = (client.clone(), agent.clone());
        let instance = settings.instance.clone();
        tasks.spawn(follow_network_policies(client, instance, agent, signals.clone()));
    }
    if let Some(pod) = settings.pod.clone() {
        let instance = settings.instance.clone();
        tasks.spawn(tell(client.clone(), pod, instance, notices, signals.clone()));
    }
    let instance = settings.instance.clone();
    tasks.spawn(follow_address_groups(
        client.clone(),
        agent.clone(),
        instance,
        signals.clone(),
    ));
    tasks.spawn(follow_groups(client, agent, signals.clone()));
    signals.stop().await;
    let ended = async { while tasks.join_next().await.is_some() {} };
    // What is not written by then is a dead instance's entry, which others remove.
    let _ = tokio::time::timeout(FAREWELL, ended).await;
}

/// A client; `None`: the daemon stops first. A kubeconfig or a service account may be there a moment later.
async fn connect(settings: &Settings, agent: &dyn Agent, signals: &Signals) -> Option<Client> {
    let mut patience = Patience::default();
    let mut said = String::new();
    loop {
        let error = match client(settings).await {
            Ok(client) => return Some(client),
            Err(error) => error,
        };
        if error != said {
            tracing::error!(error, "cannot reach the Kubernetes API, it is tried again");
            said = error;
        }
        // Not a word from the API yet: what a restart has brought along may be old.
        for (group, selection) in agent.pod_groups() {
            agent.pods_unknown(&group, &selection, &said);
        }
        if settings.network_policies {
            agent.policies_unknown(Some(&said));
        }
        for object in agent.address_groups() {
            agent.address_group_unknown(&object, &said);
        }
        let wait = patience.next().unwrap_or(FAREWELL);
        tokio::select! {
            () = signals.stop() => return None,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn client(settings: &Settings) -> Result<Client, String> {
    let config = match &settings.kubeconfig {
        Some(file) => {
            let read = Kubeconfig::read_from(file).map_err(|error| describe(&error))?;
            Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
                .await
                .map_err(|error| describe(&error))?
        }
        None => Config::incluster().map_err(|error| describe(&error))?,
    };
    Client::try_from(config).map_err(|error| describe(&error))
}
