//! Attributes of rules: their schema, and the values that targets give them.
//!
//! A value is taken out of the interpreter as soon as a target is declared, so that what a package
//! says is plain data from then on.

pub(crate) mod configurable;
pub(crate) mod schema;

use std::sync::Arc;

use maestro_core::Label;
use starlark::values::dict::DictRef;
use starlark::values::{Heap, Value};

use self::configurable::{Configurable, coerce_sum};
use crate::aspect::AspectSpec;
use crate::error::{Code, RuleError, did_you_mean};
use crate::values::label::LabelValue;
use crate::values::provider::ProviderType;
use crate::values::select::Select;
use crate::values::transition::TransitionSpec;
use crate::values::{sequence, short};

/// The type of an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AttrKind {
    String,
    StringList,
    StringDict,
    Bool,
    Int,
    IntList,
    Label,
    LabelList,
    LabelKeyedStringDict,
    Output,
    OutputList,
}

impl AttrKind {
    /// The type in words.
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Self::String => "a string",
            Self::StringList => "a list of strings",
            Self::StringDict => "a dict of strings",
            Self::Bool => "`True` or `False`",
            Self::Int => "an integer",
            Self::IntList => "a list of integers",
            Self::Label => "a label",
            Self::LabelList => "a list of labels",
            Self::LabelKeyedStringDict => "a dict from labels to strings",
            Self::Output => "the name of an output",
            Self::OutputList => "a list of names of outputs",
        }
    }
}

/// Which files a label attribute takes besides targets of rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AllowFiles {
    No,
    Any,
    /// Names with one of these ends.
    Suffixes(Vec<String>),
}

/// What the dependencies of an attribute are built for.
#[derive(Clone, Debug)]
pub(crate) enum DependencyConfig {
    /// The same as the target.
    Target,
    /// The platform on which the target's actions run, with every param at its default: those of
    /// the group with this name, or of the default one.
    Exec(Option<Arc<str>>),
    /// What a transition makes of the target's configuration.
    Transition(Arc<TransitionSpec>),
}

/// One attribute of a rule.
#[derive(Debug)]
pub(crate) struct AttrSpec {
    pub(crate) kind: AttrKind,
    pub(crate) default: AttrValue,
    pub(crate) mandatory: bool,
    pub(crate) allow_empty: bool,
    pub(crate) allow_files: AllowFiles,
    /// Whether the value may depend on the configuration.
    pub(crate) configurable: bool,
    /// What its dependencies are built for.
    pub(crate) cfg: DependencyConfig,
    /// Whether the dependency must have exactly one file.
    pub(crate) single_file: bool,
    /// Whether the dependency must be something that can be run.
    pub(crate) executable: bool,
    /// A dependency must have all providers of one of these lists.
    pub(crate) providers: Vec<Vec<Arc<ProviderType>>>,
    /// Aspects that are put on the dependencies.
    pub(crate) aspects: Vec<Arc<AspectSpec>>,
    /// The values that are allowed; any where empty.
    pub(crate) values: Vec<AttrValue>,
    pub(crate) doc: String,
}

impl AttrSpec {
    /// An attribute of a kind with nothing special about it.
    pub(crate) fn plain(kind: AttrKind, doc: &str) -> Self {
        Self {
            kind,
            default: AttrValue::empty(kind),
            mandatory: false,
            allow_empty: true,
            allow_files: AllowFiles::No,
            cfg: DependencyConfig::Target,
            configurable: !matches!(kind, AttrKind::Output | AttrKind::OutputList),
            single_file: false,
            executable: false,
            providers: Vec::new(),
            aspects: Vec::new(),
            values: Vec::new(),
            doc: doc.to_owned(),
        }
    }
}

/// What a target says about one attribute. There is one for each attribute of each target, so it
/// is kept small.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AttrValue {
    None,
    Bool(bool),
    Int(i32),
    String(Arc<str>),
    Strings(Box<[Arc<str>]>),
    Ints(Box<[i32]>),
    Dict(Box<[(Arc<str>, Arc<str>)]>),
    Label(Box<Label>),
    Labels(Box<[Label]>),
    LabelDict(Box<[(Label, Arc<str>)]>),
    /// It depends on the configuration. Configured targets have none of these.
    Configurable(Arc<Configurable>),
}

impl AttrValue {
    /// What an attribute is where neither target nor rule says anything.
    pub(crate) fn empty(kind: AttrKind) -> Self {
        match kind {
            AttrKind::String => Self::String("".into()),
            AttrKind::Bool => Self::Bool(false),
            AttrKind::Int => Self::Int(0),
            AttrKind::StringList => Self::Strings(Box::default()),
            AttrKind::IntList => Self::Ints(Box::default()),
            AttrKind::StringDict => Self::Dict(Box::default()),
            AttrKind::Label | AttrKind::Output => Self::None,
            AttrKind::LabelList | AttrKind::OutputList => Self::Labels(Box::default()),
            AttrKind::LabelKeyedStringDict => Self::LabelDict(Box::default()),
        }
    }

    /// The labels in it, whatever the configuration.
    pub(crate) fn labels(&self) -> Vec<&Label> {
        match self {
            Self::Label(label) => vec![label],
            Self::Labels(labels) => labels.iter().collect(),
            Self::LabelDict(entries) => entries.iter().map(|(label, _)| label).collect(),
            Self::Configurable(sum) => sum.values().flat_map(Self::labels).collect(),
            _ => Vec::new(),
        }
    }

    /// The texts in it.
    pub(crate) fn strings(&self) -> &[Arc<str>] {
        match self {
            Self::Strings(list) => list,
            Self::String(text) => std::slice::from_ref(text),
            _ => &[],
        }
    }

    /// The conditions on which it depends.
    pub(crate) fn conditions(&self) -> impl Iterator<Item = &Label> {
        let sum = match self {
            Self::Configurable(sum) => Some(sum),
            _ => None,
        };
        sum.into_iter().flat_map(|sum| sum.conditions())
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::None => true,
            Self::Strings(list) => list.is_empty(),
            Self::Ints(list) => list.is_empty(),
            Self::Dict(list) => list.is_empty(),
            Self::Labels(list) => list.is_empty(),
            Self::LabelDict(list) => list.is_empty(),
            Self::String(text) => text.is_empty(),
            Self::Bool(_) | Self::Int(_) | Self::Label(_) | Self::Configurable(_) => false,
        }
    }

    /// The value for implementations; labels are left to the caller.
    pub(crate) fn alloc<'v>(&self, heap: Heap<'v>) -> Value<'v> {
        use starlark::values::dict::AllocDict;
        use starlark::values::list::AllocList;
        match self {
            Self::None | Self::Configurable(_) => Value::new_none(),
            Self::Bool(value) => Value::new_bool(*value),
            Self::Int(value) => heap.alloc(*value),
            Self::String(text) => heap.alloc(&**text),
            Self::Strings(list) => heap.alloc(AllocList(list.iter().map(|s| &**s))),
            Self::Ints(list) => heap.alloc(AllocList(list.iter().copied())),
            Self::Dict(entries) => heap.alloc(AllocDict(entries.iter().map(|(k, v)| (&**k, &**v)))),
            Self::Label(label) => heap.alloc(LabelValue { label: Label::clone(label) }),
            Self::Labels(labels) => {
                heap.alloc(AllocList(labels.iter().map(|l| LabelValue { label: l.clone() })))
            }
            Self::LabelDict(entries) => heap.alloc(AllocDict(
                entries.iter().map(|(l, v)| (LabelValue { label: l.clone() }, &**v)),
            )),
        }
    }
}

/// Where relative labels start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LabelBase<'a> {
    pub(crate) repo: &'a Arc<str>,
    pub(crate) package: &'a Arc<str>,
}

impl LabelBase<'_> {
    /// Parses a label as it stands in this package.
    pub(crate) fn parse(self, text: &str) -> Result<Label, RuleError> {
        Label::parse_in(text, self.repo, self.package)
            .map_err(|e| RuleError::new(Code::Label, e.to_string()))
    }
}

/// Takes a value out of the interpreter and checks it against the schema.
pub(crate) fn coerce(
    spec: &AttrSpec,
    name: &str,
    value: Value<'_>,
    base: LabelBase<'_>,
) -> Result<AttrValue, RuleError> {
    if let Some(sum) = Select::from_value(value) {
        return coerce_sum(spec, name, sum, base);
    }
    let out = take(spec, name, value, base)?;
    check_value(spec, name, &out)?;
    Ok(out)
}

/// Takes a value that does not depend on the configuration out of the interpreter.
fn take(
    spec: &AttrSpec,
    name: &str,
    value: Value<'_>,
    base: LabelBase<'_>,
) -> Result<AttrValue, RuleError> {
    let wrong = || wrong_value(name, spec.kind.noun(), value);
    let text = |value: Value<'_>| value.unpack_str().map(Arc::<str>::from);
    let out = match spec.kind {
        AttrKind::String => AttrValue::String(text(value).ok_or_else(wrong)?),
        AttrKind::Bool => AttrValue::Bool(value.unpack_bool().ok_or_else(wrong)?),
        AttrKind::Int => AttrValue::Int(value.unpack_i32().ok_or_else(wrong)?),
        AttrKind::StringList => AttrValue::Strings(list(name, spec, value, |item| {
            text(item).ok_or_else(|| item_error(name, "a string", item))
        })?),
        AttrKind::IntList => AttrValue::Ints(list(name, spec, value, |item| {
            item.unpack_i32().ok_or_else(|| item_error(name, "an integer", item))
        })?),
        AttrKind::StringDict => {
            let dict = DictRef::from_value(value).ok_or_else(wrong)?;
            let pairs: Option<Box<[_]>> =
                dict.iter().map(|(k, v)| Some((text(k)?, text(v)?))).collect();
            AttrValue::Dict(pairs.ok_or_else(wrong)?)
        }
        AttrKind::Label => AttrValue::Label(label(name, value, base)?.into()),
        AttrKind::LabelList => {
            AttrValue::Labels(list(name, spec, value, |item| label(name, item, base))?)
        }
        AttrKind::LabelKeyedStringDict => {
            let dict = DictRef::from_value(value).ok_or_else(wrong)?;
            let pairs: Result<Box<[_]>, RuleError> = dict
                .iter()
                .map(|(k, v)| Ok((label(name, k, base)?, text(v).ok_or_else(wrong)?)))
                .collect();
            AttrValue::LabelDict(pairs?)
        }
        AttrKind::Output => AttrValue::Label(output(name, value, base)?.into()),
        AttrKind::OutputList => {
            AttrValue::Labels(list(name, spec, value, |item| output(name, item, base))?)
        }
    };
    Ok(out)
}

fn list<T>(
    name: &str,
    spec: &AttrSpec,
    value: Value<'_>,
    item: impl Fn(Value<'_>) -> Result<T, RuleError>,
) -> Result<Box<[T]>, RuleError> {
    let items = sequence(value).ok_or_else(|| {
        let error = wrong_value(name, spec.kind.noun(), value);
        match value.unpack_str() {
            Some(text) => error.hint(format!("write `{name} = [\"{}\"]`", text.escape_debug())),
            None => error,
        }
    })?;
    items.iter().map(|value| item(*value)).collect()
}

fn label(name: &str, value: Value<'_>, base: LabelBase<'_>) -> Result<Label, RuleError> {
    if let Some(value) = LabelValue::from_value(value) {
        return Ok(value.label.clone());
    }
    match value.unpack_str() {
        Some(text) => base.parse(text).map_err(|mut error| {
            error.message = format!("attribute `{name}`: {}", error.message);
            error
        }),
        None => Err(wrong_value(name, "a label", value)),
    }
}

fn output(name: &str, value: Value<'_>, base: LabelBase<'_>) -> Result<Label, RuleError> {
    let Some(text) = value.unpack_str() else {
        return Err(wrong_value(name, "the name of an output", value));
    };
    let label = label(name, value, base)?;
    if label.package != *base.package || label.repo != *base.repo {
        let message = format!("attribute `{name}`: output `{text}` lies in another package");
        return Err(RuleError::new(Code::Attribute, message));
    }
    Ok(label)
}

fn check_unique(name: &str, labels: &[Label]) -> Result<(), RuleError> {
    let mut seen = std::collections::HashSet::new();
    match labels.iter().find(|label| !seen.insert(*label)) {
        None => Ok(()),
        Some(twice) => Err(RuleError::new(
            Code::Attribute,
            format!("attribute `{name}` lists `{twice}` twice"),
        )),
    }
}

fn check_value(spec: &AttrSpec, name: &str, value: &AttrValue) -> Result<(), RuleError> {
    if !spec.allow_empty && value.is_empty() {
        return Err(RuleError::new(
            Code::Attribute,
            format!("attribute `{name}` must not be empty"),
        ));
    }
    if let AttrValue::Labels(labels) = value {
        check_unique(name, labels)?;
    }
    check_choice(spec, name, value)
}

/// Checks that a value is one of those that are allowed.
fn check_choice(spec: &AttrSpec, name: &str, value: &AttrValue) -> Result<(), RuleError> {
    if spec.values.is_empty() || spec.values.contains(value) {
        return Ok(());
    }
    let texts: Vec<String> = spec.values.iter().map(shown).collect();
    let given = shown(value);
    Err(RuleError::new(Code::Attribute, format!("attribute `{name}` cannot be `{given}`"))
        .hint_opt(did_you_mean(&given, texts.iter().map(String::as_str)))
        .hint(format!("allowed: {}", texts.join(", "))))
}

fn shown(value: &AttrValue) -> String {
    match value {
        AttrValue::String(text) => text.to_string(),
        AttrValue::Int(number) => number.to_string(),
        other => format!("{other:?}"),
    }
}

fn wrong_value(name: &str, expected: &str, value: Value<'_>) -> RuleError {
    let message = format!(
        "attribute `{name}` must be {expected}, not a `{}`: {}",
        value.get_type(),
        short(value)
    );
    RuleError::new(Code::Attribute, message)
}

fn item_error(name: &str, expected: &str, value: Value<'_>) -> RuleError {
    let message = format!(
        "every item of attribute `{name}` must be {expected}, not a `{}`: {}",
        value.get_type(),
        short(value)
    );
    RuleError::new(Code::Attribute, message)
}
