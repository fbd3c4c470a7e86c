//! Steps that Maestro implements itself, as functions of `ctx.actions`.
//!
//! Each function builds the request that `docs/design/native-steps.md` and `docs/design/lock.md`
//! define. A field is always written in the same manner, since the request is part of the key.

mod files;
mod packages;
mod request;
mod trees;
mod world;

use starlark::environment::MethodsBuilder;

/// Adds every such function.
pub(crate) fn native_methods(builder: &mut MethodsBuilder) {
    files::file_methods(builder);
    packages::package_methods(builder);
    trees::tree_methods(builder);
    world::world_methods(builder);
}
