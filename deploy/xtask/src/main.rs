//! `cargo xtask`: the one entry point to this repository.
//!
//! Owns the command line and hands each subcommand to its module. Assumes it is started by cargo (the alias in
//! `.cargo/config.toml`), on Linux. Refuses to guess: what needs root, a tool or a tier that is missing is said,
//! with the command that mends it, and ends in a non-zero status.
#![forbid(unsafe_code)]

mod ahead;
mod apiserver;
mod arrows;
mod debian;
mod fuzz;
mod image;
mod libtest;
mod manifests;
mod metadata;
mod netns;
mod process;
mod report;
mod setup;
mod skips;
mod slowest;
mod test;
mod vm;

use std::{ffi::OsString, process::ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};

use crate::{metadata::Metadata, process::Workspace, setup::Want};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Build, check, test and measure Bulkhead"
)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what the build and the tests need; does nothing when all is present
    Setup {
        /// Only report; status 1 when something is missing
        #[arg(long)]
        check: bool,
        /// Also cargo-fuzz
        #[arg(long)]
        fuzz: bool,
        /// Also what `vm-test` needs
        #[arg(long)]
        vm: bool,
        /// Also the Kubernetes API server that tests run against: about six minutes, once
        #[arg(long)]
        kube: bool,
    },
    /// Build every default member, the eBPF objects included
    Build {
        /// Optimised
        #[arg(long)]
        release: bool,
    },
    /// Build the container image: one static binary, reproducible, with its bill of materials
    Image(image::Options),
    /// Build `bulkhead` and run its demo in network namespaces of its own (needs root)
    #[command(disable_help_flag = true)]
    Demo {
        /// Arguments of `bulkhead demo`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Build and run the side-by-side network benchmark (needs root): a quarter of an hour, under five minutes with `--quick`
    #[command(disable_help_flag = true)]
    Bench {
        /// Arguments of `bulkhead-bench`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Build and run the soak: random traffic, commits and floods, then every counter explained (needs root)
    #[command(disable_help_flag = true)]
    Soak {
        /// Arguments of `bulkhead-soak`, `--minutes N` among them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Format every crate
    Fmt,
    /// Formatting, clippy with warnings denied, and the arrows between the crates
    Lint,
    /// Check the arrows between the crates alone
    Arrows,
    /// Run the tests, tier by tier, and print a table
    Test(test::Options),
    /// Run the privileged tests on other kernels, in machines emulated by qemu
    VmTest(vm::Options),
    /// Build the Kubernetes API server that tests run against, unless it was built: about six minutes
    KubeEnv {
        /// Start it on loopback, with its store, and stay until Ctrl-C
        #[arg(long)]
        run: bool,
        /// Arguments of `bulkhead-kube-env`, after `--`
        #[arg(last = true, requires = "run")]
        args: Vec<OsString>,
    },
    /// Render the Helm chart's golden files and the plain manifests anew
    Manifests,
    /// Fuzz the parser, starting from the stored corpus
    Fuzz {
        /// How long to run each target
        #[arg(long, default_value_t = 60)]
        seconds: u32,
    },
}

fn main() -> ExitCode {
    match dispatch(Cli::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(task: Task) -> Result<ExitCode> {
    let ws = Workspace::find()?;
    match task {
        Task::Setup {
            check,
            fuzz,
            vm,
            kube,
        } => {
            let want = Want {
                network: true,
                attack: true,
                docker: true,
                fuzz,
                vm,
                kube,
            };
            if check {
                return setup::check(want);
            }
            setup::ensure(&ws, want)?;
        }
        Task::Build { release } => {
            setup::ensure(&ws, Want::default())?;
            let mut build = ws.cargo();
            build.arg("build");
            if release {
                build.arg("--release");
            }
            process::run(&mut build)?;
        }
        Task::Image(options) => return image::run(&ws, &options),
        Task::Demo { args } => {
            needs_root("demo", "it creates network namespaces and loads eBPF programs")?;
            let args = std::iter::once(OsString::from("demo")).chain(args);
            return build_and_become(&ws, "bulkhead-agent", "bulkhead", args);
        }
        Task::Bench { args } => {
            needs_root("bench", "it creates network namespaces and loads eBPF programs")?;
            // The daemon that it starts and stops lies beside it.
            let build = [
                "build",
                "--release",
                "--package",
                "bulkhead-agent",
                "--bin",
                "bulkhead",
            ];
            process::run(ws.cargo().args(build))?;
            return build_and_become(&ws, "bulkhead-bench", "bulkhead-bench", args);
        }
        Task::Soak { args } => {
            needs_root("soak", "it creates network namespaces and loads eBPF programs")?;
            return build_and_become(&ws, "bulkhead-soak", "bulkhead-soak", args);
        }
        Task::Fmt => format(&ws, false)?,
        Task::Lint => return lint(&ws),
        Task::Arrows => return arrows::run(&ws),
        Task::Test(options) => return test::run(&ws, &options),
        Task::VmTest(options) => return vm::run(&ws, &options),
        Task::KubeEnv { run, args } => return apiserver::run(&ws, run, &args),
        Task::Manifests => manifests::run(&ws)?,
        Task::Fuzz { seconds } => {
            setup::ensure(
                &ws,
                Want {
                    fuzz: true,
                    ..Want::default()
                },
            )?;
            return fuzz::run(&ws, seconds);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn lint(ws: &Workspace) -> Result<ExitCode> {
    format(ws, true)?;
    setup::ensure(ws, Want::default())?;
    process::run(
        ws.cargo()
            .args(["clippy", "--all-targets", "--", "-D", "warnings"]),
    )?;
    arrows::run(ws)
}

/// Formats, or with `check` only looks. The fuzz crate is a workspace of its own and comes extra.
fn format(ws: &Workspace, check: bool) -> Result<()> {
    for manifest in [ws.root.join("Cargo.toml"), fuzz::dir(ws).join("Cargo.toml")] {
        if manifest.is_file() {
            let mut fmt = ws.cargo();
            fmt.args(["fmt", "--all", "--manifest-path"]).arg(manifest);
            if check {
                fmt.arg("--check");
                process::run(&mut fmt).context("not formatted, run `cargo xtask fmt`")?;
            } else {
                process::run(&mut fmt)?;
            }
        }
    }
    Ok(())
}

/// Builds `bin` of `package` for release and replaces this process by it. Returns only errors.
fn build_and_become(
    ws: &Workspace,
    package: &str,
    bin: &str,
    args: impl IntoIterator<Item = OsString>,
) -> Result<ExitCode> {
    setup::ensure(
        ws,
        Want {
            network: true,
            ..Want::default()
        },
    )?;
    process::run(
        ws.cargo()
            .args(["build", "--release", "--package", package, "--bin", bin]),
    )?;
    let program = Metadata::load(ws)?.target_directory.join("release").join(bin);
    let mut command = std::process::Command::new(&program);
    command.args(args);
    process::become_it(command)
}

fn needs_root(task: &str, why: &str) -> Result<()> {
    if process::is_root()? {
        return Ok(());
    }
    bail!(
        "`cargo xtask {task}` needs root, because {why}: run `sudo -E env PATH=\"$PATH\" cargo xtask {task}`"
    )
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn arguments_of_demo_bench_and_soak_pass_through() {
        let Task::Demo { args } = Cli::parse_from(["cargo xtask", "demo", "--keep", "--help"]).task else {
            panic!("not parsed as demo");
        };
        assert_eq!(args, ["--keep", "--help"]);
        let Task::Bench { args } = Cli::parse_from(["cargo xtask", "bench", "--quick", "tcx"]).task else {
            panic!("not parsed as bench");
        };
        assert_eq!(args, ["--quick", "tcx"]);
        let Task::Soak { args } = Cli::parse_from(["cargo xtask", "soak", "--minutes", "3"]).task else {
            panic!("not parsed as soak");
        };
        assert_eq!(args, ["--minutes", "3"]);
    }
}
