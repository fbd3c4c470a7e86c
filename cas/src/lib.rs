//! The content-addressed store: blobs and action results as files that many processes share.
//!
//! Files are the truth. There is no daemon and no owner: a blob or a result appears by one
//! rename and is immutable from then on, so that any number of processes may read, write and
//! collect garbage at once, and any of them may be killed at any line. RocksDB holds an index
//! that is derived from the files; only maintenance opens it, and deleting it loses nothing.
//!
//! Where to start reading: [`store`] says what lies where, [`epoch`] what survives a crash of the
//! machine, [`gc`] how garbage is collected under running builds. `docs/design/store.md` has the
//! reasons and what was rejected.
//!
//! This crate knows nothing of actions beyond their keys and results, runs nothing, prints
//! nothing and reads no environment.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::indexing_slicing))]

mod access_log;
mod blob;
mod catalog;
mod clock;
pub mod depot;
pub mod epoch;
pub mod error;
#[cfg(test)]
mod fixture;
pub mod gc;
mod index;
mod layout;
mod lease;
mod liveness;
mod materialize;
pub mod receive;
mod remove;
mod result;
mod scan;
mod scratch;
pub mod source;
pub mod store;
mod tree;
pub mod verify;

pub use depot::{Depot, DepotOptions, DepotStats};
pub use error::StoreError;
pub use gc::{GcOptions, GcReport};
pub use lease::Lease;
pub use receive::Receiver;
pub use source::{Ingested, StatSignature};
pub use store::{Limits, Store, StoreOptions};
pub use tree::TreeEntry;
pub use verify::{Damaged, Dangling, Stats, VerifyReport};
