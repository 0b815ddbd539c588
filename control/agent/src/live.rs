//! The running firewall: the engine, and the configuration it enforces.
//!
//! Owns the pair. The engine knows names and indices; the configuration knows what people wrote (ranges, literals, the
//! names of services). A commit replaces both under one lock, so that no answer mixes two generations. Commits come from
//! threads in the engine's network namespace: all of the daemon's are.

mod commits;
mod isolation;
mod nat;
mod screens;
mod tables;

pub use self::commits::{CommitError, Commits, Proposal, log_error, now_ms};
pub use self::isolation::{Isolations, UNKNOWN};
use self::tables::Tables;

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use bulkhead_config::{Config, GroupId, Selector, ServiceId, ZoneId};
use bulkhead_dataplane::engine::{Engine, EngineError};
use bulkhead_dataplane::ruleset::Prefix;
use bulkhead_kube::mnp::Isolation;
use bulkhead_revisions::Source;

use crate::filter::SessionFilter;
use crate::firewall::{Answered, Asked, Firewall, Flows};
use crate::groups;
use crate::protocol::{Failure, FailureCode};
use crate::report::{
    Cleared, Committed, Confirmed, Counters, Explanation, Flow, GroupChanged, Groups, History, Interfaces,
    Memory, Nat, Policies, Policy, Question, Screens, Session, Sessions, ShownConfig, Zone, Zones,
};
use crate::{convert, report, translate};

/// The name of the counter of what no policy matched.
const DEFAULT_DENIED: &str = bulkhead_abi::Reason::DefaultDeny.name();

/// An engine and its configuration.
pub struct LiveFirewall {
    engine: Engine,
    config: RwLock<Config>,
    commits: Commits,
    /// As they were made at the start.
    tables: Tables,
    /// The name that what is pinned goes by; `None`: nothing is.
    pinned: Option<String>,
    groups: Arc<groups::Groups>,
    isolations: Isolations,
}

impl LiveFirewall {
    /// Joins an engine, the configuration it was started with, the revisions, of which that is the current one, the
    /// sources of its groups, and what was put around its policies.
    pub fn new(
        engine: Engine,
        config: Config,
        commits: Commits,
        groups: Arc<groups::Groups>,
        isolations: Isolations,
    ) -> Self {
        Self {
            pinned: engine.is_pinned().then(|| config.name.clone()),
            engine,
            tables: Tables::of(&config),
            config: RwLock::new(config),
            commits,
            groups,
            isolations,
        }
    }

    /// The sources of its groups.
    pub const fn sources(&self) -> &Arc<groups::Groups> {
        &self.groups
    }

    /// The most that the tables can take.
    pub fn most_table_bytes(&self) -> u64 {
        bulkhead_dataplane::preflight::most_table_bytes(&self.tables.sizes())
    }

    /// The engine.
    pub const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Tells the engine to enforce a configuration from now on; returns its generation. Only for commits, which keep the two
    /// together.
    ///
    /// # Errors
    /// If the data plane refuses it; the old one stays in force.
    fn enforce(&self, config: &Config) -> Result<u32, EngineError> {
        self.enforce_around(config, &self.isolations.in_force(), None)
    }

    /// The same with another isolation than that in force; in at most so many eighths of the words of rule vectors.
    fn enforce_around(
        &self,
        config: &Config,
        isolation: &Isolation,
        eighths: Option<usize>,
    ) -> Result<u32, EngineError> {
        let mut ruleset = translate::ruleset(config);
        self.groups.fill(config, &mut ruleset);
        translate::isolation::around(&mut ruleset, isolation);
        match eighths {
            None => self.engine.commit(ruleset),
            Some(eighths) => self.engine.commit_within(ruleset, eighths),
        }
    }

    /// The configuration in force; holds off a commit as long as it is held.
    pub fn config(&self) -> RwLockReadGuard<'_, Config> {
        // A panic while it was held for writing happened before or after the assignment, never inside it.
        self.config.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A question that makes no sense is the asker's to mend; anything else is ours.
fn failure(error: &EngineError) -> Failure {
    let code = match error {
        EngineError::Question(_) => FailureCode::Refused,
        _ => FailureCode::Failed,
    };
    Failure::new(code, error)
}

impl Firewall for LiveFirewall {
    fn interfaces(&self) -> Answered<Interfaces> {
        let interfaces = self.engine.interfaces().map_err(|error| failure(&error))?;
        Ok(Interfaces {
            generation: self.engine.generation(),
            interfaces: interfaces.into_iter().map(Into::into).collect(),
        })
    }

    fn zones(&self) -> Answered<Zones> {
        Ok(zones(&self.config()))
    }

    fn policies(&self) -> Answered<Policies> {
        let config = self.config();
        let hits = self.engine.policy_hits().map_err(|error| failure(&error))?;
        let counters = self.engine.counters().map_err(|error| failure(&error))?;
        Ok(policies(
            &config,
            &self.isolations.in_force(),
            &hits,
            counters.get(DEFAULT_DENIED).copied().unwrap_or(0),
        ))
    }

    fn nat(&self) -> Answered<Nat> {
        let config = self.config();
        let counted = nat::Counted {
            hits: self.engine.all_nat_hits().map_err(|error| failure(&error))?,
            pools: self.engine.pools(),
            mappings: self.engine.mappings().map_err(|error| failure(&error))?,
        };
        Ok(nat::nat(&config, &counted))
    }

    fn screens(&self) -> Answered<Screens> {
        let config = self.config();
        let counted = self.engine.screens().map_err(|error| failure(&error))?;
        Ok(screens::screens(&config, &counted, &self.recent_flows()))
    }

    fn groups(&self, group: Option<&str>, members: bool) -> Answered<Groups> {
        let report = self.groups.report(&self.config(), group, members);
        match group.filter(|_| report.groups.is_empty()) {
            None => Ok(report),
            Some(group) => {
                let message =
                    format!("there is no address group \"{group}\"; `bulkhead show groups` lists them");
                Err(Failure::new(FailureCode::Refused, message))
            }
        }
    }

    fn add_to_group(
        &self,
        group: &str,
        addresses: &[String],
        lasting: Option<Duration>,
    ) -> Answered<GroupChanged> {
        self.groups.add(group, addresses, lasting, self)
    }

    fn remove_from_group(&self, group: &str, addresses: &[String]) -> Answered<GroupChanged> {
        self.groups.remove(group, addresses, self)
    }

    fn counters(&self, all: bool) -> Answered<Counters> {
        let counters = self.engine.counters().map_err(|error| failure(&error))?;
        Ok(Counters {
            counters: counters
                .into_iter()
                .filter(|(_, value)| all || *value > 0)
                .map(|(name, value)| convert::counter(name, value))
                .collect(),
        })
    }

    fn memory(&self) -> Answered<Memory> {
        let mut tables = self.engine.memory().map_err(|error| failure(&error))?;
        tables.sort_by(|one, other| {
            other
                .bytes
                .cmp(&one.bytes)
                .then_with(|| one.name.cmp(&other.name))
        });
        Ok(Memory {
            tables_bytes: tables.iter().map(|table| table.bytes).sum(),
            most_bytes: self.most_table_bytes(),
            daemon_bytes: report::resident_bytes(),
            tables: tables.into_iter().map(Into::into).collect(),
        })
    }

    fn sessions(&self, filter: &SessionFilter, limit: usize) -> Answered<Sessions> {
        let list = self
            .engine
            .sessions(&|session| filter.matches(session), limit)
            .map_err(|error| failure(&error))?;
        Ok(Sessions {
            sessions: list.sessions.iter().map(Session::from).collect(),
            total: list.total,
        })
    }

    fn clear_sessions(&self, filter: &SessionFilter) -> Answered<Cleared> {
        let cleared = self
            .engine
            .clear_sessions(&|session| filter.matches(session))
            .map_err(|error| failure(&error))?;
        Ok(Cleared { cleared })
    }

    fn explain(&self, question: &Question) -> Answered<Explanation> {
        let answer = self
            .engine
            .explain(&convert::question(question))
            .map_err(|error| failure(&error))?;
        Ok(convert::explanation(question, answer))
    }

    fn recent_flows(&self) -> Vec<Flow> {
        self.engine
            .recent_events(usize::MAX)
            .into_iter()
            .map(Flow::from)
            .collect()
    }

    fn commit(&self, document: Vec<u8>, file: String, asked: Asked) -> Answered<Committed> {
        let proposal = Proposal {
            document,
            file,
            source: Source::Cli,
            repeats: None,
            asked,
        };
        Ok(Self::commit(self, proposal)?)
    }

    fn confirm(&self, asked: &Asked) -> Answered<Confirmed> {
        Ok(Self::confirm(self, asked)?)
    }

    fn roll_back(&self, revision: Option<u64>, asked: Asked) -> Answered<Committed> {
        Ok(Self::roll_back(self, revision, asked)?)
    }

    fn history(&self) -> Answered<History> {
        Ok(self.revisions())
    }

    fn shown_config(&self, revision: Option<u64>) -> Answered<ShownConfig> {
        self.shown(revision)
    }

    fn subscribe(&self) -> Flows {
        let events = self.engine.subscribe();
        Box::new(move |patience| events.recv_timeout(patience).map(Flow::from))
    }
}

impl groups::Tables for LiveFirewall {
    fn set_members(&self, group: &str, members: Vec<Prefix>) -> Result<(), String> {
        let set = self.engine.set_members(group, members);
        set.map(drop).map_err(|error| error.to_string())
    }

    fn update_members(&self, group: &str, add: &[Prefix], remove: &[Prefix]) -> Result<(), String> {
        let updated = self.engine.update_members(group, add, remove);
        updated.map(drop).map_err(|error| error.to_string())
    }
}

/// The names behind a selector; `any` for everything.
fn names<'c, T>(selector: &Selector<T>, name: impl Fn(&T) -> &'c str) -> Vec<String> {
    match selector {
        Selector::Any => vec!["any".to_owned()],
        Selector::OneOf(ids) => ids.iter().map(|id| name(id).to_owned()).collect(),
    }
}

fn zone_names(config: &Config, selector: &Selector<ZoneId>) -> Vec<String> {
    names(selector, |id| &config.zone(*id).name)
}

fn group_names(config: &Config, selector: &Selector<GroupId>) -> Vec<String> {
    names(selector, |id| &config.group(*id).name)
}

fn service_names(config: &Config, selector: &Selector<ServiceId>) -> Vec<String> {
    names(selector, |id| &config.service(*id).name)
}

fn zones(config: &Config) -> Zones {
    let zone = |(number, zone): (u32, &bulkhead_config::Zone)| {
        let id = ZoneId(number);
        let policies = |side: fn(&bulkhead_config::Policy) -> &Selector<ZoneId>| {
            config
                .policies
                .iter()
                .filter(|policy| side(policy).selects(&id))
                .count()
        };
        Zone {
            name: zone.name.clone(),
            interfaces: config
                .interfaces_of(id)
                .map(|interface| interface.name.clone())
                .collect(),
            host_inbound: zone
                .host_inbound
                .iter()
                .map(|&id| config.service(id).name.clone())
                .collect(),
            screen: zone.screen.map(|screen| config.screen(screen).name.clone()),
            policies_from: policies(|policy| &policy.from),
            policies_to: policies(|policy| &policy.to),
        }
    };
    Zones {
        zones: (0..).zip(&config.zones).map(zone).collect(),
    }
}

/// In the order in which they are asked; `hits` goes by the place of the policy in it.
fn policies(config: &Config, isolation: &Isolation, hits: &[u64], default_denied: u64) -> Policies {
    let denials = isolation.denials.len();
    let documents = denials..denials + config.policies.len();
    let groups = |index: usize, selector: &Selector<GroupId>| match documents.contains(&index) {
        true => group_names(config, selector),
        false => names(selector, |id| &isolation.groups[id.0 as usize].name),
    };
    let services = |index: usize, selector: &Selector<ServiceId>| match documents.contains(&index) {
        true => service_names(config, selector),
        false => names(selector, |id| &isolation.services[id.0 as usize].name),
    };
    let policy = |(index, policy): (usize, &bulkhead_config::Policy)| Policy {
        number: index + 1,
        name: policy.name.clone(),
        from: zone_names(config, &policy.from),
        to: zone_names(config, &policy.to),
        source: groups(index, &policy.source),
        destination: groups(index, &policy.destination),
        service: services(index, &policy.service),
        action: match policy.action {
            bulkhead_config::Action::Permit => "permit",
            bulkhead_config::Action::Deny => "deny",
            bulkhead_config::Action::Reject => "reject",
        }
        .to_owned(),
        log: policy
            .log
            .iter()
            .map(|event| {
                match event {
                    bulkhead_config::LogEvent::Create => "create",
                    bulkhead_config::LogEvent::Close => "close",
                    bulkhead_config::LogEvent::Deny => "deny",
                }
                .to_owned()
            })
            .collect(),
        hits: hits.get(index).copied().unwrap_or(0),
    };
    Policies {
        policies: translate::isolation::in_order(config, isolation)
            .enumerate()
            .map(policy)
            .collect(),
        default_denied,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let text = include_str!("../../../deploy/examples/four-segments.yaml");
        bulkhead_config::parse("four-segments.yaml", text)
            .expect("a sound example")
            .config
    }

    #[test]
    fn zones_know_their_interfaces_and_policies() {
        let zones = zones(&config()).zones;
        let web = zones.iter().find(|zone| zone.name == "web").expect("a zone");
        assert_eq!(
            (web.interfaces.as_slice(), web.host_inbound.as_slice()),
            (&["net3".into()][..], &["ping".into()][..])
        );
        // From: web-starts-nothing and financial-is-closed, which is from any; to: visit-web and web-starts-nothing.
        assert_eq!((web.policies_from, web.policies_to), (2, 2));
        let internet = zones.iter().find(|zone| zone.name == "internet").expect("a zone");
        assert!(internet.host_inbound.is_empty());
    }

    #[test]
    fn policies_are_numbered_named_and_counted() {
        let policies = policies(&config(), &Isolation::default(), &[5, 0, 7], 9);
        assert_eq!(policies.default_denied, 9);
        let visit = &policies.policies[2];
        assert_eq!(
            (visit.number, visit.name.as_str(), visit.hits),
            (3, "visit-web", 7)
        );
        let mut from = visit.from.clone();
        from.sort();
        assert_eq!(from, ["applications", "financial", "internet"]);
        assert_eq!(
            (visit.source.as_slice(), visit.destination.as_slice()),
            (&["any".into()][..], &["web-servers".into()][..])
        );
        assert_eq!(
            (visit.action.as_str(), visit.log.as_slice()),
            ("permit", &["close".into()][..])
        );
        let first = &policies.policies[0];
        assert_eq!(
            (first.action.as_str(), first.to.as_slice(), first.hits),
            ("reject", &["any".into()][..], 5)
        );
        assert_eq!(
            policies.policies[5].hits, 0,
            "hits may be fewer while a generation changes"
        );
    }
}
