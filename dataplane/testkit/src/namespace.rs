//! A network namespace that lives as long as its value.
//!
//! Owns the name under `/run/netns`, so that `ip netns exec` works on it. Assumes that threads, not
//! processes, change namespaces: a closure runs on a thread of its own that ends with it, so no other code
//! ever finds itself elsewhere. `/sys` is not remounted: read interfaces through netlink, and
//! `/proc/thread-self/net`, never `/proc/net`, which shows the main thread's namespace.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result};
use bulkhead_dataplane::netlink::Netlink;
use bulkhead_dataplane::netlink::ethtool::Ethtool;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

/// Where `ip netns` looks for names.
const DIRECTORY: &str = "/run/netns";

/// What a quiet, immediately usable namespace needs. IPv6 addresses are usable at once and nothing is sent
/// that nobody asked for; ICMP is not rate limited, so that only a firewall's limits show; ping needs no
/// raw socket.
const SYSCTLS: &[(&str, &str)] = &[
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/all/accept_ra", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("net/ipv6/conf/all/router_solicitations", "0"),
    ("net/ipv6/conf/default/router_solicitations", "0"),
    ("net/ipv6/icmp/ratelimit", "0"),
    ("net/ipv4/icmp_ratelimit", "0"),
    ("net/ipv4/ping_group_range", "0 2147483647"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
];

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A network namespace, removed on drop.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    path: PathBuf,
    handle: OwnedFd,
    keep: bool,
}

impl Namespace {
    /// Makes a namespace named `PREFIX-PID-NUMBER`, with loopback up.
    pub fn new(prefix: &str) -> Result<Self> {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        Self::named(format!("{prefix}-{}-{number}", std::process::id()))
    }

    /// Makes a namespace of exactly this name, which must be free.
    pub fn named(name: String) -> Result<Self> {
        let path = Path::new(DIRECTORY).join(&name);
        fs::create_dir_all(DIRECTORY).with_context(|| format!("cannot make {DIRECTORY}"))?;
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .with_context(|| {
                format!(
                    "cannot make {}; is it left over? `ip netns delete {name}` removes it",
                    path.display()
                )
            })?;
        let made = on_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace; is this root?")?;
            mount(
                Some("/proc/thread-self/ns/net"),
                &path,
                None::<&str>,
                MsFlags::MS_BIND,
                None::<&str>,
            )
            .with_context(|| format!("cannot bind a network namespace to {}", path.display()))
        });
        let handle = made.and_then(|()| {
            fs::File::open(&path)
                .map(OwnedFd::from)
                .with_context(|| format!("cannot open {}", path.display()))
        });
        let handle = match handle {
            Ok(handle) => handle,
            Err(error) => {
                remove(&path);
                return Err(error);
            }
        };
        let namespace = Self {
            name,
            path,
            handle,
            keep: false,
        };
        for (key, value) in SYSCTLS {
            namespace.set_sysctl(key, value)?;
        }
        let mut netlink = namespace.netlink()?;
        let loopback = netlink.link_by_name("lo")?.index;
        netlink.set_up(loopback)?;
        Ok(namespace)
    }

    /// The namespace in which a process is, a container's for one. It has no name, and is the process's to keep.
    pub fn of_process(process: u32) -> Result<Self> {
        let path = PathBuf::from(format!("/proc/{process}/ns/net"));
        let handle = fs::File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self {
            name: format!("process-{process}"),
            path,
            handle: handle.into(),
            keep: true,
        })
    }

    /// The name that `ip netns` knows.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A handle for moving interfaces in.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }

    /// Leaves the namespace behind when the value is dropped.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// Runs a closure in the namespace and returns its value. A panic in it goes on here.
    pub fn run<R: Send>(&self, closure: impl FnOnce() -> R + Send) -> R {
        on_a_thread(|| {
            self.enter();
            closure()
        })
    }

    /// Starts a thread that lives in the namespace.
    pub fn spawn<R: Send + 'static>(
        &self,
        closure: impl FnOnce() -> R + Send + 'static,
    ) -> Result<JoinHandle<R>> {
        let handle = self
            .handle
            .try_clone()
            .context("cannot duplicate a namespace handle")?;
        let name = self.name.clone();
        thread::Builder::new()
            .name(self.name.clone())
            .spawn(move || {
                enter(&name, handle.as_fd());
                closure()
            })
            .context("cannot start a thread")
    }

    /// Moves the calling thread, for good. Fit for threads and processes that will do nothing else.
    pub fn enter(&self) {
        enter(&self.name, self.handle.as_fd());
    }

    /// An rtnetlink connection to the namespace, usable from any thread.
    pub fn netlink(&self) -> Result<Netlink> {
        self.run(Netlink::connect)
            .with_context(|| format!("cannot talk netlink in {}", self.name))
    }

    /// An ethtool handle for the namespace, usable from any thread.
    pub fn ethtool(&self) -> Result<Ethtool> {
        self.run(Ethtool::open)
            .with_context(|| format!("cannot open ethtool in {}", self.name))
    }

    /// Sets a sysctl, named with slashes or, where no interface name is in the way, with dots.
    pub fn set_sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = sysctl_path(key);
        self.run(|| fs::write(&path, value))
            .with_context(|| format!("cannot set {} to {value} in {}", path.display(), self.name))
    }

    /// Reads a sysctl.
    pub fn sysctl(&self, key: &str) -> Result<String> {
        let path = sysctl_path(key);
        self.run(|| fs::read_to_string(&path))
            .map(|text| text.trim().to_owned())
            .with_context(|| format!("cannot read {} in {}", path.display(), self.name))
    }

    /// Turns the kernel's own forwarding on or off, both families, all interfaces.
    pub fn set_kernel_forwarding(&self, on: bool) -> Result<()> {
        let value = if on { "1" } else { "0" };
        self.set_sysctl("net/ipv4/ip_forward", value)?;
        self.set_sysctl("net/ipv6/conf/all/forwarding", value)
    }

    /// Removes what processes that were killed left behind: namespaces of this prefix, made by
    /// [`Self::new`], whose process is gone. Returns their names.
    pub fn sweep(prefix: &str) -> Result<Vec<String>> {
        let mut removed = Vec::new();
        let entries = match fs::read_dir(DIRECTORY) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(removed),
            Err(error) => return Err(error).with_context(|| format!("cannot list {DIRECTORY}")),
        };
        for entry in entries {
            let name = entry
                .with_context(|| format!("cannot list {DIRECTORY}"))?
                .file_name();
            let Some(name) = name.to_str() else { continue };
            let Some(rest) = name.strip_prefix(prefix) else {
                continue;
            };
            let Some((rest, number)) = rest.rsplit_once('-') else {
                continue;
            };
            // What lies between the prefix and the process is the role: PREFIX-ROLE-PID-NUMBER.
            let Some((_, process)) = rest.rsplit_once('-') else {
                continue;
            };
            let (Ok(process), Ok(_)) = (process.parse::<u32>(), number.parse::<u32>()) else {
                continue;
            };
            if !Path::new("/proc").join(process.to_string()).exists() {
                remove(&Path::new(DIRECTORY).join(name));
                removed.push(name.to_owned());
            }
        }
        Ok(removed)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if !self.keep {
            remove(&self.path);
        }
    }
}

/// Never fails: the namespace may have been deleted by hand, or its making may have failed half way.
fn remove(path: &Path) {
    if let Err(error) = umount2(path, MntFlags::MNT_DETACH)
        && error != nix::errno::Errno::EINVAL
    {
        eprintln!("cannot unmount {}: {error}", path.display());
    }
    if let Err(error) = fs::remove_file(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        eprintln!("cannot remove {}: {error}", path.display());
    }
}

fn enter(name: &str, handle: BorrowedFd<'_>) {
    setns(handle, CloneFlags::CLONE_NEWNET)
        .unwrap_or_else(|error| panic!("cannot enter network namespace {name}: {error}"));
}

fn on_a_thread<R: Send>(closure: impl FnOnce() -> R + Send) -> R {
    thread::scope(|scope| scope.spawn(closure).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn sysctl_path(key: &str) -> PathBuf {
    let key = if key.contains('/') {
        key.to_owned()
    } else {
        key.replace('.', "/")
    };
    Path::new("/proc/sys").join(key)
}
