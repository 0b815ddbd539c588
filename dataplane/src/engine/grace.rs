//! Waiting until no packet is judged by what it read before.
//!
//! Programs on packets run inside RCU read-side sections, and `membarrier(MEMBARRIER_CMD_GLOBAL)` returns when every section
//! that had begun is over (kernel/sched/membarrier.c: `synchronize_rcu`). Where the system call is refused, a time that is
//! far longer than any packet takes has to do.

use std::{thread, time::Duration};

/// `MEMBARRIER_CMD_GLOBAL` (include/uapi/linux/membarrier.h).
const GLOBAL: libc::c_int = 1;

/// A packet takes microseconds; a CPU that the hypervisor has put aside in the middle of one may take longer.
const LONG_ENOUGH: Duration = Duration::from_millis(100);

/// Returns when every packet that was under way is through.
pub(super) fn period() {
    // SAFETY: three numbers, no memory.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) };
    if result != 0 {
        thread::sleep(LONG_ENOUGH);
    }
}
