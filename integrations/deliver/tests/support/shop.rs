//! What the effects of tests need: options, secrets, and the way in which a driver of runs deals
//! with a request whose answer it has not got.
#![allow(dead_code)] // each test uses a part of it

use std::path::Path;

use maestro_deliver::{DeliverOptions, Secret, SecretError, Secrets};
use maestro_executor::step::{Effect, Found, Reply, Stop};

/// One secret, named `token`.
pub struct OneSecret;

impl Secrets for OneSecret {
    fn get(&self, name: &str) -> Result<Secret, SecretError> {
        match name {
            "token" => Ok(Secret::new("s3cret\n")),
            _ => Err(SecretError::Missing { name: name.into(), hint: "tests have one".into() }),
        }
    }
}

/// Options of a machine whose git is `git`.
pub fn options(scratch: &Path, git: &Path) -> DeliverOptions {
    let path = std::env::var_os("PATH").expect("`PATH`");
    DeliverOptions {
        git: git.into(),
        environment: vec![("PATH".into(), path)],
        folder: scratch.into(),
        scratch: scratch.into(),
        author: "Maestro".into(),
        email: "maestro@localhost".into(),
    }
}

/// As `runs` settles a request to a conditional far side.
pub async fn settle(effect: &dyn Effect, request: &str, key: &str) -> Reply {
    let stop = Stop::new();
    match effect.find(request, key, &stop).await {
        Found::Done(success) => Reply::Done(success),
        Found::NotDone => effect.send(request, key, &stop).await,
        Found::Unclear(why) => panic!("the far side does not say: {why}"),
    }
}
