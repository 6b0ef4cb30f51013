//! The user's terminal: keys and screen, raw mode and its undoing, its size, the detach chord,
//! clean text.

mod detach;
pub mod keys;
pub mod lend;
mod raw;
mod strip;
mod tty;

pub use detach::{Detach, Typed};
pub use raw::{RawMode, size};
pub use strip::Strip;
pub use tty::{Keyboard, Screen};
