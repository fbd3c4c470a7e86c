//! Labels, digests, the action graph and cache keys: the part of Maestro that is only arithmetic.
//!
//! Nothing here does IO, reads a clock or the environment, or is async.
//! The same inputs give the same bytes, on every machine (invariant 1 of docs/ARCHITECTURE.md).
//!
//! Where to start reading: [`action`] says what a step is, [`graph`] how steps hang together,
//! [`key`] how a step becomes a cache key and why that key changed.

pub mod action;
mod civil;
pub mod depset;
pub mod digest;
pub mod event;
pub mod failure;
pub mod graph;
pub mod host;
pub mod key;
pub mod label;
pub mod limits;
pub mod map;
pub mod merkle;
pub mod path;
pub mod policy;
pub mod quantity;
pub mod record;
pub mod run;
pub mod scheduler;
pub mod tenant;
pub mod wire;

pub use action::{
    ActionClass, ActionSpec, Arg, Artifact, ArtifactKind, ExecutionHints, How, Item, Origin,
    Output, ParamFileFormat, Sequence, Toolchain,
};
pub use digest::{Digest, DigestError, DigestFunction};
pub use failure::FailureKind;
pub use graph::{ActionGraph, ActionId, ArtifactId, GraphError, Target, TargetId};
pub use key::{ActionKey, Change, KeyParts, Prepared};
pub use label::{Label, TargetPattern};
pub use map::Map;
pub use merkle::{InputTree, Node};
pub use path::RelPath;
