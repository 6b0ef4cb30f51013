//! Who comes over SSH to one relay gets to nodes at the other.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, split};

use super::with_pair;
use crate::relay::tests::rig::Node;
use crate::relay::visits::NoWay;
use crate::ssh::Door;
use crate::uplink::{self, Uplink};

/// A node that takes jumps, and sends back what comes.
async fn echo(node: &Node, relay: &str) -> Uplink {
    let (membership, identity) = (node.membership_at(relay), Arc::clone(&node.identity));
    let started = Uplink::start(membership, identity, node.files(), vec![Door::Jump]);
    let (uplink, mut visits) = started.unwrap();
    let relay = relay.to_owned();
    tokio::spawn(async move {
        while let Some(visit) = visits.recv().await {
            let (pipe, _) = uplink::come(&relay, None, &visit.ticket).await.unwrap();
            tokio::spawn(async move {
                let (mut from, mut to) = split(pipe);
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    let mut view = uplink.view();
    view.wait_for(|view| view.connected).await.unwrap();
    uplink
}

#[tokio::test]
async fn s09_s34_who_comes_over_ssh_to_one_relay_gets_to_a_node_at_the_other() {
    with_pair(async |a, b, network, [one, two]| {
        let key = one.identity.key();
        let app = b.relay().app();
        let away = app.way(&network, &key, Door::Jump, "admin").await;
        assert_eq!(away.err(), Some(NoWay::Away));
        let _node = echo(&one, a.url()).await;
        let mut at_b = two.up_through(b.url());
        at_b.until_sees("dev-1", Some(true)).await;
        for _ in 0..3 {
            let mut way = app.way(&network, &key, Door::Jump, "admin").await.unwrap();
            let sent: Vec<u8> = (0..200_000_u32).map(|n| n as u8).collect();
            let mut back = vec![0; sent.len()];
            let (mut from, mut to) = split(&mut way);
            let (written, read) = tokio::join!(to.write_all(&sent), from.read_exact(&mut back));
            written.unwrap();
            read.unwrap();
            assert!(sent == back);
        }
        // What the node says no to is said there, too.
        let closed = app.way(&network, &key, Door::Terminal, "admin").await;
        assert_eq!(closed.err(), Some(NoWay::Closed));
    })
    .await;
}
