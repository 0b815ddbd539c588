//! The status of a mounted ConfigMap, on the ConfigMap itself: the entry that whoever follows a ConfigMap writes on it.
//!
//! Owns the comparison of the object with the file that the kubelet makes of it, which may be an older one for a minute or two.
//! The object is read now and then, by its name, and never for its document: that comes with the mount alone, so nothing that is
//! enforced waits for any of this. While the API is away or refuses, that is said once and tried again ever more patiently.

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kube::core::DynamicObject;
use tokio::time::{Instant, sleep};

use crate::agent::{Agent, OwnFile, Reason, Refusal};
use crate::document;
use crate::patience::Patience;
use crate::place::Place;
use crate::report::{Unwritten, Writer};
use crate::reporter::{Judged, Reporter};
use crate::thread::Signals;

/// How often the firewall is looked at where nothing happens.
const LOOK: Duration = Duration::from_secs(5);
/// How often the object is read where nothing happens.
const READ: Duration = Duration::from_secs(10);

/// Says on the ConfigMap what became of the file until told to stop.
pub async fn report_mounted(
    client: Client,
    place: Place,
    instance: String,
    agent: Arc<dyn Agent>,
    mut signals: Signals,
) {
    let stop = signals.clone();
    let writer = Writer::by_name(client, &place, &instance);
    let mut mount = Mount {
        reporter: Reporter::new(writer.clone(), &place, &instance),
        place,
        agent,
        writer,
        object: None,
        known: None,
        unread: false,
        missing: false,
    };
    let mut patience = Patience::default();
    loop {
        let answered = mount.turn().await;
        let wait = match answered {
            true => {
                patience = Patience::default();
                LOOK
            }
            false => patience.next().unwrap_or(LOOK),
        };
        tokio::select! {
            biased;
            () = stop.stop() => return mount.reporter.leave().await,
            // Whoever could not say the last thing does not say the next one sooner.
            () = signals.changed(), if answered => {}
            () = sleep(wait) => {}
        }
    }
}

/// What a look at the firewall gives that the object is compared with.
type Known = (Option<OwnFile>, Option<String>);

struct Mount {
    place: Place,
    agent: Arc<dyn Agent>,
    writer: Writer,
    reporter: Reporter,
    /// As it was read last; `None`: it does not exist.
    object: Option<DynamicObject>,
    /// What was known when it was read last, and when that was.
    known: Option<(Known, Instant)>,
    /// The API did not give it the last time.
    unread: bool,
    /// There was none the last time.
    missing: bool,
}

impl Mount {
    /// Whether the API has answered, as far as it was asked.
    async fn turn(&mut self) -> bool {
        let (file, in_force) = (self.agent.own_file(), self.agent.in_force());
        let now: Known = (file, in_force.as_ref().map(|in_force| in_force.hash.clone()));
        let is_fresh = self
            .known
            .as_ref()
            .is_some_and(|(known, when)| *known == now && when.elapsed() < READ);
        if !is_fresh {
            let read = self.writer.read().await;
            let seen = self.saw(read);
            self.known = seen.then(|| (now.clone(), Instant::now()));
            if !seen {
                return false;
            }
        }
        let Some(object) = &self.object else { return true };
        let document = document::of(&self.place, object).map(|document| document.hash);
        let refusal = match &document {
            Ok(wanted) => now.0.as_ref().and_then(|file| why_not(wanted, file)),
            Err(refusal) => Some(refusal.clone()),
        };
        let judged = Judged {
            object,
            in_force: in_force.as_ref(),
            wanted: document.as_deref().ok(),
            refusal: refusal.as_ref(),
        };
        self.reporter.report(&judged).await
    }

    /// Whether the object was read.
    fn saw(&mut self, read: Result<Option<DynamicObject>, Unwritten>) -> bool {
        let object = match read {
            Ok(object) => object,
            Err(error) => {
                match std::mem::replace(&mut self.unread, true) {
                    true => tracing::debug!(object = %self.place, error, "cannot read the object still"),
                    false => tracing::warn!(
                        object = %self.place,
                        error,
                        "cannot read the object that the configuration is mounted from; its status waits, and nothing else does"
                    ),
                }
                return false;
            }
        };
        if std::mem::take(&mut self.unread) {
            tracing::info!(object = %self.place, "the object that the configuration is mounted from is read again");
        }
        let missing = object.is_none();
        if missing && !std::mem::replace(&mut self.missing, missing) {
            tracing::warn!(
                object = %self.place,
                "the object that the configuration is mounted from does not exist: it has no status"
            );
            self.reporter.forget();
        }
        self.missing = missing;
        self.object = object;
        true
    }
}

/// Why what the object says is not in force, if it is not; `None`: somebody has committed another one since.
fn why_not(wanted: &str, file: &OwnFile) -> Option<Refusal> {
    let pending = |message: &str| {
        Some(Refusal {
            reason: Reason::Pending,
            message: message.to_owned(),
        })
    };
    match &file.hash {
        None => pending("the mounted file cannot be read"),
        Some(hash) if hash != wanted => pending(
            "the mounted file says something else: the kubelet brings what the object says within a minute or two",
        ),
        Some(_) if file.refusal.is_some() => file.refusal.clone(),
        Some(_) if file.taken => None,
        Some(_) => pending("the mounted file was not read yet; SIGHUP reads it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kubelet_has_not_brought_is_pending_whatever_became_of_the_file() {
        let refusal = Refusal {
            reason: Reason::Invalid,
            message: "line 3".to_owned(),
        };
        let file = |hash: Option<&str>, taken, refusal: Option<&Refusal>| OwnFile {
            hash: hash.map(str::to_owned),
            taken,
            refusal: refusal.cloned(),
        };
        let reason = |file: &OwnFile| why_not("new", file).map(|refusal| refusal.reason);
        for older in [
            file(Some("old"), true, None),
            file(Some("old"), false, Some(&refusal)),
            file(None, false, None),
            file(Some("new"), false, None),
        ] {
            assert_eq!(reason(&older), Some(Reason::Pending), "{older:?}");
        }
        let refused = file(Some("new"), false, Some(&refusal));
        assert_eq!(why_not("new", &refused), Some(refusal));
        assert_eq!(reason(&file(Some("new"), true, None)), None);
    }
}
