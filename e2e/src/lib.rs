//! Drives `cw` as users do, from outside: command lines, a terminal, the local socket.
//!
//! A *scenario* is what people do, written once: it types commands on hosts, waits for what they
//! must lead to, and records a trace in which everything that differs from run to run has been
//! replaced. A *substrate* is where the hosts are: processes on this machine, network namespaces
//! with links between them that can be cut, containers, pods ([`substrate::Substrate`]). The same
//! scenario leaves the same trace on each of them.
//!
//! Nothing here sleeps and hopes. Whatever is not told by an event is probed by [`wait_until`]
//! until it holds or its time is up. Every command has a limit. What was started is ended by its
//! process number when the test ends, also when it fails, and the logs of relay and nodes are
//! then printed. A line of level ERROR in a log fails a test that otherwise passed.

pub mod authority;
pub mod boxes;
pub mod capture;
pub mod case;
mod cluster;
pub mod cw;
pub mod docker;
pub mod faults;
pub mod forged;
pub mod front;
pub mod gateway;
pub mod history;
pub mod home;
pub mod https;
pub mod kind;
pub mod lab;
pub mod local;
pub mod member;
pub mod namespaces;
pub mod netns;
pub mod postgres;
pub mod processes;
pub mod proxy;
pub mod pty;
pub mod relay;
pub mod running;
pub mod scenario;
pub mod steps;
pub mod substrate;
mod tool;
pub mod trace;
mod wait;
pub mod web;
pub mod wire;

pub use case::case;
pub use cw::{Cw, Done};
pub use local::Local;
pub use wait::{PATIENCE, wait_until};
