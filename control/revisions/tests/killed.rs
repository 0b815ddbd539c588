//! A committing process is killed at random moments, many times; the store it leaves is whole each time.
//!
//! The child is this test binary with one ignored test: it commits as fast as it can, and says which revision it was told
//! to be committed. What was said must be there; what was being written may be.

use std::env;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bulkhead_revisions::{Directory, Draft, Source, Store};

const ROUNDS: usize = 100;
const KEPT: usize = 5;
const DIRECTORY: &str = "BULKHEAD_TEST_REVISIONS";

/// Sizes from nothing to more than a page cache writes at once.
fn document(number: u64) -> Vec<u8> {
    let length = (number * 7_919) % 200_000;
    format!("revision {number}\n")
        .into_bytes()
        .into_iter()
        .cycle()
        .take(usize::try_from(length).expect("a length"))
        .collect()
}

fn open(path: &Path) -> Store {
    let (store, damaged) = Store::open(Directory::open(path).expect("a directory"), KEPT).expect("a store");
    assert_eq!(damaged, []);
    store
}

#[test]
#[ignore = "the process that is killed by the test below"]
fn committing_process() {
    let Some(path) = env::var_os(DIRECTORY) else {
        return;
    };
    let mut store = open(Path::new(&path));
    let mut out = std::io::stdout();
    loop {
        let number = store.current().map_or(1, |revision| revision.number + 1);
        let draft = Draft {
            time_ms: number,
            author: "anna".into(),
            user: "root".into(),
            comment: String::new(),
            source: Source::Cli,
            file: "firewall.yaml".into(),
            repeats: None,
            taken: None,
            confirm_within_ms: number.is_multiple_of(3).then_some(1_000),
        };
        let prepared = store.prepare(draft, &document(number)).expect("a disk");
        store.publish(prepared).expect("a disk");
        writeln!(out, "told {number}").expect("a pipe");
        if store.awaited().is_some() {
            store.confirm(number, "anna").expect("a disk");
            writeln!(out, "confirmed {number}").expect("a pipe");
        }
    }
}

/// xorshift64*, Vigna 2016.
fn random(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d)
}

#[test]
fn killed_at_any_moment_it_leaves_the_old_or_the_new_revision() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("revisions");
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_nanos();
    let mut state = u64::try_from(now & u128::from(u64::MAX)).expect("64 bits") | 1;
    println!("seed {state}");
    let (mut old, mut new, mut last) = (0, 0, 0);
    for round in 0..ROUNDS {
        let mut child = Command::new(env::current_exe().expect("this binary"))
            .args([
                "--exact",
                "committing_process",
                "--ignored",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(DIRECTORY, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("this binary runs");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        // It has begun to commit, then any moment of the next ones is as good as another.
        let said = |line: &str| -> Option<(bool, u64)> {
            let (what, number) = line.split_once(' ')?;
            let number = number.parse().ok()?;
            match what {
                "told" => Some((false, number)),
                "confirmed" => Some((true, number)),
                _ => None,
            }
        };
        let mut heard = lines
            .by_ref()
            .find_map(|line| said(&line.expect("text")))
            .expect("the process commits");
        thread::sleep(Duration::from_micros(random(&mut state) % 12_000));
        // SIGKILL.
        child.kill().expect("a child");
        child.wait().expect("a child");
        for line in lines {
            heard = said(&line.expect("text")).unwrap_or(heard);
        }
        let store = open(&path);
        let current = store.current().expect("a revision");
        let (confirmed, number) = heard;
        assert!(
            current.number == number || current.number == number + 1,
            "round {round}: told {number}, found {}",
            current.number
        );
        if confirmed && current.number == number {
            assert_eq!(current.awaited(), None, "round {round}: {number} was confirmed");
        }
        if current.number == number {
            old += 1
        } else {
            new += 1
        }
        assert!(number > last, "round {round}: it went on from where it was");
        last = number;
        for revision in store.revisions() {
            let found = store.document(revision.number).expect("a whole document");
            assert_eq!(found, document(revision.number), "round {round}");
        }
        assert!(store.revisions().count() >= KEPT.min(usize::try_from(number).expect("a length")));
    }
    println!("{ROUNDS} rounds, {last} commits; after the kill {old} old, {new} new");
}
