//! Processes that end with whoever waits for them: a program and all that it began.
//!
//! Killing a child alone leaves its own children behind, such as the transports of git. A program
//! that is started as the leader of a group of its own takes them along.

use rustix::process::{Pid, Signal, kill_process_group};

/// The group that a child leads, which is killed when this is dropped.
///
/// The child must have been started with `process_group(0)`.
#[derive(Debug)]
pub struct ProcessGroup(Option<Pid>);

impl ProcessGroup {
    /// The group of a child; `None` is one that has ended.
    pub fn of(child: Option<u32>) -> Self {
        Self(child.and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw))
    }

    /// Leaves alone what the child left behind: it ended in order.
    pub fn release(&mut self) {
        self.0 = None;
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It may have ended by itself.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}
