//! `deploy/docs/api.md`, held to what the daemon does: every request with every field, every code, and the examples.

use std::collections::BTreeSet;

use clap::Parser as _;
use serde_json::Value;

use super::*;
use crate::cli::Cli;
use crate::protocol::parse_request;

const API: &str = include_str!("../../../../../deploy/docs/api.md");

/// The lines of the block that begins with `fence`, behind `heading`.
fn block(heading: &str, fence: &str) -> Vec<&'static str> {
    let behind = API.split(heading).nth(1).expect("the heading");
    let block = behind.split(fence).nth(1).expect("the block");
    block
        .trim_start()
        .lines()
        .take_while(|line| *line != "```")
        .collect()
}

/// The first columns' words of the table behind `heading`, and its rows.
fn table(heading: &str) -> Vec<(&'static str, &'static str)> {
    let behind = API.split(heading).nth(1).expect("the heading");
    let rows = behind
        .lines()
        .skip_while(|line| !line.starts_with("|---"))
        .skip(1);
    rows.map_while(|row| {
        let name = row.strip_prefix("| `")?.split('`').next()?;
        Some((name, row))
    })
    .collect()
}

/// What serde expects in the place of an unknown word: every variant there is.
fn variants(error: &str) -> BTreeSet<&str> {
    let (_, expected) = error.split_once("expected one of").expect("the variants");
    expected.split('`').skip(1).step_by(2).collect()
}

#[test]
fn every_request_is_documented_with_every_field() {
    let error = parse_request(br#"{"version":1,"command":"?"}"#).expect_err("unknown");
    let known = variants(&error.message);
    assert!(known.len() > 15, "{known:?}");
    let mut documented = BTreeSet::new();
    for line in block("## Requests", "```json") {
        let command = parse_request(line.as_bytes()).unwrap_or_else(|error| panic!("{line}: {error}"));
        let mut request: Value = serde_json::from_str(line).expect("JSON");
        let fields = request.as_object_mut().expect("an object");
        fields.remove("version");
        // A field that the documentation lacks would be there with its default.
        assert_eq!(serde_json::to_value(&command).expect("JSON"), request, "{line}");
        documented.insert(request["command"].as_str().expect("a name").to_owned());
    }
    assert_eq!(
        documented.iter().map(String::as_str).collect::<BTreeSet<_>>(),
        known
    );
    let listed: BTreeSet<_> = table("| command | may be left out |")
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(listed, known);
}

/// What the table says is the same as on the command line is a command line.
#[test]
fn documented_command_lines_are_command_lines() {
    for (name, row) in table("| command | may be left out |") {
        let line = row.rsplit('`').nth(1).expect("a command line");
        let words = line.split(' ').chain(["-o", "json"]);
        Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{name}: {line}: {error}"));
    }
}

#[test]
fn every_code_is_documented() {
    let error = serde_json::from_str::<FailureCode>("\"?\"")
        .expect_err("unknown")
        .to_string();
    let documented: BTreeSet<_> = table("## Errors").into_iter().map(|(name, _)| name).collect();
    assert_eq!(documented, variants(&error));
}

#[test]
fn documented_limits_are_those_in_force() {
    let number = |number: usize| {
        let digits = number.to_string();
        let mut text = String::new();
        for (place, digit) in digits.chars().enumerate() {
            if place > 0 && (digits.len() - place).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        text
    };
    for row in [
        format!("| a request's line | {} bytes |", number(MAX_REQUEST_BYTES)),
        format!(
            "| a document | {} bytes |",
            number(bulkhead_config::MAX_DOCUMENT_BYTES)
        ),
        format!(
            "| comment, author | {} bytes each |",
            number(crate::protocol::MAX_COMMENT_BYTES)
        ),
        format!(
            "| sessions in one answer | {} unless `limit` says otherwise, {} at most |",
            number(crate::protocol::DEFAULT_SESSIONS),
            number(crate::protocol::MAX_SESSIONS)
        ),
        format!("| connections at a time | {} |", number(MAX_CONNECTIONS)),
        format!("does not read its answer | {} s,", connection::PATIENCE.as_secs()),
    ] {
        assert!(API.contains(&row), "{row}");
    }
}

/// What goes through the socket in the examples is sent as it stands there, and what comes back stands there.
#[test]
fn documented_examples_are_answered_as_documented() {
    let running = running();
    let converse = |request: &str| {
        let mut stream = UnixStream::connect(&running.path).expect("a connection");
        stream.write_all(request.as_bytes()).expect("a write");
        // As socat does when it has nothing more to send.
        stream.shutdown(Shutdown::Write).expect("a stream");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    };
    let quoted = |line: &'static str| line.split('\'').nth(1).expect("a request");
    let [command, answer] = block("# The local API", "```console")[..] else {
        panic!("a command and its answer");
    };
    assert_eq!(converse(&format!("{}\n", quoted(command))), format!("{answer}\n"));

    let [command, _, answer] = block("A commit from a shell", "```console")[..] else {
        panic!("a command of two lines and its answer");
    };
    let document = "kind: Firewall\nspec: {}\n";
    // As printf fills it in.
    let request = quoted(command)
        .replace("%d", &document.len().to_string())
        .replace("\\n", "\n");
    assert_eq!(converse(&format!("{request}{document}")), format!("{answer}\n"));
    let commits = running.fixture.commits.lock().expect("no panic");
    assert_eq!(commits[0].0, document.as_bytes());
}
