//! Every way through the choice.

use super::*;
use crate::preflight::facts::PeerFacts;

const NIC: XdpFeatures = NATIVE.union(XdpFeatures::RX_SG);
const RECEIVES: XdpFeatures = XdpFeatures::NDO_XMIT.union(XdpFeatures::NDO_XMIT_SG);

fn facts(kind: LinkKind, xdp: Option<XdpFeatures>) -> InterfaceFacts {
    let driver = match &kind {
        LinkKind::Physical => "ixgbe".to_owned(),
        kind => kind.to_string(),
    };
    InterfaceFacts {
        name: "net1".into(),
        kind,
        driver: Some(driver),
        mtu: 1500,
        rx_queues: 1,
        tx_queues: 1,
        tcx: true,
        xdp,
        peer: None,
    }
}

fn veth(xdp: Option<XdpFeatures>, peer: Option<PeerFacts>) -> InterfaceFacts {
    InterfaceFacts {
        peer,
        ..facts(LinkKind::Veth, xdp)
    }
}

fn peer() -> PeerFacts {
    PeerFacts {
        name: "eth7".into(),
        mtu: 1500,
        tx_queues: 1,
        gro: Some(false),
        tso: Some(true),
    }
}

fn chosen(mode: HookMode, facts: &InterfaceFacts) -> HookChoice {
    choose(mode, facts).expect("a choice")
}

fn refused(facts: &InterfaceFacts) -> String {
    choose(HookMode::Xdp, facts).expect_err("a refusal")
}

/// Asserts that there are as many warnings as needles, and each contains its own.
#[track_caller]
fn warned(choice: &HookChoice, needles: &[&str]) {
    assert_eq!(choice.warnings.len(), needles.len(), "{choice:#?}");
    for (warning, needle) in choice.warnings.iter().zip(needles) {
        assert!(warning.contains(needle), "no {needle:?} in {warning:?}");
    }
}

#[test]
fn without_tcx_clsact_takes_its_place() {
    let old = InterfaceFacts {
        tcx: false,
        ..facts(LinkKind::Macvlan, None)
    };
    let choice = chosen(HookMode::Tcx, &old);
    assert_eq!((choice.name(), choice.xdp), ("clsact", false));
    assert!(
        choice.reason.ends_with("which this kernel lacks"),
        "{}",
        choice.reason
    );
    let nic = InterfaceFacts {
        tcx: false,
        ..facts(LinkKind::Physical, Some(NIC))
    };
    assert_eq!(chosen(HookMode::Auto, &nic).name(), "xdp+clsact");
}

#[test]
fn auto_leaves_software_interfaces_to_tcx_and_says_why() {
    let cases = [
        (
            LinkKind::Veth,
            NIC,
            "takes TCP segmentation offload from its peer",
        ),
        (
            LinkKind::Macvlan,
            XdpFeatures::default(),
            "macvlan has no native XDP",
        ),
        (
            LinkKind::Bridge,
            XdpFeatures::default(),
            "a bridge interface is software",
        ),
        (LinkKind::Vlan, XdpFeatures::default(), "a vlan interface"),
        (LinkKind::Other("bond".into()), NIC, "a bond interface"),
    ];
    for (kind, features, reason) in cases {
        let choice = chosen(HookMode::Auto, &facts(kind, Some(features)));
        assert_eq!((choice.xdp, choice.name()), (false, "tcx"));
        assert!(
            choice.reason.starts_with("TCX alone: ") && choice.reason.contains(reason),
            "{choice:?}"
        );
        warned(&choice, &[]);
    }
}

#[test]
fn auto_gives_a_nic_both_where_its_driver_redirects() {
    let choice = chosen(HookMode::Auto, &facts(LinkKind::Physical, Some(NIC)));
    assert_eq!(choice.name(), "xdp+tcx");
    assert_eq!(
        choice.reason,
        "XDP and TCX: driver ixgbe runs native programs and redirects"
    );
    warned(&choice, &[]);

    for (features, why) in [
        (None, "does not tell whether driver ixgbe"),
        (Some(XdpFeatures::default()), "(features: none)"),
        (Some(XdpFeatures::BASIC), "(features: basic)"),
    ] {
        let choice = chosen(HookMode::Auto, &facts(LinkKind::Physical, features));
        assert!(!choice.xdp && choice.reason.contains(why), "{choice:?}");
    }
}

#[test]
fn auto_gives_jumbo_frames_to_xdp_only_in_fragments() {
    let mut nic = facts(LinkKind::Physical, Some(NATIVE));
    nic.mtu = LINEAR_MTU;
    assert!(chosen(HookMode::Auto, &nic).xdp);
    nic.mtu = LINEAR_MTU + 1;
    let choice = chosen(HookMode::Auto, &nic);
    assert!(
        !choice.xdp && choice.reason.contains("an MTU of 3507 bytes needs"),
        "{choice:?}"
    );
    nic.xdp = Some(NIC);
    assert!(chosen(HookMode::Auto, &nic).xdp);
}

#[test]
fn tcx_keeps_xdp_away_in_both_directions() {
    let choice = chosen(HookMode::Tcx, &facts(LinkKind::Physical, Some(NIC | RECEIVES)));
    assert_eq!((choice.xdp, choice.xdp_target), (false, false));
    assert_eq!(choice.reason, "TCX alone: the configuration asks for it");
}

#[test]
fn a_target_is_what_says_that_it_receives_every_frame_it_may_get() {
    let nic = |features, mtu| InterfaceFacts {
        mtu,
        ..facts(LinkKind::Physical, features)
    };
    for (features, mtu, target) in [
        (Some(NIC), 1500, false),
        (Some(NIC | XdpFeatures::NDO_XMIT), 1500, true),
        (Some(NIC | XdpFeatures::NDO_XMIT), 9000, false),
        (Some(NIC | RECEIVES), 9000, true),
        (None, 1500, false),
    ] {
        assert_eq!(
            chosen(HookMode::Auto, &nic(features, mtu)).xdp_target,
            target,
            "{features:?} {mtu}"
        );
    }
    // TCX alone does not hinder receiving.
    let choice = chosen(HookMode::Auto, &veth(Some(NIC | RECEIVES), None));
    assert_eq!((choice.xdp, choice.xdp_target), (false, true));
    // A kernel that does not tell: the visible peer does.
    for (gro, target) in [(Some(true), true), (Some(false), false), (None, false)] {
        let facts = veth(None, Some(PeerFacts { gro, ..peer() }));
        assert_eq!(chosen(HookMode::Auto, &facts).xdp_target, target, "{gro:?}");
    }
}

#[test]
fn xdp_forced_on_a_veth_warns_of_what_its_peer_costs() {
    let choice = chosen(HookMode::Xdp, &veth(Some(NIC), None));
    assert_eq!((choice.xdp, choice.xdp_target), (true, false));
    assert_eq!(choice.reason, "XDP and TCX: the configuration asks for it");
    warned(
        &choice,
        &[
            "loses TCP segmentation offload",
            "`ethtool -K PEER gro on` in the peer's namespace",
        ],
    );

    let choice = chosen(HookMode::Xdp, &veth(Some(NIC), Some(peer())));
    warned(&choice, &["loses TCP segmentation", "`ethtool -K eth7 gro on`"]);

    let without_tso = PeerFacts {
        tso: Some(false),
        ..peer()
    };
    let choice = chosen(HookMode::Xdp, &veth(Some(NIC | RECEIVES), Some(without_tso)));
    assert!(choice.xdp_target);
    warned(&choice, &[]);
}

#[test]
fn xdp_forced_on_a_veth_with_jumbo_frames_warns_of_fragments() {
    let tso = "loses TCP segmentation";
    let jumbo = |features, peer| InterfaceFacts {
        mtu: 9000,
        ..veth(Some(features), peer)
    };
    let choice = chosen(HookMode::Xdp, &jumbo(NIC | RECEIVES, None));
    warned(
        &choice,
        &[tso, "the MTU is 9000 bytes: a frame above 3506 bytes is copied"],
    );
    let choice = chosen(
        HookMode::Xdp,
        &jumbo(NIC | RECEIVES, Some(PeerFacts { mtu: 4000, ..peer() })),
    );
    warned(&choice, &[tso, "the MTU of the peer eth7 is 4000 bytes"]);
    // What counts is the sender's end.
    let choice = chosen(HookMode::Xdp, &jumbo(NIC | RECEIVES, Some(peer())));
    warned(&choice, &[tso]);

    let choice = chosen(HookMode::Xdp, &jumbo(NIC | XdpFeatures::NDO_XMIT, Some(peer())));
    assert!(!choice.xdp_target);
    warned(&choice, &[tso, "cannot be redirected into it"]);
}

#[test]
fn xdp_forced_where_the_kernel_does_not_tell_says_so() {
    let choice = chosen(HookMode::Xdp, &facts(LinkKind::Physical, None));
    assert!(choice.xdp);
    warned(&choice, &["attaching will show"]);

    let many = PeerFacts {
        tx_queues: 4,
        gro: Some(true),
        ..peer()
    };
    let choice = chosen(HookMode::Xdp, &veth(None, Some(many)));
    assert!(choice.xdp_target);
    warned(
        &choice,
        &[
            "loses TCP segmentation",
            "1 receive queues and its peer 4 transmit queues",
            "attaching will show",
        ],
    );
    warned(
        &chosen(HookMode::Xdp, &veth(None, None)),
        &[
            "loses TCP segmentation",
            "neither GRO on nor",
            "attaching will show",
        ],
    );
}

#[test]
fn xdp_forced_on_a_nic_warns_only_of_its_mtu() {
    let mut nic = facts(LinkKind::Physical, Some(NATIVE | XdpFeatures::NDO_XMIT));
    let choice = chosen(HookMode::Xdp, &nic);
    assert_eq!((choice.xdp, choice.xdp_target), (true, true));
    warned(&choice, &[]);
    nic.mtu = 9000;
    let choice = chosen(HookMode::Xdp, &nic);
    assert_eq!((choice.xdp, choice.xdp_target), (true, false));
    warned(&choice, &["it may refuse the program"]);
    nic.xdp = Some(NIC);
    warned(&chosen(HookMode::Xdp, &nic), &[]);
    // Software interfaces with native XDP there are too.
    assert!(chosen(HookMode::Xdp, &facts(LinkKind::Other("tun".into()), Some(NIC))).xdp);
}

#[test]
fn xdp_is_refused_where_it_cannot_be() {
    let none = Some(XdpFeatures::default());
    assert!(
        refused(&facts(LinkKind::Macvlan, none)).contains("macvlan has no native XDP; use `auto` or `tcx`")
    );
    assert!(refused(&facts(LinkKind::Macvlan, None)).contains("macvlan has no native XDP"));
    assert_eq!(
        refused(&facts(LinkKind::Physical, none)),
        "hook `xdp` on net1: driver ixgbe has no native XDP; use `auto` or `tcx`"
    );
    assert!(refused(&facts(LinkKind::Bridge, none)).contains("driver bridge has no native XDP"));
    let drops = refused(&facts(LinkKind::Physical, Some(XdpFeatures::BASIC)));
    assert!(
        drops.contains("drops what they redirect (features: basic)"),
        "{drops}"
    );
    let unknown = InterfaceFacts {
        driver: None,
        ..facts(LinkKind::Physical, none)
    };
    assert!(refused(&unknown).contains("driver unknown to ethtool has no native XDP"));

    let queues = refused(&veth(
        none,
        Some(PeerFacts {
            tx_queues: 4,
            ..peer()
        }),
    ));
    assert!(
        queues.contains("1 receive queues and 4 transmit queues at eth7 (ENOSPC)"),
        "{queues}"
    );
    assert!(queues.contains("`ethtool -L eth7 tx 1`"), "{queues}");
    assert!(refused(&veth(none, None)).contains("at the peer, which is in another namespace"));
}

#[test]
fn loopback_is_no_data_interface_in_any_mode() {
    for mode in [HookMode::Auto, HookMode::Tcx, HookMode::Xdp] {
        let error = choose(mode, &facts(LinkKind::Loopback, None)).expect_err("loopback");
        assert!(error.contains("cannot be a data interface"), "{error}");
    }
}
