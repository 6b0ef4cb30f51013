//! Peers that do not keep to the protocol, on both ends.

use crate::common::{Relay, packet, secret, send, within};
use bytes::BytesMut;
use derp::Error;
use derp::frame::{self, Body, Frame, Receives, SendPacket, ServerKey};
use derp::handshake::{self, Step};
use derp::io::client::{self, Config};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A client made of nothing but bytes.
struct Raw {
    tcp: TcpStream,
    bytes: BytesMut,
}

impl Raw {
    async fn dial(relay: &Relay) -> Self {
        Self {
            tcp: TcpStream::connect(relay.address).await.unwrap(),
            bytes: BytesMut::new(),
        }
    }

    /// Past the HTTP upgrade, without an HTTP answer.
    async fn upgraded(relay: &Relay) -> Self {
        let mut raw = Self::dial(relay).await;
        let request = "GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade: DERP\r\n\
                       Connection: upgrade\r\nDerp-Fast-Start: 1\r\n\r\n";
        raw.tcp.write_all(request.as_bytes()).await.unwrap();
        raw
    }

    /// Past the handshake.
    async fn connected(relay: &Relay, byte: u8) -> Self {
        let mut raw = Self::upgraded(relay).await;
        let mut handshake = handshake::Client::new(secret(byte), [byte; 24]);
        loop {
            let (step, used) = loop {
                if let Some((frame, used)) = frame::decode(Receives::Client, &raw.bytes).unwrap() {
                    break (handshake.handle_frame(&frame).unwrap(), used);
                }
                assert_ne!(raw.tcp.read_buf(&mut raw.bytes).await.unwrap(), 0);
            };
            let _ = raw.bytes.split_to(used);
            match step {
                Step::Send(bytes) => raw.tcp.write_all(&bytes).await.unwrap(),
                Step::Done { .. } => return raw,
                Step::Wait => {}
            }
        }
    }

    async fn frame(&mut self, kind: u8, body: &[u8]) {
        let mut bytes = Vec::new();
        Frame::Unknown(frame::Unknown { kind, body }).encode(&mut bytes);
        self.tcp.write_all(&bytes).await.unwrap();
    }

    /// Reads until the relay closes; it may reset what we still send.
    async fn closed(mut self) {
        while !matches!(self.tcp.read_buf(&mut self.bytes).await, Ok(0) | Err(_)) {}
    }
}

/// How the relay's side of the next connection to end ended.
async fn ended(relay: &mut Relay) -> Error {
    relay.ended.recv().await.unwrap().unwrap_err()
}

#[tokio::test]
async fn garbage_on_the_port() {
    within(async {
        let mut relay = Relay::start().await;
        let (a, mut a_in) = relay.connect(1).await;
        for garbage in [
            &b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n"[..],
            b"GET / HTTP/1.0\r\n\r\n",
            b"SSH-2.0-x\r\n\r\n",
            &[0xff; 70_000],
        ] {
            let mut raw = Raw::dial(&relay).await;
            let _ = raw.tcp.write_all(garbage).await;
            raw.closed().await;
            ended(&mut relay).await;
        }
        // Whoever was there before does not notice.
        send(&a, 1, b"to myself").await;
        assert_eq!(packet(&mut a_in).await.1, b"to myself");
    })
    .await;
}

#[tokio::test]
async fn garbage_in_place_of_a_handshake() {
    within(async {
        let mut relay = Relay::start().await;
        // A length over the limit, a frame out of order, a box that is none.
        for (kind, body) in [(0x02, &[0; 10][..]), (0x04, &[1; 64]), (0x02, &[1; 100])] {
            let mut raw = Raw::upgraded(&relay).await;
            raw.frame(kind, body).await;
            raw.closed().await;
            let error = ended(&mut relay).await;
            assert!(matches!(error, Error::Protocol(_) | Error::BadBox));
        }
        let mut raw = Raw::upgraded(&relay).await;
        raw.tcp.write_all(&[2, 0xff, 0, 0, 0]).await.unwrap();
        raw.closed().await;
        let error = ended(&mut relay).await;
        assert!(matches!(error, Error::FrameTooLarge { kind: 2, .. }));
        assert_eq!(relay.server.clients(), 0);
    })
    .await;
}

#[tokio::test]
async fn frames_that_end_a_connection() {
    within(async {
        let mut relay = Relay::start().await;
        let too_long = vec![0; 32 + frame::MAX_PACKET + 1];
        for (kind, body) in [
            (<SendPacket<'_> as Body>::KIND, &too_long[..]),
            (0x04, &[0; 31]),
            (0x07, &[0; 2]),
            (0x0a, &[0; 64]),
            (0x10, &[]),
            (0x11, &[0; 32]),
            (0x12, &[0; 1001]),
        ] {
            let mut raw = Raw::connected(&relay, 3).await;
            raw.frame(kind, body).await;
            raw.closed().await;
            let error = ended(&mut relay).await;
            assert_eq!(error.code(), "relay_protocol", "{kind:#x}: {error}");
        }
        assert_eq!(relay.server.clients(), 0);
    })
    .await;
}

#[tokio::test]
async fn frames_of_later_versions_are_skipped() {
    within(async {
        let relay = Relay::start().await;
        let (_a, mut a_in) = relay.connect(1).await;
        let mut raw = Raw::connected(&relay, 3).await;
        raw.frame(0x66, &[5; 60_000]).await;
        let mut body = secret(1).public().as_bytes().to_vec();
        body.extend(b"after that");
        raw.frame(0x04, &body).await;
        assert_eq!(packet(&mut a_in).await.1, b"after that");
    })
    .await;
}

#[tokio::test]
async fn a_frame_in_single_bytes() {
    within(async {
        let relay = Relay::start().await;
        let (_a, mut a_in) = relay.connect(1).await;
        let mut raw = Raw::connected(&relay, 3).await;
        raw.tcp.set_nodelay(true).unwrap();
        let mut bytes = Vec::new();
        let to = secret(1).public();
        frame::encode(&SendPacket { to, data: b"slow" }, &mut bytes);
        for byte in bytes {
            raw.tcp.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(packet(&mut a_in).await.1, b"slow");
    })
    .await;
}

/// What our client makes of a server that answers with `bytes`.
async fn meet(bytes: Vec<u8>) -> Error {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let _ = tcp.write_all(&bytes).await;
        let _ = tcp.shutdown().await;
        let mut sink = Vec::new();
        let _ = tcp.read_to_end(&mut sink).await;
    });
    let secret = secret(1);
    let connected = client::connect(&Config {
        url,
        secret,
        tls: None,
        proxy: None,
    })
    .await;
    server.await.unwrap();
    connected.expect_err("nobody could speak with this server")
}

#[tokio::test]
async fn servers_that_are_none() {
    within(async {
        let upgraded = b"HTTP/1.1 101 x\r\nUpgrade: DERP\r\n\r\n".to_vec();
        let with = |bytes: &[u8]| [&upgraded[..], bytes].concat();
        assert_eq!(meet(Vec::new()).await.code(), "relay_closed");
        assert_eq!(
            meet(b"SSH-2.0-x\r\n\r\n".to_vec()).await.code(),
            "relay_upgrade"
        );
        let moved = b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n".to_vec();
        assert_eq!(meet(moved).await.code(), "relay_upgrade");
        let websocket = b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\n\r\n".to_vec();
        assert_eq!(meet(websocket).await.code(), "relay_upgrade");
        assert_eq!(meet(upgraded.clone()).await.code(), "relay_closed");
        assert_eq!(
            meet(with(&[1, 0xff, 0, 0, 0])).await.code(),
            "relay_protocol"
        );
        assert_eq!(meet(with(&[9; 60])).await.code(), "relay_protocol");
        let mut greeting = Vec::new();
        let key = secret(9).public();
        frame::encode(&ServerKey { key }, &mut greeting);
        assert_eq!(meet(with(&greeting)).await.code(), "relay_closed");
        // A ServerInfo that only noise seals.
        greeting.extend([3, 0, 0, 0, 60]);
        greeting.extend([7; 60]);
        assert_eq!(meet(with(&greeting)).await.code(), "relay_protocol");
    })
    .await;
}
