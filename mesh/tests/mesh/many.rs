//! What it costs to know many peers.

use std::time::Duration;

use mesh::NodeSecret;
use mesh::io::Peer;

use super::support::{identity, limited, mesh};

const PEERS: u32 = 10_000;

/// Kilobytes in memory, and clock ticks of processor time (10 ms) used so far.
fn costs() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kilobytes = line.unwrap().split_whitespace().nth(1).unwrap();
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // After the name, which may have blanks in it.
    let fields: Vec<_> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    let ticks = |at: usize| fields[at].parse::<u64>().unwrap();
    (kilobytes.parse().unwrap(), ticks(11) + ticks(12))
}

#[tokio::test]
#[ignore = "figures to read: run with --nocapture, alone and with --release"]
async fn ten_thousand_known_peers_at_rest() {
    limited(async {
        let node = mesh(1, true).await;
        let before = costs();
        for n in 0..PEERS {
            let mut seed = [9; 32];
            seed[..4].copy_from_slice(&n.to_be_bytes());
            node.upsert_peer(Peer {
                key: NodeSecret::from_bytes(seed).public(),
                sign_key: identity(2).verifying_key(),
            });
        }
        let known = costs();
        let seconds = 10;
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let rested = costs();
        let bytes = (known.0 - before.0) * 1024 / u64::from(PEERS);
        let share = (rested.1 - known.1) as f64 / seconds as f64;
        println!("{PEERS} peers: {bytes} bytes each; at rest {share:.2} % of one core");
    })
    .await;
}
