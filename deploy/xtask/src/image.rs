//! `cargo xtask image`: the container image, made from the sources by this program and nothing else.
//!
//! Owns what is in the image and what is promised of it: one static binary, at most [`MOST_BYTES`], the same bytes whoever
//! builds it from the same sources with the same tools. Builds for the machine it runs on; `deploy/docker/Dockerfile` runs it
//! once for each platform. Refuses to leave an image behind that is too large, and with `--verify` one that a second
//! build, elsewhere, does not come to as well.

mod archive;
mod binary;
mod layer;
mod provenance;
mod sbom;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;

pub use self::binary::Program;
use self::{
    archive::Image,
    binary::Build,
    layer::{Entry, Layer},
    provenance::Provenance,
};
use crate::{
    ahead::Ahead,
    metadata::Metadata,
    process::{self, Workspace},
    setup::{self, Want},
};

/// What the image may take, unpacked: the number that the README promises.
const MOST_BYTES: u64 = 20_000_000;

/// The command line of `cargo xtask image`.
#[derive(Args)]
pub struct Options {
    /// Where to write it [default: image/bulkhead-VERSION-ARCHITECTURE.tar in cargo's target directory]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write the root file system into this directory instead; for the Dockerfile
    #[arg(long, value_name = "DIRECTORY", conflicts_with_all = ["output", "verify"])]
    rootfs: Option<PathBuf>,
    /// Build a second time, from a copy of the sources elsewhere, and fail unless the digest is the same
    #[arg(long)]
    verify: bool,
    /// With --verify: keep what the second build compiles, so that the next one compiles only this workspace's crates again
    #[arg(long, requires = "verify")]
    keep: bool,
}

/// Builds, writes, measures.
pub fn run(ws: &Workspace, options: &Options) -> Result<ExitCode> {
    setup::ensure(ws, Want::default())?;
    let provenance = Provenance::find(ws)?;
    let target_directory = Metadata::load(ws)?.target_directory;
    if let Some(directory) = &options.rootfs {
        layer::unpack(&root(ws, &target_directory, &provenance)?, directory)?;
        println!("image: the root file system is in {}", directory.display());
        return Ok(ExitCode::SUCCESS);
    }
    let output = options
        .output
        .clone()
        .unwrap_or_else(|| default_output(&target_directory));
    let digest = write(ws, &target_directory, &provenance, &output)?;
    if options.verify {
        let place = target_directory.join("image-verify");
        if !options.keep {
            remove(&place)?;
        }
        verify(ws, &place, &provenance, &digest)?;
        if !options.keep {
            remove(&place)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Begins to build the image twice and to compare, on the processor time that others leave. Minutes, the first time a quarter of
/// an hour.
pub fn begin_verified(ws: &Workspace) -> Result<Ahead> {
    let directory = Metadata::load(ws)?.target_directory.join("image");
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let mut ourselves = Command::new(std::env::current_exe().context("cannot find this program's own file")?);
    ourselves.args(["image", "--verify", "--keep"]);
    Ahead::start(&ourselves, directory.join("log"))
}

/// Writes the image to its usual place, for tests that start it. Also returns its digest.
pub fn make(ws: &Workspace) -> Result<(PathBuf, String)> {
    let target_directory = Metadata::load(ws)?.target_directory;
    let output = default_output(&target_directory);
    let digest = write(ws, &target_directory, &Provenance::find(ws)?, &output)?;
    Ok((output, digest))
}

/// Builds a program of this workspace the way the image's is built, and says where it is.
pub fn build_static(ws: &Workspace, program: &Program) -> Result<PathBuf> {
    let target_directory = Metadata::load(ws)?.target_directory;
    Build::new(ws, &target_directory).program(program)
}

fn default_output(target_directory: &Path) -> PathBuf {
    let name = format!(
        "bulkhead-{}-{}.tar",
        env!("CARGO_PKG_VERSION"),
        archive::architecture()
    );
    target_directory.join("image").join(name)
}

/// Builds the image into `output`, with the bill of materials beside it. Returns its digest.
fn write(ws: &Workspace, target_directory: &Path, provenance: &Provenance, output: &Path) -> Result<String> {
    let entries = root(ws, target_directory, provenance)?;
    let layer = Layer::new(&entries, provenance.epoch_seconds)?;
    if layer.unpacked_bytes > MOST_BYTES {
        bail!(
            "the image takes {} unpacked, and at most {} are promised: `cargo tree --package bulkhead-agent` shows what is in \
             it; nothing was written",
            megabytes(layer.unpacked_bytes),
            megabytes(MOST_BYTES)
        );
    }
    let image = Image::new(&layer, provenance)?;
    let directory = output
        .parent()
        .filter(|directory| !directory.as_os_str().is_empty());
    if let Some(directory) = directory {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    image.write(&layer, output)?;
    let bill = output.with_extension("cdx.json");
    let text = entries.iter().find(|entry| entry.path == sbom::PATH);
    fs::write(&bill, text.map_or(&[][..], Entry::content))
        .with_context(|| format!("cannot write {}", bill.display()))?;
    println!(
        "image: {}\nimage: {}, {} compressed (at most {} unpacked)\nimage: {}\nimage: {}",
        output.display(),
        megabytes(layer.unpacked_bytes),
        megabytes(layer.compressed.len() as u64),
        megabytes(MOST_BYTES),
        image.digest(),
        bill.display()
    );
    Ok(image.digest().to_owned())
}

/// Everything that is in the image, in the order of its paths.
fn root(ws: &Workspace, target_directory: &Path, provenance: &Provenance) -> Result<Vec<Entry>> {
    let file = Build::new(ws, target_directory).program(&Program::BULKHEAD)?;
    let binary = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let licence = |name: &str| {
        let path = ws.root.join(name);
        fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let bill = sbom::cyclonedx(ws, provenance, &binary)?;
    Ok(vec![
        Entry::directory("etc", 0o755),
        // The configuration goes here.
        Entry::directory("etc/bulkhead", 0o755),
        // `history` names who committed.
        Entry::file(
            "etc/passwd",
            0o644,
            b"root:x:0:0:root:/:/usr/bin/bulkhead\n".to_vec(),
        ),
        // The socket; a tmpfs where the root file system is read-only.
        Entry::directory("run", 0o755),
        Entry::directory("usr", 0o755),
        Entry::directory("usr/bin", 0o755),
        Entry::file("usr/bin/bulkhead", 0o755, binary),
        Entry::directory("usr/share", 0o755),
        Entry::directory("usr/share/doc", 0o755),
        Entry::directory("usr/share/doc/bulkhead", 0o755),
        Entry::file(
            "usr/share/doc/bulkhead/LICENSE-APACHE",
            0o644,
            licence("LICENSE-APACHE")?,
        ),
        Entry::file(
            "usr/share/doc/bulkhead/LICENSE-MIT",
            0o644,
            licence("LICENSE-MIT")?,
        ),
        Entry::file(sbom::PATH, 0o644, bill),
        Entry::directory("var", 0o755),
        Entry::directory("var/lib", 0o755),
        // Revisions. A new volume takes its permissions from here.
        Entry::directory("var/lib/bulkhead", 0o700),
    ])
}

/// Builds again below a directory, from a copy of the sources there and into another target directory, and compares.
fn verify(ws: &Workspace, place: &Path, provenance: &Provenance, first: &str) -> Result<()> {
    let elsewhere = ws.elsewhere(place.join("sources"));
    copy(ws, &elsewhere.root)?;
    println!(
        "image: once more, from a copy of the sources in {}",
        elsewhere.root.display()
    );
    let second = write(
        &elsewhere,
        &place.join("built"),
        provenance,
        &place.join("image.tar"),
    )?;
    if second != first {
        bail!(
            "two builds differ: {first} here, {second} from {}",
            elsewhere.root.display()
        );
    }
    println!("image: two builds, one digest");
    Ok(())
}

/// Copies the sources into a directory and nothing else: what git tracks, and new files that it does not ignore. As new files, so
/// that cargo compiles all of them.
fn copy(ws: &Workspace, into: &Path) -> Result<()> {
    remove(into)?;
    let mut list = Command::new("git");
    list.current_dir(&ws.root)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let files = process::output(&mut list).context("git knows which files are sources")?;
    for file in files.split_terminator('\0') {
        let (from, to) = (ws.root.join(file), into.join(file));
        // Deleted, and not committed yet.
        if !from.is_file() {
            continue;
        }
        let copied = to
            .parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| fs::copy(&from, &to));
        copied.with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    }
    Ok(())
}

/// Removes a directory that may not be there.
fn remove(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}

/// Decimal, as the promise is, to the tenth.
fn megabytes(bytes: u64) -> String {
    let tenths = bytes.div_ceil(100_000);
    format!("{}.{} MB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn megabytes_are_decimal_and_never_rounded_down() {
        assert_eq!(megabytes(20_000_000), "20.0 MB");
        assert_eq!(megabytes(20_000_001), "20.1 MB");
        assert_eq!(megabytes(0), "0.0 MB");
    }
}
