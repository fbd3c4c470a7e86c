//! Where a daemon and its clients meet: a folder of the workspace's state that only its owner may
//! enter, with a lock that the daemon holds while it lives, its socket and its log.
//!
//! Sockets are reached through the open folder, since the path of one may have 108 bytes at most.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

const FOLDER: &str = "daemon";
const LOCK: &str = "lock";
const LOG: &str = "log";
const SOCKET: &str = "socket";
/// Most bytes of the lock's text that are read.
const LOCK_BYTES_MAX: u64 = 64;
/// Most bytes of the log that are read.
const LOG_BYTES_MAX: u64 = 64 * 1024;

/// The folder where daemon and clients of one workspace meet.
#[derive(Clone, Debug)]
pub struct Place {
    folder: PathBuf,
}

/// Held by a daemon as long as it lives.
#[derive(Debug)]
pub struct Claim {
    file: File,
    path: PathBuf,
}

impl Place {
    /// The place of a workspace by the folder of its state.
    pub fn of(state_dir: &Path) -> Self {
        Self { folder: state_dir.join(FOLDER) }
    }

    /// Makes the folder, for its owner alone.
    pub fn make(&self) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let folder = std::fs::symlink_metadata(&self.folder)?;
        let own = folder.uid() == rustix::process::geteuid().as_raw();
        if !own || !folder.is_dir() || folder.mode() & 0o077 != 0 {
            let text = "others may enter the daemon's folder";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        Ok(())
    }

    /// Becomes the daemon of this place; `Err` within is the process that already is.
    pub fn claim(&self) -> io::Result<Result<Claim, String>> {
        let path = self.folder.join(LOCK);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                file.set_len(0)?;
                io::Write::write_all(&mut file, std::process::id().to_string().as_bytes())?;
                Ok(Ok(Claim { file, path }))
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut text = String::new();
                file.take(LOCK_BYTES_MAX).read_to_string(&mut text)?;
                Ok(Err(text))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Opens an empty log.
    pub fn open_log(&self) -> io::Result<File> {
        let path = self.folder.join(LOG);
        let log = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        log.set_len(0)?;
        Ok(log)
    }

    /// The beginning of the log.
    pub fn read_log(&self) -> io::Result<String> {
        let mut bytes = Vec::new();
        File::open(self.folder.join(LOG))?.take(LOG_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Listens. To be called with the [`Claim`] held: a socket that lies here is a dead one's.
    pub fn listen(&self) -> io::Result<UnixListener> {
        let (_folder, path) = self.socket()?;
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        // Nobody else can enter the folder either.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    }

    /// Connects to the daemon, and waits for that and for each later write so long at most.
    pub fn connect(&self, wait: Duration) -> io::Result<UnixStream> {
        let (_folder, path) = self.socket()?;
        let kind = SocketType::STREAM;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
        sockopt::set_socket_timeout(&socket, Timeout::Send, Some(wait))?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        let stream = UnixStream::from(socket);
        let peer = sockopt::socket_peercred(&stream)?;
        if peer.uid != rustix::process::geteuid() {
            let text = "the socket is that of another user";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        Ok(stream)
    }

    /// The folder, open, and a short path to the socket through it.
    fn socket(&self) -> io::Result<(OwnedFd, PathBuf)> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = rustix::fs::open(&self.folder, flags, Mode::empty())?;
        let path = format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd());
        Ok((folder, path.into()))
    }
}

impl Claim {
    /// Whether the lock still lies where others look for it: the cache may have been removed.
    pub fn stands(&self) -> bool {
        let here = self.file.metadata().map(|metadata| (metadata.dev(), metadata.ino()));
        let there = std::fs::metadata(&self.path).map(|metadata| (metadata.dev(), metadata.ino()));
        matches!((here, there), (Ok(here), Ok(there)) if here == there)
    }
}
