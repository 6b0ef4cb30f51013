//! The SSH front door, knocked at by those who mean no good.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::rig::config;
use crate::relay::server::Relay;

/// More than the door keeps waiting.
const STALLED: usize = 300;

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

#[tokio::test]
async fn stalled_connections_keep_nobody_out() {
    let (_dir, relay) = relay().await;
    let door = relay.ssh().unwrap();
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        stalled.push(TcpStream::connect(door).await.unwrap());
        assert_eq!(greeting(door).await, "SSH-2.0-c");
    }
    // The oldest was let go.
    let mut rest = Vec::new();
    let oldest = stalled.first_mut().unwrap().read_to_end(&mut rest);
    let ended = timeout(Duration::from_secs(10), oldest).await;
    assert!(ended.is_ok(), "it is still there");
}

#[tokio::test]
async fn what_is_no_ssh_is_let_go() {
    let (_dir, relay) = relay().await;
    let door = relay.ssh().unwrap();
    let banner = b"SSH-2.0-x\r\n";
    let packet = |len: u32, rest: &[u8]| [&banner[..], &len.to_be_bytes(), rest].concat();
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
        ("noise", [&banner[..], &[0xa5; 65_536]].concat()),
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
