//! Checks of what the network namespace is set to: policy routing, forwarding, reverse-path filter, IPv6.
//!
//! Owns what each setting means to a firewall that forwards without the kernel's help. Assumes `/proc/sys/net`
//! of the calling thread's namespace. Changes nothing, not even what would be better otherwise.

use std::fs;

use super::Check;
use crate::netlink::{Error, Family, Netlink};
use crate::ruleset::InterfaceRule;

/// Reads a sysctl below `/proc/sys/net`, by path: interface names may hold dots.
fn sysctl(path: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/sys/net/{path}")).ok()?;
    Some(text.trim().to_owned())
}

/// Whether the kernel has the rules that make us fail closed.
pub(super) fn policy_routing(netlink: Result<&mut Netlink, &Error>) -> Check {
    let name = "policy_routing";
    let netlink = match netlink {
        Ok(netlink) => netlink,
        Err(error) => {
            let remedy = "rtnetlink is needed for everything; is a sandbox or a seccomp profile in the way?";
            return Check::fail(name, error.to_string(), remedy);
        }
    };
    let mut have = Vec::new();
    for family in Family::ALL {
        match netlink.has_policy_routing(family) {
            Ok(true) => have.push(family),
            Ok(false) => {}
            Err(error) => {
                let remedy = "without rules the kernel could forward what the firewall denies; nothing will be started";
                return Check::fail(name, error.to_string(), remedy);
            }
        }
    }
    match have[..] {
        [Family::V4, Family::V6] => Check::ok(name, "rules for ipv4 and ipv6"),
        [Family::V4] if sysctl("ipv6/conf/all/forwarding").is_none() => {
            Check::ok(name, "rules for ipv4; this kernel has no ipv6")
        }
        _ => Check::fail(
            name,
            "this kernel has no routing-policy rules, which keep it from forwarding when the firewall is down",
            "run a kernel with CONFIG_IP_MULTIPLE_TABLES and CONFIG_IPV6_MULTIPLE_TABLES, as every distribution's is",
        ),
    }
}

/// The kernel's own forwarding, which is not used.
pub(super) fn forwarding() -> Check {
    let setting = |path| sysctl(path).unwrap_or_else(|| "not readable".into());
    let found = format!(
        "ipv4 {}, ipv6 {}; either will do: the programs forward, and rules (`iif … blackhole`) keep the kernel from it",
        setting("ipv4/ip_forward"),
        setting("ipv6/conf/all/forwarding"),
    );
    Check::ok("forwarding", found)
}

/// The reverse-path filter of the data interfaces. What the programs forward never meets it; what is addressed to the
/// firewall itself does.
pub(super) fn reverse_path(interfaces: &[InterfaceRule]) -> Check {
    let setting = |name: &str| -> u32 {
        let text = sysctl(&format!("ipv4/conf/{name}/rp_filter"));
        text.and_then(|text| text.parse().ok()).unwrap_or(0)
    };
    let all = setting("all");
    let effective = interfaces
        .iter()
        .map(|interface| (interface.name.as_str(), all.max(setting(&interface.name))));
    reverse_path_from(effective)
}

/// `effective`: each interface with the larger of its own setting and that of `all`, which is what the kernel obeys.
fn reverse_path_from<'a>(effective: impl Iterator<Item = (&'a str, u32)>) -> Check {
    let strict: Vec<&str> = effective
        .filter(|(_, value)| *value == 1)
        .map(|(name, _)| name)
        .collect();
    if strict.is_empty() {
        return Check::ok("rp_filter", "not strict on any data interface");
    }
    Check::warn(
        "rp_filter",
        format!(
            "strict on {}: forwarding is not affected, but what reaches the firewall itself by another way than its \
             answer would leave (ping, BGP, a management session) is dropped",
            strict.join(", ")
        ),
        format!(
            "`sysctl -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.{}.rp_filter=2`, or leave it where routes are \
             symmetric",
            strict[0]
        ),
    )
}

/// IPv6 switched off on a data interface, as Docker does on networks without it.
pub(super) fn ipv6_off(interface: &str) -> Option<String> {
    (sysctl(&format!("ipv6/conf/{interface}/disable_ipv6")).as_deref() == Some("1")).then(|| {
        format!(
            "IPv6 is switched off on {interface}: no IPv6 neighbour can be found there, so no IPv6 leaves by it; \
             where it is wanted: `sysctl -w net.ipv6.conf.{interface}.disable_ipv6=0` (docker run --sysctl)"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preflight::Status;

    #[test]
    fn only_the_strict_filter_is_worth_a_word() {
        let check = reverse_path_from([("net1", 0), ("net2", 2)].into_iter());
        assert_eq!(check.status, Status::Ok);
        let check = reverse_path_from([("net1", 1), ("net2", 2), ("net3", 1)].into_iter());
        assert_eq!(check.status, Status::Warn);
        assert!(
            check.found.starts_with("strict on net1, net3: "),
            "{}",
            check.found
        );
    }

    #[test]
    fn without_rtnetlink_nothing_can_fail_closed() {
        let error = Error::NoSuchInterface { name: "net1".into() };
        assert_eq!(policy_routing(Err(&error)).status, Status::Fail);
    }
}
