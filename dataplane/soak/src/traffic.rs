//! Real conversations: some that must always succeed, some that may, some that must not; and connections that stay.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use bulkhead_testkit::{Outcome, Stream};
use serde::Serialize;

use crate::{
    random::Random,
    world::{TCP_PORTS, UDP_PORTS, World},
};

/// Threads that converse.
const WORKERS: usize = 4;
/// How long a permitted conversation may take to answer: a lost SYN is repeated after 1 and 3 seconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a denied one is waited for.
const IMPATIENCE: Duration = Duration::from_millis(400);
/// Times a datagram is sent that nobody repeats: floods fill the hosts' queues too.
const TRIES: u32 = 5;

/// What must become of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// Every ruleset permits it.
    Always,
    /// Some do.
    Sometimes,
    /// None does.
    Never,
}

/// How hosts talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tcp(u16),
    Udp(u16),
    Ping,
}

/// Who talks with whom; the destination is a host with servers on every port.
const CONVERSATIONS: &[(&str, &str, Expected)] = &[
    ("alice", "web", Expected::Always),
    ("bob", "web", Expected::Always),
    ("alice", "world", Expected::Always),
    ("bob", "world", Expected::Always),
    ("world", "web", Expected::Always),
    ("storm", "web", Expected::Always),
    ("web", "alice", Expected::Never),
    ("bob", "alice", Expected::Never),
    ("storm", "alice", Expected::Never),
    ("storm", "world", Expected::Never),
];

/// Connections that stay for the whole time: from, to, and whether over IPv6.
const STREAMS: &[(&str, &str, bool)] = &[
    ("alice", "web", false),
    ("bob", "web", true),
    ("alice", "world", true),
    ("bob", "world", false),
];

/// Conversations that were answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Answered {
    /// TCP transfers whose content arrived unchanged.
    pub tcp: u64,
    /// UDP probes that came back whole.
    pub udp: u64,
    /// Pings.
    pub ping: u64,
}

/// What the traffic came to.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Tally {
    /// Conversations answered.
    pub answered: Answered,
    /// Conversations that went unanswered, as some or all rulesets want it.
    pub denied: u64,
    /// Datagrams that had to be sent again.
    pub repeated: u64,
    /// Bytes of content.
    pub bytes: u64,
    /// Exchanges over the connections that stayed.
    pub exchanges: u64,
    /// The longest such an exchange took.
    pub longest_exchange: Duration,
    /// What should not have happened.
    pub problems: Vec<String>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.answered.tcp += other.answered.tcp;
        self.answered.udp += other.answered.udp;
        self.answered.ping += other.answered.ping;
        self.denied += other.denied;
        self.repeated += other.repeated;
        self.bytes += other.bytes;
        self.exchanges += other.exchanges;
        self.longest_exchange = self.longest_exchange.max(other.longest_exchange);
        self.problems.extend(other.problems);
    }
}

/// Converses until told to stop.
pub fn run(world: &World, stop: &AtomicBool, mut random: Random) -> Result<Tally> {
    let streams = STREAMS
        .iter()
        .map(|(from, to, six)| {
            let server = if *six {
                world.lab.host(to).v6_port(TCP_PORTS[0])
            } else {
                world.lab.host(to).v4_port(TCP_PORTS[0])
            };
            let client = world.lab.host(from).client().timeout(PATIENCE);
            Stream::start(client.tcp(server)?.answered()?, 64 * 1024)
        })
        .collect::<Result<Vec<_>>>()?;
    let mut tally = thread::scope(|scope| -> Result<Tally> {
        let workers: Vec<_> = (0..WORKERS)
            .map(|_| {
                let random = random.fork();
                scope.spawn(move || work(world, stop, random))
            })
            .collect();
        let mut tally = Tally::default();
        for worker in workers {
            tally.add(
                worker
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?,
            );
        }
        Ok(tally)
    })?;
    for (stream, (from, to, _)) in streams.iter().zip(STREAMS) {
        // Still alive at the very end.
        if let Err(error) = stream.advance(2) {
            tally.problems.push(format!("{from} to {to}: {error:#}"));
        }
        let report = stream.report();
        tally.exchanges += report.exchanges;
        tally.bytes += report.bytes;
        tally.longest_exchange = tally.longest_exchange.max(report.longest);
    }
    Ok(tally)
}

/// One conversation after the other.
fn work(world: &World, stop: &AtomicBool, mut random: Random) -> Result<Tally> {
    let mut tally = Tally::default();
    while !stop.load(Ordering::Acquire) {
        let (from, to, expected) = *random.pick(CONVERSATIONS);
        let kind = match random.between(0, 9) {
            0..=3 => Kind::Tcp(TCP_PORTS[0]),
            4 => Kind::Tcp(*random.pick(&TCP_PORTS)),
            5 | 6 => Kind::Udp(UDP_PORTS[0]),
            7 => Kind::Udp(*random.pick(&UDP_PORTS)),
            _ => Kind::Ping,
        };
        let judged = matches!(kind, Kind::Tcp(80) | Kind::Udp(53) | Kind::Ping);
        let expected = match (expected, kind) {
            (Expected::Always, _) if judged => Expected::Always,
            (Expected::Always, Kind::Tcp(22)) => Expected::Never,
            (Expected::Always, _) => Expected::Sometimes,
            (other, _) => other,
        };
        let address = *random.pick(&world.lab.host(to).addresses());
        let outcome = converse(world, from, address, kind, expected, &mut random, &mut tally)?;
        let answered = outcome.is_none();
        match expected {
            Expected::Always if !answered => tally.problems.push(format!(
                "{from} to {address}, {kind:?}, always permitted: {}",
                outcome.unwrap_or_default()
            )),
            Expected::Never if answered => {
                tally.problems.push(format!(
                    "{from} to {address}, {kind:?}, never permitted, was answered"
                ));
            }
            _ => tally.denied += u64::from(!answered),
        }
        ensure!(
            tally.problems.len() < 1000,
            "a thousand problems are enough, the last: {:?}",
            tally.problems.last()
        );
        thread::sleep(Duration::from_millis(random.between(1, 30)));
    }
    Ok(tally)
}

/// Holds a conversation. `None`: it was answered as it should; otherwise what came instead.
fn converse(
    world: &World,
    from: &str,
    address: IpAddr,
    kind: Kind,
    expected: Expected,
    random: &mut Random,
    tally: &mut Tally,
) -> Result<Option<String>> {
    let patience = if expected == Expected::Always {
        PATIENCE
    } else {
        IMPATIENCE
    };
    let client = world.lab.host(from).client().timeout(patience);
    let tries = if expected == Expected::Always { TRIES } else { 1 };
    let mut last = None;
    for attempt in 0..tries {
        tally.repeated += u64::from(attempt > 0);
        let each = client.timeout(patience.min(Duration::from_secs(2)));
        last = match kind {
            // Repeats by itself.
            Kind::Tcp(port) => {
                let sizes = [random.between(0, 20), random.between(0, 20)].map(|power| (1 << power) - 1);
                let outcome = client.tcp_transfer((address, port).into(), sizes[0], sizes[1])?;
                return Ok(match outcome {
                    Outcome::Answered((transfer, conversation)) => {
                        tally.answered.tcp += 1;
                        tally.bytes += transfer.uploaded_bytes + transfer.downloaded_bytes;
                        // Some end in order, some with a reset, some just go.
                        match random.between(0, 2) {
                            0 => conversation.reset()?,
                            1 => conversation.close().unwrap_or(()),
                            _ => drop(conversation),
                        }
                        None
                    }
                    other => Some(other.describe()),
                });
            }
            Kind::Udp(port) => {
                let bytes = usize::try_from(random.between(12, 1300)).unwrap_or(12);
                let outcome = each.udp_probe((address, port).into(), bytes)?;
                tally.answered.udp += u64::from(outcome.is_answered());
                (!outcome.is_answered()).then(|| outcome.describe())
            }
            Kind::Ping => {
                let outcome = each.ping(address)?;
                tally.answered.ping += u64::from(outcome.is_answered());
                (!outcome.is_answered()).then(|| outcome.describe())
            }
        };
        if last.is_none() {
            break;
        }
    }
    Ok(last)
}
