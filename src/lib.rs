#![doc = include_str!("../README.md")]
//!
//! This crate is the program: `verb` (what users type, one file each), `rpc` (a call on a
//! stream), `node` (the daemon), `relay` and `uplink` (both ends of the coordination), `term`
//! (the user's terminal), `ws` (a node spoken to without a relay), `ssh` (a node for who has only `ssh`),
//! `mcp` (the verbs as an agent's tools). The product itself is in the crates `session`, `mesh` and `derp`.

pub mod cli;
pub mod client;
pub mod config;
pub mod coord;
pub mod error;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod home;
pub mod locator;
mod logins;
mod mcp;
pub mod node;
pub mod paper;
pub mod relay;
pub mod rpc;
pub mod show;
pub mod ssh;
pub mod term;
pub mod uplink;
pub mod verb;
mod ws;

/// Bytes from the operating system.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

/// Runs the command line of this process; the only place that decides its exit status.
#[must_use]
pub fn main() -> std::process::ExitCode {
    cli::run()
}
