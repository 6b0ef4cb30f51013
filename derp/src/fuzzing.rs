//! What a fuzzer throws at this crate: each target takes any bytes and must come back, soon, with
//! what it promises. `fuzz/` runs them; a test here plays its corpora again.

use std::time::{Duration, Instant};

use crypto_box::SalsaBox;
use crypto_box::aead::Aead;

use crate::frame::{self, ClientInfo, Frame, NONCE_LEN, Receives, SendPacket, ServerInfo, decode};
use crate::handshake::{Client, Introduction, Server, Step};
use crate::router::{ConnId, Limits, Outcome, Router, Transmit};
use crate::{NodeKey, NodeSecret};

/// A name, and what takes the bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All of them, by the names of their corpora.
pub const TARGETS: &[Target] = &[
    ("derp_frames", frames),
    ("derp_handshake", handshake),
    ("derp_router", router),
    #[cfg(feature = "io")]
    ("derp_http_head", http_head),
];

/// A stream of frames, as either end reads it: what was read is written back the same.
pub fn frames(data: &[u8]) {
    for side in [Receives::Client, Receives::Server] {
        let mut rest = data;
        while let Ok(Some((frame, used))) = decode(side, rest) {
            assert!(used >= frame::HEADER_LEN && used <= rest.len());
            let mut again = Vec::new();
            frame.encode(&mut again);
            assert_eq!(again.len(), frame.encoded_len());
            // A later version may have appended to a body; what we know of it stays.
            let read = decode(Receives::Client, &again);
            if let Ok(Some((read, _))) = read {
                assert_eq!(read, frame);
            }
            rest = &rest[used..];
        }
        assert!(
            rest.len() < frame::HEADER_LEN + frame::MAX_FRAME as usize
                || decode(side, rest).is_err(),
            "a frame that never ends is never refused"
        );
    }
}

/// Both ends of a handshake: frames as they come, and any words inside a box that opens.
pub fn handshake(data: &[u8]) {
    let (server_secret, client_secret) = (secret(1), secret(2));
    let server = Server::new(server_secret.clone(), None);
    let mut client = Client::new(client_secret.clone(), [3; NONCE_LEN]);
    let mut rest = data;
    while let Ok(Some((frame, used))) = decode(Receives::Client, rest) {
        let _ = server.handle_frame(&frame, [4; NONCE_LEN], |_| true);
        if client.handle_frame(&frame).is_err() {
            break;
        }
        rest = &rest[used..];
    }
    let nonce = [5; NONCE_LEN];
    let key = crypto_box::PublicKey::from_bytes(*server_secret.public().as_bytes());
    let cipher = SalsaBox::new(&key, &client_secret.for_box());
    let Ok(sealed) = cipher.encrypt(&nonce.into(), data) else {
        return;
    };
    let key = client_secret.public();
    let sealed = &sealed[..];
    let said = Frame::ClientInfo(ClientInfo { key, nonce, sealed });
    let mut asked = None;
    let _ = server.handle_frame(&said, [4; NONCE_LEN], |client| {
        asked = Some(*client);
        data.len().is_multiple_of(2)
    });
    if let Some(asked) = asked {
        assert_eq!(asked.key, key, "the key that was proven");
        assert!(!asked.is_mesh, "nobody holds a mesh key that there is not");
    }
    let mut client = Client::new(client_secret, nonce);
    let greeting = server.greeting();
    if let Ok(Some((greeting, _))) = decode(Receives::Client, &greeting) {
        assert!(matches!(client.handle_frame(&greeting), Ok(Step::Send(_))));
    }
    let _ = client.handle_frame(&Frame::ServerInfo(ServerInfo { nonce, sealed }));
}

/// Clients that connect, send frames, read or do not, and leave, in any order: the router keeps
/// its bounds.
pub fn router(data: &[u8]) {
    const QUEUE: usize = 8 << 10;
    let limits = Limits {
        queue: QUEUE,
        known: 8,
        ..Limits::default()
    };
    let mut router = Router::new(limits);
    let mut now = Instant::now();
    let mut clients: Vec<ConnId> = Vec::new();
    let mut wakes = Vec::new();
    let mut script = data;
    while let Some((step, rest)) = script.split_first_chunk::<3>() {
        let [what, who, with] = *step;
        let (body, rest) = rest.split_at(usize::from(with).min(rest.len()));
        script = rest;
        let client = clients
            .get(usize::from(who) % clients.len().max(1))
            .copied();
        match (what % 8, client) {
            (0, _) if clients.len() < 32 => {
                let client = Introduction {
                    key: NodeKey::from_bytes([who % 6; 32]),
                    can_ack_pings: who & 8 != 0,
                    is_mesh: who & 16 != 0,
                    is_prober: who & 32 != 0,
                };
                clients.push(match who & 64 {
                    0 => router.handle_connect(client, who, now, with.into()),
                    _ => router.handle_link(client.key, who, now, with.into()),
                });
            }
            (1, Some(id)) => {
                let kind = body.first().copied().unwrap_or_default() % 0x18;
                if let Ok(frame) = Frame::read(kind, body) {
                    let _ = router.handle_frame(id, &frame, now);
                }
            }
            (2 | 3, Some(id)) => {
                let to = NodeKey::from_bytes([with % 6; 32]);
                let frame = Frame::SendPacket(SendPacket { to, data: body });
                if let Ok(Outcome::Blocked(until)) = router.handle_frame(id, &frame, now) {
                    assert!(until > now && until <= now + limits.patience);
                }
            }
            (4, Some(id)) => {
                if let Transmit::Chunk(bytes) = router.poll_transmit(id) {
                    assert!(bytes.len() <= 2 * QUEUE + crate::queue::URGENT_LIMIT);
                }
            }
            (5, Some(id)) => {
                router.handle_disconnect(id);
                clients.retain(|other| *other != id);
            }
            (6, Some(id)) => {
                now += Duration::from_secs(with.into());
                router.handle_timeout(id, now);
            }
            (7, _) => router.handle_revoke(&NodeKey::from_bytes([who % 6; 32])),
            _ => {}
        }
        router.poll_wakes(&mut wakes);
        wakes.clear();
    }
    assert_eq!(router.len(), clients.len());
    for id in clients {
        router.handle_disconnect(id);
    }
    assert!(router.is_empty());
}

/// The head of an HTTP request or answer.
#[cfg(feature = "io")]
pub fn http_head(data: &[u8]) {
    if let Some(head) = crate::io::head::parse(data) {
        assert!(head.line.len() <= data.len() && head.headers.len() <= data.len());
    }
}

fn secret(byte: u8) -> NodeSecret {
    NodeSecret::from_bytes([byte; 32])
}

#[cfg(test)]
#[path = "../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
#[test]
fn corpora_are_played_again() {
    replay::replay(TARGETS);
}
