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
use crate::mounted_status::report_mounted;
use crate::network_policies::follow_network_policies;
use crate::notice::{Notice, OwnPod, tell};
use crate::patience::Patience;
use crate::place::Place;
use crate::supervise::supervise;
use crate::watch::WATCH_SECONDS;

/// How often the daemon hears that the thread makes progress.
const BEAT: Duration = Duration::from_secs(5);
/// The longest silence of a connection: longer than a watch in which nothing happens.
const SILENCE: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 10);
/// How long what is on its way may take when the daemon stops.
const FAREWELL: Duration = Duration::from_secs(3);

/// What to follow.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The object that has the configuration.
    pub place: Option<Place>,
    /// The ConfigMap that the daemon's own file is mounted from, if its status is to be written.
    pub mounted: Option<Place>,
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

    /// Whether the daemon stops.
    pub fn is_stopping(&self) -> bool {
        self.0.borrow().stop || self.0.has_changed().is_err()
    }

    /// Returns when something has changed since this returned last.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The daemon's end of [`Signals`].
#[derive(Debug)]
pub struct Teller(watch::Sender<Told>);

impl Teller {
    /// Both ends.
    pub fn pair() -> (Self, Signals) {
        let (told, heard) = watch::channel(Told::default());
        (Self(told), Signals(heard))
    }

    /// Something has changed.
    pub fn changed(&self) {
        self.0.send_modify(|told| told.changes += 1);
    }

    /// The daemon stops.
    pub fn stop(&self) {
        self.0.send_modify(|told| told.stop = true);
    }
}

/// The running thread.
#[derive(Debug)]
pub struct Kubernetes {
    told: Teller,
    notices: watch::Sender<Option<Notice>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Kubernetes {
    /// Starts the thread.
    ///
    /// # Errors
    /// If there can be none.
    pub fn start(settings: Settings, agent: Arc<dyn Agent>) -> io::Result<Self> {
        let (told, heard) = Teller::pair();
        let (notices, said) = watch::channel(None);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = thread::Builder::new()
            .name("bulkhead-kube".to_owned())
            .spawn(move || {
                runtime.block_on(run(settings, agent, heard, said));
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
        self.told.changed();
    }

    /// Writes an event about the firewall's own pod, if that is known: in a while, or not at all if the API does not take it.
    pub fn notice(&self, notice: Notice) {
        self.notices.send_replace(Some(notice));
    }

    /// Ends the thread, after the status that it has written is taken away. Whether it ended well.
    pub fn stop(&self) -> bool {
        self.told.stop();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        thread.is_none_or(|thread| thread.join().is_ok())
    }
}

/// Tells the daemon that the thread makes progress, as long as it does.
async fn beat(agent: Arc<dyn Agent>) {
    loop {
        agent.beat();
        tokio::time::sleep(BEAT).await;
    }
}

async fn run(
    settings: Settings,
    agent: Arc<dyn Agent>,
    mut signals: Signals,
    mut notices: watch::Receiver<Option<Notice>>,
) {
    tokio::spawn(beat(agent.clone()));
    // Where nothing is to be followed and nothing to be said, the API is none of our business.
    let stop = signals.clone();
    let silent =
        |notices: &watch::Receiver<Option<Notice>>| settings.pod.is_none() || notices.borrow().is_none();
    let nothing = || {
        settings.place.is_none()
            && settings.mounted.is_none()
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
        let what = format!("following {place}");
        let (client, agent, heard) = (client.clone(), agent.clone(), signals.clone());
        let instance = settings.instance.clone();
        let begin = move || {
            let (place, instance) = (place.clone(), instance.clone());
            follow(client.clone(), place, instance, agent.clone(), heard.clone())
        };
        tasks.spawn(supervise(what, signals.clone(), |_| {}, begin));
    }
    if let Some(place) = settings.mounted.clone() {
        let what = format!("telling of {place}");
        let (client, agent, heard) = (client.clone(), agent.clone(), signals.clone());
        let instance = settings.instance.clone();
        let begin = move || {
            let (place, instance) = (place.clone(), instance.clone());
            report_mounted(client.clone(), place, instance, agent.clone(), heard.clone())
        };
        tasks.spawn(supervise(what, signals.clone(), |_| {}, begin));
    }
    if settings.network_policies {
        let what = "following network policies".to_owned();
        let (client, begun, told) = (client.clone(), agent.clone(), agent.clone());
        let (instance, heard) = (settings.instance.clone(), signals.clone());
        let failed = move |problem: &str| told.policies_unknown(Some(problem));
        let begin = move || {
            let (client, instance) = (client.clone(), instance.clone());
            follow_network_policies(client, instance, begun.clone(), heard.clone())
        };
        tasks.spawn(supervise(what, signals.clone(), failed, begin));
    }
    if let Some(pod) = settings.pod.clone() {
        let what = "telling of the pod".to_owned();
        let (client, heard, instance) = (client.clone(), signals.clone(), settings.instance.clone());
        let begin = move || {
            let (client, pod, instance) = (client.clone(), pod.clone(), instance.clone());
            tell(client, pod, instance, notices.clone(), heard.clone())
        };
        tasks.spawn(supervise(what, signals.clone(), |_| {}, begin));
    }
    let what = "following objects of address groups".to_owned();
    let begin = {
        let (client, agent, heard) = (client.clone(), agent.clone(), signals.clone());
        let instance = settings.instance.clone();
        move || {
            let instance = instance.clone();
            follow_address_groups(client.clone(), agent.clone(), instance, heard.clone())
        }
    };
    tasks.spawn(supervise(what, signals.clone(), |_| {}, begin));
    let heard = signals.clone();
    let begin = move || follow_groups(client.clone(), agent.clone(), heard.clone());
    let what = "following the pods of address groups".to_owned();
    tasks.spawn(supervise(what, signals.clone(), |_| {}, begin));
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
    Client::try_from(bounded(config, SILENCE)).map_err(|error| describe(&error))
}

/// No call waits for ever, and none is repeated behind our back: how long and how often is [`Patience`]'s, which says so.
fn bounded(mut config: Config, silence: Duration) -> Config {
    config.read_timeout = Some(silence);
    // From the question on, not from when the connection was used last.
    config.reset_reader_on_write = true;
    config.default_retry = false;
    config
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Instant;

    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::{Api, ListParams};

    use super::*;

    /// Lists from a server that does this with each connection: how often somebody came, and how long it took to fail.
    fn list(serve: impl Fn(TcpStream) + Send + 'static) -> (usize, Duration) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let came = Arc::new(AtomicUsize::new(0));
        let count = came.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::Relaxed);
                serve(stream);
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let began = Instant::now();
        runtime.block_on(async {
            let config = Config::new(format!("http://{address}").parse().expect("an address"));
            let client = Client::try_from(bounded(config, Duration::from_millis(500))).expect("a client");
            let maps: Api<ConfigMap> = Api::all(client);
            let answer =
                tokio::time::timeout(Duration::from_secs(20), maps.list(&ListParams::default())).await;
            assert!(matches!(answer, Ok(Err(_))), "{answer:?}");
        });
        (came.load(Ordering::Relaxed), began.elapsed())
    }

    #[test]
    fn a_server_that_takes_a_question_and_is_silent_is_not_waited_for() {
        let held = Mutex::new(Vec::new());
        let (_, took) = list(move |stream| held.lock().expect("streams").push(stream));
        assert!(took < Duration::from_secs(10), "{took:?}");
    }

    #[test]
    fn an_overload_is_a_failure_at_once_and_nothing_is_asked_again_unseen() {
        let (came, took) = list(|mut stream| {
            let mut question = [0; 4096];
            let _ = stream.read(&mut question);
            let _ = stream.write_all(
                b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            );
        });
        assert_eq!(came, 1);
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
}
