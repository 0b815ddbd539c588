use super::*;
use crate::agent::Reason;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).expect("a time")
}

fn in_force(hash: &str) -> InForce {
    InForce {
        revision: 7,
        generation: 9,
        hash: hash.to_owned(),
        by: "root (cli)".to_owned(),
        problems: Vec::new(),
    }
}

fn known<'k>(name: &'k str, in_force: &'k InForce, wanted: &'k str) -> Known<'k> {
    Known {
        name,
        in_force: Some(in_force),
        wanted: Some(wanted),
        refusal: None,
        observed_generation: Some(3),
    }
}

fn told(instance: &Instance) -> Vec<(&str, &str, &str)> {
    instance
        .conditions
        .iter()
        .map(|condition| (&*condition.kind, &*condition.status, &*condition.reason))
        .collect()
}

#[test]
fn what_is_wanted_is_in_force() {
    let entry = Instance::new(&known("a", &in_force("h"), "h"), None, at(0));
    assert_eq!(
        told(&entry),
        [
            ("Ready", "True", "Enforcing"),
            ("Applied", "True", "Committed"),
            ("Degraded", "False", "AsConfigured")
        ]
    );
    assert_eq!(
        (entry.revision, entry.generation, entry.observed_generation),
        (7, 9, Some(3))
    );
}

#[test]
fn a_refused_document_leaves_the_firewall_ready_and_degraded() {
    let refusal = Refusal {
        reason: Reason::Invalid,
        message: "fw:3:1: no".to_owned(),
    };
    let force = in_force("old");
    let known = Known {
        refusal: Some(&refusal),
        ..known("a", &force, "new")
    };
    let entry = Instance::new(&known, None, at(0));
    assert_eq!(
        told(&entry),
        [
            ("Ready", "True", "Enforcing"),
            ("Applied", "False", "Invalid"),
            ("Degraded", "True", "Invalid")
        ]
    );
    assert_eq!(entry.conditions[1].message, "fw:3:1: no");
    assert_eq!(entry.hash, "old", "the hash is of what is in force");
}

#[test]
fn what_is_in_force_is_applied_whatever_was_refused_before() {
    let refusal = Refusal {
        reason: Reason::Superseded,
        message: "revision 8 came after it".to_owned(),
    };
    let force = in_force("h");
    let known = Known {
        refusal: Some(&refusal),
        ..known("a", &force, "h")
    };
    let entry = Instance::new(&known, None, at(0));
    assert_eq!(
        told(&entry)[1..],
        [
            ("Applied", "True", "Committed"),
            ("Degraded", "False", "AsConfigured")
        ],
        "somebody has rolled back to it"
    );
}

#[test]
fn a_firewall_that_is_not_up_yet_is_starting_and_not_superseded() {
    let nothing = InForce::default();
    let known = Known {
        in_force: None,
        ..known("a", &nothing, "h")
    };
    let entry = Instance::new(&known, None, at(0));
    assert_eq!(
        told(&entry)[..2],
        [("Ready", "False", "Starting"), ("Applied", "False", "Starting")]
    );
}

#[test]
fn another_commit_supersedes_and_an_interface_that_is_gone_is_not_ready() {
    let mut force = in_force("other");
    let entry = Instance::new(&known("a", &force, "h"), None, at(0));
    assert_eq!(told(&entry)[1], ("Applied", "False", "Superseded"));
    assert!(entry.conditions[1].message.contains("root (cli)"));
    force.hash = "h".to_owned();
    force.problems = vec!["interface net1 is gone".to_owned()];
    let entry = Instance::new(&known("a", &force, "h"), Some(&entry), at(60));
    assert_eq!(
        told(&entry),
        [
            ("Ready", "False", "Impaired"),
            ("Applied", "True", "Committed"),
            ("Degraded", "True", "Impaired")
        ]
    );
}

#[test]
fn an_unchanged_entry_is_the_same_until_it_is_renewed() {
    let force = in_force("h");
    let first = Instance::new(&known("a", &force, "h"), None, at(0));
    assert_eq!(
        Instance::new(&known("a", &force, "h"), Some(&first), at(299)),
        first
    );
    let later = Instance::new(&known("a", &force, "h"), Some(&first), at(301));
    assert_ne!(later.renewed, first.renewed);
    assert_eq!(later.conditions, first.conditions);
    assert!(!first.is_expired(at(900)) && first.is_expired(at(901)));
    let nonsense = Instance {
        renewed: "yesterday".to_owned(),
        ..first
    };
    assert!(nonsense.is_expired(at(0)));
}

#[test]
fn the_summary_is_the_same_whoever_writes_it() {
    let (good, bad) = (in_force("h"), in_force("old"));
    let a = Instance::new(&known("a", &good, "h"), None, at(0));
    let b = Instance::new(&known("b", &bad, "h"), None, at(0));
    let summary = Summary::of(&[a.clone(), b.clone()], &Summary::default(), at(0));
    assert_eq!((summary.applied.as_str(), summary.hash.as_str()), ("1/2", ""));
    let applied = &summary.conditions[1];
    assert!(
        !applied.holds() && applied.message.starts_with("b: "),
        "{applied:?}"
    );
    assert!(summary.conditions[0].holds(), "both enforce what they have");
    assert!(summary.conditions[2].holds(), "one is degraded");
    // Written once, it is what everybody computes from then on.
    assert_eq!(Summary::of(&[a.clone(), b.clone()], &summary, at(50)), summary);
    // The other one caught up.
    let caught = Instance::new(&known("b", &good, "h"), Some(&b), at(60));
    let after = Summary::of(&[a.clone(), caught], &summary, at(60));
    assert_eq!((after.applied.as_str(), after.hash.as_str()), ("2/2", "h"));
    assert!(after.conditions[1].holds());
    // The other one died.
    let alone = Summary::of(
        &[Instance::new(&known("a", &good, "h"), Some(&a), at(1_000)), b],
        &summary,
        at(1_000),
    );
    assert_eq!(alone.applied, "1/1");
}

#[test]
fn nobody_is_not_ready() {
    let summary = Summary::of(&[], &Summary::default(), at(0));
    let holds: Vec<bool> = summary.conditions.iter().map(Condition::holds).collect();
    assert_eq!(
        (holds, summary.applied.as_str()),
        (vec![false, false, true], "0/0")
    );
}
