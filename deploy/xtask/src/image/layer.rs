//! The one layer: a tar archive in which nothing depends on the machine or the hour.
//!
//! Owns owners (root), times (one, given) and the order (as given, which is that of the paths). Assumes that each entry's
//! parent comes before it. Refuses nothing that fits into a ustar header.

use std::{fs, io::Write as _, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::{Context as _, Result};
use flate2::{Compression, GzBuilder};
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

/// A file or a directory of the image.
pub struct Entry {
    /// Without a leading slash.
    pub path: &'static str,
    mode: u32,
    /// `None`: a directory.
    content: Option<Vec<u8>>,
}

impl Entry {
    /// A directory.
    pub const fn directory(path: &'static str, mode: u32) -> Self {
        Self {
            path,
            mode,
            content: None,
        }
    }

    /// A file.
    pub const fn file(path: &'static str, mode: u32, content: Vec<u8>) -> Self {
        Self {
            path,
            mode,
            content: Some(content),
        }
    }

    /// What is in it; nothing in a directory.
    pub fn content(&self) -> &[u8] {
        self.content.as_deref().unwrap_or_default()
    }
}

/// The layer, packed.
pub struct Layer {
    /// gzip of the archive.
    pub compressed: Vec<u8>,
    /// Digest of the archive itself (OCI: DiffID).
    pub diff_id: String,
    /// Content of all files.
    pub unpacked_bytes: u64,
}

impl Layer {
    /// Packs.
    pub fn new(entries: &[Entry], epoch_seconds: u64) -> Result<Self> {
        let archive = archive(entries, epoch_seconds).context("cannot pack the layer")?;
        // No name and no time in the header.
        let mut gzip = GzBuilder::new().write(Vec::new(), Compression::best());
        gzip.write_all(&archive).context("cannot compress the layer")?;
        Ok(Self {
            compressed: gzip.finish().context("cannot compress the layer")?,
            diff_id: digest(&archive),
            unpacked_bytes: entries.iter().map(|entry| entry.content().len() as u64).sum(),
        })
    }
}

fn archive(entries: &[Entry], epoch_seconds: u64) -> std::io::Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    for entry in entries {
        let mut header = Header::new_ustar();
        header.set_mode(entry.mode);
        header.set_mtime(epoch_seconds);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(entry.content().len() as u64);
        match entry.content {
            None => {
                header.set_entry_type(EntryType::Directory);
                header.set_path(format!("{}/", entry.path))?;
            }
            Some(_) => {
                header.set_entry_type(EntryType::Regular);
                header.set_path(entry.path)?;
            }
        }
        header.set_cksum();
        builder.append(&header, entry.content())?;
    }
    builder.into_inner()
}

/// Writes the entries as files below `directory`; owners and times are whose and when it runs.
pub fn unpack(entries: &[Entry], directory: &Path) -> Result<()> {
    for entry in entries {
        let path = directory.join(entry.path);
        let made = match &entry.content {
            None => fs::create_dir_all(&path),
            Some(content) => fs::write(&path, content),
        };
        made.and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(entry.mode)))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// As OCI writes it: `sha256:` and hexadecimal digits.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hexadecimal(&Sha256::digest(bytes)))
}

/// Two digits for each byte.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_holds_what_was_put_in_with_one_time_and_one_owner() {
        let entries = [
            Entry::directory("run", 0o755),
            Entry::file("run/file", 0o640, b"content".to_vec()),
        ];
        let bytes = archive(&entries, 86_400).expect("packed");
        let mut archive = tar::Archive::new(&bytes[..]);
        let found: Vec<_> = archive
            .entries()
            .expect("an archive")
            .map(|entry| {
                let entry = entry.expect("an entry");
                let header = entry.header();
                assert_eq!(
                    (header.mtime().ok(), header.uid().ok(), header.gid().ok()),
                    (Some(86_400), Some(0), Some(0))
                );
                let path = entry.path().expect("a path").display().to_string();
                (
                    path,
                    header.mode().expect("a mode"),
                    header.size().expect("a size"),
                )
            })
            .collect();
        assert_eq!(
            found,
            [("run/".to_owned(), 0o755, 0), ("run/file".to_owned(), 0o640, 7)]
        );
    }

    #[test]
    fn the_same_entries_make_the_same_layer() {
        let layer = |seconds| {
            let entries = [Entry::file("a", 0o644, vec![7; 10_000])];
            let layer = Layer::new(&entries, seconds).expect("packed");
            assert_eq!(layer.unpacked_bytes, 10_000);
            (layer.diff_id, layer.compressed)
        };
        assert_eq!(layer(1), layer(1));
        assert_ne!(layer(1).0, layer(2).0, "the time is in it");
    }

    #[test]
    fn what_is_unpacked_has_its_permissions() {
        let directory = tempfile::tempdir().expect("a directory");
        let entries = [
            Entry::directory("a", 0o700),
            Entry::file("a/b", 0o755, b"x".to_vec()),
        ];
        unpack(&entries, directory.path()).expect("unpacked");
        let mode = |path: &str| {
            let permissions = fs::metadata(directory.path().join(path))
                .expect("there")
                .permissions();
            permissions.mode() & 0o7777
        };
        assert_eq!((mode("a"), mode("a/b")), (0o700, 0o755));
    }

    #[test]
    fn digests_are_written_as_oci_writes_them() {
        assert_eq!(
            digest(b""),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }
}
