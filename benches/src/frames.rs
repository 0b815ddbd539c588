//! Established 60-byte packets: sessions are opened both ways, a sample is checked, then rounds are measured.
//!
//! The source, the firewall and the sink share one CPU: what is measured is the cost of a packet, not how well work
//! spreads. So the figures of the contenders contain the source's cost (see contender `source`) and the sink's. Rates
//! are per second of CPU time, not of the clock's, so that neighbours on the machine do not count.

use std::collections::HashSet;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use bulkhead_testkit::{RawPort, verify_checksums};
use serde::Serialize;

use crate::contender::{Carrier, Contender};
use crate::cpu::{self, Meter, Scope};
use crate::frame::{FrameSpec, TTL};
use crate::lab::{FIRST_PORT, Lab, Purpose, SINK_PORT};
use crate::object::{Globals, Object, SinkMode};

/// Frames sent before a round begins.
const WARM: u32 = 64 * 1024;
/// Most frames in a round.
const MOST: u128 = 1 << 30;
/// How long a primed packet may take.
const PRIME_TIMEOUT: Duration = Duration::from_secs(1);
/// Frames looked at before the first round.
const SAMPLE: u32 = 128;
/// As many at a time.
const SAMPLE_BURST: u32 = 32;

/// One measured round.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Round {
    /// Packets the source sent.
    pub sent: u64,
    /// Packets the sink counted.
    pub received: u64,
    /// Length of the round.
    pub wall_seconds: f64,
    /// CPU time of everything that handled packets.
    pub cpu_seconds: f64,
    /// Received packets per second of CPU time, millions.
    pub mpps: f64,
    /// CPU time per received packet, nanoseconds.
    pub ns: f64,
    /// What part of the sent packets was lost, 0 to 1.
    pub loss: f64,
}

impl Round {
    /// From what was counted and how long it took.
    pub fn new(sent: u64, received: u64, wall: Duration, cpu: Duration) -> Self {
        let cpu_seconds = cpu.as_secs_f64();
        Self {
            sent,
            received,
            wall_seconds: wall.as_secs_f64(),
            cpu_seconds,
            mpps: received as f64 / cpu_seconds / 1e6,
            ns: if received == 0 {
                0.0
            } else {
                cpu_seconds * 1e9 / received as f64
            },
            loss: sent.saturating_sub(received) as f64 / sent as f64,
        }
    }
}

/// What the sample showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// Frames looked at; each had right checksums, the expected addresses and one hop less to live.
    pub frames: u32,
    /// Different source ports among them.
    pub flows: usize,
}

/// A contender ready for rounds.
pub struct FrameLab {
    lab: Lab,
    object: Object,
    frame: FrameSpec,
    cpu: usize,
    /// What the check before the first round showed; `None` where nothing arrives at the sink.
    pub sample: Option<Sample>,
}

impl FrameLab {
    /// Makes the network, establishes `flows` sessions and checks what arrives.
    pub fn new(contender: Contender, flows: u16, cpu: usize) -> Result<Self> {
        let mut lab = Lab::new(contender, Purpose::Frames)?;
        let (source, sink) = (lab.source(), lab.sink());
        let frame = FrameSpec {
            destination_mac: source.firewall_mac,
            source_mac: source.mac,
            source: source.v4,
            destination: sink.v4,
            first_port: FIRST_PORT,
            flows,
            destination_port: SINK_PORT,
        };
        let mut object = Object::load(&Globals {
            frame,
            source_ifindex: source.namespace.netlink()?.link_by_name(&source.interface)?.index,
            bare_ifindex: sink.firewall_index,
            bare_macs: [sink.mac, sink.firewall_mac],
        })?;
        sink.namespace.run(|| {
            object.attach_xdp("bench_sink_xdp", &sink.interface)?;
            object.attach_tcx("bench_sink_tcx", &sink.interface)
        })?;
        source.namespace.run(|| object.load_source())?;
        let ingress = source.firewall_interface.clone();
        match contender.carrier() {
            Carrier::Nothing => lab.firewall().run(|| object.attach_xdp("bench_drop", &ingress))?,
            Carrier::BareXdp(name) => lab.firewall().run(|| object.attach_xdp(name, &ingress))?,
            Carrier::BareTcx(name) => lab.firewall().run(|| object.attach_tcx(name, &ingress))?,
            Carrier::Kernel(_) => {}
            Carrier::Bulkhead { xdp, nat } => lab.start_bulkhead(xdp, nat)?,
        }
        let mut this = Self {
            lab,
            object,
            frame,
            cpu,
            sample: None,
        };
        this.prime(flows)
            .and_then(|()| this.check())
            .with_context(|| format!("contender {}", contender.id()))?;
        Ok(this)
    }

    /// Who is in the lab.
    pub const fn contender(&self) -> Contender {
        self.lab.contender
    }

    /// The network, for those who look into it.
    pub const fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The packet.
    pub const fn frame(&self) -> &FrameSpec {
        &self.frame
    }

    /// The harness's own programs.
    pub const fn object_mut(&mut self) -> &mut Object {
        &mut self.object
    }

    /// Opens every flow in both directions, with real sockets.
    fn prime(&mut self, flows: u16) -> Result<()> {
        if !self.lab.contender.two_way() {
            return Ok(());
        }
        self.object.set_sink_mode(SinkMode::Pass)?;
        let (source, sink) = (self.lab.source(), self.lab.sink());
        let server = sink
            .namespace
            .run(|| UdpSocket::bind(sink.v4_port(SINK_PORT)))
            .context("cannot bind the echo")?;
        server.set_read_timeout(Some(PRIME_TIMEOUT))?;
        source.namespace.run(|| {
            for port in (FIRST_PORT..).take(usize::from(flows)) {
                let client = UdpSocket::bind(source.v4_port(port)).with_context(|| format!("port {port}"))?;
                client.connect(sink.v4_port(SINK_PORT))?;
                client.set_read_timeout(Some(PRIME_TIMEOUT))?;
                // Twice: the second packet each way meets a session that both sides have used.
                for _ in 0..2 {
                    client.send(&[0; 18])?;
                    let mut buffer = [0; 64];
                    let (bytes, peer) = server
                        .recv_from(&mut buffer)
                        .with_context(|| format!("port {port}: no packet at the sink"))?;
                    server.send_to(&buffer[..bytes], peer)?;
                    client
                        .recv(&mut buffer)
                        .with_context(|| format!("port {port}: no answer from {peer}"))?;
                }
            }
            Ok(())
        })
    }

    /// Looks at the first packets that arrive.
    fn check(&mut self) -> Result<()> {
        if self.lab.contender.carrier() == Carrier::Nothing {
            return Ok(());
        }
        let (source, sink) = (self.lab.source(), self.lab.sink());
        let port = RawPort::open(&sink.namespace, &sink.interface)?;
        let address = if self.lab.contender.translates() {
            sink.firewall_v4
        } else {
            source.v4
        };
        self.object.set_sink_mode(SinkMode::Sample)?;
        let mut ports = HashSet::new();
        let mut frames = 0;
        // In bursts that the socket's buffer can hold.
        for _ in 0..SAMPLE / SAMPLE_BURST {
            source.namespace.run(|| {
                // The source counts flows per CPU.
                cpu::claim(self.cpu)?;
                self.object.send(SAMPLE_BURST)
            })?;
            while let Some(captured) = port.receive(Duration::from_millis(20))? {
                let frame = &captured.frame;
                if frame.get(12..14) != Some(&[8, 0]) || frame.get(36..38) != Some(&SINK_PORT.to_be_bytes()) {
                    continue;
                }
                verify_checksums(frame)
                    .map_err(|error| anyhow!("packet at the sink: {error}: {frame:02x?}"))?;
                ensure!(
                    !captured.checksum_pending,
                    "packet at the sink: its checksum is still to be completed"
                );
                ensure!(
                    frame[22] == TTL - 1,
                    "packet at the sink has TTL {}, expected {}",
                    frame[22],
                    TTL - 1
                );
                ensure!(
                    frame[26..30] == address.octets(),
                    "packet at the sink is not from {address}: {frame:02x?}"
                );
                ensure!(
                    frame[..6] == sink.mac,
                    "packet at the sink is for another MAC address: {frame:02x?}"
                );
                ports.insert([frame[34], frame[35]]);
                frames += 1;
            }
        }
        if frames != SAMPLE {
            bail!("{frames} of {SAMPLE} sample packets reached the sink");
        }
        self.sample = Some(Sample {
            frames,
            flows: ports.len(),
        });
        Ok(())
    }

    /// Sends for about `length` and counts.
    pub fn measure(&mut self, length: Duration) -> Result<Round> {
        self.round(length)
            .with_context(|| format!("contender {}", self.lab.contender.id()))
    }

    fn round(&mut self, length: Duration) -> Result<Round> {
        self.object.set_sink_mode(SinkMode::Count)?;
        let (namespace, object, cpu) = (&self.lab.source().namespace, &mut self.object, self.cpu);
        namespace.run(|| {
            cpu::claim(cpu)?;
            // Warms caches and says how many packets a round needs: one system call, because each waits for RCU first.
            let frame = object.send(WARM)?;
            let packets = (length.as_nanos() / frame.as_nanos().max(1)).clamp(1, MOST) as u32;
            let before: u64 = object.received()?.iter().sum();
            let (start, meter) = (Instant::now(), Meter::start(Scope::Thread, cpu)?);
            object.send(packets)?;
            let (wall, busy) = (start.elapsed(), meter.elapsed()?);
            let received = object.received()?.iter().sum::<u64>() - before;
            Ok(Round::new(u64::from(packets), received, wall, busy))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_counts_what_arrived_in_the_time_the_cpu_worked() {
        let round = Round::new(
            1_000_000,
            900_000,
            Duration::from_millis(500),
            Duration::from_millis(450),
        );
        assert!((round.mpps - 2.0).abs() < 1e-9, "{round:?}");
        assert!((round.ns - 500.0).abs() < 1e-9, "{round:?}");
        assert!((round.loss - 0.1).abs() < 1e-9, "{round:?}");
    }

    #[test]
    fn a_round_in_which_nothing_arrived_is_all_loss() {
        let round = Round::new(10, 0, Duration::from_millis(1), Duration::from_millis(1));
        assert_eq!((round.mpps, round.ns, round.loss), (0.0, 0.0, 1.0));
    }
}
