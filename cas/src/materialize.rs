//! Puts blobs where actions and users read them.
//!
//! Actions get hard links, which cost no copy and carry the constant mode and time. Users get
//! copies (clones of the same extents where the file system can do that), since what they
//! do to a file must not reach the cache.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use maestro_core::Digest;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::blob::{self, FromStart, Sound};
use crate::error::StoreError;
use crate::layout::{self, Form};
use crate::store::{Inner, Store};

/// Attempts at a link whose source others replace or remove at the same time.
const LINK_ATTEMPTS_MAX: u32 = 4;

impl Store {
    /// Makes `name` in `dir` a hard link to the blob, with the mode that `executable` asks for;
    /// a copy where the folder is on another file system. Nothing may stand there.
    pub fn link_into(
        &self,
        digest: &Digest,
        executable: bool,
        dir: BorrowedFd<'_>,
        name: &str,
    ) -> Result<(), StoreError> {
        let (inner, form) = (&self.inner, Form::of(executable));
        for _ in 0..LINK_ATTEMPTS_MAX {
            let sound = inner.ensure(digest, form)?;
            if sound.links >= inner.limits.links_max {
                inner.renew(&sound, digest)?;
            }
            let fd = inner.layout.fd();
            match rustix::fs::linkat(fd, &sound.path, dir, name, AtFlags::empty()) {
                Ok(()) => return Ok(()),
                Err(Errno::MLINK) => inner.renew(&sound, digest)?,
                // Removed meanwhile, or the folder is not there: the next round tells.
                Err(Errno::NOENT) => {}
                Err(Errno::XDEV | Errno::PERM | Errno::OPNOTSUPP) => {
                    return inner.copy_into(&sound, digest, dir, name);
                }
                Err(errno) => return Err(StoreError::io(name, errno)),
            }
        }
        match inner.find(digest, form)? {
            Some(_) => Err(StoreError::io(name, Errno::NOENT)),
            None => Err(StoreError::Missing { digest: *digest }),
        }
    }

    /// Writes a copy of the blob to `dest`, replacing a file that stands there, with mode 0644
    /// or 0755. Missing folders above are made. The bytes are hashed on the way, except where
    /// the file system clones them.
    pub fn copy_out(
        &self,
        digest: &Digest,
        executable: bool,
        dest: &Path,
    ) -> Result<(), StoreError> {
        let source = self.open_blob(digest)?;
        let (temp, file) = create_beside(dest)?;
        let result = self.inner.fill(&source, digest, &file, &temp).and_then(|()| {
            let mode = Mode::from_raw_mode(if executable { 0o755 } else { 0o644 });
            rustix::fs::fchmod(&file, mode).map_err(|e| StoreError::io(&temp, e))?;
            std::fs::rename(&temp, dest).map_err(|e| StoreError::io(dest, e))
        });
        if result.is_err() {
            // The error that is returned matters more than a temporary file.
            let _ = std::fs::remove_file(&temp);
        }
        result
    }
}

impl Inner {
    /// Finds a blob in just this form; makes the form from the other one where it is missing.
    pub(crate) fn ensure(&self, digest: &Digest, form: Form) -> Result<Sound, StoreError> {
        if let Some(sound) = self.find_form(digest, form)? {
            return Ok(sound);
        }
        match self.find_form(digest, form.other())? {
            Some(other) => self.copy_form(&other.path, digest, form)?,
            None if digest.is_empty_blob() => {
                let _writing = self.epochs.enter(&self.layout)?;
                self.publish(self.temp()?, digest, form)?;
            }
            None => return Err(StoreError::Missing { digest: *digest }),
        }
        self.find_form(digest, form)?.ok_or(StoreError::Missing { digest: *digest })
    }

    /// Replaces a blob's file by a copy of it, to which nothing is linked yet.
    fn renew(&self, sound: &Sound, digest: &Digest) -> Result<(), StoreError> {
        self.copy_form(&sound.path, digest, sound.form)
    }

    fn copy_form(&self, path: &str, digest: &Digest, form: Form) -> Result<(), StoreError> {
        let _writing = self.epochs.enter(&self.layout)?;
        let missing = || StoreError::Missing { digest: *digest };
        let source = File::from(self.layout.open_file(path)?.ok_or_else(missing)?);
        let temp = self.temp()?;
        self.fill(&source, digest, &temp.file, &temp.path())?;
        self.publish(temp, digest, form)
    }

    /// Copies a blob into a new file, cloning where that is possible.
    fn fill(
        &self,
        source: &File,
        digest: &Digest,
        target: &File,
        path: &Path,
    ) -> Result<(), StoreError> {
        if digest.is_empty_blob() || rustix::fs::ioctl_ficlone(target, source).is_ok() {
            return Ok(());
        }
        let mut hasher = digest.function.hasher();
        let mut target = target;
        blob::each_buffer(&mut FromStart { file: source, offset: 0 }, path, |bytes| {
            hasher.update(bytes);
            target.write_all(bytes).map_err(|e| StoreError::io(path, e))
        })?;
        if hasher.finish() == *digest {
            return Ok(());
        }
        self.quarantine_blob(digest)
    }

    /// Sets aside whichever forms of a blob are damaged.
    fn quarantine_blob(&self, digest: &Digest) -> Result<(), StoreError> {
        let mut quarantine = self.layout.absolute(layout::QUARANTINE);
        for form in [Form::Plain, Form::Executable] {
            let path = layout::blob_path(digest, form);
            let Some(fd) = self.layout.open_file(&path)? else { continue };
            let absolute = self.layout.absolute(&path);
            if blob::hash_file(digest.function, &File::from(fd), &absolute)? != *digest {
                quarantine = self.quarantine(&path)?;
            }
        }
        Err(StoreError::Corrupt { digest: *digest, quarantine })
    }

    fn copy_into(
        &self,
        sound: &Sound,
        digest: &Digest,
        dir: BorrowedFd<'_>,
        name: &str,
    ) -> Result<(), StoreError> {
        let missing = || StoreError::Missing { digest: *digest };
        let source = File::from(self.layout.open_file(&sound.path)?.ok_or_else(missing)?);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fail = |errno: Errno| StoreError::io(name, errno);
        let mode = Mode::from_raw_mode(0o600);
        let file = File::from(rustix::fs::openat(dir, name, flags, mode).map_err(fail)?);
        let result = self
            .fill(&source, digest, &file, name.as_ref())
            .and_then(|()| blob::seal_file(&file, sound.form).map_err(fail));
        if result.is_err() {
            // The error that is returned matters more than what is left of the copy.
            let _ = rustix::fs::unlinkat(dir, name, AtFlags::empty());
        }
        result
    }
}

/// Makes a new file in the folder of `dest`; makes the folder where it is missing.
fn create_beside(dest: &Path) -> Result<(std::path::PathBuf, File), StoreError> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut made_folder = false;
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut name = OsString::from(format!(".maestro-{}-{number}.", std::process::id()));
        name.push("tmp");
        let temp = dest.with_file_name(name);
        match File::options().write(true).create_new(true).open(&temp) {
            Ok(file) => return Ok((temp, file)),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !made_folder => {
                let folder = dest.parent().unwrap_or(dest);
                std::fs::create_dir_all(folder).map_err(|e| StoreError::io(folder, e))?;
                made_folder = true;
            }
            Err(error) => return Err(StoreError::io(temp, error)),
        }
    }
}

#[cfg(test)]
mod tests;
