//! As much of Rust's syntax as the size limits need: which text is code, where functions end.
//!
//! This is no parser. It knows comments, strings, characters and brackets; macros that unbalance
//! brackets outside strings cannot exist in Rust, so counting them is exact.

/// A function with a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Function<'a> {
    /// Its name.
    pub(super) name: &'a str,
    /// The line of `fn`, from 1.
    pub(super) line: usize,
    /// Lines from `fn` to the closing brace, without those of functions inside.
    pub(super) length: usize,
}

/// The same text with comments and the content of strings blanked, byte for byte, line for line.
pub(super) fn mask(text: &str) -> String {
    let mut masker = Masker { bytes: text.as_bytes(), out: text.as_bytes().to_vec(), at: 0 };
    while masker.at < masker.bytes.len() {
        masker.step();
    }
    // Only whole characters inside comments and strings were replaced, each byte by a space.
    String::from_utf8_lossy(&masker.out).into_owned()
}

struct Masker<'a> {
    bytes: &'a [u8],
    out: Vec<u8>,
    at: usize,
}

impl Masker<'_> {
    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    /// Moves on by `count` bytes and blanks them, line ends excepted.
    fn blank(&mut self, count: usize) {
        for _ in 0..count {
            if let Some(byte) = self.out.get_mut(self.at)
                && *byte != b'\n'
            {
                *byte = b' ';
            }
            self.at += 1;
        }
    }

    fn step(&mut self) {
        match (self.peek(0), self.peek(1)) {
            (b'/', b'/') => {
                while self.at < self.bytes.len() && self.peek(0) != b'\n' {
                    self.blank(1);
                }
            }
            (b'/', b'*') => self.block_comment(),
            (b'"', _) => self.string(),
            (b'r', b'"' | b'#') if !self.in_word() => self.raw_string(1),
            (b'b', b'r') if !self.in_word() && matches!(self.peek(2), b'"' | b'#') => {
                self.raw_string(2);
            }
            (b'\'', _) => self.character(),
            _ => self.at += 1,
        }
    }

    /// Whether the byte before belongs to a word, so that this `r` or `b` starts no literal.
    fn in_word(&self) -> bool {
        let before = self.at.checked_sub(1).and_then(|at| self.bytes.get(at)).copied();
        before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    }

    fn block_comment(&mut self) {
        let mut depth = 0usize;
        while self.at < self.bytes.len() {
            match (self.peek(0), self.peek(1)) {
                (b'/', b'*') => {
                    depth += 1;
                    self.blank(2);
                }
                (b'*', b'/') => {
                    depth -= 1;
                    self.blank(2);
                    if depth == 0 {
                        return;
                    }
                }
                _ => self.blank(1),
            }
        }
    }

    fn string(&mut self) {
        self.at += 1;
        while self.at < self.bytes.len() && self.peek(0) != b'"' {
            let escaped = self.peek(0) == b'\\';
            self.blank(if escaped { 2 } else { 1 });
        }
        self.at += 1;
    }

    /// A raw string whose `r` ends `prefix` bytes on; a raw identifier is left alone.
    fn raw_string(&mut self, prefix: usize) {
        let mut hashes = 0;
        while self.peek(prefix + hashes) == b'#' {
            hashes += 1;
        }
        self.at += prefix + hashes;
        if self.peek(0) != b'"' {
            return;
        }
        self.at += 1;
        while self.at < self.bytes.len() {
            let closes = self.peek(0) == b'"' && (1..=hashes).all(|n| self.peek(n) == b'#');
            if closes {
                self.at += 1 + hashes;
                return;
            }
            self.blank(1);
        }
    }

    /// A character, or the start of a lifetime.
    fn character(&mut self) {
        if self.peek(1) == b'\\' {
            self.at += 1;
            self.blank(2);
            while self.at < self.bytes.len() && self.peek(0) != b'\'' {
                self.blank(1);
            }
            self.at += 1;
            return;
        }
        let rest = self.bytes.get(self.at + 1..).unwrap_or_default();
        let width = rest.first().map_or(1, |byte| match byte {
            0xf0.. => 4,
            0xe0.. => 3,
            0xc0.. => 2,
            _ => 1,
        });
        if rest.get(width) == Some(&b'\'') {
            self.at += 1;
            self.blank(width);
        }
        self.at += 1;
    }
}

/// The functions of masked text that have a body, in order.
pub(super) fn functions<'a>(masked: &'a str) -> Vec<Function<'a>> {
    let mut found: Vec<Function<'a>> = Vec::new();
    // The functions that are open at this place: position in `found`, end in the text.
    let mut open: Vec<(usize, usize)> = Vec::new();
    let mut line = 1;
    let mut from = 0;
    for (at, _) in masked.match_indices("fn ") {
        let before = masked.get(..at).and_then(|head| head.chars().next_back());
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '#') {
            continue;
        }
        line += count_lines(masked, from, at);
        from = at;
        let rest = masked.get(at + 3..).unwrap_or_default();
        let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let name = rest.get(..length).unwrap_or_default();
        if name.is_empty() {
            continue; // the type `fn (…)`
        }
        if let Some(end) = body_end(masked, at) {
            let length = count_lines(masked, at, end) + 1;
            open.retain(|(_, outer_end)| *outer_end > at);
            if let Some(outer) = open.last().and_then(|(index, _)| found.get_mut(*index)) {
                outer.length = outer.length.saturating_sub(length);
            }
            open.push((found.len(), end));
            found.push(Function { name, line, length });
        }
    }
    found
}

/// Where the body of the function that starts at `at` closes; `None` if it has no body.
fn body_end(masked: &str, at: usize) -> Option<usize> {
    let mut round = 0usize;
    let mut braces = 0usize;
    for (offset, byte) in masked.bytes().enumerate().skip(at) {
        match byte {
            b'(' | b'[' => round += 1,
            b')' | b']' => round = round.checked_sub(1)?,
            b';' if round == 0 && braces == 0 => return None,
            b'{' if round == 0 || braces > 0 => braces += 1,
            b'}' if braces > 0 => {
                braces -= 1;
                if braces == 0 {
                    return Some(offset);
                }
            }
            _ => {}
        }
    }
    None
}

fn count_lines(text: &str, from: usize, to: usize) -> usize {
    text.get(from..to).unwrap_or_default().bytes().filter(|byte| *byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_and_comments_are_blanked() {
        let check = |text: &str, expect: &str| assert_eq!(mask(text), expect, "{text}");
        check("a // b\nc", "a     \nc");
        check("a /* b /* c */ d */ e", "a                   e");
        check(r#"f("{ \" }")"#, r#"f("      ")"#);
        check("r#\"a\"b\"# c", "r#\"   \"# c");
        check("br\"{\" c", "br\" \" c");
        check("'{' '\\n' '\\'' 'a", "' ' '  ' '  ' 'a");
        check("&'a str", "&'a str");
        check("'é' x", "'  ' x");
        check("r#fn x", "r#fn x");
        check("for\"{\"", "for\" \"");
    }

    #[test]
    fn functions_are_measured_from_fn_to_brace() {
        let check = |text: &str, expect: &[(&str, usize, usize)]| {
            let masked = mask(text);
            let found: Vec<_> =
                functions(&masked).iter().map(|f| (f.name, f.line, f.length)).collect();
            assert_eq!(found, expect, "{text}");
        };
        check("fn a() {}\n\npub fn b(\n) {\n}\n", &[("a", 1, 1), ("b", 3, 3)]);
        check("trait T {\n fn a();\n fn b() {\n }\n}", &[("b", 3, 2)]);
        check("fn a(f: fn (u8) -> u8) { \"}\"; }", &[("a", 1, 1)]);
        check("fn a() -> [u8; 2] {\n fn b() {\n }\n}", &[("a", 1, 2), ("b", 2, 2)]);
        check("// fn a() {}\n", &[]);
    }
}
