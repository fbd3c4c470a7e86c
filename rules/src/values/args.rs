//! `args`: a command line under construction.
//!
//! It stays lazy over depsets and trees: what it holds are [`Arg`]s of the graph, which are
//! expanded when the action's key is made. Only `map_each` runs at once, since it is Starlark.

use std::cell::RefCell;
use std::fmt;

use allocative::Allocative;
use maestro_core::{Arg, Item, ParamFileFormat, Sequence};
use starlark::environment::{Methods, MethodsBuilder};
use starlark::eval::Evaluator;
use starlark::starlark_module;
use starlark::values::{
    AllocValue, Heap, NoSerialize, ProvidesStaticType, StarlarkPagablePanic, StarlarkValue, Trace,
    Value, ValueLike, starlark_value,
};

use super::depset::{Depset, Unfold, item};
use super::file::FileValue;
use super::label::LabelValue;
use super::{expect_sequence, wrong_type};
use crate::error::{Code, RuleError};
use crate::scope::RuleScope;

/// Arguments, and whether they may move into a param file. Cannot outlive its target's analysis.
#[derive(
    Debug, Default, Trace, ProvidesStaticType, NoSerialize, StarlarkPagablePanic, Allocative,
)]
pub(crate) struct Args {
    #[trace(static)]
    #[allocative(skip)]
    content: RefCell<Content>,
}

#[derive(Debug, Default)]
struct Content {
    args: Vec<Arg>,
    param_file: Option<(String, bool)>,
    format: Option<ParamFileFormat>,
}

impl<'v> AllocValue<'v> for Args {
    fn alloc_value(self, heap: Heap<'v>) -> Value<'v> {
        heap.alloc_complex_no_freeze(self)
    }
}

impl Args {
    /// The value as args, if it is one.
    pub(crate) fn from_value<'v>(value: Value<'v>) -> Option<&'v Self> {
        value.downcast_ref::<Self>()
    }

    /// The arguments as the graph stores them.
    pub(crate) fn to_args(&self) -> Vec<Arg> {
        let content = self.content.borrow();
        match &content.param_file {
            None => content.args.clone(),
            Some((flag, always)) => vec![Arg::ParamFile {
                args: content.args.clone(),
                flag: flag.clone(),
                format: content.format.unwrap_or(ParamFileFormat::Shell),
                always: *always,
            }],
        }
    }

    /// The arguments as the text of a file, and how each becomes a line.
    pub(crate) fn for_file(&self) -> Result<(Vec<Arg>, ParamFileFormat), RuleError> {
        let content = self.content.borrow();
        if content.param_file.is_some() {
            let message = "arguments that are written into a file cannot use a param file";
            return Err(RuleError::new(Code::Action, message)
                .hint("leave `use_param_file` out; the file is what they are written to"));
        }
        Ok((content.args.clone(), content.format.unwrap_or(ParamFileFormat::Multiline)))
    }

    fn push(&self, arg: Arg) {
        self.content.borrow_mut().args.push(arg);
    }
}

impl fmt::Display for Args {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<args {}>", self.content.borrow().args.len())
    }
}

starlark::methods_static!(ARGS_METHODS = args_methods);

#[starlark_value(type = "Args")]
impl<'v> StarlarkValue<'v> for Args {
    fn get_methods() -> Option<&'static Methods> {
        Some(ARGS_METHODS.methods())
    }
}

/// One value as an argument: text, file, label, number.
fn scalar(value: Value<'_>, parameter: &str) -> Result<Item, RuleError> {
    if let Some(label) = LabelValue::from_value(value) {
        return Ok(Item::Text(label.label.to_string().into()));
    }
    if let Some(number) = value.unpack_i32() {
        return Ok(Item::Text(number.to_string().into()));
    }
    item(value, parameter)
}

/// Checks that a template has exactly one `%s`.
fn check_format(format: &str, parameter: &str) -> Result<(), RuleError> {
    if format.matches("%s").count() == 1 {
        return Ok(());
    }
    let message = format!("`{parameter}` must hold exactly one `%s`: `{}`", format.escape_debug());
    Err(RuleError::new(Code::Evaluation, message))
}

/// What `add_all` and `add_joined` have in common.
struct Many<'v> {
    values: Value<'v>,
    map_each: Option<Value<'v>>,
    sequence: Sequence,
}

impl<'v> Many<'v> {
    fn finish(self, eval: &mut Evaluator<'v, '_, '_>) -> starlark::Result<Sequence> {
        let Self { values, map_each, mut sequence } = self;
        for (format, name) in
            [(&sequence.format_each, "format_each"), (&sequence.format_joined, "format_joined")]
        {
            if let Some(format) = format {
                check_format(format, name)?;
            }
        }
        let map_each = map_each.filter(|f| !f.is_none());
        let set = Depset::from_value(values);
        match (set, map_each) {
            (Some(set), None) => {
                let scope = RuleScope::of(eval)?;
                let mut graph = scope.graph.borrow_mut();
                sequence.set = Some(set.arena_set(&mut graph.sets)?);
            }
            (None, None) => {
                for value in expect_sequence(values, "values")? {
                    sequence.direct.push(scalar(*value, "values")?);
                }
            }
            (set, Some(function)) => {
                let list = match set {
                    Some(set) => set.items(Unfold::of(eval))?,
                    None => expect_sequence(values, "values")?.to_vec(),
                };
                for value in list {
                    check_mappable(value, sequence.expand_trees)?;
                    let mapped = eval.eval_function(function, &[value], &[])?;
                    if mapped.is_none() {
                        continue;
                    }
                    match super::sequence(mapped) {
                        Some(parts) => {
                            for part in parts {
                                sequence.direct.push(scalar(*part, "map_each")?);
                            }
                        }
                        None => sequence.direct.push(scalar(mapped, "map_each")?),
                    }
                }
            }
        }
        Ok(sequence)
    }
}

/// A function cannot see the files of a tree: it runs before they are made.
fn check_mappable(value: Value<'_>, expand: bool) -> Result<(), RuleError> {
    let tree = FileValue::from_value(value).filter(|file| expand && file.is_tree());
    let Some(tree) = tree else { return Ok(()) };
    let message = format!("`map_each` cannot see what is in the tree `{}`", tree.path());
    Err(RuleError::new(Code::Action, message).hint(
        "add the tree by itself with `format_each`, or pass `expand_directories = False` to map \
         the tree's own path",
    ))
}

#[starlark_module]
fn args_methods(builder: &mut MethodsBuilder) {
    /// Adds one argument, or a flag and its value.
    ///
    /// Args:
    ///   arg_name_or_value: a flag if a second value follows, else the argument.
    ///   value: the argument after the flag.
    ///   format: a template with one `%s` for the argument.
    fn add<'v>(
        this: Value<'v>,
        #[starlark(require = pos)] arg_name_or_value: Value<'v>,
        #[starlark(require = pos)] value: Option<Value<'v>>,
        #[starlark(require = named)] format: Option<&str>,
    ) -> starlark::Result<Value<'v>> {
        let args = this_args(this)?;
        let value = match value {
            Some(value) => {
                args.push(Arg::One(vec![scalar(arg_name_or_value, "arg_name")?]));
                value
            }
            None => arg_name_or_value,
        };
        let value = scalar(value, "value")?;
        let parts = match format {
            None => vec![value],
            Some(format) => {
                check_format(format, "format")?;
                let (before, after) = format.split_once("%s").unwrap_or((format, ""));
                let text = |part: &str| (!part.is_empty()).then(|| Item::Text(part.into()));
                [text(before), Some(value), text(after)].into_iter().flatten().collect()
            }
        };
        args.push(Arg::One(parts));
        Ok(this)
    }

    /// Adds an argument for each item of a list or depset.
    ///
    /// Args:
    ///   arg_name_or_values: a flag that comes once before them, if values follow.
    ///   values: a list or depset of files, strings or labels.
    ///   map_each: a function from an item to a string, a list of strings, or `None`.
    ///   format_each: a template with one `%s` for each item.
    ///   before_each: an argument before each item.
    ///   omit_if_empty: add nothing, not even the flag, where there is no item.
    ///   uniquify: drop items that came before.
    ///   expand_directories: replace trees by the files in them.
    ///   allow_closure: as in Bazel; any function may be given.
    ///   terminate_with: an argument after the last item.
    fn add_all<'v>(
        this: Value<'v>,
        #[starlark(require = pos)] arg_name_or_values: Value<'v>,
        #[starlark(require = pos)] values: Option<Value<'v>>,
        #[starlark(require = named)] map_each: Option<Value<'v>>,
        #[starlark(require = named)] format_each: Option<String>,
        #[starlark(require = named)] before_each: Option<String>,
        #[starlark(require = named, default = true)] omit_if_empty: bool,
        #[starlark(require = named, default = false)] uniquify: bool,
        #[starlark(require = named, default = true)] expand_directories: bool,
        #[starlark(require = named, default = false)] allow_closure: bool,
        #[starlark(require = named)] terminate_with: Option<String>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        let _ = allow_closure; // `map_each` runs at once, so what it closes over is as it stands
        let args = this_args(this)?;
        let (flag, values) = flag_and_values(arg_name_or_values, values)?;
        let sequence = Sequence {
            format_each,
            before_each,
            before_all: flag,
            unique: uniquify,
            expand_trees: expand_directories,
            omit_if_empty,
            terminate_with,
            ..Sequence::default()
        };
        let sequence = Many { values, map_each, sequence }.finish(eval)?;
        args.push(Arg::Many(sequence));
        Ok(this)
    }

    /// Adds one argument that joins the items of a list or depset.
    ///
    /// Args:
    ///   arg_name_or_values: a flag that comes before it, if values follow.
    ///   values: a list or depset of files, strings or labels.
    ///   join_with: what stands between two items.
    ///   map_each: a function from an item to a string, a list of strings, or `None`.
    ///   format_each: a template with one `%s` for each item.
    ///   format_joined: a template with one `%s` for the whole.
    ///   omit_if_empty: add nothing where there is no item.
    ///   uniquify: drop items that came before.
    ///   expand_directories: replace trees by the files in them.
    ///   allow_closure: as in Bazel; any function may be given.
    fn add_joined<'v>(
        this: Value<'v>,
        #[starlark(require = pos)] arg_name_or_values: Value<'v>,
        #[starlark(require = pos)] values: Option<Value<'v>>,
        #[starlark(require = named)] join_with: String,
        #[starlark(require = named)] map_each: Option<Value<'v>>,
        #[starlark(require = named)] format_each: Option<String>,
        #[starlark(require = named)] format_joined: Option<String>,
        #[starlark(require = named, default = true)] omit_if_empty: bool,
        #[starlark(require = named, default = false)] uniquify: bool,
        #[starlark(require = named, default = true)] expand_directories: bool,
        #[starlark(require = named, default = false)] allow_closure: bool,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        let _ = allow_closure; // `map_each` runs at once, so what it closes over is as it stands
        let args = this_args(this)?;
        let (flag, values) = flag_and_values(arg_name_or_values, values)?;
        let sequence = Sequence {
            format_each,
            before_all: flag,
            join_with: Some(join_with),
            format_joined,
            unique: uniquify,
            expand_trees: expand_directories,
            omit_if_empty,
            ..Sequence::default()
        };
        let sequence = Many { values, map_each, sequence }.finish(eval)?;
        args.push(Arg::Many(sequence));
        Ok(this)
    }

    /// Lets the arguments move into a file where they are long.
    ///
    /// Args:
    ///   param_file_arg: how the file is named on the command line, with one `%s`.
    ///   use_always: move them even where they would fit.
    fn use_param_file<'v>(
        this: Value<'v>,
        #[starlark(require = pos)] param_file_arg: &str,
        #[starlark(require = named, default = false)] use_always: bool,
    ) -> starlark::Result<Value<'v>> {
        check_format(param_file_arg, "param_file_arg")?;
        let args = this_args(this)?;
        args.content.borrow_mut().param_file = Some((param_file_arg.to_owned(), use_always));
        Ok(this)
    }

    /// Says how arguments are written into a param file.
    ///
    /// Args:
    ///   format: `multiline` (one a line, as it is), `shell` (one a line, quoted) or
    ///     `flag_per_line` (`--flag=value` a line; what is no flag stays on the command line).
    fn set_param_file_format<'v>(
        this: Value<'v>,
        #[starlark(require = pos)] format: &str,
    ) -> starlark::Result<Value<'v>> {
        let format = match format {
            "multiline" => ParamFileFormat::Multiline,
            "shell" => ParamFileFormat::Shell,
            "flag_per_line" => ParamFileFormat::FlagPerLine,
            other => {
                let message = format!("`{other}` is no format of a param file");
                return RuleError::new(Code::Evaluation, message)
                    .hint("use `multiline`, `shell` or `flag_per_line`")
                    .raise();
            }
        };
        this_args(this)?.content.borrow_mut().format = Some(format);
        Ok(this)
    }
}

fn this_args<'v>(this: Value<'v>) -> Result<&'v Args, RuleError> {
    Args::from_value(this).ok_or_else(|| wrong_type("this", "args", this))
}

fn flag_and_values<'v>(
    first: Value<'v>,
    second: Option<Value<'v>>,
) -> Result<(Option<String>, Value<'v>), RuleError> {
    match second {
        None => Ok((None, first)),
        Some(values) => match first.unpack_str() {
            Some(flag) => Ok((Some(flag.to_owned()), values)),
            None => Err(wrong_type("arg_name", "a string", first)),
        },
    }
}
