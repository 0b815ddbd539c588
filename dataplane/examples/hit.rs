use bulkhead_dataplane::{engine::{Engine, Options}, bpf::Program, ruleset::*};
use bulkhead_testkit::*;
fn main() -> anyhow::Result<()> {
    let lab = Topology::builder("bht-").host(HostSpec::new("inside").host_gro()).host(HostSpec::new("outside").host_gro()).build()?;
    let nat = std::env::args().nth(1).is_some();
    let rs = Ruleset {
        zones: vec![Zone{name:"a".into(),host_inbound:vec![]},Zone{name:"b".into(),host_inbound:vec![]}],
        interfaces: vec![InterfaceRule{name:"net1".into(),zone:0,addresses:vec![],hook:HookMode::Xdp},InterfaceRule{name:"net2".into(),zone:1,addresses:vec![],hook:HookMode::Xdp}],
        policies: vec![Policy{name:"p".into(),action:Action::Permit,from:vec![0],..Policy::default()}],
        source_nat: if nat {vec![NatRule{name:"n".into(),from:vec![0],to:vec![1],translate:true}]} else {vec![]},
        answers_per_second: 10, deny_events_per_second: 10, ..Ruleset::default() };
    let engine = lab.firewall().run(|| Engine::start(rs, &Options::default()))?;
    let (i,o)=(lab.host("inside"),lab.host("outside"));
    let _dns = UdpServer::start(&o.namespace, o.v4_port(53))?;
    let src: std::net::SocketAddr = (i.v4, 4000).into();
    i.client().source(src).dns_query(o.v4_port(53),"x.test")?.answered()?;
    i.client().source(src).dns_query(o.v4_port(53),"x.test")?.answered()?;
    let f = Frame::ip(i.v4, o.v4).macs(i.mac, i.firewall_mac).udp(4000,53).payload_bytes(18).build();
    for p in [Program::Ingress, Program::Xdp] { for _ in 0..3 {
      let before = engine.counters()?;
      let r = lab.firewall().run(|| engine.with_object(|ob| ob.test_run(p, &f, i.firewall_index, 1)))?;
      let after = engine.counters()?;
      let ch: Vec<_> = after.iter().filter(|(k,v)| before[*k]!=**v).collect();
      let r2 = lab.firewall().run(|| engine.with_object(|ob| ob.test_run(p, &f, i.firewall_index, 6_000_000)))?;
      println!("{p:?} code {} {:?} {:?}", r.code, r2.duration, ch);
    } }
    engine.stop();
    Ok(())
}
