//! How keys are reported: the kitty keyboard protocol and xterm's
//! `modifyOtherKeys`.

/// Most entries of the kitty stack; terminals allow about as many.
const STACK_MAX: usize = 16;

/// The flags of the kitty keyboard protocol, once for each screen.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Keyboard {
    /// Those in force.
    pub(super) flags: u8,
    /// Those to come back to, the last one first to do so.
    pub(super) stack: Vec<u8>,
}

impl Keyboard {
    /// `CSI > flags u`. What does not fit pushes out the oldest entry.
    pub(super) fn push(&mut self, flags: u8) {
        if self.stack.len() == STACK_MAX {
            self.stack.remove(0);
        }
        self.stack.push(self.flags);
        self.flags = flags & 31;
    }

    /// `CSI < count u`.
    pub(super) fn pop(&mut self, count: usize) {
        for _ in 0..count.min(STACK_MAX) {
            self.flags = self.stack.pop().unwrap_or(0);
        }
    }

    /// `CSI = flags ; mode u`.
    pub(super) const fn set(&mut self, flags: u8, mode: u16) {
        let flags = flags & 31;
        self.flags = match mode {
            2 => self.flags | flags,
            3 => self.flags & !flags,
            _ => flags,
        };
    }
}

/// xterm's resources that modify keys: `CSI > resource ; value m`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Modifiers([Option<u8>; 8]);

impl Modifiers {
    /// Sets a resource, or with `None` resets it.
    pub(super) fn set(&mut self, resource: u16, value: Option<u8>) {
        if let Some(place) = self.0.get_mut(usize::from(resource)) {
            *place = value;
        }
    }

    /// What differs from a terminal after a reset.
    pub(super) fn said(&self) -> impl Iterator<Item = (usize, u8)> {
        let said = self.0.iter().enumerate();
        said.filter_map(|(resource, value)| Some((resource, (*value)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stack_comes_back() {
        let mut keyboard = Keyboard::default();
        keyboard.push(1);
        keyboard.push(5);
        keyboard.set(2, 2);
        assert_eq!(keyboard.flags, 7);
        keyboard.set(4, 3);
        assert_eq!(keyboard.flags, 3);
        keyboard.pop(1);
        assert_eq!(keyboard.flags, 1);
        keyboard.pop(9);
        assert_eq!(keyboard, Keyboard::default());
        for _ in 0..1000 {
            keyboard.push(1);
        }
        assert_eq!(keyboard.stack.len(), STACK_MAX);
    }
}
