//! Secrets of this machine: a variable, or a file of the user's configuration.
//!
//! `name` is `MAESTRO_SECRET_NAME` (upper case, anything but letters and digits as `_`), else the
//! file `maestro/secrets/name` below the configuration folder, without its last line feed. A file
//! that others can read is refused.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use maestro_deliver::{Secret, SecretError, Secrets};

use crate::config::non_empty;

/// Looks there.
pub struct LocalSecrets;

impl Secrets for LocalSecrets {
    fn get(&self, name: &str) -> Result<Secret, SecretError> {
        let variable = variable(name);
        if let Some(value) = non_empty(&variable) {
            return Ok(Secret::new(value));
        }
        let missing = || SecretError::Missing {
            name: name.to_owned(),
            hint: format!(
                "set `{variable}`, or write the file `maestro/secrets/{name}` of your \
                           configuration"
            ),
        };
        if name.is_empty() || name.contains('/') || name.starts_with('.') {
            return Err(missing());
        }
        let path = folder().ok_or_else(missing)?.join(name);
        let unreadable = |why: String| SecretError::Unreadable { name: name.to_owned(), why };
        let metadata = match std::fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(missing()),
            Err(error) => return Err(unreadable(error.to_string())),
        };
        if metadata.permissions().mode() & 0o077 != 0 {
            let why = format!("others can read `{}`; `chmod 600` it", path.display());
            return Err(unreadable(why));
        }
        let mut bytes = std::fs::read(&path).map_err(|error| unreadable(error.to_string()))?;
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        }
        Ok(Secret::new(bytes))
    }
}

fn variable(name: &str) -> String {
    let word = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    format!("MAESTRO_SECRET_{}", name.chars().map(word).collect::<String>())
}

fn folder() -> Option<PathBuf> {
    let home = || non_empty("HOME").map(|home| Path::new(&home).join(".config"));
    let folder = non_empty("XDG_CONFIG_HOME").map(PathBuf::from).or_else(home)?;
    Some(folder.join("maestro/secrets"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_variables() {
        assert_eq!(variable("slack-hook.url"), "MAESTRO_SECRET_SLACK_HOOK_URL");
    }

    #[test]
    fn names_that_are_paths_are_not_looked_for() {
        for name in ["", "../x", "a/b", ".x"] {
            assert!(matches!(LocalSecrets.get(name), Err(SecretError::Missing { .. })), "{name}");
        }
    }
}
