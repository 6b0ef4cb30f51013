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
/// So many of the last bytes, at least, are looked at for the end.
const TAIL: usize = 64 * 1024;
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
    /// 1 for a round in which the terminal got every byte.
    whole: Samples,
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
    table("  rounds with every byte", "", false, |f| &f.whole, "");
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

/// With a client at the terminal.
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
    let received = receive(&mut terminal, peer.kind, text)?;
    let time = start.elapsed();
    stage.wait()?;
    settle(&servers);
    let mb = text.shown.len() as f64 / 1e6;
    figures.attached.number(mb / time.as_secs_f64());
    figures.sent.number(received.sent as f64 / 1e6);
    figures.whole.number(f64::from(u8::from(received.whole)));
    figures
        .cpu
        .number((process::cpu(&servers) - before[0]) * 1e3 / mb);
    figures
        .client
        .number((process::cpu(&[terminal.pid()]) - before[1]) * 1e3 / mb);
    drop(terminal);
    stage.go()
}

/// What a terminal got.
struct Received {
    /// Bytes.
    sent: u64,
    /// Whether that was every byte of the program, in order.
    whole: bool,
}

/// Reads what the program prints, to its end. Who passes bytes on passes every one of them; ours
/// may repaint a terminal that is far behind, and then must show the last lines. Others paint as
/// they like.
fn receive(terminal: &mut Terminal, kind: Kind, text: &Text) -> Result<Received> {
    if !kind.passes() {
        let sent = terminal.read_until(DONE)?;
        return Ok(Received { sent, whole: false });
    }
    let mut head = Vec::new();
    let start = loop {
        head.extend_from_slice(terminal.read()?);
        if let Some(at) = memchr::memmem::find(&head, BEGIN) {
            break at + BEGIN.len();
        }
    };
    let mut check = Check::new(&text.shown);
    check.feed(&head[start..]);
    while !check.done {
        check.feed(terminal.read()?);
    }
    ensure!(
        check.is_whole() || kind == Kind::Cw,
        "other bytes after {}",
        check.same
    );
    ensure!(
        check.is_whole() || check.shows_the_end(),
        "the last lines are not there"
    );
    Ok(Received {
        sent: (start + check.total) as u64,
        whole: check.is_whole(),
    })
}

/// What is known of the bytes so far.
struct Check<'a> {
    expected: &'a [u8],
    /// So many are as expected.
    same: usize,
    total: usize,
    /// The last of them.
    tail: Vec<u8>,
    /// The end was among them.
    done: bool,
}

impl<'a> Check<'a> {
    const fn new(expected: &'a [u8]) -> Self {
        Self {
            expected,
            same: 0,
            total: 0,
            tail: Vec::new(),
            done: false,
        }
    }

    fn feed(&mut self, bytes: &[u8]) {
        if self.same == self.total && self.same < self.expected.len() {
            let rest = &self.expected[self.same..];
            let len = bytes.len().min(rest.len());
            let same = if bytes[..len] == rest[..len] {
                len
            } else {
                bytes.iter().zip(rest).take_while(|(a, b)| a == b).count()
            };
            self.same += same;
        }
        self.total += bytes.len();
        // Only now and then, for it takes time from who reads.
        if self.tail.len() > 2 * TAIL {
            self.tail.drain(..TAIL);
        }
        let seen = self.tail.len().saturating_sub(DONE.len());
        self.tail.extend_from_slice(bytes);
        self.done |= memchr::memmem::find(&self.tail[seen..], DONE).is_some();
    }

    fn is_whole(&self) -> bool {
        self.same == self.expected.len()
    }

    /// Whether the last lines came last, in order; how they are put on the screen is not our
    /// business.
    fn shows_the_end(&self) -> bool {
        let numbers = self.expected.len() / (LINE + 1);
        let mut at = 0;
        (numbers - 10..numbers).all(|number| {
            let found = memchr::memmem::find(&self.tail[at..], format!("{number:08}").as_bytes());
            found.is_some_and(|found| {
                at += found + 8;
                true
            })
        })
    }
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
        receive(terminal, peer.kind, text)?;
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
