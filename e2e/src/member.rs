//! A member of a network whose node is not ours: it speaks the protocol, and says what it likes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use codewire::rpc::{Channel, Coding, Incoming};
use codewire::uplink::{self, Files, Membership, Uplink};
use codewire::verb::{Call, Reply};
use mesh::io::{Config, Mesh, Peer, Relay};
use mesh::{Identity, NodeRecord, Seed};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::PATIENCE;
use crate::local::temporary;

/// What is said first on a stream between nodes: on whose behalf, by which grant, and the call.
pub type Envelope = (Option<(u32, Option<String>)>, Option<String>, Call);

/// See the module. Everything of it ends when it is dropped.
pub struct Member {
    mesh: Mesh,
    uplink: Uplink,
    membership: Membership,
    identity: Arc<Identity>,
    runtime: Runtime,
    _dir: TempDir,
}

impl Member {
    /// Joins by an invite, connects to the relay, and takes part in the mesh by way of it.
    ///
    /// # Panics
    ///
    /// When it is not let in.
    #[must_use]
    pub fn join(relay: &str, invite: &str, name: &str) -> Self {
        let runtime = Runtime::new().expect("a runtime needs no more than threads");
        let mut seed = [7; 32];
        seed.iter_mut()
            .zip(name.bytes())
            .for_each(|(to, from)| *to = from);
        let identity = Arc::new(Identity::from_seed(&Seed::from_bytes(seed)));
        let node_name = name.parse().expect("a name of a node");
        let joined = uplink::join(relay, invite, &node_name, &identity);
        let membership = runtime.block_on(joined).expect("the invite is good");
        let dir = temporary();
        let files = Files {
            cache: dir.path().join("netmap"),
            issuers: dir.path().join("issuers"),
        };
        let (mesh, uplink) = runtime.block_on(async {
            let config = Config {
                identity: Arc::clone(&identity),
                udp_port: 0,
                direct: false,
                port_mapping: false,
            };
            let mesh = Mesh::start(config).await.expect("a port is free");
            mesh.set_relay(Some(Relay {
                url: relay.to_owned(),
                tls: None,
                proxy: None,
                stun: None,
            }));
            let uplink = Uplink::start(membership.clone(), Arc::clone(&identity), files, vec![]);
            let (uplink, _) = uplink.expect("the membership is right");
            (mesh, uplink)
        });
        Self {
            runtime,
            mesh,
            uplink,
            membership,
            identity,
            _dir: dir,
        }
    }

    /// Waits until a node of this name is online, lets it in, and returns its record.
    ///
    /// # Panics
    ///
    /// When it does not come within [`PATIENCE`].
    #[must_use]
    pub fn peer(&self, name: &str) -> NodeRecord {
        let name = name.parse().expect("a name of a node");
        let mut view = self.uplink.view();
        let peer = self.runtime.block_on(async {
            let online = view.wait_for(|view| view.peers.get(&name).is_some_and(|it| it.online));
            let view = timeout(PATIENCE, online).await.expect("the node comes");
            view.expect("the uplink lives").peers[&name].record.clone()
        });
        self.mesh.upsert_peer(Peer {
            key: peer.key,
            sign_key: peer.sign_key,
        });
        peer
    }

    /// Makes a call on a node, and returns the first answer.
    ///
    /// # Panics
    ///
    /// When the node gives none within [`PATIENCE`].
    #[must_use]
    pub fn ask(&self, node: &NodeRecord, envelope: &Envelope) -> Reply {
        let asked = async {
            let (send, recv) = self
                .mesh
                .open(&node.key)
                .await
                .map_err(|it| it.to_string())?;
            let mut channel = Channel::new(recv, send, Coding::Binary);
            channel.call(envelope).await.map_err(|it| it.to_string())
        };
        let answer = async { timeout(PATIENCE, asked).await };
        let answer = self.runtime.block_on(answer);
        let answer = answer.unwrap_or_else(|_| panic!("no answer to {envelope:?}"));
        answer.unwrap_or_else(|error| panic!("{error}: no answer to {envelope:?}"))
    }

    /// The code of the refusal, or the answer.
    ///
    /// # Panics
    ///
    /// As [`Self::ask`].
    #[must_use]
    pub fn refusal(&self, node: &NodeRecord, envelope: &Envelope) -> String {
        match self.ask(node, envelope) {
            Reply::Error(failure) => failure.code,
            other => format!("{other:?}"),
        }
    }

    /// Waits for the next call of another node, and answers it.
    ///
    /// # Panics
    ///
    /// When none comes within [`PATIENCE`].
    #[must_use]
    pub fn serve(&self, answer: impl FnOnce(&Call) -> Reply) -> Call {
        self.serve_and_tell(answer).0
    }

    /// The same, and whether the call came before the end of the handshake (0-RTT).
    ///
    /// # Panics
    ///
    /// As [`Self::serve`].
    #[must_use]
    pub fn serve_and_tell(&self, answer: impl FnOnce(&Call) -> Reply) -> (Call, bool) {
        let served = async {
            let arrival = self.mesh.accept().await.expect("the mesh lives");
            let early = arrival.recv.is_0rtt();
            let mut channel = Channel::new(arrival.recv, arrival.send, Coding::Binary);
            let said = channel.receiver.next::<Envelope>().await;
            let Ok(Some(Incoming::Control((_, _, call)))) = said else {
                panic!("a stream without a call");
            };
            let reply = answer(&call);
            channel.sender.send(&reply).await.expect("it listens");
            channel.sender.finish().await;
            while let Ok(Some(_)) = channel.receiver.next_frame().await {}
            (call, early)
        };
        let served = async { timeout(PATIENCE, served).await };
        self.runtime.block_on(served).expect("somebody calls")
    }

    /// Ends the connections with a node; the tunnel stays.
    pub fn drop_connections(&self, node: &NodeRecord) {
        self.mesh.test_drop_connections(&node.key);
    }

    /// Forgets by which tickets nodes may resume connections.
    pub fn forget_tickets(&self) {
        self.mesh.test_forget_tickets();
    }

    /// Asks the relay something as this node; the status and the body of its answer.
    ///
    /// # Panics
    ///
    /// When it cannot be reached.
    #[must_use]
    pub fn request(&self, method: &str, path: &str, body: &Value) -> (u16, String) {
        let body = body.to_string();
        let target = (method, path);
        let proof = uplink::sign(&self.membership, &self.identity, target, body.as_bytes());
        let proof = proof.expect("it can be signed");
        let relay = self.membership.relay_url.trim_start_matches("http://");
        let mut stream = TcpStream::connect(relay).expect("the relay listens");
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {relay}\r\nconnection: close\r\n\
             authorization: {proof}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        let asked = stream.write_all((head + &body).as_bytes());
        asked.expect("the relay listens");
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .expect("the relay answers");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        (status.unwrap_or_default(), body.to_owned())
    }

    /// The network that it is in.
    #[must_use]
    pub fn network(&self) -> &str {
        self.membership.network.as_str()
    }
}
