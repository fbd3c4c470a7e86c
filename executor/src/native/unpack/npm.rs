//! `npm-package`: the files of a package, out of the archive that a registry hands out.
//!
//! Follows what the npm client does with such archives: the first folder of each path is left out
//! whatever it is called, links are left out, and the files that `bin` names become programs.
//! Nothing of the package is run.

use std::collections::BTreeSet;
use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use maestro_core::Digest;
use sha2::{Digest as _, Sha512};

use super::super::request::{self, ArchiveFormat};
use super::super::scratch::{BlobReader, io_failure};
use super::super::{Made, NativeError, Step};
use super::{Manner, Sink, Strip};

/// The bytes that are hashed at once.
const BUFFER_BYTES: usize = 128 * 1024;

/// `npm-package`: see the module.
pub(in super::super) fn npm_package(step: &Step<'_>) -> Result<Made, NativeError> {
    let request::NpmPackage { archive, integrity, programs } = step.request()?;
    let (blob, _) = step.inputs.file("archive", &archive)?;
    check_integrity(step, &archive, &blob, &integrity)?;
    let programs: BTreeSet<String> = programs.into_iter().collect();
    let manner = Manner { strip: Strip::First, lenient: true, programs };
    let mut sink = Sink::new(step, &archive, manner, None);
    sink.take(&blob, ArchiveFormat::TarGz)?;
    Ok(Made::Tree { root: sink.tree.finish()? })
}

/// Archives that lie in the workspace were compared with their digest by nobody yet.
fn check_integrity(
    step: &Step<'_>,
    archive: &str,
    blob: &Digest,
    integrity: &str,
) -> Result<(), NativeError> {
    let wanted = integrity.strip_prefix("sha512-").and_then(|text| STANDARD.decode(text).ok());
    let wanted = wanted.filter(|bytes| bytes.len() == 64).ok_or_else(|| {
        NativeError::field("integrity", format!("`{integrity}` is not of the form `sha512-BASE64`"))
    })?;
    let mut reader = BlobReader::open(step.store, blob, step.cancel)?;
    let mut hasher = Sha512::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = reader.read(&mut buffer).map_err(|error| {
            io_failure(error, |source| NativeError::Read { digest: *blob, source })
        })?;
        match buffer.get(..count) {
            None | Some([]) => break,
            Some(bytes) => hasher.update(bytes),
        }
    }
    let actual = hasher.finalize();
    if actual.as_slice() == wanted {
        return Ok(());
    }
    let actual = STANDARD.encode(actual);
    let why = format!("its digest is sha512-{actual}, pinned is {integrity}");
    Err(NativeError::Archive { archive: archive.to_owned(), why })
}
