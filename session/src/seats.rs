//! Whose size a terminal has when several clients are at it.
//!
//! The client that typed last leads: the terminal has its size. Before anybody
//! has typed, the first to come leads; when the leader leaves, whoever typed
//! before it. Clients that only watch never lead.

use std::collections::BTreeMap;

use crate::Size;

/// The clients of one session that may type.
#[derive(Debug, Default)]
pub struct Seats {
    seats: BTreeMap<u64, Seat>,
    /// Counts who typed when.
    turn: u64,
}

#[derive(Debug, Default)]
struct Seat {
    size: Option<Size>,
    typed: u64,
}

impl Seats {
    /// A client has come. Returns the size that the terminal is to have now, if
    /// that follows, as do the others.
    pub fn handle_come(&mut self, client: u64, size: Option<Size>) -> Option<Size> {
        self.seats.insert(client, Seat { size, typed: 0 });
        self.size_of_leader(client)
    }

    /// A client has left.
    pub fn handle_leave(&mut self, client: u64) -> Option<Size> {
        let led = self.leader() == Some(client);
        self.seats.remove(&client);
        let next = self.leader().filter(|_| led)?;
        self.seats.get(&next)?.size
    }

    /// The window of a client has this size.
    pub fn handle_size(&mut self, client: u64, size: Size) -> Option<Size> {
        self.seats.get_mut(&client)?.size = Some(size);
        self.size_of_leader(client)
    }

    /// A client has typed.
    pub fn handle_typed(&mut self, client: u64) -> Option<Size> {
        let led = self.leader() == Some(client);
        self.turn += 1;
        let seat = self.seats.get_mut(&client)?;
        seat.typed = self.turn;
        seat.size.filter(|_| !led)
    }

    /// Whose size it is.
    #[must_use]
    pub fn leader(&self) -> Option<u64> {
        let last = self.seats.iter().max_by_key(|(client, seat)| {
            // Of those who never typed, the first.
            (seat.typed, std::cmp::Reverse(**client))
        });
        last.map(|(client, _)| *client)
    }

    fn size_of_leader(&self, client: u64) -> Option<Size> {
        let leads = self.leader() == Some(client);
        self.seats.get(&client)?.size.filter(|_| leads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn size(cols: u16) -> Size {
        Size { cols, rows: 24 }
    }

    #[test]
    fn who_typed_last_leads() {
        let mut seats = Seats::default();
        assert_eq!(seats.handle_come(1, Some(size(80))), Some(size(80)));
        assert_eq!(seats.handle_come(2, Some(size(120))), None);
        assert_eq!(seats.handle_size(2, size(121)), None);
        assert_eq!(seats.handle_size(1, size(81)), Some(size(81)));
        assert_eq!(seats.handle_typed(2), Some(size(121)));
        assert_eq!(seats.handle_typed(2), None);
        assert_eq!(seats.handle_size(1, size(82)), None);
        assert_eq!(seats.handle_come(3, None), None);
        // It says nothing of its size.
        assert_eq!(seats.handle_typed(3), None);
        assert_eq!(seats.leader(), Some(3));
        assert_eq!(seats.handle_leave(3), Some(size(121)));
        assert_eq!(seats.handle_leave(1), None);
        assert_eq!(seats.handle_leave(2), None);
        assert_eq!(seats.leader(), None);
    }
}
