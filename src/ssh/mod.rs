//! SSH: a terminal on a node for who has no `cw`, only `ssh`.
//!
//! A node is an SSH server, but it listens nowhere. Somebody asks the relay for a way to the node;
//! the relay tells the node over their coordination connection, the node connects back to the relay
//! (`/api/v1/back/<ticket>`, a WebSocket taken as a stream of bytes, see [`pipe()`]), and both ends
//! splice. What runs over that way is SSH, in one of two forms ([`Door`]):
//!
//! - **jump** (`ssh -J relay dev-1`): end to end. The user's client speaks with this node's server,
//!   which checks the user's key against `authorized_keys` in its own directory. The relay sees
//!   ciphertext.
//! - **terminal** (`ssh dev-1@relay -p 2222`): the relay is the SSH server that the user's client
//!   sees, and a client of this node's. It has checked who the user is, and the node takes its word
//!   for it. A relay that lies could open a shell, so a node takes such visits only if it is told
//!   to (`[node] ssh = "relay"`).
//!
//! On the node a session channel becomes one process ([`program`]): the user's shell, a command, or
//! `cw` itself when the command begins with one of its verbs (`ssh … attach 3`). It runs as the
//! user whose node it is, and has what that user has. If the owner allows it, a channel may be files
//! instead ([`sftp`]), and reach ports of the loopback ([`forward`]).

mod asked;
mod channel;
mod forward;
mod keys;
mod pipe;
mod program;
mod server;
mod sftp;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::{Algorithm, PrivateKey};
use russh::server::Config;
use russh::{MethodKind, MethodSet, Preferred, SshId, cipher, kex, mac};

pub(crate) use asked::{Asked, answer, answer_requests};
pub(crate) use keys::{Authorized, fingerprint, host_key, password, password_hash, public_key};
pub(crate) use pipe::{Frame, Pipe, pipe};
pub(crate) use program::Account;
pub(crate) use server::{Node, serve};

/// Takes anything for what a client of ours says: a key, a target of forwarding, a variable, a
/// size. For `crate::fuzzing`.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn hear_anything(data: &[u8]) {
    let (numbers, words) = data.split_at(data.len().min(8));
    let mut sides = numbers
        .chunks_exact(4)
        .map(|four| u32::from_be_bytes([four[0], four[1], four[2], four[3]]));
    let sides = (
        sides.next().unwrap_or_default(),
        sides.next().unwrap_or_default(),
    );
    let text = String::from_utf8_lossy(words);
    if let Ok(key) = public_key(&text) {
        assert!(fingerprint(&key).starts_with("SHA256:"));
    }
    if let Some(target) = forward::target(&text, sides.0) {
        assert!(target.ip().is_loopback() && target.port() != 0);
    }
    channel::hear_anything(&text, sides);
}

/// Takes anything for what a client of files says. For `crate::fuzzing`.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn hear_files(data: &[u8]) {
    sftp::hear_anything(data);
}

/// How somebody comes to a node over SSH. What a node takes is in its `hello` to the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Door {
    /// End to end; the user's key is checked by the node.
    Jump,
    /// By a relay that has checked who it is.
    Terminal,
}

/// What a node takes over SSH.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Doors {
    /// Nothing.
    Off,
    /// Jumps by the keys in its `authorized_keys`.
    #[default]
    Keys,
    /// Those, and whom the relay vouches for.
    Relay,
}

impl Doors {
    /// What is told to the relay.
    pub(crate) fn told(self) -> Vec<Door> {
        match self {
            Self::Off => Vec::new(),
            Self::Keys => vec![Door::Jump],
            Self::Relay => vec![Door::Jump, Door::Terminal],
        }
    }
}

/// How long a client may be silent before it is asked whether it is there; three times, then it is
/// given up.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// How long a refused login waits for its answer. Guessing is slow, mistyping is not punished.
const REJECTION: Duration = Duration::from_millis(500);

/// Logins that one connection may try.
const MAX_LOGINS: usize = 6;

/// Key exchanges: post-quantum hybrid first, X25519 for older clients; nothing over NIST curves,
/// finite fields or SHA-1.
const KEX: &[kex::Name] = &[
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::EXTENSION_SUPPORT_AS_CLIENT,
    kex::EXTENSION_SUPPORT_AS_SERVER,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
];

const CIPHERS: &[cipher::Name] = &[
    cipher::CHACHA20_POLY1305,
    cipher::AES_256_GCM,
    cipher::AES_128_GCM,
    cipher::AES_256_CTR,
];

/// For AES-CTR only; the others authenticate by themselves.
const MACS: &[mac::Name] = &[mac::HMAC_SHA256_ETM, mac::HMAC_SHA512_ETM];

/// What both servers, the node's and the relay's, and the relay's client agree to.
pub(crate) fn preferred() -> Preferred {
    Preferred {
        kex: Cow::Borrowed(KEX),
        key: Cow::Borrowed(&[Algorithm::Ed25519]),
        cipher: Cow::Borrowed(CIPHERS),
        mac: Cow::Borrowed(MACS),
        ..Preferred::DEFAULT
    }
}

/// A server with this host key that takes these kinds of login.
pub(crate) fn config(key: PrivateKey, methods: &[MethodKind]) -> Arc<Config> {
    Arc::new(Config {
        server_id: SshId::Standard(Cow::Borrowed(concat!(
            "SSH-2.0-cw_",
            env!("CARGO_PKG_VERSION")
        ))),
        methods: MethodSet::from(methods),
        auth_rejection_time: REJECTION,
        // Clients ask for `none` to learn what there is.
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![key],
        preferred: preferred(),
        max_auth_attempts: MAX_LOGINS,
        inactivity_timeout: None,
        keepalive_interval: Some(KEEPALIVE),
        nodelay: true,
        ..Config::default()
    })
}
