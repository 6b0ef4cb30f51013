//! Many sessions: how fast one more is there, how fast they are listed, what they cost idle.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::peer::{Kind, Peer, all};
use super::process;
use crate::report::{Samples, rows};

/// Sessions whose memory is measured.
const SOME: usize = 50;
/// Sessions that are listed.
const MANY: usize = 1000;
/// After the last session has begun, until everybody has come to rest.
const SETTLE: Duration = Duration::from_secs(12);
/// Launches in a round.
const LAUNCHES: usize = 3;
/// Lists in a round.
const LISTS: usize = 3;
/// Times that idleness is watched, and for how long each.
const WATCHES: usize = 3;
const IDLE: Duration = Duration::from_secs(10);

/// It has printed something, so that there is a screen to keep.
const SLEEP: &str = "echo ready; exec sleep 100000";

/// One peer and its figures.
struct Entry {
    peer: Peer,
    count: usize,
    launch: Samples,
    list: Samples,
    none: Samples,
    added: Samples,
    added_many: Samples,
    wakes: Samples,
}

/// Measures and prints.
pub fn run(program: &Path) -> Result<()> {
    let mut nothing = Samples::default();
    let mut entries = Vec::new();
    for peer in all(program)?.into_iter().skip(1) {
        entries.push(Entry::start(peer)?);
    }
    std::thread::sleep(SETTLE);
    for entry in &mut entries {
        let memory = entry.memory();
        ensure!(memory > 0.0, "{} has no process", entry.peer.name());
        entry.none.number(memory);
    }
    for entry in &mut entries {
        entry.grow(SOME)?;
    }
    std::thread::sleep(SETTLE);
    for entry in &mut entries {
        let added = (entry.memory() - entry.none.median()) / (SOME as f64 - entry.first());
        entry.added.number(added);
    }
    watch(&mut entries);
    for round in 0..super::rounds() {
        for at in super::turn(entries.len(), round) {
            for _ in 0..LAUNCHES {
                let time = entries[at].one()?;
                entries[at].launch.number(time.as_secs_f64() * 1e3);
            }
        }
    }
    for entry in &mut entries {
        if entry.peer.kind.serves_many() {
            entry.grow(MANY)?;
        }
    }
    std::thread::sleep(SETTLE);
    for entry in &mut entries {
        if entry.peer.kind.serves_many() {
            let added = (entry.memory() - entry.none.median()) / (MANY as f64 - entry.first());
            entry.added_many.number(added);
        }
    }
    for round in 0..super::rounds() {
        for _ in 0..LISTS {
            let start = Instant::now();
            Command::new("true").status()?;
            nothing.number(start.elapsed().as_secs_f64() * 1e3);
        }
        for at in super::turn(entries.len(), round) {
            for _ in 0..LISTS {
                entries[at].list()?;
            }
        }
    }
    print(&entries, &nothing);
    Ok(())
}

fn print(entries: &[Entry], nothing: &Samples) {
    let ours = &entries[0];
    let table = |name: &str, unit: &str, of: fn(&Entry) -> &Samples, goal: &str| {
        let mut others = Vec::new();
        for entry in &entries[1..] {
            if !of(entry).is_empty() {
                others.push((entry.peer.name(), of(entry)));
            }
        }
        if name.starts_with("list") {
            others.push(("true(1)", nothing));
        }
        rows(name, unit, of(ours), &others, goal);
    };
    table("launch, whole command", "ms", |e| &e.launch, "<= 5 ms");
    // Who has a process for each session lists fewer: these are in the figure of launches.
    table("list of 1000, whole command", "ms", |e| &e.list, "<= 3 ms");
    table(
        "memory, no session (tmux etc.: one)",
        "KiB",
        |e| &e.none,
        "<= 8192",
    );
    table(
        "memory, added idle session (50)",
        "KiB",
        |e| &e.added,
        "<= 40",
    );
    table(
        "memory, added idle session (1000)",
        "KiB",
        |e| &e.added_many,
        "<= 40",
    );
    table("context switches, 50 idle, 10 s", "", |e| &e.wakes, "0");
}

/// Everybody at once: who is idle does not disturb others.
fn watch(entries: &mut [Entry]) {
    for _ in 0..WATCHES {
        let before: Vec<_> = entries.iter().map(Entry::switches).collect();
        std::thread::sleep(IDLE);
        for (entry, before) in entries.iter_mut().zip(before) {
            let after = entry.switches();
            entry.wakes.number(after - before);
        }
    }
}

impl Entry {
    fn start(peer: Peer) -> Result<Self> {
        let mut entry = Self {
            peer,
            count: 0,
            launch: Samples::default(),
            list: Samples::default(),
            none: Samples::default(),
            added: Samples::default(),
            added_many: Samples::default(),
            wakes: Samples::default(),
        };
        match entry.peer.kind {
            // A node that has no session, but has had one.
            Kind::Cw => {
                entry.peer.run(entry.peer.launch("first", "exit 0"))?;
                entry.peer.run(entry.peer.command(&["wait", "first"]))?;
                entry.peer.run(entry.peer.command(&["list"]))?;
            }
            Kind::Shpool => {}
            _ => drop(entry.one()?),
        }
        Ok(entry)
    }

    /// Sessions that were there when memory was first looked at.
    fn first(&self) -> f64 {
        match self.peer.kind {
            Kind::Cw | Kind::Shpool => 0.0,
            _ => 1.0,
        }
    }

    fn memory(&self) -> f64 {
        process::pss(&self.peer.pids())
    }

    fn switches(&self) -> f64 {
        process::switches(&self.peer.pids())
    }

    fn grow(&mut self, count: usize) -> Result<()> {
        while self.count < count {
            self.one()?;
        }
        Ok(())
    }

    /// One more session.
    fn one(&mut self) -> Result<Duration> {
        let command = self.peer.launch(&format!("s{}", self.count), SLEEP);
        let start = Instant::now();
        let launched = self.peer.run(command);
        let time = start.elapsed();
        launched.with_context(|| format!("session {} of {}", self.count, self.peer.name()))?;
        self.count += 1;
        Ok(time)
    }

    /// Lists them; all must be there.
    fn list(&mut self) -> Result<()> {
        let Some(command) = self.peer.list() else {
            return Ok(());
        };
        let start = Instant::now();
        let text = self.peer.run(command)?;
        let time = start.elapsed();
        let last = format!("s{}", self.count - 1);
        ensure!(
            text.lines().count() >= self.count && text.contains(&last),
            "{} lists {} lines for {} sessions",
            self.peer.name(),
            text.lines().count(),
            self.count
        );
        self.list.number(time.as_secs_f64() * 1e3);
        Ok(())
    }
}
