//! Reference documentation, made from the files themselves: rules with the schema of their
//! attributes, providers with their fields, functions with their docstrings, and error codes.
//!
//! A file is evaluated, as for a build, so attributes that helpers make are seen, too. Pages are
//! Markdown; [`FileReference`] is the same as data. What this module writes lies in
//! `docs/reference/library/`, `docs/reference/language.md` and `docs/errors/`, and a test keeps it
//! fresh.

mod errors;
mod language;
mod markdown;
#[cfg(test)]
mod tests;

use maestro_core::Label;
use maestro_core::host::Host;
use serde::Serialize;
use starlark::docs::{DocFunction, DocItem, DocMember, DocParam};

use crate::aspect::{AspectSpec, FrozenAspect};
use crate::attr::{AllowFiles, AttrSpec, AttrValue};
use crate::diagnostic::Diagnostic;
use crate::error::{Code, RuleError};
use crate::limits::EvaluationLimits;
use crate::load::file::{display, missing};
use crate::load::loader::Loader;
use crate::on_large_stack;
use crate::rule::{FrozenRule, RuleSpec, common_attributes};
use crate::symbolic_macro::{FrozenSymbolicMacro, MacroSpec};
use crate::values::provider::{ProviderCallable, ProviderType};

pub use errors::{error_page, error_pages};
pub use language::language_page;

/// What a file offers to those who load it.
#[derive(Clone, Debug, Serialize)]
pub struct FileReference {
    /// Its label, as one loads it.
    pub file: String,
    /// Its docstring.
    pub doc: String,
    /// Rules, by name.
    pub rules: Vec<RuleReference>,
    /// Macros with a schema, by name.
    pub macros: Vec<MacroReference>,
    /// Aspects, by name.
    pub aspects: Vec<AspectReference>,
    /// Providers, by name.
    pub providers: Vec<Provider>,
    /// Functions, by name.
    pub functions: Vec<Function>,
}

/// A rule.
#[derive(Clone, Debug, Serialize)]
pub struct RuleReference {
    /// The name to load.
    pub name: String,
    /// The rule that it is another name of.
    pub alias_of: Option<String>,
    /// What it does.
    pub doc: String,
    /// Whether its targets can be run.
    pub executable: bool,
    /// Whether its targets are tests.
    pub test: bool,
    /// Providers that its targets always have.
    pub provides: Vec<String>,
    /// Its own attributes, without those that every rule has.
    pub attributes: Vec<Attribute>,
}

/// A macro with a schema.
#[derive(Clone, Debug, Serialize)]
pub struct MacroReference {
    /// The name to load.
    pub name: String,
    /// What it declares.
    pub doc: String,
    /// Its own attributes, without `name`, `visibility` and those that it inherits.
    pub attributes: Vec<Attribute>,
}

/// An aspect.
#[derive(Clone, Debug, Serialize)]
pub struct AspectReference {
    /// The name to load.
    pub name: String,
    /// What it does.
    pub doc: String,
    /// The attributes along which it goes on; `*` is all of them.
    pub attr_aspects: Vec<String>,
    /// Providers that it always gives.
    pub provides: Vec<String>,
    /// Its params.
    pub attributes: Vec<Attribute>,
}

/// An attribute.
#[derive(Clone, Debug, Serialize)]
pub struct Attribute {
    /// Its name.
    pub name: String,
    /// Its type, in words.
    pub kind: &'static str,
    /// Whether every target must say it.
    pub mandatory: bool,
    /// What holds where a target says nothing, as one writes it; `None` if mandatory.
    pub default: Option<String>,
    /// The only values, if there are few.
    pub values: Vec<String>,
    /// Which files it takes: `any`, or their ends; empty if none or if it takes no labels.
    pub files: Vec<String>,
    /// Whether a dependency must have exactly one file.
    pub single_file: bool,
    /// Whether a dependency must be a program.
    pub executable: bool,
    /// Lists of providers, one of which a dependency must have.
    pub providers: Vec<Vec<String>>,
    /// Whether `select` may stand there.
    pub configurable: bool,
    /// What it means.
    pub doc: String,
}

/// A provider.
#[derive(Clone, Debug, Serialize)]
pub struct Provider {
    /// Its name.
    pub name: String,
    /// What it tells.
    pub doc: String,
    /// Its fields.
    pub fields: Vec<Field>,
}

/// A field of a provider.
#[derive(Clone, Debug, Serialize)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// What it means.
    pub doc: String,
}

/// A function.
#[derive(Clone, Debug, Serialize)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Its docstring, without what it says about parameters.
    pub doc: String,
    /// Its parameters.
    pub parameters: Vec<Parameter>,
}

/// A parameter of a function.
#[derive(Clone, Debug, Serialize)]
pub struct Parameter {
    /// Its name, with stars.
    pub name: String,
    /// The value where none is given.
    pub default: Option<String>,
    /// What it means.
    pub doc: String,
}

/// The reference of a `.star` file that is no package file.
pub fn reference(host: &dyn Host, file: &Label) -> Result<FileReference, Vec<Diagnostic>> {
    on_large_stack(|| reference_here(host, file))
}

fn reference_here(host: &dyn Host, file: &Label) -> Result<FileReference, Vec<Diagnostic>> {
    let mut loader = Loader::new(host, 1, EvaluationLimits::default());
    loader.load(std::slice::from_ref(file));
    let Some(evaluated) = loader.get(file) else {
        let mut errors = std::mem::take(&mut loader.diagnostics);
        if errors.is_empty() {
            errors.push(Diagnostic::of(missing(host, file), None));
        }
        return Err(errors);
    };
    if evaluated.package.is_some() {
        let message = format!("`{}` declares targets and offers nothing to load", display(file));
        let hint = "`maestro query` asks about targets";
        return Err(vec![Diagnostic::of(RuleError::new(Code::File, message).hint(hint), None)]);
    }
    let documentation = evaluated.module.documentation();
    let doc = documentation.docs.map(|doc| whole(&doc)).unwrap_or_default();
    let (mut rules, mut macros, mut aspects) = (Vec::new(), Vec::new(), Vec::new());
    let (mut providers, mut functions) = (Vec::new(), Vec::new());
    let mut names: Vec<String> =
        evaluated.module.names().map(|name| name.as_str().to_owned()).collect();
    names.sort_unstable();
    for name in names.into_iter().filter(|name| !name.starts_with('_')) {
        let Ok(value) = evaluated.module.get(&name) else { continue };
        let of_file = value.value();
        if let Some(provider) = ProviderCallable::from_value(of_file) {
            if provider.ty.file == file.to_string() {
                providers.push(provider_of(name, &provider.ty));
            }
        } else if let Ok(rule) = value.clone().downcast::<FrozenRule>() {
            if rule.as_ref().spec.file == *file {
                rules.push(rule_of(name, &rule.as_ref().spec));
            }
        } else if let Ok(of) = value.clone().downcast::<FrozenSymbolicMacro>() {
            if of.as_ref().spec.file == *file {
                macros.push(macro_of(name, &of.as_ref().spec));
            }
        } else if let Ok(aspect) = value.clone().downcast::<FrozenAspect>() {
            if aspect.as_ref().spec.file == *file {
                aspects.push(aspect_of(name, &aspect.as_ref().spec));
            }
        } else if let DocItem::Member(DocMember::Function(function)) = of_file.documentation() {
            functions.push(function_of(name, &function));
        }
    }
    let file = file.to_string();
    Ok(FileReference { file, doc, rules, macros, aspects, providers, functions })
}

fn rule_of(name: String, spec: &RuleSpec) -> RuleReference {
    let common = common_attributes(spec.executable, spec.test, true);
    let own = spec.attrs.iter().filter(|(name, _)| {
        !name.starts_with('_') && !common.iter().any(|(shared, _)| shared == name)
    });
    RuleReference {
        alias_of: (spec.name() != name).then(|| spec.name().to_owned()),
        name,
        doc: spec.doc.trim().to_owned(),
        executable: spec.executable,
        test: spec.test,
        provides: spec.provides.iter().map(|ty| ty.name().to_owned()).collect(),
        attributes: own.map(|(name, spec)| attribute_of(name, spec)).collect(),
    }
}

fn macro_of(name: String, spec: &MacroSpec) -> MacroReference {
    let own = spec.attrs.iter().filter(|(name, _)| !name.starts_with('_'));
    let attributes = own.map(|(name, spec)| attribute_of(name, spec)).collect();
    MacroReference { name, doc: spec.doc.trim().to_owned(), attributes }
}

fn aspect_of(name: String, spec: &AspectSpec) -> AspectReference {
    let params = spec.attrs.iter().filter(|(name, _)| !name.starts_with('_'));
    AspectReference {
        name,
        doc: spec.doc.trim().to_owned(),
        attr_aspects: spec.attr_aspects(),
        provides: spec.provides.iter().map(|ty| ty.name().to_owned()).collect(),
        attributes: params.map(|(name, spec)| attribute_of(name, spec)).collect(),
    }
}

fn attribute_of(name: &str, spec: &AttrSpec) -> Attribute {
    let names = |list: &Vec<std::sync::Arc<ProviderType>>| {
        list.iter().map(|ty| ty.name().to_owned()).collect()
    };
    Attribute {
        name: name.to_owned(),
        kind: spec.kind.noun(),
        mandatory: spec.mandatory,
        default: (!spec.mandatory).then(|| literal(&spec.default)),
        values: spec.values.iter().map(literal).collect(),
        files: match &spec.allow_files {
            AllowFiles::No => Vec::new(),
            AllowFiles::Any => vec!["any".to_owned()],
            AllowFiles::Suffixes(suffixes) => suffixes.clone(),
        },
        single_file: spec.single_file,
        executable: spec.executable,
        providers: spec.providers.iter().map(names).collect(),
        configurable: spec.configurable,
        doc: spec.doc.trim().to_owned(),
    }
}

/// A value as one writes it.
fn literal(value: &AttrValue) -> String {
    let list = |items: Vec<String>| format!("[{}]", items.join(", "));
    let dict = |items: Vec<String>| format!("{{{}}}", items.join(", "));
    let quoted = |text: &str| format!("\"{}\"", text.escape_default());
    match value {
        AttrValue::None => "None".to_owned(),
        AttrValue::Bool(true) => "True".to_owned(),
        AttrValue::Bool(false) => "False".to_owned(),
        AttrValue::Int(number) => number.to_string(),
        AttrValue::String(text) => quoted(text),
        AttrValue::Strings(texts) => list(texts.iter().map(|text| quoted(text)).collect()),
        AttrValue::Ints(numbers) => list(numbers.iter().map(i32::to_string).collect()),
        AttrValue::Dict(entries) => dict(
            entries
                .iter()
                .map(|(key, text)| format!("{}: {}", quoted(key), quoted(text)))
                .collect(),
        ),
        AttrValue::Label(label) => quoted(&label.to_string()),
        AttrValue::Labels(labels) => {
            list(labels.iter().map(|label| quoted(&label.to_string())).collect())
        }
        AttrValue::LabelDict(entries) => dict(
            entries
                .iter()
                .map(|(label, text)| format!("{}: {}", quoted(&label.to_string()), quoted(text)))
                .collect(),
        ),
        AttrValue::Configurable(_) => "select(…)".to_owned(),
    }
}

fn provider_of(name: String, ty: &ProviderType) -> Provider {
    let docs = ty.field_docs.iter().map(String::as_str).chain(std::iter::repeat(""));
    let fields = ty.fields.iter().flatten().zip(docs);
    Provider {
        name,
        doc: ty.doc.trim().to_owned(),
        fields: fields
            .map(|(name, doc)| Field { name: name.clone(), doc: doc.trim().to_owned() })
            .collect(),
    }
}

fn function_of(name: String, function: &DocFunction) -> Function {
    let params = &function.params;
    let parameter = |stars: &str, param: &DocParam| Parameter {
        name: format!("{stars}{}", param.name),
        default: param.default_value.clone(),
        doc: param.docs.as_ref().map(whole).unwrap_or_default(),
    };
    let plain = params.pos_only.iter().chain(&params.pos_or_named);
    let mut parameters: Vec<Parameter> = plain.map(|param| parameter("", param)).collect();
    parameters.extend(params.args.iter().map(|param| parameter("*", param)));
    parameters.extend(params.named_only.iter().map(|param| parameter("", param)));
    parameters.extend(params.kwargs.iter().map(|param| parameter("**", param)));
    let doc = function.docs.as_ref().map(whole).unwrap_or_default();
    Function { name, doc: without_parameters(&doc), parameters }
}

/// A docstring as it was written.
fn whole(doc: &starlark::docs::DocString) -> String {
    match &doc.details {
        Some(details) => format!("{}\n\n{}", doc.summary, details).trim().to_owned(),
        None => doc.summary.trim().to_owned(),
    }
}

/// A docstring without the section `Args:`, which the parameters show.
fn without_parameters(doc: &str) -> String {
    let mut inside = false;
    let kept = doc.lines().filter(|line| {
        if line.trim_end() == "Args:" {
            inside = true;
        } else if inside && !line.starts_with(' ') && !line.is_empty() {
            inside = false;
        }
        !inside
    });
    kept.collect::<Vec<_>>().join("\n").trim().to_owned()
}
