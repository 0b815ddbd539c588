//! Loops whose number of turns depends on the packet.
//!
//! The verifier follows a plain loop turn by turn and every branch within each; in the kernel such loops are
//! `bpf_loop` calls, whose body it follows once. On the host they are plain loops.

/// Something that can run a body repeatedly.
pub trait Repeat {
    /// Calls `f` with 0, 1, … until it returns true or `times` is reached.
    fn repeat(&self, times: u32, f: impl FnMut(u32) -> bool);
}

/// The host's loop.
#[derive(Clone, Copy, Debug, Default)]
pub struct PlainLoop;

impl Repeat for PlainLoop {
    fn repeat(&self, times: u32, mut f: impl FnMut(u32) -> bool) {
        for turn in 0..times {
            if f(turn) {
                return;
            }
        }
    }
}
