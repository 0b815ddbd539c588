//! `show screens`, from the packets that a screen stopped to what people read.

use std::time::{Duration, Instant};

use bulkhead_testkit::{Frame, RawPort, privileged};
use serde_json::Value;

use crate::daemon::{DEADLINE, Daemon};
use crate::{CONFIGURATION, topology};

#[test]
fn netns_agent_shows_what_screens_stopped() {
    if !privileged() {
        return;
    }
    let topology = topology("bhk-ascr");
    let world = topology.host("world");
    let configuration = CONFIGURATION
        .replace("{ name: outside }", "{ name: outside, screen: edge }")
        .replace(
            "  addresses:",
            "  screens: [{ name: edge, icmp: { flood: 500 }, tcp: { noFlags: true } }]\n  addresses:",
        );
    assert!(configuration.contains("noFlags") && configuration.contains("screen: edge"));
    let daemon = Daemon::start_with(&topology, &configuration);
    let shown = |name: &str| -> Value {
        let screens = daemon.json(&["show", "screens"]);
        let screens = screens["screens"].as_array().expect("a list");
        assert_eq!(screens.len(), 2, "{screens:?}");
        let found = screens.iter().find(|screen| screen["screen"] == name);
        found.unwrap_or_else(|| panic!("no {name}: {screens:?}")).clone()
    };
    let port = RawPort::open(&world.namespace, &world.interface).expect("a port");
    let frame = Frame::ip(world.v4, world.firewall_v4)
        .macs(world.mac, world.firewall_mac)
        .tcp(1, 2)
        .build();
    for _ in 0..3 {
        port.send(&frame).expect("a frame");
    }
    let deadline = Instant::now() + DEADLINE;
    // Events take the way through a ring that is looked at every now and then.
    while shown("tcp_no_flags")["last_event"].is_null() || shown("tcp_no_flags")["dropped"] != 3 {
        assert!(Instant::now() < deadline, "{}", daemon.text(&["show", "screens"]));
        std::thread::sleep(Duration::from_millis(50));
    }
    let flags = shown("tcp_no_flags");
    assert_eq!(
        (
            &flags["zone"],
            &flags["profile"],
            &flags["action"],
            &flags["enabled"]
        ),
        (&"outside".into(), &"edge".into(), &"drop".into(), &true.into())
    );
    assert!(flags["threshold"].is_null(), "{flags}");
    let event = &flags["last_event"];
    assert_eq!(
        (&event["verdict"], &event["source_address"]),
        (&"DROPPED".into(), &world.v4.to_string().into())
    );
    let flood = shown("icmp_flood");
    assert_eq!(
        (&flood["threshold"], &flood["threshold_unit"], &flood["dropped"]),
        (&500.into(), &"packets/s".into(), &0.into())
    );
    let table = daemon.text(&["show", "screens"]);
    assert!(
        table.contains("500 packets/s") && table.contains("tcp_no_flags"),
        "{table}"
    );
}
