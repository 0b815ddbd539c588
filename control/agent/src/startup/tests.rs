//! What a person expects of a restart.

use std::fs;
use std::path::PathBuf;

use bulkhead_revisions::Memory;

use super::*;

const NOW: u64 = 1_000_000;

/// A sound document without interfaces, so that it is sound on any machine.
fn document(name: &str) -> String {
    format!(
        "apiVersion: bulkhead.dev/v1alpha1\nkind: Firewall\nmetadata: {{ name: {name} }}\nspec: {{ interfaces: [], zones: [] }}\n"
    )
}

struct Machine {
    store: Store,
    file: PathBuf,
    _directory: tempfile::TempDir,
}

impl Machine {
    /// With a file, and nothing committed.
    fn new(text: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("firewall.yaml");
        fs::write(&file, text).expect("a file");
        let (store, _) = Store::open(Memory::default(), 10).expect("a store");
        Self {
            store,
            file,
            _directory: directory,
        }
    }

    fn choose_at(&self, now_ms: u64) -> Beginning {
        choose(
            Some(&self.file),
            None,
            &self.store,
            &Terms::default(),
            "root",
            now_ms,
        )
        .expect("a configuration")
    }

    /// Starts: decides and does what was decided. The name of the configuration in force, and where it came from.
    fn start_at(&mut self, now_ms: u64) -> (String, Option<Source>) {
        let beginning = self.choose_at(now_ms);
        let source = beginning.draft.as_ref().map(|draft| draft.source);
        if let Some(draft) = beginning.draft {
            let document = beginning.configuration.source.into_bytes();
            let prepared = self.store.prepare(draft, &document).expect("memory");
            self.store.publish(prepared).expect("memory");
        }
        (beginning.configuration.parsed.config.name, source)
    }

    fn start(&mut self) -> (String, Option<Source>) {
        self.start_at(NOW)
    }

    /// Over the socket, without a look at the file.
    fn commit(&mut self, name: &str, confirm_within_ms: Option<u64>) {
        let current = self.store.current().expect("a revision");
        let draft = Draft {
            time_ms: NOW,
            author: "anna".into(),
            user: "root".into(),
            comment: String::new(),
            source: Source::Cli,
            file: "other.yaml".into(),
            repeats: None,
            taken: current.taken.clone(),
            confirm_within_ms,
        };
        let prepared = self
            .store
            .prepare(draft, document(name).as_bytes())
            .expect("memory");
        self.store.publish(prepared).expect("memory");
    }

    fn write(&self, text: &str) {
        fs::write(&self.file, text).expect("a file");
    }
}

fn chosen(name: &str, source: Option<Source>) -> (String, Option<Source>) {
    (name.to_owned(), source)
}

#[test]
fn the_file_comes_first_and_then_what_was_committed() {
    let mut machine = Machine::new(&document("first"));
    assert_eq!(machine.start(), chosen("first", Some(Source::File)));
    assert_eq!(
        machine.start(),
        chosen("first", None),
        "nothing new, no new revision"
    );
    machine.commit("second", None);
    assert_eq!(machine.start(), chosen("second", None), "the file is as it was");
    machine.write(&document("third"));
    assert_eq!(machine.start(), chosen("third", Some(Source::File)));
    assert_eq!(machine.start(), chosen("third", None));
    // Back to what it once was is a change too.
    machine.write(&document("first"));
    assert_eq!(machine.start(), chosen("first", Some(Source::File)));
}

#[test]
fn a_file_that_says_what_is_in_force_is_no_change() {
    let mut machine = Machine::new(&document("first"));
    machine.start();
    machine.commit("second", None);
    machine.write(&document("second"));
    assert_eq!(machine.start(), chosen("second", None));
}

#[test]
fn a_file_that_is_wrong_or_gone_changes_nothing() {
    let mut machine = Machine::new(&document("first"));
    machine.start();
    machine.commit("second", None);
    machine.write("kind: Firewal\n");
    assert_eq!(machine.start(), chosen("second", None));
    fs::remove_file(&machine.file).expect("a file");
    assert_eq!(machine.start(), chosen("second", None));
    assert!(machine.choose_at(NOW).reason.contains("firewall.yaml is refused"));
    let named = choose(None, None, &machine.store, &Terms::default(), "root", NOW).expect("a configuration");
    assert_eq!(named.configuration.parsed.config.name, "second");
}

#[test]
fn at_the_first_start_the_file_must_be_sound() {
    let machine = Machine::new("kind: Firewal\n");
    let error = choose(
        Some(&machine.file),
        None,
        &machine.store,
        &Terms::default(),
        "root",
        NOW,
    )
    .expect_err("a refusal");
    assert!(error.is::<Refused>(), "{error}");
    let error = choose(None, None, &machine.store, &Terms::default(), "root", NOW)
        .expect_err("nothing to begin with");
    assert!(error.to_string().contains("--config"), "{error}");
}

#[test]
fn what_was_not_confirmed_in_time_gives_way() {
    let mut machine = Machine::new(&document("first"));
    machine.start();
    machine.commit("second", Some(60_000));
    assert_eq!(
        machine.start_at(NOW + 59_999),
        chosen("second", None),
        "there is time left"
    );
    assert_eq!(
        machine.start_at(NOW + 60_000),
        chosen("first", Some(Source::ConfirmTimeout))
    );
    let current = machine.store.current().expect("a revision");
    assert_eq!((current.number, current.repeats), (3, Some(1)));
    assert_eq!(machine.start_at(NOW + 70_000), chosen("first", None), "once");

    // The data plane may refuse what should come back.
    machine.commit("second-again", Some(60_000));
    let last = last(&machine.store, &Terms::default(), "refused").expect("a revision");
    assert_eq!(last.configuration.parsed.config.name, "second-again");
    assert!(
        last.draft.is_none() && machine.store.awaited().is_some(),
        "the deadline stands"
    );
    assert_eq!(
        machine.start_at(NOW + 60_000),
        chosen("first", Some(Source::ConfirmTimeout))
    );

    // Confirmed in time, it stays.
    machine.commit("third", Some(60_000));
    machine.store.confirm(NOW, "anna").expect("memory");
    assert_eq!(machine.start_at(NOW + 99_000), chosen("third", None));

    // A file that has changed is what its author wants, whatever was tried meanwhile.
    machine.commit("fourth", Some(60_000));
    machine.write(&document("fifth"));
    assert_eq!(
        machine.start_at(NOW + 99_000),
        chosen("fifth", Some(Source::File))
    );
}

#[test]
fn a_deadline_over_and_nothing_sound_to_return_to_is_no_reason_to_be_without_a_firewall() {
    let mut machine = Machine::new(&document("first"));
    machine.start();
    // The interface has gone since.
    let gone = document("gone").replace(
        "interfaces: [], zones: []",
        "interfaces: [{ name: bhk-absent0, zone: a }], zones: [{ name: a }]",
    );
    let draft = Draft {
        time_ms: NOW,
        author: "anna".into(),
        user: "root".into(),
        comment: String::new(),
        source: Source::Cli,
        file: "gone.yaml".into(),
        repeats: None,
        taken: machine.store.current().and_then(|current| current.taken.clone()),
        confirm_within_ms: None,
    };
    let prepared = machine.store.prepare(draft, gone.as_bytes()).expect("memory");
    machine.store.publish(prepared).expect("memory");
    machine.commit("tried", Some(1_000));
    assert_eq!(machine.start_at(NOW + 2_000), chosen("tried", None));
}

#[test]
fn a_revision_that_this_start_refuses_gives_way_to_what_the_api_has() {
    let mut machine = Machine::new(&document("kept"));
    machine.start_at(NOW);
    let one_more = Terms {
        ports: Some(1),
        ..Terms::default()
    };
    assert!(!needs_a_document(&machine.store, &Terms::default()));
    assert!(needs_a_document(&machine.store, &one_more));
    choose(None, None, &machine.store, &one_more, "root", NOW).expect_err("the revision has no port");
    let text = "apiVersion: bulkhead.dev/v1alpha1\nkind: Firewall\nmetadata: { name: fresh }\nspec:\n  \
                zones: [{ name: a }]\n  interfaces: [{ name: net1, zone: a }]\n";
    let first = First {
        configuration: Configuration::of("configmap", text.as_bytes(), &one_more).expect("a sound document"),
        source: Source::ConfigMap,
    };
    let beginning = choose(None, Some(first), &machine.store, &one_more, "root", NOW).expect("a document");
    assert_eq!(beginning.configuration.parsed.config.name, "fresh");
    assert_eq!(beginning.draft.map(|draft| draft.source), Some(Source::ConfigMap));
    // An interface that is only missing is waited for, where that is asked for.
    let draft = Draft {
        time_ms: NOW,
        author: "anna".into(),
        user: "root".into(),
        comment: String::new(),
        source: Source::ConfigMap,
        file: "configmap".into(),
        repeats: None,
        taken: None,
        confirm_within_ms: None,
    };
    let prepared = machine.store.prepare(draft, text.as_bytes()).expect("memory");
    machine.store.publish(prepared).expect("memory");
    let waiting = Terms {
        wait: true,
        ..Terms::default()
    };
    assert!(unusable(&machine.store, &waiting).is_some_and(|error| is_missing(&error)));
    assert!(!needs_a_document(&machine.store, &waiting));
    assert!(needs_a_document(&machine.store, &Terms::default()));
}
