//! `show groups`, `group add` and `group remove`.

use super::list;
use crate::report::{Group, GroupChanged, GroupSource, Groups};
use crate::table::Align::{Left, Right};
use crate::table::Table;
use crate::words;

/// Configured members that are shown; JSON has all of them.
const SHOWN: usize = 8;

/// `show groups`: a line for what is configured and one for each source.
pub fn groups(report: &Groups) -> String {
    if report.groups.is_empty() {
        return "no address groups are configured\n".to_owned();
    }
    let mut table = Table::new([
        ("GROUP", Left),
        ("SOURCE", Left),
        ("PREFIXES", Right),
        ("MEMBERS", Left),
        ("AGE", Right),
        ("NEXT", Right),
        ("LAST ERROR", Left),
        ("POLICIES", Left),
    ]);
    for group in &report.groups {
        let mut row = |cells: [String; 6]| {
            let [source, prefixes, members, age, next, error] = cells;
            let (name, policies) = (group.name.clone(), list(&group.policies));
            table.row([name, source, prefixes, members, age, next, error, policies]);
        };
        if !group.members.is_empty() || !group.except.is_empty() || group.sources.is_empty() {
            let own = group.prefixes - group.sources.iter().map(|source| source.prefixes).sum::<usize>();
            row([
                "configured".to_owned(),
                own.to_string(),
                configured(group),
                String::new(),
                String::new(),
                String::new(),
            ]);
        }
        for source in &group.sources {
            row(cells(source));
        }
    }
    table.render()
}

fn configured(group: &Group) -> String {
    let mut members = list(&group.members[..group.members.len().min(SHOWN)]);
    if group.members.len() > SHOWN {
        members += &format!(", … {} more", group.members.len() - SHOWN);
    }
    if !group.except.is_empty() {
        let gap = if members.is_empty() { "" } else { " " };
        members += &format!("{gap}except {}", list(&group.except));
    }
    members
}

fn cells(source: &GroupSource) -> [String; 6] {
    let time = |seconds: Option<f64>| {
        let duration = |seconds| std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default();
        seconds.map_or_else(String::new, |seconds| words::duration(duration(seconds)))
    };
    let name = match &source.location {
        Some(location) => format!("{} {location}", source.kind),
        None => source.kind.clone(),
    };
    let members = source
        .members
        .iter()
        .map(|member| match member.expires_in_seconds {
            None => member.prefix.clone(),
            left => format!("{} ({} left)", member.prefix, time(left)),
        });
    let mut members = list(&members.collect::<Vec<_>>());
    let more = source.prefixes.saturating_sub(source.members.len());
    if more > 0 {
        members += &format!(", … {more} more");
    }
    let mut errors: Vec<String> = source.last_error.iter().cloned().collect();
    if !source.in_force {
        errors.push("not in force".to_owned());
    }
    if let Some(example) = source.bad_examples.first() {
        errors.push(format!("{} bad ({example})", source.bad_entries));
    }
    let errors = errors.join("; ");
    [
        name,
        source.prefixes.to_string(),
        members,
        time(source.age_seconds),
        time(source.next_in_seconds),
        errors,
    ]
}

/// `group add`, `group remove`
pub fn group_changed(report: &GroupChanged) -> String {
    let change = match (report.added, report.removed) {
        (0, 0) => "nothing changed".to_owned(),
        (added, 0) => format!("{added} added"),
        (0, removed) => format!("{removed} removed"),
        (added, removed) => format!("{added} added, {removed} removed"),
    };
    let kept = match report.kept {
        true => "",
        false => "; without a state directory they end with the daemon",
    };
    format!(
        "{}: {change}, in force within {} ms; {} by hand now{kept}\n",
        report.group,
        report.milliseconds,
        words::count(report.members as u64, "member", "members"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::Firewall as _;
    use crate::fixture::Fixture;

    fn shown() -> Groups {
        Fixture::default().groups(None, false).expect("groups")
    }

    #[test]
    fn sources_have_a_line_each() {
        assert_eq!(
            groups(&shown()),
            "\
GROUP       SOURCE                                   PREFIXES  MEMBERS                                           AGE  NEXT  LAST ERROR                                                         POLICIES
databases   configured                                      6  10.10.4.10-10.10.4.99, 2001:db8:10:4::/64           -     -  -                                                                  applications-to-databases
quarantine  configured                                      0  except partners                                     -     -  -                                                                  stop-infected
quarantine  feed https://feeds.example/infected.txt     12000  10.1.0.7, 10.1.0.9 (1 h left), … 11998 more  1 m 35 s  12 s  the server takes too long; 1 bad (entry 7: \"x\" is not an address)  stop-infected
quarantine  manual                                          1  10.1.0.66 (1 m left)                                -     -  -                                                                  stop-infected
"
        );
    }

    #[test]
    fn long_groups_are_cut() {
        let mut report = shown();
        report.groups[0].members = (0..1_000).map(|number| format!("10.0.0.{number}")).collect();
        let text = groups(&report);
        assert!(
            text.contains("10.0.0.7, … 992 more") && !text.contains("10.0.0.8,"),
            "{text}"
        );
        assert_eq!(
            groups(&Groups { groups: vec![] }),
            "no address groups are configured\n"
        );
    }

    #[test]
    fn changes_are_told_in_words() {
        let report = GroupChanged {
            group: "quarantine".to_owned(),
            added: 2,
            removed: 0,
            members: 3,
            kept: true,
            milliseconds: 0.25,
        };
        assert_eq!(
            group_changed(&report),
            "quarantine: 2 added, in force within 0.25 ms; 3 members by hand now\n"
        );
    }
}
