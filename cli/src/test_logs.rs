//! Logs and reports of tests, where people and CI systems find them:
//! `maestro-out/testlogs/PKG/NAME/test.log` and `test.xml`, with folders between for shards and
//! runs where there are several, and for variants that flags make: what a plain run left stays
//! true.

use std::io::Read;
use std::path::PathBuf;

use maestro_cas::{StatSignature, Store};
use maestro_core::{Digest, DigestFunction, Label};
use maestro_executor::engine::outputs::WrittenFile;

use crate::config::Config;
use crate::testing::TestRun;

/// Largest log or report that is written, in bytes: what an action may say at most.
const BYTES_MAX: u64 = maestro_core::limits::ACTION_LOG_BYTES_MAX;

/// The folder of one run of one shard, below the workspace.
pub struct Place(PathBuf);

impl Place {
    /// The folder of `run`, which is one of `all`.
    pub fn new(label: &Label, run: TestRun, all: &[TestRun], variant: Option<String>) -> Self {
        let mut path: PathBuf =
            ["maestro-out", "testlogs", &label.package_dir(), &label.name].iter().collect();
        path.extend(variant);
        let shards = all.iter().map(|run| run.shard).max().unwrap_or(1);
        let runs = all.iter().map(|run| run.run).max().unwrap_or(1);
        if shards > 1 {
            path.push(format!("shard_{}_of_{shards}", run.shard));
        }
        if runs > 1 {
            path.push(format!("run_{}_of_{runs}", run.run));
        }
        Self(path)
    }
}

/// The text of some blobs, one after the other; what is not UTF-8 is replaced.
pub fn read(store: &Store, blobs: &[Digest]) -> String {
    let mut bytes = Vec::new();
    for digest in blobs {
        let blob = store.open_blob(digest).map(|blob| blob.take(BYTES_MAX));
        if !blob.is_ok_and(|mut blob| blob.read_to_end(&mut bytes).is_ok()) {
            bytes.extend_from_slice(b"(the rest is no longer in the cache)\n");
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Writes a file of a test; says how it lies there, below the workspace.
///
/// A file that cannot be written is no reason to fail: the verdict stands without it.
pub fn write(config: &Config, place: &Place, name: &str, text: &str) -> Option<WrittenFile> {
    let below = place.0.join(name);
    let path = config.workspace.join(&below);
    std::fs::create_dir_all(path.parent()?).ok()?;
    let temp = path.with_extension("new");
    std::fs::write(&temp, text).ok()?;
    std::fs::rename(&temp, &path).ok()?;
    let signature = StatSignature::of(&std::fs::symlink_metadata(&path).ok()?);
    let digest = DigestFunction::Blake3.digest(text.as_bytes());
    Some(WrittenFile { path: below.display().to_string(), digest, executable: false, signature })
}
