//! Checks of the kernel itself: its release, its BPF, what is charged for memory.
//!
//! Owns which Linux release brought what we need. Assumes that `/proc` and `/sys` are mounted, read-only will
//! do. Refuses to take a release number for proof where asking is possible: [`bpf`] makes maps and programs,
//! which go away at once.

use std::fmt;
use std::io;

use aya::maps::MapType;
use aya::programs::{ProgramError, ProgramType};
use aya::sys::{SyscallError, is_map_supported, is_program_supported};

use super::Check;
use crate::pins::MOUNT_POINT;

/// TCX links: `BPF_TCX_INGRESS` and `_EGRESS`. Before, programs are attached as filters.
const TCX: Release = Release(6, 6);
/// The oldest series on which the programs are loaded and tested (`cargo xtask vm-test`). The youngest thing they call
/// are the helpers behind SYN cookies, of 6.0.
const NEEDED: Release = Release(6, 1);
/// Map memory is charged to the control group, no longer to `RLIMIT_MEMLOCK`.
const CHARGED_TO_CGROUP: Release = Release(5, 11);

const VMLINUX_BTF: &str = "/sys/kernel/btf/vmlinux";
const SYN_COOKIES: &str = "/proc/sys/net/ipv4/tcp_syncookies";
const JIT_ENABLE: &str = "/proc/sys/net/core/bpf_jit_enable";
const JIT_REMEDY: &str = "on the node: `sysctl -w net.core.bpf_jit_enable=1`, and the same line without -w in \
                          /etc/sysctl.d";

/// Major and minor number of a Linux release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Release(u32, u32);

impl Release {
    /// From `uname -r`: `6.12.30-cloud-amd64`, `6.6-rc1`.
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(|character: char| !character.is_ascii_digit());
        Some(Self(numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// What `uname -r` prints.
pub(super) fn release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map(|text| text.trim().to_owned())
        .unwrap_or_else(|error| format!("unknown ({error})"))
}

/// Whether the release is recent enough, and what is missing if not.
pub(super) fn version(release: &str) -> Check {
    let newer = "run a newer kernel: Debian 12 has 6.1 and 13 has 6.12, Ubuntu 24.04 has 6.8 and 22.04 as \
                 linux-generic-hwe-22.04, RHEL 10 has 6.12";
    match Release::parse(release) {
        None => Check::warn(
            "kernel",
            format!("release {release:?} is not understood"),
            format!("make sure that it is Linux {NEEDED} or newer"),
        ),
        Some(version) if version < NEEDED => Check::fail(
            "kernel",
            format!(
                "{release} is older than Linux {NEEDED}: it lacks helpers that the programs call (SYN cookies: 6.0)"
            ),
            newer,
        ),
        Some(_) => Check::ok("kernel", format!("{release} (needs {NEEDED})")),
    }
}

/// How programs are attached to interfaces; `tcx` is what the kernel itself says, whatever its release.
pub(super) fn attaching(tcx: bool) -> Check {
    if tcx {
        return Check::ok("attach", "by TCX links");
    }
    Check {
        remedy: Some(format!(
            "Linux {TCX} has TCX; without it, other filters of `clsact` with a preference below {} decide before the \
             firewall, and those of a killed daemon stay until the next one starts",
            crate::netlink::PREFERENCE
        )),
        ..Check::ok("attach", "as filters of `clsact`: this kernel has no TCX")
    }
}

/// `RLIMIT_MEMLOCK`, which matters to old kernels only; `limits` is `/proc/thread-self/limits`.
pub(super) fn memlock(release: &str, limits: &str) -> Option<Check> {
    if Release::parse(release)? >= CHARGED_TO_CGROUP {
        return None;
    }
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max locked memory"));
    let soft = line
        .and_then(|rest| rest.split_whitespace().next())
        .unwrap_or("unknown");
    Some(match soft {
        "unlimited" => Check::ok("memlock", "unlimited"),
        soft => Check::warn(
            "memlock",
            format!(
                "{soft} bytes may be locked, and before Linux {CHARGED_TO_CGROUP} BPF maps count as locked"
            ),
            "start with `ulimit -l unlimited` (systemd: LimitMEMLOCK=infinity; docker: --ulimit memlock=-1)",
        ),
    })
}

/// The kernel's own type information.
pub(super) fn btf() -> Check {
    match std::fs::metadata(VMLINUX_BTF) {
        Ok(file) => Check::ok("btf", format!("{VMLINUX_BTF}, {} KiB", file.len() / 1024)),
        Err(error) => Check::warn(
            "btf",
            format!("{VMLINUX_BTF}: {error}"),
            "the programs load without it, but bpftool shows less of them; a kernel with CONFIG_DEBUG_INFO_BTF has it, \
             and a container sees it where /sys is mounted",
        ),
    }
}

/// The helpers behind SYN cookies, which the programs call and a kernel without them refuses to load.
pub(super) fn syn_cookies() -> Check {
    syn_cookies_from(std::fs::read_to_string(SYN_COOKIES))
}

fn syn_cookies_from(setting: io::Result<String>) -> Check {
    match setting {
        // Whether the kernel uses them for its own listeners makes no difference to the helpers.
        Ok(_) => Check::ok("syn_cookies", "the kernel can make them"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Check::fail(
            "syn_cookies",
            format!("no {SYN_COOKIES}: a kernel without SYN cookies does not load the programs"),
            "run a kernel with CONFIG_SYN_COOKIES, as those of all distributions have",
        ),
        Err(error) => Check::warn(
            "syn_cookies",
            format!("{SYN_COOKIES}: {error}"),
            "make sure that the kernel has CONFIG_SYN_COOKIES",
        ),
    }
}

/// The BPF compiler.
pub(super) fn jit() -> Check {
    jit_from(std::fs::read_to_string(JIT_ENABLE))
}

fn jit_from(setting: io::Result<String>) -> Check {
    match setting.as_deref().map(str::trim) {
        Ok("0") => Check::warn(
            "jit",
            "net.core.bpf_jit_enable is 0: programs are interpreted, many times slower",
            JIT_REMEDY,
        ),
        Ok(value) => Check::ok("jit", format!("net.core.bpf_jit_enable is {value}")),
        // The sysctl exists in the first network namespace only, so a container does not see it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Check {
            remedy: Some("on the node, `sysctl net.core.bpf_jit_enable` should print 1".into()),
            ..Check::ok(
                "jit",
                "set on the node and not visible in this network namespace; most kernels have it on",
            )
        },
        Err(error) => Check::warn("jit", format!("{JIT_ENABLE}: {error}"), JIT_REMEDY),
    }
}

/// Whether `bpf(2)` makes the kinds of maps and programs that we use, for this process; `uid_map` is
/// `/proc/thread-self/uid_map`.
pub(super) fn bpf(uid_map: &str) -> Check {
    let maps = [
        MapType::Hash,
        MapType::LruHash,
        MapType::LpmTrie,
        MapType::PerCpuArray,
        MapType::RingBuf,
    ];
    for map in maps {
        if let Some(check) = refused(&format!("a map of type {map:?}"), is_map_supported(map), uid_map) {
            return check;
        }
    }
    for program in [ProgramType::SchedClassifier, ProgramType::Xdp] {
        let supported = is_program_supported(program).map_err(|error| match error {
            ProgramError::SyscallError(error) => error,
            other => SyscallError {
                call: "bpf_prog_load",
                io_error: io::Error::other(other),
            },
        });
        if let Some(check) = refused(&format!("a program of type {program:?}"), supported, uid_map) {
            return check;
        }
    }
    Check::ok("bpf", "maps and programs can be made")
}

/// `None` if it worked.
fn refused(what: &str, supported: Result<bool, SyscallError>, uid_map: &str) -> Option<Check> {
    let error = match supported {
        Ok(true) => return None,
        Ok(false) => {
            let remedy = "this kernel was built without it; run a distribution's kernel";
            return Some(Check::fail(
                "bpf",
                format!("{what} is unknown to this kernel"),
                remedy,
            ));
        }
        Err(SyscallError { io_error, .. }) => io_error,
    };
    let remedy = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) if in_user_namespace(uid_map) => {
            "this is a user namespace, where capabilities do not reach BPF: run as root of the node (Kubernetes: \
             hostUsers: true; Docker: not rootless, and --userns=host where user namespaces are remapped)"
        }
        Some(libc::EPERM | libc::EACCES) => {
            "add the capabilities that are missing above; if none is, the seccomp profile is in the way: those of \
             older Docker and CRI-O allow bpf(2) with CAP_SYS_ADMIN only, so add that too or use a newer profile"
        }
        Some(libc::ENOSYS) => {
            "this kernel, or the sandbox that plays it (gVisor), has no bpf(2): run on a kernel with \
                               CONFIG_BPF_SYSCALL"
        }
        Some(libc::ENOMEM) => "raise the container's memory limit: map memory is charged to it",
        _ => "the node's kernel log may tell more",
    };
    Some(Check::fail(
        "bpf",
        format!("{what} cannot be made: {error}"),
        remedy,
    ))
}

/// The first user namespace maps every number to itself.
fn in_user_namespace(uid_map: &str) -> bool {
    let mut numbers = uid_map.split_whitespace();
    let first = [numbers.next(), numbers.next(), numbers.next()];
    !uid_map.is_empty() && first != [Some("0"), Some("0"), Some("4294967295")]
}

/// Where programs and maps could be pinned.
pub(super) fn bpffs(mounts: &str) -> Check {
    let mounted: Vec<&str> = mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let target = fields.next()?;
            (fields.next()? == "bpf").then_some(target)
        })
        .collect();
    match mounted.as_slice() {
        [] => Check::warn(
            "bpffs",
            format!(
                "not mounted: unless `run` may mount one at {MOUNT_POINT}, sessions end with the daemon and nothing is forwarded until it runs again"
            ),
            format!(
                "`mount -t bpf -o mode=700 bpf {MOUNT_POINT}`; in a container mount the node's {MOUNT_POINT}, so that it outlives the container"
            ),
        ),
        mounted if mounted.contains(&MOUNT_POINT) => Check::ok(
            "bpffs",
            format!("mounted at {MOUNT_POINT}: what is enforced outlives the daemon"),
        ),
        [target, ..] => Check::ok(
            "bpffs",
            format!("mounted at {target}; `run --pins {target}/bulkhead` uses it"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    #[test]
    fn a_release_is_judged_by_its_first_two_numbers() {
        for (release, status, needle) in [
            ("6.18.44-cloud-amd64", Status::Ok, "needs 6.1"),
            ("6.6-rc1", Status::Ok, "6.6-rc1"),
            ("10.0.1", Status::Ok, "10.0.1"),
            ("6.1.0-18-amd64", Status::Ok, "needs 6.1"),
            ("6.0.12", Status::Fail, "older than Linux 6.1"),
            ("5.17.1", Status::Fail, "helpers that the programs call"),
            ("4.19.0", Status::Fail, "older than Linux 6.1"),
            ("unknown (no such file)", Status::Warn, "is not understood"),
        ] {
            let check = version(release);
            assert_eq!(check.status, status, "{release}");
            assert!(check.found.contains(needle), "{release}: {}", check.found);
            assert_eq!(check.remedy.is_none(), status == Status::Ok, "{release}");
        }
    }

    #[test]
    fn a_kernel_without_tcx_will_do_and_is_told() {
        assert_eq!(attaching(true).remedy, None);
        let check = attaching(false);
        assert_eq!(check.status, Status::Ok);
        assert!(check.found.contains("clsact"), "{}", check.found);
    }

    #[test]
    fn locked_memory_matters_to_old_kernels_only() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max locked memory         65536                65536                bytes     \n";
        assert_eq!(memlock("5.11.0", limits), None);
        let check = memlock("5.10.3", limits).expect("an old kernel");
        assert_eq!(check.status, Status::Warn);
        assert!(check.found.starts_with("65536 bytes"), "{}", check.found);
        let unlimited = limits.replace("65536", "unlimited");
        assert_eq!(
            memlock("5.10.3", &unlimited).expect("an old kernel").status,
            Status::Ok
        );
    }

    #[test]
    fn the_compiler_is_missed_when_off_and_not_when_unseen() {
        let setting = |text: &str| jit_from(Ok(text.to_owned())).status;
        assert_eq!(
            (setting("1\n"), setting("2\n"), setting("0\n")),
            (Status::Ok, Status::Ok, Status::Warn)
        );
        let unseen = jit_from(Err(io::ErrorKind::NotFound.into()));
        assert_eq!(unseen.status, Status::Ok);
        assert!(unseen.remedy.is_some_and(|remedy| remedy.contains("on the node")));
        assert_eq!(
            jit_from(Err(io::ErrorKind::PermissionDenied.into())).status,
            Status::Warn
        );
    }

    #[test]
    fn a_kernel_without_syn_cookies_is_told_from_one_that_hides_them() {
        let setting = |text: &str| syn_cookies_from(Ok(text.to_owned())).status;
        assert_eq!((setting("1\n"), setting("0\n")), (Status::Ok, Status::Ok));
        let without = syn_cookies_from(Err(io::ErrorKind::NotFound.into()));
        assert_eq!(without.status, Status::Fail);
        assert!(
            without
                .remedy
                .is_some_and(|remedy| remedy.contains("CONFIG_SYN_COOKIES"))
        );
        let hidden = syn_cookies_from(Err(io::ErrorKind::PermissionDenied.into()));
        assert_eq!(hidden.status, Status::Warn);
    }

    #[test]
    fn a_refused_map_says_who_refuses() {
        const FIRST: &str = "         0          0 4294967295\n";
        let refusal = |errno, uid_map| {
            let io_error = io::Error::from_raw_os_error(errno);
            let error = SyscallError {
                call: "bpf_map_create",
                io_error,
            };
            let check = refused("a map", Err(error), uid_map).expect("refused");
            assert_eq!(check.status, Status::Fail);
            check.remedy.expect("a remedy")
        };
        let errno = |errno| refusal(errno, FIRST);
        assert!(refusal(libc::EPERM, "0 100000 65536\n").contains("a user namespace"));
        assert!(
            refusal(libc::EPERM, "").contains("seccomp"),
            "unknown is not taken for one"
        );
        assert!(errno(libc::EPERM).contains("seccomp"));
        assert!(errno(libc::ENOSYS).contains("CONFIG_BPF_SYSCALL"));
        assert!(errno(libc::ENOMEM).contains("memory limit"));
        assert_eq!(refused("a map", Ok(true), FIRST), None);
        assert!(refused("a map", Ok(false), FIRST).is_some_and(|check| check.status == Status::Fail));
    }

    #[test]
    fn a_bpf_file_system_is_found_by_its_type() {
        let mounts = "proc /proc proc rw 0 0\nbpffs /sys/fs/bpf bpf rw,mode=700 0 0\n";
        let check = bpffs(mounts);
        assert_eq!(check.status, Status::Ok);
        assert!(
            check.found.starts_with("mounted at /sys/fs/bpf: "),
            "{}",
            check.found
        );
        let check = bpffs("none /mnt/bpf bpf rw 0 0\n");
        assert!(
            check.found.contains("--pins /mnt/bpf/bulkhead"),
            "{}",
            check.found
        );
        let check = bpffs("bpf /mnt ext4 rw 0 0\n");
        assert_eq!((check.status, check.remedy.is_some()), (Status::Warn, true));
    }
}
