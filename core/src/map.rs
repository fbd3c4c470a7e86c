//! Actions that the content of a tree decides: which parts a map has.
//!
//! A map is an action that runs a command for each file of a tree. Here the list of the tree's
//! files becomes a list of parts, by text alone: nothing is read, and equal lists give equal parts.
//! How parts are keyed is [`crate::key::prepare_part`]'s business, how they run the executor's; see
//! `docs/design/dynamic-outputs.md`.
//!
//! Placeholders are replaced once, from left to right, so that the name of a file is never taken
//! for a placeholder. They stand in texts that rules write, never in paths of artifacts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::action::{Arg, Item};
use crate::graph::ArtifactId;
use crate::limits;
use crate::merkle::Node;
use crate::path::{PathError, RelPath, resolve_link};

/// Most links that are followed from one name to a file.
const LINKS_MAX: usize = 40;

/// What a map does with each file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Map {
    /// The tree; one of the action's inputs.
    pub input: ArtifactId,
    /// The command line, with placeholders in its texts.
    pub argv: Vec<Arg>,
    /// What a part makes: templates of paths below the output tree.
    pub outputs: Vec<String>,
    /// The endings of the files that count; all do where there is none.
    pub suffixes: Vec<String>,
    /// Whether a part sees the whole tree and not only its file.
    pub sees_tree: bool,
}

/// One command of a map.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its file, below the input tree.
    pub file: String,
    /// The same as an input.
    pub input: (RelPath, Node),
    /// What it makes.
    pub outputs: Vec<RelPath>,
    /// Its command line.
    pub argv: Vec<Arg>,
}

/// Why a tree cannot be mapped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// There are too many files.
    #[error("`{tree}` has {files} files to map, the limit is {}", limits::MAP_PARTS_MAX)]
    TooMany {
        /// The input tree.
        tree: RelPath,
        /// How many.
        files: usize,
    },
    /// Two parts make the same output, or one makes a file where another makes a folder.
    #[error("`{first}` and `{second}` of `{tree}` both make `{output}`")]
    SameOutput {
        /// The input tree.
        tree: RelPath,
        /// A file in it.
        first: String,
        /// Another, or the same one again.
        second: String,
        /// What they make.
        output: RelPath,
    },
    /// An output has a path that cannot be.
    #[error("an output for `{file}` of `{tree}` is malformed: {source}")]
    Output {
        /// The input tree.
        tree: RelPath,
        /// The file in it.
        file: String,
        /// What is wrong.
        source: PathError,
    },
    /// A link leads to nothing.
    #[error("the link `{link}` in `{tree}` leads to nothing in it")]
    Link {
        /// The input tree.
        tree: RelPath,
        /// The link.
        link: String,
    },
}

impl MapError {
    /// What can be done about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::SameOutput { .. } => {
                Some("`%{tree_relative_path}` in `outputs` is another for each file")
            }
            Self::TooMany { .. } | Self::Output { .. } | Self::Link { .. } => None,
        }
    }
}

/// What stands for the file in texts.
pub const FILE_PLACEHOLDERS: [&str; 3] = ["tree_relative_path", "stem", "basename"];
/// What stands for paths that a command uses; not in names of outputs.
pub const PATH_PLACEHOLDERS: [&str; 3] = ["input", "output", "output_directory"];

/// A piece of a text with placeholders.
enum Piece<'t> {
    Text(&'t str),
    Placeholder(&'t str),
}

/// Splits a text; a `%{` that nothing closes is text, and `%%{` is a `%{` that means itself.
fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("%{") {
        out.push(Piece::Text(before));
        if before.ends_with('%') {
            // `before` keeps one of the two percent signs.
            out.push(Piece::Text("{"));
            rest = after;
            continue;
        }
        let Some((name, tail)) = after.split_once('}') else {
            out.push(Piece::Text("%{"));
            rest = after;
            break;
        };
        out.push(Piece::Placeholder(name));
        rest = tail;
    }
    out.push(Piece::Text(rest));
    out
}

/// The placeholders of a text, as they are named in it.
pub fn placeholders(text: &str) -> Vec<&str> {
    let name = |piece| match piece {
        Piece::Placeholder(name) => Some(name),
        Piece::Text(_) => None,
    };
    pieces(text).into_iter().filter_map(name).collect()
}

/// The values of placeholders for one file.
struct Values<'a>(Vec<(&'static str, &'a str)>);

impl<'a> Values<'a> {
    fn of_file(file: &'a str) -> Self {
        let basename = file.rsplit('/').next().unwrap_or(file);
        let stem_bytes = match basename.rsplit_once('.') {
            // As `File.extension` has it, a dot at the beginning starts no extension.
            Some((before, ending)) if !before.is_empty() => file.len() - ending.len() - 1,
            _ => file.len(),
        };
        let stem = file.get(..stem_bytes).unwrap_or(file);
        Self(vec![("tree_relative_path", file), ("stem", stem), ("basename", basename)])
    }

    fn expand(&self, text: &str) -> String {
        let mut out = String::new();
        for piece in pieces(text) {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Placeholder(name) => {
                    let value = self.0.iter().find(|(own, _)| *own == name);
                    out.push_str(value.map_or("", |(_, value)| value));
                }
            }
        }
        out
    }

    fn expand_items(&self, items: &[Item]) -> Vec<Item> {
        let expand = |item: &Item| match item {
            Item::Text(text) if text.contains("%{") => Item::Text(self.expand(text).into()),
            // Long texts, such as scripts, are shared by all parts.
            Item::Text(text) => Item::Text(text.clone()),
            Item::Artifact(id) => Item::Artifact(*id),
        };
        items.iter().map(expand).collect()
    }

    fn expand_args(&self, args: &[Arg]) -> Vec<Arg> {
        let expand = |arg: &Arg| match arg {
            Arg::One(items) => Arg::One(self.expand_items(items)),
            Arg::Many(sequence) => {
                let mut sequence = sequence.clone();
                sequence.direct = self.expand_items(&sequence.direct);
                Arg::Many(sequence)
            }
            Arg::ParamFile { args, flag, format, always } => Arg::ParamFile {
                args: self.expand_args(args),
                flag: flag.clone(),
                format: *format,
                always: *always,
            },
        };
        args.iter().map(expand).collect()
    }
}

impl Map {
    /// The parts of a tree that stands at `tree`, in the order of `entries`, which are its files,
    /// links and empty folders. Their outputs stand below `output`.
    pub fn parts(
        &self,
        tree: &RelPath,
        output: &RelPath,
        entries: &[(String, Node)],
    ) -> Result<Vec<Part>, MapError> {
        let by_path: BTreeMap<&str, &Node> =
            entries.iter().map(|(path, node)| (path.as_str(), node)).collect();
        let mut files: Vec<(&str, Node)> = Vec::new();
        for (path, node) in entries.iter().filter(|(path, _)| self.counts(path)) {
            match node {
                Node::File { .. } => files.push((path, node.clone())),
                Node::Tree { .. } => {}
                Node::Symlink { target } => {
                    let broken = || MapError::Link { tree: tree.clone(), link: path.clone() };
                    let found = follow(&by_path, path, target).ok_or_else(broken)?;
                    files.extend(found.map(|node| (path.as_str(), node)));
                }
            }
        }
        if files.len() > limits::MAP_PARTS_MAX {
            return Err(MapError::TooMany { tree: tree.clone(), files: files.len() });
        }
        let parts = files.into_iter().map(|(file, node)| self.part(tree, output, file, node));
        let parts: Vec<Part> = parts.collect::<Result<_, _>>()?;
        check_outputs(tree, &parts)?;
        Ok(parts)
    }

    fn counts(&self, path: &str) -> bool {
        self.suffixes.is_empty() || self.suffixes.iter().any(|suffix| path.ends_with(suffix))
    }

    fn part(
        &self,
        tree: &RelPath,
        output: &RelPath,
        file: &str,
        node: Node,
    ) -> Result<Part, MapError> {
        let bad = |source| MapError::Output { tree: tree.clone(), file: file.to_owned(), source };
        let mut values = Values::of_file(file);
        let made = self.outputs.iter().map(|template| {
            let below = RelPath::new(&values.expand(template))?;
            RelPath::new(&format!("{output}/{below}"))
        });
        let outputs: Vec<RelPath> = made.collect::<Result<_, _>>().map_err(bad)?;
        let input = RelPath::new(&format!("{tree}/{file}")).map_err(bad)?;
        let first = outputs.first().map_or("", RelPath::as_str);
        values.0.extend([
            ("input", input.as_str()),
            ("output", first),
            ("output_directory", output.as_str()),
        ]);
        let argv = values.expand_args(&self.argv);
        Ok(Part { file: file.to_owned(), input: (input, node), outputs, argv })
    }
}

/// The file that a link leads to; `Some(None)` where that is a folder.
fn follow(entries: &BTreeMap<&str, &Node>, link: &str, target: &str) -> Option<Option<Node>> {
    let (mut link, mut target) = (RelPath::new(link).ok()?, target.to_owned());
    for _ in 0..LINKS_MAX {
        let place = resolve_link(&link, &target)?;
        match entries.get(place.as_str()) {
            Some(Node::File { digest, executable }) => {
                return Some(Some(Node::File { digest: *digest, executable: *executable }));
            }
            Some(Node::Symlink { target: next }) => {
                (link, target) = (RelPath::new(&place).ok()?, next.clone());
            }
            Some(Node::Tree { .. }) => return Some(None),
            None => {
                let below = format!("{place}/");
                let next = entries.range(below.as_str()..).next();
                let is_folder = next.is_some_and(|(path, _)| path.starts_with(&below));
                let is_folder = is_folder || place.is_empty();
                return is_folder.then_some(None);
            }
        }
    }
    None
}

/// Refuses outputs that stand twice, or one below another.
fn check_outputs(tree: &RelPath, parts: &[Part]) -> Result<(), MapError> {
    let mut made: BTreeMap<&str, &str> = BTreeMap::new();
    let same = |first: &str, second: &str, output: &RelPath| MapError::SameOutput {
        tree: tree.clone(),
        first: first.to_owned(),
        second: second.to_owned(),
        output: output.clone(),
    };
    for part in parts {
        for output in &part.outputs {
            if let Some(first) = made.insert(output.as_str(), &part.file) {
                return Err(same(first, &part.file, output));
            }
        }
    }
    for part in parts {
        for output in &part.outputs {
            let mut above = output.parent();
            while let Some(path) = above {
                if let Some(first) = made.get(path.as_str()) {
                    return Err(same(first, &part.file, &path));
                }
                above = path.parent();
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DigestFunction;

    fn map(outputs: &[&str], suffixes: &[&str]) -> Map {
        let text = |text: &str| Item::Text(text.into());
        let words = [
            vec![text("%{input}"), Item::Artifact(ArtifactId::from_index(7))],
            vec![text("%{output} %{output_directory} %{stem} %{basename}")],
            vec![text("%%{stem} 100% %{ %{stem")],
        ];
        Map {
            input: ArtifactId::from_index(0),
            argv: words.into_iter().map(Arg::One).collect(),
            outputs: outputs.iter().map(|text| (*text).to_owned()).collect(),
            suffixes: suffixes.iter().map(|text| (*text).to_owned()).collect(),
            sees_tree: false,
        }
    }

    fn file(path: &str) -> (String, Node) {
        let digest = DigestFunction::Blake3.digest(path.as_bytes());
        (path.to_owned(), Node::File { digest, executable: false })
    }

    fn link(path: &str, target: &str) -> (String, Node) {
        (path.to_owned(), Node::Symlink { target: target.to_owned() })
    }

    fn parts(map: &Map, entries: &[(String, Node)]) -> Result<Vec<Part>, MapError> {
        let path = |text| RelPath::new(text).expect("a path");
        map.parts(&path("gen/src"), &path("gen/out"), entries)
    }

    #[test]
    fn a_part_has_its_own_command_and_outputs() {
        let check = |name: &str, stem: &str, basename: &str| {
            let parts = parts(&map(&["%{stem}.o", "d/%{tree_relative_path}"], &[]), &[file(name)]);
            let [part] = &*parts.expect("a part") else { panic!("one part") };
            let outputs: Vec<&str> = part.outputs.iter().map(RelPath::as_str).collect();
            assert_eq!(outputs, [format!("gen/out/{stem}.o"), format!("gen/out/d/{name}")]);
            let words: Vec<String> = part
                .argv
                .iter()
                .map(|arg| match arg {
                    Arg::One(items) => items.iter().map(ToString::to_string).collect(),
                    other => panic!("{other:?}"),
                })
                .collect();
            let [input, second, third] = &*words else { panic!("three words") };
            assert!(input.starts_with(&format!("gen/src/{name}")), "{input}");
            assert_eq!(*second, format!("gen/out/{stem}.o gen/out {stem} {basename}"));
            assert_eq!(third, "%{stem} 100% %{ %{stem");
        };
        check("a.c", "a", "a.c");
        check("d/e.f/b.tar.gz", "d/e.f/b.tar", "b.tar.gz");
        check("d.e/none", "d.e/none", "none");
        check(".hidden", ".hidden", ".hidden");
        // Names are never taken for placeholders, or for anything else.
        check("%{input}/-x %{stem}.c", "%{input}/-x %{stem}", "-x %{stem}.c");
        check("%s $(x) `y` 'z'.c", "%s $(x) `y` 'z'", "%s $(x) `y` 'z'.c");
    }

    #[test]
    fn files_count_by_their_endings_and_links_by_what_they_lead_to() {
        let entries = [
            file("a.c"),
            file("b.h"),
            link("c.c", "b.h"),
            ("empty.c".to_owned(), Node::Tree { root: DigestFunction::Blake3.digest(b"") }),
            link("far.c", "l/2.c"),
            link("folder.c", "l"),
            link("l/2.c", "../a.c"),
        ];
        let names = |suffixes: &[&str]| -> Vec<String> {
            let parts = parts(&map(&["%{tree_relative_path}"], suffixes), &entries);
            parts.expect("parts").into_iter().map(|part| part.file).collect()
        };
        assert_eq!(names(&[".c"]), ["a.c", "c.c", "far.c", "l/2.c"]);
        assert_eq!(names(&[".h", ".x"]), ["b.h"]);
        assert_eq!(names(&[]), ["a.c", "b.h", "c.c", "far.c", "l/2.c"]);
        assert_eq!(names(&[".none"]), Vec::<String>::new());
    }

    #[test]
    fn what_cannot_be_mapped_says_why() {
        let check = |outputs: &[&str], entries: &[(String, Node)], expect: &str| {
            let error = parts(&map(outputs, &[]), entries).expect_err(expect);
            assert_eq!(error.to_string(), expect);
        };
        let both = [file("a.c"), file("a.h")];
        let same = "`a.c` and `a.h` of `gen/src` both make `gen/out/a.o`";
        check(&["%{stem}.o"], &both, same);
        check(&["x", "x"], &both[..1], "`a.c` and `a.c` of `gen/src` both make `gen/out/x`");
        let nested = [file("a"), file("b")];
        let below = "`a` and `b` of `gen/src` both make `gen/out/x`";
        let odd = Map { outputs: vec!["x".to_owned()], ..map(&[], &[]) };
        let error = parts(&odd, &nested).expect_err(below);
        assert_eq!(error.to_string(), below);
        let prefix = "`a` and `a` of `gen/src` both make `gen/out/a`";
        check(&["%{stem}", "%{stem}/x"], &[file("a")], prefix);
        let normal = "an output for `a.c` of `gen/src` is malformed: `../a` is not a normal \
                      relative path";
        check(&["../%{stem}"], &both[..1], normal);
        for target in ["gone", "self", "../out", "/etc/passwd"] {
            let broken = "the link `self` in `gen/src` leads to nothing in it";
            check(&["%{stem}"], &[file("a"), link("self", target)], broken);
        }
    }

    #[test]
    fn placeholders_are_found() {
        assert_eq!(placeholders("a %{x} %%{y} %{z}%{"), ["x", "z"]);
        assert_eq!(placeholders("${x} %x"), Vec::<&str>::new());
    }
}
