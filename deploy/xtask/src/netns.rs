//! Finds network namespaces that tests left behind.
//!
//! Owns the prefixes under which this project creates named namespaces. Only looks; removing them would hide the
//! guard that failed to.

use std::{collections::BTreeSet, fs, io, path::Path};

use anyhow::{Context as _, Result};

/// `bhk-` is the demo's, `bht-` the tests' and benchmarks'.
const PREFIXES: [&str; 3] = ["bhk-", "bht-", "bulkhead-demo-"];

/// The named network namespaces of this project that exist now.
pub fn ours() -> Result<BTreeSet<String>> {
    in_directory(Path::new("/run/netns")).context("cannot list /run/netns")
}

fn in_directory(dir: &Path) -> io::Result<BTreeSet<String>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        // No namespace was ever named on this machine.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(error),
    };
    let mut names = BTreeSet::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
            names.insert(name);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_prefixes_are_reported() {
        let dir = std::env::temp_dir().join(format!("xtask-netns-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("temporary directory");
        for name in ["bht-web", "bhk-fw", "cni-1234"] {
            fs::write(dir.join(name), "").expect("temporary file");
        }
        let found = in_directory(&dir);
        fs::remove_dir_all(&dir).expect("temporary directory");
        assert_eq!(
            found.expect("readable").into_iter().collect::<Vec<_>>(),
            ["bhk-fw", "bht-web"]
        );
        assert!(
            in_directory(&dir)
                .expect("a missing directory is an empty one")
                .is_empty()
        );
    }
}
