//! Which tests a machine runs: built here, listed here, so that one that does not run there is missed.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, anyhow, bail};
use serde::Deserialize;

use crate::process::{self, Workspace};

/// How every test is started: as the privileged tier starts them, each in a process of its own.
pub const OPTIONS: &str = "--exact --color=never --test-threads=1 --show-output";

/// A test binary.
#[derive(Debug)]
pub struct Binary {
    /// Where it is, here and there.
    pub executable: PathBuf,
    /// Its package's directory, in which it runs.
    pub directory: PathBuf,
    /// The names of its tests that run.
    pub tests: Vec<String>,
}

/// What was built.
#[derive(Debug, Default)]
pub struct Plan {
    /// Those with tests to run.
    pub binaries: Vec<Binary>,
    /// Programs of this workspace that tests start.
    pub programs: Vec<PathBuf>,
}

impl Plan {
    /// The tests in the order in which they run, each with its binary.
    pub fn tests(&self) -> impl Iterator<Item = (&Binary, &str)> {
        self.binaries
            .iter()
            .flat_map(|binary| binary.tests.iter().map(move |test| (binary, test.as_str())))
    }
}

/// A line of `cargo build --message-format=json`.
#[derive(Debug, Deserialize)]
struct Artifact {
    reason: String,
    #[serde(default)]
    executable: Option<PathBuf>,
    #[serde(default)]
    manifest_path: PathBuf,
    #[serde(default)]
    profile: Profile,
}

#[derive(Debug, Default, Deserialize)]
struct Profile {
    #[serde(default)]
    test: bool,
}

/// Builds the tests of `packages` (all default members if there are none), or of them only the integration tests called
/// `targets`, and keeps those whose names contain one of `filters` and none of `skips`.
pub fn build(
    ws: &Workspace,
    packages: &[String],
    targets: &[String],
    filters: &[String],
    skips: &[String],
) -> Result<Plan> {
    let mut cargo = ws.cargo();
    cargo.args(["test", "--no-run", "--message-format=json"]);
    for package in packages {
        cargo.args(["--package", package]);
    }
    for target in targets {
        cargo.args(["--test", target]);
    }
    process::echo(&cargo);
    let json = process::output(&mut cargo)?;
    let mut plan = Plan::default();
    for (artifact, executable) in json.lines().filter_map(artifact) {
        if !artifact.profile.test {
            plan.programs.push(executable);
            continue;
        }
        let directory = artifact
            .manifest_path
            .parent()
            .ok_or_else(|| anyhow!("a manifest without a directory"))?
            .to_path_buf();
        let skips = skips.iter().flat_map(|name| ["--skip".to_owned(), name.clone()]);
        let selection: Vec<String> = filters.iter().cloned().chain(skips).collect();
        let tests = list(&executable, &directory, &selection)?;
        if !tests.is_empty() {
            plan.binaries.push(Binary {
                executable,
                directory,
                tests,
            });
        }
    }
    plan.binaries.sort_by(|a, b| a.executable.cmp(&b.executable));
    Ok(plan)
}

fn artifact(line: &str) -> Option<(Artifact, PathBuf)> {
    let mut artifact: Artifact = serde_json::from_str(line).ok()?;
    let executable = artifact.executable.take()?;
    (artifact.reason == "compiler-artifact").then_some((artifact, executable))
}

/// The names of the tests of a binary that are selected.
fn list(executable: &Path, directory: &Path, selection: &[String]) -> Result<Vec<String>> {
    let out = Command::new(executable)
        .args(["--list", "--format=terse"])
        .args(selection)
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", executable.display()))?;
    if !out.status.success() {
        bail!("{} does not list its tests: {}", executable.display(), out.status);
    }
    let text = String::from_utf8_lossy(&out.stdout);
    let names = text.lines().filter_map(|line| line.strip_suffix(": test"));
    Ok(names.map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_artifacts_that_run_are_kept() {
        let test = r#"{"reason":"compiler-artifact","manifest_path":"/w/dataplane/Cargo.toml","target":{"name":"netns_nat"},
            "profile":{"opt_level":"0","test":true},"executable":"/t/deps/netns_nat-1"}"#;
        let (artifact, executable) = super::artifact(test).expect("a test binary");
        assert!(artifact.profile.test);
        assert_eq!(executable, Path::new("/t/deps/netns_nat-1"));
        assert_eq!(artifact.manifest_path, Path::new("/w/dataplane/Cargo.toml"));
        for line in [
            r#"{"reason":"compiler-artifact","profile":{"test":false},"executable":null}"#,
            r#"{"reason":"build-finished","success":true}"#,
            "warning: something",
        ] {
            assert!(super::artifact(line).is_none(), "{line}");
        }
    }
}
