//! Plays many fault runs and prints what came of them:
//! `fault-runs <cw> <say-frame> <first seed> <runs> <side by side> <quota> <directory for histories>`.

use std::process::ExitCode;

use e2e::case::Setting as _;
use e2e::faults::play::{Campaign, Outcome, Summary, many};
use e2e::faults::world::{Programs, World};

#[expect(clippy::print_stdout, reason = "what it is for")]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [cw, say_frame, first, runs, side_by_side, quota, dir] = arguments.as_slice() else {
        return ExitCode::from(2);
    };
    let number = |text: &str| text.parse::<u64>().unwrap_or(1);
    let campaign = Campaign {
        programs: Programs {
            cw: cw.clone(),
            say_frame: say_frame.clone(),
        },
        first: number(first),
        runs: number(runs),
        side_by_side: usize::try_from(number(side_by_side)).unwrap_or(1),
        in_a_world: 25,
        quota: usize::try_from(number(quota)).unwrap_or(1),
    };
    let each = |outcome: &Outcome, world: &World, summary: &Summary| {
        println!(
            "seed {}: {} acknowledged, {:?}, {} broken",
            outcome.seed,
            outcome.tally.calls(),
            outcome.faults,
            outcome.broken.len()
        );
        if summary.runs.is_multiple_of(25) {
            println!("so far:\n{summary}");
        }
        if outcome.broken.is_empty() {
            return;
        }
        outcome.broken.iter().for_each(|why| println!("  {why}"));
        let text = e2e::history::to_text(&outcome.history);
        let _ = std::fs::write(format!("{dir}/{}.jsonl", outcome.seed), text);
        for (name, log) in world.logs() {
            let _ = std::fs::write(format!("{dir}/{}.{name}.log", outcome.seed), log);
        }
    };
    let summary = many(&campaign, each);
    println!("{summary}");
    ExitCode::from(u8::from(!summary.broken.is_empty()))
}
