//! The instances of a step that repeats, and what its outputs are taken from.

use super::expression::{EvalError, Scope, Value, eval};
use super::limits::ROUNDS_MAX;
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
                let mut found = vec![serde_json::Map::new()];
                for (name, values) in axes {
                    let values_here = list("an axis", values, scope)?;
                    let count = (found.len() as u64).saturating_mul(values_here.len() as u64);
                    if count > ROUNDS_MAX {
                        return Err(EvalError::TooMany {
                            count,
                            max: ROUNDS_MAX,
                            span: values.span,
                        });
                    }
                    let with = |base: &serde_json::Map<String, Value>, value: &Value| {
                        let mut one = base.clone();
                        one.insert(name.value.clone(), value.clone());
                        one
                    };
                    found = found
                        .iter()
                        .flat_map(|base| values_here.iter().map(move |value| with(base, value)))
                        .collect();
                }
                for hole in exclude {
                    let hole = eval(hole, scope)?;
                    found.retain(|one| !fits(one, &hole));
                }
                let mut all: Vec<Value> = found.into_iter().map(Value::Object).collect();
                for more in include {
                    all.push(eval(more, scope)?);
                }
                Ok(numbered(all, false))
            }
        }
    }
}

fn list(
    what: &'static str,
    expr: &super::expression::Expr,
    scope: &Scope,
) -> Result<Vec<Value>, EvalError> {
    match eval(expr, scope)? {
        Value::Array(items) => Ok(items),
        other => Err(EvalError::mismatch(what, "a list", &other, expr.span)),
    }
}

/// Whether a combination has all values that the other one names.
fn fits(one: &serde_json::Map<String, Value>, hole: &Value) -> bool {
    let entries = hole.as_object();
    entries.is_some_and(|entries| entries.iter().all(|(key, value)| one.get(key) == Some(value)))
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
