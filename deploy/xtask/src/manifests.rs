//! `cargo xtask manifests`: writes what is rendered from the Helm chart into the repository.
//!
//! Owns the writing; what is rendered is decided in `deploy/kube-env`, and a test of the tier `kube` compares. A golden file whose
//! variation is gone is removed.

use std::{collections::BTreeSet, fs};

use anyhow::{Context as _, Result};
use bulkhead_kube_env::{Parts, chart};

use crate::{
    process::Workspace,
    setup::{self, Want},
};

/// Where golden files are.
const GOLDEN: &str = "deploy/helm/golden";

/// Renders and writes.
pub fn run(ws: &Workspace) -> Result<()> {
    // helm comes with the API server.
    setup::ensure(
        ws,
        Want {
            kube: true,
            ..Want::default()
        },
    )?;
    let files = chart::rendered(&Parts::cached()?, &ws.root)?;
    let mut written = BTreeSet::new();
    for file in &files {
        let path = ws.root.join(&file.path);
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)
                .with_context(|| format!("cannot create {}", directory.display()))?;
        }
        if fs::read_to_string(&path).ok().as_deref() != Some(file.text.as_str()) {
            fs::write(&path, &file.text).with_context(|| format!("cannot write {}", path.display()))?;
            println!("manifests: {}", file.path.display());
        }
        written.insert(path);
    }
    for entry in fs::read_dir(ws.root.join(GOLDEN)).context("cannot list the golden files")? {
        let path = entry?.path();
        if !written.contains(&path) {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
            println!("manifests: removed {}", path.display());
        }
    }
    println!("manifests: {} files are as the chart renders them", files.len());
    Ok(())
}
