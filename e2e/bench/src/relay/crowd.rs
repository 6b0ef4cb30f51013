//! What all nodes together know: who is who, how many see everybody, and when each first saw a
//! newcomer.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use tokio::sync::{mpsc, watch};

/// See the module.
pub struct Crowd {
    pub relay: SocketAddr,
    /// Nodes of one network, without newcomers.
    pub size: usize,
    /// Nodes of all networks, without newcomers.
    pub all: usize,
    numbers: RwLock<Numbers>,
    state: Mutex<State>,
    complete: watch::Sender<usize>,
    first_sight: mpsc::UnboundedSender<(usize, Instant)>,
}

#[derive(Default)]
struct Numbers {
    by_record: HashMap<String, usize>,
    by_key: HashMap<String, usize>,
}

#[derive(Default)]
struct State {
    epoch: u64,
    complete: usize,
}

/// What one node sees on one connection.
pub struct Seen<'a> {
    crowd: &'a Crowd,
    me: usize,
    epoch: u64,
    /// By place in the network.
    online: Vec<u64>,
    count: usize,
    is_complete: bool,
    pub is_welcome: bool,
}

impl Crowd {
    pub fn new(
        relay: SocketAddr,
        size: usize,
        all: usize,
    ) -> (Self, mpsc::UnboundedReceiver<(usize, Instant)>) {
        let (first_sight, sights) = mpsc::unbounded_channel();
        let crowd = Self {
            relay,
            size,
            all,
            numbers: RwLock::default(),
            state: Mutex::default(),
            complete: watch::channel(0).0,
            first_sight,
        };
        (crowd, sights)
    }

    /// Says who a record and a key are.
    pub fn introduce(&self, number: usize, record: &str, key: &str) {
        let mut numbers = self.numbers.write().unwrap_or_else(PoisonError::into_inner);
        numbers.by_record.insert(record.to_owned(), number);
        numbers.by_key.insert(key.to_owned(), number);
    }

    /// From now on only what is seen on new connections counts.
    pub fn forget(&self) {
        let mut state = self.state();
        state.epoch += 1;
        state.complete = 0;
        self.complete.send_replace(0);
    }

    /// Waits until every node sees every other of its network online.
    pub async fn whole(&self) {
        let mut complete = self.complete.subscribe();
        // The sender lives as long as we do.
        let _ = complete.wait_for(|complete| *complete == self.all).await;
    }

    /// How many see everybody.
    pub fn complete(&self) -> usize {
        *self.complete.borrow()
    }

    /// For one connection of the node `me`.
    pub fn look(&self, me: usize) -> Seen<'_> {
        Seen {
            crowd: self,
            me,
            epoch: self.state().epoch,
            online: vec![0; self.size.div_ceil(64)],
            count: 0,
            is_complete: false,
            is_welcome: false,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen<'_> {
    pub fn clear(&mut self) {
        self.online.fill(0);
        self.count = 0;
    }

    /// A record with its presence.
    pub fn record(&mut self, record: &str, online: bool, at: Instant) {
        let numbers = self.crowd.numbers.read();
        let numbers = numbers.unwrap_or_else(PoisonError::into_inner);
        // Who has just joined is not introduced yet; its number comes later than its record.
        let number = numbers.by_record.get(record).copied();
        drop(numbers);
        match number {
            Some(number) if number < self.crowd.all => self.mark(number, online),
            Some(_) => {}
            None if self.me < self.crowd.all => {
                let _ = self.crowd.first_sight.send((self.me, at));
            }
            None => {}
        }
    }

    /// Keys with their presence.
    pub fn keys(&mut self, keys: &[&str], online: bool) {
        for key in keys {
            let numbers = self.crowd.numbers.read();
            let numbers = numbers.unwrap_or_else(PoisonError::into_inner);
            let number = numbers.by_key.get(*key).copied();
            drop(numbers);
            if let Some(number) = number.filter(|number| *number < self.crowd.all) {
                self.mark(number, online);
            }
        }
    }

    fn mark(&mut self, number: usize, online: bool) {
        let place = number % self.crowd.size;
        let Some(word) = self.online.get_mut(place / 64) else {
            return;
        };
        let bit = 1 << (place % 64);
        match (*word & bit != 0, online) {
            (false, true) => self.count += 1,
            (true, false) => self.count -= 1,
            _ => {}
        }
        *word = if online { *word | bit } else { *word & !bit };
    }

    /// Says whether everybody is seen now.
    pub fn tell(&mut self) {
        let is_complete = self.count == self.crowd.size && self.me < self.crowd.all;
        if is_complete != self.is_complete {
            self.is_complete = is_complete;
            self.count_in(is_complete);
        }
    }

    fn count_in(&self, complete: bool) {
        let mut state = self.crowd.state();
        if state.epoch != self.epoch {
            return;
        }
        state.complete = if complete {
            state.complete + 1
        } else {
            state.complete - 1
        };
        self.crowd.complete.send_replace(state.complete);
    }
}

impl Drop for Seen<'_> {
    fn drop(&mut self) {
        if self.is_complete {
            self.count_in(false);
        }
    }
}
