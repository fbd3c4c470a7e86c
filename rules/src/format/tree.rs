//! Tokens as rows of a file and groups in brackets: what the printer lays out.
//!
//! Expressions have no tree here. A row or an item is a flat list of tokens and bracket groups,
//! which is enough to lay them out, and keeps every token where it stands.

use super::lexer::{Kind, Token};

/// A comment on a line of its own.
#[derive(Clone, Debug)]
pub(crate) struct Comment {
    pub(crate) text: String,
    /// Whether an empty line stands before it.
    pub(crate) blank: bool,
}

/// One line of a file, or one statement that spans several.
#[derive(Debug)]
pub(crate) struct Row {
    /// How deep it is indented, in steps.
    pub(crate) level: usize,
    /// Whether an empty line stands before it.
    pub(crate) blank: bool,
    pub(crate) content: Content,
}

#[derive(Debug)]
pub(crate) enum Content {
    Comment(String),
    Code(Item),
}

/// A statement, or one element of a group.
#[derive(Clone, Debug, Default)]
pub(crate) struct Item {
    /// Comments on lines before it.
    pub(crate) before: Vec<Comment>,
    /// Whether an empty line stands before its first token.
    pub(crate) blank: bool,
    /// Whether its first token begins a line.
    pub(crate) breaks: bool,
    pub(crate) parts: Vec<Part>,
    /// Comments after it, the first on the same line.
    pub(crate) after: Vec<String>,
}

/// A token or a group, and what stands before it.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// Whether it begins a line.
    pub(crate) breaks: bool,
    /// Comments before it within its item; `true` for one on the line of the token before.
    pub(crate) comments: Vec<(String, bool)>,
    pub(crate) node: Node,
}

#[derive(Clone, Debug)]
pub(crate) enum Node {
    Token(Kind, String),
    Group(Group),
}

impl Node {
    /// The text of a token; empty for a group.
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Token(_, text) => text,
            Self::Group(_) => "",
        }
    }

    /// Whether a value ends here, so that an operator that follows has two sides.
    pub(crate) fn is_operand(&self) -> bool {
        match self {
            Self::Group(_) => true,
            Self::Token(kind, text) => {
                matches!(kind, Kind::Name | Kind::Number | Kind::String) || text == "..."
            }
        }
    }
}

/// What a bracket means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GroupKind {
    /// Arguments of a call.
    Call,
    /// Parameters of a `def`.
    Params,
    /// An index or a slice.
    Index,
    /// An expression in parentheses.
    Paren,
    /// A tuple, list or dict.
    Sequence,
    /// A comprehension; its items are the element and the clauses.
    Comprehension,
}

/// Brackets and what is between them.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) kind: GroupKind,
    pub(crate) open: String,
    pub(crate) close: String,
    pub(crate) items: Vec<Item>,
    /// Whether a comma follows the last item.
    pub(crate) trailing: bool,
    /// Comments before the closing bracket.
    pub(crate) end: Vec<Comment>,
    /// Whether the closing bracket begins a line.
    pub(crate) end_breaks: bool,
}

/// Makes rows of the tokens of a file.
pub(crate) fn rows(tokens: &[Token<'_>]) -> Vec<Row> {
    Builder { tokens, at: 0, last_line: None, indents: vec![0], rows: Vec::new() }.build()
}

struct Builder<'t, 'a> {
    tokens: &'t [Token<'a>],
    at: usize,
    /// The line that the last token ended on.
    last_line: Option<usize>,
    indents: Vec<usize>,
    rows: Vec<Row>,
}

impl<'a> Builder<'_, 'a> {
    fn build(mut self) -> Vec<Row> {
        // Comments whose level is known once the next statement is.
        let mut waiting: Vec<(usize, bool, String)> = Vec::new();
        while let Some(token) = self.peek() {
            let blank = self.blank(&token);
            match token.kind {
                Kind::Comment => {
                    let suffix = self.last_line == Some(token.line);
                    self.next();
                    match self.rows.last_mut().map(|row| &mut row.content) {
                        Some(Content::Code(item)) if suffix && waiting.is_empty() => {
                            item.after.push(comment_text(token.text));
                        }
                        _ => waiting.push((token.column, blank, comment_text(token.text))),
                    }
                }
                Kind::Newline => {
                    self.next();
                }
                _ => {
                    let outer = self.indents.len();
                    let open = self.indents.clone();
                    self.indent(token.column);
                    let level = self.indents.len().saturating_sub(1);
                    let deepest = outer.saturating_sub(1).max(level);
                    self.place(&mut waiting, &open, level, deepest);
                    self.statement(level, blank);
                }
            }
        }
        let open = self.indents.clone();
        self.place(&mut waiting, &open, 0, open.len().saturating_sub(1));
        self.rows
    }

    /// Gives comments before a statement at `level` their own levels.
    fn place(
        &mut self,
        waiting: &mut Vec<(usize, bool, String)>,
        open: &[usize],
        level: usize,
        deepest: usize,
    ) {
        let mut bound = deepest;
        for (column, blank, text) in waiting.drain(..) {
            let own = open.iter().rposition(|indent| *indent <= column).unwrap_or(0);
            let own = own.clamp(level, bound.max(level));
            bound = own;
            self.rows.push(Row { level: own, blank, content: Content::Comment(text) });
        }
    }

    fn indent(&mut self, column: usize) {
        while self.indents.len() > 1 && self.indents.last().is_some_and(|top| *top > column) {
            self.indents.pop();
        }
        if self.indents.last().is_some_and(|top| *top < column) {
            self.indents.push(column);
        }
    }

    fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.at).copied()
    }

    fn next(&mut self) -> Option<Token<'a>> {
        let token = self.peek()?;
        self.at += 1;
        if token.kind != Kind::Newline {
            self.last_line = Some(token.end_line);
        }
        Some(token)
    }

    fn blank(&self, token: &Token<'_>) -> bool {
        self.last_line.is_some_and(|line| token.line > line + 1)
    }

    /// Reads a logical line: one statement, several with `;`, or a header with its suite.
    fn statement(&mut self, level: usize, blank: bool) {
        let first = self.peek().map(|token| token.text).unwrap_or_default();
        let header = matches!(first, "if" | "elif" | "else" | "for" | "def" | "while");
        let mut item = Item { blank, ..Item::default() };
        let (mut level, mut blank, mut lambdas, mut in_header) = (level, blank, 0_usize, header);
        while let Some(token) = self.peek().filter(|token| token.kind != Kind::Newline) {
            let split = match token.text {
                ";" => true,
                ":" if in_header && lambdas == 0 => true,
                _ => false,
            };
            match token.text {
                "lambda" => lambdas += 1,
                ":" => lambdas = lambdas.saturating_sub(1),
                _ => {}
            }
            if token.kind == Kind::Comment {
                self.next();
                item.after.push(comment_text(token.text));
                continue;
            }
            if !split {
                self.part(&mut item);
                continue;
            }
            self.next();
            if in_header {
                item.parts.push(part(&token, false, Vec::new()));
            }
            self.rows.push(Row { level, blank, content: Content::Code(std::mem::take(&mut item)) });
            level += usize::from(in_header);
            (in_header, blank) = (false, false);
        }
        if !item.parts.is_empty() {
            self.rows.push(Row { level, blank, content: Content::Code(item) });
        } else if let Some(Row { content: Content::Code(last), .. }) = self.rows.last_mut() {
            last.after.append(&mut item.after);
        }
    }

    /// Adds the next token, and all of its group if it opens one.
    fn part(&mut self, item: &mut Item) {
        let breaks = self.peek().is_some_and(|token| self.last_line != Some(token.line));
        let Some(token) = self.next() else { return };
        if token.kind != Kind::Open {
            item.parts.push(part(&token, breaks, Vec::new()));
            return;
        }
        let group = self.group(&token, item);
        item.parts.push(Part { breaks, comments: Vec::new(), node: Node::Group(group) });
    }

    /// Reads a group whose opening bracket is `open`, up to the closing one.
    fn group(&mut self, open: &Token<'a>, outer: &Item) -> Group {
        let operand = outer.parts.last().is_some_and(|part| part.node.is_operand());
        let params = outer.parts.first().is_some_and(|part| part.node.text() == "def");
        let params = params && outer.parts.len() == 2;
        let mut read = GroupReader::default();
        let mut close = String::new();
        while let Some(token) = self.peek() {
            let (breaks, blank) = (self.last_line != Some(token.line), self.blank(&token));
            match token.kind {
                Kind::Comment => {
                    self.next();
                    read.comment(comment_text(token.text), !breaks, blank);
                }
                Kind::Close => {
                    self.next();
                    close = token.text.to_owned();
                    read.end_breaks = breaks;
                    break;
                }
                Kind::Newline => break,
                _ if token.text == "," && read.splits() => {
                    self.next();
                    read.comma();
                }
                _ => {
                    let comments = read.begin_part(breaks, blank);
                    let before = read.item.parts.len();
                    self.part(&mut read.item);
                    if let Some(part) = read.item.parts.get_mut(before) {
                        part.comments = comments;
                    }
                    read.see(token.text);
                }
            }
        }
        read.finish(open.text, close, operand, params)
    }
}

#[derive(Default)]
struct GroupReader {
    items: Vec<Item>,
    item: Item,
    /// Comments that belong to what follows: text, whether on the line of the token before,
    /// whether after an empty line.
    waiting: Vec<(String, bool, bool)>,
    trailing: bool,
    end_breaks: bool,
    lambdas: usize,
    comprehension: bool,
}

impl GroupReader {
    /// Whether a comma here ends an item.
    fn splits(&self) -> bool {
        self.lambdas == 0 && !self.comprehension
    }

    fn see(&mut self, text: &str) {
        match text {
            "lambda" => self.lambdas += 1,
            ":" => self.lambdas = self.lambdas.saturating_sub(1),
            "for" => self.comprehension = true,
            _ => {}
        }
    }

    fn comment(&mut self, text: String, same_line: bool, blank: bool) {
        match self.items.last_mut() {
            Some(last) if same_line && self.item.parts.is_empty() && self.waiting.is_empty() => {
                last.after.push(text);
            }
            _ => self.waiting.push((text, same_line, blank)),
        }
    }

    /// Prepares for a token; returns the comments that stand before it within its item.
    fn begin_part(&mut self, breaks: bool, blank: bool) -> Vec<(String, bool)> {
        let waiting = std::mem::take(&mut self.waiting);
        if !self.item.parts.is_empty() {
            return waiting.into_iter().map(|(text, same_line, _)| (text, same_line)).collect();
        }
        let own = waiting.into_iter().map(|(text, _, blank)| Comment { text, blank });
        self.item.before.extend(own);
        self.item.breaks = breaks;
        self.item.blank = blank;
        Vec::new()
    }

    fn comma(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        self.item.after.extend(waiting.into_iter().map(|(text, ..)| text));
        self.items.push(std::mem::take(&mut self.item));
        self.trailing = true;
    }

    fn finish(mut self, open: &str, close: String, operand: bool, params: bool) -> Group {
        let mut waiting = std::mem::take(&mut self.waiting);
        if !self.item.parts.is_empty() {
            self.trailing = false;
            if waiting.first().is_some_and(|(_, same_line, _)| *same_line) {
                self.item.after.push(waiting.remove(0).0);
            }
            self.items.push(std::mem::take(&mut self.item));
        }
        let kind = match (open, operand) {
            _ if params => GroupKind::Params,
            _ if self.comprehension => GroupKind::Comprehension,
            ("(", true) => GroupKind::Call,
            ("[", true) => GroupKind::Index,
            ("(", false) if self.items.len() == 1 && !self.trailing => GroupKind::Paren,
            _ => GroupKind::Sequence,
        };
        let mut items = self.items;
        if kind == GroupKind::Comprehension {
            items = items.into_iter().flat_map(clauses).collect();
        }
        let end = waiting.into_iter().map(|(text, _, blank)| Comment { text, blank }).collect();
        let end_breaks = self.end_breaks;
        let open = open.to_owned();
        Group { kind, open, close, items, trailing: self.trailing, end, end_breaks }
    }
}

/// Splits the inside of a comprehension before each `for` and each `if` that filters.
fn clauses(item: Item) -> Vec<Item> {
    let Item { before, blank, breaks, parts, after } = item;
    let mut out = vec![Item { before, blank, breaks, ..Item::default() }];
    let texts: Vec<String> = parts.iter().map(|part| part.node.text().to_owned()).collect();
    let mut seen_for = false;
    for (index, mut part) in parts.into_iter().enumerate() {
        let text = texts.get(index).map(String::as_str).unwrap_or_default();
        let ahead = texts.get(index + 1..).unwrap_or_default();
        let until_for = ahead.iter().take_while(|text| *text != "for");
        let ternary = until_for.clone().any(|text| text == "else");
        seen_for |= text == "for";
        if text == "for" || (text == "if" && seen_for && !ternary) {
            let own = std::mem::take(&mut part.comments);
            let mut next = Item { breaks: part.breaks, ..Item::default() };
            for (text, same_line) in own {
                match out.last_mut() {
                    Some(last) if same_line => last.after.push(text),
                    _ => next.before.push(Comment { text, blank: false }),
                }
            }
            out.push(next);
        }
        if let Some(last) = out.last_mut() {
            last.parts.push(part);
        }
    }
    if let Some(last) = out.last_mut() {
        last.after.extend(after);
    }
    out
}

fn part(token: &Token<'_>, breaks: bool, comments: Vec<(String, bool)>) -> Part {
    let text = match token.kind {
        Kind::String => quoted(token.text),
        _ => token.text.to_owned(),
    };
    Part { breaks, comments, node: Node::Token(token.kind, text) }
}

fn comment_text(text: &str) -> String {
    text.trim_end().to_owned()
}

/// A string with `"` around it where that needs no change inside.
fn quoted(text: &str) -> String {
    let text = text.replace("\r\n", "\n");
    let Some(quote) = text.find(['"', '\'']) else { return text };
    let (prefix, body) = text.split_at(quote);
    if !body.starts_with('\'') || body.contains(['"', '\\']) {
        return text;
    }
    let marks = if body.len() >= 6 && body.starts_with("'''") { 3 } else { 1 };
    match body.get(marks..body.len() - marks) {
        Some(inner) if !inner.contains('\'') || marks == 3 => {
            let quotes = "\"".repeat(marks);
            format!("{prefix}{quotes}{inner}{quotes}")
        }
        _ => text,
    }
}
