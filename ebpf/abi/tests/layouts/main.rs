//! Holds `ABI_VERSION` to its word: what one daemon leaves in pinned tables, the next one of the same version reads as it was
//! meant.
//!
//! Owns `layouts.txt`, where all that [`pinned`] lists is recorded, and the version it is of. What is recorded may not change
//! under the same version; what is only added, and an older build can do without, has to be recorded. That a flag which is new
//! has its line in `pinned` nobody checks. Assumes a 64-bit little-endian machine, as the programs do. What the tables look
//! like in the kernel, a test of the data plane compares with the section `tables`.

mod pinned;

use std::{fmt::Write as _, path::Path};

use bulkhead_abi::ABI_VERSION;

/// Set, it makes the test write the record, if the record may change.
const RENEW: &str = "BULKHEAD_RENEW";
/// How that is done.
const HOW: &str = "BULKHEAD_RENEW=1 cargo test -p bulkhead-abi --test layouts";
const FILE: &str = "ebpf/abi/tests/layouts/layouts.txt";

/// What is recorded of a version.
#[derive(Clone, Debug, PartialEq)]
struct Record {
    version: u32,
    sections: Vec<Section>,
}

/// A type, the numbers of an enumeration, or the tables.
#[derive(Clone, Debug, PartialEq)]
struct Section {
    /// What it is, and its name. Lines may be added to one that is said to be `growing`.
    title: String,
    lines: Vec<String>,
}

/// What the sources say.
fn now() -> Record {
    let sections = [vec![pinned::tables()], pinned::layouts(), pinned::stored()];
    Record {
        version: ABI_VERSION,
        sections: sections.into_iter().flatten().collect(),
    }
}

impl Record {
    fn parse(text: &str) -> Self {
        let mut record = Self {
            version: 0,
            sections: Vec::new(),
        };
        for line in text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            if let Some(version) = line.strip_prefix("version ") {
                record.version = version.parse().expect("a version is a number");
            } else if let Some(line) = line.strip_prefix("  ") {
                let section = record.sections.last_mut().expect("a line stands below a title");
                section.lines.push(line.to_owned());
            } else {
                record.sections.push(Section {
                    title: line.to_owned(),
                    lines: Vec::new(),
                });
            }
        }
        record
    }

    fn text(&self) -> String {
        let mut text = format!(
            "# What daemons of one ABI_VERSION leave to each other, written by main.rs beside this file:\n\
             # {HOW}\nversion {}\n",
            self.version
        );
        for section in &self.sections {
            let _written = write!(text, "\n{}\n", section.title);
            for line in &section.lines {
                let _written = writeln!(text, "  {line}");
            }
        }
        text
    }
}

/// How the sources compare with the record.
#[derive(Debug, PartialEq)]
enum Change {
    Nothing,
    /// Only added to, or of a version of its own: the record is to be renewed.
    Record(Vec<String>),
    /// Another layout under the same version.
    Version(Vec<String>),
}

fn compare(recorded: &Record, now: &Record) -> Change {
    let mut added = Vec::new();
    let mut broken = Vec::new();
    for before in &recorded.sections {
        let Some(after) = now.sections.iter().find(|section| section.title == before.title) else {
            broken.push(format!("{}: gone", before.title));
            continue;
        };
        let gone = before.lines.iter().filter(|line| !after.lines.contains(line));
        let new = after.lines.iter().filter(|line| !before.lines.contains(line));
        let gone = gone.map(|line| format!("{}: recorded, and not so now: {line}", before.title));
        let new = new.map(|line| format!("{}: not recorded: {line}", before.title));
        broken.extend(gone);
        if before.title.starts_with("growing ") {
            added.extend(new);
        } else {
            broken.extend(new);
        }
    }
    let known = |section: &&Section| recorded.sections.iter().any(|other| other.title == section.title);
    let unknown = now.sections.iter().filter(|section| !known(section));
    added.extend(unknown.map(|section| format!("{}: not recorded", section.title)));
    if recorded.version > now.version {
        let versions = format!(
            "version {} is recorded: numbers are not used again",
            recorded.version
        );
        return Change::Version(vec![versions]);
    }
    if recorded.version < now.version {
        let versions = format!("version {} is recorded, not {}", recorded.version, now.version);
        return Change::Record([vec![versions], broken, added].concat());
    }
    match (broken.is_empty(), added.is_empty()) {
        (true, true) => Change::Nothing,
        (true, false) => Change::Record(added),
        (false, _) => Change::Version([broken, added].concat()),
    }
}

#[test]
fn layouts_are_those_recorded_of_their_version() {
    let now = now();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/layouts/layouts.txt");
    let recorded = std::fs::read_to_string(&path).unwrap_or_default();
    match compare(&Record::parse(&recorded), &now) {
        Change::Nothing => {}
        Change::Record(_) if std::env::var_os(RENEW).is_some() => {
            std::fs::write(&path, now.text()).expect("the record can be written");
        }
        Change::Record(what) => panic!(
            "{FILE} is to be renewed, and read, by `{HOW}`:\n{}",
            what.join("\n")
        ),
        Change::Version(what) => panic!(
            "what a daemon of ABI_VERSION {ABI_VERSION} has pinned would be misread: raise it in ebpf/abi/src/lib.rs, \
             which ends all sessions at the upgrade, or leave the layout as it is. Then: `{HOW}`\n{}",
            what.join("\n")
        ),
    }
    assert_eq!(Record::parse(&now.text()), now, "what is written is what is read");
}

#[test]
fn a_changed_layout_needs_another_version_and_an_addition_does_not() {
    let now = now();
    let changed = |change: &dyn Fn(&mut Record)| {
        let mut recorded = now.clone();
        change(&mut recorded);
        compare(&recorded, &now)
    };
    fn lines<'r>(record: &'r mut Record, title: &str) -> &'r mut Vec<String> {
        let section = record.sections.iter_mut().find(|section| section.title == title);
        &mut section.expect("a section").lines
    }
    assert_eq!(changed(&|_| ()), Change::Nothing);
    // A field that has moved, one that is new, and a state that is.
    for (title, line) in [("type Flow", 5), ("type Mapping", 2), ("numbers SessionState", 3)] {
        let Change::Version(what) = changed(&|record| lines(record, title)[line].insert(0, '9')) else {
            panic!("{title}: moved");
        };
        assert!(
            what.len() == 2 && what.iter().all(|line| line.starts_with(title)),
            "{what:?}"
        );
        assert!(matches!(
            changed(&|record| drop(lines(record, title).remove(line))),
            Change::Version(_)
        ));
    }
    // What is recorded may not go; what is new is to be recorded.
    for title in ["growing counters", "growing Screen", "growing tables"] {
        let gone = changed(&|record| lines(record, title).push("250 of_before".to_owned()));
        assert!(matches!(gone, Change::Version(_)), "{gone:?}");
        let added = changed(&|record| drop(lines(record, title).pop()));
        assert!(matches!(added, Change::Record(_)), "{added:?}");
    }
    let raised = changed(&|record| {
        record.version -= 1;
        lines(record, "type Flow")[5].insert(0, '9');
    });
    assert!(matches!(raised, Change::Record(_)), "{raised:?}");
    let lowered = changed(&|record| record.version += 1);
    assert!(matches!(lowered, Change::Version(_)), "{lowered:?}");
}
