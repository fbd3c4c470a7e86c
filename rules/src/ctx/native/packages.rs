//! Packages of other ecosystems: their archives are fetched by digest, and installed natively.

use serde_json::json;
use starlark::environment::MethodsBuilder;
use starlark::eval::Evaluator;
use starlark::starlark_module;
use starlark::values::Value;
use starlark::values::none::NoneType;

use super::request::{add, checked_output, list};
use crate::ctx::actions::Actions;
use crate::ctx::draft::expect_file;
use crate::ctx::strings;
use crate::error::{Code, RuleError};

#[starlark_module]
pub(crate) fn package_methods(builder: &mut MethodsBuilder) {
    /// Unpacks a package of npm into a tree.
    ///
    /// Args:
    ///   output: the tree.
    ///   archive: the package as a registry hands it out.
    ///   integrity: the digest that the archive must have, `sha512-BASE64`.
    ///   programs: paths of files in the package that become programs.
    fn npm_package<'v>(
        this: &Actions,
        #[starlark(require = named)] output: Value<'v>,
        #[starlark(require = named)] archive: Value<'v>,
        #[starlark(require = named)] integrity: &str,
        #[starlark(require = named)] programs: Option<Value<'v>>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<NoneType> {
        let _ = this;
        let output = checked_output(output, true)?;
        let archive = expect_file(archive, "archive")?;
        let mut programs = list(programs, "programs")?;
        programs.sort_unstable();
        programs.dedup();
        let request = json!({
            "archive": archive.path(),
            "integrity": integrity,
            "programs": programs,
        });
        add(eval, "npm-package", request, output, vec![archive.artifact()])
    }

    /// Installs a wheel into a tree: modules in `lib`, programs in `bin`.
    ///
    /// Args:
    ///   output: the tree.
    ///   archive: the wheel.
    ///   interpreter: the absolute path that its programs name.
    ///   sha256: the digests that the wheel may have.
    fn wheel<'v>(
        this: &Actions,
        #[starlark(require = named)] output: Value<'v>,
        #[starlark(require = named)] archive: Value<'v>,
        #[starlark(require = named)] interpreter: &str,
        #[starlark(require = named)] sha256: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<NoneType> {
        let _ = this;
        let output = checked_output(output, true)?;
        let archive = expect_file(archive, "archive")?;
        let mut sha256 = strings(sha256, "sha256")?;
        sha256.sort_unstable();
        sha256.dedup();
        let request = json!({
            "archive": archive.path(),
            "interpreter": interpreter,
            "sha256": sha256,
        });
        add(eval, "wheel", request, output, vec![archive.artifact()])
    }

    /// Fetches the wheel of a project that fits best among those that are pinned.
    ///
    /// Args:
    ///   output: the wheel.
    ///   project: the name of the project.
    ///   version: its version.
    ///   sha256: the digests that the wheel may have.
    ///   python: the interpreter's version, such as `3.11`.
    ///   platforms: platform tags in order of preference.
    fn fetch_wheel<'v>(
        this: &Actions,
        #[starlark(require = named)] output: Value<'v>,
        #[starlark(require = named)] project: &str,
        #[starlark(require = named)] version: &str,
        #[starlark(require = named)] sha256: Value<'v>,
        #[starlark(require = named)] python: &str,
        #[starlark(require = named)] platforms: Value<'v>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<NoneType> {
        let _ = this;
        let output = checked_output(output, false)?;
        let mut sha256 = strings(sha256, "sha256")?;
        sha256.sort_unstable();
        sha256.dedup();
        if sha256.is_empty() {
            let message = format!("`{}=={}` is not pinned", project, version);
            return RuleError::new(Code::Unpinned, message)
                .hint("add `--hash=sha256:…`, as `pip hash` prints it for the wheel you trust")
                .raise();
        }
        let request = json!({
            "project": project,
            "version": version,
            "sha256": sha256,
            "python": python,
            "platforms": strings(platforms, "platforms")?,
        });
        add(eval, "fetch-wheel", request, output, vec![])
    }
}
