//! Steps that speak of the outside world: downloads pinned by digest, and answers of models.

use maestro_core::{ActionClass, ArtifactId};
use serde_json::{Value as Json, json};
use starlark::environment::MethodsBuilder;
use starlark::eval::Evaluator;
use starlark::starlark_module;
use starlark::values::Value;
use starlark::values::dict::DictRef;
use starlark::values::none::NoneType;

use super::request::{add, checked_output, optional_text};
use crate::ctx::actions::Actions;
use crate::ctx::draft::Draft;
use crate::ctx::strings;
use crate::error::{Code, RuleError};
use crate::scope::RuleScope;
use crate::values::file::FileValue;
use crate::values::{expect_sequence, wrong_type};

#[starlark_module]
pub(crate) fn world_methods(builder: &mut MethodsBuilder) {
    /// Fetches a file whose digest is known.
    ///
    /// Args:
    ///   output: the file.
    ///   urls: where it is, in order of preference.
    ///   sha256: its digest, 64 hexadecimal digits; or
    ///   integrity: its digest as `sha256-BASE64` or `sha512-BASE64`.
    ///   executable: whether it is a program.
    fn fetch<'v>(
        this: &Actions,
        #[starlark(require = named)] output: Value<'v>,
        #[starlark(require = named)] urls: Value<'v>,
        #[starlark(require = named, default = "")] sha256: &str,
        #[starlark(require = named, default = "")] integrity: &str,
        #[starlark(require = named, default = false)] executable: bool,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<NoneType> {
        let _ = this;
        let output = checked_output(output, false)?;
        let urls = strings(urls, "urls")?;
        check_pin(&urls, sha256, integrity)?;
        let request = json!({
            "urls": urls,
            "sha256": optional_text(sha256),
            "integrity": optional_text(integrity),
            "executable": executable,
        });
        add(eval, "fetch", request, output, vec![])
    }

    /// Asks a language model; the answer is a record.
    ///
    /// Args:
    ///   output: the answer.
    ///   model: the model's name.
    ///   messages: a list of dicts with `role` and `content`, a list of strings and files.
    ///   sampling: a dict with `max_tokens` and perhaps `seed`, `temperature`, `top_p`.
    ///   step: what the record is called.
    ///   schema: a JSON Schema as Starlark values, or `None`.
    ///   sample: tells apart several answers to one request.
    ///   progress_message: one line for people.
    fn llm<'v>(
        this: &Actions,
        #[starlark(require = named)] output: Value<'v>,
        #[starlark(require = named)] model: &str,
        #[starlark(require = named)] messages: Value<'v>,
        #[starlark(require = named)] sampling: Value<'v>,
        #[starlark(require = named)] step: &str,
        #[starlark(require = named)] schema: Option<Value<'v>>,
        #[starlark(require = named, default = 0)] sample: i32,
        #[starlark(require = named, default = "")] progress_message: &str,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<NoneType> {
        let _ = this;
        let output = checked_output(output, false)?;
        let mut inputs = Vec::new();
        let messages = llm_messages(messages, &mut inputs)?;
        let sample = u32::try_from(sample)
            .map_err(|_| RuleError::new(Code::Action, "`sample` is not negative"))?;
        let schema = match schema {
            None => Json::Null,
            Some(value) => to_json(value, "schema")?,
        };
        let request = json!({
            "model": model,
            "messages": messages,
            "schema": schema,
            "sampling": to_json(sampling, "sampling")?,
            "step": step,
            "sample": sample,
        });
        let scope = RuleScope::of(eval)?;
        let mut draft = Draft::native("llm", request, output);
        draft.class = ActionClass::Recorded;
        draft.direct = inputs;
        draft.progress = progress_message.to_owned();
        draft.add(scope)?;
        Ok(NoneType)
    }
}

/// What the place of a download begins with.
const URL_STARTS: [&str; 5] = ["https://", "http://", "crate:", "npm:", "git+"];

fn check_pin(urls: &[String], sha256: &str, integrity: &str) -> Result<(), RuleError> {
    let known = |url: &&String| URL_STARTS.iter().any(|start| url.starts_with(start));
    if let Some(odd) = urls.iter().find(|url| !known(url)) {
        let message = format!(
            "`{}` is no `http:`, `https:`, `crate:`, `npm:` or `git+` URL",
            odd.escape_debug()
        );
        return Err(RuleError::new(Code::Action, message));
    }
    let Some(first) = urls.first() else {
        return Err(RuleError::new(Code::Action, "a download needs at least one URL"));
    };
    match (sha256, integrity) {
        ("", "") => Err(RuleError::new(Code::Unpinned, format!("`{first}` is not pinned"))
            .hint("add `sha256 = \"…\"`, as `sha256sum` prints it for the file that you trust")),
        ("", text) if text.starts_with("sha256-") || text.starts_with("sha512-") => Ok(()),
        ("", text) => Err(RuleError::new(
            Code::Unpinned,
            format!(
                "`integrity` is `sha256-BASE64` or `sha512-BASE64`, not `{}`",
                text.escape_debug()
            ),
        )),
        (hex, "") => {
            let digit = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
            if hex.len() == 64 && hex.chars().all(digit) {
                return Ok(());
            }
            let message =
                format!("`sha256` is 64 small hexadecimal digits, not `{}`", hex.escape_debug());
            Err(RuleError::new(Code::Unpinned, message))
        }
        _ => Err(RuleError::new(Code::Unpinned, "give `sha256` or `integrity`, not both")),
    }
}

fn llm_messages(value: Value<'_>, inputs: &mut Vec<ArtifactId>) -> Result<Json, RuleError> {
    let wrong = |value| wrong_type("messages", "a list of dicts with `role` and `content`", value);
    let mut out = Vec::new();
    for message in expect_sequence(value, "messages")? {
        let dict = DictRef::from_value(*message).ok_or_else(|| wrong(*message))?;
        let role = dict.get_str("role").and_then(|v| v.unpack_str());
        let parts = dict.get_str("content");
        let (Some(role), Some(parts)) = (role, parts) else { return Err(wrong(*message)) };
        let mut content = Vec::new();
        for part in expect_sequence(parts, "content")? {
            match (part.unpack_str(), FileValue::from_value(*part)) {
                (Some(text), _) => content.push(json!({"text": text})),
                (None, Some(file)) if !file.is_tree() => {
                    inputs.push(file.artifact());
                    content.push(json!({"context": file.path()}));
                }
                _ => return Err(wrong_type("content", "a list of strings and files", *part)),
            }
        }
        out.push(json!({"role": role, "content": content}));
    }
    Ok(Json::Array(out))
}

/// A value as JSON; objects keep their order, which the key's canonical form does not see.
fn to_json(value: Value<'_>, parameter: &str) -> Result<Json, RuleError> {
    value
        .to_json_value()
        .map_err(|e| RuleError::new(Code::Action, format!("`{parameter}` has no JSON form: {e}")))
}
