//! `maestro budget`: what the tenant of this workspace may spend, has spent, and why it may not.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use maestro_core::run::budget::usd;
use maestro_core::run::{Amount, Cap};
use maestro_core::tenant::{Accounts, Period, TenantCaps, utc};
use maestro_executor::ledger::{Ledger, LedgerEntry, LedgerEvent};
use maestro_runs::NoCheckpoints;
use maestro_runs::driver::Clock as _;
use maestro_runs::ledger::SqliteLedger;
use serde_json::{Value, json};

use crate::args::budget::{BudgetArgs, BudgetCommand};
use crate::args::{Global, OutputFormat};
use crate::budget::{failure, project_name};
use crate::config::{self, Config};
use crate::exit::Failure;
use crate::runs::{SystemClock, identity, state};

/// Runs the command.
pub fn budget(global: &Global, args: &BudgetArgs) -> Result<ExitCode> {
    let workspace = Config::load(global)?.workspace;
    let settings = config::budget(&workspace)?;
    let folder = state::folder()?;
    let project = project_name(&workspace);
    let ledger = settings.ledger(&folder, &project, Arc::new(NoCheckpoints))?;
    match &args.command {
        None => show(global, &ledger, &settings.caps()?)?,
        Some(BudgetCommand::Reset { reason }) => reset(&ledger, &folder, reason)?,
        Some(BudgetCommand::History { limit }) => history(global, &ledger, *limit)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn show(global: &Global, ledger: &SqliteLedger, caps: &TenantCaps) -> Result<()> {
    let accounts = ledger.accounts().map_err(|error| failure(&error))?;
    let now_ms = SystemClock.now_ms();
    match global.output {
        OutputFormat::Json => println!("{}", report(ledger, caps, &accounts, now_ms)),
        _ => print!("{}", text(ledger, caps, &accounts, now_ms)),
    }
    Ok(())
}

fn text(ledger: &SqliteLedger, caps: &TenantCaps, accounts: &Accounts, now_ms: u64) -> String {
    let mut lines = vec![format!("tenant {}", ledger.tenant())];
    for period in Period::ALL {
        let (span, cap, used) = (period.span(now_ms), caps.of(period), accounts.of(period));
        let (name, label) = (period.name(), period.label(span));
        let spent = amount(used.settled, cap);
        let reserved = amount(used.reserved, Cap::default());
        lines.push(format!("{name:<6} {label:<11} spent {spent}; reserved {reserved}"));
        for (soft, unit) in [
            (cap.soft_usd_micros.map(usd), "USD"),
            (cap.soft_tokens.map(|tokens| tokens.to_string()), "tokens"),
        ] {
            if let Some(soft) = soft {
                lines.push(format!("       warns above {soft} {unit}"));
            }
        }
    }
    if let Some(rate) = caps.rate {
        let (most, minutes) = (usd(rate.usd_micros), rate.minutes);
        lines.push(format!("rate   {most} USD within {minutes} min"));
    }
    match accounts.breaker {
        None => lines.push("breaker closed".to_owned()),
        Some(breaker) => {
            lines.push(breaker.message(ledger.tenant()));
            lines.push("hint: maestro budget reset --reason …".to_owned());
        }
    }
    lines.join("\n") + "\n"
}

/// An amount beside its caps.
fn amount(amount: Amount, cap: Cap) -> String {
    let of = |cap: Option<String>| cap.map(|cap| format!(" of {cap}")).unwrap_or_default();
    let money = of(cap.usd_micros.map(usd));
    let tokens = of(cap.tokens.map(|tokens| tokens.to_string()));
    format!("{}{money} USD, {}{tokens} tokens", usd(amount.usd_micros), amount.tokens)
}

fn report(ledger: &SqliteLedger, caps: &TenantCaps, accounts: &Accounts, now_ms: u64) -> Value {
    let periods = Period::ALL.map(|period| {
        let (span, used) = (period.span(now_ms), accounts.of(period));
        json!({
            "period": period.name(), "name": period.label(span),
            "start_ms": span.start_ms, "end_ms": span.end_ms,
            "settled": used.settled, "reserved": used.reserved, "cap": caps.of(period),
        })
    });
    json!({
        "tenant": ledger.tenant(), "periods": periods, "rate": caps.rate,
        "breaker": accounts.breaker,
    })
}

fn reset(ledger: &SqliteLedger, folder: &std::path::Path, reason: &str) -> Result<()> {
    if reason.trim().is_empty() {
        return Err(Failure::input("`--reason` is empty")
            .hint("say why calls may be made again: it stands in the ledger's history")
            .into());
    }
    let by = identity::here(folder)?.to_string();
    match ledger.close_breaker(&by, reason).map_err(|error| failure(&error))? {
        true => eprintln!("closed the breaker of tenant `{}`", ledger.tenant()),
        false => eprintln!("the breaker of tenant `{}` is not open", ledger.tenant()),
    }
    Ok(())
}

fn history(global: &Global, ledger: &SqliteLedger, limit: usize) -> Result<()> {
    let entries = ledger.history(limit).map_err(|error| failure(&error))?;
    for entry in &entries {
        match global.output {
            OutputFormat::Json => println!(
                "{}",
                json!({"number": entry.number, "at_ms": entry.at_ms, "event": entry.event})
            ),
            _ => println!("{}", line(ledger, entry)),
        }
    }
    Ok(())
}

fn line(ledger: &SqliteLedger, entry: &LedgerEntry) -> String {
    let sum = |sum: Amount| amount(sum, Cap::default());
    let what = match &entry.event {
        LedgerEvent::Reserved { key, amount } => {
            format!("{} {}: reserved {}", key.holder, key.call, sum(*amount))
        }
        LedgerEvent::Settled { key, spent, .. } => {
            format!("{} {}: spent {}", key.holder, key.call, sum(*spent))
        }
        LedgerEvent::BreakerOpened { breaker } => breaker.message(ledger.tenant()),
        LedgerEvent::BreakerClosed { by, reason } => format!("{by} closed the breaker: {reason}"),
    };
    format!("{}  {what}", utc(entry.at_ms))
}
