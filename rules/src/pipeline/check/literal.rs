//! Checks values that are written out against what fields take, and says how to mend them.

use maestro_core::quantity;

use super::Check;
use crate::error::Code;
use crate::pipeline::definitions::FieldKind;
use crate::pipeline::expression::Value;
use crate::pipeline::read::meant_boolean;
use crate::pipeline::source::Span;

impl Check<'_> {
    pub(super) fn literal(&mut self, value: &Value, span: Span, kind: FieldKind, what: &str) {
        let fits = match (kind, value) {
            (FieldKind::Any, _) => true,
            (FieldKind::Text | FieldKind::Artifact, Value::String(_)) => true,
            (FieldKind::Path, Value::String(text)) => is_inside(text),
            (FieldKind::Url, Value::String(text)) => ["http://", "https://"]
                .iter()
                .any(|s| text.strip_prefix(s).is_some_and(|r| !r.is_empty())),
            (FieldKind::Int(low, high), Value::Number(n)) => {
                n.as_i64().is_some_and(|n| (low..=high).contains(&n))
            }
            (FieldKind::Number(low, high), Value::Number(n)) => {
                n.as_f64().is_some_and(|n| (low..=high).contains(&n))
            }
            (FieldKind::Bool, Value::Bool(_)) => true,
            (FieldKind::Choice(texts), Value::String(text)) => texts.contains(&text.as_str()),
            (FieldKind::Duration, Value::String(text)) => quantity::duration_ms(text).is_some(),
            (FieldKind::Duration, Value::Number(n)) => n.as_u64().is_some(),
            (FieldKind::Secret, Value::String(text)) => {
                !text.is_empty()
                    && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_/.".contains(&b))
            }
            _ => false,
        };
        if !fits {
            self.misfit(value, span, kind, what);
        }
    }

    fn misfit(&mut self, value: &Value, span: Span, kind: FieldKind, what: &str) {
        let written = self.sources.text(span).to_owned();
        let shown = match value {
            Value::String(text) => format!("`{}`", text.escape_debug()),
            Value::Null => "nothing".to_owned(),
            other => format!("`{other}`"),
        };
        let (code, shown) = match kind {
            // It may be the secret itself.
            FieldKind::Secret => (Code::PipelineSecret, "this".to_owned()),
            _ => (Code::PipelineType, shown),
        };
        let message = format!("{what} is {}, not {shown}", kind.describe());
        let draft = self.report.error(code, span, message);
        match (kind, value) {
            (FieldKind::Text | FieldKind::Path, Value::Number(_) | Value::Bool(_)) => {
                draft.fix(span, format!("\"{written}\"")).hint("put it into quotes");
            }
            (FieldKind::Choice(texts), Value::String(text)) => {
                let plain = written == *text;
                match plain {
                    true => draft.suggest(text, span, texts.iter().copied()),
                    false => draft.resembles(text, texts.iter().copied()),
                };
            }
            (FieldKind::Bool, Value::String(text)) => {
                let Some(mend) = meant_boolean(text) else { return };
                draft.fix(span, mend).hint(format!("write `{mend}`"));
            }
            (FieldKind::Int(..) | FieldKind::Number(..), Value::String(text))
                if text.parse::<f64>().is_ok() =>
            {
                draft.fix(span, text.clone()).hint("take the quotes away");
            }
            (FieldKind::List(_), Value::String(_)) => {
                draft.fix(span, format!("[{written}]")).hint("put it into brackets");
            }
            (FieldKind::Path, Value::String(_)) => {
                draft.hint("a path is relative to the workspace, and stays inside it");
            }
            (FieldKind::Secret, _) => {
                draft.hint(
                    "write the name of a stored secret; a value that was committed must be changed",
                );
            }
            _ => {}
        }
    }
}

/// Whether a path stays inside the workspace.
fn is_inside(path: &str) -> bool {
    !path.is_empty()
        && !path.starts_with('/')
        && !path.contains('\0')
        && path.split('/').all(|part| part != "..")
}
