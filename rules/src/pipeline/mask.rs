//! Makes `${{ … }}` one scalar wherever it stands, before the YAML parser sees the text.
//!
//! In quotes and in block scalars YAML takes an expression as it is. Where it stands plain, its
//! braces, commas and colons would mean something to YAML, so that each of its bytes is replaced
//! by a letter. The text keeps its length: every place in the masked text is the same place in
//! the file. A plain expression ends on the line where it begins.
//!
//! This knows just enough YAML to tell plain text from quotes, comments and block scalars. It
//! judges nothing: what is malformed is left for the parser to refuse.
//!
//! ```text
//! with: { env: ${{ params.env }}, note: "${{ a }}" }   # ${{ a comment
//! with: { env: xxxxxxxxxxxxxxxxx, note: "${{ a }}" }   # ${{ a comment
//! ```

use std::ops::Range;

/// What an expression is replaced by, for each of its bytes.
const FILLER: u8 = b'x';

/// How an expression begins.
pub(crate) const OPEN: &str = "${{";
/// How it ends.
pub(crate) const CLOSE: &str = "}}";

/// A text whose plain expressions are hidden.
pub(crate) struct Masked {
    /// The text, as long as the file's.
    pub(crate) text: String,
    /// Where expressions were hidden, in order.
    pub(crate) hidden: Vec<Range<usize>>,
    /// Where a plain expression begins that does not end on its line.
    pub(crate) open: Vec<usize>,
}

/// Hides the plain expressions of a text.
pub(crate) fn mask(text: &str) -> Masked {
    let mut walk = Walk::new(text.as_bytes());
    while walk.at < walk.bytes.len() {
        walk.step();
    }
    let Walk { hidden, open, .. } = walk;
    let mut bytes = text.as_bytes().to_vec();
    for range in &hidden {
        bytes[range.clone()].fill(FILLER);
    }
    // Ranges begin and end with ASCII, so that whole characters were replaced.
    let text = String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned());
    Masked { text, hidden, open }
}

/// The end of the expression that begins at `start` of a text, behind its `}}`; `None` where it
/// does not end. Braces within the expression's own quotes do not end it.
pub(crate) fn expression_end(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start + OPEN.len();
    let mut quote = None;
    while let Some(byte) = bytes.get(at).copied() {
        match (quote, byte) {
            (None, b'}') if bytes.get(at + 1) == Some(&b'}') => return Some(at + CLOSE.len()),
            (None, b'\'' | b'"') => quote = Some(byte),
            (Some(b'"'), b'\\') => at += 1,
            (Some(open), close) if open == close => quote = None,
            _ => {}
        }
        at += 1;
    }
    None
}

struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Brackets and braces that are open.
    depth: usize,
    /// Whether a node may begin here: a quote or `|` means something only then.
    fresh: bool,
    /// Indentation of what holds the node on this line; -1 outside of everything.
    parent: isize,
    /// Whether a plain scalar goes on, if the next line is indented more than its parent.
    plain: bool,
    /// Whether what holds the next node is known, and the node has not begun.
    pending: bool,
    hidden: Vec<Range<usize>>,
    open: Vec<usize>,
}

impl<'a> Walk<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let mut walk = Self {
            bytes,
            at: 0,
            depth: 0,
            fresh: true,
            parent: -1,
            plain: false,
            pending: true,
            hidden: Vec::new(),
            open: Vec::new(),
        };
        walk.start_line();
        walk
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.bytes.get(self.at + ahead).copied()
    }

    fn is_blank(&self, ahead: usize) -> bool {
        self.peek(ahead).is_none_or(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))
    }

    fn line_end(&self) -> usize {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        rest.iter().position(|byte| *byte == b'\n').map_or(self.bytes.len(), |end| self.at + end)
    }

    /// Looks at the beginning of a line: its indentation, and the dashes before its node.
    fn start_line(&mut self) {
        let start = self.at;
        while self.peek(0) == Some(b' ') {
            self.at += 1;
        }
        if self.is_blank(0) || self.depth > 0 {
            self.fresh |= !self.plain;
            return;
        }
        let column = (self.at - start) as isize;
        if self.plain && column > self.parent {
            return;
        }
        (self.plain, self.fresh) = (false, true);
        if column == 0 && self.rest().starts_with(b"---") && self.is_blank(3) {
            (self.parent, self.pending) = (-1, true);
            self.at += 3;
            return;
        }
        if !self.pending || column <= self.parent {
            self.parent = column - 1;
        }
        while matches!(self.peek(0), Some(b'-' | b'?')) && self.is_blank(1) {
            self.parent = (self.at - start) as isize;
            self.pending = true;
            self.at += 1;
            while self.peek(0) == Some(b' ') {
                self.at += 1;
            }
        }
    }

    fn step(&mut self) {
        let Some(byte) = self.peek(0) else { return };
        let spaced = self.at == 0 || matches!(self.bytes[self.at - 1], b' ' | b'\t' | b'\n');
        match byte {
            b'\n' => {
                self.at += 1;
                self.start_line();
            }
            b' ' | b'\t' | b'\r' => self.at += 1,
            b'#' if spaced => {
                self.plain = false;
                self.at = self.line_end();
            }
            _ if self.rest().starts_with(OPEN.as_bytes()) => self.expression(),
            b'"' | b'\'' if self.fresh => self.quoted(byte),
            b'|' | b'>' if self.fresh && self.depth == 0 => self.block(),
            b'&' | b'!' | b'*' if self.fresh => self.property(byte),
            b'[' | b'{' if self.fresh => self.structure(1),
            b',' if self.depth > 0 => self.structure(0),
            b']' | b'}' if self.depth > 0 => self.structure(-1),
            b':' if self.is_blank(1) || self.in_flow_before_value() => {
                (self.fresh, self.plain) = (true, false);
                if self.depth == 0 {
                    self.parent = self.key_column();
                    self.pending = true;
                }
                self.at += 1;
            }
            _ => {
                self.begun(true);
                self.at += 1;
            }
        }
    }

    /// A node has begun; a plain one may go on.
    fn begun(&mut self, plain: bool) {
        (self.fresh, self.plain, self.pending) = (false, plain, false);
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn in_flow_before_value(&self) -> bool {
        let after_quote = self.at > 0 && matches!(self.bytes[self.at - 1], b'"' | b'\'');
        self.depth > 0
            && (after_quote || matches!(self.peek(1), Some(b',' | b'[' | b']' | b'{' | b'}')))
    }

    /// The column of the key that ends here: where the node behind indentation and dashes begins.
    fn key_column(&self) -> isize {
        let before = self.bytes.get(..self.at).unwrap_or_default();
        let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let mut column = start;
        let get = |at: usize| self.bytes.get(at).copied().unwrap_or(b'\n');
        loop {
            match (get(column), get(column + 1)) {
                (b' ', _) => column += 1,
                (b'-' | b'?', b' ') => column += 2,
                _ => return (column - start) as isize,
            }
        }
    }

    fn structure(&mut self, change: isize) {
        self.depth = self.depth.saturating_add_signed(change);
        (self.fresh, self.plain, self.pending) = (change >= 0, false, false);
        self.at += 1;
    }

    /// An anchor, a tag or an alias; a node may follow the first two.
    fn property(&mut self, byte: u8) {
        while !self.is_blank(0) && !matches!(self.peek(0), Some(b',' | b'[' | b']' | b'{' | b'}')) {
            self.at += 1;
        }
        self.fresh = byte != b'*';
        self.pending &= self.fresh;
    }

    fn expression(&mut self) {
        let line = self.line_end();
        match expression_end(&self.bytes[..line], self.at) {
            Some(end) => {
                self.hidden.push(self.at..end);
                self.at = end;
            }
            None => {
                self.open.push(self.at);
                self.at = line;
            }
        }
        self.begun(true);
    }

    fn quoted(&mut self, quote: u8) {
        self.at += 1;
        while let Some(byte) = self.peek(0) {
            let escape = match quote {
                b'"' => byte == b'\\',
                _ => byte == quote && self.peek(1) == Some(quote),
            };
            self.at += if escape { 2 } else { 1 };
            if byte == quote && !escape {
                break;
            }
        }
        self.begun(false);
    }

    /// A block scalar: its header, and the lines that are indented more than its parent.
    fn block(&mut self) {
        let header_end = self.line_end();
        let header = &self.bytes[self.at + 1..header_end];
        let digit = header.iter().take(2).find(|byte| byte.is_ascii_digit());
        let mut indent = digit.map(|digit| self.parent.max(0) + isize::from(digit - b'0'));
        self.at = header_end;
        while self.at < self.bytes.len() {
            let line = self.at + 1;
            let rest = self.bytes.get(line..).unwrap_or_default();
            let spaces = rest.iter().take_while(|byte| **byte == b' ').count();
            let blank = rest.get(spaces).is_none_or(|byte| matches!(byte, b'\n' | b'\r'));
            let column = spaces as isize;
            if !blank && column < *indent.get_or_insert(column.max(self.parent + 1)) {
                break;
            }
            self.at = line.min(self.bytes.len());
            self.at = self.line_end();
        }
        (self.fresh, self.plain, self.pending) = (true, false, false);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_expressions_are_hidden_and_others_are_not() {
        // `~` marks what is hidden in the second text.
        let check = |text: &str, expect: &str| {
            let expect = expect.replace('~', "x");
            assert_eq!(mask(text).text, expect, "{text:?}");
        };
        check("a: ${{ b }}\n", "a: ~~~~~~~~\n");
        check("a: { b: ${{ c, d }}, e: f }", "a: { b: ~~~~~~~~~~~, e: f }");
        check("a: [${{ x }}-${{ y }}]", "a: [~~~~~~~~-~~~~~~~~]");
        check("a: \"${{ b }}\" # ${{ c }}", "a: \"${{ b }}\" # ${{ c }}");
        check("a: 'it''s ${{ b }}'", "a: 'it''s ${{ b }}'");
        check("a: it's ${{ b }}\nc: d's", "a: it's ~~~~~~~~\nc: d's");
        check("a: ${{ '}}' }}", "a: ~~~~~~~~~~~");
        check("a: ${{ \"\\\"}}\" }} }", "a: ~~~~~~~~~~~~~ }");
        check("{\"a\":\"${{ b }}\"}", "{\"a\":\"${{ b }}\"}");
        check("- a: |\n    ${{ b }}\n  c: ${{ d }}\n", "- a: |\n    ${{ b }}\n  c: ~~~~~~~~\n");
        check("a: >-\n\n  'x\n b: c\nd: ${{ e }}", "a: >-\n\n  'x\n b: c\nd: ~~~~~~~~");
        check("a: b\n  'c ${{ d }}\ne: ${{ f }}", "a: b\n  'c ~~~~~~~~\ne: ~~~~~~~~");
        check("- |2\n    ${{ a }}\n- ${{ b }}", "- |2\n    ${{ a }}\n- ~~~~~~~~");
        check("a: &x ${{ b }}", "a: &x ~~~~~~~~");
        check("a: b#c ${{ d }}", "a: b#c ~~~~~~~~");
        check("- - k: |\n     t\n    l: ${{ a }}", "- - k: |\n     t\n    l: ~~~~~~~~");
        check("  >\n\n#\n  ${{ a }}", "  >\n\n#\n  ${{ a }}");
        check("k:\n    |\n  ${{ a }}\nl: ${{ b }}", "k:\n    |\n  ${{ a }}\nl: ~~~~~~~~");
        check("-\n  - |\n   ${{ a }}\n  - ${{ b }}", "-\n  - |\n   ${{ a }}\n  - ~~~~~~~~");
        check("--- |\n${{ a }}", "--- |\n${{ a }}");
        check("k:\n   b\n  'c ${{ d }}\nl: ${{ e }}", "k:\n   b\n  'c ~~~~~~~~\nl: ~~~~~~~~");
    }

    #[test]
    fn an_expression_without_end_is_told_by_its_place() {
        assert_eq!(mask("a: { b: ${{ c, d: e }\nf: ${{ g }}").open, [8]);
        assert_eq!(mask("# ${{\na: '${{'\n").open, Vec::<usize>::new());
    }

    proptest! {
        #[test]
        fn any_text_keeps_its_length_and_its_lines(text in "([ -~\n]|\\$\\{\\{|\\}\\}|[\"'|>#:,ä-]){0,60}") {
            let masked = mask(&text);
            prop_assert_eq!(masked.text.len(), text.len());
            prop_assert_eq!(masked.text.lines().count(), text.lines().count());
            let mut end = 0;
            for range in masked.hidden {
                prop_assert!(range.start >= end);
                end = range.end;
                let hidden = &text[range];
                prop_assert!(hidden.starts_with(OPEN) && hidden.ends_with(CLOSE), "{}", hidden);
            }
        }
    }
}
