//! Connections to a relay that stall in their handshake: somebody new is served all the same, even
//! by a relay that may open no more files than there are of them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use e2e::case::Setting;
use e2e::relay::Relay;
use e2e::{Cw, case};

const CW: &str = env!("CARGO_BIN_EXE_cw-under-test");

/// Files that the relay may open, and those who stall.
const FILES: &str = "400";
const STALLED: usize = 600;

/// Where it is, somebody new at it, and at what point others stall.
type Door<'a> = (String, fn(&str), &'a [&'a [u8]]);

struct Alone {
    relay: Relay,
    _dir: tempfile::TempDir,
}

impl Setting for Alone {
    fn logs(&self) -> Vec<(String, String)> {
        vec![("relay".to_owned(), self.relay.log())]
    }

    fn tear_down(&self) {
        self.relay.kill();
    }
}

/// Sooner than any of those who stall is put out for its slowness alone, which is after ten seconds.
const SOON: Duration = Duration::from_secs(8);

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("somebody listens");
    stream.set_read_timeout(Some(SOON)).expect("a socket");
    stream
}

/// Somebody who asks something.
fn is_served(address: &str) {
    let mut stream = connect(address);
    let request = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(request).expect("it is taken");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
}

/// Somebody who comes by SSH.
fn is_greeted(address: &str) {
    let mut greeting = [0; 8];
    connect(address)
        .read_exact(&mut greeting)
        .expect("a greeting");
    assert_eq!(&greeting, b"SSH-2.0-");
}

#[test]
fn a5_stalled_handshakes_keep_nobody_out() {
    let dir = tempfile::tempdir().expect("a directory of our own");
    let limit = format!("ulimit -n {FILES}; exec \"$@\"");
    let cw = Cw::new(CW.as_ref(), dir.path()).behind(&["/bin/sh", "-c", &limit, "sh"]);
    let relay = Relay::new(cw, &dir.path().join("data"), "127.0.0.1:0");
    case(&Alone { relay, _dir: dir }, |alone| {
        alone.relay.start();
        let doors: [Door; 2] = [
            (
                alone.relay.address(),
                is_served,
                &[
                    b"",
                    b"GET / HTTP/1.1\r\nhost: x\r\n",
                    b"GET /derp HTTP/1.1\r\n",
                ],
            ),
            (
                alone.relay.ssh(),
                is_greeted,
                &[b"", b"SSH-2.0-x\r\n", b"SSH"],
            ),
        ];
        for (door, serves, points) in doors {
            let mut stalled = Vec::new();
            for n in 0..STALLED {
                let mut stream = connect(&door);
                // It may have to go at once.
                let _ = stream.write_all(points[n % points.len()]);
                stalled.push(stream);
                if n % 20 == 0 {
                    serves(&door);
                }
            }
            serves(&door);
            // The first ones have made room.
            for stream in &mut stalled[..points.len()] {
                let ended = stream.read_to_end(&mut Vec::new());
                assert!(
                    ended.is_ok() || ended.is_err_and(|error| error.kind()
                        == std::io::ErrorKind::ConnectionReset),
                    "it holds its place"
                );
            }
        }
    });
}
