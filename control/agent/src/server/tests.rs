//! The protocol over a real socket.

mod api;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::*;
use crate::client::Client;
use crate::filter::{FlowFilter, SessionFilter};
use crate::fixture::{self, Fixture};
use crate::protocol::{Command, CommitOptions, MAX_REQUEST_BYTES};
use crate::report::{self, Cleared, Explanation, Flow, FlowKind, Question, Sessions};
use crate::words;

struct Running {
    fixture: Arc<Fixture>,
    server: Option<Server>,
    path: PathBuf,
    _directory: tempfile::TempDir,
}

fn running() -> Running {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("deep/er/bulkhead.sock");
    let fixture = Arc::new(Fixture::default());
    let server = Claim::new(&path)
        .expect("a path")
        .serve(Arc::clone(&fixture) as Arc<dyn Firewall>)
        .expect("a server");
    Running {
        fixture,
        server: Some(server),
        path,
        _directory: directory,
    }
}

impl Running {
    fn client(&self) -> Client {
        Client::connect(&self.path).expect("a connection")
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("a file").permissions().mode() & 0o7777
}

#[test]
fn only_the_owner_may_connect() {
    let running = running();
    assert_eq!(running.server.as_ref().map(Server::path), Some(&*running.path));
    assert_eq!(mode(&running.path), 0o600);
    let directory = running.path.parent().expect("a directory");
    assert_eq!(
        (mode(directory), mode(directory.parent().expect("a directory"))),
        (0o700, 0o700)
    );
}

#[test]
fn every_command_is_answered_on_one_connection() {
    let running = running();
    let mut client = running.client();
    let interfaces: report::Interfaces = client.ask(&Command::ShowInterfaces {}).expect("an answer");
    assert_eq!(interfaces, fixture::interfaces());
    let policies: report::Policies = client.ask(&Command::ShowPolicies {}).expect("an answer");
    assert_eq!(policies, fixture::policies());
    let zones: report::Zones = client.ask(&Command::ShowZones {}).expect("an answer");
    assert_eq!(zones.zones[0].name, "web");
    let nat: report::Nat = client.ask(&Command::ShowNat {}).expect("an answer");
    assert_eq!(nat.source[0].name, "hide-inside");
    let screens: report::Screens = client.ask(&Command::ShowScreens {}).expect("an answer");
    assert_eq!(screens.screens, fixture::screens());
    let groups: report::Groups = client
        .ask(&Command::ShowGroups {
            group: None,
            members: false,
        })
        .expect("an answer");
    assert_eq!(groups.groups[0].name, "databases");
    let memory: report::Memory = client.ask(&Command::ShowMemory {}).expect("an answer");
    assert_eq!(memory, fixture::memory());
    let counters: report::Counters = client
        .ask(&Command::ShowCounters { all: false })
        .expect("an answer");
    assert!(counters.counters.iter().all(|counter| counter.value > 0));
    let all: report::Counters = client
        .ask(&Command::ShowCounters { all: true })
        .expect("an answer");
    assert_eq!(all.counters.len(), counters.counters.len() + 1);
    let filter = SessionFilter {
        policy: Some("out".into()),
        ..SessionFilter::default()
    };
    let sessions: Sessions = client
        .ask(&Command::ShowSessions { filter, limit: 1 })
        .expect("an answer");
    assert_eq!(
        (sessions.sessions, sessions.total),
        (fixture::reported_sessions()[..1].to_vec(), 2)
    );
    let question = Question {
        from: "web".into(),
        source: "10.10.3.20".parse().expect("an address"),
        destination: "2001:db8::1".parse().expect("an address"),
        protocol_number: 6,
        source_port: 0,
        destination_port: 443,
        icmp_type: None,
        icmp_code: None,
    };
    let command = Command::Explain {
        question: question.clone(),
    };
    let explanation: Explanation = client.ask(&command).expect("an answer");
    assert_eq!(explanation, fixture::explanation(&question));
    let nowhere = Command::Explain {
        question: Question {
            from: "nowhere".into(),
            ..question
        },
    };
    let error = client.ask::<Explanation>(&nowhere).expect_err("a refusal");
    assert_eq!(error.to_string(), "\"nowhere\" is no interface and no zone");
    client
        .ask::<report::Zones>(&Command::ShowZones {})
        .expect("a failure does not end the connection");
}

#[test]
fn members_come_and_go() {
    let running = running();
    let mut client = running.client();
    let addresses = vec!["192.0.2.7".to_owned(), "198.51.100.0/24".to_owned()];
    let add = |seconds| Command::AddToGroup {
        group: "quarantine".into(),
        addresses: addresses.clone(),
        seconds,
    };
    for (seconds, kept) in [(None, true), (Some(90), false)] {
        let changed: report::GroupChanged = client.ask(&add(seconds)).expect("an answer");
        assert_eq!(
            (changed.group.as_str(), changed.added, changed.kept),
            ("quarantine", 2, kept)
        );
    }
    let remove = Command::RemoveFromGroup {
        group: "quarantine".into(),
        addresses: addresses[..1].to_vec(),
    };
    let changed: report::GroupChanged = client.ask(&remove).expect("an answer");
    assert_eq!((changed.added, changed.removed, changed.members), (0, 1, 1));
    // What was asked for, word by word.
    assert_eq!(
        *running.fixture.changes.lock().expect("no panic"),
        [
            ("quarantine".to_owned(), addresses.clone(), None),
            (
                "quarantine".to_owned(),
                addresses.clone(),
                Some(Duration::from_secs(90))
            ),
            ("quarantine".to_owned(), addresses[..1].to_vec(), None),
        ]
    );
    let nowhere = Command::RemoveFromGroup {
        group: "nowhere".into(),
        addresses,
    };
    let error = client
        .ask::<report::GroupChanged>(&nowhere)
        .expect_err("a refusal");
    let failure: &Failure = error.downcast_ref().expect("a failure");
    assert_eq!(
        (failure.code, failure.message.as_str()),
        (FailureCode::Refused, "there is no address group \"nowhere\"")
    );
}

#[test]
fn revisions_are_confirmed_and_come_back() {
    let running = running();
    let mut client = running.client();
    let rollback = Command::Rollback {
        revision: Some(1),
        options: CommitOptions {
            comment: "back".into(),
            ..CommitOptions::default()
        },
    };
    let committed: report::Committed = client.ask(&rollback).expect("an answer");
    assert_eq!(committed.revision, 2);
    {
        let commits = running.fixture.commits.lock().expect("no panic");
        assert_eq!(commits[0].0, b"the document of revision Some(1)");
        assert_eq!(commits[0].2.comment, "back");
    }
    let confirm = Command::Confirm { author: None };
    let error = client.ask::<report::Confirmed>(&confirm).expect_err("a refusal");
    assert_eq!(error.to_string(), "nothing awaits confirmation");
}

#[test]
fn documents_follow_their_request() {
    let running = running();
    let mut client = running.client();
    let commit = |bytes, comment: &str| Command::Commit {
        bytes,
        file: "firewall.yaml".into(),
        options: CommitOptions {
            author: Some("anna".into()),
            comment: comment.into(),
            onto: Some(4),
            confirm_seconds: Some(300),
        },
    };
    // Longer than a request may be, with line ends in it and none at its end.
    let document = "a line\n".repeat(MAX_REQUEST_BYTES) + "{\"version\":1}";
    let committed: report::Committed = client
        .ask_with(&commit(document.len(), "why"), document.as_bytes())
        .expect("an answer");
    assert_eq!(committed.revision, 2);
    {
        let commits = running.fixture.commits.lock().expect("no panic");
        let [(received, file, asked)] = &commits[..] else {
            panic!("{commits:?}")
        };
        assert!(*received == document.as_bytes(), "byte by byte");
        assert_eq!(
            (file.as_str(), asked.author.as_deref(), asked.comment.as_str()),
            ("firewall.yaml", Some("anna"), "why")
        );
        assert_eq!((asked.onto, asked.confirm_seconds), (Some(4), Some(300)));
        let own = words::user_name(nix::unistd::getuid());
        assert_eq!(asked.user, own, "as the kernel says");
    }
    // A refusal leaves the connection where the next request begins.
    let error = client
        .ask_with::<report::Committed>(&commit(5, ""), b"wrong")
        .expect_err("a refusal");
    let failure: &Failure = error.downcast_ref().expect("a failure");
    assert_eq!(failure.code, FailureCode::ConfigurationRefused);
    let error = client
        .ask_with::<report::Committed>(&commit(3, &"long ".repeat(1_000)), b"abc")
        .expect_err("a refusal");
    assert!(error.to_string().contains("4096 bytes at most"), "{error}");
    let history: report::History = client.ask(&Command::History {}).expect("an answer");
    assert_eq!(history.revisions.len(), 2);
    let shown: report::ShownConfig = client
        .ask(&Command::ShowConfig { revision: Some(1) })
        .expect("an answer");
    assert_eq!(
        (shown.revision.revision, shown.document.as_str()),
        (1, "kind: Firewall\n")
    );
    // Too much of it: refused before it is read, and the connection ends.
    let error = client
        .ask::<report::Committed>(&commit(usize::MAX, ""))
        .expect_err("a refusal");
    assert!(error.to_string().contains("nothing was changed"), "{error}");
    client
        .ask::<report::History>(&Command::History {})
        .expect_err("the connection is closed");
    assert_eq!(running.fixture.commits.lock().expect("no panic").len(), 1);

    // Half a document is none.
    let mut stream = UnixStream::connect(&running.path).expect("a connection");
    let request = "{\"version\":1,\"command\":\"commit\",\"bytes\":10,\"file\":\"x\"}\nhalf";
    stream.write_all(request.as_bytes()).expect("a write");
    stream.shutdown(Shutdown::Write).expect("a stream");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an end");
    assert_eq!(answer, "");
    assert_eq!(running.fixture.commits.lock().expect("no panic").len(), 1);
}

#[test]
fn clearing_everything_must_be_meant() {
    let running = running();
    let clear = |filter: SessionFilter, all| {
        let command = Command::ClearSessions { filter, all };
        running
            .client()
            .ask::<Cleared>(&command)
            .map(|cleared| cleared.cleared)
    };
    let error = clear(SessionFilter::default(), false)
        .expect_err("a refusal")
        .to_string();
    assert!(error.contains("--all"), "{error}");
    assert_eq!(running.fixture.cleared.load(Ordering::Relaxed), 0);
    let ping = SessionFilter {
        protocol: Some(1),
        ..SessionFilter::default()
    };
    assert_eq!(clear(ping, false).expect("an answer"), 1);
    assert_eq!(clear(SessionFilter::default(), true).expect("an answer"), 3);
}

#[test]
fn a_stream_of_the_past_ends_and_one_of_the_future_goes_on() {
    let running = running();
    let observe = |filter: FlowFilter, last, follow, enough: usize| {
        let mut seen: Vec<Flow> = Vec::new();
        let command = Command::Observe { filter, last, follow };
        let outcome = running.client().stream(&command, |flow| {
            seen.push(flow);
            anyhow::ensure!(seen.len() < enough, "enough");
            Ok(())
        });
        (seen, outcome)
    };
    let (seen, outcome) = observe(FlowFilter::default(), 2, false, 10);
    outcome.expect("an end");
    assert_eq!(seen, fixture::flows()[1..]);
    let dropped = FlowFilter {
        kind: Some(FlowKind::Deny),
        ..FlowFilter::default()
    };
    let (seen, outcome) = observe(dropped, 20, false, 10);
    outcome.expect("an end");
    assert_eq!(seen, fixture::flows()[1..2]);

    // The first one was told as past already; the second is new.
    let mut news = fixture::flows()[0].clone();
    news.session_id = Some(9_999);
    running
        .fixture
        .events
        .send(fixture::flows()[0].clone())
        .expect("a subscriber");
    running.fixture.events.send(news.clone()).expect("a subscriber");
    let (seen, outcome) = observe(FlowFilter::default(), 1_000, true, 4);
    assert_eq!(outcome.expect_err("enough").to_string(), "enough");
    assert_eq!((seen.len(), seen.last()), (4, Some(&news)));
}

#[test]
fn bad_lines_are_answered_and_endless_ones_end_the_connection() {
    let running = running();
    let mut stream = UnixStream::connect(&running.path).expect("a connection");
    let mut reader = BufReader::new(stream.try_clone().expect("a stream"));
    let mut ask = |line: &[u8]| {
        stream.write_all(line).expect("a write");
        let mut answer = String::new();
        reader.read_line(&mut answer).expect("an answer");
        answer
    };
    assert!(ask(b"nonsense\n").contains("\"code\":\"bad_request\""));
    assert!(ask(b"{\"version\":1,\"command\":\"show_zones\"}\n").contains("\"ok\":{\"zones\":"));
    let mut endless = vec![b'x'; MAX_REQUEST_BYTES + 1];
    endless.push(b'\n');
    assert!(ask(&endless).contains("\"code\":\"too_large\""));
    let mut rest = Vec::new();
    // Closed with unread bytes, which a Unix socket reports as a reset.
    assert!(reader.read_to_end(&mut rest).is_ok_and(|bytes| bytes == 0) || rest.is_empty());
}

#[test]
fn one_connection_too_many_is_told_so() {
    let running = running();
    let mut clients: Vec<Client> = (0..MAX_CONNECTIONS).map(|_| running.client()).collect();
    for client in &mut clients {
        client
            .ask::<report::Zones>(&Command::ShowZones {})
            .expect("an answer");
    }
    let error = running
        .client()
        .ask::<report::Zones>(&Command::ShowZones {})
        .expect_err("a refusal");
    assert!(error.to_string().contains("32 connections are open"), "{error:#}");
    drop(clients.pop());
    let deadline = Instant::now() + Duration::from_secs(5);
    while let Err(error) = running.client().ask::<report::Zones>(&Command::ShowZones {}) {
        assert!(
            Instant::now() < deadline,
            "a closed connection gives its place back: {error:#}"
        );
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_second_daemon_is_refused_and_the_first_stays() {
    let running = running();
    let error = Claim::new(&running.path).expect_err("a refusal").to_string();
    assert!(error.contains("another bulkhead serves"), "{error}");
    running
        .client()
        .ask::<report::Zones>(&Command::ShowZones {})
        .expect("it still answers");
}

#[test]
fn a_live_socket_of_somebody_else_stays_and_a_stale_one_goes() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("bulkhead.sock");
    let live = UnixListener::bind(&path).expect("a listener");
    let error = Claim::new(&path).expect_err("a refusal").to_string();
    assert!(error.contains("something else answers"), "{error}");
    assert!(path.exists());
    drop(live);
    assert!(path.exists(), "nobody removed it");
    let claim = Claim::new(&path).expect("a stale socket is no obstacle");
    assert!(!path.exists());
    drop(claim);
    fs::write(&path, "precious").expect("a file");
    let error = Claim::new(&path).expect_err("a refusal").to_string();
    assert!(error.contains("is not a socket"), "{error}");
    assert_eq!(fs::read_to_string(&path).expect("a file"), "precious");
}

#[test]
fn a_stopped_server_lets_go_of_everything() {
    let mut running = running();
    let mut watcher = running.client();
    let watching = thread::spawn(move || {
        let command = Command::Observe {
            filter: FlowFilter::default(),
            last: 0,
            follow: true,
        };
        watcher.stream::<Flow>(&command, |_| Ok(()))
    });
    let mut idle = running.client();
    idle.ask::<report::Zones>(&Command::ShowZones {})
        .expect("an answer");
    running.server = None;
    assert_eq!(
        Arc::strong_count(&running.fixture),
        1,
        "no thread holds the firewall"
    );
    assert!(!running.path.exists());
    let outcome = watching.join().expect("no panic");
    assert!(outcome.is_err(), "a stream cut off is not a stream that ended");
    idle.ask::<report::Zones>(&Command::ShowZones {})
        .expect_err("the connection is closed");
    let error = Client::connect(&running.path).expect_err("nobody").to_string();
    assert!(
        error.contains("no daemon answers on") && error.contains("bulkhead run --config"),
        "{error}"
    );
    let fixture: Arc<dyn Firewall> = running.fixture.clone();
    running.server = Some(
        Claim::new(&running.path)
            .expect("a path")
            .serve(fixture)
            .expect("a server"),
    );
    running
        .client()
        .ask::<report::Zones>(&Command::ShowZones {})
        .expect("an answer");
}
