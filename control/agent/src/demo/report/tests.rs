use std::net::SocketAddr;

use super::super::conversations::Held;
use super::*;

/// Every conversation just as it is to be, except that `change` may have a say.
fn cells(change: impl Fn(&Conversation, &mut CameTo)) -> Vec<Cell> {
    Conversation::all()
        .into_iter()
        .map(|conversation| {
            let own = SocketAddr::new(conversation.from.host(conversation.family), 40_000);
            let seen_as = SocketAddr::new(conversation.expected_source(), 40_000);
            let (verdict, mut came_to) = match conversation.expected() {
                Fate::Reached => (
                    "permit",
                    CameTo::Reached {
                        seen_as: Some(seen_as),
                        own: Some(own),
                    },
                ),
                Fate::Silence => ("deny", CameTo::Silence),
                Fate::Refused => (
                    "reject",
                    CameTo::Refused {
                        with: "tcp reset".into(),
                    },
                ),
            };
            change(&conversation, &mut came_to);
            let translated = conversation.is_translated() && verdict == "permit";
            let said = Said {
                verdict: verdict.to_owned(),
                reason: "default_deny".to_owned(),
                policy: None,
                nat_rule: None,
                translated_source: translated.then(|| conversation.expected_source()),
            };
            let held = Held {
                came_to,
                elapsed_us: 1500,
            };
            Cell::new(conversation, held, said)
        })
        .collect()
}

pub(super) fn report(conversations: Vec<Cell>) -> Report {
    Report {
        ok: conversations.iter().all(|cell| cell.faults.is_empty()),
        firewall_started_in_ms: 120,
        elapsed_ms: 4_200,
        segments: Vec::new(),
        conversations,
        sessions: Sessions {
            sessions: Vec::new(),
            total: 0,
        },
        session_faults: Vec::new(),
        kept: None,
    }
}

#[test]
fn the_matrix_shows_who_reached_whom() {
    let text = matrix(&cells(|_, _| ()));
    let ipv4 = "
Who reached whom:

  IPv4 FROM     TO FINANCIAL  TO APPLICATIONS  TO WEB       TO DATA         TO INTERNET
  financial     -             ✓ http ping      ✓ http ping  ✗               ✓ http dns ping
  applications  ✗             -                ✓ http ping  ✓ sql dns ping  ✓ http dns ping
  web           ⊘             ⊘                -            ⊘               ⊘
  data          ✗             ✗                ✗            -               ✗
  internet      ✗             ✗                ✓ http ping  ✗               -
";
    assert!(text.starts_with(ipv4), "{text}");
    assert_eq!(text.matches("IPv6 FROM").count(), 1);
}

#[test]
fn wrong_cells_are_marked_and_named() {
    let cells = cells(|conversation, came_to| {
        let pair = (conversation.from, conversation.to, conversation.protocol);
        match (conversation.family, pair) {
            (Family::V6, (Segment::Data, Segment::Financial, Protocol::Sql)) => {
                *came_to = CameTo::Reached {
                    seen_as: None,
                    own: None,
                };
            }
            (Family::V4, (Segment::Internet, Segment::Web, Protocol::Http)) => *came_to = CameTo::Silence,
            (Family::V4, (Segment::Web, Segment::Data, Protocol::Ping)) => *came_to = CameTo::Silence,
            _ => {}
        }
    });
    let text = matrix(&cells);
    for line in [
        "  data          ✓ sql!        ✗                ✗            -               ✗",
        "  internet      ✗             ✗                ✓ ping ✗ http!  ✗               -",
        "  web           ⊘             ⊘                -               ⊘ ✗ ping!       ⊘",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    let text = conclusion(&report(cells));
    for line in [
        "wrong: sql from data to financial over IPv6: came to an answer instead of silence",
        "wrong: http from internet to web over IPv4: came to silence instead of an answer",
        "3 of 160 conversations did not go as the policy says (4.2 s).",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
}

#[test]
fn a_lost_session_is_wrong_though_every_cell_is_right() {
    let mut report = report(cells(|_, _| ()));
    assert_eq!(
        conclusion(&report),
        "\nAll 160 conversations went as the policy says (4.2 s).\n"
    );
    report.ok = false;
    report.session_faults.push("one session is not there".to_owned());
    assert_eq!(
        conclusion(&report),
        "\nwrong: one session is not there\nAll 160 conversations went as the policy says, but the sessions are wrong \
         (4.2 s).\n"
    );
}

#[test]
fn explanations_join_what_was_said_alike_and_show_the_translation() {
    let text = explanations(&cells(|_, _| ()));
    let squeezed: Vec<_> = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    for line in [
        "financial internet http dns ping permit default_deny - 203.0.113.1, 2001:db8:ffff::1",
        "financial internet sql deny default_deny - -",
        "web data http sql dns ping reject default_deny - -",
        "internet web http ping permit default_deny - its own",
    ] {
        assert!(squeezed.iter().any(|found| found == line), "{line}\n{text}");
    }
}

#[test]
fn programs_find_each_conversation_flat() {
    let json = serde_json::to_value(report(cells(|_, _| ()))).expect("JSON");
    let first = &json["conversations"][0];
    assert_eq!(first["from"], "financial");
    assert_eq!(first["family"], "ipv4");
    assert_eq!(first["outcome"], "reached");
    assert_eq!(first["elapsed_us"], 1500);
    assert_eq!(first["firewall"]["verdict"], "permit");
    assert_eq!(first["faults"], serde_json::json!([]));
    assert!(json.get("kept").is_none());
}
