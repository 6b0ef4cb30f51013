//! A relay that moves packets between keys: DERP, version 2.

pub mod client;
mod error;
pub mod frame;
pub mod handshake;
#[cfg(feature = "io")]
pub mod io;
mod key;
pub mod queue;
pub mod router;

pub use error::Error;
pub use key::{KEY_LEN, NodeKey, NodeSecret};
