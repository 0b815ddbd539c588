//! Screens between real namespaces, on TCX alone and with XDP in front of it: what is counted, what arrives, what is told, and
//! that conversations beside a flood notice nothing.

mod common;

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use bulkhead_dataplane::{
    bpf::has_tcx,
    engine::{Engine, EventKind},
    preflight::hook,
    ruleset::{Action, HookMode, Policy, Ruleset, Scan, Screen},
};
use bulkhead_testkit::{Frame, Host, HostSpec, Outcome, RawPort, TcpServer, Topology, UdpServer, privileged};

const HOOKS: [HookMode; 2] = [HookMode::Tcx, HookMode::Xdp];

/// Everything permitted from `inside`, which has this screen.
fn ruleset(hook: HookMode, screen: Screen) -> Ruleset {
    let mut ruleset = common::ruleset(hook, false);
    ruleset.policies = vec![Policy {
        name: "out".into(),
        from: vec![0],
        action: Action::Permit,
        ..Policy::default()
    }];
    ruleset.screens = vec![Screen {
        name: "edge".into(),
        ..screen
    }];
    ruleset.zones[0].screen = Some(0);
    ruleset
}

struct Lab {
    topology: Topology,
    engine: Engine,
    port: RawPort,
    arrivals: RawPort,
}

impl Lab {
    fn new(hook: HookMode, screen: Screen) -> Result<Self> {
        let topology = common::topology(|host: HostSpec| host);
        let engine = common::start(&topology, ruleset(hook, screen));
        topology.resolve_neighbours()?;
        let (inside, outside) = (topology.host("inside"), topology.host("outside"));
        let port = RawPort::open(&inside.namespace, &inside.interface)?;
        let arrivals = RawPort::open(&outside.namespace, &outside.interface)?;
        Ok(Self {
            topology,
            engine,
            port,
            arrivals,
        })
    }

    fn inside(&self) -> &Host {
        self.topology.host("inside")
    }

    fn outside(&self) -> &Host {
        self.topology.host("outside")
    }

    /// A frame from inside to outside, of a family (0: IPv4).
    fn frame(&self, family: usize) -> Frame {
        self.between(
            self.inside().addresses()[family],
            self.outside().addresses()[family],
        )
    }

    fn between(&self, source: IpAddr, destination: IpAddr) -> Frame {
        let inside = self.inside();
        Frame::ip(source, destination).macs(inside.mac, inside.firewall_mac)
    }

    /// Sends frames at once and returns how many of them came out on the other side. They must all be sent within one
    /// second of the screens', which begins with the first.
    fn arriving(&self, frames: &[Frame]) -> Result<usize> {
        self.arrivals.drain()?;
        let began = Instant::now();
        for frame in frames {
            self.port.send(&frame.build())?;
        }
        ensure!(
            began.elapsed() < Duration::from_millis(900),
            "this machine is too slow for the test"
        );
        let (gateway, host) = (self.outside().firewall_mac, self.outside().mac);
        let mut arrived = 0;
        while let Some(captured) = self.arrivals.receive(Duration::from_millis(300))? {
            // What the firewall forwarded, apart from what the two stacks say to each other.
            let frame = &captured.frame;
            let neighbours = frame[12..14] == [8, 6]
                || (frame[12..14] == [0x86, 0xdd] && frame[20] == 58 && frame[21] == 255);
            arrived += usize::from(frame[..6] == host && frame[6..12] == gateway && !neighbours);
        }
        Ok(arrived)
    }

    /// What a screen has counted: packets dropped, packets let pass.
    fn count(&self, screen: &str) -> Result<(u64, u64)> {
        let screens = self.engine.screens()?;
        let row = screens
            .iter()
            .find(|row| row.screen == screen)
            .unwrap_or_else(|| panic!("no {screen} among {screens:#?}"));
        assert_eq!((row.zone.as_str(), row.enabled), ("inside", true));
        Ok((row.dropped, row.alarmed))
    }

    fn hooks(&self) -> Result<Vec<&'static str>> {
        Ok(self.engine.interfaces()?.iter().map(|row| row.hook).collect())
    }
}

/// Twenty of fifty pass, on either hook: what XDP has counted TCX does not count again.
#[test]
fn netns_a_udp_flood_is_stopped_at_its_threshold() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    for hook in HOOKS {
        let screen = Screen {
            udp_flood: Some(20),
            ..Screen::default()
        };
        let lab = Lab::new(hook, screen)?;
        let name = hook::name(hook == HookMode::Xdp, !has_tcx());
        assert_eq!(lab.hooks()?, [name; 2]);
        for family in 0..2 {
            let frames: Vec<_> = (0..50)
                .map(|n| lab.frame(family).udp(4000 + n, 7).payload(b"flood"))
                .collect();
            assert_eq!(
                lab.arriving(&frames)?,
                20,
                "{hook:?}: {:#?}",
                lab.engine.nonzero_counters()
            );
        }
        assert_eq!(lab.count("udp_flood")?, (60, 0), "{hook:?}");
        assert_eq!(lab.engine.counters()?["screen_udp_flood"], 60);
        let told = lab.engine.recent_events(1000);
        let told = told.iter().find(|event| event.kind == EventKind::Screen);
        let told = told.expect("an event");
        assert_eq!(
            (
                told.reason.name(),
                told.dropped,
                told.from_zone.as_str(),
                told.to_zone.as_str()
            ),
            ("screen_udp_flood", true, "inside", "")
        );
    }
    Ok(())
}

/// A conversation is counted too, and goes on below the threshold.
#[test]
fn netns_a_conversation_is_part_of_the_flood_it_makes() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    for hook in HOOKS {
        let screen = Screen {
            udp_flood: Some(40),
            icmp_flood: Some(40),
            ..Screen::default()
        };
        let lab = Lab::new(hook, screen)?;
        for address in lab.outside().addresses() {
            let server = UdpServer::start(&lab.outside().namespace, (address, 53).into())?;
            let mut talk = lab.inside().client().udp(server.address())?.answered()?;
            let began = Instant::now();
            let answered = (0..60)
                .map(|_| talk.probe(100))
                .take_while(|outcome| {
                    outcome
                        .as_ref()
                        .is_ok_and(|outcome| matches!(outcome, Outcome::Answered(_)))
                })
                .count();
            if began.elapsed() < Duration::from_millis(900) {
                assert_eq!(answered, 40, "{hook:?}: {:#?}", lab.engine.nonzero_counters());
            }
            std::thread::sleep(Duration::from_millis(1100));
            talk.probe(100)?.answered()?;
            lab.inside().client().ping(address)?.answered()?;
        }
    }
    Ok(())
}

#[test]
fn netns_scans_are_stopped() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let scan = Some(Scan {
        count: 10,
        interval: Duration::from_secs(1),
    });
    for hook in HOOKS {
        for family in 0..2 {
            let screen = Screen {
                tcp_port_scan: scan,
                udp_port_scan: scan,
                ..Screen::default()
            };
            let lab = Lab::new(hook, screen)?;
            for tcp in [true, false] {
                let frames: Vec<_> = (0..30)
                    .map(|n| match tcp {
                        true => lab.frame(family).tcp(5000, 1000 + n).syn(),
                        false => lab.frame(family).udp(5000, 1000 + n),
                    })
                    .collect();
                let arrived = lab.arriving(&frames)?;
                // Two ports may share a bit.
                assert!((10..=14).contains(&arrived), "{hook:?}: {arrived} of 30");
                let name = if tcp { "tcp_port_scan" } else { "udp_port_scan" };
                assert_eq!(lab.count(name)?, (30 - arrived as u64, 0));
            }
        }
    }
    Ok(())
}

/// What a packet is: dropped and counted once; or only told.
#[test]
fn netns_odd_packets_are_stopped_or_told() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    for hook in HOOKS {
        for alarm in [false, true] {
            let screen = Screen {
                alarm_without_drop: alarm,
                ip_record_route: true,
                extension_headers: true,
                icmp_large: true,
                unknown_protocol: true,
                ip_spoofing: true,
                tcp_no_flags: true,
                land: true,
                ..Screen::default()
            };
            let lab = Lab::new(hook, screen)?;
            let server = lab.outside().v4.into();
            let odd = [
                (
                    "ip_record_route",
                    lab.frame(0).ipv4_options(&[7, 7, 4, 0, 0, 0, 0, 0]).udp(1, 2),
                    true,
                ),
                (
                    "extension_headers",
                    lab.frame(1).extension(60, &[1, 4, 0, 0, 0, 0]).udp(1, 2),
                    true,
                ),
                (
                    "icmp_large",
                    lab.frame(0).echo_request(1, 1).payload_bytes(1100),
                    true,
                ),
                (
                    "unknown_protocol",
                    lab.frame(1).protocol(200).payload(b"what"),
                    true,
                ),
                (
                    "ip_spoofing",
                    lab.between("10.77.1.77".parse()?, server).udp(1, 2),
                    true,
                ),
                ("tcp_no_flags", lab.frame(0).tcp(1, 2), false),
                ("land", lab.between(server, server).tcp(80, 80).syn(), false),
            ];
            for (name, frame, otherwise) in odd {
                let arrived = lab.arriving(&[frame])?;
                let passes = alarm && otherwise;
                assert_eq!(arrived, usize::from(passes), "{name}, {hook:?}, alarm {alarm}");
                let expected = if passes { (0, 1) } else { (1, 0) };
                assert_eq!(lab.count(name)?, expected, "{name}, {hook:?}, alarm {alarm}");
                let told = lab.engine.recent_events(1000);
                let told = told
                    .iter()
                    .find(|event| event.reason.name() == format!("screen_{name}"));
                assert_eq!(told.map(|event| event.dropped), Some(!passes), "{name}");
            }
        }
    }
    Ok(())
}

/// Counts are the zone's and not its number's: another zone in front of it moves the number.
#[test]
fn netns_counts_stay_with_the_zone_over_a_commit() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let screen = Screen {
        tcp_no_flags: true,
        ..Screen::default()
    };
    let lab = Lab::new(HookMode::Tcx, screen.clone())?;
    let null = lab.frame(0).tcp(1, 2);
    assert_eq!(lab.arriving(std::slice::from_ref(&null))?, 0);
    assert_eq!(lab.count("tcp_no_flags")?, (1, 0));
    let mut moved = ruleset(HookMode::Tcx, screen);
    moved.zones.swap(0, 1);
    for interface in &mut moved.interfaces {
        interface.zone = 1 - interface.zone;
    }
    lab.topology.firewall().run(|| lab.engine.commit(moved))?;
    assert_eq!(lab.count("tcp_no_flags")?, (1, 0));
    assert_eq!(lab.arriving(&[null])?, 0);
    assert_eq!(lab.count("tcp_no_flags")?, (2, 0));
    assert_eq!(lab.engine.screens()?.len(), 1, "{:#?}", lab.engine.screens()?);
    Ok(())
}

/// A flood of SYNs to one server: an open connection and other servers notice nothing.
#[test]
fn netns_conversations_beside_a_syn_flood_notice_nothing() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    for hook in HOOKS {
        let screen = Screen {
            syn_flood_alarm: Some(20),
            syn_flood_destination: Some(50),
            ..Screen::default()
        };
        let lab = Lab::new(hook, screen)?;
        let outside = lab.outside();
        let flooded = TcpServer::start(&outside.namespace, outside.v4_port(80))?;
        let other = TcpServer::start(&outside.namespace, outside.v6_port(80))?;
        let client = lab.inside().client().timeout(Duration::from_secs(2));
        let mut open = client.tcp(flooded.address())?.answered()?;
        open.exchange(100_000, 100_000)?.answered()?;
        // From addresses that nobody has.
        let frames: Vec<_> = (0..200)
            .map(|n| {
                let source = IpAddr::from([10, 77, 0, 50 + (n % 100) as u8]);
                lab.between(source, outside.v4.into()).tcp(2000 + n, 80).syn()
            })
            .collect();
        let arrived = lab.arriving(&frames)?;
        assert!((49..=50).contains(&arrived), "{hook:?}: {arrived}");
        let (dropped, _) = lab.count("syn_flood_destination")?;
        assert!((150..=151).contains(&dropped), "{hook:?}: {dropped}");
        let (_, alarmed) = lab.count("syn_flood_alarm")?;
        assert_eq!(alarmed, 30, "{hook:?}");
        open.exchange(100_000, 100_000)?.answered()?;
        client.tcp_transfer(other.address(), 1000, 1000)?.answered()?;
    }
    Ok(())
}

/// Above the attack threshold the screen hands SYNs to the proxy: who really wants to talk to the flooded server still can.
#[test]
fn netns_a_new_connection_completes_during_a_spoofed_flood() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    for hook in HOOKS {
        let screen = Screen {
            syn_flood_attack: Some(20),
            ..Screen::default()
        };
        let lab = Lab::new(hook, screen)?;
        let outside = lab.outside();
        let server = TcpServer::start(&outside.namespace, outside.v4_port(80))?;
        let client = lab.inside().client().timeout(Duration::from_secs(2));
        let mut open = client.tcp(server.address())?.answered()?;
        let frames: Vec<_> = (0..200)
            .map(|n| {
                let source = IpAddr::from([10, 77, 0, 50 + (n % 100) as u8]);
                lab.between(source, outside.v4.into()).tcp(2000 + n, 80).syn()
            })
            .collect();
        let arrived = lab.arriving(&frames)?;
        assert!(
            (19..=20).contains(&arrived),
            "{hook:?}: {arrived} SYNs reached the server"
        );
        let (dropped, told) = lab.count("syn_flood")?;
        assert!(dropped == 0 && (180..=181).contains(&told), "{hook:?}: {told}");
        let mut late = client.tcp(server.address())?.answered()?;
        late.exchange(100_000, 100_000)?.answered()?;
        open.exchange(100_000, 100_000)?.answered()?;
        let counters = lab.engine.counters()?;
        assert_eq!(
            counters["syn_cookies_accepted"],
            1,
            "{hook:?}: {:#?}",
            lab.engine.nonzero_counters()
        );
    }
    Ok(())
}
