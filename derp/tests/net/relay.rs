//! Clients and a relay over loopback TCP.

use std::time::Duration;

use crate::common::{Relay, packet, secret, send, within};
use derp::Error;
use derp::io::client::{self, Event};

#[tokio::test]
async fn two_clients_exchange_packets() {
    within(async {
        let relay = Relay::start().await;
        let (a, mut a_in) = relay.connect(1).await;
        let (b, mut b_in) = relay.connect(2).await;
        assert_eq!(a_in.server(), relay.server.public_key());
        assert_eq!(relay.server.clients(), 2);
        send(&a, 2, b"there").await;
        let there = packet(&mut b_in).await;
        assert_eq!(there, (secret(1).public(), b"there".to_vec()));
        send(&b, 1, b"and back").await;
        let back = packet(&mut a_in).await;
        assert_eq!(back, (secret(2).public(), b"and back".to_vec()));
        let counters = relay.server.counters();
        assert_eq!((counters.packets, counters.bytes), (2, 13));
    })
    .await;
}

#[tokio::test]
async fn every_length_passes() {
    within(async {
        let relay = Relay::start().await;
        let (a, _a_in) = relay.connect(1).await;
        let (_b, mut b_in) = relay.connect(2).await;
        for len in [0, 1, 1200, 65_535, 65_536] {
            let data: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            send(&a, 2, &data).await;
            assert_eq!(packet(&mut b_in).await.1, data);
        }
        let too_long = vec![0; 65_537];
        let refused = a.try_send(&secret(2).public(), &too_long);
        assert_eq!(refused, Err(client::SendError::TooLarge));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_packets_both_ways_arrive_in_order() {
    within(async {
        const COUNT: u32 = 10_000;
        let relay = Relay::patient(None).await;
        let (one, two) = (relay.connect(1).await, relay.connect(2).await);
        let mut tasks = tokio::task::JoinSet::new();
        for ((sender, mut receiver), other) in [(one, 2), (two, 1)] {
            tasks.spawn(async move {
                let mut data = [7; 1200];
                for number in 0..COUNT {
                    data[..4].copy_from_slice(&number.to_be_bytes());
                    send(&sender, other, &data).await;
                }
                None
            });
            tasks.spawn(async move {
                for number in 0..COUNT {
                    let (from, data) = packet(&mut receiver).await;
                    assert_eq!(from, secret(other).public());
                    assert_eq!(data.len(), 1200);
                    assert_eq!(data[..4], number.to_be_bytes());
                }
                // Kept until both have everything.
                Some(receiver)
            });
        }
        let receivers = tasks.join_all().await;
        assert_eq!(receivers.iter().flatten().count(), 2);
        assert_eq!(relay.server.counters().dropped, 0);
    })
    .await;
}

#[tokio::test]
async fn a_slow_receiver_loses_nothing_below_the_bound_and_stalls_nobody() {
    within(async {
        let relay = Relay::patient(None).await;
        let (a, _a_in) = relay.connect(1).await;
        let (_slow, mut slow_in) = relay.connect(2).await;
        let (c, _c_in) = relay.connect(3).await;
        let (_d, mut d_in) = relay.connect(4).await;
        // Just below a megabyte, headers and all, and nobody reads it.
        for number in 0..800_u32 {
            let mut data = [9; 1250];
            data[..4].copy_from_slice(&number.to_be_bytes());
            send(&a, 2, &data).await;
        }
        for _ in 0..100 {
            send(&c, 4, b"others go on").await;
            packet(&mut d_in).await;
        }
        // The same sender reaches others, too.
        send(&a, 4, b"this one goes on").await;
        assert_eq!(packet(&mut d_in).await.1, b"this one goes on");
        for number in 0..800_u32 {
            assert_eq!(packet(&mut slow_in).await.1[..4], number.to_be_bytes());
        }
        assert_eq!(relay.server.counters().dropped, 0);
    })
    .await;
}

#[tokio::test]
async fn a_stuck_receiver_costs_its_own_packets_only() {
    within(async {
        let relay = Relay::start().await;
        let (a, _a_in) = relay.connect(1).await;
        let (_stuck, stuck_in) = relay.connect(2).await;
        let (_d, mut d_in) = relay.connect(4).await;
        // More than every buffer on the way takes.
        let data = vec![9; 60_000];
        while relay.server.counters().dropped == 0 {
            send(&a, 2, &data).await;
        }
        send(&a, 4, b"still here").await;
        assert_eq!(packet(&mut d_in).await.1, b"still here");
        assert!(relay.server.counters().held_up > 0);
        drop(stuck_in);
    })
    .await;
}

#[tokio::test]
async fn who_left_and_who_never_came() {
    within(async {
        let relay = Relay::start().await;
        let (a, mut a_in) = relay.connect(1).await;
        let (b, mut b_in) = relay.connect(2).await;
        let gone = |byte, reason| Event::PeerGone {
            key: secret(byte).public(),
            reason,
        };
        send(&a, 9, b"anybody?").await;
        assert_eq!(a_in.recv().await.unwrap(), gone(9, 1));
        send(&a, 2, b"hello").await;
        packet(&mut b_in).await;
        drop((b, b_in));
        assert_eq!(a_in.recv().await.unwrap(), gone(2, 0));
    })
    .await;
}

#[tokio::test]
async fn a_ping_comes_back() {
    within(async {
        let relay = Relay::start().await;
        let (a, mut a_in) = relay.connect(1).await;
        a.note_preferred(true);
        a.ping(*b"12345678");
        assert_eq!(a_in.recv().await.unwrap(), Event::Pong(*b"12345678"));
        assert_eq!(relay.server.counters().preferred, 1);
    })
    .await;
}

#[tokio::test]
async fn a_key_that_is_not_admitted_is_told_so() {
    within(async {
        let mut relay = Relay::start().await;
        let key = secret(1).public();
        relay.banned.0.lock().unwrap().insert(key);
        let refused = client::connect(&relay.config(1)).await;
        let Err(Error::Refused(why)) = refused else {
            panic!("{refused:?}");
        };
        assert!(why.contains("not admitted"), "{why}");
        let ended = relay.ended.recv().await.unwrap();
        assert!(matches!(ended, Err(Error::Refused(_))));
        assert_eq!(relay.server.clients(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_revoked_key_is_disconnected() {
    within(async {
        let mut relay = Relay::start().await;
        let (a, mut a_in) = relay.connect(1).await;
        let (b, mut b_in) = relay.connect(2).await;
        send(&b, 1, b"hello").await;
        packet(&mut a_in).await;
        let key = secret(1).public();
        relay.banned.0.lock().unwrap().insert(key);
        relay.server.disconnect(&key);
        assert!(a_in.recv().await.is_err());
        assert!(a.is_closed());
        let sent = a.try_send(&secret(2).public(), b"too late");
        assert_eq!(sent, Err(client::SendError::Closed));
        a.room().await;
        assert!(relay.ended.recv().await.unwrap().is_err());
        let reason = 0;
        assert_eq!(b_in.recv().await.unwrap(), Event::PeerGone { key, reason });
        assert!(client::connect(&relay.config(1)).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn a_revoked_key_is_disconnected_even_if_it_reads_nothing() {
    within(async {
        let mut relay = Relay::start().await;
        let (a, _a_in) = relay.connect(1).await;
        let (_stuck, _stuck_in) = relay.connect(2).await;
        let data = vec![9; 60_000];
        while relay.server.counters().held_up == 0 {
            send(&a, 2, &data).await;
        }
        relay.server.disconnect(&secret(2).public());
        let ended = relay.ended.recv().await.unwrap();
        let Err(Error::Closed(why)) = ended else {
            panic!("{ended:?}");
        };
        assert_eq!(why, "no longer admitted");
    })
    .await;
}

#[tokio::test]
async fn two_with_one_key_are_told() {
    within(async {
        let relay = Relay::start().await;
        let (_first, mut first_in) = relay.connect(1).await;
        let (second, mut second_in) = relay.connect(1).await;
        for receiver in [&mut first_in, &mut second_in] {
            let event = receiver.recv().await.unwrap();
            assert!(matches!(event, Event::Health(text) if text.contains("same key")));
        }
        drop((second, second_in));
        let event = first_in.recv().await.unwrap();
        assert_eq!(event, Event::Health(String::new()));
    })
    .await;
}

#[tokio::test]
async fn a_restart_is_announced() {
    within(async {
        let relay = Relay::start().await;
        let (_a, mut a_in) = relay.connect(1).await;
        let (reconnect_in, try_for) = (Duration::from_millis(20), Duration::from_secs(9));
        relay.server.announce_restart(reconnect_in, try_for);
        let event = a_in.recv().await.unwrap();
        let expected = Event::Restarting {
            reconnect_in,
            try_for,
        };
        assert_eq!(event, expected);
    })
    .await;
}
