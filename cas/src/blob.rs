//! Blobs: found, written, read, and set aside when they are damaged.
//!
//! A blob has up to two inodes, one without and one with execute permission. Either is enough
//! for it to be present; the other is copied from it when it is first needed.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use maestro_core::{Digest, DigestFunction, limits};
use rustix::fs::{AtFlags, FileType, Mode, Stat, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use rustix::io::Errno;

use crate::clock;
use crate::error::StoreError;
use crate::layout::{self, Form, QUARANTINE};
use crate::scratch::Temp;
use crate::store::{Inner, Store};

/// The modification time of every blob, in seconds since 1970: the start of 1980, which zip
/// archives can hold. The same as `SOURCE_DATE_EPOCH` of actions.
pub(crate) const MTIME_S: i64 = 315_532_800;
/// Blobs up to this size are hashed on every read, in bytes.
const VERIFY_ON_READ_BYTES_MAX: u64 = 1024 * 1024;
/// Size of the buffer through which files stream, in bytes.
pub(crate) const BUFFER_BYTES: usize = 1024 * 1024;

impl Store {
    /// Whether the blob is present. The empty blob always is.
    pub fn contains(&self, digest: &Digest) -> bool {
        match self.inner.find(digest, Form::Plain) {
            Ok(found) => found.is_some() || digest.is_empty_blob(),
            Err(error) => {
                tracing::warn!(%digest, %error, "blob counts as missing");
                false
            }
        }
    }

    /// Stores bytes.
    pub fn put_bytes(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        self.inner.put(bytes)
    }

    /// Stores bytes whose digest the caller has computed. Does nothing where they are present.
    pub fn put_known(&self, digest: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        debug_assert_eq!(*digest, digest.function.digest(bytes));
        self.inner.put_known(digest, bytes)
    }

    /// Stores the rest of a file that nobody writes to.
    pub fn put_file(&self, file: &File) -> Result<Digest, StoreError> {
        let inner = &self.inner;
        let _writing = inner.epochs.enter(&inner.layout)?;
        let mut temp = inner.temp()?;
        let digest = copy_and_hash(inner.function, file, &mut temp, "standard input".as_ref())?;
        if inner.find(&digest, Form::Plain)?.is_none() {
            inner.publish(temp, &digest, Form::Plain)?;
        }
        Ok(digest)
    }

    /// Stores an output of an action, whose processes are all dead: `file` is `name` of `dir`,
    /// open for reading. It is moved where that is possible, so that the name may be gone
    /// afterwards, and copied otherwise.
    pub fn adopt_file(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        file: &File,
    ) -> Result<Digest, StoreError> {
        let inner = &self.inner;
        let path = PathBuf::from(name);
        let fail = |errno: Errno| StoreError::io(&path, errno);
        let stat = rustix::fs::fstat(file).map_err(fail)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(StoreError::NotAFile { path });
        }
        let form = Form::of(stat.st_mode & 0o100 != 0);
        let digest = hash_file(inner.function, file, &path)?;
        if inner.find(&digest, form)?.is_some() {
            return Ok(digest);
        }
        let _writing = inner.epochs.enter(&inner.layout)?;
        if stat.st_nlink == 1 && inner.move_in(dir, name, file, &stat, &digest, form)? {
            return Ok(digest);
        }
        let mut temp = inner.temp()?;
        let source = FromStart { file, offset: 0 };
        let copied = copy_and_hash(inner.function, source, &mut temp, &path)?;
        if copied != digest {
            return Err(StoreError::SourceChanging { path });
        }
        inner.publish(temp, &digest, form)?;
        Ok(digest)
    }

    /// The whole content, up to [`limits::BLOB_IN_MEMORY_BYTES_MAX`]; verified where it is small.
    pub fn read(&self, digest: &Digest) -> Result<Vec<u8>, StoreError> {
        if digest.is_empty_blob() {
            return Ok(Vec::new());
        }
        let limit = limits::BLOB_IN_MEMORY_BYTES_MAX;
        if digest.size > limit {
            let what = "a blob that is read into memory";
            return Err(StoreError::TooLarge { what, size: digest.size, limit });
        }
        let (file, path) = self.inner.open(digest)?;
        let mut bytes = Vec::with_capacity(digest.size as usize);
        // One byte more than expected is enough to see that it is longer.
        let length = (&file).take(digest.size + 1).read_to_end(&mut bytes);
        length.map_err(|e| StoreError::io(self.inner.layout.absolute(&path), e))?;
        let is_small = digest.size <= VERIFY_ON_READ_BYTES_MAX;
        if bytes.len() as u64 != digest.size
            || (is_small && digest.function.digest(&bytes) != *digest)
        {
            let quarantine = self.inner.quarantine(&path)?;
            return Err(StoreError::Corrupt { digest: *digest, quarantine });
        }
        Ok(bytes)
    }

    /// Opens a blob for reading.
    pub fn open_blob(&self, digest: &Digest) -> Result<File, StoreError> {
        if digest.is_empty_blob() && self.inner.find(digest, Form::Plain)?.is_none() {
            self.put_known(digest, &[])?;
        }
        Ok(self.inner.open(digest)?.0)
    }
}

/// A blob that is present and sound.
#[derive(Clone, Debug)]
pub(crate) struct Sound {
    pub(crate) path: String,
    pub(crate) form: Form,
    pub(crate) links: u64,
}

impl Inner {
    pub(crate) fn put(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = self.function.digest(bytes);
        self.put_known(&digest, bytes)?;
        Ok(digest)
    }

    fn put_known(&self, digest: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        if self.find(digest, Form::Plain)?.is_some() {
            return Ok(());
        }
        let _writing = self.epochs.enter(&self.layout)?;
        let mut temp = self.temp()?;
        temp.file.write_all(bytes).map_err(|e| StoreError::io(temp.path(), e))?;
        self.publish(temp, digest, Form::Plain)
    }

    /// Looks for a blob, `preferred` form first. One whose file does not look untouched is
    /// hashed; a damaged one goes to quarantine and is missing.
    pub(crate) fn find(
        &self,
        digest: &Digest,
        preferred: Form,
    ) -> Result<Option<Sound>, StoreError> {
        for form in [preferred, preferred.other()] {
            if let Some(sound) = self.find_form(digest, form)? {
                return Ok(Some(sound));
            }
        }
        Ok(None)
    }

    /// Looks for one form of a blob.
    pub(crate) fn find_form(
        &self,
        digest: &Digest,
        form: Form,
    ) -> Result<Option<Sound>, StoreError> {
        let path = layout::blob_path(digest, form);
        let mut stat = self.layout.stat(&path)?;
        if stat.is_none() && self.has_suspects {
            stat = self.release_suspect(digest, form)?;
        }
        let Some(stat) = stat else { return Ok(None) };
        if !is_untouched(&stat, digest, form) && !self.examine(&path, digest, form)? {
            return Ok(None);
        }
        if clock::accessed_ns(&stat) < self.touch_floor_ns.load(Ordering::SeqCst) {
            if !self.touch(&path)? {
                return Ok(None);
            }
            self.note_blob(digest);
        }
        Ok(Some(Sound { path, form, links: stat.st_nlink }))
    }

    /// Renews the access time; says whether the file is still there.
    pub(crate) fn touch(&self, path: &str) -> Result<bool, StoreError> {
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
            last_modification: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        };
        let fd = self.layout.fd();
        match rustix::fs::utimensat(fd, path, &times, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            // Where nothing can be written, nothing can be collected either.
            Err(Errno::ROFS | Errno::PERM | Errno::ACCESS) => Ok(true),
            Err(errno) => Err(self.layout.error(path, errno)),
        }
    }

    /// Hashes a blob whose file was touched. A sound one gets its mode and time back.
    fn examine(&self, path: &str, digest: &Digest, form: Form) -> Result<bool, StoreError> {
        let stat = self.layout.stat(path)?;
        let is_file =
            stat.is_some_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::RegularFile);
        if is_file {
            // The owner may have lost the permission to read.
            let mode = form.mode();
            rustix::fs::chmodat(self.layout.fd(), path, mode, AtFlags::empty())
                .map_err(|errno| self.layout.error(path, errno))?;
            let Some(fd) = self.layout.open_file(path)? else { return Ok(false) };
            let file = File::from(fd);
            let absolute = self.layout.absolute(path);
            if hash_file(digest.function, &file, &absolute)? == *digest {
                tracing::debug!(%digest, "blob was touched but is sound");
                seal_file(&file, form).map_err(|e| StoreError::io(&absolute, e))?;
                return Ok(true);
            }
            // Another process may have put a sound file in its place meanwhile.
            let hashed = rustix::fs::fstat(&file).map_err(|e| StoreError::io(&absolute, e))?;
            if let Some(now) = self.layout.stat(path)?
                && now.st_ino != hashed.st_ino
            {
                return Ok(is_untouched(&now, digest, form));
            }
        }
        self.quarantine(path)?;
        Ok(false)
    }

    /// Hashes a suspect and moves it back where it is sound.
    pub(crate) fn release_suspect(
        &self,
        digest: &Digest,
        form: Form,
    ) -> Result<Option<Stat>, StoreError> {
        let suspect = layout::suspect_path(digest, form);
        if self.layout.stat(&suspect)?.is_none() || !self.examine(&suspect, digest, form)? {
            return Ok(None);
        }
        let path = layout::blob_path(digest, form);
        match self.layout.rename(&suspect, &path) {
            Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            }
            other => other?,
        }
        self.layout.stat(&path)
    }

    /// Sets a damaged file aside. One that is gone already is fine.
    pub(crate) fn quarantine(&self, path: &str) -> Result<PathBuf, StoreError> {
        let name = path.rsplit('/').next().unwrap_or(path);
        let to = format!("{QUARANTINE}/{}-{name}", clock::now_ns());
        tracing::warn!(path, quarantine = to, "damaged file set aside");
        match self.layout.rename(path, &to) {
            Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            }
            other => other?,
        }
        Ok(self.layout.absolute(&to))
    }

    fn open(&self, digest: &Digest) -> Result<(File, String), StoreError> {
        let missing = || StoreError::Missing { digest: *digest };
        let sound = self.find(digest, Form::Plain)?.ok_or_else(missing)?;
        let file = self.layout.open_file(&sound.path)?.ok_or_else(missing)?;
        Ok((File::from(file), sound.path))
    }

    /// Gives a finished temporary file its mode, time and name.
    pub(crate) fn publish(
        &self,
        temp: Temp,
        digest: &Digest,
        form: Form,
    ) -> Result<(), StoreError> {
        seal_file(&temp.file, form).map_err(|e| StoreError::io(temp.path(), e))?;
        temp.rename(&self.layout, &layout::blob_path(digest, form))?;
        self.note_blob(digest);
        Ok(())
    }

    /// Moves an output into the store. Says `false` where only a copy will do.
    fn move_in(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        file: &File,
        stat: &Stat,
        digest: &Digest,
        form: Form,
    ) -> Result<bool, StoreError> {
        let fail = |errno: Errno| StoreError::io(PathBuf::from(name), errno);
        let named = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(fail)?;
        if (named.st_dev, named.st_ino) != (stat.st_dev, stat.st_ino) {
            return Ok(false);
        }
        // A sandbox's own user must not own a blob, or it could change it through a link.
        // Changing the owner also takes set-user-id bits and file capabilities away.
        let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
        match rustix::fs::fchown(file, Some(user), Some(group)) {
            Err(Errno::PERM) => return Ok(false),
            other => other.map_err(fail)?,
        }
        seal_file(file, form).map_err(fail)?;
        match self.layout.rename_from(dir, name, &layout::blob_path(digest, form)) {
            Ok(()) => {}
            Err(Errno::XDEV) => return Ok(false),
            Err(errno) => return Err(fail(errno)),
        }
        self.note_blob(digest);
        Ok(true)
    }
}

/// Whether a file still has the size, mode and time that it was published with.
pub(crate) fn is_untouched(stat: &Stat, digest: &Digest, form: Form) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
        && stat.st_size as u64 == digest.size
        && Mode::from_raw_mode(stat.st_mode) == form.mode()
        && clock::modified_ns(stat) == MTIME_S * 1_000_000_000
}

/// Gives a file the mode and the constant time of blobs, as its last change.
pub(crate) fn seal_file(file: &File, form: Form) -> Result<(), Errno> {
    rustix::fs::fchmod(file, form.mode())?;
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        last_modification: Timespec { tv_sec: MTIME_S, tv_nsec: 0 },
    };
    rustix::fs::futimens(file, &times)
}

/// Reads a file from its start, whatever its position.
pub(crate) struct FromStart<'a> {
    pub(crate) file: &'a File,
    pub(crate) offset: u64,
}

impl std::io::Read for FromStart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.file.read_at(buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

/// Hashes a whole file, whatever its position.
pub(crate) fn hash_file(
    function: DigestFunction,
    file: &File,
    path: &std::path::Path,
) -> Result<Digest, StoreError> {
    let mut hasher = function.hasher();
    let mut source = FromStart { file, offset: 0 };
    each_buffer(&mut source, path, |bytes| {
        hasher.update(bytes);
        Ok(())
    })?;
    Ok(hasher.finish())
}

/// Copies into a temporary file and hashes what is copied, in one pass.
pub(crate) fn copy_and_hash(
    function: DigestFunction,
    mut source: impl std::io::Read,
    temp: &mut Temp,
    path: &std::path::Path,
) -> Result<Digest, StoreError> {
    let mut hasher = function.hasher();
    each_buffer(&mut source, path, |bytes| {
        hasher.update(bytes);
        temp.file.write_all(bytes).map_err(|e| StoreError::io(temp.path(), e))
    })?;
    Ok(hasher.finish())
}

pub(crate) fn each_buffer(
    source: &mut impl std::io::Read,
    path: &std::path::Path,
    mut consume: impl FnMut(&[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    // Most files are small: the buffer grows only for those that fill it.
    let mut buffer = vec![0u8; 64 * 1024];
    loop {
        let count = match source.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(StoreError::io(path, error)),
        };
        consume(buffer.get(..count).unwrap_or_default())?;
        if count == buffer.len() && count < BUFFER_BYTES {
            buffer.resize(BUFFER_BYTES, 0);
        }
    }
}

#[cfg(test)]
mod tests;
