//! `native.read_file`, `native.read_json`: macros that declare targets by what a file says.
//!
//! Only source files of the package under evaluation can be read, and only while it is loaded, so
//! that what a package declares depends on itself alone. Each read is a dependency of the package.

use serde_json::Value as Json;
use starlark::environment::GlobalsBuilder;
use starlark::eval::Evaluator;
use starlark::starlark_module;
use starlark::values::Value;

use crate::attr::LabelBase;
use crate::error::{Code, RuleError};
use crate::load::file::{border_inside, crosses, path_of, read};
use crate::scope::FileScope;

#[starlark_module]
pub(crate) fn read_globals(builder: &mut GlobalsBuilder) {
    /// The text of a source file of the package.
    ///
    /// Args:
    ///   file: its name, such as `requirements.txt`, or its label.
    fn read_file<'v>(
        #[starlark(require = pos)] file: &str,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<String> {
        Ok(text_of(file, "read_file", FileScope::of(eval)?)?.0)
    }

    /// The value that a source file of the package holds as JSON.
    ///
    /// Args:
    ///   file: its name, such as `package-lock.json`, or its label.
    fn read_json<'v>(
        #[starlark(require = pos)] file: &str,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<Value<'v>> {
        let (text, path) = text_of(file, "read_json", FileScope::of(eval)?)?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let value: Json = serde_json::from_str(text).map_err(|error| {
            RuleError::new(Code::File, format!("`{path}` is not JSON: {error}"))
        })?;
        Ok(eval.heap().alloc(value))
    }
}

/// The text of a file and its path.
fn text_of(
    name: &str,
    function: &str,
    scope: &FileScope<'_>,
) -> Result<(String, String), RuleError> {
    scope.package(function)?;
    let base = LabelBase { repo: &scope.file.repo, package: &scope.file.package };
    let label = base.parse(name)?;
    if label.repo != scope.file.repo || label.package != scope.file.package {
        let message = format!("`{label}` lies in another package, so it cannot be read here");
        return Err(RuleError::new(Code::File, message)
            .hint("call the macro in the package that has the file"));
    }
    if let Some(inner) = border_inside(scope.host, &label)? {
        return Err(crosses(&label, &inner));
    }
    let path = path_of(&label);
    match read(scope.host, &label)? {
        Some(text) => Ok((text, path)),
        None => Err(RuleError::new(Code::File, format!("there is no file `{path}`"))),
    }
}
