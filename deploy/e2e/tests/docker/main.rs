//! The container image as users start it: Debian's Docker, the commands of `deploy/docker/README.md`, containers that talk
//! through the firewall.
//!
//! Each test has a Docker daemon of its own. The image is built by `cargo xtask test --tier docker`, twice, and must be the same both
//! times; `BULKHEAD_IMAGE` says where it is.

mod engine;
mod image;
mod lab;

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bulkhead_testkit::{Client, Namespace, Outcome, Stream, TcpServer, UdpServer, privileged};
use serde_json::Value;

use lab::{CLIENT, FIREWALL, GATEWAY, Lab, OUTSIDE, SERVER, connect, ip, ip_in, refused, status_of};

/// What the example permits, and what it does not.
const HTTP: u16 = 80;
const OTHER: u16 = 8_080;
const DNS: u16 = 53;

/// Servers on both ports and both addresses.
fn serve(host: &Namespace, addresses: [&str; 2]) -> Vec<TcpServer> {
    let sockets = addresses
        .into_iter()
        .flat_map(|address| [HTTP, OTHER].map(|port| SocketAddr::new(ip(address), port)));
    sockets
        .map(|socket| TcpServer::start(host, socket).unwrap_or_else(|error| panic!("{socket}: {error:#}")))
        .collect()
}

#[test]
fn e2e_docker_macvlan_permits_denies_and_translates_as_the_example_says() {
    if !privileged() {
        return;
    }
    let lab = Lab::macvlan();
    let [server, client] = lab.hosts();
    let _servers = (serve(&server, SERVER), serve(&client, CLIENT));
    let _names: Vec<UdpServer> = SERVER
        .map(|address| UdpServer::start(&server, (ip(address), DNS).into()).expect("a server"))
        .into();

    for family in 0..2 {
        let mut conversation = connect(&client, SERVER[family], HTTP);
        assert_eq!(
            conversation.seen_as().ip(),
            ip(OUTSIDE[family]),
            "hidden behind the firewall's address"
        );
        assert_eq!(conversation.local().ip(), ip(CLIENT[family]));
        let exchanged = conversation.exchange(1_000_000, 1_000_000).expect("a socket");
        exchanged
            .answered()
            .unwrap_or_else(|error| panic!("a megabyte each way: {error}"));

        let query = Client::new(&client)
            .dns_query((ip(SERVER[family]), DNS).into(), "example.org")
            .expect("a socket");
        assert!(query.is_answered(), "{}", query.describe());
        let ping = Client::new(&client).ping(ip(SERVER[family])).expect("a socket");
        assert!(ping.is_answered(), "{}", ping.describe());

        refused(&client, SERVER[family], OTHER);
        // `hostInbound`: the inside may ping the firewall, the outside may not.
        assert!(
            Client::new(&client)
                .ping(ip(GATEWAY[family]))
                .expect("a socket")
                .is_answered()
        );
        let from_outside = Client::new(&server)
            .timeout(Duration::from_millis(700))
            .ping(ip(OUTSIDE[family]));
        assert_eq!(from_outside.expect("a socket").describe(), "timed out");
    }

    // With a route the world's packets get as far as the firewall.
    ip_in(&server, &["route", "add", "10.77.0.0/24", "via", OUTSIDE[0]]).expect("a route");
    ip_in(
        &server,
        &["-6", "route", "add", "2001:db8:77::/64", "via", OUTSIDE[1]],
    )
    .expect("a route");
    for address in CLIENT {
        refused(&server, address, HTTP);
    }
    let policies = lab.show(&["show", "policies"]).expect("policies");
    let hits = |name: &str| {
        let list = policies["policies"].as_array().expect("policies");
        let policy = list
            .iter()
            .find(|policy| policy["name"] == name)
            .expect("a policy");
        policy["hits"].as_u64().expect("a count")
    };
    assert!(hits("out") >= 6 && hits("nothing-else") >= 4, "{policies}");
}

/// What the commands of the README leave the container, and what it makes of it.
#[test]
fn e2e_docker_the_container_has_few_rights_and_says_which_it_needs() {
    if !privileged() {
        return;
    }
    let lab = Lab::macvlan();
    let process = lab.engine.process_of(FIREWALL).expect("a process");
    let effective = status_of(process, "CapEff").expect("capabilities");
    let effective = u64::from_str_radix(&effective, 16).expect("a number");
    let (net_admin, net_raw, sys_admin, perfmon, bpf) = (1 << 12, 1 << 13, 1 << 21, 1 << 38, 1 << 39);
    assert!(
        effective == net_admin | net_raw | sys_admin || effective == net_admin | net_raw | perfmon | bpf,
        "{effective:x}"
    );
    assert_eq!(status_of(process, "NoNewPrivs").expect("a status"), "1");
    let mounts = fs::read_to_string(format!("/proc/{process}/mounts")).expect("mounts");
    for read_only in ["/", "/proc/sys", "/etc/bulkhead"] {
        let mut fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let mount = fields
            .find(|fields| fields[1] == read_only)
            .unwrap_or_else(|| panic!("{read_only}: {mounts}"));
        assert!(mount[3].split(',').any(|option| option == "ro"), "{mount:?}");
    }
    let privileged = lab
        .engine
        .docker(&["inspect", "--format", "{{.HostConfig.Privileged}}", FIREWALL]);
    assert_eq!(privileged.expect("inspected"), "false");

    // Under these rights nothing is missing, and one thing is too much where the engine knows no better.
    let doctor = lab
        .show(&["doctor", "--config", "/etc/bulkhead/firewall.yaml"])
        .expect("a report");
    assert_eq!(doctor["ok"], true, "{doctor}");
    let checks = doctor["checks"].as_array().expect("checks");
    for capability in ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF", "CAP_PERFMON"] {
        let check = checks.iter().find(|check| check["name"] == capability);
        let check = check.unwrap_or_else(|| panic!("nothing is said of {capability}: {doctor}"));
        assert_eq!(check["status"], "ok", "{check}");
        // Whether the engine knows it or grants what includes it, and what for.
        let found = check["found"].as_str().expect("what was found");
        let granted = ["in effect, for ", "included in CAP_SYS_ADMIN, for "];
        assert!(granted.iter().any(|start| found.starts_with(start)), "{check}");
    }
    let interfaces = lab.show(&["show", "interfaces"]).expect("interfaces");
    for interface in interfaces["interfaces"].as_array().expect("interfaces") {
        assert_eq!(
            (
                &interface["attached"],
                &interface["fails_closed"],
                &interface["kind"]
            ),
            (&true.into(), &true.into(), &"macvlan".into()),
            "{interface}"
        );
    }
    let resident = status_of(process, "VmRSS").expect("memory");
    let size = lab
        .engine
        .docker(&["image", "inspect", "--format", "{{.Size}}", "bulkhead:latest"])
        .expect("a size");
    let bytes: u64 = size.parse().expect("a number");
    println!("image: {bytes} bytes as Docker counts them; the daemon: {resident} resident");
    assert!(bytes <= 20_000_000, "{bytes}");
    says_what_it_is(&lab);
}

/// Every label, and a bill of materials that is this very binary's.
fn says_what_it_is(lab: &Lab) {
    let (labels, created) = image::labels(&lab.engine).expect("labels");
    let version = env!("CARGO_PKG_VERSION");
    // A commit is known where the sources are a checkout.
    let revision = labels["org.opencontainers.image.revision"]
        .as_str()
        .unwrap_or_default();
    let commit = revision.strip_suffix("-dirty").unwrap_or(revision);
    assert!(
        commit.len() == 40 && commit.chars().all(|digit| digit.is_ascii_hexdigit()),
        "{labels}"
    );
    let expected = serde_json::json!({
        "org.opencontainers.image.title": "bulkhead",
        "org.opencontainers.image.description": "A container firewall: zones, policies and NAT, enforced by eBPF",
        "org.opencontainers.image.version": version,
        "org.opencontainers.image.licenses": "Apache-2.0 OR MIT",
        "org.opencontainers.image.created": created,
        "org.opencontainers.image.revision": revision,
    });
    assert_eq!(labels, expected);

    let contents = image::Contents::read().expect("an image");
    let product = &contents.bill["metadata"]["component"];
    assert_eq!(
        (&product["name"], &product["version"]),
        (&"bulkhead".into(), &version.into())
    );
    assert_eq!(
        product["hashes"],
        serde_json::json!([{ "alg": "SHA-256", "content": contents.sha256 }])
    );
    let components = contents.bill["components"].as_array().expect("components");
    // What loads the programs, and what speaks to the Kubernetes API.
    for name in ["aya", "kube-client"] {
        let component = components.iter().find(|component| component["name"] == name);
        let component = component.unwrap_or_else(|| panic!("{name} is not listed"));
        let purl = component["purl"].as_str().expect("a URL");
        assert!(purl.starts_with(&format!("pkg:cargo/{name}@")), "{component}");
    }
}

fn revisions(lab: &Lab) -> Value {
    lab.show(&["history"]).expect("a history")
}

#[test]
fn e2e_docker_commits_survive_rm_and_restart() {
    if !privileged() {
        return;
    }
    let lab = Lab::macvlan();
    let [server, client] = lab.hosts();
    let _servers = serve(&server, SERVER);
    refused(&client, SERVER[0], OTHER);
    let example = lab::shipped("firewall.yaml").expect("the example");
    let committed = example
        .replace("service: [http, ", "service: [high, http, ")
        .replace(
            "  policies:\n",
            "  services: [{ name: high, tcp: 8080 }]\n  policies:\n",
        );
    assert_ne!(committed, example);
    fs::write(lab.configuration.path().join("committed.yaml"), committed).expect("a file");
    lab.show(&["commit", "/etc/bulkhead/committed.yaml", "--comment", "port 8080"])
        .expect("committed");
    connect(&client, SERVER[0], OTHER);
    let before = revisions(&lab);

    lab.engine.docker(&["rm", "--force", FIREWALL]).expect("removed");
    refused(&client, SERVER[0], HTTP);
    lab.run_block("The firewall");
    lab.await_enforcing();
    assert_eq!(revisions(&lab), before);
    for address in SERVER {
        connect(&client, address, OTHER);
    }

    let began = Instant::now();
    lab.engine.docker(&["restart", FIREWALL]).expect("restarted");
    lab.await_enforcing();
    println!(
        "docker restart until it answers: {} ms",
        began.elapsed().as_millis()
    );
    assert_eq!(revisions(&lab), before);
    connect(&client, SERVER[0], OTHER);
    refused(&client, SERVER[0], 8_081);
}

fn streams(client: &Namespace) -> [Stream; 2] {
    let streams = SERVER.map(|address| {
        let conversation = connect(client, address, HTTP);
        Stream::start(conversation, 1_000).expect("a stream")
    });
    advance(&streams, "before");
    streams
}

#[track_caller]
fn advance(streams: &[Stream], when: &str) {
    for stream in streams {
        stream
            .advance(20)
            .unwrap_or_else(|error| panic!("{when}: {error:#}"));
    }
}

/// The interfaces go with the container. Sessions are kept in the bpffs and go on, unless the kernel has meanwhile answered for
/// an address that is its own: therefore a pool.
#[test]
fn e2e_docker_killed_nothing_passes_and_sessions_go_on_when_it_is_back() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let file = lab.configuration.path().join("firewall.yaml");
    let example = fs::read_to_string(&file).expect("the example");
    let pooled = example.replace(
        "    source: [{ name: hide, from: inside, to: outside, translate: interface }]",
        "    pools: [{ name: pool, addresses: [198.51.100.3, \"2001:db8:51::3\"] }]\n    \
         source: [{ name: hide, from: inside, to: outside, translate: pool, pool: pool }]",
    );
    assert_ne!(pooled, example);
    fs::write(&file, pooled).expect("a file");
    lab.run_block("MacVLAN networks");
    lab.run_block("The firewall");
    lab.await_enforcing();
    let [server, client] = lab.hosts();
    let _servers = serve(&server, SERVER);
    let streams = streams(&client);
    lab.engine
        .docker(&["kill", "--signal", "KILL", FIREWALL])
        .expect("killed");
    let stopped = streams.each_ref().map(|stream| stream.report().exchanges);
    for address in SERVER {
        refused(&client, address, HTTP);
        refused(&client, address, OTHER);
    }
    for (stream, stopped) in streams.iter().zip(stopped) {
        // One exchange may have been on its last way.
        assert!(stream.report().exchanges <= stopped + 1, "{:?}", stream.report());
    }

    let began = Instant::now();
    lab.engine.docker(&["start", FIREWALL]).expect("started");
    lab.await_enforcing();
    println!(
        "docker start until it answers: {} ms",
        began.elapsed().as_millis()
    );
    advance(&streams, "started again");
    connect(&client, SERVER[0], HTTP);
    refused(&client, SERVER[0], OTHER);
}

#[test]
fn e2e_docker_in_a_held_network_a_kill_goes_unnoticed_and_policy_holds() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    lab.run_block("MacVLAN networks");
    lab.run_block("Restarts");
    lab.await_enforcing();
    let [server, client] = lab.hosts();
    let _servers = serve(&server, SERVER);
    let streams = streams(&client);
    lab.engine
        .docker(&["kill", "--signal", "KILL", FIREWALL])
        .expect("killed");
    advance(&streams, "killed");
    for address in SERVER {
        connect(&client, address, HTTP);
        refused(&client, address, OTHER);
    }
    lab.engine.docker(&["rm", FIREWALL]).expect("removed");
    lab.run_block_with("Restarts", |script| {
        // Only the firewall anew: its network has never gone.
        let firewall = script.find("docker run").expect("a command that runs it");
        script[firewall..].to_owned()
    });
    lab.await_enforcing();
    advance(&streams, "taken over");
    for stream in &streams {
        let report = stream.report();
        println!(
            "the longest of {} exchanges: {} ms",
            report.exchanges,
            report.longest.as_millis()
        );
        assert!(
            report.longest < Duration::from_secs(2),
            "a lost packet is sent again after 200 ms: {report:?}"
        );
    }
    refused(&client, SERVER[0], OTHER);
}

#[test]
fn e2e_docker_bridge_networks_do_as_well() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let file = lab.configuration.path().join("firewall.yaml");
    let example = fs::read_to_string(&file).expect("the example");
    let without = example.replace(", \"2001:db8:77::1/64\"]", "]");
    assert_ne!(without, example);
    fs::write(&file, without).expect("a file");
    lab.run_block("Bridge networks");
    lab.run_block_with("The firewall", |script| {
        script
            .replace(" --ip6 2001:db8:51::2", "")
            .replace(" --ip6 2001:db8:77::2", "")
    });
    lab.await_enforcing();
    let server = lab
        .engine
        .hold("server", "external", &SERVER[..1])
        .expect("a server");
    let client = lab
        .engine
        .hold("client", "internal", &CLIENT[..1])
        .expect("a client");
    let _servers: Vec<TcpServer> = [HTTP, OTHER]
        .map(|port| TcpServer::start(&server, (ip(SERVER[0]), port).into()).expect("a server"))
        .into();
    let mut conversation = connect(&client, SERVER[0], HTTP);
    assert_eq!(conversation.seen_as().ip(), ip(OUTSIDE[0]));
    let exchanged = conversation.exchange(1_000_000, 1_000_000).expect("a socket");
    assert!(
        matches!(exchanged, Outcome::Answered(_)),
        "{}",
        exchanged.describe()
    );
    refused(&client, SERVER[0], OTHER);
    lab.engine
        .docker(&["kill", "--signal", "KILL", FIREWALL])
        .expect("killed");
    refused(&client, SERVER[0], HTTP);
}

#[test]
fn e2e_docker_the_compose_file_starts_the_same() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let compose = |arguments: &[&str]| {
        let mut command = lab.engine.command("docker-compose");
        command
            .args(arguments)
            .current_dir(lab.configuration.path())
            .env("OUTSIDE_PARENT", "outside0")
            .env("INSIDE_PARENT", "inside0");
        let output = command.output().expect("docker-compose runs");
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    compose(&["up", "--detach"]);
    lab.await_enforcing();
    let [server, client] = lab.hosts();
    let _servers = serve(&server, SERVER);
    for family in 0..2 {
        assert_eq!(
            connect(&client, SERVER[family], HTTP).seen_as().ip(),
            ip(OUTSIDE[family])
        );
        refused(&client, SERVER[family], OTHER);
    }
    lab.engine
        .docker(&["rm", "--force", "server", "client"])
        .expect("removed");
    compose(&["down"]);
}
