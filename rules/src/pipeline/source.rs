//! Texts of pipeline files, and places in them.
//!
//! A place is a range of bytes of one file; lines and columns are found when something is to be
//! said about it. Nothing here knows YAML.

use std::sync::Arc;

use crate::diagnostic::Location;

/// A range of bytes of one file; `end` is exclusive. Always on boundaries of characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// Which of the files.
    pub file: u16,
    /// The first byte.
    pub start: u32,
    /// The byte after the last one.
    pub end: u32,
}

impl Span {
    pub(crate) fn new(file: u16, start: usize, end: usize) -> Self {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self { file, start: number(start), end: number(end.max(start)) }
    }

    /// The smallest range that covers both.
    pub(crate) fn to(self, other: Self) -> Self {
        Self { file: self.file, start: self.start.min(other.start), end: self.end.max(other.end) }
    }

    /// Whether the other lies in it.
    pub(crate) fn covers(self, other: Self) -> bool {
        self.file == other.file && self.start <= other.start && other.end <= self.end
    }

    pub(crate) fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// Something and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Spanned<T> {
    /// What it is.
    pub value: T,
    /// Where it stands.
    pub span: Span,
}

impl<T> Spanned<T> {
    pub(crate) fn new(value: T, span: Span) -> Self {
        Self { value, span }
    }
}

/// One file.
#[derive(Clone, Debug)]
pub struct Source {
    /// How the file is called in messages.
    pub name: Arc<str>,
    /// Its text.
    pub text: Arc<str>,
    /// Where each line begins.
    lines: Arc<[u32]>,
}

impl Source {
    pub(crate) fn new(name: &str, text: &str) -> Self {
        let starts = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1);
        let lines = std::iter::once(0)
            .chain(starts)
            .map(|start| u32::try_from(start).unwrap_or(u32::MAX))
            .collect();
        Self { name: name.into(), text: text.into(), lines }
    }

    /// Line and column of a byte, both from 0, the column in characters.
    fn position(&self, byte: u32) -> (usize, usize) {
        let line = self.lines.partition_point(|start| *start <= byte).saturating_sub(1);
        let start = self.lines.get(line).copied().unwrap_or(0) as usize;
        let before = self.text.get(start..byte as usize).unwrap_or_default();
        // A mark of the byte order is no character that anybody sees.
        let before = if line == 0 { before.trim_start_matches('\u{feff}') } else { before };
        (line, before.chars().count())
    }

    /// The line, from 0, without its end.
    fn line(&self, line: usize) -> &str {
        let start = self.lines.get(line).copied().unwrap_or(0) as usize;
        let rest = self.text.get(start..).unwrap_or_default();
        rest.split('\n').next().unwrap_or_default().trim_end_matches('\r')
    }
}

/// The files of one pipeline: the template, then what it includes.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    files: Vec<Source>,
}

impl Sources {
    /// Adds a file and tells its number; one that is there already keeps it.
    pub(crate) fn add(&mut self, source: Source) -> u16 {
        let is_it = |one: &Source| one.name == source.name && one.text == source.text;
        if let Some(at) = self.files.iter().position(is_it) {
            return u16::try_from(at).unwrap_or(u16::MAX);
        }
        self.files.push(source);
        u16::try_from(self.files.len() - 1).unwrap_or(u16::MAX)
    }

    /// A file by its number.
    pub fn file(&self, file: u16) -> Option<&Source> {
        self.files.get(usize::from(file))
    }

    /// The text of a place.
    pub fn text(&self, span: Span) -> &str {
        self.file(span.file).and_then(|file| file.text.get(span.range())).unwrap_or_default()
    }

    /// A place in lines and columns.
    pub fn location(&self, span: Span) -> Location {
        let Some(file) = self.file(span.file) else { return Location::start_of("") };
        let (line, column) = file.position(span.start);
        let (end_line, end_column) = file.position(span.end);
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).saturating_add(1);
        Location {
            file: file.name.clone(),
            line: number(line),
            column: number(column),
            end_line: number(end_line),
            end_column: number(end_column),
        }
    }

    /// The line on which a place begins.
    pub(crate) fn line_of(&self, span: Span) -> &str {
        self.file(span.file).map_or("", |file| file.line(file.position(span.start).0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_lines_and_characters_from_one() {
        let mut sources = Sources::default();
        let file = sources.add(Source::new("a.yaml", "ä: b\r\ncd: é\n"));
        let check = |start, end, expect: &str, line: &str| {
            let span = Span::new(file, start, end);
            assert_eq!(sources.location(span).to_string(), expect);
            assert_eq!(sources.line_of(span), line);
        };
        check(0, 2, "a.yaml:1:1", "ä: b");
        check(4, 5, "a.yaml:1:4", "ä: b");
        check(11, 13, "a.yaml:2:5", "cd: é");
        check(14, 14, "a.yaml:3:1", "");
        check(999, 999, "a.yaml:3:1", "");
    }
}
