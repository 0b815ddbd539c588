//! What a store remembers, over restarts and damage.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use bulkhead_revisions::{Directory, Draft, Memory, Source, Store, StoreError, digest, newest};

fn draft(comment: &str) -> Draft {
    Draft {
        time_ms: 1_000,
        author: "anna".into(),
        user: "root".into(),
        comment: comment.into(),
        source: Source::Cli,
        file: "firewall.yaml".into(),
        repeats: None,
        taken: None,
        confirm_within_ms: None,
    }
}

fn commit(store: &mut Store, text: &str) -> u64 {
    let prepared = store.prepare(draft(text), text.as_bytes()).expect("a disk");
    store.publish(prepared).expect("a disk").number
}

/// A process that another test of this binary is just starting has a copy of every lock until it runs its program, so one
/// that was given back may be there a moment longer.
fn open(path: &Path) -> Store {
    let deadline = Instant::now() + Duration::from_secs(10);
    let directory = loop {
        match Directory::open(path) {
            Err(StoreError::Locked(_)) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(1))
            }
            opened => break opened.expect("a directory"),
        }
    };
    let (store, damaged) = Store::open(directory, 3).expect("a store");
    assert_eq!(damaged, []);
    store
}

fn numbers(store: &Store) -> Vec<u64> {
    store.revisions().map(|revision| revision.number).collect()
}

#[test]
fn revisions_are_numbered_kept_and_read_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("state/revisions");
    let mut store = open(&path);
    assert!(store.current().is_none());
    assert_eq!(
        store.document(1).expect_err("nothing there").to_string(),
        "there is no revision 1; nothing was committed yet"
    );
    for (text, number) in [("one", 1), ("two\n", 2), ("", 3), ("three\nlines\n", 4)] {
        assert_eq!(commit(&mut store, text), number);
    }
    assert_eq!(numbers(&store), [2, 3, 4]);
    drop(store);
    let store = open(&path);
    assert_eq!(numbers(&store), [2, 3, 4]);
    assert_eq!(store.document(2).expect("a document"), b"two\n");
    assert_eq!(store.document(3).expect("a document"), b"");
    let current = store.current().expect("a revision");
    assert_eq!((current.number, current.comment.as_str()), (4, "three\nlines\n"));
    assert_eq!(current.sha256, digest(b"three\nlines\n"));
    assert_eq!(
        store.document(1).expect_err("pruned").to_string(),
        "there is no revision 1; those from 2 to 4 are kept"
    );
    assert_eq!(
        fs::read_dir(&path).expect("a directory").count(),
        4,
        "three revisions and the lock"
    );
}

#[test]
fn one_process_at_a_time() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path());
    let error = Directory::open(directory.path()).expect_err("it is locked");
    assert!(matches!(error, StoreError::Locked(_)), "{error}");
    drop(store);
    open(directory.path());
}

#[test]
fn what_was_prepared_and_not_published_never_was() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = open(directory.path());
    commit(&mut store, "one");
    let prepared = store.prepare(draft("never"), b"never").expect("a disk");
    assert_eq!(prepared.revision().number, 2);
    store.discard(prepared);
    let forgotten = store.prepare(draft("crash"), b"crash").expect("a disk");
    drop((store, forgotten));
    let mut store = open(directory.path());
    assert_eq!(numbers(&store), [1]);
    assert_eq!(commit(&mut store, "two"), 2);
}

#[test]
fn a_confirmation_is_awaited_given_and_remembered() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = open(directory.path());
    let error = store.confirm(5, "anna").expect_err("nothing to confirm");
    assert!(matches!(error, StoreError::NothingAwaited), "{error}");
    let tentative = |store: &mut Store, text: &str| {
        let draft = Draft {
            confirm_within_ms: Some(300_000),
            ..draft(text)
        };
        let prepared = store.prepare(draft, text.as_bytes()).expect("a disk");
        store.publish(prepared).expect("a disk").clone()
    };
    assert_eq!(
        tentative(&mut store, "one").awaited(),
        None,
        "there is nothing to come back to"
    );
    let awaited = tentative(&mut store, "two").awaited().expect("a deadline");
    assert_eq!(
        (awaited.number, awaited.back_to, awaited.deadline_ms),
        (2, 1, 301_000)
    );
    drop(store);
    let mut store = open(directory.path());
    assert_eq!(store.awaited(), Some(awaited));
    store.confirm(2_000, "anna").expect("a disk");
    assert_eq!(store.awaited(), None);
    drop(store);
    let mut store = open(directory.path());
    assert_eq!(store.awaited(), None);
    let confirmation = store.current().and_then(|revision| revision.confirmation.clone());
    assert_eq!(
        confirmation.map(|confirmation| (confirmation.confirmed_ms, confirmation.confirmed_by)),
        Some((Some(2_000), Some("anna".into())))
    );
    assert_eq!(store.document(2).expect("a document"), b"two");
    assert!(store.confirm(3_000, "anna").is_err(), "once is enough");
}

#[test]
fn what_comes_back_was_confirmed_and_is_kept() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = open(directory.path());
    commit(&mut store, "sound");
    // Three are kept, and each of these would push the sound one out.
    for (number, text) in [(2, "tried"), (3, "again"), (4, "and again"), (5, "once more")] {
        let draft = Draft {
            confirm_within_ms: Some(300_000),
            ..draft(text)
        };
        let prepared = store.prepare(draft, text.as_bytes()).expect("a disk");
        let awaited = store.publish(prepared).expect("a disk").awaited();
        assert_eq!(
            awaited.map(|awaited| (awaited.number, awaited.back_to)),
            Some((number, 1))
        );
    }
    assert_eq!(numbers(&store), [1, 4, 5]);
    drop(store);
    let mut store = open(directory.path());
    assert_eq!(store.document(1).expect("a document"), b"sound");
    store.confirm(2_000, "anna").expect("a disk");
    commit(&mut store, "next");
    assert_eq!(numbers(&store), [4, 5, 6]);
}

#[test]
fn damage_is_named_and_stepped_over() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = open(directory.path());
    for text in ["one", "two", "three"] {
        commit(&mut store, text);
    }
    drop(store);
    let path = |number: u64| directory.path().join(format!("{number:08}.revision"));
    let content = fs::read(path(3)).expect("a file");
    fs::write(path(3), [&content[..content.len() - 1], b"E"].concat()).expect("a file");
    fs::write(path(2), "nonsense").expect("a file");
    fs::write(directory.path().join("notes.txt"), "a person's").expect("a file");

    let disk = Directory::open(directory.path()).expect("a directory");
    let (mut store, damaged) = Store::open(disk, 3).expect("a store");
    let found: Vec<_> = damaged
        .iter()
        .map(|found| (found.number, found.what.as_str()))
        .collect();
    assert_eq!(
        found,
        [
            (2, "its first line has no end"),
            (3, "its document is not what its digest says")
        ]
    );
    assert_eq!(numbers(&store), [1]);
    assert_eq!(
        commit(&mut store, "four"),
        4,
        "the number of a damaged one is spent"
    );
    assert!(directory.path().join("notes.txt").exists());
}

#[test]
fn a_document_can_be_had_with_a_shell() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut store = open(directory.path());
    commit(&mut store, "spec:\n  zones: []\n");
    let output = std::process::Command::new("tail")
        .args(["-n", "+2"])
        .arg(directory.path().join("00000001.revision"))
        .output()
        .expect("tail");
    assert_eq!(output.stdout, b"spec:\n  zones: []\n");
}

#[test]
fn memory_does_the_same_until_it_is_gone() {
    let (mut store, _) = Store::open(Memory::default(), 2).expect("a store");
    for text in ["one", "two", "three"] {
        commit(&mut store, text);
    }
    assert_eq!(numbers(&store), [2, 3]);
    assert_eq!(store.document(2).expect("a document"), b"two");
}

/// Whoever only looks finds what a store would, changes nothing, and needs no lock.
#[test]
fn the_newest_is_found_without_a_store() {
    let roof = tempfile::tempdir().expect("a directory");
    let path = roof.path().join("revisions");
    assert_eq!(newest(&path).expect("nothing is no error"), None);
    assert!(!path.exists());
    let mut store = open(&path);
    assert_eq!(newest(&path).expect("an empty directory"), None);
    for text in ["one", "two", "three"] {
        commit(&mut store, text);
    }
    // A commit that is under way is none yet.
    let half = store.prepare(draft("four"), b"four").expect("a disk");
    let found = || newest(&path).expect("a directory").expect("a revision");
    let (revision, document) = found();
    assert_eq!((Some(&revision), &document[..]), (store.current(), &b"three"[..]));
    store.discard(half);
    // What a store passes over.
    fs::write(path.join("00000009.revision"), "{}").expect("a file");
    fs::write(path.join("00000003.revision"), "{}").expect("a file");
    assert_eq!(found().1, b"two");
    assert!(newest(&path.join("00000002.revision")).is_err(), "no directory");
}
