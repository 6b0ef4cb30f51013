//! A relay that moves packets between keys: DERP, version 2.
//!
//! Two machines behind firewalls cannot always reach each other, but both can
//! reach a server. Each opens one connection to it, proves that it holds the
//! private half of a key, and from then on sends packets to *keys*: the server
//! hands each to whoever has proven the key it is addressed to. What is in the
//! packets is sealed between the two machines (by WireGuard, in this project);
//! the relay could not read it if it wanted to.
//!
//! The protocol is Tailscale's, byte for byte, so that clients and servers of
//! others work with ours; it has no other specification than its
//! implementations. This is what we hold to:
//!
//! **Connecting.** TCP, perhaps TLS, then an HTTP upgrade (`io::upgrade`):
//! `GET /derp` with `Upgrade: DERP`, answered by 101 with the server's version
//! and key. From there on, both ways, frames ([`frame`]): a byte of type, four
//! of length, a body. The server sends its key, the client sends its own and a
//! sealed box as proof, the server decides whether it admits the key and
//! answers with a sealed box ([`handshake`]).
//!
//! **Packets.** A client sends `SendPacket` with a key and up to 64 KiB; the
//! client with that key receives `RecvPacket` with the key of the sender. They
//! arrive in order, except that WireGuard's handshakes overtake. There is no
//! answer and no promise: a packet is lost when its destination is not
//! connected, goes away, or does not read for longer than its queue and its
//! senders' patience last ([`router`] has the policy). A client that sends to
//! somebody who is not there is told so with `PeerGone`, as are those who
//! exchanged packets with somebody who left.
//!
//! **Silence.** The server sends `KeepAlive` about once a minute; a client that
//! hears nothing for two minutes gives up. Both answer `Ping` with `Pong`. A
//! client whose introduction says that it answers pings is pinged when it is
//! silent, and cut when it stays so.
//!
//! **What may be sent to whom.** Some clients end the connection at any frame
//! they do not expect. So nothing but `RecvPacket`, `KeepAlive`, `PeerGone` and
//! `Ping` goes to a client that did not say it can do more; `Health` and
//! `Restarting` are for the others. Frames of unknown type are skipped, on both
//! sides.
//!
//! **Limits.** Every length is checked before its bytes are buffered
//! ([`frame::Receives::limit`]), every queue is bounded by bytes ([`queue`]),
//! every step of a handshake by time (`io::STEP_TIMEOUT`).
//!
//! # How it is made
//!
//! Everything outside of `io` is pure: bytes and times in, bytes and events
//! out. It builds without the feature `io`, without tokio, and is tested
//! without sockets.
//!
//! **Too much.** A client that sends faster than it may (`io::server::Options`)
//! is read more slowly ([`pace`]); a full queue holds its senders up. Both reach
//! the sender as delay, not as loss.
//!
//! **Several servers.** The servers of one region share a mesh key and relay for
//! each other's clients, in one hop ([`router`], `io::region`).
//!
//! # What is not here
//!
//! - The protocol over WebSocket: whoever terminates one can hand its byte
//!   stream to `io::server::Server::serve`.
//! - The fields of `ServerInfo` that announce a rate: clients that obey them
//!   drop packets, which delaying their reads avoids.
//! - The certificate that tells a client the server's key inside the TLS
//!   handshake. Without it no stock client asks for a fast start.
//! - Proof towards the client that it speaks to the right server, other than
//!   TLS.

pub mod client;
mod error;
pub mod frame;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod handshake;
#[cfg(feature = "io")]
pub mod io;
mod key;
pub mod pace;
pub mod queue;
pub mod router;

pub use error::Error;
pub use key::{KEY_LEN, NodeKey, NodeSecret};
