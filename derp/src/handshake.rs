//! How a connection begins, on both ends, without any input or output.
//!
//! 1. The server sends its key ([`ServerKey`]).
//! 2. The client sends its own key and, sealed for the server, what it can do
//!    ([`ClientInfo`]). That the box opens proves that the client holds its
//!    private key.
//! 3. The server asks whether the key is admitted and answers with a sealed
//!    [`ServerInfo`]. From then on both send what they like.
//!
//! The boxes are NaCl's: X25519, XSalsa20, Poly1305. What they hold is JSON;
//! keys that we do not know are ignored, and both spellings in use
//! (`canAckPings` and `can_ack_pings`) are understood. A wrong nonce, box or
//! JSON ends the connection.
//!
//! Nothing here proves to the client that the server is the right one: that is
//! for TLS, and the packets are sealed end to end anyway.

use std::fmt;

use crypto_box::SalsaBox;
use crypto_box::aead::Aead;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use zeroize::ZeroizeOnDrop;

use crate::frame::{self, ClientInfo, Frame, Health, NONCE_LEN, ServerInfo, ServerKey};
use crate::{Error, NodeKey, NodeSecret};

/// Version of the protocol that this crate speaks.
pub const VERSION: u32 = 2;

/// The text that a refused client is told, if it can hear it.
const NOT_ADMITTED: &str = "this key is not admitted here";

/// Random bytes for one sealed box; never to be used twice.
pub type Nonce = [u8; NONCE_LEN];

/// What a client says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Introduction {
    /// Its key, proven.
    pub key: NodeKey,
    /// It answers pings, and skips or understands frames that early clients
    /// stumble over. To others we send nothing but packets, pings, keep-alives
    /// and `PeerGone`.
    pub can_ack_pings: bool,
    /// It holds the key that the servers of this region share.
    pub is_mesh: bool,
    /// It only measures; not to be counted as a user.
    pub is_prober: bool,
}

/// A secret that the servers of one region share.
#[derive(Clone, ZeroizeOnDrop)]
pub struct MeshKey([u8; 32]);

impl MeshKey {
    /// Reads 64 hex digits; anything else is no mesh key.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }

    /// Whether both are the same, in a time that does not tell where they
    /// differ.
    fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for MeshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MeshKey([redacted])")
    }
}

/// The server's end of a handshake.
#[derive(Debug)]
pub struct Server {
    secret: NodeSecret,
    mesh_key: Option<MeshKey>,
}

/// What the server does with a client.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send `reply`; the connection is open.
    Accepted {
        /// Who it is.
        client: Introduction,
        /// Bytes for the client.
        reply: Vec<u8>,
    },
    /// Send `reply`, which may be empty, and close.
    Refused {
        /// Whose key is not admitted.
        key: NodeKey,
        /// Bytes for the client.
        reply: Vec<u8>,
    },
}

impl Server {
    /// A handshake with one client.
    pub const fn new(secret: NodeSecret, mesh_key: Option<MeshKey>) -> Self {
        Self { secret, mesh_key }
    }

    /// The bytes that open the connection.
    pub fn greeting(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let key = self.secret.public();
        frame::encode(&ServerKey { key }, &mut out);
        out
    }

    /// Takes the first frame of the client. `admits` is asked only about a key
    /// that the client has proven to hold.
    ///
    /// # Errors
    ///
    /// When it is not a `ClientInfo`, when its box does not open, or when what
    /// is in the box makes no sense. Nothing is to be sent then.
    pub fn handle_frame(
        &self,
        frame: &Frame<'_>,
        nonce: Nonce,
        admits: impl FnOnce(&Introduction) -> bool,
    ) -> Result<Verdict, Error> {
        let Frame::ClientInfo(info) = frame else {
            return Err(Error::Protocol("the client did not introduce itself"));
        };
        // Everybody shares the same secret with the zero key: it proves nothing.
        if info.key.is_zero() {
            return Err(Error::BadBox);
        }
        let cipher = cipher(&info.key, &self.secret);
        let json = open(&cipher, &info.nonce, info.sealed)?;
        let said: ClientJson = serde_json::from_slice(&json)
            .map_err(|_| Error::Protocol("what the client says about itself is not JSON"))?;
        let client = self.introduction(info.key, &said);
        let mut reply = Vec::new();
        if !admits(&client) {
            if client.can_ack_pings {
                let text = NOT_ADMITTED.as_bytes();
                frame::encode(&Health { text }, &mut reply);
            }
            let key = client.key;
            return Ok(Verdict::Refused { key, reply });
        }
        let sealed = seal(&cipher, &nonce, &ServerJson { version: VERSION })?;
        let sealed = &sealed;
        frame::encode(&ServerInfo { nonce, sealed }, &mut reply);
        Ok(Verdict::Accepted { client, reply })
    }

    fn introduction(&self, key: NodeKey, said: &ClientJson) -> Introduction {
        // A mesh key of any other shape counts as none: some clients send a
        // word instead of leaving it out.
        let theirs = said.mesh_key.as_deref().and_then(MeshKey::from_hex);
        let is_mesh = match (&self.mesh_key, &theirs) {
            (Some(ours), Some(theirs)) => ours.matches(theirs),
            _ => false,
        };
        Introduction {
            key,
            can_ack_pings: said.can_ack_pings,
            is_mesh,
            is_prober: said.is_prober,
        }
    }
}

/// The client's end of a handshake.
#[derive(Debug)]
pub struct Client {
    secret: NodeSecret,
    nonce: Nonce,
    server: Option<NodeKey>,
    expected: Option<NodeKey>,
    mesh_key: Option<MeshKey>,
}

/// What the client does next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Wait for another frame.
    Wait,
    /// Send these bytes, then wait for another frame.
    Send(Vec<u8>),
    /// The connection is open.
    Done {
        /// The key of the server.
        server: NodeKey,
    },
}

impl Client {
    /// A handshake with a server, as the holder of `secret`.
    pub const fn new(secret: NodeSecret, nonce: Nonce) -> Self {
        Self {
            secret,
            nonce,
            server: None,
            expected: None,
            mesh_key: None,
        }
    }

    /// The same, which tells nothing to any server but the one with this key.
    pub fn with_server(mut self, key: NodeKey) -> Self {
        self.expected = Some(key);
        self
    }

    /// The same, as another server of the region.
    pub fn with_mesh_key(mut self, key: MeshKey) -> Self {
        self.mesh_key = Some(key);
        self
    }

    /// Takes a frame of the server, until it answers with [`Step::Done`].
    /// Frames that do not belong here are skipped.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] when the server says why it does not want us,
    /// [`Error::Another`] when it is not the one that was expected, or what is
    /// wrong with a frame.
    pub fn handle_frame(&mut self, frame: &Frame<'_>) -> Result<Step, Error> {
        match (self.server, frame) {
            (None, Frame::ServerKey(greeting)) => {
                if self.expected.is_some_and(|key| key != greeting.key) {
                    return Err(Error::Another);
                }
                self.server = Some(greeting.key);
                self.introduce(&greeting.key).map(Step::Send)
            }
            (None, _) => Err(Error::Protocol("the server did not send its key")),
            (Some(server), Frame::ServerInfo(info)) => {
                let cipher = cipher(&server, &self.secret);
                let json = open(&cipher, &info.nonce, info.sealed)?;
                serde_json::from_slice::<serde_json::Value>(&json)
                    .map_err(|_| Error::Protocol("what the server says is not JSON"))?;
                Ok(Step::Done { server })
            }
            (Some(_), Frame::Health(health)) if !health.text.is_empty() => {
                let text = String::from_utf8_lossy(health.text).into_owned();
                Err(Error::Refused(text))
            }
            (Some(_), _) => Ok(Step::Wait),
        }
    }

    fn introduce(&self, server: &NodeKey) -> Result<Vec<u8>, Error> {
        let said = ClientJson {
            version: VERSION,
            can_ack_pings: true,
            is_prober: false,
            mesh_key: self.mesh_key.as_ref().map(|key| hex::encode(key.0)),
        };
        let nonce = self.nonce;
        let sealed = seal(&cipher(server, &self.secret), &nonce, &said)?;
        let mut out = Vec::new();
        let key = self.secret.public();
        let sealed = &sealed;
        frame::encode(&ClientInfo { key, nonce, sealed }, &mut out);
        Ok(out)
    }
}

#[derive(Serialize, Deserialize)]
struct ClientJson {
    #[serde(default, alias = "Version")]
    version: u32,
    #[serde(
        default,
        rename = "CanAckPings",
        alias = "canAckPings",
        alias = "can_ack_pings"
    )]
    can_ack_pings: bool,
    #[serde(default, rename = "IsProber", alias = "isProber", alias = "is_prober")]
    is_prober: bool,
    #[serde(
        default,
        rename = "meshKey",
        alias = "MeshKey",
        alias = "mesh_key",
        skip_serializing_if = "Option::is_none"
    )]
    mesh_key: Option<String>,
}

#[derive(Serialize)]
struct ServerJson {
    version: u32,
}

fn cipher(theirs: &NodeKey, ours: &NodeSecret) -> SalsaBox {
    let theirs = crypto_box::PublicKey::from_bytes(*theirs.as_bytes());
    SalsaBox::new(&theirs, &ours.for_box())
}

fn open(cipher: &SalsaBox, nonce: &Nonce, sealed: &[u8]) -> Result<Vec<u8>, Error> {
    cipher
        .decrypt(nonce.into(), sealed)
        .map_err(|_| Error::BadBox)
}

fn seal(cipher: &SalsaBox, nonce: &Nonce, said: &impl Serialize) -> Result<Vec<u8>, Error> {
    let json = serde_json::to_vec(said).map_err(|_| Error::Protocol("cannot write JSON"))?;
    cipher
        .encrypt(nonce.into(), &json[..])
        .map_err(|_| Error::BadBox)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Receives, decode};

    fn secret(byte: u8) -> NodeSecret {
        NodeSecret::from_bytes([byte; 32])
    }

    fn read(side: Receives, bytes: &[u8]) -> Frame<'_> {
        let (frame, used) = decode(side, bytes).unwrap().unwrap();
        assert_eq!(used, bytes.len());
        frame
    }

    /// What the server makes of a client that says `json`.
    fn judge(server: &Server, json: &str) -> Result<Verdict, Error> {
        let client = secret(2);
        let nonce = [3; NONCE_LEN];
        let cipher = cipher(&server.secret.public(), &client);
        let sealed = cipher.encrypt(&nonce.into(), json.as_bytes()).unwrap();
        let info = Frame::ClientInfo(ClientInfo {
            key: client.public(),
            nonce,
            sealed: &sealed,
        });
        server.handle_frame(&info, [4; NONCE_LEN], |_| true)
    }

    fn introduced(server: &Server, json: &str) -> Introduction {
        match judge(server, json).unwrap() {
            Verdict::Accepted { client, .. } => client,
            refused @ Verdict::Refused { .. } => panic!("{refused:?}"),
        }
    }

    #[test]
    fn both_ends_agree() {
        let server = Server::new(secret(1), None);
        let mut client = Client::new(secret(2), [3; NONCE_LEN]);

        let greeting = server.greeting();
        let step = client.handle_frame(&read(Receives::Client, &greeting));
        let Ok(Step::Send(bytes)) = step else {
            panic!("{step:?}");
        };
        let verdict = server
            .handle_frame(&read(Receives::Server, &bytes), [4; NONCE_LEN], |_| true)
            .unwrap();
        let Verdict::Accepted {
            client: introduction,
            reply,
        } = verdict
        else {
            panic!("{verdict:?}");
        };
        assert_eq!(introduction.key, secret(2).public());
        assert!(introduction.can_ack_pings);
        assert!(!introduction.is_mesh);

        let step = client.handle_frame(&read(Receives::Client, &reply));
        let server = secret(1).public();
        assert_eq!(step.unwrap(), Step::Done { server });
    }

    #[test]
    fn a_refused_client_learns_why() {
        let server = Server::new(secret(1), None);
        let mut client = Client::new(secret(2), [3; NONCE_LEN]);
        let greeting = server.greeting();
        let Ok(Step::Send(bytes)) = client.handle_frame(&read(Receives::Client, &greeting)) else {
            panic!();
        };
        let info = read(Receives::Server, &bytes);
        let verdict = server.handle_frame(&info, [4; NONCE_LEN], |_| false);
        let Ok(Verdict::Refused { key, reply }) = verdict else {
            panic!("{verdict:?}");
        };
        assert_eq!(key, secret(2).public());
        let step = client.handle_frame(&read(Receives::Client, &reply));
        assert!(matches!(step, Err(Error::Refused(text)) if text == NOT_ADMITTED));
    }

    #[test]
    fn every_spelling_is_understood() {
        let server = Server::new(secret(1), None);
        for json in [
            r#"{"version":2,"CanAckPings":true,"IsProber":true,"AppName":"x"}"#,
            r#"{"version":2,"canAckPings":true,"isProber":true}"#,
            r#"{"can_ack_pings":true,"is_prober":true,"mesh_key":"none","version":2}"#,
        ] {
            let client = introduced(&server, json);
            assert!(client.can_ack_pings && client.is_prober, "{json}");
        }
        let client = introduced(&server, "{}");
        assert!(!client.can_ack_pings && !client.is_prober && !client.is_mesh);
    }

    #[test]
    fn the_mesh_key_is_told_to_the_expected_server_only() {
        let (expected, other) = (
            NodeSecret::from_bytes([1; 32]),
            NodeSecret::from_bytes([2; 32]),
        );
        for (server, is_told) in [(&expected, true), (&other, false)] {
            let key = MeshKey::from_hex(&"a".repeat(64)).unwrap();
            let secret = NodeSecret::from_bytes([3; 32]);
            let client = Client::new(secret, [0; NONCE_LEN]).with_mesh_key(key);
            let mut client = client.with_server(expected.public());
            let greeting = Frame::ServerKey(ServerKey {
                key: server.public(),
            });
            match client.handle_frame(&greeting) {
                Ok(Step::Send(_)) => assert!(is_told),
                Err(Error::Another) => assert!(!is_told),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn only_the_right_mesh_key_makes_a_server() {
        let key = "5a".repeat(32);
        let with = Server::new(secret(1), MeshKey::from_hex(&key));
        let json = |key: &str| format!(r#"{{"meshKey":"{key}","version":2}}"#);
        assert!(introduced(&with, &json(&key)).is_mesh);
        assert!(!introduced(&with, &json(&"5b".repeat(32))).is_mesh);
        assert!(!introduced(&with, &json("")).is_mesh);
        assert!(!introduced(&with, "{}").is_mesh);
        let without = Server::new(secret(1), None);
        assert!(!introduced(&without, &json(&key)).is_mesh);
    }

    #[test]
    fn a_box_of_another_key_does_not_open() {
        let server = Server::new(secret(1), None);
        let mut client = Client::new(secret(2), [3; NONCE_LEN]);
        let greeting = server.greeting();
        let Ok(Step::Send(bytes)) = client.handle_frame(&read(Receives::Client, &greeting)) else {
            panic!();
        };
        let Frame::ClientInfo(info) = read(Receives::Server, &bytes) else {
            panic!();
        };
        for key in [secret(9).public(), NodeKey::from_bytes([0; 32])] {
            let stolen = Frame::ClientInfo(ClientInfo { key, ..info });
            let verdict = server.handle_frame(&stolen, [4; NONCE_LEN], |_| true);
            assert!(matches!(verdict, Err(Error::BadBox)));
        }
        let cut = Frame::ClientInfo(ClientInfo {
            sealed: &info.sealed[1..],
            ..info
        });
        let verdict = server.handle_frame(&cut, [4; NONCE_LEN], |_| true);
        assert!(matches!(verdict, Err(Error::BadBox)));
    }

    #[test]
    fn nonsense_is_refused() {
        let server = Server::new(secret(1), None);
        for json in ["", "[", "7", r#"{"version":"two"}"#] {
            let verdict = judge(&server, json);
            assert!(matches!(verdict, Err(Error::Protocol(_))), "{json}");
        }
        let ping = Frame::Ping(frame::Ping { data: [0; 8] });
        let verdict = server.handle_frame(&ping, [4; NONCE_LEN], |_| true);
        assert!(matches!(verdict, Err(Error::Protocol(_))));
        let mut client = Client::new(secret(2), [3; NONCE_LEN]);
        assert!(client.handle_frame(&ping).is_err());
    }

    #[test]
    fn a_mesh_key_does_not_print_itself() {
        let key = MeshKey::from_hex(&"5a".repeat(32));
        assert_eq!(format!("{key:?}"), "Some(MeshKey([redacted]))");
    }
}
