//! The preflight against real interfaces, each test in network namespaces of its own that end with its threads.

use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

use super::*;
use crate::bpf::{Object, has_tcx};
use crate::netlink::ethtool::Offload;
use crate::netlink::netdev::{self, XdpFeatures};
use crate::netlink::{MacvlanSpec, VethSpec};
use crate::ruleset::HookMode;

const SMALL: Sizes = Sizes {
    sessions: 16,
    half_open: 16,
    rules: 16,
    addresses: 16,
    routes: 16,
    neighbours: 16,
};
const VETH: XdpFeatures = XdpFeatures::BASIC
    .union(XdpFeatures::REDIRECT)
    .union(XdpFeatures::RX_SG);
const RECEIVES: XdpFeatures = XdpFeatures::NDO_XMIT.union(XdpFeatures::NDO_XMIT_SG);

/// Whether a test that needs root is to go on. A test that did not run must not look as if it had passed.
pub(super) fn privileged() -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    let skip = std::env::var_os("BULKHEAD_SKIP_PRIVILEGED").is_some_and(|value| value == "1");
    assert!(
        skip,
        "this test needs root; run it with sudo, or set BULKHEAD_SKIP_PRIVILEGED=1"
    );
    println!("SKIPPED: needs root");
    false
}

/// Runs a test on a thread in a new network namespace.
fn isolated(test: impl FnOnce(&mut Netlink, &Ethtool) + Send + 'static) {
    if !privileged() {
        return;
    }
    let thread = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
        test(
            &mut Netlink::connect().expect("netlink"),
            &Ethtool::open().expect("ethtool"),
        );
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A network namespace beside the one of the calling thread; it ends when the descriptor is closed.
fn another_namespace() -> OwnedFd {
    let make = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
        OwnedFd::from(fs::File::open("/proc/thread-self/ns/net").expect("its descriptor"))
    };
    thread::spawn(make).join().expect("a namespace")
}

/// Runs a closure in another namespace.
fn within<R: Send>(namespace: &OwnedFd, closure: impl FnOnce(&mut Netlink, &Ethtool) -> R + Send) -> R {
    let run = || {
        setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).expect("entered");
        closure(
            &mut Netlink::connect().expect("netlink"),
            &Ethtool::open().expect("ethtool"),
        )
    };
    thread::scope(|scope| scope.spawn(run).join()).expect("no panic")
}

/// A veth pair `a`, `b`, both ends here and up.
fn cable(netlink: &mut Netlink, queues: u32) -> [u32; 2] {
    let spec = VethSpec {
        name: "a",
        peer_name: "b",
        queues,
        ..VethSpec::default()
    };
    let near = netlink.create_veth(&spec).expect("a veth");
    let far = netlink.link_by_name("b").expect("its peer").index;
    netlink.set_up(near).expect("up");
    netlink.set_up(far).expect("up");
    [near, far]
}

fn features(index: u32) -> XdpFeatures {
    netdev::xdp_features(index)
        .expect("an answer")
        .expect("Linux 6.3 or newer")
}

/// Whether the kernel tells what drivers can do with XDP.
fn tells_features() -> bool {
    // The loopback interface.
    netdev::xdp_features(1).is_ok_and(|features| features.is_some())
}

/// Whether a test that needs the kernel to tell is to go on. A test that did not run must not look as if it had passed.
fn features_are_told() -> bool {
    let told = tells_features();
    if !told {
        println!("SKIPPED: needs a kernel that tells XDP features, Linux 6.3 or newer");
    }
    told
}

fn rule(name: &str, hook: HookMode) -> InterfaceRule {
    InterfaceRule {
        name: name.into(),
        hook,
        ..InterfaceRule::default()
    }
}

/// What the preflight says of one interface here.
fn looked_at(name: &str, hook: HookMode) -> InterfaceCheck {
    let mut preflight = Preflight::run_with(&[rule(name, hook)], &SMALL);
    preflight.interfaces.pop().expect("one interface")
}

#[test]
fn netns_a_veth_receives_redirects_while_its_peer_has_gro_or_xdp() {
    isolated(|netlink, ethtool| {
        if !features_are_told() {
            return;
        }
        let [near, far] = cable(netlink, 0);
        assert_eq!(
            [features(near), features(far)],
            [VETH, VETH],
            "default offloads: GRO off"
        );
        ethtool.set_offload("b", Offload::Gro, true).expect("gro on");
        assert_eq!(
            [features(near), features(far)],
            [VETH | RECEIVES, VETH],
            "the peer's GRO opens this end"
        );
        ethtool.set_offload("b", Offload::Gro, false).expect("gro off");
        assert_eq!([features(near), features(far)], [VETH, VETH]);

        let mut object = Object::load(&SMALL).expect("the object loads");
        let link = object.attach_xdp("a").expect("XDP");
        assert_eq!(
            [features(near), features(far)],
            [VETH, VETH | RECEIVES],
            "XDP here opens the peer"
        );
        let tso = |end| ethtool.offload(end, Offload::Tso).expect("an answer");
        assert_eq!([tso("a"), tso("b")], [true, false], "and costs it TSO");
        drop(link);
        assert_eq!([features(near), features(far)], [VETH, VETH]);
        assert_eq!([tso("a"), tso("b")], [true, true]);
    });
}

#[test]
fn netns_a_veth_has_xdp_only_with_queues_for_its_peer() {
    isolated(|netlink, ethtool| {
        if !features_are_told() {
            return;
        }
        let [near, _] = cable(netlink, 4);
        assert_eq!(features(near), VETH);
        assert!(looked_at("a", HookMode::Xdp).hook.is_ok());
        ethtool.set_channels("a", 1, 4).expect("fewer queues");
        assert!(features(near).is_empty());
        let check = looked_at("a", HookMode::Xdp);
        assert_eq!(check.queues, Some(Queues { rx: 1, tx: 4 }));
        let error = check.hook.expect_err("refused");
        assert!(
            error.contains("1 receive queues and 4 transmit queues at b (ENOSPC)"),
            "{error}"
        );
        // The refusal is right, and so is the advice.
        let mut object = Object::load(&SMALL).expect("the object loads");
        object.attach_xdp("a").expect_err("ENOSPC");
        ethtool.set_channels("b", 4, 1).expect("`ethtool -L b tx 1`");
        drop(object.attach_xdp("a").expect("XDP"));
        assert!(looked_at("a", HookMode::Xdp).hook.is_ok());
    });
}

#[test]
fn netns_an_absent_interface_and_one_without_xdp_say_so() {
    isolated(|netlink, _| {
        if !features_are_told() {
            return;
        }
        let error = netdev::xdp_features(9_999).expect_err("no such interface");
        assert!(error.is_not_found(), "{error}");
        let loopback = netlink.link_by_name("lo").expect("loopback");
        assert!(features(loopback.index).is_empty());

        let check = looked_at("net9", HookMode::Auto);
        assert_eq!(
            (check.exists, check.kind.clone(), check.status()),
            (false, None, Status::Fail)
        );
        assert!(
            check
                .hook
                .expect_err("absent")
                .contains("no interface named \"net9\"")
        );
        let preflight = Preflight::run_with(&[rule("lo", HookMode::Tcx)], &SMALL);
        assert_eq!(preflight.status(), Status::Fail);
    });
}

#[test]
fn netns_a_veth_gets_tcx_and_forced_xdp_with_its_price() {
    isolated(|netlink, ethtool| {
        cable(netlink, 0);
        let check = looked_at("a", HookMode::Auto);
        let hook = check.hook.as_ref().expect("a choice");
        assert_eq!(
            (hook.xdp, hook.xdp_target, hook.clsact),
            (false, false, !has_tcx())
        );
        assert_eq!(
            (check.kind.clone(), check.driver.as_deref()),
            (Some(LinkKind::Veth), Some("veth"))
        );
        assert_eq!(
            (check.mtu, check.queues),
            (Some(1500), Some(Queues { rx: 1, tx: 1 }))
        );
        assert_eq!((check.status(), &check.warnings[..]), (Status::Ok, &[][..]));

        let check = looked_at("a", HookMode::Xdp);
        let hook = check.hook.as_ref().expect("a choice");
        assert_eq!(
            (hook.xdp, hook.xdp_target, check.status()),
            (true, false, Status::Warn)
        );
        // Where the kernel does not tell what a driver can do, a warning says so.
        let untold = usize::from(!tells_features());
        assert_eq!(check.warnings.len(), 2 + untold, "{:#?}", check.warnings);
        assert!(
            check.warnings[1].contains("`ethtool -K b gro on`"),
            "{}",
            check.warnings[1]
        );
        ethtool.set_offload("b", Offload::Gro, true).expect("gro on");
        let check = looked_at("a", HookMode::Xdp);
        assert!(check.hook.as_ref().expect("a choice").xdp_target);
        assert_eq!(
            check.warnings.len(),
            1 + untold,
            "TSO alone: {:#?}",
            check.warnings
        );
    });
}

#[test]
fn netns_a_peer_in_another_namespace_shows_in_the_features() {
    isolated(|netlink, _| {
        if !features_are_told() {
            return;
        }
        let elsewhere = another_namespace();
        let spec = VethSpec {
            name: "a",
            peer_name: "b",
            peer_namespace: Some(elsewhere.as_fd()),
            mtu: Some(9000),
            ..VethSpec::default()
        };
        let near = netlink.create_veth(&spec).expect("a veth");
        netlink.set_up(near).expect("up");
        let check = looked_at("a", HookMode::Xdp);
        assert!(!check.hook.as_ref().expect("a choice").xdp_target);
        let said = check.warnings.join("\n");
        assert!(
            said.contains("`ethtool -K PEER gro on` in the peer's namespace"),
            "{said}"
        );
        assert!(said.contains("the MTU is 9000 bytes"), "{said}");
        assert!(said.contains("a has no carrier"), "{said}");

        within(&elsewhere, |netlink, ethtool| {
            let far = netlink.link_by_name("b").expect("the peer").index;
            netlink.set_up(far).expect("up");
            ethtool.set_offload("b", Offload::Gro, true).expect("gro on");
        });
        let check = looked_at("a", HookMode::Xdp);
        assert!(check.hook.as_ref().expect("a choice").xdp_target);
        assert!(!check.warnings.join("\n").contains("no carrier"));
        // Our program reads fragments, so the MTU is no obstacle.
        drop(
            Object::load(&SMALL)
                .expect("the object loads")
                .attach_xdp("a")
                .expect("XDP at 9000 bytes"),
        );
    });
}

#[test]
fn netns_macvlan_gets_tcx_and_refuses_xdp() {
    isolated(|netlink, _| {
        let [_, parent] = cable(netlink, 0);
        netlink
            .create_macvlan(&MacvlanSpec {
                name: "m",
                parent,
                namespace: None,
            })
            .expect("a macvlan");
        let check = looked_at("m", HookMode::Auto);
        assert_eq!(check.driver.as_deref(), Some("macvlan"));
        let hook = check.hook.expect("a choice");
        assert_eq!(
            (hook.xdp, hook.xdp_target, hook.clsact),
            (false, false, !has_tcx())
        );
        assert!(
            hook.reason.starts_with("TCX alone: macvlan has no native XDP"),
            "{}",
            hook.reason
        );
        looked_at("m", HookMode::Xdp).hook.expect_err("no native XDP");
        Object::load(&SMALL)
            .expect("the object loads")
            .attach_xdp("m")
            .expect_err("and indeed");
    });
}

#[test]
fn netns_a_port_of_a_bridge_and_ipv6_switched_off_are_told() {
    isolated(|netlink, _| {
        let [near, _] = cable(netlink, 0);
        let bridge = netlink.create_bridge("br").expect("a bridge");
        netlink.set_master(near, Some(bridge)).expect("a port");
        fs::write("/proc/sys/net/ipv6/conf/a/disable_ipv6", "1").expect("a sysctl");
        let warnings = looked_at("a", HookMode::Auto).warnings;
        assert_eq!(warnings.len(), 2, "{warnings:#?}");
        assert!(warnings[0].contains("a is a port of br"), "{}", warnings[0]);
        assert!(
            warnings[1].contains("IPv6 is switched off on a"),
            "{}",
            warnings[1]
        );
        let hook = looked_at("br", HookMode::Auto).hook.expect("a choice");
        assert!(
            hook.reason.contains("a bridge interface is software"),
            "{}",
            hook.reason
        );
    });
}

#[test]
fn netns_a_strict_reverse_path_filter_is_a_warning() {
    isolated(|netlink, _| {
        cable(netlink, 0);
        let check = |preflight: &Preflight, name| {
            preflight
                .checks
                .iter()
                .find(|check| check.name == name)
                .cloned()
                .expect("there")
        };
        for (all, own, status) in [
            ("0", "0", Status::Ok),
            ("2", "1", Status::Ok),
            ("0", "1", Status::Warn),
            ("1", "0", Status::Warn),
        ] {
            fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", all).expect("a sysctl");
            fs::write("/proc/sys/net/ipv4/conf/a/rp_filter", own).expect("a sysctl");
            let preflight = Preflight::run_with(&[rule("a", HookMode::Auto)], &SMALL);
            assert_eq!(
                check(&preflight, "rp_filter").status,
                status,
                "all {all}, own {own}"
            );
        }
    });
}

#[test]
fn netns_looking_finds_this_machine_able_and_changes_nothing() {
    isolated(|netlink, _| {
        cable(netlink, 0);
        let picture = |netlink: &mut Netlink| {
            let links = netlink.links().expect("links");
            let rules = netlink.blackhole_rules().expect("rules");
            (
                links,
                netlink.addresses().expect("addresses"),
                netlink.routes().expect("routes"),
                rules,
            )
        };
        // Carrier and link-local addresses settle first; nobody else may have the address, which takes a second or two.
        let mut before = picture(netlink);
        for _ in 0..200 {
            thread::sleep(std::time::Duration::from_millis(50));
            let now = picture(netlink);
            if std::mem::replace(&mut before, now) == before
                && before.0.iter().filter(|link| link.running).count() >= 2
                && before.1.len() >= 2
                && before.1.iter().all(|address| address.usable)
            {
                break;
            }
        }
        let preflight = Preflight::run_with(&[rule("a", HookMode::Auto), rule("b", HookMode::Xdp)], &SMALL);
        assert_eq!(picture(netlink), before);

        let names: Vec<_> = preflight.checks.iter().map(|check| check.name).collect();
        let expected = [
            "kernel",
            "CAP_NET_ADMIN",
            "CAP_BPF",
            "CAP_PERFMON",
            "CAP_NET_RAW",
            "other_capabilities",
            "bpf",
            "attach",
            "jit",
            "btf",
            "syn_cookies",
            "bpffs",
            "memory",
            "policy_routing",
            "forwarding",
            "rp_filter",
        ];
        assert_eq!(names, expected);
        for check in &preflight.checks {
            assert!(check.status < Status::Fail, "{check}");
            assert!(check.status == Status::Ok || check.remedy.is_some(), "{check}");
        }
        assert!(
            preflight.kernel.starts_with(char::is_numeric),
            "{}",
            preflight.kernel
        );
        assert_eq!(preflight.interfaces.len(), 2);
        assert_eq!(
            preflight.status(),
            Status::Warn,
            "forced XDP on a veth has its price"
        );
    });
}

#[test]
fn a_check_prints_its_remedy_below() {
    let check = Check::fail("btf", "nothing", "build one");
    assert_eq!(check.to_string(), "fail btf: nothing\n     build one");
    assert_eq!(Check::ok("btf", "there").to_string(), "ok   btf: there");
    assert!(Status::Ok < Status::Warn && Status::Warn < Status::Fail);
}
