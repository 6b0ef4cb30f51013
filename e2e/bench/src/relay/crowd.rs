//! What all nodes together know: who is who, how many see everybody, and when each first saw a
//! newcomer.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
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
    /// What was read of late, by what it begins and ends with.
    heard: RwLock<HashMap<u64, Arc<Heard>>>,
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

/// A frame, and what is in it for whoever gets it.
pub struct Heard {
    text: String,
    pub news: News,
}

/// What a frame says of who is there.
pub struct News {
    /// Who is not named is offline.
    pub resumed: bool,
    pub sights: Vec<Sight>,
    /// Where it leaves the node, once it is whole.
    pub revision: Option<serde_json::Value>,
}

/// Somebody, online or not.
#[derive(Clone, Copy)]
pub enum Sight {
    Known(usize, bool),
    /// By a record that is of nobody who was introduced.
    New,
}

/// Frames that are kept read.
const MAX_HEARD: usize = 512;

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
            heard: RwLock::default(),
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
        drop(numbers);
        self.heard
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// Who has a record, or a key.
    pub fn number(&self, record: Option<&str>, key: Option<&str>) -> Option<usize> {
        let numbers = self.numbers.read();
        let numbers = numbers.unwrap_or_else(PoisonError::into_inner);
        let by_record = record.and_then(|record| numbers.by_record.get(record));
        by_record
            .or_else(|| key.and_then(|key| numbers.by_key.get(key)))
            .copied()
    }

    /// Reads a frame, if nobody has read the same already. Each of these nodes stands for a machine
    /// with a processor of its own; here they share the few that the relay has to get by with.
    pub fn read<E>(
        &self,
        text: &str,
        read: impl FnOnce(&str) -> Result<News, E>,
    ) -> Result<Arc<Heard>, E> {
        let key = sketch(text.as_bytes());
        let known = {
            let kept = self.heard.read().unwrap_or_else(PoisonError::into_inner);
            kept.get(&key).filter(|heard| heard.text == text).cloned()
        };
        if let Some(known) = known {
            return Ok(known);
        }
        let heard = Arc::new(Heard {
            text: text.to_owned(),
            news: read(text)?,
        });
        let mut kept = self.heard.write().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MAX_HEARD {
            kept.clear();
        }
        kept.insert(key, Arc::clone(&heard));
        Ok(heard)
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
    fn clear(&mut self) {
        self.online.fill(0);
        self.count = 0;
    }

    /// Takes in what a frame says; `at` is when it came.
    pub fn take(&mut self, news: &News, at: Instant) {
        if news.resumed {
            self.clear();
        }
        let all = self.crowd.all;
        for sight in &news.sights {
            match *sight {
                Sight::Known(number, online) if number < all => self.mark(number, online),
                // Who has just joined is not introduced yet; its number comes later than its
                // record.
                Sight::New if self.me < all => {
                    let _ = self.crowd.first_sight.send((self.me, at));
                }
                Sight::Known(..) | Sight::New => {}
            }
        }
        self.tell();
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
    fn tell(&mut self) {
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

/// Tells texts apart that are not made to be taken for each other.
fn sketch(text: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.len().hash(&mut hasher);
    text[..text.len().min(512)].hash(&mut hasher);
    for part in text.chunks(1024) {
        part[..part.len().min(32)].hash(&mut hasher);
    }
    hasher.finish()
}
