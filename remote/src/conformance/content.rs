//! Content that no server has seen before: random bytes, and messages that hold some.

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use maestro_core::{Digest, DigestFunction};
use uuid::Uuid;

use crate::convert;

/// Bytes and their digest.
#[derive(Clone, Debug)]
pub(super) struct Blob {
    pub(super) bytes: Vec<u8>,
    pub(super) digest: Digest,
}

impl Blob {
    /// The blob of these bytes.
    pub(super) fn of(function: DigestFunction, bytes: Vec<u8>) -> Self {
        let digest = function.digest(&bytes);
        Self { bytes, digest }
    }

    /// Bytes that are like no others, and that do not compress.
    pub(super) fn random(function: DigestFunction, size: usize) -> Self {
        Self::of(function, noise(size))
    }

    /// Bytes that are like no others, and that compress well.
    pub(super) fn compressible(function: DigestFunction, size: usize) -> Self {
        let pattern = noise(64);
        Self::of(function, pattern.into_iter().cycle().take(size).collect())
    }

    /// The blob of a message.
    pub(super) fn message(function: DigestFunction, message: &impl prost::Message) -> Self {
        Self::of(function, message.encode_to_vec())
    }

    /// The digest as messages carry it.
    pub(super) fn wire(&self) -> reapi::Digest {
        convert::wire_digest(&self.digest)
    }

    /// A digest with the hash of this blob and another size.
    pub(super) fn missized(&self) -> Digest {
        Digest { size: self.digest.size + 1, ..self.digest }
    }
}

/// An id that nobody else has.
pub(super) fn unique() -> String {
    Uuid::now_v7().to_string()
}

/// Random bytes, from a generator (splitmix64) that is seeded by a fresh id.
pub(super) fn noise(size: usize) -> Vec<u8> {
    let (high, low) = Uuid::now_v7().as_u64_pair();
    let mut state = high.rotate_left(32) ^ low;
    let words = std::iter::repeat_with(|| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    });
    words.flat_map(u64::to_le_bytes).take(size).collect()
}

/// An action with its command and its input tree, that nobody else has.
pub(super) struct Described {
    pub(super) action: Blob,
    pub(super) command: Blob,
    pub(super) root: Blob,
}

impl Described {
    /// An action that is told apart from all others by its command.
    pub(super) fn new(function: DigestFunction, change: impl FnOnce(&mut reapi::Action)) -> Self {
        let arguments = ["/bin/sh".into(), "-c".into(), format!(": {}", unique())].to_vec();
        let command = reapi::Command { arguments, ..Default::default() };
        let command = Blob::message(function, &command);
        let root = Blob::message(function, &reapi::Directory::default());
        let mut action = reapi::Action {
            command_digest: Some(command.wire()),
            input_root_digest: Some(root.wire()),
            ..Default::default()
        };
        change(&mut action);
        Self { action: Blob::message(function, &action), command, root }
    }

    /// Everything that a server has to hold.
    pub(super) fn blobs(&self) -> [Blob; 3] {
        [self.action.clone(), self.command.clone(), self.root.clone()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_new_each_time_and_of_the_size_that_was_asked_for() {
        for size in [0, 1, 7, 8, 1000] {
            assert_eq!(noise(size).len(), size);
        }
        assert_ne!(noise(32), noise(32));
        let blob = Blob::random(DigestFunction::Blake3, 100);
        assert_eq!(blob.digest, DigestFunction::Blake3.digest(&blob.bytes));
        assert_eq!((blob.missized().hash, blob.missized().size), (blob.digest.hash, 101));
        let packed = crate::compression::pack(&noise(10_000)).expect("memory");
        assert!(packed.len() >= 10_000, "{}", packed.len());
    }
}
