//! A network with a delay: hosts are network namespaces with a TUN device each, and what they send
//! is carried from one to the other here, in a thread for each direction.
//!
//! This needs no `netem`, which not every kernel has. Packets between the nodes take half a round
//! trip; between a node and the relay half of that, so that the way by the relay is as long as the
//! straight one. Nothing is lost or reordered, unless the straight way is cut.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};

/// The hosts: the nodes, and the relay.
pub const HOSTS: usize = 3;
const RELAY: usize = 2;
/// The last part of a node's address when it has moved is that much larger.
pub const MOVED: u8 = 10;
/// What a queue holds at most; more is lost.
const MOST: usize = 100_000;

/// How the network is at the moment.
#[derive(Default)]
pub struct Shim {
    round_trip_us: AtomicU64,
    cut: AtomicBool,
    queues: [Queue; HOSTS],
}

#[derive(Default)]
struct Queue {
    packets: Mutex<Waiting>,
    came: Condvar,
}

#[derive(Default)]
struct Waiting {
    heap: BinaryHeap<Reverse<(Instant, u64, Vec<u8>)>>,
    number: u64,
}

impl Shim {
    /// Makes a device named `net` in each of the namespaces and carries packets between them, as
    /// long as the process lives.
    pub fn start(namespaces: &[String; HOSTS]) -> Result<Arc<Self>> {
        let shim = Arc::new(Self::default());
        for (host, namespace) in namespaces.iter().enumerate() {
            let device = Arc::new(device(namespace)?);
            let (reading, writing) = (Arc::clone(&shim), Arc::clone(&shim));
            let other = Arc::clone(&device);
            std::thread::spawn(move || reading.read(host, &device));
            std::thread::spawn(move || writing.write(host, &other));
        }
        Ok(shim)
    }

    /// From now on a round trip takes that long.
    pub fn set_round_trip(&self, time: Duration) {
        self.round_trip_us.store(time.as_micros() as u64, Relaxed);
    }

    /// Nothing passes straight between the nodes any more, or again.
    pub fn cut(&self, cut: bool) {
        self.cut.store(cut, Relaxed);
    }

    fn read(&self, from: usize, mut device: &File) {
        let mut buffer = [0; 65_536];
        while let Ok(length) = device.read(&mut buffer) {
            let packet = &buffer[..length];
            let Some(to) = destination(packet) else {
                continue;
            };
            let by_relay = from == RELAY || to == RELAY;
            if !by_relay && self.cut.load(Relaxed) {
                continue;
            }
            let share = if by_relay { 4 } else { 2 };
            let delay = Duration::from_micros(self.round_trip_us.load(Relaxed)) / share;
            self.queues[to].push(Instant::now() + delay, packet.to_vec());
        }
    }

    fn write(&self, to: usize, mut device: &File) {
        loop {
            // A host without its device up gets nothing.
            let _ = device.write(&self.queues[to].pop());
        }
    }
}

impl Queue {
    fn push(&self, due: Instant, packet: Vec<u8>) {
        let mut waiting = self.packets.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.heap.len() < MOST {
            waiting.number += 1;
            let number = waiting.number;
            waiting.heap.push(Reverse((due, number, packet)));
            self.came.notify_one();
        }
    }

    /// Waits until the next packet is due.
    fn pop(&self) -> Vec<u8> {
        let mut waiting = self.packets.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let now = Instant::now();
            let due = waiting.heap.peek().map(|Reverse((due, ..))| *due);
            waiting = match due {
                None => self
                    .came
                    .wait(waiting)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(due) if due > now => {
                    let woken = self.came.wait_timeout(waiting, due - now);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                Some(_) => {
                    if let Some(Reverse((.., packet))) = waiting.heap.pop() {
                        return packet;
                    }
                    waiting
                }
            };
        }
    }
}

/// Which host a packet is for: 10.78.0.1 and fd78::1 are the first one.
fn destination(packet: &[u8]) -> Option<usize> {
    let last = match packet.first()? >> 4 {
        4 => match packet.get(16..20)? {
            &[10, 78, 0, last] => last,
            _ => return None,
        },
        6 => match packet.get(24..40)? {
            &[0xfd, 0x78, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last] => last,
            _ => return None,
        },
        _ => return None,
    };
    let host = match last {
        1..=MOVED => last,
        _ => last - MOVED.min(last),
    };
    let host = usize::from(host).checked_sub(1)?;
    (host < HOSTS).then_some(host)
}

/// A TUN device named `net` in a network namespace; packets come without a header of their own.
fn device(namespace: &str) -> Result<File> {
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
    let namespace = Path::new("/run/netns").join(namespace);
    let entered = File::open(&namespace).with_context(|| format!("{}", namespace.display()))?;
    // A thread of its own, which stays there and ends.
    let made = std::thread::spawn(move || {
        move_into_link_name_space(entered.as_fd(), Some(LinkNameSpaceType::Network))?;
        attach()
    });
    made.join().map_err(|_| anyhow!("no device"))?
}

/// `struct ifreq`, as far as it matters here.
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

fn attach() -> Result<File> {
    /// `TUNSETIFF`.
    const SET: rustix::ioctl::Opcode = 0x4004_54ca;
    /// `IFF_TUN | IFF_NO_PI`.
    const FLAGS: u16 = 0x1001;
    let device = File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .context("/dev/net/tun")?;
    let mut name = [0; 16];
    name[..3].copy_from_slice(b"net");
    let request = Request {
        name,
        flags: FLAGS,
        rest: [0; 22],
    };
    // SAFETY: the system reads, and writes back, an ifreq, whose size and shape this has.
    unsafe { rustix::ioctl::ioctl(&device, rustix::ioctl::Setter::<SET, Request>::new(request))? };
    Ok(device)
}
