//! Programs in the kernel: brought there, asked, run without a packet's cause.
//!
//! Owns the calls of `bpf(2)` that deal with programs and their type information. The loader library has them only behind a
//! loader that verifies one program after the other and first reads the type information of the whole kernel, for
//! relocations that our object does not have. Assumes code that is linked against tables that are there. Refuses nothing:
//! the verifier does.

use std::{
    ffi::CString,
    fmt, io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    sync::Arc,
    time::Duration,
};

use aya_obj::{Function, ProgramSection};

/// Commands, types and layouts of `bpf(2)` (include/uapi/linux/bpf.h).
mod uapi {
    pub const MAP_UPDATE_ELEM: libc::c_long = 2;
    pub const PROG_LOAD: libc::c_long = 5;
    pub const PROG_TEST_RUN: libc::c_long = 10;
    pub const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
    pub const BTF_LOAD: libc::c_long = 18;
    pub const MAP_FREEZE: libc::c_long = 22;
    pub const PROG_TYPE_SCHED_CLS: u32 = 3;
    pub const PROG_TYPE_XDP: u32 = 6;
    pub const ATTACH_XDP: u32 = 37;
    pub const XDP_HAS_FRAGS: u32 = 1 << 5;
    /// `BPF_LOG_LEVEL1 | BPF_LOG_STATS` (include/linux/bpf_verifier.h).
    pub const LOG_LEVEL: u32 = 1 | 4;

    #[repr(C)]
    #[derive(Default)]
    pub struct Load {
        pub kind: u32,
        pub instruction_count: u32,
        pub instructions: u64,
        pub license: u64,
        pub log_level: u32,
        pub log_bytes: u32,
        pub log: u64,
        pub kernel_version: u32,
        pub flags: u32,
        pub name: [u8; 16],
        pub ifindex: u32,
        pub attach_type: u32,
        pub btf: u32,
        pub func_info_bytes: u32,
        pub func_info: u64,
        pub func_info_count: u32,
        pub line_info_bytes: u32,
        pub line_info: u64,
        pub line_info_count: u32,
        pub pad: u32,
    }

    #[repr(C)]
    #[derive(Default)]
    pub struct BtfLoad {
        pub btf: u64,
        pub log: u64,
        pub btf_bytes: u32,
        pub log_bytes: u32,
        pub log_level: u32,
        pub pad: u32,
    }

    #[repr(C)]
    #[derive(Default)]
    pub struct TestRun {
        pub program: u32,
        pub code: u32,
        pub data_in_bytes: u32,
        pub data_out_bytes: u32,
        pub data_in: u64,
        pub data_out: u64,
        pub repeat: u32,
        pub duration_ns: u32,
        pub context_in_bytes: u32,
        pub context_out_bytes: u32,
        pub context_in: u64,
        pub context_out: u64,
    }

    #[repr(C)]
    #[derive(Default)]
    pub struct Element {
        pub map: u32,
        pub pad: u32,
        pub key: u64,
        pub value: u64,
        pub flags: u64,
    }

    #[repr(C)]
    #[derive(Default)]
    pub struct Freeze {
        pub map: u32,
    }

    #[repr(C)]
    #[derive(Default)]
    pub struct Info {
        pub fd: u32,
        pub length: u32,
        pub info: u64,
    }

    /// `struct bpf_prog_info` up to `verified_insns`, which is of 5.16.
    #[repr(C)]
    #[derive(Default)]
    pub struct ProgramInfo {
        pub before: [u64; 27],
        pub verified_instructions: u32,
        pub attach_btf_object: u32,
    }
}

/// Calls `bpf(command, attr, size_of(attr))`; the descriptor or zero it returns.
#[expect(
    unsafe_code,
    reason = "the loader library has these calls for its own loader alone"
)]
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

/// What the kernel refused. Kept with the program, for whoever asks for it next.
#[derive(Clone, Debug)]
pub struct Refusal {
    errno: i32,
    log: Arc<str>,
}

impl Refusal {
    /// Nobody has heard the kernel's answer.
    pub(crate) fn unknown() -> Self {
        Self {
            errno: libc::ECANCELED,
            log: "".into(),
        }
    }
}

impl std::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", io::Error::from_raw_os_error(self.errno))?;
        if self.log.is_empty() {
            return Ok(());
        }
        write!(f, "; the verifier:\n{}", self.log)
    }
}

/// Makes a call without a log and, if that is refused, once more to hear why: a log costs the verifier far more than its
/// verdict. What is longer than the most there can be loses its beginning, and before Linux 6.4 its end.
fn explained(mut call: impl FnMut(&mut [u8]) -> io::Result<OwnedFd>) -> Result<OwnedFd, Refusal> {
    const MOST_BYTES: usize = 1 << 24;
    let error = match call(&mut []) {
        Ok(fd) => return Ok(fd),
        Err(error) => error,
    };
    let mut log = vec![0; MOST_BYTES];
    if let Ok(fd) = call(&mut log) {
        // What was missing is there by now.
        return Ok(fd);
    }
    let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
    Err(Refusal {
        errno: error.raw_os_error().unwrap_or_default(),
        log: String::from_utf8_lossy(log.get(..end).unwrap_or_default())
            .trim_end()
            .into(),
    })
}

/// Brings an object's type information into the kernel; its maps and programs refer to it.
///
/// # Errors
/// If the kernel refuses it.
pub(crate) fn load_types(btf: &[u8]) -> Result<OwnedFd, Refusal> {
    explained(|log| {
        let mut attr = uapi::BtfLoad {
            btf: btf.as_ptr() as u64,
            btf_bytes: btf.len() as u32,
            ..uapi::BtfLoad::default()
        };
        if !log.is_empty() {
            attr.log = log.as_mut_ptr() as u64;
            attr.log_bytes = log.len() as u32;
            attr.log_level = uapi::LOG_LEVEL;
        }
        bpf(uapi::BTF_LOAD, &mut attr).map(own)
    })
}

/// A program that is linked and waits for the verifier.
pub(crate) struct Code {
    name: &'static str,
    license: CString,
    section: ProgramSection,
    function: Function,
    types: Option<Arc<OwnedFd>>,
}

impl Code {
    /// Code of the object: `function` is linked, `types` is what [`load_types`] made of the object's.
    pub(crate) fn new(
        name: &'static str,
        program: &aya_obj::Program,
        function: Function,
        types: Option<Arc<OwnedFd>>,
    ) -> Self {
        Self {
            name,
            license: program.license.clone(),
            section: program.section.clone(),
            function,
            types,
        }
    }

    /// Lets the kernel verify and compile it: some hundred nanoseconds for each instruction that the verifier walks.
    ///
    /// # Errors
    /// If the kernel refuses it; what the verifier says is part of the error.
    pub(crate) fn load(&self) -> Result<OwnedFd, Refusal> {
        let mut name = [0; 16];
        // The last byte stays zero.
        for (to, from) in name[..15].iter_mut().zip(self.name.bytes()) {
            *to = from;
        }
        let (kind, attach_type, flags) = match self.section {
            ProgramSection::Xdp { frags: true, .. } => {
                (uapi::PROG_TYPE_XDP, uapi::ATTACH_XDP, uapi::XDP_HAS_FRAGS)
            }
            ProgramSection::Xdp { .. } => (uapi::PROG_TYPE_XDP, uapi::ATTACH_XDP, 0),
            // The object has no others.
            _ => (uapi::PROG_TYPE_SCHED_CLS, 0, 0),
        };
        let Function {
            instructions,
            func_info,
            line_info,
            ..
        } = &self.function;
        let (functions, lines) = (func_info.func_info_bytes(), line_info.line_info_bytes());
        explained(|log| {
            let mut attr = uapi::Load {
                kind,
                attach_type,
                flags,
                name,
                instructions: instructions.as_ptr() as u64,
                instruction_count: instructions.len() as u32,
                license: self.license.as_ptr() as u64,
                ..uapi::Load::default()
            };
            if let Some(types) = &self.types {
                attr.btf = types.as_raw_fd() as u32;
                if !functions.is_empty() {
                    attr.func_info = functions.as_ptr() as u64;
                    attr.func_info_count = func_info.len() as u32;
                    attr.func_info_bytes = self.function.func_info_rec_size as u32;
                }
                if !lines.is_empty() {
                    attr.line_info = lines.as_ptr() as u64;
                    attr.line_info_count = line_info.len() as u32;
                    attr.line_info_bytes = self.function.line_info_rec_size as u32;
                }
            }
            if !log.is_empty() {
                attr.log = log.as_mut_ptr() as u64;
                attr.log_bytes = log.len() as u32;
                attr.log_level = uapi::LOG_LEVEL;
            }
            bpf(uapi::PROG_LOAD, &mut attr).map(own)
        })
    }
}

/// Writes the content of the one entry of a map of constants or variables, which is as long as `content`.
///
/// # Errors
/// Whatever the kernel says.
pub(crate) fn fill(map: BorrowedFd<'_>, content: &[u8]) -> io::Result<()> {
    let key = 0u32;
    let mut attr = uapi::Element {
        map: map.as_raw_fd() as u32,
        key: std::ptr::from_ref(&key) as u64,
        value: content.as_ptr() as u64,
        ..uapi::Element::default()
    };
    bpf(uapi::MAP_UPDATE_ELEM, &mut attr).map(drop)
}

/// Makes a map constant, for the verifier too.
///
/// # Errors
/// Whatever the kernel says.
pub(crate) fn freeze(map: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = uapi::Freeze {
        map: map.as_raw_fd() as u32,
    };
    bpf(uapi::MAP_FREEZE, &mut attr).map(drop)
}

/// How many instructions the verifier walked.
///
/// # Errors
/// Whatever the kernel says.
pub(crate) fn verified_instructions(program: BorrowedFd<'_>) -> io::Result<u32> {
    let mut info = uapi::ProgramInfo::default();
    let mut attr = uapi::Info {
        fd: program.as_raw_fd() as u32,
        length: size_of::<uapi::ProgramInfo>() as u32,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    bpf(uapi::OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(info.verified_instructions)
}

/// What a test run returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestRunOutcome {
    /// The program's return code.
    pub code: u32,
    /// The packet afterwards.
    pub packet: Vec<u8>,
    /// Mean time of one run.
    pub duration: Duration,
}

/// Runs a program on `packet` (`BPF_PROG_TEST_RUN`), `repeat` times. `context` is the beginning of what it is called with,
/// in its type's layout; empty: what the kernel makes up.
///
/// # Errors
/// Whatever the kernel says.
pub(crate) fn test_run(
    program: BorrowedFd<'_>,
    packet: &[u8],
    context: &[u32],
    repeat: u32,
) -> io::Result<TestRunOutcome> {
    // What a program may put in front.
    let mut out = vec![0; packet.len() + 256];
    let mut attr = uapi::TestRun {
        program: program.as_raw_fd() as u32,
        data_in: packet.as_ptr() as u64,
        data_in_bytes: packet.len() as u32,
        data_out: out.as_mut_ptr() as u64,
        data_out_bytes: out.len() as u32,
        context_in: if context.is_empty() {
            0
        } else {
            context.as_ptr() as u64
        },
        context_in_bytes: size_of_val(context) as u32,
        repeat,
        ..uapi::TestRun::default()
    };
    bpf(uapi::PROG_TEST_RUN, &mut attr)?;
    out.truncate(attr.data_out_bytes as usize);
    Ok(TestRunOutcome {
        code: attr.code,
        packet: out,
        duration: Duration::from_nanos(u64::from(attr.duration_ns)),
    })
}
