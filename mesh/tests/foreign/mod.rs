//! Our WireGuard and somebody else's: Debian's `wireguard-go`, with a TUN interface in a network
//! namespace of its own. Needs root, iproute2, `wireguard-go` and `wg`.
//!
//! Both ends are in the namespace: they speak by UDP over its loopback interface, so nothing of it
//! is seen outside. On their side the kernel has an interface with the address fd09::1, on ours
//! there is a [`Tunnel`] and just enough of ICMPv6 to ask and to answer.

#![cfg(target_os = "linux")]

use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use boringtun::noise::rate_limiter::RateLimiter;
use derp::NodeSecret;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::wg::{Opened, Sealed, Tunnel};

const THEIRS: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 1);
const OURS: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 2);
const THEIR_PORT: u16 = 51_820;
/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// A question is repeated after that long.
const AGAIN: Duration = Duration::from_secs(1);

/// A namespace with a `wireguard-go`, and our end in it.
struct Pair {
    namespace: String,
    interface: String,
    them: Option<Child>,
    secrets: [NodeSecret; 2],
    socket: UdpSocket,
    tunnel: Tunnel,
    /// How far our clock is ahead.
    ahead: Duration,
    /// Questions of theirs that we have answered.
    answered: u32,
    sequence: u16,
}

/// None, and why is said, where it cannot be had.
fn or_skip() -> Option<()> {
    let has = |program: &str| Command::new(program).arg("--version").output().is_ok();
    let why = if !rustix::process::geteuid().is_root() {
        "namespaces need root"
    } else if !Path::new("/dev/net/tun").exists() {
        "there is no TUN"
    } else if let Some(missing) = ["ip", "wg", "wireguard-go", "ping"]
        .iter()
        .find(|p| !has(p))
    {
        missing
    } else {
        return Some(());
    };
    let test = std::thread::current();
    let test = test.name().unwrap_or("a test");
    let _ = writeln!(std::io::stderr(), "\nskipped: {test}: {why}");
    None
}

fn run(line: &str) -> String {
    let mut words = line.split(' ');
    let done = Command::new(words.next().unwrap())
        .args(words)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{line}: {said}");
    String::from_utf8_lossy(&done.stdout).into_owned()
}

impl Pair {
    /// Must be called on a thread of its own: it moves into the namespace.
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let (pid, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        // What a test that was killed leaves behind is removed by the next that knows such names.
        let namespace = format!("cw-{pid}-wg{count}");
        // The name of its control socket, too, which is one directory for all namespaces.
        let interface = format!("cw{pid}x{count}");
        run(&format!("ip netns add {namespace}"));
        run(&format!("ip -n {namespace} link set lo up"));
        let file = std::fs::File::open(Path::new("/run/netns").join(&namespace)).unwrap();
        use std::os::fd::AsFd as _;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let secrets = [1, 2].map(|n| NodeSecret::from_bytes([n; 32]));
        let mut pair = Self {
            tunnel: tunnel(&secrets),
            namespace,
            interface,
            them: None,
            secrets,
            socket,
            ahead: Duration::ZERO,
            answered: 0,
            sequence: 0,
        };
        pair.start_them();
        pair
    }

    fn start_them(&mut self) {
        let interface = self.interface.clone();
        let them = Command::new("wireguard-go")
            .args(["-f", &interface])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .env("LOG_LEVEL", "error")
            .spawn();
        self.them = Some(them.unwrap());
        let until = Instant::now() + PATIENCE;
        let answers = || std::os::unix::net::UnixStream::connect(self.control()).is_ok();
        while !answers() {
            assert!(Instant::now() < until, "wireguard-go does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        let ours = STANDARD.encode(self.secrets[0].public().as_bytes());
        let port = self.socket.local_addr().unwrap().port();
        let line = format!(
            "set {interface} listen-port {THEIR_PORT} private-key /dev/stdin \
             peer {ours} allowed-ips {OURS}/128 endpoint 127.0.0.1:{port}"
        );
        let mut wg = Command::new("wg")
            .args(line.split(' '))
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let secret = STANDARD.encode(self.secrets[1].to_bytes());
        wg.stdin
            .take()
            .unwrap()
            .write_all(secret.as_bytes())
            .unwrap();
        assert!(wg.wait().unwrap().success());
        run(&format!("ip addr add {THEIRS}/64 dev {interface} nodad"));
        run(&format!("ip link set {interface} up"));
    }

    fn stop_them(&mut self) {
        if let Some(mut them) = self.them.take() {
            let _ = them.kill();
            let _ = them.wait();
            let _ = std::fs::remove_file(self.control());
        }
    }

    fn control(&self) -> String {
        format!("/var/run/wireguard/{}.sock", self.interface)
    }

    fn now(&self) -> Instant {
        Instant::now() + self.ahead
    }

    fn send(&self, datagrams: Vec<Vec<u8>>) {
        for bytes in datagrams {
            self.socket
                .send_to(&bytes, (Ipv4Addr::LOCALHOST, THEIR_PORT))
                .unwrap();
        }
    }

    fn seal(&mut self, packet: &[u8]) {
        let now = self.now();
        let (mut out, mut emitted) = (vec![0; 2048], vec![]);
        if let Sealed::Data(len) = self.tunnel.seal(packet, &mut out, now, &mut emitted) {
            emitted.push(out[..len].to_vec());
        }
        self.send(emitted);
    }

    /// Takes what comes in, for a moment; the sequence number of an answer to us.
    fn serve(&mut self) -> Option<u16> {
        let mut emitted = vec![];
        let now = self.now();
        self.tunnel.tick(now, &mut emitted);
        self.send(emitted);
        let mut datagram = [0; 2048];
        let Ok((len, from)) = self.socket.recv_from(&mut datagram) else {
            return None;
        };
        assert_eq!(from, SocketAddr::from((Ipv4Addr::LOCALHOST, THEIR_PORT)));
        let (mut buf, mut reply) = (vec![0; 65_536], vec![]);
        let (source, now) = (from.ip(), self.now());
        let opened = self
            .tunnel
            .open(source, &datagram[..len], &mut buf, now, &mut reply);
        self.send(reply);
        let _ = self.tunnel.take_established();
        let Opened::Packet(len) = opened else {
            return None;
        };
        let packet = &mut buf[..len];
        // ICMPv6, and nothing else is expected.
        if packet.len() < 48 || packet[0] >> 4 != 6 || packet[6] != 58 {
            return None;
        }
        match packet[40] {
            // A question: the same back, as an answer.
            128 => {
                let (from, to) = packet[8..40].split_at_mut(16);
                from.swap_with_slice(to);
                packet[40] = 129;
                fill_checksum(packet);
                let answer = packet.to_vec();
                self.seal(&answer);
                self.answered += 1;
                None
            }
            129 => Some(u16::from_be_bytes([packet[46], packet[47]])),
            _ => None,
        }
    }

    /// We ask, and ask again, until they answer.
    fn ping(&mut self) {
        let until = Instant::now() + PATIENCE;
        let mut next = Instant::now();
        self.sequence += 1;
        let sequence = self.sequence;
        loop {
            assert!(Instant::now() < until, "no answer to {sequence}");
            if next <= Instant::now() {
                next += AGAIN;
                self.seal(&question(sequence, 1000));
            }
            if self.serve() == Some(sequence) {
                return;
            }
        }
    }

    /// They ask `count` times, and all of it is answered.
    fn is_pinged(&mut self, count: u32) {
        let line = format!("-c {count} -i 0.2 -W 20 -s 1000 {OURS}");
        let asking = Command::new("ping")
            .args(line.split(' '))
            .stdout(Stdio::piped())
            .spawn();
        let mut asking = asking.unwrap();
        let until = Instant::now() + PATIENCE;
        let status = loop {
            let _ = self.serve();
            if let Some(status) = asking.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < until, "ping does not end");
        };
        let said = std::io::read_to_string(asking.stdout.take().unwrap()).unwrap();
        assert!(status.success(), "{said}");
        assert!(said.contains(" 0% packet loss"), "{said}");
    }

    /// When they last finished a handshake, by their word.
    fn last_handshake(&self) -> u64 {
        let shown = run(&format!("wg show {} latest-handshakes", self.interface));
        shown
            .split_whitespace()
            .nth(1)
            .and_then(|at| at.parse().ok())
            .unwrap_or(0)
    }

    /// We make new keys.
    fn rotate(&mut self) {
        // So that it is not too early, by our own clock.
        self.ahead += Duration::from_secs(2);
        let (now, mut emitted) = (self.now(), vec![]);
        self.tunnel.initiate(true, now, &mut emitted);
        assert_eq!(
            emitted.first().map(|bytes| bytes[0]),
            Some(1),
            "an initiation"
        );
        self.send(emitted);
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.stop_them();
        let _ = Command::new("ip")
            .args(["netns", "del", &self.namespace])
            .output();
    }
}

fn tunnel(secrets: &[NodeSecret; 2]) -> Tunnel {
    let (ours, theirs) = (&secrets[0], secrets[1].public());
    let key = x25519_dalek::PublicKey::from(*ours.public().as_bytes());
    let limiter = Arc::new(RateLimiter::new(&key, 100));
    Tunnel::new(ours, &theirs, 7, &limiter, Instant::now())
}

/// An echo request from us to them, with this many bytes of data.
fn question(sequence: u16, len: u16) -> Vec<u8> {
    let mut packet = vec![0; 48 + usize::from(len)];
    packet[0] = 0x60;
    packet[4..6].copy_from_slice(&(8 + len).to_be_bytes());
    packet[6..8].copy_from_slice(&[58, 64]);
    packet[8..24].copy_from_slice(&OURS.octets());
    packet[24..40].copy_from_slice(&THEIRS.octets());
    packet[40] = 128;
    packet[46..48].copy_from_slice(&sequence.to_be_bytes());
    fill_checksum(&mut packet);
    packet
}

/// The checksum of ICMPv6: over both addresses, the length, the protocol and the message.
fn fill_checksum(packet: &mut [u8]) {
    packet[42..44].fill(0);
    let words = packet[8..].chunks(2);
    let words = words.map(|two| u32::from(two[0]) << 8 | u32::from(*two.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum::<u32>() + (packet.len() as u32 - 40) + 58;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    packet[42..44].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

/// Runs a test on a thread that may move into a namespace.
fn apart<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| match scope.spawn(test).join() {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

#[test]
fn wireguard_go_and_we_understand_each_other() {
    if or_skip().is_none() {
        return;
    }
    apart(|| {
        let mut pair = Pair::new();
        // We begin, then they ask by the same session.
        pair.ping();
        assert!(pair.last_handshake() > 0);
        pair.is_pinged(5);
        // New keys of ours, again and again, with questions before and after.
        for _ in 0..5 {
            pair.rotate();
            pair.ping();
            pair.is_pinged(2);
        }
        // They are started again, know of no session, and begin one: the tunnel that we have
        // takes it up.
        pair.stop_them();
        pair.start_them();
        let before = pair.answered;
        pair.is_pinged(5);
        assert!(pair.answered >= before + 5);
        pair.ping();
        // And we are: a new tunnel to one that has a session with the old one.
        pair.tunnel = tunnel(&pair.secrets);
        pair.ping();
        pair.is_pinged(2);
    });
}

/// Keys are made anew after two minutes: by us where we have begun, by them where they have.
#[test]
#[ignore = "five minutes"]
fn keys_rotate_by_the_clock_and_no_packet_is_lost() {
    if or_skip().is_none() {
        return;
    }
    std::thread::scope(|scope| {
        for ours in [true, false] {
            scope.spawn(move || {
                let mut pair = Pair::new();
                if ours {
                    pair.ping();
                } else {
                    pair.is_pinged(1);
                }
                let (start, mut handshakes) = (Instant::now(), vec![pair.last_handshake()]);
                let mut rounds = 0;
                while start.elapsed() < Duration::from_secs(270) {
                    pair.ping();
                    pair.is_pinged(5);
                    rounds += 1;
                    let last = pair.last_handshake();
                    if handshakes.last() != Some(&last) {
                        handshakes.push(last);
                    }
                }
                let who = if ours { "we" } else { "they" };
                println!("{who} began: {rounds} rounds, handshakes at {handshakes:?}");
                assert!(handshakes.len() >= 3, "{who}: {handshakes:?}");
            });
        }
    });
}
