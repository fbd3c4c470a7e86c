//! The grammar of queries: that of Bazel, for the functions that exist here.

use crate::error::{Code, RuleError, did_you_mean};

/// A parsed query.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Expression {
    Pattern(String),
    Set(Vec<Expression>),
    Binary(Box<Expression>, Operator, Box<Expression>),
    Deps(Box<Expression>, Option<u32>),
    ReverseDeps(Box<Expression>, Box<Expression>, Option<u32>),
    Kind(String, Box<Expression>),
    Tests(Box<Expression>),
}

/// How two sets are combined; all bind equally, from the left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    Union,
    Except,
    Intersect,
}

impl Expression {
    /// Visits every pattern.
    pub(crate) fn patterns(&self, visit: &mut dyn FnMut(&str)) {
        match self {
            Self::Pattern(text) => visit(text),
            Self::Set(parts) => parts.iter().for_each(|part| part.patterns(visit)),
            Self::Binary(left, _, right) | Self::ReverseDeps(left, right, _) => {
                left.patterns(visit);
                right.patterns(visit);
            }
            Self::Deps(of, _) | Self::Kind(_, of) | Self::Tests(of) => of.patterns(visit),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Quoted(String),
    Open,
    Close,
    Comma,
    Operator(Operator),
}

const FUNCTIONS: [&str; 5] = ["deps", "kind", "rdeps", "set", "tests"];
/// Deepest nesting of a query; the parser recurses.
const DEPTH_MAX: u32 = 100;

/// Parses a query.
pub(crate) fn parse(text: &str) -> Result<Expression, RuleError> {
    let mut parser = Parser { tokens: tokens(text)?.into_iter().peekable(), depth: 0 };
    let expression = parser.expression()?;
    match parser.tokens.next() {
        None => Ok(expression),
        Some(token) => Err(error(format!("{} is one too many", shown(Some(&token))))),
    }
}

fn error(message: String) -> RuleError {
    RuleError::new(Code::Query, format!("the query is malformed: {message}"))
}

fn shown(token: Option<&Token>) -> String {
    match token {
        None => "the end".to_owned(),
        Some(Token::Word(text) | Token::Quoted(text)) => format!("`{}`", text.escape_debug()),
        Some(Token::Open) => "`(`".to_owned(),
        Some(Token::Close) => "`)`".to_owned(),
        Some(Token::Comma) => "`,`".to_owned(),
        Some(Token::Operator(_)) => "an operator".to_owned(),
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, RuleError> {
    let mut out = Vec::new();
    let mut rest = text.trim_start();
    while let Some(c) = rest.chars().next() {
        let mut length = c.len_utf8();
        out.push(match c {
            '(' => Token::Open,
            ')' => Token::Close,
            ',' => Token::Comma,
            '+' => Token::Operator(Operator::Union),
            '-' => Token::Operator(Operator::Except),
            '^' => Token::Operator(Operator::Intersect),
            '"' | '\'' => {
                let inner = rest.get(1..).unwrap_or_default();
                let Some((quoted, _)) = inner.split_once(c) else {
                    return Err(error(format!("`{c}` is not closed")));
                };
                length = quoted.len() + 2;
                Token::Quoted(quoted.to_owned())
            }
            _ => {
                let ends = |c: char| c.is_whitespace() || "(),+^\"'".contains(c);
                length = rest.find(ends).unwrap_or(rest.len());
                match rest.get(..length).unwrap_or_default() {
                    "union" => Token::Operator(Operator::Union),
                    "except" => Token::Operator(Operator::Except),
                    "intersect" => Token::Operator(Operator::Intersect),
                    word => Token::Word(word.to_owned()),
                }
            }
        });
        rest = rest.get(length..).unwrap_or_default().trim_start();
    }
    Ok(out)
}

struct Parser {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
    depth: u32,
}

impl Parser {
    fn expression(&mut self) -> Result<Expression, RuleError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(error(format!("it nests deeper than {DEPTH_MAX}")));
        }
        let mut left = self.term()?;
        while let Some(Token::Operator(operator)) = self.tokens.peek() {
            let operator = *operator;
            self.tokens.next();
            let right = self.term()?;
            left = Expression::Binary(Box::new(left), operator, Box::new(right));
        }
        self.depth -= 1;
        Ok(left)
    }

    fn term(&mut self) -> Result<Expression, RuleError> {
        match self.tokens.next() {
            Some(Token::Open) => {
                let inner = self.expression()?;
                self.expect(Token::Close)?;
                Ok(inner)
            }
            Some(Token::Quoted(text)) => Ok(Expression::Pattern(text)),
            Some(Token::Word(word)) if self.tokens.peek() == Some(&Token::Open) => {
                self.tokens.next();
                let call = self.call(&word)?;
                self.expect(Token::Close)?;
                Ok(call)
            }
            Some(Token::Word(word)) => Ok(Expression::Pattern(word)),
            other => {
                Err(error(format!("{} stands where a target is expected", shown(other.as_ref()))))
            }
        }
    }

    fn call(&mut self, function: &str) -> Result<Expression, RuleError> {
        match function {
            "deps" => {
                let of = Box::new(self.expression()?);
                Ok(Expression::Deps(of, self.depth_argument()?))
            }
            "rdeps" => {
                let within = Box::new(self.expression()?);
                self.expect(Token::Comma)?;
                let of = Box::new(self.expression()?);
                Ok(Expression::ReverseDeps(within, of, self.depth_argument()?))
            }
            "kind" => {
                let pattern = match self.tokens.next() {
                    Some(Token::Word(text) | Token::Quoted(text)) => text,
                    other => {
                        let message = format!("{} stands where a kind is", shown(other.as_ref()));
                        return Err(error(message));
                    }
                };
                self.expect(Token::Comma)?;
                Ok(Expression::Kind(pattern, Box::new(self.expression()?)))
            }
            "tests" => Ok(Expression::Tests(Box::new(self.expression()?))),
            "set" => {
                let mut parts = Vec::new();
                while let Some(Token::Word(_) | Token::Quoted(_)) = self.tokens.peek() {
                    parts.push(self.term()?);
                }
                Ok(Expression::Set(parts))
            }
            other => Err(error(format!("there is no function `{}`", other.escape_debug()))
                .hint_opt(did_you_mean(other, FUNCTIONS))
                .hint(format!("functions: {}", FUNCTIONS.join(", ")))),
        }
    }

    fn depth_argument(&mut self) -> Result<Option<u32>, RuleError> {
        if self.tokens.peek() != Some(&Token::Comma) {
            return Ok(None);
        }
        self.tokens.next();
        match self.tokens.next() {
            Some(Token::Word(text)) => match text.parse() {
                Ok(depth) => Ok(Some(depth)),
                Err(_) => Err(error(format!("`{}` is no depth", text.escape_debug()))),
            },
            other => Err(error(format!("{} stands where a depth is", shown(other.as_ref())))),
        }
    }

    fn expect(&mut self, expected: Token) -> Result<(), RuleError> {
        match self.tokens.next() {
            Some(token) if token == expected => Ok(()),
            other => {
                let (expected, got) = (shown(Some(&expected)), shown(other.as_ref()));
                Err(error(format!("{got} stands where {expected} is expected")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_bind_from_the_left() {
        let pattern = |text: &str| Box::new(Expression::Pattern(text.to_owned()));
        let a_minus_b = Expression::Binary(pattern("//a-b"), Operator::Except, pattern("//b:c-d"));
        let expect = Expression::Binary(Box::new(a_minus_b), Operator::Union, pattern("//c"));
        assert_eq!(parse("//a-b - //b:c-d + //c").expect("parses"), expect);
        assert_eq!(parse("//a-b except //b:c-d union //c").expect("parses"), expect);
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        let check = |text: &str, expect: &str| {
            let error = parse(text).expect_err(text);
            assert_eq!(error.message, format!("the query is malformed: {expect}"), "{text}");
        };
        check("", "the end stands where a target is expected");
        check("deps(", "the end stands where a target is expected");
        check("deps(//a", "the end stands where `)` is expected");
        check("//a //b", "`//b` is one too many");
        check("depz(//a)", "there is no function `depz`");
        check("deps(//a, x)", "`x` is no depth");
        check("\"//a", "`\"` is not closed");
        check("kind(//a)", "`)` stands where `,` is expected");
        check(&"(".repeat(5000), "it nests deeper than 100");
    }
}
