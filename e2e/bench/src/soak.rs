//! A long time with much coming and going: a relay and two nodes that stay, beside them sessions
//! that start and end, terminals that come and leave, messages and requests both ways, and a third
//! node that joins, is spoken to, and leaves for good.
//!
//! With the word `together` there are two relays over one database, by which alone the nodes reach
//! each other, and of which one is killed each minute, in turn, and is back after [`AWAY`].
//!
//! Each minute it prints, for each process that stays, its memory and descriptors; at the end what
//! they were after three fifths of the time and what they are, and how many rounds went wrong. Memory
//! and descriptors must be flat: what is kept of ended sessions is bounded to [`KEPT`].

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::commands::Rig;
use crate::report::{Samples, load};

/// Seconds, unless told.
const TIME: u64 = 3600;
/// Between two looks at the processes.
const LOOK: Duration = Duration::from_secs(60);
/// Between two rounds.
const PAUSE: Duration = Duration::from_millis(100);
/// Ended sessions that a node keeps.
const KEPT: u32 = 50;
/// Every so many rounds a third node comes and goes, and the sessions that are written to are new.
const SEASON: u64 = 20;
/// The share of the time after which memory counts: by then the ten thousand settled letters that a
/// node remembers at most are there.
const WARM: f64 = 0.6;

/// How long a relay that was killed is away: longer than it takes until it is missed, and most of
/// the time both are there.
const AWAY: Duration = Duration::from_secs(20);

/// A process that stays.
struct Stayer {
    name: String,
    pid: u32,
    /// KiB; each look.
    memory: Samples,
    descriptors: Samples,
}

/// Relays that die in turn.
#[derive(Default)]
struct Deaths {
    away: Option<usize>,
    count: usize,
}

impl Deaths {
    /// Kills the next one, once all are there: never both.
    fn next(&mut self, rig: &mut Rig) -> Result<()> {
        self.end(rig)?;
        rig.wait(|| (0..rig.relays()).all(|relay| rig.answers(relay)))?;
        let turn = self.count % rig.relays();
        rig.kill_relay(turn);
        self.count += 1;
        self.away = Some(turn);
        Ok(())
    }

    fn end(&mut self, rig: &mut Rig) -> Result<()> {
        match self.away.take() {
            Some(relay) => rig.start_relay(relay),
            None => Ok(()),
        }
    }
}

/// Runs and prints.
pub fn run(program: &str, words: &[String]) -> Result<()> {
    let (time, together) = told(words)?;
    println!("load before: {}; {} s", load(), time.as_secs());
    let program = std::path::absolute(program)?;
    let mut rig = match together {
        true => Rig::start_together(&program)?,
        false => Rig::start(&program)?,
    };
    for node in ["dev-1", "dev-2"] {
        let config = rig.home(node).join("config.toml");
        let text = std::fs::read_to_string(&config).unwrap_or_default();
        std::fs::write(&config, format!("{text}\n[node]\nkeep_finished = {KEPT}\n"))?;
        rig.out(node, &["node", "restart"])?;
    }
    rig.wait(|| rig.ok("dev-1", &["status", "dev-2:coder"]))?;
    rig.out("dev-1", &["send", "planner", "MARK!"])?;
    let mut stayers = stayers(&rig)?;
    let (start, mut looked) = (Instant::now(), Instant::now());
    let (mut rounds, mut wrong) = (0_u64, Vec::new());
    let mut deaths = Deaths::default();
    while start.elapsed() < time {
        if let Err(error) = round(&rig, rounds) {
            let at = start.elapsed().as_secs();
            wrong.push(format!("round {rounds}, {at} s: {error:#}"));
        }
        rounds += 1;
        if looked.elapsed() >= LOOK {
            looked = Instant::now();
            look(&mut stayers, start.elapsed(), rounds)?;
            if together {
                deaths.next(&mut rig)?;
            }
        }
        if looked.elapsed() >= AWAY {
            deaths.end(&mut rig)?;
        }
        std::thread::sleep(PAUSE);
    }
    println!("{rounds} rounds, {} went wrong", wrong.len());
    for what in wrong.iter().take(10) {
        println!("  {what}");
    }
    if together {
        println!("a relay was killed {} times", deaths.count);
    }
    print(&stayers);
    println!("load after: {}", load());
    Ok(())
}

/// For how long, and whether there are two relays.
fn told(words: &[String]) -> Result<(Duration, bool)> {
    let (together, number): (Vec<_>, Vec<_>) = words.iter().partition(|word| *word == "together");
    let seconds = match number[..] {
        [] => TIME,
        [word] => word.parse().context("how many seconds?")?,
        [..] => bail!("usage: soak [seconds] [together]"),
    };
    ensure!(seconds >= 300, "at least 300 seconds");
    Ok((Duration::from_secs(seconds), !together.is_empty()))
}

fn stayers(rig: &Rig) -> Result<Vec<Stayer>> {
    let mut found = vec![];
    if rig.relays() == 1 {
        found.push(("relay".to_owned(), rig.relay_pid()));
    }
    for node in ["dev-1", "dev-2"] {
        for (what, file) in [("node", "codewire.pid"), ("keeper", "lock")] {
            let text = std::fs::read_to_string(rig.home(node).join(file))?;
            found.push((format!("{node}, {what}"), text.trim().parse()?));
        }
    }
    let stayer = |(name, pid)| Stayer {
        name,
        pid,
        memory: Samples::default(),
        descriptors: Samples::default(),
    };
    Ok(found.into_iter().map(stayer).collect())
}

/// What users and their agents do.
fn round(rig: &Rig, number: u64) -> Result<()> {
    let name = format!("job-{number}");
    let print = "seq 1 300; exit 3";
    rig.out("dev-1", &["launch", &name, "--", "sh", "-c", print])?;
    let far = format!("dev-2:{name}");
    rig.out("dev-1", &["launch", &far, "--", "sh", "-c", print])?;
    for session in [&name, &far] {
        // A session that fails is told by the status.
        let _ = rig
            .cw("dev-1", &["wait", session, "--timeout", "30"])
            .output()?;
        rig.out("dev-1", &["logs", session])?;
    }
    for (from, to) in [("dev-1", "dev-2:coder"), ("dev-2", "dev-1:planner")] {
        rig.out(from, &["msg", to, "a word"])?;
        rig.out(from, &["status", to])?;
        rig.out(from, &["list"])?;
    }
    rig.attach("planner")?;
    if number % SEASON == SEASON - 1 {
        season(rig)?;
    }
    Ok(())
}

/// Somebody new, who is spoken to and leaves; and fresh sessions to write to.
fn season(rig: &Rig) -> Result<()> {
    // What one that went wrong has left.
    if rig.home("dev-3").exists() {
        rig.stop("dev-3");
        std::fs::remove_dir_all(rig.home("dev-3"))?;
    }
    let invite = rig.out("dev-1", &["network", "invite", "--mine"])?;
    rig.out("dev-3", &["network", "join", invite.trim()])?;
    rig.out("dev-3", &["launch", "guest", "--", "cat"])?;
    rig.wait(|| rig.ok("dev-1", &["msg", "dev-3:guest", "welcome"]))?;
    rig.out("dev-3", &["msg", "dev-1:planner", "here I am"])?;
    rig.stop("dev-3");
    rig.out("dev-1", &["network", "revoke", "dev-3"])?;
    std::fs::remove_dir_all(rig.home("dev-3"))?;
    for (node, session) in [("dev-1", "planner"), ("dev-2", "coder")] {
        rig.out(node, &["kill", session])?;
        rig.out(node, &["launch", session, "--", "cat"])?;
        rig.out(node, &["send", session, "MARK!"])?;
    }
    Ok(())
}

fn look(stayers: &mut [Stayer], at: Duration, rounds: u64) -> Result<()> {
    let mut line = format!("{:>5} s {rounds:>6} rounds", at.as_secs());
    for stayer in stayers {
        let (memory, descriptors) = (resident(stayer.pid)?, descriptors(stayer.pid)?);
        stayer.memory.number(memory);
        stayer.descriptors.number(descriptors);
        line.push_str(&format!(
            "; {} {memory:.0} KiB, {descriptors:.0} files",
            stayer.name
        ));
    }
    println!("{line}");
    Ok(())
}

fn resident(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("process {pid} is gone"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.context("no VmRSS")?.parse()?)
}

fn descriptors(pid: u32) -> Result<f64> {
    let entries = std::fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd"))?;
    Ok(entries.count() as f64)
}

fn print(stayers: &[Stayer]) {
    println!("each: the median of the fifth after three fifths of the time, and of the last fifth");
    for stayer in stayers {
        let two = |samples: &Samples| {
            let values = samples.values();
            let fifth = (values.len() / 5).max(1);
            let early = (values.len() as f64 * WARM) as usize;
            let median = |part: &[f64]| {
                let mut some = Samples::default();
                part.iter().for_each(|value| some.number(*value));
                some.median()
            };
            let end = (early + fifth).min(values.len());
            let last = values.len().saturating_sub(fifth);
            (
                median(&values[early.min(end)..end]),
                median(&values[last..]),
            )
        };
        let (memory, files) = (two(&stayer.memory), two(&stayer.descriptors));
        println!(
            "{:<16} {:>8.0} to {:>8.0} KiB ({:+.1} %), {:>4.0} to {:>4.0} files",
            stayer.name,
            memory.0,
            memory.1,
            100.0 * (memory.1 / memory.0 - 1.0),
            files.0,
            files.1
        );
    }
}
