//! Static programs that do not tell where they were built.
//!
//! Owns the flags. The target is the host's own gnu target with its C library linked in: no musl target is needed, and
//! nothing in the product asks the C library for names (`control/feeds` resolves them itself). An explicit `--target` keeps the
//! flags from build scripts and procedural macros, which must stay dynamic.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, anyhow};

use crate::process::{self, Workspace};

/// A program of this workspace.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Its package.
    pub package: &'static str,
    /// Its name.
    pub name: &'static str,
}

impl Program {
    /// The product.
    pub const BULKHEAD: Self = Self {
        package: "bulkhead-agent",
        name: "bulkhead",
    };
    /// What the containers around the firewall run in tests.
    pub const HOLD: Self = Self {
        package: "bulkhead-e2e",
        name: "bulkhead-e2e-hold",
    };
}

/// A build of some sources into some directory.
pub struct Build<'a> {
    ws: &'a Workspace,
    target_directory: &'a Path,
}

impl<'a> Build<'a> {
    /// Builds nothing yet.
    pub const fn new(ws: &'a Workspace, target_directory: &'a Path) -> Self {
        Self { ws, target_directory }
    }

    /// Builds a program, and says where it is.
    pub fn program(&self, program: &Program) -> Result<PathBuf> {
        let compiler = Compiler::ask(self.ws)?;
        let flags = flags(&self.ws.root, self.target_directory, &compiler);
        let mut cargo = self.ws.cargo();
        cargo
            .args(["build", "--locked", "--profile", "image", "--target"])
            .arg(&compiler.host)
            .args(["--package", program.package, "--bin", program.name])
            .arg("--target-dir")
            .arg(self.target_directory)
            .env_remove("RUSTFLAGS")
            .env("CARGO_INCREMENTAL", "0")
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
        let status = cargo.stdin(std::process::Stdio::null()).status();
        let status = status.context("cannot run cargo")?;
        if !status.success() {
            return Err(anyhow!(
                "{} was not built: {status}; a static program needs the C library's archive (Debian: libc6-dev)",
                program.name
            ));
        }
        let place = self.target_directory.join(&compiler.host).join("image");
        Ok(place.join(program.name))
    }
}

/// The host's compiler.
struct Compiler {
    host: String,
    sysroot: PathBuf,
}

impl Compiler {
    fn ask(ws: &Workspace) -> Result<Self> {
        let rustc = || {
            let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
            rustc.current_dir(&ws.root);
            rustc
        };
        let said = process::output(rustc().arg("-vV"))?;
        let host = said.lines().find_map(|line| line.strip_prefix("host: "));
        Ok(Self {
            host: host.context("`rustc -vV` names no host")?.to_owned(),
            sysroot: process::output(rustc().args(["--print", "sysroot"]))?
                .trim()
                .into(),
        })
    }
}

/// Of several paths that match, the last counts; the target directory may lie in the workspace.
fn flags(root: &Path, target_directory: &Path, compiler: &Compiler) -> Vec<String> {
    let mut flags = vec![
        "-Ctarget-feature=+crt-static".to_owned(),
        "-Clink-arg=-Wl,--build-id=none".to_owned(),
    ];
    let mut remap =
        |from: &Path, to: &str| flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    remap(&compiler.sysroot, "/rust");
    remap(root, "/bulkhead");
    for sources in bulkhead_ebpf_build::registry_sources() {
        remap(&sources, "/cargo");
    }
    remap(target_directory, "/target");
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_directory_in_the_workspace_is_not_taken_for_sources() {
        let compiler = Compiler {
            host: "x".into(),
            sysroot: "/opt/rust".into(),
        };
        let flags = flags(Path::new("/w"), Path::new("/w/target"), &compiler);
        let position = |flag: &str| flags.iter().position(|found| found == flag).expect("a flag");
        assert!(
            position("--remap-path-prefix=/w=/bulkhead") < position("--remap-path-prefix=/w/target=/target")
        );
    }
}
