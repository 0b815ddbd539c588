//! What one instance says of itself on one object, kept as it is.
//!
//! Owns what was written last, so that nothing is written that is there already, and whose entries were taken away. Judges
//! nothing: who follows the object, or only reads it, says what became of its document.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::core::DynamicObject;
use tokio::time::Instant;

use crate::agent::{InForce, Origin, Refusal};
use crate::place::Place;
use crate::report::{Reported, Unwritten, Writer};
use crate::status::{Instance, Known, Summary};

/// When an entry that was taken away and is still there is taken away again, whosever it is.
const AGAIN: Duration = Duration::from_secs(10);
/// How often it is tried to take the status away: somebody else may write meanwhile.
const FAREWELLS: usize = 3;
/// How long what was written is not written again, whatever the object says: the API may take it and keep it to itself.
const INSIST: Duration = Duration::from_secs(60);
/// How long it is remembered which entries were taken away.
const FORGOTTEN: Duration = Duration::from_secs(3_600);

/// What became of the document of an object.
#[derive(Clone, Copy, Debug)]
pub struct Judged<'j> {
    /// The object.
    pub object: &'j DynamicObject,
    /// What is in force; `None`: nothing yet.
    pub in_force: Option<&'j InForce>,
    /// SHA-256 of the object's document, if it has one.
    pub wanted: Option<&'j str>,
    /// Why that is not in force, if it was refused.
    pub refusal: Option<&'j Refusal>,
}

/// An instance and an object.
pub struct Reporter {
    place: Place,
    instance: String,
    writer: Writer,
    /// The entry that was written last, and when.
    written: Option<(Instance, Instant)>,
    summarized: Option<(Summary, Instant)>,
    /// Whose entries were taken away, how often, and when.
    buried: BTreeMap<String, (u32, Instant)>,
    /// The API did not take what was written.
    unwritten: bool,
}

impl Reporter {
    /// One that has said nothing yet.
    pub fn new(writer: Writer, place: &Place, instance: &str) -> Self {
        Self {
            place: place.clone(),
            instance: instance.to_owned(),
            writer,
            written: None,
            summarized: None,
            buried: BTreeMap::new(),
            unwritten: false,
        }
    }

    /// The object is gone: what comes under the same name is another.
    pub fn forget(&mut self) {
        (self.written, self.summarized) = (None, None);
    }

    /// Writes the instance's entry and the summary, as far as they are news. Whether the API has taken it.
    #[must_use]
    pub async fn report(&mut self, judged: &Judged<'_>) -> bool {
        let outcome = self.write(judged).await;
        let taken = outcome.is_ok();
        match (outcome, std::mem::replace(&mut self.unwritten, !taken)) {
            (Err(error), false) => tracing::warn!(object = %self.place, error, "cannot write the status"),
            (Err(error), true) => {
                tracing::debug!(object = %self.place, error, "cannot write the status still")
            }
            (Ok(()), true) => tracing::info!(object = %self.place, "the status is written again"),
            (Ok(()), false) => {}
        }
        taken
    }

    async fn write(&mut self, judged: &Judged<'_>) -> Result<(), Unwritten> {
        let object = judged.object;
        let now = Timestamp::now();
        let reported = Reported::read(&self.place, object);
        let before = self.written.as_ref().map(|(entry, _)| entry);
        let entry = Instance::new(
            &Known {
                name: &self.instance,
                in_force: judged.in_force,
                wanted: judged.wanted,
                refusal: judged.refusal,
                observed_generation: object.metadata.generation,
            },
            before.or(reported.entry(&self.instance)),
            now,
        );
        if is_news(&entry, reported.entry(&self.instance), self.written.as_ref()) {
            let outcome = self.writer.entry(Some(&entry)).await;
            self.written = outcome.is_ok().then(|| (entry.clone(), Instant::now()));
            outcome?;
        }
        if self.place.origin == Origin::Firewall {
            let before = self
                .summarized
                .as_ref()
                .map_or(&reported.summary, |(summary, _)| summary);
            // Times that somebody else has written are as good as ours.
            let before = if says_as(before, &reported.summary) {
                &reported.summary
            } else {
                before
            };
            let summary = Summary::of(&reported.with(&entry), before, now);
            if is_news(&summary, Some(&reported.summary), self.summarized.as_ref()) {
                let outcome = self.writer.summary(&summary).await;
                self.summarized = outcome.is_ok().then(|| (summary, Instant::now()));
                outcome?;
            }
        }
        self.bury(object, &reported, now).await
    }

    /// Takes the entries of dead instances away: as theirs, and if they stay, being somebody else's, whosever they are. What comes
    /// back all the same is left alone for an hour.
    async fn bury(
        &mut self,
        object: &DynamicObject,
        reported: &Reported,
        now: Timestamp,
    ) -> Result<(), Unwritten> {
        self.buried.retain(|_, (_, when)| when.elapsed() < FORGOTTEN);
        let dead = reported
            .instances
            .iter()
            .filter(|instance| instance.is_expired(now) && instance.name != self.instance);
        for Instance { name, .. } in dead {
            let before = self.buried.get(name).copied();
            let place = &self.place;
            match before {
                None => {
                    tracing::info!(object = %place, instance = name, "the entry of an instance that is gone is removed");
                    self.writer.bury(name).await?;
                }
                Some((1, when)) if when.elapsed() >= AGAIN => {
                    tracing::warn!(object = %place, instance = name, "the entry of an instance that is gone is somebody else's, or its clock is wrong; it is removed all the same");
                    self.writer.remove(object, name).await?;
                }
                Some(_) => continue,
            }
            let times = before.map_or(1, |(times, _)| times + 1);
            self.buried.insert(name.clone(), (times, Instant::now()));
        }
        Ok(())
    }

    /// Takes the entry away: whoever stops does not degrade the others. The last one says that nobody is left.
    pub async fn leave(&self) {
        if self.written.is_none() {
            return;
        }
        let mut outcome = Ok(());
        for _ in 0..FAREWELLS {
            outcome = self.try_to_leave().await;
            if outcome.is_ok() {
                return;
            }
        }
        if let Err(error) = outcome {
            tracing::warn!(object = %self.place, error, "cannot take the status away, it goes after a while");
        }
    }

    async fn try_to_leave(&self) -> Result<(), Unwritten> {
        // What the watch has seen last may be older than what was written last.
        let Some(object) = self.writer.read().await? else {
            return Ok(());
        };
        let now = Timestamp::now();
        let reported = Reported::read(&self.place, &object);
        let others = |instance: &&Instance| instance.name != self.instance && !instance.is_expired(now);
        let others: Vec<Instance> = reported.instances.iter().filter(others).cloned().collect();
        match others.is_empty() {
            true => self.writer.last(&object).await?,
            false => self.writer.entry(None).await?,
        }
        if self.place.origin == Origin::ConfigMap {
            return Ok(());
        }
        self.writer
            .summary(&Summary::of(&others, &reported.summary, now))
            .await
    }
}

/// Whether something is to be written: the object does not say it, and it was not written just now.
fn is_news<T: PartialEq>(wanted: &T, says: Option<&T>, written: Option<&(T, Instant)>) -> bool {
    let just_written = written.is_some_and(|(value, when)| value == wanted && when.elapsed() < INSIST);
    says != Some(wanted) && !just_written
}

/// Whether two summaries differ in their times at most.
fn says_as(one: &Summary, other: &Summary) -> bool {
    let statuses = |summary: &Summary| -> Vec<(String, String)> {
        let conditions = summary.conditions.iter();
        conditions
            .map(|condition| (condition.kind.clone(), condition.status.clone()))
            .collect()
    };
    statuses(one) == statuses(other)
}
