//! Measures `cw` beside its peers, in one run, in alternating rounds.
//!
//! `cw-bench rpc <cw>`: a call between two nodes against raw quinn on the same path, bulk through
//! one stream, the same through the relay, and whole commands of the program `<cw>`. Printed are
//! medians over the rounds, the ratio and the machine's load. Nothing here passes or fails.
//!
//! `cw-bench relay <cw> [nodes [networks]]`: the relay under that many simulated nodes.
//!
//! `cw-bench session <cw> [part …]`: sessions beside those of the terminal multiplexers that are
//! on the `PATH`.
//!
//! `cw-bench revoke <cw>`: how soon who was revoked is cut off.
//!
//! `cw-bench flood <cw> [seconds]`: calls in a flood of forged packets.
//!
//! `cw-bench stalled <cw> [connections]`: a relay while so many stall in their handshake.
//!
//! `cw-bench soak <cw> [seconds] [together]`: an hour of coming and going, and what it leaves in
//! memory; by two relays, of which one dies each minute, if they are to be together.
//!
//! `cw-bench message <cw>`: messages and requests beside NATS JetStream and Redis streams.

mod calls;
mod commands;
mod far;
mod flood;
#[path = "../../src/forged.rs"]
mod forged;
mod message;
#[path = "../../src/postgres.rs"]
#[expect(dead_code, reason = "tests do more with it")]
mod postgres;
mod raw;
mod relay;
#[expect(dead_code, reason = "other packages print with it, too")]
mod report;
mod revoke;
mod session;
mod soak;
mod stalled;
mod tunnel;

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (Some("rpc"), Some(program)) => rpc(&program),
        (Some("session"), Some(program)) => session::run(&program, &arguments.collect::<Vec<_>>()),
        (Some("message"), Some(program)) => message::run(&program),
        (Some("relay"), Some(program)) => relay::run(&program, &arguments.collect::<Vec<_>>()),
        (Some("revoke"), Some(program)) => revoke::run(&program),
        (Some("flood"), Some(program)) => flood::run(&program, &arguments.collect::<Vec<_>>()),
        (Some("stalled"), Some(program)) => stalled::run(&program, &arguments.collect::<Vec<_>>()),
        (Some("soak"), Some(program)) => soak::run(&program, &arguments.collect::<Vec<_>>()),
        (Some("calls"), _) => calls::run(),
        _ => {
            bail!(
                "usage: cw-bench rpc|session|message|relay|revoke|flood|stalled|soak <path of cw>"
            )
        }
    }
}

fn rpc(program: &str) -> Result<()> {
    println!("load before: {}", report::load());
    calls::run()?;
    commands::run(program)?;
    println!("load after: {}", report::load());
    Ok(())
}
