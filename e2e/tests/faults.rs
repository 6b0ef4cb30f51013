//! Everybody talks while everything breaks: twenty seeds here, a thousand by `fault-runs`, whose
//! figures are recorded. And the judge of it is not blind: a letter that a bug would lose is missed.

use std::fs;

use e2e::case::{Setting as _, or_skip};
use e2e::faults::play::{Campaign, Outcome, Summary, many, play};
use e2e::faults::world::{Kind, Programs, World};
use e2e::history::to_text;

/// Seeds that are played.
const RUNS: u64 = 20;

/// Calls that each of the six senders wants to be acknowledged.
const QUOTA: usize = 20;

fn programs() -> Programs {
    Programs {
        cw: env!("CARGO_BIN_EXE_cw-under-test").to_owned(),
        say_frame: env!("CARGO_BIN_EXE_say-frame").to_owned(),
    }
}

#[expect(clippy::print_stderr, reason = "the only way to see why a run failed")]
fn explain(outcome: &Outcome, world: &World, _: &Summary) {
    if outcome.broken.is_empty() {
        return;
    }
    let seed = outcome.seed;
    eprintln!("----- seed {seed}: {:?}", outcome.broken);
    eprintln!("{}", to_text(&outcome.history));
    for (name, log) in world.logs() {
        eprintln!("----- seed {seed}: {name}\n{}", log.trim_end());
    }
}

#[test]
fn twenty_seeds_break_nothing() {
    let summary = many(
        &Campaign {
            programs: programs(),
            first: 1,
            runs: RUNS,
            side_by_side: 4,
            in_a_world: RUNS / 4,
            quota: QUOTA,
        },
        explain,
    );
    for (kind, why) in &summary.skipped {
        let _: Option<()> = or_skip(Err(format!("faults in the world {kind}: {why}")));
    }
    assert!(summary.broken.is_empty(), "{summary}");
    assert!(
        summary.runs > 0 && summary.tally.calls() > summary.runs * 100,
        "{summary}"
    );
}

#[test]
fn a_letter_that_a_bug_loses_is_missed() {
    let Some(world) = or_skip(World::new(&programs(), Kind::Relayed)) else {
        return;
    };
    let lost = play_losing_one(&world);
    assert_eq!(lost.len(), 1, "{lost:?}");
    assert!(lost[0].starts_with("Lost: \"dev-1:"), "{lost:?}");
    let outcome = play(&world, 1, 2);
    assert!(outcome.broken.is_empty(), "{:?}", outcome.broken);
}

/// A run in which one letter is taken out of the first node's outbox while nobody looks.
fn play_losing_one(world: &World) -> Vec<String> {
    let outcome = e2e::faults::play::with_a_bug(world, |outbox| {
        let text = fs::read_to_string(outbox).expect("there is an outbox");
        let mut lines: Vec<&str> = text.lines().collect();
        let put = |line: &&str| line.starts_with("{\"put\":") && line.contains("\"accepted\"");
        let last = lines.iter().rposition(put).expect("letters wait");
        let _ = lines.remove(last);
        fs::write(outbox, lines.join("\n") + "\n").expect("it can be written");
    });
    outcome.broken
}
