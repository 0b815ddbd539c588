//! The built binary as a user calls it, as far as that takes neither privileges nor a daemon.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/examples");

fn bulkhead(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bulkhead"))
        .args(arguments)
        .output()
        .expect("the binary runs")
}

fn status(output: &Output) -> i32 {
    output.status.code().expect("it ended by itself")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

fn file(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, text).expect("a file");
    path
}

const WRONG: &str = "\
apiVersion: bulkhead.dev/v1alpha1
kind: Firewall
metadata: { name: wrong }
spec:
  zones: [{ name: web }, { name: app }]
  interfaces: [{ name: net1, zone: web }, { name: net2, zone: app }]
  addresses: [{ name: finance, members: [10.4.0.0/33] }]
  policies:
    - { name: one, from: web, to: app, source: finanze, action: permit, colour: red }
";

#[test]
fn examples_are_sound() {
    let mut examples: Vec<String> = std::fs::read_dir(EXAMPLES)
        .expect("examples")
        .map(|entry| entry.expect("an entry").path().display().to_string())
        .filter(|path| path.ends_with(".yaml"))
        .collect();
    examples.sort();
    assert!(examples.len() >= 2, "{examples:?}");
    let mut arguments = vec!["check"];
    arguments.extend(examples.iter().map(String::as_str));
    let output = bulkhead(&arguments);
    assert_eq!((status(&output), stderr(&output).as_str()), (0, ""));
    let lines = stdout(&output);
    assert_eq!(lines.lines().count(), examples.len(), "{lines}");
    assert!(
        lines.contains(
            "four-segments.yaml: ok (groups: 2, interfaces: 5, policies: 6, services: 2, source_nat: 1, zones: 5)"
        ),
        "{lines}"
    );
}

#[test]
fn check_shows_every_fault_with_its_place() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = file(directory.path(), "firewall.yaml", WRONG);
    let output = bulkhead(&["check", path.to_str().expect("text")]);
    assert_eq!((status(&output), stdout(&output).as_str()), (2, ""));
    let text = stderr(&output);
    for part in [
        "firewall.yaml:7:42",
        "firewall.yaml:9:48",
        "did you mean \"finance\"?",
        "colour",
        "  |",
        "^",
        "refused, nothing was changed",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn check_tells_programs_the_same() {
    let directory = tempfile::tempdir().expect("a directory");
    let wrong = file(directory.path(), "wrong.yaml", WRONG);
    let absent = directory.path().join("absent.yaml");
    let sound = format!("{EXAMPLES}/minimal.yaml");
    let output = bulkhead(&[
        "check",
        "-o",
        "json",
        wrong.to_str().expect("text"),
        absent.to_str().expect("text"),
        &sound,
    ]);
    assert_eq!((status(&output), stderr(&output).as_str()), (2, ""));
    let report: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    assert_eq!(report["ok"], false);
    let verdicts: Vec<_> = report["files"]
        .as_array()
        .expect("files")
        .iter()
        .map(|file| &file["ok"])
        .collect();
    assert_eq!(verdicts, [false, false, true]);
    let findings = report["files"][0]["diagnostics"].as_array().expect("findings");
    assert!(findings.len() >= 3, "{findings:?}");
    let finding = findings
        .iter()
        .find(|finding| finding["line"] == 7)
        .expect("a finding on line 7");
    assert_eq!(
        (&finding["severity"], &finding["column"]),
        (&"error".into(), &42.into())
    );
    assert_eq!(finding["path"], "spec.addresses[0].members[0]");
    assert!(
        report["files"][1]["diagnostics"][0]["message"]
            .as_str()
            .is_some_and(|text| text.contains("No such file"))
    );
    assert_eq!(report["files"][2]["defines"]["policies"], 1);
}

#[test]
fn check_can_compare_with_the_machine() {
    let example = format!("{EXAMPLES}/minimal.yaml");
    assert_eq!(
        status(&bulkhead(&["check", &example])),
        0,
        "without being asked it compares with nothing"
    );
    let directory = tempfile::tempdir().expect("a directory");
    let text = std::fs::read_to_string(&example)
        .expect("an example")
        .replace("net1", "bhk-absent0");
    let path = file(directory.path(), "absent.yaml", &text);
    let output = bulkhead(&["check", "--interfaces", path.to_str().expect("text")]);
    assert_eq!(status(&output), 2);
    assert!(
        stderr(&output).contains("interface \"bhk-absent0\" does not exist on this machine"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn run_refuses_before_it_touches_anything() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("run/bulkhead.sock");
    let run = |config: &Path, more: &[&str]| {
        let mut arguments = vec![
            "run",
            "--config",
            config.to_str().expect("text"),
            "--socket",
            socket.to_str().expect("text"),
            "--pins",
            "none",
        ];
        arguments.extend(more);
        bulkhead(&arguments)
    };
    let wrong = file(directory.path(), "wrong.yaml", WRONG);
    let output = run(&wrong, &[]);
    assert_eq!(status(&output), 2);
    assert!(stderr(&output).contains("wrong.yaml:7:42"), "{}", stderr(&output));

    let text = std::fs::read_to_string(format!("{EXAMPLES}/minimal.yaml"))
        .expect("an example")
        .replace("net1", "bhk-absent0");
    let absent = file(directory.path(), "absent.yaml", &text);
    let output = run(&absent, &["--log-format", "json"]);
    assert_eq!(status(&output), 2);
    let text = stderr(&output);
    let refusals: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("a log of JSON alone"))
        .collect();
    let refusal = &refusals[0];
    assert_eq!(
        (&refusal["message"], &refusal["level"]),
        (&"configuration refused".into(), &"ERROR".into())
    );
    assert!(
        refusal["problem"]
            .as_str()
            .is_some_and(|text| text.contains("bhk-absent0")),
        "{refusal}"
    );
    assert!(
        refusal["line"].is_u64() && refusal["column"].is_u64(),
        "{refusal}"
    );
    assert!(
        !socket.exists() && !socket.parent().expect("a directory").exists(),
        "nothing was made"
    );
}

#[test]
fn the_schema_is_a_schema() {
    let output = bulkhead(&["schema"]);
    assert_eq!(status(&output), 0);
    let schema: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    assert_eq!(schema["title"], "Bulkhead firewall configuration");
    assert!(schema["$schema"].is_string());
}

#[test]
fn without_a_daemon_every_command_says_what_to_do() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("nobody.sock");
    let socket = socket.to_str().expect("text");
    for command in [
        &["show", "sessions"][..],
        &["clear", "sessions", "--all"],
        &[
            "explain", "--from", "web", "--src", "10.0.0.1", "--dst", "10.0.0.2", "--tcp", "443",
        ],
        &["observe"],
        &["confirm"],
        &["rollback"],
        &["history"],
        &["diff"],
        &["show", "config"],
        &["show", "counters", "--memory"],
    ] {
        let output = bulkhead(&[command, &["--socket", socket]].concat());
        assert_eq!(
            (status(&output), stderr(&output).lines().count()),
            (1, 1),
            "{command:?}: {}",
            stderr(&output)
        );
        let text = stderr(&output);
        assert!(
            text.contains(socket) && text.contains("bulkhead run --config"),
            "{text}"
        );
    }
}

#[test]
fn bad_usage_is_status_2() {
    for arguments in [
        &[][..],
        &["show"],
        &["show", "everything"],
        &["check"],
        &["show", "sessions", "--protocol", "tpc"],
        &["show", "sessions", "--source", "10.0.0.0/33"],
        &["show", "sessions", "--limit", "100001"],
        &[
            "explain", "--from", "web", "--src", "10.0.0.1", "--dst", "10.0.0.2",
        ],
        &["run"],
        &["commit"],
        &["commit", "firewall.yaml", "--confirm", "5"],
        &["commit", "firewall.yaml", "--confirm", "0s"],
        &["commit", "firewall.yaml", "--confirm", "8d"],
        &["rollback", "last"],
        &["show", "counters", "--memory", "--all"],
        &["run", "--config", "firewall.yaml", "--revisions", "1"],
    ] {
        let output = bulkhead(arguments);
        assert_eq!(status(&output), 2, "{arguments:?}: {}", stderr(&output));
        assert!(!output.stderr.is_empty());
    }
    let output = bulkhead(&["--version"]);
    assert_eq!(
        (status(&output), stdout(&output)),
        (0, format!("bulkhead {}\n", env!("CARGO_PKG_VERSION")))
    );
}

#[test]
fn two_files_are_compared_without_a_daemon() {
    let directory = tempfile::tempdir().expect("a directory");
    let old = std::fs::read_to_string(format!("{EXAMPLES}/minimal.yaml")).expect("an example");
    let new = old.replace("action: permit", "action: reject");
    let old = file(directory.path(), "41", &old);
    let new = file(directory.path(), "new.yaml", &new);
    let (old, new) = (old.to_str().expect("text"), new.to_str().expect("text"));
    let text = stdout(&bulkhead(&["diff", old, new]));
    assert!(
        text.starts_with("~ policy inside-out: action permit -> reject\n")
            && text.contains("\n+    - { name: inside-out"),
        "{text}"
    );
    let report: Value =
        serde_json::from_str(&stdout(&bulkhead(&["diff", old, new, "-o", "json"]))).expect("JSON");
    assert_eq!(
        (
            &report["differences"][0]["change"],
            &report["differences"][0]["fields"][0]["new"]
        ),
        (&"changed".into(), &"reject".into())
    );
    // A number is a revision, and for that a daemon is needed.
    let nobody = directory.path().join("nobody.sock");
    let nobody = nobody.to_str().expect("text");
    let output = bulkhead(&["diff", "41", new, "--socket", nobody]);
    assert!(
        stderr(&output).contains("no daemon answers"),
        "{}",
        stderr(&output)
    );
    // A side that is wrong is shown, not compared.
    let wrong = file(directory.path(), "wrong.yaml", WRONG);
    let output = bulkhead(&["diff", old, wrong.to_str().expect("text")]);
    assert_eq!(status(&output), 2);
    assert!(stderr(&output).contains("wrong.yaml:7:42"), "{}", stderr(&output));
}

#[test]
fn a_commit_without_a_daemon_commits_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("nobody.sock");
    let example = format!("{EXAMPLES}/minimal.yaml");
    let output = bulkhead(&["commit", &example, "--socket", socket.to_str().expect("text")]);
    let text = stderr(&output);
    assert_eq!(status(&output), 1);
    assert!(
        text.contains("nothing was committed") && text.contains("bulkhead run --config"),
        "{text}"
    );
    let absent = directory.path().join("absent.yaml");
    let output = bulkhead(&["commit", absent.to_str().expect("text")]);
    assert_eq!(status(&output), 2);
    assert!(stderr(&output).contains("cannot read"), "{}", stderr(&output));
}

#[test]
fn doctor_needs_no_daemon() {
    let output = bulkhead(&["doctor", "-o", "json"]);
    let report: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    let ok = report["ok"].as_bool().expect("a verdict");
    assert_eq!(status(&output), i32::from(!ok));
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
    assert_eq!(report["kernel"], kernel.trim());
    let failed = report["checks"]
        .as_array()
        .expect("checks")
        .iter()
        .any(|check| check["status"] == "fail");
    assert_eq!(ok, !failed, "{report}");

    let directory = tempfile::tempdir().expect("a directory");
    let text = std::fs::read_to_string(format!("{EXAMPLES}/minimal.yaml"))
        .expect("an example")
        .replace("net1", "bhk-absent0");
    let path = file(directory.path(), "absent.yaml", &text);
    let output = bulkhead(&["doctor", "--config", path.to_str().expect("text")]);
    assert_eq!(status(&output), 1);
    assert!(
        stdout(&output).contains("FAIL  bhk-absent0"),
        "{}",
        stdout(&output)
    );
}

#[test]
fn yaml_and_json_of_doctor_say_the_same() {
    let json: Value = serde_json::from_str(&stdout(&bulkhead(&["doctor", "-o", "json"]))).expect("JSON");
    let yaml = stdout(&bulkhead(&["doctor", "-o", "yaml"]));
    let kernel = json["kernel"].as_str().expect("a release");
    assert!(
        yaml.contains(&format!("kernel: {kernel}")) || yaml.contains(&format!("kernel: \"{kernel}\"")),
        "{yaml}"
    );
    let checks = json["checks"].as_array().expect("checks").len();
    assert_eq!(yaml.matches("- name: ").count(), checks, "{yaml}");
}

/// `bulkhead run` with only these variables of the launch contract.
fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bulkhead"))
        .arg("run")
        .args(arguments)
        .envs(variables.iter().copied())
        .output()
        .expect("the binary runs")
}

#[test]
fn the_contract_is_printed_with_where_each_value_came_from() {
    let file = format!("{EXAMPLES}/four-segments.yaml");
    let variables = [
        ("BULKHEAD_CONFIG", file.as_str()),
        ("BULKHEAD_SIZE", "large"),
        ("CSRX_PORT_NUM", "6"),
        ("CSRX_HUGEPAGES", "1"),
    ];
    let arguments = ["--print-contract", "--drain", "20s", "--size", "small"];
    let output = run(&[&arguments[..], &["-o", "json"]].concat(), &variables);
    assert_eq!((status(&output), stderr(&output).as_str()), (0, ""));
    let contract: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    let line = |setting: &str| {
        let lines = contract["settings"].as_array().expect("settings");
        let found = lines.iter().find(|line| line["setting"] == setting);
        let line = found.unwrap_or_else(|| panic!("{setting} is not in {contract}"));
        (line["value"].clone(), line["origin"].clone())
    };
    let origin = |kind: &str, name: &str| serde_json::json!({ "kind": kind, "name": name });
    assert_eq!(
        line("config"),
        (file.as_str().into(), origin("environment", "BULKHEAD_CONFIG"))
    );
    assert_eq!(line("size"), ("small".into(), origin("command_line", "--size")));
    assert_eq!(line("ports"), ("5".into(), origin("alias", "CSRX_PORT_NUM")));
    assert_eq!(line("drain"), ("20s".into(), origin("command_line", "--drain")));
    assert_eq!(
        line("on-missing"),
        ("stop".into(), serde_json::json!({ "kind": "default" }))
    );
    let warnings = contract["warnings"].to_string();
    assert!(
        warnings.contains("CSRX_HUGEPAGES means nothing here"),
        "{warnings}"
    );
    let interfaces = contract["interfaces"].as_array().expect("interfaces");
    assert!(
        interfaces.len() == 5 && interfaces.iter().all(|part| part["role"] == "data"),
        "{contract}"
    );

    let table = run(&arguments, &variables);
    assert_eq!(status(&table), 0, "{}", stderr(&table));
    let text = stdout(&table);
    for words in [
        &["size", "small", "--size"][..],
        &["ports", "5", "CSRX_PORT_NUM"],
        &["state", "-", "default"],
    ] {
        let found = text
            .lines()
            .any(|line| line.split_whitespace().take(3).eq(words.iter().copied()));
        assert!(found, "{words:?}\n{text}");
    }
    let yaml = run(&[&arguments[..], &["-o", "yaml"]].concat(), &variables);
    assert!(stdout(&yaml).contains("setting: config\n"), "{}", stdout(&yaml));
}

/// A document with interfaces that are not there.
const ABSENT: &str = "apiVersion: bulkhead.dev/v1alpha1\nkind: Firewall\nmetadata: { name: x }\nspec:\n  \
                      zones: [{ name: a }, { name: b }]\n  \
                      interfaces: [{ name: bhk-absent0, zone: a }, { name: bhk-absent1, zone: b }]\n";
/// What makes a wire of it.
const SPLICED: &str = "  wires: [{ name: w, interfaces: [bhk-absent0, bhk-absent1] }]\n";

/// The contract of these arguments.
fn contract(arguments: &[&str]) -> Value {
    let output = run(&[&["--print-contract", "-o", "json"], arguments].concat(), &[]);
    assert_eq!(status(&output), 0, "{}", stderr(&output));
    serde_json::from_str(&stdout(&output)).expect("JSON")
}

/// Its line for a setting.
fn setting_of(contract: &Value, setting: &str) -> Value {
    let lines = contract["settings"].as_array().expect("settings");
    let line = lines.iter().find(|line| line["setting"] == setting);
    line.unwrap_or_else(|| panic!("{setting} is not in {contract}"))
        .clone()
}

#[test]
fn what_the_document_says_is_in_the_contract_and_what_wins_over_it_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = file(
        directory.path(),
        "small.yaml",
        "apiVersion: bulkhead.dev/v1alpha1\nkind: Firewall\nmetadata: { name: x }\nspec:\n  size: small\n  \
         zones: [{ name: a }]\n  interfaces: [{ name: bhk-absent0, zone: a, addresses: [10.0.0.1/24] }]\n",
    );
    let config = path.to_str().expect("text");
    let print = |arguments: &[&str]| {
        let output = run(
            &[&["--print-contract", "-o", "json", "--config", config], arguments].concat(),
            &[],
        );
        assert_eq!(status(&output), 0, "{}", stderr(&output));
        serde_json::from_str::<Value>(&stdout(&output)).expect("JSON")
    };
    let size = |contract: &Value| {
        let lines = contract["settings"].as_array().expect("settings");
        lines.iter().find(|line| line["setting"] == "size").cloned()
    };
    let as_written = size(&print(&[])).expect("a line");
    assert_eq!(
        (&as_written["value"], &as_written["origin"]["name"]),
        (&"small".into(), &config.into())
    );
    let contract = print(&["--size", "large"]);
    let overridden = size(&contract).expect("a line");
    assert_eq!(overridden["value"], "large");
    assert_eq!(overridden["overrides"], format!("small in {config}"));
    assert!(
        contract["warnings"]
            .to_string()
            .contains("small.yaml:5:9: warning: size is small in this document, but large"),
        "{contract}"
    );
    assert_eq!(contract["interfaces"][0]["present"], false);
}

/// A default that is written is the document's all the same, and what wins over it is told.
#[test]
fn a_default_that_the_document_says_is_the_documents() {
    let directory = tempfile::tempdir().expect("a directory");
    let text = format!("{ABSENT}  forwarding: routed\n  size: medium\n");
    let path = file(directory.path(), "routed.yaml", &text);
    let config = path.to_str().expect("text");
    let plain = contract(&["--config", config]);
    for (setting, value) in [("forwarding", "routed"), ("size", "medium")] {
        let line = setting_of(&plain, setting);
        assert_eq!(
            (&line["value"], &line["origin"]),
            (&value.into(), &json!({ "kind": "file", "name": config })),
            "{line}"
        );
    }
    // What is not written is nobody's word.
    for (name, written, overrides) in [
        ("said.yaml", "  forwarding: routed\n", "routed in "),
        ("bare.yaml", "", ""),
    ] {
        let path = file(directory.path(), name, &format!("{ABSENT}{SPLICED}{written}"));
        let config = path.to_str().expect("text");
        let wired = contract(&["--config", config, "--forwarding", "wire"]);
        let line = setting_of(&wired, "forwarding");
        let overrides = match overrides {
            "" => Value::Null,
            overrides => format!("{overrides}{config}").into(),
        };
        assert_eq!(
            (&line["value"], &line["overrides"]),
            (&"wire".into(), &overrides),
            "{line}"
        );
    }
}

/// Without a file it is the revision that was accepted last; the API is not asked, and that is said.
#[test]
fn without_a_file_the_contract_is_the_last_revisions() {
    let state = tempfile::tempdir().expect("a directory");
    let named = state.path().to_str().expect("text");
    let revisions = state.path().join("revisions");
    let warnings = |contract: &Value| contract["warnings"].to_string();

    let nothing = contract(&["--config-map", "edge/policy", "--state", named]);
    assert!(
        warnings(&nothing).contains(&format!(
            "configmap edge/policy is not looked at here, only what was accepted from there before; there is no revision in {}",
            revisions.display()
        )),
        "{nothing}"
    );
    assert!(!revisions.exists(), "asking makes nothing");
    let nothing = contract(&["--state", named]);
    assert!(
        warnings(&nothing).contains("there is no revision in"),
        "{nothing}"
    );

    // What the daemon's own file said when it was last taken; other documents were committed since.
    let taken = format!("{ABSENT}  size: medium\n");
    let draft = |file: &str| bulkhead_revisions::Draft {
        time_ms: 1,
        author: "somebody".to_owned(),
        user: "root".to_owned(),
        comment: String::new(),
        source: bulkhead_revisions::Source::ConfigMap,
        file: file.to_owned(),
        repeats: None,
        taken: Some(bulkhead_revisions::digest(taken.as_bytes())),
        confirm_within_ms: None,
    };
    let disk = bulkhead_revisions::Directory::open(&revisions).expect("a directory");
    let (mut store, _) = bulkhead_revisions::Store::open(disk, 50).expect("a store");
    let mut accept = |text: &str| {
        let prepared = store.prepare(draft("policy/firewall.yaml"), text.as_bytes());
        store.publish(prepared.expect("a draft")).expect("a revision");
    };
    accept(ABSENT);
    accept(&format!("{ABSENT}  forwarding: routed\n  size: small\n"));
    // The daemon that keeps them may be running: `store` has the lock.
    let origin = json!({ "kind": "revision", "name": format!("revision 2 in {}", revisions.display()) });
    for source in [
        &["--config-map", "edge/policy"][..],
        &["--firewall-resource", "edge/policy"],
        &[],
    ] {
        let shown = contract(&[source, &["--state", named]].concat());
        for (setting, value) in [("forwarding", "routed"), ("size", "small"), ("ports", "2")] {
            let line = setting_of(&shown, setting);
            assert_eq!(
                (&line["value"], &line["origin"]),
                (&value.into(), &origin),
                "{line}"
            );
        }
        let interfaces = shown["interfaces"].as_array().expect("interfaces");
        let names: Vec<&str> = interfaces
            .iter()
            .filter_map(|part| part["interface"].as_str())
            .collect();
        assert_eq!(names, ["bhk-absent0", "bhk-absent1"]);
        let unseen = warnings(&shown).contains("edge/policy is not looked at here");
        assert_eq!(unseen, !source.is_empty(), "{shown}");
    }
    // One that does not fit: a start from the API waits for another, one from nowhere else is refused.
    let misfit = ["--state", named, "--config-map", "edge/policy", "--ports", "5"];
    let misfit = contract(&misfit);
    assert!(
        warnings(&misfit).contains("does not fit these settings and would not be used"),
        "{misfit}"
    );
    let output = run(&["--print-contract", "--state", named, "--ports", "5"], &[]);
    assert_eq!(status(&output), 2, "{}", stderr(&output));
    assert!(
        stderr(&output).contains("2 data interfaces are named here, but 5 were asked for"),
        "{}",
        stderr(&output)
    );

    // A file counts until it was taken, and from then on what was committed since.
    let file = state.path().join("firewall.yaml");
    std::fs::write(&file, format!("{ABSENT}  size: large\n")).expect("a file");
    let path = file.to_str().expect("text");
    let named_too = || contract(&["--state", named, "--config", path]);
    assert_eq!(setting_of(&named_too(), "size")["value"], "large");
    std::fs::write(&file, &taken).expect("a file");
    let shown = named_too();
    let line = setting_of(&shown, "size");
    assert_eq!((&line["value"], &line["origin"]), (&"small".into(), &origin));
    assert!(
        warnings(&shown).contains("has not changed since it was taken"),
        "{shown}"
    );

    // What it says is overridden like a file's.
    accept(&format!("{ABSENT}{SPLICED}  forwarding: routed\n"));
    let wired = [
        "--state",
        named,
        "--config-map",
        "edge/policy",
        "--forwarding",
        "wire",
    ];
    let line = setting_of(&contract(&wired), "forwarding");
    assert_eq!(
        (&line["value"], &line["overrides"]),
        (
            &"wire".into(),
            &format!("routed in revision 3 in {}", revisions.display()).into()
        ),
        "{line}"
    );

    // One that is damaged is passed over.
    std::fs::write(revisions.join("00000003.revision"), "{}").expect("a file");
    let shown = contract(&["--state", named]);
    assert_eq!(setting_of(&shown, "ports")["origin"], origin);
}

#[test]
fn a_contract_that_would_be_refused_is_not_printed() {
    let output = run(&["--print-contract"], &[("BULKHEAD_CONFG", "x")]);
    assert_eq!(status(&output), 2);
    assert_eq!(stdout(&output), "");
    let text = stderr(&output);
    assert!(
        text.contains("BULKHEAD_CONFG is no setting; did you mean BULKHEAD_CONFIG?")
            && text.contains("there is no configuration")
            && text.ends_with("nothing was started; `bulkhead run --help` lists the settings\n"),
        "{text}"
    );
    // The document is part of it.
    let file = format!("{EXAMPLES}/four-segments.yaml");
    let output = run(&["--print-contract", "--config", &file, "--ports", "2"], &[]);
    assert_eq!(status(&output), 2);
    assert!(
        stderr(&output).contains("5 data interfaces are named here, but 2 were asked for"),
        "{}",
        stderr(&output)
    );
    // And only printing has a format.
    assert_eq!(status(&run(&["-o", "json", "--config", &file], &[])), 2);
}
