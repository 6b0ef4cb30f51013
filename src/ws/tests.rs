//! What a WebSocket client may send, and what it may not: one row each.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::listen::serve;
use crate::rpc::frame::Kind;

const TOKEN: &str = "a-token-that-is-long-enough";
/// Longer than anything here takes on a loaded machine.
const LIMIT: Duration = Duration::from_secs(60);

/// What a client is heard to say: its frames, then `None`.
type Heard = Option<(Kind, Vec<u8>)>;

/// A listener and what its clients say.
async fn listener() -> (SocketAddr, mpsc::UnboundedReceiver<Heard>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, heard) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        serve(listener, TOKEN, move |mut channel, _| {
            let tell = tell.clone();
            async move {
                while let Ok(Some(frame)) = channel.receiver.next_frame().await {
                    let _ = tell.send(Some((frame.kind, frame.payload.to_vec())));
                }
                let _ = tell.send(None);
            }
        })
        .await;
    });
    (address, heard)
}

fn request(line: &str, headers: &[&str]) -> String {
    let headers: String = headers.iter().map(|one| format!("{one}\r\n")).collect();
    format!("{line}\r\nHost: x\r\n{headers}\r\n")
}

const UPGRADE: [&str; 4] = [
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
];

fn good() -> String {
    let bearer = format!("Authorization: Bearer {TOKEN}");
    request("GET /ws HTTP/1.1", &[&UPGRADE[..], &[&bearer]].concat())
}

/// Sends bytes, says no more, and reads to the end.
async fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut tcp = TcpStream::connect(address).await.unwrap();
    // It may have had enough before the end.
    let _ = tcp.write_all(bytes).await;
    let _ = tcp.shutdown().await;
    let mut answer = Vec::new();
    let _ = tcp.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// A client that was let in. Frames before the answer are no part of the protocol.
async fn let_in(address: SocketAddr) -> TcpStream {
    let mut tcp = TcpStream::connect(address).await.unwrap();
    tcp.write_all(good().as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(tcp.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"));
    tcp
}

async fn within<T>(test: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, test).await.expect("too long")
}

#[expect(clippy::too_many_lines, reason = "a table")]
#[tokio::test]
async fn handshakes_that_are_refused() {
    within(async {
        let (address, mut heard) = listener().await;
        let bearer = format!("Authorization: Bearer {TOKEN}");
        let with = |headers: &[&str]| {
            let all = [&UPGRADE[..], &[&bearer], headers].concat();
            request("GET /ws HTTP/1.1", &all)
        };
        let without = |skipped: &str| {
            let mut all: Vec<&str> = UPGRADE.to_vec();
            all.retain(|header| !header.starts_with(skipped));
            all.push(&bearer);
            request("GET /ws HTTP/1.1", &all)
        };
        let as_who = |credential: &str| {
            let header = format!("Authorization: {credential}");
            request("GET /ws HTTP/1.1", &[&UPGRADE[..], &[&header]].concat())
        };
        let rows: Vec<(&str, String, &str)> = vec![
            ("no token", request("GET /ws HTTP/1.1", &UPGRADE), "401"),
            ("an empty token", as_who("Bearer "), "401"),
            (
                "another token",
                as_who("Bearer another-token-of-24-byte"),
                "401",
            ),
            (
                "a part of the token",
                as_who(&format!("Bearer {}", &TOKEN[..20])),
                "401",
            ),
            (
                "more than the token",
                as_who(&format!("Bearer {TOKEN}x")),
                "401",
            ),
            (
                "the token twice",
                as_who(&format!("Bearer {TOKEN} {TOKEN}")),
                "401",
            ),
            ("another scheme", as_who(&format!("Basic {TOKEN}")), "401"),
            ("no scheme", as_who(TOKEN), "401"),
            ("small letters", as_who(&format!("bearer {TOKEN}")), "401"),
            (
                "the token in the query",
                request(&format!("GET /ws?token={TOKEN} HTTP/1.1"), &UPGRADE),
                "401",
            ),
            ("another path", with(&[]).replace("/ws ", "/ "), "404"),
            ("a path below", with(&[]).replace("/ws ", "/ws/x "), "404"),
            (
                "a path around",
                with(&[]).replace("/ws ", "/x/../ws "),
                "404",
            ),
            (
                "an encoded path",
                with(&[]).replace("/ws ", "/%77s "),
                "404",
            ),
            ("a page of ours", with(&["Origin: http://127.0.0.1"]), "403"),
            (
                "a page of others",
                with(&["Origin: https://evil.test"]),
                "403",
            ),
            ("a page of nobody", with(&["Origin: null"]), "403"),
            ("POST", with(&[]).replace("GET", "POST"), ""),
            ("HTTP/1.0", with(&[]).replace("HTTP/1.1", "HTTP/1.0"), ""),
            ("no upgrade", without("Upgrade"), ""),
            ("no connection", without("Connection"), ""),
            ("no key", without("Sec-WebSocket-Key"), ""),
            ("no version", without("Sec-WebSocket-Version"), ""),
            (
                "another version",
                with(&[]).replace("Version: 13", "Version: 8"),
                "",
            ),
            (
                "a head of 1 MB",
                with(&[&format!("X: {}", "y".repeat(1 << 20))]),
                "",
            ),
            ("1,000 headers", with(&vec!["X: y"; 1000]), ""),
            (
                "a bare line feed",
                good().replace("Host: x\r\n", "Host: x\n\n"),
                "",
            ),
            ("a name with a blank", with(&["b ad: x"]), ""),
            ("a NUL", with(&["X: a\0b"]), ""),
            ("TLS", "\u{16}\u{3}\u{1}\u{2}\0\u{1}".to_owned(), ""),
            ("nothing", String::new(), ""),
            ("half a head", good()[..60].to_owned(), ""),
            ("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), ""),
        ];
        for (name, bytes, status) in rows {
            let answer = exchange(address, bytes.as_bytes()).await;
            assert!(!answer.contains("101 Switching"), "{name}: {answer}");
            let told = answer.starts_with(&format!("HTTP/1.1 {status}"));
            assert!(told || status.is_empty(), "{name}: {answer}");
        }
        assert!(heard.try_recv().is_err(), "nobody got in");
        let answer = exchange(address, good().as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
        assert_eq!(heard.recv().await, Some(None));
    })
    .await;
}

/// A frame of a client: `head` is the first byte, the length as short as may be.
fn frame(head: u8, payload: &[u8]) -> Vec<u8> {
    let length = payload.len();
    let mut out = vec![head];
    match length {
        0..126 => out.push(0x80 | length as u8),
        126..65_536 => {
            out.push(0x80 | 126);
            out.extend((length as u16).to_be_bytes());
        }
        _ => {
            out.push(0x80 | 127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    let mask = [1, 2, 3, 4];
    out.extend(mask);
    out.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    out
}

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const PING: u8 = 0x89;

/// Name, bytes, and what arrives before the end.
type Row = (&'static str, Vec<u8>, Vec<(Kind, Vec<u8>)>);

#[expect(clippy::too_many_lines, reason = "a table")]
fn frames() -> Vec<Row> {
    let json = |payload: &[u8]| vec![(Kind::Json, payload.to_vec())];
    let cat = |parts: &[Vec<u8>]| parts.concat();
    let length = |first: u8, rest: &[u8]| [&[BINARY, first], rest].concat();
    let many_empty = [
        vec![frame(0x01, b"")],
        vec![frame(0x00, b""); 10_000],
        vec![frame(0x80, b"x")],
    ];
    let mut rows = vec![
        ("a text", frame(TEXT, b"{}"), json(b"{}")),
        ("nothing in a text", frame(TEXT, b""), json(b"")),
        (
            "bytes",
            frame(BINARY, &[0xff]),
            vec![(Kind::Data, vec![0xff])],
        ),
        ("200 bytes", frame(TEXT, &[b' '; 200]), json(&[b' '; 200])),
        (
            "70,000 bytes",
            frame(TEXT, &[b' '; 70_000]),
            json(&[b' '; 70_000]),
        ),
        (
            "a text in three parts",
            cat(&[frame(0x01, b"a"), frame(0x00, b"b"), frame(0x80, b"c")]),
            json(b"abc"),
        ),
        (
            "a ping between parts",
            cat(&[frame(0x01, b"a"), frame(PING, b"p"), frame(0x80, b"c")]),
            json(b"ac"),
        ),
        (
            "10,000 empty parts",
            many_empty.concat().concat(),
            json(b"x"),
        ),
        (
            "a character over two parts",
            cat(&[frame(0x01, b"\xe2\x82"), frame(0x80, b"\xac")]),
            json("€".as_bytes()),
        ),
        ("pings", cat(&vec![frame(PING, b"x"); 1000]), vec![]),
        (
            "pongs that nobody asked for",
            cat(&vec![frame(0x8a, b"x"); 1000]),
            vec![],
        ),
        ("a close", frame(0x88, b"\x03\xe8"), vec![]),
        ("a close without a word", frame(0x88, b""), vec![]),
        (
            "frames after the close",
            cat(&[frame(0x88, b"\x03\xe8"), frame(TEXT, b"{}")]),
            vec![],
        ),
    ];
    let refused: Vec<(&'static str, Vec<u8>)> = vec![
        ("no mask", vec![TEXT, 2, b'{', b'}']),
        ("RSV1", frame(TEXT | 0x40, b"x")),
        ("RSV2", frame(TEXT | 0x20, b"x")),
        ("RSV3", frame(TEXT | 0x10, b"x")),
        (
            "compressed without being asked",
            frame(TEXT | 0x40, &[0xaa, 0x56, 0x4a, 0x05, 0x00]),
        ),
        ("opcode 3", frame(0x83, b"x")),
        ("opcode 4", frame(0x84, b"x")),
        ("opcode 5", frame(0x85, b"x")),
        ("opcode 6", frame(0x86, b"x")),
        ("opcode 7", frame(0x87, b"x")),
        ("opcode 11", frame(0x8b, b"x")),
        ("opcode 12", frame(0x8c, b"x")),
        ("opcode 13", frame(0x8d, b"x")),
        ("opcode 14", frame(0x8e, b"x")),
        ("opcode 15", frame(0x8f, b"x")),
        ("a part of nothing", frame(0x80, b"x")),
        (
            "a text inside a text",
            cat(&[frame(0x01, b"a"), frame(TEXT, b"b")]),
        ),
        ("a ping in parts", frame(0x09, b"x")),
        ("a close in parts", frame(0x08, b"\x03\xe8")),
        ("a ping of 126 bytes", frame(PING, &[b'x'; 126])),
        ("a close of 126 bytes", frame(0x88, &[b'x'; 126])),
        ("a close of one byte", frame(0x88, b"\x03")),
        ("close 1005", frame(0x88, b"\x03\xed")),
        ("close 999", frame(0x88, b"\x03\xe7")),
        ("close 0", frame(0x88, b"\0\0")),
        ("close 65535", frame(0x88, b"\xff\xff")),
        (
            "a close with bytes that are no text",
            frame(0x88, b"\x03\xe8\xff"),
        ),
        ("no text", frame(TEXT, b"\xff")),
        ("half a character", frame(TEXT, b"\xe2\x82")),
        ("a surrogate", frame(TEXT, b"\xed\xa0\x80")),
        (
            "a character broken over two parts",
            cat(&[frame(0x01, b"\xe2"), frame(0x80, b"x")]),
        ),
        ("2^63 bytes", length(0xff, &[0x80, 0, 0, 0, 0, 0, 0, 0])),
        ("2^64 - 1 bytes", length(0xff, &[0xff; 8])),
        (
            "16 MiB and a byte",
            length(0xff, &[0, 0, 0, 0, 1, 0, 0, 1, 1, 2, 3, 4]),
        ),
        ("half a head", vec![TEXT]),
        ("half a length", length(0xfe, &[1])),
        ("half a mask", vec![TEXT, 0x82, 1, 2]),
        ("half a frame", frame(TEXT, b"half of it")[..10].to_vec()),
        ("HTTP once more", b"GET /ws HTTP/1.1\r\n\r\n".to_vec()),
        ("garbage", (0..=255).rev().collect()),
    ];
    rows.extend(
        refused
            .into_iter()
            .map(|(name, bytes)| (name, bytes, vec![])),
    );
    rows
}

#[tokio::test]
async fn frames_that_are_taken_and_those_that_are_not() {
    within(async {
        let (address, mut heard) = listener().await;
        // Somebody who was there before, and does not notice.
        let mut witness = let_in(address).await;
        for (name, bytes, expected) in frames() {
            let mut tcp = let_in(address).await;
            // It may have had enough before the end; answers nobody reads are thrown away.
            let (mut reader, mut writer) = tcp.split();
            let mut nowhere = tokio::io::sink();
            let _ = tokio::join!(
                tokio::io::copy(&mut reader, &mut nowhere),
                async {
                    let _ = writer.write_all(&bytes).await;
                    writer.shutdown().await
                },
                async {
                    for frame in expected {
                        assert_eq!(heard.recv().await, Some(Some(frame)), "{name}");
                    }
                    assert_eq!(heard.recv().await, Some(None), "{name}: the end");
                }
            );
        }
        witness.write_all(&frame(TEXT, b"still")).await.unwrap();
        assert_eq!(
            heard.recv().await,
            Some(Some((Kind::Json, b"still".to_vec())))
        );
    })
    .await;
}

/// More strangers than there is room for, each with half a head: who knows the token gets in at
/// once, because the ones who wait longest go.
#[tokio::test]
async fn strangers_who_say_nothing_keep_nobody_out() {
    within(async {
        let (address, mut heard) = listener().await;
        let mut silent = Vec::new();
        for number in 0..600 {
            let mut tcp = TcpStream::connect(address).await.unwrap();
            if number % 2 == 0 {
                tcp.write_all(b"GET /ws HTTP/1.1\r\nHost").await.unwrap();
            }
            silent.push(tcp);
        }
        let mut tcp = let_in(address).await;
        tcp.write_all(&frame(TEXT, b"hello")).await.unwrap();
        let hello = Some((Kind::Json, b"hello".to_vec()));
        assert_eq!(heard.recv().await, Some(hello));
        // The first of them is gone, without having been waited for.
        let mut nothing = Vec::new();
        let _ = silent[0].read_to_end(&mut nothing).await;
        assert!(nothing.is_empty());
    })
    .await;
}
