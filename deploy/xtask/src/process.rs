//! Starting other programs.
//!
//! Owns where the workspace is and how a child is announced, run and judged. Every child gets an empty standard
//! input: nothing here may wait for a person.

use std::{
    env,
    ffi::{OsStr, OsString},
    io::{BufRead as _, BufReader, Read},
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, ExitCode, ExitStatus, Stdio},
};

use anyhow::{Context as _, Result, anyhow, bail};

/// The checkout that this xtask belongs to.
pub struct Workspace {
    /// The directory of the workspace's `Cargo.toml`.
    pub root: PathBuf,
    cargo: OsString,
}

impl Workspace {
    /// Finds the workspace from the manifest directory that cargo names when it runs us.
    pub fn find() -> Result<Self> {
        let manifest =
            env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| OsString::from(env!("CARGO_MANIFEST_DIR")));
        let root = Path::new(&manifest)
            .ancestors()
            .nth(2)
            .filter(|root| root.join("Cargo.lock").is_file())
            .ok_or_else(|| {
                anyhow!(
                    "no workspace two directories above {}: start with `cargo xtask`",
                    manifest.display()
                )
            })?
            .to_path_buf();
        Ok(Self {
            root,
            cargo: env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")),
        })
    }

    /// The same tool chain on sources that lie elsewhere.
    pub fn elsewhere(&self, root: PathBuf) -> Self {
        Self {
            root,
            cargo: self.cargo.clone(),
        }
    }

    /// A cargo command in the workspace, of the tool chain that built this xtask.
    pub fn cargo(&self) -> Command {
        let mut cargo = Command::new(&self.cargo);
        cargo.current_dir(&self.root);
        cargo
    }
}

/// Prints a command the way one would type it.
pub fn echo(command: &Command) {
    println!("$ {}", typed(command));
}

/// Runs a command to its end; its output goes where ours goes.
pub fn run(command: &mut Command) -> Result<()> {
    echo(command);
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| cannot_run(command))?;
    if !status.success() {
        bail!("`{}` failed: {status}", typed(command));
    }
    Ok(())
}

/// Replaces this process by a command, so that signals and the exit status are the command's own. Returns only an error.
pub fn become_it(mut command: Command) -> Result<ExitCode> {
    echo(&command);
    let error = command.exec();
    Err(anyhow::Error::new(error).context(cannot_run(&command)))
}

/// Which stream of a child [`follow`] reads; the other one passes through.
#[derive(Clone, Copy)]
pub enum Stream {
    /// Where libtest reports.
    Out,
    /// Where libFuzzer reports.
    Err,
}

/// Runs a command, prints each line of `stream` as it comes and hands it to `each`.
pub fn follow(command: &mut Command, stream: Stream, mut each: impl FnMut(&str)) -> Result<ExitStatus> {
    echo(command);
    command.stdin(Stdio::null());
    match stream {
        Stream::Out => command.stdout(Stdio::piped()),
        Stream::Err => command.stderr(Stdio::piped()),
    };
    let mut child = command.spawn().with_context(|| cannot_run(command))?;
    let reader: Box<dyn Read> = match stream {
        Stream::Out => Box::new(child.stdout.take().context("child without stdout")?),
        Stream::Err => Box::new(child.stderr.take().context("child without stderr")?),
    };
    let mut reader = BufReader::new(reader);
    let mut bytes = Vec::new();
    // Bytes, not `lines()`: a fuzzer prints inputs that are not UTF-8.
    while reader.read_until(b'\n', &mut bytes)? != 0 {
        let line = String::from_utf8_lossy(&bytes);
        let line = line.trim_end_matches(['\n', '\r']);
        println!("{line}");
        each(line);
        bytes.clear();
    }
    Ok(child.wait()?)
}

/// The standard output of a command that must succeed; its errors pass through.
pub fn output(command: &mut Command) -> Result<String> {
    let out = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| cannot_run(command))?;
    if !out.status.success() {
        bail!("`{}` failed: {}", typed(command), out.status);
    }
    String::from_utf8(out.stdout).with_context(|| format!("`{}` printed something not UTF-8", typed(command)))
}

/// Whether `name` is a program that can be started. Looks into the `sbin` directories too: a plain user's `PATH` on
/// Debian lacks them, while the tests that need those programs run as root. Of a whole path, whether anything is there.
pub fn has_command(name: &str) -> bool {
    if name.starts_with('/') {
        return Path::new(name).exists();
    }
    command_path(name).is_some()
}

/// Where `name` is, found as [`has_command`] finds it.
pub fn command_path(name: &str) -> Option<PathBuf> {
    find_command(name, &env::var_os("PATH").unwrap_or_default())
}

fn find_command(name: &str, path: &OsStr) -> Option<PathBuf> {
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    env::split_paths(path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .chain(home.map(|home| home.join("bin")))
        .map(|dir| dir.join(name))
        .find(|file| {
            file.metadata()
                .is_ok_and(|meta| meta.is_file() && meta.mode() & 0o111 != 0)
        })
}

/// Whether the effective user is root.
pub fn is_root() -> Result<bool> {
    Ok(Path::new("/proc/self")
        .metadata()
        .context("/proc is not mounted")?
        .uid()
        == 0)
}

/// Whether this is a run of continuous integration, where nothing may be skipped in silence.
pub fn is_ci() -> bool {
    env::var_os("CI").is_some_and(|ci| !ci.is_empty() && ci != "false" && ci != "0")
}

fn cannot_run(command: &Command) -> String {
    format!("cannot run `{}`", typed(command))
}

/// A command the way one would type it.
pub fn typed(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let program = program.file_name().unwrap_or(program.as_os_str());
    let set = command
        .get_envs()
        .filter_map(|(name, value)| Some(format!("{}={}", name.display(), quoted(value?))));
    let words = std::iter::once(program).chain(command.get_args()).map(quoted);
    set.chain(words).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    if word.is_empty() || word.contains(|c: char| c.is_whitespace() || "'\"$;&|<>(){}*?".contains(c)) {
        return format!("'{}'", word.replace('\'', r"'\''"));
    }
    word.into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_printed_as_typed() {
        let mut command = Command::new("/opt/bin/cargo");
        command
            .env("LLVM_PREFIX", "/usr/lib/llvm-22")
            .args(["test", "--", "a b", "it's"]);
        assert_eq!(
            typed(&command),
            r"LLVM_PREFIX=/usr/lib/llvm-22 cargo test -- 'a b' 'it'\''s'"
        );
    }

    #[test]
    fn a_failing_child_is_an_error_with_its_status() {
        let error = run(Command::new("sh").args(["-c", "exit 3"])).expect_err("status 3");
        assert!(error.to_string().contains("exit status: 3"), "{error}");
    }

    #[test]
    fn following_survives_bytes_that_are_not_text() {
        let mut lines = Vec::new();
        let status = follow(Command::new("printf").arg(r"a\n\377b"), Stream::Out, |l| {
            lines.push(l.to_owned())
        })
        .expect("printf runs");
        assert!(status.success());
        assert_eq!(lines, ["a", "\u{fffd}b"]);
    }

    #[test]
    fn only_executable_files_are_commands() {
        assert!(find_command("sh", OsStr::new("/bin")).is_some());
        assert!(
            find_command("passwd", OsStr::new("/etc")).is_none(),
            "/etc/passwd is no program"
        );
    }
}
