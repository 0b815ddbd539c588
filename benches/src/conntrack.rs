//! The kernel's connection tracking: how many entries a namespace has, emptying it, room for a million.
//!
//! The limits are the machine's, not a namespace's: they are raised for as long as a [`Room`] lives and put back then.

use std::fs;
use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, Result, ensure};
use bulkhead_testkit::Namespace;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

const MAX: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
const BUCKETS: &str = "/proc/sys/net/netfilter/nf_conntrack_buckets";

/// Entries of a namespace's table.
pub fn count(namespace: &Namespace) -> Result<u64> {
    let text = namespace.sysctl("net/netfilter/nf_conntrack_count")?;
    text.parse()
        .with_context(|| format!("nf_conntrack_count is \"{text}\""))
}

/// Lets idle UDP entries stay for as long as a run may take, as Bulkhead's are told to.
pub fn set_timeouts(namespace: &Namespace) -> Result<()> {
    for key in ["nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"] {
        namespace.set_sysctl(&format!("net/netfilter/{key}"), "3600")?;
    }
    Ok(())
}

/// Removes every entry of a namespace's table: `IPCTNL_MSG_CT_DELETE` without a filter.
pub fn flush(namespace: &Namespace) -> Result<()> {
    namespace
        .run(|| -> Result<()> {
            let socket = socket(
                AddressFamily::Netlink,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::NetlinkNetFilter,
            )?;
            send(socket.as_raw_fd(), &delete_all(), MsgFlags::empty())?;
            let mut answer = [0; 256];
            let bytes = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
            // nlmsghdr, then the error's number: zero is an acknowledgement.
            let error = answer
                .get(16..20)
                .filter(|_| bytes >= 20)
                .context("a short answer")?;
            ensure!(
                error == [0; 4],
                "refused: {}",
                i32::from_ne_bytes([error[0], error[1], error[2], error[3]])
            );
            Ok(())
        })
        .with_context(|| format!("cannot empty connection tracking in {}", namespace.name()))
}

/// nlmsghdr and nfgenmsg (include/uapi/linux/netfilter/nfnetlink.h).
fn delete_all() -> [u8; 20] {
    const SUBSYSTEM_CTNETLINK: u16 = 1;
    const DELETE: u16 = 2;
    const REQUEST_AND_ACK: u16 = 1 | 4;
    let mut message = [0; 20];
    message[..4].copy_from_slice(&20u32.to_ne_bytes());
    message[4..6].copy_from_slice(&(SUBSYSTEM_CTNETLINK << 8 | DELETE).to_ne_bytes());
    message[6..8].copy_from_slice(&REQUEST_AND_ACK.to_ne_bytes());
    message
}

/// Room in the machine's connection tracking, until it is dropped.
#[derive(Debug)]
pub struct Room {
    before: Vec<(&'static str, String)>,
}

impl Room {
    /// For at least so many entries in every namespace, in a hash table as large: nothing to hold against nftables.
    pub fn make(entries: u64) -> Result<Self> {
        let mut room = Self { before: Vec::new() };
        for (path, wanted) in [(BUCKETS, entries), (MAX, entries.saturating_mul(2))] {
            let before = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
            let before = before.trim().to_owned();
            if before.parse().is_ok_and(|present: u64| present >= wanted) {
                continue;
            }
            fs::write(path, wanted.to_string()).with_context(|| format!("cannot set {path} to {wanted}"))?;
            room.before.push((path, before));
        }
        Ok(room)
    }

    /// What was raised, for the report.
    pub fn raised(&self) -> Vec<String> {
        self.before
            .iter()
            .map(|(path, before)| {
                let now = fs::read_to_string(path).unwrap_or_default();
                let name = path.rsplit('/').next().unwrap_or(path);
                format!("{name} {before} -> {} for the run", now.trim())
            })
            .collect()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        for (path, before) in self.before.iter().rev() {
            if let Err(error) = fs::write(path, before) {
                eprintln!("cannot set {path} back to {before}: {error}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_is_a_delete_of_connection_tracking() {
        let message = delete_all();
        assert_eq!(
            u32::from_ne_bytes([message[0], message[1], message[2], message[3]]),
            20
        );
        assert_eq!(u16::from_ne_bytes([message[4], message[5]]), 0x0102);
    }
}
