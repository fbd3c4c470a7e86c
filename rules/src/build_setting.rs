//! `config`: how a rule says that its targets are params, whose values users and transitions set.

use std::fmt;
use std::sync::Arc;

use allocative::Allocative;
use starlark::environment::GlobalsBuilder;
use starlark::starlark_module;
use starlark::starlark_simple_value;
use starlark::values::{
    NoSerialize, ProvidesStaticType, StarlarkPagablePanic, StarlarkValue, Value, starlark_value,
};

use crate::attr::{AttrKind, AttrValue};
use crate::config::SettingValue;
use crate::values::wrong_type;

/// The type of a param.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Allocative)]
pub(crate) enum ParamType {
    Bool,
    Int,
    String,
    StringList,
}

impl ParamType {
    /// The type in words.
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Self::Bool => "`true` or `false`",
            Self::Int => "an integer",
            Self::String => "a text",
            Self::StringList => "a list of texts",
        }
    }

    /// The type of the attribute that holds the default.
    pub(crate) fn attribute(self) -> AttrKind {
        match self {
            Self::Bool => AttrKind::Bool,
            Self::Int => AttrKind::Int,
            Self::String => AttrKind::String,
            Self::StringList => AttrKind::StringList,
        }
    }

    /// Reads a value as it stands on a command line or in a `config_setting`.
    pub(crate) fn parse(self, text: &str) -> Option<SettingValue> {
        Some(match self {
            Self::Bool => SettingValue::Bool(match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "1" => true,
                "false" | "no" | "0" => false,
                _ => return None,
            }),
            Self::Int => SettingValue::Int(text.parse().ok()?),
            Self::String => SettingValue::String(text.into()),
            Self::StringList if text.is_empty() => SettingValue::Strings(Vec::new()),
            Self::StringList => SettingValue::Strings(text.split(',').map(Into::into).collect()),
        })
    }

    /// The value that an attribute holds.
    pub(crate) fn value_of(self, value: &AttrValue) -> Option<SettingValue> {
        Some(match (self, value) {
            (Self::Bool, AttrValue::Bool(value)) => SettingValue::Bool(*value),
            (Self::Int, AttrValue::Int(value)) => SettingValue::Int(*value),
            (Self::String, AttrValue::String(text)) => SettingValue::String(text.clone()),
            (Self::StringList, AttrValue::Strings(list)) => SettingValue::Strings(list.to_vec()),
            _ => return None,
        })
    }
}

/// The result of `config.…(…)`.
#[derive(Clone, Debug, ProvidesStaticType, NoSerialize, StarlarkPagablePanic, Allocative)]
pub(crate) struct BuildSetting {
    pub(crate) ty: ParamType,
    /// Whether users may set it; else only transitions do.
    pub(crate) flag: bool,
}

starlark_simple_value!(BuildSetting);

impl fmt::Display for BuildSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<build setting: {}>", self.ty.noun())
    }
}

#[starlark_value(type = "BuildSetting")]
impl<'v> StarlarkValue<'v> for BuildSetting {}

/// The result of `config.exec(…)`.
#[derive(Clone, Debug, ProvidesStaticType, NoSerialize, StarlarkPagablePanic, Allocative)]
pub(crate) struct ExecConfig {
    /// The execution group on whose platform something runs; the default one where `None`.
    pub(crate) group: Option<Arc<str>>,
}

starlark_simple_value!(ExecConfig);

impl fmt::Display for ExecConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<execution configuration>")
    }
}

#[starlark_value(type = "ExecTransition")]
impl<'v> StarlarkValue<'v> for ExecConfig {}

/// The members of `config`.
#[starlark_module]
pub(crate) fn config_members(builder: &mut GlobalsBuilder) {
    /// For `cfg` of an attribute: the platform on which the actions run; without a group, the same
    /// as `"exec"`.
    ///
    /// Args:
    ///   exec_group: the name of the execution group whose actions are meant.
    fn exec<'v>(exec_group: Option<Value<'v>>) -> starlark::Result<ExecConfig> {
        let group = match exec_group.filter(|value| !value.is_none()) {
            None => None,
            Some(value) => match value.unpack_str() {
                Some(name) => Some(name.into()),
                None => return wrong_type("exec_group", "the name of a group", value).raise(),
            },
        };
        Ok(ExecConfig { group })
    }

    /// For `cfg` of an attribute: the same as for the target; the same as `"target"`.
    fn target() -> starlark::Result<&'static str> {
        Ok("target")
    }

    /// A param that is `True` or `False`.
    fn r#bool(
        #[starlark(require = named, default = false)] flag: bool,
    ) -> starlark::Result<BuildSetting> {
        Ok(BuildSetting { ty: ParamType::Bool, flag })
    }

    /// A param that is an integer.
    fn int(
        #[starlark(require = named, default = false)] flag: bool,
    ) -> starlark::Result<BuildSetting> {
        Ok(BuildSetting { ty: ParamType::Int, flag })
    }

    /// A param that is a text.
    fn string(
        #[starlark(require = named, default = false)] flag: bool,
    ) -> starlark::Result<BuildSetting> {
        Ok(BuildSetting { ty: ParamType::String, flag })
    }

    /// A param that is a list of texts.
    fn string_list(
        #[starlark(require = named, default = false)] flag: bool,
    ) -> starlark::Result<BuildSetting> {
        Ok(BuildSetting { ty: ParamType::StringList, flag })
    }
}
