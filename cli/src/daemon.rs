//! The daemon: a witness of what happens in a workspace, never a builder.
//!
//! It answers one question over a Unix socket: what changed since the snapshot of a request was
//! written? All else, the building included, stays in the process that the user started, which does
//! without an answer whatever it does without a daemon. So with and without it results are the
//! same, and a daemon that is slow, stopped, killed or of another version costs time alone.
//! The design is in `docs/design/daemon.md`.
//!
//! | module | what it owns |
//! |---|---|
//! | [`place`] | where daemon and clients meet: lock, socket, log |
//! | [`message`] | what they say to each other |
//! | [`client`] | asking, starting and ending a daemon |
//! | [`server`] | the daemon's life: one per workspace, ends when idle |
//! | [`vigil`] | one snapshot and its witness, on a thread of its own |

pub mod client;
pub mod message;
pub mod place;
pub mod server;
mod vigil;
