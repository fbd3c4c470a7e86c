//! The program's allocator: mimalloc, with a bound on what one step of a build file or of a policy
//! may ask for.
//!
//! An evaluation of build files makes and drops a hundred small pieces for each target; the
//! system's allocator took a third of its time. C++ libraries keep using the system's.
//!
//! An interpreter looks at its memory, or at the clock, between steps, so one step could take all
//! that the machine has. A request of that size cannot be answered by an error, since an allocator
//! must not unwind; the program says which file asked, and ends. Nothing was built by then: build
//! files are evaluated before anything runs.

use std::alloc::{GlobalAlloc, Layout};

use maestro_core::limits::STARLARK_STEP_BYTES_MAX;
use mimalloc::MiMalloc;

/// The exit code of a wrong build file.
const EXIT_INPUT: i32 = 2;

/// The allocator behind a bound.
pub struct Bounded;

impl Bounded {
    #[inline]
    fn check(bytes: usize) {
        if bytes >= STARLARK_STEP_BYTES_MAX {
            refuse_if_evaluating(bytes);
        }
    }
}

/// Ends the program if this thread evaluates a build file or a policy.
#[cold]
fn refuse_if_evaluating(bytes: usize) {
    maestro_rules::evaluated_file(|file| {
        if !file.is_empty() {
            refuse("MAE0103", file, bytes);
        }
    });
    if maestro_policy::is_evaluating() {
        refuse("MAE0710", "policy", bytes);
    }
}

/// Says who asked for too much, and ends the program.
fn refuse(code: &str, who: &str, bytes: usize) -> ! {
    let mut text = Line::default();
    text.push("error[");
    text.push(code);
    text.push("]: one step of `");
    text.push(who);
    text.push("` asks for ");
    text.push_number(bytes);
    text.push(" bytes of memory, the limit is ");
    text.push_number(STARLARK_STEP_BYTES_MAX);
    text.push("\n");
    let _ = rustix::io::write(rustix::stdio::stderr(), text.bytes());
    // SAFETY: `_exit` takes any number and does not return; no destructor runs, which is meant:
    // while build files are evaluated the process holds no half-written state, and what a run
    // holds is in its journal, which any end of the process must leave readable.
    unsafe { libc::_exit(EXIT_INPUT) }
}

/// Gives pages back to the system that hold nothing any more. To be called after a phase that
/// leaves much behind: its memory lies in the part of the heap that belongs to its thread, where
/// the next phase does not look.
pub fn give_back() {
    // SAFETY: `mi_collect` takes any value and touches nothing that is in use.
    unsafe { mi_collect(true) }
}

unsafe extern "C" {
    /// Part of mimalloc, which the crate does not wrap.
    fn mi_collect(force: bool);
}

/// A text of bounded length that needs no memory of the heap.
struct Line {
    bytes: [u8; 1024],
    length: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self { bytes: [0; 1024], length: 0 }
    }
}

impl Line {
    fn push(&mut self, text: &str) {
        for byte in text.bytes() {
            if let Some(slot) = self.bytes.get_mut(self.length) {
                *slot = byte;
                self.length += 1;
            }
        }
    }

    fn push_number(&mut self, number: usize) {
        let mut divisor = 1;
        while number / divisor >= 10 {
            divisor *= 10;
        }
        while divisor > 0 {
            let digit = (number / divisor % 10) as u8;
            self.push(std::str::from_utf8(&[b'0' + digit]).unwrap_or_default());
            divisor /= 10;
        }
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

// SAFETY: every call goes to mimalloc with the arguments as they are; `check` neither
// allocates nor unwinds.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::check(layout.size());
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `GlobalAlloc::dealloc`.
        unsafe { MiMalloc.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::check(layout.size());
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc_zeroed`.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::check(size);
        // SAFETY: the caller keeps the contract of `GlobalAlloc::realloc`.
        unsafe { MiMalloc.realloc(pointer, layout, size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_hold_texts_and_numbers_without_a_heap() {
        let mut line = Line::default();
        line.push("a");
        line.push_number(0);
        line.push_number(1_230_987);
        assert_eq!(line.bytes(), b"a01230987");
        line.push(&"x".repeat(4000));
        assert_eq!(line.bytes().len(), 1024);
    }
}
