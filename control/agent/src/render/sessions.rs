//! `show sessions`: the three lines per session that cSRX users read every day.

use std::net::IpAddr;

use crate::report::{Direction, Session, Sessions};
use crate::words;

/// One header line, `In:` and `Out:` for each session, a total at the end.
pub fn sessions(report: &Sessions) -> String {
    let mut text: String = report.sessions.iter().map(session).collect();
    text += &format!("Total sessions: {}", report.total);
    if report.sessions.len() < report.total {
        text += &format!(" ({} shown; --limit shows more)", report.sessions.len());
    }
    text.push('\n');
    text
}

fn session(session: &Session) -> String {
    // The firewall's own conversations and those hostInbound permits have no policy.
    let policy = session.policy.as_deref().unwrap_or("self");
    let left = words::duration(std::time::Duration::from_secs_f64(
        session.expires_in_seconds.max(0.0),
    ));
    let rules: Vec<&str> = [&session.destination_rule, &session.nat_rule]
        .into_iter()
        .filter_map(|rule| rule.as_deref())
        .collect();
    let nat = if rules.is_empty() {
        String::new()
    } else {
        format!(", NAT: {}", rules.join(" and "))
    };
    format!(
        "Session ID: {}, Policy: {policy}, Timeout: {left}, State: {}{nat}\n  In: {}\n  Out: {}\n\n",
        session.id,
        session.state,
        direction(&session.original, &session.protocol),
        direction(&session.reply, &session.protocol),
    )
}

fn direction(direction: &Direction, protocol: &str) -> String {
    let end = |address: IpAddr, port: u16| format!("{address}/{port}");
    format!(
        "{} --> {};{protocol}, If: {}, Pkts: {}, Bytes: {}",
        end(direction.source_address, direction.source_port),
        end(direction.destination_address, direction.destination_port),
        direction.interface,
        direction.packets,
        direction.bytes,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn translation_shows_in_the_out_line() {
        let sessions = fixture::reported_sessions();
        let total = sessions.len();
        let expected = "\
Session ID: 4711, Policy: out, Timeout: 2 h 3 m, State: established, NAT: hide-inside
  In: 10.10.2.10/43210 --> 203.0.113.80/443;tcp, If: net2, Pkts: 12, Bytes: 1480
  Out: 203.0.113.80/443 --> 203.0.113.1/60001;tcp, If: net5, Pkts: 9, Bytes: 52310

Session ID: 4712, Policy: applications-to-databases, Timeout: 500 ms, State: one-way
  In: 2001:db8:10:2::10/40000 --> 2001:db8:10:4::20/53;udp, If: net2, Pkts: 1, Bytes: 94
  Out: 2001:db8:10:4::20/53 --> 2001:db8:10:2::10/40000;udp, If: net4, Pkts: 0, Bytes: 0

Session ID: 4713, Policy: out, Timeout: 1 m, State: icmp, NAT: hide-inside
  In: 10.10.2.10/77 --> 203.0.113.80/77;icmp, If: net2, Pkts: 1, Bytes: 98
  Out: 203.0.113.80/77 --> 203.0.113.1/77;icmp, If: net5, Pkts: 1, Bytes: 98

Total sessions: 3
";
        assert_eq!(super::sessions(&Sessions { sessions, total }), expected);
    }

    #[test]
    fn what_is_left_out_is_said() {
        let report = Sessions {
            sessions: vec![],
            total: 12,
        };
        assert_eq!(
            super::sessions(&report),
            "Total sessions: 12 (0 shown; --limit shows more)\n"
        );
    }

    #[test]
    fn the_firewalls_own_sessions_have_no_policy() {
        let mut session = fixture::reported_sessions().remove(0);
        session.policy = None;
        let report = Sessions {
            sessions: vec![session],
            total: 1,
        };
        assert!(super::sessions(&report).starts_with("Session ID: 4711, Policy: self, "));
    }
}
