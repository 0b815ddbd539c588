//! The image in its archive: what it says of itself, and what it says that it is made of.
//!
//! Owns the reading, by tar and sha256sum and not by the code that has written it. Refuses an archive whose names lead nowhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::engine::{Engine, given};

/// In the layer.
const BINARY: &str = "usr/bin/bulkhead";
/// In the layer.
const BILL: &str = "usr/share/doc/bulkhead/sbom.cdx.json";

/// The binary and its bill of materials, as they are in the archive's layer.
pub struct Contents {
    /// CycloneDX.
    pub bill: Value,
    /// Of the binary, in hexadecimal.
    pub sha256: String,
}

impl Contents {
    /// Unpacks the archive that the tests were given.
    pub fn read() -> Result<Self> {
        let archive = PathBuf::from(given("BULKHEAD_IMAGE")?);
        let directory = TempDir::with_prefix("bulkhead-image-").context("cannot make a directory")?;
        let directory = directory.path();
        tar(directory, &archive, &[])?;
        let json = |path: &str| -> Result<Value> {
            let path = directory.join(path);
            let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            serde_json::from_slice(&text).with_context(|| format!("{} is no JSON", path.display()))
        };
        let manifest = json("manifest.json")?;
        let layers = manifest[0]["Layers"].as_array().context("no layers")?;
        ensure!(layers.len() == 1, "the layers {layers:?}");
        let layer = directory.join(layers[0].as_str().context("a layer without a path")?);
        tar(directory, &layer, &[BINARY, BILL])?;
        let digest = said(Command::new("sha256sum").arg(directory.join(BINARY)))?;
        let sha256 = digest.split(' ').next().unwrap_or_default().to_owned();
        ensure!(sha256.len() == 64, "sha256sum says {digest:?}");
        Ok(Self {
            bill: json(BILL)?,
            sha256,
        })
    }
}

/// The labels of the image that the daemon has loaded, and when it says that the image was made.
pub fn labels(engine: &Engine) -> Result<(Value, String)> {
    let format = |format| engine.docker(&["image", "inspect", "--format", format, "bulkhead:latest"]);
    let labels = format("{{json .Config.Labels}}")?;
    let labels = serde_json::from_str(&labels).with_context(|| format!("no labels: {labels}"))?;
    Ok((labels, format("{{.Created}}")?))
}

/// Unpacks these members, or all; compressed or not.
fn tar(directory: &Path, archive: &Path, members: &[&str]) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.arg("--directory").arg(directory).arg("--extract");
    // By what is in it: blobs have no extension.
    tar.arg("--file").arg(archive).args(members);
    said(&mut tar).map(|_| ())
}

fn said(command: &mut Command) -> Result<String> {
    let program = command.get_program().display().to_string();
    let output = command
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    ensure!(
        output.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).with_context(|| format!("{program} does not write UTF-8"))
}
