//! Temporary files on their way into the store, and readers of blobs that can be stopped.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use maestro_cas::{Store, StoreError};
use maestro_core::failure::chain;
use maestro_core::{Digest, DigestFunction};

use super::{NativeError, error};
use crate::runner::{Cancel, RunError};

/// The bytes that are gathered before a system call.
const BUFFER_BYTES: usize = 256 * 1024;
/// The bytes by which formats are told: a tar says so at 257.
const HEAD_BYTES: u64 = 512;
/// Tells apart the files of one process.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// A file in the store's scratch folder, written once and then adopted; removed otherwise.
pub struct ScratchFile<'a> {
    store: &'a Store,
    path: PathBuf,
    out: Option<BufWriter<File>>,
}

impl<'a> ScratchFile<'a> {
    /// Makes an empty file of its own.
    pub fn create(store: &'a Store) -> Result<Self, ScratchError> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = store.scratch_dir().join(format!("native-{number}"));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|source| ScratchError::Io { path: path.clone(), source })?;
        let out = Some(BufWriter::with_capacity(BUFFER_BYTES, file));
        Ok(Self { store, path, out })
    }

    /// An error of writing to this file.
    pub fn error(&self, source: io::Error) -> ScratchError {
        ScratchError::Io { path: self.path.clone(), source }
    }

    /// Puts what was written into the store.
    pub fn adopt(mut self) -> Result<Digest, ScratchError> {
        let out = self.out.take().ok_or_else(|| self.error(closed()))?;
        let file = out.into_inner().map_err(|error| self.error(error.into_error()))?;
        let parent = self.path.parent().ok_or_else(|| self.error(closed()))?;
        let folder = File::open(parent).map_err(|source| self.error(source))?;
        let name: OsString = self.path.file_name().unwrap_or_default().to_owned();
        io::Seek::rewind(&mut &file).map_err(|source| self.error(source))?;
        Ok(self.store.adopt_file(folder.as_fd(), &name, &file)?)
    }
}

fn closed() -> io::Error {
    io::Error::other("the file is closed already")
}

impl Write for ScratchFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.as_mut().ok_or_else(closed)?.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.as_mut().ok_or_else(closed)?.flush()
    }
}

impl Drop for ScratchFile<'_> {
    fn drop(&mut self) {
        // Adopted files are gone; the store clears what is left of a process that dies.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A temporary file failed.
#[derive(Debug, thiserror::Error)]
pub enum ScratchError {
    /// It could not be made, written or read.
    #[error("cannot use the temporary file `{}`", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<ScratchError> for NativeError {
    fn from(error: ScratchError) -> Self {
        match error {
            ScratchError::Io { path, source } => Self::Scratch { path, source },
            ScratchError::Store(error) => Self::Store(error),
        }
    }
}

impl From<ScratchError> for RunError {
    fn from(failure: ScratchError) -> Self {
        match failure {
            ScratchError::Store(store) => error::store_error(store),
            ScratchError::Io { .. } => {
                Self::Machine { message: chain(&failure), hints: Vec::new() }
            }
        }
    }
}

/// Fails once more bytes come than any honest archive of its size holds.
pub(super) struct Bounded<R> {
    input: R,
    left: u64,
}

impl<R> Bounded<R> {
    pub(super) fn new(input: R, bytes_max: u64) -> Self {
        Self { input, left: bytes_max }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "it decompresses to more than is allowed")
        })?;
        Ok(count)
    }
}

/// Counts and hashes what passes, with SHA-256 as foreign formats want it.
pub(super) struct Measured<W> {
    out: W,
    hasher: maestro_core::digest::Hasher,
}

impl<W> Measured<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, hasher: DigestFunction::Sha256.hasher() }
    }

    /// The writer and the SHA-256 digest of all that passed.
    pub(super) fn finish(self) -> (W, Digest) {
        (self.out, self.hasher.finish())
    }
}

impl<W: Write> Write for Measured<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Reads a blob and fails once the invocation is over.
///
/// Its failures carry a [`BlobError`], so that they are told apart from those of whatever reads
/// through it or is written with it.
pub(super) struct BlobReader<'a> {
    digest: Digest,
    file: File,
    cancel: &'a Cancel,
}

/// The failure of a [`BlobReader`], inside an [`io::Error`].
#[derive(Debug, thiserror::Error)]
#[error("cannot read the blob {digest}")]
struct BlobError {
    digest: Digest,
    #[source]
    source: io::Error,
}

/// What an error of input or output is, where blobs are read on the way: their failure, or else
/// what `otherwise` makes of it.
pub(super) fn io_failure(
    error: io::Error,
    otherwise: impl FnOnce(io::Error) -> NativeError,
) -> NativeError {
    match error.downcast::<BlobError>() {
        Ok(BlobError { digest, source }) => NativeError::Read { digest, source },
        Err(error) => otherwise(error),
    }
}

impl<'a> BlobReader<'a> {
    pub(super) fn open(
        store: &Store,
        digest: &Digest,
        cancel: &'a Cancel,
    ) -> Result<Self, NativeError> {
        Ok(Self { digest: *digest, file: store.open_blob(digest)?, cancel })
    }

    /// Opens a blob that is read whole.
    pub(super) fn buffered(
        store: &Store,
        digest: &Digest,
        cancel: &'a Cancel,
    ) -> Result<io::BufReader<Self>, NativeError> {
        let blob = Self::open(store, digest, cancel)?;
        Ok(io::BufReader::with_capacity(BUFFER_BYTES, blob))
    }

    /// The first bytes of a blob, by which formats are told.
    pub(super) fn head(
        store: &Store,
        digest: &Digest,
        cancel: &'a Cancel,
    ) -> Result<Vec<u8>, NativeError> {
        let mut head = Vec::new();
        Self::open(store, digest, cancel)?.take(HEAD_BYTES).read_to_end(&mut head).map_err(
            |error| io_failure(error, |source| NativeError::Read { digest: *digest, source }),
        )?;
        Ok(head)
    }
}

impl Read for BlobReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            // Not `Interrupted`, which the standard library retries.
            return Err(io::Error::other("cancelled"));
        }
        self.file.read(buffer).map_err(|source| match source.kind() {
            io::ErrorKind::Interrupted => source,
            _ => io::Error::other(BlobError { digest: self.digest, source }),
        })
    }
}

impl io::Seek for BlobReader<'_> {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

/// The SHA-256 of a blob, whatever function the store uses.
pub(super) fn sha256(
    store: &Store,
    digest: &Digest,
    cancel: &Cancel,
) -> Result<Digest, NativeError> {
    if digest.function == DigestFunction::Sha256 {
        return Ok(*digest);
    }
    let mut blob = BlobReader::buffered(store, digest, cancel)?;
    let mut measured = Measured::new(io::sink());
    io::copy(&mut blob, &mut measured).map_err(|error| {
        io_failure(error, |source| NativeError::Read { digest: *digest, source })
    })?;
    Ok(measured.finish().1)
}
