//! The ways to the relay's DERP, and two relays of one region.

use std::time::Duration;

use derp::NodeKey;
use derp::frame::{Frame, NONCE_LEN, Receives, decode};
use derp::handshake::{Client, Step};
use derp::io::client::{Event, Receiver, Sender};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::hostile::derp;
use super::rig::{Rig, code, config, limited};
use crate::relay::server::Relay;

/// A member of a new network, connected for packets.
async fn member(rig: &Rig) -> (NodeKey, Sender, Receiver) {
    let network = rig.network("home").await;
    let invite = rig.invite(&network, 1).await;
    let node = rig.join(&invite, "dev-1").await.unwrap();
    let (sender, receiver) = derp(rig, &node.identity).await.unwrap();
    (node.identity.key(), sender, receiver)
}

pub(super) async fn metric(rig: &Rig, name: &str) -> u64 {
    let address = rig.relay().http();
    let mut tcp = TcpStream::connect(address).await.unwrap();
    let request = "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    tcp.read_to_string(&mut text).await.unwrap();
    let start = format!("codewire_relay_{name} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&start));
    line.expect(name).parse().unwrap()
}

#[tokio::test]
async fn a_fast_start_is_answered_by_frames_alone() {
    limited(async {
        let rig = Rig::new().await;
        let mut tcp = TcpStream::connect(rig.relay().http()).await.unwrap();
        let request = "GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade: DERP\r\n\
                       Connection: Upgrade\r\nDerp-Fast-Start: 1\r\n\r\n";
        tcp.write_all(request.as_bytes()).await.unwrap();
        let mut greeting = [0; 5 + 8 + 32];
        tcp.read_exact(&mut greeting).await.unwrap();
        let (frame, _) = decode(Receives::Client, &greeting).unwrap().unwrap();
        assert!(matches!(frame, Frame::ServerKey(_)), "{frame:?}");
    })
    .await;
}

#[tokio::test]
async fn a_request_for_derp_may_come_after_others() {
    limited(async {
        let rig = Rig::new().await;
        let mut tcp = TcpStream::connect(rig.relay().http()).await.unwrap();
        let requests = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n\
                        GET /derp HTTP/1.1\r\nhost: x\r\nupgrade: derp\r\n\
                        connection: upgrade\r\n\r\n";
        tcp.write_all(requests.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.windows(4).any(|four| four == b"DERP") {
            answer.push(tcp.read_u8().await.unwrap());
        }
        let text = String::from_utf8_lossy(&answer).to_lowercase();
        assert!(text.starts_with("http/1.1 200 "), "{text}");
        assert!(text.contains("http/1.1 101 "), "{text}");
    })
    .await;
}

#[tokio::test]
async fn over_websocket_messages_are_pieces_of_one_stream() {
    limited(async {
        let rig = Rig::new().await;
        let network = rig.network("home").await;
        let invite = rig.invite(&network, 1).await;
        let node = rig.join(&invite, "dev-1").await.unwrap();
        let address = rig.relay().http();
        let ask = async |protocol: &'static str| {
            let mut request = format!("ws://{address}/derp")
                .into_client_request()
                .unwrap();
            let header = "sec-websocket-protocol";
            request
                .headers_mut()
                .insert(header, protocol.parse().unwrap());
            let tcp = TcpStream::connect(address).await.unwrap();
            client_async(request, tcp).await
        };
        assert!(ask("chat").await.is_err());
        let (mut socket, answer) = ask("derp").await.unwrap();
        assert_eq!(answer.headers()["sec-websocket-protocol"], "derp");

        let mut us = Client::new(node.identity.secret().clone(), [7; NONCE_LEN]);
        let (mut bytes, mut is_done) = (Vec::new(), false);
        let pong = loop {
            let Message::Binary(more) = socket.next().await.unwrap().unwrap() else {
                panic!("not bytes");
            };
            bytes.extend_from_slice(&more);
            let mut answer = Vec::new();
            let mut pong = None;
            while let Some((frame, used)) = decode(Receives::Client, &bytes).unwrap() {
                if let Frame::Pong(frame) = frame {
                    pong = Some(frame.data);
                } else if !is_done {
                    match us.handle_frame(&frame).unwrap() {
                        Step::Send(bytes) => answer = bytes,
                        Step::Done { .. } => {
                            is_done = true;
                            derp::frame::encode(&derp::frame::Ping { data: [9; 8] }, &mut answer);
                        }
                        Step::Wait => {}
                    }
                }
                bytes.drain(..used);
            }
            if let Some(pong) = pong {
                break pong;
            }
            // However it is cut.
            for piece in answer.chunks(3) {
                let piece = Message::Binary(piece.to_vec().into());
                socket.send(piece).await.unwrap();
            }
        };
        assert_eq!(pong, [9; 8]);
        assert_eq!(metric(&rig, "derp_clients").await, 1);
        let text = Message::Text("no bytes".into());
        socket.send(text).await.unwrap();
        while let Some(Ok(_)) = socket.next().await {}
    })
    .await;
}

#[tokio::test]
async fn a_relay_that_stops_says_when_to_come_back() {
    limited(async {
        let mut rig = Rig::new().await;
        let (_, _sender, mut receiver) = member(&rig).await;
        rig.stop().await;
        let mut told = None;
        while let Ok(event) = receiver.recv().await {
            if let Event::Restarting { reconnect_in, .. } = event {
                told = Some(reconnect_in);
            }
        }
        assert!(
            told.is_some_and(|pause| pause < Duration::from_secs(1)),
            "{told:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn two_relays_of_one_region_forward_for_each_other() {
    limited(async {
        let (mut one, mut two) = (Rig::new().await, Rig::new().await);
        let psk = one.path("psk");
        std::fs::write(&psk, format!("{}\n", "5a".repeat(32))).unwrap();
        let urls = [two.url().to_owned(), one.url().to_owned()];
        for (rig, other) in [&mut one, &mut two].into_iter().zip(urls) {
            rig.restart_with(|config| {
                config.mesh_psk_file = Some(psk.clone());
                config.mesh_with = vec![other];
            })
            .await;
        }
        let (a, a_send, mut a_in) = member(&one).await;
        let (b, b_send, mut b_in) = member(&two).await;
        for rig in [&one, &two] {
            while metric(rig, "derp_away").await == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert_eq!(metric(rig, "derp_links").await, 1);
        }
        a_send.try_send(&b, b"there").unwrap();
        let packet = |from, data: &'static [u8]| Event::Packet {
            from,
            data: data.into(),
        };
        assert_eq!(b_in.recv().await.unwrap(), packet(a, b"there"));
        b_send.try_send(&a, b"back").unwrap();
        assert_eq!(a_in.recv().await.unwrap(), packet(b, b"back"));
        assert_eq!(metric(&one, "derp_forwarded_total").await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_region_needs_a_key_that_is_one() {
    limited(async {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path().join("relay"), "127.0.0.1:0");
        for bad in ["", "abc", &"g".repeat(64)] {
            let file = dir.path().join("psk");
            std::fs::write(&file, bad).unwrap();
            config.mesh_psk_file = Some(file);
            let error = Relay::start(&config).await.err().unwrap();
            assert_eq!(error.code, "config_invalid");
        }
        config.mesh_psk_file = Some(dir.path().join("nothing"));
        assert_eq!(
            code(Relay::start(&config).await.map(|_| ())),
            "config_invalid"
        );
        config.mesh_psk_file = None;
        config.mesh_with = vec!["ftp://relay.test".to_owned()];
        assert_eq!(
            code(Relay::start(&config).await.map(|_| ())),
            "config_invalid"
        );
    })
    .await;
}
