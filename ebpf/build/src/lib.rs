//! Compiles a BPF crate of this workspace from a build script and leaves the object in `OUT_DIR`.
//!
//! Two tool chains can do it and this library chooses, by itself and out loud (a `cargo:warning`):
//!
//! * **nightly** with the `rust-src` component: `core` is built from source (`-Z build-std`);
//! * **Debian** `rustc-web`, whose `libstd-rust-web-dev-bpf` package brings a ready-made `core` for
//!   `bpfel-unknown-none`, so that no `rust-src` is needed.
//!
//! Both link with `bpf-linker`. `BULKHEAD_EBPF_TOOLCHAIN=nightly|debian` forces one. What is missing is named
//! together with the command that installs it; nothing is skipped in silence.
#![forbid(unsafe_code)]

mod btf;
mod strip;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, anyhow, bail};

/// The environment variable that forces a tool chain.
pub const TOOLCHAIN_ENV: &str = "BULKHEAD_EBPF_TOOLCHAIN";

/// Where Debian's `rustc-web` puts its compiler.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// A compiler that can produce BPF objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Toolchain {
    /// rustup's nightly with `rust-src`; `core` is compiled along.
    Nightly {
        /// The nightly `rustc`.
        rustc: PathBuf,
    },
    /// Debian's `rustc-web` with a ready-made `core`.
    Debian {
        /// The Debian `rustc`.
        rustc: PathBuf,
    },
}

impl Toolchain {
    /// Chooses a tool chain that is complete on this machine.
    ///
    /// # Errors
    /// When none is complete: the error names what each lacks and the command that installs it.
    pub fn choose() -> Result<Self> {
        let forced = env::var(TOOLCHAIN_ENV).ok();
        let nightly = nightly();
        let debian = debian();
        match forced.as_deref() {
            Some("nightly") => nightly.map_err(|e| anyhow!("{TOOLCHAIN_ENV}=nightly: {e}")),
            Some("debian") => debian.map_err(|e| anyhow!("{TOOLCHAIN_ENV}=debian: {e}")),
            Some(other) => bail!("{TOOLCHAIN_ENV}={other}: expected `nightly` or `debian`"),
            None => match (nightly, debian) {
                (Ok(t), _) | (Err(_), Ok(t)) => Ok(t),
                (Err(n), Err(d)) => bail!(
                    "no tool chain for eBPF: nightly: {n}; debian: {d}. Run `cargo xtask setup`, or \
                     `rustup toolchain install nightly --component rust-src`"
                ),
            },
        }
    }

    /// One line for people: which tool chain, and why that one.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Nightly { rustc } => format!("nightly with rust-src ({})", version(rustc)),
            Self::Debian { rustc } => {
                format!(
                    "Debian packages, ready-made core ({}); no nightly with rust-src here",
                    version(rustc)
                )
            }
        }
    }

    fn rustc(&self) -> &Path {
        match self {
            Self::Nightly { rustc } | Self::Debian { rustc } => rustc,
        }
    }
}

fn nightly() -> Result<Toolchain> {
    let rustc = stdout(Command::new("rustup").args(["which", "--toolchain", "nightly", "rustc"]))
        .context("rustup has no nightly")?;
    let rustc = PathBuf::from(rustc);
    let core = PathBuf::from(sysroot(&rustc)?).join("lib/rustlib/src/rust/library/core");
    if !core.is_dir() {
        bail!("nightly lacks the component rust-src");
    }
    Ok(Toolchain::Nightly { rustc })
}

fn debian() -> Result<Toolchain> {
    let rustc = PathBuf::from(DEBIAN_RUSTC);
    if !rustc.exists() {
        bail!("{DEBIAN_RUSTC} is missing (package rustc-web)");
    }
    let target = PathBuf::from(sysroot(&rustc)?).join("lib/rustlib/bpfel-unknown-none/lib");
    if !target.is_dir() {
        bail!("{DEBIAN_RUSTC} has no core for bpfel-unknown-none (package libstd-rust-web-dev-bpf)");
    }
    Ok(Toolchain::Debian { rustc })
}

fn sysroot(rustc: &Path) -> Result<String> {
    stdout(Command::new(rustc).args(["--print", "sysroot"]))
}

fn version(rustc: &Path) -> String {
    stdout(Command::new(rustc).arg("--version")).unwrap_or_else(|e| e.to_string())
}

fn stdout(cmd: &mut Command) -> Result<String> {
    let out = cmd
        .stderr(Stdio::null())
        .output()
        .with_context(|| format!("{cmd:?}"))?;
    if !out.status.success() {
        bail!("{cmd:?}: {}", out.status);
    }
    Ok(String::from_utf8(out.stdout)?.trim().to_owned())
}

/// Flags that keep paths of this machine out of the object: where it was built must not show, or no two builds would be
/// the same. The workspace becomes `.`, because the linker, which runs there, copies source lines into the BTF.
fn remapped(dir: &Path, target_dir: &Path, rustc: &Path) -> Result<Vec<String>> {
    let canonical =
        |path: &Path| fs::canonicalize(path).with_context(|| format!("cannot find {}", path.display()));
    let dir = canonical(dir)?;
    let workspace = dir.ancestors().find(|path| path.join("Cargo.lock").is_file());
    let mut remaps: Vec<(PathBuf, &str)> = vec![(workspace.unwrap_or(&dir).to_owned(), ".")];
    remaps.extend(registry_sources().into_iter().map(|sources| (sources, "/cargo")));
    remaps.push((PathBuf::from(sysroot(rustc)?), "/rust"));
    // After the workspace, which it may lie in: the last one that matches counts.
    remaps.push((target_dir.to_owned(), "/target"));
    let flag = |(from, to): &(PathBuf, &str)| format!("--remap-path-prefix={}={to}", from.display());
    Ok(remaps.iter().map(flag).collect())
}

/// Where cargo unpacks what comes from registries, one directory for each: their names differ between machines.
#[must_use]
pub fn registry_sources() -> Vec<PathBuf> {
    let sources = cargo_home().map(|home| home.join("registry/src"));
    let entries = sources.and_then(|sources| fs::read_dir(sources).ok());
    let mut found: Vec<_> = entries
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    found.sort();
    found
}

/// Where cargo keeps sources and tools.
fn cargo_home() -> Option<PathBuf> {
    env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")))
}

fn bpf_linker() -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(cargo_home().map(|home| home.join("bin")))
        .map(|dir| dir.join("bpf-linker"))
        .find(|p| p.is_file())
        .ok_or_else(|| anyhow!("bpf-linker is not installed: run `cargo xtask setup`"))
}

/// Builds the binary `package` found in `dir` and copies the object to `OUT_DIR/<package>`.
///
/// To be called from a build script: reads `OUT_DIR` and prints cargo directives.
///
/// # Errors
/// When no tool chain is complete, `bpf-linker` is missing, or the crate does not compile; compiler messages
/// go to standard error, which cargo shows on failure.
pub fn build(package: &str, dir: &Path, watch: &[&Path]) -> Result<PathBuf> {
    println!("cargo:rerun-if-env-changed={TOOLCHAIN_ENV}");
    println!("cargo:rerun-if-changed={}", dir.display());
    for path in watch {
        println!("cargo:rerun-if-changed={}", path.display());
    }
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR: not run by cargo")?);
    let arch = env::var("CARGO_CFG_TARGET_ARCH").context("CARGO_CFG_TARGET_ARCH: not run by cargo")?;
    let toolchain = Toolchain::choose()?;
    let linker = bpf_linker()?;
    println!(
        "cargo:warning={package}: eBPF tool chain: {}",
        toolchain.describe()
    );

    let target_dir = out_dir.join("ebpf-target");
    let mut rustflags = vec![
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        "-Cdebuginfo=2".to_owned(),
        "-Cpanic=abort".to_owned(),
        format!("-Clinker={}", linker.display()),
        "-Clink-arg=--btf".to_owned(),
        // In-order expansion turns every memset into a call of a byte loop (measured: 15 % of an established packet).
        "-Clink-arg=--disable-expand-memcpy-in-order".to_owned(),
    ];
    rustflags.extend(remapped(dir, &target_dir, toolchain.rustc())?);
    let mut cmd = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cmd.current_dir(dir)
        .args([
            "build",
            "--release",
            "--target",
            "bpfel-unknown-none",
            "--package",
            package,
            "--bins",
        ])
        .arg("--target-dir")
        .arg(&target_dir);
    if matches!(toolchain, Toolchain::Nightly { .. }) {
        cmd.args(["-Z", "build-std=core"]);
    }
    // The outer cargo's choice of compiler, flags and wrapper is for the host.
    for (key, _) in env::vars_os() {
        let name = key.to_string_lossy();
        if name.starts_with("CARGO_CFG_")
            || name.starts_with("CARGO_FEATURE_")
            || name.starts_with("CARGO_PROFILE_")
        {
            cmd.env_remove(&key);
        }
    }
    for key in [
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
        "CARGO_BUILD_TARGET",
        "RUSTDOC",
    ] {
        cmd.env_remove(key);
    }
    cmd.env("RUSTC", toolchain.rustc())
        // aya-ebpf turns on one unstable feature; Debian's compiler is a stable one.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags.join("\x1f"));
    let status = cmd
        .stdout(Stdio::inherit())
        .status()
        .with_context(|| format!("cannot run {cmd:?}"))?;
    if !status.success() {
        bail!("{package} did not compile for bpfel-unknown-none: {status}");
    }
    let object = target_dir.join("bpfel-unknown-none/release").join(package);
    let copy = out_dir.join(format!("{package}.o"));
    let whole = fs::read(&object).with_context(|| format!("cannot read {}", object.display()))?;
    let stripped = strip::without_dwarf(&whole).with_context(|| object.display().to_string())?;
    fs::write(&copy, stripped).with_context(|| format!("cannot write {}", copy.display()))?;
    Ok(copy)
}
