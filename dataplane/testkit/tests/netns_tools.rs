//! What attack tests and the soak stand on counts what it says and nothing else.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use anyhow::Result;
use bulkhead_testkit::{Frame, HostSpec, RawPort, Stream, Tap, TcpServer, Tool, Topology, privileged};

#[test]
fn netns_a_tap_counts_discovery_that_leaves_and_nothing_else() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = Topology::builder("bht-t").host(HostSpec::new("host")).build()?;
    let host = lab.host("host");
    lab.resolve_neighbours()?;
    let tap = Tap::open(lab.firewall(), &host.firewall_interface)?;
    let own = RawPort::open(lab.firewall(), &host.firewall_interface)?;
    let far = RawPort::open(&host.namespace, &host.interface)?;
    let (four, six) = (IpAddr::V4(host.firewall_v4), IpAddr::V6(host.firewall_v6));
    let frame = |to: IpAddr| {
        let from = if to.is_ipv4() { four } else { six };
        Frame::ip(from, to).macs(host.firewall_mac, host.mac)
    };
    let group: IpAddr = "ff02::16".parse::<Ipv6Addr>()?.into();
    let (v4, v6) = (IpAddr::V4(host.v4), IpAddr::V6(host.v6));
    // A reply to a question nobody asked: the far end keeps silent.
    let mut arp = vec![0; 42];
    arp[..6].copy_from_slice(&host.mac);
    arp[6..12].copy_from_slice(&host.firewall_mac);
    arp[12..22].copy_from_slice(&[0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 2]);
    let discovery = [
        arp,
        frame(v6).icmp(135, 0, [0; 4]).payload(&host.v6.octets()).build(),
        frame(v6).icmp(136, 0, [0; 4]).payload(&host.v6.octets()).build(),
        frame(group)
            .extension(0, &[5, 2, 0, 0])
            .icmp(143, 0, [0; 4])
            .build(),
        frame(group)
            .extension(0, &[5, 2, 0, 0])
            .icmp(131, 0, [0; 4])
            .build(),
    ];
    let others = [
        frame(v4).udp(1, 2).build(),
        frame(v4).echo_request(1, 1).build(),
        frame(v6).tcp(1, 2).syn().build(),
        frame(v6).echo_request(1, 1).build(),
        frame(v6).icmp(1, 0, [0; 4]).build(),
        frame(v6).icmp(138, 0, [0; 4]).build(),
        frame(group)
            .extension(0, &[5, 2, 0, 0])
            .icmp(128, 0, [0; 4])
            .build(),
        frame(group).extension(0, &[5, 2, 0, 0]).udp(143, 143).build(),
    ];
    let before = tap.count()?;
    for other in &others {
        own.send(other)?;
    }
    assert_eq!(tap.count()?, before, "what is no discovery");
    for (number, frame) in discovery.iter().enumerate() {
        own.send(frame)?;
        assert_eq!(
            tap.count()?,
            before + number as u64 + 1,
            "discovery frame {number}"
        );
    }
    // What arrives is not what leaves; a probe of the kernel's own may come in between.
    for _ in 0..40 {
        for frame in &discovery {
            let mut frame = frame.clone();
            // Addressed to nobody here: answers would leave.
            frame[..12].copy_from_slice(&[2, 9, 9, 9, 9, 9, 2, 8, 8, 8, 8, 8]);
            far.send(&frame)?;
        }
    }
    let counted = tap.count()? - before;
    assert!(
        (5..15).contains(&counted),
        "{counted} of 5 that left and 200 that arrived"
    );
    Ok(())
}

#[test]
fn netns_a_stream_reports_what_it_carried_and_what_broke_it() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = Topology::builder("bht-t").host(HostSpec::new("host")).build()?;
    let host = lab.host("host");
    let server = TcpServer::start(lab.firewall(), (host.firewall_v4, 0).into())?;
    let client = host.client().timeout(Duration::from_millis(500));
    let stream = Stream::start(client.tcp(server.address())?.answered()?, 4096)?;
    stream.advance(3)?;
    stream.pause()?;
    let rested = stream.report();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(stream.report(), rested, "nothing goes over while it rests");
    assert_eq!(rested.bytes, rested.exchanges * 2 * 4096);
    stream.resume();
    stream.advance(3)?;
    // The link goes: what stalls is seen while it stalls, and then it has broken.
    let mut netlink = lab.firewall().netlink()?;
    netlink.set_down(host.firewall_index)?;
    assert!(stream.advance(1).is_err());
    let report = stream.report();
    assert!(
        report.broken.is_some() && report.longest >= Duration::from_millis(400),
        "{report:?}"
    );
    Ok(())
}

#[test]
fn netns_a_tool_runs_where_it_is_sent_and_not_for_ever() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = Topology::builder("bht-t").host(HostSpec::new("host")).build()?;
    let host = lab.host("host");
    let output = Tool::new("ip")
        .args(["-4", "-o", "addr"])
        .run(&host.namespace)?
        .success()?;
    assert!(output.stdout.contains(&host.v4.to_string()), "{output:?}");
    let output = Tool::new("cat").input("as it was").run(&host.namespace)?;
    assert_eq!(output.stdout, "as it was");
    assert!(Tool::new("false").run(&host.namespace)?.success().is_err());
    let endless = Tool::new("sleep")
        .args(["600"])
        .patience(Duration::from_millis(200));
    let error = endless.run(&host.namespace).expect_err("patience ends");
    assert!(error.to_string().contains("sleep ran for more than"), "{error}");
    assert!(Tool::new("no-such-tool-here").run(&host.namespace).is_err());
    Ok(())
}
