//! Pairs of clients that load a relay, in a process of their own and with the lowest priority.
//!
//! Each sender gets its turn each [`PERIOD`], one after the other, and sends what is due by then: a
//! few datagrams, as who paces what it sends does. A turn that comes late is made up for, but no
//! more than [`LATE`] of it: else a relay that is too slow would get ever larger heaps, which are
//! cheaper for everybody, and there would be no most that passes.
//!
//! Tokio's timers count in milliseconds, so a thread gives the turns. It alone has the usual
//! priority, for a turn costs next to nothing and is to come in time; all others have the lowest.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::client::{Client, Kind, Sender};
use crate::serve::{At, Served, stay};
use crate::throughput::SIZE;

/// Where the load is made.
pub const CORE: usize = 1;
/// Pairs that make the load.
const PAIRS: usize = 9;
/// From one turn of a sender to its next.
const PERIOD: Duration = Duration::from_micros(250);
/// What is due from longer ago is not sent.
const LATE: Duration = Duration::from_millis(2);
/// The share of a rate that must arrive if that rate is to count as one that passes; a hundredth is
/// what the moments of asking are apart.
const PASSES: f64 = 0.99;
/// The rate that is tried first, datagrams a second.
const FIRST: f64 = 20_000.0;
/// By how much more it is tried, until that does not pass.
const MORE: f64 = 1.2;
/// Until the load is what it is to be, and how long it is measured.
const WARM_UP: Duration = Duration::from_millis(100);
const MEASURE: Duration = Duration::from_millis(300);

/// The process; killed when dropped.
pub struct Load {
    child: Child,
    told: ChildStdin,
    says: BufReader<ChildStdout>,
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Load {
    /// Starts it; nothing is sent yet.
    pub fn start(kind: Kind, relay: &Served) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["load", kind.name(), &relay.at.address.to_string()])
            .arg(relay.dir())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let told = child.stdin.take().context("no input")?;
        let says = BufReader::new(child.stdout.take().context("no output")?);
        let mut load = Self { child, told, says };
        load.send(0.0)?;
        stay(load.child.id(), &[CORE])?;
        Ok(load)
    }

    /// Sends so many datagrams a second from now on; how many have arrived so far.
    pub fn send(&mut self, rate: f64) -> Result<f64> {
        writeln!(self.told, "{rate}")?;
        let mut line = String::new();
        ensure!(self.says.read_line(&mut line)? > 0, "the load has ended");
        Ok(line.trim_end().parse()?)
    }

    /// The most datagrams a second that pass.
    pub async fn peak(&mut self) -> Result<f64> {
        let (mut most, mut rate, mut missed) = (FIRST, FIRST, 0);
        // One miss may be somebody else's fault.
        while missed < 2 {
            if self.passes(rate).await? {
                (most, missed) = (rate, 0);
            } else {
                missed += 1;
            }
            rate *= MORE;
        }
        Ok(most)
    }

    /// Whether so many datagrams a second pass; once more if they do not, for something else may
    /// have had the processors.
    async fn passes(&mut self, rate: f64) -> Result<bool> {
        for _ in 0..2 {
            self.send(rate)?;
            sleep(WARM_UP).await;
            let (start, before) = (Instant::now(), self.send(rate)?);
            sleep(MEASURE).await;
            let passed = (self.send(rate)? - before) / start.elapsed().as_secs_f64();
            if passed >= PASSES * rate {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Loads until its standard input ends. Each line of it is the rate from then on, in datagrams a
/// second, and is answered with how many have arrived.
pub fn run(kind: &str, address: &str, dir: &str) -> Result<()> {
    #[cfg(target_os = "linux")]
    rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1))?;
    let kind = Kind::parse(kind)?;
    let relay = At::of(address.parse()?, Path::new(dir))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .on_thread_start(stand_back)
        .enable_all()
        .build()?;
    let arrived = Arc::new(AtomicU64::new(0));
    let rate = Arc::new(AtomicU64::new(0));
    let mut turns = Vec::new();
    for pair in 0..PAIRS {
        let turn = Arc::new(Notify::new());
        turns.push(Arc::clone(&turn));
        let begin = begin(kind, &relay, pair, Arc::clone(&arrived));
        let sender = runtime.block_on(begin)?;
        runtime.spawn(pace(sender, Arc::clone(&rate), turn));
    }
    std::thread::spawn(move || give(&turns));
    for line in std::io::stdin().lock().lines() {
        let each = line?.parse::<f64>()? / PAIRS as f64;
        rate.store(each.to_bits(), Relaxed);
        let mut out = std::io::stdout();
        writeln!(out, "{}", arrived.load(Relaxed))?;
        out.flush()?;
    }
    Ok(())
}

/// Gives the thread the lowest priority: whoever else wants the processor has it at once.
fn stand_back() {
    #[cfg(target_os = "linux")]
    {
        let none = libc::sched_param { sched_priority: 0 };
        // SAFETY: the system reads what `none` is; of this thread alone.
        unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const none) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = rustix::process::setpriority_process(None, 19);
}

/// Connects a pair: who receives counts in a task.
async fn begin(kind: Kind, relay: &At, pair: usize, arrived: Arc<AtomicU64>) -> Result<Sender> {
    let (idle, mut sink) = Client::connect(kind, relay, pair).await?.split(pair)?;
    tokio::spawn(async move {
        while let Ok(bytes) = sink.recv().await {
            arrived.fetch_add((bytes / SIZE) as u64, Relaxed);
        }
        drop(idle);
    });
    let sender = Client::connect(kind, relay, 100 + pair).await?;
    let (sender, mut heard) = sender.split(pair)?;
    // The connection lives as long as this half.
    tokio::spawn(async move { while heard.recv().await.is_ok() {} });
    Ok(sender)
}

/// Gives each its turn.
fn give(turns: &[Arc<Notify>]) {
    let step = PERIOD / PAIRS as u32;
    let mut due = Instant::now();
    loop {
        for turn in turns {
            due += step;
            let now = Instant::now();
            match due.checked_duration_since(now) {
                Some(wait) => std::thread::sleep(wait),
                // Turns that were missed are not given all at once.
                None => due = now,
            }
            turn.notify_one();
        }
    }
}

/// Sends so many datagrams a second (the bits of an `f64`), at its turns.
async fn pace(mut sender: Sender, rate: Arc<AtomicU64>, turn: Arc<Notify>) {
    let datagram = Bytes::from(vec![7; SIZE]);
    let (mut last, mut due) = (Instant::now(), 0.0);
    loop {
        turn.notified().await;
        let rate = f64::from_bits(rate.load(Relaxed));
        due += rate * last.elapsed().as_secs_f64();
        last = Instant::now();
        // One at least, however seldom they are to be sent.
        due = f64::min(due, f64::max(rate * LATE.as_secs_f64(), 1.0));
        while due >= 1.0 {
            if sender.send(&datagram, SIZE).await.is_err() {
                return;
            }
            due -= 1.0;
        }
        if sender.flush().await.is_err() {
            return;
        }
    }
}
