//! A YAML or JSON document as a tree in which every node knows its place.
//!
//! The events come from `granit-parser`, which was chosen over `saphyr-parser`, its ancestor: it
//! has no `unsafe`, bounds its own stack, tells places in bytes, and is what `serde-saphyr` is
//! built on. serde itself would lose places, since it knows none.
//!
//! Of YAML 1.2 the core schema is taken: `on` and `yes` are texts. Keys are texts and stand once.
//! Aliases are copied; a copy counts against the bound on nodes as what it is a copy of does, so
//! that few lines cannot become a huge tree. Tags other than `!!str` and its kind mean nothing.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Tag};

use super::limits::{NESTING_MAX, NODES_MAX};
use super::mask::{self, Masked};
use super::report::Report;
use super::source::{Source, Span, Spanned};
use crate::error::Code;

/// How a scalar is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// Without quotes: its text may stand for a number, a bool or nothing.
    Plain,
    Single,
    Double,
    /// A block scalar.
    Block,
}

/// A text with its notation.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    pub(crate) style: Style,
}

/// A value of the document.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) span: Span,
    pub(crate) kind: Kind,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    Scalar(Scalar),
    Sequence(Vec<Node>),
    /// Keys in their order, each once.
    Mapping(Vec<(Spanned<String>, Node)>),
}

impl Node {
    /// What it is, for messages.
    pub(crate) fn describe(&self) -> &'static str {
        match &self.kind {
            Kind::Sequence(_) => "a list",
            Kind::Mapping(_) => "a mapping",
            Kind::Scalar(scalar) => scalar.describe(),
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar(scalar) if scalar.is_null())
    }
}

impl Scalar {
    pub(crate) fn is_null(&self) -> bool {
        self.style == Style::Plain && matches!(&*self.text, "" | "~" | "null" | "Null" | "NULL")
    }

    pub(crate) fn boolean(&self) -> Option<bool> {
        match &*self.text {
            _ if self.style != Style::Plain => None,
            "true" | "True" | "TRUE" => Some(true),
            "false" | "False" | "FALSE" => Some(false),
            _ => None,
        }
    }

    /// A whole number, in the notations of the core schema.
    pub(crate) fn integer(&self) -> Option<i64> {
        if self.style != Style::Plain {
            return None;
        }
        let text = self.text.as_str();
        if let Some(digits) = text.strip_prefix("0x") {
            return i64::from_str_radix(digits.strip_prefix(['+', '-']).map_or(digits, |_| ""), 16)
                .ok();
        }
        if let Some(digits) = text.strip_prefix("0o") {
            return i64::from_str_radix(digits.strip_prefix(['+', '-']).map_or(digits, |_| ""), 8)
                .ok();
        }
        text.parse().ok()
    }

    /// A number with a fraction or an exponent.
    pub(crate) fn float(&self) -> Option<f64> {
        let number = |b: u8| b.is_ascii_digit() || b"+-.eE".contains(&b);
        let looks = self.style == Style::Plain
            && self.text.bytes().all(number)
            && self.text.bytes().any(|b| b.is_ascii_digit());
        self.text.parse().ok().filter(|n: &f64| looks && n.is_finite())
    }

    fn describe(&self) -> &'static str {
        match () {
            () if self.is_null() => "nothing",
            () if self.boolean().is_some() => "a bool",
            () if self.integer().is_some() => "an int",
            () if self.float().is_some() => "a number",
            () => "a text",
        }
    }
}

/// Reads a document; errors are reported, and then there may be none.
pub(crate) fn parse(source: &Source, file: u16, report: &mut Report) -> Option<Node> {
    let masked = mask::mask(&source.text);
    for start in masked.open.iter().copied() {
        let span = Span::new(file, start, start + mask::OPEN.len());
        report.error(Code::PipelineSyntax, span, "`${{` has no `}}` on its line").hint(
            "write the expression on one line, or in a block scalar: `>-` and indented lines",
        );
    }
    if !masked.open.is_empty() {
        return None;
    }
    let mut build = Build::new(&masked, &source.text);
    let mut options = granit_parser::Options::default();
    options.flow_nesting_limit = NESTING_MAX;
    options.block_nesting_limit = NESTING_MAX;
    for event in Parser::new_from_str_with_options(&masked.text, options) {
        let fed = match event {
            Ok((event, span)) => {
                let byte = |mark: granit_parser::Marker| mark.byte_offset().unwrap_or(0);
                build.feed(event, Span::new(file, byte(span.start), byte(span.end)), report)
            }
            Err(error) => {
                scan_error(&error, source, file, report);
                None
            }
        };
        fed?;
    }
    build.root
}

fn scan_error(error: &ScanError, source: &Source, file: u16, report: &mut Report) {
    use granit_parser::ErrorKind;
    let at = error.marker().byte_offset().unwrap_or(0).min(source.text.len());
    let at = (0..=at).rev().find(|at| source.text.is_char_boundary(*at)).unwrap_or(0);
    let width = source.text[at..].chars().next().map_or(0, char::len_utf8);
    let span = Span::new(file, at, at + width);
    let code = match error.kind() {
        ErrorKind::RecursionLimitExceeded => Code::PipelineLimit,
        _ => Code::PipelineSyntax,
    };
    let draft = report.error(code, span, format!("this is not YAML: {}", error.kind()));
    match error.kind() {
        ErrorKind::TabNotAllowed | ErrorKind::TabInBlockIndentation => {
            draft.hint("indent with spaces")
        }
        ErrorKind::RecursionLimitExceeded => {
            draft.hint(format!("lists and mappings nest up to {NESTING_MAX} deep"))
        }
        ErrorKind::UnknownAnchor => draft.hint("an alias `*name` follows its anchor `&name`"),
        _ => draft.hint("look for a missing quote, bracket or colon here or on the line before"),
    };
}

/// A list or mapping that is still open.
struct Open {
    node: Node,
    /// The key whose value comes next.
    key: Option<Spanned<String>>,
    /// Keys of the mapping so far.
    keys: HashMap<String, Span>,
    anchor: usize,
    /// Nodes below it, itself included.
    size: usize,
}

struct Build<'a> {
    masked: &'a Masked,
    text: &'a str,
    open: Vec<Open>,
    anchors: HashMap<usize, (Node, usize)>,
    /// The anchors that an alias names.
    aliased: HashSet<usize>,
    nodes: usize,
    documents: usize,
    root: Option<Node>,
}

impl<'a> Build<'a> {
    fn new(masked: &'a Masked, text: &'a str) -> Self {
        Self {
            masked,
            text,
            open: Vec::new(),
            anchors: HashMap::new(),
            aliased: HashSet::new(),
            nodes: 0,
            documents: 0,
            root: None,
        }
    }

    /// Takes an event; `None` where nothing sensible can follow.
    fn feed(&mut self, event: Event<'_>, span: Span, report: &mut Report) -> Option<()> {
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    let message = "a second document begins here";
                    let draft = report.error(Code::PipelineSyntax, span, message);
                    draft.hint("a file holds one pipeline; put the other into a file of its own");
                    return None;
                }
                Some(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                let scalar = self.scalar(&text, style, tag.as_deref(), span, report);
                let node = Node { span, kind: Kind::Scalar(scalar) };
                self.count(1, span, report)?;
                self.finished(node, anchor, 1, report)
            }
            Event::SequenceStart(_, anchor, tag) => {
                collection_tag(tag.as_deref(), "seq", span, report);
                self.begin(Kind::Sequence(Vec::new()), span, anchor, report)
            }
            Event::MappingStart(_, anchor, tag) => {
                collection_tag(tag.as_deref(), "map", span, report);
                self.begin(Kind::Mapping(Vec::new()), span, anchor, report)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(span, report),
            Event::Alias(anchor) => self.alias(anchor, span, report),
            _ => Some(()),
        }
    }

    fn scalar(
        &self,
        text: &str,
        style: ScalarStyle,
        tag: Option<&Tag>,
        span: Span,
        report: &mut Report,
    ) -> Scalar {
        let mut style = match style {
            ScalarStyle::Plain => Style::Plain,
            ScalarStyle::SingleQuoted => Style::Single,
            ScalarStyle::DoubleQuoted => Style::Double,
            _ => Style::Block,
        };
        let text = self.unmasked(text, style, span);
        if let Some(tag) = tag {
            let name = tag.to_string();
            match name.strip_prefix("tag:yaml.org,2002:").map(|n| n.trim_start_matches('!')) {
                Some("str") => style = if style == Style::Plain { Style::Single } else { style },
                Some("null" | "bool" | "int" | "float") => {}
                _ => foreign_tag(&name, span, report),
            }
        }
        Scalar { text, style }
    }

    /// The text with the expressions that were hidden from the parser.
    fn unmasked(&self, text: &str, style: Style, span: Span) -> String {
        let hidden = &self.masked.hidden;
        let range = span.range();
        let first = hidden.partition_point(|h| h.end <= range.start);
        let inside = hidden.get(first..).unwrap_or_default();
        if inside.first().is_none_or(|h| h.start >= range.end) {
            return text.to_owned();
        }
        let raw = self.masked.text.get(range.clone()).unwrap_or_default();
        let offsets = offsets(raw, text, style);
        let mut bytes = text.as_bytes().to_vec();
        for (byte, offset) in bytes.iter_mut().zip(offsets) {
            let at = range.start + offset as usize;
            if is_within(inside, at) && *byte == b'x' {
                *byte = self.text.as_bytes().get(at).copied().unwrap_or(*byte);
            }
        }
        // Whole expressions were hidden, so that whole characters come back.
        String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
    }

    fn begin(&mut self, kind: Kind, span: Span, anchor: usize, report: &mut Report) -> Option<()> {
        if self.open.len() >= NESTING_MAX {
            let message = format!("lists and mappings nest deeper than {NESTING_MAX}");
            report.error(Code::PipelineLimit, span, message);
            return None;
        }
        self.count(1, span, report)?;
        let node = Node { span, kind };
        self.open.push(Open { node, key: None, keys: HashMap::new(), anchor, size: 1 });
        Some(())
    }

    fn end(&mut self, span: Span, report: &mut Report) -> Option<()> {
        let open = self.open.pop()?;
        let Open { mut node, anchor, size, .. } = open;
        let last = match &node.kind {
            Kind::Sequence(items) => items.last().map(|item| item.span),
            Kind::Mapping(entries) => entries.last().map(|(key, value)| key.span.to(value.span)),
            Kind::Scalar(_) => None,
        };
        // In flow style the bracket ends it, in block style its last entry does.
        let bracket = matches!(self.text.as_bytes().get(span.start as usize), Some(b']' | b'}'));
        node.span = match (bracket && span.end > span.start, last) {
            (false, Some(last)) => node.span.to(last),
            _ => node.span.to(span),
        };
        self.finished(node, anchor, size, report)
    }

    fn alias(&mut self, anchor: usize, span: Span, report: &mut Report) -> Option<()> {
        if self.open.iter().any(|open| open.anchor == anchor) {
            report
                .error(Code::PipelineSyntax, span, "this alias stands within what it stands for")
                .hint("a value cannot contain itself");
            return None;
        }
        let size = self.anchors.get(&anchor)?.1;
        self.count(size, span, report)?;
        let named = &self.anchors.get(&anchor)?.0;
        let kind = named.kind.clone();
        if self.aliased.insert(anchor) {
            report.shared.insert(named.span);
        }
        report.shared.insert(span);
        self.finished(Node { span, kind }, 0, size, report)
    }

    /// Counts values before they are made; `None` where they are too many.
    fn count(&mut self, more: usize, span: Span, report: &mut Report) -> Option<()> {
        self.nodes += more;
        if self.nodes <= NODES_MAX {
            return Some(());
        }
        report
            .error(Code::PipelineLimit, span, format!("the file has more than {NODES_MAX} values"))
            .hint("what an anchor names counts once more, and again for each alias");
        None
    }

    /// Puts a node where it belongs.
    fn finished(
        &mut self,
        node: Node,
        anchor: usize,
        size: usize,
        report: &mut Report,
    ) -> Option<()> {
        if anchor > 0 {
            self.count(size, node.span, report)?;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Some(());
        };
        open.size += size;
        match (&mut open.node.kind, open.key.take()) {
            (Kind::Sequence(items), _) => items.push(node),
            (Kind::Mapping(entries), Some(key)) => entries.push((key, node)),
            (Kind::Mapping(_), None) => open.key = key_of(node, &mut open.keys, report),
            (Kind::Scalar(_), _) => {}
        }
        Some(())
    }
}

fn is_within(ranges: &[Range<usize>], at: usize) -> bool {
    let next = ranges.partition_point(|range| range.end <= at);
    ranges.get(next).is_some_and(|range| range.start <= at)
}

/// The text of a key, which must be new to its mapping. A key that is none gets a name of no key,
/// so that its value is read all the same.
fn key_of(
    node: Node,
    keys: &mut HashMap<String, Span>,
    report: &mut Report,
) -> Option<Spanned<String>> {
    let span = node.span;
    let Kind::Scalar(scalar) = node.kind else {
        report.error(Code::PipelineSyntax, span, "a key is a text, not a list or a mapping");
        return Some(Spanned::new(String::new(), span));
    };
    match keys.get(&scalar.text) {
        Some(first) => {
            report
                .error(
                    Code::PipelineDuplicate,
                    span,
                    format!("the key `{}` stands twice", scalar.text),
                )
                .see(*first, "it stands here first");
        }
        None => {
            keys.insert(scalar.text.clone(), span);
        }
    }
    Some(Spanned::new(scalar.text, span))
}

fn collection_tag(tag: Option<&Tag>, own: &str, span: Span, report: &mut Report) {
    if let Some(tag) = tag.map(Tag::to_string).filter(|tag| !tag.ends_with(own)) {
        foreign_tag(&tag, span, report);
    }
}

fn foreign_tag(tag: &str, span: Span, report: &mut Report) {
    report
        .error(Code::PipelineSyntax, span, format!("the tag `{tag}` means nothing here"))
        .hint("take it away; values are what the core schema of YAML 1.2 makes of them");
}

/// For each byte of a scalar's value, and for its end, where it stands in the scalar's text.
///
/// The value is what the parser made of the text; the two are walked side by side, so that escapes,
/// folded lines and indentation are found without decoding them again.
pub(crate) fn offsets(raw: &str, value: &str, style: Style) -> Vec<u32> {
    let (raw, value) = (raw.as_bytes(), value.as_bytes());
    let mut at = usize::from(matches!(style, Style::Single | Style::Double) && !raw.is_empty());
    let mut out = Vec::with_capacity(value.len() + 1);
    let number = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    let blanks = |text: &[u8]| text.iter().take_while(|b| b" \t\r\n".contains(*b)).count();
    while let Some(rest) = value.get(out.len()..).filter(|rest| !rest.is_empty()) {
        let ahead = raw.get(at..).unwrap_or_default();
        match ahead {
            // A line that goes on: nothing comes of its break.
            [b'\\', b'\r' | b'\n', after @ ..] if style == Style::Double => {
                at += 2 + blanks(after);
            }
            // A run of blanks is walked once, however long it is.
            [b' ' | b'\t' | b'\r' | b'\n', ..] => {
                let run = blanks(ahead);
                if ahead.get(..run).unwrap_or_default().contains(&b'\n') {
                    // Broken lines: blanks stand for blanks, whatever their number.
                    out.extend(std::iter::repeat_n(number(at), blanks(rest)));
                } else {
                    out.extend((at..at + run).map(number));
                }
                at += run;
            }
            [b'\\', ..] if style == Style::Double => {
                let (step, width) = escape(ahead);
                out.extend(std::iter::repeat_n(number(at), width));
                at += step;
            }
            [b'\'', b'\'', ..] if style == Style::Single => {
                out.push(number(at));
                at += 2;
            }
            [] => out.push(number(raw.len())),
            _ => {
                out.push(number(at));
                at += 1;
            }
        }
    }
    out.truncate(value.len());
    out.push(number(at.min(raw.len())));
    out
}

/// The bytes of an escape of double quotes, and how many bytes of UTF-8 it comes to.
fn escape(raw: &[u8]) -> (usize, usize) {
    let digits = match raw.get(1) {
        Some(b'x') => 2,
        Some(b'u') => 4,
        Some(b'U') => 8,
        Some(b'N' | b'_') => return (2, 2),
        Some(b'L' | b'P') => return (2, 3),
        _ => return (2, 1),
    };
    let hex = raw.get(2..2 + digits).and_then(|hex| std::str::from_utf8(hex).ok());
    let code = hex.and_then(|hex| u32::from_str_radix(hex, 16).ok());
    let width = code.and_then(char::from_u32).map_or(1, char::len_utf8);
    (2 + digits, width)
}

#[cfg(test)]
mod tests;
