//! The modules that tests need, in the order in which they load.
//!
//! A module says itself what it depends on (`depends=` in its `.modinfo` section), so that no `modules.dep` is needed:
//! packages do not carry one, it is made when they are installed. A module that the kernel has built in is not in the
//! package and not missed if `modules.builtin` names it; one that is neither is an error.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

/// Kinds of interface in tests, and what attaches programs where there is no TCX.
pub const WANTED: &[&str] = &[
    "veth",
    "macvlan",
    "bridge",
    "8021q",
    "dummy",
    "tun",
    "sch_ingress",
    "cls_matchall",
    "cls_bpf",
];

/// A module ready to load.
pub struct Module {
    /// Its name, with underscores.
    pub name: String,
    /// The object, not compressed.
    pub object: Vec<u8>,
}

/// The modules below a package's `lib/modules/<release>`.
struct Tree {
    files: BTreeMap<String, PathBuf>,
    built_in: String,
}

/// [`WANTED`] and what they need, in order.
pub fn closure(directory: &Path) -> Result<Vec<Module>> {
    let mut tree = Tree {
        files: BTreeMap::new(),
        built_in: fs::read_to_string(directory.join("modules.builtin"))
            .with_context(|| format!("cannot read modules.builtin in {}", directory.display()))?,
    };
    tree.collect(&directory.join("kernel"))?;
    let mut modules = Vec::new();
    for name in WANTED {
        tree.add(name, &mut modules)?;
    }
    Ok(modules)
}

/// `kernel/drivers/net/veth.ko.xz` is `veth`; the kernel takes `-` and `_` for the same.
fn module_name(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    let (name, _) = file.split_once(".ko")?;
    Some(name.replace('-', "_"))
}

impl Tree {
    fn collect(&mut self, directory: &Path) -> Result<()> {
        let unreadable = || format!("cannot list {}", directory.display());
        for entry in fs::read_dir(directory).with_context(unreadable)? {
            let path = entry.with_context(unreadable)?.path();
            if path.is_dir() {
                self.collect(&path)?;
            } else if let Some(name) = path.to_str().and_then(module_name) {
                self.files.insert(name, path);
            }
        }
        Ok(())
    }

    fn add(&self, name: &str, modules: &mut Vec<Module>) -> Result<()> {
        if modules.iter().any(|module| module.name == name) {
            return Ok(());
        }
        let Some(path) = self.files.get(name) else {
            if self
                .built_in
                .lines()
                .any(|line| module_name(line).as_deref() == Some(name))
            {
                return Ok(());
            }
            bail!("this kernel has no module {name}, which tests need");
        };
        let object = read(path)?;
        for needed in depends(&object) {
            self.add(&needed, modules)?;
        }
        modules.push(Module {
            name: name.to_owned(),
            object,
        });
        Ok(())
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_none_or(|extension| extension != "xz") {
        return fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    }
    let out = Command::new("xz")
        .args(["--decompress", "--stdout", "--"])
        .arg(path)
        .output()
        .context("cannot run `xz`: run `cargo xtask setup --vm`")?;
    if !out.status.success() {
        bail!("`xz` cannot read {}: {}", path.display(), out.status);
    }
    Ok(out.stdout)
}

/// What a module's `.modinfo` says: strings that end in a zero, `key=value`.
fn depends(object: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(start) = object.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let value = object.get(start + KEY.len()..).unwrap_or_default();
    let value = value.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(value)
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_says_what_it_needs() {
        let object = b"\x7fELF..\0license=GPL\0depends=stp,llc,nf-log\0retpoline=Y\0";
        assert_eq!(depends(object), ["stp", "llc", "nf_log"]);
        assert!(depends(b"\x7fELF\0depends=\0name=llc\0").is_empty());
        assert!(depends(b"no module").is_empty());
    }

    #[test]
    fn names_are_those_of_files_without_their_endings() {
        assert_eq!(
            module_name("kernel/net/bridge/bridge.ko.xz").as_deref(),
            Some("bridge")
        );
        assert_eq!(
            module_name("kernel/net/sched/sch-ingress.ko").as_deref(),
            Some("sch_ingress")
        );
        assert_eq!(module_name("modules.order"), None);
    }
}
