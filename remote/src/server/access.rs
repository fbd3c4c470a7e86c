//! Who may do what: bearer tokens, each with a part of the instance names, to read or to write.
//!
//! Tokens stand in a file, one a line:
//!
//! ```text
//! # token            instances   access
//! c2VjcmV0LW9uZQ     team-a      read-write
//! c2VjcmV0LXR3bw     team-a/ci   read-only
//! c2VjcmV0LXRocmVl   *           worker
//! ```
//!
//! `team-a` stands for that instance and those below it, `*` for all. Tokens are compared in
//! constant time, all of them each time, so that neither the time nor the order tells anything.
//! Without a file, everybody who can connect may do everything: the command says so.

use std::sync::Arc;

use maestro_core::limits;
use subtle::ConstantTimeEq as _;
use tonic::service::Interceptor;
use tonic::{Request, Status};

use crate::resource::check_instance;

/// Shortest token that is taken, in bytes.
const TOKEN_BYTES_MIN: usize = 16;

/// What a call wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// Look and read.
    Read,
    /// Store, and have actions run.
    Write,
    /// Run actions.
    Work,
}

/// What a caller may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The instance that it is for, with those below it; `None` for all.
    instance: Option<String>,
    /// The most that it allows.
    most: Need,
}

/// The tokens of a file.
#[derive(Clone, Debug)]
pub struct Tokens(Vec<(Vec<u8>, Grant)>);

/// What is wrong with a file of tokens.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokensError {
    /// A line has not three words.
    #[error("line {line} is not `TOKEN INSTANCE read-only|read-write` or `TOKEN * worker`")]
    Shape {
        /// The line, from 1 on.
        line: usize,
    },
    /// A token could be guessed.
    #[error("the token of line {line} has fewer than {limit} bytes")]
    Short {
        /// The line, from 1 on.
        line: usize,
        /// The bound.
        limit: usize,
    },
    /// Two lines have the same token.
    #[error("line {line} has the token of an earlier line")]
    Twice {
        /// The later line, from 1 on.
        line: usize,
    },
    /// There are too many lines.
    #[error("there are more than {limit} tokens")]
    TooMany {
        /// The bound.
        limit: usize,
    },
    /// There is no token at all, so nobody could do anything.
    #[error("there is no token")]
    Empty,
}

impl Grant {
    /// Everything.
    fn all() -> Self {
        Self { instance: None, most: Need::Work }
    }

    /// Checks what a call wants to do with an instance.
    pub(super) fn check(&self, instance: &str, need: Need) -> Result<(), Status> {
        let below = |prefix: &String| {
            let rest = instance.strip_prefix(prefix.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if !self.instance.as_ref().is_none_or(below) {
            return Err(Status::permission_denied(format!(
                "the token is not for the instance `{instance}`"
            )));
        }
        match need {
            _ if need <= self.most => Ok(()),
            Need::Work => Err(Status::permission_denied("the token is not that of a worker")),
            _ => Err(Status::permission_denied("the token is for reading only")),
        }
    }
}

impl Tokens {
    /// Reads the text of a file.
    pub fn parse(text: &str) -> Result<Self, TokensError> {
        let mut tokens: Vec<(Vec<u8>, Grant)> = Vec::new();
        for (line, text) in (1..).zip(text.lines()) {
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let words: Vec<&str> = text.split_whitespace().collect();
            let [token, instance, access] = words[..] else {
                return Err(TokensError::Shape { line });
            };
            let most = match access {
                "read-only" => Need::Read,
                "read-write" => Need::Write,
                // It runs the actions of all instances, and writes their results.
                "worker" if instance == "*" => Need::Work,
                _ => return Err(TokensError::Shape { line }),
            };
            if check_instance(instance).is_err() {
                return Err(TokensError::Shape { line });
            }
            if token.len() < TOKEN_BYTES_MIN {
                return Err(TokensError::Short { line, limit: TOKEN_BYTES_MIN });
            }
            if tokens.iter().any(|(known, _)| known == token.as_bytes()) {
                return Err(TokensError::Twice { line });
            }
            let instance = (instance != "*").then(|| instance.to_owned());
            tokens.push((token.as_bytes().to_vec(), Grant { instance, most }));
            let limit = limits::TOKENS_MAX;
            if tokens.len() > limit {
                return Err(TokensError::TooMany { limit });
            }
        }
        if tokens.is_empty() { Err(TokensError::Empty) } else { Ok(Self(tokens)) }
    }

    fn find(&self, token: &[u8]) -> Option<&Grant> {
        let mut found = None;
        for (known, grant) in &self.0 {
            if bool::from(known.as_slice().ct_eq(token)) {
                found = Some(grant);
            }
        }
        found
    }
}

/// Lets calls in, and notes what they may do.
#[derive(Clone)]
pub(super) struct Gate(Option<Arc<Tokens>>);

impl Gate {
    pub(super) fn new(tokens: Option<Tokens>) -> Self {
        Self(tokens.map(Arc::new))
    }
}

impl Interceptor for Gate {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let grant = match &self.0 {
            None => Grant::all(),
            Some(tokens) => {
                let header = request.metadata().get("authorization");
                let header = header.and_then(|value| value.to_str().ok());
                let token = header.and_then(|value| {
                    let (scheme, token) = value.split_once(' ')?;
                    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
                });
                let token = token.ok_or_else(|| {
                    Status::unauthenticated("this server needs a token: `authorization: Bearer …`")
                })?;
                let grant = tokens.find(token.as_bytes());
                grant.ok_or_else(|| Status::unauthenticated("the token is not known"))?.clone()
            }
        };
        request.extensions_mut().insert(grant);
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# tokens\n\n0123456789abcdef team-a read-write\n\
                        fedcba9876543210 team-a/ci read-only\nAAAAAAAAAAAAAAAAAA * read-only\n";

    fn enter(header: Option<&str>) -> Result<Grant, String> {
        let tokens = Tokens::parse(FILE).expect("it is a file of tokens");
        let mut request = Request::new(());
        if let Some(header) = header {
            let value = header.parse().expect("a header");
            request.metadata_mut().insert("authorization", value);
        }
        let entered = Gate::new(Some(tokens)).call(request);
        let entered = entered.map_err(|status| status.message().to_owned())?;
        Ok(entered.extensions().get::<Grant>().cloned().expect("a grant"))
    }

    #[test]
    fn tokens_open_their_part() {
        let check = |token: &str, instance: &str, need: Need, expect: bool| {
            let grant = enter(Some(&format!("Bearer {token}"))).expect("it is known");
            assert_eq!(grant.check(instance, need).is_ok(), expect, "{token} {instance} {need:?}");
        };
        check("0123456789abcdef", "team-a", Need::Write, true);
        check("0123456789abcdef", "team-a/x/y", Need::Write, true);
        check("0123456789abcdef", "team-ab", Need::Read, false);
        check("0123456789abcdef", "", Need::Read, false);
        check("fedcba9876543210", "team-a/ci", Need::Read, true);
        check("fedcba9876543210", "team-a/ci", Need::Write, false);
        check("fedcba9876543210", "team-a", Need::Read, false);
        check("AAAAAAAAAAAAAAAAAA", "", Need::Read, true);
        check("AAAAAAAAAAAAAAAAAA", "any", Need::Write, false);
    }

    #[test]
    fn without_a_known_token_nobody_enters() {
        for header in [None, Some("Basic 0123456789abcdef"), Some("Bearer"), Some("")] {
            let why = enter(header).expect_err("it has no token");
            assert!(why.contains("needs a token"), "{why}");
        }
        for token in ["0123456789abcde", "0123456789abcdef0", "0123456789abcdeg"] {
            let why = enter(Some(&format!("bearer {token}"))).expect_err("nobody knows it");
            assert_eq!(why, "the token is not known");
        }
        let most = enter(Some("bearer AAAAAAAAAAAAAAAAAA")).map(|grant| grant.most);
        assert_eq!(most, Ok(Need::Read));
    }

    #[test]
    fn files_that_say_something_else_are_refused() {
        let check = |text: &str, expect: &str| {
            let error = Tokens::parse(text).expect_err(text);
            assert_eq!(error.to_string(), expect, "{text}");
        };
        let shape = "line 1 is not `TOKEN INSTANCE read-only|read-write` or `TOKEN * worker`";
        check("", "there is no token");
        check("# nothing", "there is no token");
        check("0123456789abcdef", shape);
        check("0123456789abcdef a/b write", shape);
        check("0123456789abcdef a//b read-only", shape);
        check("0123456789abcdef a read-only more", shape);
        check("0123456789abcdef a worker", shape);
        check("short a read-only", "the token of line 1 has fewer than 16 bytes");
        let twice = "0123456789abcdef a read-only\n0123456789abcdef b read-only";
        check(twice, "line 2 has the token of an earlier line");
    }
}
