//! From text to tree. Every node knows its place in the file, also within escapes and folded lines.

use super::lexer::{Refusal, Token, TokenKind, lex};
use super::{Expr, ExprKind, Function, Operator, Pattern, Root, Value};
use crate::error::{Code, did_you_mean};
use crate::pipeline::limits::{EXPRESSION_BYTES_MAX, EXPRESSION_NESTING_MAX};
use crate::pipeline::mask::{CLOSE, OPEN, expression_end};
use crate::pipeline::report::Report;
use crate::pipeline::source::{Span, Spanned};

/// Where the bytes of a text stand in its file.
pub(crate) struct Place<'a> {
    /// The file.
    pub(crate) file: u16,
    /// Where the scalar begins.
    pub(crate) base: usize,
    /// For each byte of the text, and for its end, how far behind the beginning it stands.
    pub(crate) offsets: &'a [u32],
}

impl Place<'_> {
    fn span(&self, start: usize, end: usize) -> Span {
        let at = |byte: usize| {
            let offset = self.offsets.get(byte).or(self.offsets.last());
            self.base + offset.copied().unwrap_or(0) as usize
        };
        // The end of a part is the end of its last byte, not the start of what follows a break.
        let last = if end > start { at(end - 1) + 1 } else { at(end) };
        Span::new(self.file, at(start), last.max(at(start)).max(at(end).min(last)))
    }
}

/// A text that may hold expressions. One that is an expression as a whole keeps its type.
pub(crate) fn interpolated(text: &str, place: &Place<'_>, report: &mut Report) -> Option<Expr> {
    let whole = place.span(0, text.len());
    let mut parts = Vec::new();
    let mut at = 0;
    while let Some(open) = text.get(at..).and_then(|rest| rest.find(OPEN)).map(|n| at + n) {
        if open > at {
            parts.push(Expr::literal(text.get(at..open)?, place.span(at, open)));
        }
        let Some(end) = expression_end(text.as_bytes(), open) else {
            let span = place.span(open, open + OPEN.len());
            report
                .error(Code::PipelineExpression, span, "`${{` has no `}}`")
                .hint("a text with `${{` itself is written `${{ '${{' }}`");
            return None;
        };
        let inner = (open + OPEN.len(), end - CLOSE.len());
        parts.push(expression(text, inner, place, report)?);
        at = end;
    }
    if at < text.len() {
        parts.push(Expr::literal(text.get(at..)?, place.span(at, text.len())));
    }
    Some(match parts.len() {
        0 => Expr::literal("", whole),
        1 => parts.remove(0),
        _ => Expr { kind: ExprKind::Text(parts), span: whole },
    })
}

/// A condition, which may leave `${{` and `}}` away.
pub(crate) fn bare(text: &str, place: &Place<'_>, report: &mut Report) -> Option<Expr> {
    match text.contains(OPEN) {
        true => interpolated(text.trim_end(), place, report),
        false => expression(text, (0, text.len()), place, report),
    }
}

fn expression(
    text: &str,
    (start, end): (usize, usize),
    place: &Place<'_>,
    report: &mut Report,
) -> Option<Expr> {
    let inner = text.get(start..end)?;
    let refuse = |refusal: Refusal, report: &mut Report| {
        let Refusal { start: from, end: to, message, hint } = refusal;
        let span = place.span(start + from, start + to);
        report.error(Code::PipelineExpression, span, message).hint_opt(hint);
    };
    if inner.len() > EXPRESSION_BYTES_MAX {
        let message = format!("an expression is longer than {EXPRESSION_BYTES_MAX} bytes");
        report.error(Code::PipelineLimit, place.span(start, end), message);
        return None;
    }
    let tokens = lex(inner).map_err(|refusal| refuse(refusal, report)).ok()?;
    let mut parse = Parse { tokens: &tokens, at: 0, depth: 0, place, start, length: inner.len() };
    match parse.all() {
        Ok(found) => Some(found),
        Err(refusal) => {
            refuse(refusal, report);
            None
        }
    }
}

struct Parse<'a> {
    tokens: &'a [Token],
    at: usize,
    depth: usize,
    place: &'a Place<'a>,
    /// Where the expression begins in the text of the place.
    start: usize,
    length: usize,
}

type Parsed = Result<Expr, Refusal>;

impl Parse<'_> {
    fn all(&mut self) -> Parsed {
        let found = self.or()?;
        match self.peek() {
            None => Ok(found),
            Some(token) => {
                let hint = match &token.kind {
                    TokenKind::Sign("==" | "!=" | "<" | ">" | "<=" | ">=") => {
                        Some("comparisons do not chain; join two with `&&`")
                    }
                    TokenKind::Name(name) if name == "and" => Some("and is `&&`"),
                    TokenKind::Name(name) if name == "or" => Some("or is `||`"),
                    _ => None,
                };
                let message = "the expression should end here";
                let refusal = Refusal::new(token.start, token.end, message);
                Err(hint.map_or(refusal.clone(), |hint| refusal.hint(hint)))
            }
        }
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn sign(&self) -> Option<&'static str> {
        match self.peek()?.kind {
            TokenKind::Sign(sign) => Some(sign),
            _ => None,
        }
    }

    fn take(&mut self, sign: &str) -> bool {
        let found = self.sign() == Some(sign);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, sign: &'static str) -> Result<(), Refusal> {
        match self.take(sign) {
            true => Ok(()),
            false => Err(self.missing(&format!("`{sign}`"))),
        }
    }

    fn missing(&self, what: &str) -> Refusal {
        let (start, end) = match self.peek() {
            Some(token) => (token.start, token.end),
            None => (self.length, self.length),
        };
        Refusal::new(start, end, format!("{what} is missing here"))
    }

    fn begin(&self) -> usize {
        self.peek().map_or(self.length, |token| token.start)
    }

    fn span(&self, start: usize) -> Span {
        let end = self.at.checked_sub(1).and_then(|last| self.tokens.get(last));
        self.place.span(self.start + start, self.start + end.map_or(start, |token| token.end))
    }

    fn node(&self, start: usize, kind: ExprKind) -> Expr {
        Expr { kind, span: self.span(start) }
    }

    /// One level deeper.
    fn nested(&mut self, parse: fn(&mut Self) -> Parsed) -> Parsed {
        if self.depth >= EXPRESSION_NESTING_MAX {
            let message = format!("an expression nests deeper than {EXPRESSION_NESTING_MAX}");
            return Err(Refusal::new(self.begin(), self.begin(), message));
        }
        self.depth += 1;
        let found = parse(self);
        self.depth -= 1;
        found
    }

    fn or(&mut self) -> Parsed {
        self.joined("||", Operator::Or, Self::and)
    }

    fn and(&mut self) -> Parsed {
        self.joined("&&", Operator::And, Self::comparison)
    }

    fn joined(&mut self, sign: &str, op: Operator, part: fn(&mut Self) -> Parsed) -> Parsed {
        let mut parts = vec![part(self)?];
        while self.take(sign) {
            parts.push(part(self)?);
        }
        Ok(Self::balanced(op, parts))
    }

    /// Both operators are associative: a tree that is balanced is never deep.
    fn balanced(op: Operator, mut parts: Vec<Expr>) -> Expr {
        if parts.len() == 1
            && let Some(one) = parts.pop()
        {
            return one;
        }
        let right = parts.split_off(parts.len() / 2);
        let left = Self::balanced(op, parts);
        let right = Self::balanced(op, right);
        let span = left.span.to(right.span);
        Expr { kind: ExprKind::Binary(op, Box::new(left), Box::new(right)), span }
    }

    fn comparison(&mut self) -> Parsed {
        let start = self.begin();
        let left = self.unary()?;
        let named_in =
            matches!(self.peek(), Some(Token { kind: TokenKind::Name(name), .. }) if name == "in");
        let op = match self.sign() {
            Some("=~") => {
                self.at += 1;
                return self.pattern(start, left);
            }
            Some(sign) => Operator::parse(sign),
            None => named_in.then_some(Operator::In),
        };
        let Some(op) = op.filter(|op| !matches!(op, Operator::And | Operator::Or)) else {
            return Ok(left);
        };
        self.at += 1;
        let right = self.unary()?;
        Ok(self.node(start, ExprKind::Binary(op, Box::new(left), Box::new(right))))
    }

    fn pattern(&mut self, start: usize, left: Expr) -> Parsed {
        let Some(Token { kind: TokenKind::Text(text), start: from, end: to }) = self.peek() else {
            let hint = "a pattern is written out, so that it can be checked before a run";
            return Err(self.missing("a pattern in quotes").hint(hint));
        };
        let pattern = Pattern::new(text).map_err(|why| {
            Refusal::new(*from, *to, format!("this is no regular expression: {why}"))
        })?;
        self.at += 1;
        Ok(self.node(start, ExprKind::Matches(Box::new(left), pattern)))
    }

    fn unary(&mut self) -> Parsed {
        let start = self.begin();
        if self.take("!") {
            let of = self.nested(Self::unary)?;
            return Ok(self.node(start, ExprKind::Not(Box::new(of))));
        }
        self.postfix()
    }

    fn postfix(&mut self) -> Parsed {
        let start = self.begin();
        let mut found = self.primary()?;
        let mut links = 0;
        loop {
            if links >= EXPRESSION_NESTING_MAX {
                return Err(Refusal::new(start, self.begin(), "too many fields of fields"));
            }
            links += 1;
            if self.take(".") {
                let Some(Token { kind: TokenKind::Name(name), start: from, end: to }) = self.peek()
                else {
                    return Err(self.missing("the name of a field"));
                };
                let span = self.place.span(self.start + from, self.start + to);
                let name = Spanned::new(name.clone(), span);
                self.at += 1;
                found = self.node(start, ExprKind::Field(Box::new(found), name));
            } else if self.take("[") {
                let from = self.begin();
                let index = self.nested(Self::or)?;
                let to = self
                    .at
                    .checked_sub(1)
                    .and_then(|at| self.tokens.get(at))
                    .map_or(from, |t| t.end);
                self.expect("]")?;
                found = match index.kind {
                    // A field by another name, so that both are seen to be one.
                    ExprKind::Literal(Value::String(name)) => {
                        // Without its quotes.
                        let (from, to) = (self.start + from + 1, self.start + to - 1);
                        let name = Spanned::new(name, self.place.span(from, to));
                        self.node(start, ExprKind::Field(Box::new(found), name))
                    }
                    _ => self.node(start, ExprKind::Index(Box::new(found), Box::new(index))),
                };
            } else {
                return Ok(found);
            }
        }
    }

    fn primary(&mut self) -> Parsed {
        let start = self.begin();
        let Some(token) = self.peek().cloned() else { return Err(self.missing("a value")) };
        self.at += 1;
        let literal = |value: Value| ExprKind::Literal(value);
        let kind = match token.kind {
            TokenKind::Text(text) => literal(text.into()),
            TokenKind::Int(int) => literal(int.into()),
            TokenKind::Number(number) => literal(number.into()),
            TokenKind::Sign("(") => {
                let inner = self.nested(Self::or)?;
                self.expect(")")?;
                return Ok(inner);
            }
            TokenKind::Sign("[") => ExprKind::List(self.arguments("]")?),
            TokenKind::Name(name) => return self.name(start, token.end, &name),
            TokenKind::Sign(sign) => {
                let message = format!("a value should stand here, not `{sign}`");
                return Err(Refusal::new(token.start, token.end, message));
            }
        };
        Ok(self.node(start, kind))
    }

    fn name(&mut self, start: usize, end: usize, name: &str) -> Parsed {
        let literal = match name {
            "true" => Some(Value::Bool(true)),
            "false" => Some(Value::Bool(false)),
            "null" => Some(Value::Null),
            _ => None,
        };
        if let Some(value) = literal {
            return Ok(self.node(start, ExprKind::Literal(value)));
        }
        if self.take("(") {
            let Some(function) = Function::parse(name) else {
                let known = Function::ALL.iter().map(|one| one.as_str());
                let refusal = Refusal::new(start, end, format!("there is no function `{name}`"));
                return Err(match did_you_mean(name, known) {
                    Some(hint) => refusal.hint(hint),
                    None => refusal.hint(list(Function::ALL.iter().map(|one| one.as_str()))),
                });
            };
            let arguments = self.arguments(")")?;
            let (least, most) = function.arity();
            if !(least..=most).contains(&arguments.len()) {
                let expect =
                    if least == most { least.to_string() } else { format!("{least} to {most}") };
                let message = format!("`{name}` takes {expect} arguments, not {}", arguments.len());
                return Err(Refusal::new(start, end, message));
            }
            return Ok(self.node(start, ExprKind::Call(function, arguments)));
        }
        match Root::parse(name) {
            Some(root) => Ok(self.node(start, ExprKind::Root(root))),
            None if Function::parse(name).is_some() => {
                let message = format!("`{name}` is a function");
                Err(Refusal::new(start, end, message).hint("call it, with `()` behind its name"))
            }
            None => {
                let known = Root::ALL.iter().map(|one| one.as_str());
                let refusal = Refusal::new(start, end, format!("there is no name `{name}`"));
                let hint = did_you_mean(name, known);
                Err(refusal.hint(hint.unwrap_or_else(|| "a text stands in single quotes".into())))
            }
        }
    }

    fn arguments(&mut self, close: &'static str) -> Result<Vec<Expr>, Refusal> {
        let mut found = Vec::new();
        while self.sign() != Some(close) {
            found.push(self.nested(Self::or)?);
            if !self.take(",") {
                break;
            }
        }
        self.expect(close)?;
        Ok(found)
    }
}

fn list(names: impl Iterator<Item = &'static str>) -> String {
    format!("there is `{}`", names.collect::<Vec<_>>().join("`, `"))
}
