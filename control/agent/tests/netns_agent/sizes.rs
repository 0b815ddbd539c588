//! What a size makes of the tables, and what a running daemon says about another one.

use std::fs;

use bulkhead_testkit::privileged;
use serde_json::Value;

use crate::daemon::Daemon;
use crate::{CONFIGURATION, topology};

fn sized(size: &str, policies: usize) -> String {
    let rules: String = (0..policies)
        .map(|number| {
            format!(
                "    - {{ name: more{number}, from: any, to: any, source: 192.0.2.{number}, action: deny }}\n"
            )
        })
        .collect();
    CONFIGURATION
        .replace("spec:\n", &format!("spec:\n  size: {size}\n"))
        .replace("  policies:\n", &format!("  policies:\n{rules}"))
}

#[test]
fn netns_agent_tables_are_as_large_as_the_size_says_and_told_of() {
    if !privileged() {
        return;
    }
    let topology = topology("bhk-size");
    let daemon = Daemon::start_with(&topology, &sized("{ base: small, policies: 5 }", 0));
    let memory = daemon.json(&["show", "counters", "--memory"]);
    let tables = memory["tables"].as_array().expect("tables");
    let table = |name: &str| -> &Value {
        let found = tables.iter().find(|table| table["name"] == name);
        found.unwrap_or_else(|| panic!("{name} is not in {memory}"))
    };
    // Two entries for each of 4096 sessions; two generations of five policies and of a rule for each zone there may be; the
    // addresses of `small`.
    assert_eq!(table("FLOWS4")["capacity"], 8_192);
    assert_eq!(table("RULES")["capacity"], 2 * (5 + 256));
    assert_eq!(table("HOSTS4")["capacity"], 32_768);
    assert_eq!(table("RULES")["entries"], 3 + 1, "one zone may ping: {memory}");
    let number = |value: &Value| value.as_u64().expect("a number");
    let sum: u64 = tables.iter().map(|table| number(&table["bytes"])).sum();
    assert_eq!(number(&memory["tables_bytes"]), sum);
    assert!(sum > 1 << 20 && number(&memory["most_bytes"]) > sum, "{memory}");
    assert!(number(&memory["daemon_bytes"]) > 1 << 20);
    assert!(
        tables.is_sorted_by(|one, other| number(&one["bytes"]) >= number(&other["bytes"])),
        "{memory}"
    );
    let text = daemon.text(&["show", "counters", "--memory"]);
    assert!(text.contains("at most at this size"), "{text}");

    let commit = |text: &str| {
        let path = daemon.directory.path().join("next.yaml");
        fs::write(&path, text).expect("a file");
        daemon.command(&["commit", path.to_str().expect("text")])
    };
    // Another size that fits these tables is for the next start.
    let output = commit(&sized("medium", 2));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("take effect at the next start"),
        "{text}"
    );
    // More than these tables have room for, though its own size has.
    let output = commit(&sized("medium", 3));
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text.contains("6 policies do not fit the tables, which were made for 5")
            && text.contains("start the daemon again"),
        "{text}"
    );
    // More than its own size has room for.
    let output = commit(&sized("{ policies: 2 }", 0));
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text.contains("3 policies do not fit the size, which has room for 2")
            && text.contains("next.yaml:13:7"),
        "{text}"
    );
    assert_eq!(daemon.json(&["history"])["revisions"][0]["revision"], 2);
}
