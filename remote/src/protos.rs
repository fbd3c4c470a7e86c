//! What is generated from the protos in `remote/proto`.

/// Between the scheduler and its workers.
#[allow(missing_docs, clippy::all, clippy::pedantic)] // generated
pub mod worker {
    tonic::include_proto!("maestro.worker.v1");
}
