//! What is between a client and its relay: a proxy, a bound, a farewell.

use std::net::SocketAddr;
use std::time::Duration;

use crate::common::{Relay, packet, secret, send, within};
use derp::Error;
use derp::io::client::{self, Config, Event};
use derp::io::proxy::Proxy;
use derp::io::server::Options;
use derp::pace::Rate;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A proxy that knows one name, and perhaps wants a password.
async fn proxy(relay: SocketAddr, wants: Option<&'static str>) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((mut io, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(io.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            let denied = wants.is_some_and(|word| {
                !head.contains(&format!("\r\nProxy-Authorization: Basic {word}\r\n"))
            });
            let answer = match head.lines().next().unwrap() {
                _ if denied => "407 Proxy Authentication Required",
                "CONNECT relay.test:80 HTTP/1.1" => "200 Connection established",
                _ => "403 Forbidden",
            };
            let answer = format!("HTTP/1.1 {answer}\r\nVia: test\r\n\r\n");
            io.write_all(answer.as_bytes()).await.unwrap();
            if answer.contains(" 200 ") {
                let mut out = TcpStream::connect(relay).await.unwrap();
                let _ = copy_bidirectional(&mut io, &mut out).await;
            }
        }
    });
    (address, tasks)
}

fn by(proxy: &str, url: &str) -> Config {
    Config {
        url: url.into(),
        secret: secret(1),
        tls: None,
        proxy: Some(Proxy::parse(proxy).unwrap()),
    }
}

#[tokio::test]
async fn a_proxy_leads_to_a_relay_that_only_it_can_name() {
    within(async {
        let relay = Relay::start().await;
        // "me:p@ss"
        let (at, _tasks) = proxy(relay.address, Some("bWU6cEBzcw==")).await;
        let config = by(&format!("me:p%40ss@{at}"), "http://relay.test");
        let (near, mut near_in) = client::connect(&config).await.unwrap();
        let (far, mut far_in) = relay.connect(2).await;
        send(&near, 2, b"out").await;
        assert_eq!(packet(&mut far_in).await.1, b"out");
        send(&far, 1, b"in").await;
        assert_eq!(packet(&mut near_in).await.1, b"in");
    })
    .await;
}

#[tokio::test]
async fn a_proxy_that_refuses_is_told_from_a_relay_that_does() {
    within(async {
        let relay = Relay::start().await;
        let (at, _tasks) = proxy(relay.address, Some("x")).await;
        for (url, word) in [
            ("http://relay.test", "password"),
            ("http://other.test", "password"),
        ] {
            let refused = client::connect(&by(&at.to_string(), url)).await;
            let Err(Error::Proxy(text)) = refused else {
                panic!("{refused:?}");
            };
            assert!(text.contains(word), "{text}");
        }
        let (at, _tasks) = proxy(relay.address, None).await;
        let refused = client::connect(&by(&at.to_string(), "http://other.test")).await;
        assert!(matches!(refused, Err(Error::Proxy(text)) if text.contains("403")));
    })
    .await;
}

#[tokio::test]
async fn who_sends_too_much_is_read_slowly_and_loses_nothing() {
    within(async {
        let options = Options {
            rate: Some(Rate::with_burst(400_000, 0)),
            ..Options::default()
        };
        let any = "127.0.0.1:0".parse().unwrap();
        let relay = Relay::start_as(0xfe, any, options).await;
        let (a, _a_in) = relay.connect(1).await;
        let (_b, mut b_in) = relay.connect(2).await;
        for number in 0..200_u8 {
            send(&a, 2, &[number; 1_000]).await;
        }
        for number in 0..200_u8 {
            assert_eq!(packet(&mut b_in).await.1, [number; 1_000]);
        }
        let counters = relay.server.counters();
        assert!(counters.throttled > 0, "{counters:?}");
        assert_eq!(counters.dropped, 0);
    })
    .await;
}

#[tokio::test]
async fn a_relay_that_stops_says_so_after_what_is_queued() {
    within(async {
        let mut relay = Relay::start().await;
        let (a, _a_in) = relay.connect(1).await;
        let (_b, mut b_in) = relay.connect(2).await;
        send(&a, 2, b"last").await;
        while relay.server.counters().packets == 0 {
            tokio::task::yield_now().await;
        }
        let (reconnect_in, try_for) = (Duration::from_millis(200), Duration::from_secs(60));
        relay.server.depart(reconnect_in, try_for);
        let mut heard = Vec::new();
        while let Ok(event) = b_in.recv().await {
            heard.push(event);
        }
        let restarting = Event::Restarting {
            reconnect_in,
            try_for,
        };
        assert!(heard.contains(&restarting), "{heard:?}");
        assert!(
            heard
                .iter()
                .any(|event| matches!(event, Event::Packet { .. }))
        );
        for _ in 0..2 {
            relay.ended.recv().await.unwrap().unwrap_err();
        }
    })
    .await;
}
