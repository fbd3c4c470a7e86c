//! The wire: Remote Execution API v2.
//!
//! The only crate that has protobuf and gRPC types; what leaves it are types of `core` and `cas`.
//! It prints nothing and reads no environment.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing))]

pub mod compression;
pub mod convert;
pub mod names;
pub mod resource;
