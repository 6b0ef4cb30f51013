//! How long calls stand still when the network changes under them, on a network with a delay.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::child::{Child, Pair};
use crate::lab::Lab;
use crate::lines;
use crate::report::Samples;
use crate::way::Kind;

const ROUND_TRIP: Duration = Duration::from_millis(50);
/// When a host moves to another network.
const SHORT_ROUND_TRIP: Duration = Duration::from_millis(20);
/// How long a host sleeps: long enough for it to be noticed, and for whoever waits for it to doubt.
const SLEEP: Duration = Duration::from_secs(8);
const ROUNDS: usize = 10;
/// Calls before something happens.
const BEFORE: Duration = Duration::from_millis(500);
/// Calls after it has happened: more than any goal.
const AFTER: Duration = Duration::from_secs(3);

/// What stood still, and how often calls failed.
#[derive(Default)]
struct Stalls {
    stalls: Samples,
    calls: f64,
    failed: f64,
}

impl Stalls {
    /// Calls all the time, while something happens, which says how long the one that calls was
    /// asleep meanwhile: its clock goes on.
    fn during(
        &mut self,
        near: &mut Child,
        what: impl FnOnce(&Child) -> Result<Duration>,
    ) -> Result<()> {
        near.ask("begin")?;
        sleep(BEFORE);
        let asleep = what(near)?;
        sleep(AFTER);
        let [stall, calls, failed] = near.numbers("end")?;
        let stall = stall - asleep.as_secs_f64() * 1e3;
        self.stalls.number(stall.max(0.0));
        self.calls += calls;
        self.failed += failed;
        Ok(())
    }

    fn print(&self, name: &str, goal: &str) {
        let mut longest = Samples::default();
        longest.number(self.stalls.quantile(1.0));
        lines(name, "ms", &self.stalls, &[("-", None, "median, reported")]);
        let title = format!("  longest of {ROUNDS}");
        lines(&title, "ms", &longest, &[("-", None, goal)]);
        println!(
            "  calls that failed: {} of {}; goal 0",
            self.failed, self.calls
        );
    }
}

/// Measures and prints.
pub fn measure(lab: &Lab) -> Result<()> {
    lab.shim.set_round_trip(ROUND_TRIP);
    cut(lab)?;
    relay_dies(
        lab,
        Kind::OursRelayed,
        "stall, the relay dies",
        "<= 2000 ms",
    )?;
    stands_by(lab)?;
    let title = "stall of direct calls, the relay dies";
    relay_dies(lab, Kind::Ours, title, "undisturbed")?;
    lab.shim.set_round_trip(SHORT_ROUND_TRIP);
    moves(lab)?;
    sleeps(lab, false, "stall after a sleep of 8 s, 20 ms RTT")?;
    sleeps(lab, true, "the same, and awake in another network")
}

fn cut(lab: &Lab) -> Result<()> {
    let relay = lab.relay("ours", None)?;
    let mut pair = Pair::by(Kind::Ours, &relay.about, lab.nodes())?;
    let mut stalls = Stalls::default();
    for _ in 0..ROUNDS {
        pair.settle()?;
        let done = stalls.during(&mut pair.near, |_| {
            lab.shim.cut(true);
            Ok(Duration::ZERO)
        });
        lab.shim.cut(false);
        done?;
    }
    stalls.print("stall, the direct path dies silently", "p99 <= 1000 ms");
    Ok(())
}

fn relay_dies(lab: &Lab, kind: Kind, title: &str, goal: &str) -> Result<()> {
    let mut relay = lab.relay("ours", None)?;
    let at = relay.about.strip_prefix("http://").context("no address")?;
    let at = at.to_owned();
    let mut pair = Pair::by(kind, &relay.about, lab.nodes())?;
    let mut stalls = Stalls::default();
    for _ in 0..ROUNDS {
        pair.settle()?;
        stalls.during(&mut pair.near, |_| {
            relay.kill();
            relay = lab.relay("ours", Some(&at))?;
            Ok(Duration::ZERO)
        })?;
    }
    stalls.print(title, goal);
    Ok(())
}

/// The relay dies, and is not there for as long as it is measured; another one is.
fn stands_by(lab: &Lab) -> Result<()> {
    let mut first = lab.relay("ours", None)?;
    let other = lab.relay("ours", None)?;
    let at = first.about.strip_prefix("http://").context("no address")?;
    let at = at.to_owned();
    let both = format!("{}|{}", first.about, other.about);
    let mut pair = Pair::by(Kind::OursRelayed, &both, lab.nodes())?;
    let mut stalls = Stalls::default();
    for _ in 0..ROUNDS {
        pair.near.ask("online")?;
        pair.settle()?;
        stalls.during(&mut pair.near, |_| {
            first.kill();
            Ok(Duration::ZERO)
        })?;
        first = lab.relay("ours", Some(&at))?;
    }
    stalls.print("the same, another relay stands by", "<= 2000 ms");
    Ok(())
}

fn moves(lab: &Lab) -> Result<()> {
    let relay = lab.relay("ours", None)?;
    let mut pair = Pair::by(Kind::Ours, &relay.about, lab.nodes())?;
    let mut stalls = Stalls::default();
    for round in 0..ROUNDS {
        pair.settle()?;
        stalls.during(&mut pair.near, |_| {
            lab.renumber(round % 2 == 0)?;
            Ok(Duration::ZERO)
        })?;
    }
    stalls.print("stall, another network, 20 ms RTT", "<= 1500 ms");
    Ok(())
}

/// A host that sleeps: all that it runs stands still, the others go on.
fn sleeps(lab: &Lab, moved: bool, title: &str) -> Result<()> {
    let relay = lab.relay("ours", None)?;
    let mut pair = Pair::by(Kind::Ours, &relay.about, lab.nodes())?;
    let mut stalls = Stalls::default();
    for round in 0..ROUNDS {
        pair.settle()?;
        stalls.during(&mut pair.near, |near| {
            let asleep = Instant::now();
            near.stop()?;
            sleep(SLEEP);
            if moved {
                lab.renumber(round % 2 == 0)?;
            }
            near.go_on()?;
            Ok(asleep.elapsed())
        })?;
    }
    stalls.print(title, "p99 <= 1500 ms");
    Ok(())
}
