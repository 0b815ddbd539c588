//! Where measuring threads run, and how much of their processor they had.
//!
//! Packets are handled in softirqs, in the context of the thread that raised them; what is left over is `ksoftirqd`'s.
//! So the CPU time of these two is the cost of the packets, whoever else wants the processor meanwhile.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

/// How many CPUs may be used.
pub fn count() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Ties the calling thread to a CPU, and puts it before everything else that wants to run there.
pub fn claim(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu).with_context(|| format!("cannot name CPU {cpu}"))?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("cannot run on CPU {cpu}"))?;
    // SAFETY: no pointers; 0 is the calling thread.
    let failed = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) } != 0;
    if failed {
        return Err(std::io::Error::last_os_error())
            .context("cannot raise the priority of a measuring thread");
    }
    Ok(())
}

/// Whose time is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The calling thread's.
    Thread,
    /// The whole process's.
    Process,
}

/// Measures CPU time: of a thread or of the process, and of a CPU's `ksoftirqd`.
#[derive(Debug)]
pub struct Meter {
    clock: ClockId,
    ksoftirqd: Option<String>,
    start: Duration,
}

impl Meter {
    /// Starts.
    pub fn start(scope: Scope, cpu: usize) -> Result<Self> {
        let clock = match scope {
            Scope::Thread => ClockId::CLOCK_THREAD_CPUTIME_ID,
            Scope::Process => ClockId::CLOCK_PROCESS_CPUTIME_ID,
        };
        let mut meter = Self {
            clock,
            ksoftirqd: ksoftirqd(cpu),
            start: Duration::ZERO,
        };
        meter.start = meter.read()?;
        Ok(meter)
    }

    /// The time since.
    pub fn elapsed(&self) -> Result<Duration> {
        Ok(self.read()?.saturating_sub(self.start))
    }

    fn read(&self) -> Result<Duration> {
        let own: Duration = clock_gettime(self.clock).context("cannot read CPU time")?.into();
        let softirq = match &self.ksoftirqd {
            Some(path) => on_cpu(&fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?)
                .with_context(|| format!("{path} does not begin with a number"))?,
            None => Duration::ZERO,
        };
        Ok(own + softirq)
    }
}

/// The scheduler's statistics of a CPU's `ksoftirqd`; `None` in a process namespace that does not show it.
fn ksoftirqd(cpu: usize) -> Option<String> {
    let name = format!("ksoftirqd/{cpu}");
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let path = entry.path();
        (fs::read_to_string(path.join("comm")).ok()?.trim() == name)
            .then(|| path.join("schedstat").to_string_lossy().into_owned())
    })
}

/// Time on the CPU from a `schedstat`: its first field, nanoseconds.
fn on_cpu(schedstat: &str) -> Option<Duration> {
    schedstat
        .split_whitespace()
        .next()?
        .parse()
        .ok()
        .map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_on_the_cpu_is_the_first_field() {
        assert_eq!(on_cpu("1500 27 3\n"), Some(Duration::from_nanos(1_500)));
        assert_eq!(on_cpu(""), None);
    }

    #[test]
    fn a_busy_thread_has_cpu_time() {
        let meter = Meter::start(Scope::Thread, 0).expect("a meter");
        let mut sum = 0u64;
        while meter.elapsed().expect("a time") < Duration::from_millis(1) {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(sum > 0);
    }
}
