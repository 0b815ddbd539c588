//! Programs on interfaces as filters of `clsact`, for kernels without TCX (before 6.6).
//!
//! Owns one filter per direction at a fixed place: every protocol, preference [`PREFERENCE`], handle [`HANDLE`]. Smaller
//! preferences run first, so a filter that somebody set there on purpose sees packets before ours, and those that
//! `tc` numbers by itself (49152 and down) come behind. Setting a filter where ours is replaces its program at once
//! (`cls_bpf_change` in net/sched/cls_bpf.c): every packet meets the old one or the new one.
//!
//! Assumes nothing of who else uses `clsact`: it is made where it is missing and left when we go, since others may have
//! filters there by then. Refuses to touch a filter at our place that is not ours, and an interface with the older
//! `ingress` discipline, which has no egress.
//!
//! A filter outlives its process. [`Filter`] takes it off when dropped, if it still runs the program that was set and was
//! not told to keep it.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcMessage, TcOption},
};

use super::{Error, Netlink, Result};

/// Place of our filters among those of a direction.
pub const PREFERENCE: u16 = 50;
/// Number of our filter among those of that preference.
pub const HANDLE: u32 = 1;

/// What the names of our programs begin with.
const OWN_PREFIX: &str = "bulkhead_";
/// `ETH_P_ALL` (include/uapi/linux/if_ether.h).
const ALL_PROTOCOLS: u16 = 3;
/// The discipline with both directions, and where it hangs.
const CLSACT: &str = "clsact";

/// Which packets of an interface a filter sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Those that arrive.
    Ingress,
    /// Those that leave.
    Egress,
}

impl Direction {
    fn parent(self) -> TcHandle {
        TcHandle {
            major: TcHandle::CLSACT.major,
            minor: match self {
                Self::Ingress => TcHandle::MIN_INGRESS,
                Self::Egress => TcHandle::MIN_EGRESS,
            },
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// A filter at our place, as the kernel tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterInfo {
    /// Its kind, `bpf` for ours.
    pub kind: String,
    /// The name it was given; ours begin with `bulkhead_`.
    pub name: String,
    /// Number of its program.
    pub program: u32,
}

impl FilterInfo {
    /// Whether this firewall, in whatever process, has set it.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.kind == TcFilterBpf::KIND && self.name.starts_with(OWN_PREFIX)
    }

    fn from_message(message: &TcMessage) -> Self {
        let mut info = Self {
            kind: String::new(),
            name: String::new(),
            program: 0,
        };
        for attribute in &message.attributes {
            match attribute {
                TcAttribute::Kind(kind) => info.kind.clone_from(kind),
                TcAttribute::Options(options) => {
                    for option in options {
                        match option {
                            TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => info.name.clone_from(name),
                            TcOption::Bpf(TcFilterBpfOption::ProgId(program)) => info.program = *program,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        info
    }
}

/// The message about the filter at our place.
fn place(index: u32, direction: Direction) -> TcMessage {
    let mut message = TcMessage::with_index(index as i32);
    message.header.parent = direction.parent();
    message.header.handle = TcHandle::from(HANDLE);
    // Preference, and protocol in network order.
    message.header.info = u32::from(PREFERENCE) << 16 | u32::from(ALL_PROTOCOLS.to_be());
    message
        .attributes
        .push(TcAttribute::Kind(TcFilterBpf::KIND.into()));
    message
}

impl Netlink {
    /// The filter at our place, whosever it is.
    pub fn filter(&mut self, index: u32, direction: Direction) -> Result<Option<FilterInfo>> {
        let operation = format!("look for the {} filter of interface {index}", direction.word());
        let mut message = place(index, direction);
        message.attributes.clear();
        match self
            .socket
            .get(&operation, RouteNetlinkMessage::GetTrafficFilter(message))
        {
            Ok(RouteNetlinkMessage::NewTrafficFilter(answer)) => Ok(Some(FilterInfo::from_message(&answer))),
            Ok(_) => Err(Error::Protocol {
                operation,
                reason: "something else than a filter".into(),
            }),
            // No filter, no interface; and EINVAL where the interface has no discipline for filters.
            Err(error) if error.is_not_found() || error.errno() == Some(libc::EINVAL) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sets our filter of a direction to run `program`, in place of the one it runs if it is there.
    fn set_filter(
        &mut self,
        index: u32,
        direction: Direction,
        program: BorrowedFd<'_>,
        name: &str,
    ) -> Result<()> {
        let operation = format!("set the {} filter of interface {index}", direction.word());
        if let Some(other) = self.filter(index, direction)?.filter(|there| !there.is_own()) {
            let (kind, name, way) = (&other.kind, &other.name, direction.word());
            return Err(Error::Invalid {
                operation,
                reason: format!(
                    "another filter (kind {kind}, name \"{name}\") is at preference {PREFERENCE}, handle {HANDLE}; move it: \
                     `tc filter show dev INTERFACE {way}`"
                ),
            });
        }
        let mut message = place(index, direction);
        message.attributes.push(TcAttribute::Options(vec![
            TcOption::Bpf(TcFilterBpfOption::ProgFd(program.as_raw_fd() as u32)),
            TcOption::Bpf(TcFilterBpfOption::ProgName(name.into())),
            TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
        ]));
        let request = RouteNetlinkMessage::NewTrafficFilter(message);
        self.socket.change(&operation, request, NLM_F_CREATE)
    }

    /// Takes our filter of a direction off, whichever program it runs. Returns whether there was one.
    pub fn remove_filter(&mut self, index: u32, direction: Direction) -> Result<bool> {
        if !self.filter(index, direction)?.is_some_and(|there| there.is_own()) {
            return Ok(false);
        }
        let operation = format!("remove the {} filter of interface {index}", direction.word());
        let request = RouteNetlinkMessage::DelTrafficFilter(place(index, direction));
        match self.socket.change(&operation, request, 0) {
            Ok(()) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes sure that an interface has `clsact`.
    fn ensure_clsact(&mut self, index: u32) -> Result<()> {
        let operation = format!("add {CLSACT} to interface {index}");
        let mut message = TcMessage::with_index(index as i32);
        message.header.parent = TcHandle::CLSACT;
        message.header.handle = TcHandle {
            major: TcHandle::CLSACT.major,
            minor: 0,
        };
        message.attributes.push(TcAttribute::Kind(CLSACT.into()));
        let request = RouteNetlinkMessage::NewQueueDiscipline(message);
        match self.socket.change(&operation, request, NLM_F_CREATE | NLM_F_EXCL) {
            Err(error) if error.is_exists() => {}
            done => return done,
        }
        match self.discipline(index)? {
            Some(kind) if kind != CLSACT => Err(Error::Invalid {
                operation,
                reason: format!(
                    "it has `{kind}`, which has no egress: `tc qdisc del dev INTERFACE {kind}`, and filters on it move \
                     to {CLSACT}"
                ),
            }),
            _ => Ok(()),
        }
    }

    /// The kind of discipline that an interface has where filters for arriving packets hang.
    fn discipline(&mut self, index: u32) -> Result<Option<String>> {
        let request = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
        let disciplines = self.socket.dump("list queueing disciplines", &request)?;
        Ok(disciplines.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewQueueDiscipline(message)
                if message.header.index == index as i32 && message.header.parent == TcHandle::CLSACT =>
            {
                message
                    .attributes
                    .into_iter()
                    .find_map(|attribute| match attribute {
                        TcAttribute::Kind(kind) => Some(kind),
                        _ => None,
                    })
            }
            _ => None,
        }))
    }
}

/// A program on an interface, held by our filter of a direction.
#[derive(Debug)]
pub struct Filter {
    /// A connection of its own: it stays with the network namespace it was opened in, whoever drops it.
    netlink: Netlink,
    index: u32,
    direction: Direction,
    program: u32,
    keep: bool,
}

impl Filter {
    /// The filter of ours that an earlier process has left on an interface of this network namespace. It stays when dropped.
    pub fn find(index: u32, direction: Direction) -> Result<Option<Self>> {
        let mut netlink = Netlink::connect()?;
        let there = netlink.filter(index, direction)?;
        Ok(there.filter(FilterInfo::is_own).map(|there| Self {
            netlink,
            index,
            direction,
            program: there.program,
            keep: true,
        }))
    }

    /// The interface it is on.
    #[must_use]
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// Number of the program it runs.
    #[must_use]
    pub const fn program(&self) -> u32 {
        self.program
    }

    /// Whether the kernel still has it, with the program that was set.
    pub fn is_there(&mut self) -> Result<bool> {
        let there = self.netlink.filter(self.index, self.direction)?;
        Ok(there.is_some_and(|there| there.is_own() && there.program == self.program))
    }

    /// Leaves the program where it is when this is dropped.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// Takes the program off.
    pub fn detach(mut self) -> Result<()> {
        self.keep = true;
        self.netlink.remove_filter(self.index, self.direction).map(drop)
    }

    /// Attaches `program` to an interface of this network namespace, in place of one of ours that an earlier process left
    /// there.
    pub fn attach(index: u32, direction: Direction, program: BorrowedFd<'_>, name: &str) -> Result<Self> {
        let mut netlink = Netlink::connect()?;
        netlink.ensure_clsact(index)?;
        let mut filter = Self {
            netlink,
            index,
            direction,
            program: 0,
            keep: false,
        };
        filter.replace(program, name)?;
        Ok(filter)
    }

    /// Puts `program` in the place of the one it runs: each packet meets the old one or the new one.
    pub fn replace(&mut self, program: BorrowedFd<'_>, name: &str) -> Result<()> {
        self.netlink
            .set_filter(self.index, self.direction, program, name)?;
        self.program = self
            .netlink
            .filter(self.index, self.direction)?
            .map_or(0, |filter| filter.program);
        Ok(())
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        let own = match self.netlink.filter(self.index, self.direction) {
            // Another process may have put its program in the place of ours.
            Ok(there) => there.is_some_and(|there| there.program == self.program),
            Err(_) => true,
        };
        if own && let Err(error) = self.netlink.remove_filter(self.index, self.direction) {
            tracing::error!(index = self.index, %error, "a program could not be taken off its interface");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_place_is_the_same_number_that_tc_prints() {
        let message = place(7, Direction::Egress);
        assert_eq!(
            u32::from(message.header.parent),
            0xffff_fff3,
            "TC_H_CLSACT, TC_H_MIN_EGRESS"
        );
        assert_eq!(u32::from(place(7, Direction::Ingress).header.parent), 0xffff_fff2);
        // `tc filter show`: pref 50 protocol all handle 0x1
        assert_eq!(message.header.info >> 16, 50);
        assert_eq!((message.header.info as u16).to_ne_bytes(), [0, 3]);
    }

    #[test]
    fn a_filter_is_ours_by_kind_and_name() {
        let info = |kind: &str, name: &str| FilterInfo {
            kind: kind.into(),
            name: name.into(),
            program: 1,
        };
        assert!(info("bpf", "bulkhead_ingress").is_own());
        assert!(!info("bpf", "cil_from_netdev").is_own());
        assert!(!info("flower", "bulkhead_ingress").is_own());
    }
}
