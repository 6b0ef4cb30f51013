//! Plays runs, and sums up what came of them.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::collect;
use super::driver::Driver;
use super::listener::Listener;
use super::plan::plan;
use super::traffic::{Run, SESSIONS, answer, lock, send, send_some};
use super::world::{Kind, Programs, World};
use crate::history::{self, Line, Tally};
use crate::substrate::Host;
use crate::{PATIENCE, wait_until};

/// What came of a run.
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// Promises that were not kept, and what else went wrong.
    pub broken: Vec<String>,
    /// How much was judged.
    pub tally: Tally,
    /// Faults, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// All that was said and found.
    pub history: Vec<Line>,
}

/// How many runs, and where.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// The programs.
    pub programs: Programs,
    /// The first seed; each run has the next.
    pub first: u64,
    /// Runs.
    pub runs: u64,
    /// Worlds at one time.
    pub side_by_side: usize,
    /// Runs in a world before there is a new one.
    pub in_a_world: u64,
    /// Calls that each of the six senders wants to be acknowledged.
    pub quota: usize,
}

/// What came of many runs.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Runs that were played to the end.
    pub runs: u64,
    /// How much was judged.
    pub tally: Tally,
    /// Faults, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Runs, by the kind of world.
    pub worlds: BTreeMap<String, u64>,
    /// Broken promises: the seed and the kind of world, and what.
    pub broken: Vec<String>,
    /// Worlds that cannot be had here, and why.
    pub skipped: BTreeMap<String, String>,
    /// How long it took.
    pub took: Duration,
}

/// One run.
///
/// # Panics
///
/// Not for what the product does: that is in the outcome.
#[must_use]
pub fn play(world: &World, seed: u64, quota: usize) -> Outcome {
    judged(&Run::new(world, seed, quota), through)
}

/// A run of five messages that wait for their node, while `bug` does something to the file that they
/// are in.
///
/// # Panics
///
/// As [`play`].
#[must_use]
pub fn with_a_bug(world: &World, bug: impl FnOnce(&Path)) -> Outcome {
    judged(&Run::new(world, 0, 0), |run, driver, listeners| {
        Host::ALL.into_iter().for_each(|host| driver.launch(host));
        thread::scope(|scope| {
            let ends = Ends(run, listeners);
            listen(run, scope, listeners);
            world.relay().kill();
            send_some(run, 5);
            world.home(Host::Dev1).kill_both();
            bug(&world.home(Host::Dev1).dir().join("outbox.jsonl"));
            driver.start(Host::Dev1);
            driver.launch(Host::Dev1);
            world.relay().start();
            collect::drain(run)?;
            let found = collect::collect(run, listeners)?;
            found.into_iter().for_each(|line| run.write(line));
            drop(ends);
            Ok(())
        })
    })
}

/// Plays a run by `through`, and judges it.
pub(super) fn judged<'a>(
    run: &'a Run<'a>,
    through: impl FnOnce(&'a Run<'a>, &mut Driver<'a>, &[Listener; 2]) -> Result<(), String>,
) -> Outcome {
    let mut driver = Driver::new(run);
    let listeners = [Listener::default(), Listener::default()];
    let played = catch_unwind(AssertUnwindSafe(|| through(run, &mut driver, &listeners)));
    let mut broken = match played {
        Ok(Ok(())) => Vec::new(),
        Ok(Err(why)) => vec![format!("it does not come to rest: {why}")],
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            vec![text.unwrap_or_else(|| "a panic".to_owned())]
        }
    };
    let history = run.take_lines();
    let (found, tally) = history::check(&history);
    if broken.is_empty() {
        broken.extend(found.iter().map(ToString::to_string));
    }
    Outcome {
        seed: run.seed,
        broken,
        tally,
        faults: driver.counts,
        history,
    }
}

/// Ends everybody also when somebody panics.
pub(super) struct Ends<'a>(pub(super) &'a Run<'a>, pub(super) &'a [Listener; 2]);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.end();
        self.1.iter().for_each(Listener::end);
        self.0.world.heal();
    }
}

/// Both listeners listen when this returns.
pub(super) fn listen<'scope>(
    run: &'scope Run<'_>,
    scope: &'scope thread::Scope<'scope, '_>,
    listeners: &'scope [Listener; 2],
) {
    for (host, listener) in Host::ALL.into_iter().zip(listeners) {
        let socket = run.world.home(host).socket();
        scope.spawn(move || listener.listen(&socket, || run.rest(Duration::from_millis(20))));
    }
    wait_until("both nodes are listened to", PATIENCE, || {
        let begun = listeners.iter().all(Listener::begun);
        begun.then_some(()).ok_or_else(|| "not yet".to_owned())
    });
}

fn through<'a>(
    run: &'a Run<'a>,
    driver: &mut Driver<'a>,
    listeners: &[Listener; 2],
) -> Result<(), String> {
    let steps = plan(
        run.seed,
        run.world.can(),
        run.quota * Host::ALL.len() * SESSIONS,
    );
    thread::scope(|scope| {
        let ends = Ends(run, listeners);
        Host::ALL.into_iter().for_each(|host| driver.launch(host));
        listen(run, scope, listeners);
        for host in Host::ALL {
            for number in 0..SESSIONS {
                scope.spawn(move || answer(run, host, number));
                scope.spawn(move || send(run, host, number));
            }
        }
        driver.play(&steps);
        run.world.heal();
        run.wait_for(usize::MAX, Duration::from_secs(120));
        collect::drain(run)?;
        run.end();
        // What counts is what the disks have.
        for host in Host::ALL {
            driver.crash(host, false);
        }
        let found = collect::collect(run, listeners)?;
        found.into_iter().for_each(|line| run.write(line));
        drop(ends);
        Ok(())
    })
}

/// Plays many, side by side, each seed in the next kind of world.
#[must_use]
pub fn many(campaign: &Campaign, each: impl Fn(&Outcome, &World, &Summary) + Sync) -> Summary {
    let summary = Mutex::new(Summary::default());
    let next = AtomicU64::new(0);
    let begun = Instant::now();
    thread::scope(|scope| {
        for worker in 0..campaign.side_by_side {
            let (summary, next, each) = (&summary, &next, &each);
            scope.spawn(move || {
                let mut turn = worker;
                loop {
                    let batch = next.fetch_add(campaign.in_a_world, Ordering::SeqCst);
                    if batch >= campaign.runs {
                        return;
                    }
                    let end = campaign.runs.min(batch + campaign.in_a_world);
                    let mut seeds = campaign.first + batch..campaign.first + end;
                    // A world in which something broke is left.
                    while !seeds.is_empty() {
                        let kind = Kind::ALL[turn % Kind::ALL.len()];
                        turn += 1;
                        in_one_world(campaign, kind, &mut seeds, summary, each);
                    }
                }
            });
        }
    });
    let mut summary = lock(&summary).clone();
    summary.took = begun.elapsed();
    summary
}

fn in_one_world(
    campaign: &Campaign,
    kind: Kind,
    seeds: &mut std::ops::Range<u64>,
    summary: &Mutex<Summary>,
    each: &impl Fn(&Outcome, &World, &Summary),
) {
    let world = catch_unwind(|| World::new(&campaign.programs, kind));
    let world = match world {
        Ok(Ok(world)) => world,
        Ok(Err(why)) => {
            lock(summary).skipped.insert(format!("{kind:?}"), why);
            return;
        }
        Err(_) => {
            let seed = seeds.next().unwrap_or_default();
            let why = format!("seed {seed} ({kind:?}): no world");
            lock(summary).broken.push(why);
            return;
        }
    };
    for seed in seeds.by_ref() {
        let outcome = play(&world, seed, campaign.quota);
        let mut summary = lock(summary);
        summary.runs += 1;
        summary.tally.add(&outcome.tally);
        *summary.worlds.entry(format!("{kind:?}")).or_default() += 1;
        for (fault, count) in &outcome.faults {
            *summary.faults.entry(fault).or_default() += count;
        }
        let broken = outcome.broken.iter();
        let broken = broken.map(|why| format!("seed {seed} ({kind:?}): {why}"));
        summary.broken.extend(broken);
        each(&outcome, &world, &summary);
        if !outcome.broken.is_empty() {
            return;
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.took.as_secs();
        writeln!(
            f,
            "runs: {} in {seconds} s, by world: {:?}",
            self.runs, self.worlds
        )?;
        let tally = &self.tally;
        writeln!(
            f,
            "acknowledged calls: {}, by kind (copies beside): {:?}",
            tally.calls(),
            tally.acknowledged
        )?;
        writeln!(
            f,
            "refused: {}, of unknown end: {}, queued and refused later, as is told: {}, events heard: {}",
            tally.failed, tally.unknown, tally.told, tally.heard
        )?;
        let faults: u64 = self.faults.values().sum();
        writeln!(f, "faults: {faults}, by kind: {:?}", self.faults)?;
        for (kind, why) in &self.skipped {
            writeln!(f, "no {kind} here: {why}")?;
        }
        writeln!(f, "broken promises: {}", self.broken.len())?;
        for broken in &self.broken {
            writeln!(f, "  {broken}")?;
        }
        Ok(())
    }
}
