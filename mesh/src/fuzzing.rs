//! What a fuzzer throws at this crate: each target takes any bytes and must come back, soon, with
//! what it promises. `fuzz/` runs them; a test here plays its corpora again.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use blake2::digest::{FixedOutput as _, KeyInit as _, Update as _};
use blake2::{Blake2s256, Blake2sMac, Digest as _};
use derp::{NodeKey, NodeSecret};
use ed25519_dalek::{Signer as _, SigningKey};

use crate::control::{MAX_ENDPOINTS, Message};
use crate::packet::{HEADER_LEN, Pair, Port};
use crate::path::Via;
use crate::peer::{Core, MAX_INNER, Setup};
use crate::wg::demux::{Class, Demux, Initiator, classify};
use crate::wg::{MAX_HANDSHAKE, Opened, Sealed, Tunnel};
use crate::{NetworkId, NodeName, SignKey, SignedRecord, address_of, stun};

/// A name, and what takes the bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All of them, by the names of their corpora.
pub const TARGETS: &[Target] = &[
    ("mesh_stun", stun),
    ("mesh_control", control),
    ("mesh_peer", peer),
    ("mesh_wireguard", wireguard),
    ("mesh_record", record),
    ("mesh_words", words),
    #[cfg(feature = "io")]
    ("mesh_quic_packing", quic_packing),
];

const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// Answers of a STUN server.
pub fn stun(data: &[u8]) {
    let _ = stun::parse_response(data);
    if let Some((id, attributes)) = data.split_first_chunk::<12>() {
        let mut response = vec![1, 1];
        response.extend((attributes.len() as u16).to_be_bytes());
        response.extend([0x21, 0x12, 0xa4, 0x42]);
        response.extend(id);
        response.extend(attributes);
        if let Some(stun::Answer { id: found, .. }) = stun::parse_response(&response) {
            assert_eq!(found, *id, "no other question is answered");
        }
    }
}

/// An inner packet and the control message in it.
pub fn control(data: &[u8]) {
    let pair = pair();
    if let Some(port) = pair.parse(data) {
        let mut again = vec![0; data.len()];
        let there = Pair {
            local: pair.remote,
            remote: pair.local,
        };
        assert_eq!(
            there.build(port, &data[HEADER_LEN..], &mut again),
            data.len()
        );
    }
    if let Some(message) = Message::decode(data) {
        if let Message::CallMeMaybe { endpoints } = &message {
            assert!(endpoints.len() <= MAX_ENDPOINTS);
        }
        assert_eq!(Message::decode(&message.encode()), Some(message));
    }
}

/// What a peer may say inside its tunnel, at any time: a byte says how, one how long to wait, one
/// how much. Neither what is kept nor what is sent grows with what it says.
pub fn peer(data: &[u8]) {
    let (ours, theirs) = (secret(1), secret(2));
    let demux = Demux::new(&ours);
    let mut core = Core::new(Setup {
        local: ours.public(),
        remote: theirs.public(),
        secret: ours,
        index: 7,
        limiter: demux.limiter().clone(),
        boot: 1,
        direct: true,
        first_id: 5,
    });
    let endpoint = |port| SocketAddr::from(([192, 0, 2, 9], port));
    core.set_endpoints([endpoint(1), endpoint(2)].into());
    let mut now = Instant::now();
    let mut script = data;
    while let Some(([how, wait, len], rest)) = script.split_first_chunk::<3>() {
        let (payload, rest) = rest.split_at(usize::from(*len).min(rest.len()));
        script = rest;
        let via = match how & 3 {
            0 => Via::Relay,
            port => Via::Direct(endpoint(port.into())),
        };
        let mut payload = payload.to_vec();
        match how & (4 | 32) {
            // The sizes of a probe.
            4 => payload.resize(crate::packet::QUIC_MTU, 0),
            36 => payload.resize(crate::packet::WIDE_MTU, 0),
            _ => {}
        }
        let port = if how & 8 == 0 {
            Port::Control
        } else {
            Port::Quic
        };
        let there = Pair {
            local: pair().remote,
            remote: pair().local,
        };
        let payload_len = payload.len();
        let mut packet = vec![0; HEADER_LEN + payload.len()];
        there.build(port, &payload, &mut packet);
        if how & 16 != 0 {
            // Not even that.
            packet = payload;
        }
        if let Some(range) = core.handle_packet(via, &packet, now) {
            assert!(range.start == HEADER_LEN && range.end == packet.len());
        }
        now += Duration::from_millis(u64::from(*wait) * 20);
        if core.poll_timeout().is_some_and(|at| at <= now) {
            core.handle_timeout(now);
        }
        let _ = core.route_for(payload_len, now);
        assert!(drained(&mut core) <= 64, "one packet asks for few");
    }
    let mut seconds = 0;
    while let Some(at) = core.poll_timeout() {
        now = now.max(at);
        core.handle_timeout(now);
        drained(&mut core);
        seconds += 1;
        assert!(seconds < 100_000, "it never comes to rest");
    }
}

fn drained(core: &mut Core) -> usize {
    let transmits = std::iter::from_fn(|| core.poll_transmit()).count();
    transmits + std::iter::from_fn(|| core.poll_event()).count()
}

/// Datagrams of any kind and length beside a tunnel that works: it still does. A byte says what
/// is made of the two bytes of length and the bytes after it.
pub fn wireguard(data: &[u8]) {
    let now = Instant::now();
    let (mine, theirs) = (secret(1), secret(2));
    let (our_demux, their_demux) = (Demux::new(&mine), Demux::new(&theirs));
    let mut us = Tunnel::new(&mine, &theirs.public(), 7, our_demux.limiter(), now);
    let mut them = Tunnel::new(&theirs, &mine.public(), 9, their_demux.limiter(), now);
    let mut script = data;
    if script.split_off_first().is_some_and(|first| first & 1 == 1) {
        shake(&mut us, &mut them, now);
    }
    while let Some(([what, low, high], rest)) = script.split_first_chunk::<3>() {
        let len = usize::from(u16::from_le_bytes([*low, *high]));
        let (bytes, rest) = rest.split_at(len.min(rest.len()));
        script = rest;
        let mut room = vec![0; 70_000];
        let datagram = match what % 5 {
            0 => bytes.to_vec(),
            // Longer than what is there to take it.
            1 => {
                room.truncate(bytes.len() / 2);
                bytes.to_vec()
            }
            // A real one, with a few bits turned.
            2 => {
                let mut real = real(&mut them, now);
                for (byte, turn) in real.iter_mut().zip(bytes) {
                    *byte ^= turn;
                }
                real
            }
            // Somebody who knows our key and can make a first message.
            3 => forged_initiation(&mine.public(), bytes),
            // A data packet of no session that there is.
            _ => [&[4, 0, 0, 0, 0, 7, 0, 0][..], bytes].concat(),
        };
        if classify(&datagram) == Class::Initiation
            && let Initiator::Key(key) = our_demux.initiator(SOURCE, &datagram, now)
        {
            assert_ne!(key, NodeKey::from_bytes([0; 32]), "nobody has this key");
        }
        let mut reply = Vec::new();
        let opened = us.open(SOURCE, &datagram, &mut room, now, &mut reply);
        if let Opened::Packet(len) = opened {
            let _ = pair().parse(&room[..len]);
            assert!(len <= datagram.len());
        }
        assert!(reply.len() <= 257 && reply.iter().all(|one| one.len() <= 2080));
    }
    shake(&mut us, &mut them, now);
    let still = sealed(&mut them, b"still here", now);
    let mut room = vec![0; 4096];
    let opened = us.open(SOURCE, &still, &mut room, now, &mut Vec::new());
    assert_eq!(opened, Opened::Packet(HEADER_LEN + 10));
}

/// Brings a session up, if there is none.
fn shake(us: &mut Tunnel, them: &mut Tunnel, now: Instant) {
    let mut to_us = Vec::new();
    them.initiate(false, now, &mut to_us);
    let mut room = vec![0; 4096];
    let mut now = now;
    // One that began before and got no answer repeats its message.
    for _ in 0..100 {
        if them.has_session() {
            break;
        }
        now += Duration::from_millis(50);
        them.tick(now, &mut to_us);
        let mut to_them = Vec::new();
        for datagram in to_us.drain(..) {
            us.open(SOURCE, &datagram, &mut room, now, &mut to_them);
        }
        for datagram in to_them {
            them.open(SOURCE, &datagram, &mut room, now, &mut to_us);
        }
    }
    assert!(them.has_session(), "two that want to talk can");
}

/// What they send next: data, or a handshake message.
fn real(them: &mut Tunnel, now: Instant) -> Vec<u8> {
    let mut emitted = Vec::new();
    if !them.has_session() {
        them.initiate(true, now, &mut emitted);
    }
    emitted.pop().unwrap_or_else(|| sealed(them, b"data", now))
}

fn sealed(them: &mut Tunnel, payload: &[u8], now: Instant) -> Vec<u8> {
    let there = Pair {
        local: pair().remote,
        remote: pair().local,
    };
    let mut packet = [0; MAX_INNER];
    let len = there.build(Port::Quic, payload, &mut packet);
    let mut out = vec![0; 4096];
    match them.seal(&packet[..len], &mut out, now, &mut Vec::new()) {
        Sealed::Data(len) => out[..len].to_vec(),
        Sealed::Queued | Sealed::Refused => Vec::new(),
    }
}

/// An initiation with any content whose first mac is right for `key`.
pub(crate) fn forged_initiation(key: &NodeKey, content: &[u8]) -> Vec<u8> {
    let mut message = content.to_vec();
    message.resize(MAX_HANDSHAKE, 0);
    message[..4].copy_from_slice(&[1, 0, 0, 0]);
    let hash = Blake2s256::digest([b"mac1----", &key.as_bytes()[..]].concat());
    let Ok(mut mac) = Blake2sMac::<blake2::digest::consts::U16>::new_from_slice(&hash) else {
        return message;
    };
    mac.update(&message[..116]);
    message[116..132].copy_from_slice(&mac.finalize_fixed());
    message
}

/// Datagrams for quinn's buffers.
#[cfg(feature = "io")]
pub fn quic_packing(data: &[u8]) {
    crate::io::pack_anything(data);
}

/// A record that anybody made up, and what is believed of one that the issuer signed.
pub fn record(data: &[u8]) {
    let issuer = SigningKey::from_bytes(&[3; 32]);
    let key = SignKey::from(&issuer.verifying_key());
    let Ok(network) = "home".parse::<NetworkId>() else {
        return;
    };
    if let Ok(signed) = serde_json::from_slice::<SignedRecord>(data) {
        let _ = signed.verify(&key, &network, 1_800_000_000);
    }
    let signature = issuer.sign(&[b"codewire node record v1\0", data].concat());
    let text = serde_json::json!({
        "record": URL_SAFE_NO_PAD.encode(data),
        "signature": URL_SAFE_NO_PAD.encode(signature.to_bytes()),
    });
    let Ok(signed) = serde_json::from_value::<SignedRecord>(text) else {
        return;
    };
    if let Ok(record) = signed.verify(&key, &network, 1_800_000_000) {
        assert_eq!(record.network, network);
        assert!(record.expires > 1_800_000_000 && !record.key.is_zero());
        let again = SignedRecord::sign(&record, &issuer);
        assert_eq!(
            again.verify(&key, &network, 1_800_000_000).ok(),
            Some(record)
        );
    }
}

/// Names and keys as text.
pub fn words(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(name) = text.parse::<NodeName>() {
        assert_eq!(name.as_str(), text);
        assert!(text.parse::<NetworkId>().is_ok());
    }
    if let Ok(key) = text.parse::<NodeKey>() {
        assert_eq!(key.to_string().parse().ok(), Some(key));
    }
    if let Ok(key) = text.parse::<SignKey>() {
        assert_eq!(key.to_string().parse().ok(), Some(key));
    }
}

fn pair() -> Pair {
    Pair {
        local: address_of(&secret(1).public()),
        remote: address_of(&secret(2).public()),
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
