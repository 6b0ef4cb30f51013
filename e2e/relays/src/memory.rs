//! What a client that rests costs the relay.

use std::time::Duration;

use anyhow::Result;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::client::{Client, Kind};
use crate::report::{Samples, row};
use crate::serve::{Served, Tls};

const ROUNDS: usize = 5;
/// Clients in a round.
const SOME: usize = 500;
/// Clients in the one round of many.
const MANY: usize = 10_000;
/// Handshakes at one time.
const AT_ONCE: usize = 32;
/// How long the relay has to come to rest.
const REST: Duration = Duration::from_secs(1);

/// Measures and prints.
pub async fn run(tls: Tls) -> Result<()> {
    let kinds: Vec<_> = Kind::built().into_iter().take(2).collect();
    let mut figures: Vec<Samples> = kinds.iter().map(|_| Samples::default()).collect();
    for _ in 0..ROUNDS {
        for (kind, figures) in kinds.iter().zip(&mut figures) {
            figures.number(idle(*kind, tls, SOME).await?.0 / SOME as f64);
        }
    }
    let goal = match tls {
        Tls::Plain => "<= 8 KiB",
        Tls::Tls => "<= 20 KiB",
    };
    let theirs = figures.get(1).map(|it| ("iroh-relay", it));
    let title = format!("memory an idle client, {}", tls.name());
    row(&title, "KiB", &figures[0], theirs, goal);
    let (_, whole) = idle(Kind::Ours, tls, MANY).await?;
    let mut all = Samples::default();
    all.number(whole / 1024.0);
    let title = format!("the relay with {MANY} idle, {}", tls.name());
    row(&title, "MiB", &all, None, "<= 190 MiB");
    Ok(())
}

/// What a relay takes more once so many clients are there, and in all; KiB.
async fn idle(kind: Kind, tls: Tls, count: usize) -> Result<(f64, f64)> {
    let relay = std::sync::Arc::new(Served::relay(kind, tls)?);
    // The first one brings what is needed once.
    let first = Client::connect(kind, &relay.at, count).await?;
    sleep(REST).await;
    let before = relay.resident()?;
    let mut clients = vec![first];
    let mut joining = JoinSet::new();
    for number in 0..count {
        if joining.len() == AT_ONCE
            && let Some(client) = joining.join_next().await
        {
            clients.push(client??);
        }
        let relay = std::sync::Arc::clone(&relay);
        joining.spawn(async move { Client::connect(kind, &relay.at, number).await });
    }
    while let Some(client) = joining.join_next().await {
        clients.push(client??);
    }
    sleep(REST).await;
    let whole = relay.resident()?;
    Ok((whole - before, whole))
}
