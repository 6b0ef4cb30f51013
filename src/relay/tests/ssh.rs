//! The SSH front door, knocked at by those who mean no good.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use russh::client;
use russh::keys::PublicKeyOrCertificate;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::rig::config;
use crate::relay::server::Relay;

/// More than the door keeps waiting, and those who have come furthest more than half of that.
const STALLED: usize = 600;

async fn relay() -> (tempfile::TempDir, Relay) {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path().join("relay"), "127.0.0.1:0");
    config.ssh_listen = "127.0.0.1:0".to_owned();
    let relay = Relay::start(&config).await.unwrap();
    (dir, relay)
}

async fn greeting(door: SocketAddr) -> String {
    let mut stream = TcpStream::connect(door).await.unwrap();
    let mut greeting = [0; 9];
    let read = timeout(Duration::from_secs(10), stream.read_exact(&mut greeting));
    read.await.unwrap().unwrap();
    String::from_utf8(greeting.to_vec()).unwrap()
}

/// A connection from another address of this machine.
async fn from(address: [u8; 4], door: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((address, 0).into()).unwrap();
    socket.connect(door).await.unwrap()
}

/// Hangs up in the end; what has come until then.
async fn until_the_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let ended = timeout(Duration::from_secs(20), stream.read_to_end(&mut all)).await;
    assert!(ended.is_ok(), "it is still there");
    all
}

#[tokio::test]
async fn stalled_connections_keep_nobody_out() {
    let (_dir, relay) = relay().await;
    let door = relay.ssh().unwrap();
    // Somebody slow, from elsewhere, who has come first.
    let mut slow = from([127, 0, 0, 2], door).await;
    let points = [
        Vec::new(),
        BANNER.to_vec(),
        [BANNER, &packet(&kexinit("curve25519-sha256"))].concat(),
    ];
    let mut stalled = Vec::new();
    for n in 0..STALLED {
        let mut stream = TcpStream::connect(door).await.unwrap();
        stream.write_all(&points[n % points.len()]).await.unwrap();
        stalled.push(stream);
        assert_eq!(greeting(door).await, "SSH-2.0-c");
    }
    // The oldest of those many were let go, wherever they had stalled.
    for stream in &mut stalled[..points.len()] {
        until_the_end(stream).await;
    }
    let exchange = [&points[2][..], &packet(&public(9))].concat();
    slow.write_all(&exchange).await.unwrap();
    let mut answer = BytesMut::new();
    let heard = async {
        while !kinds(&answer).contains(&ECDH_REPLY) {
            assert!(
                slow.read_buf(&mut answer).await.unwrap() > 0,
                "it was let go"
            );
        }
    };
    timeout(Duration::from_secs(20), heard).await.unwrap();
}

#[tokio::test]
async fn who_is_in_the_key_exchange_is_not_put_out_by_those_who_say_nothing() {
    let (_dir, relay) = relay().await;
    let door = relay.ssh().unwrap();
    // Somebody who has come first, and from the same address as all the others.
    let mut first = TcpStream::connect(door).await.unwrap();
    let hello = [BANNER, &packet(&kexinit("curve25519-sha256"))].concat();
    first.write_all(&hello).await.unwrap();
    let mut answer = BytesMut::new();
    // Its hello was read: ours is the answer.
    while !kinds(&answer).contains(&KEXINIT) {
        assert!(first.read_buf(&mut answer).await.unwrap() > 0);
    }
    let mut stalled = Vec::new();
    for n in 0..STALLED {
        let mut stream = TcpStream::connect(door).await.unwrap();
        stream.write_all(&BANNER[..n % 5]).await.unwrap();
        stalled.push(stream);
        assert_eq!(greeting(door).await, "SSH-2.0-c");
    }
    until_the_end(&mut stalled[0]).await;
    first.write_all(&packet(&public(9))).await.unwrap();
    let heard = async {
        while !kinds(&answer).contains(&ECDH_REPLY) {
            assert!(
                first.read_buf(&mut answer).await.unwrap() > 0,
                "it was let go"
            );
        }
    };
    timeout(Duration::from_secs(20), heard).await.unwrap();
}

const BANNER: &[u8] = b"SSH-2.0-x\r\n";

/// Kinds of messages (RFC 4253, 12; RFC 5656, 7.1).
const IGNORE: u8 = 2;
const KEXINIT: u8 = 20;
const ECDH_INIT: u8 = 30;
const ECDH_REPLY: u8 = 31;

fn packet(payload: &[u8]) -> Vec<u8> {
    let padding = 16 - (payload.len() + 5) % 8;
    let length = u32::try_from(payload.len() + 1 + padding).unwrap();
    let padding = u8::try_from(padding).unwrap();
    let mut packet = [&length.to_be_bytes()[..], &[padding], payload].concat();
    packet.resize(packet.len() + usize::from(padding), 0);
    packet
}

fn string(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap();
    [&length.to_be_bytes()[..], bytes].concat()
}

fn kexinit(kex: &str) -> Vec<u8> {
    let (cipher, mac) = ("aes256-gcm@openssh.com", "hmac-sha2-256-etm@openssh.com");
    let lists = [
        kex,
        "ssh-ed25519",
        cipher,
        cipher,
        mac,
        mac,
        "none",
        "none",
        "",
        "",
    ];
    let mut payload = vec![KEXINIT];
    payload.extend([7; 16]);
    for list in lists {
        payload.extend(string(list.as_bytes()));
    }
    payload.extend([0; 5]);
    payload
}

/// The public key of a client: a point of the curve, by its first byte.
fn public(point: u8) -> Vec<u8> {
    let mut key = [0; 32];
    key[0] = point;
    [&[ECDH_INIT][..], &string(&key)].concat()
}

/// The kinds of the messages that a server has sent in the clear, as far as they are whole.
fn kinds(answer: &[u8]) -> Vec<u8> {
    let mut kinds = Vec::new();
    let banner = answer.iter().position(|byte| *byte == b'\n');
    let mut rest = banner.map_or(&[][..], |end| &answer[end + 1..]);
    while let [a, b, c, d, _, kind, ..] = rest {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        let Some(next) = rest.get(4 + length..) else {
            break;
        };
        kinds.push(*kind);
        rest = next;
    }
    kinds
}

/// The kinds of the messages that are the answer to these.
async fn answers(door: SocketAddr, messages: &[Vec<u8>]) -> Vec<u8> {
    let mut stream = TcpStream::connect(door).await.unwrap();
    stream.write_all(BANNER).await.unwrap();
    for message in messages {
        // It may hang up before the last.
        let _ = stream.write_all(&packet(message)).await;
    }
    let _ = stream.shutdown().await;
    kinds(&until_the_end(&mut stream).await)
}

#[tokio::test]
async fn a5_ssh_key_exchanges_that_are_no_good_have_no_answer() {
    let (_dir, relay) = relay().await;
    let door = relay.ssh().unwrap();
    let plain = kexinit("curve25519-sha256");
    let strict = kexinit("curve25519-sha256,kex-strict-c-v00@openssh.com");
    let ignore = [&[IGNORE][..], &string(b"x")].concat();
    // A good one is answered, strict or not.
    for good in [[plain.clone(), public(9)], [strict.clone(), public(9)]] {
        let told = answers(door, &good).await;
        assert!(told.contains(&ECDH_REPLY), "{told:?}");
    }
    let many = format!("{}curve25519-sha256", "x,".repeat(120_000));
    let rows = [
        (
            "a point that makes the secret zero",
            vec![plain.clone(), public(0)],
        ),
        ("another point that does", vec![plain.clone(), public(1)]),
        (
            "a key of 31 bytes",
            vec![
                plain.clone(),
                [&[ECDH_INIT][..], &string(&[9; 31])].concat(),
            ],
        ),
        ("no key", vec![plain.clone(), vec![ECDH_INIT]]),
        // The prefix of Terrapin: a message that the strict exchange does not have.
        (
            "strict, and a message between",
            vec![strict, ignore, public(9)],
        ),
        (
            "an exchange that is not offered",
            vec![kexinit("diffie-hellman-group1-sha1")],
        ),
        ("lists without a word", vec![kexinit("")]),
        ("a list of 240 kB", vec![kexinit(&many), public(0)]),
        (
            "a packet of 256 KiB and a byte",
            vec![vec![IGNORE; 256 * 1024 + 1]],
        ),
        ("keys before there is an exchange", vec![vec![21]]),
        (
            "a login before there are keys",
            vec![plain.clone(), vec![50]],
        ),
        ("nothing but farewell", vec![vec![1, 0, 0, 0, 2]]),
    ];
    for (name, messages) in rows {
        let told = answers(door, &messages).await;
        assert!(!told.contains(&ECDH_REPLY), "{name}: {told:?}");
        assert_eq!(greeting(door).await, "SSH-2.0-c", "{name}");
    }
}

/// A client that trusts whoever answers.
struct Guesser;

impl client::Handler for Guesser {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

#[tokio::test]
async fn a5_ssh_who_guesses_has_to_wait_and_others_have_not() {
    let (_dir, relay) = relay().await;
    let door = relay.ssh().unwrap();
    let mut guesses = JoinSet::new();
    for n in 0..40 {
        guesses.spawn(async move {
            let config = Arc::new(client::Config {
                preferred: crate::ssh::preferred(),
                ..client::Config::default()
            });
            let mut guesser = client::connect(config, door, Guesser).await.unwrap();
            let guess = format!("abcde-fghij-kmnpq-{n}");
            guesser.authenticate_password("dev-1", guess).await.unwrap()
        });
    }
    while let Some(guess) = guesses.join_next().await {
        assert!(!guess.unwrap().success());
    }
    let guards = &relay.app().guards;
    assert!(guards.may_show_token([127, 0, 0, 1].into()).is_err());
    assert!(guards.may_show_token([127, 0, 0, 2].into()).is_ok());
}

#[tokio::test]
async fn what_is_no_ssh_is_let_go() {
    let (_dir, relay) = relay().await;
    let door = relay.ssh().unwrap();
    let packet = |len: u32, rest: &[u8]| [BANNER, &len.to_be_bytes(), rest].concat();
    let mut kexinit = vec![10, 20];
    kexinit.extend([0; 16 + 10 * 4 + 5 + 10]);
    let vectors: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", Vec::new()),
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("a banner of 8 KiB", vec![b'S'; 8192]),
        ("carriage returns", vec![b'\r'; 1024]),
        ("SSH 1", b"SSH-1.5-x\r\n".to_vec()),
        ("a packet of 4 GiB", packet(u32::MAX, b"x")),
        ("a packet of nothing", packet(0, b"")),
        ("a packet of one byte", packet(1, &[0])),
        ("padding beyond the packet", packet(12, &[255; 12])),
        (
            "a key exchange without algorithms",
            packet(u32::try_from(kexinit.len()).unwrap(), &kexinit),
        ),
        ("noise", [BANNER, &[0xa5; 65_536]].concat()),
    ];
    for (name, bytes) in vectors {
        let mut stream = TcpStream::connect(door).await.unwrap();
        // It may hang up before it has read everything.
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let ended = timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "{name}: it is not let go");
        assert_eq!(greeting(door).await, "SSH-2.0-c", "{name}");
    }
}
