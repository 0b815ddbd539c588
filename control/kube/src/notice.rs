//! Events about the firewall's own pod: what became of a configuration that is a mounted file, of which the API has no object
//! that a status could be on.
//!
//! Owns the last thing that was said; what nobody could write by then is replaced by what comes next. The API is asked for
//! nothing else on its account, and not at all before there is something to say.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use tokio::sync::watch;

use crate::patience::Patience;
use crate::report::{What, publish};
use crate::thread::Signals;

/// How often an event is tried: some ten seconds.
const TRIES: usize = 6;

/// The firewall's own pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnPod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its id, by which `kubectl describe` finds events; empty: not known.
    pub uid: String,
}

/// Something to say about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Whether somebody should do something about it.
    pub bad: bool,
    /// What happened, in one word for programs.
    pub reason: &'static str,
    /// What happened, for people.
    pub note: String,
}

/// Writes what is said as an event, until told to stop.
pub async fn tell(
    client: Client,
    pod: OwnPod,
    instance: String,
    mut said: watch::Receiver<Option<Notice>>,
    signals: Signals,
) {
    loop {
        let notice = said.borrow_and_update().clone();
        if let Some(notice) = notice {
            tokio::select! {
                biased;
                () = signals.stop() => return,
                () = write(&client, &pod, &instance, &notice) => {}
            }
        }
        tokio::select! {
            biased;
            () = signals.stop() => return,
            changed = said.changed() => if changed.is_err() { return },
        }
    }
}

async fn write(client: &Client, pod: &OwnPod, instance: &str, notice: &Notice) {
    let mut patience = Patience::default().take(TRIES);
    loop {
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(pod.namespace.clone()),
            name: Some(pod.name.clone()),
            uid: Some(pod.uid.clone()).filter(|uid| !uid.is_empty()),
            ..ObjectReference::default()
        };
        let what = What {
            bad: notice.bad,
            action: "Commit",
            reason: notice.reason,
            note: &notice.note,
        };
        let written = publish(client, instance, about, what).await;
        let Err(error) = written else { return };
        let Some(wait) = patience.next() else {
            let (namespace, pod) = (&pod.namespace, &pod.name);
            tracing::warn!(
                namespace,
                pod,
                error,
                "cannot write an event about the firewall's pod"
            );
            return;
        };
        tokio::time::sleep(wait).await;
    }
}
