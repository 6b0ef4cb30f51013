//! There: the same call on another node, and both streams spliced together.
//!
//! The first frame to the peer is an [`Envelope`]: the call, and the session of this node on
//! whose behalf it is made, which this node has proven. Then frames go both ways until the peer
//! closes; control frames change their coding, raw bytes do not. Our half stays open until then:
//! its end is how the peer knows that the caller has gone.

use std::time::Duration;

use super::network::Network;
use crate::error::{Error, Result};
use crate::rpc::frame::Kind;
use crate::rpc::{Channel, Coding, Incoming, Receiver, Sender};
use crate::verb::{Call, Failure, Reply};

/// How long it may take to reach a node that the relay holds for online.
const OPEN: Duration = Duration::from_secs(10);

/// The first frame between nodes.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize, bincode::Encode, bincode::Decode)]
pub(crate) struct Envelope {
    /// The session that asks, with the name it has; none for the owner in no session.
    pub session: Option<(u32, Option<String>)>,
    /// The token of a grant by which it may be asked.
    pub grant: Option<String>,
    /// The question, naming no node.
    pub call: Call,
}

/// Makes the call on `node` and relays everything until it ends.
///
/// # Errors
///
/// `node_unknown`, `node_down`, `node_unreachable`, `connection_lost`. What the other node
/// answers, errors too, has been relayed and is not one.
pub(super) async fn forward(
    network: &Network,
    node: &str,
    envelope: Envelope,
    near: &mut Channel,
    modern: bool,
) -> Result<()> {
    let peer = network.peer(node)?;
    let down = || Error::new("node_down", format!("node {node} is down"));
    if network.is_absent(&peer) {
        return Err(down());
    }
    let gone = network.gone(&peer.record.name, &peer.record.key);
    let mut far = tokio::select! {
        far = open(network, node, &peer) => far?,
        () = gone => return Err(down()),
    };
    let steered = steers(&envelope.call);
    far.sender.send(&envelope).await?;
    let mut answered = false;
    // Kept over all rounds: what was read from the caller and not yet sent is in it.
    let steering = steer(&mut near.receiver, &mut far.sender);
    let gone = network.gone(&peer.record.name, &peer.record.key);
    tokio::pin!(steering, gone);
    loop {
        let frame = tokio::select! {
            frame = far.receiver.next_frame() => frame,
            () = &mut gone => return Err(lost(node, "it is down")),
            // Dropping the stream is what tells the peer that the caller is gone.
            steered = &mut steering, if steered => return steered,
        };
        let frame = match frame {
            Ok(Some(frame)) => frame,
            Ok(None) if answered => return Ok(()),
            Ok(None) | Err(_) => return Err(lost(node, "it has ended or cannot be reached")),
        };
        if frame.kind == Kind::Data {
            near.sender.send_data(&frame.payload).await?;
            continue;
        }
        if let Incoming::Control(reply) = far.receiver.interpret::<Reply>(frame)? {
            answered = true;
            near.sender.send(&translate(reply, modern)).await?;
        }
    }
}

/// Makes a short call on `node` and waits for its answer, at most `limit` from when it is reached.
///
/// # Errors
///
/// As [`forward`]; what the other node answers that is an error.
pub(super) async fn ask(
    network: &Network,
    node: &str,
    envelope: &Envelope,
    limit: Duration,
) -> Result<Reply> {
    let peer = network.peer(node)?;
    if network.view().connected && !peer.online {
        return Err(Error::new("node_down", format!("node {node} is down")));
    }
    let mut far = open(network, node, &peer).await?;
    let gone = network.gone(&peer.record.name, &peer.record.key);
    let asked = tokio::select! {
        asked = tokio::time::timeout(limit, far.call(envelope)) => asked,
        () = gone => return Err(lost(node, "it has ended or cannot be reached")),
    };
    let reply = asked
        .map_err(|_| Error::new("node_unreachable", format!("node {node} does not answer")))?;
    match reply? {
        Reply::Error(failure) => Err(failure.into()),
        reply => Ok(reply),
    }
}

/// Opens a stream to the node. If that cannot be and this node is cut off from the relay, the cause
/// of that (it may have been put out of the network) is what the caller has to know.
async fn open(network: &Network, node: &str, peer: &crate::uplink::PeerView) -> Result<Channel> {
    let opened = tokio::time::timeout(OPEN, network.mesh.open(&peer.record.key)).await;
    let why = match opened {
        Ok(Ok((send, recv))) => return Ok(Channel::new(recv, send, Coding::Binary)),
        Ok(Err(error)) => format!("cannot be reached: {error}"),
        Err(_) => "does not answer".to_owned(),
    };
    let error = Error::new("node_unreachable", format!("node {node} {why}"));
    Err(match network.cut_off() {
        Some(cause) => error.hint(format!("this node has no connection to the relay: {cause}")),
        None => error,
    })
}

fn lost(node: &str, why: &str) -> Error {
    Error::new(
        "connection_lost",
        format!("the connection to {node} was lost: {why}"),
    )
}

/// Whether the caller may go on speaking, or its leaving matters, while the call runs.
pub(super) fn steers(call: &Call) -> bool {
    match call {
        Call::Attach(_)
        | Call::MsgRequest(_)
        | Call::MsgListen(_)
        | Call::WatchSession(_)
        | Call::Wait(_)
        | Call::Subscribe(_) => true,
        Call::Logs(logs) => logs.follow,
        _ => false,
    }
}

/// Relays what the caller says until it has gone.
async fn steer(near: &mut Receiver, far: &mut Sender) -> Result<()> {
    while let Some(incoming) = near.next::<Call>().await? {
        match incoming {
            Incoming::Data(bytes) => far.send_data(&bytes).await?,
            Incoming::Control(call) => far.send(&call).await?,
        }
    }
    Err(Error::new("connection_lost", "the client is gone"))
}

/// The end of an attachment as this client knows it.
fn translate(reply: Reply, modern: bool) -> Reply {
    match reply {
        Reply::Exited(exited) if !modern => Reply::Error(Failure {
            message: format!("session {}", exited.status),
            code: "session_ended".to_owned(),
            hint: None,
        }),
        reply => reply,
    }
}
