//! Probes and metrics of a real daemon: what makes it not ready, and that asking leaves no trace.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use bulkhead_dataplane::link::{Hook, Link, has_tcx};
use bulkhead_dataplane::netlink::VethSpec;
use bulkhead_testkit::{Bpffs, Namespace, TcpServer, Tool, Topology, privileged};

use crate::daemon::{DEADLINE, Daemon, Launch};
use crate::{CONFIGURATION, PORT, connect, topology};

/// Where these tests have probes served, in the firewall's namespace.
pub const LOOPBACK: &str = "127.0.0.1:9360";

/// Status and body of an answer.
#[track_caller]
pub fn get(topology: &Topology, path: &str) -> (u16, String) {
    get_from(topology.firewall(), LOOPBACK, path)
}

/// The same, asked for from anywhere.
#[track_caller]
pub fn get_from(namespace: &Namespace, address: &str, path: &str) -> (u16, String) {
    let answer = namespace.run(|| {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    });
    let answer = answer.expect("an answer");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    (status.expect("a status"), body.to_owned())
}

/// Waits for an answer of /readyz, and returns it with the time that it took.
#[track_caller]
fn until_ready(topology: &Topology, ready: bool) -> (String, Duration) {
    let began = Instant::now();
    loop {
        let (status, text) = get(topology, "/readyz");
        if (status == 200) == ready {
            return (text, began.elapsed());
        }
        assert!(began.elapsed() < DEADLINE, "{text}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn netns_agent_is_not_ready_while_an_interface_is_gone() {
    if !privileged() {
        return;
    }
    let topology = topology("bhc-gone");
    let spec = VethSpec {
        name: "net9",
        peer_name: "net9-peer",
        ..VethSpec::default()
    };
    let mut netlink = topology.firewall().netlink().expect("netlink");
    let index = netlink.create_veth(&spec).expect("an interface");
    let configuration = CONFIGURATION.replace("name: net3", "name: net9");
    let daemon = Launch::new(&configuration)
        .arguments(&["--management", LOOPBACK])
        .start(&topology);
    let (text, _) = until_ready(&topology, true);
    assert_eq!(
        text,
        "[+]not-stopping ok\n[+]started ok\n[+]generation ok\n[+]interface/net1 ok\n[+]interface/net2 ok\n\
         [+]interface/net9 ok\n[+]self-test ok\nreadyz check passed\n"
    );
    netlink.delete_link(index).expect("no interface");
    let (text, took) = until_ready(&topology, false);
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(
        text.contains("[-]interface/net9: the interface does not exist\n"),
        "{text}"
    );
    assert!(text.contains("[-]self-test: not tried"), "{text}");
    assert_eq!(get(&topology, "/livez").0, 200, "it lives");
    netlink.create_veth(&spec).expect("an interface");
    until_ready(&topology, true);
    assert!(
        daemon.log().contains("interface is back and guarded"),
        "{}",
        daemon.log()
    );
}

#[test]
fn netns_agent_is_not_ready_while_a_program_is_off() {
    if !privileged() {
        return;
    }
    if !has_tcx() {
        println!("SKIPPED: needs TCX links, which can be taken off by force");
        return;
    }
    let topology = topology("bhc-off");
    let bpffs = Bpffs::mount().expect("a bpffs");
    let root = bpffs.path().join("bulkhead");
    let daemon = Launch::new(CONFIGURATION)
        .pins(&[root.to_str().expect("text")])
        .arguments(&["--management", LOOPBACK])
        .start(&topology);
    until_ready(&topology, true);
    let index = topology.host("server").firewall_index;
    let pin = root.join(format!("test/links/{index}_ingress"));
    // The daemon looks once a second too, and may be faster than the first question.
    let mut seen = String::new();
    for _ in 0..5 {
        let taken = topology
            .firewall()
            .run(|| Link::find(&pin, Hook::Ingress, index).and_then(Link::detach));
        taken.expect("a program that is off");
        let (status, text) = get(&topology, "/readyz");
        until_ready(&topology, true);
        if status == 503 {
            seen = text;
            break;
        }
    }
    assert!(
        seen.contains("[-]interface/net2: its ingress program is not attached\n"),
        "{seen:?}\n{}",
        daemon.log()
    );
}

/// Whoever asks, however often, changes no counter, no event and no session.
#[test]
fn netns_agent_probes_leave_no_trace() {
    if !privileged() {
        return;
    }
    let topology = topology("bhc-trace");
    let daemon = Launch::new(CONFIGURATION)
        .arguments(&["--management", LOOPBACK])
        .start(&topology);
    let count = |name: &str| counter(&daemon, name);
    let watched = [
        "ipv4_header_invalid",
        "host_inbound_deny",
        "default_deny",
        "to_host",
        "session_created",
    ];
    let before = watched.map(count);
    let mut rounds = 0;
    for _ in 0..50 {
        let (status, text) = get(&topology, "/readyz");
        assert_eq!(status, 200, "{text}");
        rounds += 1;
    }
    // Events take the way through a ring that is looked at every 20 ms.
    std::thread::sleep(Duration::from_millis(200));
    let after = watched.map(count);
    // Hosts ask for addresses of their own accord; they begin no conversation and send nothing malformed.
    assert_eq!(before, after, "{watched:?}");
    let flows = daemon.text(&["observe", "--last", "1000", "-o", "json"]);
    let own = flows
        .lines()
        .filter(|flow| flow.contains("233.252.0.77") || flow.contains("2001:db8::77"));
    assert_eq!(own.count(), 0, "{flows}");
    assert_eq!(daemon.json(&["show", "sessions"])["total"], 0);
    let (_, metrics) = get(&topology, "/metrics");
    let passed = sample(&metrics, "bulkhead_self_tests_total{result=\"passed\"}");
    assert!(passed >= f64::from(rounds), "{passed} of {rounds}");
    assert_eq!(
        sample(&metrics, "bulkhead_self_tests_total{result=\"failed\"}"),
        0.0
    );
}

/// A counter of the data plane by its name.
pub fn counter(daemon: &Daemon<'_>, name: &str) -> u64 {
    let counters = daemon.json(&["show", "counters", "--all"]);
    let counters = counters["counters"].as_array().expect("counters");
    let found = counters.iter().find(|counter| counter["name"] == name);
    found
        .and_then(|counter| counter["value"].as_u64())
        .expect("a counter")
}

/// A sample by its name and labels.
#[track_caller]
fn sample(metrics: &str, name: &str) -> f64 {
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .unwrap_or_else(|| panic!("{name} is not in\n{metrics}"));
    line.parse().expect("a number")
}

/// What is scraped is what is documented, as the parser of the format's own project reads it.
#[test]
fn netns_agent_metrics_are_openmetrics_and_as_documented() {
    /// Debian's own, which has Debian's modules.
    const PYTHON: &str = "/usr/bin/python3";
    const SCRIPT: &str = "\
import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
for family in text_string_to_metric_families(sys.stdin.read()):
    for sample in family.samples:
        print(family.name, family.type, sample.name, ','.join(sorted(sample.labels)))
";
    if !privileged() {
        return;
    }
    let topology = topology("bhc-metrics");
    let (inside, server, world) = (
        topology.host("inside"),
        topology.host("server"),
        topology.host("world"),
    );
    let servers: Vec<TcpServer> = [server, world]
        .into_iter()
        .map(|host| TcpServer::start(&host.namespace, host.v4_port(PORT)).expect("a server"))
        .collect();
    let configuration = CONFIGURATION
        .replace(
            "  nat: {",
            "  screens: [{ name: strict, tcp: { land: true } }]\n  nat: {\n    pools: [{ name: wide, addresses: [198.18.5.5] }],",
        )
        .replace("{ name: outside }]", "{ name: outside, screen: strict }]")
        .replace("translate: interface", "translate: pool, pool: wide");
    let daemon = Launch::new(&configuration)
        .arguments(&["--management", LOOPBACK])
        .start(&topology);
    let _held = connect(inside, servers[0].address());
    daemon.text(&["group", "add", "farm", "10.77.1.77"]);
    // Ageing has looked: sessions are those it saw.
    let deadline = Instant::now() + DEADLINE;
    let established = "bulkhead_sessions{family=\"ipv4\",state=\"established\"}";
    let metrics = loop {
        let (status, metrics) = get(&topology, "/metrics");
        assert_eq!(status, 200, "{metrics}");
        if sample(&metrics, established) == 1.0 {
            break metrics;
        }
        assert!(Instant::now() < deadline, "{metrics}");
        std::thread::sleep(Duration::from_millis(100));
    };
    assert_eq!(sample(&metrics, "bulkhead_ready"), 1.0);
    assert_eq!(
        sample(&metrics, "bulkhead_policy_hits_total{policy=\"use-servers\"}"),
        1.0
    );
    assert_eq!(
        sample(&metrics, "bulkhead_interface_attached{interface=\"net1\"}"),
        1.0
    );
    assert!(
        sample(
            &metrics,
            "bulkhead_interface_received_packets_total{interface=\"net1\"}"
        ) > 0.0
    );
    assert!(sample(&metrics, "bulkhead_daemon_resident_bytes") > 1e6);
    assert!(
        sample(
            &metrics,
            "bulkhead_packets_total{verdict=\"passed\",reason=\"session_created\"}"
        ) >= 1.0
    );
    assert!(!metrics.contains(&inside.v4.to_string()), "no address is a label");

    if !Path::new(PYTHON).exists() {
        println!("SKIPPED: what is told could not be parsed: needs {PYTHON} with python3-prometheus-client");
        return;
    }
    let parsed = Tool::new(PYTHON)
        .args(["-c", SCRIPT])
        .input(&metrics)
        .run(&inside.namespace)
        .expect("python3 with python3-prometheus-client (`cargo xtask setup`)");
    assert_eq!(parsed.code, Some(0), "{}\n{metrics}", parsed.stderr);
    let documented: BTreeSet<(String, String, String)> = include_str!("../../../../deploy/docs/metrics.md")
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `bulkhead_")?.split(" | ");
            let name = format!("bulkhead_{}", cells.next()?.trim_end_matches('`'));
            let kind = cells.next()?.to_owned();
            let mut labels: Vec<&str> = cells
                .next()?
                .split(", ")
                .map(|label| label.trim_matches('`'))
                .collect();
            labels.sort_unstable();
            Some((name, kind, labels.join(",")))
        })
        .collect();
    let scraped: BTreeSet<(String, String, String)> = parsed
        .stdout
        .lines()
        .map(|line| {
            let mut words = line.split(' ').skip(1).map(str::to_owned);
            let mut next = || words.next().unwrap_or_default();
            let kind = next();
            (next(), kind, next())
        })
        .collect();
    // Ages are known of lists and names alone, and this configuration has none.
    let absent = |(name, ..): &&(String, String, String)| name == "bulkhead_group_source_age_seconds";
    let missing: Vec<_> = documented
        .difference(&scraped)
        .filter(|metric| !absent(metric))
        .collect();
    let undocumented: Vec<_> = scraped.difference(&documented).collect();
    assert!(
        missing.is_empty() && undocumented.is_empty(),
        "missing {missing:?}, undocumented {undocumented:?}"
    );
}
