//! `cat` of a large file: how fast it arrives and what that costs.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::peer::{Kind, Peer};
use super::process;
use super::pty::Terminal;
use super::stage::{BEGIN, DONE, Stage};
use crate::report::{Samples, rows};

/// What is printed.
const FULL: usize = 64 << 20;
/// By a peer that is [`Kind::slow`].
const LESS: usize = 8 << 20;
/// Columns of a line, with its end.
const LINE: usize = 80;
/// A server is done when it has used no processor for this long.
const QUIET: Duration = Duration::from_millis(400);

/// Numbered lines, and how a terminal gets them.
struct Text {
    path: std::path::PathBuf,
    shown: Vec<u8>,
}

impl Text {
    fn new(dir: &Path, size: usize) -> Result<Self> {
        let mut plain = Vec::with_capacity(size);
        let mut shown = Vec::with_capacity(size + size / LINE);
        for number in 0..size / LINE {
            let line = format!(
                "{number:08} {:>70}",
                "the quick brown fox jumps over the lazy dog"
            );
            for (text, end) in [(&mut plain, "\n"), (&mut shown, "\r\n")] {
                text.extend_from_slice(line.as_bytes());
                text.extend_from_slice(end.as_bytes());
            }
        }
        let path = dir.join(format!("text-{size}"));
        std::fs::write(&path, plain)?;
        Ok(Self { path, shown })
    }
}

/// What one peer has done.
#[derive(Default)]
struct Figures {
    attached: Samples,
    detached: Samples,
    cpu: Samples,
    cpu_detached: Samples,
    client: Samples,
    sent: Samples,
}

/// Measures and prints.
pub fn run(program: &Path) -> Result<()> {
    let peers = super::peer::all(program)?;
    let dir = tempfile::tempdir()?;
    let texts = [Text::new(dir.path(), FULL)?, Text::new(dir.path(), LESS)?];
    let mut figures: Vec<Figures> = peers.iter().map(|_| Figures::default()).collect();
    for round in 0..super::rounds() {
        for at in super::turn(peers.len(), round) {
            let (peer, figures) = (&peers[at], &mut figures[at]);
            let text = &texts[usize::from(peer.kind.slow())];
            attached(peer, round, text, figures)
                .with_context(|| format!("cat attached to {}", peer.name()))?;
            detached(peer, round, text, figures)
                .with_context(|| format!("cat detached in {}", peer.name()))?;
        }
    }
    print(&peers, &figures);
    Ok(())
}

fn print(peers: &[Peer], figures: &[Figures]) {
    let table = |name: &str, unit: &str, raw: bool, of: fn(&Figures) -> &Samples, goal: &str| {
        let mut others = Vec::new();
        for (peer, figures) in peers.iter().zip(figures) {
            if peer.kind != Kind::Cw && (raw || peer.kind != Kind::Raw) {
                others.push((peer.name(), of(figures)));
            }
        }
        rows(name, unit, of(&figures[1]), &others, goal);
    };
    table(
        "cat 64 MiB, attached",
        "MB/s",
        true,
        |f| &f.attached,
        ">= 0.85 x raw",
    );
    table(
        "  cpu of the server, settled",
        "ms/MB",
        false,
        |f| &f.cpu,
        "<= 7.5",
    );
    table("  cpu of the client", "ms/MB", false, |f| &f.client, "");
    table("  sent to the terminal", "MB", false, |f| &f.sent, "");
    table(
        "cat 64 MiB, detached",
        "MB/s",
        true,
        |f| &f.detached,
        ">= 0.90 x raw",
    );
    table(
        "  cpu of the server, settled",
        "ms/MB",
        false,
        |f| &f.cpu_detached,
        "",
    );
}

/// With a client at the terminal, which must get everything.
fn attached(peer: &Peer, round: usize, text: &Text, figures: &mut Figures) -> Result<()> {
    let name = format!("a{round}");
    let mut stage = Stage::new(peer.dir(), &name)?;
    let script = stage.script(&text.path, 1);
    peer.open(&name, &script)?;
    let mut terminal = Terminal::start(peer.attach(&name, &script))?;
    terminal.read_until_quiet(Duration::from_millis(300))?;
    let servers = peer.servers(&[terminal.pid()]);
    let before = [process::cpu(&servers), process::cpu(&[terminal.pid()])];
    let start = Instant::now();
    stage.go()?;
    let sent = receive(&mut terminal, peer.kind.passes().then_some(&text.shown[..]))?;
    let time = start.elapsed();
    stage.wait()?;
    settle(&servers);
    let mb = text.shown.len() as f64 / 1e6;
    figures.attached.number(mb / time.as_secs_f64());
    figures.sent.number(sent as f64 / 1e6);
    figures
        .cpu
        .number((process::cpu(&servers) - before[0]) * 1e3 / mb);
    figures
        .client
        .number((process::cpu(&[terminal.pid()]) - before[1]) * 1e3 / mb);
    drop(terminal);
    stage.go()
}

/// Reads what the program prints; with `exactly` every byte of it must be there, in order.
/// Otherwise the peer paints, and only what it shows at last counts.
fn receive(terminal: &mut Terminal, exactly: Option<&[u8]>) -> Result<u64> {
    let Some(expected) = exactly else {
        return terminal.read_until(DONE);
    };
    let mut head = Vec::new();
    let start = loop {
        head.extend_from_slice(terminal.read()?);
        if let Some(at) = memchr::memmem::find(&head, BEGIN) {
            break at + BEGIN.len();
        }
    };
    let mut seen = head.len() - start;
    ensure!(
        expected.starts_with(&head[start..]),
        "the first bytes are others"
    );
    let mut end = Vec::new();
    while seen < expected.len() {
        let bytes = terminal.read()?;
        let here = bytes.len().min(expected.len() - seen);
        ensure!(
            bytes[..here] == expected[seen..seen + here],
            "other bytes after {seen}"
        );
        seen += here;
        end.extend_from_slice(&bytes[here..]);
    }
    let mut total = (head.len() + expected.len()) as u64;
    if memchr::memmem::find(&end, DONE).is_none() {
        total += terminal.read_until(DONE)?;
    }
    Ok(total)
}

/// With nobody attached; for the terminal as it is, somebody who reads it.
fn detached(peer: &Peer, round: usize, text: &Text, figures: &mut Figures) -> Result<()> {
    let name = format!("d{round}");
    let mut stage = Stage::new(peer.dir(), &name)?;
    let script = stage.script(&text.path, 1);
    peer.open(&name, &script)?;
    let mut terminal = match peer.kind {
        Kind::Raw => Some(Terminal::start(peer.attach(&name, &script))?),
        _ => None,
    };
    std::thread::sleep(Duration::from_millis(100));
    let servers = peer.servers(&[]);
    let before = process::cpu(&servers);
    let start = Instant::now();
    stage.go()?;
    if let Some(terminal) = &mut terminal {
        receive(terminal, Some(&text.shown))?;
    }
    stage.wait()?;
    let time = start.elapsed();
    settle(&servers);
    let mb = text.shown.len() as f64 / 1e6;
    figures.detached.number(mb / time.as_secs_f64());
    figures
        .cpu_detached
        .number((process::cpu(&servers) - before) * 1e3 / mb);
    if peer.kind == Kind::Cw {
        let mut logs = peer.command(&["logs", "--raw", &name]);
        let log = logs.stderr(std::process::Stdio::inherit()).output()?.stdout;
        let whole = [BEGIN, &text.shown, DONE, b"\r\n"].concat();
        ensure!(
            log == whole,
            "the log of {} bytes is not what was printed",
            log.len()
        );
    }
    stage.go()
}

fn settle(pids: &[u32]) {
    let mut before = process::cpu(pids);
    loop {
        std::thread::sleep(QUIET);
        let now = process::cpu(pids);
        if now - before < 0.011 {
            return;
        }
        before = now;
    }
}
