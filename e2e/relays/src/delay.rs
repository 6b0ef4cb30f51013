//! How long a packet takes: there and back by the relay, when nobody else is there, and while other
//! pairs send three quarters of what passes at most.

use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
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

#[derive(Default)]
struct Figures {
    idle: Samples,
    idle_tail: Samples,
    busy_tail: Samples,
    /// How many times the tail of the idle relay.
    times: Samples,
}

/// Measures and prints.
pub async fn run(tls: Tls) -> Result<()> {
    let kinds: Vec<_> = Kind::built().into_iter().take(2).collect();
    let mut figures: Vec<Figures> = kinds.iter().map(|_| Figures::default()).collect();
    let mut peaks = Vec::new();
    for kind in &kinds {
        peaks.push(saturate(*kind, tls, 1).await?.0);
    }
    let (mut echoes, mut echo_tails) = (Samples::default(), Samples::default());
    for _ in 0..ROUNDS {
        let trips = echo().await?;
        echoes.number(2.0 * trips.quantile(0.5));
        echo_tails.number(2.0 * trips.quantile(0.99));
        for ((kind, figures), peak) in kinds.iter().zip(&mut figures).zip(&peaks) {
            let idle = relayed(*kind, tls, 0.0).await?;
            let busy = relayed(*kind, tls, peak * SHARE).await?;
            figures.idle.number(idle.quantile(0.5));
            figures.idle_tail.number(idle.quantile(0.99));
            figures.busy_tail.number(busy.quantile(0.99));
            figures
                .times
                .number(busy.quantile(0.99) / idle.quantile(0.99));
        }
    }
    let name = tls.name();
    let ours = &figures[0];
    let theirs = figures.get(1);
    let beside = Some(("2 TCP echoes", &echoes));
    let title = format!("round trip, idle, p50, {name}");
    row(&title, "us", &ours.idle, beside, "<= 1.25 x");
    let title = format!("round trip, idle, p99, {name}");
    row(
        &title,
        "us",
        &ours.idle_tail,
        Some(("2 TCP echoes", &echo_tails)),
        "",
    );
    let iroh = |of: fn(&Figures) -> &Samples| theirs.map(|it| ("iroh-relay", of(it)));
    row("", "us", &ours.idle, iroh(|it| &it.idle), "p50, reported");
    let title = format!("round trip, 75 % load, p99, {name}");
    row(
        &title,
        "us",
        &ours.busy_tail,
        iroh(|it| &it.busy_tail),
        "reported",
    );
    let title = format!("  to that of the idle relay, {name}");
    row(&title, "x", &ours.times, iroh(|it| &it.times), "<= 1.5 x");
    Ok(())
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

/// Round trips by a relay while others send so many datagrams a second through it.
async fn relayed(kind: Kind, tls: Tls, load: f64) -> Result<Samples> {
    let relay = Served::relay(kind, tls)?;
    let mut tasks = JoinSet::new();
    if load > 0.0 {
        for pair in 0..PAIRS {
            let (_, mut sink) = Client::connect(kind, &relay, pair).await?.split(pair)?;
            tasks.spawn(async move { while sink.recv().await.is_ok() {} });
            let number = 100 + pair;
            let (sender, mut heard) = Client::connect(kind, &relay, number).await?.split(pair)?;
            tasks.spawn(async move { while heard.recv().await.is_ok() {} });
            tasks.spawn(pace(sender, load / PAIRS as f64));
        }
    }
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
    let trips = trips.await?;
    tasks.shutdown().await;
    trips
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
