//! Debian packages for the test machine: a kernel of each series, and busybox.
//!
//! Owns which package is taken; they are kept unpacked below `bulkhead/vm` in the user's cache directory, never installed.
//! Refuses to run without one: a kernel that cannot be had is an error with the command that mends it.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, anyhow};

use crate::{
    debian::{self, only_entry},
    process,
};

/// An unpacked kernel.
pub struct Kernel {
    /// The image to boot.
    pub image: PathBuf,
    /// Its modules, with `modules.builtin`.
    pub modules: PathBuf,
    /// As `uname -r` prints it.
    pub release: String,
}

/// The newest cloud kernel of a series such as `6.12` that apt knows.
pub fn kernel(series: &str) -> Result<Kernel> {
    let names =
        process::output(Command::new("apt-cache").args(["pkgnames", &format!("linux-image-{series}")]))
            .context("kernels come as Debian packages")?;
    let root = match newest(&names, series) {
        Some(package) => debian::unpacked(package, &cache()?)?,
        // apt's lists are empty where nobody ran `apt-get update`; what was fetched before still boots.
        None => cached(series)?.ok_or_else(|| {
            anyhow!(
                "apt knows no package linux-image-{series}*-cloud-amd64: run `apt-get update`; if that does not help, add \
                 Debian 12's archives to apt's sources (6.1: bookworm; 6.12: bookworm-security or bookworm-backports)"
            )
        })?,
    };
    let modules =
        only_entry(&root.join("lib/modules")).or_else(|_| only_entry(&root.join("usr/lib/modules")))?;
    let release = modules
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    Ok(Kernel {
        image: root.join("boot").join(format!("vmlinuz-{release}")),
        modules,
        release,
    })
}

/// The static busybox.
pub fn busybox() -> Result<PathBuf> {
    let root = debian::unpacked("busybox-static", &cache()?)?;
    [root.join("bin/busybox"), root.join("usr/bin/busybox")]
        .into_iter()
        .find(|file| file.is_file())
        .ok_or_else(|| anyhow!("no busybox in {}", root.display()))
}

/// `linux-image-6.1.0-56-cloud-amd64` is a package of series 6.1, `linux-image-6.12.9-cloud-amd64` is not, nor are
/// meta-packages, unsigned images and other flavours.
fn version(package: &str, series: &str) -> Option<Vec<u64>> {
    let version = package
        .strip_prefix("linux-image-")?
        .strip_suffix("-cloud-amd64")?;
    version.strip_prefix(series)?.strip_prefix('.')?;
    Some(
        version
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|number| number.parse().ok())
            .collect(),
    )
}

fn newest<'a>(names: &'a str, series: &str) -> Option<&'a str> {
    names
        .lines()
        .filter_map(|name| Some((version(name, series)?, name)))
        .max()
        .map(|(_, name)| name)
}

/// Where kernels are kept.
fn cache() -> Result<PathBuf> {
    debian::cache("vm")
}

/// The newest kernel of a series that was fetched before.
fn cached(series: &str) -> Result<Option<PathBuf>> {
    let cache = cache()?;
    let names: Vec<_> = fs::read_dir(&cache)
        .map(|entries| {
            entries
                .flatten()
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect()
        })
        .unwrap_or_default();
    Ok(newest(&names.join("\n"), series).map(|package| cache.join(package)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_cloud_kernel_of_the_series_is_taken() {
        let names = "linux-image-6.1.0-9-cloud-amd64\nlinux-image-6.1.0-56-cloud-amd64\n\
                     linux-image-6.1.0-57-cloud-amd64-unsigned\nlinux-image-6.1.0-58-rt-amd64\n\
                     linux-image-6.12.117+deb12-cloud-amd64\nlinux-image-6.12.12+bpo-cloud-amd64\n\
                     linux-image-6.12-cloud-amd64\n";
        assert_eq!(newest(names, "6.1"), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(
            newest(names, "6.12"),
            Some("linux-image-6.12.117+deb12-cloud-amd64")
        );
        assert_eq!(newest(names, "6.6"), None);
    }
}
