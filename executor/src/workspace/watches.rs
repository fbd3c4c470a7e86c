//! Folders that the kernel watches, by inotify.
//!
//! The kernel queues an event inside the call that makes the change, so whoever empties the queue
//! has heard of every change that came before. It does not tell of a write through a hard link
//! whose name lies in another folder, nor of one through a memory map until that is let go.
//! A watch stays with its folder where that is moved; that its path leads elsewhere now is told by
//! the watch of the folder above.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

/// Bytes of events that are read at once.
const BUFFER_BYTES: usize = 64 * 1024;

/// Watched folders, each with a key that its events carry.
#[derive(Debug)]
pub struct Watches<K> {
    queue: OwnedFd,
    keys: HashMap<i32, K>,
}

/// A watch, as the kernel numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchId(i32);

/// What the kernel says.
#[derive(Debug)]
pub enum Seen<'a, K> {
    /// Something happened to an entry of a folder.
    Entry {
        /// The folder.
        key: &'a K,
        /// The entry.
        name: &'a OsStr,
        /// Whether it came or went; else it was changed.
        listed: bool,
    },
    /// A folder itself went, was moved or changed, or is no longer watched.
    Folder(&'a K),
    /// Events were lost.
    Lost,
}

impl<K: Clone + PartialEq> Watches<K> {
    /// No folder yet.
    pub fn new() -> io::Result<Self> {
        let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK);
        let queue = queue.map_err(|error| match error {
            Errno::MFILE => io::Error::other(
                "the user has too many queues of file events, see `fs.inotify.max_user_instances`",
            ),
            error => error.into(),
        })?;
        Ok(Self { queue, keys: HashMap::new() })
    }

    /// How many folders are watched.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether no folder is watched.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Watches a folder; `None` where it is watched already under another key, as the kernel knows
    /// it by its inode. A link is not followed. `NOSPC` says that the user has too many watches.
    pub fn add(&mut self, folder: &Path, key: K) -> Result<Option<WatchId>, Errno> {
        let flags = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MODIFY
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::ATTRIB
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR
            | WatchFlags::DONT_FOLLOW;
        let id = inotify::add_watch(&self.queue, folder, flags)?;
        let other = self.keys.get(&id).is_some_and(|other| *other != key);
        if !other {
            self.keys.insert(id, key);
        }
        Ok((!other).then_some(WatchId(id)))
    }

    /// Ends a watch; events of it that wait are dropped.
    pub fn remove(&mut self, id: WatchId) {
        self.keys.remove(&id.0);
        // It may have ended by itself, with its folder.
        let _ = inotify::remove_watch(&self.queue, id.0);
    }

    /// Tells of everything that happened since the last time, without waiting.
    pub fn drain(&mut self, mut tell: impl FnMut(Seen<'_, K>)) -> io::Result<()> {
        let mut buffer = vec![MaybeUninit::uninit(); BUFFER_BYTES];
        let mut reader = Reader::new(self.queue.as_fd(), &mut buffer);
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let what = event.events();
            if what.contains(ReadFlags::QUEUE_OVERFLOW) {
                tell(Seen::Lost);
                continue;
            }
            // A watch that was ended has no key any more.
            let Some(key) = self.keys.get(&event.wd()) else { continue };
            match event.file_name() {
                Some(name) => {
                    let came_or_went = ReadFlags::CREATE
                        | ReadFlags::DELETE
                        | ReadFlags::MOVED_FROM
                        | ReadFlags::MOVED_TO;
                    let listed = what.intersects(came_or_went);
                    tell(Seen::Entry { key, name: OsStr::from_bytes(name.to_bytes()), listed });
                }
                None => tell(Seen::Folder(key)),
            }
            if what.contains(ReadFlags::IGNORED) {
                self.keys.remove(&event.wd());
            }
        }
    }

    /// Waits until something happens; `false` if nothing does for so many milliseconds.
    pub fn wait(&self, wait_ms: u64) -> io::Result<bool> {
        let nanos = i64::try_from(wait_ms % 1_000 * 1_000_000).unwrap_or_default();
        let seconds = i64::try_from(wait_ms / 1_000).unwrap_or(i64::MAX);
        let timeout = Timespec { tv_sec: seconds, tv_nsec: nanos };
        match poll(&mut [PollFd::new(&self.queue, PollFlags::IN)], Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => Ok(false),
            Ok(_) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }
}

impl<K> AsFd for Watches<K> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// What is told, as text: `folder/name`, with `+` where an entry came or went.
    fn told(watches: &mut Watches<&'static str>) -> Vec<String> {
        let mut out = Vec::new();
        let tell = |seen: Seen<'_, &'static str>| {
            out.push(match seen {
                Seen::Entry { key, name, listed } => {
                    format!("{key}/{}{}", name.display(), if listed { "+" } else { "" })
                }
                Seen::Folder(key) => format!("{key}."),
                Seen::Lost => "lost".to_owned(),
            });
        };
        watches.drain(tell).expect("the queue can be read");
        out.sort();
        out.dedup();
        out
    }

    #[test]
    fn changes_are_told_by_the_key_of_their_folder() {
        let temp = tempfile::tempdir().expect("a temp dir");
        let at = |path: &str| temp.path().join(path);
        fs::create_dir(at("in")).expect("writable");
        fs::create_dir(at("in/sub")).expect("writable");
        fs::write(at("in/file"), "").expect("writable");
        symlink("in", at("link")).expect("writable");
        let mut watches = Watches::new().expect("a queue");
        assert!(watches.add(&at("in"), "in").expect("watched").is_some());
        assert!(watches.add(&at("in"), "in").expect("watched").is_some());
        assert!(watches.add(&at("in"), "other").expect("the same folder").is_none());
        assert_eq!(watches.add(&at("link"), "link"), Err(Errno::NOTDIR));
        assert_eq!(watches.add(&at("none"), "none"), Err(Errno::NOENT));
        assert_eq!(told(&mut watches), Vec::<String>::new());
        assert!(!watches.wait(0).expect("it can wait"));

        fs::write(at("in/file"), "text").expect("writable");
        assert!(watches.wait(1_000).expect("it can wait"));
        assert_eq!(told(&mut watches), ["in/file"]);
        fs::rename(at("in/file"), at("in/renamed")).expect("writable");
        assert_eq!(told(&mut watches), ["in/file+", "in/renamed+"]);
        fs::write(at("in/sub/deep"), "text").expect("writable");
        assert_eq!(told(&mut watches), Vec::<String>::new(), "only the folder itself is watched");
        fs::rename(at("in"), at("moved")).expect("writable");
        assert_eq!(told(&mut watches), ["in."]);
        fs::remove_dir_all(at("moved")).expect("writable");
        assert_eq!(told(&mut watches), ["in.", "in/renamed+", "in/sub+"]);
        assert!(watches.is_empty());
    }
}
