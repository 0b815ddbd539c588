//! The object's programs on interfaces, and run without a packet's cause.
//!
//! Owns which program hangs on which hook. Assumes that whoever attaches is in the interface's network namespace. Refuses an
//! interface that another instance guards.

use std::os::fd::BorrowedFd;

use bulkhead_abi as abi;
use zerocopy::IntoBytes as _;

use super::{
    BpfError, Object, Program,
    program::{self, TestRunOutcome},
};
use crate::link::{self, Hook, Link, LinkError};

/// The program that hangs on a hook.
const fn program_of(hook: Hook) -> Program {
    match hook {
        Hook::Egress => Program::Egress,
        Hook::Ingress => Program::Ingress,
        Hook::Xdp => Program::Xdp,
    }
}

impl Object {
    /// A program's descriptor.
    ///
    /// # Errors
    /// If it is not loaded.
    pub fn program_fd(&self, which: Program) -> Result<BorrowedFd<'_>, BpfError> {
        self.programs.get(which)
    }

    /// Guards an interface of this network namespace at a hook: with the program that a load before has left there and
    /// that goes on until [`Object::replace`], unless `anew`; or with this object's.
    ///
    /// # Errors
    /// Whatever the kernel says: see [`Link::attach`].
    pub fn attach(&mut self, hook: Hook, interface: &str, anew: bool) -> Result<Link, BpfError> {
        let which = program_of(hook);
        let fail = |source: LinkError| BpfError::Attach {
            operation: format!("attach {} to {interface}", which.name()),
            source,
        };
        let ifindex = nix::net::if_::if_nametoindex(interface)
            .map_err(|error| fail(std::io::Error::from(error).into()))?;
        if let Some(load) = &self.load {
            // First whatever may refuse: what is forgotten enforces no more.
            // Whose interface it is TCX's hooks have told before XDP's turn: XDP cannot be asked, see `Link::is_on`.
            if hook != Hook::Xdp {
                load.pins().others_guard(hook, ifindex, interface)?;
            }
            if !anew && let Some(link) = load.find_link(hook, ifindex)? {
                return Ok(link);
            }
            load.pins().forget_link(hook, ifindex)?;
        }
        if link::links_on(hook, ifindex).is_ok_and(|others| !others.is_empty()) {
            tracing::warn!(
                interface,
                hook = hook.word(),
                "other programs are attached: what they drop or redirect does not come here; those of another bulkhead are \
                 taken off by `bulkhead detach`"
            );
        }
        // Neighbours are answered from the first frame on, or they would wait a second before they ask again.
        self.join(Program::NEIGHBOUR)?;
        let program = self.programs.get(which)?;
        let mut link = Link::attach(hook, program, which.name(), ifindex).map_err(fail)?;
        if let Some(load) = &self.load {
            let path = load.pins().link_path(hook, ifindex);
            link.pin(&path, program).map_err(fail)?;
        }
        Ok(link)
    }

    /// Attaches the XDP program in native mode.
    ///
    /// # Errors
    /// As [`Object::attach`].
    pub fn attach_xdp(&mut self, interface: &str) -> Result<Link, BpfError> {
        self.attach(Hook::Xdp, interface, true)
    }

    /// Puts this object's program in the place of the one that a link runs.
    ///
    /// # Errors
    /// Whatever the kernel says; the other program stays.
    pub fn replace(&self, hook: Hook, link: &mut Link) -> Result<(), BpfError> {
        let which = program_of(hook);
        link.replace(self.programs.get(which)?, which.name())
            .map_err(|source| BpfError::Attach {
                operation: format!("replace the program of a link by {}", which.name()),
                source,
            })
    }

    /// Runs a program on `packet` without attaching it (`BPF_PROG_TEST_RUN`).
    ///
    /// `ifindex` is the interface the packet seems to come from (0: loopback), `repeat` how often it runs.
    ///
    /// # Errors
    /// Whatever the kernel says.
    pub fn test_run(
        &mut self,
        which: Program,
        packet: &[u8],
        ifindex: u32,
        repeat: u32,
    ) -> Result<TestRunOutcome, BpfError> {
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let xdp = [0, packet.len() as u32, 0, ifindex, 0, 0];
        // struct __sk_buff up to `ifindex`, the eleventh word; the kernel refuses other words than a few.
        let mut skb = [0; 11];
        skb[10] = ifindex;
        let context: &[u32] = match which {
            _ if ifindex == 0 => &[],
            Program::Xdp => &xdp,
            _ => &skb,
        };
        program::test_run(self.programs.get(which)?, packet, context, repeat).map_err(|source| {
            BpfError::Program {
                operation: format!("test run of {}", which.name()),
                source,
            }
        })
    }

    /// Sends a request to the control program; whether it did something.
    ///
    /// # Errors
    /// Whatever the kernel says.
    pub fn control(&mut self, request: &abi::ControlRequest) -> Result<bool, BpfError> {
        let mut packet = vec![0; bulkhead_packet::ETHERNET_BYTES];
        packet.extend_from_slice(request.as_bytes());
        Ok(self.test_run(Program::Control, &packet, 0, 1)?.code == 1)
    }

    /// The verifier's instruction count per program.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn verified_instructions(&mut self) -> Result<Vec<(&'static str, u32)>, BpfError> {
        let count = |which: Program| {
            let program = self.programs.get(which)?;
            let count = program::verified_instructions(program).map_err(|source| BpfError::Program {
                operation: format!("info of {}", which.name()),
                source,
            })?;
            Ok((which.name(), count))
        };
        Program::ALL.into_iter().map(count).collect()
    }
}
