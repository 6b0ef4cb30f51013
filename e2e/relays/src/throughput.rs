//! How much passes: ten pairs that send as fast as they can, and thrice as many senders for the
//! same ten receivers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::client::{Client, Kind};
use crate::report::{Samples, rows};
use crate::serve::{Served, Tls};

/// Bytes in a datagram.
pub const SIZE: usize = 1280;
/// Pairs of clients.
const PAIRS: usize = 10;
/// Senders for each receiver, when there are too many.
const CROWD: usize = 3;
const ROUNDS: usize = 5;
const WARM_UP: Duration = Duration::from_millis(300);
const MEASURE: Duration = Duration::from_millis(1500);

#[derive(Default)]
struct Figures {
    rate: Samples,
    bits: Samples,
    cpu: Samples,
    over: Samples,
    over_cpu: Samples,
    kept: Samples,
}

/// Measures and prints.
pub async fn run(tls: Tls) -> Result<()> {
    let kinds = Kind::built();
    let mut figures: Vec<Figures> = kinds.iter().map(|_| Figures::default()).collect();
    for _ in 0..ROUNDS {
        for (kind, figures) in kinds.iter().zip(&mut figures) {
            let (peak, cpu) = saturate(*kind, tls, 1).await?;
            let (over, over_cpu) = saturate(*kind, tls, CROWD).await?;
            figures.rate.number(peak / 1e3);
            figures.bits.number(peak * SIZE as f64 * 8.0 / 1e9);
            let each = |cpu: f64, rate: f64| cpu / (rate * MEASURE.as_secs_f64()) * 1e6;
            figures.cpu.number(each(cpu, peak));
            figures.over_cpu.number(each(over_cpu, over));
            figures.over.number(over / 1e3);
            figures.kept.number(100.0 * over / peak);
        }
    }
    let name = tls.name();
    let line = |what: &str, unit, of: fn(&Figures) -> &Samples, goal| {
        let peers: Vec<_> = figures[1..]
            .iter()
            .zip(["iroh-relay", "in batches"])
            .map(|(it, peer)| (peer, of(it)))
            .collect();
        let title = format!("{what}, {name}");
        match peers.is_empty() {
            true => crate::report::row(&title, unit, of(&figures[0]), None, goal),
            false => rows(&title, unit, of(&figures[0]), &peers, goal),
        }
    };
    line("datagrams, 10 pairs", "k/s", |it| &it.rate, ">= 1.5 x");
    line("throughput, 10 pairs", "Gbit/s", |it| &it.bits, ">= 1.5 x");
    line("relay cpu a datagram", "us", |it| &it.cpu, "reported");
    line("datagrams, 30 senders", "k/s", |it| &it.over, ">= 1.5 x");
    line(
        "relay cpu a datagram, 30 senders",
        "us",
        |it| &it.over_cpu,
        "reported",
    );
    line("of the peak, 30 senders", "%", |it| &it.kept, ">= 90 %");
    Ok(())
}

/// Datagrams a second that arrive while each of ten clients gets all that `crowd` others can send,
/// and the relay's processor time meanwhile.
async fn saturate(kind: Kind, tls: Tls, crowd: usize) -> Result<(f64, f64)> {
    let relay = Served::relay(kind, tls)?;
    let arrived = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    let mut senders = Vec::new();
    for pair in 0..PAIRS {
        let receiver = Client::connect(kind, &relay.at, pair).await?;
        let (idle, mut receiver) = receiver.split(pair)?;
        let arrived = Arc::clone(&arrived);
        tasks.spawn(async move {
            while let Ok(bytes) = receiver.recv().await {
                arrived.fetch_add((bytes / SIZE) as u64, Relaxed);
            }
            drop(idle);
        });
        for one in 0..crowd {
            let number = PAIRS + pair * crowd + one;
            senders.push(
                Client::connect(kind, &relay.at, number)
                    .await?
                    .split(pair)?,
            );
        }
    }
    for (mut sender, mut receiver) in senders {
        // The connection lives as long as this half.
        tasks.spawn(async move { while receiver.recv().await.is_ok() {} });
        let message = Bytes::from(vec![7; SIZE * kind.batch()]);
        tasks.spawn(async move { while sender.send(&message, SIZE).await.is_ok() {} });
    }
    sleep(WARM_UP).await;
    let (start, before, cpu) = (Instant::now(), arrived.load(Relaxed), relay.cpu()?);
    sleep(MEASURE).await;
    let passed = (arrived.load(Relaxed) - before) as f64;
    let rate = passed / start.elapsed().as_secs_f64();
    let cpu = relay.cpu()? - cpu;
    tasks.shutdown().await;
    Ok((rate, cpu))
}
