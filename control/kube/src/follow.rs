//! Follows the object that has the configuration: commits what it says, and writes back what became of it.
//!
//! Owns the order: a document is committed once, a refused one again only if it may pass later, and every turn ends with a
//! status that is written if it says something new. While the API is away everything stays as it is; the watch comes back by
//! itself ([`watch`]). An object that is deleted leaves its last document in force: who wants nothing to pass commits that.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use kube::Client;
use kube::core::DynamicObject;
use kube::runtime::watcher::{self, Event};
use tokio::time::{Instant, interval_at, sleep_until};

use crate::agent::{Agent, Document, Reason, Refusal};
use crate::document;
use crate::place::Place;
use crate::report::Writer;
use crate::reporter::{Judged, Reporter};
use crate::thread::Signals;
use crate::watch;

/// How often the firewall is looked at where nothing happens.
const LOOK: Duration = Duration::from_secs(5);
/// When a document that may pass later is tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// Follows an object until told to stop.
pub async fn follow(
    client: Client,
    place: Place,
    instance: String,
    agent: Arc<dyn Agent>,
    mut signals: Signals,
) {
    let stop = signals.clone();
    let writer = Writer::new(client, &place, &instance);
    let mut objects = pin!(objects(&writer, &place));
    let mut looks = interval_at(Instant::now() + LOOK, LOOK);
    let mut follower = Follower {
        agent,
        reporter: Reporter::new(writer.clone(), &place, &instance),
        writer,
        instance,
        object: None,
        tried: None,
        retry: None,
        away: false,
        place,
    };
    let mut next = None;
    loop {
        let retry = follower.retry.unwrap_or_else(|| Instant::now() + LOOK * 10);
        let object = match next.take() {
            Some(object) => Some(object),
            None => tokio::select! {
                biased;
                () = stop.stop() => return follower.leave().await,
                object = objects.next() => match object {
                    Some(object) => Some(object),
                    // A watch has no end.
                    None => return,
                },
                () = signals.changed() => None,
                _ = looks.tick() => None,
                () = sleep_until(retry) => None,
            },
        };
        if let Some(object) = object {
            follower.saw(object);
        }
        follower.commit();
        next = follower.report_beside(&mut objects).await;
    }
}

/// What a watch of the object has to say.
type Seen = Result<Option<DynamicObject>, watcher::Error>;

/// The object whenever it changes; `None`: there is none.
fn objects(writer: &Writer, place: &Place) -> impl Stream<Item = Seen> + use<> {
    let config = watcher::Config::default().fields(&format!("metadata.name={}", place.name));
    let mut found = false;
    watch::watch(writer.api(), config).filter_map(move |event| {
        let object = match event {
            Ok(Event::Apply(object) | Event::InitApply(object)) => {
                found = true;
                Some(Ok(Some(object)))
            }
            Ok(Event::Delete(_)) => Some(Ok(None)),
            Ok(Event::Init) => {
                found = false;
                None
            }
            Ok(Event::InitDone) => (!found).then_some(Ok(None)),
            Err(error) => Some(Err(error)),
        };
        std::future::ready(object)
    })
}

/// A document and what became of it.
struct Tried {
    hash: String,
    refusal: Option<Refusal>,
}

struct Follower {
    place: Place,
    instance: String,
    agent: Arc<dyn Agent>,
    writer: Writer,
    object: Option<DynamicObject>,
    tried: Option<Tried>,
    retry: Option<Instant>,
    reporter: Reporter,
    /// The API did not answer the last time.
    away: bool,
}

impl Follower {
    fn saw(&mut self, object: Seen) {
        match object {
            Ok(object) => {
                if std::mem::take(&mut self.away) {
                    tracing::info!(object = %self.place, "the API server is back");
                }
                if object.is_none() {
                    tracing::warn!(object = %self.place, "the object does not exist, the last configuration stays in force");
                    // What comes under the same name is another object.
                    (self.tried, self.retry) = (None, None);
                    self.reporter.forget();
                }
                self.object = object;
            }
            Err(error) => {
                let error = describe(&error);
                match std::mem::replace(&mut self.away, true) {
                    true => tracing::debug!(object = %self.place, error, "the API server is still away"),
                    false => tracing::warn!(
                        object = %self.place,
                        error,
                        "the API server does not answer, the last configuration stays in force"
                    ),
                }
            }
        }
    }

    /// Commits the document of the object, unless that was tried.
    fn commit(&mut self) {
        let Some(object) = &self.object else { return };
        let document = document::of(&self.place, object);
        // What has no document has no hash: its fault stands for it.
        let hash = match &document {
            Ok(document) => document.hash.clone(),
            Err(refusal) => refusal.message.clone(),
        };
        let due = self.retry.is_some_and(|retry| retry <= Instant::now());
        if !due && self.tried.as_ref().is_some_and(|tried| tried.hash == hash) {
            return;
        }
        let outcome = document.and_then(|document| self.agent.commit(&document).map(|()| document));
        let refusal = outcome.as_ref().err().cloned();
        if refusal
            .as_ref()
            .is_some_and(|refusal| refusal.reason == Reason::Starting)
        {
            // It was not tried: the firewall says when it can be.
            (self.tried, self.retry) = (None, None);
            return;
        }
        let may_pass = refusal.as_ref().is_some_and(|refusal| refusal.reason.may_pass());
        self.retry = may_pass.then(|| Instant::now() + AGAIN);
        let before = self.tried.replace(Tried { hash, refusal });
        let same = before.is_some_and(|before| {
            self.tried
                .as_ref()
                .is_some_and(|now| now.hash == before.hash && now.refusal == before.refusal)
        });
        if !same {
            self.tell(outcome);
        }
    }

    /// Says what became of a document, in the log and as an event of the object, which nobody waits for.
    fn tell(&self, outcome: Result<Document, Refusal>) {
        let Some(object) = &self.object else { return };
        let (bad, reason, note) = match &outcome {
            Ok(document) => {
                let in_force = self.agent.in_force().unwrap_or_default();
                tracing::info!(
                    document = document.name,
                    revision = in_force.revision,
                    "document in force"
                );
                (
                    false,
                    "Committed",
                    format!("{}: revision {} is in force", self.instance, in_force.revision),
                )
            }
            Err(refusal) => {
                let reason = refusal.reason.name();
                tracing::error!(
                    object = %self.place,
                    reason,
                    problem = refusal.message,
                    "document refused, the configuration stays as it was"
                );
                (true, reason, format!("{}: {}", self.instance, refusal.message))
            }
        };
        let (writer, object) = (self.writer.clone(), object.clone());
        tokio::spawn(async move {
            if let Err(error) = writer.event(&object, bad, reason, &note).await {
                tracing::warn!(object = object.metadata.name, error, "cannot write an event");
            }
        });
    }

    /// Reports, unless the document changes meanwhile: it does not wait for an API server that takes its time with a status.
    /// What was seen last, if anything was.
    async fn report_beside(&mut self, objects: &mut (impl Stream<Item = Seen> + Unpin)) -> Option<Seen> {
        let place = self.place.clone();
        let document = |object: &DynamicObject| document::of(&place, object).map(|document| document.hash);
        let before = self.object.as_ref().map(document);
        let mut report = pin!(self.report());
        let mut last = None;
        loop {
            tokio::select! {
                biased;
                () = &mut report => return last,
                Some(seen) = objects.next() => {
                    let changed = match &seen {
                        Ok(object) => object.as_ref().map(document) != before,
                        Err(_) => false,
                    };
                    last = Some(seen);
                    if changed {
                        // What was on its way is written again if the object does not say it.
                        return last;
                    }
                }
            }
        }
    }

    /// Says what became of the document, as far as it is news.
    async fn report(&mut self) {
        let Some(object) = self.object.as_ref().filter(|_| !self.away) else {
            return;
        };
        let in_force = self.agent.in_force();
        let wanted = document::of(&self.place, object)
            .ok()
            .map(|document| document.hash);
        let judged = Judged {
            object,
            in_force: in_force.as_ref(),
            wanted: wanted.as_deref(),
            refusal: self.tried.as_ref().and_then(|tried| tried.refusal.as_ref()),
        };
        // What was not taken is tried again at the next look.
        let _taken = self.reporter.report(&judged).await;
    }

    /// Takes the entry away: whoever stops does not degrade the others.
    async fn leave(&self) {
        if !self.away {
            self.reporter.leave().await;
        }
    }
}

/// The innermost cause says most.
pub(crate) fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let said = inner.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = inner.source();
    }
    text
}
