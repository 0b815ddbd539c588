//! What the demo prints, for people and for programs. Pure: from what was found out to text.
//!
//! The JSON is stable in the sense of `crate::report`: fields may be added, none is renamed or removed.

mod hints;

use std::fmt::Write as _;

use serde::Serialize;

use super::conversations::CameTo;
use super::judge::{Cell, Said};
use super::matrix::{Conversation, Fate, Protocol};
use super::segments::{Family, Segment};
use crate::render;
use crate::report::{Session, Sessions};
use crate::table::Align::{Left, Right};
use crate::table::Table;

pub(super) use self::hints::hints;

/// What the signs of the matrix mean.
const LEGEND: &str = "
  Tried each time: http (tcp 80), sql (tcp 5432), dns (udp 53), ping (echo).
  ✓ these were answered, the others met silence   ✗ silence   ⊘ told at once that it may not   ! wrong
";

/// Everything that was found out.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Whether every cell is as the policy says, and every open connection is in the session table.
    pub(super) ok: bool,
    /// From the start of the firewall's process until it guarded every interface.
    pub(super) firewall_started_in_ms: u64,
    /// Of the whole run so far.
    pub(super) elapsed_ms: u64,
    /// Who is where.
    pub(super) segments: Vec<Place>,
    /// Every conversation.
    pub(super) conversations: Vec<Cell>,
    /// The session table while connections were open.
    pub(super) sessions: Sessions,
    /// What is wrong with the table or the connections; empty if nothing is.
    pub(super) session_faults: Vec<String>,
    /// Set if everything stays up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kept: Option<Kept>,
}

/// A segment on the plan.
#[derive(Debug, Serialize)]
pub(super) struct Place {
    pub(super) segment: Segment,
    pub(super) namespace: String,
    pub(super) firewall_interface: &'static str,
    pub(super) ipv4: String,
    pub(super) ipv6: String,
}

/// What stays up, and how to speak to it.
#[derive(Debug, Serialize)]
pub(super) struct Kept {
    /// Who keeps it: ends, and cleans up, on SIGTERM.
    pub(super) keeper_process: u32,
    pub(super) firewall_namespace: String,
    pub(super) firewall_process: u32,
    pub(super) socket: String,
    pub(super) log: String,
    pub(super) binary: String,
}

/// What is going to happen, in a line.
pub(super) fn announcement() -> String {
    format!(
        "Sets up {} segments around one firewall, each in a network namespace of its own, and holds {} conversations \
         through it; touches nothing else.",
        Segment::ALL.len(),
        Conversation::all().len()
    )
}

/// The network as a drawing.
pub(super) fn plan() -> String {
    let host = |segment: Segment| {
        format!(
            "{:12}  {:12}  {:18}",
            segment.name(),
            segment.host(Family::V4),
            segment.host(Family::V6)
        )
    };
    let mut text = String::from("\n");
    let joints = ["┐", "┤", "┼── bulkhead", "┤", "┘"];
    for (segment, joint) in Segment::ALL.into_iter().zip(joints) {
        let _ = writeln!(text, "  {}  ── {} ──{joint}", host(segment), segment.interface());
    }
    let _ = writeln!(
        text,
        "\n  On the way from Financial and Applications to the Internet, sources become {} and {}.",
        Segment::Internet.gateway(Family::V4),
        Segment::Internet.gateway(Family::V6)
    );
    text
}

/// Who reached whom.
pub(super) fn matrix(cells: &[Cell]) -> String {
    let mut text = String::from("\nWho reached whom:\n");
    for family in Family::ALL {
        let mut table = Table::new([
            (corner(family), Left),
            ("TO FINANCIAL", Left),
            ("TO APPLICATIONS", Left),
            ("TO WEB", Left),
            ("TO DATA", Left),
            ("TO INTERNET", Left),
        ]);
        for from in Segment::ALL {
            let fields = Segment::ALL.map(|to| {
                let pair: Vec<_> = cells
                    .iter()
                    .filter(|cell| {
                        let tried = cell.conversation;
                        (tried.from, tried.to, tried.family) == (from, to, family)
                    })
                    .collect();
                field(&pair)
            });
            let [financial, applications, web, data, internet] = fields;
            table.row([from.to_string(), financial, applications, web, data, internet]);
        }
        text.push('\n');
        text.push_str(&indented(&table));
    }
    text.push_str(LEGEND);
    text
}

const fn corner(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4 FROM",
        Family::V6 => "IPv6 FROM",
    }
}

/// What came of everything that one segment tried with another.
fn field(pair: &[&Cell]) -> String {
    let mark = |cell: &Cell| if cell.faults.is_empty() { "" } else { "!" };
    let reached: Vec<_> = pair
        .iter()
        .filter(|cell| matches!(cell.held.came_to, CameTo::Reached { .. }))
        .map(|cell| format!("{}{}", cell.conversation.protocol.name(), mark(cell)))
        .collect();
    let mut words = Vec::new();
    if !reached.is_empty() {
        words.push(format!("✓ {}", reached.join(" ")));
    }
    let others = pair
        .iter()
        .filter(|cell| !matches!(cell.held.came_to, CameTo::Reached { .. }));
    let (as_expected, wrong): (Vec<&&Cell>, Vec<&&Cell>) = others.partition(|cell| cell.faults.is_empty());
    if words.is_empty() && as_expected.iter().any(|cell| cell.expected == Fate::Refused) {
        words.push("⊘".to_owned());
    } else if words.is_empty() && !as_expected.is_empty() {
        words.push("✗".to_owned());
    }
    words.extend(wrong.iter().map(|cell| {
        let sign = if cell.held.came_to.is(Fate::Refused) {
            '⊘'
        } else {
            '✗'
        };
        format!("{sign} {}!", cell.conversation.protocol.name())
    }));
    words.join(" ")
}

/// What the firewall said about each pair, and the source that the servers saw.
pub(super) fn explanations(cells: &[Cell]) -> String {
    let mut table = Table::new([
        ("FROM", Left),
        ("TO", Left),
        ("TRIED", Left),
        ("VERDICT", Left),
        ("REASON", Left),
        ("POLICY", Left),
        ("SOURCE AS THE SERVER SAW IT", Left),
    ]);
    let mut groups: Vec<Vec<&Cell>> = Vec::new();
    for cell in cells {
        let key = |cell: &Cell| {
            let Said {
                verdict,
                reason,
                policy,
                nat_rule,
                ..
            } = cell.firewall.clone();
            (
                cell.conversation.from,
                cell.conversation.to,
                verdict,
                reason,
                policy,
                nat_rule,
            )
        };
        match groups.iter_mut().find(|group| key(group[0]) == key(cell)) {
            Some(group) => group.push(cell),
            None => groups.push(vec![cell]),
        }
    }
    for group in groups {
        let Cell {
            conversation,
            firewall,
            ..
        } = group[0];
        table.row([
            conversation.from.to_string(),
            conversation.to.to_string(),
            tried(&group),
            firewall.verdict.clone(),
            firewall.reason.clone(),
            firewall.policy.clone().unwrap_or_default(),
            sources(&group),
        ]);
    }
    format!(
        "\nWhat the firewall says about each, asked before anything was sent:\n\n{}",
        indented(&table)
    )
}

/// The protocols of a group, with the family where not both are in it.
fn tried(group: &[&Cell]) -> String {
    let mut words = Vec::new();
    for protocol in Protocol::ALL {
        let families: Vec<_> = group
            .iter()
            .filter(|cell| cell.conversation.protocol == protocol)
            .map(|cell| cell.conversation.family)
            .collect();
        match families[..] {
            [] => {}
            [only] => words.push(format!("{}({only})", protocol.name())),
            _ => words.push(protocol.name().to_owned()),
        }
    }
    words.join(" ")
}

/// The distinct sources that the servers of a group saw.
fn sources(group: &[&Cell]) -> String {
    let mut seen: Vec<String> = Vec::new();
    for cell in group {
        if let CameTo::Reached {
            seen_as: Some(seen_as),
            own: Some(own),
        } = &cell.held.came_to
        {
            let word = if seen_as.ip() == own.ip() {
                "its own".to_owned()
            } else {
                seen_as.ip().to_string()
            };
            if !seen.contains(&word) {
                seen.push(word);
            }
        }
    }
    seen.join(", ")
}

/// Each conversation by itself.
pub(super) fn every_conversation(cells: &[Cell]) -> String {
    let mut table = Table::new([
        ("CONVERSATION", Left),
        ("CAME TO", Left),
        ("TOOK (ms)", Right),
        ("SOURCE", Left),
    ]);
    for cell in cells {
        let ports = match &cell.held.came_to {
            CameTo::Reached {
                seen_as: Some(seen_as),
                own: Some(own),
            } => format!("{own} seen as {seen_as}"),
            _ => String::new(),
        };
        table.row([
            cell.conversation.to_string(),
            cell.held.came_to.describe(),
            format!("{:.1}", cell.held.elapsed_us as f64 / 1000.0),
            ports,
        ]);
    }
    format!("\n{}", indented(&table))
}

/// The session table as `show sessions` prints it: the sessions of the connections that were open, in their order. The
/// others too if everything is asked for.
pub(super) fn sessions(sessions: &Sessions, open: &[u64], everything: bool) -> String {
    let place = |session: &Session| open.iter().position(|id| *id == session.id).unwrap_or(open.len());
    let mut shown = sessions.sessions.clone();
    shown.retain(|session| everything || open.contains(&session.id));
    shown.sort_by_key(place);
    let (total, over) = (shown.len(), sessions.total.saturating_sub(shown.len()));
    let mut text = format!(
        "\nThe session table while {} connections were open:\n\n{}",
        open.len(),
        render::sessions(&Sessions {
            sessions: shown,
            total
        })
    );
    if over > 0 {
        let _ = writeln!(
            text,
            "{over} more, of conversations that are over, wait for their timeout."
        );
    }
    text
}

/// Whether all is well, and what is not.
pub(super) fn conclusion(report: &Report) -> String {
    let mut text = String::from("\n");
    let wrong: Vec<_> = report
        .conversations
        .iter()
        .filter(|cell| !cell.faults.is_empty())
        .collect();
    for cell in &wrong {
        let _ = writeln!(text, "wrong: {}: {}", cell.conversation, cell.faults.join("; "));
    }
    for fault in &report.session_faults {
        let _ = writeln!(text, "wrong: {fault}");
    }
    let count = report.conversations.len();
    let seconds = report.elapsed_ms as f64 / 1000.0;
    let sentence = match wrong.len() {
        0 if report.ok => format!("All {count} conversations went as the policy says"),
        0 => format!("All {count} conversations went as the policy says, but the sessions are wrong"),
        number => format!("{number} of {count} conversations did not go as the policy says"),
    };
    let _ = writeln!(text, "{sentence} ({seconds:.1} s).");
    text
}

fn indented<const COLUMNS: usize>(table: &Table<COLUMNS>) -> String {
    table.render().lines().map(|line| format!("  {line}\n")).collect()
}

#[cfg(test)]
mod tests;
