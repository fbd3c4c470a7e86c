//! What Bazel's actions say about the machine that they run on: environment, requirements,
//! resources. What Maestro does anyway changes nothing; what asks for a way around it is refused.

use maestro_core::ExecutionHints;
use starlark::eval::Evaluator;
use starlark::values::dict::DictRef;
use starlark::values::float::UnpackFloat;
use starlark::values::{UnpackValue, Value};

use crate::ctx::string_dict;
use crate::error::{Code, RuleError, did_you_mean};
use crate::values::depset::{Depset, Unfold};
use crate::values::{expect_sequence, wrong_type};

/// The parameters.
pub(super) struct Hosts<'v> {
    pub(super) use_default_shell_env: bool,
    pub(super) execution_requirements: Option<Value<'v>>,
    pub(super) resource_set: Option<Value<'v>>,
}

impl<'v> Hosts<'v> {
    /// Turns them into scheduling data, or refuses them.
    pub(super) fn apply(
        self,
        inputs: Option<Value<'v>>,
        hints: &mut ExecutionHints,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<()> {
        let given = |value: Option<Value<'v>>| value.filter(|value| !value.is_none());
        if self.use_default_shell_env {
            let message = "actions do not see the environment of whoever builds";
            return RuleError::new(Code::Action, message)
                .hint("leave `use_default_shell_env` out, and pass what is needed in `env`")
                .raise();
        }
        if let Some(value) = given(self.execution_requirements) {
            for (name, value) in string_dict(value, "execution_requirements")? {
                requirement(&name, &value, hints)?;
            }
        }
        if let Some(function) = given(self.resource_set) {
            let count = match given(inputs) {
                None => 0,
                Some(value) => match Depset::from_value(value) {
                    Some(set) => set.items(Unfold::of(eval))?.len(),
                    None => expect_sequence(value, "inputs")?.len(),
                },
            };
            let heap = eval.heap();
            let count = i32::try_from(count).unwrap_or(i32::MAX);
            let arguments = [heap.alloc("linux"), heap.alloc(count)];
            let answer = eval.eval_function(function, &arguments, &[])?;
            resources(answer, hints)?;
        }
        Ok(())
    }
}

/// One of Bazel's execution requirements.
fn requirement(name: &str, value: &str, hints: &mut ExecutionHints) -> Result<(), RuleError> {
    const FINE: [&str; 10] = [
        "block-network",
        "no-remote",
        "no-remote-cache",
        "no-remote-cache-upload",
        "no-remote-exec",
        "requires-worker-protocol",
        "supports-graceful-termination",
        "supports-multiplex-workers",
        "supports-path-mapping",
        "supports-workers",
    ];
    const REFUSED: [&str; 6] =
        ["local", "no-cache", "no-sandbox", "requires-fakeroot", "requires-network", "exclusive"];
    let error = |message: String| RuleError::new(Code::Action, message);
    if let Some(count) = name.strip_prefix("cpu:") {
        let count: u32 = count.parse().ok().filter(|count| *count > 0).ok_or_else(|| {
            error(format!("`{}` names no number of processors", name.escape_debug()))
        })?;
        hints.cpu_millis = count.saturating_mul(1000);
        return Ok(());
    }
    let off = matches!(value, "0" | "false");
    if FINE.contains(&name) || off {
        return Ok(());
    }
    if REFUSED.contains(&name) {
        let message =
            format!("the execution requirement `{name}` asks for a way around the sandbox");
        return Err(error(message)
            .hint("actions are hermetic; what comes from outside is pinned with `http_file`"));
    }
    let message = format!("there is no execution requirement `{}`", name.escape_debug());
    let known = FINE.iter().chain(&REFUSED).copied();
    Err(error(message).hint_opt(did_you_mean(name, known)))
}

/// What a `resource_set` function returned: `{"cpu": 2, "memory": 512}`, memory in MB.
fn resources(answer: Value<'_>, hints: &mut ExecutionHints) -> Result<(), RuleError> {
    let wrong = || wrong_type("resource_set", "a function that returns a dict of numbers", answer);
    let dict = DictRef::from_value(answer).ok_or_else(wrong)?;
    for (name, value) in dict.iter() {
        let number = UnpackFloat::unpack_value(value).ok().flatten().ok_or_else(wrong)?.0;
        if !(number > 0.0 && number < 1e9) {
            let message = format!("`resource_set` asks for {number} of `{name}`");
            return Err(RuleError::new(Code::Action, message).hint("numbers must be positive"));
        }
        match name.unpack_str() {
            Some("cpu") => hints.cpu_millis = (number * 1000.0).ceil() as u32,
            Some("memory") => hints.memory_bytes = (number * f64::from(1 << 20)) as u64,
            Some("local_test") => {}
            _ => {
                let message = format!("`resource_set` knows no resource {name}");
                return Err(RuleError::new(Code::Action, message).hint("use `cpu` and `memory`"));
            }
        }
    }
    Ok(())
}
