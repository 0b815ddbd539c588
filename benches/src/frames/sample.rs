//! The look at what arrives, before anything is measured: complete packets, of the flows that were sent.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Result, anyhow, bail, ensure};
use bulkhead_testkit::{RawPort, verify_checksums};
use serde::Serialize;

use super::FrameLab;
use crate::contender::Carrier;
use crate::frame::{PORTS, TTL};
use crate::lab::SINK_PORT;
use crate::object::SinkMode;

/// Frames looked at before the first round.
const FRAMES: u32 = 128;
/// As many at a time, which the socket's buffer can hold.
const BURST: u32 = 32;

/// What the sample showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// Frames looked at; each had right checksums, the expected addresses and one hop less to live.
    pub frames: u32,
    /// Different source ports among them.
    pub flows: usize,
}

/// Looks at the first packets that arrive.
pub(super) fn check(this: &mut FrameLab) -> Result<Option<Sample>> {
    if this.lab.contender.carrier() == Carrier::Nothing {
        return Ok(None);
    }
    let sink = this.lab.sink();
    let port = RawPort::open(&sink.namespace, &sink.interface)?;
    let (mac, translated) = (
        sink.mac,
        this.lab.contender.translates().then_some(sink.firewall_v4),
    );
    let first = u32::from(this.frame.first_source);
    let sources = first..=first + (this.traffic.flows - 1) / PORTS;
    this.object.set_sink_mode(SinkMode::Sample)?;
    this.object.restart()?;
    let mut ports = HashSet::new();
    let mut frames = 0;
    for _ in 0..FRAMES / BURST {
        this.send(BURST)?;
        while let Some(captured) = port.receive(Duration::from_millis(20))? {
            let frame = &captured.frame;
            if frame.get(12..14) != Some(&[8, 0]) || frame.get(36..38) != Some(&SINK_PORT.to_be_bytes()) {
                continue;
            }
            verify_checksums(frame).map_err(|error| anyhow!("packet at the sink: {error}: {frame:02x?}"))?;
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
            let source = u32::from_be_bytes([frame[26], frame[27], frame[28], frame[29]]);
            let expected = translated.map_or_else(
                || sources.contains(&source),
                |address| u32::from(address) == source,
            );
            ensure!(expected, "packet at the sink from a wrong address: {frame:02x?}");
            ensure!(
                frame[..6] == mac,
                "packet at the sink is for another MAC address: {frame:02x?}"
            );
            ports.insert([frame[34], frame[35]]);
            frames += 1;
        }
    }
    if frames != FRAMES {
        bail!("{frames} of {FRAMES} sample packets reached the sink");
    }
    Ok(Some(Sample {
        frames,
        flows: ports.len(),
    }))
}
