//! Who is let in, and who is not.

use mesh::io::{Path, Peer};

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_refused() {
    limited(async {
        let relay = TestRelay::start().await;
        let (a, b) = pair(&relay, true).await;
        let _echo = echo(&b);
        let stranger = mesh(3, true).await;
        stranger.upsert_peer(peer(2));
        stranger.set_relay(Some(relay.relay()));
        until(|| stranger.relay_connected()).await;
        let error = stranger.open(&identity(2).key()).await.unwrap_err();
        assert_eq!(error.code(), "peer_unreachable");
        assert!(b.status(&identity(3).key()).is_none());
        assert_eq!(path(&stranger, 2), Path::None);

        let error = a.open(&identity(3).key()).await.unwrap_err();
        assert_eq!(error.code(), "peer_unknown");
        assert_eq!(
            a.ping(&identity(3).key()).await.unwrap_err().code(),
            "peer_unknown"
        );
        call(&a, 2, 1000).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_with_another_signing_key_is_refused_by_the_dialler() {
    limited(async {
        let relay = TestRelay::start().await;
        let (a, b) = pair(&relay, false).await;
        let _echo = echo(&b);
        a.upsert_peer(Peer {
            sign_key: identity(9).verifying_key(),
            ..peer(2)
        });
        let error = a.open(&identity(2).key()).await.unwrap_err();
        assert_eq!(error.code(), "peer_refused");
        // With the right key all is well again.
        a.upsert_peer(peer(2));
        call(&a, 2, 1000).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_with_another_signing_key_is_refused_by_the_dialled() {
    limited(async {
        let relay = TestRelay::start().await;
        let (a, b) = pair(&relay, false).await;
        b.upsert_peer(Peer {
            sign_key: identity(9).verifying_key(),
            ..peer(1)
        });
        let accepting = {
            let b = b.clone();
            tokio::spawn(async move { b.accept().await.is_some() })
        };
        assert!(call(&a, 2, 1000).await.is_err());
        b.close().await;
        assert!(!accepting.await.unwrap(), "no stream was handed out");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn removal_cuts_live_connections_on_both_sides() {
    for direct in [false, true] {
        limited(async {
            let relay = TestRelay::start().await;
            let (a, b) = pair(&relay, direct).await;
            let _echo = echo(&b);
            let (mut send, mut recv) = a.open(&identity(2).key()).await.unwrap();
            send.write_all(b"x").await.unwrap();
            recv.read_exact(&mut [0]).await.unwrap();

            b.remove_peer(&identity(1).key());
            assert!(recv.read_exact(&mut [0]).await.is_err());
            assert!(b.status(&identity(1).key()).is_none());
            let error = b.open(&identity(1).key()).await.unwrap_err();
            assert_eq!(error.code(), "peer_unknown");
            let error = a.open(&identity(2).key()).await.unwrap_err();
            assert_eq!(error.code(), "peer_unreachable");

            b.upsert_peer(peer(1));
            call(&a, 2, 1000).await.unwrap();
        })
        .await;
    }
}

/// It was dialled again at once and for ever, with a new connection of QUIC each time: the memory of
/// the machine was full within a minute.
#[test]
fn who_is_removed_while_it_is_dialled_is_let_go() {
    let (tell, told) = std::sync::mpsc::channel();
    // All on one thread, on which a task that never rests leaves no time for others. It is watched
    // from here.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let code = runtime.block_on(limited(async {
            let relay = TestRelay::start().await;
            let a = mesh(1, true).await;
            a.set_relay(Some(relay.relay()));
            until(|| a.relay_connected()).await;
            a.upsert_peer(peer(2));
            let key = identity(2).key();
            let opening = {
                let a = a.clone();
                tokio::spawn(async move { a.open(&key).await.map(drop) })
            };
            // Its first words are on their way: it is dialled.
            until(|| a.traffic().relay_sent > 0).await;
            a.remove_peer(&key);
            opening.await.unwrap().unwrap_err().code().to_owned()
        }));
        let _ = tell.send(code);
    });
    // No longer: such a task would fill the memory meanwhile.
    let code = told.recv_timeout(LIMIT / 6);
    assert_eq!(code.as_deref(), Ok("peer_unknown"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_relay_and_a_path_the_error_says_so() {
    limited(async {
        let a = mesh(1, true).await;
        a.upsert_peer(peer(2));
        let error = a.open(&identity(2).key()).await.unwrap_err();
        assert_eq!(error.code(), "relay_unreachable");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_the_relay_misses_is_given_up_early() {
    limited(async {
        let relay = TestRelay::start().await;
        let (a, b) = pair(&relay, false).await;
        b.close().await;
        let error = a.open(&identity(2).key()).await.unwrap_err();
        assert_eq!(error.code(), "peer_unreachable");
        assert!(error.to_string().contains("relay"), "{error}");
    })
    .await;
}

/// A node behind a NAT knows its address from STUN alone; here a server tells
/// both nodes something that only it could know.
#[tokio::test(flavor = "multi_thread")]
async fn the_address_from_stun_is_probed() {
    limited(async {
        let relay = TestRelay::start().await;
        let stun = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let probed = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (a, b) = pair(&relay, true).await;
        let _echo = echo(&b);
        a.set_relay(Some(mesh::io::Relay {
            stun: Some(stun.local_addr().unwrap()),
            ..relay.relay()
        }));
        let mut request = [0; 100];
        let (len, from) = stun.recv_from(&mut request).await.unwrap();
        assert_eq!(len, 20);
        let mut response = request[..20].to_vec();
        response[..4].copy_from_slice(&[1, 1, 0, 12]);
        response.extend([0, 1, 0, 8, 0, 1]);
        response.extend(probed.local_addr().unwrap().port().to_be_bytes());
        response.extend([127, 0, 0, 1]);
        stun.send_to(&response, from).await.unwrap();
        let outside = probed.local_addr().unwrap();
        until(|| a.endpoints().first() == Some(&outside)).await;

        // Nothing else works.
        a.test_break_udp(true);
        call(&a, 2, 1000).await.unwrap();
        let mut datagram = [0; 2000];
        loop {
            // Probes or a handshake: either way the peer has tried it.
            let receiving = probed.recv_from(&mut datagram);
            tokio::select! {
                received = receiving => {
                    assert!(received.unwrap().0 >= 148);
                    break;
                }
                () = call_until_ok(&a, 2) => {}
            }
        }
    })
    .await;
}
