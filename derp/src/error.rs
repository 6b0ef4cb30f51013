//! What can go wrong between a client and the relay.

use std::time::Duration;

/// A failure of this crate. The text is for people, [`Error::code`] for
/// programs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is not 64 hex digits.
    #[error("a node key is 64 hex digits")]
    BadKey,

    /// The peer sent a frame that breaks the protocol; the connection is over.
    #[error("protocol error: {0}")]
    Protocol(&'static str),

    /// A frame announces more bytes than its type may have.
    #[error("frame of type {kind:#04x} with {len} bytes is longer than the limit of {limit}")]
    FrameTooLarge {
        /// The type byte of the frame.
        kind: u8,
        /// The length it announces, in bytes.
        len: u32,
        /// The most that this side accepts, in bytes.
        limit: u32,
    },

    /// A sealed box does not open: the sender does not hold the key it claims,
    /// or the bytes were changed on the way.
    #[error("sealed box does not open with the key of the sender")]
    BadBox,

    /// The relay does not know the key of this client.
    #[error("refused by the relay: {0}")]
    Refused(String),

    /// The server answered the HTTP upgrade with something else.
    #[error("no DERP relay at this address: {0}")]
    Upgrade(String),

    /// The HTTP proxy in front of the relay does not lead there.
    #[error("the proxy does not lead to the relay: {0}")]
    Proxy(String),

    /// The server at the other end is this one.
    #[error("that is this relay itself")]
    Itself,

    /// The server at the other end has another key than the one that is meant.
    #[error("another relay answers there")]
    Another,

    /// The address of the relay cannot be used.
    #[error("bad relay address: {0}")]
    BadUrl(String),

    /// The other side took longer than allowed.
    #[error("{what} took longer than {limit:?}")]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// How long.
        limit: Duration,
    },

    /// The connection was ended, by the peer or by us.
    #[error("connection closed: {0}")]
    Closed(&'static str),

    /// The connection failed below this protocol.
    #[error("connection failed: {0}")]
    Io(#[from] std::io::Error),
}

impl Error {
    /// A stable name for the kind of failure.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::BadKey => "key_invalid",
            Self::Protocol(_) | Self::FrameTooLarge { .. } | Self::BadBox => "relay_protocol",
            Self::Refused(_) => "relay_refused",
            Self::Upgrade(_) => "relay_upgrade",
            Self::Proxy(_) => "relay_proxy",
            Self::Itself => "relay_itself",
            Self::Another => "relay_another",
            Self::BadUrl(_) => "relay_url",
            Self::Timeout { .. } => "relay_timeout",
            Self::Closed(_) => "relay_closed",
            Self::Io(_) => "relay_unreachable",
        }
    }
}
