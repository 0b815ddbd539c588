//! A mounted ConfigMap: a directory in which the kubelet swaps one symbolic link, `..data`, and with it every file at once.
//!
//! Watches the directory, not the file: the file that was opened never changes, its name leads elsewhere. A mount with
//! `subPath` is the file itself, bound once, and no change ever arrives: [`is_sub_path`] finds it out, so that somebody
//! hears of it. Says that something has changed and judges nothing.

use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// The link that is swapped.
const LINK: &str = "..data";
/// How long a directory must be quiet before it is read: a swap is several steps.
const QUIET: u16 = 50;
/// How often the watch looks whether it should end.
const LOOK: u16 = 500;
/// A directory that is not there yet again is looked for so often.
const GONE: Duration = Duration::from_secs(1);

/// Whether a file is one of a mounted ConfigMap or Secret: its directory has the link.
pub fn is_mounted(file: &Path) -> bool {
    fs::symlink_metadata(directory(file).join(LINK)).is_ok_and(|link| link.is_symlink())
}

/// Whether a file is a `subPath` of a volume, which never changes: by what the kernel says is mounted.
pub fn is_sub_path(file: &Path) -> bool {
    let whole = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    fs::read_to_string("/proc/self/mountinfo").is_ok_and(|table| binds_sub_path(&table, &whole))
}

/// A line of the table: id, parent, device, root, mount point, … (proc(5)).
fn binds_sub_path(table: &str, file: &Path) -> bool {
    table.lines().any(|line| {
        let mut fields = line.split(' ').skip(3);
        let (root, point) = (
            fields.next().unwrap_or_default(),
            fields.next().unwrap_or_default(),
        );
        Path::new(&unescaped(point)) == file
            && ["/volume-subpaths/", "/volumes/kubernetes.io~"]
                .iter()
                .any(|part| root.contains(part))
    })
}

/// Spaces and the like are octal there.
fn unescaped(text: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .into_iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(text.to_owned(), |text, (code, character)| {
            text.replace(code, character)
        })
}

fn directory(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// A running watch; ends when it is dropped.
#[derive(Debug)]
pub struct Mounted {
    closing: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Mounted {
    /// Calls `changed` in a thread of its own whenever the directory of `file` was swapped, and once at the beginning: it may
    /// have been swapped before anybody watched. Calls `beat` as long as the thread makes progress.
    ///
    /// # Errors
    /// If the directory cannot be watched, or there can be no thread.
    pub fn watch(
        file: &Path,
        beat: impl Fn() + Send + 'static,
        changed: impl FnMut() + Send + 'static,
    ) -> io::Result<Self> {
        let directory = directory(file);
        let inotify = watch_of(&directory)?;
        let closing = Arc::new(AtomicBool::new(false));
        let thread = thread::Builder::new().name("bulkhead-mount".to_owned()).spawn({
            let closing = closing.clone();
            move || keep(inotify, &directory, &closing, beat, changed)
        })?;
        Ok(Self {
            closing,
            thread: Some(thread),
        })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that watches the mounted configuration has panicked");
        }
    }
}

fn watch_of(directory: &Path) -> io::Result<Inotify> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    let what = AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_ONLYDIR;
    inotify.add_watch(directory, what)?;
    Ok(inotify)
}

fn keep(
    inotify: Inotify,
    directory: &Path,
    closing: &AtomicBool,
    beat: impl Fn(),
    mut changed: impl FnMut(),
) {
    // `None`: the directory is away, or is another one now.
    let mut watched = Some(inotify);
    let mut due = true;
    while !closing.load(Ordering::Relaxed) {
        beat();
        let Some(inotify) = &watched else {
            match watch_of(directory) {
                // What it has now is news.
                Ok(again) => (watched, due) = (Some(again), true),
                Err(error) => {
                    tracing::debug!(directory = %directory.display(), %error, "the mounted configuration is gone");
                    thread::sleep(GONE);
                }
            }
            continue;
        };
        let wait = PollTimeout::from(if due { QUIET } else { LOOK });
        let mut ready = [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, wait) {
            Ok(0) if due => {
                due = false;
                if panic::catch_unwind(AssertUnwindSafe(&mut changed)).is_err() {
                    tracing::error!(
                        "reading the mounted configuration has panicked; the next change is tried again"
                    );
                }
            }
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => match swapped(inotify) {
                Some(swapped) => due |= swapped,
                None => watched = None,
            },
            Err(error) => {
                tracing::error!(%error, "cannot watch the mounted configuration any more; SIGHUP reads it");
                return;
            }
        }
    }
}

/// Whether the link was swapped; `None`: the watch is over, or cannot be read.
fn swapped(inotify: &Inotify) -> Option<bool> {
    let mut swapped = false;
    loop {
        match inotify.read_events() {
            Ok(events) => {
                for event in events {
                    let over = AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_IGNORED;
                    if event.mask.intersects(over) {
                        return None;
                    }
                    // More than the queue holds: something has surely changed.
                    swapped |= event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW)
                        || event.name.is_some_and(|name| name == LINK);
                }
            }
            Err(Errno::EAGAIN) => return Some(swapped),
            Err(Errno::EINTR) => {}
            Err(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::mpsc::{RecvTimeoutError, channel};

    use super::*;

    /// As the kubelet's atomic writer does it: a new directory, a new link beside the old one, one rename.
    fn swap(volume: &Path, number: u32, content: &str) {
        let fresh = format!("..2026_{number}");
        fs::create_dir(volume.join(&fresh)).expect("a directory");
        fs::write(volume.join(&fresh).join("firewall.yaml"), content).expect("a file");
        symlink(&fresh, volume.join("..data_tmp")).expect("a link");
        fs::rename(volume.join("..data_tmp"), volume.join(LINK)).expect("a swap");
    }

    #[test]
    fn each_swap_is_noticed_once_and_other_files_are_not() {
        let volume = tempfile::tempdir().expect("a directory");
        let file = volume.path().join("firewall.yaml");
        assert!(!is_mounted(&file));
        swap(volume.path(), 1, "one");
        symlink("..data/firewall.yaml", &file).expect("a link");
        assert!(is_mounted(&file));
        let (told, heard) = channel();
        let read = file.clone();
        // What came between somebody's reading and the watch is not lost.
        swap(volume.path(), 2, "two");
        let changed = move || {
            let _ = told.send(fs::read_to_string(&read));
        };
        let watch = Mounted::watch(&file, || {}, changed).expect("a watch");
        for (number, content) in [(2, "two"), (3, "three"), (4, "four")] {
            if number > 2 {
                swap(volume.path(), number, content);
            }
            let found = heard.recv_timeout(Duration::from_secs(5)).expect("it is noticed");
            assert_eq!(found.expect("it can be read"), content);
        }
        fs::write(volume.path().join("..other"), "").expect("a file");
        assert_eq!(
            heard.recv_timeout(Duration::from_millis(300)).err(),
            Some(RecvTimeoutError::Timeout)
        );
        drop(watch);
        swap(volume.path(), 5, "five");
        assert_eq!(
            heard.recv().err(),
            Some(std::sync::mpsc::RecvError),
            "a dropped watch is over"
        );
    }

    #[test]
    fn a_directory_that_is_away_for_a_while_and_a_panic_do_not_end_the_watch() {
        let parent = tempfile::tempdir().expect("a directory");
        let (volume, aside) = (parent.path().join("volume"), parent.path().join("aside"));
        fs::create_dir(&volume).expect("a directory");
        swap(&volume, 1, "one");
        let (told, heard) = channel();
        let mut calls = 0;
        let changed = move || {
            calls += 1;
            let _ = told.send(calls);
            assert!(calls != 2, "for the test");
        };
        let watch = Mounted::watch(&volume.join("firewall.yaml"), || {}, changed).expect("a watch");
        let wait = Duration::from_secs(5);
        assert_eq!(heard.recv_timeout(wait), Ok(1));
        swap(&volume, 2, "two");
        assert_eq!(heard.recv_timeout(wait), Ok(2), "it panics");
        swap(&volume, 3, "three");
        assert_eq!(heard.recv_timeout(wait), Ok(3));
        fs::create_dir(&aside).expect("a directory");
        swap(&aside, 1, "other");
        fs::remove_dir_all(&volume).expect("it goes");
        // Long enough for more than one look.
        thread::sleep(GONE * 2);
        fs::rename(&aside, &volume).expect("it comes back");
        let back = heard.recv_timeout(wait).expect("it is found");
        swap(&volume, 4, "four");
        assert_eq!(heard.recv_timeout(wait), Ok(back + 1));
        drop(watch);
    }

    #[test]
    fn a_sub_path_is_found_out_by_what_is_mounted() {
        let table = "\
            30 1 8:1 / / rw - ext4 /dev/root rw\n\
            91 30 8:1 /var/lib/kubelet/pods/0c/volume-subpaths/cfg/fw/0 /etc/bulkhead/firewall.yaml ro - ext4 /dev/root rw\n\
            92 30 8:1 /var/lib/kubelet/pods/0c/volumes/kubernetes.io~configmap/cfg /etc/my\\040cfg ro - ext4 /dev/root rw\n\
            93 30 8:1 /srv/firewall.yaml /srv/fw.yaml ro - ext4 /dev/root rw\n";
        let is = |path: &str| binds_sub_path(table, Path::new(path));
        assert!(is("/etc/bulkhead/firewall.yaml"));
        assert!(
            !is("/etc/my cfg/firewall.yaml"),
            "a file of a volume, below its mount point"
        );
        assert!(!is("/srv/fw.yaml"), "somebody's own bind mount");
        assert!(!is("/etc/bulkhead"));
    }
}
