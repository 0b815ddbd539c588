//! What a driver can do with XDP, as the generic netlink family `netdev` tells (Linux 6.3).
//!
//! Owns one conversation: the family's number is looked up, then one interface asked for at a time. Assumes
//! that the interface is in the network namespace of the thread that connected. Refuses to conclude from
//! silence: a kernel without the family answers `None`, which is not "no XDP".
//!
//! The flags move while interfaces live. A veth receives redirected frames only while its *peer* has GRO on
//! or runs XDP, and has native XDP at all only while it has a receive queue for each transmit queue of the
//! peer; many NICs receive redirected frames only after an XDP program was attached to them. Ask again after
//! every change.

use std::convert::Infallible;
use std::fmt;
use std::io;

use netlink_packet_core::{
    DefaultNla, Emitable, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable, NlasIterator,
};
use netlink_sys::protocols::NETLINK_GENERIC;
use netlink_sys::{Socket, SocketAddr};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::rule::RuleMessage;

use super::error::{Error, Result};
use super::{Family, Netlink};

/// `GENL_ID_CTRL`: the family that knows the others.
const CONTROL_FAMILY: u16 = 0x10;
/// `CTRL_CMD_GETFAMILY`.
const CONTROL_GET_FAMILY: u8 = 3;
/// `CTRL_ATTR_FAMILY_ID`, 16 bits.
const CONTROL_FAMILY_ID: u16 = 1;
/// `CTRL_ATTR_FAMILY_NAME`, zero-terminated.
const CONTROL_FAMILY_NAME: u16 = 2;

/// `NETDEV_FAMILY_NAME`.
const FAMILY_NAME: &[u8] = b"netdev\0";
/// `NETDEV_CMD_DEV_GET`.
const DEVICE_GET: u8 = 1;
/// `NETDEV_A_DEV_IFINDEX`, 32 bits.
const DEVICE_IFINDEX: u16 = 1;
/// `NETDEV_A_DEV_XDP_FEATURES`, 64 bits.
const DEVICE_XDP_FEATURES: u16 = 3;

/// `struct genlmsghdr`: command, version, two reserved bytes.
const GENERIC_HEADER_BYTES: usize = 4;
/// The version both families go by; neither has had a second one that differs.
const VERSION: u8 = 1;

/// What a driver can do with XDP (`enum netdev_xdp_act`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct XdpFeatures(u64);

impl XdpFeatures {
    /// Runs native programs: abort, drop, pass, transmit.
    pub const BASIC: Self = Self(1 << 0);
    /// Native programs may redirect.
    pub const REDIRECT: Self = Self(1 << 1);
    /// Others' programs may redirect into it.
    pub const NDO_XMIT: Self = Self(1 << 2);
    /// AF_XDP without copying.
    pub const XSK: Self = Self(1 << 3);
    /// Runs programs in hardware.
    pub const HW_OFFLOAD: Self = Self(1 << 4);
    /// Receives frames in fragments, for programs that say they can read those: frames beyond a page.
    pub const RX_SG: Self = Self(1 << 5);
    /// Frames in fragments may be redirected into it.
    pub const NDO_XMIT_SG: Self = Self(1 << 6);

    const NAMES: [(Self, &'static str); 7] = [
        (Self::BASIC, "basic"),
        (Self::REDIRECT, "redirect"),
        (Self::NDO_XMIT, "ndo-xmit"),
        (Self::XSK, "xsk-zerocopy"),
        (Self::HW_OFFLOAD, "hw-offload"),
        (Self::RX_SG, "rx-sg"),
        (Self::NDO_XMIT_SG, "ndo-xmit-sg"),
    ];

    /// From the kernel's bits; those without a name here are kept.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The kernel's bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether every flag of `other` is set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether no flag is set: the driver has no native XDP, or not in its present state.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The flags of both.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl std::ops::BitOr for XdpFeatures {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

impl fmt::Display for XdpFeatures {
    /// The names that the kernel's netlink specification gives them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        let (mut rest, mut separator) = (self.0, "");
        for (flag, name) in Self::NAMES {
            if self.contains(flag) {
                write!(f, "{separator}{name}")?;
                rest &= !flag.0;
                separator = " ";
            }
        }
        if rest != 0 {
            write!(f, "{separator}{rest:#x}")?;
        }
        Ok(())
    }
}

/// Asks once, in the network namespace of the calling thread. `None`: this kernel has no `netdev` family.
///
/// # Errors
/// [`Error::is_not_found`] if there is no such interface; else what the socket or the kernel says.
pub fn xdp_features(ifindex: u32) -> Result<Option<XdpFeatures>> {
    match Netdev::connect()? {
        Some(mut netdev) => netdev.xdp_features(ifindex).map(Some),
        None => Ok(None),
    }
}

/// A connection to the `netdev` family in one network namespace.
#[derive(Debug)]
pub struct Netdev {
    socket: Socket,
    family: u16,
    sequence: u32,
}

impl Netdev {
    /// Connects in the network namespace of the calling thread. `None`: this kernel has no such family.
    ///
    /// # Errors
    /// If there is no generic netlink socket to be had.
    pub fn connect() -> Result<Option<Self>> {
        let failed = |source| Error::Socket {
            operation: "open a generic netlink socket".into(),
            source,
        };
        let mut socket = Socket::new(NETLINK_GENERIC).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        let mut netdev = Self {
            socket,
            family: CONTROL_FAMILY,
            sequence: 0,
        };
        let operation = "look up the generic netlink family netdev";
        let name = DefaultNla::new(CONTROL_FAMILY_NAME, FAMILY_NAME.to_vec());
        let answer = match netdev.ask(operation, CONTROL_GET_FAMILY, name) {
            Err(error) if error.errno() == Some(libc::ENOENT) => return Ok(None),
            answer => answer?,
        };
        netdev.family = u16::from_ne_bytes(answer.attribute(operation, CONTROL_FAMILY_ID)?);
        Ok(Some(netdev))
    }

    /// What the driver of an interface can do with XDP at this moment.
    ///
    /// # Errors
    /// [`Error::is_not_found`] if there is no such interface; else what the socket or the kernel says.
    pub fn xdp_features(&mut self, ifindex: u32) -> Result<XdpFeatures> {
        let operation = format!("read the XDP features of interface index {ifindex}");
        let index = DefaultNla::new(DEVICE_IFINDEX, ifindex.to_ne_bytes().to_vec());
        let answer = self.ask(&operation, DEVICE_GET, index)?;
        let bits = u64::from_ne_bytes(answer.attribute(&operation, DEVICE_XDP_FEATURES)?);
        Ok(XdpFeatures::from_bits(bits))
    }

    /// One question, one answer. Without `NLM_F_ACK` the kernel sends the object or an error, never both.
    fn ask(&mut self, operation: &str, command: u8, attribute: DefaultNla) -> Result<Generic> {
        let failed = |source| Error::Socket {
            operation: operation.into(),
            source,
        };
        let protocol = |reason| Error::Protocol {
            operation: operation.into(),
            reason,
        };
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST;
        header.sequence_number = self.sequence;
        let mut attributes = vec![0; attribute.buffer_len()];
        attribute.emit(&mut attributes);
        let question = Generic {
            family: self.family,
            command,
            attributes,
        };
        let mut question = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(question));
        question.finalize();
        let mut bytes = vec![0; question.buffer_len()];
        question.serialize(&mut bytes);
        self.socket
            .send_to(&bytes, &SocketAddr::new(0, 0), 0)
            .map_err(failed)?;
        loop {
            let (bytes, sender) = match self.socket.recv_from_full() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                received => received.map_err(failed)?,
            };
            if sender.port_number() != 0 {
                continue;
            }
            let answer = NetlinkMessage::<Generic>::deserialize(&bytes)
                .map_err(|error| protocol(error.to_string()))?;
            if answer.header.sequence_number != self.sequence {
                continue;
            }
            return match answer.payload {
                NetlinkPayload::InnerMessage(message) => Ok(message),
                NetlinkPayload::Error(error) => Err(Error::Kernel {
                    operation: operation.into(),
                    errno: -error.raw_code(),
                    message: None,
                }),
                _ => Err(protocol("neither an object nor an error".into())),
            };
        }
    }
}

/// A generic netlink message: a command of a family, and attributes as they are on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Generic {
    family: u16,
    command: u8,
    attributes: Vec<u8>,
}

impl Generic {
    /// The value of an attribute, which has to be there and of this size.
    fn attribute<const BYTES: usize>(&self, operation: &str, kind: u16) -> Result<[u8; BYTES]> {
        let attribute = NlasIterator::new(&self.attributes[..])
            .flatten()
            .find(|attribute| attribute.kind() == kind);
        let found = match &attribute {
            Some(attribute) => match attribute.value().try_into() {
                Ok(value) => return Ok(value),
                Err(_) => format!("has {}", attribute.value().len()),
            },
            None => "is missing".into(),
        };
        Err(Error::Protocol {
            operation: operation.into(),
            reason: format!("attribute {kind} of {BYTES} bytes {found}"),
        })
    }
}

impl NetlinkSerializable for Generic {
    fn message_type(&self) -> u16 {
        self.family
    }

    fn buffer_len(&self) -> usize {
        GENERIC_HEADER_BYTES + self.attributes.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let (header, attributes) = buffer.split_at_mut(GENERIC_HEADER_BYTES);
        header.copy_from_slice(&[self.command, VERSION, 0, 0]);
        attributes.copy_from_slice(&self.attributes);
    }
}

impl NetlinkDeserializable for Generic {
    type Error = Infallible;

    /// A message shorter than its header has command 0 and no attributes, so what is looked for is missing.
    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> std::result::Result<Self, Infallible> {
        Ok(Self {
            family: header.message_type,
            command: payload.first().copied().unwrap_or(0),
            attributes: payload.get(GENERIC_HEADER_BYTES..).unwrap_or_default().to_vec(),
        })
    }
}

impl Netlink {
    /// Whether this kernel has routing-policy rules for a family: every kernel that has them lists at least its own.
    ///
    /// # Errors
    /// What the socket says, and what the kernel says other than that it has no such family.
    pub fn has_policy_routing(&mut self, family: Family) -> Result<bool> {
        let mut request = RuleMessage::default();
        request.header.family = family.wire();
        let operation = format!("list {family} rules");
        match self.socket.dump(&operation, &RouteNetlinkMessage::GetRule(request)) {
            Err(error) if error.is_unsupported_family() => Ok(false),
            // A kernel without rules for the family answers for all of them.
            rules => Ok(rules?.iter().any(|rule| {
                matches!(rule, RouteNetlinkMessage::NewRule(rule) if rule.header.family == family.wire())
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_name_themselves_unknown_ones_included() {
        assert_eq!(XdpFeatures::default().to_string(), "none");
        let features = XdpFeatures::BASIC | XdpFeatures::NDO_XMIT_SG | XdpFeatures::from_bits(1 << 9);
        assert_eq!(features.to_string(), "basic ndo-xmit-sg 0x200");
        assert!(features.contains(XdpFeatures::BASIC));
        assert!(!features.contains(XdpFeatures::BASIC | XdpFeatures::REDIRECT));
        assert_eq!(features.bits(), 0b10_0100_0001 | 1 << 9);
    }

    #[test]
    fn an_attribute_of_another_size_is_refused() {
        let attribute = DefaultNla::new(DEVICE_XDP_FEATURES, vec![7, 0, 0, 0]);
        let mut attributes = vec![0; attribute.buffer_len()];
        attribute.emit(&mut attributes);
        let message = Generic {
            family: 30,
            command: DEVICE_GET,
            attributes,
        };
        assert_eq!(
            message
                .attribute::<4>("test", DEVICE_XDP_FEATURES)
                .expect("four bytes"),
            [7, 0, 0, 0]
        );
        let error = message
            .attribute::<8>("test", DEVICE_XDP_FEATURES)
            .expect_err("not eight");
        assert_eq!(
            error.to_string(),
            "cannot understand the kernel's answer to test: attribute 3 of 8 bytes has 4"
        );
        let error = message
            .attribute::<4>("test", DEVICE_IFINDEX)
            .expect_err("not there");
        assert!(
            error.to_string().ends_with("attribute 1 of 4 bytes is missing"),
            "{error}"
        );
    }
}
