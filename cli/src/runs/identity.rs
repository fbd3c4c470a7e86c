//! Who types: the user of the operating system, with the roles of a local file.
//!
//! `roles.toml` in the folder of the state lists who has which role:
//! `release-manager = ["ann", "bob"]`. It lies beside the journal, so that all who approve go by
//! one list, and whoever may write the one may write the other.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use maestro_core::run::Principal;

use crate::exit::Failure;

/// The issuer of names of this machine.
const LOCAL: &str = "local";

/// The user of this process, with their roles.
pub fn here(state: &Path) -> Result<Principal> {
    let name = user_name();
    let mut roles = Vec::new();
    let path = state.join("roles.toml");
    if path.is_file() {
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read `{}`", path.display()))?;
        let table: BTreeMap<String, Vec<String>> = toml::from_str(&text).map_err(|error| {
            Failure::input(format!("`{}` is not valid: {error}", path.display()))
                .hint("a line lists who has a role: `release-manager = [\"ann\", \"bob\"]`")
        })?;
        let own = table.into_iter().filter(|(_, names)| names.contains(&name));
        roles.extend(own.map(|(role, _)| role));
    }
    Ok(Principal { name, issuer: LOCAL.to_owned(), roles })
}

/// The name that the machine's user list gives this process, not one that the environment claims.
fn user_name() -> String {
    let uid = rustix::process::getuid().as_raw();
    let list = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = list.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, id) = (fields.next()?, fields.next()?, fields.next()?);
        (id.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("uid-{uid}"))
}

/// The name of this machine.
pub fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
