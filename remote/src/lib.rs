//! The wire: Remote Execution API v2.
//!
//! The only crate that has protobuf and gRPC types; what leaves it are types of `core` and `cas`.
//! Both sides of the wire share [`resource`], [`convert`], [`compression`] and [`names`];
//! [`server`] is the server of a remote cache, [`client`] the client of one, and [`conformance`]
//! checks any server.
//!
//! It prints nothing and reads no environment.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing))]

pub mod client;
pub mod compression;
pub mod conformance;
pub mod convert;
pub mod names;
pub mod platform;
pub mod precondition;
mod protos;
pub mod resource;
pub mod server;
pub mod worker;
