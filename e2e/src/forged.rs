//! Packets that nobody honest sends, and many of them: WireGuard messages with keys and indices that
//! are none, probes, answers of STUN that nobody asked for, QUIC, and frames of DERP from clients
//! that hold no key. Whoever gets them has to find out that they are nothing.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How often what is due is sent.
const TICK: Duration = Duration::from_millis(1);
/// Of so many packets one is a frame of DERP.
const FRAMES: u64 = 10;
/// Frames that are sent over one connection; a relay ends it at the first, or soon after.
const FRAMES_AT_ONCE: u64 = 50;

/// Makes them, the same ones each time.
#[derive(Debug)]
pub struct Forger {
    state: u64,
}

impl Forger {
    /// Begins at some number.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed | 1 }
    }

    fn next(&mut self) -> u64 {
        // Xorshift.
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let random = self.next().to_le_bytes();
            chunk.copy_from_slice(&random[..chunk.len()]);
        }
    }

    /// The next datagram, in the place of the one before.
    pub fn datagram(&mut self, out: &mut Vec<u8>) {
        let kind = self.next();
        let any = (self.next() % 1400) as usize;
        let (head, len): (&[u8], usize) = match kind % 12 {
            // The first message of a handshake, the answer, a cookie: each of the right length.
            0 => (&[1, 0, 0, 0], 148),
            1 => (&[2, 0, 0, 0], 92),
            2 => (&[3, 0, 0, 0], 64),
            // Data, for a tunnel that may even be there: small ones, as probes are, and full ones.
            3 | 4 => (&[4, 0, 0, 0], 32 + any % 96),
            5 | 6 => (&[4, 0, 0, 0], 1312),
            // Almost one of these.
            7 => (&[4, 0, 0, 0], any % 32),
            // Disco, STUN's question and its answer.
            8 => (b"TS\xf0\x9f\x92\xac", 6 + any % 200),
            9 if any.is_multiple_of(2) => (&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42], 20),
            9 => (&[1, 1, 0, 12, 0x21, 0x12, 0xa4, 0x42], 32),
            // QUIC: the first packet of a connection, version 1, and one of a connection.
            10 if any.is_multiple_of(2) => (&[0xc3, 0, 0, 0, 1, 8], 1200),
            10 => (&[0x43], 40 + any % 1200),
            _ => (&[], any),
        };
        out.clear();
        out.resize(len.max(head.len()), 0);
        self.fill(out);
        out[..head.len()].copy_from_slice(head);
        if kind % 12 == 9 && len == 32 {
            // One attribute: XOR-MAPPED-ADDRESS, IPv4.
            out[20..26].copy_from_slice(&[0, 0x20, 0, 8, 0, 1]);
        }
    }

    /// A frame of DERP.
    pub fn frame(&mut self, out: &mut Vec<u8>) {
        let kind = (self.next() % 0x18) as u8;
        let len = (self.next() % 200) as usize;
        let at = out.len();
        out.push(kind);
        out.extend_from_slice(&(len as u32).to_be_bytes());
        out.resize(at + 5 + len, 0);
        self.fill(&mut out[at + 5..]);
    }
}

/// A flood, from threads of its own; it ends when this is dropped.
#[derive(Debug)]
pub struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Flood {
    /// Sends so many packets a second, at least one, to these UDP addresses and, one in ten, over
    /// TCP to this relay.
    #[must_use]
    pub fn start(udp: &[SocketAddr], relay: SocketAddr, per_second: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let frames = per_second / FRAMES;
        let run = |work: Box<dyn FnOnce(&Paced) + Send>, per_second: u64| {
            let paced = Paced {
                stop: Arc::clone(&stop),
                sent: Arc::clone(&sent),
                per_second: per_second.max(1),
            };
            thread::spawn(move || work(&paced))
        };
        let udp = udp.to_vec();
        let threads = vec![
            run(
                Box::new(move |paced| datagrams(paced, &udp)),
                per_second - frames,
            ),
            run(Box::new(move |paced| connections(paced, relay)), frames),
        ];
        Self {
            stop,
            sent,
            threads,
        }
    }

    /// How many were sent.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            // It has nothing more to say.
            let _ = thread.join();
        }
    }
}

struct Paced {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    per_second: u64,
}

impl Paced {
    /// Calls `send`, which says how many it has sent, as often as that is due.
    fn run(&self, mut send: impl FnMut() -> u64) {
        let (start, mut sent) = (Instant::now(), 0);
        while !self.stop.load(Relaxed) {
            let due = start.elapsed().as_secs_f64() * self.per_second as f64;
            if (sent as f64) < due {
                let more = send();
                sent += more;
                self.sent.fetch_add(more, Relaxed);
            } else {
                thread::park_timeout(TICK);
            }
        }
    }
}

fn datagrams(paced: &Paced, to: &[SocketAddr]) {
    let bound = |any: &str| UdpSocket::bind(any).ok();
    let (v4, v6) = (bound("0.0.0.0:0"), bound("[::]:0"));
    let (mut forger, mut datagram) = (Forger::new(7), Vec::new());
    let mut to = to.iter().cycle();
    paced.run(|| {
        forger.datagram(&mut datagram);
        let Some(to) = to.next() else {
            return 1;
        };
        let socket = if to.is_ipv4() { &v4 } else { &v6 };
        if let Some(socket) = socket {
            // A full buffer is a loss, as on any way.
            let _ = socket.send_to(&datagram, to);
        }
        1
    });
}

fn connections(paced: &Paced, relay: SocketAddr) {
    let mut forger = Forger::new(11);
    paced.run(|| {
        let mut bytes =
            b"GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n"
                .to_vec();
        for _ in 0..FRAMES_AT_ONCE {
            forger.frame(&mut bytes);
        }
        let limit = Duration::from_millis(500);
        if let Ok(mut tcp) = TcpStream::connect_timeout(&relay, limit) {
            let _ = tcp.set_read_timeout(Some(limit));
            let _ = tcp.set_write_timeout(Some(limit));
            // It may hang up in the middle; that is its right. What it says is not read to the end,
            // so that no port waits for the other side.
            let _ = tcp.write_all(&bytes);
            let _ = tcp.read(&mut [0; 512]);
        }
        FRAMES_AT_ONCE
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forger_makes_every_kind() {
        let (mut forger, mut out) = (Forger::new(1), Vec::new());
        let mut missing = std::collections::BTreeSet::from([
            (Some(1), 148),
            (Some(2), 92),
            (Some(3), 64),
            (Some(4), 1312),
            (Some(0), 20),
            (Some(1), 32),
            (Some(0xc3), 1200),
            // One in 17 000.
            (None, 0),
        ]);
        for _ in 0..200_000 {
            forger.datagram(&mut out);
            missing.remove(&(out.first().copied(), out.len()));
            if missing.is_empty() {
                return;
            }
        }
        panic!("not made: {missing:?}");
    }
}
