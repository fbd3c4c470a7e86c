//! Rules that are part of the language: they say what is built for what, and make nothing.
//!
//! They are called like other rules, without a `load`. What they declare is read while targets are
//! configured, so they have no implementation, and their attributes take no `select`.

use std::sync::{Arc, OnceLock};

use maestro_core::Label;
use starlark::environment::GlobalsBuilder;
use starlark::values::FrozenValue;

use crate::attr::{AllowFiles, AttrKind, AttrSpec, DependencyConfig};
use crate::config::definitions::EXEC_PROPERTIES;
use crate::config::toolchains::EXEC_COMPATIBLE;
use crate::library;
use crate::rule::{COMPATIBLE, RuleGen, RuleSpec, common_attributes};
use crate::values::exec_group::Execution;

/// Which of the rules of the language a rule is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NativeKind {
    /// Another name of a target.
    Alias,
    /// A condition on params and constraints.
    ConfigSetting,
    /// Something in which platforms differ.
    ConstraintSetting,
    /// One of the ways in which they do.
    ConstraintValue,
    /// A set of constraint values.
    Platform,
    /// A target with `ToolchainInfo`, and what it is good for.
    Toolchain,
    /// What toolchains are for, by which rules ask for them.
    ToolchainType,
}

/// An attribute that the configuration does not change.
fn fixed(name: &str, kind: AttrKind, doc: &str) -> (String, Arc<AttrSpec>) {
    let mut spec = AttrSpec::plain(kind, doc);
    spec.configurable = false;
    (name.to_owned(), Arc::new(spec))
}

fn mandatory(name: &str, kind: AttrKind, doc: &str) -> (String, Arc<AttrSpec>) {
    let mut spec = AttrSpec::plain(kind, doc);
    spec.mandatory = true;
    spec.configurable = false;
    (name.to_owned(), Arc::new(spec))
}

fn attributes(kind: NativeKind) -> Vec<(String, Arc<AttrSpec>)> {
    use AttrKind::{Label, LabelKeyedStringDict, LabelList, StringDict};
    match kind {
        NativeKind::Alias => {
            let mut actual = AttrSpec::plain(Label, "The target that it stands for.");
            actual.mandatory = true;
            actual.allow_files = AllowFiles::Any;
            vec![("actual".to_owned(), Arc::new(actual))]
        }
        NativeKind::ConfigSetting => vec![
            fixed("values", StringDict, "Params by their short names, and the values they need."),
            fixed("flag_values", LabelKeyedStringDict, "Params, and the values they need."),
            fixed("param_values", LabelKeyedStringDict, "The same as `flag_values`."),
            fixed("constraint_values", LabelList, "What the target platform needs to have."),
        ],
        NativeKind::ConstraintSetting => {
            vec![fixed(
                "default_constraint_value",
                Label,
                "What holds for platforms that say nothing.",
            )]
        }
        NativeKind::ConstraintValue => {
            vec![mandatory("constraint_setting", Label, "What it is a value of.")]
        }
        NativeKind::ToolchainType => Vec::new(),
        NativeKind::Toolchain => vec![
            mandatory("toolchain_type", Label, "What it is for."),
            mandatory("toolchain", Label, "The target with `ToolchainInfo`."),
            fixed(COMPATIBLE, LabelList, "What the platform must have that it builds for."),
            fixed(EXEC_COMPATIBLE, LabelList, "What the platform must have that it runs on."),
            fixed("target_settings", LabelList, "Conditions that must hold."),
        ],
        NativeKind::Platform => vec![
            fixed("constraint_values", LabelList, "What holds for it."),
            fixed(
                "parents",
                LabelList,
                "At most one platform, whose values hold where it is silent.",
            ),
            fixed(
                EXEC_PROPERTIES,
                StringDict,
                "What remote execution is told of actions that run on it, beside its parent's.",
            ),
        ],
    }
}

fn native(name: &str, kind: NativeKind) -> Arc<RuleSpec> {
    let mut attrs = attributes(kind);
    attrs.extend(common_attributes(false, false, kind == NativeKind::Alias));
    Arc::new(RuleSpec {
        file: native_file(),
        variable: OnceLock::from(Arc::from(name)),
        attrs,
        executable: false,
        test: false,
        provides: Vec::new(),
        doc: String::new(),
        native: Some(kind),
        build_setting: None,
        cfg: DependencyConfig::Target,
        execution: Execution::default(),
    })
}

/// Where the rules of the language are said to be defined. There is no such file.
fn native_file() -> Label {
    Label::new(library::REPO, "rules", "native.star").expect("a constant label is valid")
}

fn all() -> &'static [Arc<RuleSpec>] {
    static ALL: OnceLock<Vec<Arc<RuleSpec>>> = OnceLock::new();
    ALL.get_or_init(|| {
        vec![
            native("alias", NativeKind::Alias),
            native("config_setting", NativeKind::ConfigSetting),
            native("constraint_setting", NativeKind::ConstraintSetting),
            native("constraint_value", NativeKind::ConstraintValue),
            native("platform", NativeKind::Platform),
            native("toolchain", NativeKind::Toolchain),
            native("toolchain_type", NativeKind::ToolchainType),
        ]
    })
}

/// Whether a file is the one that rules of the language are said to be defined in.
pub(crate) fn is_native(file: &Label) -> bool {
    *file == native_file()
}

/// The rule of the language with a name.
pub(crate) fn find(name: &str) -> Option<Arc<RuleSpec>> {
    all().iter().find(|spec| spec.name() == name).cloned()
}

/// The rules of the language.
pub(crate) fn native_rules(builder: &mut GlobalsBuilder) {
    for spec in all() {
        let implementation = FrozenValue::new_none();
        builder.set(spec.name(), RuleGen { implementation, spec: spec.clone() });
    }
}
