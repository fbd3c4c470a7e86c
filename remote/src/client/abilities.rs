//! What a server says that it can do, as far as a client cares.

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use maestro_core::{DigestFunction, limits};
use reapi::capabilities_client::CapabilitiesClient;
use reapi::compressor::Value as Compressor;

use super::{Shared, Trouble};
use crate::convert;

/// What is left of a batch for what is around the blobs of it, in bytes.
const BATCH_MARGIN_BYTES: usize = 64 * 1024;

/// What the server can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Abilities {
    /// Most bytes of blobs in one batch.
    pub(super) batch_bytes: usize,
    /// Whether streams may be compressed.
    pub(super) zstd_streams: bool,
    /// Whether the blobs of batches may be compressed.
    pub(super) zstd_batches: bool,
    /// Whether we may leave results.
    pub(super) writable: bool,
}

impl Shared {
    pub(super) async fn ask_abilities(&self) -> Result<Abilities, Trouble> {
        let request =
            reapi::GetCapabilitiesRequest { instance_name: self.options.instance.clone() };
        let ask = |wire| {
            let request = request.clone();
            async move { CapabilitiesClient::new(wire).get_capabilities(request).await }
        };
        let answer = self.link.call(ask).await?.into_inner();
        let Some(cache) = answer.cache_capabilities else {
            return Err(Trouble::Unfit("it says that it is no cache".to_owned()));
        };
        let abilities = Abilities::of(&cache, self.store.function()).map_err(Trouble::Unfit)?;
        Ok(match self.options.compress {
            true => abilities,
            false => Abilities { zstd_streams: false, zstd_batches: false, ..abilities },
        })
    }
}

impl Abilities {
    fn of(cache: &reapi::CacheCapabilities, function: DigestFunction) -> Result<Self, String> {
        let number = convert::function_value(function);
        if !cache.digest_functions.contains(&number) {
            let (own, other) = match function {
                DigestFunction::Blake3 => ("blake3", "sha256"),
                DigestFunction::Sha256 => ("sha256", "blake3"),
            };
            return Err(format!(
                "it does not know the digest function {own} (`digest-function = \"{other}\"` in \
                 `maestro.toml` chooses the other)"
            ));
        }
        let zstd = Compressor::Zstd as i32;
        let said = usize::try_from(cache.max_batch_total_size_bytes).unwrap_or(0);
        // Zero stands for no bound but that of a message.
        let batch_bytes = match said {
            0 => limits::BATCH_BYTES_MAX,
            said => said.saturating_sub(BATCH_MARGIN_BYTES.min(said / 4)),
        };
        let update = cache.action_cache_update_capabilities;
        Ok(Self {
            batch_bytes: batch_bytes.min(limits::BATCH_BYTES_MAX),
            zstd_streams: cache.supported_compressors.contains(&zstd),
            zstd_batches: cache.supported_batch_update_compressors.contains(&zstd),
            writable: update.is_some_and(|update| update.update_enabled),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_taken_at_its_word() {
        let blake3 = convert::function_value(DigestFunction::Blake3);
        let sha256 = convert::function_value(DigestFunction::Sha256);
        let of = |functions: &[i32], batch| {
            let cache = reapi::CacheCapabilities {
                digest_functions: functions.to_vec(),
                max_batch_total_size_bytes: batch,
                ..Default::default()
            };
            Abilities::of(&cache, DigestFunction::Blake3)
        };
        let plain = |batch_bytes| {
            Ok(Abilities { batch_bytes, zstd_streams: false, zstd_batches: false, writable: false })
        };
        assert_eq!(of(&[sha256, blake3], 0), plain(limits::BATCH_BYTES_MAX));
        assert_eq!(of(&[blake3], 1_000), plain(750));
        assert_eq!(of(&[blake3], 1 << 40), plain(limits::BATCH_BYTES_MAX));
        assert_eq!(of(&[blake3], -1), plain(limits::BATCH_BYTES_MAX));
        let refused = of(&[sha256], 0).expect_err("no digest of ours");
        assert!(refused.contains("blake3") && refused.contains("\"sha256\""), "{refused}");
    }
}
