//! Whole nodes on loopback: real packets, a real relay, and everything that can
//! go wrong between them.

mod hostile;
mod paths;
mod peers;
mod restarts;
mod support;
