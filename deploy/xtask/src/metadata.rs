//! The part of `cargo metadata` that xtask reads: the workspace's packages and what their manifests ask for.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::process::{self, Workspace};

/// `cargo metadata --no-deps`.
#[derive(Debug, Deserialize)]
pub struct Metadata {
    /// The workspace's members.
    pub packages: Vec<Package>,
    /// Where cargo puts what it builds.
    pub target_directory: PathBuf,
    /// The directory of the virtual manifest.
    pub workspace_root: PathBuf,
}

/// One member.
#[derive(Debug, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its `Cargo.toml`, absolute.
    pub manifest_path: PathBuf,
    /// What the manifest asks for, of every kind and for every target.
    pub dependencies: Vec<Dependency>,
}

/// One line of a dependency table.
#[derive(Debug, Deserialize)]
pub struct Dependency {
    /// The package's real name, whatever the manifest calls it.
    pub name: String,
    /// Which table it stands in.
    #[serde(default)]
    pub kind: Kind,
}

/// The three dependency tables; cargo writes `null` for the ordinary one.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(from = "Option<String>")]
pub enum Kind {
    /// `[dependencies]`
    #[default]
    Normal,
    /// `[build-dependencies]`
    Build,
    /// `[dev-dependencies]`
    Dev,
}

impl From<Option<String>> for Kind {
    fn from(kind: Option<String>) -> Self {
        match kind.as_deref() {
            Some("dev") => Self::Dev,
            Some("build") => Self::Build,
            _ => Self::Normal,
        }
    }
}

impl Metadata {
    /// Asks cargo.
    pub fn load(ws: &Workspace) -> Result<Self> {
        let json = process::output(
            ws.cargo()
                .args(["metadata", "--no-deps", "--format-version", "1"]),
        )?;
        Self::parse(&json)
    }

    /// Reads what cargo answered.
    pub fn parse(json: &str) -> Result<Self> {
        serde_json::from_str(json).context("`cargo metadata` answered something unexpected")
    }

    /// A package's directory below the workspace root, as `ebpf/abi`.
    pub fn directory<'a>(&self, package: &'a Package) -> &'a Path {
        let dir = package.manifest_path.parent().unwrap_or(&package.manifest_path);
        dir.strip_prefix(&self.workspace_root).unwrap_or(dir)
    }
}
