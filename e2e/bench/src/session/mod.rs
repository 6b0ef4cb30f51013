//! Sessions beside those of tmux, dtach, screen, shpool and rmux, and beside a terminal as it is.
//!
//! Everything is measured in alternating rounds, each starting with another program, on whatever
//! peers are found on the `PATH`; those that are not are named. What is measured is also checked:
//! a peer that passes bytes on must have passed every one of them, ours must also have them in
//! its log; one that paints must have painted the end. Processes are found by a mark in their
//! environment, so that a peer's own sessions outside are left alone.

mod bulk;
mod fleet;
mod live;
mod peer;
pub mod process;
mod pty;
mod stage;

use std::path::Path;

use anyhow::{Result, ensure};

pub use self::peer::on_path;
use crate::report::{head, load};

/// Alternating rounds, unless `CW_BENCH_ROUNDS` says otherwise.
const ROUNDS: usize = 15;

/// A part's name, and what measures it for a program.
type Part = (&'static str, fn(&Path) -> Result<()>);

/// The parts, in the order in which they are measured.
const PARTS: [Part; 5] = [
    ("cat", bulk::run),
    ("attach", live::attach),
    ("echo", live::echo),
    ("logs", live::follow),
    ("fleet", fleet::run),
];

/// Measures the parts that are named, or all, and prints.
pub fn run(program: &str, parts: &[String]) -> Result<()> {
    let known = |part: &String| PARTS.iter().any(|(name, _)| name == part);
    ensure!(
        parts.iter().all(known),
        "the parts are cat, attach, echo, logs and fleet"
    );
    let program = Path::new(program).canonicalize()?;
    println!("load before: {}; {} rounds", load(), rounds());
    peer::introduce();
    head();
    for (name, measure) in PARTS {
        if parts.is_empty() || parts.iter().any(|part| part == name) {
            measure(&program)?;
        }
    }
    println!("load after: {}", load());
    Ok(())
}

fn rounds() -> usize {
    let said = std::env::var("CW_BENCH_ROUNDS").ok();
    said.and_then(|rounds| rounds.parse().ok())
        .unwrap_or(ROUNDS)
}

/// Who comes when in a round: each is the first in turn.
fn turn(count: usize, round: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |at| (at + round) % count)
}
