//! Connections that have not yet said what they want, or who they are.
//!
//! There is room for so many. When there are more, one has to go: the oldest of the address that has
//! the most. So connections that stall, however many, keep nobody out: not those who come after
//! them, and not those who came before from elsewhere.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::limiter::network_of;

/// See the module.
pub(super) struct Strangers {
    room: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    count: usize,
    /// By address and age; whoever is sent a word has to go.
    here: HashMap<IpAddr, BTreeMap<u64, oneshot::Sender<()>>>,
}

/// One of them, until it is dropped.
pub(super) struct Stranger {
    strangers: Arc<Strangers>,
    address: IpAddr,
    number: u64,
}

impl Strangers {
    /// With room for so many.
    pub(super) fn new(room: usize) -> Arc<Self> {
        let state = Mutex::default();
        Arc::new(Self { room, state })
    }

    /// Somebody has come. The receiver gets a word when they have to go; it hears nothing more when
    /// they are a stranger no longer.
    pub(super) fn come(self: &Arc<Self>, address: IpAddr) -> (Stranger, oneshot::Receiver<()>) {
        let (go, told) = oneshot::channel();
        let address = network_of(address);
        let mut state = self.state.lock();
        let number = state.next;
        state.next += 1;
        state.count += 1;
        let of_address = state.here.entry(address).or_default();
        of_address.insert(number, go);
        if state.count > self.room {
            state.put_one_out();
        }
        drop(state);
        let strangers = Arc::clone(self);
        let stranger = Stranger {
            strangers,
            address,
            number,
        };
        (stranger, told)
    }
}

impl State {
    fn put_one_out(&mut self) {
        // Of addresses that have the same number, the one that was first.
        let busiest = self.here.iter().max_by_key(|(_, numbers)| {
            let first = numbers.keys().next().copied();
            (numbers.len(), Reverse(first))
        });
        let oldest = busiest.and_then(|(address, numbers)| {
            let number = numbers.keys().next()?;
            Some((*address, *number))
        });
        if let Some(go) = oldest.and_then(|(address, number)| self.take(address, number)) {
            // It may be going already.
            let _ = go.send(());
        }
    }

    fn take(&mut self, address: IpAddr, number: u64) -> Option<oneshot::Sender<()>> {
        let of_address = self.here.get_mut(&address)?;
        let taken = of_address.remove(&number)?;
        if of_address.is_empty() {
            self.here.remove(&address);
        }
        self.count -= 1;
        Some(taken)
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let taken = self.strangers.state.lock().take(self.address, self.number);
        drop(taken);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn the_oldest_of_the_busiest_address_goes() {
        let strangers = Strangers::new(4);
        let (_lone, mut lone) = strangers.come(address(1));
        let mut crowd: Vec<_> = (0..3).map(|_| strangers.come(address(2))).collect();
        for (_, told) in &mut crowd {
            assert!(told.try_recv().is_err(), "there is room");
        }
        for expected in 0..3 {
            crowd.push(strangers.come(address(2)));
            assert_eq!(crowd[expected].1.try_recv(), Ok(()));
        }
        assert!(lone.try_recv().is_err(), "it has come alone");
        // Many who each come alone: the first goes.
        let (_late, _) = strangers.come(address(3));
        let (_later, _) = strangers.come(address(4));
        let _fifth = strangers.come(address(5));
        assert_eq!(lone.try_recv(), Ok(()));
    }

    #[test]
    fn who_is_known_makes_room_and_is_not_put_out() {
        let strangers = Strangers::new(2);
        let (one, mut told) = strangers.come(address(1));
        drop(one);
        let (_second, _) = strangers.come(address(1));
        let (_third, _) = strangers.come(address(1));
        let (_fourth, _) = strangers.come(address(1));
        assert!(told.try_recv().is_err(), "it is a stranger no longer");
        drop((_second, _third, _fourth));
        let state = strangers.state.lock();
        assert!(state.here.is_empty() && state.count == 0);
    }
}
