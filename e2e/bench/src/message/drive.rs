//! The driver of all senders of a round: one thread that waits for any of them.

use std::io::{Read, Write};
use std::time::Instant;

use anyhow::{Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, poll};

use super::server::{Kind, Line, Running, Server};
use super::{BODY, cw, nats, redis};
use crate::session::process;

/// What is sent in a round.
pub struct Load {
    pub senders: usize,
    /// Messages that a sender writes at once.
    pub burst: usize,
    /// Messages of each sender; a multiple of the burst.
    pub each: usize,
}

/// What it took.
pub struct Done {
    pub seconds: f64,
    pub server_cpu: f64,
    pub driver_cpu: f64,
}

struct Sender {
    line: Line,
    burst: Vec<u8>,
    /// Acknowledgements to come of this burst.
    due: usize,
    /// Bursts to come.
    left: usize,
    heard: Vec<u8>,
}

impl Sender {
    /// Writes the next burst, if there is one.
    fn go(&mut self, size: usize) -> Result<()> {
        if self.left > 0 {
            self.left -= 1;
            self.due = size;
            self.line.write_all(&self.burst)?;
        }
        Ok(())
    }

    const fn waits(&self) -> bool {
        self.due > 0
    }

    /// Takes what has come.
    fn hear(&mut self, kind: Kind, space: &mut [u8]) -> Result<()> {
        let count = self.line.read(space)?;
        ensure!(count > 0, "the server has closed");
        self.heard.extend_from_slice(&space[..count]);
        let acks = match kind {
            Kind::Cw => cw::acknowledged(&mut self.heard)?,
            Kind::Nats => nats::acknowledged(&mut self.heard, &mut self.line)?,
            Kind::Redis => redis::acknowledged(&mut self.heard)?,
        };
        ensure!(acks <= self.due, "more acknowledgements than messages");
        self.due -= acks;
        Ok(())
    }
}

/// Starts a server, sends, and looks whether everything is there.
pub fn run(server: &Server, load: &Load) -> Result<Done> {
    let running = server.start(load.senders)?;
    let mut senders = (0..load.senders)
        .map(|number| sender(&running, number, load))
        .collect::<Result<Vec<_>>>()?;
    let pids = running.pids();
    let (start, server_cpu, driver_cpu) = (Instant::now(), process::cpu(&pids), own_cpu());
    for sender in &mut senders {
        sender.go(load.burst)?;
    }
    let mut space = vec![0; 1 << 16];
    loop {
        let ready = ready(&senders)?;
        if ready.is_empty() {
            break;
        }
        for at in ready {
            let sender = &mut senders[at];
            sender.hear(running.kind, &mut space)?;
            if !sender.waits() {
                sender.go(load.burst)?;
            }
        }
    }
    let done = Done {
        seconds: start.elapsed().as_secs_f64(),
        server_cpu: process::cpu(&pids) - server_cpu,
        driver_cpu: own_cpu() - driver_cpu,
    };
    let stored = match running.kind {
        Kind::Cw => cw::stored(&running, load.senders)?,
        Kind::Nats => nats::stored(&running)?,
        Kind::Redis => redis::stored(&running, load.senders)?,
    };
    let sent = load.senders * load.each;
    ensure!(
        stored == sent,
        "{sent} were acknowledged, {stored} are there"
    );
    Ok(done)
}

fn sender(running: &Running, number: usize, load: &Load) -> Result<Sender> {
    let mut line = running.connect()?;
    let body = "x".repeat(BODY);
    let one = match running.kind {
        Kind::Cw => cw::message(number, &body),
        Kind::Nats => {
            nats::listen(&mut line, number)?;
            nats::message(number, &body)
        }
        Kind::Redis => redis::message(number, &body),
    };
    Ok(Sender {
        line,
        burst: one.repeat(load.burst),
        due: 0,
        left: load.each / load.burst,
        heard: Vec::new(),
    })
}

/// Those who have heard something, of those who wait; none when nobody waits any more.
fn ready(senders: &[Sender]) -> Result<Vec<usize>> {
    let waiting: Vec<usize> = (0..senders.len())
        .filter(|at| senders[*at].waits())
        .collect();
    if waiting.is_empty() {
        return Ok(waiting);
    }
    let line = |at: &usize| PollFd::new(&senders[*at].line, PollFlags::IN);
    let mut lines: Vec<_> = waiting.iter().map(line).collect();
    let limit = rustix::event::Timespec {
        tv_sec: 60,
        tv_nsec: 0,
    };
    if poll(&mut lines, Some(&limit))? == 0 {
        bail!("nothing was acknowledged for a minute");
    }
    let heard = waiting.iter().zip(&lines);
    Ok(heard
        .filter(|(_, line)| !line.revents().is_empty())
        .map(|(at, _)| *at)
        .collect())
}

fn own_cpu() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
