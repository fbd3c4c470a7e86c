//! What the server says of itself: nothing that it does not do.

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use bazel_remote_apis::build::bazel::semver::SemVer;
use maestro_core::limits;
use reapi::capabilities_server::Capabilities;
use reapi::{compressor, digest_function, symlink_absolute_path_strategy};
use tonic::{Request, Response, Status};

use super::chunks::CHUNK_BYTES_AVERAGE;
use super::context::Context;

/// The service.
pub(super) struct Announced(pub(super) Context);

/// The oldest version that is spoken: Bazel 4.2 knows no later one.
const LOW: SemVer = SemVer { major: 2, minor: 0, patch: 0, prerelease: String::new() };
/// The version that brought chunks.
const HIGH: SemVer = SemVer { major: 2, minor: 12, patch: 0, prerelease: String::new() };

#[tonic::async_trait]
impl Capabilities for Announced {
    async fn get_capabilities(
        &self,
        request: Request<reapi::GetCapabilitiesRequest>,
    ) -> Result<Response<reapi::ServerCapabilities>, Status> {
        let (_, extensions, request) = request.into_parts();
        self.0.read_space(&extensions, &request.instance_name)?;
        let writable = self.0.may_write(&extensions, &request.instance_name);
        Ok(Response::new(capabilities(writable)))
    }
}

fn capabilities(writable: bool) -> reapi::ServerCapabilities {
    let compressors = vec![compressor::Value::Zstd as i32];
    let cache = reapi::CacheCapabilities {
        digest_functions: vec![
            digest_function::Value::Sha256 as i32,
            digest_function::Value::Blake3 as i32,
        ],
        action_cache_update_capabilities: Some(reapi::ActionCacheUpdateCapabilities {
            update_enabled: writable,
        }),
        cache_priority_capabilities: None,
        max_batch_total_size_bytes: limits::BATCH_BYTES_MAX as i64,
        symlink_absolute_path_strategy: symlink_absolute_path_strategy::Value::Allowed as i32,
        supported_compressors: compressors.clone(),
        supported_batch_update_compressors: compressors,
        max_cas_blob_size_bytes: limits::SERVED_BLOB_BYTES_MAX as i64,
        split_blob_support: true,
        splice_blob_support: writable,
        fast_cdc_2020_params: Some(reapi::FastCdc2020Params {
            avg_chunk_size_bytes: CHUNK_BYTES_AVERAGE as u64,
            seed: 0,
        }),
        rep_max_cdc_params: None,
    };
    reapi::ServerCapabilities {
        cache_capabilities: Some(cache),
        execution_capabilities: Some(execution(writable)),
        deprecated_api_version: None,
        low_api_version: Some(LOW),
        high_api_version: Some(HIGH),
    }
}

fn execution(is_allowed: bool) -> reapi::ExecutionCapabilities {
    let priorities = reapi::priority_capabilities::PriorityRange {
        min_priority: i32::MIN,
        max_priority: i32::MAX,
    };
    reapi::ExecutionCapabilities {
        digest_function: digest_function::Value::Sha256 as i32,
        digest_functions: vec![
            digest_function::Value::Sha256 as i32,
            digest_function::Value::Blake3 as i32,
        ],
        exec_enabled: is_allowed,
        execution_priority_capabilities: Some(reapi::PriorityCapabilities {
            priorities: vec![priorities],
        }),
        supported_node_properties: Vec::new(),
    }
}
