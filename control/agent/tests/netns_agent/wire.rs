//! A document of a wire, from the file to frames that cross it.

use std::net::IpAddr;
use std::time::Duration;

use bulkhead_testkit::{HostSpec, Outcome, TcpServer, Topology, privileged};
use nix::sys::signal::Signal;

use crate::PORT;
use crate::daemon::Daemon;

const CONFIGURATION: &str = "\
apiVersion: bulkhead.dev/v1alpha1
kind: Firewall
metadata: { name: wire }
spec:
  forwarding: wire
  interfaces: [{ name: net1, zone: near }, { name: net2, zone: far }]
  wires: [{ name: uplink, interfaces: [net1, net2] }]
  zones: [{ name: near }, { name: far }]
  services: [{ name: test, tcp: 7000 }]
  policies: [{ name: use, from: near, to: far, service: test, action: permit }]
  sessions: { max: 4096, halfOpen: 1024 }
";

#[test]
fn netns_agent_a_wire_carries_what_policy_permits_and_stays_a_wire() {
    if !privileged() {
        return;
    }
    let address = |text: &str| text.parse::<IpAddr>().expect("an address");
    let pairs = [
        (address("10.99.0.1"), address("10.99.0.2"), 24),
        (address("fd99::1"), address("fd99::2"), 64),
    ];
    // Both hosts are in one network, in which the firewall has no address.
    let host = |name, of: fn(&(IpAddr, IpAddr, u8)) -> IpAddr| {
        pairs.iter().fold(HostSpec::new(name), |host, pair| {
            host.further_address(of(pair), pair.2)
        })
    };
    let topology = Topology::builder("bhk-awire")
        .host(host("near", |pair| pair.0))
        .host(host("far", |pair| pair.1))
        .build()
        .expect("a topology");
    let (near, far) = (topology.host("near"), topology.host("far"));
    let daemon = Daemon::start_with(&topology, CONFIGURATION);
    let brief = |timeout| Duration::from_millis(timeout);
    let crosses = || {
        for (here, there, _) in pairs {
            let server = TcpServer::start(&far.namespace, (there, PORT).into()).expect("a server");
            let mut conversation = near
                .client()
                .timeout(brief(3000))
                .tcp(server.address())
                .expect("a socket")
                .answered()
                .unwrap_or_else(|error| panic!("{there}: {error}\n{}", daemon.log()));
            conversation
                .exchange(10, 10)
                .expect("a socket")
                .answered()
                .expect("an exchange");
            let back = TcpServer::start(&near.namespace, (here, PORT).into()).expect("a server");
            let denied = far
                .client()
                .timeout(brief(400))
                .tcp(back.address())
                .expect("a socket");
            assert!(matches!(denied, Outcome::TimedOut), "{here}: {denied:?}");
        }
    };
    crosses();
    let sessions = daemon.json(&["show", "sessions"]);
    assert_eq!(sessions["total"], 2, "one of each family: {sessions}");
    assert_eq!(sessions["sessions"][0]["translated"], false);

    // A wire does not become a router while it runs, and says so.
    let routed = CONFIGURATION
        .replace("  forwarding: wire\n", "")
        .replace("  wires: [{ name: uplink, interfaces: [net1, net2] }]\n", "");
    daemon.configure(&routed);
    daemon.signal(Signal::SIGHUP);
    daemon.await_log("reload failed");
    assert!(daemon.log().contains("restart to change"), "{}", daemon.log());
    crosses();
}
