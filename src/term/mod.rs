//! The user's terminal: keys and screen, raw mode and its undoing, its size, the detach chord,
//! clean text.

mod detach;
pub mod keys;
mod raw;
mod strip;
mod tty;

pub use detach::Detach;
pub use raw::{RawMode, size};
pub use strip::Strip;
pub use tty::{Keyboard, Screen};
