//! A bpffs of a test's own, unmounted and gone with the value: whatever was pinned in it goes as well.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Tells those of one process apart.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A mounted bpffs.
#[derive(Debug)]
pub struct Bpffs {
    directory: PathBuf,
}

impl Bpffs {
    /// Mounts one in a directory of its own.
    pub fn mount() -> Result<Self> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("bhk-bpffs-{}-{number}", std::process::id()));
        std::fs::create_dir(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let bpffs = Self { directory };
        mount(
            Some("bpf"),
            &bpffs.directory,
            Some("bpf"),
            MsFlags::empty(),
            Some("mode=700"),
        )
        .with_context(|| format!("cannot mount a bpffs at {}", bpffs.directory.display()))?;
        Ok(bpffs)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        // Lazily: a killed process may not have closed its files yet.
        let _gone = umount2(&self.directory, MntFlags::MNT_DETACH);
        let _gone = std::fs::remove_dir(&self.directory);
    }
}
