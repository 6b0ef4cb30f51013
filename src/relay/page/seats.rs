//! Places for those who look on: so many in all, and only some for each person.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::super::store::Subject;

/// Pages that look on at one time, at most: each costs a look at every change.
const MAX_VIEWERS: usize = 64;

/// Those of one person: nobody keeps the others out.
const MAX_OF_ONE: usize = 8;

/// Who looks on, and at how many pages.
#[derive(Default)]
pub(crate) struct Seats(Mutex<HashMap<String, usize>>);

/// A place, free again when dropped.
pub(super) struct Seat {
    seats: Arc<Seats>,
    subject: String,
}

impl Seats {
    /// A place, if there is one.
    pub(super) fn take(self: &Arc<Self>, subject: &Subject) -> Option<Seat> {
        let mut taken = self.0.lock();
        let subject = subject.as_str().to_owned();
        let own = taken.get(&subject).copied().unwrap_or_default();
        if own >= MAX_OF_ONE || taken.values().sum::<usize>() >= MAX_VIEWERS {
            return None;
        }
        taken.insert(subject.clone(), own + 1);
        let seats = Arc::clone(self);
        Some(Seat { seats, subject })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.0.lock();
        if let Some(own) = taken.get_mut(&self.subject) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.subject);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_person_leaves_places_to_others_and_all_have_an_end() {
        let seats = Arc::new(Seats::default());
        let somebody = |n: usize| Subject::named(format!("guest:inv_{n}"));
        let mut own: Vec<_> = (0..MAX_OF_ONE)
            .map(|_| seats.take(&somebody(0)).unwrap())
            .collect();
        assert!(seats.take(&somebody(0)).is_none());
        let others: Vec<_> = (MAX_OF_ONE..MAX_VIEWERS)
            .map(|n| seats.take(&somebody(n)).unwrap())
            .collect();
        assert!(seats.take(&somebody(1000)).is_none());
        own.pop();
        let last = seats.take(&somebody(1000)).unwrap();
        assert!(seats.take(&somebody(0)).is_none());
        drop((own, others, last));
        assert!(seats.0.lock().is_empty());
    }
}
