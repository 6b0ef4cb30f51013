//! Nodes that come and go.

use crate::support::*;

/// A node that has just been started again.
async fn started_again(n: u8, other: u8, relay: &TestRelay, direct: bool) -> mesh::io::Mesh {
    let mesh = mesh(n, direct).await;
    mesh.upsert_peer(peer(other));
    mesh.set_relay(Some(relay.relay()));
    until(|| mesh.relay_connected()).await;
    mesh
}

async fn killed_peer_is_reached_again(direct: bool) {
    let relay = TestRelay::start().await;
    let (a, mut b) = pair(&relay, direct).await;
    for _ in 0..10 {
        let echoes = echo(&b);
        // One call, and it must not fail: it waits for the new run at most.
        call_until_ok(&a, 2).await;
        call(&a, 2, 1000).await.unwrap();
        echoes.abort();
        b.test_vanish();
        b = started_again(2, 1, &relay, direct).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_killed_ten_times_is_reached_over_the_relay() {
    limited(killed_peer_is_reached_again(false)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_killed_ten_times_is_reached_directly() {
    limited(killed_peer_is_reached_again(true)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_peer_reaches_the_others() {
    limited(async {
        let relay = TestRelay::start().await;
        let (mut a, b) = pair(&relay, true).await;
        let _echo = echo(&b);
        for _ in 0..10 {
            call(&a, 2, 1000).await.unwrap();
            a.test_vanish();
            a = started_again(1, 2, &relay, true).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_closes_is_noticed_at_once() {
    for direct in [false, true] {
        limited(async {
            let relay = TestRelay::start().await;
            let (a, b) = pair(&relay, direct).await;
            let echoes = echo(&b);
            let (mut send, mut recv) = a.open(&identity(2).key()).await.unwrap();
            send.write_all(b"x").await.unwrap();
            recv.read_exact(&mut [0]).await.unwrap();
            echoes.abort();
            b.close().await;
            assert!(recv.read_exact(&mut [0]).await.is_err());
            assert!(b.accept().await.is_none());
            let error = b.open(&identity(1).key()).await.unwrap_err();
            assert_eq!(error.code(), "mesh_closed");
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_waits_for_a_peer_that_is_not_there_yet() {
    limited(async {
        let relay = TestRelay::start().await;
        let a = started_again(1, 2, &relay, true).await;
        let calling = {
            let a = a.clone();
            tokio::spawn(async move { call(&a, 2, 1000).await })
        };
        // The first handshake finds nobody.
        until(|| a.status(&identity(2).key()).is_some()).await;
        let b = started_again(2, 1, &relay, true).await;
        let _echo = echo(&b);
        calling.await.unwrap().unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_may_call_at_the_same_time() {
    limited(async {
        for direct in [false, true] {
            let relay = TestRelay::start().await;
            for _ in 0..5 {
                let (a, b) = pair(&relay, direct).await;
                let _echoes = (echo(&a), echo(&b));
                let calls = [0; 8]
                    .map(|_| async { tokio::join!(call(&a, 2, 100_000), call(&b, 1, 100_000)) });
                for call in calls {
                    let (there, back) = call.await;
                    there.and(back).unwrap();
                }
                a.close().await;
                b.close().await;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_mesh_gives_its_port_back() {
    limited(async {
        let first = mesh(1, true).await;
        let (Some(port), _) = first.udp_ports() else {
            panic!("no IPv4");
        };
        drop(first);
        let config = || mesh::io::Config {
            identity: identity(1),
            udp_port: port,
            direct: true,
            port_mapping: false,
        };
        loop {
            if let Ok(second) = mesh::io::Mesh::start(config()).await
                && second.udp_ports().0.is_some()
            {
                break;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn quic_is_hurried_again_until_there_should_be_a_way_to_who_is_heard_anew() {
    limited(async {
        let relay = TestRelay::start().await;
        let (a, b) = pair(&relay, false).await;
        let _echo = echo(&b);
        call(&a, 2, 1000).await.unwrap();
        let to = identity(2).key();
        let before = a.test_datagrams(&to).unwrap();
        // Two that come together are repeated once.
        a.test_revive(&to);
        until(|| a.test_datagrams(&to) > Some(before)).await;
        a.test_revive(&to);
        until(|| a.test_datagrams(&to) >= Some(before + 5)).await;
        call(&a, 2, 1000).await.unwrap();
    })
    .await;
}
