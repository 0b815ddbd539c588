//! Frames put back arrive on the interface they are put back onto, whatever the device, and are judged like any other.

mod common;

use std::time::Duration;

use anyhow::Result;
use bulkhead_dataplane::{engine::Engine, inject::Injector, ruleset::HookMode};
use bulkhead_testkit::{
    Attachment, Frame, HostSpec, RawPort, Topology, UdpServer, privileged, verify_checksums,
};

/// The counters that frames of this test may move.
fn counts(engine: &Engine) -> Result<[u64; 3]> {
    let counters = engine.counters()?;
    Ok(["frames_injected", "session_created", "default_deny"].map(|name| counters[name]))
}

fn injector(lab: &Topology, engine: &Engine) -> Result<Injector> {
    let mark = engine.with_object(|object| object.inject_mark());
    Ok(lab.firewall().run(|| Injector::open(mark))?)
}

fn put_back_over(attachment: Attachment, hook: HookMode) -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = common::topology(|host| host.attachment(attachment));
    let engine = common::start(&lab, common::ruleset(hook, false));
    lab.resolve_neighbours()?;
    let (inside, outside) = (lab.host("inside"), lab.host("outside"));
    let injector = injector(&lab, &engine)?;
    let server = RawPort::open(&outside.namespace, &outside.interface)?;
    let wanted = |port: u16| {
        move |seen: &bulkhead_testkit::raw_port::Captured| {
            let at = if seen.frame[12] == 8 { 34 } else { 54 };
            seen.frame.get(at + 2..at + 4) == Some(&port.to_be_bytes())
        }
    };
    for (source, destination) in inside.addresses().into_iter().zip(outside.addresses()) {
        let before = counts(&engine)?;
        let frame = Frame::ip(source, destination)
            .macs(inside.mac, inside.firewall_mac)
            .udp(4000, 53)
            .payload_bytes(1400);
        injector.inject(inside.firewall_index, &frame.build())?;
        let arrived = server.receive_matching(Duration::from_secs(2), wanted(53))?;
        let arrived = arrived.unwrap_or_else(|| {
            panic!(
                "{source}: put back and not forwarded: {:#?}",
                engine.nonzero_counters()
            )
        });
        verify_checksums(&arrived.frame).map_err(anyhow::Error::msg)?;
        // Judged, not let through: nothing permits this port.
        injector.inject(inside.firewall_index, &frame.clone().udp(4000, 54).build())?;
        assert!(
            server
                .receive_matching(Duration::from_millis(300), wanted(54))?
                .is_none()
        );
        let after = counts(&engine)?;
        assert_eq!(
            [0, 1, 2].map(|at| after[at] - before[at]),
            [2, 1, 1],
            "injected, created, denied: {:#?}",
            engine.nonzero_counters()
        );
    }
    // What arrives by itself is not taken for put back.
    let _echo = UdpServer::start(&outside.namespace, outside.v4_port(53))?;
    let before = counts(&engine)?[0];
    inside
        .client()
        .dns_query(outside.v4_port(53), "example.test")?
        .answered()?;
    assert_eq!(counts(&engine)?[0], before);
    Ok(())
}

#[test]
fn netns_a_frame_put_back_arrives_over_veth() -> Result<()> {
    put_back_over(Attachment::Veth, HookMode::Auto)
}

#[test]
fn netns_a_frame_put_back_arrives_over_veth_with_xdp() -> Result<()> {
    put_back_over(Attachment::Veth, HookMode::Xdp)
}

#[test]
fn netns_a_frame_put_back_arrives_over_macvlan() -> Result<()> {
    put_back_over(Attachment::Macvlan, HookMode::Auto)
}

#[test]
fn netns_a_frame_put_back_may_be_as_long_as_the_mtu_allows() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = Topology::builder("bht-")
        .host(HostSpec::new("inside").mtu(9000))
        .host(HostSpec::new("outside").mtu(9000))
        .build()?;
    let engine = common::start(&lab, common::ruleset(HookMode::Auto, false));
    lab.resolve_neighbours()?;
    let (inside, outside) = (lab.host("inside"), lab.host("outside"));
    let injector = injector(&lab, &engine)?;
    let server = RawPort::open(&outside.namespace, &outside.interface)?;
    let frame = |bytes: usize| {
        Frame::ip(inside.v4, outside.v4)
            .macs(inside.mac, inside.firewall_mac)
            .udp(4000, 53)
            .payload_bytes(bytes - 28)
            .build()
    };
    injector.inject(inside.firewall_index, &frame(9000))?;
    let arrived = server.receive_matching(Duration::from_secs(2), |seen| seen.frame.len() == 9014)?;
    verify_checksums(&arrived.expect("9,000 bytes arrive").frame).map_err(anyhow::Error::msg)?;
    let error = injector
        .inject(inside.firewall_index, &frame(9100))
        .expect_err("longer than the MTU");
    assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
    let error = injector
        .inject(u32::from(u16::MAX), &frame(100))
        .expect_err("no such interface");
    assert_eq!(error.raw_os_error(), Some(libc::ENXIO));
    Ok(())
}
