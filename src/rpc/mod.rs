//! A call on a stream: frames, their two codings, and a typed channel over them.
//!
//! Nothing here knows about sessions or networks. On the local socket control frames are JSON; on
//! a stream between nodes they are bincode. Raw terminal bytes are the same in both, so a proxy
//! transcodes the few control frames and copies the rest.

pub mod channel;
pub mod codec;
mod descriptors;
pub mod frame;

pub use channel::{Channel, Incoming, Receiver, Sender};
pub use codec::{Base64, Coding, Wire};
