//! Calls and bulk between two nodes, against raw quinn.

use std::time::Instant;

use anyhow::{Result, ensure};
use bytes::Bytes;
use quinn::{Connection, RecvStream, SendStream};

use crate::far;
use crate::raw;
use crate::report::{Samples, head, row};
use crate::tunnel::{self, Tunnel};

/// Alternating rounds of everything.
const ROUNDS: usize = 7;
/// Calls in a round.
const CALLS: usize = 2000;
/// Bytes in a round.
const BULK: u64 = 256 << 20;

enum Way {
    Raw(Connection),
    Ours(Tunnel),
}

impl Way {
    async fn open(&self) -> Result<(SendStream, RecvStream)> {
        match self {
            Self::Raw(connection) => Ok(connection.open_bi().await?),
            Self::Ours(tunnel) => Ok(tunnel.mesh.open(&tunnel.peer).await?),
        }
    }
}

#[derive(Default)]
struct Figures {
    p50: Samples,
    p99: Samples,
    bulk: Samples,
    cpu: Samples,
}

/// Measures and prints.
pub fn run() -> Result<()> {
    far::pin(0);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let ways = [
            Way::Raw(raw::connect().await?),
            Way::Ours(tunnel::connect(true).await?),
            Way::Ours(tunnel::connect(false).await?),
        ];
        let mut figures: [Figures; 3] = Default::default();
        for _ in 0..ROUNDS {
            for (way, figures) in ways.iter().zip(&mut figures) {
                calls(way, figures).await?;
                bulk(way, figures).await?;
            }
        }
        print(&figures);
        Ok(())
    })
}

fn print([quinn, direct, relayed]: &[Figures; 3]) {
    head();
    row(
        "call, direct, p50",
        "us",
        &direct.p50,
        Some(("quinn", &quinn.p50)),
        "<= 1.10 x",
    );
    row(
        "call, direct, p99",
        "us",
        &direct.p99,
        Some(("quinn", &quinn.p99)),
        "<= 1.15 x",
    );
    row(
        "bulk, one stream, direct",
        "Gbit/s",
        &direct.bulk,
        Some(("quinn", &quinn.bulk)),
        ">= 0.75 x",
    );
    row(
        "cpu for bulk, both ends, direct",
        "s/GiB",
        &direct.cpu,
        Some(("quinn", &quinn.cpu)),
        "<= 1.40 x",
    );
    row(
        "call, relayed, p50",
        "us",
        &relayed.p50,
        Some(("quinn", &quinn.p50)),
        "",
    );
    row(
        "call, relayed, p99",
        "us",
        &relayed.p99,
        Some(("quinn", &quinn.p99)),
        "",
    );
    row(
        "bulk, one stream, relayed",
        "Gbit/s",
        &relayed.bulk,
        Some(("quinn", &quinn.bulk)),
        "",
    );
}

async fn calls(way: &Way, figures: &mut Figures) -> Result<()> {
    let mut times = Samples::default();
    for round in 0..CALLS + 100 {
        let start = Instant::now();
        let (mut send, mut recv) = way.open().await?;
        send.write_all(&[b'e'; 33]).await?;
        send.finish()?;
        let answer = recv.read_to_end(64).await?;
        ensure!(answer.len() == 32, "an echo of {} bytes", answer.len());
        // The first hundred warm up.
        if round >= 100 {
            times.time(start.elapsed());
        }
    }
    figures.p50.number(times.quantile(0.5));
    figures.p99.number(times.quantile(0.99));
    Ok(())
}

async fn bulk(way: &Way, figures: &mut Figures) -> Result<()> {
    let chunk = Bytes::from(vec![7; 1 << 20]);
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let (mut send, mut recv) = way.open().await?;
    send.write_all(b"b").await?;
    let mut sent = 0;
    while sent < BULK {
        send.write_chunk(chunk.clone()).await?;
        sent += chunk.len() as u64;
    }
    send.finish()?;
    let answer = recv.read_to_end(8).await?;
    ensure!(answer == sent.to_le_bytes(), "not everything arrived");
    let gib = sent as f64 / f64::from(1 << 30);
    figures
        .bulk
        .number(sent as f64 * 8.0 / start.elapsed().as_secs_f64() / 1e9);
    figures.cpu.number((cpu_seconds() - cpu) / gib);
    Ok(())
}

/// Processor time of this process so far, all its threads, in seconds.
fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
