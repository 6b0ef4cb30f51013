//! Whole nodes on loopback: real packets, a real relay, and everything that can
//! go wrong between them.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod early;
mod hostile;
mod many;
mod paths;
mod peers;
mod restarts;
mod standby;
mod support;
