//! Loading: from `.star` files to packages.
//!
//! Every file is read once, parsed, and evaluated as soon as the files it loads are; two threads
//! share the work. The result of a file does not depend on which thread took it, nor when.

pub(crate) mod file;
pub(crate) mod loader;
pub(crate) mod packages;
mod parallel;
