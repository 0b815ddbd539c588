//! One fixed firewall for the unit tests: what the four segments might look like after a minute.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bulkhead_abi::SessionState;
use bulkhead_dataplane::engine::{Direction, Session};
use crossbeam::channel::{Receiver, Sender, unbounded};

use crate::filter::SessionFilter;
use crate::firewall::{Answered, Asked, Firewall, Flows};
use crate::protocol::{Failure, FailureCode};
use crate::report::{
    self, Cleared, Committed, Confirmed, Counter, CounterKind, Counters, Explanation, Flow, FlowKind, Group,
    GroupChanged, GroupMember, GroupSource, Groups, History, HistoryEntry, Interface, Interfaces, Memory,
    Nat, Policies, Policy, Question, RefusedDocument, RevisionState, Screen, ScreenEvent, Screens, Sessions,
    ShownConfig, SourceRule, TableMemory, Verdict, Zone, Zones,
};

fn texts(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

fn direction(source: &str, destination: &str, interface: &str, packets: u64, bytes: u64) -> Direction {
    Direction {
        source: source.parse().expect("an address and a port"),
        destination: destination.parse().expect("an address and a port"),
        interface: interface.into(),
        packets,
        bytes,
    }
}

/// A translated TCP session, a DNS query over IPv6, a translated ping.
pub fn sessions() -> Vec<Session> {
    let tcp = Session {
        id: 4711,
        family: 4,
        protocol: 6,
        state: SessionState::TcpEstablished,
        established: true,
        policy: Some("out".into()),
        nat_rule: Some("hide-inside".into()),
        destination_rule: None,
        translated: true,
        from_zone: "applications".into(),
        to_zone: "internet".into(),
        age: Duration::from_millis(61_500),
        idle: Duration::from_micros(2_250_400),
        timeout: Duration::from_secs(7_440),
        original: direction("10.10.2.10:43210", "203.0.113.80:443", "net2", 12, 1_480),
        reply: direction("203.0.113.80:443", "203.0.113.1:60001", "net5", 9, 52_310),
    };
    let dns = Session {
        id: 4712,
        family: 6,
        protocol: 17,
        state: SessionState::UdpOneWay,
        established: false,
        policy: Some("applications-to-databases".into()),
        nat_rule: None,
        translated: false,
        to_zone: "data".into(),
        idle: Duration::from_millis(29_500),
        timeout: Duration::from_secs(30),
        original: direction(
            "[2001:db8:10:2::10]:40000",
            "[2001:db8:10:4::20]:53",
            "net2",
            1,
            94,
        ),
        reply: direction(
            "[2001:db8:10:4::20]:53",
            "[2001:db8:10:2::10]:40000",
            "net4",
            0,
            0,
        ),
        ..tcp.clone()
    };
    let ping = Session {
        id: 4713,
        protocol: 1,
        state: SessionState::Icmp,
        idle: Duration::ZERO,
        timeout: Duration::from_secs(60),
        original: direction("10.10.2.10:77", "203.0.113.80:77", "net2", 1, 98),
        reply: direction("203.0.113.80:77", "203.0.113.1:77", "net5", 1, 98),
        ..tcp.clone()
    };
    vec![tcp, dns, ping]
}

/// The same, as they are reported.
pub fn reported_sessions() -> Vec<report::Session> {
    sessions().iter().map(report::Session::from).collect()
}

/// The TCP session opens, somebody's ping is denied, the TCP session closes.
pub fn flows() -> Vec<Flow> {
    let create = Flow {
        time: "2026-11-22T15:32:32.123456Z".into(),
        kind: FlowKind::Create,
        verdict: Verdict::Forwarded,
        reason: "session_created".into(),
        session_id: Some(4711),
        family: "ipv4".into(),
        protocol: "tcp".into(),
        protocol_number: 6,
        source_address: "10.10.2.10".parse().expect("an address"),
        source_port: 43_210,
        destination_address: "203.0.113.80".parse().expect("an address"),
        destination_port: 443,
        translated_source_address: Some("203.0.113.1".parse().expect("an address")),
        translated_source_port: Some(60_001),
        translated_destination_address: None,
        translated_destination_port: None,
        icmp_type: None,
        icmp_code: None,
        ingress: "net2".into(),
        egress: Some("net5".into()),
        from_zone: "applications".into(),
        to_zone: "internet".into(),
        policy: Some("out".into()),
        nat_rule: Some("hide-inside".into()),
        destination_rule: None,
        packets: 0,
        bytes: 0,
        reply_packets: 0,
        reply_bytes: 0,
        duration_seconds: None,
    };
    let deny = Flow {
        time: "2026-11-22T15:32:33.000001Z".into(),
        kind: FlowKind::Deny,
        verdict: Verdict::Dropped,
        reason: "default_deny".into(),
        session_id: None,
        protocol: "icmp".into(),
        protocol_number: 1,
        source_address: "10.10.3.20".parse().expect("an address"),
        source_port: 77,
        destination_address: "10.10.1.10".parse().expect("an address"),
        destination_port: 77,
        translated_source_address: None,
        translated_source_port: None,
        icmp_type: Some(8),
        icmp_code: Some(0),
        ingress: "net3".into(),
        egress: Some("net1".into()),
        from_zone: "web".into(),
        to_zone: "financial".into(),
        policy: None,
        nat_rule: None,
        ..create.clone()
    };
    let close = Flow {
        time: "2026-11-22T15:33:35.500000Z".into(),
        kind: FlowKind::Close,
        reason: "session_closed".into(),
        packets: 12,
        bytes: 1_480,
        reply_packets: 9,
        reply_bytes: 52_310,
        duration_seconds: Some(63.25),
        ..create.clone()
    };
    vec![create, deny, close]
}

/// Two interfaces, the second in trouble.
pub fn interfaces() -> Interfaces {
    let net1 = Interface {
        name: "net1".into(),
        index: Some(7),
        zone: "financial".into(),
        kind: "veth".into(),
        mac: "02:42:0a:0a:01:01".into(),
        mtu_bytes: 1_500,
        up: true,
        addresses: texts(&["10.10.1.1/24", "2001:db8:10:1::1/64"]),
        hook: "tcx".into(),
        hook_reason: "TCX alone: native XDP on veth costs TSO".into(),
        attached: true,
        fails_closed: true,
        programs_restored: 0,
        warnings: vec![],
    };
    let net2 = Interface {
        name: "net2".into(),
        index: None,
        zone: "web".into(),
        kind: "unknown".into(),
        up: false,
        addresses: vec![],
        hook: "none".into(),
        hook_reason: "the interface is gone".into(),
        attached: false,
        warnings: texts(&["net2 is gone; its zone reaches nobody until it comes back"]),
        ..net1.clone()
    };
    Interfaces {
        generation: 3,
        interfaces: vec![net1, net2],
    }
}

/// One permitting and one denying policy.
pub fn policies() -> Policies {
    let deny = Policy {
        number: 1,
        name: "financial-is-closed".into(),
        from: texts(&["any"]),
        to: texts(&["financial"]),
        source: texts(&["any"]),
        destination: texts(&["any"]),
        service: texts(&["any"]),
        action: "deny".into(),
        log: texts(&["deny"]),
        hits: 0,
    };
    let permit = Policy {
        number: 2,
        name: "visit-web".into(),
        from: texts(&["internet", "applications"]),
        to: texts(&["web"]),
        destination: texts(&["web-servers"]),
        service: texts(&["http", "https", "ping"]),
        action: "permit".into(),
        log: vec![],
        hits: 1_234_567,
        ..deny.clone()
    };
    Policies {
        policies: vec![deny, permit],
        default_denied: 41,
    }
}

/// A flood that was stopped, a scan that raised the alarm, and what is left of a screen that was on once.
pub fn screens() -> Vec<Screen> {
    let flood = Screen {
        zone: "internet".into(),
        profile: Some("edge".into()),
        screen: "icmp_flood".into(),
        enabled: true,
        action: Some("drop".into()),
        threshold: Some(1_000),
        threshold_unit: Some("packets/s".into()),
        interval_seconds: None,
        dropped: 41,
        alarmed: 0,
        last_event: Some(ScreenEvent {
            time: "2026-11-22T15:32:33.000001Z".into(),
            verdict: Verdict::Dropped,
            source_address: "198.51.100.7".parse().expect("an address"),
            destination_address: "203.0.113.80".parse().expect("an address"),
        }),
    };
    let scan = Screen {
        screen: "tcp_port_scan".into(),
        threshold: Some(10),
        threshold_unit: Some("ports".into()),
        interval_seconds: Some(0.005),
        dropped: 0,
        alarmed: 3,
        last_event: None,
        ..flood.clone()
    };
    let off = Screen {
        zone: "web".into(),
        profile: None,
        screen: "land".into(),
        enabled: false,
        action: None,
        threshold: None,
        threshold_unit: None,
        interval_seconds: None,
        dropped: 2,
        alarmed: 0,
        ..scan.clone()
    };
    vec![flood, scan, off]
}

/// A denial by default.
pub fn explanation(question: &Question) -> Explanation {
    Explanation {
        question: question.clone(),
        verdict: "deny".into(),
        reason: "default_deny".into(),
        from_zone: "web".into(),
        to_zone: "internet".into(),
        ingress: "net3".into(),
        egress: Some("net5".into()),
        gateway: None,
        policy: None,
        source_groups: texts(&["web-servers"]),
        destination_groups: vec![],
        services: texts(&["https"]),
        nat_rule: None,
        translated_source: None,
        destination_rule: None,
        translated_destination: None,
        translated_destination_port: None,
        existing_session: None,
        answer_dropped: None,
        hint: Some("no policy".into()),
    }
}

/// Three tables, one of them full.
pub fn memory() -> Memory {
    let table = |name: &str, entries, capacity, bytes| TableMemory {
        name: name.into(),
        entries,
        capacity,
        bytes,
    };
    Memory {
        tables: vec![
            table("FLOWS4", 52_429, 524_288, 96 << 20),
            table("EVENTS", 0, 1 << 20, 1 << 20),
            table("LIVE", 1, 1, 4_096),
        ],
        tables_bytes: (97 << 20) + 4_096,
        most_bytes: 1 << 30,
        daemon_bytes: 31 << 20,
    }
}

/// A revision that was committed over the socket.
pub fn revision(number: u64, state: RevisionState) -> HistoryEntry {
    HistoryEntry {
        revision: number,
        state,
        time: "2026-11-22T15:32:32.123000Z".into(),
        author: "anna".into(),
        user: "root".into(),
        source: bulkhead_revisions::Source::Cli,
        comment: "let them\nin".into(),
        file: "firewall.yaml".into(),
        repeats: None,
        size_bytes: 1_234,
        sha256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".into(),
        confirm_by: None,
        confirmed: None,
        confirmed_by: None,
    }
}

/// The firewall that answers with all this.
pub struct Fixture {
    /// How many sessions were cleared so far.
    pub cleared: AtomicUsize,
    /// What was committed.
    pub commits: Mutex<Vec<(Vec<u8>, String, Asked)>>,
    /// Which members were to come and to go.
    pub changes: Mutex<Vec<Change>>,
    /// Whoever sends here is heard by the subscribers.
    pub events: Sender<Flow>,
    receiver: Receiver<Flow>,
}

impl Default for Fixture {
    fn default() -> Self {
        let (events, receiver) = unbounded();
        Self {
            cleared: AtomicUsize::new(0),
            commits: Mutex::default(),
            changes: Mutex::default(),
            events,
            receiver,
        }
    }
}

/// A group, addresses that were to come to it or to go, and for how long.
pub type Change = (String, Vec<String>, Option<Duration>);

/// A group with a feed that is away and a member by hand.
fn quarantine() -> Group {
    let member = |prefix: &str, expires_in_seconds| GroupMember {
        prefix: prefix.into(),
        expires_in_seconds,
    };
    let feed = GroupSource {
        kind: "feed".into(),
        location: Some("https://feeds.example/infected.txt".into()),
        prefixes: 12_000,
        held: 1,
        pending: None,
        members: vec![member("10.1.0.7", None), member("10.1.0.9", Some(3_600.0))],
        in_force: true,
        age_seconds: Some(95.5),
        last_fetch: Some("2026-11-22T15:32:32.123456Z".into()),
        last_error: Some("the server takes too long".into()),
        next_in_seconds: Some(12.0),
        bad_entries: 1,
        bad_examples: texts(&["entry 7: \"x\" is not an address"]),
        skipped_entries: 0,
    };
    let manual = GroupSource {
        kind: "manual".into(),
        location: None,
        prefixes: 1,
        held: 0,
        pending: None,
        members: vec![member("10.1.0.66", Some(60.0))],
        age_seconds: None,
        last_fetch: None,
        last_error: None,
        next_in_seconds: None,
        bad_entries: 0,
        bad_examples: Vec::new(),
        ..feed.clone()
    };
    Group {
        name: "quarantine".into(),
        literal: false,
        members: Vec::new(),
        except: texts(&["partners"]),
        prefixes: 12_001,
        sources: vec![feed, manual],
        policies: texts(&["stop-infected"]),
    }
}

impl Firewall for Fixture {
    fn interfaces(&self) -> Answered<Interfaces> {
        Ok(interfaces())
    }

    fn zones(&self) -> Answered<Zones> {
        let zone = Zone {
            name: "web".into(),
            interfaces: texts(&["net3"]),
            host_inbound: texts(&["ping"]),
            screen: Some("default".into()),
            policies_from: 2,
            policies_to: 1,
        };
        Ok(Zones { zones: vec![zone] })
    }

    fn policies(&self) -> Answered<Policies> {
        Ok(policies())
    }

    fn nat(&self) -> Answered<Nat> {
        let rule = SourceRule {
            number: 1,
            name: "hide-inside".into(),
            from: texts(&["financial", "applications"]),
            to: texts(&["internet"]),
            source: texts(&["any"]),
            destination: texts(&["any"]),
            service: texts(&["any"]),
            translate: "interface".into(),
            pool: None,
            persistent: None,
            persistent_timeout_seconds: None,
            hits: 12,
        };
        Ok(Nat {
            source: vec![rule],
            ..Nat::default()
        })
    }

    fn screens(&self) -> Answered<Screens> {
        Ok(Screens { screens: screens() })
    }

    fn groups(&self, _: Option<&str>, _: bool) -> Answered<Groups> {
        let databases = Group {
            name: "databases".into(),
            literal: false,
            members: texts(&["10.10.4.10-10.10.4.99", "2001:db8:10:4::/64"]),
            except: texts(&[]),
            prefixes: 6,
            sources: Vec::new(),
            policies: texts(&["applications-to-databases"]),
        };
        Ok(Groups {
            groups: vec![databases, quarantine()],
        })
    }

    fn add_to_group(
        &self,
        group: &str,
        addresses: &[String],
        lasting: Option<Duration>,
    ) -> Answered<GroupChanged> {
        let change = (group.to_owned(), addresses.to_vec(), lasting);
        self.changes.lock().expect("no panic").push(change);
        Ok(GroupChanged {
            group: group.to_owned(),
            added: addresses.len(),
            removed: 0,
            members: addresses.len(),
            kept: lasting.is_none(),
            milliseconds: 0.25,
        })
    }

    fn remove_from_group(&self, group: &str, addresses: &[String]) -> Answered<GroupChanged> {
        if group == "nowhere" {
            let message = format!("there is no address group \"{group}\"");
            return Err(Failure::new(FailureCode::Refused, message));
        }
        let change = (group.to_owned(), addresses.to_vec(), None);
        self.changes.lock().expect("no panic").push(change);
        Ok(GroupChanged {
            group: group.to_owned(),
            added: 0,
            removed: addresses.len(),
            members: 1,
            kept: true,
            milliseconds: 0.25,
        })
    }

    fn counters(&self, all: bool) -> Answered<Counters> {
        let counter = |name: &str, kind, value, unit: &str| Counter {
            name: name.into(),
            kind,
            value,
            unit: unit.into(),
        };
        let mut counters = vec![
            counter("established", CounterKind::Passed, 1_000_000, "packets"),
            counter("default_deny", CounterKind::Dropped, 41, "packets"),
            counter("no_route", CounterKind::Dropped, 0, "packets"),
            counter("sessions_expired", CounterKind::Other, 7, "sessions"),
        ];
        counters.retain(|counter| all || counter.value > 0);
        Ok(Counters { counters })
    }

    fn memory(&self) -> Answered<Memory> {
        Ok(memory())
    }

    fn sessions(&self, filter: &SessionFilter, limit: usize) -> Answered<Sessions> {
        let mut sessions = sessions();
        sessions.retain(|session| filter.matches(session));
        let total = sessions.len();
        sessions.truncate(limit);
        Ok(Sessions {
            sessions: sessions.iter().map(report::Session::from).collect(),
            total,
        })
    }

    fn clear_sessions(&self, filter: &SessionFilter) -> Answered<Cleared> {
        let cleared = sessions()
            .iter()
            .filter(|session| filter.matches(session))
            .count();
        self.cleared.fetch_add(cleared, Ordering::Relaxed);
        Ok(Cleared { cleared })
    }

    fn explain(&self, question: &Question) -> Answered<Explanation> {
        if question.from == "nowhere" {
            return Err(Failure::new(
                FailureCode::Refused,
                "\"nowhere\" is no interface and no zone",
            ));
        }
        Ok(explanation(question))
    }

    fn commit(&self, document: Vec<u8>, file: String, asked: Asked) -> Answered<Committed> {
        if document.starts_with(b"wrong") {
            return Err(Failure::new(
                FailureCode::ConfigurationRefused,
                format!("error: nonsense\n --> {file}:1:1\n{file}: refused, nothing was changed"),
            ));
        }
        let mut commits = self.commits.lock().expect("no panic");
        commits.push((document, file, asked));
        Ok(Committed {
            revision: 1 + commits.len() as u64,
            generation: 7,
            changed: true,
            kept: true,
            confirm_by: None,
            back_to: None,
            milliseconds: 3.5,
            warnings: vec![],
        })
    }

    fn confirm(&self, _: &Asked) -> Answered<Confirmed> {
        Err(Failure::new(FailureCode::Refused, "nothing awaits confirmation"))
    }

    fn roll_back(&self, revision: Option<u64>, asked: Asked) -> Answered<Committed> {
        let document = format!("the document of revision {revision:?}");
        self.commit(document.into_bytes(), "earlier".into(), asked)
    }

    fn history(&self) -> Answered<History> {
        let confirmed = HistoryEntry {
            repeats: Some(1),
            source: bulkhead_revisions::Source::Rollback,
            confirm_by: Some("2026-11-22T15:37:32.123000Z".into()),
            ..revision(2, RevisionState::AwaitsConfirmation)
        };
        Ok(History {
            kept: true,
            revisions: vec![confirmed, revision(1, RevisionState::Past)],
            refused: Some(RefusedDocument {
                document: "/etc/bulkhead/firewall.yaml".into(),
                time: "2026-11-22T15:40:00.5Z".into(),
                reason: "Invalid".into(),
                message: "firewall.yaml:7:3: first\nfirewall.yaml:9:3: \u{1b}second".into(),
            }),
        })
    }

    fn shown_config(&self, number: Option<u64>) -> Answered<ShownConfig> {
        Ok(ShownConfig {
            revision: revision(number.unwrap_or(2), RevisionState::InForce),
            document: "kind: Firewall\n".into(),
        })
    }

    fn recent_flows(&self) -> Vec<Flow> {
        flows()
    }

    fn subscribe(&self) -> Flows {
        let receiver = self.receiver.clone();
        Box::new(move |patience: Duration| receiver.recv_timeout(patience))
    }
}
