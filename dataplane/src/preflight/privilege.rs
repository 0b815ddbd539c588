//! Checks of the capabilities that this process has in effect.
//!
//! Owns what each is for, and which can be dropped. Assumes `/proc/thread-self/status`. Says nothing of user namespaces, in which a full set of
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

/// As linux/capability.h numbers them.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// So many are named; of more, only their number is told.
const NAMED: usize = 6;

/// One check for each capability that is needed, and one for the others; `status` is `/proc/thread-self/status`.
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
        _ if has(need.bit) => Check::ok(need.name, format!("in effect, for {}", need.purpose)),
        Some((wider, bit)) if has(bit) => {
            Check::ok(need.name, format!("included in {wider}, for {}", need.purpose))
        }
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
    NEEDS.iter().map(check).chain([surplus(effective)]).collect()
}

/// What is in effect and could be dropped.
fn surplus(effective: u64) -> Check {
    const NAME: &str = "other_capabilities";
    let has = |bit: u8| effective & 1 << bit != 0;
    let stands_in = |wide: u8| {
        NEEDS
            .iter()
            .any(|need| !has(need.bit) && need.included_in.is_some_and(|(_, bit)| bit == wide))
    };
    let needed = |bit: u8| NEEDS.iter().any(|need| need.bit == bit) || stands_in(bit);
    let others: Vec<u8> = (0..64).filter(|bit| has(*bit) && !needed(*bit)).collect();
    let name = |bit: &u8| match NAMES.get(usize::from(*bit)) {
        Some(name) => format!("CAP_{name}"),
        None => format!("number {bit}"),
    };
    let remedy = "to drop them: docker run --cap-drop ALL --cap-add NET_ADMIN --cap-add NET_RAW --cap-add BPF --cap-add \
                  PERFMON; Kubernetes: securityContext.capabilities: {drop: [ALL], add: [NET_ADMIN, NET_RAW, BPF, \
                  PERFMON]}; `run` mounts a bpffs by itself only with SYS_ADMIN";
    let found = match others.as_slice() {
        [] if stands_in(21) => {
            return Check {
                remedy: Some(
                    "where the engine knows BPF and PERFMON (Docker 23), add these two instead".into(),
                ),
                ..Check::ok(NAME, "none but CAP_SYS_ADMIN, which stands in for narrower ones")
            };
        }
        [] => return Check::ok(NAME, "none in effect"),
        few if few.len() <= NAMED => {
            let names: Vec<String> = few.iter().map(name).collect();
            format!("{} in effect and not needed", names.join(", "))
        }
        many => format!("{} more are in effect and not needed", many.len()),
    };
    Check {
        remedy: Some(remedy.into()),
        ..Check::ok(NAME, found)
    }
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
    fn what_can_be_dropped_is_told() {
        let needed: u64 = 1 << 12 | 1 << 13 | 1 << 38 | 1 << 39;
        assert_eq!(surplus(needed).found, "none in effect");
        let check = surplus(needed | 1 | 1 << 21);
        assert_eq!(check.found, "CAP_CHOWN, CAP_SYS_ADMIN in effect and not needed");
        assert!(
            check
                .remedy
                .is_some_and(|remedy| remedy.contains("--cap-drop ALL"))
        );
        // Where it stands in for others it is needed, and better replaced.
        let check = surplus(1 << 12 | 1 << 13 | 1 << 21);
        assert!(
            check.found.starts_with("none but CAP_SYS_ADMIN"),
            "{}",
            check.found
        );
        assert!(
            check
                .remedy
                .is_some_and(|remedy| remedy.contains("BPF and PERFMON"))
        );
        let all = surplus((1 << 41) - 1);
        assert_eq!(all.found, "37 more are in effect and not needed");
        assert_eq!(
            surplus(needed | 1 << 45).found,
            "number 45 in effect and not needed"
        );
    }

    #[test]
    fn capabilities_have_the_numbers_of_the_kernel() {
        for need in &NEEDS {
            let name = NAMES.get(usize::from(need.bit)).expect("a name");
            assert_eq!(format!("CAP_{name}"), need.name);
        }
        assert_eq!(
            (NAMES[0], NAMES[21], NAMES[40]),
            ("CHOWN", "SYS_ADMIN", "CHECKPOINT_RESTORE")
        );
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
