//! `cargo xtask bench runs`: what runs cost beyond their steps, as a page.
//!
//! Rates and memory come from `runs/examples/load.rs`, which drives real templates, policies and
//! journals over steps that do nothing. Commands are timed as a user runs them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process;
use crate::project::Project;

/// Where the page goes.
const PAGE: &str = "docs/performance-runs.md";
/// How often what is short is measured; the median counts.
const REPEATS: usize = 5;

/// Programs and a folder to work in.
struct Bench {
    load: PathBuf,
    maestro: PathBuf,
    work: PathBuf,
}

/// Measures, and writes the page.
pub(super) fn run(project: &Project) -> Result<()> {
    let mut build = project.cargo();
    build.args(["build", "--locked", "--release", "--package", "maestro-runs"]);
    process::run(build.args(["--example", "load"]))?;
    let maestro = project.build_release("maestro-cli", "maestro")?;
    let work = std::env::temp_dir().join(format!("maestro-bench-runs-{}", std::process::id()));
    std::fs::create_dir_all(&work)?;
    std::fs::write(work.join("maestro.toml"), "")?;
    let load = project.target.join("release/examples/load");
    let bench = Bench { load, maestro, work };
    let page = bench.page();
    std::fs::remove_dir_all(&bench.work)?;
    std::fs::write(project.root.join(PAGE), page?).with_context(|| format!("cannot write {PAGE}"))
}

impl Bench {
    fn page(&self) -> Result<String> {
        let mut page = String::from(
            "# What runs cost\n\n\
             Written by `cargo xtask bench runs`; steps do nothing unless the table says what.\n\
             Every event that must be durable is synced before anything is done on it.\n\n",
        );
        writeln!(page, "{}\n", machine())?;
        page.push_str("| what | figure | must reach |\n|---|---|---|\n");
        self.chains(&mut page)?;
        self.many(&mut page)?;
        self.long(&mut page)?;
        Ok(page)
    }

    fn chains(&self, page: &mut String) -> Result<()> {
        let mut chains = Vec::new();
        for _ in 0..REPEATS {
            chains.push(self.load(&["chain", "40"])?);
        }
        let median = |name: &str| {
            let mut all: Vec<f64> = chains.iter().filter_map(|c| c[name].as_f64()).collect();
            all.sort_by(f64::total_cmp);
            all.get(all.len() / 2).copied().unwrap_or(f64::NAN) / 1e3
        };
        let whole = median("micros_per_task");
        let (policy, journal) =
            (median("policy_micros_per_task"), median("journal_micros_per_task"));
        writeln!(page, "| a step of a chain of 40, uncached | {whole:.2} ms | 5 ms |")?;
        writeln!(page, "| … of it asking policy | {policy:.2} ms | |")?;
        writeln!(page, "| … of it appending to the journal | {journal:.2} ms | |")?;
        let work = (0..40)
            .map(|n| {
                format!(
                    "  - id: s{n}\n    uses: run.command\n    \
                     with: {{ command: [sleep, \"0.01\"], repeatable: true }}\n"
                )
            })
            .collect::<String>();
        let slow = self.pipeline("work", &work)?;
        writeln!(
            page,
            "| `maestro run`: 40 commands of 10 ms, one after the other | {slow:.2} s | |"
        )?;
        let labels: String =
            (0..40).map(|n| format!("  - id: s{n}\n    uses: //:t{n}\n")).collect();
        let mut targets = String::from("load(\"@maestro//rules:basics.star\", \"genrule\")\n");
        for n in 0..40 {
            writeln!(
                targets,
                "genrule(name = \"t{n}\", outs = [\"t{n}.txt\"], cmd = \"echo {n} > $@\")"
            )?;
        }
        std::fs::write(self.work.join("maestro.star"), targets)?;
        self.pipeline("labels", &labels)?;
        // What is not of a step: the program that starts, its templates, policies and journal.
        let bare = self.shortest("bare", "  - id: s0\n    uses: //:t0\n")?;
        let cached = (self.shortest("labels", &labels)? - bare) / 39.0 * 1e3;
        writeln!(page, "| a step that is a cached target | {cached:.1} ms | 0.5 ms |")?;
        Ok(())
    }

    fn many(&self, page: &mut String) -> Result<()> {
        let many = self.load(&["many", "1000", "10"])?;
        let rate = many["tasks_per_second"].as_f64().unwrap_or_default();
        let memory = many["memory_bytes"].as_f64().unwrap_or_default() / f64::from(1 << 20);
        writeln!(page, "| 1,000 runs of 10 steps in one process | {rate:.0} steps/s | 1,000 |")?;
        writeln!(page, "| … memory | {memory:.0} MiB | 1,024 MiB |")?;
        let syncs = self.syncs(&["many", "1000", "10"])? as f64 / 10_000.0;
        writeln!(page, "| … syncs a step, as strace counts them | {syncs:.3} | |")?;
        Ok(())
    }

    fn long(&self, page: &mut String) -> Result<()> {
        for (what, arguments) in [
            ("a run of 10,000 steps", ["chain", "10000"]),
            ("a step over 10,000 items", ["foreach", "10000"]),
        ] {
            let state = self.work.join("state-of-long");
            std::fs::create_dir_all(&state)?;
            let mut load = Command::new(&self.load);
            let long = read(load.args(arguments).env("LOAD_STATE", &state))?;
            let small = self.load(&[arguments[0], "1000"])?;
            let per_task = |run: &Value| run["micros_per_task"].as_f64().unwrap_or(f64::NAN) / 1e3;
            writeln!(
                page,
                "| {what} | {:.2} ms a step, {:.2} ms with 1,000 | the same |",
                per_task(&long),
                per_task(&small)
            )?;
            let status = self.timed(&["status", "r0"], &state)?.as_secs_f64() * 1e3;
            writeln!(page, "| … `maestro status` of it | {status:.0} ms | 100 ms |")?;
            std::fs::remove_dir_all(&state)?;
        }
        Ok(())
    }

    fn load(&self, arguments: &[&str]) -> Result<Value> {
        read(Command::new(&self.load).args(arguments))
    }

    /// How often a file is forced to the disk.
    fn syncs(&self, arguments: &[&str]) -> Result<u64> {
        let counts = self.work.join("syncs");
        let mut strace = Command::new("strace");
        strace.args(["-f", "-c", "-e", "trace=fsync,fdatasync", "-o"]).arg(&counts);
        read(strace.arg(&self.load).args(arguments))?;
        let table = std::fs::read_to_string(&counts)?;
        let calls = |line: &str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let name = fields.last()?;
            matches!(*name, "fsync" | "fdatasync").then(|| fields.get(3)?.parse::<u64>().ok())?
        };
        Ok(table.lines().filter_map(calls).sum())
    }

    /// Seconds of a run of a pipeline, as a user runs it. Its file is written once: what was
    /// touched is looked at again by a build.
    fn pipeline(&self, name: &str, steps: &str) -> Result<f64> {
        let text = format!("name: {name}\nsteps:\n{steps}");
        let file = self.work.join(format!("{name}.pipeline.yaml"));
        if !file.is_file() {
            std::fs::write(&file, text)?;
        }
        let took = self.timed(&["run", "--template", name], &self.work.join("state"))?;
        Ok(took.as_secs_f64())
    }

    /// The least of a few runs of a pipeline, in seconds.
    fn shortest(&self, name: &str, steps: &str) -> Result<f64> {
        let mut least = f64::INFINITY;
        for _ in 0..REPEATS {
            least = least.min(self.pipeline(name, steps)?);
        }
        Ok(least)
    }

    fn timed(&self, arguments: &[&str], state: &Path) -> Result<Duration> {
        let mut command = Command::new(&self.maestro);
        command
            .args(arguments)
            .current_dir(&self.work)
            .env("MAESTRO_STATE", state)
            .env("MAESTRO_CACHE", self.work.join("cache"));
        let begun = Instant::now();
        let output = command.output().context("maestro does not start")?;
        let took = begun.elapsed();
        if !output.status.success() {
            bail!("maestro {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(took)
    }
}

/// The JSON that a program prints.
fn read(command: &mut Command) -> Result<Value> {
    let text = process::output(command)?;
    serde_json::from_str(&text).with_context(|| format!("`{text}` is no JSON"))
}

/// On which machine this was measured.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("an unknown processor", |(_, name)| name);
    format!("Measured on {cores} cores of {model}.")
}
