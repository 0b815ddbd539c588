//! `cargo xtask setup`: gathers facts about the machine, lets [`plan`] decide, installs, and looks again.
//!
//! Idempotent: what is present is not touched, and when nothing is missing nothing is started but version queries.
//! Refuses to install packages unless this is Debian and the user is root; then the exact commands are printed.

mod plan;

use std::{
    fs,
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, Result, bail};
use bulkhead_ebpf_build::Toolchain;

pub use self::plan::Want;
use self::plan::{CargoTool, Facts, Item, LINKER_PACKAGES};
use crate::{
    apiserver,
    process::{self, Workspace},
};

/// Reports, changes nothing; the status says whether all is present.
pub fn check(want: Want) -> Result<ExitCode> {
    let facts = gather()?;
    let items = plan::plan(&facts, want);
    print(&items);
    if items.iter().all(|item| item.remedies.is_empty()) {
        println!("setup: complete");
        return Ok(ExitCode::SUCCESS);
    }
    match plan::by_hand(&facts, &items) {
        Some(lines) => println!("setup: to be installed by hand:\n  {}", lines.join("\n  ")),
        None => println!("setup: `cargo xtask setup` installs what is missing"),
    }
    Ok(ExitCode::FAILURE)
}

/// Installs what `want` lacks. On success everything is present.
pub fn ensure(ws: &Workspace, want: Want) -> Result<()> {
    let facts = gather()?;
    let items = plan::plan(&facts, want);
    if items.iter().all(|item| item.remedies.is_empty()) {
        println!(
            "setup: complete; eBPF compiler: {}",
            facts.compiler.unwrap_or_default()
        );
        return Ok(());
    }
    print(&items);
    if let Some(lines) = plan::by_hand(&facts, &items) {
        let who = if facts.debian.is_some() {
            "not root"
        } else {
            "not Debian"
        };
        bail!(
            "setup cannot install packages here ({who}). Run by hand:\n  {}",
            lines.join("\n  ")
        );
    }
    install(ws, &items)?;

    let facts = gather()?;
    let missing: Vec<_> = plan::plan(&facts, want)
        .iter()
        .filter(|i| !i.remedies.is_empty())
        .map(Item::to_string)
        .collect();
    if !missing.is_empty() {
        bail!(
            "still missing after the installation:\n  {}",
            missing.join("\n  ")
        );
    }
    println!(
        "setup: complete; eBPF compiler: {}",
        facts.compiler.unwrap_or_default()
    );
    Ok(())
}

/// Whether fuzzing is possible.
pub fn has_cargo_fuzz() -> bool {
    process::has_command("cargo-fuzz")
}

fn print(items: &[Item]) {
    for item in items {
        println!("setup: {item}");
    }
}

fn install(ws: &Workspace, items: &[Item]) -> Result<()> {
    let packages = plan::packages(items);
    if !packages.is_empty() {
        println!("setup: installing Debian packages: {}", packages.join(" "));
        process::run(Command::new("apt-get").args(["update", "--quiet"]))?;
        process::run(
            Command::new("apt-get")
                .env("DEBIAN_FRONTEND", "noninteractive")
                .args(["install", "--quiet", "--yes", "--no-install-recommends"])
                .args(&packages),
        )?;
    }
    for tool in plan::cargo_tools(items) {
        let mut cargo = ws.cargo();
        match tool {
            CargoTool::BpfLinker => {
                println!("setup: building bpf-linker, about a minute");
                let prefix = process::output(Command::new("llvm-config-22").arg("--prefix"))
                    .context("bpf-linker is built against LLVM 22")?;
                cargo.env("LLVM_PREFIX", prefix.trim());
            }
            CargoTool::CargoFuzz => println!("setup: building cargo-fuzz, about a minute"),
        }
        process::run(cargo.args(tool.install_args()))?;
    }
    if plan::apiserver(items) {
        apiserver::build(ws)?;
    }
    Ok(())
}

fn gather() -> Result<Facts> {
    let debian = debian_version(&fs::read_to_string("/etc/os-release").unwrap_or_default());
    let installed = if debian.is_some() {
        installed_packages()?
    } else {
        String::new()
    };
    Ok(Facts {
        root: process::is_root()?,
        compiler: Toolchain::choose()
            .map(|chosen| chosen.describe())
            .map_err(|error| format!("{error:#}")),
        bpf_linker: process::has_command("bpf-linker"),
        cargo_fuzz: has_cargo_fuzz(),
        linker_packages_missing: not_installed(LINKER_PACKAGES, &installed),
        tools_missing: plan::all_tools()
            .filter(|tool| !process::has_command(tool.command))
            .collect(),
        apiserver: apiserver::is_built(),
        debian,
    })
}

/// What dpkg says of the packages that are libraries; programs are looked for in `PATH` instead.
fn installed_packages() -> Result<String> {
    let out = Command::new("dpkg-query")
        .args(["--show", "--showformat", r"${Package} ${db:Status-Status}\n"])
        .args(LINKER_PACKAGES)
        .stdin(Stdio::null())
        .stderr(Stdio::null()) // "no packages found matching" is an answer
        .output()
        .context("cannot run `dpkg-query`")?;
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

fn not_installed(packages: &[&'static str], dpkg: &str) -> Vec<&'static str> {
    packages
        .iter()
        .copied()
        .filter(|package| !dpkg.lines().any(|line| line == format!("{package} installed")))
        .collect()
}

/// `VERSION_ID` of an `os-release` that is Debian's own. Derivatives do not carry `rustc-web`.
fn debian_version(os_release: &str) -> Option<String> {
    let field = |name: &str| {
        os_release
            .lines()
            .filter_map(|line| line.split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.trim_matches('"'))
    };
    (field("ID")? == "debian").then(|| field("VERSION_ID").unwrap_or("testing").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_is_told_from_its_derivatives() {
        let debian = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nID=debian\n";
        assert_eq!(debian_version(debian).as_deref(), Some("12"));
        assert_eq!(
            debian_version("ID=ubuntu\nID_LIKE=debian\nVERSION_ID=\"24.04\"\n"),
            None
        );
        assert_eq!(debian_version("ID=debian\n").as_deref(), Some("testing"));
        assert_eq!(debian_version(""), None);
    }

    #[test]
    fn removed_and_unknown_packages_are_not_installed() {
        let dpkg = "llvm-22-dev installed\nlibpolly-22-dev config-files\n";
        assert_eq!(
            not_installed(LINKER_PACKAGES, dpkg),
            ["libpolly-22-dev", "libzstd-dev"]
        );
    }
}
