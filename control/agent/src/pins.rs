//! Where what is enforced is kept when the daemon ends, and `bulkhead detach`, which undoes it.
//!
//! Owns the default: pinned if a bpffs is there or can be mounted, and said if not. Who names a directory gets it or an
//! error. `detach` needs no daemon and refuses while one runs.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, Result, bail};
use bulkhead_dataplane::link::{Hook, LinkError, has_tcx, links_on};
use bulkhead_dataplane::netlink::{self, Direction, Netlink};
use bulkhead_dataplane::pins::{self, PinError, Place};

use crate::words;

/// Where pins are unless somebody says otherwise.
pub const DEFAULT: &str = "/sys/fs/bpf/bulkhead";

/// `--pins`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pins {
    /// `none`: what is enforced goes with the daemon.
    None,
    /// Below this directory, one for each instance.
    Below(PathBuf),
}

impl FromStr for Pins {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "none" => Self::None,
            directory => Self::Below(directory.into()),
        })
    }
}

/// What becomes of the programs when the daemon is asked to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OnExit {
    /// They go on enforcing, and the next daemon takes them over
    #[default]
    Keep,
    /// They are taken off, and nothing is forwarded
    Detach,
}

/// The directory of an instance, or `None` if it is not to be or cannot be pinned, which is said.
///
/// # Errors
/// If a directory was asked for that is in no bpffs.
pub fn directory(asked: Option<&Pins>, instance: &str) -> Result<Option<PathBuf>> {
    let root = match asked {
        Some(Pins::None) => return Ok(None),
        Some(Pins::Below(root)) => root.as_path(),
        None => Path::new(DEFAULT),
    };
    match pins::place(root) {
        Place::Mounted => {}
        Place::MountedNow => tracing::info!(at = pins::MOUNT_POINT, "mounted a bpffs"),
        Place::None(error) if asked.is_none() => {
            tracing::warn!(
                at = pins::MOUNT_POINT,
                %error,
                "no bpffs, and none can be mounted: when this daemon ends, sessions end and nothing is forwarded"
            );
            return Ok(None);
        }
        Place::None(error) => {
            return Err(error).with_context(|| {
                format!(
                    "cannot pin below {}; `mount -t bpf -o mode=700 bpf {}`, or run with `--pins none`",
                    root.display(),
                    pins::MOUNT_POINT
                )
            });
        }
    }
    Ok(Some(pins::instance_directory(root, instance)))
}

/// Arguments of `detach`.
#[derive(Clone, Debug, clap::Args)]
pub struct DetachArgs {
    /// `metadata.name` of the instance; needed where there are several
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Where it was pinned
    #[arg(long, value_name = "DIR", default_value = DEFAULT)]
    pins: PathBuf,
    /// Also let the kernel forward again: removes the fail-closed rules of this network namespace, but for interfaces that
    /// another instance guards
    #[arg(long)]
    open: bool,
}

/// `bulkhead detach`; what was done, in words.
///
/// # Errors
/// If a daemon runs, or it cannot be said which instance is meant.
pub fn detach(args: &DetachArgs) -> Result<String> {
    let mut said = String::new();
    if let Some(name) = instance(args)? {
        let directory = pins::instance_directory(&args.pins, &name);
        let done = pins::detach(&directory).map_err(|error| match error {
            PinError::Held { .. } => {
                anyhow::Error::new(error).context("nothing was changed; stop the daemon first")
            }
            error => error.into(),
        })?;
        match done {
            Some(done) => {
                let _infallible = writeln!(
                    said,
                    "{name}: {} taken off, {} ended",
                    words::count(done.programs as u64, "program", "programs"),
                    words::count(done.sessions, "session", "sessions")
                );
            }
            None => bail!("nothing of {name} is pinned below {}", args.pins.display()),
        }
    } else {
        let _infallible = writeln!(said, "nothing is pinned below {}", args.pins.display());
    }
    said.push_str(&rules(args.open)?);
    Ok(said)
}

/// The instance that is meant: the one that is named, or the only one.
fn instance(args: &DetachArgs) -> Result<Option<String>> {
    if args.name.is_some() {
        return Ok(args.name.clone());
    }
    let mut there = pins::instances(&args.pins)?;
    if there.len() > 1 {
        there.sort();
        bail!("several instances are pinned, name one: {}", there.join(", "));
    }
    Ok(there.pop())
}

/// Says which fail-closed rules there are, or removes them.
fn rules(open: bool) -> Result<String> {
    let mut netlink = Netlink::connect().context("cannot look for fail-closed rules")?;
    let mut interfaces: Vec<String> = netlink
        .blackhole_rules()?
        .into_iter()
        .map(|rule| rule.interface)
        .collect();
    interfaces.sort();
    interfaces.dedup();
    interfaces.retain(|name| !guarded(&mut netlink, name));
    if interfaces.is_empty() {
        return Ok("no fail-closed rule is left over in this network namespace\n".to_owned());
    }
    let names = interfaces.join(", ");
    if !open {
        return Ok(format!(
            "the kernel still forwards nothing that comes in on {names}; `bulkhead detach --open` removes these rules\n"
        ));
    }
    for name in &interfaces {
        netlink.remove_blackhole_rule(name)?;
    }
    Ok(format!(
        "removed the fail-closed rules of {names}: the kernel forwards as it is set up\n"
    ))
}

/// Whether programs are on an interface: whoever has some there wants the rule. Where nobody can tell it stays: one that is
/// left over stops traffic, one that is missing lets everything through once the programs end.
fn guarded(netlink: &mut Netlink, name: &str) -> bool {
    programs_on(netlink, name).unwrap_or_else(|error| {
        tracing::warn!(interface = name, %error, "cannot tell whether an interface is guarded: its rule stays");
        true
    })
}

/// Whether programs are on an interface; on one that is gone there are none.
fn programs_on(netlink: &mut Netlink, name: &str) -> Result<bool, LinkError> {
    let index = match netlink.link_by_name(name) {
        Ok(link) => link.index,
        Err(netlink::Error::NoSuchInterface { .. }) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    if !has_tcx() {
        let there = netlink.filter(index, Direction::Ingress)?;
        return Ok(there.is_some_and(|filter| filter.is_own()));
    }
    match links_on(Hook::Ingress, index) {
        Ok(links) => Ok(!links.is_empty()),
        Err(error) if error.raw_os_error() == Some(nix::libc::ENODEV) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_is_gone_needs_no_rule() {
        let mut netlink = Netlink::connect().expect("a socket");
        assert!(matches!(programs_on(&mut netlink, "bh-gone"), Ok(false)));
        assert!(!guarded(&mut netlink, "bh-gone"));
    }

    #[test]
    fn none_is_none_and_anything_else_a_directory() {
        assert_eq!("none".parse(), Ok(Pins::None));
        assert_eq!("/x/none".parse(), Ok(Pins::Below("/x/none".into())));
        assert_eq!(
            directory(Some(&Pins::None), "edge").expect("nothing to look at"),
            None
        );
    }

    #[test]
    fn a_directory_that_was_asked_for_is_not_given_up_silently() {
        let error = directory(Some(&Pins::Below("/proc/pins".into())), "edge").expect_err("no bpffs");
        let text = format!("{error:#}");
        assert!(
            text.contains("/proc/pins") && text.contains("--pins none"),
            "{text}"
        );
    }
}
