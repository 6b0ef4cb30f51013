//! What somebody at a terminal waits for: the first paint, the echo of a key, a followed line.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::peer::{Kind, Peer, all};
use super::pty::Terminal;
use super::stage::{DONE, Stage};
use crate::report::{Samples, rows};

/// What a session has printed before somebody attaches.
const BEHIND: usize = 1 << 30;
/// The same for peers: it only helps them.
const BEHIND_PEERS: usize = 64 << 20;
const BEHIND_SLOW: usize = 8 << 20;
/// Attachments in a round.
const ATTACHES: usize = 3;
/// Keys in a round, after some that warm up.
const KEYS: usize = 300;
const WARM: usize = 50;
/// Lines in a round.
const LINES: usize = 200;

fn others<'a>(
    peers: &[Peer],
    samples: &'a [Samples],
    raw: bool,
) -> Vec<(&'static str, &'a Samples)> {
    let pairs = peers.iter().zip(samples);
    pairs
        .filter(|(peer, _)| peer.kind != Kind::Cw && (raw || peer.kind != Kind::Raw))
        .map(|(peer, samples)| (peer.name(), samples))
        .collect()
}

/// From the start of the client until the end of the screen is there.
pub fn attach(program: &Path) -> Result<()> {
    let peers = all(program)?;
    let dir = tempfile::tempdir()?;
    let text = dir.path().join("text");
    std::fs::write(
        &text,
        "what an agent said, in a line of some length, again\n".repeat(1 << 14),
    )?;
    let size = std::fs::metadata(&text)?.len() as usize;
    let mut stages = Vec::new();
    for peer in &peers {
        let mut stage = Stage::new(peer.dir(), "long")?;
        let behind = match peer.kind {
            Kind::Cw => BEHIND,
            kind if kind.slow() => BEHIND_SLOW,
            _ => BEHIND_PEERS,
        };
        peer.open("long", &stage.script(&text, behind / size))?;
        if peer.kind != Kind::Raw {
            stage.go()?;
            stage.wait().with_context(|| peer.name())?;
        }
        stages.push(stage);
    }
    std::thread::sleep(Duration::from_secs(2));
    let mut time: Vec<Samples> = peers.iter().map(|_| Samples::default()).collect();
    let mut sent = time.clone();
    for round in 0..super::rounds() * ATTACHES {
        for at in super::turn(peers.len(), round) {
            if peers[at].kind != Kind::Raw {
                one_attach(&peers[at], &mut time[at], &mut sent[at])
                    .with_context(|| format!("attach to {}", peers[at].name()))?;
            }
        }
    }
    let name = "attach to first paint, 1 GiB log";
    rows(
        name,
        "ms",
        &time[1],
        &others(&peers, &time, false),
        "<= 6 ms",
    );
    rows(
        "  sent",
        "KiB",
        &sent[1],
        &others(&peers, &sent, false),
        "<= 64 KiB",
    );
    Ok(())
}

fn one_attach(peer: &Peer, time: &mut Samples, sent: &mut Samples) -> Result<()> {
    let command = peer.attach("long", "");
    let start = Instant::now();
    let mut terminal = Terminal::start(command)?;
    // This one keeps no screen: its first byte is all there will be.
    let mut bytes = if peer.kind == Kind::Dtach {
        terminal.read()?.len() as u64
    } else {
        terminal.read_until(DONE)?
    };
    time.number(start.elapsed().as_secs_f64() * 1e3);
    bytes += terminal.read_until_quiet(Duration::from_millis(50))?;
    sent.number(bytes as f64 / 1024.0);
    Ok(())
}

/// From a key to what a program answers to it.
pub fn echo(program: &Path) -> Result<()> {
    let peers = all(program)?;
    let script = "stty raw -echo; exec cat";
    let mut terminals = Vec::new();
    for peer in &peers {
        peer.open("echo", script)?;
        let mut terminal = Terminal::start(peer.attach("echo", script))?;
        terminal.read_until_quiet(Duration::from_millis(500))?;
        terminals.push(terminal);
    }
    let mut p50: Vec<Samples> = peers.iter().map(|_| Samples::default()).collect();
    let mut p99 = p50.clone();
    for round in 0..super::rounds() {
        for at in super::turn(peers.len(), round) {
            let times = keys(&mut terminals[at]).with_context(|| peers[at].name())?;
            p50[at].number(times.quantile(0.5));
            p99[at].number(times.quantile(0.99));
        }
    }
    rows(
        "key echo, p50",
        "us",
        &p50[1],
        &others(&peers, &p50, true),
        "",
    );
    rows(
        "key echo, p99",
        "us",
        &p99[1],
        &others(&peers, &p99, true),
        "",
    );
    let over: Vec<_> = p50.iter().map(|samples| samples.minus(&p50[0])).collect();
    rows(
        "key echo over raw, p50",
        "us",
        &over[1],
        &others(&peers, &over, false),
        "<= 60 us",
    );
    Ok(())
}

fn keys(terminal: &mut Terminal) -> Result<Samples> {
    let mut times = Samples::default();
    for number in 0..WARM + KEYS {
        let key = [b"~#"[number % 2]];
        let start = Instant::now();
        terminal.write(&key)?;
        while !terminal.read()?.contains(&key[0]) {}
        if number >= WARM {
            times.time(start.elapsed());
        }
    }
    Ok(times)
}

/// From a program's line to whoever follows the log.
pub fn follow(program: &Path) -> Result<()> {
    let mut peers = all(program)?;
    peers.retain(|peer| matches!(peer.kind, Kind::Cw | Kind::Tmux));
    let (mut stages, mut readers, mut children) = (Vec::new(), Vec::new(), Vec::new());
    for peer in &peers {
        let stage = Stage::new(peer.dir(), "said")?;
        peer.open("said", &stage.echo_script())?;
        stages.push(stage);
        std::thread::sleep(Duration::from_millis(300));
        if peer.kind == Kind::Cw {
            let mut logs = peer.command(&["logs", "-f", "--raw", "said"]);
            let mut child = logs.stdout(Stdio::piped()).spawn()?;
            let out = child.stdout.take().context("a pipe")?;
            readers.push(Box::new(BufReader::new(out)) as Box<dyn BufRead>);
            children.push(child);
        } else {
            let pipe = Stage::new(peer.dir(), "piped")?;
            let path = peer.dir().join("piped.go");
            let cat = format!("exec cat > {}", path.display());
            peer.run(peer.command(&["pipe-pane", "-t", "said", &cat]))?;
            readers.push(Box::new(BufReader::new(std::fs::File::open(path)?)));
            stages.push(pipe);
        }
    }
    std::thread::sleep(Duration::from_millis(500));
    let mut p50: Vec<Samples> = peers.iter().map(|_| Samples::default()).collect();
    let mut p99 = p50.clone();
    for round in 0..super::rounds() {
        for at in super::turn(peers.len(), round) {
            let times = lines(&mut stages[at], &mut readers[at], round)?;
            p50[at].number(times.quantile(0.5) / 1e3);
            p99[at].number(times.quantile(0.99) / 1e3);
        }
    }
    for mut child in children {
        child.kill()?;
        child.wait()?;
    }
    let peer = |samples| others(&peers, samples, false);
    let renamed = |samples| -> Vec<(&str, &Samples)> {
        let other = |(_, samples)| ("tmux pipe", samples);
        peer(samples).into_iter().map(other).collect()
    };
    rows("logs -f, p50", "ms", &p50[0], &renamed(&p50), "");
    rows("logs -f, p99", "ms", &p99[0], &renamed(&p99), "<= 5 ms");
    Ok(())
}

fn lines(stage: &mut Stage, reader: &mut Box<dyn BufRead>, round: usize) -> Result<Samples> {
    let mut times = Samples::default();
    for number in 0..LINES {
        let line = format!("line {number} of round {round}\n");
        std::thread::sleep(Duration::from_millis(2));
        let start = Instant::now();
        stage.say(line.as_bytes())?;
        let mut got = String::new();
        reader.read_line(&mut got)?;
        times.time(start.elapsed());
        ensure!(got == line, "{got:?} where {line:?} was due");
    }
    Ok(times)
}
