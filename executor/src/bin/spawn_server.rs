//! A program that is nothing but a spawn server: what the tests of this crate start.
//!
//! `maestro` itself is its own spawn server; see `maestro_executor::sandbox`.

fn main() {
    maestro_executor::sandbox::spawn_server_main()
}
