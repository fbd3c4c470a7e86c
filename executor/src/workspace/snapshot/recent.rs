//! What builds of a workspace remember of its packages, for those who only ask about them.
//!
//! A question is no request that has a snapshot of its own, and takes no lock. What was remembered
//! of a package holds for all requests alike as long as its file sees what it saw, which whoever
//! reads the memory finds out; so any snapshot will do, and the one that knows most is taken.

use std::path::{Path, PathBuf};

use maestro_core::graph::columns::SharedBytes;

use super::{EVALUATION_VERSION, FOLDER, HEAD, HEAD_FORMAT, Head, evaluation_path, mapped};
use crate::workspace::sealed_file;

/// Most snapshots that are tried: those that another build of Maestro wrote are of no use.
const TRIED_MAX: usize = 8;

/// What an evaluation left: a base, and what was changed since.
#[derive(Clone, Debug)]
pub struct RecentEvaluation {
    /// The base.
    pub base: SharedBytes,
    /// The changes; empty where there are none.
    pub delta: Vec<u8>,
}

/// The memory of the evaluation that knows most of a workspace, whatever its request was; `None`
/// where this build of Maestro left none. Damage, and builds that end meanwhile, are no errors.
pub fn recent_evaluation(state_dir: &Path, maestro_build: &str) -> Option<RecentEvaluation> {
    let folders = std::fs::read_dir(state_dir.join(FOLDER)).ok()?;
    let folders = folders.flatten().map(|folder| folder.path());
    let mut sized: Vec<(u64, PathBuf)> = folders.map(|folder| (size(&folder), folder)).collect();
    sized.retain(|(size, _)| *size > 0);
    sized.sort_unstable_by(|a, b| b.cmp(a));
    sized.iter().take(TRIED_MAX).find_map(|(_, folder)| open(folder, maestro_build))
}

/// How large the memory of a snapshot is.
fn size(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let memories = files.filter(|file| file.file_name().as_encoded_bytes().starts_with(PREFIX));
    memories.filter_map(|file| file.metadata().ok()).map(|file| file.len()).max().unwrap_or(0)
}

/// How the names of such files begin.
const PREFIX: &[u8] = b"evaluation-";

fn open(folder: &Path, maestro_build: &str) -> Option<RecentEvaluation> {
    let head = sealed_file::read(&folder.join(HEAD), HEAD_FORMAT).ok()??;
    let head = postcard::from_bytes::<Head>(head.payload()).ok()?;
    let generation = head.evaluation_generation.filter(|_| head.maestro_build == maestro_build)?;
    let base = mapped::open(&evaluation_path(folder, generation), EVALUATION_VERSION).ok()??;
    Some(RecentEvaluation { base, delta: head.evaluation })
}
