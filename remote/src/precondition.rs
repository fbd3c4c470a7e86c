//! The error detail that says which blobs an action lacks: `google.rpc.PreconditionFailure`.
//!
//! A client that reads it uploads them and asks again, so every blob that is missing is named.

use bazel_remote_apis::google::{protobuf, rpc};
use maestro_core::Digest;
use prost::Message;
use tonic::{Code, Status};

use crate::resource::{Encoding, Resource};

/// The name of the detail.
const TYPE_URL: &str = "type.googleapis.com/google.rpc.PreconditionFailure";
/// The kind of a violation that names a blob.
pub const MISSING: &str = "MISSING";

/// `google.rpc.PreconditionFailure`.
#[derive(Clone, PartialEq, Message)]
pub struct PreconditionFailure {
    /// What is not as it must be.
    #[prost(message, repeated, tag = "1")]
    pub violations: Vec<Violation>,
}

/// `google.rpc.PreconditionFailure.Violation`.
#[derive(Clone, PartialEq, Message)]
pub struct Violation {
    /// What kind of violation it is.
    #[prost(string, tag = "1")]
    pub kind: String,
    /// What it is about.
    #[prost(string, tag = "2")]
    pub subject: String,
    /// For people.
    #[prost(string, tag = "3")]
    pub description: String,
}

/// The status of an action whose blobs are missing.
pub fn missing(digests: &[Digest]) -> rpc::Status {
    let violation = |digest: &Digest| {
        let (instance, encoding) = (String::new(), Encoding::Identity);
        let resource = Resource { instance, upload: None, encoding, digest: *digest };
        Violation {
            kind: MISSING.to_owned(),
            subject: resource.to_string(),
            description: "the blob is not there: upload it first".to_owned(),
        }
    };
    let failure = PreconditionFailure { violations: digests.iter().map(violation).collect() };
    let detail = protobuf::Any { type_url: TYPE_URL.to_owned(), value: failure.encode_to_vec() };
    let count = digests.len();
    rpc::Status {
        code: Code::FailedPrecondition as i32,
        message: format!("{count} blobs that the action needs are not there: upload them first"),
        details: vec![detail],
    }
}

/// A status of the wire as one of a call.
pub fn of_call(status: &rpc::Status) -> Status {
    let details = status.encode_to_vec().into();
    Status::with_details(Code::from(status.code), status.message.clone(), details)
}
