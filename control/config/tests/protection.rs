//! Diagnostics of screens, wires, TCP, ageing, gateways and timeouts, each with its exact place and sentence, and what
//! good ones become.

mod common;

use std::time::Duration;

use bulkhead_config::{
    Alg, Config, EarlyAgeing, Forwarding, InterfaceId, IpScreens, Midstream, Mss, Passage, Scan, Screen,
    SynFlood, Tcp, Window, parse,
};
use common::{Case, check, spec};

/// One line; what follows begins on line 6.
const INTERFACES: &str = "  interfaces: [{ name: net1, zone: a }, { name: net2, zone: b }, { name: net3, zone: a }, { name: net4, zone: b }]\n";
const ZONES: &str = "  zones: [{ name: a }, { name: b }]\n";

fn config(fields: &str) -> Config {
    parse("f", spec(fields))
        .unwrap_or_else(|refused| panic!("{refused}"))
        .config
}

#[test]
fn screens() {
    let screens = |name: &str, fields: &str, expected: &[&str]| {
        Case::spec(
            name,
            &format!("{INTERFACES}{ZONES}  screens:\n{fields}"),
            expected,
        )
    };
    check(&[
        screens(
            "thresholds",
            "    - name: a\n      icmp: { flood: 0, sweep: { count: 1, interval: 2s } }\n      udp: { flood: 1000001, portScan: { count: 2000, interval: 5 } }\n      tcp: { synAckAck: -1, synFlood: { attack: 0, destination: 9999999 } }\n      sessionLimit: { source: 0, destination: many }\n",
            &[
                "9:22: flood cannot be 0; it can be 1 to 1000000",
                "9:41: count cannot be 1; it can be 2 to 128",
                "9:54: interval cannot be 2s; it can be 1ms to 1s",
                "10:21: flood cannot be 1000001; it can be 1 to 1000000",
                "10:49: count cannot be 2000; it can be 2 to 128",
                "10:65: duration 5 has no unit; write 5s for seconds",
                "11:25: synAckAck must be true, false or a whole number, not the number -1; write `true` without quotes, or `false`",
                "11:49: attack cannot be 0; it can be 1 to 1000000",
                "11:65: destination cannot be 9999999; it can be 1 to 1000000",
                "12:31: source cannot be 0; it can be 1 to 67108864",
                "12:47: destination must be true, false or a whole number, not the text \"many\"; write `true` without quotes, or `false`",
            ],
        ),
        screens(
            "shape",
            "    - { name: a, icpm: { flood: 5 } }\n    - { name: b, ip: { sourceRout: true, spoofing: 1 } }\n    - { name: c, tcp: { portScan: { cuont: 5 }, sweep: 10, synFlood: fast } }\n    - { name: d, alarmWithoutDrop: maybe, tcp: [land] }\n    - { icmp: { flood: 5 } }\n    - { name: e, icmp: { flood: { a: 1 } } }\n",
            &[
                "8:18: unknown field \"icpm\"; did you mean \"icmp\"?",
                "9:24: unknown field \"sourceRout\"; did you mean \"sourceRoute\"?",
                "9:52: spoofing must be true or false, not the number 1; write `true` without quotes, or `false`",
                "10:37: unknown field \"cuont\"; did you mean \"count\"?",
                "10:56: sweep must be a mapping of count and interval, not the number 10; write `{ field: value }`, or one line `field: value` for each",
                "10:70: synFlood must be true, false or a mapping of attack, alarm, source and destination, not the text \"fast\"; write `true` without quotes, or `false`",
                "11:36: alarmWithoutDrop must be true or false, not the text \"maybe\"; write `true` without quotes, or `false`",
                "11:48: tcp must be a mapping, not a list; write `{ field: value }`, or one line `field: value` for each",
                "12:7: spec.screens[4] lacks the field \"name\"; add `name`",
                "13:33: flood must be a whole number from 0 to 4294967295, not a mapping; write only the digits, without unit or quotes",
            ],
        ),
        Case::spec(
            "of zones",
            &format!(
                "{INTERFACES}  zones: [{{ name: a, screen: egde }}, {{ name: b, screen: default }}]\n  screens:\n    - {{ name: edge }}\n    - {{ name: edge }}\n    - {{ name: self }}\n"
            ),
            &[
                "6:30: zone \"a\" names screen \"egde\", which does not exist; did you mean \"edge\"?",
                "9:15: screen \"edge\" is already defined on line 8; give one of them another name",
                "10:15: \"self\" is reserved and cannot be the name of a screen; choose another name",
            ],
        ),
        Case::spec(
            "nothing near",
            &format!("{INTERFACES}  zones: [{{ name: a, screen: strict }}, {{ name: b }}]\n"),
            &["6:30: zone \"a\" names screen \"strict\", which does not exist; the screens are default"],
        ),
    ]);
}

#[test]
fn screens_become_what_they_say() {
    let config = config(
        "  interfaces: [{ name: net1, zone: a }, { name: net2, zone: b }, { name: net3, zone: c }]
  zones: [{ name: a, screen: all }, { name: b, screen: default }, { name: c }]
  screens:
    - name: all
      alarmWithoutDrop: true
      icmp: { flood: 500, sweep: true, fragment: true, large: true, pingOfDeath: true }
      ip: { badOption: true, fragment: true, sourceRoute: true, recordRoute: true, timestamp: true, security: true, stream: true, spoofing: true, teardrop: true, unknownProtocol: true, extensionHeaders: true }
      tcp:
        { land: true, noFlags: true, synFin: true, finNoAck: true, winnuke: true, synFragment: true, portScan: { count: 20 },
          sweep: { interval: 1s }, synFlood: { attack: 100, source: 1024 }, synAckAck: true }
      udp: { flood: true, portScan: {}, sweep: false }
      sessionLimit: { source: true, destination: 1000 }
    - { name: nothing, icmp: , udp: { flood: false } }
",
    );
    let [all, nothing, builtin] = &config.screens[..] else {
        panic!("{:?}", config.screens)
    };
    let of_zones: Vec<_> = config
        .zones
        .iter()
        .map(|zone| zone.screen.map(|screen| &*config.screen(screen).name))
        .collect();
    assert_eq!(of_zones, [Some("all"), Some("default"), None]);

    assert!(all.alarm_without_drop && !all.builtin && all.line == 8);
    let scan = Scan {
        count: 10,
        interval: Duration::from_millis(5),
    };
    assert_eq!((all.icmp.flood, all.icmp.sweep), (Some(500), Some(scan)));
    assert!(all.icmp.fragment && all.icmp.large && all.icmp.ping_of_death);
    let every_ip = IpScreens {
        bad_option: true,
        fragment: true,
        source_route: true,
        record_route: true,
        timestamp: true,
        security: true,
        stream: true,
        spoofing: true,
        teardrop: true,
        unknown_protocol: true,
        extension_headers: true,
    };
    assert_eq!(all.ip, every_ip);
    let tcp = all.tcp;
    assert!(tcp.land && tcp.no_flags && tcp.syn_fin && tcp.fin_no_ack && tcp.winnuke && tcp.syn_fragment);
    assert_eq!(tcp.port_scan, Some(Scan { count: 20, ..scan }));
    let second = Duration::from_secs(1);
    assert_eq!(
        tcp.sweep,
        Some(Scan {
            interval: second,
            ..scan
        })
    );
    let flood = SynFlood {
        attack: 100,
        alarm: 512,
        source: 1024,
        destination: 2048,
    };
    assert_eq!((tcp.syn_flood, tcp.syn_ack_ack), (Some(flood), Some(512)));
    assert_eq!(
        (all.udp.flood, all.udp.port_scan, all.udp.sweep),
        (Some(1000), Some(scan), None)
    );
    assert_eq!(
        (all.session_limit.source, all.session_limit.destination),
        (Some(128), Some(1000))
    );

    let off = Screen {
        name: "nothing".to_owned(),
        line: 17,
        ..Screen::default()
    };
    assert_eq!(*nothing, off, "what is not written is off");
    assert_eq!(*builtin, Screen::builtin());
    assert!(builtin.builtin && !builtin.alarm_without_drop && builtin.tcp.land);
    assert_eq!(builtin.tcp.syn_flood, Some(SynFlood::default()));
}

#[test]
fn an_own_default_screen_hides_the_builtin_one() {
    let config = config(
        "  interfaces: [{ name: net1, zone: a }]\n  zones: [{ name: a, screen: default }]\n  screens: [{ name: default, udp: { flood: 7 } }]\n",
    );
    assert_eq!(config.screens.len(), 1);
    let screen = config.screen(config.zones[0].screen.unwrap());
    assert_eq!(
        (screen.builtin, screen.udp.flood, screen.tcp.land),
        (false, Some(7), false)
    );
}

#[test]
fn wires() {
    let wire = |name: &str, fields: &str, expected: &[&str]| {
        Case::spec(
            name,
            &format!("{INTERFACES}{ZONES}  forwarding: wire\n  wires:\n{fields}"),
            expected,
        )
    };
    check(&[
        wire(
            "two",
            "    - { name: w1, interfaces: [net1, net2] }\n    - { name: w2, interfaces: [net3, net4], arp: drop, nonIp: pass }\n",
            &[],
        ),
        wire(
            "ends",
            "    - { name: w1, interfaces: [net1, net9] }\n    - { name: w2, interfaces: [net1, net2, net3] }\n    - { name: w3, interfaces: [net2] }\n    - { name: w4, interfaces: [net4, net4] }\n    - { name: w4, interfaces: [] }\n    - { name: w6 }\n",
            &[
                "9:38: wire \"w1\" names interface \"net9\", which does not exist; did you mean \"net1\"?",
                "10:19: wire \"w2\" names 3 interfaces; a wire joins two: write `interfaces: [net1, net2]`",
                "10:32: interface \"net1\" is already in wire \"w1\"; each interface is an end of one wire",
                "11:19: wire \"w3\" names 1 interfaces; a wire joins two: write `interfaces: [net1, net2]`",
                "11:32: interface \"net2\" is already in wire \"w2\"; each interface is an end of one wire",
                "12:38: wire \"w4\" names interface \"net4\" twice; name the interface at its other end",
                "13:15: wire \"w4\" is already defined on line 12; give one of them another name",
                "13:19: wire \"w4\" names 0 interfaces; a wire joins two: write `interfaces: [net1, net2]`",
                "14:7: spec.wires[5] lacks the field \"interfaces\"; add `interfaces`",
            ],
        ),
        wire(
            "left over",
            "    - { name: w1, interfaces: [net1, net3] }\n",
            &[
                "5:49: interface \"net2\" is in no wire; name it under `interfaces` of a wire in spec.wires",
                "5:99: interface \"net4\" is in no wire; name it under `interfaces` of a wire in spec.wires",
            ],
        ),
        wire(
            "shape",
            "    - { name: w1, interfaces: [net1, net2], arp: no }\n    - { name: w2, interfaces: [net3, net4], nonip: pass }\n",
            &[
                "9:50: \"no\" is not a value of arp; it can be pass, drop",
                "10:45: unknown field \"nonip\"; did you mean \"nonIp\"?",
            ],
        ),
        Case::spec(
            "without wires",
            "  forwarding: wire\n  zones: [{ name: a }]\n  interfaces: [{ name: net1, zone: a }]\n",
            &["7:24: interface \"net1\" is in no wire; name it under `interfaces` of a wire in spec.wires"],
        ),
        Case::spec(
            "routed",
            &format!("{INTERFACES}{ZONES}  wires:\n    - {{ name: w1, interfaces: [net1, net9] }}\n"),
            &[
                "7:3: there are wires, but forwarding is \"routed\"; write `forwarding: wire`, or leave the wires out",
            ],
        ),
        Case::spec(
            "what needs routes and addresses",
            "  forwarding: wire
  interfaces: [{ name: net1, zone: a, addresses: [10.0.0.1/24] }, { name: net2, zone: b }]
  wires: [{ name: w1, interfaces: [net1, net2] }]
  zones: [{ name: a, hostInbound: [ping] }, { name: b }]
  screens: [{ name: s, ip: { spoofing: true } }]
  nat:
    pools: [{ name: p, addresses: [10.0.0.9] }]
    source: [{ name: p, from: a, to: b, translate: interface }]
    destination: [{ name: p, from: a, translate: off }]
    static: [{ name: p, from: a, prefix: 192.0.2.1, to: 192.0.2.2 }]
    answerNeighbours: false
",
            &[
                "6:39: interface \"net1\" has addresses, but forwarding is \"wire\"; leave them out: the firewall has no address on a wire",
                "8:35: warning: hostInbound of zone \"a\" has no effect, as forwarding is \"wire\"; leave it out: the firewall has no address on a wire",
                "9:30: screen \"s\" has `spoofing`, but forwarding is \"wire\"; leave it out: a wire has no routes to compare with",
                "11:5: nat has `pools`, but forwarding is \"wire\"; leave it out: a wire changes no address",
                "12:5: nat has `source`, but forwarding is \"wire\"; leave it out: a wire changes no address",
                "13:5: nat has `destination`, but forwarding is \"wire\"; leave it out: a wire changes no address",
                "14:5: nat has `static`, but forwarding is \"wire\"; leave it out: a wire changes no address",
                "15:5: nat has `answerNeighbours`, but forwarding is \"wire\"; leave it out: a wire changes no address",
            ],
        ),
    ]);
}

#[test]
fn wires_become_what_they_say() {
    let config = config(&format!(
        "{INTERFACES}{ZONES}  forwarding: wire\n  wires:\n    - {{ name: w1, interfaces: [net4, net1] }}\n    - {{ name: w2, interfaces: [net2, net3], arp: drop, nonIp: pass }}\n"
    ));
    assert_eq!(config.forwarding, Forwarding::Wire);
    let wires: Vec<_> = config
        .wires
        .iter()
        .map(|wire| (&*wire.name, wire.interfaces, wire.arp, wire.non_ip, wire.line))
        .collect();
    assert_eq!(
        wires,
        [
            (
                "w1",
                [InterfaceId(3), InterfaceId(0)],
                Passage::Pass,
                Passage::Drop,
                9
            ),
            (
                "w2",
                [InterfaceId(1), InterfaceId(2)],
                Passage::Drop,
                Passage::Pass,
                10
            ),
        ]
    );
    assert_eq!(config.interface(config.wires[0].interfaces[0]).name, "net4");
}

#[test]
fn tcp_ageing_gateways_and_timeouts() {
    check(&[
        Case::spec(
            "tcp",
            "  tcp: { window: lax, midstream: permitt, mss: 87 }\n",
            &[
                "5:18: \"lax\" is not a value of window; it can be strict, liberal",
                "5:34: \"permitt\" is not a value of midstream; did you mean \"permit\"?",
                "5:48: \"87\" is not a segment size; it can be 88 to 65495, none or path",
            ],
        ),
        Case::spec(
            "mss",
            "  tcp: { mss: 65496 }\n",
            &["5:15: \"65496\" is not a segment size; it can be 88 to 65495, none or path"],
        ),
        Case::spec(
            "mss, mistyped",
            "  tcp: { mss: paht, windows: strict }\n",
            &[
                "5:15: \"paht\" is not a segment size; did you mean \"path\"?",
                "5:21: unknown field \"windows\"; did you mean \"window\"?",
            ],
        ),
        Case::spec(
            "early ageing",
            "  sessions: { earlyAgeing: { high: 101, low: 0, timeout: 8d } }\n",
            &[
                "5:36: high cannot be 101; it can be 1 to 100",
                "5:46: low cannot be 0; it can be 1 to 100",
                "5:58: timeout cannot be 8d; it can be 1s to 7d",
            ],
        ),
        Case::spec(
            "early ageing, watermarks",
            "  sessions: { earlyAgeing: { high: 70, low: 70 } }\n",
            &[
                "5:45: early ageing would begin at 70 and end at 70 per cent; write a `low` that is less than `high`",
            ],
        ),
        Case::spec(
            "early ageing, low by default",
            "  sessions: { earlyAgeing: { high: 70 } }\n",
            &[
                "5:36: early ageing would begin at 70 and end at 80 per cent; write a `low` that is less than `high`",
            ],
        ),
        Case::spec(
            "early ageing, shape",
            "  sessions: { earlyAgeing: 20s }\n",
            &[
                "5:28: earlyAgeing must be true, false or a mapping of high, low and timeout, not the text \"20s\"; write `true` without quotes, or `false`",
            ],
        ),
        Case::spec(
            "algs",
            "  algs: [ftpp, sip, ftp]\n",
            &[
                "5:10: \"ftpp\" is not a value of algs; did you mean \"ftp\"?",
                "5:16: \"sip\" is not a value of algs; it can be ftp, tftp",
            ],
        ),
        Case::spec(
            "service timeouts",
            "  services:\n    - { name: a, tcp: 1, timeout: 500ms }\n    - { name: b, tcp: 1, timeout: 169h }\n    - { name: c, tcp: 1, timeout: 1500ms }\n    - { name: d, tcp: 1, timeout: never }\n    - { name: e, tcp: 1, timeuot: 8h }\n",
            &[
                "6:35: timeout cannot be 500ms; it can be 1s to 7d, in whole seconds",
                "7:35: timeout cannot be 169h; it can be 1s to 7d, in whole seconds",
                "8:35: timeout cannot be 1500ms; it can be 1s to 7d, in whole seconds",
                "9:35: \"never\" is not a duration; write a number and a unit: 90s, 5m, 2h",
                "10:26: unknown field \"timeuot\"; did you mean \"timeout\"?",
            ],
        ),
    ]);
}

#[test]
fn tcp_ageing_gateways_and_timeouts_become_what_they_say() {
    let defaults = config("  zones:\n");
    assert_eq!(defaults.tcp, Tcp::default());
    let Tcp {
        window,
        midstream,
        mss,
    } = defaults.tcp;
    assert_eq!(
        (window, midstream, mss),
        (Window::Strict, Midstream::Deny, Mss::None)
    );
    assert_eq!(
        (defaults.sessions.early_ageing, &defaults.algs[..]),
        (None, &[][..])
    );
    assert_eq!(defaults.forwarding, Forwarding::Routed);

    let written = config(
        "  tcp: { window: liberal, midstream: permit, mss: 1360 }\n  algs: [tftp, ftp, tftp]\n  services: [{ name: db, tcp: 5432, timeout: 8h }, { name: https, tcp: 443 }]\n  sessions: { earlyAgeing: { low: 60, timeout: 3s } }\n",
    );
    assert_eq!(
        written.tcp,
        Tcp {
            window: Window::Liberal,
            midstream: Midstream::Permit,
            mss: Mss::Bytes(1360)
        }
    );
    assert_eq!(written.algs, [Alg::Ftp, Alg::Tftp]);
    let timeouts: Vec<_> = written.services.iter().map(|service| service.timeout).collect();
    assert_eq!(timeouts, [Some(Duration::from_secs(8 * 3600)), None]);
    assert_eq!(
        written.sessions.early_ageing,
        Some(EarlyAgeing {
            high: 90,
            low: 60,
            timeout: Duration::from_secs(3)
        })
    );
    let switched = config("  tcp: { mss: path }\n  sessions: { earlyAgeing: true }\n");
    assert_eq!(switched.tcp.mss, Mss::Path);
    assert_eq!(switched.sessions.early_ageing, Some(EarlyAgeing::default()));
    assert_eq!(
        config("  tcp: { mss: none }\n  sessions: { earlyAgeing: false }\n").sessions,
        defaults.sessions
    );
}
