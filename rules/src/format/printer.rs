//! Lays rows out as buildifier does.
//!
//! A group is printed on one line where its author broke no line between its items, else with one
//! item a line; at the top level of package files the number of items decides. No line is broken
//! for its length: only the author knows where a sentence of code may pause.

use super::FileKind;
use super::lexer::Kind;
use super::tree::{Comment, Content, Group, GroupKind, Item, Node, Part, Row};

/// Spaces of one step of indentation.
const STEP: usize = 4;

/// Prints all rows.
pub(crate) fn print(rows: &[Row], kind: FileKind) -> String {
    let mut printer =
        Printer { out: String::new(), column: 0, kind, package_level: false, open: Vec::new() };
    printer.rows(rows);
    printer.out
}

struct Printer {
    out: String,
    /// Characters on the current line.
    column: usize,
    kind: FileKind,
    /// Whether the statement stands at the top level of a package file.
    package_level: bool,
    /// Levels of the `def`s around the current row.
    open: Vec<usize>,
}

/// Where a line that goes on stands, and what was printed before.
struct Line<'a> {
    margin: usize,
    /// The column of the expression that is being printed.
    anchor: usize,
    /// Whether the next token begins an expression.
    fresh: bool,
    /// Whether a break before an operator moves behind it.
    pending: bool,
    previous: Option<&'a Node>,
    /// The operator before was one with a right side only.
    unary: bool,
    lambdas: usize,
    /// Whether brackets around allow line breaks.
    inside: bool,
    /// Whether the brackets around are those of an index.
    index: bool,
}

impl Printer {
    fn rows(&mut self, rows: &[Row]) {
        let mut previous: Option<&Row> = None;
        let mut at = 0;
        while at < rows.len() {
            let rest = rows.get(at..).unwrap_or_default();
            let comments = rest.iter().take_while(|row| !row.is_code()).count();
            let unit = rest.get(..=comments).unwrap_or(rest);
            let code = unit.last().filter(|row| row.is_code());
            // The gap before a statement stands before the comments that belong to it.
            let own = code.and_then(|code| unit.iter().position(|row| row.level <= code.level));
            let closed = code.is_some_and(|code| self.leave(code));
            for (index, row) in unit.iter().enumerate() {
                let blank = match code {
                    Some(code) if Some(index) == own => {
                        self.gap(previous, code, closed, row.blank, comments > 0)
                    }
                    _ => row.blank,
                };
                let follows_header = previous.is_some_and(Row::is_header) && index == 0;
                if blank && !self.out.is_empty() && !follows_header {
                    self.out.push('\n');
                }
                self.row(row);
            }
            if let Some(code) = code {
                if code.is_def() {
                    self.open.push(code.level);
                }
                previous = Some(code);
            }
            at += unit.len();
        }
    }

    /// Leaves the functions that end before `code`; whether there was one.
    fn leave(&mut self, code: &Row) -> bool {
        let before = self.open.len();
        self.open.retain(|level| *level < code.level);
        self.open.len() < before
    }

    /// Whether an empty line stands before a statement and its comments.
    fn gap(
        &self,
        previous: Option<&Row>,
        code: &Row,
        closed: bool,
        author: bool,
        commented: bool,
    ) -> bool {
        let Some(previous) = previous else { return author };
        if matches!(code.first(), "elif" | "else")
            || previous.is_header() && previous.level < code.level
        {
            return false;
        }
        let loads = (previous.first() == "load", code.first() == "load");
        match loads {
            (true, true) => author && commented,
            (true, false) | (false, true) => true,
            _ if code.is_def() || closed => true,
            _ => author || (self.kind == FileKind::Package && code.level == 0),
        }
    }

    fn row(&mut self, row: &Row) {
        self.indent(row.level * STEP);
        match &row.content {
            Content::Comment(text) => self.push(text),
            Content::Code(item) => {
                let top = self.kind == FileKind::Package && row.level == 0;
                self.package_level = top && row.first() != "load";
                self.item(item, row.level * STEP, false, false);
                self.suffix(&item.after, row.level * STEP);
            }
        }
        self.newline();
    }

    /// Comments after something: the first on its line, others below.
    fn suffix(&mut self, comments: &[String], margin: usize) {
        for (index, comment) in comments.iter().enumerate() {
            if index == 0 {
                self.push("  ");
            } else {
                self.newline();
                self.indent(margin);
            }
            self.push(comment);
        }
    }

    fn item(&mut self, item: &Item, margin: usize, inside: bool, index: bool) {
        let mut line = Line {
            margin,
            anchor: self.column,
            fresh: true,
            pending: false,
            previous: None,
            unary: false,
            lambdas: 0,
            inside,
            index,
        };
        for part in &item.parts {
            self.part(part, &mut line);
        }
    }

    fn part<'a>(&mut self, part: &'a Part, line: &mut Line<'a>) {
        let text = part.node.text();
        let operator = is_binary(&part.node, line);
        if !part.comments.is_empty() && line.previous.is_some() {
            self.inner_comments(&part.comments, line.anchor);
        } else if let Some(previous) = line.previous {
            let breaks = (part.breaks || line.pending) && line.previous.is_some();
            let after = was_operator(previous, line);
            if breaks && (text == "." || previous.text() == ".") {
                if text == "." {
                    self.wrap(line.margin + STEP, line.inside);
                } else if line.pending {
                    line.pending = false;
                }
            } else if breaks && !operator && (after || matches!(text, "if" | "else")) {
                self.wrap(line.anchor, line.inside);
                line.margin = line.anchor;
                line.pending = false;
            } else {
                line.pending = breaks && operator;
                if spaced(previous, &part.node, line) {
                    self.push(" ");
                }
            }
        }
        if line.fresh {
            line.anchor = self.column;
            line.fresh = false;
        }
        line.unary = is_unary(&part.node, line);
        match &part.node {
            Node::Token(kind, text) => {
                self.token(*kind, text);
                match text.as_str() {
                    "lambda" => line.lambdas += 1,
                    ":" => line.lambdas = line.lambdas.saturating_sub(1),
                    _ => {}
                }
                line.fresh = begins_expression(text, line);
            }
            Node::Group(group) => self.group(group, line.margin),
        }
        line.previous = Some(&part.node);
    }

    /// Comments between two tokens of an expression.
    fn inner_comments(&mut self, comments: &[(String, bool)], margin: usize) {
        for (text, same_line) in comments {
            if *same_line {
                self.push("  ");
            } else {
                self.newline();
                self.indent(margin);
            }
            self.push(text);
        }
        self.newline();
        self.indent(margin);
    }

    fn group(&mut self, group: &Group, margin: usize) {
        self.push(&group.open);
        if group.items.is_empty() && group.end.is_empty() {
            self.push(&group.close);
            return;
        }
        match self.fits_one_line(group) {
            true => self.compact(group, margin),
            false => self.spread(group, margin),
        }
        self.push(&group.close);
    }

    fn compact(&mut self, group: &Group, margin: usize) {
        let separator = if group.kind == GroupKind::Comprehension { " " } else { ", " };
        for (index, item) in group.items.iter().enumerate() {
            if index > 0 {
                self.push(separator);
            }
            self.item(item, margin, true, group.kind == GroupKind::Index);
        }
        if group.keeps_comma() {
            self.push(",");
        }
    }

    fn spread(&mut self, group: &Group, margin: usize) {
        let params = group.kind == GroupKind::Params;
        let inner = margin + if params { 2 * STEP } else { STEP };
        let last = group.items.len().saturating_sub(1);
        for (index, item) in group.items.iter().enumerate() {
            self.newline();
            self.comments(&item.before, inner, index > 0);
            if item.blank && (index > 0 || !item.before.is_empty()) {
                self.newline();
            }
            self.indent(inner);
            self.item(item, inner, true, group.kind == GroupKind::Index);
            if group.comma_after(item, index == last) {
                self.push(",");
            }
            self.suffix(&item.after, inner);
        }
        let commented = group.items.last().is_some_and(|item| !item.after.is_empty());
        if !group.end.is_empty() {
            self.newline();
            self.comments(&group.end, inner, !group.items.is_empty());
            self.indent(margin);
        } else if !params || commented {
            self.newline();
            self.indent(margin);
        }
    }

    /// Comments on lines of their own, each with its line end.
    fn comments(&mut self, comments: &[Comment], margin: usize, blank_first: bool) {
        for (index, comment) in comments.iter().enumerate() {
            if comment.blank && (index > 0 || blank_first) {
                self.newline();
            }
            self.indent(margin);
            self.push(&comment.text);
            self.newline();
        }
    }

    fn fits_one_line(&self, group: &Group) -> bool {
        let commented = |item: &Item| !item.before.is_empty() || !item.after.is_empty();
        if !group.end.is_empty() || group.items.iter().any(commented) {
            return false;
        }
        let broken = group.end_breaks || group.items.iter().any(|item| item.breaks);
        if group.kind == GroupKind::Comprehension || group.items.len() <= 1 {
            return !broken;
        }
        match group.kind {
            GroupKind::Call if self.package_level => !broken && group.items.iter().all(is_literal),
            GroupKind::Sequence if self.package_level && group.open == "(" => {
                !broken && group.items.iter().all(is_literal)
            }
            GroupKind::Sequence if self.package_level => false,
            _ => !broken,
        }
    }

    fn token(&mut self, kind: Kind, text: &str) {
        self.push(text);
        if let Some((_, last)) = text.rsplit_once('\n').filter(|_| kind == Kind::String) {
            self.column = last.chars().count();
        }
    }

    /// Goes on in the next line at `column`.
    fn wrap(&mut self, column: usize, inside: bool) {
        if !inside {
            self.push(" \\");
        }
        self.newline();
        self.indent(column);
    }

    fn push(&mut self, text: &str) {
        self.out.push_str(text);
        self.column += text.chars().count();
    }

    fn indent(&mut self, column: usize) {
        self.push(&" ".repeat(column));
    }

    fn newline(&mut self) {
        self.out.push('\n');
        self.column = 0;
    }
}

impl Row {
    fn is_code(&self) -> bool {
        matches!(self.content, Content::Code(_))
    }

    /// The first word of a statement.
    pub(crate) fn first(&self) -> &str {
        match &self.content {
            Content::Code(item) => item.parts.first().map_or("", |part| part.node.text()),
            Content::Comment(_) => "",
        }
    }

    fn is_def(&self) -> bool {
        self.first() == "def"
    }

    /// Whether the rows of a block follow.
    fn is_header(&self) -> bool {
        match &self.content {
            Content::Code(item) => item.parts.last().is_some_and(|part| part.node.text() == ":"),
            Content::Comment(_) => false,
        }
    }
}

impl Group {
    /// Whether a comma after the last item means something.
    fn keeps_comma(&self) -> bool {
        let one = self.items.len() == 1 && self.trailing;
        one && (self.kind == GroupKind::Index
            || (self.kind == GroupKind::Sequence && self.open == "("))
    }

    /// Whether a comma follows `item` where each stands on a line of its own.
    fn comma_after(&self, item: &Item, last: bool) -> bool {
        match self.kind {
            GroupKind::Comprehension | GroupKind::Paren => false,
            _ if !last => true,
            GroupKind::Params => false,
            GroupKind::Index => self.keeps_comma(),
            GroupKind::Call | GroupKind::Sequence => {
                !matches!(item.parts.first().map(|part| part.node.text()), Some("*" | "**"))
            }
        }
    }
}

/// Whether an item is one string, number or name.
fn is_literal(item: &Item) -> bool {
    let plain = |part: &Part| match &part.node {
        Node::Token(kind, text) => {
            matches!(kind, Kind::String | Kind::Number | Kind::Name) || text == "-"
        }
        Node::Group(_) => false,
    };
    item.parts.len() <= 2 && item.parts.iter().all(plain)
}

const PLAIN: [&str; 7] = [".", ",", ";", ":", "=", "->", "..."];

/// Whether `node` is an operator with two sides, where an expression could go on after it.
fn is_binary(node: &Node, line: &Line<'_>) -> bool {
    let Node::Token(kind, text) = node else { return false };
    let operand = line.previous.is_some_and(Node::is_operand);
    match kind {
        Kind::Operator => operand && !PLAIN.contains(&text.as_str()),
        Kind::Keyword => matches!(text.as_str(), "and" | "or" | "in") || (text == "not" && operand),
        _ => false,
    }
}

/// Whether `previous`, which is printed already, was such an operator.
fn was_operator(previous: &Node, line: &Line<'_>) -> bool {
    match previous {
        Node::Token(Kind::Operator, text) => !line.unary && !PLAIN.contains(&text.as_str()),
        Node::Token(Kind::Keyword, text) => matches!(text.as_str(), "and" | "or" | "in" | "not"),
        _ => false,
    }
}

fn is_unary(node: &Node, line: &Line<'_>) -> bool {
    let Node::Token(Kind::Operator, text) = node else { return false };
    let operand = line.previous.is_some_and(Node::is_operand);
    !operand && matches!(text.as_str(), "-" | "+" | "~" | "*" | "**")
}

/// Whether an expression of its own begins after a token, to which further lines are aligned.
fn begins_expression(text: &str, line: &Line<'_>) -> bool {
    match text {
        "=" | "+=" | "-=" | "*=" | "/=" | "//=" | "%=" | "|=" | "&=" | "^=" | "<<=" | ">>=" => true,
        ":" => !line.index,
        "return" | "elif" => true,
        "if" | "for" => line.previous.is_none(),
        "," => !line.inside,
        _ => false,
    }
}

/// Whether a space stands between two tokens.
fn spaced(previous: &Node, next: &Node, line: &Line<'_>) -> bool {
    if line.unary || previous.text() == "." {
        return false;
    }
    if previous.text() == ":" && line.index && line.lambdas == 0 {
        return false;
    }
    match next {
        Node::Group(_) => !previous.is_operand(),
        Node::Token(_, text) if matches!(text.as_str(), "," | ";" | "." | ":") => false,
        Node::Token(..) => true,
    }
}
