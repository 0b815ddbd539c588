//! Floods in between: spoofed SYNs, datagrams nobody answers, blind segments, pings, fragments, garbage.
//!
//! Frames go out of the attackers' own interfaces, built once more for each. Bounded: at most [`RATE`] per second.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use bulkhead_testkit::{Frame, Host, RawPort};
use serde::Serialize;

use crate::{random::Random, world::World};

/// Frames per second, at most.
const RATE: f64 = 4000.0;

/// What was sent.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Floods {
    /// Floods.
    pub floods: u64,
    /// Frames.
    pub frames: u64,
}

#[derive(Clone, Copy)]
enum Kind {
    Syn,
    Udp,
    Ping,
    Blind,
    Fragment,
    Garbage,
}

const KINDS: &[Kind] = &[
    Kind::Syn,
    Kind::Syn,
    Kind::Udp,
    Kind::Ping,
    Kind::Blind,
    Kind::Fragment,
    Kind::Garbage,
];

/// One flood after the other, with pauses, until told to stop.
pub fn run(world: &World, stop: &AtomicBool, mut random: Random) -> Result<Floods> {
    let mut floods = Floods::default();
    let hosts = ["world", "storm"].map(|name| world.lab.host(name));
    let ports = hosts.map(|host| RawPort::open(&host.namespace, &host.interface));
    let [world_port, storm_port] = ports;
    let ports = [world_port?, storm_port?];
    while !stop.load(Ordering::Acquire) {
        thread::sleep(Duration::from_millis(random.between(200, 2000)));
        let from = usize::from(random.chance(50));
        let kind = *random.pick(KINDS);
        let count = random.between(500, 6000);
        floods.floods += 1;
        let began = Instant::now();
        for number in 0..count {
            if stop.load(Ordering::Acquire) {
                break;
            }
            let frame = frame(world, hosts[from], kind, &mut random);
            ports[from].send(&frame)?;
            floods.frames += 1;
            let ahead = Duration::from_secs_f64(number as f64 / RATE).saturating_sub(began.elapsed());
            if !ahead.is_zero() {
                thread::sleep(ahead);
            }
        }
    }
    for port in &ports {
        // The answers to spoofed sources, which nobody wanted.
        let _answers = port.drain()?;
    }
    Ok(floods)
}

/// A frame of a flood: from the host's interface, towards the server.
fn frame(world: &World, from: &Host, kind: Kind, random: &mut Random) -> Vec<u8> {
    let web = world.lab.host("web");
    let six = random.chance(30);
    let target: IpAddr = if six { web.v6.into() } else { web.v4.into() };
    let port = |random: &mut Random| u16::from_le_bytes(random.bytes::<2>()).max(1);
    let spoofed: IpAddr = if six {
        let [a, b, c] = [random.next() as u16, random.next() as u16, random.next() as u16];
        Ipv6Addr::new(0x2400 | (a & 0xff), b, c, 0, 0, 0, 0, 9).into()
    } else {
        Ipv4Addr::from_bits(random.next() as u32).into()
    };
    let own: IpAddr = if six { from.v6.into() } else { from.v4.into() };
    let to = |source: IpAddr| Frame::ip(source, target).macs(from.mac, from.firewall_mac);
    match kind {
        Kind::Syn => to(spoofed)
            .tcp(port(random), 80)
            .syn()
            .seq(random.next() as u32)
            .build(),
        Kind::Udp => to(own)
            .udp(port(random), 53)
            .payload(&random.bytes::<24>())
            .build(),
        Kind::Ping => to(own)
            .echo_request(port(random), 1)
            .payload(&random.bytes::<32>())
            .build(),
        Kind::Blind => {
            // A guess at the connections from inside: the right addresses, any port, any number.
            let inside = world.lab.host(if random.chance(50) { "alice" } else { "bob" });
            let source: IpAddr = if six { inside.v6.into() } else { inside.v4.into() };
            let segment = to(source).tcp(port(random), 80).seq(random.next() as u32);
            match random.between(0, 3) {
                0 => segment.rst(),
                1 => segment.fin().ack(random.next() as u32),
                2 => segment.syn(),
                _ => segment.ack(random.next() as u32).payload(b"no"),
            }
            .build()
        }
        Kind::Fragment => {
            let offset = u16::from_le_bytes(random.bytes::<2>()) & 0x1ff8;
            to(own)
                .fragment(offset, random.chance(70), random.next() as u32)
                .protocol(17)
                .payload(&random.bytes::<64>())
                .build()
        }
        Kind::Garbage => {
            let mut frame = to(own).tcp(port(random), 80).syn().build();
            // Anywhere behind the addresses of the link; a tag in place of the type would be the kernel's to refuse.
            for _ in 0..random.between(1, 12) {
                let at = 14 + usize::from(random.next() as u8) % (frame.len() - 14);
                frame[at] = random.next() as u8;
            }
            let length = random.between(14, frame.len() as u64);
            frame.truncate(usize::try_from(length).unwrap_or(14));
            frame
        }
    }
}
