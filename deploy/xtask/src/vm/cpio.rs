//! An archive in the format of the kernel's initial file systems, `newc` (Documentation/driver-api/early-userspace/
//! buffer-format.rst): directories and files that may be executed, all of root.
//!
//! Owns nothing but the format. Refuses what it cannot say: a name or a file of 4 GiB.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    path::{Component, Path},
};

/// `S_IFDIR` and `S_IFREG`.
const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;

/// Writes an archive. [`Archive::finish`] ends it.
pub struct Archive<W> {
    out: W,
    inode: u32,
    written: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    /// An archive without entries.
    pub fn new(out: W) -> Self {
        Self {
            out,
            inode: 0,
            written: BTreeSet::new(),
        }
    }

    /// Adds a directory and those above it, each once.
    pub fn directory(&mut self, path: &Path) -> io::Result<()> {
        let mut name = String::new();
        for part in parts(path)? {
            if !name.is_empty() {
                name.push('/');
            }
            name.push_str(part);
            if self.written.insert(name.clone()) {
                self.entry(&name, DIRECTORY | 0o755, &[])?;
            }
        }
        Ok(())
    }

    /// Adds a file that may be executed, once.
    pub fn file(&mut self, path: &Path, content: &[u8]) -> io::Result<()> {
        if let Some(parent) = path.parent() {
            self.directory(parent)?;
        }
        let name = parts(path)?.join("/");
        if self.written.insert(name.clone()) {
            self.entry(&name, FILE | 0o755, content)?;
        }
        Ok(())
    }

    /// Ends the archive.
    pub fn finish(mut self) -> io::Result<W> {
        self.inode = 0;
        self.entry("TRAILER!!!", 0, &[])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        let too_long = |_| io::Error::new(io::ErrorKind::InvalidInput, format!("{name}: 4 GiB or more"));
        let content_bytes = u32::try_from(content.len()).map_err(too_long)?;
        let name_bytes = u32::try_from(name.len() + 1).map_err(too_long)?;
        self.inode += 1;
        // inode, mode, owner, group, links, time, size, device of the file and the one it stands for, name, no sum.
        let fields = [
            self.inode,
            mode,
            0,
            0,
            1,
            0,
            content_bytes,
            0,
            0,
            0,
            0,
            name_bytes,
            0,
        ];
        let mut header = String::from("070701");
        for field in fields {
            header.push_str(&format!("{field:08x}"));
        }
        self.out.write_all(header.as_bytes())?;
        self.out.write_all(name.as_bytes())?;
        // The name ends in a zero; header with name, and content, are padded to four bytes.
        let padding = 1 + (4 - (header.len() + name.len() + 1) % 4) % 4;
        self.out.write_all(&[0; 4][..padding])?;
        self.out.write_all(content)?;
        self.out.write_all(&[0; 3][..(4 - content.len() % 4) % 4])
    }
}

/// The parts of an absolute path, without the root.
fn parts(path: &Path) -> io::Result<Vec<&str>> {
    path.components()
        .filter(|part| *part != Component::RootDir)
        .map(|part| match part {
            Component::Normal(part) => part.to_str(),
            _ => None,
        })
        .collect::<Option<_>>()
        .ok_or_else(|| {
            let what = format!("{}: not an absolute path in UTF-8", path.display());
            io::Error::new(io::ErrorKind::InvalidInput, what)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, mode and content of each entry, by the format's own offsets.
    fn read(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        while !bytes.is_empty() {
            assert_eq!(&bytes[..6], b"070701");
            let field = |index: usize| {
                let text = std::str::from_utf8(&bytes[6 + index * 8..14 + index * 8]).expect("digits");
                u32::from_str_radix(text, 16).expect("hexadecimal") as usize
            };
            let (mode, size, name_size) = (field(1), field(6), field(11));
            let name = String::from_utf8(bytes[110..110 + name_size - 1].to_vec()).expect("a name");
            assert_eq!(bytes[110 + name_size - 1], 0);
            let start = (110 + name_size).next_multiple_of(4);
            entries.push((name, mode as u32, bytes[start..start + size].to_vec()));
            bytes = &bytes[(start + size).next_multiple_of(4)..];
        }
        entries
    }

    #[test]
    fn entries_come_back_with_their_directories_before_them() {
        let mut archive = Archive::new(Vec::new());
        archive.file(Path::new("/usr/bin/ip"), b"ELF..").expect("written");
        archive.file(Path::new("/usr/bin/ip"), b"again").expect("written");
        let bytes = archive.finish().expect("written");
        let entries = read(&bytes);
        let names: Vec<_> = entries
            .iter()
            .map(|(name, mode, _)| (name.as_str(), *mode))
            .collect();
        assert_eq!(
            names,
            [
                ("usr", 0o040_755),
                ("usr/bin", 0o040_755),
                ("usr/bin/ip", 0o100_755),
                ("TRAILER!!!", 0),
            ]
        );
        assert_eq!(entries[2].2, b"ELF..");
    }

    #[test]
    fn a_path_that_climbs_is_refused() {
        let mut archive = Archive::new(Vec::new());
        assert!(archive.directory(Path::new("/a/../b")).is_err());
    }
}
