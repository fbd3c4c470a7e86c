//! Logs and reports of tests, where people and CI systems find them:
//! `maestro-out/testlogs/PKG/NAME/test.log` and `test.xml`, with folders between for shards and
//! runs where there are several, and for variants that flags make: what a plain run left stays
//! true.

use std::io::Read;
use std::path::PathBuf;

use maestro_cas::Store;
use maestro_core::{Digest, Label};

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

/// The text of some blobs, one after the other; what is gone or not UTF-8 is replaced or left out.
pub fn read(store: &Store, blobs: &[Digest]) -> String {
    let mut bytes = Vec::new();
    for digest in blobs {
        if let Ok(blob) = store.open_blob(digest) {
            let _ = blob.take(BYTES_MAX).read_to_end(&mut bytes); // what can be read is shown
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Writes a file of a test, if there is anything in it; returns its path below the workspace.
///
/// A file that cannot be written is no reason to fail: the verdict stands without it.
pub fn write(config: &Config, place: &Place, name: &str, text: &str) -> Option<String> {
    if text.is_empty() {
        return None;
    }
    let below = place.0.join(name);
    let path = config.workspace.join(&below);
    std::fs::create_dir_all(path.parent()?).ok()?;
    let temp = path.with_extension("new");
    std::fs::write(&temp, text).ok()?;
    std::fs::rename(&temp, &path).ok()?;
    Some(below.display().to_string())
}
