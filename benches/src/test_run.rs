//! Nanoseconds per packet inside Bulkhead's programs, by test run: no device, no driver, no stack around them.
//!
//! Each run gets a fresh frame, because a program that forwards changes it; the kernel's clock around one run costs as
//! much as a small program, so the same is measured for an empty program and taken off. The figure is the median over
//! some thousand runs. Caches are warmer than in a firewall that does other things besides.

use anyhow::{Context as _, Result, ensure};
use bulkhead_dataplane::bpf::Program;
use serde::Serialize;

use crate::cpu;
use crate::frame::FRAME_BYTES;
use crate::frames::FrameLab;
use crate::statistics::Summary;

/// XDP's and TCX's codes for a packet that went its way (include/uapi/linux/bpf.h).
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;
const TCX_DROP: u32 = 2;
const TCX_REDIRECT: u32 = 7;

/// Runs per case.
const RUNS: u16 = 4_000;
/// Source ports of new sessions: beyond those of the established ones.
const FRESH_PORTS: u16 = 40_000;

/// One figure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Case {
    /// Whose: `ingress` (TCX) or `xdp`.
    pub program: &'static str,
    /// `hit`: a packet of an established session; `miss`: one of a new session; `drop`: one that is refused.
    pub case: &'static str,
    /// What that is, for people.
    pub description: &'static str,
    /// Nanoseconds per packet, the empty program's taken off.
    pub ns: f64,
    /// Median of the empty program.
    pub empty_ns: f64,
}

struct Kind {
    program: Program,
    name: &'static str,
    empty: &'static str,
    cases: [(&'static str, &'static str, u32); 3],
}

const INGRESS: Kind = Kind {
    program: Program::Ingress,
    name: "ingress",
    empty: "bench_empty_tcx",
    cases: [
        ("hit", "established session, forwarded", TCX_REDIRECT),
        ("miss", "new session, permitted and forwarded", TCX_REDIRECT),
        ("drop", "denied by default", TCX_DROP),
    ],
};

const XDP: Kind = Kind {
    program: Program::Xdp,
    name: "xdp",
    empty: "bench_empty_xdp",
    cases: [
        ("hit", "established session, forwarded", XDP_REDIRECT),
        ("miss", "no session: goes on to TCX", XDP_PASS),
        ("drop", "malformed", XDP_DROP),
    ],
};

/// Measures both programs in a lab of Bulkhead's with `flows` established sessions.
pub fn measure(lab: &mut FrameLab, cpu: usize, flows: u32) -> Result<Vec<Case>> {
    let mut results = Vec::new();
    for kind in [INGRESS, XDP] {
        let empty = run(lab, cpu, |lab, port| {
            let frame = lab.frame().finished(FRAME_BYTES, u32::from(port) % flows, 0);
            lab.object_mut().test_run(kind.empty, &frame)
        })?;
        for (case, description, expected) in kind.cases {
            let ns = run(lab, cpu, |lab, run| one(lab, &kind, case, expected, run, flows))
                .with_context(|| format!("test run of {}, {case}", kind.name))?;
            results.push(Case {
                program: kind.name,
                case,
                description,
                ns: (ns - empty).max(0.0),
                empty_ns: empty,
            });
        }
    }
    Ok(results)
}

/// The median of all runs.
fn run(
    lab: &mut FrameLab,
    cpu: usize,
    mut one: impl FnMut(&mut FrameLab, u16) -> Result<u64> + Send,
) -> Result<f64> {
    let handle = lab.lab().firewall().fd().try_clone_to_owned()?;
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                nix::sched::setns(&handle, nix::sched::CloneFlags::CLONE_NEWNET)?;
                cpu::claim(cpu)?;
                let times: Result<Vec<u64>> = (0..RUNS).map(|number| one(lab, number)).collect();
                let summary = Summary::of(times?.into_iter().map(|ns| ns as f64));
                summary.map(|summary| summary.median).context("nothing was run")
            })
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn one(lab: &mut FrameLab, kind: &Kind, case: &str, expected: u32, run: u16, flows: u32) -> Result<u64> {
    let mut spec = *lab.frame();
    let (mut interface, mut flow) = (lab.lab().source().firewall_index, u32::from(run) % flows);
    match case {
        "miss" => {
            // Each program its own, or the second would find the sessions of the first.
            spec.first_port = FRESH_PORTS + if kind.program == Program::Xdp { RUNS } else { 0 };
            flow = u32::from(run);
        }
        "drop" if kind.program == Program::Ingress => {
            // From the sink to the source, and no session for it.
            let (source, sink) = (lab.lab().source(), lab.lab().sink());
            (spec.first_source, spec.first_target) = (sink.v4, source.v4);
            (spec.source_mac, spec.destination_mac) = (sink.mac, sink.firewall_mac);
            spec.first_port = FRESH_PORTS;
            interface = sink.firewall_index;
        }
        _ => {}
    }
    let mut frame = spec.finished(FRAME_BYTES, flow, 0);
    if case == "drop" && kind.program == Program::Xdp {
        // An IPv4 header shorter than one can be.
        frame[14] = 0x44;
    }
    let engine = lab
        .lab()
        .bulkhead()
        .context("the lab is not Bulkhead's")?
        .engine();
    let outcome = engine.with_object(|object| object.test_run(kind.program, &frame, interface, 1))?;
    ensure!(
        outcome.code == expected,
        "run {run} returned {}, expected {expected}",
        outcome.code
    );
    Ok(u64::try_from(outcome.duration.as_nanos())?)
}
