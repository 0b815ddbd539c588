//! Programs on interfaces, as links: made, pinned, found again by another process, pointed at another program.
//!
//! Owns the calls of `bpf(2)` that deal with links: the loader library has no link that may be looked at, so that nobody
//! could tell which interface a pinned one belongs to. Refuses nothing: whose link it is and where it may be pinned, the
//! callers know.
//!
//! A link goes with its last descriptor unless it is pinned. So closing one, or being killed, takes the program off the
//! interface if nobody pinned it, and leaves it where it is if somebody did. On a kernel without TCX (before 6.6) a filter
//! of `clsact` stands for a TCX link: it stays by itself, and what is pinned in its name is its program, so that there is
//! a list of what is held.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
};

use crate::netlink::{self, Direction, Filter, Namespace};

/// Where a program hangs on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hook {
    /// TCX, packets that leave.
    Egress,
    /// TCX, packets that arrive.
    Ingress,
    /// XDP in the driver.
    Xdp,
}

impl Hook {
    /// All hooks in the order in which programs are replaced: what a new ingress program redirects must not meet an egress
    /// program that does not know the interface it came from.
    pub const ALL: [Self; 3] = [Self::Egress, Self::Ingress, Self::Xdp];

    /// Its word in the names of pins.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Egress => "egress",
            Self::Ingress => "ingress",
            Self::Xdp => "xdp",
        }
    }

    /// `enum bpf_attach_type` (include/uapi/linux/bpf.h).
    const fn attach_type(self) -> u32 {
        match self {
            Self::Egress => 47,
            Self::Ingress => 46,
            Self::Xdp => 37,
        }
    }
}

/// Why a link could not be made, changed or looked at.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The kernel's answer to `bpf(2)`, or that of the file system.
    #[error(transparent)]
    System(#[from] io::Error),
    /// Its answer about a filter.
    #[error(transparent)]
    Filter(#[from] netlink::Error),
}

impl LinkError {
    /// Whether there is no such link.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::System(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

/// How a program is held on its interface.
#[derive(Debug)]
enum Holder {
    /// By a BPF link.
    Link(OwnedFd),
    /// By a filter of `clsact`.
    Filter(Filter),
}

/// A program on an interface.
#[derive(Debug)]
pub struct Link {
    holder: Holder,
    pin: Option<PathBuf>,
    /// Whether it was found rather than made.
    found: bool,
    /// Whether it still runs a program of another load.
    stale: bool,
    /// Number of the program it was made or found with, or was given last.
    program: u32,
}

/// How a link stands, as against how it was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// On its interface, with the program it was given.
    There,
    /// On its interface, with a program that somebody else has put in the place of it (`BPF_LINK_UPDATE`).
    Replaced,
    /// Not on its interface.
    Gone,
}

/// What the kernel says of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkInfo {
    /// Its number; 0 for a filter.
    pub id: u32,
    /// Number of its program.
    pub program: u32,
    /// Index of its interface, in whatever network namespace; 0 when the interface is gone.
    pub ifindex: u32,
}

/// Commands, types and layouts of `bpf(2)` (include/uapi/linux/bpf.h).
mod uapi {
    pub const OBJ_PIN: libc::c_long = 6;
    pub const OBJ_GET: libc::c_long = 7;
    pub const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
    pub const PROG_QUERY: libc::c_long = 16;
    pub const LINK_CREATE: libc::c_long = 28;
    pub const LINK_UPDATE: libc::c_long = 29;
    pub const LINK_DETACH: libc::c_long = 34;
    /// `XDP_FLAGS_DRV_MODE` (include/uapi/linux/if_link.h).
    pub const DRIVER_MODE: u32 = 1 << 2;

    #[repr(C)]
    #[derive(Default)]
    pub struct Pin {
        pub path: u64,
        pub fd: u32,
        pub flags: u32,
    }

    #[repr(C)]
    #[derive(Default)]
    pub struct Create {
        pub program: u32,
        pub ifindex: u32,
        pub attach_type: u32,
        pub flags: u32,
        /// Place among other programs of the hook: zero is behind all of them.
        pub order: [u64; 2],
    }

    #[repr(C)]
    #[derive(Default)]
    pub struct Update {
        pub link: u32,
        pub program: u32,
        pub flags: u32,
        pub old_program: u32,
    }

    #[repr(C)]
    #[derive(Default)]
    pub struct Detach {
        pub link: u32,
    }

    #[repr(C)]
    #[derive(Default)]
    pub struct Info {
        pub fd: u32,
        pub length: u32,
        pub info: u64,
    }

    /// `struct bpf_link_info` as far as TCX and XDP links fill it.
    #[repr(C)]
    #[derive(Default)]
    pub struct LinkInfo {
        pub kind: u32,
        pub id: u32,
        pub program: u32,
        pub pad: u32,
        /// Interface index first, in both kinds.
        pub ifindex: u32,
        pub attach_type: u32,
        pub rest: [u64; 4],
    }

    /// `struct bpf_prog_info` (216 bytes since 5.16) as far as it says which one, and far enough to be longer than what the
    /// kernel tells of maps and links.
    #[repr(C)]
    #[derive(Default)]
    pub struct ProgramInfo {
        pub kind: u32,
        pub id: u32,
        pub rest: [u64; 24],
    }

    #[repr(C)]
    #[derive(Default)]
    pub struct Query {
        pub ifindex: u32,
        pub attach_type: u32,
        pub flags: u32,
        pub attach_flags: u32,
        pub programs: u64,
        pub count: u32,
        pub pad: u32,
        pub program_flags: u64,
        pub links: u64,
        pub link_flags: u64,
        pub revision: u64,
    }
}

/// Calls `bpf(command, attr, size_of(attr))`; the descriptor or zero it returns.
#[expect(unsafe_code, reason = "the loader library does not offer these calls")]
fn bpf<A>(command: libc::c_long, attr: &mut A) -> io::Result<i32> {
    // SAFETY: `attr` is a prefix of `union bpf_attr` and its size is passed along; each pointer in it points to a buffer
    // that its caller below owns until the call is over, of the length that the same attribute states.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<A>()) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        // A descriptor.
        Ok(result as i32)
    }
}

/// Takes charge of a descriptor that `bpf` has just returned.
#[expect(unsafe_code, reason = "a descriptor out of a system call")]
fn own(fd: i32) -> OwnedFd {
    // SAFETY: the kernel has just made it for this process (`O_CLOEXEC`), and nobody else knows its number.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// Pins an object: it lives on while the file does.
///
/// # Errors
/// Whatever the kernel says: no bpffs there (`EINVAL`, `EPERM`), the file exists, its name has a dot.
pub fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let name = c_path(path)?;
    let mut attr = uapi::Pin {
        path: name.as_ptr() as u64,
        fd: object.as_raw_fd() as u32,
        flags: 0,
    };
    bpf(uapi::OBJ_PIN, &mut attr).map(drop)
}

/// Pins an object in place of what may be pinned there, which goes once this one is there.
fn pin_over(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let next = next_to(path);
    pin_next(object, &next)?;
    std::fs::rename(next, path)
}

/// Pins an object under the name of one that is to take another's place; what an earlier process left there goes.
fn pin_next(object: BorrowedFd<'_>, next: &Path) -> io::Result<()> {
    match std::fs::remove_file(next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    pin(object, next)
}

/// Where what is to be pinned at `path` is until it takes its place: in the same directory, which a bpffs can rename within
/// (kernel/bpf/inode.c, `simple_rename`).
fn next_to(path: &Path) -> PathBuf {
    let mut next = path.as_os_str().to_owned();
    next.push("_next");
    next.into()
}

/// Opens what is pinned.
fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let name = c_path(path)?;
    let mut attr = uapi::Pin {
        path: name.as_ptr() as u64,
        ..uapi::Pin::default()
    };
    bpf(uapi::OBJ_GET, &mut attr).map(own)
}

/// The number of a pinned program.
fn pinned_program(path: &Path) -> io::Result<u32> {
    number_of(open_pin(path)?.as_fd())
}

/// The number of a program. Numbers of maps are counted apart: what is pinned somewhere must not pass for a program.
fn number_of(program: BorrowedFd<'_>) -> io::Result<u32> {
    let mut info = uapi::ProgramInfo::default();
    let mut attr = uapi::Info {
        fd: program.as_raw_fd() as u32,
        length: size_of::<uapi::ProgramInfo>() as u32,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    bpf(uapi::OBJ_GET_INFO_BY_FD, &mut attr)?;
    if (attr.length as usize) < size_of::<uapi::ProgramInfo>() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it is something else than a program",
        ));
    }
    Ok(info.id)
}

/// The numbers of the links on a TCX hook of an interface of this network namespace; 0 for programs attached without one.
///
/// # Errors
/// Whatever the kernel says.
pub fn links_on(hook: Hook, ifindex: u32) -> io::Result<Vec<u32>> {
    /// `BPF_MPROG_MAX`, the most programs a hook holds (kernel/bpf/mprog.c).
    const MOST: usize = 64;
    let (mut programs, mut links) = ([0u32; MOST], [0u32; MOST]);
    let mut attr = uapi::Query {
        ifindex,
        attach_type: hook.attach_type(),
        programs: programs.as_mut_ptr() as u64,
        count: MOST as u32,
        links: links.as_mut_ptr() as u64,
        ..uapi::Query::default()
    };
    match bpf(uapi::PROG_QUERY, &mut attr) {
        Ok(_) => Ok(links.iter().take(attr.count as usize).copied().collect()),
        // Nothing was ever attached there.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Whether this kernel has TCX. One without does not know the hook; one with it knows that nothing, or what, is attached.
/// Whoever may not ask will not be allowed to attach either, and hears of that then.
#[must_use]
pub fn has_tcx() -> bool {
    /// The loopback interface's index, in every network namespace.
    const LOOPBACK: u32 = 1;
    let answer = links_on(Hook::Ingress, LOOPBACK);
    !matches!(answer, Err(ref error) if error.raw_os_error() == Some(libc::EINVAL))
}

/// The direction of the filter that stands for a hook, if one does.
fn filtered(hook: Hook) -> Option<Direction> {
    let direction = match hook {
        Hook::Egress => Direction::Egress,
        Hook::Ingress => Direction::Ingress,
        Hook::Xdp => return None,
    };
    (!has_tcx()).then_some(direction)
}

impl Link {
    /// Attaches a program to an interface of this network namespace, behind others there may be.
    ///
    /// # Errors
    /// Whatever the kernel says: for XDP `EOPNOTSUPP` from a driver without it, `ERANGE` for an MTU, `ENOSPC` for queues,
    /// `EBUSY` where another program is.
    pub fn attach(hook: Hook, program: BorrowedFd<'_>, name: &str, ifindex: u32) -> Result<Self, LinkError> {
        let number = number_of(program)?;
        let holder = match filtered(hook) {
            Some(direction) => Holder::Filter(Filter::attach(ifindex, direction, program, name)?),
            None => {
                let mut attr = uapi::Create {
                    program: program.as_raw_fd() as u32,
                    ifindex,
                    attach_type: hook.attach_type(),
                    flags: if hook == Hook::Xdp { uapi::DRIVER_MODE } else { 0 },
                    order: [0; 2],
                };
                Holder::Link(own(bpf(uapi::LINK_CREATE, &mut attr)?))
            }
        };
        Ok(Self {
            holder,
            pin: None,
            found: false,
            stale: false,
            program: number,
        })
    }

    /// Finds what is pinned there for a hook of an interface.
    ///
    /// # Errors
    /// Whatever the kernel says; [`LinkError::is_not_found`] if there is none.
    pub fn find(path: &Path, hook: Hook, ifindex: u32) -> Result<Self, LinkError> {
        if let Some(direction) = filtered(hook) {
            return Self::find_filter(path, direction, ifindex);
        }
        Self::found(path, Holder::Link(open_pin(path)?))
    }

    /// Finds the filter of `clsact` whose program is pinned there, on whatever kernel. A pin names an interface by its index
    /// only, and another network namespace or another instance may have a filter under the same: it is not this one.
    ///
    /// # Errors
    /// As [`Link::find`].
    pub fn find_filter(path: &Path, direction: Direction, ifindex: u32) -> Result<Self, LinkError> {
        let pinned = pinned_program(path)?;
        let none = || io::Error::from(io::ErrorKind::NotFound);
        let filter = Filter::find(ifindex, direction)?.ok_or_else(none)?;
        // A process that was killed in `replace` has left the program that the filter runs beside the one before.
        if pinned != filter.program() && pinned_program(&next_to(path))? != filter.program() {
            return Err(none().into());
        }
        Self::found(path, Holder::Filter(filter))
    }

    /// Finds what is pinned there for a hook of an interface with this index, in whatever network namespace. A link is found
    /// by its pin alone; a filter is looked for in this one first, then in all that can be found.
    ///
    /// # Errors
    /// As [`Link::find`]; also if it is not found and a namespace could not be looked into.
    pub fn find_anywhere(path: &Path, hook: Hook, ifindex: u32) -> Result<Self, LinkError> {
        match filtered(hook) {
            Some(direction) => Self::find_filter_anywhere(path, direction, ifindex),
            None => Self::find(path, hook, ifindex),
        }
    }

    /// [`Link::find_filter`] in whatever network namespace.
    ///
    /// # Errors
    /// As [`Link::find_anywhere`].
    pub fn find_filter_anywhere(path: &Path, direction: Direction, ifindex: u32) -> Result<Self, LinkError> {
        let here = Self::find_filter(path, direction, ifindex);
        let Err(mut missing) = here else {
            return here;
        };
        if !missing.is_not_found() || !path.exists() {
            return Err(missing);
        }
        for namespace in Namespace::others() {
            let there = namespace.run(|| Self::find_filter(path, direction, ifindex));
            match there.map_err(LinkError::from).and_then(|there| there) {
                Ok(link) => return Ok(link),
                Err(error) if error.is_not_found() => {}
                Err(LinkError::System(error)) => {
                    missing =
                        io::Error::new(error.kind(), format!("{}: {error}", namespace.path.display())).into();
                }
                Err(error) => missing = error,
            }
        }
        Err(missing)
    }

    fn found(path: &Path, holder: Holder) -> Result<Self, LinkError> {
        let mut link = Self {
            holder,
            pin: Some(path.to_owned()),
            found: true,
            stale: true,
            program: 0,
        };
        link.program = link.info()?.program;
        Ok(link)
    }

    /// Pins it, in place of what may be pinned there. `program` is what it runs.
    ///
    /// # Errors
    /// Whatever the kernel says; it is not pinned then.
    pub fn pin(&mut self, path: &Path, program: BorrowedFd<'_>) -> Result<(), LinkError> {
        match &mut self.holder {
            Holder::Link(link) => pin_over(link.as_fd(), path)?,
            Holder::Filter(filter) => {
                pin_over(program, path)?;
                filter.keep();
            }
        }
        self.pin = Some(path.to_owned());
        Ok(())
    }

    /// Whether it is on the interface with this index in this network namespace. Others may take it off: by force
    /// (`BPF_LINK_DETACH`), or a filter like any filter, or with the whole discipline.
    ///
    /// # Errors
    /// Whatever the kernel says.
    pub fn is_on(&mut self, hook: Hook, ifindex: u32) -> Result<bool, LinkError> {
        if let Holder::Filter(filter) = &mut self.holder {
            return Ok(filter.index() == ifindex && filter.is_there()?);
        }
        let info = self.info()?;
        // An index is unique in one namespace only, and an interface may have moved to another with its links. XDP cannot be
        // asked like this: whoever finds it has found the interface's other links.
        Ok(info.ifindex == ifindex && (hook == Hook::Xdp || links_on(hook, ifindex)?.contains(&info.id)))
    }

    /// Whether it is on the interface with this index in this network namespace, and runs what it was given. A filter with
    /// another program is not the one that was set there: it counts as gone.
    ///
    /// # Errors
    /// Whatever the kernel says.
    pub fn standing(&mut self, hook: Hook, ifindex: u32) -> Result<Standing, LinkError> {
        Ok(if !self.is_on(hook, ifindex)? {
            Standing::Gone
        } else if self.info()?.program == self.program {
            Standing::There
        } else {
            Standing::Replaced
        })
    }

    /// What the kernel says of it.
    ///
    /// # Errors
    /// Whatever the kernel says.
    pub fn info(&self) -> Result<LinkInfo, LinkError> {
        let link = match &self.holder {
            Holder::Link(link) => link,
            Holder::Filter(filter) => {
                return Ok(LinkInfo {
                    id: 0,
                    program: filter.program(),
                    ifindex: filter.index(),
                });
            }
        };
        let mut info = uapi::LinkInfo::default();
        let mut attr = uapi::Info {
            fd: link.as_raw_fd() as u32,
            length: size_of::<uapi::LinkInfo>() as u32,
            info: std::ptr::from_mut(&mut info) as u64,
        };
        bpf(uapi::OBJ_GET_INFO_BY_FD, &mut attr)?;
        Ok(LinkInfo {
            id: info.id,
            program: info.program,
            ifindex: info.ifindex,
        })
    }

    /// Whether it was there before this process.
    #[must_use]
    pub const fn was_found(&self) -> bool {
        self.found
    }

    /// Whether it runs a program of another load.
    #[must_use]
    pub const fn is_stale(&self) -> bool {
        self.stale
    }

    /// Where it is pinned.
    #[must_use]
    pub fn pinned_at(&self) -> Option<&Path> {
        self.pin.as_deref()
    }

    /// Puts `program` in the place of the one it runs: each packet meets the old one or the new one.
    ///
    /// # Errors
    /// Whatever the kernel says; the old one stays.
    pub fn replace(&mut self, program: BorrowedFd<'_>, name: &str) -> Result<(), LinkError> {
        let number = number_of(program)?;
        match &mut self.holder {
            Holder::Link(link) => {
                let mut attr = uapi::Update {
                    link: link.as_raw_fd() as u32,
                    program: program.as_raw_fd() as u32,
                    ..uapi::Update::default()
                };
                bpf(uapi::LINK_UPDATE, &mut attr)?;
            }
            Holder::Filter(filter) => {
                // One of the two pins is of what the filter runs, whenever this process ends.
                let pin = self.pin.as_deref().map(|path| (next_to(path), path));
                if let Some((next, _)) = &pin {
                    pin_next(program, next)?;
                }
                filter.replace(program, name)?;
                if let Some((next, path)) = &pin {
                    std::fs::rename(next, path)?;
                }
            }
        }
        self.stale = false;
        self.program = number;
        Ok(())
    }

    /// Takes the program off the interface, the pin included. It is off when this returns: a link that loses its last pin
    /// would be let go at some later time (kernel/bpf/syscall.c, `bpf_link_put`).
    ///
    /// # Errors
    /// Whatever the system says; the pin stays if the program does.
    pub fn detach(self) -> Result<(), LinkError> {
        match self.holder {
            Holder::Link(link) => {
                let mut attr = uapi::Detach {
                    link: link.as_raw_fd() as u32,
                };
                bpf(uapi::LINK_DETACH, &mut attr)?;
            }
            Holder::Filter(filter) => filter.detach()?,
        }
        match self.pin.map(std::fs::remove_file) {
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}
