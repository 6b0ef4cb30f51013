//! Datagrams from nobody.

use std::net::{SocketAddr, UdpSocket};

use crate::support::*;

/// Garbage of every kind and size does not disturb a direct call.
#[tokio::test(flavor = "multi_thread")]
async fn garbage_by_udp_does_no_harm() {
    limited(async {
        let relay = TestRelay::start().await;
        let (a, b) = pair(&relay, true).await;
        let _echo = echo(&b);
        until_direct(&a, 2).await;

        let (v4, _) = b.udp_ports();
        let target = SocketAddr::from(([127, 0, 0, 1], v4.unwrap()));
        let flood = tokio::task::spawn_blocking(move || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            let lengths = (0..1600).chain((1600..65_507).step_by(997)).chain([65_507]);
            for len in lengths {
                for kind in 0..=5u8 {
                    let mut datagram = vec![0xa5; len];
                    for (at, byte) in [kind, 0, 0, 0].into_iter().enumerate().take(len) {
                        datagram[at] = byte;
                    }
                    // The system may drop what comes too fast.
                    let _ = socket.send_to(&datagram, target);
                }
            }
        });
        while !flood.is_finished() {
            call(&a, 2, 1000).await.unwrap();
        }
        flood.await.unwrap();
        call(&a, 2, 1 << 20).await.unwrap();
    })
    .await;
}

/// The same from somebody whom the relay lets in.
#[tokio::test(flavor = "multi_thread")]
async fn garbage_over_the_relay_does_no_harm() {
    limited(async {
        let relay = TestRelay::start().await;
        let (a, b) = pair(&relay, false).await;
        let _echo = echo(&b);
        call(&a, 2, 1000).await.unwrap();

        let config = derp::io::client::Config {
            url: relay.relay().url,
            secret: identity(66).secret().clone(),
            tls: None,
            proxy: None,
        };
        let (sender, _receiver) = derp::io::client::connect(&config).await.unwrap();
        let target = identity(2).key();
        for len in (0..1600).chain([2000, 9000, 65_536]) {
            for kind in 0..=5u8 {
                let mut packet = vec![0xa5; len];
                for (at, byte) in [kind, 0, 0, 0].into_iter().enumerate().take(len) {
                    packet[at] = byte;
                }
                sender.room().await;
                sender.try_send(&target, &packet).unwrap();
            }
            if len % 100 == 0 {
                call(&a, 2, 1000).await.unwrap();
            }
        }
        call(&a, 2, 1 << 20).await.unwrap();
    })
    .await;
}
