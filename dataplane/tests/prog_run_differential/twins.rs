//! The two worlds, and one packet through both.
//!
//! Every comparison that a packet allows is made where it runs: return code, bytes, counters, events, slow-path
//! requests. The session tables are compared when asked.

use bulkhead_testkit::verify_checksums;
use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use bulkhead_abi::{
    ControlRequest, Datagram, Disposition, Event, Flow, FlowKey4, FlowKey6, FrameHeader, FrameKind,
    Interface, Live, Mapping, MappingKey, NeighbourKey, PermitKey, RateState, Reason, Route4Key, Route6Key,
    RouteEntry, RouteKind, SLOW_PATH_BYTES, Screen, ScreenCount, ScreenKey, SlowPathRequest, interface_flags,
};
use bulkhead_dataplane::{
    bpf::{Object, Program, Sizes},
    compile::compile,
    stage,
};
use bulkhead_packet::{HeaderBuffer, Packet, PlainLoop, parse};
use bulkhead_pipeline::{
    Action, Table,
    host::{Asked, Handed, HostFirewall, HostTables, Outcome, named_counters},
};
use zerocopy::FromBytes as _;

use crate::{
    rules::{UNPAIRED, ruleset},
    traffic::{self, mac, words},
};

/// Judgement numbers are ahead of table numbers, so that one used for the other is found out.
const JUDGED: u32 = 1000;

/// The verdict as each hook's return code (include/uapi/linux/pkt_cls.h, bpf.h).
fn code(program: Program, action: Action) -> u32 {
    match (program, action) {
        (Program::Xdp, Action::Drop) => 1,
        (Program::Xdp, Action::Redirect) => 4,
        (Program::Xdp, _) => 2,
        (_, Action::Drop | Action::NextHook | Action::Stage | Action::Held) => 2,
        (_, Action::Pass) => 0,
        (_, Action::Redirect | Action::RedirectPeer | Action::RedirectNeighbour) => 7,
    }
}

/// What user space asks of a session.
#[derive(Clone, Copy, Debug)]
pub enum Ageing {
    Clear,
    /// If idle for so many ms; 0: its own timeout.
    Mark(u32),
    Collect(u32),
}

/// Both worlds.
pub struct Twins {
    object: Object,
    pub host: HostFirewall,
    events: aya::maps::RingBuf<aya::maps::MapData>,
    requests: aya::maps::RingBuf<aya::maps::MapData>,
    frames: aya::maps::RingBuf<aya::maps::MapData>,
    counters: Vec<u64>,
    interfaces: [u32; 3],
    generation: u32,
    nat: bool,
    screens: bool,
    epoch: u32,
    /// Persistent mappings made so far.
    mappings: u32,
}

impl Twins {
    pub fn new(interfaces: [u32; 3], nat: bool, screens: bool) -> Self {
        let sizes = Sizes {
            sessions: 8192,
            half_open: 16_384,
            rules: 1024,
            addresses: 4096,
            routes: 256,
            neighbours: 256,
        };
        let mut object = Object::load(&sizes).expect("the kernel takes the object");
        let events = object.ring_buffer("EVENTS").expect("EVENTS");
        let requests = object.ring_buffer("SLOW_PATH").expect("SLOW_PATH");
        let frames = object.ring_buffer("FRAMES").expect("FRAMES");
        let counters = object.counters().expect("counters");
        let host = HostFirewall::new(HostTables::new(8192, 16_384));
        let mut twins = Self {
            object,
            host,
            events,
            requests,
            frames,
            counters,
            interfaces,
            generation: 0,
            nat,
            screens,
            epoch: 0,
            mappings: 0,
        };
        twins.topology();
        twins.commit(true);
        twins
    }

    fn interface(&self, number: usize, address4: &str, address6: &str, mtu: u32, flags: u32) {
        let facts = Interface {
            mac: mac(number as u8),
            reserved: 0,
            mtu,
            flags: interface_flags::DATA | flags,
            address4_be: words(address4.parse().unwrap())[0],
            address6_be: words(address6.parse().unwrap()),
            ..Interface::default()
        };
        let ifindex = self.interfaces[number];
        self.object.maps.interfaces.set(&ifindex, &facts).unwrap();
        self.host.tables.interfaces.set(&ifindex, &facts);
        for (address, link, all) in [(address4, 24, 32), (address6, 64, 128)] {
            self.route(address, link, RouteKind::Unicast, ifindex, None);
            self.route(address, all, RouteKind::Local, ifindex, None);
        }
    }

    fn route(&self, prefix: &str, bits: u32, kind: RouteKind, ifindex: u32, gateway: Option<&str>) {
        let gateway: Option<IpAddr> = gateway.map(|address| address.parse().unwrap());
        let entry = RouteEntry {
            kind: kind as u32,
            ifindex,
            gateway_family: gateway.map_or(0, |address| if address.is_ipv4() { 4 } else { 6 }),
            gateway_be: gateway.map_or([0; 4], words),
        };
        let address: IpAddr = prefix.parse().unwrap();
        if address.is_ipv4() {
            let key = Route4Key {
                bits,
                address_be: words(address)[0],
            };
            self.object.maps.routes4.set(&key, &entry).unwrap();
            self.host.tables.routes4.set(&key, &entry);
        } else {
            let key = Route6Key {
                bits,
                address_be: words(address),
            };
            self.object.maps.routes6.set(&key, &entry).unwrap();
            self.host.tables.routes6.set(&key, &entry);
        }
    }

    pub fn neighbour(&self, number: usize, address: &str, known: bool) {
        let address: IpAddr = address.parse().unwrap();
        let family = if address.is_ipv4() { 4 } else { 6 };
        let key = NeighbourKey {
            ifindex: self.interfaces[number],
            family,
            address_be: words(address),
        };
        let mac = 0x0605_0403_0202 + u64::from(key.address_be[0].swap_bytes() & 0xff);
        if known {
            self.object.maps.neighbours.set(&key, &mac).unwrap();
            self.host.tables.neighbours.set(&key, &mac);
        } else {
            self.object.maps.neighbours.remove(&key).unwrap();
            self.host.tables.neighbours.remove(&key);
        }
    }

    fn topology(&self) {
        let [_, outside, _] = self.interfaces;
        self.interface(0, "10.1.0.1", "2001:db8:1::1", 1500, interface_flags::XDP_TARGET);
        self.interface(
            1,
            "198.51.100.1",
            "2001:db8:2::1",
            1500,
            interface_flags::XDP_TARGET,
        );
        self.interface(2, "10.3.0.1", "2001:db8:3::1", 1300, interface_flags::PEER);
        self.route("0.0.0.0", 0, RouteKind::Unicast, outside, Some("198.51.100.254"));
        self.route("::", 0, RouteKind::Unicast, outside, Some("2001:db8:2::fe"));
        self.route("203.0.113.0", 24, RouteKind::Reject, 0, None);
        self.route("10.1.0.255", 32, RouteKind::NotForwarded, 0, None);
        for (number, address) in [
            (0, "10.1.0.2"),
            (0, "10.1.0.3"),
            (0, "2001:db8:1::2"),
            (0, "2001:db8:1::3"),
            (1, "198.51.100.254"),
            (1, "2001:db8:2::fe"),
            (2, "10.3.0.2"),
            (2, "2001:db8:3::2"),
        ] {
            self.neighbour(number, address, true);
        }
    }

    /// Puts a new generation in force. `open` permits more than its opposite.
    pub fn commit(&mut self, open: bool) {
        self.generation += 1;
        let indices = self.interfaces.map(Some);
        let (compiled, addresses) =
            compile(&ruleset(self.nat, self.screens, open), self.generation, &indices)
                .expect("a ruleset that fits");
        stage::stage(&self.object.maps, &compiled).expect("room in the tables");
        // The groups are the same in every generation.
        stage::addresses(&self.object.maps, &addresses).expect("room in the tables");
        let tables = &self.host.tables;
        tables
            .settings
            .set(&(compiled.generation & 1), &compiled.settings);
        tables.zones.load(compiled.zones);
        tables.hosts4.clear();
        tables.hosts4.load(addresses.hosts4);
        tables.hosts6.clear();
        tables.hosts6.load(addresses.hosts6);
        tables.prefixes4.clear();
        tables.prefixes4.load(addresses.prefixes4);
        tables.prefixes6.clear();
        tables.prefixes6.load(addresses.prefixes6);
        tables.services.load(compiled.services);
        tables.vectors.load(compiled.vectors);
        tables.any_vectors.load(compiled.any_vectors);
        tables.rules.load(compiled.rules);
        tables.nat_rules.load(compiled.nat_rules);
        tables.pools.load(compiled.pools);
        tables.nat_addresses4.load(compiled.nat_addresses4);
        tables.nat_addresses6.load(compiled.nat_addresses6);
        tables.service_timeouts.load(compiled.service_timeouts);
        tables.limit_rules.load(compiled.limit_rules);
        tables.screens.load(compiled.screens);
        self.go_live();
    }

    pub fn new_epoch(&mut self) {
        self.epoch += 1;
        self.go_live();
    }

    fn go_live(&mut self) {
        let judgement = self.generation + JUDGED;
        for (operation, argument) in [(1, judgement), (2, self.epoch)] {
            let mut request = ControlRequest {
                operation,
                argument,
                ..ControlRequest::default()
            };
            request.key[0] = self.generation;
            assert!(self.object.control(&request).expect("the control program runs"));
        }
        let live = Live {
            generation: judgement,
            tables: self.generation,
            fib_epoch: self.epoch,
            reserved: 0,
        };
        assert_eq!(self.object.maps.live.get(&0).unwrap(), Some(live));
        self.host.tables.live.set(live);
    }

    /// Asks for something to be done to a session in both worlds; both must agree whether it was.
    pub fn age(&mut self, family: u8, key: &FlowKey6, ageing: Ageing) {
        let mut words = [0; 10];
        let ports = u32::from(key.destination_port) << 16 | u32::from(key.source_port);
        if family == 4 {
            words[..4].copy_from_slice(&[key.source_be[0], key.destination_be[0], ports, key.protocol]);
        } else {
            words[..4].copy_from_slice(&key.source_be);
            words[4..8].copy_from_slice(&key.destination_be);
            (words[8], words[9]) = (ports, key.protocol);
        }
        let (operation, argument) = match ageing {
            Ageing::Clear => (5, 0),
            Ageing::Mark(early_ms) => (40, early_ms),
            Ageing::Collect(early_ms) => (42, early_ms),
        };
        let request = ControlRequest {
            operation: operation + u32::from(family == 6),
            argument,
            key: words,
        };
        let done = self.object.control(&request).expect("the control program runs");
        self.synchronise();
        let host = match ageing {
            Ageing::Clear => self.host.expire(family, key, true),
            Ageing::Mark(early_ms) => self.host.mark(family, key, early_ms),
            Ageing::Collect(early_ms) => self.host.collect(family, key, early_ms),
        };
        assert_eq!(host, done, "{ageing:?} {key:?}");
        // Events and counters of both.
        let kernel = self.kernel_events();
        assert_eq!(
            kernel,
            self.host
                .tables
                .take_events()
                .into_iter()
                .map(normalised_event)
                .collect::<Vec<_>>()
        );
        self.counters = self.object.counters().unwrap();
    }

    /// Sets the host's clock to the kernel's coarse one.
    fn synchronise(&self) {
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC_COARSE).expect("a clock");
        self.host
            .tables
            .set_now_ns(now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64);
    }

    fn kernel_events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(item) = self.events.next() {
            events.push(normalised_event(
                Event::read_from_bytes(&item).expect("an event's bytes"),
            ));
        }
        events
    }

    fn kernel_requests(&mut self) -> Vec<Asked> {
        let mut asked = Vec::new();
        while let Some(item) = self.requests.next() {
            let request = SlowPathRequest::read_from_bytes(&item).expect("a request's bytes");
            assert!(request.length as usize <= SLOW_PATH_BYTES);
            asked.push(Asked {
                kind: traffic::slow_path_kind(request.kind),
                ifindex: request.ifindex,
                mtu: request.mtu,
                packet: request.packet[..request.length as usize].to_vec(),
            });
        }
        asked
    }

    fn kernel_frames(&mut self) -> Vec<Handed> {
        let mut handed = Vec::new();
        while let Some(item) = self.frames.next() {
            let (header, frame) = FrameHeader::read_from_prefix(&item).expect("a header's bytes");
            handed.push(Handed {
                kind: FrameKind::from_number(header.kind).expect("a kind"),
                ifindex: header.ifindex,
                argument: header.argument,
                frame: frame[..header.length as usize].to_vec(),
            });
        }
        handed
    }

    /// Compares what is remembered of datagrams in fragments.
    pub fn compare_datagrams(&self) -> usize {
        let mut kernel = BTreeMap::new();
        self.object
            .maps
            .fragments
            .for_each(|key, datagram| {
                kernel.insert(*key, timeless(*datagram));
            })
            .unwrap();
        let host: BTreeMap<_, _> = self
            .host
            .tables
            .fragments
            .entries()
            .into_iter()
            .map(|(key, datagram)| (key, timeless(datagram)))
            .collect();
        assert_eq!(kernel, host);
        host.len()
    }

    /// One packet through both; what the host said.
    pub fn run(&mut self, program: Program, number: usize, bytes: &[u8]) -> Outcome {
        // Loopback, the first interface, is what a test run assumes unless told otherwise.
        let told = if number == 0 { 0 } else { self.interfaces[number] };
        let kernel = self
            .object
            .test_run(program, bytes, told, 1)
            .unwrap_or_else(|error| panic!("{error}: {} bytes {bytes:02x?}", bytes.len()));
        // At once: what the clock says must be what the kernel read.
        self.synchronise();
        self.synchronise_rates();
        let counters = self.object.counters().expect("counters");
        let moved: Vec<u64> = counters
            .iter()
            .zip(&self.counters)
            .map(|(now, before)| now - before)
            .collect();
        self.counters = counters;
        let draws = self.draws(&kernel.packet, &moved);
        self.host.tables.script_random(draws);
        let ifindex = self.interfaces[number];
        let host = match program {
            Program::Xdp => self.host.established(ifindex, bytes),
            Program::Egress => self.host.host_egress(ifindex, bytes, 0, false),
            _ => self.host.ingress(ifindex, bytes),
        };
        let what = || {
            format!(
                "{program:?} on {number}: {bytes:02x?}\nhost: {:?} {:?}",
                host.verdict, host.delta
            )
        };
        assert_eq!(named_counters(&moved), host.delta, "counters; {}", what());
        assert_eq!(
            kernel.code,
            code(program, host.verdict.action),
            "return code; {}",
            what()
        );
        // A packet whose rewrite failed half way is dropped, whatever is in it.
        if host.verdict.reason != Reason::RewriteFailed {
            assert_eq!(
                packet_of(program, &kernel.packet, &host),
                host.bytes,
                "bytes; {}",
                what()
            );
        }
        self.compare_rates();
        let forwarded = matches!(
            host.verdict.action,
            Action::Redirect | Action::RedirectPeer | Action::RedirectNeighbour
        );
        // What was right when it came is right when it goes, says code that is neither world's.
        if forwarded && verify_checksums(bytes).is_ok() {
            let verified = verify_checksums(&kernel.packet);
            assert_eq!(verified, Ok(()), "checksums; {}", what());
        }
        assert_eq!(self.kernel_requests(), host.asked, "slow path; {}", what());
        assert_eq!(
            self.kernel_frames(),
            host.handed,
            "frames handed over; {}",
            what()
        );
        let events: Vec<Event> = host.events.iter().copied().map(normalised_event).collect();
        assert_eq!(self.kernel_events(), events, "events; {}", what());
        host
    }

    /// Sets the host's clock to a time at which its rates do what the kernel's did with the packet that just went through: this
    /// thread may have been stopped in between for longer than the rest of somebody's second.
    fn synchronise_rates(&self) {
        for (key, host) in self.host.tables.screen_rates.entries() {
            let kernel = self.kernel_rate(&key);
            if kernel.began_ns != host.began_ns {
                self.host.tables.set_now_ns(kernel.began_ns);
            } else if kernel.packets != host.packets {
                let last_ns = kernel.began_ns + 999_999_999;
                let now_ns = bulkhead_pipeline::Clock::now_ns(&self.host.tables);
                self.host.tables.set_now_ns(now_ns.min(last_ns));
            }
        }
    }

    fn kernel_rate(&self, key: &ScreenKey) -> RateState {
        let rate = self.object.maps.screen_rates.get(key).expect("readable");
        rate.unwrap_or_else(|| panic!("the kernel has no rate of {key:?}"))
    }

    /// Compares the screens' rates, and makes their times the same.
    fn compare_rates(&self) {
        for (key, host) in self.host.tables.screen_rates.entries() {
            let kernel = self.kernel_rate(&key);
            assert_eq!(kernel.packets, host.packets, "rate of {key:?}");
            assert_eq!(kernel.until_ns != 0, host.until_ns != 0, "attack on {key:?}");
            self.host.tables.screen_rates.set(&key, &kernel);
        }
    }

    /// Compares what the screens have counted.
    pub fn compare_screens(&self) {
        for zone in 0..4 {
            for screen in Screen::ALL {
                let index = ScreenCount::index(zone, *screen as u32);
                let host = self.host.tables.screen_counts.get(&index).unwrap_or_default();
                let kernel = self.object.screen_count(zone, *screen as u32).expect("counts");
                assert_eq!(kernel, host, "{screen:?} of zone {zone}");
            }
        }
    }

    /// The random numbers that lead the host where chance has led the kernel.
    fn draws(&mut self, packet: &[u8], moved: &[u64]) -> Vec<u32> {
        let mut draws = Vec::new();
        let translated = headers(packet);
        let made = moved[Reason::SLOT_NAT_MAPPINGS_CREATED as usize] != 0;
        let changed = moved[Reason::SLOT_NAT_PORTS_CHANGED as usize] != 0;
        let mut port = translated.map_or(0, |packet| packet.source_port);
        if made {
            // Its number, which only compares with itself; and it may be there although its session is not.
            self.mappings += 1;
            draws.push(self.mappings);
            let host = &self.host.tables.mappings;
            self.object
                .maps
                .mappings
                .for_each(|key, mapping| {
                    if host.get(key).is_none() {
                        port = mapping.outside_port;
                    }
                })
                .unwrap();
        }
        let unpaired = translated.and_then(|packet| {
            let source = traffic::address(packet.family, packet.source_be);
            UNPAIRED
                .iter()
                .find_map(|(first, count)| Some((place(first.parse().unwrap(), source, *count)?, *count)))
        });
        if moved[Reason::SessionCreated as usize] != 0
            && let Some((index, count)) = unpaired
        {
            draws.push(towards(index, count));
        }
        if changed {
            draws.push(towards(u32::from(port) - 1024, 64_512));
        }
        draws
    }

    /// Compares mappings and what they permit, but for times and chance.
    fn compare_mappings(&self) {
        let comparable = |mapping: &Mapping| Mapping {
            last_used_ns: 0,
            number: 0,
            ..*mapping
        };
        let text = |key: &dyn std::fmt::Debug| format!("{key:?}");
        let maps = &self.object.maps;
        let tables = &self.host.tables;
        let mut kernel = BTreeMap::new();
        maps.mappings
            .for_each(|key, mapping| {
                kernel.insert(text(key), comparable(mapping));
            })
            .unwrap();
        let entries = tables.mappings.entries();
        let host: BTreeMap<_, _> = entries
            .iter()
            .map(|(key, mapping)| (text(key), comparable(mapping)))
            .collect();
        assert_eq!(kernel, host, "mappings");
        let mut kernel = BTreeMap::new();
        maps.mapping_ends
            .for_each(|key, outside| {
                kernel.insert(text(key), *outside);
            })
            .unwrap();
        let entries = tables.mapping_ends.entries();
        let host: BTreeMap<_, _> = entries
            .iter()
            .map(|(key, outside)| (text(key), *outside))
            .collect();
        assert_eq!(kernel, host, "inside ends of mappings");
        let anonymous = |key: &PermitKey| {
            let mut key = *key;
            key.outside.identity = 0;
            text(&key)
        };
        let mut kernel = Vec::new();
        maps.permits
            .for_each(|key, _| kernel.push(anonymous(key)))
            .unwrap();
        let mut host: Vec<_> = tables
            .permits
            .entries()
            .iter()
            .map(|(key, _)| anonymous(key))
            .collect();
        kernel.sort();
        host.sort();
        assert_eq!(kernel, host, "permits");
    }

    /// Ends a persistent mapping in both worlds; both must agree.
    pub fn expire_mapping(&mut self, outside: &MappingKey) {
        let mut key = [0; 10];
        key[..4].copy_from_slice(&outside.address_be);
        key[4] =
            u32::from(outside.port) | u32::from(outside.protocol) << 16 | u32::from(outside.family) << 24;
        let request = ControlRequest {
            operation: 22,
            argument: 0,
            key,
        };
        let ended = self.object.control(&request).expect("the control program runs");
        assert_eq!(self.host.expire_mapping(outside, 0, true), ended);
        self.counters = self.object.counters().unwrap();
    }

    /// Compares the session tables, the counts of sessions per address, and the mappings.
    pub fn compare_flows(&self) -> usize {
        self.compare_mappings();
        let mut count = 0;
        let mut limits = HashMap::new();
        self.object
            .maps
            .limits
            .for_each(|key, count| {
                limits.insert(*key, *count);
            })
            .unwrap();
        assert_eq!(limits, self.host.tables.limits.entries().into_iter().collect());
        for table in [Table::Established, Table::HalfOpen] {
            let maps = &self.object.maps;
            let (map4, map6) = match table {
                Table::Established => (&maps.flows4, &maps.flows6),
                Table::HalfOpen => (&maps.half_open4, &maps.half_open6),
            };
            let mut kernel4 = BTreeMap::new();
            map4.for_each(|key: &FlowKey4, flow| {
                kernel4.insert(sortable(&widened(key)), normalised(*flow));
            })
            .unwrap();
            let mut kernel6 = BTreeMap::new();
            map6.for_each(|key: &FlowKey6, flow| {
                kernel6.insert(sortable(key), normalised(*flow));
            })
            .unwrap();
            for (family, kernel) in [(4, kernel4), (6, kernel6)] {
                let host: BTreeMap<_, _> = self
                    .host
                    .tables
                    .flows(table, family)
                    .entries()
                    .into_iter()
                    .map(|(key, flow)| (sortable(&key), normalised(flow)))
                    .collect();
                count += host.len();
                assert_eq!(
                    kernel.keys().collect::<Vec<_>>(),
                    host.keys().collect::<Vec<_>>(),
                    "keys of {table:?} {family}"
                );
                for (key, flow) in &host {
                    assert_eq!(&kernel[key], flow, "flow {key:?} of {table:?}");
                }
            }
        }
        count
    }
}

/// Without what two clocks say.
fn timeless(datagram: Datagram) -> Datagram {
    Datagram {
        created_ns: 0,
        last_ns: 0,
        ..datagram
    }
}

/// The packet of what a test run returned: XDP's begins with the note for TCX, if there is one.
fn packet_of<'a>(program: Program, kernel: &'a [u8], host: &Outcome) -> &'a [u8] {
    const NOTE_BYTES: usize = 4;
    if program == Program::Xdp && kernel.len() == host.bytes.len() + NOTE_BYTES {
        &kernel[NOTE_BYTES..]
    } else {
        kernel
    }
}

fn widened(key: &FlowKey4) -> FlowKey6 {
    FlowKey6 {
        source_be: [key.source_be, 0, 0, 0],
        destination_be: [key.destination_be, 0, 0, 0],
        source_port: key.source_port,
        destination_port: key.destination_port,
        protocol: key.protocol,
    }
}

pub fn sortable(key: &FlowKey6) -> ([u32; 4], [u32; 4], u16, u16, u32) {
    (
        key.source_be,
        key.destination_be,
        key.source_port,
        key.destination_port,
        key.protocol,
    )
}

/// Without what differs by nature, and what says nothing.
fn normalised(mut flow: Flow) -> Flow {
    flow.last_seen_ns = 0;
    flow.created_ns = 0;
    flow.session_id = 0;
    if flow.disposition != Disposition::Forward as u8 {
        flow.mtu = 0;
        flow.ingress_mac_low = 0;
        flow.ingress_mac_high = 0;
    }
    flow
}

fn normalised_event(event: Event) -> Event {
    Event {
        time_ns: 0,
        session_id: 0,
        created_ns: 0,
        ..event
    }
}

/// A random number that leads to `number` of those below `limit`.
fn towards(number: u32, limit: u32) -> u32 {
    (u64::from(number) << 32).div_ceil(u64::from(limit)) as u32
}

/// The place of an address in a range of `count` from `first` on.
fn place(first: IpAddr, address: IpAddr, count: u32) -> Option<u32> {
    let place = match (first, address) {
        (IpAddr::V4(first), IpAddr::V4(address)) => {
            u128::from(u32::from(address)).checked_sub(u128::from(u32::from(first)))
        }
        (IpAddr::V6(first), IpAddr::V6(address)) => u128::from(address).checked_sub(u128::from(first)),
        _ => None,
    };
    place
        .filter(|place| *place < u128::from(count))
        .map(|place| place as u32)
}

/// The headers of a frame, if it is one to be judged.
pub fn headers(frame: &[u8]) -> Option<Packet> {
    let mut packet = Packet::default();
    parse(
        &PlainLoop,
        &HeaderBuffer::from_frame(frame),
        frame.len() as u32,
        false,
        &mut packet,
    )
    .ok()?;
    Some(packet)
}
