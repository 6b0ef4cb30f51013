//! Connections that have not yet said what they want, or who they are.
//!
//! There is room for so many. When there are more, one has to go, of the address that has the most:
//! the oldest of those that have come equally far, and of these groups it is the largest that gives
//! one up. So connections that stall, however many, keep nobody out: not those who come after them,
//! not those who came before from elsewhere, and not those who came from the same address and have
//! got further than where the others stall.
//!
//! Somebody who comes, and who goes, costs the same however many there are.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::limiter::network_of;

/// How far somebody has come on the way to a login. Where doors do not say so, all have come equally
/// far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// Connected.
    Here,
    /// Has said what the handshake begins with, whole.
    Hello,
    /// Has exchanged keys.
    Keys,
}

const STEPS: usize = 3;

/// See the module.
pub(super) struct Strangers {
    room: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    count: usize,
    here: HashMap<IpAddr, Crowd>,
    /// The addresses by how many are of each; of those with equally many the one that was first is
    /// the last.
    order: BTreeSet<(usize, Reverse<u64>, IpAddr)>,
}

/// Those of one address, by how far they have come, and by age. Whoever is sent a word has to go.
#[derive(Default)]
struct Crowd([BTreeMap<u64, oneshot::Sender<()>>; STEPS]);

/// One of them, until it is dropped.
pub(super) struct Stranger {
    strangers: Arc<Strangers>,
    address: IpAddr,
    number: u64,
    step: Step,
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
        state.change(address, |crowd| crowd.0[0].insert(number, go));
        let goes = (state.count > self.room).then(|| state.pick()).flatten();
        drop(state);
        if let Some(go) = goes {
            // It may be going already.
            let _ = go.send(());
        }
        let strangers = Arc::clone(self);
        let stranger = Stranger {
            strangers,
            address,
            number,
            step: Step::Here,
        };
        (stranger, told)
    }
}

impl State {
    /// Changes those of one address, and keeps the rest in step.
    fn change<T>(&mut self, address: IpAddr, change: impl FnOnce(&mut Crowd) -> T) -> T {
        let crowd = self.here.entry(address).or_default();
        let before = crowd.place(address);
        let changed = change(crowd);
        let after = crowd.place(address);
        if before != after {
            self.order.remove(&before);
            self.order.insert(after);
            self.count = self.count + after.0 - before.0;
        }
        if after.0 == 0 {
            self.order.remove(&after);
            self.here.remove(&address);
        }
        changed
    }

    /// Takes out who has to go.
    fn pick(&mut self) -> Option<oneshot::Sender<()>> {
        let (_, _, address) = *self.order.last()?;
        self.change(address, |crowd| {
            let largest = crowd.0.iter_mut().rev().max_by_key(|group| group.len());
            largest?.pop_first().map(|(_, go)| go)
        })
    }
}

impl Crowd {
    fn place(&self, address: IpAddr) -> (usize, Reverse<u64>, IpAddr) {
        let count = self.0.iter().map(BTreeMap::len).sum();
        let firsts = self.0.iter().filter_map(|group| group.keys().next());
        let first = firsts.min().copied().unwrap_or_default();
        (count, Reverse(first), address)
    }
}

impl Stranger {
    /// They have come so far, or were there already.
    pub(super) fn reaches(&mut self, step: Step) {
        if step <= self.step {
            return;
        }
        let (number, before) = (self.number, std::mem::replace(&mut self.step, step));
        self.strangers.state.lock().change(self.address, |crowd| {
            // Who has to go stays gone.
            if let Some(go) = crowd.0[before as usize].remove(&number) {
                crowd.0[step as usize].insert(number, go);
            }
        });
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let (number, step) = (self.number, self.step);
        let mut state = self.strangers.state.lock();
        let taken = state.change(self.address, |crowd| crowd.0[step as usize].remove(&number));
        drop(state);
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
        assert!(state.here.is_empty() && state.order.is_empty() && state.count == 0);
    }

    #[test]
    fn who_has_come_further_is_not_put_out_for_those_who_stall_before() {
        let strangers = Strangers::new(4);
        let (mut further, mut told) = strangers.come(address(1));
        further.reaches(Step::Hello);
        let mut crowd: Vec<_> = (0..10).map(|_| strangers.come(address(1))).collect();
        assert!(
            told.try_recv().is_err(),
            "the others are where they came in"
        );
        let gone = crowd
            .iter_mut()
            .filter_map(|(_, told)| told.try_recv().ok());
        assert_eq!(gone.count(), 7);
        // Those who all come so far are equals again, and who comes in then is not among them.
        for (stranger, _) in &mut crowd {
            stranger.reaches(Step::Hello);
        }
        let (_new, mut new) = strangers.come(address(1));
        assert_eq!(told.try_recv(), Ok(()));
        assert!(new.try_recv().is_err());
        drop((further, crowd, _new));
        let state = strangers.state.lock();
        assert!(state.here.is_empty() && state.order.is_empty() && state.count == 0);
    }

    #[test]
    fn the_order_is_kept_whatever_comes_and_goes() {
        let strangers = Strangers::new(20);
        let mut here = Vec::new();
        let mut seed = 7_u32;
        for _ in 0..2_000 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let chance = (seed >> 16) as usize;
            match chance % 4 {
                0 | 1 => here.push(strangers.come(address((chance / 4 % 5) as u8))),
                2 if !here.is_empty() => drop(here.swap_remove(chance / 4 % here.len())),
                _ => {
                    let step = [Step::Hello, Step::Keys][chance / 4 % 2];
                    for (stranger, _) in here.iter_mut().step_by(1 + chance % 3) {
                        stranger.reaches(step);
                    }
                }
            }
            let state = strangers.state.lock();
            assert!(state.count <= 20);
            let order: BTreeSet<_> = state.here.iter().map(|(at, it)| it.place(*at)).collect();
            assert_eq!(state.order, order);
            let all: usize = order.iter().map(|(count, ..)| count).sum();
            assert_eq!(state.count, all);
        }
    }
}
