//! Logs of tests, where people and CI systems find them: `maestro-out/testlogs/PKG/NAME/test.log`.

use std::io::Write;
use std::path::PathBuf;

use maestro_cas::Store;
use maestro_core::{Digest, Label};

use crate::config::Config;

/// Writes a test's log, if it wrote anything; returns its path below the workspace.
///
/// A log that cannot be written is no reason to fail: the verdict stands without it.
pub fn write(config: &Config, store: &Store, label: &Label, logs: &[Digest]) -> Option<String> {
    if logs.is_empty() {
        return None;
    }
    let below: PathBuf =
        ["maestro-out", "testlogs", &label.package_dir(), &label.name, "test.log"].iter().collect();
    let path = config.workspace.join(&below);
    std::fs::create_dir_all(path.parent()?).ok()?;
    let temp = path.with_extension("log.new");
    let mut file = std::fs::File::create(&temp).ok()?;
    for digest in logs {
        std::io::copy(&mut store.open_blob(digest).ok()?, &mut file).ok()?;
    }
    file.flush().ok()?;
    std::fs::rename(&temp, &path).ok()?;
    Some(below.display().to_string())
}
