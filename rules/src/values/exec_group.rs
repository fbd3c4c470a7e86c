//! Execution groups: sets of actions of one target that run on a platform of their own.
//!
//! A rule has one group without a name, which holds what `toolchains` and `exec_compatible_with`
//! of the rule say, and those that it names in `exec_groups`. Each finds its toolchains and the
//! platform that its actions run on by itself.

use std::fmt;
use std::sync::Arc;

use allocative::Allocative;
use maestro_core::Label;
use starlark::environment::GlobalsBuilder;
use starlark::eval::Evaluator;
use starlark::starlark_module;
use starlark::starlark_simple_value;
use starlark::values::dict::DictRef;
use starlark::values::structs::AllocStruct;
use starlark::values::{
    AllocValue, Heap, NoSerialize, ProvidesStaticType, StarlarkPagablePanic, StarlarkValue, Trace,
    Value, starlark_value,
};

use super::toolchains::{ToolchainNeed, label_of, unpack_needs};
use super::{expect_sequence, wrong_type};
use crate::attr::{AttrSpec, DependencyConfig, LabelBase};
use crate::error::{Code, RuleError, did_you_mean};
use crate::scope::FileScope;

/// Most types of toolchains that a rule may name, in all groups together.
const RULE_TOOLCHAINS_MAX: usize = 1000;

/// What the actions of one group need.
#[derive(
    Clone,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    ProvidesStaticType,
    NoSerialize,
    StarlarkPagablePanic,
    Allocative,
)]
pub(crate) struct GroupNeeds {
    /// Types of toolchains.
    pub(crate) toolchains: Vec<ToolchainNeed>,
    /// Constraint values that the platform must have that they run on.
    #[allocative(skip)]
    pub(crate) compatible: Vec<Label>,
}

starlark_simple_value!(GroupNeeds);

impl fmt::Display for GroupNeeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<execution group>")
    }
}

#[starlark_value(type = "exec_group")]
impl<'v> StarlarkValue<'v> for GroupNeeds {}

impl GroupNeeds {
    /// What two parameters say, either of which may be left out.
    pub(crate) fn unpack<'v>(
        toolchains: Option<Value<'v>>,
        compatible: Option<Value<'v>>,
        base: LabelBase<'_>,
    ) -> Result<Self, RuleError> {
        let given = |value: Option<Value<'v>>| value.filter(|value| !value.is_none());
        let toolchains = match given(toolchains) {
            None => Vec::new(),
            Some(value) => unpack_needs(value, base)?,
        };
        let parameter = "exec_compatible_with";
        let compatible: Result<Vec<Label>, RuleError> = match given(compatible) {
            None => Ok(Vec::new()),
            Some(value) => expect_sequence(value, parameter)?
                .iter()
                .map(|item| label_of(*item, parameter, base))
                .collect(),
        };
        Ok(Self { toolchains, compatible: compatible? })
    }

    fn is_plain(&self) -> bool {
        self.toolchains.is_empty() && self.compatible.is_empty()
    }
}

/// Everything that a rule or an aspect says about where its actions run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Execution {
    /// The group of all actions that name none.
    pub(crate) default: GroupNeeds,
    /// The groups that have names.
    groups: Vec<(Arc<str>, GroupNeeds)>,
}

impl Execution {
    /// The default group, and the dict `exec_groups`, which may be left out.
    pub(crate) fn new(default: GroupNeeds, groups: Option<Value<'_>>) -> Result<Self, RuleError> {
        let groups = match groups.filter(|value| !value.is_none()) {
            None => Vec::new(),
            Some(value) => unpack_groups(value)?,
        };
        let out = Self { default, groups };
        let count = out.toolchains().count();
        if count > RULE_TOOLCHAINS_MAX {
            let message = format!("{count} types of toolchains are named, in all groups");
            return Err(RuleError::new(Code::Limit, message)
                .hint(format!("at most {RULE_TOOLCHAINS_MAX} are possible")));
        }
        Ok(out)
    }

    /// Whether nothing is said.
    pub(crate) fn is_plain(&self) -> bool {
        self.default.is_plain() && self.groups.is_empty()
    }

    /// Every group, the default one first.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Option<&Arc<str>>, &GroupNeeds)> {
        let named = self.groups.iter().map(|(name, needs)| (Some(name), needs));
        [(None, &self.default)].into_iter().chain(named)
    }

    /// The types of toolchains of every group, in the order in which edges number them.
    pub(crate) fn toolchains(&self) -> impl Iterator<Item = &ToolchainNeed> {
        self.all().flat_map(|(_, needs)| &needs.toolchains)
    }

    /// The names of the groups that have one.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.groups.iter().map(|(name, _)| &**name)
    }

    /// The place among all of the group that a `cfg` names.
    pub(crate) fn place(&self, group: Option<&str>) -> Option<usize> {
        self.all().position(|(name, _)| name.map(|name| &**name) == group)
    }

    /// Checks that the groups are there in which attributes build what they name.
    pub(crate) fn check_attributes(
        &self,
        attrs: &[(String, Arc<AttrSpec>)],
    ) -> Result<(), RuleError> {
        for (name, spec) in attrs {
            if let DependencyConfig::Exec(Some(group)) = &spec.cfg
                && self.place(Some(group)).is_none()
            {
                let mut error = unknown_group(group, &self.names().collect::<Vec<_>>());
                error.message = format!("attribute `{name}`: {}", error.message);
                return Err(error);
            }
        }
        Ok(())
    }
}

/// The error for a group that nobody has declared.
pub(crate) fn unknown_group(name: &str, known: &[&str]) -> RuleError {
    let message = format!("there is no execution group `{}`", name.escape_debug());
    let error = RuleError::new(Code::Toolchain, message);
    match (did_you_mean(name, known.iter().copied()), known.is_empty()) {
        (Some(hint), _) => error.hint(hint),
        (None, false) => error.hint(format!("there are: {}", known.join(", "))),
        (None, true) => {
            error.hint("declare it in `exec_groups` of the rule: `{\"link\": exec_group()}`")
        }
    }
}

fn unpack_groups(value: Value<'_>) -> Result<Vec<(Arc<str>, GroupNeeds)>, RuleError> {
    let wrong = || wrong_type("exec_groups", "a dict from names to `exec_group(…)`", value);
    let dict = DictRef::from_value(value).ok_or_else(wrong)?;
    let mut out = Vec::with_capacity(dict.len());
    for (name, needs) in dict.iter() {
        let name = name.unpack_str().ok_or_else(wrong)?;
        let needs = GroupNeeds::from_value(needs).ok_or_else(wrong)?;
        let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if !starts || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            let message = format!("`{}` is no name of an execution group", name.escape_debug());
            return Err(RuleError::new(Code::Toolchain, message)
                .hint("a name is made of letters, digits and `_`"));
        }
        out.push((name.into(), needs.clone()));
    }
    Ok(out)
}

#[starlark_module]
pub(crate) fn exec_group_globals(builder: &mut GlobalsBuilder) {
    /// Describes an execution group: actions of a rule that run on a platform of their own.
    ///
    /// Args:
    ///   toolchains: types of toolchains that its actions need, as in `rule`.
    ///   exec_compatible_with: constraint values that the platform must have that they run on.
    fn exec_group<'v>(
        #[starlark(require = named)] toolchains: Option<Value<'v>>,
        #[starlark(require = named)] exec_compatible_with: Option<Value<'v>>,
        eval: &mut Evaluator<'v, '_, '_>,
    ) -> starlark::Result<GroupNeeds> {
        let scope = FileScope::of(eval)?;
        let base = LabelBase { repo: &scope.file.repo, package: &scope.file.package };
        Ok(GroupNeeds::unpack(toolchains, exec_compatible_with, base)?)
    }
}

/// `ctx.exec_groups`: what was found for each group. Cannot outlive the target's analysis.
#[derive(Debug, Trace, ProvidesStaticType, NoSerialize, StarlarkPagablePanic, Allocative)]
pub(crate) struct ExecGroups<'v> {
    #[trace(static)]
    pub(crate) names: Vec<Arc<str>>,
    /// The `ctx.toolchains` of each.
    pub(crate) toolchains: Vec<Value<'v>>,
}

impl<'v> AllocValue<'v> for ExecGroups<'v> {
    fn alloc_value(self, heap: Heap<'v>) -> Value<'v> {
        heap.alloc_complex_no_freeze(self)
    }
}

impl fmt::Display for ExecGroups<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<ctx.exec_groups>")
    }
}

impl<'v> ExecGroups<'v> {
    fn find(&self, index: Value<'v>) -> Result<Result<Value<'v>, RuleError>, RuleError> {
        let wrong = || wrong_type("exec_groups", "indexed by names of groups", index);
        let name = index.unpack_str().ok_or_else(wrong)?;
        let place = self.names.iter().position(|own| **own == *name);
        let found = place.and_then(|place| self.toolchains.get(place)).copied();
        let known = || self.names.iter().map(|name| &**name).collect::<Vec<_>>();
        Ok(found.ok_or_else(|| unknown_group(name, &known())))
    }
}

#[starlark_value(type = "ExecGroupCollection")]
impl<'v> StarlarkValue<'v> for ExecGroups<'v> {
    fn at(&self, index: Value<'v>, heap: Heap<'v>) -> starlark::Result<Value<'v>> {
        let toolchains = self.find(index)??;
        Ok(heap.alloc(AllocStruct([("toolchains", toolchains)])))
    }

    fn is_in(&self, other: Value<'v>) -> starlark::Result<bool> {
        Ok(self.find(other)?.is_ok())
    }
}
