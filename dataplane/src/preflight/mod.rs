//! Whether a firewall can run here, how well, and what to do about it: what `doctor` prints, and how the engine
//! chooses hooks.
//!
//! Owns the questions and the advice. Assumes nothing of a running daemon and needs none; looks at the network
//! namespace of the calling thread. Refuses to change anything: the maps and programs it makes to see whether it
//! can are gone before the answer is given.
//!
//! A check is [`Status::Fail`] if the engine would not start, [`Status::Warn`] if it would and something would be
//! lost, [`Status::Ok`] otherwise. Each check that is not fine says what to do, in words that fit into a ticket.

mod facts;
pub mod hook;
mod kernel;
mod memory;

pub use memory::most_bytes as most_table_bytes;
mod network;
mod privilege;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs;

pub use self::facts::{InterfaceFacts, PeerFacts};
pub use self::hook::HookChoice;
use crate::bpf::{self, Sizes};
use crate::netlink::ethtool::Ethtool;
use crate::netlink::{Error, Link, LinkKind, Netlink};
use crate::ruleset::InterfaceRule;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// It will do.
    Ok,
    /// The firewall runs, and something is lost: speed, convenience, a part of the traffic.
    Warn,
    /// The firewall will not start.
    Fail,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        })
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What; a stable word.
    pub name: &'static str,
    /// How it came out.
    pub status: Status,
    /// What is there.
    pub found: String,
    /// What to do; always there unless the status is [`Status::Ok`].
    pub remedy: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            status: Status::Ok,
            found: found.into(),
            remedy: None,
        }
    }

    fn warn(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            name,
            status: Status::Warn,
            found: found.into(),
            remedy: Some(remedy.into()),
        }
    }

    fn fail(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            name,
            status: Status::Fail,
            found: found.into(),
            remedy: Some(remedy.into()),
        }
    }
}

impl fmt::Display for Check {
    /// One line, and a second with the remedy.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<4} {}: {}", self.status, self.name, self.found)?;
        match &self.remedy {
            Some(remedy) => write!(f, "\n     {remedy}"),
            None => Ok(()),
        }
    }
}

/// Queues in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queues {
    /// Receiving.
    pub rx: u32,
    /// Transmitting.
    pub tx: u32,
}

/// A data interface that was looked at. What is `None` is so because the interface does not exist, or because its
/// driver does not say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceCheck {
    /// Its configured name.
    pub name: String,
    /// Whether there is one of this name in this network namespace.
    pub exists: bool,
    /// What drives it.
    pub kind: Option<LinkKind>,
    /// The driver's name.
    pub driver: Option<String>,
    /// Largest layer-3 packet, bytes.
    pub mtu: Option<u32>,
    /// Queues in use.
    pub queues: Option<Queues>,
    /// The hooks it would get, or why it cannot get those asked for.
    pub hook: Result<HookChoice, String>,
    /// What would cost packets or speed; those of the hook come first.
    pub warnings: Vec<String>,
}

impl InterfaceCheck {
    /// Fails without a hook, warns with warnings.
    #[must_use]
    pub fn status(&self) -> Status {
        match (&self.hook, self.warnings.is_empty()) {
            (Err(_), _) => Status::Fail,
            (Ok(_), false) => Status::Warn,
            (Ok(_), true) => Status::Ok,
        }
    }
}

/// Everything that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preflight {
    /// The kernel's release, as `uname -r` prints it.
    pub kernel: String,
    /// The machine, the container and the network namespace.
    pub checks: Vec<Check>,
    /// The data interfaces, as configured.
    pub interfaces: Vec<InterfaceCheck>,
}

impl Preflight {
    /// Looks, with tables of the default sizes.
    #[must_use]
    pub fn run(interfaces: &[InterfaceRule]) -> Self {
        Self::run_with(interfaces, &Sizes::default())
    }

    /// Looks, with tables of these sizes.
    #[must_use]
    pub fn run_with(interfaces: &[InterfaceRule], sizes: &Sizes) -> Self {
        let proc = |file: &str| fs::read_to_string(format!("/proc/thread-self/{file}")).unwrap_or_default();
        let mut netlink = Netlink::connect();
        let kernel = kernel::release();
        let mut checks = vec![kernel::version(&kernel)];
        checks.extend(kernel::memlock(&kernel, &proc("limits")));
        checks.extend(privilege::capabilities(&proc("status")));
        checks.extend([
            kernel::bpf(&proc("uid_map")),
            kernel::attaching(bpf::has_tcx()),
            kernel::jit(),
            kernel::btf(),
            kernel::syn_cookies(),
            kernel::bpffs(&proc("mounts")),
            memory::check(sizes),
            network::policy_routing(netlink.as_mut().map_err(|error| &*error)),
            network::forwarding(),
            network::reverse_path(interfaces),
        ]);
        let interfaces = interfaces
            .iter()
            .map(|rule| interface(rule, netlink.as_mut().map_err(|error| &*error)))
            .collect();
        Self {
            kernel,
            checks,
            interfaces,
        }
    }

    /// The worst of all statuses: whether an engine would start here.
    #[must_use]
    pub fn status(&self) -> Status {
        let checks = self.checks.iter().map(|check| check.status);
        let interfaces = self.interfaces.iter().map(InterfaceCheck::status);
        checks.chain(interfaces).max().unwrap_or(Status::Ok)
    }
}

fn interface(rule: &InterfaceRule, netlink: Result<&mut Netlink, &Error>) -> InterfaceCheck {
    let name = &rule.name;
    let absent = |reason: String| InterfaceCheck {
        name: name.clone(),
        exists: false,
        kind: None,
        driver: None,
        mtu: None,
        queues: None,
        hook: Err(reason),
        warnings: Vec::new(),
    };
    let netlink = match netlink {
        Ok(netlink) => netlink,
        Err(error) => return absent(error.to_string()),
    };
    let (link, ethtool) = match (netlink.link_by_name(name), Ethtool::open()) {
        (Ok(link), Ok(ethtool)) => (link, ethtool),
        (Err(error), _) | (_, Err(error)) => return absent(error.to_string()),
    };
    let facts = InterfaceFacts::gather(&link, netlink, &ethtool);
    let hook = hook::choose(rule.hook, &facts);
    let mut warnings = hook
        .as_ref()
        .map(|choice| choice.warnings.clone())
        .unwrap_or_default();
    warnings.extend(link_warnings(&link, netlink));
    warnings.extend(network::ipv6_off(name));
    InterfaceCheck {
        name: name.clone(),
        exists: true,
        kind: Some(facts.kind),
        driver: facts.driver,
        mtu: Some(facts.mtu),
        queues: Some(Queues {
            rx: facts.rx_queues,
            tx: facts.tx_queues,
        }),
        hook,
        warnings,
    }
}

fn link_warnings(link: &Link, netlink: &mut Netlink) -> Vec<String> {
    let name = &link.name;
    let mut warnings = Vec::new();
    if link.up && !link.running {
        warnings.push(format!(
            "{name} has no carrier: bring its other end up, or plug it in"
        ));
    }
    if let Some(controller) = link.controller {
        let controller = netlink.link_by_index(controller).ok().flatten();
        let controller = controller.map_or_else(|| "another interface".into(), |link| link.name);
        warnings.push(format!(
            "{name} is a port of {controller}, which takes what the programs leave to the kernel and would switch it \
             past the fail-closed rules; `ip link set {name} nomaster`, or configure {controller} instead"
        ));
    }
    warnings
}
