//! Packets get through: over the relay, straight, and when either of them dies.

use crate::support::*;
use mesh::io::{Mesh, Path};

#[tokio::test(flavor = "multi_thread")]
async fn streams_work_over_the_relay_both_ways() {
    limited(async {
        let relay = TestRelay::start().await;
        let (a, b) = pair(&relay, false).await;
        let _echoes = (echo(&a), echo(&b));
        call(&a, 2, 1 << 20).await.unwrap();
        call(&b, 1, 1 << 20).await.unwrap();
        assert_eq!(path(&a, 2), Path::Relayed);
        let pong = a.ping(&identity(2).key()).await.unwrap();
        assert_eq!(pong.path, Path::Relayed);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_direct_path_is_found_and_used() {
    limited(async {
        let relay = TestRelay::start().await;
        let (a, b) = pair(&relay, true).await;
        let _echoes = (echo(&a), echo(&b));
        until_direct(&a, 2).await;
        until_direct(&b, 1).await;
        call(&a, 2, 1 << 20).await.unwrap();
        call(&b, 1, 1 << 20).await.unwrap();
        let pong = a.ping(&identity(2).key()).await.unwrap();
        assert!(matches!(pong.path, Path::Direct(_)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_go_on_when_udp_dies_and_again_when_it_comes_back() {
    limited(async {
        let relay = TestRelay::start().await;
        let (a, b) = pair(&relay, true).await;
        let _echo = echo(&b);
        until_direct(&a, 2).await;
        for mesh in [&a, &b] {
            mesh.test_break_udp(true);
        }
        // The connection that is open goes on: no call fails.
        while path(&a, 2) != Path::Relayed {
            call(&a, 2, 1000).await.unwrap();
        }
        call(&a, 2, 1 << 20).await.unwrap();
        for mesh in [&a, &b] {
            mesh.test_break_udp(false);
        }
        while path(&a, 2) == Path::Relayed {
            call(&a, 2, 1000).await.unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn udp_that_dies_one_way_is_no_path() {
    limited(async {
        let relay = TestRelay::start().await;
        let (a, b) = pair(&relay, true).await;
        let _echo = echo(&b);
        until_direct(&a, 2).await;
        b.test_break_udp(true);
        while path(&a, 2) != Path::Relayed {
            call(&a, 2, 1000).await.unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dying_relay_does_not_disturb_direct_calls() {
    limited(async {
        let relay = TestRelay::start().await;
        let (a, b) = pair(&relay, true).await;
        let _echoes = (echo(&a), echo(&b));
        until_direct(&a, 2).await;
        until_direct(&b, 1).await;
        relay.kill().await;
        until(|| !a.relay_connected() && !b.relay_connected()).await;
        for _ in 0..50 {
            call(&a, 2, 1000).await.unwrap();
            call(&b, 1, 1000).await.unwrap();
        }
        assert!(matches!(path(&a, 2), Path::Direct(_)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_direct_path_comes_back_without_the_relay() {
    limited(async {
        let relay = TestRelay::start().await;
        let (a, b) = pair(&relay, true).await;
        let _echo = echo(&b);
        until_direct(&a, 2).await;
        relay.kill().await;
        for mesh in [&a, &b] {
            mesh.test_break_udp(true);
        }
        let calling = {
            let a = a.clone();
            tokio::spawn(async move { call(&a, 2, 1000).await })
        };
        until(|| path(&a, 2) == Path::None).await;
        for mesh in [&a, &b] {
            mesh.test_break_udp(false);
        }
        // The call that was made meanwhile just took longer.
        calling.await.unwrap().unwrap();
        assert!(matches!(path(&a, 2), Path::Direct(_)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn relayed_calls_go_on_after_the_relay_was_restarted() {
    limited(async {
        let mut relay = TestRelay::start().await;
        let (a, b) = pair(&relay, false).await;
        let _echo = echo(&b);
        let (mut send, mut recv) = a.open(&identity(2).key()).await.unwrap();
        for round in 0..3u8 {
            let addr = relay.kill().await;
            until(|| !a.relay_connected() && !b.relay_connected()).await;
            relay = TestRelay::at(addr).await;
            // An open stream survives, and new ones work.
            send.write_all(&[round; 10]).await.unwrap();
            let mut back = [0; 10];
            recv.read_exact(&mut back).await.unwrap();
            assert_eq!(back, [round; 10]);
            call(&a, 2, 1000).await.unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_falls_silent_is_noticed_and_left() {
    limited(async {
        let relay = TestRelay::start().await;
        let cable = Cable::to(relay.addr).await;
        let (a, b) = pair(&relay, false).await;
        let _echo = echo(&b);
        call(&a, 2, 1000).await.unwrap();
        let mut behind = relay.relay();
        behind.url = format!("http://{}", cable.addr);
        a.set_relay(None);
        until(|| !a.relay_connected()).await;
        a.set_relay(Some(behind));
        until(|| a.relay_connected()).await;
        call(&a, 2, 1000).await.unwrap();
        cable.cut(true);
        until(|| !a.relay_connected()).await;
        cable.cut(false);
        call(&a, 2, 1000).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_relay_takes_over() {
    limited(async {
        let (one, two) = (TestRelay::start().await, TestRelay::start().await);
        let (a, b) = pair(&one, false).await;
        let _echo = echo(&b);
        call(&a, 2, 1000).await.unwrap();
        a.set_relay(Some(two.relay()));
        b.set_relay(Some(two.relay()));
        one.kill().await;
        call(&a, 2, 1000).await.unwrap();
        a.set_relay(None);
        until(|| !a.relay_connected()).await;
        assert_eq!(path(&a, 2), Path::None);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_streams_at_once() {
    for direct in [false, true] {
        limited(async {
            let relay = TestRelay::start().await;
            let (a, b) = pair(&relay, direct).await;
            let _echo = echo(&b);
            call(&a, 2, 1).await.unwrap();
            let mut calls = tokio::task::JoinSet::new();
            for _ in 0..200 {
                let a = a.clone();
                calls.spawn(async move { call(&a, 2, 50_000).await });
            }
            while let Some(result) = calls.join_next().await {
                result.unwrap().unwrap();
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_transfer_over_a_full_relay_queue_arrives_whole() {
    limited(async {
        let relay = TestRelay::start().await;
        let (a, b) = pair(&relay, false).await;
        let _echo = echo(&b);
        let calls = [16 << 20; 2].map(|len| call(&a, 2, len));
        let [one, two] = calls;
        let (one, two) = tokio::join!(one, two);
        one.and(two).unwrap();
    })
    .await;
}

/// What a WireGuard datagram around a full QUIC datagram has, of either size.
const FULL: usize = 1312;
const WIDE: usize = 1452;

/// Calls until the datagrams to the other node have that size.
async fn until_size(mesh: &Mesh, to: u8, size: u16) {
    while mesh.test_datagram_size(&identity(to).key()) != Some(size) {
        call(mesh, to, 100_000).await.unwrap();
    }
}

fn mtu(mesh: &Mesh, to: u8) -> Option<usize> {
    mesh.status(&identity(to).key())?.mtu
}

#[tokio::test(flavor = "multi_thread")]
async fn the_larger_size_is_used_where_it_arrives() {
    limited(async {
        let relay = TestRelay::start().await;
        let (a, b) = pair(&relay, true).await;
        let _echoes = (echo(&a), echo(&b));
        until_direct(&a, 2).await;
        until_size(&a, 2, 1372).await;
        let headers = [WIDE + 28, WIDE + 48];
        assert!(headers.contains(&mtu(&a, 2).unwrap()));
        call(&a, 2, 1 << 20).await.unwrap();
        call(&b, 1, 1 << 20).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_carries_the_smaller_size_alone_gets_that() {
    limited(async {
        let relay = TestRelay::start().await;
        let (a, b) = pair(&relay, true).await;
        let _echo = echo(&b);
        a.test_limit_udp(WIDE - 1);
        until_direct(&a, 2).await;
        // Long enough for the larger size to be tried several times.
        let start = std::time::Instant::now();
        while start.elapsed() < 4 * std::time::Duration::from_secs(1) {
            call(&a, 2, 100_000).await.unwrap();
            assert_eq!(a.test_datagram_size(&identity(2).key()), Some(1232));
        }
        assert!(matches!(path(&a, 2), Path::Direct(_)));
        let headers = [FULL + 28, FULL + 48];
        assert!(headers.contains(&mtu(&a, 2).unwrap()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_becomes_narrow_is_noticed_and_no_call_fails() {
    for relayed_too in [true, false] {
        limited(async {
            let relay = TestRelay::start().await;
            let (a, b) = pair(&relay, true).await;
            let _echo = echo(&b);
            until_direct(&a, 2).await;
            until_size(&a, 2, 1372).await;
            if !relayed_too {
                relay.kill().await;
                until(|| !a.relay_connected() && !b.relay_connected()).await;
            }
            a.test_limit_udp(FULL);
            call(&a, 2, 1 << 20).await.unwrap();
            until_size(&a, 2, 1232).await;
            assert!(matches!(path(&a, 2), Path::Direct(_)));
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn by_the_relay_the_size_stays_that_a_connection_is_used_to() {
    limited(async {
        let relay = TestRelay::start().await;
        let (a, b) = pair(&relay, true).await;
        let _echo = echo(&b);
        until_direct(&a, 2).await;
        until_size(&a, 2, 1372).await;
        for mesh in [&a, &b] {
            mesh.test_break_udp(true);
        }
        while path(&a, 2) != Path::Relayed {
            call(&a, 2, 1000).await.unwrap();
        }
        call(&a, 2, 1 << 20).await.unwrap();
        assert_eq!(a.test_datagram_size(&identity(2).key()), Some(1372));
    })
    .await;
}
