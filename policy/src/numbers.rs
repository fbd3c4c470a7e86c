//! Numbers that are too large to be written out.
//!
//! The evaluator's numbers have any length, so a few letters such as `1e999999999` would keep it
//! busy, and fill memory, without a step in which it could be stopped. Such numbers are refused
//! where they come in: as literals here, and out of texts by a `to_number` of our own. Inputs and
//! data come as canonical JSON, which has none.

use regorus::Value;

use crate::error::{Code, Finding, Place};
use crate::sources::SourceFile;

/// Most digits of an exponent.
const EXPONENT_DIGITS_MAX: usize = 3;
/// Most letters of a number.
const LETTERS_MAX: usize = 400;

/// The first literal of a module that is too large. Texts and comments are passed by; what is not
/// well formed is left to the parser, which has not seen the module yet.
pub(crate) fn large_literal(module: &SourceFile) -> Option<Finding> {
    let mut rest: &str = &module.text;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '#' => rest.find('\n').unwrap_or(rest.len()),
            '"' => quoted(rest),
            '`' => rest.get(1..)?.find('`').map_or(rest.len(), |end| end + 2),
            '0'..='9' => {
                let length = number(rest);
                let text = rest.get(..length)?;
                if !is_small(text) {
                    return Some(finding(module, rest.len()));
                }
                length
            }
            // Digits of a name are no number.
            c if is_name(c) => rest.find(|c| !is_name(c)).unwrap_or(rest.len()),
            c => c.len_utf8(),
        };
        rest = rest.get(length..)?;
    }
    None
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The length of the text in quotes at the beginning of `rest`.
fn quoted(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' | '\n' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The length of the number at the beginning of `rest`.
fn number(rest: &str) -> usize {
    let mut before = ' ';
    let ends = |(_, c): &(usize, char)| {
        let sign = matches!(c, '+' | '-') && matches!(before, 'e' | 'E');
        before = *c;
        !(sign || is_name(*c) || *c == '.')
    };
    rest.char_indices().find(ends).map_or(rest.len(), |(at, _)| at)
}

/// The finding about a number with so many bytes of text after its beginning.
fn finding(module: &SourceFile, left: usize) -> Finding {
    let before = module.text.get(..module.text.len() - left).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let place = Place { file: module.name.clone(), line: count(line), column: count(column) };
    Finding { place: Some(place), ..Finding::new(Code::Syntax, "the number is too large") }
}

/// Puts a function in the place of the one that makes numbers of texts.
pub(crate) fn bound(engine: &mut regorus::Engine) {
    let to_number = |args: Vec<Value>| match args.first() {
        Some(Value::Null | Value::Bool(false)) => Ok(Value::from(0_u64)),
        Some(Value::Bool(true)) => Ok(Value::from(1_u64)),
        Some(number @ Value::Number(_)) => Ok(number.clone()),
        Some(Value::String(text)) if is_small(text) => Value::from_numeric_string(text),
        _ => Value::from_numeric_string("not a number"),
    };
    let added = engine.add_extension("to_number".to_owned(), 1, Box::new(to_number));
    debug_assert!(added.is_ok(), "nothing else has that name");
}

/// Whether a text can be made a number without harm, if it is one.
fn is_small(text: &str) -> bool {
    let exponent = text.split(['e', 'E']).nth(1).unwrap_or_default();
    let digits = exponent.trim_start_matches(['+', '-']).trim_start_matches('0');
    text.len() <= LETTERS_MAX && digits.len() <= EXPONENT_DIGITS_MAX
}
