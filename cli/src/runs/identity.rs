//! Who types: the user of the operating system, with the roles of a local file.
//!
//! `maestro/roles.toml` below the configuration folder, or the file that `MAESTRO_ROLES` names,
//! lists who has which role: `release-manager = ["ann", "bob"]`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use maestro_core::run::Principal;

use crate::config::non_empty;
use crate::exit::Failure;

/// The issuer of names of this machine.
const LOCAL: &str = "local";

/// The user of this process, with their roles.
pub fn here() -> Result<Principal> {
    let name = user_name();
    let mut roles = Vec::new();
    if let Some(path) = roles_file()
        && path.is_file()
    {
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

fn roles_file() -> Option<PathBuf> {
    if let Some(path) = non_empty("MAESTRO_ROLES") {
        return Some(PathBuf::from(path));
    }
    let home = || non_empty("HOME").map(|home| Path::new(&home).join(".config"));
    let folder = non_empty("XDG_CONFIG_HOME").map(PathBuf::from).or_else(home)?;
    Some(folder.join("maestro/roles.toml"))
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
