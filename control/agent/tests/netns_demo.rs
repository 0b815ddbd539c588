//! `bulkhead demo` as its user meets it: a process, its exit status, what it prints and what it leaves behind, which is
//! nothing. Needs root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use bulkhead_testkit::privileged;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// How long a demo may take, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(60);

/// A demo that is running. Killed on drop, should a test fail in its middle; the next demo sweeps the rest.
struct Demo(Option<Child>);

impl Demo {
    fn start(arguments: &[&str]) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_bulkhead"))
            .arg("demo")
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        Self(Some(child))
    }

    fn process(&self) -> u32 {
        self.0.as_ref().expect("not waited for yet").id()
    }

    fn send(&self, signal: Signal) {
        kill(pid(self.process()), signal).expect("the demo runs");
    }

    fn wait(mut self) -> Output {
        let child = self.0.take().expect("not waited for yet");
        child.wait_with_output().expect("the demo ends")
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _gone_already = child.kill();
            let _status = child.wait();
        }
    }
}

fn pid(process: u32) -> Pid {
    Pid::from_raw(i32::try_from(process).expect("a process id"))
}

fn directory(process: u32) -> PathBuf {
    Path::new("/run").join(format!("bulkhead-demo-{process}"))
}

/// Namespaces, directory and firewall of the demo with this process.
fn remains(process: u32) -> Vec<String> {
    let mut remains = Vec::new();
    let names = fs::read_dir("/run/netns").into_iter().flatten();
    let middle = format!("-{process}-");
    remains.extend(
        names
            .map(|entry| {
                entry
                    .expect("readable")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .filter(|name| name.starts_with("bulkhead-demo-") && name.contains(&middle)),
    );
    let directory = directory(process);
    let socket = directory.join("bulkhead.sock");
    for entry in fs::read_dir("/proc").expect("readable").flatten() {
        let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&arguments).contains(&*socket.to_string_lossy()) {
            remains.push(format!("process {}", entry.file_name().to_string_lossy()));
        }
    }
    if directory.exists() {
        remains.push(directory.display().to_string());
    }
    remains
}

fn wait_until(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !happened() {
        assert!(
            Instant::now() < deadline,
            "{what}: not within {} s",
            PATIENCE.as_secs()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn wait_for_firewall(demo: &Demo) {
    let socket = directory(demo.process()).join("bulkhead.sock");
    wait_until("the firewall listens", || socket.exists());
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn netns_demo_matrix_is_as_the_policy_says() {
    if !privileged() {
        return;
    }
    let demo = Demo::start(&["--json"]);
    let process = demo.process();
    let output = demo.wait();
    let report = report(&output);
    let conversations = report["conversations"].as_array().expect("a list");
    let faults: Vec<_> = conversations
        .iter()
        .filter(|cell| cell["faults"] != serde_json::json!([]))
        .collect();
    assert!(faults.is_empty(), "{faults:#?}");
    assert_eq!(report["session_faults"], serde_json::json!([]));
    assert_eq!(
        (report["ok"].as_bool(), output.status.code()),
        (Some(true), Some(0))
    );
    assert_eq!(conversations.len(), 160);
    let reached = conversations.iter().filter(|cell| cell["outcome"] == "reached");
    assert_eq!(reached.count(), 34);
    assert_eq!(remains(process), [] as [String; 0]);
}

#[test]
fn netns_demo_leaves_nothing_when_interrupted() {
    if !privileged() {
        return;
    }
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let demo = Demo::start(&[]);
        let process = demo.process();
        wait_for_firewall(&demo);
        demo.send(signal);
        let output = demo.wait();
        assert_eq!(output.status.code(), Some(128 + signal as i32), "{signal}");
        assert_eq!(remains(process), [] as [String; 0], "{signal}");
    }
}

#[test]
fn netns_demo_sweeps_what_a_killed_one_left() {
    if !privileged() {
        return;
    }
    let killed = Demo::start(&[]);
    let process = killed.process();
    wait_for_firewall(&killed);
    drop(killed);
    let next = Demo::start(&[]);
    let next_process = next.process();
    wait_until("the next demo sweeps", || remains(process).is_empty());
    next.send(Signal::SIGINT);
    next.wait();
    assert_eq!(remains(next_process), [] as [String; 0]);
}

#[test]
fn netns_demo_stays_up_when_kept_until_told_to_go() {
    if !privileged() {
        return;
    }
    let output = Demo::start(&["--keep", "--json"]).wait();
    let report = report(&output);
    assert_eq!(output.status.code(), Some(0));
    let keeper = report["kept"]["keeper_process"].as_u64().expect("a process id");
    let keeper = u32::try_from(keeper).expect("a process id");
    let web = report["segments"][2]["namespace"].as_str().expect("a name");
    assert!(remains(keeper).iter().any(|name| name == web), "{web} is gone");
    let socket = report["kept"]["socket"].as_str().expect("a path");
    let shown = Command::new(env!("CARGO_BIN_EXE_bulkhead"))
        .args(["show", "policies", "-o", "json", "--socket", socket])
        .output()
        .expect("the binary starts");
    assert!(
        shown.status.success(),
        "{}",
        String::from_utf8_lossy(&shown.stderr)
    );
    kill(pid(keeper), Signal::SIGTERM).expect("the keeper runs");
    wait_until("the keeper cleans up", || remains(keeper).is_empty());
}
