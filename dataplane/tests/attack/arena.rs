//! Two hosts that talk, an attacker, and the firewall between them.
//!
//! `inside` (net1) talks with `outside` (net2) over one IPv4 and one IPv6 connection, translated by the firewall; the
//! attacker (net3) is what the default route leads to, so that answers to spoofed sources come back to it. A [`Siege`]
//! holds what was before and proves afterwards that nothing was lost, ended or left uncounted.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use bulkhead_dataplane::{
    bpf::Sizes,
    engine::{Engine, Options, Session},
    ruleset::{Action, HookMode, InterfaceRule, Policy, Ruleset, Zone},
};
use bulkhead_testkit::{
    Account, Balance, Host, HostSpec, Ledger, RawPort, Stream, TcpServer, Tool, ToolOutput, Topology,
    UdpServer,
};

use crate::{common, reasons::Ends};

/// Half-open and one-way sessions the firewall has room for, per family: few, so that floods fill them.
pub const HALF_OPEN: u32 = 2048;
/// Established sessions it has room for, per family.
const SESSIONS: u32 = 16_384;
/// The longest an exchange of a stream may take during an attack. Several times what the kernel needs to repeat a lost
/// segment twice; a connection that the attack ended never completes another.
const STALL: Duration = Duration::from_secs(3);
/// Content of one exchange, each way, bytes.
const EXCHANGE_BYTES: u64 = 16 * 1024;

/// Where the attacker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// In a zone of its own that may ask the servers of `outside` for http, dns and ping.
    Stranger,
    /// In the servers' zone, behind another interface: its packets are those of a neighbour.
    Neighbour,
}

/// The network under attack. The servers go before the namespaces they live in.
pub struct Arena {
    servers: (Vec<TcpServer>, Vec<UdpServer>),
    /// The firewall.
    pub engine: Engine,
    /// The network.
    pub lab: Topology,
}

impl Arena {
    /// With the hook that veth gets by default.
    pub fn new(position: Position) -> Result<Self> {
        Self::with(position, HookMode::Auto, |_| {})
    }

    /// With another hook, and the ruleset changed.
    pub fn with(position: Position, hook: HookMode, change: impl FnOnce(&mut Ruleset)) -> Result<Self> {
        let lab = Topology::builder("bht-a")
            .host(HostSpec::new("inside"))
            .host(HostSpec::new("outside"))
            .host(HostSpec::new("attacker").internet())
            .build()?;
        // The attacker knows the way to its victims: only the world's sources are spoofed ones.
        let attacker = lab.host("attacker");
        let mut netlink = attacker.namespace.netlink()?;
        netlink.add_route(
            Ipv4Addr::new(10, 77, 0, 0).into(),
            16,
            Some(attacker.firewall_v4.into()),
            None,
        )?;
        netlink.add_route("fd77::".parse()?, 16, Some(attacker.firewall_v6.into()), None)?;
        let mut rules = ruleset(position, hook);
        change(&mut rules);
        let options = Options {
            sizes: Sizes {
                sessions: SESSIONS,
                half_open: HALF_OPEN,
                ..Sizes::default()
            },
            ..Options::default()
        };
        let engine = lab.firewall().run(|| Engine::start(rules, &options))?;
        lab.resolve_neighbours()?;
        let outside = lab.host("outside");
        let (mut tcp, mut udp) = (Vec::new(), Vec::new());
        for address in outside.addresses() {
            tcp.push(TcpServer::start(&outside.namespace, (address, 80).into())?);
            udp.push(UdpServer::start(&outside.namespace, (address, 53).into())?);
        }
        Ok(Self {
            servers: (tcp, udp),
            engine,
            lab,
        })
    }

    /// The attacker.
    pub fn attacker(&self) -> &Host {
        self.lab.host("attacker")
    }

    /// The host under attack.
    pub fn outside(&self) -> &Host {
        self.lab.host("outside")
    }

    /// The host whose connections are to be held.
    pub fn inside(&self) -> &Host {
        self.lab.host("inside")
    }

    /// Opens the connections, lets them run, and notes how everything stands.
    pub fn besiege(&self) -> Result<Siege<'_>> {
        let ledger = Ledger::open(self.lab.firewall(), &self.engine)?;
        let mut streams = Vec::new();
        for server in &self.servers.0 {
            let conversation = self.inside().client().tcp(server.address())?.answered()?;
            streams.push(Stream::start(conversation, EXCHANGE_BYTES)?);
        }
        for stream in &streams {
            stream.advance(5)?;
            stream.pause()?;
        }
        let before = ledger.balance(self.lab.firewall(), &self.engine)?;
        let sessions = streams
            .iter()
            .map(|stream| self.session_of(stream.local()))
            .collect::<Result<_>>()?;
        Ok(Siege {
            arena: self,
            ledger,
            streams,
            sessions,
            before,
            began: Instant::now(),
        })
    }

    /// The TCP session of a client's socket.
    pub fn session_of(&self, client: SocketAddr) -> Result<Session> {
        let list = self.engine.sessions(
            &|session| session.protocol == 6 && session.original.source == client,
            2,
        )?;
        ensure!(list.total == 1, "{client} has {} sessions: {list:#?}", list.total);
        list.sessions.into_iter().next().context("one session")
    }

    /// Runs one of the attacks in `attack.py` from a host, by default towards its own gateway; the frames it sent.
    pub fn scapy(&self, from: &Host, attack: &str, arguments: &[(&str, String)]) -> Result<u64> {
        let mut words = vec![
            "-c".to_owned(),
            include_str!("attack.py").to_owned(),
            format!("attack={attack}"),
            format!("iface={}", from.interface),
            format!("me={}", mac(from.mac)),
            format!("gateway={}", mac(from.firewall_mac)),
        ];
        words.extend(arguments.iter().map(|(name, value)| format!("{name}={value}")));
        let output = Tool::new("/usr/bin/python3")
            .args(words)
            .run(&from.namespace)?
            .success()?;
        let sent = output.stdout.trim().parse();
        sent.with_context(|| format!("{attack} said \"{}\", {}", output.stdout, output.stderr))
    }

    /// So many SYNs from random sources to the outside's web server, one each `interval` (as hping3 writes it: `u200`).
    pub fn spoofed_syns(&self, count: u64, interval: &str) -> Result<ToolOutput> {
        let (count, target) = (count.to_string(), self.outside().v4.to_string());
        let spoofed = [
            "-S",
            "-p",
            "80",
            "--rand-source",
            "-q",
            "-i",
            interval,
            "-c",
            &count,
            &target,
        ];
        self.hping3(&spoofed)
    }

    /// Runs hping3 from the attacker. It ends with 1 when nobody answered, which is the point of most of it.
    pub fn hping3(&self, arguments: &[&str]) -> Result<ToolOutput> {
        let output = Tool::new("hping3")
            .args(arguments)
            .run(&self.attacker().namespace)?;
        ensure!(
            matches!(output.code, Some(0 | 1)) && output.stderr.contains("packets transmitted"),
            "hping3 {arguments:?}: {output:?}"
        );
        Ok(output)
    }
}

/// What `inside` may do, and what the attacker may.
fn ruleset(position: Position, hook: HookMode) -> Ruleset {
    let mut rules = common::ruleset(hook, true);
    let zone = match position {
        Position::Neighbour => 1,
        Position::Stranger => {
            rules.zones.push(Zone {
                name: "wild".into(),
                ..Zone::default()
            });
            2
        }
    };
    rules.interfaces.push(InterfaceRule {
        name: "net3".into(),
        zone,
        hook,
        ..InterfaceRule::default()
    });
    if position == Position::Stranger {
        rules.policies.push(Policy {
            name: "strangers".into(),
            from: vec![2],
            to: vec![1],
            destination: vec![0],
            service: vec![0, 1, 2],
            action: Action::Permit,
            ..Policy::default()
        });
    }
    rules
}

/// A MAC address as people write it.
fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

/// What somebody who watches the wire knows of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Numbers {
    /// What the server expects next of the client.
    pub client_next: u32,
    /// What the client expects next of the server.
    pub server_next: u32,
}

/// An attack under way.
pub struct Siege<'a> {
    arena: &'a Arena,
    ledger: Ledger,
    /// The established connections, IPv4 first.
    pub streams: Vec<Stream>,
    sessions: Vec<Session>,
    before: Balance,
    began: Instant,
}

impl Siege<'_> {
    /// Lets the connections run; they were at rest since the books were opened.
    pub fn run(&self) {
        self.streams.iter().for_each(Stream::resume);
    }

    /// How the sessions of the connections stood when the siege began.
    pub fn sessions(&self) -> &[Session] {
        &self.sessions
    }

    /// Learns the sequence numbers of a connection at rest, at the server's end. Leaves it at rest.
    pub fn numbers(&self, stream: &Stream) -> Result<Numbers> {
        let outside = self.arena.outside();
        let port = RawPort::open(&outside.namespace, &outside.interface)?;
        stream.resume();
        stream.advance(1)?;
        stream.pause()?;
        let mut last = None;
        // Longer than a delayed acknowledgement: the last word is the one that counts.
        let deadline = Instant::now() + Duration::from_millis(150);
        while Instant::now() < deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            if let Some(captured) = port.receive(left)? {
                last = segment(&captured.frame, stream.seen_as()).or(last);
            }
        }
        last.with_context(|| format!("no segment of {} came by", stream.seen_as()))
    }

    /// The attack is over: everything must stand as it stood, every frame be accounted for, and every reason that moved
    /// be one of those that such an attack ends in.
    pub fn lift(self, ends: &Ends) -> Result<Account> {
        self.run();
        for stream in &self.streams {
            // At least a few after the attack, and during it no fewer than one in the longest stall.
            stream.advance(3)?;
            let report = stream.report();
            ensure!(
                report.longest < STALL,
                "the connection of {} stalled: {report:?}",
                stream.local()
            );
            let least = self.began.elapsed().as_secs() / STALL.as_secs();
            ensure!(report.exchanges > least, "too little went over: {report:?}");
            stream.pause()?;
        }
        let after = self
            .ledger
            .balance(self.arena.lab.firewall(), &self.arena.engine)?;
        let account = after.since(&self.before);
        account.balanced();
        for (stream, before) in self.streams.iter().zip(&self.sessions) {
            let now = self.arena.session_of(stream.local())?;
            ensure!(
                (now.id, now.state, now.established, now.reply.clone().destination)
                    == (before.id, before.state, true, before.reply.destination)
                    && now.original.packets > before.original.packets,
                "the session did not hold: {before:#?} became {now:#?}"
            );
        }
        for family in [4, 6] {
            let list = self
                .arena
                .engine
                .sessions(&|session| session.family == family && !session.established, 0)?;
            // Two entries a session, but one of a session that nobody has answered.
            ensure!(
                list.total <= 2 * HALF_OPEN as usize,
                "{} half-open sessions are more than there is room for",
                list.total
            );
        }
        ends.check(&account).map_err(anyhow::Error::msg)?;
        Ok(account)
    }
}

/// The numbers in a client's segment, if the frame is one.
fn segment(frame: &[u8], client: SocketAddr) -> Option<Numbers> {
    let sliced = etherparse::SlicedPacket::from_ethernet(frame).ok()?;
    let source: IpAddr = match sliced.net.as_ref()? {
        etherparse::NetSlice::Ipv4(ip) => ip.header().source_addr().into(),
        etherparse::NetSlice::Ipv6(ip) => ip.header().source_addr().into(),
        etherparse::NetSlice::Arp(_) => return None,
    };
    let etherparse::TransportSlice::Tcp(tcp) = sliced.transport? else {
        return None;
    };
    (source == client.ip() && tcp.source_port() == client.port()).then(|| Numbers {
        client_next: tcp
            .sequence_number()
            .wrapping_add(u32::try_from(tcp.payload().len()).unwrap_or(0)),
        server_next: tcp.acknowledgment_number(),
    })
}
