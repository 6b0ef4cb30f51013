//! The relay and its clients over loopback TCP.
#![cfg(feature = "io")]
#![expect(
    clippy::unwrap_used,
    reason = "the helpers of tests may fail like tests"
)]

mod clock;
mod common;
mod hostile;
mod region;
mod relay;
mod tls;
mod ways;
