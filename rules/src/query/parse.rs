//! The grammar of queries, which is Bazel's.
//!
//! ```text
//! expr ::= term { ("+" | "union" | "-" | "except" | "^" | "intersect") term }
//! term ::= word | "$" name | function "(" argument { "," argument } ")" | "(" expr ")"
//!        | "set" "(" { word } ")" | "let" name "=" expr "in" expr
//! ```
//!
//! Operators bind equally and from the left; `let … in` reaches as far to the right as it can.
//! A chain of operators is one flat node: only parentheses, calls and `let` nest, and those are
//! bounded by [`QUERY_DEPTH_MAX`].

use maestro_core::limits::{QUERY_BYTES_MAX, QUERY_DEPTH_MAX};

use super::Phase;
pub(crate) use super::functions::Function;
use super::functions::{Parameter, SIGNATURES, Signature};
pub(crate) use super::lexer::Operator;
use super::lexer::{Spanned, Token, tokens};
use crate::error::{Code, RuleError, did_you_mean};

/// A parsed query.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Expression {
    /// A label or a pattern of several.
    Pattern(Word),
    /// `$name`.
    Variable(Word),
    /// `set(a b)`.
    Set(Vec<Word>),
    /// Terms that are combined from the left.
    Chain(Box<Expression>, Vec<(Operator, Expression)>),
    /// `let name = value in body`.
    Let { name: String, value: Box<Expression>, body: Box<Expression> },
    /// A call of a function with as many arguments as it takes.
    Call(Function, Vec<Argument>),
}

/// One argument of a call; its shape is what the function's signature says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Argument {
    Set(Expression),
    Word(Word),
    Number(u32),
}

/// A word and the column where it stands, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) text: String,
    pub(crate) column: usize,
}

impl Expression {
    /// Visits every pattern; the flag says whether its dependencies are asked for as well.
    pub(crate) fn patterns(&self, walked: bool, visit: &mut dyn FnMut(&Word, bool)) {
        match self {
            Self::Pattern(word) => visit(word, walked),
            Self::Variable(_) => {}
            Self::Set(words) => words.iter().for_each(|word| visit(word, walked)),
            Self::Chain(first, rest) => {
                first.patterns(walked, visit);
                rest.iter().for_each(|(_, term)| term.patterns(walked, visit));
            }
            Self::Let { name: _, value, body } => {
                value.patterns(walked, visit);
                body.patterns(walked, visit);
            }
            Self::Call(function, arguments) => {
                for argument in arguments {
                    if let Argument::Set(expression) = argument {
                        expression.patterns(walked || function.walks(), visit);
                    }
                }
            }
        }
    }

    /// Whether the query calls a function anywhere.
    pub(crate) fn calls(&self, wanted: Function) -> bool {
        match self {
            Self::Pattern(_) | Self::Variable(_) | Self::Set(_) => false,
            Self::Chain(first, rest) => {
                first.calls(wanted) || rest.iter().any(|(_, term)| term.calls(wanted))
            }
            Self::Let { name: _, value, body } => value.calls(wanted) || body.calls(wanted),
            Self::Call(function, arguments) => {
                *function == wanted
                    || arguments.iter().any(
                        |argument| matches!(argument, Argument::Set(inner) if inner.calls(wanted)),
                    )
            }
        }
    }
}

/// Parses a query of a phase.
pub(crate) fn parse(text: &str, phase: Phase) -> Result<Expression, RuleError> {
    if text.len() > QUERY_BYTES_MAX {
        let message = format!("it has {} bytes, the limit is {QUERY_BYTES_MAX}", text.len());
        return Err(malformed(1, message));
    }
    let mut parser = Parser { tokens: tokens(text)?, next: 0, depth: 0, phase };
    let expression = parser.expression()?;
    let last = parser.take();
    match last.token {
        Token::End => Ok(expression),
        token => Err(malformed(last.column, format!("{} is one too many", token.shown()))
            .hint("sets are combined by `union`, `intersect` and `except`, or `+`, `^` and `-`")),
    }
}

/// The error for a query that cannot be understood at a column.
pub(super) fn malformed(column: usize, message: String) -> RuleError {
    RuleError::new(Code::Query, format!("the query is malformed at column {column}: {message}"))
}

struct Parser {
    tokens: Vec<Spanned>,
    next: usize,
    depth: usize,
    phase: Phase,
}

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.next).map_or(&Token::End, |spanned| &spanned.token)
    }

    fn take(&mut self) -> Spanned {
        let last = self.tokens.len().saturating_sub(1);
        let taken = self.tokens.get(self.next.min(last)).cloned();
        self.next += 1;
        taken.unwrap_or(Spanned { token: Token::End, column: 1 })
    }

    fn expect(&mut self, expected: &Token) -> Result<(), RuleError> {
        let got = self.take();
        if got.token == *expected {
            return Ok(());
        }
        let (expected, shown) = (expected.shown(), got.token.shown());
        Err(malformed(got.column, format!("{shown} stands where {expected} is expected")))
    }

    fn expression(&mut self) -> Result<Expression, RuleError> {
        self.depth += 1;
        if self.depth > QUERY_DEPTH_MAX {
            let column = self.take().column;
            return Err(malformed(column, format!("it nests deeper than {QUERY_DEPTH_MAX}")));
        }
        let first = self.term()?;
        let mut rest = Vec::new();
        while let Token::Operator(operator) = *self.peek() {
            self.next += 1;
            rest.push((operator, self.term()?));
        }
        self.depth -= 1;
        Ok(match rest.is_empty() {
            true => first,
            false => Expression::Chain(Box::new(first), rest),
        })
    }

    fn term(&mut self) -> Result<Expression, RuleError> {
        let Spanned { token, column } = self.take();
        match token {
            Token::Open => {
                let inner = self.expression()?;
                self.expect(&Token::Close)?;
                Ok(inner)
            }
            Token::Quoted(text) => Ok(Expression::Pattern(Word { text, column })),
            Token::Word(text) if *self.peek() == Token::Open => self.call(&text, column),
            Token::Word(text) => match text.strip_prefix('$') {
                Some(name) => Ok(Expression::Variable(Word { text: name.to_owned(), column })),
                None => Ok(Expression::Pattern(Word { text, column })),
            },
            Token::Set => self.set(),
            Token::Let => self.binding(),
            other => Err(malformed(
                column,
                format!("{} stands where a target is expected", other.shown()),
            )),
        }
    }

    fn set(&mut self) -> Result<Expression, RuleError> {
        self.expect(&Token::Open)?;
        let mut words = Vec::new();
        while let Token::Word(_) | Token::Quoted(_) = self.peek() {
            words.extend(self.word());
        }
        let got = self.take();
        match got.token {
            Token::Close => Ok(Expression::Set(words)),
            other => {
                let shown = other.shown();
                let message = format!("{shown} stands where a label or `)` is expected");
                Err(malformed(got.column, message)
                    .hint("`set(a b)` lists labels and patterns, with spaces between them"))
            }
        }
    }

    fn binding(&mut self) -> Result<Expression, RuleError> {
        let got = self.take();
        let Token::Word(name) = got.token else {
            let message = format!("{} stands where a name is expected", got.token.shown());
            return Err(malformed(got.column, message).hint("write `let x = … in f($x)`"));
        };
        let mut chars = name.chars();
        let starts = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
        if !starts || !chars.all(|c| c.is_ascii_alphanumeric() || c == '_') {
            let message = format!("`{}` cannot be the name of a variable", name.escape_debug());
            return Err(malformed(got.column, message));
        }
        self.expect(&Token::Equals)?;
        let value = Box::new(self.expression()?);
        self.expect(&Token::In)?;
        let body = Box::new(self.expression()?);
        Ok(Expression::Let { name, value, body })
    }

    fn call(&mut self, name: &str, column: usize) -> Result<Expression, RuleError> {
        let signature = self.signature(name, column)?;
        self.expect(&Token::Open)?;
        let mut arguments = Vec::new();
        for (index, parameter) in signature.parameters.iter().enumerate() {
            if index > 0 {
                match self.peek() {
                    Token::Comma => self.next += 1,
                    Token::Close if index >= signature.required => break,
                    other => {
                        let expected = if index < signature.required { "`,`" } else { "`)`" };
                        let message =
                            format!("{} stands where {expected} is expected", other.shown());
                        let column = self.take().column;
                        return Err(malformed(column, message).hint(usage(signature)));
                    }
                }
            }
            arguments.push(self.argument(*parameter, signature)?);
        }
        let hinted = |error: RuleError| error.hint(usage(signature));
        self.expect(&Token::Close).map_err(hinted)?;
        Ok(Expression::Call(signature.function, arguments))
    }

    fn signature(&self, name: &str, column: usize) -> Result<&'static Signature, RuleError> {
        let known = || SIGNATURES.iter().filter(|signature| signature.known_in(self.phase));
        if let Some(signature) = known().find(|signature| signature.name == name) {
            return Ok(signature);
        }
        let shown = name.escape_debug();
        if let Some(other) = SIGNATURES.iter().find(|signature| signature.name == name) {
            let phases = [Phase::Loading, Phase::Configured, Phase::Actions];
            let knows = phases.into_iter().filter(|phase| other.known_in(*phase));
            let knows: Vec<String> = knows.map(|p| format!("`maestro {}`", p.command())).collect();
            let message = format!("`{}` has no function `{shown}`", self.phase.command());
            return Err(malformed(column, message).hint(format!("use {}", knows.join(" or "))));
        }
        let names: Vec<&str> = known().map(|signature| signature.name).collect();
        Err(malformed(column, format!("there is no function `{shown}`"))
            .hint_opt(did_you_mean(name, names.iter().copied()))
            .hint(format!("functions: {}", names.join(", "))))
    }

    fn argument(
        &mut self,
        parameter: Parameter,
        signature: &Signature,
    ) -> Result<Argument, RuleError> {
        if parameter == Parameter::Set {
            return Ok(Argument::Set(self.expression()?));
        }
        let what = if parameter == Parameter::Word { "a word" } else { "a number" };
        let Some(word) = self.word() else {
            let got = self.take();
            let message = format!("{} stands where {what} is expected", got.token.shown());
            return Err(malformed(got.column, message).hint(usage(signature)));
        };
        if parameter == Parameter::Word {
            return Ok(Argument::Word(word));
        }
        match word.text.parse() {
            Ok(number) => Ok(Argument::Number(number)),
            Err(_) => {
                let message = format!("`{}` is no number", word.text.escape_debug());
                Err(malformed(word.column, message).hint(usage(signature)))
            }
        }
    }

    /// The next token, if it is a word.
    fn word(&mut self) -> Option<Word> {
        let (Token::Word(text) | Token::Quoted(text)) = self.peek() else { return None };
        let text = text.clone();
        Some(Word { text, column: self.take().column })
    }
}

fn usage(signature: &Signature) -> String {
    format!("it is called as `{}`", signature.usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str, column: usize) -> Expression {
        Expression::Pattern(Word { text: text.to_owned(), column })
    }

    fn parsed(text: &str) -> Expression {
        parse(text, Phase::Loading).unwrap_or_else(|error| panic!("{text}: {}", error.message))
    }

    #[test]
    fn operators_bind_from_the_left() {
        let chain = |second: usize, third: usize| {
            Expression::Chain(
                Box::new(pattern("//a-b", 1)),
                vec![
                    (Operator::Except, pattern("//b:c-d", second)),
                    (Operator::Union, pattern("//c", third)),
                ],
            )
        };
        assert_eq!(parsed("//a-b - //b:c-d + //c"), chain(9, 19));
        assert_eq!(parsed("//a-b except //b:c-d union //c"), chain(14, 28));
        assert_eq!(parsed("'//a-b' -\"//b:c-d\"+//c"), chain(10, 20));
    }

    #[test]
    fn a_binding_reaches_to_the_end() {
        let variable = |column| Expression::Variable(Word { text: "x".to_owned(), column });
        let body =
            Expression::Chain(Box::new(variable(16)), vec![(Operator::Intersect, variable(21))]);
        assert_eq!(
            parsed("let x = //a in $x ^ $x"),
            Expression::Let {
                name: "x".to_owned(),
                value: Box::new(pattern("//a", 9)),
                body: Box::new(body)
            }
        );
    }

    #[test]
    fn reserved_words_are_names_in_quotes() {
        assert_eq!(parsed("'let'"), pattern("let", 1));
        assert_eq!(
            parsed("set(a 'b,c')"),
            Expression::Set(vec![
                Word { text: "a".to_owned(), column: 5 },
                Word { text: "b,c".to_owned(), column: 7 },
            ])
        );
    }

    #[test]
    fn a_million_terms_are_one_chain() {
        let text = format!("a{}", "+a".repeat(1_000_000));
        assert!(matches!(parsed(&text), Expression::Chain(_, rest) if rest.len() == 1_000_000));
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        let check = |text: &str, column: usize, expect: &str| {
            let error = parse(text, Phase::Loading).expect_err(text);
            let expect = format!("the query is malformed at column {column}: {expect}");
            assert_eq!(error.message, expect, "{text}");
        };
        check("", 1, "the end stands where a target is expected");
        check("deps(", 6, "the end stands where a target is expected");
        check("deps(//a", 9, "the end stands where `)` is expected");
        check("//a //b", 5, "`//b` is one too many");
        check("//a)", 4, "`)` is one too many");
        check("  depz(//a)", 3, "there is no function `depz`");
        check("config(//a, target)", 1, "`query` has no function `config`");
        check("deps(//a, x)", 11, "`x` is no number");
        check("deps(//a, -1)", 11, "`except` stands where a number is expected");
        check("deps(//a, 1, 2)", 12, "`,` stands where `)` is expected");
        check("ä + \"//a", 5, "`\"` is not closed");
        check("kind(//a)", 9, "`)` stands where `,` is expected");
        check("kind(, //a)", 6, "`,` stands where a word is expected");
        check("set(//a, //b)", 8, "`,` stands where a label or `)` is expected");
        check("let 1x = //a in $1x", 5, "`1x` cannot be the name of a variable");
        check("let x //a in $x", 7, "`//a` stands where `=` is expected");
        check("let x = //a", 12, "the end stands where `in` is expected");
        check(&"(".repeat(5000), 101, "it nests deeper than 100");
    }
}
