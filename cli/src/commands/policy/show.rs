//! `maestro policy show` and `maestro policy schema`: what comes with Maestro.

use std::process::ExitCode;

use anyhow::Result;
use maestro_core::policy::DecisionPoint;
use maestro_policy::{BUILTIN, LIBRARY, LIBRARY_DATA, Shipped};
use serde_json::{Value, json};

use super::point;
use crate::args::{Global, OutputFormat, PolicySchemaArgs, PolicyShowArgs};
use crate::exit::Failure;

/// Runs `policy show`.
pub fn show(global: &Global, args: &PolicyShowArgs) -> Result<ExitCode> {
    let json = global.output == OutputFormat::Json;
    match &args.name {
        None if args.data => print!("{LIBRARY_DATA}"),
        None if json => println!("{}", json!({"builtin": list(BUILTIN), "library": list(LIBRARY)})),
        None => {
            println!("built in, always asked unless `[policy] default = false`:");
            print_list(BUILTIN);
            println!("for copying: `maestro policy show NAME > policy/NAME.rego`");
            print_list(LIBRARY);
        }
        Some(name) => {
            let shipped = find(name)?;
            let text = if args.tests { shipped.tests } else { shipped.text };
            match json {
                true => println!("{}", json!({"name": shipped.name, "text": text})),
                false => print!("{text}"),
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs `policy schema`.
pub fn schema(global: &Global, args: &PolicySchemaArgs) -> Result<ExitCode> {
    let json = global.output == OutputFormat::Json;
    match &args.point {
        Some(name) => println!("{}", serde_json::to_string_pretty(&point(name)?.schema())?),
        None if json => {
            let point = |point: &DecisionPoint| {
                let (name, about) = (point.name(), point.about());
                json!({"name": name, "about": about, "schema": point.schema()})
            };
            let points: Vec<Value> = DecisionPoint::ALL.iter().map(point).collect();
            println!("{}", json!({"points": points}));
        }
        None => {
            for point in DecisionPoint::ALL {
                println!("{:<10}  {}", point.name(), point.about());
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(shipped: &[Shipped]) -> Vec<Value> {
    shipped.iter().map(|own| json!({"name": own.name, "about": own.about})).collect()
}

fn print_list(shipped: &[Shipped]) {
    for own in shipped {
        println!("  {:<23}  {}", own.name, own.about);
    }
}

fn find(name: &str) -> Result<&'static Shipped> {
    let all = || BUILTIN.iter().chain(LIBRARY);
    let unknown = || {
        let names: Vec<&str> = all().map(|shipped| shipped.name).collect();
        Failure::input(format!("no policy called `{name}` comes with Maestro"))
            .hint(format!("they are {}", names.join(", ")))
    };
    Ok(all().find(|shipped| shipped.name == name).ok_or_else(unknown)?)
}
