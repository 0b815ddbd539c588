//! Bulk TCP both ways over every kind of link: what arrives is what was sent, and no stack saw a wrong checksum.

mod common;

use anyhow::Result;
use bulkhead_dataplane::ruleset::HookMode;
use bulkhead_testkit::{
    Attachment, HostSpec, KernelCounters, Offloads, TcpServer, privileged, xdp_reaches_hosts,
};

/// Bytes each way.
const BULK: u64 = 24 << 20;

fn bulk(hook: HookMode, nat: bool, shape: impl Fn(HostSpec) -> HostSpec) -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = common::topology(shape);
    let engine = common::start(&lab, common::ruleset(hook, nat));
    let (inside, outside) = (lab.host("inside"), lab.host("outside"));
    let before = [
        KernelCounters::snapshot(&inside.namespace)?,
        KernelCounters::snapshot(&outside.namespace)?,
    ];
    for address in [outside.v4_port(80), outside.v6_port(80)] {
        let _server = TcpServer::start(&outside.namespace, address)?;
        let (transfer, _) = inside
            .client()
            .tcp_transfer(address, BULK, BULK)?
            .answered()
            .unwrap_or_else(|e| panic!("{address}: {e}: {:#?}", engine.nonzero_counters()));
        assert_eq!((transfer.uploaded_bytes, transfer.downloaded_bytes), (BULK, BULK));
    }
    for (host, before) in [inside, outside].into_iter().zip(&before) {
        let after = KernelCounters::snapshot(&host.namespace)?;
        let errors = after.checksum_errors(before);
        assert!(
            errors.values().all(|count| *count == 0),
            "{}: {errors:?}",
            host.name
        );
    }
    let counters = engine.counters()?;
    let forwarded = counters["established"] + counters["established_xdp"];
    assert!(forwarded > 1000, "{:#?}", engine.nonzero_counters());
    if hook == HookMode::Xdp && xdp_reaches_hosts()? {
        assert!(
            counters["established_xdp"] > 0,
            "{:#?}",
            engine.nonzero_counters()
        );
    } else {
        assert_eq!(counters["established_xdp"], 0);
    }
    let lost: Vec<_> = engine
        .nonzero_counters()
        .into_iter()
        .filter(|(name, _)| {
            bulkhead_abi::Reason::ALL
                .iter()
                .any(|r| r.is_drop() && r.name() == name)
        })
        // The hosts' own multicast chatter.
        .filter(|(name, _)| name != "host_inbound_deny")
        .collect();
    assert!(lost.is_empty(), "{lost:?}");
    Ok(())
}

#[test]
fn netns_bulk_veth_default_offloads() -> Result<()> {
    bulk(HookMode::Auto, false, |host| host)
}

#[test]
fn netns_bulk_veth_default_offloads_source_nat() -> Result<()> {
    bulk(HookMode::Auto, true, |host| host)
}

#[test]
fn netns_bulk_veth_offloads_off() -> Result<()> {
    bulk(HookMode::Auto, false, |host| host.offloads(Offloads::Off))
}

#[test]
fn netns_bulk_veth_offloads_off_source_nat() -> Result<()> {
    bulk(HookMode::Auto, true, |host| host.offloads(Offloads::Off))
}

#[test]
fn netns_bulk_macvlan() -> Result<()> {
    bulk(HookMode::Auto, false, |host| host.attachment(Attachment::Macvlan))
}

#[test]
fn netns_bulk_macvlan_source_nat() -> Result<()> {
    bulk(HookMode::Auto, true, |host| host.attachment(Attachment::Macvlan))
}

#[test]
fn netns_bulk_mtu_9000_source_nat() -> Result<()> {
    bulk(HookMode::Auto, true, |host| host.mtu(9000))
}

#[test]
fn netns_bulk_forced_xdp() -> Result<()> {
    bulk(HookMode::Xdp, false, HostSpec::host_gro)
}

#[test]
fn netns_bulk_forced_xdp_source_nat() -> Result<()> {
    bulk(HookMode::Xdp, true, HostSpec::host_gro)
}

#[test]
fn netns_bulk_forced_xdp_mtu_9000_source_nat() -> Result<()> {
    bulk(HookMode::Xdp, true, |host| host.host_gro().mtu(9000))
}

#[test]
fn netns_bulk_forced_xdp_offloads_off() -> Result<()> {
    bulk(HookMode::Xdp, true, |host| {
        host.offloads(Offloads::Off).host_gro()
    })
}
