//! Pairs of clients that load a relay, in a process of their own and with the lowest priority.
//!
//! Each sender sends what is due once each [`PERIOD`], one after the other: a few datagrams, as who
//! paces what it sends does. What comes late is made up for, but no more than [`LATE`] of it: else a
//! relay that is too slow would get ever larger heaps, which are cheaper for everybody, and there
//! would be no most that passes.
//!
//! Nobody sleeps until then. Tokio's timers count in milliseconds, and those of the system cost up to
//! 17 us each on a virtual machine, which was most of a processor; the lowest priority makes looking
//! at the clock all the time free for everybody else.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
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
/// How often a rate is tried, and how many that do not pass in a row end the search.
const TRIES: usize = 6;
const MISSES: usize = 3;
/// Until the load is what it is to be, and how long it is measured: short enough for no pause of a
/// virtual processor to come between, some milliseconds a few times a second.
const WARM_UP: Duration = Duration::from_millis(100);
const MEASURE: Duration = Duration::from_millis(100);

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

    /// The most datagrams a second that pass. `last` is what it was the last time, if it was
    /// measured before.
    pub async fn peak(&mut self, last: Option<f64>) -> Result<f64> {
        let first = last.map_or(FIRST, |last| last / 2.0);
        let (mut most, mut rate, mut missed) = (first, first, 0);
        // A few misses may be somebody else's fault, also at a rate that is far below what passes.
        while missed < MISSES {
            if self.passes(rate).await? {
                (most, missed) = (rate, 0);
            } else {
                missed += 1;
            }
            rate *= MORE;
        }
        Ok(most)
    }

    /// Whether so many datagrams a second pass; again if they do not, for something else may have
    /// had the processors.
    async fn passes(&mut self, rate: f64) -> Result<bool> {
        for _ in 0..TRIES {
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
    let kind = Kind::parse(kind)?;
    let relay = At::of(address.parse()?, Path::new(dir))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // Two would take turns of milliseconds on the one processor.
        .worker_threads(1)
        .on_thread_start(stand_back)
        .enable_all()
        .build()?;
    let arrived = Arc::new(AtomicU64::new(0));
    let rate = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    for pair in 0..PAIRS {
        let begin = begin(kind, &relay, pair, Arc::clone(&arrived));
        let sender = runtime.block_on(begin)?;
        let first = start + PERIOD * pair as u32 / PAIRS as u32;
        runtime.spawn(pace(sender, Arc::clone(&rate), first));
    }
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

/// Sends so many datagrams a second (the bits of an `f64`), a period's worth at once. `turn` says
/// when in the periods.
async fn pace(mut sender: Sender, rate: Arc<AtomicU64>, mut turn: Instant) {
    let datagram = Bytes::from(vec![7; SIZE]);
    let (mut last, mut due) = (Instant::now(), 0.0);
    loop {
        while Instant::now() < turn {
            tokio::task::yield_now().await;
        }
        let now = Instant::now();
        // Turns that were missed are not made up for one by one.
        while turn <= now {
            turn += PERIOD;
        }
        let rate = f64::from_bits(rate.load(Relaxed));
        due += rate * now.duration_since(last).as_secs_f64();
        last = now;
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
