//! Where secrets come from, and values that do not print themselves.
//!
//! Requests hold names of secrets, never their values: requests stand in the journal and are shown
//! to people. The value is asked for when a request is sent.

use std::fmt;

use maestro_core::run::Failure;

use crate::failures::user;

/// The bytes of a secret. They are not shown by `{:?}`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// A secret of these bytes, without the line breaks at its end, which files have.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        let mut bytes = bytes.into();
        while bytes.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            bytes.pop();
        }
        Self(bytes)
    }

    /// The bytes, for who signs or authenticates with them.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Why there is no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// There is none of this name.
    #[error("there is no secret `{name}`; {hint}")]
    Missing {
        /// Its name.
        name: String,
        /// Where it was looked for.
        hint: String,
    },
    /// It is there and cannot be read.
    #[error("the secret `{name}` cannot be read: {why}")]
    Unreadable {
        /// Its name.
        name: String,
        /// What stands in the way.
        why: String,
    },
}

/// A source of secrets.
pub trait Secrets: Send + Sync {
    /// The secret of this name.
    fn get(&self, name: &str) -> Result<Secret, SecretError>;
}

/// The secret of this name, if one is wanted. Empty ones are refused: they would sign everything.
pub(crate) fn find(secrets: &dyn Secrets, name: Option<&str>) -> Result<Option<Secret>, Failure> {
    let Some(name) = name else { return Ok(None) };
    let secret = secrets.get(name).map_err(|error| user(error.to_string()))?;
    if secret.reveal().is_empty() {
        return Err(user(format!("the secret `{name}` is empty")));
    }
    Ok(Some(secret))
}
