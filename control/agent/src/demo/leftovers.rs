//! Finds demos by the names they leave, and removes those that nobody holds any more or that were kept.
//!
//! Names tell their demo: namespaces are `bulkhead-demo-ROLE-PID-NUMBER`, directories `/run/bulkhead-demo-PID`. A demo
//! that is still running is left alone; a kept one is asked to clean up after itself. Of a demo whose process is gone,
//! the processes in its namespaces are ended first: a firewall among them would otherwise keep them alive.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::firewall::RUNTIME;
use super::segments::PREFIX;

/// Where `ip netns` looks for names.
const NAMESPACES: &str = "/run/netns";
/// How long a kept demo may take to clean up.
const KEEPER_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a process may take to end when asked to.
const PROCESS_TIMEOUT: Duration = Duration::from_secs(3);

/// What is left of a demo, or still in use.
#[derive(Debug, Default, PartialEq, Eq)]
struct Remains {
    namespaces: Vec<String>,
    directory: Option<PathBuf>,
}

/// Who holds a demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// Nobody.
    Gone,
    /// A process that runs it and will clean up.
    Running,
    /// A process that keeps it until told otherwise.
    Keeper,
}

/// `bulkhead demo --clean`. Returns what it did, line by line.
pub(super) fn clean() -> Result<Vec<String>> {
    let mut done = Vec::new();
    for process in find()?.into_keys() {
        match owner(process) {
            Owner::Running => done.push(format!(
                "demo {process} is running and cleans up by itself; left alone"
            )),
            Owner::Gone => {}
            Owner::Keeper => {
                signal(process, Signal::SIGTERM)?;
                if !wait_for_end(&[process], KEEPER_TIMEOUT) {
                    bail!(
                        "demo {process} did not clean up within {} s; `kill -KILL {process}` and try again",
                        KEEPER_TIMEOUT.as_secs()
                    );
                }
                done.push(format!("demo {process} has cleaned up after itself"));
            }
        }
    }
    done.extend(sweep()?);
    if done.is_empty() {
        done.push("no demo is left to clean up".to_owned());
    }
    Ok(done)
}

/// Removes what demos that were killed left behind. Returns what it did, line by line.
pub(super) fn sweep() -> Result<Vec<String>> {
    let mut done = Vec::new();
    for (process, remains) in find()? {
        if owner(process) == Owner::Gone {
            let ended = end_processes_in(&remains.namespaces)?;
            for name in &remains.namespaces {
                remove_namespace(&Path::new(NAMESPACES).join(name))?;
            }
            if let Some(directory) = &remains.directory {
                remove_directory(directory)?;
            }
            done.push(format!(
                "removed what demo {process} left behind: {} network namespaces, {ended} processes in them",
                remains.namespaces.len()
            ));
        }
    }
    Ok(done)
}

/// Every demo there is a trace of, by its process.
fn find() -> Result<BTreeMap<u32, Remains>> {
    let mut found: BTreeMap<u32, Remains> = BTreeMap::new();
    for name in names_in(Path::new(NAMESPACES))? {
        if let Some(process) = process_of_namespace(&name) {
            found.entry(process).or_default().namespaces.push(name);
        }
    }
    for name in names_in(Path::new(RUNTIME))? {
        let process = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.strip_prefix('-'))
            .and_then(|process| process.parse().ok());
        if let Some(process) = process {
            found.entry(process).or_default().directory = Some(Path::new(RUNTIME).join(name));
        }
    }
    Ok(found)
}

fn names_in(directory: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot list {}", directory.display())),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {}", directory.display()))?;
        names.extend(entry.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// The process in a name such as `bulkhead-demo-web-4711-3`.
fn process_of_namespace(name: &str) -> Option<u32> {
    let rest = name.strip_prefix(PREFIX)?.strip_prefix('-')?;
    let (rest, number) = rest.rsplit_once('-')?;
    let (_role, process) = rest.rsplit_once('-')?;
    number.parse::<u32>().ok()?;
    process.parse().ok()
}

fn owner(process: u32) -> Owner {
    let arguments = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
    if is_alive(process) {
        owner_by(&arguments)
    } else {
        Owner::Gone
    }
}

/// By the arguments of the process of that number, which may by now be another one's.
fn owner_by(arguments: &[u8]) -> Owner {
    let has = |wanted: &str| {
        arguments
            .split(|byte| *byte == 0)
            .any(|argument| argument == wanted.as_bytes())
    };
    match (has("demo"), has("--keeper")) {
        (true, true) => Owner::Keeper,
        (true, false) => Owner::Running,
        (false, _) => Owner::Gone,
    }
}

/// Whether the process exists and is no zombie.
fn is_alive(process: u32) -> bool {
    // The state follows the name, which is in parentheses and may hold anything.
    fs::read_to_string(format!("/proc/{process}/stat"))
        .ok()
        .and_then(|stat| {
            stat.rsplit_once(") ")
                .map(|(_, rest)| !rest.starts_with(['Z', 'X']))
        })
        .unwrap_or(false)
}

/// Ends every process that lives in one of these namespaces. Returns how many there were.
fn end_processes_in(namespaces: &[String]) -> Result<usize> {
    let identity = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    let ours: BTreeSet<_> = namespaces
        .iter()
        .filter_map(|name| identity(&Path::new(NAMESPACES).join(name)))
        .collect();
    let inside: Vec<u32> = names_in(Path::new("/proc"))?
        .iter()
        .filter_map(|name| name.parse().ok())
        .filter(|process| {
            identity(Path::new(&format!("/proc/{process}/ns/net"))).is_some_and(|found| ours.contains(&found))
        })
        .collect();
    for wish in [Signal::SIGTERM, Signal::SIGKILL] {
        for process in inside.iter().filter(|process| is_alive(**process)) {
            signal(*process, wish)?;
        }
        if wait_for_end(&inside, PROCESS_TIMEOUT) {
            return Ok(inside.len());
        }
    }
    bail!("processes {inside:?} in the demo's namespaces do not end")
}

fn signal(process: u32, wish: Signal) -> Result<()> {
    match kill(Pid::from_raw(process.cast_signed()), wish) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno).with_context(|| format!("cannot send {wish} to process {process}")),
    }
}

fn wait_for_end(processes: &[u32], patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    while processes.iter().any(|process| is_alive(*process)) {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

/// Somebody else may be sweeping at the same time, here as below.
fn remove_directory(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn remove_namespace(path: &Path) -> Result<()> {
    match umount2(path, MntFlags::MNT_DETACH) {
        // Not mounted: its making was cut short.
        Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
        Err(errno) => return Err(errno).with_context(|| format!("cannot unmount {}", path.display())),
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_their_demo() {
        assert_eq!(process_of_namespace("bulkhead-demo-web-4711-3"), Some(4711));
        assert_eq!(process_of_namespace("bulkhead-demo-a-b-4711-3"), Some(4711));
        for other in [
            "bulkhead-demo",
            "bulkhead-demo-web",
            "bulkhead-demo-web-x-3",
            "bht-web-4711-3",
            "cni-1234",
        ] {
            assert_eq!(process_of_namespace(other), None, "{other}");
        }
    }

    #[test]
    fn owners_are_told_by_their_arguments() {
        assert_eq!(owner_by(b"target/debug/bulkhead\0demo\0--json\0"), Owner::Running);
        assert_eq!(owner_by(b"bulkhead\0demo\0--keep\0--keeper\0"), Owner::Keeper);
        assert_eq!(owner_by(b"vi\0demo.yaml\0"), Owner::Gone);
        assert_eq!(owner_by(b""), Owner::Gone);
    }
}
