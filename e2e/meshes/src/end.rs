//! One end of a way, in a process of its own: it does what it is told by lines on its standard
//! input, and says what came of it, a line for each. The first line says that it is there, and, of
//! the end that answers, what the other one must know of it.
//!
//! | told | says |
//! |---|---|
//! | `pin CORE` | nothing |
//! | `cpu` | the process' processor time so far, s |
//! | `online` | nothing, once the relay is connected |
//! | `path PATH` | nothing, once the path is that one |
//! | `which` | the path in use |
//! | `ping` | nothing, once WireGuard has echoed |
//! | `sent` | datagrams sent, and in how many calls of the system |
//! | `first` | how long a call took, ms |
//! | `drop` | nothing, once the connection has ended at both ends; the tunnel stays |
//! | `early` | how long a call took that may be made twice, ms; 1 if it did not wait for a connection, else 0 |
//! | `calls N` | p50 and p99 of that many calls, us |
//! | `bulk N` | how long so many bytes took, s |
//! | `upgrade` | ms until the first answer, and until the path was direct; calls that failed |
//! | `begin` | nothing; from now on there are calls all the time |
//! | `end` | the longest time without an answer, ms; calls, and those that failed |

use std::io::{BufRead as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::report::Samples;
use crate::way::{self, Near};

/// Nothing that is told takes longer.
const LIMIT: Duration = Duration::from_secs(60);
/// Between calls that are made all the time.
const PAUSE: Duration = Duration::from_millis(5);
/// A call that is repeated, as whoever uses it would, has failed after that long.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs until its standard input ends.
pub fn run(kind: &str, side: &str, relay: &str, about: &str) -> Result<()> {
    let relay = Some(relay).filter(|relay| *relay != "-");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let lines = lines();
        if side == "far" {
            let about = timeout(LIMIT, way::answer(kind, relay)).await??;
            say(&format!("ready {about}"))?;
            obey(None, lines).await
        } else {
            let near = timeout(LIMIT, Near::start(kind, relay, about)).await??;
            say("ready")?;
            obey(Some(near), lines).await
        }
    })
}

fn lines() -> mpsc::UnboundedReceiver<String> {
    let (send, receive) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                return;
            }
        }
    });
    receive
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

async fn obey(near: Option<Arc<Near>>, mut lines: mpsc::UnboundedReceiver<String>) -> Result<()> {
    let mut calling = None;
    while let Some(line) = lines.recv().await {
        let words: Vec<&str> = line.split(' ').collect();
        let done = match (&words[..], &near) {
            (["pin", core], _) => pin(core),
            (["cpu"], _) => Ok(cpu_seconds().to_string()),
            (["begin"], Some(near)) => {
                calling = Some(Calling::begin(Arc::clone(near)));
                Ok(String::new())
            }
            (["end"], _) => match calling.take() {
                Some(calling) => calling.end().await,
                None => Err(anyhow::anyhow!("nothing has begun")),
            },
            (words, Some(near)) => {
                let words = words.iter().map(ToString::to_string).collect();
                // In a task of its own, as whoever uses it would.
                let task = tokio::spawn(ask(Arc::clone(near), words));
                let done = timeout(LIMIT, task).await;
                done.unwrap_or_else(|_| Ok(Err(anyhow::anyhow!("no end within {LIMIT:?}"))))?
            }
            (_, None) => Err(anyhow::anyhow!("the other end is to be asked")),
        };
        match done {
            Ok(said) => say(&said)?,
            Err(error) => say(&format!("error: {line}: {error:#}"))?,
        }
    }
    Ok(())
}

async fn ask(near: Arc<Near>, words: Vec<String>) -> Result<String> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["online"] => near.online().await?,
        ["path", path] => near.ours()?.until(path).await,
        ["which"] => return Ok(near.ours()?.path().to_owned()),
        ["ping"] => near.ours()?.ping().await?,
        ["sent"] => {
            let traffic = near.ours()?.mesh.traffic();
            return Ok(format!("{} {}", traffic.udp_sent, traffic.udp_calls));
        }
        ["first"] => {
            let start = Instant::now();
            near.call().await?;
            return Ok(ms(start.elapsed()));
        }
        ["drop"] => {
            let ours = near.ours()?;
            ours.mesh.test_drop_connections(&ours.peer);
            // Comes back after the other end has heard of it.
            ours.ping().await?;
        }
        ["early"] => {
            let start = Instant::now();
            let early = near.call_early().await?;
            return Ok(format!("{} {}", ms(start.elapsed()), u8::from(early)));
        }
        ["calls", count] => return calls(&near, count.parse()?).await,
        ["bulk", length] => {
            let start = Instant::now();
            near.bulk(length.parse()?).await?;
            return Ok(start.elapsed().as_secs_f64().to_string());
        }
        ["upgrade"] => return upgrade(&near).await,
        _ => bail!("what?"),
    }
    Ok(String::new())
}

fn ms(time: Duration) -> String {
    (time.as_secs_f64() * 1e3).to_string()
}

async fn calls(near: &Near, count: usize) -> Result<String> {
    let warm_up = count / 10;
    let mut times = Samples::default();
    for call in 0..count + warm_up {
        let start = Instant::now();
        near.call().await?;
        if call >= warm_up {
            times.time(start.elapsed());
        }
    }
    let (half, tail) = (times.quantile(0.5), times.quantile(0.99));
    Ok(format!("{half} {tail}"))
}

/// From nothing: calls, one after the other, until the path is direct.
async fn upgrade(near: &Arc<Near>) -> Result<String> {
    let start = Instant::now();
    let calling = {
        let near = Arc::clone(near);
        tokio::spawn(async move {
            near.call().await?;
            let first = start.elapsed();
            let mut failed = 0;
            while near.ours()?.path() != "direct" {
                if !matches!(timeout(PATIENCE, near.call()).await, Ok(Ok(()))) {
                    failed += 1;
                }
            }
            anyhow::Ok((first, failed))
        })
    };
    near.ours()?.until("direct").await;
    let direct = start.elapsed();
    let (first, failed) = calling.await??;
    Ok(format!("{} {} {failed}", ms(first), ms(direct)))
}

/// Calls that are made all the time.
struct Calling {
    done: Arc<AtomicBool>,
    task: JoinHandle<String>,
}

impl Calling {
    fn begin(near: Arc<Near>) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&done);
        let task = tokio::spawn(async move {
            let (mut longest, mut calls, mut failed) = (Duration::ZERO, 0, 0);
            let mut answered = Instant::now();
            while !stop.load(Relaxed) {
                calls += 1;
                if matches!(timeout(PATIENCE, near.call()).await, Ok(Ok(()))) {
                    longest = longest.max(answered.elapsed());
                    answered = Instant::now();
                } else {
                    failed += 1;
                }
                sleep(PAUSE).await;
            }
            longest = longest.max(answered.elapsed());
            format!("{} {calls} {failed}", ms(longest))
        });
        Self { done, task }
    }

    async fn end(self) -> Result<String> {
        self.done.store(true, Relaxed);
        Ok(self.task.await?)
    }
}

/// Has the thread run on that processor alone, and whatever it starts.
pub fn pin(core: &str) -> Result<String> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(core.parse().context("no core")?);
    // On a machine with one core there is nothing to choose.
    let _ = rustix::thread::sched_setaffinity(None, &set);
    Ok(String::new())
}

/// Processor time of this process so far, all its threads, in seconds.
fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
