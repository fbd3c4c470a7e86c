//! Processes that outlived the Maestro that began them.
//!
//! Nothing ends them when that one is killed. So whatever may run for long in the name of an
//! effect has the key of the effect in its environment, and before the same effect is asked about
//! or tried again, every process that has it is ended. A program that is to leave something
//! running starts it without that variable.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// The variable by which a program knows the key of its effect.
pub const KEY_VARIABLE: &str = "MAESTRO_IDEMPOTENCY_KEY";
/// How often it is looked for what an earlier try has left.
const TRIES: u32 = 100;
/// How long it is waited between these looks.
const LOOK: Duration = Duration::from_millis(10);

/// Ends the processes that an earlier try of the effect with this key has left, and waits until
/// they are gone.
pub async fn end_leftovers(key: &str) {
    let entry = format!("{KEY_VARIABLE}={key}");
    for _ in 0..TRIES {
        let left: Vec<Pid> = processes().filter(|id| has_variable(*id, &entry)).collect();
        if left.is_empty() {
            return;
        }
        for process in left {
            // It may have ended by itself.
            let _ = kill_process(process, Signal::KILL);
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn processes() -> impl Iterator<Item = Pid> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
}

/// Whether a process was started with this entry in its environment, as far as we may know.
fn has_variable(process: Pid, entry: &str) -> bool {
    let file = format!("/proc/{}/environ", process.as_raw_nonzero());
    let environment = std::fs::read(file).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|found| found == entry.as_bytes())
}
