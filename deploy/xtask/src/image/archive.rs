//! An image in one file that `docker load`, `podman load`, `skopeo` and `ctr image import` all read.
//!
//! Owns its form: an OCI image layout (`oci-layout`, `index.json`, `blobs/`) in a tar archive, and in the same archive the
//! `manifest.json` that Docker before version 25 looks for, naming the same blobs. Everything in it follows from the layer
//! and its provenance; keys of JSON objects are in alphabetical order.

use std::{collections::BTreeMap, fs::File, io::BufWriter, path::Path};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tar::{EntryType, Header};

use super::{
    layer::{self, Layer},
    provenance::Provenance,
};

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// The names that `docker load` gives it.
pub const TAGS: [&str; 2] = [concat!("bulkhead:", env!("CARGO_PKG_VERSION")), "bulkhead:latest"];

/// Everything but the layer.
pub struct Image {
    config: Vec<u8>,
    manifest: Vec<u8>,
    digest: String,
    epoch_seconds: u64,
}

impl Image {
    /// Describes a layer.
    pub fn new(layer: &Layer, provenance: &Provenance) -> Result<Self> {
        let config = serde_json::to_vec(&config(layer, provenance))?;
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": descriptor(CONFIG_TYPE, &config),
            "layers": [descriptor(LAYER_TYPE, &layer.compressed)],
            "annotations": labels(provenance),
        }))?;
        Ok(Self {
            digest: layer::digest(&manifest),
            config,
            manifest,
            epoch_seconds: provenance.epoch_seconds,
        })
    }

    /// The manifest's digest: the image's name wherever images are named by content.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Writes the file.
    pub fn write(&self, layer: &Layer, output: &Path) -> Result<()> {
        let mut index = descriptor(MANIFEST_TYPE, &self.manifest);
        index["platform"] = json!({ "architecture": architecture(), "os": "linux" });
        index["annotations"] = json!({ "org.opencontainers.image.ref.name": TAGS[0] });
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [index],
        });
        let for_docker = json!([{
            "Config": blob(&layer::digest(&self.config)),
            "RepoTags": TAGS,
            "Layers": [blob(&layer::digest(&layer.compressed))],
        }]);
        let mut files: Vec<(String, Vec<u8>)> = vec![
            ("index.json".into(), serde_json::to_vec(&index)?),
            ("manifest.json".into(), serde_json::to_vec(&for_docker)?),
            ("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        ];
        for content in [&self.config, &self.manifest, &layer.compressed] {
            files.push((blob(&layer::digest(content)), content.clone()));
        }
        files.sort();
        let failed = || format!("cannot write {}", output.display());
        let mut archive = tar::Builder::new(BufWriter::new(File::create(output).with_context(failed)?));
        for directory in ["blobs/", "blobs/sha256/"] {
            self.append(&mut archive, EntryType::Directory, directory, &[])
                .with_context(failed)?;
        }
        for (path, content) in &files {
            self.append(&mut archive, EntryType::Regular, path, content)
                .with_context(failed)?;
        }
        archive
            .into_inner()
            .and_then(|file| file.into_inner().map_err(Into::into))
            .with_context(failed)?;
        Ok(())
    }

    fn append(
        &self,
        archive: &mut tar::Builder<BufWriter<File>>,
        kind: EntryType,
        path: &str,
        content: &[u8],
    ) -> std::io::Result<()> {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_path(path)?;
        header.set_mode(if kind == EntryType::Directory {
            0o755
        } else {
            0o644
        });
        header.set_mtime(self.epoch_seconds);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(content.len() as u64);
        header.set_cksum();
        archive.append(&header, content)
    }
}

/// As OCI and Docker name this machine's.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn blob(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": layer::digest(content), "size": content.len() })
}

fn config(layer: &Layer, provenance: &Provenance) -> Value {
    json!({
        "architecture": architecture(),
        "os": "linux",
        "created": provenance.created(),
        "config": {
            "Entrypoint": ["/usr/bin/bulkhead"],
            "Cmd": ["run", "--config", "/etc/bulkhead/firewall.yaml"],
            "Env": ["PATH=/usr/bin"],
            "Labels": labels(provenance),
            "StopSignal": "SIGTERM",
            "WorkingDir": "/",
        },
        "rootfs": { "type": "layers", "diff_ids": [layer.diff_id] },
        "history": [{ "created": provenance.created(), "created_by": "cargo xtask image" }],
    })
}

/// <https://github.com/opencontainers/image-spec/blob/main/annotations.md>
fn labels(provenance: &Provenance) -> BTreeMap<&'static str, String> {
    let mut labels = BTreeMap::from([
        ("org.opencontainers.image.title", "bulkhead".to_owned()),
        (
            "org.opencontainers.image.description",
            "A container firewall: zones, policies and NAT, enforced by eBPF".to_owned(),
        ),
        (
            "org.opencontainers.image.version",
            env!("CARGO_PKG_VERSION").to_owned(),
        ),
        (
            "org.opencontainers.image.licenses",
            "Apache-2.0 OR MIT".to_owned(),
        ),
        ("org.opencontainers.image.created", provenance.created()),
    ]);
    if !provenance.revision.is_empty() {
        labels.insert("org.opencontainers.image.revision", provenance.revision.clone());
    }
    labels
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, io::Read as _};

    use super::*;
    use crate::image::layer::Entry;

    fn provenance() -> Provenance {
        Provenance {
            revision: "abc".into(),
            epoch_seconds: 86_400,
        }
    }

    /// Reads the archive as a loader does: from the index to the bytes of the layer.
    #[test]
    fn every_name_in_the_archive_leads_to_content_of_that_digest() {
        let layer = Layer::new(&[Entry::file("a", 0o644, b"x".to_vec())], 1).expect("packed");
        let directory = tempfile::tempdir().expect("a directory");
        let output = directory.path().join("image.tar");
        let image = Image::new(&layer, &provenance()).expect("an image");
        image.write(&layer, &output).expect("written");

        let mut files = HashMap::new();
        let mut archive = tar::Archive::new(File::open(&output).expect("a file"));
        for entry in archive.entries().expect("an archive") {
            let mut entry = entry.expect("an entry");
            let path = entry.path().expect("a path").display().to_string();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("content");
            files.insert(path, content);
        }
        let json = |path: &str| -> Value { serde_json::from_slice(&files[path]).expect("JSON") };
        let content = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().expect("a digest");
            let content = files[&blob(digest)].clone();
            assert_eq!(digest, layer::digest(&content));
            assert_eq!(descriptor["size"], content.len());
            content
        };
        let manifest = content(&json("index.json")["manifests"][0]);
        assert_eq!(layer::digest(&manifest), image.digest());
        let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
        assert_eq!(content(&manifest["layers"][0]), layer.compressed);
        let config = content(&manifest["config"]);
        let config: Value = serde_json::from_slice(&config).expect("JSON");
        assert_eq!(config["rootfs"]["diff_ids"][0], layer.diff_id);
        let labels = json!({
            "org.opencontainers.image.title": "bulkhead",
            "org.opencontainers.image.description": "A container firewall: zones, policies and NAT, enforced by eBPF",
            "org.opencontainers.image.version": env!("CARGO_PKG_VERSION"),
            "org.opencontainers.image.licenses": "Apache-2.0 OR MIT",
            "org.opencontainers.image.created": "1970-01-02T00:00:00Z",
            "org.opencontainers.image.revision": "abc",
        });
        assert_eq!(config["config"]["Labels"], labels);
        assert_eq!(manifest["annotations"], labels);
        assert_eq!(config["created"], "1970-01-02T00:00:00Z");

        let docker = &json("manifest.json")[0];
        for path in [&docker["Config"], &docker["Layers"][0]] {
            assert!(files.contains_key(path.as_str().expect("a path")), "{path}");
        }
        assert_eq!(files["oci-layout"], br#"{"imageLayoutVersion":"1.0.0"}"#);
    }

    /// The instructions of the Dockerfile's last stage, each with what follows it.
    fn last_stage() -> Vec<(String, String)> {
        let text = include_str!("../../../docker/Dockerfile").replace("\\\n", " ");
        let lines = text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.trim().is_empty());
        let instructions: Vec<(String, String)> = lines
            .map(|line| {
                let (word, rest) = line.split_once(' ').expect("an instruction and its operand");
                (word.to_owned(), rest.trim().to_owned())
            })
            .collect();
        let from = instructions.iter().rposition(|(word, _)| word == "FROM");
        instructions[from.expect("a stage")..].to_vec()
    }

    /// `NAME="VALUE"` again and again, with what is given to the build put in.
    fn pairs(text: &str, given: &[(&str, &str)]) -> BTreeMap<String, String> {
        let mut pairs = BTreeMap::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let (name, quoted) = rest.split_once("=\"").expect("a name and a quoted value");
            let (value, after) = quoted.split_once('"').expect("the end of a value");
            let value = given.iter().fold(value.to_owned(), |value, (name, is)| {
                value.replace(&format!("${name}"), is)
            });
            assert!(!value.contains('$'), "{name}: nothing is given for {value}");
            assert!(pairs.insert(name.to_owned(), value).is_none(), "{name} twice");
            rest = after.trim_start();
        }
        pairs
    }

    /// An image of the Dockerfile says the same of itself, and is started and ended the same way.
    #[test]
    fn the_dockerfile_describes_the_same_image() {
        let layer = Layer::new(&[Entry::file("a", 0o644, b"x".to_vec())], 1).expect("packed");
        let of_archive = config(&layer, &provenance());
        let of_archive = &of_archive["config"];
        let stage = last_stage();
        let only = |wanted: &str| {
            let found: Vec<_> = stage.iter().filter(|(word, _)| word == wanted).collect();
            assert_eq!(found.len(), 1, "{wanted} in {stage:?}");
            found[0].1.as_str()
        };
        let json = |wanted: &str| -> Value { serde_json::from_str(only(wanted)).expect("JSON") };

        assert_eq!(only("FROM"), "scratch");
        let given = [("REVISION", "abc"), ("CREATED", "1970-01-02T00:00:00Z")];
        let labels = pairs(only("LABEL"), &given);
        assert_eq!(json!(labels), of_archive["Labels"]);
        for (name, _) in given {
            let is_its = |text: &str| text.split('=').next() == Some(name);
            let declared = stage.iter().any(|(word, rest)| word == "ARG" && is_its(rest));
            assert!(declared, "{name} is nothing in this stage");
        }
        assert_eq!(json("ENTRYPOINT"), of_archive["Entrypoint"]);
        assert_eq!(json("CMD"), of_archive["Cmd"]);
        assert_eq!(only("STOPSIGNAL"), of_archive["StopSignal"]);
        assert_eq!(json!([only("ENV")]), of_archive["Env"]);
    }
}
