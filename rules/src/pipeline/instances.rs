//! The instances of a step that repeats, and what its outputs are taken from.

use std::collections::HashMap;

use super::expression::{EvalError, Expr, Room, Scope, Value, eval};
use super::limits::ROUNDS_MAX;
use super::source::{Span, Spanned};
use super::template::{Output, PathSegment, Repeat};

/// What one instance of a step sees besides the rest of its scope.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// The number, from 0.
    pub index: u64,
    /// The item of a `foreach`; nothing else.
    pub item: Value,
    /// The combination of a `matrix`; nothing else.
    pub matrix: Value,
}

impl Repeat {
    /// The instances of the step: one where it does not repeat, and one for the first round of
    /// `until`. They are numbered in the order of the list, of a matrix with its last axis fastest.
    ///
    /// Fails where the list is longer than `max`, or is none.
    pub fn instances(&self, scope: &Scope) -> Result<Vec<Instance>, EvalError> {
        let numbered = |values: Vec<Value>, is_item: bool| {
            let values = (0u64..).zip(values);
            let instance = values.map(|(index, value)| match is_item {
                true => Instance { index, item: value, matrix: Value::Null },
                false => Instance { index, item: Value::Null, matrix: value },
            });
            instance.collect()
        };
        match self {
            Self::Once | Self::Until { .. } => {
                Ok(vec![Instance { index: 0, item: Value::Null, matrix: Value::Null }])
            }
            Self::Each { items, max, .. } => {
                let found = list("`foreach`", items, scope)?;
                if found.len() as u64 > *max {
                    let (count, max) = (found.len() as u64, *max);
                    return Err(EvalError::TooMany { count, max, span: items.span });
                }
                Ok(numbered(found, true))
            }
            Self::Matrix { axes, exclude, include, .. } => {
                let all = combinations(axes, exclude, include, scope)?;
                Ok(numbered(all, false))
            }
        }
    }
}

fn list(what: &'static str, expr: &Expr, scope: &Scope) -> Result<Vec<Value>, EvalError> {
    match eval(expr, scope)? {
        Value::Array(items) => Ok(items),
        other => Err(EvalError::mismatch(what, "a list", &other, expr.span)),
    }
}

/// A name of a matrix with its values.
struct Axis<'a> {
    name: &'a str,
    values: Vec<Value>,
    /// For each value, the place of the first one like it.
    firsts: Vec<usize>,
    /// The places of values by their JSON.
    places: HashMap<String, usize>,
}

impl<'a> Axis<'a> {
    fn new(name: &'a str, values: Vec<Value>) -> Self {
        let mut places = HashMap::new();
        let first = |(at, value): (usize, &Value)| *places.entry(value.to_string()).or_insert(at);
        let firsts = values.iter().enumerate().map(first).collect();
        Self { name, values, firsts, places }
    }
}

/// All combinations of the values of some axes, the last axis fastest, without those that are
/// excluded, and then those that are included.
///
/// Values are compared once; what is left for each combination are numbers.
fn combinations(
    axes: &[(Spanned<String>, Expr)],
    exclude: &[Expr],
    include: &[Expr],
    scope: &Scope,
) -> Result<Vec<Value>, EvalError> {
    let span = axes.first().map_or(Span::default(), |(_, values)| values.span);
    let (mut found, mut count) = (Vec::new(), 1u64);
    for (name, values) in axes {
        let axis = Axis::new(&name.value, list("an axis", values, scope)?);
        count = count.saturating_mul(axis.values.len() as u64);
        if count > ROUNDS_MAX {
            return Err(EvalError::TooMany { count, max: ROUNDS_MAX, span: values.span });
        }
        found.push(axis);
    }
    let axes = found;
    let numbers = axes.iter().enumerate().map(|(number, axis)| (axis.name, number)).collect();
    let mut holes = Vec::new();
    for hole in exclude {
        holes.extend(places(&axes, &numbers, &eval(hole, scope)?));
    }
    let (mut all, mut room) = (Vec::new(), Room::default());
    let mut at = vec![0; axes.len()];
    for _ in 0..count {
        let is_hole = |hole: &Vec<(usize, usize)>| {
            hole.iter().all(|(axis, place)| axes[*axis].firsts[at[*axis]] == *place)
        };
        if !holes.iter().any(is_hole) {
            let values = axes.iter().zip(&at);
            let one = values.map(|(axis, at)| (axis.name.to_owned(), axis.values[*at].clone()));
            let one = Value::Object(one.collect());
            room.take(&one, span)?;
            all.push(one);
        }
        advance(&mut at, &axes);
    }
    for more in include {
        let one = eval(more, scope)?;
        room.take(&one, more.span)?;
        all.push(one);
    }
    Ok(all)
}

/// The places of the values that a combination names, each with the number of its axis, without
/// those that every combination has; none where an axis has no such value, so that nothing is left
/// out.
fn places(
    axes: &[Axis<'_>],
    numbers: &HashMap<&str, usize>,
    hole: &Value,
) -> Option<Vec<(usize, usize)>> {
    let mut found = Vec::new();
    for (name, value) in hole.as_object()? {
        let number = *numbers.get(name.as_str())?;
        let axis = axes.get(number)?;
        let place = *axis.places.get(&value.to_string())?;
        if axis.places.len() > 1 {
            found.push((number, place));
        }
    }
    Some(found)
}

/// Goes to the next combination.
fn advance(at: &mut [usize], axes: &[Axis<'_>]) {
    for (place, axis) in at.iter_mut().zip(axes).rev() {
        *place += 1;
        if *place < axis.values.len() {
            return;
        }
        *place = 0;
    }
}

impl Output {
    /// The output in the result of its step; none where the result has no such part.
    pub fn of<'a>(&self, result: &'a Value) -> Option<&'a Value> {
        self.path.iter().try_fold(result, |value, segment| match segment {
            PathSegment::Field(name) => value.get(name),
            PathSegment::Index(index) => value.get(index),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pipeline::{Defaults, load};

    #[test]
    fn steps_repeat_as_they_say() {
        let check = |repeat: &str, expect: Result<Value, &str>| {
            let text = format!(
                "name: p\nparams: {{ l: {{ type: list, default: [] }} }}\nsteps:\n\
                 - {{ id: a, uses: filegroup, with: {{ srcs: [x] }}, {repeat} }}\n"
            );
            let none = |path: &str| Err(format!("there is no file `{path}`"));
            let checked = load("p.yaml", &text, &none, &Defaults::new());
            let told: Vec<String> =
                checked.findings.iter().map(|found| found.diagnostic.to_string()).collect();
            let pipeline = checked.pipeline.unwrap_or_else(|| panic!("{}", told.join("\n")));
            let scope = Scope { params: json!({"l": ["x", "y", "z"]}), ..Scope::default() };
            let found = pipeline.steps()[0].repeat.instances(&scope);
            let found = found.map(|all| {
                let all = all.into_iter().enumerate().map(|(at, one)| {
                    assert_eq!(one.index, at as u64);
                    if one.matrix.is_null() { one.item } else { one.matrix }
                });
                all.collect::<Value>()
            });
            assert_eq!(found.map_err(|error| error.to_string()), expect.map_err(str::to_owned));
        };
        check("if: true", Ok(json!([null])));
        check("until: 'true', max: 3", Ok(json!([null])));
        check("foreach: [1, b]", Ok(json!([1, "b"])));
        check("foreach: [], max: 1", Ok(json!([])));
        check("foreach: \"${{ params.l }}\", max: 3", Ok(json!(["x", "y", "z"])));
        check(
            "foreach: \"${{ params.l }}\", max: 2",
            Err("there are 3 of them, and at most 2 are allowed"),
        );
        check(
            "matrix: { a: [1, 2], b: \"${{ params.l }}\", exclude: [{ a: 1 }, { a: 2, b: y }], \
             include: [{ a: 9, b: q }] }",
            Ok(json!([{"a": 2, "b": "x"}, {"a": 2, "b": "z"}, {"a": 9, "b": "q"}])),
        );
        check(
            "matrix: { a: [1, 1, 2], b: [x, y], exclude: [{ b: y, a: 1 }, { a: 7 }, { a: '2' }] }",
            Ok(
                json!([{"a": 1, "b": "x"}, {"a": 1, "b": "x"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"}]),
            ),
        );
        check("matrix: { a: [1, 2], b: [], exclude: [{}] }", Ok(json!([])));
        check("matrix: { a: [1, 2], exclude: [{}] }", Ok(json!([])));
    }

    #[test]
    fn a_matrix_takes_time_and_room_that_are_bounded() {
        let axis = |name: &str, values: Vec<Value>| {
            let values = Expr::literal(values, Span::default());
            (Spanned::new(name.to_owned(), Span::default()), values)
        };
        let numbers = |count: u64| (0..count).map(Value::from).collect::<Vec<_>>();
        let told = |axes: &[(Spanned<String>, Expr)], exclude: &[Expr]| {
            let found = combinations(axes, exclude, &[], &Scope::default());
            found.map(|all| all.len()).map_err(|error| error.to_string())
        };
        // Each leaves one combination out, and is as alike to the others as can be.
        let start = std::time::Instant::now();
        let axes = [axis("a", numbers(100)), axis("b", numbers(100))];
        let exclude = (0..1_000u64).map(|at| json!({"a": 99, "b": at % 100}));
        let exclude: Vec<Expr> = exclude.map(|hole| Expr::literal(hole, Span::default())).collect();
        assert_eq!(told(&axes, &exclude), Ok(100 * 99));
        assert!(start.elapsed() < std::time::Duration::from_secs(30), "{:?}", start.elapsed());
        // What all combinations have tells none from another, however much of it there is.
        let names: Vec<String> = (0..300).map(|at| format!("c{at}")).collect();
        let alike = names.iter().map(|name| axis(name, numbers(1)));
        let axes: Vec<_> = alike.chain([axis("z", numbers(1_000))]).collect();
        let hole =
            names.iter().map(|name| (name.clone(), 0.into())).chain([("z".into(), 999.into())]);
        let hole = Expr::literal(Value::Object(hole.collect()), Span::default());
        assert_eq!(told(&axes, &vec![hole; 1_000]), Ok(999));
        assert!(start.elapsed() < std::time::Duration::from_secs(60), "{:?}", start.elapsed());
        let axes = [axis("a", numbers(1_000)), axis("b", numbers(101))];
        let many = "there are 101000 of them, and at most 100000 are allowed";
        assert_eq!(told(&axes, &[]), Err(many.to_owned()));
        let axes = [axis("a", numbers(1_000)), axis("b", vec!["x".repeat(20_000).into()])];
        assert_eq!(told(&axes, &[]), Err("the value is larger than 16777216 bytes".to_owned()));
    }

    #[test]
    fn outputs_are_taken_from_results() {
        let text = "name: p\nsteps:\n- id: a\n  uses: filegroup\n  with: { srcs: [x] }\n  \
                    outputs: { all: $, deep: { path: \"$.a[1].b\", type: int }, none: $.z }\n";
        let none = |path: &str| Err(format!("there is no file `{path}`"));
        let pipeline = load("p.yaml", text, &none, &Defaults::new()).pipeline.expect("no errors");
        let result = json!({"a": [0, {"b": 7}]});
        let found: Vec<Option<&Value>> =
            pipeline.steps()[0].outputs.iter().map(|output| output.of(&result)).collect();
        assert_eq!(found, [Some(&result), Some(&json!(7)), None]);
    }
}
