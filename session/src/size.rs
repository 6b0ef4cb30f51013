//! The size of a terminal.

use serde::{Deserialize, Serialize};

/// Columns and rows of a terminal. Neither is ever zero: programs divide by
/// them.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Size {
    /// Characters in a line.
    pub cols: u16,
    /// Lines.
    pub rows: u16,
}

impl Size {
    /// The same size with both sides at least 1.
    #[must_use]
    pub fn at_least_one(self) -> Self {
        Self {
            cols: self.cols.max(1),
            rows: self.rows.max(1),
        }
    }
}

impl Default for Size {
    /// What a session has until somebody attaches: 120 columns, 40 rows.
    fn default() -> Self {
        Self {
            cols: 120,
            rows: 40,
        }
    }
}
