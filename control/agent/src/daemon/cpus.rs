//! CPUs: those that the daemon's threads may run on, and whether there are those that packets are to be handled on.
//!
//! Refuses a CPU that is not there: the kernel would pass over it, and use all if none is left.

use anyhow::{Context as _, Result, bail};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::launch::cpus as cpus_of;

/// Keeps this thread, and all that it will start, on some CPUs.
pub fn stay_on(cpus: &[usize]) -> Result<()> {
    if cpus.is_empty() {
        return Ok(());
    }
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this).context("cannot ask for the CPUs of this process")?;
    let mut wanted = CpuSet::new();
    for &cpu in cpus {
        if !allowed.is_set(cpu).unwrap_or(false) {
            bail!(
                "CPU {cpu} of --control-cpus (BULKHEAD_CONTROL_CPUS) is none that this process may run on; `nproc` and the \
                 container's cpuset say which"
            );
        }
        wanted.set(cpu).context("cannot make a set of CPUs")?;
    }
    sched_setaffinity(this, &wanted).context("cannot stay on the CPUs of --control-cpus")
}

/// Makes sure that there are such CPUs: the kernel passes over others, and steers to none if none is left.
pub fn are_online(cpus: &[usize]) -> Result<()> {
    const ONLINE: &str = "/sys/devices/system/cpu/online";
    let Ok(online) = std::fs::read_to_string(ONLINE) else {
        return Ok(());
    };
    let known = cpus_of(online.trim()).unwrap_or_default();
    match cpus.iter().find(|cpu| !known.contains(cpu)) {
        Some(cpu) => bail!(
            "CPU {cpu} of --data-cpus (BULKHEAD_DATA_CPUS) is not online; {} are ({ONLINE})",
            online.trim()
        ),
        None => Ok(()),
    }
}
