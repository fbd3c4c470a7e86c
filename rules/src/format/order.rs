//! Puts in order what means the same in any order: loads, their names, arguments of targets, lists
//! of labels.
//!
//! Comments move with what they stand at. A comment or an empty line between elements of a list
//! ends the stretch that is sorted, and `# do not sort` before a list leaves it alone.

use super::FileKind;
use super::lexer::Kind;
use super::tree::{Content, Group, GroupKind, Item, Node, Row};

/// Attributes whose order of labels means nothing.
const SORTED_LISTS: [&str; 11] = [
    "srcs",
    "hdrs",
    "textual_hdrs",
    "deps",
    "runtime_deps",
    "data",
    "tools",
    "tags",
    "visibility",
    "default_visibility",
    "exports",
];

/// Rules whose `srcs` and `outs` keep their order, because commands see it.
const ORDERED_RULES: [&str; 1] = ["genrule"];

/// Sorts everything in `rows` that may be sorted.
pub(crate) fn sort(rows: &mut [Row], kind: FileKind) {
    for row in rows.iter_mut() {
        let Content::Code(item) = &mut row.content else { continue };
        match row.level {
            0 if is_load(item) => sort_names(item),
            0 if kind == FileKind::Package => sort_target(item),
            _ => {}
        }
    }
    sort_loads(rows);
}

fn is_load(item: &Item) -> bool {
    item.parts.first().is_some_and(|part| part.node.text() == "load") && item.parts.len() == 2
}

/// Sorts stretches of loads that no comment and no other statement interrupts.
fn sort_loads(rows: &mut [Row]) {
    let load = |row: &Row| matches!(&row.content, Content::Code(item) if is_load(item));
    for stretch in rows.chunk_by_mut(|left, right| load(left) && load(right)) {
        if stretch.len() < 2 {
            continue;
        }
        let blank = stretch.first().is_some_and(|row| row.blank);
        stretch.sort_by_cached_key(load_key);
        for (index, row) in stretch.iter_mut().enumerate() {
            row.blank = blank && index == 0;
        }
    }
}

/// Other repositories first, then this one, then this package.
fn load_key(row: &Row) -> (u8, String) {
    let Content::Code(item) = &row.content else { return (0, String::new()) };
    let Some(Node::Group(group)) = item.parts.last().map(|part| &part.node) else {
        return (0, String::new());
    };
    let file = group.items.first().and_then(string).unwrap_or_default();
    let rank = match file.get(..1) {
        Some("@") => 0,
        Some("/") => 1,
        _ => 2,
    };
    (rank, file.to_owned())
}

/// Sorts the names of a load by what they are called here.
fn sort_names(item: &mut Item) {
    let Some(Node::Group(group)) = item.parts.last_mut().map(|part| &mut part.node) else { return };
    let Some(names) = group.items.get_mut(1..) else { return };
    let local = |item: &Item| -> (bool, String) {
        let first = item.parts.first().map(|part| part.node.text()).unwrap_or_default();
        (item.parts.len() > 1, first.trim_matches('"').to_owned())
    };
    if names.iter().all(|item| item.before.is_empty()) {
        permute(names, |item| local(item));
    }
}

/// Takes names out of a `load`; whether the row is still needed.
pub(super) fn keep_loaded(row: &mut Row, keep: impl Fn(&str) -> bool) -> bool {
    let Content::Code(item) = &mut row.content else { return true };
    if row.level != 0 || !is_load(item) {
        return true;
    }
    let bare = item.after.is_empty();
    let Some(Node::Group(group)) = item.parts.last_mut().map(|part| &mut part.node) else {
        return true;
    };
    let mut file = true;
    group.items.retain(|item| {
        let name = item.parts.first().map(|part| part.node.text()).unwrap_or_default();
        let commented = !item.before.is_empty() || !item.after.is_empty();
        std::mem::take(&mut file) || commented || keep(name.trim_matches(['"', '\'']))
    });
    group.items.len() > 1 || !group.end.is_empty() || !bare
}

/// Sorts the arguments of a call that declares a target, and its lists of labels.
fn sort_target(item: &mut Item) {
    let rule = item.parts.first().map(|part| part.node.text().to_owned()).unwrap_or_default();
    let names = item.parts.iter().rev().skip(1).all(|part| match &part.node {
        Node::Token(kind, text) => *kind == Kind::Name || text == ".",
        Node::Group(_) => false,
    });
    let Some(Node::Group(group)) = item.parts.last_mut().map(|part| &mut part.node) else { return };
    if !names || group.kind != GroupKind::Call {
        return;
    }
    for argument in &mut group.items {
        let Some(name) = argument_name(argument).map(str::to_owned) else { continue };
        let ordered = ORDERED_RULES.contains(&rule.as_str()) && matches!(&*name, "srcs" | "outs");
        let told = argument.before.iter().any(|c| c.text.contains("do not sort"));
        if SORTED_LISTS.contains(&name.as_str()) && !ordered && !told {
            sort_lists(argument);
        }
    }
    if !group.items.iter().any(|argument| argument_name(argument) == Some("name")) {
        return;
    }
    let named =
        |left: &Item, right: &Item| argument_name(left).is_some() && argument_name(right).is_some();
    for stretch in group.items.chunk_by_mut(named) {
        permute(stretch, |argument| {
            let name = argument_name(argument).unwrap_or_default();
            (rank(name), name.to_owned())
        });
    }
}

/// Sorts items and leaves line breaks where they were.
fn permute<K: Ord>(items: &mut [Item], key: impl Fn(&Item) -> K) {
    let breaks: Vec<(bool, bool)> = items.iter().map(|item| (item.breaks, item.blank)).collect();
    let sorted = items.is_sorted_by_key(&key);
    items.sort_by_cached_key(&key);
    for (item, (line, blank)) in items.iter_mut().zip(breaks) {
        item.breaks = line;
        item.blank = blank && sorted;
    }
}

/// The name of a named argument.
fn argument_name(item: &Item) -> Option<&str> {
    match item.parts.as_slice() {
        [name, equals, ..] if equals.node.text() == "=" => Some(name.node.text()),
        _ => None,
    }
}

/// Where buildifier puts an argument: before all others, among them, or behind.
fn rank(name: &str) -> i8 {
    const FIRST: [&str; 12] = [
        "name", "size", "timeout", "testonly", "src", "srcs", "out", "outs", "hdrs", "include",
        "exclude", "of",
    ];
    const LAST: [&str; 6] =
        ["destdir", "exports", "runtime_deps", "deps", "implementation", "alwayslink"];
    let place = |list: &[&str]| {
        list.iter().position(|known| *known == name).and_then(|at| i8::try_from(at).ok())
    };
    match (place(&FIRST), place(&LAST)) {
        (Some(at), _) => at - 100,
        (_, Some(at)) => at + 1,
        _ => 0,
    }
}

fn sort_lists(argument: &mut Item) {
    for part in &mut argument.parts {
        match &mut part.node {
            Node::Group(group) if group.kind == GroupKind::Sequence && group.open == "[" => {
                sort_list(group);
            }
            _ => {}
        }
    }
}

fn sort_list(group: &mut Group) {
    if group.items.iter().any(|item| string(item).is_none()) {
        return;
    }
    let told = |item: &Item| item.before.iter().any(|c| c.text.contains("do not sort"));
    if group.items.iter().any(told) {
        return;
    }
    let joined = |_: &Item, right: &Item| right.before.is_empty() && !right.blank;
    for stretch in group.items.chunk_by_mut(joined) {
        // What stands before the first element stands before the stretch.
        let before = stretch.first_mut().map(|item| std::mem::take(&mut item.before));
        let blank = stretch.first().is_some_and(|item| item.blank);
        permute(stretch, |item| label_key(string(item).unwrap_or_default()));
        if let (Some(first), Some(before)) = (stretch.first_mut(), before) {
            first.before = before;
            first.blank = blank;
        }
    }
}

/// The text of an item that is one plain string.
fn string(item: &Item) -> Option<&str> {
    match item.parts.as_slice() {
        [one] => match &one.node {
            Node::Token(Kind::String, text) => text.strip_prefix('"')?.strip_suffix('"'),
            _ => None,
        },
        _ => None,
    }
}

/// Files first, then `:name`, `//…`, `@…`; within each, word by word.
fn label_key(text: &str) -> (u8, Vec<String>, String) {
    let rank = match text.get(..1) {
        Some(":") => 1,
        Some("/") => 2,
        Some("@") => 3,
        _ => 0,
    };
    let words = text.replace(':', ".").split('.').map(str::to_owned).collect();
    (rank, words, text.to_owned())
}
