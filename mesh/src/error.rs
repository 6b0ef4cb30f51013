//! What can go wrong, each with a code that never changes.

/// An error of the mesh. [`Error::code`] is stable; the text is for people.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A node or network name with a character or length that is not allowed.
    #[error("a name is 1 to 63 letters, digits, '-' or '_', and starts with a letter or digit")]
    NameInvalid,
    /// Text that is not a signing key.
    #[error("not a signing key")]
    KeyInvalid,
    /// A node record that does not decode, or breaks a limit.
    #[error("the node record is malformed: {0}")]
    RecordInvalid(&'static str),
    /// A node record that the issuer has not signed as it stands.
    #[error("the node record is not signed by this network's issuer")]
    RecordUnsigned,
    /// A node record of another network.
    #[error("the node record belongs to another network")]
    RecordForeign,
    /// A node record outside its time of validity.
    #[error("the node record is expired or not yet valid")]
    RecordExpired,
    /// The peer is not among those given to the mesh.
    #[error("no such peer in this network")]
    PeerUnknown,
    /// No connection to the peer came about in time.
    #[error("the peer cannot be reached: {0}")]
    PeerUnreachable(String),
    /// The peer was reached but is not who its record says, or refused us.
    #[error("the peer refused, or is not who its record says: {0}")]
    PeerRefused(String),
    /// There is no connection to the relay, and no direct path either.
    #[error("no connection to the relay, and no direct path to the peer")]
    RelayUnreachable,
    /// The mesh has been closed.
    #[error("the mesh is closed")]
    Closed,
    /// The operating system refused a socket.
    #[error("network: {0}")]
    Network(#[from] std::io::Error),
    /// The TLS configuration could not be built from this identity.
    #[error("tls: {0}")]
    Tls(String),
}

impl Error {
    /// A stable name of the kind of error, for programs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NameInvalid => "name_invalid",
            Self::KeyInvalid => "key_invalid",
            Self::RecordInvalid(_) => "record_invalid",
            Self::RecordUnsigned => "record_unsigned",
            Self::RecordForeign => "record_foreign",
            Self::RecordExpired => "record_expired",
            Self::PeerUnknown => "peer_unknown",
            Self::PeerUnreachable(_) => "peer_unreachable",
            Self::PeerRefused(_) => "peer_refused",
            Self::RelayUnreachable => "relay_unreachable",
            Self::Closed => "mesh_closed",
            Self::Network(_) => "network",
            Self::Tls(_) => "tls",
        }
    }
}
