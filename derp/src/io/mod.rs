//! Sockets, clocks and tasks around the pure core.

pub mod client;
pub mod server;
pub mod upgrade;
