//! How long a packet takes: there and back by the relay, when nobody else is there, and while other
//! pairs send three quarters of what passes at most.
//!
//! Those who make the load would be other machines. Here they share the processors with who
//! measures, so their threads have a lower priority: what is measured is the relay and not how late
//! the measuring thread gets its turn. What that leaves is told by plain echoes beside the same
//! load, which do not pass the relay at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::client::{Client, Kind, Sender};
use crate::report::{Samples, row};
use crate::serve::{Served, Tls};
use crate::throughput::{SIZE, saturate};

/// Pairs that make the load.
const PAIRS: usize = 9;
const ROUNDS: usize = 5;
/// Round trips in a round, after a tenth of that to warm up.
const TRIPS: usize = 2_000;
/// Bytes of what goes round.
const SMALL: usize = 64;
/// The share of the most that passes.
const SHARE: f64 = 0.75;

/// Of the threads that make the load.
const NICE: i32 = 10;

#[derive(Default)]
struct Figures {
    idle: Samples,
    idle_tail: Samples,
    busy_tail: Samples,
    /// How many times the tail of the idle relay.
    times: Samples,
    /// The same of echoes beside the load.
    echo_times: Samples,
    /// Of the load, percent.
    arrived: Samples,
}

/// Measures and prints.
pub async fn run(tls: Tls) -> Result<()> {
    let kinds: Vec<_> = Kind::built().into_iter().take(2).collect();
    let mut figures: Vec<Figures> = kinds.iter().map(|_| Figures::default()).collect();
    let mut peaks = Vec::new();
    for kind in &kinds {
        peaks.push(saturate(*kind, tls, 1).await?.0);
    }
    let loaders = Loaders::new()?;
    let (mut echoes, mut echo_tails) = (Samples::default(), Samples::default());
    for _ in 0..ROUNDS {
        let trips = echo().await?;
        let echo_tail = trips.quantile(0.99);
        echoes.number(2.0 * trips.quantile(0.5));
        echo_tails.number(2.0 * echo_tail);
        for ((kind, figures), peak) in kinds.iter().zip(&mut figures).zip(&peaks) {
            let idle = relayed(*kind, tls, 0.0, &loaders).await?;
            let busy = relayed(*kind, tls, peak * SHARE, &loaders).await?;
            let tail = idle.trips.quantile(0.99);
            figures.idle.number(idle.trips.quantile(0.5));
            figures.idle_tail.number(tail);
            figures.busy_tail.number(busy.trips.quantile(0.99));
            figures.times.number(busy.trips.quantile(0.99) / tail);
            figures
                .echo_times
                .number(busy.echoes.quantile(0.99) / echo_tail);
            figures.arrived.number(busy.arrived);
        }
    }
    print(tls.name(), &figures, &echoes, &echo_tails);
    Ok(())
}

fn print(name: &str, figures: &[Figures], echoes: &Samples, echo_tails: &Samples) {
    let ours = &figures[0];
    let iroh = |of: fn(&Figures) -> &Samples| figures.get(1).map(|it| ("iroh-relay", of(it)));
    let title = |text: &str| format!("{text}, {name}");
    let beside = |echoes| Some(("2 TCP echoes", echoes));
    let head = title("round trip, idle, p50");
    row(&head, "us", &ours.idle, beside(echoes), "<= 1.25 x");
    let head = title("round trip, idle, p99");
    row(&head, "us", &ours.idle_tail, beside(echo_tails), "");
    row("", "us", &ours.idle, iroh(|it| &it.idle), "p50, reported");
    let head = title("round trip, 75 % load, p99");
    let theirs = iroh(|it| &it.busy_tail);
    row(&head, "us", &ours.busy_tail, theirs, "reported");
    let head = title("  to that of the idle relay");
    row(&head, "x", &ours.times, iroh(|it| &it.times), "<= 1.5 x");
    let head = title("  an echo beside, to an idle one");
    let theirs = iroh(|it| &it.echo_times);
    row(&head, "x", &ours.echo_times, theirs, "the machine's");
    let head = title("  of that load arrived");
    row(&head, "%", &ours.arrived, iroh(|it| &it.arrived), "100");
}

/// Threads for the load.
struct Loaders(Option<Runtime>);

impl Loaders {
    fn new() -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            // Of this thread alone, on Linux.
            .on_thread_start(|| {
                let _ = rustix::process::setpriority_process(None, NICE);
            })
            .enable_all()
            .build()?;
        Ok(Self(Some(runtime)))
    }

    fn spawn(&self, tasks: &mut JoinSet<()>, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = &self.0 {
            tasks.spawn_on(task, runtime.handle());
        }
    }
}

impl Drop for Loaders {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Round trips of a plain TCP echo, microseconds.
async fn echo() -> Result<Samples> {
    let echo = Served::echo()?;
    let mut tcp = TcpStream::connect(echo.address).await?;
    tcp.set_nodelay(true)?;
    // In a task of its own, as the clients of relays are.
    let trips = tokio::spawn(async move {
        let mut buffer = [7; SMALL];
        let mut trips = Samples::default();
        for trip in 0..TRIPS + TRIPS / 10 {
            let start = Instant::now();
            tcp.write_all(&buffer).await?;
            tcp.read_exact(&mut buffer).await?;
            if trip >= TRIPS / 10 {
                trips.time(start.elapsed());
            }
        }
        anyhow::Ok(trips)
    });
    trips.await?
}

/// What was measured at a relay.
struct Busy {
    trips: Samples,
    /// Beside it.
    echoes: Samples,
    /// How much of the load, percent.
    arrived: f64,
}

/// Round trips by a relay while others send so many datagrams a second through it.
async fn relayed(kind: Kind, tls: Tls, load: f64, loaders: &Loaders) -> Result<Busy> {
    let relay = Served::relay(kind, tls)?;
    let mut tasks = JoinSet::new();
    let arrived = Arc::new(AtomicU64::new(0));
    if load > 0.0 {
        for pair in 0..PAIRS {
            let (_, mut sink) = Client::connect(kind, &relay, pair).await?.split(pair)?;
            let arrived = Arc::clone(&arrived);
            loaders.spawn(&mut tasks, async move {
                while let Ok(bytes) = sink.recv().await {
                    arrived.fetch_add((bytes / SIZE) as u64, Relaxed);
                }
            });
            let number = 100 + pair;
            let (sender, mut heard) = Client::connect(kind, &relay, number).await?.split(pair)?;
            loaders.spawn(
                &mut tasks,
                async move { while heard.recv().await.is_ok() {} },
            );
            loaders.spawn(&mut tasks, pace(sender, load / PAIRS as f64));
        }
    }
    let start = Instant::now();
    let (mut far, mut far_in) = Client::connect(kind, &relay, 200).await?.split(201)?;
    let (mut near, mut near_in) = Client::connect(kind, &relay, 201).await?.split(200)?;
    let message = Bytes::from(vec![7; SMALL]);
    let answer = message.clone();
    tasks.spawn(async move {
        while far_in.recv().await.is_ok() {
            if far.send(&answer, SMALL).await.is_err() || far.flush().await.is_err() {
                return;
            }
        }
    });
    let trips = tokio::spawn(async move {
        let mut trips = Samples::default();
        for trip in 0..TRIPS + TRIPS / 10 {
            let start = Instant::now();
            near.send(&message, SMALL).await?;
            near.flush().await?;
            near_in.recv().await?;
            if trip >= TRIPS / 10 {
                trips.time(start.elapsed());
            }
        }
        anyhow::Ok(trips)
    });
    let trips = trips.await??;
    let passed = arrived.load(Relaxed) as f64 / start.elapsed().as_secs_f64();
    let echoes = if load > 0.0 {
        echo().await?
    } else {
        Samples::default()
    };
    tasks.shutdown().await;
    Ok(Busy {
        trips,
        echoes,
        arrived: 100.0 * passed / load,
    })
}

/// Sends so many datagrams a second, as even as a timer of a millisecond allows.
async fn pace(mut sender: Sender, rate: f64) {
    let datagram = Bytes::from(vec![7; SIZE]);
    let mut ticks = interval(Duration::from_millis(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (start, mut sent) = (Instant::now(), 0.0);
    loop {
        ticks.tick().await;
        let due = start.elapsed().as_secs_f64() * rate;
        while sent < due {
            if sender.send(&datagram, SIZE).await.is_err() {
                return;
            }
            sent += 1.0;
        }
        if sender.flush().await.is_err() {
            return;
        }
    }
}
