//! Attributes of targets as queries see them: texts to be matched, labels to be followed.

use maestro_core::Label;

use crate::attr::AttrValue;
use crate::package::TargetDecl;

/// The values that an attribute may take, as texts: labels in full, lists as `[a, b]`, dicts as
/// `{k=v, l=w}`, truth as `1` and `0`, in the manner of Bazel. Of a `select`, every branch is one.
/// Empty where the rule has no such attribute.
pub(super) fn attribute_texts(decl: &TargetDecl, name: &str) -> Vec<String> {
    if name == "visibility" {
        return vec![bracketed(decl.visibility.entries())];
    }
    if let Some(rest) = name.strip_prefix("generator_") {
        let Some(generator) = decl.generator() else { return Vec::new() };
        return match rest {
            "name" => vec![generator.generator_name],
            "function" => vec![generator.generator_function],
            "location" => vec![generator.generator_location],
            _ => Vec::new(),
        };
    }
    match decl.attr(name) {
        Some(AttrValue::Configurable(sum)) => sum.values().map(text).collect(),
        Some(value) => vec![text(value)],
        None => Vec::new(),
    }
}

/// The labels that an attribute names; of outputs as well.
pub(super) fn attribute_labels<'a>(decl: &'a TargetDecl, name: &str) -> Vec<&'a Label> {
    decl.attr(name).map(AttrValue::labels).unwrap_or_default()
}

fn text(value: &AttrValue) -> String {
    match value {
        // Branches hold no further `select`.
        AttrValue::None | AttrValue::Configurable(_) => String::new(),
        AttrValue::Bool(value) => u8::from(*value).to_string(),
        AttrValue::Int(value) => value.to_string(),
        AttrValue::String(text) => text.to_string(),
        AttrValue::Label(label) => label.to_string(),
        AttrValue::Strings(list) => bracketed(list),
        AttrValue::Ints(list) => bracketed(list),
        AttrValue::Labels(list) => bracketed(list),
        AttrValue::Dict(entries) => braced(entries),
        AttrValue::LabelDict(entries) => braced(entries),
    }
}

fn bracketed<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let texts: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    format!("[{}]", texts.join(", "))
}

fn braced<K: ToString, V: ToString>(entries: &[(K, V)]) -> String {
    let texts: Vec<String> =
        entries.iter().map(|(k, v)| format!("{}={}", k.to_string(), v.to_string())).collect();
    format!("{{{}}}", texts.join(", "))
}
