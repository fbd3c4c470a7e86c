//! Runs ready actions: sandbox, inputs, outputs, native steps, records, workspace state.
//!
//! Knows actions and blobs; never sees Starlark or YAML, never prints, never reads the environment.
//!
//! | module | what it owns |
//! |---|---|
//! | [`baselines`] | what cached results were made of, for explanations across machines |
//! | [`engine`] | the build: which action next, look up or run, rewinding |
//! | [`ledger`] | the interface between who makes calls that cost, and the budget of a tenant |
//! | [`runner`] | the interface between the engine and whatever runs an action |
//! | [`step`] | the interface between the driver of a run and those who talk to a far side |
//! | [`command`] | runs command actions: input tree, sandbox, outputs |
//! | [`sandbox`] | namespaces, spawn servers |
//! | [`native`] | steps that Maestro implements itself |
//! | [`records`] | `maestro.lock` and how recorded actions find their result |
//! | [`remote_cache`] | the interface between the engine and a cache that others share |
//! | [`workspace`] | what is kept per workspace: sources, toolchains, snapshot, build log |

pub mod baselines;
pub mod command;
pub mod engine;
pub mod ledger;
pub mod leftovers;
pub mod native;
pub mod process_group;
pub mod provenance;
pub mod records;
pub mod remote_cache;
pub mod runner;
pub mod sandbox;
pub mod step;
pub mod storage;
pub mod workspace;
