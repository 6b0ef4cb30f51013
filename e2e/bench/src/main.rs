//! Measures `cw` beside its peers, in one run, in alternating rounds.
//!
//! `cw-bench rpc <cw>`: a call between two nodes against raw quinn on the same path, bulk through
//! one stream, the same through the relay, and whole commands of the program `<cw>`. Printed are
//! medians over the rounds, the ratio and the machine's load. Nothing here passes or fails.

mod calls;
mod commands;
mod far;
mod raw;
mod report;
mod tunnel;

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (Some("rpc"), Some(program)) => rpc(&program),
        (Some("calls"), _) => calls::run(),
        _ => bail!("usage: cw-bench rpc <path of cw>"),
    }
}

fn rpc(program: &str) -> Result<()> {
    println!("load before: {}", report::load());
    calls::run()?;
    commands::run(program)?;
    println!("load after: {}", report::load());
    Ok(())
}
