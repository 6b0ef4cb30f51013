//! The line between a node and its relay: bytes pass, or are held back one way or both as by a
//! network that loses every packet, or the connections break and no new ones are made.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// How often who has nothing to read looks whether it is still needed.
const LOOK: Duration = Duration::from_millis(200);

/// A line. Dropping it breaks it.
pub(super) struct Shim {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// From the node to the relay, and back.
    held: [bool; 2],
    cut: bool,
    over: bool,
    open: Vec<TcpStream>,
}

impl Shim {
    /// A line to `relay`.
    ///
    /// # Panics
    ///
    /// When there is no port left.
    pub(super) fn new(relay: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
        let address = listener.local_addr().expect("it has an address");
        let shared = Arc::new(Shared::default());
        let (lines, relay) = (Arc::clone(&shared), relay.to_owned());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if lines.lock().over {
                    return;
                }
                connect(&lines, stream, &relay);
            }
        });
        Self { address, shared }
    }

    /// What a node takes for its relay.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lets nothing pass from the node, or to it.
    pub(super) fn hold(&self, up: bool, down: bool) {
        self.shared.change(|state| state.held = [up, down]);
    }

    /// Breaks the connections, and makes no new ones.
    pub(super) fn cut(&self) {
        self.shared.change(|state| {
            state.cut = true;
            close(state);
        });
    }

    /// All is well again. What was held back goes on its way.
    pub(super) fn heal(&self) {
        self.shared.change(|state| {
            state.held = [false; 2];
            state.cut = false;
        });
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        self.shared.change(|state| {
            state.over = true;
            close(state);
        });
        // Whoever listens wakes up.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, with: impl FnOnce(&mut State)) {
        with(&mut self.lock());
        self.changed.notify_all();
    }

    /// Waits until bytes may pass this way.
    fn passes(&self, way: usize) {
        let mut state = self.lock();
        while state.held[way] && !state.over {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn close(state: &mut State) {
    for stream in state.open.drain(..) {
        // It may be closed already.
        let _ = stream.shutdown(Shutdown::Both);
    }
}

fn connect(shared: &Arc<Shared>, near: TcpStream, relay: &str) {
    if shared.lock().cut {
        return;
    }
    let Ok(far) = TcpStream::connect(relay) else {
        return;
    };
    for stream in [&near, &far] {
        let _ = stream.set_nodelay(true);
        let _ = stream.set_read_timeout(Some(LOOK));
    }
    for (way, from, to) in [(0, &near, &far), (1, &far, &near)] {
        let (Ok(from), Ok(to), Ok(kept)) = (from.try_clone(), to.try_clone(), from.try_clone())
        else {
            return;
        };
        let mut state = shared.lock();
        // Those that are closed need not be kept.
        state.open.retain(|stream| stream.peer_addr().is_ok());
        state.open.push(kept);
        drop(state);
        let shared = Arc::clone(shared);
        thread::spawn(move || carry(&shared, way, from, to));
    }
}

fn carry(shared: &Shared, way: usize, mut from: TcpStream, mut to: TcpStream) {
    use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    let mut buffer = [0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer);
        shared.passes(way);
        match read {
            Ok(count @ 1..) if to.write_all(&buffer[..count]).is_ok() => {}
            Err(error) if matches!(error.kind(), TimedOut | WouldBlock | Interrupted) => {
                if shared.lock().over {
                    return;
                }
            }
            _ => break,
        }
    }
    // The other direction ends by it too.
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
