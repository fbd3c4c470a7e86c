//! Takes the branches of `select` that hold in a configuration.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use maestro_core::Label;

use super::definitions::{Condition, Definitions, Stop, satisfies};
use super::{Configuration, Setting};
use crate::attr::AttrValue;
use crate::attr::configurable::{Branch, Choice, add_up};
use crate::error::{Code, RuleError};
use crate::package::TargetDecl;
use crate::resolve::{Node as Named, Universe};
use crate::values::select::DEFAULT_CONDITION;

/// Reads one configuration for one target, and remembers what was read.
pub(crate) struct Reader<'a, 'h> {
    pub(crate) universe: &'a Universe<'h>,
    pub(crate) definitions: &'a mut Definitions,
    pub(crate) configuration: &'a Configuration,
    pub(crate) reads: BTreeSet<Setting>,
}

/// A stop, and the attribute whose value led to it.
pub(crate) type InAttribute = (String, Stop);

impl Reader<'_, '_> {
    /// The declaration with every `select` decided.
    pub(crate) fn decide(
        &mut self,
        decl: &Arc<TargetDecl>,
    ) -> Result<Arc<TargetDecl>, InAttribute> {
        if !decl.attrs.iter().any(|value| matches!(value, AttrValue::Configurable(_))) {
            return Ok(decl.clone());
        }
        let mut decided = TargetDecl::clone(decl);
        for ((name, spec), value) in decl.rule.attrs.iter().zip(&mut decided.attrs) {
            let AttrValue::Configurable(sum) = value else { continue };
            let at = |stop: Stop| (name.clone(), stop);
            let mut chosen = Vec::with_capacity(sum.operands.len());
            for choice in &sum.operands {
                chosen.push(self.choose(decl, choice).map_err(at)?);
            }
            let sum = add_up(spec, name, &chosen).map_err(|error| at(error.into()))?;
            *value = sum;
        }
        Ok(Arc::new(decided))
    }

    /// The value of the branch that holds.
    fn choose<'c>(&mut self, decl: &TargetDecl, choice: &'c Choice) -> Result<&'c AttrValue, Stop> {
        if let (None, [only]) = (&choice.places, choice.branches.as_slice()) {
            return Ok(&only.value);
        }
        let mut holding: Vec<(usize, &Branch, Arc<Condition>)> = Vec::new();
        let mut looked_at = Vec::new();
        for (at, branch) in choice.branches.iter().enumerate() {
            let Some(label) = &branch.condition else { continue };
            let condition = self.condition(decl, label)?;
            if self.holds(&condition)? {
                holding.push((at, branch, condition));
            } else {
                looked_at.push(condition);
            }
        }
        let narrowest = holding.iter().find(|(_, _, own)| {
            holding.iter().all(|(_, _, other)| Arc::ptr_eq(own, other) || own.is_narrower(other))
        });
        if let Some((_, branch, _)) = narrowest {
            return Ok(&branch.value);
        }
        match holding.first() {
            // Conditions that say the same thing in other words do no harm.
            Some((_, first, _))
                if holding.iter().all(|(_, other, _)| other.value == first.value) =>
            {
                Ok(&first.value)
            }
            Some(_) => Err(ambiguous(choice, &holding).into()),
            None => match choice.branches.iter().find(|branch| branch.condition.is_none()) {
                Some(branch) => Ok(&branch.value),
                None => Err(self.no_match(choice, &looked_at)),
            },
        }
    }

    fn condition(&mut self, decl: &TargetDecl, label: &Label) -> Result<Arc<Condition>, Stop> {
        let condition = self.definitions.condition(self.universe, label)?;
        // Found a moment ago, so it is there; only whether it may be used is open.
        if let Some(named @ Named::Rule(_)) = self.universe.resolve(label)? {
            self.universe.check_use(label, &named, decl)?;
        }
        Ok(condition)
    }

    /// Whether a condition holds; everything that it asks for counts as read.
    pub(crate) fn holds(&mut self, condition: &Condition) -> Result<bool, Stop> {
        let mut holds = true;
        for (setting, need) in &condition.needs {
            let value = self.read(setting)?;
            holds &= satisfies(&value, need);
        }
        Ok(holds)
    }

    /// The value of a setting, which counts as read.
    pub(crate) fn read(&mut self, setting: &Setting) -> Result<super::SettingValue, Stop> {
        let value = self.definitions.value(self.universe, self.configuration, setting)?;
        self.reads.insert(setting.clone());
        Ok(value)
    }

    fn no_match(&mut self, choice: &Choice, looked_at: &[Arc<Condition>]) -> Stop {
        let mut message = match &*choice.no_match_error {
            "" => "no branch of the `select` holds".to_owned(),
            text => format!("no branch of the `select` holds: {text}"),
        };
        for condition in looked_at {
            let Condition { label, location, needs } = &**condition;
            let _ = write!(message, "\n  `{label}` ({location})");
            for (at, (setting, need)) in needs.iter().enumerate() {
                let value = match self.read(setting) {
                    Ok(value) => value,
                    Err(stop) => return stop,
                };
                let word = if at == 0 { " needs" } else { "," };
                let _ = write!(message, "{word} `{setting}` = `{need}`");
                if !satisfies(&value, need) {
                    let _ = write!(message, ", which is `{value}`");
                }
            }
        }
        let hint =
            format!("add a branch for this case, or `\"{DEFAULT_CONDITION}\"` for all others");
        RuleError::new(Code::NoMatch, message).hint(hint).into()
    }
}

fn ambiguous(choice: &Choice, holding: &[(usize, &Branch, Arc<Condition>)]) -> RuleError {
    let mut message =
        "several branches of the `select` hold, and none asks for more than all others".to_owned();
    for (at, _, condition) in holding {
        let place = choice.places.as_ref().map(|places| places.of(*at)).unwrap_or_default();
        let _ = write!(message, "\n  `{}` ({place})", condition.label);
        for (at, (setting, need)) in condition.needs.iter().enumerate() {
            let word = if at == 0 { " needs" } else { "," };
            let _ = write!(message, "{word} `{setting}` = `{need}`");
        }
    }
    RuleError::new(Code::Ambiguous, message)
        .hint("make one of the conditions ask for what the others ask for as well")
}
