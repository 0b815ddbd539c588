//! Servers in every segment, and the conversations between them: real sockets, real stacks.
//!
//! Assumes nothing of the firewall. A server that is down looks like a denial, so each one is first asked from its
//! own host. Whoever should be answered is given time; whoever should not be is listened to for half a second,
//! where answers take a few milliseconds and the kernel repeats a SYN only after a second.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bulkhead_testkit::{HttpServer, Outcome, TcpConversation, TcpServer, Topology, UdpServer};
use serde::Serialize;

use super::matrix::{Conversation, Fate, Protocol};
use super::segments::{Family, Segment, host};
use super::stop::Stop;

/// How long an answer that should come may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long silence is listened to.
const SILENCE: Duration = Duration::from_millis(500);
/// Conversations at one time. Most of them wait.
const AT_ONCE: usize = 32;
/// The port of the servers whose connections are held open.
const HTTPS: u16 = 443;

/// What came of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "outcome")]
pub(super) enum CameTo {
    /// The server answered.
    Reached {
        /// The client as the server saw it; ping does not say.
        seen_as: Option<SocketAddr>,
        /// The client as it sees itself.
        own: Option<SocketAddr>,
    },
    /// Nothing came back in time.
    Silence,
    /// Somebody said no: a TCP reset or an ICMP error.
    Refused {
        /// What it was.
        with: String,
    },
    /// It began and went wrong, or this host could not send.
    Broken {
        /// In which way.
        how: String,
    },
}

impl CameTo {
    /// Whether this is what was to come.
    pub(super) const fn is(&self, fate: Fate) -> bool {
        matches!(
            (self, fate),
            (Self::Reached { .. }, Fate::Reached)
                | (Self::Silence, Fate::Silence)
                | (Self::Refused { .. }, Fate::Refused)
        )
    }

    /// In a few words.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Reached { .. } => "an answer".to_owned(),
            Self::Silence => "silence".to_owned(),
            Self::Refused { with } => format!("a refusal ({with})"),
            Self::Broken { how } => how.clone(),
        }
    }

    fn of(outcome: &Outcome<(Option<SocketAddr>, Option<SocketAddr>)>) -> Self {
        match outcome {
            Outcome::Answered((seen_as, own)) => Self::Reached {
                seen_as: *seen_as,
                own: *own,
            },
            Outcome::TimedOut => Self::Silence,
            Outcome::Refused => Self::Refused {
                with: "tcp reset".to_owned(),
            },
            Outcome::Unreachable { icmp: Some(icmp), .. } => Self::Refused {
                with: icmp.to_string(),
            },
            Outcome::Unreachable { icmp: None, .. } | Outcome::Broken(_) => Self::Broken {
                how: outcome.describe(),
            },
        }
    }
}

/// A conversation that was tried.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Held {
    #[serde(flatten)]
    pub(super) came_to: CameTo,
    /// From the first packet to the answer, or to the end of patience.
    pub(super) elapsed_us: u64,
}

/// Everything that listens. Closed when dropped.
pub(super) struct Servers {
    _http: Vec<HttpServer>,
    _tcp: Vec<TcpServer>,
    _udp: Vec<UdpServer>,
}

impl Servers {
    /// Starts them on every host, and makes sure that each answers whoever asks from its own host.
    pub(super) fn start(topology: &Topology) -> Result<Self> {
        let mut servers = Self {
            _http: Vec::new(),
            _tcp: Vec::new(),
            _udp: Vec::new(),
        };
        for segment in Segment::ALL {
            let namespace = &host(topology, segment).namespace;
            for family in Family::ALL {
                let at = |port| SocketAddr::new(segment.host(family), port);
                let page = format!("this is {segment}\n");
                servers
                    ._http
                    .push(HttpServer::start(namespace, at(Protocol::Http.port()), page)?);
                servers
                    ._udp
                    .push(UdpServer::start(namespace, at(Protocol::Dns.port()))?);
                for port in [Protocol::Sql.port(), HTTPS] {
                    servers._tcp.push(TcpServer::start(namespace, at(port))?);
                }
            }
        }
        for (to, family) in Segment::ALL
            .into_iter()
            .flat_map(|to| Family::ALL.map(|family| (to, family)))
        {
            for protocol in Protocol::ALL {
                let alone = Conversation {
                    from: to,
                    to,
                    family,
                    protocol,
                };
                let held = hold(topology, &alone, PATIENCE)?;
                ensure!(
                    held.came_to.is(Fate::Reached),
                    "{} does not answer its own host over {family}: {}",
                    protocol.name(),
                    held.came_to.describe()
                );
            }
        }
        Ok(servers)
    }
}

/// Holds all conversations, many at a time. The answers come in the order of the questions.
pub(super) fn hold_all(
    topology: &Topology,
    conversations: &[Conversation],
    stop: &Stop,
) -> Result<Vec<Held>> {
    let next = AtomicUsize::new(0);
    let held = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        let Some(conversation) = conversations.get(index) else {
                            return Ok(());
                        };
                        stop.check()?;
                        let patience = match conversation.expected() {
                            Fate::Reached | Fate::Refused => PATIENCE,
                            Fate::Silence => SILENCE,
                        };
                        let one = hold(topology, conversation, patience)?;
                        held.lock().expect("no worker panics here").push((index, one));
                    }
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| {
            worker
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })?;
    let mut held = held.into_inner().expect("no worker panics here");
    held.sort_by_key(|(index, _)| *index);
    Ok(held.into_iter().map(|(_, one)| one).collect())
}

/// Holds one conversation.
fn hold(topology: &Topology, conversation: &Conversation, patience: Duration) -> Result<Held> {
    let client = host(topology, conversation.from).client().timeout(patience);
    let server = conversation.server();
    let began = Instant::now();
    let outcome = match conversation.protocol {
        Protocol::Http => client
            .http_get(server, "/")?
            .map(|answer| (Some(answer.seen_as), Some(answer.local))),
        Protocol::Sql => client
            .tcp_transfer(server, 256, 4096)?
            .map(|(_, answer)| (Some(answer.seen_as()), Some(answer.local()))),
        Protocol::Dns => client
            .dns_query(server, "db.bulkhead.test")?
            .map(|answer| (Some(answer.seen_as), Some(answer.local))),
        Protocol::Ping => client.ping(server.ip())?.map(|_| (None, None)),
    };
    Ok(Held {
        came_to: CameTo::of(&outcome),
        elapsed_us: u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX),
    })
}

/// Which connections are held open while the session table is read. The policy permits each.
const OPEN: [(Segment, Segment, u16); 5] = [
    (Segment::Financial, Segment::Applications, HTTPS),
    (Segment::Financial, Segment::Internet, HTTPS),
    (Segment::Applications, Segment::Data, Protocol::Sql.port()),
    (Segment::Applications, Segment::Internet, HTTPS),
    (Segment::Internet, Segment::Web, HTTPS),
];

/// A TCP connection that stays open as long as the value.
pub(super) struct OpenConnection {
    _stream: TcpConversation,
    /// The client as it sees itself.
    pub(super) own: SocketAddr,
    /// Whom it talks to.
    pub(super) server: SocketAddr,
}

/// Opens connections that the policy permits and moves some data over each. One that does not open comes back as what
/// went wrong.
pub(super) fn open_connections(
    topology: &Topology,
    stop: &Stop,
) -> Result<Vec<std::result::Result<OpenConnection, String>>> {
    let mut connections = Vec::new();
    for (from, to, port) in OPEN {
        for family in Family::ALL {
            stop.check()?;
            let server = SocketAddr::new(to.host(family), port);
            let outcome = host(topology, from).client().timeout(PATIENCE).tcp_transfer(
                server,
                16 * 1024,
                256 * 1024,
            )?;
            connections.push(match outcome {
                Outcome::Answered((_, stream)) => Ok(OpenConnection {
                    own: stream.local(),
                    server,
                    _stream: stream,
                }),
                other => Err(format!(
                    "tcp from {from} to {to} ({server}): {}",
                    other.describe()
                )),
            });
        }
    }
    Ok(connections)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_host_could_not_send_is_neither_silence_nor_a_refusal() {
        let unsent = CameTo::of(&Outcome::Unreachable {
            icmp: None,
            errno: 101,
        });
        for fate in [Fate::Reached, Fate::Silence, Fate::Refused] {
            assert!(!unsent.is(fate), "{fate}");
        }
        assert!(CameTo::of(&Outcome::TimedOut).is(Fate::Silence));
        assert!(CameTo::of(&Outcome::Refused).is(Fate::Refused));
        assert!(CameTo::of(&Outcome::Answered((None, None))).is(Fate::Reached));
    }
}
