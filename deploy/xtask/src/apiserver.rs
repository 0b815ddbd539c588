//! `cargo xtask kube-env`: builds the Kubernetes API server that tests run against, once, and starts one for a person.
//!
//! Owns the building; which parts there are and where they are kept is decided in `deploy/kube-env`. Debian packages the source of
//! Kubernetes with everything it is compiled from, so that no proxy of Go modules is needed. Built beside its place and moved
//! there whole; one builder at a time, the others wait for it and find it done. Refuses versions that were not tried.

mod recipe;

use std::{fs, path::Path, process::ExitCode, time::Instant};

use anyhow::{Context as _, Result, bail};
use bulkhead_kube_env::{Parts, cache_directory};

use crate::{
    process::{self, Workspace},
    setup::{self, Want},
};

/// Names of tests that need the API server.
pub const KUBE_NAMES: [&str; 1] = ["kube_"];

/// Builds unless it was built; with `run`, replaces this process by one that starts it.
pub fn run(ws: &Workspace, run: bool, arguments: &[std::ffi::OsString]) -> Result<ExitCode> {
    let want = Want {
        kube: true,
        ..Want::default()
    };
    setup::ensure(ws, want)?;
    if !run {
        println!("kube-env: {}", cache_directory()?.display());
        return Ok(ExitCode::SUCCESS);
    }
    let mut cargo = ws.cargo();
    cargo
        .args(["run", "--quiet", "--package", "bulkhead-kube-env", "--"])
        .args(arguments);
    process::become_it(cargo)
}

/// Whether it was built.
pub fn is_built() -> bool {
    Parts::cached().is_ok()
}

/// Builds it. About six minutes on two processors, and 3 GB of disk while it lasts.
pub fn build(ws: &Workspace) -> Result<()> {
    if !cfg!(target_arch = "x86_64") {
        bail!(
            "the Go tool chain, helm and kubectl of the tests are for x86_64: run the tests of the tier `kube` there"
        );
    }
    let place = cache_directory()?;
    let parent = place.parent().context("a cache directory has a parent")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    let lock = parent.join("lock");
    let lock = fs::File::create(&lock).with_context(|| format!("cannot write {}", lock.display()))?;
    if lock.try_lock().is_err() {
        println!("kube-env: another build of it is under way; waiting");
        lock.lock().context("cannot wait for the other build")?;
    }
    if is_built() {
        return Ok(());
    }
    let began = Instant::now();
    println!("kube-env: building the Kubernetes API server, about six minutes");
    let work = parent.join("work");
    remove(&work)?;
    fs::create_dir_all(&work).with_context(|| format!("cannot create {}", work.display()))?;
    let built = recipe::build(ws, &work)?;
    remove(&place)?;
    fs::rename(&built, &place).with_context(|| format!("cannot create {}", place.display()))?;
    remove(&work)?;
    println!(
        "kube-env: built in {:.0} s: {}",
        began.elapsed().as_secs_f64(),
        place.display()
    );
    Ok(())
}

fn remove(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}
