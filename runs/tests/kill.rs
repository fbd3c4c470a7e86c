//! Kills a run before and after everything that outlives its process, and has it go on.
//!
//! The process that is killed is this program again, with a folder in its environment. It asks at
//! each point whether it may go on, over a socket; this program counts, and sends SIGKILL instead
//! of an answer at the point whose turn it is. Then it starts the process anew without killing it,
//! and looks at the end: what the run says of itself, and what the far side has seen.
//!
//! The far side is a server in this program, outside of what is killed. It writes down every
//! request that it hears, and does those whose key is new; or, where it takes no keys, all.

mod kill {
    pub mod child;
    pub mod far_side;
    pub mod harness;
}

fn main() {
    match std::env::var_os(kill::harness::CHILD) {
        Some(folder) => kill::child::main(std::path::Path::new(&folder)),
        None => kill::harness::main(),
    }
}
