//! Packages as bytes: what a package file declared, without what it takes to say it.
//!
//! A declaration names its rule by the file and the variable that define it; the rule itself is
//! there again as soon as that file is evaluated. Attributes that are at their default are not
//! written. A place in the file is kept as two positions, which mean something again beside the
//! text of the file.

use std::collections::HashMap;
use std::sync::Arc;

use maestro_core::Label;
use starlark::codemap::{CodeMap, Pos, Span};

use super::codec::{Damaged, Reader, Writer};
use super::diagnostics::{read_location, write_location};
use super::imprint::Imprint;
use crate::attr::AttrValue;
use crate::attr::configurable::{Branch, Choice, Configurable};
use crate::generator::MacroCalls;
use crate::load::file::display;
use crate::package::{Package, TargetDecl};
use crate::rule::RuleSpec;
use crate::values::select::Places;
use crate::visibility::{PackageSpec, Visibility};

/// Writes labels short where they lie in the package itself.
fn write_label(writer: &mut Writer, label: &Label, home: &Label) {
    let same_repo = label.repo == home.repo;
    match (same_repo, same_repo && label.package == home.package) {
        (_, true) => writer.byte(0),
        (true, false) => {
            writer.byte(1);
            writer.text(&label.package);
        }
        (false, false) => {
            writer.byte(2);
            writer.text(&label.repo);
            writer.text(&label.package);
        }
    }
    writer.text(&label.name);
}

/// Texts that come up again and again, each once.
#[derive(Debug, Default)]
pub(super) struct Texts(HashMap<Box<str>, Arc<str>>);

impl Texts {
    fn get(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.0.get(text) {
            return known.clone();
        }
        let new: Arc<str> = text.into();
        self.0.insert(text.into(), new.clone());
        new
    }
}

fn read_label(reader: &mut Reader<'_>, home: &Label, texts: &mut Texts) -> Result<Label, Damaged> {
    let (repo, package) = match reader.byte()? {
        0 => (home.repo.clone(), home.package.clone()),
        1 => (home.repo.clone(), texts.get(reader.text()?)),
        2 => (texts.get(reader.text()?), texts.get(reader.text()?)),
        _ => return Err(Damaged),
    };
    Ok(Label { repo, package, name: reader.text()?.into() })
}

fn write_visibility(writer: &mut Writer, visibility: &Visibility) {
    match visibility {
        Visibility::Private => writer.byte(0),
        Visibility::Public => writer.byte(1),
        Visibility::Packages(specs) => {
            writer.byte(2);
            writer.list(specs.iter(), |writer, spec| {
                let PackageSpec { repo, package, below } = spec;
                writer.text(repo);
                writer.text(package);
                writer.flag(*below);
            });
        }
    }
}

fn read_visibility(reader: &mut Reader<'_>) -> Result<Visibility, Damaged> {
    match reader.byte()? {
        0 => Ok(Visibility::Private),
        1 => Ok(Visibility::Public),
        2 => Ok(Visibility::Packages(reader.list(|reader| {
            let (repo, package) = (reader.text()?.to_owned(), reader.text()?.to_owned());
            Ok(PackageSpec { repo, package, below: reader.flag()? })
        })?)),
        _ => Err(Damaged),
    }
}

/// The mark of a value that depends on the configuration.
const CONFIGURABLE: u8 = 10;

fn write_value(writer: &mut Writer, value: &AttrValue, home: &Label) {
    match value {
        AttrValue::None => writer.byte(0),
        AttrValue::Bool(value) => {
            writer.byte(1);
            writer.flag(*value);
        }
        AttrValue::Int(number) => {
            writer.byte(2);
            writer.signed(i64::from(*number));
        }
        AttrValue::String(text) => {
            writer.byte(3);
            writer.text(text);
        }
        AttrValue::Strings(list) => {
            writer.byte(4);
            writer.list(list.iter(), |writer, text| writer.text(text));
        }
        AttrValue::Ints(list) => {
            writer.byte(5);
            writer.list(list.iter(), |writer, number| writer.signed(i64::from(*number)));
        }
        AttrValue::Dict(pairs) => {
            writer.byte(6);
            writer.list(pairs.iter(), |writer, (key, text)| {
                writer.text(key);
                writer.text(text);
            });
        }
        AttrValue::Label(label) => {
            writer.byte(7);
            write_label(writer, label, home);
        }
        AttrValue::Labels(labels) => {
            writer.byte(8);
            writer.list(labels.iter(), |writer, label| write_label(writer, label, home));
        }
        AttrValue::LabelDict(pairs) => {
            writer.byte(9);
            writer.list(pairs.iter(), |writer, (label, text)| {
                write_label(writer, label, home);
                writer.text(text);
            });
        }
        AttrValue::Configurable(sum) => {
            writer.byte(CONFIGURABLE);
            writer.list(sum.operands.iter(), |writer, choice| write_choice(writer, choice, home));
        }
    }
}

fn write_choice(writer: &mut Writer, choice: &Choice, home: &Label) {
    let Choice { branches, no_match_error, places } = choice;
    writer.list(branches.iter(), |writer, branch| {
        let Branch { condition, value } = branch;
        writer.flag(condition.is_some());
        if let Some(condition) = condition {
            write_label(writer, condition, home);
        }
        write_value(writer, value, home);
    });
    writer.text(no_match_error);
    writer.flag(places.is_some());
    if let Some(places) = places {
        let Places { file, at } = &**places;
        writer.text(file);
        writer.list(at.iter(), |writer, (line, column)| {
            writer.number(u64::from(*line));
            writer.number(u64::from(*column));
        });
    }
}

fn read_choice(
    reader: &mut Reader<'_>,
    home: &Label,
    texts: &mut Texts,
) -> Result<Choice, Damaged> {
    let branches = reader.list(|reader| {
        let condition = match reader.flag()? {
            true => Some(read_label(reader, home, texts)?),
            false => None,
        };
        // What is chosen from is never chosen itself, so this goes one level deep.
        let value = read_plain(reader, home, texts)?;
        Ok(Branch { condition, value })
    })?;
    let no_match_error = reader.text()?.into();
    let places = match reader.flag()? {
        false => None,
        true => {
            let file = reader.text()?.into();
            let at = reader.list(|reader| Ok((reader.small()?, reader.small()?)))?;
            Some(Arc::new(Places { file, at }))
        }
    };
    Ok(Choice { branches, no_match_error, places })
}

fn read_value(
    reader: &mut Reader<'_>,
    home: &Label,
    texts: &mut Texts,
) -> Result<AttrValue, Damaged> {
    if reader.clone().byte()? != CONFIGURABLE {
        return read_plain(reader, home, texts);
    }
    reader.byte()?;
    let operands = reader.list(|reader| read_choice(reader, home, texts))?;
    Ok(AttrValue::Configurable(Arc::new(Configurable { operands })))
}

/// A value that does not depend on the configuration.
fn read_plain(
    reader: &mut Reader<'_>,
    home: &Label,
    texts: &mut Texts,
) -> Result<AttrValue, Damaged> {
    let int = |reader: &mut Reader<'_>| i32::try_from(reader.signed()?).map_err(|_| Damaged);
    let text = |reader: &mut Reader<'_>| Ok(Arc::<str>::from(reader.text()?));
    Ok(match reader.byte()? {
        0 => AttrValue::None,
        1 => AttrValue::Bool(reader.flag()?),
        2 => AttrValue::Int(int(reader)?),
        3 => AttrValue::String(text(reader)?),
        4 => AttrValue::Strings(reader.list(text)?.into()),
        5 => AttrValue::Ints(reader.list(int)?.into()),
        6 => AttrValue::Dict(reader.list(|reader| Ok((text(reader)?, text(reader)?)))?.into()),
        7 => AttrValue::Label(read_label(reader, home, texts)?.into()),
        8 => AttrValue::Labels(reader.list(|reader| read_label(reader, home, texts))?.into()),
        9 => AttrValue::LabelDict(
            reader.list(|reader| Ok((read_label(reader, home, texts)?, text(reader)?)))?.into(),
        ),
        _ => return Err(Damaged),
    })
}

/// What a declaration says, place apart; equal bytes are equal declarations of one rule.
fn write_decl(writer: &mut Writer, decl: &TargetDecl) {
    let TargetDecl { label: _, rule, attrs, visibility, span: _, calls: _ } = decl;
    let given = || {
        let pairs = rule.attrs.iter().zip(attrs).enumerate();
        pairs.filter(|(_, ((_, spec), value))| spec.default != **value)
    };
    writer.count(given().count());
    for (at, (_, value)) in given() {
        writer.count(at);
        write_value(writer, value, &decl.label);
    }
    write_visibility(writer, visibility);
}

fn read_decl(
    reader: &mut Reader<'_>,
    rule: &RuleSpec,
    home: &Label,
    texts: &mut Texts,
) -> Result<(Vec<AttrValue>, Visibility), Damaged> {
    let mut given: Vec<Option<AttrValue>> = Vec::new();
    given.resize_with(rule.attrs.len(), || None);
    for _ in 0..reader.count()? {
        let slot = given.get_mut(reader.small()? as usize).ok_or(Damaged)?;
        *slot = Some(read_value(reader, home, texts)?);
    }
    let pairs = given.into_iter().zip(&rule.attrs);
    let attrs = pairs.map(|(value, (_, spec))| value.unwrap_or_else(|| spec.default.clone()));
    let attrs = attrs.collect();
    Ok((attrs, read_visibility(reader)?))
}

/// The rules that a stored package names, each by its file and its variable.
pub(crate) type RuleNames = Vec<(Label, String)>;

/// Writes a package; `None` where a target was not declared by a call in the package's own file,
/// which cannot be told again without evaluating.
pub(super) fn write_package(package: &Package, file: &Label) -> Option<Vec<u8>> {
    let Package { name: _, targets, outputs: _, exports, default_visibility, configured } = package;
    let display = display(file);
    if targets.values().any(|decl| decl.span.filename() != display) {
        return None;
    }
    let mut writer = Writer::default();
    let mut rules: Vec<&RuleSpec> = Vec::new();
    let mut numbers: HashMap<*const RuleSpec, usize> = HashMap::new();
    for decl in targets.values() {
        numbers.entry(Arc::as_ptr(&decl.rule)).or_insert_with(|| {
            rules.push(&decl.rule);
            rules.len() - 1
        });
    }
    writer.list(rules.iter(), |writer, rule| {
        write_rule(writer, rule);
    });
    let mut calls: Vec<&MacroCalls> = Vec::new();
    let mut call_numbers: HashMap<*const MacroCalls, usize> = HashMap::new();
    for own in targets.values().filter_map(|decl| decl.calls.as_ref()) {
        call_numbers.entry(Arc::as_ptr(own)).or_insert_with(|| {
            calls.push(own);
            calls.len()
        });
    }
    writer.list(calls.iter(), |writer, calls| write_calls(writer, calls));
    writer.list(targets.values(), |writer, decl| {
        writer.text(&decl.label.name);
        let calls = decl.calls.as_ref().and_then(|own| call_numbers.get(&Arc::as_ptr(own)));
        writer.count(calls.copied().unwrap_or_default());
        writer.count(numbers.get(&Arc::as_ptr(&decl.rule)).copied().unwrap_or_default());
        writer.number(u64::from(decl.span.span.begin().get()));
        writer.number(u64::from(decl.span.span.end().get()));
        write_decl(writer, decl);
    });
    writer.list(exports.iter(), |writer, (name, visibility)| {
        writer.text(name);
        write_visibility(writer, visibility);
    });
    write_visibility(&mut writer, default_visibility);
    writer.flag(*configured);
    Some(writer.bytes)
}

/// The rules that a stored package names; their files are to be evaluated before it is read.
pub(crate) fn read_rules(reader: &mut Reader<'_>) -> Result<RuleNames, Damaged> {
    reader.list(|reader| {
        let mut text = || reader.text();
        let (repo, package, name) = (text()?.into(), text()?.into(), text()?.into());
        Ok((Label { repo, package, name }, text()?.to_owned()))
    })
}

fn write_calls(writer: &mut Writer, calls: &MacroCalls) {
    let MacroCalls { function, inner } = calls;
    writer.text(function);
    writer.list(inner.iter(), |writer, (place, name)| {
        write_location(writer, place);
        writer.text(name);
    });
}

fn read_calls(reader: &mut Reader<'_>, texts: &mut Texts) -> Result<Arc<MacroCalls>, Damaged> {
    let function = reader.text()?.to_owned();
    let inner = reader.list(|reader| {
        let mut place = read_location(reader)?;
        place.file = texts.get(&place.file);
        Ok((place, reader.text()?.to_owned()))
    })?;
    Ok(Arc::new(MacroCalls { function, inner }))
}

/// Reads the rest of a package: `rules` are those that [`read_rules`] named, in their order, and
/// `text` is that of the package's file.
pub(crate) fn read_package(
    reader: &mut Reader<'_>,
    file: &Label,
    text: String,
    rules: &[Arc<RuleSpec>],
) -> Result<Package, Damaged> {
    let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
    let mut package = Package::new(&file.package);
    let mut texts = Texts::default();
    let length = u32::try_from(text.len()).map_err(|_| Damaged)?;
    let map = CodeMap::new(display(file), text);
    let mut home = file.clone();
    let known = reader.list(|reader| read_calls(reader, &mut texts))?;
    for _ in 0..reader.count()? {
        home.name = reader.text()?.into();
        let calls = match reader.small()?.checked_sub(1) {
            None => None,
            Some(at) => Some(known.get(at as usize).ok_or(Damaged)?.clone()),
        };
        let rule = rules.get(reader.small()? as usize).ok_or(Damaged)?;
        let (begin, end) = (reader.small()?, reader.small()?);
        if begin > end || end > length {
            return Err(Damaged);
        }
        let span = map.file_span(Span::new(Pos::new(begin), Pos::new(end)));
        let (attrs, visibility) = read_decl(reader, rule, &home, &mut texts)?;
        let (label, rule) = (home.clone(), rule.clone());
        let decl = TargetDecl { label, rule, attrs, visibility, span, calls };
        package.add(decl).map_err(|_| Damaged)?;
    }
    for _ in 0..reader.count()? {
        let name = reader.text()?.into();
        package.exports.insert(name, read_visibility(reader)?);
    }
    package.default_visibility = read_visibility(reader)?;
    package.configured = reader.flag()?;
    if reader.is_done() { Ok(package) } else { Err(Damaged) }
}

/// What a declaration comes to, but not where it stands: all that it says, its rule with the code
/// of it, and the folder of its outputs.
pub(crate) fn declared(decl: &TargetDecl, root: &str, code: Option<Imprint>) -> Imprint {
    let mut writer = Writer::default();
    write_rule(&mut writer, &decl.rule);
    write_decl(&mut writer, decl);
    writer.text(root);
    if let Some(code) = code {
        writer.imprint(code);
    }
    Imprint::of(&writer.bytes)
}

/// What a target that depends on this one must know besides its value.
pub(crate) fn usage(decl: &TargetDecl) -> Imprint {
    let mut writer = Writer::default();
    write_rule(&mut writer, &decl.rule);
    write_visibility(&mut writer, &decl.visibility);
    for name in ["testonly", "deprecation"] {
        match decl.attr(name) {
            Some(value) => write_value(&mut writer, value, &decl.label),
            None => writer.byte(0),
        }
    }
    writer.flag(decl.rule.test);
    Imprint::of(&writer.bytes)
}

fn write_rule(writer: &mut Writer, rule: &RuleSpec) {
    for text in [&rule.file.repo, &rule.file.package, &rule.file.name] {
        writer.text(text);
    }
    writer.text(rule.name());
}

/// What the names of a package stand for, targets apart that only their users look at.
pub(crate) fn surface(package: &Package) -> Imprint {
    let Package { name: _, targets, outputs, exports, .. } = package;
    let mut writer = Writer::default();
    writer.list(targets.keys(), |writer, name| writer.text(name));
    writer.list(outputs.iter(), |writer, (name, owner)| {
        writer.text(name);
        writer.text(owner);
    });
    writer.list(exports.iter(), |writer, (name, visibility)| {
        writer.text(name);
        write_visibility(writer, visibility);
    });
    Imprint::of(&writer.bytes)
}

/// What a package says about configurations: conditions, params, platforms and so on. Others read
/// it without depending on its targets.
pub(crate) fn definitions(package: &Package) -> Imprint {
    let mut writer = Writer::default();
    let is_definition =
        |decl: &TargetDecl| decl.rule.native.is_some() || decl.rule.build_setting.is_some();
    for decl in package.targets.values().filter(|decl| is_definition(decl)) {
        writer.text(&decl.label.name);
        write_rule(&mut writer, &decl.rule);
        write_decl(&mut writer, decl);
    }
    Imprint::of(&writer.bytes)
}
