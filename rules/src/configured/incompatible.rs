//! Targets that cannot be built for the target platform.

use std::fmt::Write as _;

use maestro_core::Label;

use super::{ConfiguredGraph, NodeId, NodeKind};
use crate::attr::AttrValue;
use crate::config::choice::Reader;
use crate::config::definitions::Stop;
use crate::config::{Setting, SettingValue};
use crate::diagnostic::Diagnostic;
use crate::error::{Code, RuleError};
use crate::native_rules::NativeKind;
use crate::package::TargetDecl;
use crate::resolve::location_of;
use crate::rule::COMPATIBLE;

/// Why a node cannot be built for its platform.
#[derive(Clone, Debug)]
pub(super) enum Incompatible {
    /// It needs a constraint value, and the platform has another.
    Needs { value: Label, setting: Setting, has: SettingValue },
    /// What it depends on cannot.
    Through(NodeId),
}

impl ConfiguredGraph {
    /// The error for a requested node that cannot be built for its platform.
    pub(crate) fn incompatibility(&self, id: NodeId) -> Diagnostic {
        let node = self.node(id);
        let platform = &self.configurations.get(node.config).platform;
        let mut message = format!("`{}` cannot be built for `{platform}`", node.label);
        let mut next = id;
        loop {
            let node = self.node(next);
            let place = match &node.kind {
                NodeKind::Rule(decl) | NodeKind::Alias(decl) | NodeKind::Output(decl) => {
                    format!(" ({})", location_of(decl))
                }
                _ => String::new(),
            };
            let _ = write!(message, "\n  `{}`{place} needs", node.label);
            match self.incompatible.get(&next) {
                Some(Incompatible::Through(below)) => next = *below,
                Some(Incompatible::Needs { value, setting, has }) => {
                    let _ = write!(message, "\n  `{value}`, but `{setting}` is `{has}`");
                    break;
                }
                None => break,
            }
        }
        let error = RuleError::new(Code::Incompatible, message)
            .hint("choose another platform with `--platform`; patterns such as `//...` skip it");
        match &node.kind {
            NodeKind::Rule(decl) => decl.error(error),
            _ => Diagnostic::of(error, None),
        }
    }
}

/// What a target needs of its platform that the platform does not have, if there is something.
pub(super) fn incompatible(
    reader: &mut Reader<'_, '_>,
    decl: &TargetDecl,
) -> Result<Option<Incompatible>, Stop> {
    let mut found = None;
    if decl.rule.native.is_some_and(|kind| kind != NativeKind::Alias) {
        return Ok(found); // for `toolchain`, the attribute says something else
    }
    for label in decl.attr(COMPATIBLE).map(AttrValue::labels).unwrap_or_default() {
        let (setting, value) = reader.definitions.requirement(reader.universe, label)?;
        let has = reader.read(&setting)?;
        if has != value && found.is_none() {
            found = Some(Incompatible::Needs { value: label.clone(), setting, has });
        }
    }
    Ok(found)
}
