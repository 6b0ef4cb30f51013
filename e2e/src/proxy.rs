//! An HTTP proxy as companies have them: `CONNECT` and nothing else, to one host that only it can
//! find.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

/// How long a client may take to say what it wants.
const ASKS: Duration = Duration::from_secs(20);
/// The longest request, bytes.
const MAX_HEAD: usize = 8 << 10;

/// One that runs until the process ends.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    tunnels: Arc<AtomicUsize>,
}

impl Proxy {
    /// Starts it: a tunnel to `name` (`host:port`) ends at `to`, any other is refused.
    ///
    /// # Panics
    ///
    /// When no port is free.
    #[must_use]
    pub fn start(name: &'static str, to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there are ports left");
        let address = listener.local_addr().expect("it is bound");
        let tunnels = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&tunnels);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let count = Arc::clone(&count);
                // Who hangs up has what it wanted.
                thread::spawn(move || drop(serve(client, name, to, &count)));
            }
        });
        Self { address, tunnels }
    }

    /// As `HTTPS_PROXY` has it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many tunnels there were.
    #[must_use]
    pub fn tunnels(&self) -> usize {
        self.tunnels.load(Relaxed)
    }
}

fn serve(
    mut client: TcpStream,
    name: &str,
    to: SocketAddr,
    count: &AtomicUsize,
) -> std::io::Result<()> {
    client.set_read_timeout(Some(ASKS))?;
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < MAX_HEAD {
        client.read_exact(&mut byte)?;
        head.extend_from_slice(&byte);
    }
    let wanted = format!("CONNECT {name} HTTP/1.1\r\n");
    if !head.starts_with(wanted.as_bytes()) {
        return client.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    }
    client.set_read_timeout(None)?;
    let server = TcpStream::connect(to)?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    count.fetch_add(1, Relaxed);
    for (mut from, mut into) in [(client.try_clone()?, server.try_clone()?), (server, client)] {
        thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut into);
            let _ = into.shutdown(std::net::Shutdown::Both);
        });
    }
    Ok(())
}
