//! Words of the query language, with the columns where they stand.
//!
//! As in Bazel, a word may hold `-`, so that `//a-b` is one label, but may not start with it:
//! `x - y` and `x -y` take away, `x-y` is a name. Whatever else is special must be quoted.

use super::parse::malformed;
use crate::error::RuleError;

/// One word or sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// A bare word that is not reserved.
    Word(String),
    /// A quoted word; never reserved.
    Quoted(String),
    Open,
    Close,
    Comma,
    Equals,
    Operator(Operator),
    Let,
    In,
    Set,
    End,
}

/// How two sets are combined; all bind equally, from the left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    Union,
    Except,
    Intersect,
}

/// A token and the column of its first character, from 1.
#[derive(Clone, Debug)]
pub(super) struct Spanned {
    pub(super) token: Token,
    pub(super) column: usize,
}

impl Token {
    /// How a message names the token.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Word(text) | Self::Quoted(text) => format!("`{}`", text.escape_debug()),
            Self::Open => "`(`".to_owned(),
            Self::Close => "`)`".to_owned(),
            Self::Comma => "`,`".to_owned(),
            Self::Equals => "`=`".to_owned(),
            Self::Operator(Operator::Union) => "`union`".to_owned(),
            Self::Operator(Operator::Except) => "`except`".to_owned(),
            Self::Operator(Operator::Intersect) => "`intersect`".to_owned(),
            Self::Let => "`let`".to_owned(),
            Self::In => "`in`".to_owned(),
            Self::Set => "`set`".to_owned(),
            Self::End => "the end".to_owned(),
        }
    }
}

/// Takes a text apart; the last token is always [`Token::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<Spanned>, RuleError> {
    let mut out = Vec::new();
    let mut rest = text;
    let mut column = 1;
    while let Some(c) = rest.chars().next() {
        let (token, length) = match c {
            _ if c.is_whitespace() => (None, c.len_utf8()),
            '(' => (Some(Token::Open), 1),
            ')' => (Some(Token::Close), 1),
            ',' => (Some(Token::Comma), 1),
            '=' => (Some(Token::Equals), 1),
            '+' => (Some(Token::Operator(Operator::Union)), 1),
            '-' => (Some(Token::Operator(Operator::Except)), 1),
            '^' => (Some(Token::Operator(Operator::Intersect)), 1),
            '"' | '\'' => {
                let inner = rest.get(1..).unwrap_or_default();
                let Some((quoted, _)) = inner.split_once(c) else {
                    return Err(malformed(column, format!("`{c}` is not closed")));
                };
                (Some(Token::Quoted(quoted.to_owned())), quoted.len() + 2)
            }
            _ => {
                let ends = |c: char| c.is_whitespace() || "(),+^=\"'".contains(c);
                let length = rest.find(ends).unwrap_or(rest.len());
                (Some(word(rest.get(..length).unwrap_or_default())), length)
            }
        };
        out.extend(token.map(|token| Spanned { token, column }));
        column += rest.get(..length).map_or(0, |taken| taken.chars().count());
        rest = rest.get(length..).unwrap_or_default();
    }
    out.push(Spanned { token: Token::End, column });
    Ok(out)
}

fn word(text: &str) -> Token {
    match text {
        "union" => Token::Operator(Operator::Union),
        "except" => Token::Operator(Operator::Except),
        "intersect" => Token::Operator(Operator::Intersect),
        "let" => Token::Let,
        "in" => Token::In,
        "set" => Token::Set,
        _ => Token::Word(text.to_owned()),
    }
}
