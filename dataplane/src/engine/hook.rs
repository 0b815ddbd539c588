//! Temporary until preflight lands.
#![allow(missing_docs)]
use crate::{netlink::{Link, Netlink, ethtool::Ethtool}, ruleset::HookMode};
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookChoice { pub xdp: bool, pub xdp_target: bool, pub reason: String, pub warnings: Vec<String> }
pub struct InterfaceFacts;
impl InterfaceFacts { pub fn gather(_: &Link, _: &mut Netlink, _: &Ethtool) -> Self { Self } }
pub fn choose(mode: HookMode, _: &InterfaceFacts) -> Result<HookChoice, String> {
    let xdp = mode == HookMode::Xdp;
    Ok(HookChoice { xdp, xdp_target: xdp, reason: String::new(), warnings: vec![] })
}
