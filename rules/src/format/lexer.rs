//! Splits a `.star` file into tokens, comments included.
//!
//! The text is known to parse, so this lexer decides less than the language's own: it finds where
//! tokens begin and end, keeps their text as it stands, and ends statements. It never fails on
//! text that parses; on other text it returns something, which the caller compares and rejects.

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Name,
    Keyword,
    Number,
    String,
    Operator,
    Open,
    Close,
    Comment,
    /// The end of a statement's line.
    Newline,
}

/// One token.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Token<'a> {
    pub(crate) kind: Kind,
    pub(crate) text: &'a str,
    /// The line that it begins on, from 0.
    pub(crate) line: usize,
    /// The line that it ends on.
    pub(crate) end_line: usize,
    /// Bytes between the start of its line and the token.
    pub(crate) column: usize,
}

const KEYWORDS: [&str; 17] = [
    "and", "break", "continue", "def", "elif", "else", "for", "if", "in", "lambda", "load", "not",
    "or", "pass", "return", "while", "is",
];

const OPERATORS: [&str; 19] = [
    "<<=", ">>=", "//=", "...", "**", "//", "<<", ">>", "==", "!=", "<=", ">=", "+=", "-=", "*=",
    "/=", "%=", "->", "&=",
];

/// Splits `text`.
pub(crate) fn tokenize(text: &str) -> Vec<Token<'_>> {
    let mut lexer = Lexer { text, at: 0, line: 0, line_start: 0, depth: 0, tokens: Vec::new() };
    while lexer.step() {}
    lexer.newline();
    lexer.tokens
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    line: usize,
    line_start: usize,
    depth: usize,
    tokens: Vec<Token<'a>>,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn step(&mut self) -> bool {
        let rest = self.rest();
        let Some(c) = rest.chars().next() else { return false };
        match c {
            '\n' => {
                self.newline();
                self.skip(1);
            }
            ' ' | '\t' | '\r' => self.skip(1),
            '\\' => {
                let end = rest.find('\n').map_or(rest.len(), |at| at + 1);
                self.skip(end);
            }
            '#' => {
                let end = rest.find('\n').unwrap_or(rest.len());
                self.push(Kind::Comment, end);
            }
            '"' | '\'' => self.string(0),
            '(' | '[' | '{' => {
                self.depth += 1;
                self.push(Kind::Open, 1);
            }
            ')' | ']' | '}' => {
                self.depth = self.depth.saturating_sub(1);
                self.push(Kind::Close, 1);
            }
            c if c.is_ascii_digit() => self.number(),
            '.' if rest.chars().nth(1).is_some_and(|c| c.is_ascii_digit()) => self.number(),
            c if c.is_alphabetic() || c == '_' => self.word(),
            c => {
                let known = OPERATORS.iter().find(|operator| rest.starts_with(**operator));
                let long = ["|=", "^="].iter().find(|operator| rest.starts_with(**operator));
                self.push(Kind::Operator, known.or(long).map_or(c.len_utf8(), |o| o.len()));
            }
        }
        true
    }

    /// Ends a statement, if one has begun outside brackets.
    fn newline(&mut self) {
        let open = self.tokens.iter().rev().take_while(|t| t.kind != Kind::Newline);
        let statement = open.clone().any(|token| token.kind != Kind::Comment);
        if self.depth == 0 && statement {
            self.push(Kind::Newline, 0);
        }
    }

    fn word(&mut self) {
        let rest = self.rest();
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
        let word = rest.get(..end).unwrap_or_default();
        let quoted = rest.get(end..).is_some_and(|after| after.starts_with(['"', '\'']));
        if quoted && matches!(word, "r" | "b" | "rb" | "br") {
            return self.string(end);
        }
        let kind = if KEYWORDS.contains(&word) { Kind::Keyword } else { Kind::Name };
        // `load` is a name of the language, but reads as a function.
        let kind = if word == "load" { Kind::Name } else { kind };
        self.push(kind, end);
    }

    fn number(&mut self) {
        let rest = self.rest();
        let hex = rest.starts_with("0x") || rest.starts_with("0X");
        let mut previous = ' ';
        let end = rest.find(|c: char| {
            let sign = matches!(c, '+' | '-') && matches!(previous, 'e' | 'E') && !hex;
            previous = c;
            !(c.is_ascii_alphanumeric() || c == '_' || c == '.' || sign)
        });
        self.push(Kind::Number, end.unwrap_or(rest.len()));
    }

    fn string(&mut self, prefix: usize) {
        let end = prefix + string_end(self.rest().get(prefix..).unwrap_or_default());
        self.push(Kind::String, end);
    }

    fn push(&mut self, kind: Kind, bytes: usize) {
        let text = self.rest().get(..bytes).unwrap_or_default();
        let (line, column) = (self.line, self.at - self.line_start);
        self.skip(bytes);
        self.tokens.push(Token { kind, text, line, end_line: self.line, column });
    }

    fn skip(&mut self, bytes: usize) {
        let text = self.rest().get(..bytes).unwrap_or_default();
        self.line += text.matches('\n').count();
        if let Some(last) = text.rfind('\n') {
            self.line_start = self.at + last + 1;
        }
        self.at += bytes;
    }
}

/// How many bytes the string takes that `text` begins with, quotes included.
fn string_end(text: &str) -> usize {
    let quote = text.get(..1).unwrap_or_default();
    let triple = quote.repeat(3);
    let close = if text.starts_with(&triple) { triple.as_str() } else { quote };
    let mut at = close.len();
    loop {
        let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) else { return text.len() };
        let first = rest.chars().next().map_or(1, char::len_utf8);
        if rest.starts_with(close) {
            return at + close.len();
        }
        if rest.starts_with('\\') {
            at += 1 + rest.chars().nth(1).map_or(0, char::len_utf8);
        } else {
            at += first;
        }
    }
}
