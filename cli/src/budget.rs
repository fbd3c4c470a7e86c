//! `[budget]` of the project file, and the ledger that it is about.
//!
//! A user's own configuration wins over that of a project: what somebody may spend on their machine
//! is not for a repository to say.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use maestro_core::limits::BUDGET_RATE_MINUTES_MAX;
use maestro_core::quantity;
use maestro_core::run::Cap;
use maestro_core::tenant::{Rate, TenantCaps, TenantName};
use maestro_executor::storage::StorageError;
use maestro_runs::Checkpoints;
use maestro_runs::ledger::SqliteLedger;
use serde::de::{self, Deserialize, Deserializer, Visitor};

use crate::exit::Failure;
use crate::runs::SystemClock;

/// The table `[budget]`.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct BudgetConfig {
    /// Who pays: all projects that say the same name share caps and accounts. The project's own
    /// name where it is absent.
    pub tenant: Option<String>,
    /// Most that is spent in a day, UTC.
    pub day: CapConfig,
    /// Most that is spent in a month, UTC.
    pub month: CapConfig,
    /// How fast it may be spent.
    pub rate: Option<RateConfig>,
}

/// The cap of a period; what is absent is not bounded.
#[derive(Clone, Copy, Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct CapConfig {
    /// Dollars.
    usd: Option<Money>,
    /// Dollars; passing it is said, and stops nothing.
    soft_usd: Option<Money>,
    /// Tokens.
    tokens: Option<u64>,
    /// Tokens; passing it is said, and stops nothing.
    soft_tokens: Option<u64>,
}

/// A rate: more than so much within so many minutes opens the breaker.
#[derive(Clone, Copy, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RateConfig {
    /// Dollars.
    usd: Money,
    /// Minutes, 1 to 1440.
    minutes: u32,
}

/// Micro-dollars, written as `5`, `0.25` or `"5usd"`.
#[derive(Clone, Copy, Debug)]
struct Money(u64);

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Amount;
        impl Amount {
            fn read<E: de::Error>(text: &str) -> Result<Money, E> {
                let micros = quantity::usd_micros(text).map(Money);
                micros.ok_or_else(|| {
                    E::custom(format!(
                        "`{text}` is no amount of money: write `5`, `0.25` or `\"5usd\"`, with up \
                         to six digits after the point"
                    ))
                })
            }
        }
        impl Visitor<'_> for Amount {
            type Value = Money;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an amount of money, such as `5`, `0.25` or `\"5usd\"`")
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Money, E> {
                Self::read(&value.to_string())
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Money, E> {
                Self::read(&value.to_string())
            }
            fn visit_str<E: de::Error>(self, value: &str) -> Result<Money, E> {
                Self::read(value)
            }
        }
        deserializer.deserialize_any(Amount)
    }
}

impl CapConfig {
    fn cap(self, period: &str) -> Result<Cap> {
        let micros = |money: Option<Money>| money.map(|money| money.0);
        let cap = Cap {
            usd_micros: micros(self.usd),
            tokens: self.tokens,
            soft_usd_micros: micros(self.soft_usd),
            soft_tokens: self.soft_tokens,
        };
        let above = |soft: Option<u64>, hard: Option<u64>| {
            soft.zip(hard).is_some_and(|(soft, hard)| soft > hard)
        };
        match above(cap.soft_usd_micros, cap.usd_micros) || above(cap.soft_tokens, cap.tokens) {
            false => Ok(cap),
            true => Err(Failure::input(format!(
                "`{period}` of `[budget]` has a soft cap above its hard one"
            ))
            .hint("a soft cap warns before the hard one stops")
            .into()),
        }
    }
}

impl BudgetConfig {
    /// Who pays, where the project has this name.
    pub fn tenant(&self, project: &str) -> Result<TenantName> {
        let name = self.tenant.as_deref().unwrap_or(project);
        TenantName::new(name).map_err(|error| {
            let hint = "name one as `tenant` in `[budget]` of maestro.toml";
            Failure::input(error.to_string()).hint(hint).into()
        })
    }

    /// What may be spent.
    pub fn caps(&self) -> Result<TenantCaps> {
        let rate = self.rate.map(|RateConfig { usd, minutes }| Rate { usd_micros: usd.0, minutes });
        if let Some(rate) =
            rate.filter(|rate| !(1..=BUDGET_RATE_MINUTES_MAX).contains(&rate.minutes))
        {
            let message = format!("`rate` of `[budget]` looks at {} minutes", rate.minutes);
            let hint = format!("take 1 to {BUDGET_RATE_MINUTES_MAX}; a day has a cap of its own");
            return Err(Failure::input(message).hint(hint).into());
        }
        Ok(TenantCaps { day: self.day.cap("day")?, month: self.month.cap("month")?, rate })
    }

    /// The ledger of whoever pays, in the folder of the state.
    pub fn ledger(
        &self,
        folder: &Path,
        project: &str,
        checkpoints: Arc<dyn Checkpoints>,
    ) -> Result<SqliteLedger> {
        let owner = (self.tenant(project)?, self.caps()?);
        Ok(SqliteLedger::new(&folder.join("budget.db"), owner, Arc::new(SystemClock), checkpoints))
    }
}

/// The name of the project that a folder is.
pub fn project_name(workspace: &Path) -> String {
    workspace.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// An error of the ledger, with what helps.
pub fn failure(error: &StorageError) -> Failure {
    let failure = Failure::environment(error.to_string());
    match error {
        StorageError::Failed { damaged: true, place, .. } => failure.hint(format!(
            "move `{place}` and the files beside it away: what was spent until now is forgotten"
        )),
        StorageError::Failed { .. } => {
            failure.hint("`MAESTRO_STATE` names another folder for the state")
        }
        StorageError::Newer { .. } => {
            failure.hint("use the version of Maestro that wrote it, or a later one")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_read_exactly_or_not_at_all() {
        let check = |text: &str, expect: Result<u64, &str>| {
            let caps = toml::from_str::<BudgetConfig>(text)
                .map_err(|error| error.message().to_owned())
                .and_then(|config| config.caps().map_err(|error| error.to_string()));
            match (caps, expect) {
                (Ok(caps), Ok(micros)) => assert_eq!(caps.day.usd_micros, Some(micros), "{text}"),
                (Err(error), Err(part)) => assert!(error.contains(part), "{text}: {error}"),
                (other, _) => panic!("{text}: {other:?}"),
            }
        };
        check("day = { usd = 5 }", Ok(5_000_000));
        check("day = { usd = 0.1, soft-usd = 0.05 }", Ok(100_000));
        check("day = { usd = \"2.5usd\" }\nrate = { usd = 1, minutes = 10 }", Ok(2_500_000));
        check("day = { usd = -1 }", Err("`-1` is no amount of money"));
        check("day = { usd = 0.0000001 }", Err("is no amount of money"));
        check("day = { usd = true }", Err("an amount of money, such as"));
        check("day = { usd = 1, soft-usd = 2 }", Err("a soft cap above its hard one"));
        check("day = { usd = 1 }\nrate = { usd = 1, minutes = 0 }", Err("looks at 0 minutes"));
        check("week = { usd = 1 }", Err("unknown field `week`"));
    }

    #[test]
    fn the_project_pays_where_no_tenant_is_named() {
        let config = BudgetConfig::default();
        assert_eq!(config.tenant("shop").expect("a name").as_str(), "shop");
        assert!(config.tenant("").is_err(), "the root of a file system has no name");
        let named = BudgetConfig { tenant: Some("team".to_owned()), ..config };
        assert_eq!(named.tenant("shop").expect("a name").as_str(), "team");
    }
}
