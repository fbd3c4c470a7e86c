//! Measures Maestro beside ninja and Bazel on generated graphs, and writes a page about it.
//!
//! It uses the programs as users do, by their command lines, and checks what it can: how many
//! actions ran, how many outputs are there. A run that did not do its work gives no figure.
//! `cargo xtask bench` installs what it needs and passes the path of Maestro.

mod emit;
mod generator;
mod loading;
mod machine;
mod measure;
mod project;
mod report;
mod tool;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

const USAGE: &str = "\
usage: maestro-bench --maestro PROGRAM [OPTION..]

  --maestro PROGRAM   the binary to measure, built in release
  --size N,..         numbers of actions; default 1k,10k,100k
  --runs N            runs of each size up to 10000, larger ones run once; default 3
  --seed N            seed of the generated graphs; default 1
  --out FILE          where the page goes; default standard output
  --work DIR          where graphs and caches are made and removed; default a temporary folder
  --only TOOL,..      maestro, ninja, bazel; default all
  --bazel-max N       Bazel takes part up to this size; default 10k
  --targets N         targets of which loading is measured, 0 for none; default 100k
  --project yes|no    whether a real project in C is built as well; default yes";

/// What to measure, and with what.
#[derive(Debug)]
struct Options {
    maestro: PathBuf,
    sizes: Vec<usize>,
    runs: usize,
    seed: u64,
    out: Option<PathBuf>,
    work: PathBuf,
    only: Vec<tool::Kind>,
    bazel_max: usize,
    targets: usize,
    project: bool,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match options(&arguments).and_then(|options| measure_all(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn options(arguments: &[String]) -> Result<Options> {
    let work = std::env::temp_dir().join(format!("maestro-bench-{}", std::process::id()));
    let mut options = Options {
        maestro: PathBuf::new(),
        sizes: vec![1_000, 10_000, 100_000],
        runs: 3,
        seed: 1,
        out: None,
        work,
        only: vec![tool::Kind::Maestro, tool::Kind::Ninja, tool::Kind::Bazel],
        bazel_max: 10_000,
        targets: 100_000,
        project: true,
    };
    let mut rest = arguments.iter();
    while let Some(flag) = rest.next() {
        let value = rest.next().with_context(|| format!("`{flag}` needs a value\n{USAGE}"))?;
        match flag.as_str() {
            "--maestro" => options.maestro = std::path::absolute(value)?,
            "--size" => options.sizes = list(value, size)?,
            "--runs" => options.runs = value.parse().context("`--runs` takes a number")?,
            "--seed" => options.seed = value.parse().context("`--seed` takes a number")?,
            "--out" => options.out = Some(PathBuf::from(value)),
            "--work" => options.work = std::path::absolute(value)?,
            "--bazel-max" => {
                options.bazel_max = size(value).context("`--bazel-max` takes a number")?
            }
            "--targets" => options.targets = size(value).context("`--targets` takes a number")?,
            "--project" => options.project = value == "yes",
            "--only" => options.only = list(value, tool::Kind::parse)?,
            other => bail!("`{other}` is not an option\n{USAGE}"),
        }
    }
    if options.maestro.as_os_str().is_empty() {
        bail!("`--maestro` is missing\n{USAGE}");
    }
    if options.runs == 0 || options.sizes.contains(&0) {
        bail!("sizes and runs start at 1\n{USAGE}");
    }
    Ok(options)
}

/// A number of actions: `1000`, `1k` or `1m`.
fn size(text: &str) -> Option<usize> {
    let (digits, factor) = match (text.strip_suffix('k'), text.strip_suffix('m')) {
        (Some(thousands), _) => (thousands, 1_000),
        (_, Some(millions)) => (millions, 1_000_000),
        (None, None) => (text, 1),
    };
    digits.parse::<usize>().ok()?.checked_mul(factor)
}

fn list<T>(text: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Vec<T>> {
    let item = |part: &str| parse(part).with_context(|| format!("`{part}` means nothing here"));
    text.split(',').map(item).collect()
}

fn measure_all(options: &Options) -> Result<()> {
    std::fs::create_dir_all(&options.work)
        .with_context(|| format!("cannot make {}", options.work.display()))?;
    let result = measure_sizes(options);
    std::fs::remove_dir_all(&options.work)
        .with_context(|| format!("cannot remove {}", options.work.display()))?;
    let page = result?;
    match &options.out {
        None => print!("{page}"),
        Some(file) => std::fs::write(file, page)
            .with_context(|| format!("cannot write {}", file.display()))?,
    }
    Ok(())
}

fn measure_sizes(options: &Options) -> Result<String> {
    let start_ms = measure::start_of_program(&options.maestro)?;
    let mut sizes = Vec::new();
    for size in &options.sizes {
        sizes.push(measure::size(options, *size)?);
    }
    let loading = match options.targets {
        0 => None,
        targets => Some(loading::measure(options, targets)?),
    };
    let project = if options.project { Some(project::measure(options)?) } else { None };
    let machine = machine::describe(&options.maestro)?;
    let seed = options.seed;
    Ok(report::page(&report::Results { machine, seed, start_ms, sizes, loading, project }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_may_count_thousands() {
        let check = |text: &str, expect: Option<usize>| assert_eq!(size(text), expect, "{text}");
        check("250", Some(250));
        check("10k", Some(10_000));
        check("k", None);
        check("1m", Some(1_000_000));
        check("1g", None);
        check("99999999999999999999k", None);
    }
}
