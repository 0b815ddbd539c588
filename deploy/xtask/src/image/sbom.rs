//! What the binary is made of, as CycloneDX 1.5 in JSON.
//!
//! Owns which crates are in it: those that `cargo tree` names for the agent and for the BPF programs that it carries, with the
//! features of this very build; procedural macros and build scripts are not. `cargo metadata` and the lock file tell the
//! rest. What comes with the compilers is named too: Rust's standard library, the C library, the unwinder. Written by hand,
//! not with the crate `cyclonedx-bom`: a dozen fields do not pay for its forty dependencies in the one entry point.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{layer::hexadecimal, provenance::Provenance};
use crate::process::{self, Workspace};

/// Where it is in the image.
pub const PATH: &str = "usr/share/doc/bulkhead/sbom.cdx.json";

/// What is built into the binary: itself, and the programs that it loads into the kernel.
const ROOTS: [&str; 2] = ["bulkhead-agent", "bulkhead-programs"];

/// A name and a version.
type Key = (String, String);

#[derive(Deserialize)]
struct Resolved {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    repository: Option<String>,
    /// `None`: a member of the workspace.
    source: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    dependencies: Vec<String>,
}

/// The bill of materials of a binary.
pub fn cyclonedx(ws: &Workspace, provenance: &Provenance, binary: &[u8]) -> Result<Vec<u8>> {
    let mut built_in = BTreeSet::new();
    for root in ROOTS {
        let tree = process::output(ws.cargo().args([
            "tree",
            "--locked",
            "--package",
            root,
            "--edges",
            "normal,no-proc-macro",
            "--prefix",
            "none",
            "--format",
            "{p}",
        ]))?;
        built_in.extend(tree.lines().filter_map(key));
    }
    let metadata = process::output(ws.cargo().args(["metadata", "--locked", "--format-version", "1"]))?;
    let resolved: Resolved =
        serde_json::from_str(&metadata).context("`cargo metadata` answered something unexpected")?;
    let lock = ws.root.join("Cargo.lock");
    let lock = fs::read_to_string(&lock).with_context(|| format!("cannot read {}", lock.display()))?;
    let bill = bill(
        &built_in,
        &resolved,
        &checksums(&lock),
        &tool_chain(ws)?,
        provenance,
        binary,
    );
    let mut text = serde_json::to_vec_pretty(&bill)?;
    text.push(b'\n');
    Ok(text)
}

/// From a line of `cargo tree`: `aya v0.14.0`, `bulkhead-abi v0.1.0 (/path) (*)`.
fn key(line: &str) -> Option<Key> {
    let mut words = line.split_whitespace();
    let name = words.next()?;
    let version = words.next()?.strip_prefix('v')?;
    Some((name.to_owned(), version.to_owned()))
}

/// The digests of `Cargo.lock`: of what was downloaded.
fn checksums(lock: &str) -> BTreeMap<Key, String> {
    let mut found = BTreeMap::new();
    for package in lock.split("[[package]]").skip(1) {
        let field = |name: &str| {
            let mut lines = package.lines();
            let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "))?;
            Some(value.trim_matches('"').to_owned())
        };
        if let (Some(name), Some(version), Some(checksum)) =
            (field("name"), field("version"), field("checksum"))
        {
            found.insert((name, version), checksum);
        }
    }
    found
}

/// What the compilers link in, with a licence each.
fn tool_chain(ws: &Workspace) -> Result<Vec<Value>> {
    let said = |program: &str, arguments: &[&str]| -> Result<String> {
        let out = process::output(Command::new(program).current_dir(&ws.root).args(arguments))?;
        Ok(out.trim().to_owned())
    };
    let rustc = said("rustc", &["--version"])?;
    let glibc = said("getconf", &["GNU_LIBC_VERSION"])?;
    let gcc = said("cc", &["-dumpfullversion"])?;
    let second = |text: &str| text.split_whitespace().nth(1).unwrap_or(text).to_owned();
    let library = |name: &str, version: &str, licence: &str| {
        json!({
            "type": "library",
            "bom-ref": format!("{name}@{version}"),
            "name": name,
            "version": version,
            "licenses": [{ "expression": licence }],
        })
    };
    Ok(vec![
        library("rust-std", &second(&rustc), "MIT OR Apache-2.0"),
        library("glibc", &second(&glibc), "LGPL-2.1-or-later"),
        library("libgcc", &gcc, "GPL-3.0-or-later WITH GCC-exception-3.1"),
    ])
}

fn bill(
    built_in: &BTreeSet<Key>,
    resolved: &Resolved,
    checksums: &BTreeMap<Key, String>,
    tool_chain: &[Value],
    provenance: &Provenance,
    binary: &[u8],
) -> Value {
    let is_built_in =
        |package: &&Package| built_in.contains(&(package.name.clone(), package.version.clone()));
    let mut packages: Vec<&Package> = resolved.packages.iter().filter(is_built_in).collect();
    packages.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    let references: BTreeMap<&str, String> = packages
        .iter()
        .map(|package| (package.id.as_str(), reference(package)))
        .collect();
    let mut components: Vec<Value> = packages
        .iter()
        .map(|package| component(package, checksums))
        .collect();
    components.extend_from_slice(tool_chain);
    let mut dependencies: Vec<(&String, Vec<&String>)> = resolved
        .resolve
        .nodes
        .iter()
        .filter_map(|node| {
            let mut on: Vec<_> = node
                .dependencies
                .iter()
                .filter_map(|id| references.get(id.as_str()))
                .collect();
            on.sort();
            Some((references.get(node.id.as_str())?, on))
        })
        .collect();
    dependencies.sort();
    let mut dependencies: Vec<Value> = dependencies
        .into_iter()
        .map(|(of, on)| json!({ "ref": of, "dependsOn": on }))
        .collect();
    let mut roots: Vec<String> = packages
        .iter()
        .filter(|package| ROOTS.contains(&package.name.as_str()))
        .map(|package| reference(package))
        .collect();
    roots.extend(
        tool_chain
            .iter()
            .filter_map(|part| Some(part["bom-ref"].as_str()?.to_owned())),
    );
    dependencies.push(json!({ "ref": "bulkhead", "dependsOn": roots }));
    let digest = Sha256::digest(binary);
    json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": serial_number(&digest),
        "version": 1,
        "metadata": {
            "timestamp": provenance.created(),
            "tools": { "components": [{
                "type": "application",
                "name": "cargo xtask image",
                "version": env!("CARGO_PKG_VERSION"),
            }] },
            "component": {
                "type": "application",
                "bom-ref": "bulkhead",
                "name": "bulkhead",
                "version": env!("CARGO_PKG_VERSION"),
                "licenses": [{ "expression": "Apache-2.0 OR MIT" }],
                "hashes": [{ "alg": "SHA-256", "content": hexadecimal(&digest) }],
            },
        },
        "components": components,
        "dependencies": dependencies,
    })
}

/// A package URL where there is a registry, else what is unique here.
fn reference(package: &Package) -> String {
    match package.source {
        Some(_) => purl(package),
        None => format!("{}@{}", package.name, package.version),
    }
}

fn purl(package: &Package) -> String {
    // `+` separates build metadata, and is reserved in a URL.
    format!(
        "pkg:cargo/{}@{}",
        package.name,
        package.version.replace('+', "%2B")
    )
}

fn component(package: &Package, checksums: &BTreeMap<Key, String>) -> Value {
    let mut component = json!({
        "type": "library",
        "bom-ref": reference(package),
        "name": package.name,
        "version": package.version,
    });
    if let Some(licence) = &package.license {
        // Before SPDX expressions cargo wrote a slash for a choice.
        component["licenses"] = json!([{ "expression": licence.replace('/', " OR ").replace("  ", " ") }]);
    }
    if package.source.is_some() {
        component["purl"] = purl(package).into();
        if let Some(repository) = &package.repository {
            component["externalReferences"] = json!([{ "type": "vcs", "url": repository }]);
        }
    }
    if let Some(checksum) = checksums.get(&(package.name.clone(), package.version.clone())) {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
    }
    component
}

/// A UUID that follows from the binary, in the form of version 5.
fn serial_number(digest: &[u8]) -> String {
    let mut bytes: Vec<u8> = digest.iter().take(16).copied().collect();
    bytes[6] = bytes[6] & 0x0f | 0x50;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let text = hexadecimal(&bytes);
    let parts = [
        &text[..8],
        &text[8..12],
        &text[12..16],
        &text[16..20],
        &text[20..],
    ];
    format!("urn:uuid:{}", parts.join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_tree_is_a_name_and_a_version() {
        let key = |line: &str| super::key(line).map(|(name, version)| format!("{name} {version}"));
        assert_eq!(key("aya v0.14.0").as_deref(), Some("aya 0.14.0"));
        assert_eq!(
            key("bulkhead-abi v0.1.0 (/src/ebpf/abi) (*)").as_deref(),
            Some("bulkhead-abi 0.1.0")
        );
        assert_eq!(key(""), None);
    }

    #[test]
    fn only_what_came_from_elsewhere_has_a_checksum() {
        let lock = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"registry\"\nchecksum = \"ab\"\n\n\
                    [[package]]\nname = \"own\"\nversion = \"0.1.0\"\n";
        let found = checksums(lock);
        assert_eq!(found.len(), 1);
        assert_eq!(found[&("a".to_owned(), "1.0.0".to_owned())], "ab");
    }

    #[test]
    fn what_is_not_built_in_is_not_listed() {
        let resolved: Resolved = serde_json::from_value(json!({
            "packages": [
                { "id": "1", "name": "bulkhead-agent", "version": "0.1.0", "license": "MIT", "source": null },
                { "id": "2", "name": "aya", "version": "1.0.0+x", "license": "MIT/Apache-2.0", "source": "registry" },
                { "id": "3", "name": "aya", "version": "2.0.0", "license": "MIT", "source": "registry" },
            ],
            "resolve": { "nodes": [
                { "id": "1", "dependencies": ["2", "3"] },
                { "id": "2", "dependencies": ["3"] },
                { "id": "3", "dependencies": [] },
            ] },
        }))
        .expect("metadata");
        let key = |name: &str, version: &str| (name.to_owned(), version.to_owned());
        let built_in = BTreeSet::from([key("bulkhead-agent", "0.1.0"), key("aya", "1.0.0+x")]);
        let checksums = BTreeMap::from([(key("aya", "1.0.0+x"), "ab".to_owned())]);
        let provenance = Provenance {
            revision: String::new(),
            epoch_seconds: 0,
        };
        let bill = bill(&built_in, &resolved, &checksums, &[], &provenance, b"");
        let references: Vec<_> = bill["components"]
            .as_array()
            .expect("components")
            .iter()
            .map(|part| &part["bom-ref"])
            .collect();
        assert_eq!(references, ["pkg:cargo/aya@1.0.0%2Bx", "bulkhead-agent@0.1.0"]);
        let aya = &bill["components"][0];
        assert_eq!(aya["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(aya["hashes"][0]["content"], "ab");
        assert_eq!(
            bill["dependencies"],
            json!([
                { "ref": "bulkhead-agent@0.1.0", "dependsOn": ["pkg:cargo/aya@1.0.0%2Bx"] },
                { "ref": "pkg:cargo/aya@1.0.0%2Bx", "dependsOn": [] },
                { "ref": "bulkhead", "dependsOn": ["bulkhead-agent@0.1.0"] },
            ])
        );
    }

    #[test]
    fn a_serial_number_is_a_uuid() {
        assert_eq!(
            serial_number(&[0xff; 32]),
            "urn:uuid:ffffffff-ffff-5fff-bfff-ffffffffffff"
        );
    }
}
