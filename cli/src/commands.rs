//! One module a command.

pub mod build;
pub mod cache;
pub mod clean;
pub mod doctor;
pub mod exec;
pub mod explain;
pub mod fmt;
pub mod lock;
pub mod provenance;
pub mod query;
pub mod run;
