//! Listens to every packet that a namespace sends or receives (`AF_PACKET`), as somebody on the
//! wire would. Needs root.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, RecvFlags, SocketType, eth, recv, socket};

use crate::namespaces::inside;

/// How long it waits for a packet before it looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(50);

/// The packets of a namespace, while they come.
pub struct Capture {
    heard: Arc<Mutex<Vec<u8>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Capture {
    /// Starts to listen; what is sent after this returns is heard.
    ///
    /// # Panics
    ///
    /// Without the right to.
    #[track_caller]
    #[must_use]
    pub fn start(namespace: &str) -> Self {
        let all = socket_of(namespace);
        let heard: Arc<Mutex<Vec<u8>>> = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let (sink, end) = (Arc::clone(&heard), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut packet = vec![0; 128 * 1024];
            while let Some(length) = next(&all, &mut packet, &end) {
                let mut sink = sink.lock().unwrap_or_else(PoisonError::into_inner);
                sink.extend_from_slice(&packet[..length]);
                // What ends one packet and starts the next must not look like one text.
                sink.extend_from_slice(&[0; 8]);
            }
        });
        Self {
            heard,
            stop,
            thread: Some(thread),
        }
    }

    /// How many bytes it has heard.
    #[must_use]
    pub fn len(&self) -> usize {
        self.heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// Whether it has heard nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether some packet has these bytes in it.
    #[must_use]
    pub fn has(&self, mark: &[u8]) -> bool {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.windows(mark.len()).any(|window| window == mark)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has nothing to say.
            let _ = thread.join();
        }
    }
}

/// A socket that hears every interface of the namespace it was made in.
#[track_caller]
fn socket_of(namespace: &str) -> rustix::fd::OwnedFd {
    let all = inside(namespace, || {
        socket(AddressFamily::PACKET, SocketType::RAW, Some(eth::ALL))
    });
    let all = all.unwrap_or_else(|error| panic!("no packet socket: {error}"));
    // A busy moment must not make it deaf.
    let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&all, 8 << 20);
    all
}

/// The length of the next packet; none when it is to stop and everything has been read.
fn next(all: &impl AsFd, packet: &mut [u8], end: &AtomicBool) -> Option<usize> {
    let wait = Timespec {
        tv_sec: 0,
        tv_nsec: i64::from(LOOK.subsec_nanos()),
    };
    loop {
        let mut ready = [PollFd::new(all, PollFlags::IN)];
        match poll(&mut ready, Some(&wait)) {
            Ok(0) if end.load(Ordering::Relaxed) => return None,
            Ok(0) => {}
            Ok(_) => {
                if let Ok((_, length)) = recv(all, &mut *packet, RecvFlags::empty()) {
                    return Some(length.min(packet.len()));
                }
            }
            Err(_) if end.load(Ordering::Relaxed) => return None,
            Err(_) => {}
        }
    }
}
