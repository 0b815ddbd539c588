//! What only `SIOCETHTOOL` knows: driver, offloads and queues of an interface.
//!
//! Owns the `unsafe` of this tree: one `ioctl`. Assumes that the interface is in the network namespace of
//! the thread that opened the [`Ethtool`]. Offloads go through the legacy operations, which every driver
//! since Linux 2.6 answers and which turn on the whole group (`tx` is every transmit checksum there is).

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::error::{Error, Result};
use super::link::NAME_BYTES;

const SIOCETHTOOL: libc::Ioctl = 0x8946;

const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
const ETHTOOL_SCHANNELS: u32 = 0x3d;

/// An offload that changes what the data plane sees of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Offload {
    /// Receive checksum verification.
    Rx,
    /// Transmit checksum completion: packets leave the stack with a pseudo-header sum only.
    Tx,
    /// Scatter-gather transmission; the segmentation offloads need it.
    ScatterGather,
    /// TCP segmentation: packets leave the stack larger than the MTU.
    Tso,
    /// Segmentation in software just before the driver.
    Gso,
    /// Coalescing on receipt. On a veth this is what lets redirected XDP frames in.
    Gro,
}

impl Offload {
    /// All of them, in the order in which they can be switched off without one undoing another.
    pub const ALL: [Self; 6] = [
        Self::Gro,
        Self::Gso,
        Self::Tso,
        Self::ScatterGather,
        Self::Tx,
        Self::Rx,
    ];

    const fn get(self) -> u32 {
        match self {
            Self::Rx => 0x14,
            Self::Tx => 0x16,
            Self::ScatterGather => 0x18,
            Self::Tso => 0x1e,
            Self::Gso => 0x23,
            Self::Gro => 0x2b,
        }
    }

    /// Each setter directly follows its getter in `linux/ethtool.h`.
    const fn set(self) -> u32 {
        self.get() + 1
    }
}

impl fmt::Display for Offload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rx => "rx",
            Self::Tx => "tx",
            Self::ScatterGather => "sg",
            Self::Tso => "tso",
            Self::Gso => "gso",
            Self::Gro => "gro",
        })
    }
}

/// Queues of an interface, in use and possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Channels {
    /// Receive-only queues in use.
    pub rx: u32,
    /// Transmit-only queues in use.
    pub tx: u32,
    /// Queue pairs in use.
    pub combined: u32,
    /// Most receive-only queues.
    pub max_rx: u32,
    /// Most transmit-only queues.
    pub max_tx: u32,
    /// Most queue pairs.
    pub max_combined: u32,
}

impl Channels {
    /// Queues that receive, whatever their shape.
    pub const fn receiving(&self) -> u32 {
        self.rx + self.combined
    }

    /// Queues that transmit, whatever their shape.
    pub const fn transmitting(&self) -> u32 {
        self.tx + self.combined
    }
}

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    rest: [u8; 160],
}

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Default)]
struct ChannelsRequest {
    command: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

const _: () = assert!(size_of::<DriverInfo>() == 196);
const _: () = assert!(size_of::<ChannelsRequest>() == 36);

/// A request structure whose layout is the kernel's for the command in its first word.
///
/// Private on purpose: `call` relies on the three implementors above being plain `repr(C)` integers of the
/// size the kernel reads and writes.
trait Request {}
impl Request for Value {}
impl Request for DriverInfo {}
impl Request for ChannelsRequest {}

/// A handle for ethtool requests in one network namespace.
#[derive(Debug)]
pub struct Ethtool {
    socket: OwnedFd,
}

impl Ethtool {
    /// Opens a handle in the network namespace of the calling thread.
    pub fn open() -> Result<Self> {
        socket(
            AddressFamily::Inet,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .map(|socket| Self { socket })
        .map_err(|errno| Error::Socket {
            operation: "open an ethtool socket".into(),
            source: errno.into(),
        })
    }

    /// The name of the driver: `veth`, `macvlan`, `virtio_net`, `ixgbe`.
    pub fn driver(&self, interface: &str) -> Result<String> {
        let mut request = DriverInfo {
            command: ETHTOOL_GDRVINFO,
            driver: [0; 32],
            rest: [0; 160],
        };
        self.call(interface, "read the driver", &mut request)?;
        let name = request.driver.split(|byte| *byte == 0).next().unwrap_or_default();
        Ok(String::from_utf8_lossy(name).into_owned())
    }

    /// Whether an offload is on.
    pub fn offload(&self, interface: &str, offload: Offload) -> Result<bool> {
        let mut request = Value {
            command: offload.get(),
            data: 0,
        };
        self.call(interface, &format!("read the offload {offload}"), &mut request)?;
        Ok(request.data != 0)
    }

    /// Switches an offload. Some are fixed by the driver: read it back where it matters.
    pub fn set_offload(&self, interface: &str, offload: Offload, on: bool) -> Result<()> {
        let mut request = Value {
            command: offload.set(),
            data: u32::from(on),
        };
        let state = if on { "on" } else { "off" };
        self.call(
            interface,
            &format!("switch the offload {offload} {state}"),
            &mut request,
        )
    }

    /// Queue counts; `None` where the driver has no notion of them (macvlan).
    pub fn channels(&self, interface: &str) -> Result<Option<Channels>> {
        let mut request = ChannelsRequest {
            command: ETHTOOL_GCHANNELS,
            ..Default::default()
        };
        match self.call(interface, "read the queue counts", &mut request) {
            Ok(()) => {}
            Err(error) if error.errno() == Some(libc::EOPNOTSUPP) => return Ok(None),
            Err(error) => return Err(error),
        }
        Ok(Some(Channels {
            rx: request.rx,
            tx: request.tx,
            combined: request.combined,
            max_rx: request.max_rx,
            max_tx: request.max_tx,
            max_combined: request.max_combined,
        }))
    }

    /// Sets the separate receive and transmit queue counts, leaving the others as they are.
    pub fn set_channels(&self, interface: &str, rx: u32, tx: u32) -> Result<()> {
        let mut request = ChannelsRequest {
            command: ETHTOOL_GCHANNELS,
            ..Default::default()
        };
        self.call(interface, "read the queue counts", &mut request)?;
        (request.command, request.rx, request.tx) = (ETHTOOL_SCHANNELS, rx, tx);
        self.call(
            interface,
            &format!("set the queue counts to {rx} rx and {tx} tx"),
            &mut request,
        )
    }

    fn call<R: Request>(&self, interface: &str, operation: &str, request: &mut R) -> Result<()> {
        if interface.is_empty() || interface.len() > NAME_BYTES {
            return Err(Error::NoSuchInterface {
                name: interface.into(),
            });
        }
        let mut name: [libc::c_char; libc::IFNAMSIZ] = [0; libc::IFNAMSIZ];
        for (to, from) in name.iter_mut().zip(interface.bytes()) {
            *to = from.cast_signed();
        }
        let mut envelope = libc::ifreq {
            ifr_name: name,
            ifr_ifru: libc::__c_anonymous_ifr_ifru {
                ifru_data: std::ptr::from_mut(request).cast(),
            },
        };
        #[expect(unsafe_code, reason = "ethtool has no safe binding")]
        // SAFETY: `envelope` is a valid `ifreq` with a terminated name, and `ifru_data` points to a live,
        // exclusively borrowed structure of the layout that the command in its first word calls for
        // (`Request` is implemented for nothing else); the kernel keeps neither pointer.
        let outcome = unsafe { libc::ioctl(self.socket.as_raw_fd(), SIOCETHTOOL, &raw mut envelope) };
        if outcome == 0 {
            return Ok(());
        }
        let source = io::Error::last_os_error();
        match source.raw_os_error() {
            Some(libc::ENODEV) => Err(Error::NoSuchInterface {
                name: interface.into(),
            }),
            _ => Err(Error::Socket {
                operation: format!("{operation} of {interface}"),
                source,
            }),
        }
    }
}
