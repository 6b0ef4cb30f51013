//! There: the same call on another node, and both streams spliced together.
//!
//! The first frame to the peer is an [`Envelope`]: the call, and the session of this node on
//! whose behalf it is made, which this node has proven. Then frames go both ways until the peer
//! closes; control frames change their coding, raw bytes do not. Our half stays open until then:
//! its end is how the peer knows that the caller has gone.
//!
//! A call that only reads does not wait for a connection if there was one before: it goes out with
//! the first packet of the next one (0-RTT). Should that be refused or lost, it is made again,
//! which does no harm, once there is a connection. All others are made once there is one.

use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::network::{Network, no_relay};
use crate::error::{Error, Result};
use crate::rpc::frame::{Frame, Kind};
use crate::rpc::{Channel, Coding, Incoming, Receiver, Sender};
use crate::uplink::PeerView;
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
        far = Far::reach(network, node, &peer, &envelope) => far?,
        () = gone => return Err(down()),
    };
    let gone = network.gone(&peer.record.name, &peer.record.key);
    let mut first = tokio::select! {
        first = far.say() => first?,
        () = gone => return Err(lost(network, node, "it is down")),
    };
    let mut far = far.channel;
    let steered = steers(&envelope.call);
    let mut answered = false;
    // Kept over all rounds: what was read from the caller and not yet sent is in it.
    let steering = steer(&mut near.receiver, &mut far.sender);
    let gone = network.gone(&peer.record.name, &peer.record.key);
    tokio::pin!(steering, gone);
    loop {
        let next = async {
            match first.take() {
                Some(frame) => Ok(Some(frame)),
                None => far.receiver.next_frame().await,
            }
        };
        let frame = tokio::select! {
            frame = next => frame,
            () = &mut gone => return Err(lost(network, node, "it is down")),
            // Dropping the stream is what tells the peer that the caller is gone.
            steered = &mut steering, if steered => return steered,
        };
        let frame = match frame {
            Ok(Some(frame)) => frame,
            Ok(None) if answered => return Ok(()),
            Ok(None) | Err(_) => {
                return Err(lost(network, node, "it has ended or cannot be reached"));
            }
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
    let mut far = Far::reach(network, node, &peer, envelope).await?;
    let slow = |_| Error::new("node_unreachable", format!("node {node} does not answer"));
    let asked = async {
        let first = timeout(limit.max(OPEN), far.say()).await.map_err(slow)??;
        match first {
            Some(frame) => far.channel.understand(frame),
            None => timeout(limit, far.channel.answer()).await.map_err(slow)?,
        }
    };
    let gone = network.gone(&peer.record.name, &peer.record.key);
    let reply = tokio::select! {
        reply = asked => reply?,
        () = gone => return Err(lost(network, node, "it has ended or cannot be reached")),
    };
    match reply {
        Reply::Error(failure) => Err(failure.into()),
        reply => Ok(reply),
    }
}

/// A stream to another node, and what is asked on it.
struct Far<'a> {
    network: &'a Network,
    node: &'a str,
    peer: &'a PeerView,
    envelope: &'a Envelope,
    channel: Channel,
    /// The stream may be refused, until it has brought something.
    early: bool,
    /// Until when it may take to have one that is not.
    until: Instant,
}

impl<'a> Far<'a> {
    async fn reach(
        network: &'a Network,
        node: &'a str,
        peer: &'a PeerView,
        envelope: &'a Envelope,
    ) -> Result<Self> {
        let until = Instant::now() + OPEN;
        let may_be_early = only_reads(&envelope.call);
        let (channel, early) = open(network, node, peer, may_be_early, until).await?;
        Ok(Self {
            network,
            node,
            peer,
            envelope,
            channel,
            early,
            until,
        })
    }

    /// Says what is wanted. If that went out early, the first frame of the answer is waited for:
    /// without one it is said again, on another stream.
    async fn say(&mut self) -> Result<Option<Frame>> {
        let said = self.channel.sender.send(self.envelope).await;
        if !self.early {
            return said.map(|()| None);
        }
        if let Ok(Some(frame)) = self.channel.receiver.next_frame().await {
            return Ok(Some(frame));
        }
        tracing::debug!(
            node = self.node,
            "an early call was refused or lost; it is made again"
        );
        let opened = open(self.network, self.node, self.peer, false, self.until).await?;
        (self.channel, self.early) = opened;
        self.channel.sender.send(self.envelope).await?;
        Ok(None)
    }
}

/// Opens a stream to the node, early if it may be, and says whether it is. If it cannot be opened
/// and this node is cut off from the relay, the cause of that (it may have been put out of the
/// network) is what the caller has to know.
async fn open(
    network: &Network,
    node: &str,
    peer: &PeerView,
    may_be_early: bool,
    until: Instant,
) -> Result<(Channel, bool)> {
    let opened = timeout_at(until, async {
        match may_be_early {
            true => network.mesh.open_early(&peer.record.key).await,
            false => network.mesh.open(&peer.record.key).await,
        }
    });
    let why = match opened.await {
        Ok(Ok((send, recv))) => {
            let early = recv.is_0rtt();
            return Ok((Channel::new(recv, send, Coding::Binary), early));
        }
        Ok(Err(error)) => format!("cannot be reached: {error}"),
        Err(_) => "does not answer".to_owned(),
    };
    let error = Error::new("node_unreachable", format!("node {node} {why}"));
    Err(with_cause(network, error))
}

/// Adds why this node is cut off from the relay, if it is.
fn with_cause(network: &Network, error: Error) -> Error {
    match network.cut_off() {
        Some(cause) => error.hint(no_relay(&cause)),
        None => error,
    }
}

fn lost(network: &Network, node: &str, why: &str) -> Error {
    let message = format!("the connection to {node} was lost: {why}");
    with_cause(network, Error::new("connection_lost", message))
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

/// Whether the call asks something, changes nothing, and has one answer: then it may be made twice.
/// Each verb has its row; none is forgotten because the match has no default arm.
const fn only_reads(call: &Call) -> bool {
    match call {
        Call::Hello(_)
        | Call::ListSessions(_)
        | Call::GetStatus(_)
        | Call::Screen(_)
        // Only a session's own reading is noted, and that on its own node.
        | Call::MsgRead(_)
        | Call::MsgOutbox(_)
        | Call::MsgProgress(_)
        | Call::KvGet(_)
        | Call::KvList(_)
        | Call::ListNodes(_)
        | Call::PingNode(_)
        | Call::NodeStatus(_)
        | Call::NodeMetrics(_) => true,
        Call::Logs(logs) => !logs.follow,
        Call::Launch(_)
        | Call::Attach(_)
        | Call::Detach
        | Call::Resize(_)
        | Call::SendInput(_)
        | Call::Kill(_)
        | Call::KillAll(_)
        | Call::KillByTags(_)
        | Call::WatchSession(_)
        | Call::Wait(_)
        | Call::Subscribe(_)
        | Call::Unsubscribe
        | Call::Rename(_)
        | Call::Tag(_)
        | Call::MsgSend(_)
        | Call::MsgRequest(_)
        | Call::MsgReply(_)
        | Call::MsgListen(_)
        | Call::MsgResume(_)
        | Call::MsgDeliver(_)
        | Call::KvSet(_)
        | Call::KvDelete(_)
        | Call::KvWatch(_)
        | Call::JoinNetwork(_)
        | Call::RunErrand(_)
        | Call::StopNode(_)
        | Call::RestartNode(_)
        | Call::LendTerminal => false,
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
