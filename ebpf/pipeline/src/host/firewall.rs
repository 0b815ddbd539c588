//! The programs' shells over the host's tables: one frame in, what became of it out.

use super::std::{boxed::Box, collections::BTreeMap, vec::Vec};

use bulkhead_abi::{Event, FlowKey6, MappingKey, Reason};
use bulkhead_packet::{ETHERNET_BYTES, HEADER_BYTES, HeaderBuffer};

use super::{Asked, Counters, Handed, Hook, HostFrame, HostTables};
use crate::{Action, Stage, Table, Tables, Verdict, Work, control, established, host_egress, ingress, stage};

/// A firewall of one CPU. Its scratch entry lives on from packet to packet, as the kernel's does.
pub struct HostFirewall {
    /// Its tables.
    pub tables: HostTables,
    /// Frames that reach XDP have no place for its notes to TCX, as with drivers without metadata.
    pub no_notes: bool,
    work: Box<Work>,
    vlan: u32,
}

/// What became of a frame.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The pipeline's answer.
    pub verdict: Verdict,
    /// The frame afterwards.
    pub bytes: Vec<u8>,
    /// Where a redirected frame leaves, else 0.
    pub out_ifindex: u32,
    /// The counters that moved, and by how much.
    pub delta: Counters,
    /// Requests to the slow path.
    pub asked: Vec<Asked>,
    /// Frames handed to user space.
    pub handed: Vec<Handed>,
    /// Copies sent meanwhile: the interface, and the frame as it was.
    pub copies: Vec<(u32, Vec<u8>)>,
    /// Events.
    pub events: Vec<Event>,
}

impl HostFirewall {
    /// A firewall over these tables.
    #[must_use]
    pub fn new(tables: HostTables) -> Self {
        Self {
            tables,
            no_notes: false,
            work: Box::default(),
            vlan: 0,
        }
    }

    /// Fills the scratch entry with the remains of an imagined packet, to show that nothing of it is used.
    pub fn poison(&mut self, work: Work) {
        *self.work = work;
    }

    /// The VLAN tag (`abi::vlan_tag`) that frames carry from now on outside their bytes; 0: none.
    pub fn set_vlan(&mut self, vlan: u32) {
        self.vlan = vlan;
    }

    /// The TCX ingress program.
    pub fn ingress(&mut self, ifindex: u32, bytes: &[u8]) -> Outcome {
        self.run(HostFrame::new(Hook::Tcx, bytes), ifindex, all_stages)
    }

    /// The TCX ingress program on a frame that user space put back.
    pub fn injected(&mut self, ifindex: u32, bytes: &[u8]) -> Outcome {
        self.run(
            HostFrame::new(Hook::Tcx, bytes),
            ifindex,
            |frame, tables, work| {
                work.injected = 1;
                tables.count(Reason::SLOT_FRAMES_INJECTED);
                all_stages(frame, tables, work)
            },
        )
    }

    /// The TCX ingress program on an aggregate with this much payload per segment.
    pub fn ingress_gso(&mut self, ifindex: u32, bytes: &[u8], segment_bytes: u32) -> Outcome {
        let frame = HostFrame {
            gso_segment_bytes: segment_bytes,
            ..HostFrame::new(Hook::Tcx, bytes)
        };
        self.run(frame, ifindex, all_stages)
    }

    /// The XDP program.
    pub fn established(&mut self, ifindex: u32, bytes: &[u8]) -> Outcome {
        self.run(HostFrame::new(Hook::Xdp, bytes), ifindex, established)
    }

    /// The XDP program and, if it leaves the frame to it, the TCX program behind it.
    pub fn both_hooks(&mut self, ifindex: u32, bytes: &[u8]) -> Outcome {
        let mut screened = None;
        let frame = HostFrame {
            no_notes: self.no_notes,
            ..HostFrame::new(Hook::Xdp, bytes)
        };
        let mut first = self.run(frame, ifindex, |frame, tables, work| {
            let verdict = established(frame, tables, work);
            screened = frame.screened;
            verdict
        });
        if first.verdict.action != Action::NextHook {
            return first;
        }
        let frame = HostFrame {
            screened,
            ..HostFrame::new(Hook::Tcx, &first.bytes)
        };
        let mut both = self.run(frame, ifindex, all_stages);
        for (name, by) in first.delta {
            *both.delta.entry(name).or_insert(0) += by;
        }
        first.events.append(&mut both.events);
        both.events = first.events;
        both
    }

    /// The TCX egress program.
    pub fn host_egress(&mut self, ifindex: u32, bytes: &[u8], mark: u32, from_outside: bool) -> Outcome {
        self.run(
            HostFrame::new(Hook::Tcx, bytes),
            ifindex,
            |frame, tables, work| host_egress(frame, tables, work, mark, from_outside),
        )
    }

    /// Ends a session as user space does: at once if `force`, else by both phases of ageing. Whether it ended; the counters
    /// and events stay in the tables.
    pub fn expire(&mut self, family: u8, key: &FlowKey6, force: bool) -> bool {
        if force {
            return control::clear(&self.tables, &mut self.work, family, key);
        }
        let there = |tables: &HostTables| {
            [Table::Established, Table::HalfOpen]
                .iter()
                .any(|table| tables.flows(*table, family).get(key).is_some())
        };
        let marked = self.mark(family, key, 0);
        marked && (self.collect(family, key, 0) || !there(&self.tables))
    }

    /// The control program's first phase of ageing; whether it changed anything.
    pub fn mark(&mut self, family: u8, key: &FlowKey6, early_ms: u32) -> bool {
        control::mark(&self.tables, &mut self.work, family, key, early_ms)
    }

    /// The control program's second phase of ageing; whether the session ended.
    pub fn collect(&mut self, family: u8, key: &FlowKey6, early_ms: u32) -> bool {
        control::collect(&self.tables, &mut self.work, family, key, early_ms)
    }

    /// The control program's removal of what is left of a dead session; whether there was anything.
    pub fn bury(&mut self, family: u8, key: &FlowKey6) -> bool {
        control::bury(&self.tables, &mut self.work, family, key)
    }

    /// The control program's removal of a persistent mapping; whether it is gone.
    pub fn expire_mapping(&mut self, outside: &MappingKey, used_ns: u64, force: bool) -> bool {
        control::expire_mapping(&self.tables, &mut self.work, outside, used_ns, force)
    }

    fn run(
        &mut self,
        mut frame: HostFrame,
        ifindex: u32,
        program: impl FnOnce(&mut HostFrame, &HostTables, &mut Work) -> Verdict,
    ) -> Outcome {
        let before = self.tables.counters();
        let _earlier = self.tables.take_events();
        let work = &mut *self.work;
        load(&mut work.headers, &frame.bytes);
        work.ifindex = ifindex;
        work.vlan = self.vlan;
        work.injected = 0;
        let verdict = if frame.bytes.len() < ETHERNET_BYTES {
            Verdict::drop(Reason::Truncated)
        } else {
            program(&mut frame, &self.tables, work)
        };
        // What XDP hands on, or user space holds, is counted where it is settled.
        let counted = match (frame.hook, verdict.action) {
            (_, Action::Held) => false,
            (Hook::Tcx, _) | (Hook::Xdp, Action::Drop | Action::Redirect) => true,
            (Hook::Xdp, _) => false,
        };
        if counted {
            self.tables.count(verdict.reason as u32);
        }
        let redirected = matches!(
            verdict.action,
            Action::Redirect | Action::RedirectPeer | Action::RedirectNeighbour
        );
        Outcome {
            verdict,
            bytes: frame.bytes,
            out_ifindex: if redirected { work.out_ifindex } else { 0 },
            delta: delta(&before, &self.tables.counters()),
            asked: frame.asked,
            handed: frame.handed,
            copies: frame.copies,
            events: self.tables.take_events(),
        }
    }
}

/// The TCX ingress program on another CPU over the same tables, for [`HostTables::interrupt`] and its like: what becomes of
/// the frame, and its bytes.
pub fn ingress_elsewhere(tables: &HostTables, ifindex: u32, bytes: &[u8]) -> (Verdict, Vec<u8>) {
    let mut work: Box<Work> = Box::default();
    let mut frame = HostFrame::new(Hook::Tcx, bytes);
    load(&mut work.headers, &frame.bytes);
    work.ifindex = ifindex;
    let verdict = all_stages(&mut frame, tables, &mut work);
    tables.count(verdict.reason as u32);
    (verdict, frame.bytes)
}

/// The ingress program and the tail calls behind it.
fn all_stages(frame: &mut HostFrame, tables: &HostTables, work: &mut Work) -> Verdict {
    let mut verdict = ingress(frame, tables, work);
    // As many tail calls as the kernel allows.
    for _ in 0..33 {
        let next = Stage::ALL.into_iter().find(|next| *next as u32 == work.stage);
        match (verdict.action, next) {
            (Action::Stage, Some(next)) => verdict = stage(frame, tables, work, next),
            _ => break,
        }
    }
    verdict
}

/// Copies the frame's start over whatever the buffer holds, as the kernel's helpers do: bytes behind it stay.
fn load(headers: &mut HeaderBuffer, frame: &[u8]) {
    // What an earlier packet left in the buffer stays behind the frame, as in the kernel.
    let length = frame.len().min(HEADER_BYTES);
    for (at, byte) in frame.iter().take(length).enumerate() {
        headers.set_byte(at, *byte);
    }
    headers.len = length as u32;
}

fn delta(before: &Counters, after: &Counters) -> Counters {
    let moved = after
        .iter()
        .map(|(name, count)| (*name, count - before.get(name).copied().unwrap_or(0)));
    moved.filter(|(_, by)| *by != 0).collect::<BTreeMap<_, _>>()
}
