//! What time alone does, on a clock that is moved as soon as nobody has
//! anything to do, and connections in memory.

use std::sync::Arc;

use derp::frame::{self, Frame, Ping, Receives, SendPacket};
use derp::handshake::{self, Step};
use derp::io::server::Server;
use derp::{Error, NodeKey};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;

use crate::common::secret;

fn server() -> Server {
    Server::new(secret(0xfe), Arc::new(|_: &NodeKey| true))
}

fn dial(server: &Server) -> (DuplexStream, JoinHandle<Result<(), Error>>) {
    let (ours, theirs) = tokio::io::duplex(16 << 10);
    let server = server.clone();
    let remote = "192.0.2.1:1".parse().unwrap();
    let serving = tokio::spawn(async move { server.serve(theirs, remote).await });
    (ours, serving)
}

/// The type of the next frame, and its whole bytes.
async fn read(io: &mut DuplexStream) -> Option<(u8, Vec<u8>)> {
    let mut bytes = vec![0; frame::HEADER_LEN];
    io.read_exact(&mut bytes).await.ok()?;
    let len = u32::from_be_bytes(bytes[1..].try_into().unwrap());
    bytes.resize(frame::HEADER_LEN + len as usize, 0);
    io.read_exact(&mut bytes[frame::HEADER_LEN..]).await.ok()?;
    Some((bytes[0], bytes))
}

async fn connect(io: &mut DuplexStream, byte: u8) {
    let mut handshake = handshake::Client::new(secret(byte), [byte; 24]);
    loop {
        let (_, bytes) = read(io).await.unwrap();
        let (frame, _) = frame::decode(Receives::Client, &bytes).unwrap().unwrap();
        match handshake.handle_frame(&frame).unwrap() {
            Step::Send(bytes) => io.write_all(&bytes).await.unwrap(),
            Step::Done { .. } => return,
            Step::Wait => {}
        }
    }
}

fn timed_out(result: Result<(), Error>, step: &str) {
    let Err(Error::Timeout { what, .. }) = result else {
        panic!("{result:?}");
    };
    assert!(what.contains(step), "{what}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_introduce_itself_is_cut() {
    let server = server();
    let (_client, serving) = dial(&server);
    timed_out(serving.await.unwrap(), "handshake");
    // So is one that does it byte by byte.
    let (mut client, serving) = dial(&server);
    let dripping = tokio::spawn(async move {
        while client.write_all(&[2]).await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        }
    });
    let ended = serving.await.unwrap();
    assert!(ended.is_err(), "{ended:?}");
    dripping.await.unwrap();
    assert_eq!(server.clients(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_cut() {
    let server = server();
    let (mut a, _a_serving) = dial(&server);
    connect(&mut a, 1).await;
    let (mut b, b_serving) = dial(&server);
    connect(&mut b, 2).await;
    let mut bytes = Vec::new();
    let (to, data) = (secret(2).public(), &[7; 60_000]);
    frame::encode(&SendPacket { to, data }, &mut bytes);
    a.write_all(&bytes).await.unwrap();
    timed_out(b_serving.await.unwrap(), "writing");
    // Who sent to it learns that it is gone.
    assert_eq!(read(&mut a).await.unwrap().0, 0x08);
}

#[tokio::test(start_paused = true)]
async fn a_quiet_client_is_kept_as_long_as_it_answers() {
    let server = server();
    let (mut client, serving) = dial(&server);
    connect(&mut client, 1).await;
    let start = tokio::time::Instant::now();
    // The first is a plain keep-alive or a ping; all of them come in time.
    for _ in 0..10 {
        let (kind, bytes) = read(&mut client).await.unwrap();
        assert!(kind == 0x06 || kind == 0x12, "{kind:#x}");
        if let Some((Frame::Ping(Ping { data }), _)) =
            frame::decode(Receives::Client, &bytes).unwrap()
        {
            let mut pong = Vec::new();
            frame::encode(&frame::Pong { data }, &mut pong);
            client.write_all(&pong).await.unwrap();
        }
    }
    let minutes = start.elapsed().as_secs() / 60;
    assert!((10..=11).contains(&minutes), "{minutes}");
    assert!(!serving.is_finished());
    // And cut when it answers no more.
    while read(&mut client).await.is_some() {}
    let ended = serving.await.unwrap();
    assert!(matches!(ended, Err(Error::Closed(why)) if why.contains("silent")));
}
