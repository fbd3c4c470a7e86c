//! What build files mean: each test is a small workspace in memory and what must come of it.

mod actions;
mod aspects;
mod configurations;
mod configured_queries;
mod depsets;
mod errors;
mod exec_groups;
mod generators;
mod golden;
mod hostile;
mod library;
mod macros;
mod memory;
mod packages;
mod platform_values;
mod queries;
mod query_memory;
mod repositories;
mod toolchains;
mod workspace;
