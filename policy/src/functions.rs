//! Which built-in functions a policy may call.
//!
//! A decision is a function of policy and input: what reads a clock, chance, the environment or the
//! network is not there, and neither is what makes huge values out of a few letters.

use crate::error::{Code, Finding, did_you_mean};
use crate::syntax::BUILTINS;

/// Functions that Rego has and policies here have not, each with the reason.
const FORBIDDEN: &[(&str, &str)] = &[
    ("http.send", "a policy has no network; what it needs is in `input` or in `data.json`"),
    ("net.lookup_ip_addr", "a policy has no network; what it needs is in `input`"),
    ("time.now_ns", "the time of the question is `input.now`"),
    ("rand.intn", "the same question has to get the same answer"),
    ("uuid.rfc4122", "the same question has to get the same answer"),
    ("opa.runtime", "a policy has no environment; what it needs is in `input` or in `data.json`"),
    ("numbers.range", "it could take all memory; put the list into `data.json`"),
    ("numbers.range_step", "it could take all memory; put the list into `data.json`"),
    ("json.unmarshal", "what it reads belongs into `input` or into `data.json`"),
    ("json.is_valid", "what it reads belongs into `input` or into `data.json`"),
    ("units.parse", "write the number out"),
    ("units.parse_bytes", "write the number out"),
    ("trace", "use `print`, which `maestro policy test -v` shows"),
];

/// Functions that are part of the language rather than of the table.
const LANGUAGE: &[&str] = &["print"];

/// Whether there is such a built-in function; else what is wrong with the name.
pub(crate) fn check(name: &str, own: &[String]) -> Result<(), Finding> {
    if let Some((_, why)) = FORBIDDEN.iter().find(|(forbidden, _)| *forbidden == name) {
        let message = format!("policies have no function `{name}`");
        return Err(Finding::new(Code::Function, message).hint(*why));
    }
    if BUILTINS.contains_key(name) || LANGUAGE.contains(&name) {
        return Ok(());
    }
    let known = BUILTINS.keys().copied().chain(own.iter().map(String::as_str));
    let hint = did_you_mean(name, known);
    Err(Finding::new(Code::Function, format!("there is no function `{name}`")).hints(hint))
}
