//! Calls that go out with the first packet of a connection (0-RTT), and what must
//! not.
//!
//! Whether a stream is early depends on who is faster, the caller or the handshake.
//! Tests that need one try until they have it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use mesh::io::{Mesh, Peer};
use quinn::{ReadError, RecvStream, SendStream};
use tokio::task::JoinHandle;

use crate::support::*;

/// What is asked by `open_early`, and what by `open`.
const TWICE: &[u8] = b"twice does no harm";
const ONCE: &[u8] = b"once";

/// Asks by `open_early`: whether the stream was early, and how it ended.
async fn ask(mesh: &Mesh, to: u8) -> (bool, Result<(), ReadError>) {
    let (send, recv) = mesh.open_early(&identity(to).key()).await.unwrap();
    let early = recv.is_0rtt();
    (early, answered(send, recv, TWICE).await)
}

/// Asks on a stream and waits for the answer.
async fn answered(
    mut send: SendStream,
    mut recv: RecvStream,
    question: &[u8],
) -> Result<(), ReadError> {
    // If this fails, so does reading.
    let _ = send.write_all(question).await;
    let _ = send.finish();
    let mut got = Vec::new();
    while let Some(chunk) = recv.read_chunk(100, true).await? {
        got.extend_from_slice(&chunk.bytes);
    }
    assert_eq!(got, question);
    Ok(())
}

/// Leaves the tunnel and at least one ticket that is known, and no connection.
async fn until_a_ticket(mesh: &Mesh, to: u8) {
    let key = identity(to).key();
    loop {
        call_until_ok(mesh, to).await;
        mesh.test_drop_connections(&key);
        // A connection brings two at once: one is left.
        if ask(mesh, to).await == (true, Ok(())) {
            break;
        }
    }
    // The answer may have come before the end of the handshake; this one comes after it.
    call_until_ok(mesh, to).await;
    mesh.test_drop_connections(&key);
}

/// What the streams were that a node has answered.
#[derive(Default)]
struct Seen {
    all: AtomicUsize,
    early: AtomicUsize,
    wrongly_early: AtomicUsize,
}

/// Answers every stream with what it carries, and counts.
fn count(mesh: &Mesh) -> (Arc<Seen>, JoinHandle<()>) {
    let seen = Arc::new(Seen::default());
    let counting = Arc::clone(&seen);
    let mesh = mesh.clone();
    let task = tokio::spawn(async move {
        while let Some(mut incoming) = mesh.accept().await {
            let seen = Arc::clone(&counting);
            seen.all.fetch_add(1, Relaxed);
            tokio::spawn(async move {
                let early = usize::from(incoming.recv.is_0rtt());
                seen.early.fetch_add(early, Relaxed);
                if let Ok(bytes) = incoming.recv.read_to_end(1000).await {
                    if bytes == ONCE {
                        seen.wrongly_early.fetch_add(early, Relaxed);
                    }
                    let _ = incoming.send.write_all(&bytes).await;
                    let _ = incoming.send.finish();
                }
            });
        }
    });
    (seen, task)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_goes_out_with_the_first_packet() {
    for direct in [false, true] {
        limited(async {
            let relay = TestRelay::start().await;
            let (a, b) = pair(&relay, direct).await;
            let _echo = echo(&b);
            // There is nothing to resume yet.
            assert_eq!(ask(&a, 2).await, (false, Ok(())));
            // Nor anything to wait for where a connection is there.
            assert_eq!(ask(&a, 2).await, (false, Ok(())));
            for _ in 0..10 {
                until_a_ticket(&a, 2).await;
                assert_eq!(ask(&a, 2).await.1, Ok(()));
                // It is a connection like any other now.
                call(&a, 2, 100_000).await.unwrap();
            }
        })
        .await;
    }
}

/// Else the answer would wait for the dialler's second flight, and nothing were gained.
#[tokio::test(flavor = "multi_thread")]
async fn an_early_stream_is_served_before_the_end_of_the_handshake() {
    limited(async {
        let relay = TestRelay::start().await;
        let (a, b) = pair(&relay, true).await;
        let (seen, _counting) = count(&b);
        while seen.early.load(Relaxed) == 0 {
            until_a_ticket(&a, 2).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_done_once_waits_for_the_end_of_the_handshake() {
    for beside_an_early_one in [false, true] {
        limited(async {
            let relay = TestRelay::start().await;
            let (a, b) = pair(&relay, true).await;
            let (seen, _counting) = count(&b);
            let key = identity(2).key();
            let once = async || {
                let (send, recv) = a.open(&key).await.unwrap();
                assert!(!recv.is_0rtt());
                answered(send, recv, ONCE).await.unwrap();
            };
            for _ in 0..20 {
                until_a_ticket(&a, 2).await;
                if beside_an_early_one {
                    let ((_, early), ()) = tokio::join!(ask(&a, 2), once());
                    early.unwrap();
                } else {
                    once().await;
                }
            }
            assert_eq!(seen.wrongly_early.load(Relaxed), 0);
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_that_the_peer_has_lost_costs_a_call_that_is_made_again() {
    limited(async {
        let relay = TestRelay::start().await;
        let (a, b) = pair(&relay, true).await;
        let (seen, _counting) = count(&b);
        loop {
            until_a_ticket(&a, 2).await;
            b.test_forget_tickets();
            let before = seen.all.load(Relaxed);
            let (early, result) = ask(&a, 2).await;
            if !early {
                result.unwrap();
                continue;
            }
            assert_eq!(result, Err(ReadError::ZeroRttRejected));
            // The connection is a good one nevertheless.
            let (send, recv) = a.open(&identity(2).key()).await.unwrap();
            answered(send, recv, ONCE).await.unwrap();
            assert_eq!(seen.all.load(Relaxed), before + 1, "the early one has come");
            break;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_started_again_knows_no_ticket() {
    for direct in [false, true] {
        limited(async {
            let relay = TestRelay::start().await;
            let (a, mut b) = pair(&relay, direct).await;
            for _ in 0..5 {
                let echoes = echo(&b);
                until_a_ticket(&a, 2).await;
                echoes.abort();
                b.test_vanish();
                b = mesh(2, direct).await;
                b.upsert_peer(peer(1));
                b.set_relay(Some(relay.relay()));
                let _echo = echo(&b);
                let (early, result) = ask(&a, 2).await;
                assert_eq!(early, result.is_err(), "{result:?}");
                call_until_ok(&a, 2).await;
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_call_to_a_dead_peer_fails() {
    limited(async {
        let relay = TestRelay::start().await;
        let (a, b) = pair(&relay, true).await;
        let echoes = echo(&b);
        until_a_ticket(&a, 2).await;
        echoes.abort();
        b.test_vanish();
        let (early, result) = ask(&a, 2).await;
        assert!(early && result.is_err(), "{result:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn removal_cuts_early_streams() {
    limited(async {
        let relay = TestRelay::start().await;
        let (a, b) = pair(&relay, true).await;
        let echoes = echo(&b);
        until_a_ticket(&a, 2).await;
        echoes.abort();
        b.test_vanish();
        let key = identity(2).key();
        let (mut send, recv) = a.open_early(&key).await.unwrap();
        assert!(recv.is_0rtt());
        send.write_all(TWICE).await.unwrap();
        let answer = tokio::spawn(answered(send, recv, TWICE));
        a.remove_peer(&key);
        assert!(answer.await.unwrap().is_err());
        let error = a.open_early(&key).await.unwrap_err();
        assert_eq!(error.code(), "peer_unknown");
    })
    .await;
}

/// The peer is gone before it has finished the handshake, if it goes soon enough.
#[tokio::test(flavor = "multi_thread")]
async fn removal_cuts_early_streams_of_the_peer() {
    limited(async {
        let relay = TestRelay::start().await;
        let (mut a, b) = pair(&relay, true).await;
        for _ in 0..10 {
            let echoes = echo(&b);
            until_a_ticket(&a, 2).await;
            echoes.abort();
            let _ = echoes.await;
            let (mut send, _recv) = a.open_early(&identity(2).key()).await.unwrap();
            send.write_all(TWICE).await.unwrap();
            let mut incoming = b.accept().await.unwrap();
            a.test_vanish();
            let mut got = [0; TWICE.len()];
            incoming.recv.read_exact(&mut got).await.unwrap();
            b.remove_peer(&identity(1).key());
            let result = incoming.recv.read(&mut got).await;
            assert!(
                matches!(result, Err(ReadError::ConnectionLost(_))),
                "{result:?}"
            );
            a = mesh(1, true).await;
            a.upsert_peer(peer(2));
            b.upsert_peer(peer(1));
            a.set_relay(Some(relay.relay()));
            until(|| a.relay_connected()).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_does_not_let_a_removed_peer_in() {
    limited(async {
        let relay = TestRelay::start().await;
        let (a, b) = pair(&relay, true).await;
        let (seen, _counting) = count(&b);
        until_a_ticket(&a, 2).await;
        b.remove_peer(&identity(1).key());
        let before = seen.all.load(Relaxed);
        let (_, result) = ask(&a, 2).await;
        assert!(result.is_err());
        assert_eq!(seen.all.load(Relaxed), before);
        b.upsert_peer(peer(1));
        call_until_ok(&a, 2).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_of_one_signing_key_does_not_let_another_in() {
    limited(async {
        let relay = TestRelay::start().await;
        let (a, b) = pair(&relay, true).await;
        let (seen, counting) = count(&b);
        let mut was_early = false;
        let mut before = 0;
        while !was_early {
            b.upsert_peer(peer(1));
            until_a_ticket(&a, 2).await;
            before = seen.all.load(Relaxed);
            b.upsert_peer(Peer {
                sign_key: identity(9).verifying_key(),
                ..peer(1)
            });
            // The tunnel is up: what is refused is refused by TLS.
            a.ping(&identity(2).key()).await.unwrap();
            let (early, result) = ask(&a, 2).await;
            assert!(result.is_err());
            was_early = early;
            // Neither the other tickets nor the key itself are worth more.
            for _ in 0..10 {
                assert!(call(&a, 2, 100).await.is_err());
            }
        }
        b.close().await;
        counting.await.unwrap();
        assert_eq!(seen.all.load(Relaxed), before, "a stream was handed out");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tickets_of_a_peer_with_another_signing_key_are_forgotten() {
    limited(async {
        let relay = TestRelay::start().await;
        let (a, b) = pair(&relay, true).await;
        let (seen, _counting) = count(&b);
        until_a_ticket(&a, 2).await;
        let before = seen.all.load(Relaxed);
        a.upsert_peer(Peer {
            sign_key: identity(9).verifying_key(),
            ..peer(2)
        });
        let error = a.open_early(&identity(2).key()).await.unwrap_err();
        assert_eq!(error.code(), "peer_refused");
        assert_eq!(seen.all.load(Relaxed), before);
        // The right one proves itself anew.
        a.upsert_peer(peer(2));
        assert_eq!(ask(&a, 2).await, (false, Ok(())));
    })
    .await;
}
