//! `commit`, `rollback`, `history` and `diff`.

use bulkhead_config::{Change, Difference, FieldDifference};
use serde_json::Value;

use crate::report::{Committed, Differences, History, HistoryEntry, RevisionState};
use crate::table::{
    Align::{Left, Right},
    Table, printable,
};

/// Of a list, as many of what was added and of what was removed.
const SHOWN: usize = 8;

/// `commit`, `rollback`: one line, then what to do next, if there is anything.
pub fn committed(report: &Committed) -> String {
    let Committed {
        revision,
        generation,
        milliseconds,
        ..
    } = report;
    if !report.changed {
        return format!("nothing to commit: revision {revision} says the same and is in force\n");
    }
    let mut text =
        format!("revision {revision} is in force (generation {generation}, {milliseconds:.0} ms)\n");
    if let (Some(time), Some(back_to)) = (&report.confirm_by, report.back_to) {
        text += &format!("`bulkhead confirm` keeps it; otherwise revision {back_to} comes back at {time}\n");
    }
    if !report.kept {
        text += "there is no state directory: it is forgotten when the daemon ends\n";
    }
    for warning in &report.warnings {
        text += &format!("{}\n", printable(warning));
    }
    text
}

/// `history`
pub fn history(report: &History) -> String {
    let mut table = Table::new([
        ("REVISION", Right),
        ("TIME", Left),
        ("AUTHOR", Left),
        ("SOURCE", Left),
        ("STATE", Left),
        ("COMMENT", Left),
    ]);
    for entry in &report.revisions {
        let source = match entry.repeats {
            Some(number) => format!("{} to {number}", entry.source),
            None => entry.source.to_string(),
        };
        table.row([
            entry.revision.to_string(),
            // To the second.
            entry.time.split('.').next().unwrap_or_default().to_owned() + "Z",
            author(entry),
            source,
            state(entry),
            entry.comment.clone(),
        ]);
    }
    let remark = if report.kept {
        ""
    } else {
        "\nThere is no state directory: these are forgotten when the daemon ends.\n"
    };
    let mut text = format!("{}{remark}", table.render());
    if let Some(refused) = &report.refused {
        text += &format!(
            "\n{} is not in force ({}, {}Z):\n",
            printable(&refused.document),
            refused.reason,
            refused.time.split('.').next().unwrap_or_default()
        );
        for line in refused.message.lines() {
            text += &format!("  {}\n", printable(line));
        }
    }
    text
}

/// Who says so, and who the kernel says it was if that is another.
fn author(entry: &HistoryEntry) -> String {
    match entry.author == entry.user {
        true => entry.author.clone(),
        false => format!("{} ({})", entry.author, entry.user),
    }
}

fn state(entry: &HistoryEntry) -> String {
    match (entry.state, &entry.confirm_by) {
        (RevisionState::InForce, _) => "in force".to_owned(),
        (RevisionState::AwaitsConfirmation, Some(time)) => format!("in force, confirm by {time}"),
        (RevisionState::AwaitsConfirmation, None) => "in force, awaits confirmation".to_owned(),
        (RevisionState::Past, _) => String::new(),
        (RevisionState::NotConfirmed, _) => "not confirmed".to_owned(),
    }
}

/// `diff`: a line for each thing that differs, then the text.
pub fn differences(report: &Differences) -> String {
    let Differences { old, new, .. } = report;
    if report.text.is_empty() {
        return format!("{} and {} are the same\n", printable(old), printable(new));
    }
    let mut text = match report.differences.len() {
        0 => "no difference but in comments, order or spelling\n".to_owned(),
        _ => String::new(),
    };
    report
        .differences
        .iter()
        .for_each(|found| text += &difference(found));
    text.push('\n');
    // The document may have what it wants in its comments; line ends stay.
    for line in report.text.lines() {
        text += &printable(line);
        text.push('\n');
    }
    text
}

fn difference(found: &Difference) -> String {
    let sign = match found.change {
        Change::Added => '+',
        Change::Removed => '-',
        Change::Changed => '~',
        Change::Moved => '>',
    };
    let mut line = format!("{sign} {}", found.kind);
    if let Some(name) = &found.name {
        line += &format!(" {name}");
    }
    match (found.old_place, found.new_place) {
        (Some(old), Some(new)) if found.change == Change::Moved => {
            line += &format!(": moved from place {old} to {new}");
        }
        (None, Some(new)) => line += &format!(", at place {new}"),
        _ => {}
    }
    let fields: Vec<String> = found.fields.iter().map(field).collect();
    if !fields.is_empty() {
        line += &format!(": {}", fields.join("; "));
    }
    format!("{}\n", printable(&line))
}

fn field(found: &FieldDifference) -> String {
    let mut words = vec![found.field.clone()];
    match (&found.old, &found.new) {
        (None, None) => {
            for (sign, values) in [('-', &found.removed), ('+', &found.added)] {
                words.extend(
                    values
                        .iter()
                        .take(SHOWN)
                        .map(|value| format!("{sign}{}", plain(value))),
                );
                if let Some(more) = values.len().checked_sub(SHOWN).filter(|more| *more > 0) {
                    words.push(format!("{sign}({more} more)"));
                }
            }
        }
        (old, new) => {
            let side = |value: &Option<Value>| value.as_ref().map_or_else(|| "nothing".to_owned(), plain);
            words.push(format!("{} -> {}", side(old), side(new)));
        }
    }
    words.retain(|word| !word.is_empty());
    words.join(" ")
}

/// Text without its quotes.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::{Asked, Firewall as _};
    use crate::fixture::Fixture;

    #[test]
    fn history_says_who_when_and_why() {
        let text = history(&Fixture::default().history().expect("revisions"));
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [
                "REVISION  TIME                  AUTHOR       SOURCE         STATE                                             COMMENT",
                "       2  2026-11-22T15:32:32Z  anna (root)  rollback to 1  in force, confirm by 2026-11-22T15:37:32.123000Z  let them\\nin",
                "       1  2026-11-22T15:32:32Z  anna (root)  cli            -                                                 let them\\nin",
                "",
                "/etc/bulkhead/firewall.yaml is not in force (Invalid, 2026-11-22T15:40:00Z):",
                "  firewall.yaml:7:3: first",
                "  firewall.yaml:9:3: \\u{1b}second",
            ]
        );
    }

    #[test]
    fn a_commit_says_what_to_do_next() {
        let mut report = Fixture::default()
            .commit(vec![], "x".into(), Asked::default())
            .expect("a commit");
        assert_eq!(
            committed(&report),
            "revision 2 is in force (generation 7, 4 ms)\n"
        );
        report.confirm_by = Some("2026-11-22T15:37:32.123000Z".into());
        report.back_to = Some(1);
        report.kept = false;
        report.warnings = vec!["x:1:1: warning: odd".into()];
        let text = committed(&report);
        assert_eq!(
            text.lines().skip(1).collect::<Vec<_>>(),
            [
                "`bulkhead confirm` keeps it; otherwise revision 1 comes back at 2026-11-22T15:37:32.123000Z",
                "there is no state directory: it is forgotten when the daemon ends",
                "x:1:1: warning: odd"
            ]
        );
        report.changed = false;
        assert!(committed(&report).starts_with("nothing to commit: revision 2"));
    }

    #[test]
    fn differences_are_lines_and_then_text() {
        let parse = |text: &str| bulkhead_config::parse("x", text).expect("a document").document;
        let old = "apiVersion: bulkhead.dev/v1alpha1\nkind: Firewall\nmetadata: { name: x }\nspec:\n  zones: [{ name: a }, { name: b }]\n  \
                   interfaces: [{ name: n1, zone: a }, { name: n2, zone: b }]\n  addresses: [{ name: g, members: [10.0.0.1] }]\n  policies:\n    \
                   - { name: one, from: a, to: b, source: g, action: permit }\n    - { name: two, from: b, to: a, action: deny }\n";
        let many: String = (2..14).map(|host| format!(", 10.0.0.{host}")).collect();
        let new = old
            .replace("10.0.0.1]", &format!("10.0.0.1{many}]"))
            .replace("action: deny", "action: reject")
            .replace(
                "{ name: one, from: a, to: b, source: g",
                "{ name: new, from: a, to: b, source: g",
            );
        let report = Differences {
            old: "revision 1".into(),
            new: "x.yaml".into(),
            differences: bulkhead_config::diff(&parse(old), &parse(&new)),
            text: "--- a\n+++ b\n\u{1b}[2J\n".into(),
        };
        let text = differences(&report);
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [
                "~ address group g: members +10.0.0.2 +10.0.0.3 +10.0.0.4 +10.0.0.5 +10.0.0.6 +10.0.0.7 +10.0.0.8 +10.0.0.9 +(4 more)",
                "+ policy new, at place 1",
                "~ policy two: action deny -> reject",
                "- policy one",
                "",
                "--- a",
                "+++ b",
                "\\u{1b}[2J"
            ]
        );
        let same = Differences {
            text: String::new(),
            differences: vec![],
            ..report
        };
        assert_eq!(differences(&same), "revision 1 and x.yaml are the same\n");
    }
}
