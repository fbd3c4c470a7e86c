//! What a sandboxed action costs beyond the program that it runs.
//!
//! The bound is generous, since tests share their machine and are not optimized; the figure that
//! is printed (`--nocapture`) is what to look at.

#[path = "sandbox/support.rs"]
mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use support::world;

/// Actions in one measurement.
const ACTIONS: u32 = 200;

#[test]
fn an_action_costs_little_more_than_its_program() {
    let plain = Instant::now();
    for _ in 0..ACTIONS {
        let status = Command::new("/bin/sh").args(["-c", ":"]).status().expect("a shell");
        assert!(status.success());
    }
    let plain = plain.elapsed() / ACTIONS;
    let world = world();
    for jobs in [1u32, 2] {
        let action = |slot| {
            world
                .script("echo x > out/o")
                .input("p/a", "x")
                .file("out/o")
                .run_in(slot)
                .expect("runs")
        };
        (0..jobs).for_each(|slot| drop(action(slot)));
        let began = Instant::now();
        std::thread::scope(|scope| {
            for slot in 0..jobs {
                scope.spawn(move || (0..ACTIONS / jobs).for_each(|_| drop(action(slot))));
            }
        });
        let each = began.elapsed() / ACTIONS;
        println!("{jobs} jobs: {each:?} an action, {plain:?} for the plain program");
        assert!(each < Duration::from_millis(1000), "{each:?}");
    }
}
