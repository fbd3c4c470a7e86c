//! Words of an expression.

/// A word, with the bytes that it covers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// What a word is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum TokenKind {
    /// A name, such as `params` or `scrape-docs`: nothing is subtracted here, so that names may
    /// have dashes, as those of steps do.
    Name(String),
    Text(String),
    Int(i64),
    Number(f64),
    /// An operator or bracket.
    Sign(&'static str),
}

/// Longer signs first.
const SIGNS: &[&str] =
    &["==", "!=", "<=", ">=", "=~", "&&", "||", "<", ">", "!", "(", ")", "[", "]", ".", ","];

/// What is wrong, and where in the expression.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Refusal {
    pub(super) fn new(start: usize, end: usize, message: impl Into<String>) -> Self {
        Self { start, end, message: message.into(), hint: None }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// The words of a text.
pub(super) fn lex(text: &str) -> Result<Vec<Token>, Refusal> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(c) = text.get(at..).and_then(|rest| rest.chars().next()) {
        let start = at;
        if c.is_whitespace() {
            at += c.len_utf8();
            continue;
        }
        let rest = text.get(at..).unwrap_or_default();
        let kind = if c == '\'' || c == '"' {
            let (value, length) = quoted(rest, c)
                .map_err(|end| Refusal::new(start, start + end, "the text has no end"))?;
            at += length;
            TokenKind::Text(value)
        } else if c.is_ascii_digit() || (c == '-' && starts_number(rest)) {
            let length = number_length(rest);
            at += length;
            number(rest.get(..length).unwrap_or_default())
                .ok_or_else(|| Refusal::new(start, at, "this is no number"))?
        } else if c.is_ascii_alphabetic() || c == '_' {
            let length = rest.bytes().take_while(|b| is_name(*b)).count();
            at += length;
            TokenKind::Name(rest.get(..length).unwrap_or_default().to_owned())
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            at += sign.len();
            TokenKind::Sign(sign)
        } else {
            return Err(unexpected(start, c));
        };
        tokens.push(Token { kind, start, end: at });
    }
    Ok(tokens)
}

fn unexpected(at: usize, c: char) -> Refusal {
    let hint = match c {
        '=' => Some("equality is `==`"),
        '&' => Some("and is `&&`"),
        '|' => Some("or is `||`"),
        '+' | '-' | '*' | '/' | '%' => Some("there is no arithmetic; a step can compute"),
        '$' => Some("within `${{ }}` names stand alone: `params.env`"),
        '?' | ':' => Some("there is no `? :`; `default(value, other)` and `if` choose"),
        _ => None,
    };
    let message = format!("`{}` means nothing here", c.escape_debug());
    let refusal = Refusal::new(at, at + c.len_utf8(), message);
    match hint {
        Some(hint) => refusal.hint(hint),
        None => refusal,
    }
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

fn starts_number(rest: &str) -> bool {
    rest.as_bytes().get(1).is_some_and(u8::is_ascii_digit)
}

fn number_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = usize::from(bytes.first() == Some(&b'-'));
    while let Some(byte) = bytes.get(at) {
        let exponent = matches!(bytes.get(at.wrapping_sub(1)), Some(b'e' | b'E'));
        let sign = matches!(byte, b'+' | b'-') && exponent;
        let dot = *byte == b'.' && bytes.get(at + 1).is_some_and(u8::is_ascii_digit);
        if !(byte.is_ascii_alphanumeric() || dot || sign) {
            break;
        }
        at += 1;
    }
    at
}

fn number(text: &str) -> Option<TokenKind> {
    if let Ok(int) = text.parse() {
        return Some(TokenKind::Int(int));
    }
    let float = text.parse::<f64>().ok().filter(|n| n.is_finite());
    float.map(TokenKind::Number)
}

/// The text in quotes, and how long it is with them. A quote within is doubled, or follows a
/// backslash in double quotes.
fn quoted(text: &str, quote: char) -> Result<(String, usize), usize> {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' if quote == '"' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 't')) => value.push('\t'),
                Some((_, other)) => value.push(other),
                None => break,
            },
            _ if c == quote && chars.peek().is_some_and(|(_, next)| *next == quote) => {
                chars.next();
                value.push(quote);
            }
            _ if c == quote => return Ok((value, at + 1)),
            _ => value.push(c),
        }
    }
    Err(text.len())
}
