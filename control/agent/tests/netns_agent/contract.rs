//! The launch contract with a real start: interfaces that are missing, the one for management, CPUs, neighbours.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use bulkhead_dataplane::netlink::VethSpec;
use bulkhead_testkit::{TcpServer, privileged};
use nix::sys::signal::Signal;

use crate::daemon::{DEADLINE, Launch};
use crate::probes::{LOOPBACK, get};
use crate::{CONFIGURATION, PORT, connect, topology};

/// The configuration with an interface that is not there.
fn with_net9() -> String {
    CONFIGURATION.replace("name: net3", "name: net9")
}

#[test]
fn netns_agent_waits_for_its_interfaces_touches_nothing_and_starts_when_the_last_appears() {
    if !privileged() {
        return;
    }
    let topology = topology("bhc-wait");
    let (inside, server) = (topology.host("inside"), topology.host("server"));
    let listening = TcpServer::start(&server.namespace, server.v4_port(PORT)).expect("a server");
    let mut daemon = Launch::new(&with_net9())
        .variable("BULKHEAD_ON_MISSING", "wait")
        .variable("BULKHEAD_MANAGEMENT", LOOPBACK)
        .begin(&topology);
    daemon.await_log("waiting for data interfaces");
    let (status, text) = get(&topology, "/readyz");
    assert_eq!(status, 503, "{text}");
    assert!(
        text.contains("[-]started: waiting for data interfaces: net9\n"),
        "{text}"
    );
    let (status, text) = get(&topology, "/livez");
    assert_eq!(status, 200, "{text}");
    assert!(!daemon.socket().exists(), "nobody is promised anything");
    assert_eq!(daemon.blackhole_rules(), [], "nothing is touched");
    drop(connect(inside, listening.address()));

    // It is heard of at once: long before it would be said again.
    let mut netlink = topology.firewall().netlink().expect("netlink");
    let spec = VethSpec {
        name: "net9",
        peer_name: "net9-peer",
        ..VethSpec::default()
    };
    netlink.create_veth(&spec).expect("an interface");
    let began = Instant::now();
    while daemon.blackhole_rules().is_empty() {
        // The first thing that a start does; how long programs are verified then is another matter.
        assert!(began.elapsed() < Duration::from_secs(5), "{}", daemon.log());
        std::thread::sleep(Duration::from_millis(5));
    }
    daemon.await_ready();
    let (status, text) = get(&topology, "/readyz");
    assert_eq!(status, 200, "{text}");
    assert_eq!(daemon.blackhole_rules().len(), 6);
    drop(connect(inside, listening.address()));

    // The same again from the revision, and a signal ends the wait.
    assert!(daemon.end(Signal::SIGTERM).success());
    let index = netlink.link_by_name("net9").expect("the interface").index;
    netlink.delete_link(index).expect("no interface");
    daemon.begin_again();
    daemon.await_log("waiting for data interfaces");
    assert!(daemon.end(Signal::SIGTERM).success(), "{}", daemon.log());
    assert!(!daemon.log().contains("enforcing"), "{}", daemon.log());
}

#[test]
fn netns_agent_stops_where_interfaces_are_missing_or_too_few_or_for_management() {
    if !privileged() {
        return;
    }
    let topology = topology("bhc-stop");
    let cases: [(&str, String, &[&str], &str); 4] = [
        (
            "missing",
            with_net9(),
            &[],
            "interface \"net9\" does not exist on this machine",
        ),
        (
            "too few, which no waiting mends",
            CONFIGURATION.to_owned(),
            &["--ports", "4", "--on-missing", "wait"],
            "3 data interfaces are named here, but 4 were asked for at the start",
        ),
        (
            "the management interface",
            CONFIGURATION.to_owned(),
            &["--management-interface", "first", "--on-missing", "wait"],
            "interface \"net1\" is for management and cannot be a data interface",
        ),
        (
            "the interface that probes would be served on",
            CONFIGURATION.to_owned(),
            &[
                "--management",
                &format!("{}:9360", topology.host("world").firewall_v4),
            ],
            "interface \"net3\" is for management and cannot be a data interface",
        ),
    ];
    for (case, configuration, arguments, expected) in cases {
        let mut daemon = Launch::new(&configuration).arguments(arguments).begin(&topology);
        let status = daemon.wait();
        assert_eq!(status.code(), Some(2), "{case}: {}", daemon.log());
        assert!(daemon.log().contains(expected), "{case}: {}", daemon.log());
        assert_eq!(daemon.blackhole_rules(), [], "{case}");
    }
}

#[test]
fn netns_agent_serves_probes_to_the_management_interface_alone() {
    if !privileged() {
        return;
    }
    let topology = topology("bhc-mgmt");
    let inside = topology.host("inside");
    let mut netlink = topology.firewall().netlink().expect("netlink");
    let spec = VethSpec {
        name: "mgmt0",
        peer_name: "mgmt0-peer",
        ..VethSpec::default()
    };
    let index = netlink.create_veth(&spec).expect("an interface");
    let own = "10.99.0.1".parse().expect("an address");
    netlink.add_address(index, own, 24).expect("an address");
    netlink.set_up(index).expect("an interface that is up");
    // Its other end is with a host that is behind a data interface as well.
    let other = netlink.link_by_name("mgmt0-peer").expect("the other end").index;
    netlink
        .move_to_netns(other, inside.namespace.fd())
        .expect("another namespace");
    let mut there = inside.namespace.netlink().expect("netlink");
    let other = there.link_by_name("mgmt0-peer").expect("the other end").index;
    let neighbour = "10.99.0.2".parse().expect("an address");
    there.add_address(other, neighbour, 24).expect("an address");
    there.set_up(other).expect("an interface that is up");
    // All of the firewall's own services are open to `inside`.
    let configuration = CONFIGURATION.replace("hostInbound: [ping]", "hostInbound: [all]");
    let daemon = Launch::new(&configuration)
        .arguments(&["--management-interface", "mgmt0", "--management", ":9360"])
        .start(&topology);
    let answered = |address: Ipv4Addr| {
        let connect = || TcpStream::connect_timeout(&(address, 9360).into(), Duration::from_secs(1));
        inside.namespace.run(connect).is_ok()
    };
    assert!(answered([10, 99, 0, 1].into()), "{}", daemon.log());
    assert!(!answered(inside.firewall_v4), "a data interface");
    // The address for management, by way of a data interface.
    there.delete_link(other).expect("no interface");
    assert!(!answered([10, 99, 0, 1].into()), "a data interface");
    let log = daemon.log();
    assert!(
        log.contains("probes and metrics are served") && log.contains("mgmt0"),
        "{log}"
    );
}

#[test]
fn netns_agent_stays_on_its_cpus_and_sets_neighbour_timeouts() {
    if !privileged() {
        return;
    }
    let topology = topology("bhc-cpus");
    let daemon = Launch::new(CONFIGURATION)
        .arguments(&["--arp-timeout", "77s"])
        .variable("CSRX_CTRL_CPU", "1")
        .variable("BULKHEAD_NDP_TIMEOUT", "2m")
        .variable("CSRX_LICENSE_FILE", "/x")
        .start(&topology);
    let tasks = fs::read_dir(format!("/proc/{}/task", daemon.id())).expect("threads");
    let mut threads = 0;
    for task in tasks {
        let status = fs::read_to_string(task.expect("a thread").path().join("status")).expect("a status");
        let cpus = status
            .lines()
            .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        assert_eq!(cpus.map(str::trim), Some("0"), "{status}");
        threads += 1;
    }
    assert!(threads > 6, "{threads}");
    let reachable = |family: &str, interface: &str| {
        let key = format!("net.{family}.neigh.{interface}.base_reachable_time_ms");
        topology
            .firewall()
            .sysctl(&key)
            .expect("a value")
            .trim()
            .to_owned()
    };
    for interface in ["net1", "net2", "net3"] {
        assert_eq!(reachable("ipv4", interface), "77000");
        assert_eq!(reachable("ipv6", interface), "120000");
    }
    assert_ne!(reachable("ipv4", "lo"), "77000", "only data interfaces");
    assert!(
        daemon
            .log()
            .contains("CSRX_LICENSE_FILE means nothing here: no licence is needed"),
        "{}",
        daemon.log()
    );

    // A CPU that there is not.
    let mut refused = Launch::new(CONFIGURATION)
        .arguments(&["--control-cpus", "1000"])
        .begin(&topology);
    assert_eq!(refused.wait().code(), Some(1));
    assert!(
        refused.log().contains("CPU 1000 of --control-cpus"),
        "{}",
        refused.log()
    );
}

#[test]
fn netns_agent_drains_before_it_stops_and_a_second_signal_ends_it() {
    if !privileged() {
        return;
    }
    let topology = topology("bhc-drain");
    let (inside, server) = (topology.host("inside"), topology.host("server"));
    let listening = TcpServer::start(&server.namespace, server.v4_port(PORT)).expect("a server");
    let arguments = ["--drain", "3s", "--management", LOOPBACK];
    let mut daemon = Launch::new(CONFIGURATION).arguments(&arguments).start(&topology);
    let mut held = connect(inside, listening.address());
    assert_eq!(get(&topology, "/readyz").0, 200);
    let began = Instant::now();
    daemon.signal(Signal::SIGTERM);
    daemon.await_log("draining");
    let (status, text) = get(&topology, "/readyz");
    assert_eq!(status, 503, "{text}");
    assert!(
        text.contains("[-]not-stopping: the daemon was told to stop\n"),
        "{text}"
    );
    assert_eq!(get(&topology, "/livez").0, 200);
    held.exchange(10, 10)
        .expect("a socket")
        .answered()
        .expect("an exchange");
    drop(connect(inside, listening.address()));
    assert!(daemon.wait().success(), "{}", daemon.log());
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(3) && took < DEADLINE, "{took:?}");

    daemon.restart();
    let began = Instant::now();
    daemon.signal(Signal::SIGTERM);
    daemon.await_log("draining");
    assert!(daemon.end(Signal::SIGTERM).success(), "{}", daemon.log());
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert!(daemon.log().contains("draining ends early"), "{}", daemon.log());
}

#[test]
fn netns_agent_steers_packets_where_sysfs_is_its_own_and_says_so_where_it_is_not() {
    if !privileged() {
        return;
    }
    let topology = topology("bhc-rps");
    let daemon = Launch::new(CONFIGURATION)
        .own_sysfs()
        .variable("CSRX_DATA_CPU", "1")
        .start(&topology);
    for interface in ["net1", "net2", "net3"] {
        // As the daemon sees it.
        let queues = format!("/proc/{}/root/sys/class/net/{interface}/queues", daemon.id());
        let mask = fs::read_to_string(format!("{queues}/rx-0/rps_cpus")).expect("a mask");
        let mask = u64::from_str_radix(&mask.trim().replace(',', ""), 16);
        assert_eq!(mask, Ok(1), "{interface}: {}", daemon.log());
    }
    assert!(!daemon.log().contains("cannot be steered"), "{}", daemon.log());
    let (inside, server) = (topology.host("inside"), topology.host("server"));
    let listening = TcpServer::start(&server.namespace, server.v4_port(PORT)).expect("a server");
    drop(connect(inside, listening.address()));
    drop(daemon);

    // The test's own sysfs is of another namespace: whatever goes by these names there is left alone.
    let daemon = Launch::new(CONFIGURATION)
        .arguments(&["--data-cpus", "0"])
        .start(&topology);
    let log = daemon.log();
    assert!(
        log.contains("packets cannot be steered to the data CPUs")
            && log.contains("/sys does not show the interface"),
        "{log}"
    );
    drop(connect(inside, listening.address()));
    drop(daemon);

    let mut refused = Launch::new(CONFIGURATION)
        .arguments(&["--data-cpus", "1000"])
        .begin(&topology);
    assert_eq!(refused.wait().code(), Some(1));
    assert!(
        refused.log().contains("CPU 1000 of --data-cpus"),
        "{}",
        refused.log()
    );
}
