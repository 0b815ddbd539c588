//! Checks of the capabilities that this process has in effect.
//!
//! Owns what each is for. Assumes `/proc/thread-self/status`. Says nothing of user namespaces, in which a full set of
//! capabilities does not reach BPF: [`super::kernel::bpf`] finds that by trying.

use super::Check;

/// A capability that we need, and another that includes it.
struct Need {
    name: &'static str,
    bit: u8,
    included_in: Option<(&'static str, u8)>,
    purpose: &'static str,
}

const SYS_ADMIN: Option<(&str, u8)> = Some(("CAP_SYS_ADMIN", 21));

const NEEDS: [Need; 4] = [
    Need {
        name: "CAP_NET_ADMIN",
        bit: 12,
        included_in: None,
        purpose: "attaching programs, addresses and the fail-closed rules",
    },
    Need {
        name: "CAP_BPF",
        bit: 39,
        included_in: SYS_ADMIN,
        purpose: "making maps and loading programs",
    },
    // Without it the verifier is stricter (speculation guards, reads of stack it has not seen written) than the programs
    // are written for.
    Need {
        name: "CAP_PERFMON",
        bit: 38,
        included_in: SYS_ADMIN,
        purpose: "loading the programs: without it the verifier is stricter than they are written for",
    },
    Need {
        name: "CAP_NET_RAW",
        bit: 13,
        included_in: None,
        purpose: "the packet sockets that TCP resets and ICMP errors leave by",
    },
];

/// One check for each capability; `status` is `/proc/thread-self/status`.
pub(super) fn capabilities(status: &str) -> Vec<Check> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(effective) = line.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()) else {
        return vec![Check::warn(
            "capabilities",
            "no CapEff in /proc/thread-self/status",
            "mount /proc, or make sure that the process has CAP_NET_ADMIN, CAP_BPF, CAP_PERFMON and CAP_NET_RAW",
        )];
    };
    let has = |bit: u8| effective & 1 << bit != 0;
    let check = |need: &Need| match need.included_in {
        _ if has(need.bit) => Check::ok(need.name, "in effect"),
        Some((wider, bit)) if has(bit) => Check::ok(need.name, format!("included in {wider}")),
        _ => {
            let short = need.name.trim_start_matches("CAP_");
            Check::fail(
                need.name,
                format!("missing; it is for {}", need.purpose),
                format!(
                    "Kubernetes: securityContext.capabilities.add: [{short}]; Docker: --cap-add {short} (versions \
                     that do not know it: SYS_ADMIN); systemd: AmbientCapabilities={}",
                    need.name
                ),
            )
        }
    };
    NEEDS.iter().map(check).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preflight::Status;

    fn statuses(effective: u64) -> Vec<(&'static str, Status)> {
        let status = format!("Name:\tbulkhead\nCapPrm:\t0000000000000000\nCapEff:\t{effective:016x}\n");
        capabilities(&status)
            .iter()
            .map(|check| (check.name, check.status))
            .collect()
    }

    #[test]
    fn each_capability_is_missed_by_itself() {
        let all: u64 = 1 << 12 | 1 << 13 | 1 << 38 | 1 << 39;
        for (name, bit) in [
            ("CAP_NET_ADMIN", 12),
            ("CAP_NET_RAW", 13),
            ("CAP_PERFMON", 38),
            ("CAP_BPF", 39),
        ] {
            let failed: Vec<_> = statuses(all & !(1 << bit))
                .into_iter()
                .filter(|(_, status)| *status == Status::Fail)
                .collect();
            assert_eq!(failed, [(name, Status::Fail)]);
        }
        assert!(statuses(all).iter().all(|(_, status)| *status == Status::Ok));
        // SYS_ADMIN stands in for BPF and PERFMON, for nothing else.
        let failed: Vec<_> = statuses(1 << 21)
            .into_iter()
            .filter(|(_, status)| *status == Status::Fail)
            .map(|(name, _)| name)
            .collect();
        assert_eq!(failed, ["CAP_NET_ADMIN", "CAP_NET_RAW"]);
    }

    #[test]
    fn a_missing_one_is_named_as_each_runtime_spells_it() {
        let checks = capabilities("CapEff:\t0000000000000000\n");
        let remedy = checks[1].remedy.as_deref().expect("a remedy");
        assert!(
            remedy.contains("add: [BPF]")
                && remedy.contains("--cap-add BPF ")
                && remedy.ends_with("=CAP_BPF")
        );
    }

    #[test]
    fn an_unreadable_status_is_no_failure() {
        let checks = capabilities("CapEff:\tnonsense\n");
        assert_eq!((checks.len(), checks[0].status), (1, Status::Warn));
    }
}
