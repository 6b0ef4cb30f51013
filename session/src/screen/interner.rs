//! Texts that many cells share, by number.
//!
//! A program may come with a new text in each cell, so what no cell holds any
//! more has to go: whoever owns the cells asks [`Interner::is_due`] before it
//! adds a text, tells [`Interner::sweep`] what is still in use, and that costs
//! a constant time per text added.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Texts by number.
#[derive(Debug)]
pub(super) struct Interner {
    numbers: HashMap<Arc<str>, u32>,
    texts: Vec<Option<Arc<str>>>,
    free: Vec<u32>,
    /// Bytes of all texts.
    bytes: usize,
    /// Texts added or refused since the last sweep.
    since: usize,
    limits: Limits,
}

/// How much there may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Numbers are below this.
    pub(super) entries: u32,
    /// Bytes of all texts together.
    pub(super) bytes: usize,
    /// Texts between two sweeps, at least.
    pub(super) sweep: usize,
}

impl Interner {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            numbers: HashMap::new(),
            texts: Vec::new(),
            free: Vec::new(),
            bytes: 0,
            since: 0,
            limits,
        }
    }

    /// The number of a text. `None` when there is no room: the caller then does
    /// without.
    pub(super) fn intern(&mut self, text: &str) -> Option<u32> {
        if let Some(number) = self.numbers.get(text) {
            return Some(*number);
        }
        self.since += 1;
        if self.bytes + text.len() > self.limits.bytes {
            return None;
        }
        let next = u32::try_from(self.texts.len()).ok()?;
        let number = match self.free.pop() {
            Some(number) => number,
            None if next < self.limits.entries => {
                self.texts.push(None);
                next
            }
            None => return None,
        };
        let text: Arc<str> = Arc::from(text);
        self.bytes += text.len();
        self.texts[number as usize] = Some(Arc::clone(&text));
        self.numbers.insert(text, number);
        Some(number)
    }

    /// The text of a number that [`Interner::intern`] returned and no sweep has
    /// taken since.
    pub(super) fn get(&self, number: u32) -> &str {
        let text = self.texts.get(number as usize);
        text.and_then(Option::as_deref).unwrap_or_default()
    }

    /// Whether enough was added to look for what is no longer used.
    pub(super) fn is_due(&self) -> bool {
        self.since >= self.limits.sweep.max(self.numbers.len() / 2)
    }

    /// Forgets what is not in `used`.
    pub(super) fn sweep(&mut self, used: &HashSet<u32>) {
        self.since = 0;
        for (number, text) in (0..).zip(&mut self.texts) {
            if used.contains(&number) {
                continue;
            }
            if let Some(text) = text.take() {
                self.bytes -= text.len();
                self.numbers.remove(&text);
                self.free.push(number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        entries: 3,
        bytes: 10,
        sweep: 4,
    };

    #[test]
    fn the_same_text_has_the_same_number() {
        let mut table = Interner::new(LIMITS);
        let a = table.intern("a").unwrap();
        let b = table.intern("b").unwrap();
        assert_ne!(a, b);
        assert_eq!(table.intern("a"), Some(a));
        assert_eq!((table.get(a), table.get(b)), ("a", "b"));
    }

    #[test]
    fn it_is_bounded_and_a_sweep_makes_room() {
        let mut table = Interner::new(LIMITS);
        let a = table.intern("aaaa").unwrap();
        let b = table.intern("bbbb").unwrap();
        assert_eq!(table.intern("cccc"), None, "too many bytes");
        assert!(!table.is_due());
        table.intern("d").unwrap();
        assert_eq!(table.intern("e"), None, "too many entries");
        assert!(table.is_due());
        table.sweep(&HashSet::from([b]));
        assert_eq!(table.get(a), "");
        assert_eq!(table.get(b), "bbbb");
        assert!(table.intern("cccc").is_some());
        assert!(!table.is_due());
    }
}
