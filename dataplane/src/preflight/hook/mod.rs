//! Which programs go onto an interface, and why.
//!
//! Owns the decision and its words: a pure function of the configured mode and of [`InterfaceFacts`]. TCX goes
//! everywhere; in a kernel without it (before 6.6) filters of `clsact` take its place. XDP is added where it pays (a NIC whose driver runs native programs and redirects), or where the
//! configuration insists. Assumes that the XDP program reads frames in fragments, as ours does (`xdp.frags`):
//! then a veth of any MTU takes it. Refuses `xdp` where attaching is bound to fail, with what to do instead.
//!
//! Whether an interface may be a *target* of redirects is a question of its own, because the answer "no" is
//! given by losing frames in silence. It changes while interfaces live: see [`can_receive`].

use super::facts::InterfaceFacts;
use crate::netlink::LinkKind;
use crate::netlink::netdev::XdpFeatures;
use crate::ruleset::HookMode;

#[cfg(test)]
mod tests;

/// Largest MTU of which a frame fits one page beside XDP's headroom (256) and the kernel's `skb_shared_info` (320):
/// 4096 - 256 - 320 - 14. Larger frames come in fragments.
const LINEAR_MTU: u32 = 3_506;

/// Running native programs that redirect.
const NATIVE: XdpFeatures = XdpFeatures::BASIC.union(XdpFeatures::REDIRECT);

/// What goes onto an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HookChoice {
    /// XDP is attached too; TCX always is.
    pub xdp: bool,
    /// The kernel has no TCX, and filters of `clsact` take its place.
    pub clsact: bool,
    /// XDP programs of other interfaces may redirect into this one. Where they may not, such packets are passed on
    /// to TCX, which sends them by a way that always exists.
    pub xdp_target: bool,
    /// Why, for people.
    pub reason: String,
    /// What would cost packets or speed, and what to do about it.
    pub warnings: Vec<String>,
}

/// The word for what is on an interface.
#[must_use]
pub const fn name(xdp: bool, clsact: bool) -> &'static str {
    match (xdp, clsact) {
        (false, false) => "tcx",
        (true, false) => "xdp+tcx",
        (false, true) => "clsact",
        (true, true) => "xdp+clsact",
    }
}

impl HookChoice {
    /// `tcx` or `xdp+tcx`; `clsact` or `xdp+clsact` where the kernel has no TCX.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        name(self.xdp, self.clsact)
    }

    fn tcx(reason: impl Into<String>) -> Self {
        Self {
            reason: format!("TCX alone: {}", reason.into()),
            ..Self::default()
        }
    }

    fn both(reason: impl Into<String>) -> Self {
        Self {
            xdp: true,
            reason: format!("XDP and TCX: {}", reason.into()),
            ..Self::default()
        }
    }
}

/// Chooses the hooks of an interface.
///
/// # Errors
/// `xdp` was asked for where it cannot be attached, or would lose what it redirects: why, and what to do.
pub fn choose(mode: HookMode, facts: &InterfaceFacts) -> Result<HookChoice, String> {
    if facts.kind == LinkKind::Loopback {
        return Err(format!(
            "{} is the loopback interface, which carries the firewall's own conversations and cannot be a data \
             interface; take it out of the configuration",
            facts.name
        ));
    }
    let mut choice = match mode {
        HookMode::Auto => automatic(facts),
        HookMode::Tcx => HookChoice::tcx("the configuration asks for it"),
        HookMode::Xdp => forced(facts)?,
    };
    choice.xdp_target = can_receive(mode, facts);
    if !facts.tcx {
        choice.clsact = true;
        choice
            .reason
            .push_str("; filters of `clsact` instead of TCX, which this kernel lacks");
    }
    Ok(choice)
}

/// Whether XDP programs may redirect into the interface as it is now. With `tcx` they never do: the mode keeps XDP
/// away from an interface altogether.
///
/// Ask again after XDP was attached to it, because many NICs (virtio among them) receive only from then on; and every
/// now and then, because a veth stops receiving when its peer switches GRO off, which rtnetlink does not tell.
#[must_use]
pub fn can_receive(mode: HookMode, facts: &InterfaceFacts) -> bool {
    if mode == HookMode::Tcx {
        return false;
    }
    match facts.xdp {
        Some(features) => {
            features.contains(XdpFeatures::NDO_XMIT)
                && (facts.mtu <= LINEAR_MTU || features.contains(XdpFeatures::NDO_XMIT_SG))
        }
        // Older kernels do not tell; of a veth it can be known all the same.
        None => facts.peer.as_ref().is_some_and(|peer| peer.gro == Some(true)),
    }
}

fn automatic(facts: &InterfaceFacts) -> HookChoice {
    let driver = facts.driver_name();
    match (&facts.kind, facts.xdp) {
        (LinkKind::Veth, _) => HookChoice::tcx(
            "native XDP on a veth takes TCP segmentation offload from its peer, which costs bulk TCP more (10 to 2 \
             Gbit/s) than XDP wins",
        ),
        (LinkKind::Macvlan, _) => HookChoice::tcx("macvlan has no native XDP"),
        (LinkKind::Physical, None) => HookChoice::tcx(format!(
            "this kernel does not tell whether driver {driver} has native XDP (generic netlink family `netdev`)"
        )),
        (LinkKind::Physical, Some(features)) if !features.contains(NATIVE) => HookChoice::tcx(format!(
            "driver {driver} has no native XDP with redirects (features: {features})"
        )),
        (LinkKind::Physical, Some(features))
            if facts.mtu > LINEAR_MTU && !features.contains(XdpFeatures::RX_SG) =>
        {
            HookChoice::tcx(format!(
                "driver {driver} gives XDP no frames in fragments, which an MTU of {} bytes needs (above {LINEAR_MTU})",
                facts.mtu
            ))
        }
        (LinkKind::Physical, Some(_)) => {
            HookChoice::both(format!("driver {driver} runs native programs and redirects"))
        }
        (kind, _) => HookChoice::tcx(format!("a {kind} interface is software, where XDP saves nothing")),
    }
}

fn forced(facts: &InterfaceFacts) -> Result<HookChoice, String> {
    let (name, driver) = (&facts.name, facts.driver_name());
    match (&facts.kind, facts.xdp) {
        (LinkKind::Macvlan, _) => {
            return Err(format!(
                "hook `xdp` on {name}: macvlan has no native XDP; use `auto` or `tcx`, or give the firewall an \
                 SR-IOV function or a veth instead"
            ));
        }
        (LinkKind::Veth, Some(features)) if !features.contains(NATIVE) => {
            return Err(format!(
                "hook `xdp` on {name}: a veth has native XDP only with a receive queue for each transmit queue of \
                 its peer; here are {} receive queues and {} (ENOSPC). Set the peer's transmit queues with \
                 `ethtool -L {} tx {}`, make the pair with equal queues, or use `auto` or `tcx`",
                facts.rx_queues,
                peer_queues(facts),
                peer_name(facts),
                facts.rx_queues,
            ));
        }
        (_, Some(features)) if !features.contains(XdpFeatures::BASIC) => {
            return Err(format!(
                "hook `xdp` on {name}: driver {driver} has no native XDP; use `auto` or `tcx`"
            ));
        }
        (_, Some(features)) if !features.contains(XdpFeatures::REDIRECT) => {
            return Err(format!(
                "hook `xdp` on {name}: driver {driver} runs XDP programs but drops what they redirect \
                 (features: {features}); use `auto` or `tcx`"
            ));
        }
        _ => {}
    }
    let mut choice = HookChoice::both("the configuration asks for it");
    if facts.kind == LinkKind::Veth {
        choice.warnings = veth_warnings(facts);
    }
    match facts.xdp {
        None => choice.warnings.push(format!(
            "this kernel does not tell whether driver {driver} has native XDP: attaching will show"
        )),
        Some(features) if facts.mtu > LINEAR_MTU && !features.contains(XdpFeatures::RX_SG) => {
            choice.warnings.push(format!(
                "the MTU is {} bytes and driver {driver} gives XDP no frames in fragments: above {LINEAR_MTU} bytes \
                 it may refuse the program (ERANGE, EINVAL) or drop frames; lower the MTU or use `auto`",
                facts.mtu
            ));
        }
        Some(_) => {}
    }
    Ok(choice)
}

/// What native XDP on a veth costs, and what its other end would have to do.
fn veth_warnings(facts: &InterfaceFacts) -> Vec<String> {
    let name = &facts.name;
    let mut warnings = Vec::new();
    if facts.peer.as_ref().is_none_or(|peer| peer.tso != Some(false)) {
        warnings.push(format!(
            "the peer of {name} loses TCP segmentation offload while XDP is attached: bulk TCP from it falls (10 to 2 \
             Gbit/s); `auto` keeps it"
        ));
    }
    let open = facts.xdp.map(|features| features.contains(XdpFeatures::NDO_XMIT));
    if !open.unwrap_or_else(|| facts.peer.as_ref().is_some_and(|peer| peer.gro == Some(true))) {
        warnings.push(format!(
            "the peer of {name} has neither GRO on nor an XDP program: frames that XDP redirected into {name} would be \
             lost in silence (ENXIO), so packets for it go by TCX instead, at TCX speed and without loss; \
             `ethtool -K {} gro on` in the peer's namespace changes that",
            peer_name(facts)
        ));
    } else if !can_receive(HookMode::Xdp, facts) {
        warnings.push(format!(
            "{name} has an MTU of {} bytes, and frames above {LINEAR_MTU} bytes, which come in fragments, cannot be \
             redirected into it: packets for it go by TCX instead; lower the MTU to have them go by XDP",
            facts.mtu
        ));
    }
    match &facts.peer {
        Some(peer) if peer.mtu > LINEAR_MTU => warnings.push(format!(
            "the MTU of the peer {} is {} bytes: a frame above {LINEAR_MTU} bytes is copied into fragments for XDP, \
             and an XDP program of the peer's own must be able to read those (`xdp.frags`) or is refused (ERANGE)",
            peer.name, peer.mtu
        )),
        None if facts.mtu > LINEAR_MTU => warnings.push(format!(
            "the MTU is {} bytes: a frame above {LINEAR_MTU} bytes is copied into fragments for XDP, and an XDP \
             program of the peer's own must be able to read those (`xdp.frags`) or is refused (ERANGE)",
            facts.mtu
        )),
        _ => {}
    }
    if facts.xdp.is_none()
        && let Some(peer) = &facts.peer
        && peer.tx_queues > facts.rx_queues
    {
        warnings.push(format!(
            "{name} has {} receive queues and its peer {} transmit queues: attaching XDP will be refused (ENOSPC); \
             `ethtool -L {} tx {}`",
            facts.rx_queues, peer.tx_queues, peer.name, facts.rx_queues
        ));
    }
    warnings
}

fn peer_name(facts: &InterfaceFacts) -> &str {
    facts.peer.as_ref().map_or("PEER", |peer| &peer.name)
}

fn peer_queues(facts: &InterfaceFacts) -> String {
    match &facts.peer {
        Some(peer) => format!("{} transmit queues at {}", peer.tx_queues, peer.name),
        None => "more transmit queues at the peer, which is in another namespace".into(),
    }
}
