//! Frames through a contender: sessions are opened both ways, a sample is checked, then rounds are measured.
//!
//! The source, the firewall and the sink share one CPU: what is measured is the cost of a packet, not how well work
//! spreads. So the figures of the contenders contain the source's cost (see contender `source`) and the sink's. Rates
//! are per second of CPU time, not of the clock's, so that neighbours on the machine do not count.
//!
//! A round is void, and the run ends, if the firewall's own counters do not agree with what arrived.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;

use crate::bulkhead::{self, Judged, MOST_FRESH};
use crate::conntrack;
use crate::contender::{Carrier, Contender};
use crate::cpu::{self, Meter, Scope};
use crate::frame::FrameSpec;
use crate::lab::{Lab, Purpose};
use crate::object::{Counts, Globals, Object, SinkMode, Traffic};
use crate::policy::Policy;
use crate::popularity::Order;

mod sample;

pub use sample::Sample;

/// Frames sent before a round of established packets begins.
const WARM: u32 = 64 * 1024;
/// Most frames in a round.
const MOST: u128 = 1 << 30;
/// Frames that find out how long a new session takes, more and more of them until it can be told.
const FIRST_TRIAL: u32 = 64;
/// What can be told.
const TRIAL: Duration = Duration::from_millis(5);
/// How often sessions are tried to be opened: a full ring loses a few.
const PRIME_PASSES: u32 = 8;
/// Frames to a destination that is not permitted.
const DENIED: u32 = 64;

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
    /// What part of the received packets XDP should have settled and left to TCX, 0 to 1.
    pub left_to_tcx: f64,
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
            left_to_tcx: 0.0,
        }
    }
}

/// A contender ready for rounds.
pub struct FrameLab {
    lab: Lab,
    object: Object,
    frame: FrameSpec,
    traffic: Traffic,
    cpu: usize,
    /// What the check before the first round showed; `None` where nothing arrives at the sink.
    pub sample: Option<Sample>,
}

impl FrameLab {
    /// Makes the network, establishes the sessions of `traffic` unless they are fresh, and checks what arrives.
    pub fn new(contender: Contender, policy: Policy, traffic: Traffic, cpu: usize) -> Result<Self> {
        let lab = Lab::bare(contender, Purpose::Frames, policy)?;
        let (source, sink) = (lab.source(), lab.sink());
        let frame = lab.frame();
        let object = Object::load(&Globals {
            frame,
            source_ifindex: source.namespace.netlink()?.link_by_name(&source.interface)?.index,
            bare_ifindex: sink.firewall_index,
            bare_macs: [sink.mac, sink.firewall_mac],
            bare_entries: if contender == Contender::BareXdpLookup {
                bulkhead::flow_room(traffic.flows)
            } else {
                0
            },
            draws: traffic.order == Order::Zipf,
        })?;
        let mut this = Self {
            lab,
            object,
            frame,
            traffic,
            cpu,
            sample: None,
        };
        this.prepare()
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

    /// Sends other packets from now on; of established sessions only those that are.
    pub fn set_traffic(&mut self, traffic: Traffic) -> Result<()> {
        self.traffic = traffic;
        self.object.set_traffic(&traffic)
    }

    fn prepare(&mut self) -> Result<()> {
        let (source, sink) = (self.lab.source(), self.lab.sink());
        let object = &mut self.object;
        sink.namespace.run(|| {
            object.attach_xdp("bench_sink_xdp", &sink.interface)?;
            object.attach_tcx("bench_sink_tcx", &sink.interface)
        })?;
        source.namespace.run(|| {
            object.attach_xdp("bench_return_xdp", &source.interface)?;
            object.attach_tcx("bench_return_tcx", &source.interface)?;
            object.load_source()
        })?;
        let ingress = &source.firewall_interface;
        let firewall = self.lab.firewall();
        match self.lab.contender.carrier() {
            Carrier::Nothing => firewall.run(|| object.attach_xdp("bench_drop", ingress))?,
            Carrier::BareXdp(name) => firewall.run(|| object.attach_xdp(name, ingress))?,
            Carrier::BareTcx(name) => firewall.run(|| object.attach_tcx(name, ingress))?,
            Carrier::Kernel(_) => {}
            Carrier::Bulkhead { .. } => self.lab.start_bulkhead(self.traffic.established())?,
        }
        if self.lab.contender == Contender::BareXdpLookup {
            self.object.fill_table(self.traffic.flows)?;
        }
        self.object.set_traffic(&Traffic {
            order: Order::InTurn,
            ..self.traffic
        })?;
        if self.lab.contender.two_way() && self.traffic.flows != Traffic::FRESH {
            self.prime()?;
        }
        self.sample = sample::check(self)?;
        self.check_denial()?;
        self.forget()
    }

    /// Sends frames from the measuring CPU.
    fn send(&mut self, packets: u32) -> Result<Duration> {
        let (namespace, object, cpu) = (&self.lab.source().namespace, &mut self.object, self.cpu);
        namespace.run(|| {
            // The source counts flows per CPU.
            cpu::claim(cpu)?;
            object.send(packets)
        })
    }

    /// Opens every flow in both directions: the sink sends back what it gets. Done when a whole pass came back.
    fn prime(&mut self) -> Result<()> {
        let flows = self.traffic.flows;
        self.object.set_sink_mode(SinkMode::Reflect)?;
        let mut last = Counts::default();
        for pass in 0..PRIME_PASSES {
            let before = self.object.counts()?;
            self.object.restart()?;
            self.send(flows)?;
            let after = self.object.counts()?;
            last = Counts {
                sink: after.sink - before.sink,
                returned: after.returned - before.returned,
            };
            // Twice at least: the second packet each way meets a session that both sides have used.
            if pass > 0 && last.returned == u64::from(flows) {
                return self.check_primed();
            }
        }
        bail!(
            "of {flows} packets {} reached the sink and {} answers came back, in each of {PRIME_PASSES} passes",
            last.sink,
            last.returned
        )
    }

    /// Whether the firewall has as many sessions as were opened.
    fn check_primed(&self) -> Result<()> {
        let flows = u64::from(self.traffic.flows);
        let sessions = match (self.lab.contender.carrier(), self.lab.bulkhead()) {
            (Carrier::Kernel(Some(_)), _) => conntrack::count(self.lab.firewall())?,
            (_, Some(bulkhead)) => bulkhead.engine().sessions(&|_| true, 0)?.total as u64,
            _ => return Ok(()),
        };
        ensure!(
            sessions >= flows,
            "{flows} flows were opened and the firewall has {sessions} sessions"
        );
        Ok(())
    }

    /// A destination that no rule names is denied.
    fn check_denial(&mut self) -> Result<()> {
        let firewall = self.lab.contender.tracks() || self.lab.bulkhead().is_some();
        let Some(permitted) = self.lab.policy().targets().filter(|_| firewall) else {
            return Ok(());
        };
        let traffic = Traffic {
            flows: Traffic::FRESH,
            order: Order::InTurn,
            targets: 1,
            first_target: permitted,
            ..self.traffic
        };
        self.object.set_traffic(&traffic)?;
        self.object.set_sink_mode(SinkMode::Count)?;
        let (before, judged) = (self.object.counts()?, self.judged()?);
        self.send(DENIED)?;
        let arrived = self.object.counts()?.sink - before.sink;
        ensure!(
            arrived == 0,
            "{arrived} of {DENIED} packets to a destination that no rule names arrived"
        );
        if let (Some(before), Some(after)) = (judged, self.judged()?) {
            ensure!(
                after.denied - before.denied == u64::from(DENIED),
                "{DENIED} packets should have been denied, counters went from {before:?} to {after:?}"
            );
        }
        self.object.set_traffic(&self.traffic)
    }

    fn judged(&self) -> Result<Option<Judged>> {
        self.lab.bulkhead().map(|bulkhead| bulkhead.judged()).transpose()
    }

    /// Ends the sessions of fresh packets.
    fn forget(&mut self) -> Result<()> {
        if self.traffic.flows != Traffic::FRESH {
            return Ok(());
        }
        if let Some(bulkhead) = self.lab.bulkhead() {
            bulkhead.clear()?;
        } else if self.lab.contender.tracks() {
            conntrack::flush(self.lab.firewall())?;
        }
        self.object.restart()
    }

    /// Sends for about `length` and counts. Fresh packets: at most as many as there is room for.
    pub fn measure(&mut self, length: Duration) -> Result<Round> {
        self.object.set_sink_mode(SinkMode::Count)?;
        let round = if self.traffic.flows == Traffic::FRESH {
            self.fresh_round(length)
        } else {
            self.established_round(length)
        };
        round.with_context(|| format!("contender {}", self.lab.contender.id()))
    }

    fn established_round(&mut self, length: Duration) -> Result<Round> {
        // Warms caches and says how many packets a round needs: one system call, because each waits for RCU first.
        let frame = self.send(WARM)?;
        let packets = (length.as_nanos() / frame.as_nanos().max(1)).clamp(1, MOST) as u32;
        let judged = self.judged()?;
        let mut round = self.count(packets)?;
        if let (Some(before), Some(after)) = (judged, self.judged()?) {
            let forwarded = after.forwarded - before.forwarded;
            // Behind the firewall the sink's own ring may lose some: they are in the round's loss.
            ensure!(
                forwarded >= round.received && after.created == before.created,
                "{} packets arrived and the firewall counted {before:?}, then {after:?}",
                round.received
            );
            if let Carrier::Bulkhead { xdp: true, .. } = self.lab.contender.carrier() {
                let left = round.received.saturating_sub(after.in_xdp - before.in_xdp);
                round.left_to_tcx = left as f64 / round.received as f64;
            }
        }
        Ok(round)
    }

    fn fresh_round(&mut self, length: Duration) -> Result<Round> {
        let mut trial = FIRST_TRIAL;
        let frame = loop {
            let frame = self.send(trial)?;
            self.forget()?;
            if frame * trial >= TRIAL || trial >= WARM {
                break frame;
            }
            trial *= 8;
        };
        let packets = length.as_nanos() / frame.as_nanos().max(1);
        let packets = packets.clamp(u128::from(FIRST_TRIAL), u128::from(MOST_FRESH)) as u32;
        let judged = self.judged()?;
        let round = self.count(packets)?;
        if let (Some(before), Some(after)) = (judged, self.judged()?) {
            let created = after.created - before.created;
            ensure!(
                created == round.received,
                "{} new packets arrived and the firewall opened {created} sessions: {before:?}, then {after:?}",
                round.received
            );
        } else if self.lab.contender.tracks() {
            let entries = conntrack::count(self.lab.firewall())?;
            ensure!(
                entries >= round.received,
                "{} new packets arrived and the kernel tracks {entries} connections",
                round.received
            );
        }
        self.forget()?;
        Ok(round)
    }

    fn count(&mut self, packets: u32) -> Result<Round> {
        let (namespace, object, cpu) = (&self.lab.source().namespace, &mut self.object, self.cpu);
        namespace.run(|| {
            cpu::claim(cpu)?;
            let before = object.counts()?;
            let (start, meter) = (Instant::now(), Meter::start(Scope::Thread, cpu)?);
            object.send(packets)?;
            let (wall, busy) = (start.elapsed(), meter.elapsed()?);
            let received = object.counts()?.sink - before.sink;
            ensure!(received > 0, "none of {packets} packets arrived");
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
