//! The reference of the language: what every file sees without loading anything, and what
//! implementations are given. It is made from the doc comments of the functions themselves.

use starlark::docs::{DocFunction, DocItem, DocMember, DocType};
use starlark::environment::GlobalsBuilder;
use starlark::values::StarlarkValue;

use super::{Function, function_of, markdown, whole};
use crate::ctx::Ctx;
use crate::ctx::actions::Actions;
use crate::ctx::template::TemplateDict;
use crate::globals::{EXTENSIONS, globals};
use crate::values::args::Args;
use crate::values::depset::FrozenDepset;
use crate::values::file::FileValue;
use crate::values::label::LabelValue;
use crate::values::runfiles::FrozenRunfiles;

/// Functions and fields that belong together.
struct Section {
    name: &'static str,
    doc: &'static str,
    fields: Vec<(String, String)>,
    functions: Vec<Function>,
}

/// The page as Markdown.
pub fn language_page() -> String {
    let intro = "Made from the source by `cargo xtask bless`; `maestro docs language` prints it.\n\
                 The language is Starlark, with its own functions (`len`, `range`, `sorted`, …), \
                 `struct`, `print`, `json` and `set`.\n\
                 A parameter with `= …` may be left out.";
    let mut out = format!("# The language\n\n{intro}\n");
    for section in sections() {
        markdown::section(&mut out, section.name, section.doc, &section.fields);
        for function in &section.functions {
            markdown::function_section(&mut out, "###", function);
        }
    }
    out
}

fn sections() -> Vec<Section> {
    let mut sections = global_sections();
    sections.extend([
        of_type::<Ctx<'static>>("ctx", "What an implementation is given."),
        of_type::<Actions>("ctx.actions", "Declares outputs and the actions that make them."),
        of_type::<Args>("Args", "A command line: what `ctx.actions.args()` gives."),
        of_type::<TemplateDict>("TemplateDict", "What `ctx.actions.template_dict()` gives."),
        of_type::<FileValue>("File", "A file or a tree."),
        of_type::<FrozenRunfiles>("runfiles", "What stands around a program when it runs."),
        of_type::<FrozenDepset>("depset", "A set that shares its parts with others."),
        of_type::<LabelValue>("Label", "The name of a target."),
    ]);
    sections
}

/// What every file sees, without the functions of Starlark itself.
fn global_sections() -> Vec<Section> {
    let standard = GlobalsBuilder::extended_by(&EXTENSIONS).build();
    let known = standard.documentation().members;
    let mut top = Section {
        name: "In every file",
        doc: "In package files `native.` may be left out; macros need it.",
        fields: Vec::new(),
        functions: Vec::new(),
    };
    let mut spaces = Vec::new();
    for (name, item) in globals().documentation().members {
        match item {
            _ if known.contains_key(&name) || name.starts_with('_') => {}
            DocItem::Member(DocMember::Function(function)) => {
                top.functions.push(described(name, &function));
            }
            DocItem::Module(module) => {
                let functions = module.members.iter().filter_map(|(member, item)| match item {
                    DocItem::Member(DocMember::Function(function)) => {
                        Some(described(format!("{name}.{member}"), function))
                    }
                    _ => None,
                });
                spaces.extend(functions);
            }
            _ => {}
        }
    }
    // What `native` shares with package files stands here once.
    let is_twin = |function: &Function| {
        let plain = function.name.strip_prefix("native.");
        plain.is_some_and(|plain| top.functions.iter().any(|other| other.name == plain))
    };
    spaces.retain(|function| !is_twin(function));
    top.functions.extend(spaces);
    top.functions.sort_by(|a, b| a.name.cmp(&b.name));
    vec![top]
}

fn of_type<T: StarlarkValue<'static>>(name: &'static str, doc: &'static str) -> Section {
    let mut section = Section { name, doc, fields: Vec::new(), functions: Vec::new() };
    for (member, item) in DocType::from_starlark_value::<T>().members {
        match item {
            DocMember::Property(field) => {
                section.fields.push((member, field.docs.as_ref().map(whole).unwrap_or_default()));
            }
            DocMember::Function(function) => section.functions.push(described(member, &function)),
        }
    }
    section.fields.sort();
    section.functions.sort_by(|a, b| a.name.cmp(&b.name));
    section
}

/// A function with what its doc comment says of parameters in a section `Args:`.
fn described(name: String, function: &DocFunction) -> Function {
    let said = function.docs.as_ref().map(whole).unwrap_or_default();
    let mut described = function_of(name, function);
    let args = said.lines().skip_while(|line| line.trim_end() != "Args:").skip(1);
    let mut current = None;
    for line in args.take_while(|line| line.starts_with(' ') || line.is_empty()) {
        let text = line.trim();
        let begins = text.split_once(": ").and_then(|(name, text)| {
            let place = described.parameters.iter().position(|p| p.name == name)?;
            Some((place, text))
        });
        current = begins.map(|(place, _)| place).or(current);
        let Some(parameter) = current.and_then(|place| described.parameters.get_mut(place)) else {
            continue;
        };
        match begins {
            Some((_, text)) => text.clone_into(&mut parameter.doc),
            None => parameter.doc = format!("{} {text}", parameter.doc),
        }
    }
    described
}
