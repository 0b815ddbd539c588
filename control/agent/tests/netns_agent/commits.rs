//! Commits as a person makes them: in force at once, attributed, returned from, and there after the worst.

use std::fs;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bulkhead_testkit::{Host, Outcome, TcpServer, effort, patience, privileged};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::daemon::{DEADLINE, Daemon};
use crate::{CONFIGURATION, PORT, brief, connect, topology};

/// Nothing is permitted to the servers.
fn closed() -> String {
    let closed = CONFIGURATION.replace("service: test, action: permit", "service: test, action: deny");
    assert_ne!(closed, CONFIGURATION);
    closed
}

/// A file beside the daemon's own.
fn file(daemon: &Daemon<'_>, name: &str, text: &str) -> String {
    let path: PathBuf = daemon.directory.path().join(name);
    fs::write(&path, text).expect("a file");
    path.to_str().expect("text").to_owned()
}

fn in_force(daemon: &Daemon<'_>) -> u64 {
    daemon.json(&["history"])["revisions"][0]["revision"]
        .as_u64()
        .expect("a number")
}

/// Whether the firewall lets a new conversation through.
fn is_open(inside: &Host, server: &TcpServer) -> bool {
    match brief(inside).tcp(server.address()).expect("a socket").map(drop) {
        Outcome::TimedOut => false,
        outcome => {
            assert!(outcome.is_answered(), "{outcome:?}");
            true
        }
    }
}

/// Seconds since 1970 of a time as it is told, `2026-11-22T15:37:32.123000Z`.
#[track_caller]
fn unix_seconds(time: &Value) -> u64 {
    let text = time.as_str().expect("a time");
    let parts: Vec<u64> = text
        .split(['-', 'T', ':', '.', 'Z'])
        .filter_map(|part| part.parse().ok())
        .collect();
    let [year, month, day, hour, minute, second, ..] = parts[..] else {
        panic!("{text}: no time")
    };
    assert!(
        text.ends_with('Z') && text.len() > 20,
        "{text}: not in UTC with parts of a second"
    );
    // Years begin in March, so that the day that comes and goes is their last.
    let (year, month) = if month < 3 {
        (year - 1, month + 9)
    } else {
        (year, month - 3)
    };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    ((days * 24 + hour) * 60 + minute) * 60 + second
}

#[track_caller]
fn refused(daemon: &Daemon<'_>, arguments: &[&str], status: i32, parts: &[&str]) {
    let output = daemon.command(arguments);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn netns_agent_commits_are_in_force_attributed_compared_and_rolled_back() {
    if !privileged() {
        return;
    }
    let topology = topology("bhk-commit");
    let (inside, server) = (topology.host("inside"), topology.host("server"));
    let listening = TcpServer::start(&server.namespace, server.v4_port(PORT)).expect("a server");
    let mut daemon = Daemon::start(&topology);
    assert!(is_open(inside, &listening));

    // In force when it is told.
    let other = file(&daemon, "closed.yaml", &closed());
    let began = SystemTime::now();
    let committed = daemon.json(&[
        "commit",
        &other,
        "-m",
        "nobody works on Sundays",
        "--author",
        "anna",
    ]);
    assert_eq!(
        (&committed["revision"], &committed["changed"], &committed["kept"]),
        (&2.into(), &true.into(), &true.into()),
        "{committed}"
    );
    let ended = SystemTime::now();
    assert!(!is_open(inside, &listening));
    let again = daemon.text(&["commit", &other]);
    assert!(again.starts_with("nothing to commit: revision 2"), "{again}");

    // Who, when, why; the kernel says who it really was.
    let history = daemon.json(&["history"]);
    let newest = &history["revisions"][0];
    assert_eq!(
        (
            &newest["author"],
            &newest["user"],
            &newest["source"],
            &newest["state"]
        ),
        (&"anna".into(), &"root".into(), &"cli".into(), &"in_force".into())
    );
    assert_eq!(newest["comment"], "nobody works on Sundays");
    // To the second, with the machine's clock on both sides.
    let [committed, started] = [0, 1].map(|place| unix_seconds(&history["revisions"][place]["time"]));
    let [earliest, latest] = [began, ended].map(|time| {
        let since = time.duration_since(UNIX_EPOCH);
        since.expect("after 1970").as_secs()
    });
    assert!(
        (earliest..=latest).contains(&committed) && started <= committed,
        "{committed} is from {earliest} to {latest}, and not before {started}"
    );
    assert_eq!(
        (
            &history["revisions"][1]["source"],
            &history["revisions"][1]["author"]
        ),
        (&"file".into(), &"root".into())
    );
    let table = daemon.text(&["history"]);
    assert!(table.contains("anna (root)  cli"), "{table}");

    // As it was written, and what differs.
    assert_eq!(daemon.text(&["show", "config"]), closed());
    assert_eq!(daemon.text(&["show", "config", "1"]), CONFIGURATION);
    let change = "~ policy use-servers: action permit -> deny\n";
    for arguments in [&["diff"][..], &["diff", "1"], &["diff", "1", "2"]] {
        let text = daemon.text(arguments);
        assert!(text.starts_with(change), "{arguments:?}: {text}");
        assert!(text.contains("--- revision 1\n+++ revision 2\n"), "{text}");
    }
    let own = daemon.directory.path().join("firewall.yaml");
    let own = own.to_str().expect("text");
    let text = daemon.text(&["diff", own]);
    assert!(
        text.starts_with("~ policy use-servers: action deny -> permit\n"),
        "{text}"
    );
    let same = daemon.text(&["diff", own, "1"]);
    assert!(same.contains("are the same"), "{same}");

    // Wrong: the line and the column, and nothing changes.
    let wrong = file(
        &daemon,
        "wrong.yaml",
        &CONFIGURATION.replace("destination: farm", "destination: fram"),
    );
    refused(
        &daemon,
        &["commit", &wrong],
        2,
        &[
            "wrong.yaml:10:",
            "did you mean \"farm\"?",
            "refused, nothing was changed",
        ],
    );
    let absent = file(
        &daemon,
        "absent.yaml",
        &CONFIGURATION.replace("name: net3", "name: net33"),
    );
    refused(&daemon, &["commit", &absent], 2, &["absent.yaml:5:", "net33"]);
    // Refused by the data plane: not a revision either, not even a half one.
    let wired = file(
        &daemon,
        "wired.yaml",
        "apiVersion: bulkhead.dev/v1alpha1\nkind: Firewall\nmetadata: { name: w }\nspec:\n  forwarding: wire\n  zones: [{ name: a }]\n  \
         interfaces: [{ name: net1, zone: a }, { name: net2, zone: a }]\n  wires: [{ name: w, interfaces: [net1, net2] }]\n",
    );
    refused(
        &daemon,
        &["commit", &wired],
        1,
        &["restart to change", "stays as it was"],
    );
    assert_eq!(in_force(&daemon), 2);

    // Made against an older revision: refused.
    refused(
        &daemon,
        &["commit", own, "--onto", "1"],
        1,
        &[
            "made against revision 1",
            "revision 2 by anna is in force",
            "--onto 2",
        ],
    );
    assert_eq!(daemon.json(&["commit", own, "--onto", "2"])["revision"], 3);
    assert!(is_open(inside, &listening));

    // Back, by number and without.
    assert_eq!(daemon.json(&["rollback", "2"])["revision"], 4);
    assert!(!is_open(inside, &listening));
    assert_eq!(daemon.json(&["rollback"])["revision"], 5);
    assert!(is_open(inside, &listening));
    let newest = &daemon.json(&["history"])["revisions"][0];
    assert_eq!(
        (&newest["source"], &newest["repeats"]),
        (&"rollback".into(), &3.into())
    );
    refused(
        &daemon,
        &["rollback", "99"],
        1,
        &["no revision 99", "from 1 to 5"],
    );

    // The file as it was at the last start is older than what was committed since: a restart knows.
    daemon.text(&["rollback", "2"]);
    assert!(daemon.end(Signal::SIGTERM).success());
    refused(
        &daemon,
        &["commit", own],
        1,
        &["nothing was committed", "no daemon answers", "bulkhead run"],
    );
    daemon.restart();
    assert!(!is_open(inside, &listening), "{}", daemon.log());
    assert!(
        daemon.log().contains("has not changed since it was taken"),
        "{}",
        daemon.log()
    );
    assert_eq!(in_force(&daemon), 6);
    // Edited, it counts again.
    daemon.configure(&CONFIGURATION.replace("name: test }", "name: edited }"));
    assert!(daemon.end(Signal::SIGTERM).success());
    daemon.restart();
    assert!(is_open(inside, &listening), "{}", daemon.log());
    assert_eq!(daemon.json(&["history"])["revisions"][0]["source"], "file");
    // Edited into something wrong, or something that the data plane has no room for, it does not.
    for wrong in [
        CONFIGURATION.replace("destination: farm", "destination: fram"),
        CONFIGURATION.replace("spec:\n", "spec:\n  size: { routes: 1 }\n"),
    ] {
        daemon.configure(&wrong);
        assert!(daemon.end(Signal::SIGTERM).success());
        daemon.restart();
        assert!(is_open(inside, &listening), "{}", daemon.log());
        assert!(daemon.log().contains("ERROR"), "{}", daemon.log());
        assert_eq!(in_force(&daemon), 7);
    }
}

#[test]
fn netns_agent_what_nobody_confirms_is_taken_back_over_a_crash_too() {
    if !privileged() {
        return;
    }
    let topology = topology("bhk-confirm");
    let (inside, server) = (topology.host("inside"), topology.host("server"));
    let listening = TcpServer::start(&server.namespace, server.v4_port(PORT)).expect("a server");
    let mut daemon = Daemon::start(&topology);
    let closed = file(&daemon, "closed.yaml", &closed());
    let own = daemon.directory.path().join("firewall.yaml");
    let own = own.to_str().expect("text").to_owned();
    let await_revision = |daemon: &Daemon<'_>, number: u64| {
        let deadline = Instant::now() + patience(DEADLINE);
        while in_force(daemon) != number {
            assert!(Instant::now() < deadline, "{}", daemon.log());
            // Each look is a process: on an emulated machine it costs more than the time that is waited for.
            thread::sleep(patience(Duration::from_millis(50)));
        }
    };
    let seconds = |usual| format!("{}s", patience(Duration::from_secs(usual)).as_secs());
    refused(&daemon, &["confirm"], 1, &["nothing awaits confirmation"]);

    // Confirmed: it stays.
    let committed = daemon.json(&["commit", &closed, "--confirm", &seconds(2)]);
    assert_eq!(committed["back_to"], 1);
    assert!(committed["confirm_by"].is_string());
    assert_eq!(
        daemon.json(&["history"])["revisions"][0]["state"],
        "awaits_confirmation"
    );
    refused(
        &daemon,
        &["commit", &own],
        1,
        &["revision 2 by root awaits confirmation", "bulkhead confirm"],
    );
    assert_eq!(daemon.text(&["confirm"]), "revision 2 stays\n");
    thread::sleep(patience(Duration::from_millis(2_500)));
    assert_eq!(in_force(&daemon), 2);
    assert!(!is_open(inside, &listening));

    // Not confirmed: taken back, by itself.
    daemon.json(&["commit", &own, "--confirm", &seconds(1)]);
    assert!(is_open(inside, &listening));
    await_revision(&daemon, 4);
    assert!(!is_open(inside, &listening));
    let history = daemon.json(&["history"]);
    let (newest, tried) = (&history["revisions"][0], &history["revisions"][1]);
    assert_eq!(
        (&newest["source"], &newest["repeats"]),
        (&"confirm-timeout".into(), &2.into())
    );
    assert_eq!(tried["state"], "not_confirmed");

    // Rolled back before the time is over: nothing happens when it is.
    daemon.json(&["commit", &own, "--confirm", &seconds(1)]);
    assert_eq!(daemon.json(&["rollback"])["revision"], 6);
    thread::sleep(patience(Duration::from_millis(1_500)));
    assert_eq!(in_force(&daemon), 6);
    assert!(!is_open(inside, &listening));

    // The daemon dies in between and is back before the time is over: the clock has not stopped.
    let tried = Instant::now();
    daemon.json(&["commit", &own, "--confirm", &seconds(25)]);
    daemon.end(Signal::SIGKILL);
    daemon.restart();
    assert!(
        tried.elapsed() < patience(Duration::from_secs(25)),
        "this machine is too slow"
    );
    assert!(is_open(inside, &listening));
    await_revision(&daemon, 8);
    let took = tried.elapsed();
    let (least, most) = (Duration::from_secs(24), Duration::from_secs(60));
    assert!(
        (patience(least)..patience(most)).contains(&took),
        "taken back after {took:?}"
    );
    assert!(!is_open(inside, &listening));

    // It is back after the time is over: it begins with the revision before.
    daemon.json(&["commit", &own, "--confirm", &seconds(1)]);
    daemon.end(Signal::SIGKILL);
    thread::sleep(patience(Duration::from_millis(1_200)));
    daemon.restart();
    assert!(!is_open(inside, &listening));
    assert!(
        daemon.log().contains("was not confirmed in time"),
        "{}",
        daemon.log()
    );
    assert_eq!(in_force(&daemon), 10);

    // Taken back to on trial, and not confirmed: the same document again, and nothing waits any more.
    daemon.json(&["commit", &own, "--confirm", "5m"]);
    let tried = daemon.json(&["rollback", "10", "--confirm", &seconds(1)]);
    assert_eq!((&tried["revision"], &tried["back_to"]), (&12.into(), &10.into()));
    await_revision(&daemon, 13);
    refused(&daemon, &["confirm"], 1, &["nothing awaits confirmation"]);

    // Two in a row that nobody has confirmed: `rollback` is to the one before both.
    daemon.json(&["commit", &own, "--confirm", "5m"]);
    let tried = daemon.json(&["rollback", "9", "--confirm", "5m"]);
    assert_eq!((&tried["revision"], &tried["back_to"]), (&15.into(), &13.into()));
    assert!(is_open(inside, &listening));
    assert_eq!(daemon.json(&["rollback"])["revision"], 16);
    assert_eq!(daemon.json(&["history"])["revisions"][0]["repeats"], 13);
    assert!(!is_open(inside, &listening));
}

#[test]
fn netns_agent_killed_while_it_commits_it_comes_back_with_what_was_told() {
    const ROUNDS: usize = 12;
    if !privileged() {
        return;
    }
    let topology = topology("bhk-crash");
    let mut daemon = Daemon::start(&topology);
    let mut told = 1;
    let rounds = effort(ROUNDS);
    for round in 0..rounds {
        let documents: Vec<String> = (0..2)
            .map(|side| {
                let text = CONFIGURATION.replace("name: test }", &format!("name: round{round}-{side} }}"));
                file(&daemon, &format!("{side}.yaml"), &text)
            })
            .collect();
        told = thread::scope(|scope| {
            let committer = scope.spawn(|| {
                // Until nobody answers any more.
                let mut told = told;
                for document in documents.iter().cycle() {
                    let output = daemon.command(&["commit", document, "-o", "json"]);
                    if !output.status.success() {
                        break;
                    }
                    let committed: Value = serde_json::from_slice(&output.stdout).expect("JSON");
                    told = committed["revision"].as_u64().expect("a number");
                }
                told
            });
            // Any moment is as good as another: each commit takes some milliseconds.
            let random = RandomState::new().build_hasher().finish();
            thread::sleep(patience(
                Duration::from_millis(60) + Duration::from_micros(random % 60_000),
            ));
            daemon.signal(Signal::SIGKILL);
            committer.join().expect("the committer's thread")
        });
        daemon.end(Signal::SIGKILL);
        daemon.restart();
        let found = in_force(&daemon);
        assert!(
            found == told || found == told + 1,
            "round {round}: told {told}, found {found}\n{}",
            daemon.log()
        );
        // What is in force is what the revision says.
        let shown = daemon.text(&["show", "config"]);
        let name = shown
            .lines()
            .find_map(|line| line.strip_prefix("metadata: { name: "))
            .and_then(|rest| rest.strip_suffix(" }"))
            .expect("a name");
        assert!(
            daemon.log().contains(&format!("name=\"{name}\"")),
            "{name}\n{}",
            daemon.log()
        );
        told = found;
    }
    assert!(told > rounds as u64, "{told} revisions in {rounds} rounds");
}

#[test]
fn netns_agent_two_commits_at_once_come_one_after_the_other() {
    const EACH: usize = 8;
    if !privileged() {
        return;
    }
    let topology = topology("bhk-both");
    let (inside, server) = (topology.host("inside"), topology.host("server"));
    let listening = TcpServer::start(&server.namespace, server.v4_port(PORT)).expect("a server");
    let daemon = Daemon::start(&topology);
    let revisions: Vec<u64> = thread::scope(|scope| {
        let daemon = &daemon;
        let committers: Vec<_> = (0..4)
            .map(|who| {
                scope.spawn(move || {
                    let mut revisions = Vec::new();
                    for number in 0..EACH {
                        let name = format!("name: by{who}-{number} }}");
                        let text = CONFIGURATION.replace("name: test }", &name);
                        let path = file(daemon, &format!("{who}.yaml"), &text);
                        let committed = daemon.json(&["commit", &path, "--author", &format!("by{who}")]);
                        revisions.push(committed["revision"].as_u64().expect("a number"));
                    }
                    revisions
                })
            })
            .collect();
        committers
            .into_iter()
            .flat_map(|committer| committer.join().expect("a committer's thread"))
            .collect()
    });
    let mut sorted = revisions.clone();
    sorted.sort_unstable();
    let expected: Vec<u64> = (2..).take(4 * EACH).collect();
    assert_eq!(sorted, expected, "each has its own revision, none is missing");
    assert_eq!(in_force(&daemon), 1 + 4 * EACH as u64);
    // Of two that were made against one revision, one is refused.
    let onto = in_force(&daemon).to_string();
    let outcomes: Vec<bool> = thread::scope(|scope| {
        let (daemon, onto) = (&daemon, &onto);
        let committers: Vec<_> = (0..2)
            .map(|who| {
                scope.spawn(move || {
                    let text = CONFIGURATION.replace("name: test }", &format!("name: onto{who} }}"));
                    let path = file(daemon, &format!("onto{who}.yaml"), &text);
                    daemon
                        .command(&["commit", &path, "--onto", onto])
                        .status
                        .success()
                })
            })
            .collect();
        committers
            .into_iter()
            .map(|committer| committer.join().expect("a committer's thread"))
            .collect()
    });
    assert_eq!(outcomes.iter().filter(|committed| **committed).count(), 1);
    drop(connect(inside, listening.address()));
}

/// A small file system of its own at a path, gone with this.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: PathBuf, bytes: usize) -> Self {
        use nix::mount::{MsFlags, mount};
        fs::create_dir_all(&path).expect("a directory");
        let options = format!("size={bytes},mode=700");
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("none"), &path, Some("tmpfs"), flags, Some(options.as_str())).expect("a mount");
        Self(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The daemon may have it open still.
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

#[test]
fn netns_agent_a_disk_that_refuses_changes_nothing() {
    if !privileged() {
        return;
    }
    let topology = topology("bhk-disk");
    let (inside, server) = (topology.host("inside"), topology.host("server"));
    let listening = TcpServer::start(&server.namespace, server.v4_port(PORT)).expect("a server");
    let directory = tempfile::tempdir().expect("a directory");
    let disk = SmallDisk::mount(directory.path().join("state"), 128 << 10);
    let mut daemon = Daemon::start_in(&topology, CONFIGURATION, directory);
    let mut held = connect(inside, listening.address());
    let closed = file(&daemon, "closed.yaml", &closed());
    let generation = || {
        daemon.json(&["show", "interfaces"])["generation"]
            .as_u64()
            .expect("a number")
    };
    let mut unchanged = |message: &str| {
        refused(&daemon, &["commit", &closed], 1, &[message]);
        assert_eq!(in_force(&daemon), 1);
        held.exchange(10, 10)
            .expect("a socket")
            .answered()
            .expect("an exchange");
        assert_eq!(
            daemon.json(&["show", "policies"])["policies"][0]["action"],
            "permit"
        );
    };

    // Full: it shows before the data plane is touched.
    let filler = disk.0.join("filler");
    let mut size = 128 << 10;
    while fs::write(&filler, vec![0; size]).is_err() {
        size -= 1 << 10;
    }
    unchanged("No space left on device");
    assert_eq!(generation(), 1);
    fs::remove_file(&filler).expect("a file");

    // No name to be had, after the switch: the data plane goes back.
    let taken = disk.0.join("revisions/00000002.revision");
    fs::create_dir(&taken).expect("a directory");
    unchanged("cannot rename 00000002.revision");
    assert!(daemon.log().contains("was taken back"), "{}", daemon.log());
    assert_eq!(generation(), 3, "there and back");
    fs::remove_dir(&taken).expect("a directory");

    assert_eq!(daemon.json(&["commit", &closed])["revision"], 2);
    assert!(!is_open(inside, &listening));
    assert!(daemon.end(Signal::SIGTERM).success());
    // Before the directory that it is mounted in.
    drop(disk);
}
