//! Debian packages that are looked into, not installed.
//!
//! Owns how one is fetched, `apt-get download` and `apt-get source`, which check the archive's signatures and need no root, and
//! that it is unpacked completely or not at all.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::process;

/// The user's cache directory for `what`, such as `vm`.
pub fn cache(what: &str) -> Result<PathBuf> {
    env::var_os("XDG_CACHE_HOME")
        .filter(|directory| !directory.is_empty())
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")))
        .map(|directory| directory.join("bulkhead").join(what))
        .with_context(|| format!("neither XDG_CACHE_HOME nor HOME says where to keep bulkhead/{what}"))
}

/// A package's files, in a directory of its name in `cache`; fetched and unpacked unless they are there.
pub fn unpacked(package: &str, cache: &Path) -> Result<PathBuf> {
    let root = cache.join(package);
    if root.is_dir() {
        return Ok(root);
    }
    // Unpacked beside its place and moved there whole: an interrupted run leaves nothing that looks complete.
    let partial = cache.join(format!("{package}.partial-{}", std::process::id()));
    fs::create_dir_all(&partial).with_context(|| format!("cannot create {}", partial.display()))?;
    let result = download(package, &partial).and_then(|()| {
        fs::rename(partial.join("root"), &root).with_context(|| format!("cannot create {}", root.display()))
    });
    fs::remove_dir_all(&partial).with_context(|| format!("cannot remove {}", partial.display()))?;
    result.map(|()| root)
}

fn download(package: &str, directory: &Path) -> Result<()> {
    process::run(
        Command::new("apt-get")
            .args(["download", "--quiet", package])
            .current_dir(directory),
    )
    .with_context(|| format!("cannot fetch {package}: run `apt-get update` if apt's lists are old"))?;
    let archive = only_entry(directory)?;
    process::run(
        Command::new("dpkg-deb")
            .arg("--extract")
            .arg(&archive)
            .arg(directory.join("root")),
    )
}

/// Fetches the upstream tarball of a source package into `directory`, and tells its path. Few machines list sources: they are
/// looked up in lists of our own in `directory`, from the archives that this machine takes its packages from.
pub fn upstream_source(package: &str, directory: &Path) -> Result<PathBuf> {
    let (sources, lists) = (directory.join("sources.list"), directory.join("lists"));
    let archives = process::output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "deb-src $(REPO_URI) $(RELEASE) $(COMPONENT)",
        "Created-By: Packages",
    ]))
    .context("sources come from Debian")?;
    let mut archives: Vec<_> = archives.lines().collect();
    archives.sort_unstable();
    archives.dedup();
    fs::create_dir_all(lists.join("partial"))
        .with_context(|| format!("cannot create {}", lists.display()))?;
    fs::write(&sources, format!("{}\n", archives.join("\n")))
        .with_context(|| format!("cannot write {}", sources.display()))?;
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command
            .current_dir(directory)
            .arg(format!("-oDir::Etc::SourceList={}", sources.display()))
            .arg(format!("-oDir::State::Lists={}", lists.display()))
            // As root apt would fetch as a user who may not write here.
            .args(["-oDir::Etc::SourceParts=/dev/null", "-oAPT::Sandbox::User=root"])
            .args(arguments);
        process::run(&mut command)
    };
    apt(&["update", "--quiet"])?;
    apt(&["source", "--quiet", "--download-only", "--only-source", package])?;
    only_with(directory, ".orig.tar.gz")
}

/// The one entry of a directory whose name ends so.
pub fn only_with(directory: &Path, ending: &str) -> Result<PathBuf> {
    let mut found = fs::read_dir(directory)
        .with_context(|| format!("cannot list {}", directory.display()))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().ends_with(ending));
    match (found.next(), found.next()) {
        (Some(path), None) => Ok(path),
        _ => bail!("{} should hold exactly one *{ending}", directory.display()),
    }
}

/// The one entry of a directory.
pub fn only_entry(directory: &Path) -> Result<PathBuf> {
    let unreadable = || format!("cannot list {}", directory.display());
    let mut entries = fs::read_dir(directory).with_context(unreadable)?;
    match (entries.next(), entries.next()) {
        (Some(entry), None) => Ok(entry.with_context(unreadable)?.path()),
        _ => bail!("{} should hold exactly one entry", directory.display()),
    }
}
