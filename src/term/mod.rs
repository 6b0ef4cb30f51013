//! The user's terminal: raw mode and its undoing, its size, the detach chord, clean text.

mod detach;
pub mod keys;
mod raw;
mod strip;

pub use detach::Detach;
pub use raw::{RawMode, size};
pub use strip::Strip;
