//! How long a call takes: a question and its answer, on a stream of its own, directly or by the
//! relays.

use anyhow::Result;

use crate::awake;
use crate::child::Pair;
use crate::report::Samples;
use crate::way::Kind;
use crate::{lines, rounds};

/// Calls in a round, after a tenth of that to warm up.
const CALLS: usize = 2_000;

#[derive(Default)]
struct Figures {
    half: Samples,
    tail: Samples,
}

/// Directly: on one core, on two, and on two that do not halt between their turns.
pub fn direct() -> Result<()> {
    let kinds = [Kind::Ours, Kind::Quinn, Kind::Iroh, Kind::Tcp];
    let mut pairs = start(&kinds)?;
    let settings = [
        (0, "same core", false),
        (1, "two cores", false),
        (1, "both kept awake", true),
    ];
    for (far, name, is_awake) in settings {
        for pair in pairs.iter_mut().flatten() {
            pair.pin(0, far)?;
        }
        let cores: &[usize] = if is_awake { &[0, far] } else { &[] };
        let _awake = match awake::keep(cores) {
            Ok(awake) => awake,
            Err(why) => {
                println!("not measured: calls, {name} ({why:#})");
                continue;
            }
        };
        let [ours, quinn, iroh, tcp] = &measure(&mut pairs)?;
        let Some(ours) = ours else {
            continue;
        };
        let table = |what: &str, samples: fn(&Figures) -> &Samples, goals: [&'static str; 2]| {
            let row = |it: &'static str, of: &Option<Figures>, goal| {
                (it, of.as_ref().map(|it| samples(it).clone()), goal)
            };
            let rows = [
                row("quinn", quinn, goals[0]),
                row("iroh", iroh, goals[1]),
                row("TCP, kept", tcp, "reported"),
            ];
            lines(&format!("call, {what}, {name}"), "us", samples(ours), &rows);
        };
        table("p50", |it| &it.half, ["<= 1.10 x", "<= 0.65 x"]);
        if let Some(quinn) = quinn {
            let more = ours.half.minus(&quinn.half);
            let title = format!("  more than quinn's, {name}");
            lines(&title, "us", &more, &[("-", None, "<= 8 us")]);
        }
        table("p99", |it| &it.tail, ["<= 1.15 x", "reported"]);
    }
    Ok(())
}

/// By the relays.
pub fn relayed() -> Result<()> {
    let mut pairs = start(&[Kind::OursRelayed, Kind::IrohRelayed])?;
    for pair in pairs.iter_mut().flatten() {
        pair.pin(0, 1)?;
    }
    let [ours, iroh] = &measure(&mut pairs)?;
    if let Some(ours) = ours {
        let of = |it: fn(&Figures) -> &Samples| iroh.as_ref().map(|iroh| it(iroh).clone());
        let half = [("iroh", of(|it| &it.half), "<= 0.9 x")];
        lines("call by the relay, p50", "us", &ours.half, &half);
        let tail = [("iroh", of(|it| &it.tail), "reported")];
        lines("call by the relay, p99", "us", &ours.tail, &tail);
    }
    Ok(())
}

/// The ways that were built.
pub fn start<const N: usize>(kinds: &[Kind; N]) -> Result<[Option<Pair>; N]> {
    let mut pairs = [const { None }; N];
    for (pair, kind) in pairs.iter_mut().zip(kinds) {
        if kind.is_here() {
            let mut started = Pair::start(*kind)?;
            started.settle()?;
            *pair = Some(started);
        }
    }
    Ok(pairs)
}

fn measure<const N: usize>(pairs: &mut [Option<Pair>; N]) -> Result<[Option<Figures>; N]> {
    let mut figures = pairs
        .each_ref()
        .map(|pair| pair.as_ref().map(|_| Figures::default()));
    for _ in 0..rounds() {
        for (pair, figures) in pairs.iter_mut().zip(&mut figures) {
            if let (Some(pair), Some(figures)) = (pair, figures) {
                let [half, tail] = pair.near.numbers(&format!("calls {CALLS}"))?;
                figures.half.number(half);
                figures.tail.number(tail);
            }
        }
    }
    Ok(figures)
}
