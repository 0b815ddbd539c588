//! The initial file system of a test machine: busybox, `init.sh`, modules, the tests at the paths they have here, and what
//! they start.
//!
//! Assumes that tests find their own files at compile time or below their package's directory. Refuses nothing: a program
//! that is missing here is missing there, and the test that needs it fails.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::BufWriter,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, anyhow};

use super::{
    cpio::Archive,
    modules::Module,
    plan::{self, Plan},
};
use crate::process;

/// What tests start besides what busybox has.
const TOOLS: &[&str] = &["ip", "tc", "ethtool", "ping", "setpriv", "sysctl"];

/// What goes into the machine.
pub struct Contents<'a> {
    /// The static busybox.
    pub busybox: &'a Path,
    /// In the order in which they load.
    pub modules: &'a [Module],
    /// The tests, and what they start that cargo has built.
    pub plan: &'a Plan,
}

/// Writes the file system to `file`.
pub fn write(file: &Path, contents: &Contents<'_>) -> Result<()> {
    let failed = || format!("cannot write {}", file.display());
    let mut archive = Archive::new(BufWriter::new(File::create(file).with_context(failed)?));
    let busybox = read(contents.busybox)?;
    let mut list = String::new();
    archive
        .file(Path::new("/bin/busybox"), &busybox)
        .with_context(failed)?;
    archive
        .file(Path::new("/init"), include_bytes!("init.sh"))
        .with_context(failed)?;
    for module in contents.modules {
        let path = Path::new("/vm/modules.d").join(&module.name);
        archive.file(&path, &module.object).with_context(failed)?;
        list.push_str(&format!("{}\n", module.name));
    }
    archive
        .file(Path::new("/vm/modules"), list.as_bytes())
        .with_context(failed)?;

    let tools: Vec<_> = TOOLS
        .iter()
        .filter_map(|tool| process::command_path(tool))
        .collect();
    let own = contents.plan.binaries.iter().map(|binary| &binary.executable);
    let programs: Vec<_> = own.chain(&contents.plan.programs).chain(&tools).collect();
    for library in libraries(&programs)? {
        archive.file(&library, &read(&library)?).with_context(failed)?;
    }
    for program in programs {
        archive.file(program, &read(program)?).with_context(failed)?;
    }
    for binary in &contents.plan.binaries {
        archive.directory(&binary.directory).with_context(failed)?;
    }
    let plan: String = contents
        .plan
        .tests()
        .map(|(binary, test)| {
            let (directory, executable) = (binary.directory.display(), binary.executable.display());
            format!("{directory} {executable} {test} {}\n", plan::OPTIONS)
        })
        .collect();
    archive
        .file(Path::new("/vm/plan"), plan.as_bytes())
        .with_context(failed)?;
    archive.finish().with_context(failed)?;
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The shared libraries of `programs`, the dynamic linker among them, under the names they are looked for.
fn libraries(programs: &[&PathBuf]) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for program in programs {
        // A static program is not an error, but `ldd`'s status says so.
        let out = Command::new("ldd")
            .arg(program)
            .output()
            .context("cannot run `ldd`")?;
        let text = String::from_utf8_lossy(&out.stdout);
        if let Some(missing) = text.lines().find(|line| line.contains("not found")) {
            return Err(anyhow!("{}: {}", program.display(), missing.trim()));
        }
        found.extend(paths(&text).map(PathBuf::from));
    }
    Ok(found)
}

/// The files that `ldd` names: `libc.so.6 => /lib/… (0x…)` and `/lib64/ld-linux… (0x…)`, not the one that is no file.
fn paths(ldd: &str) -> impl Iterator<Item = &str> {
    ldd.lines().filter_map(|line| {
        let line = line.split_once("=> ").map_or(line, |(_, path)| path).trim();
        let path = line.split(" (").next()?;
        path.starts_with('/').then_some(path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_what_ldd_prints() {
        let ldd = "\tlinux-vdso.so.1 (0x00007f2bedef1000)\n\
                   \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f2bedcdb000)\n\
                   \t/lib64/ld-linux-x86-64.so.2 (0x00007f2bedef3000)\n";
        assert_eq!(
            paths(ldd).collect::<Vec<_>>(),
            ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]
        );
        assert_eq!(paths("\tstatically linked\n").count(), 0);
    }
}
