//! Finds a peer, keeps a path to it, moves packets over it.
//!
//! A node is one X25519 key ([`NodeKey`]); its address in the overlay follows
//! from that key ([`address_of`]). Between two nodes runs a userspace WireGuard
//! tunnel, inside it QUIC: one connection a peer, one stream a call. The
//! tunnel's packets travel over the relay (DERP) from the first byte on, and
//! directly over UDP as soon as a probe has shown that this works.
//!
//! Everything outside [`io`] is a state machine without clock, socket or
//! runtime: it takes `now`, seeds and bytes, and gives back bytes, events and
//! the moment at which it wants to be called again.

#![cfg_attr(
    not(any(feature = "io", feature = "fuzzing", test)),
    expect(dead_code, reason = "the state machines are driven from `io`")
)]

mod control;
mod error;
#[cfg(test)]
#[path = "../tests/foreign/mod.rs"]
mod foreign;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod home;
mod identity;
#[cfg(feature = "io")]
pub mod io;
mod nat64;
mod packet;
mod path;
mod peer;
mod portmap;
mod record;
mod reflect;
mod standby;
pub mod stun;
mod wg;
#[cfg(test)]
#[path = "../tests/world/mod.rs"]
mod world;

pub use derp::{NodeKey, NodeSecret};
pub use error::Error;
pub use identity::{Identity, Seed, SignKey, address_of};
pub use path::Obstacle;
pub use portmap::{Mapped, Protocol as MappingProtocol};
pub use record::{NetworkId, NodeName, NodeRecord, SignedRecord};
pub use reflect::Mapping;
