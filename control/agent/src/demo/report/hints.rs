//! What `--keep` invites to.

use std::fmt::Write as _;

use super::super::matrix::Protocol;
use super::super::segments::{Family, Segment};
use super::{Kept, Report};

/// What to try while everything stays up.
pub(in super::super) fn hints(report: &Report, kept: &Kept) -> String {
    let mut text = String::from("\nEverything stays up. Try:\n");
    for (what, command) in commands(report, kept) {
        let _ = writeln!(text, "\n  # {what}\n  {command}");
    }
    let _ = writeln!(text, "\nWhen done:\n\n  {} demo --clean", kept.binary);
    text
}

/// What a command shows, and the command.
fn commands(report: &Report, kept: &Kept) -> Vec<(&'static str, String)> {
    let within = |segment: Segment, command: &str| {
        let place = report.segments.iter().find(|place| place.segment == segment);
        format!(
            "ip netns exec {} {command}",
            place.map_or("", |place| &place.namespace)
        )
    };
    let bulkhead = |command: &str| format!("{} {command} --socket {}", kept.binary, kept.socket);
    let data = Segment::Data.host(Family::V4);
    let internet = Segment::Internet.host(Family::V4);
    let internet6 = Segment::Internet.host(Family::V6);
    let financial = Segment::Financial.host(Family::V4);
    let sql = Protocol::Sql.port();
    vec![
        (
            "On the way out the source is translated: see x-seen-as",
            within(Segment::Financial, &format!("curl -si -m 2 http://{internet}/")),
        ),
        (
            "IPv6 is no other matter",
            within(
                Segment::Financial,
                &format!("curl -si -m 2 http://[{internet6}]/"),
            ),
        ),
        (
            "Web starts nothing, and is told so at once",
            within(Segment::Web, &format!("curl -m 2 http://{internet}/")),
        ),
        (
            "Only Applications reach Data",
            within(Segment::Applications, &format!("ping -c 1 -W 1 {data}")),
        ),
        (
            "Nobody else does",
            within(Segment::Financial, &format!("ping -c 1 -W 1 {data}")),
        ),
        (
            "What would happen, without sending anything",
            bulkhead(&format!(
                "explain --from {} --src {financial} --dst {data} --tcp {sql}",
                Segment::Financial.interface()
            )),
        ),
        (
            "Conversations as they begin, end and are denied",
            bulkhead("observe -f"),
        ),
        ("What lives", bulkhead("show sessions")),
        ("What was decided, and how often", bulkhead("show policies")),
        ("Where every packet ended", bulkhead("show counters")),
        (
            "How each interface is guarded, and why so",
            bulkhead("show interfaces"),
        ),
        ("Its log", format!("tail {}", kept.log)),
    ]
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::tests;
    use super::*;

    #[test]
    fn every_hint_is_a_command_that_exists() {
        let kept = Kept {
            keeper_process: 1,
            firewall_namespace: "bulkhead-demo-fw-1-0".into(),
            firewall_process: 2,
            socket: "/run/bulkhead-demo-1/bulkhead.sock".into(),
            log: "/run/bulkhead-demo-1/firewall.log".into(),
            binary: "bulkhead".into(),
        };
        let commands = commands(&tests::report(Vec::new()), &kept);
        let ours = commands
            .iter()
            .filter(|(_, command)| command.starts_with("bulkhead "));
        let mut parsed = 0;
        for (_, command) in ours {
            if let Err(error) = crate::cli::Cli::try_parse_from(command.split_whitespace()) {
                panic!("{command}: {error}");
            }
            parsed += 1;
        }
        assert_eq!(parsed, 6);
        assert!(hints(&tests::report(Vec::new()), &kept).ends_with("  bulkhead demo --clean\n"));
    }
}
