//! One module a command.

pub mod budget;
pub mod build;
pub mod cache;
pub mod clean;
pub mod conformance;
pub mod daemon;
pub mod docs;
pub mod doctor;
pub mod exec;
pub mod explain;
pub mod fetch;
pub mod fmt;
pub mod lint;
pub mod lock;
pub mod policy;
pub mod profile;
pub mod provenance;
pub mod query;
pub mod repo;
pub mod run;
pub mod runs;
pub mod serve;
pub mod template;
pub mod vendor;
pub mod worker;
