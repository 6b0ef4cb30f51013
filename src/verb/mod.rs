//! One verb, one file: the struct that is at once the command line's arguments and the message on
//! the wire, its reply, `run` (in your process) and `handle` (in the node that owns the session).
//!
//! [`Call`] is every question a node answers, [`Reply`] every answer; their names and fields are
//! the ones that clients of the local socket already speak. A handler only ever sees its own
//! sessions: whether a call is for this node or another was decided before it got here.

pub mod access;
pub(crate) mod again;
pub mod attach;
pub(crate) mod complete;
pub mod completion;
pub mod config_ssh;
pub mod deliver;
pub mod doctor;
pub mod errand;
pub mod event;
pub mod failure;
pub mod group;
pub mod health;
pub mod hello;
pub mod inbox;
pub mod info;
pub mod kill;
pub mod kv;
pub mod launch;
pub mod list;
pub mod listen;
pub mod login;
pub mod logout;
pub mod logs;
pub mod msg;
pub mod network;
pub mod node;
pub mod outbox;
mod own;
pub mod process;
pub mod progress;
pub mod recipient;
pub mod relay;
pub mod rename;
pub mod reply;
pub mod request;
pub mod screen;
pub mod select;
pub mod send;
pub(crate) mod sending;
pub mod server;
pub mod ssh_key;
pub mod status;
pub mod subscribe;
pub mod tag;
pub mod wait;
pub mod watch;
pub mod whoami;

pub use failure::Failure;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::locator::{Locator, Session};
use crate::node::{Action, Context};

/// A question to a node.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
#[serde(tag = "type")]
pub enum Call {
    /// Who are you, and what do you speak?
    Hello(hello::Hello),
    /// Start a session.
    Launch(launch::Launch),
    /// Which sessions are there?
    ListSessions(list::List),
    /// Take a session over.
    Attach(attach::Attach),
    /// While attached: let go.
    Detach,
    /// While attached: the terminal has another size.
    Resize(attach::Resize),
    /// Read what a session has printed.
    Logs(logs::Logs),
    /// Type into a session.
    SendInput(send::Send),
    /// End a session.
    Kill(kill::KillOne),
    /// End every session.
    KillAll(kill::KillAll),
    /// End the sessions with one of some tags.
    KillByTags(kill::KillByTags),
    /// How is a session?
    GetStatus(status::Status),
    /// See what sessions print.
    WatchSession(watch::Watch),
    /// Block until something has come about.
    Wait(wait::Wait),
    /// Follow what happens.
    Subscribe(subscribe::Subscribe),
    /// While subscribed: enough.
    Unsubscribe,
    /// What does a session show?
    Screen(screen::Screen),
    /// Name a session.
    Rename(rename::Rename),
    /// Label a session.
    Tag(tag::Tag),
    /// Leave a message.
    MsgSend(msg::Msg),
    /// Read messages.
    MsgRead(inbox::Inbox),
    /// Ask and wait for the answer.
    MsgRequest(request::Request),
    /// Answer.
    MsgReply(reply::Reply),
    /// Follow messages.
    MsgListen(listen::Listen),
    /// Wait for the reply to an earlier request.
    MsgResume(request::Resume),
    /// Which messages are on their way to other nodes?
    MsgOutbox(outbox::Outbox),
    /// How far has a message come?
    MsgProgress(progress::Ask),
    /// From node to node: take these messages.
    MsgDeliver(deliver::Deliver),
    /// Store a value that the network shares.
    #[serde(rename = "KVSet")]
    KvSet(kv::Set),
    /// Read one.
    #[serde(rename = "KVGet")]
    KvGet(kv::Get),
    /// Delete one.
    #[serde(rename = "KVDelete")]
    KvDelete(kv::Delete),
    /// Which are there?
    #[serde(rename = "KVList")]
    KvList(kv::List),
    /// Follow what changes.
    #[serde(rename = "KVWatch")]
    KvWatch(kv::Watch),
    /// Which nodes are there, and how are they reached?
    ListNodes(node::List),
    /// How long does a node take to answer?
    PingNode(node::Ping),
    /// Join a network.
    JoinNetwork(network::Join),
    /// Ask the relay something in the node's name.
    RunErrand(errand::Errand),
    /// End the node and its sessions.
    StopNode(process::Stop),
    /// End the node alone; its keeper starts it again.
    RestartNode(process::Restart),
    /// While attached: here is my terminal; its descriptors come with this.
    LendTerminal,
    /// How do you reach the relay and the other nodes?
    NodeStatus(node::status::Status),
    /// What have you counted?
    NodeMetrics(node::metrics::Metrics),
}

/// An answer of a node, or a piece of one.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
#[serde(tag = "type")]
pub enum Reply {
    /// To `Hello`.
    Hello(hello::Welcome),
    /// To `Launch`.
    Launched(launch::Launched),
    /// To `ListSessions`.
    SessionList(list::SessionList),
    /// To `Attach`; raw bytes follow.
    Attached(attach::Attached),
    /// While attached: output was left out, a repaint follows.
    Repainted(attach::Repainted),
    /// The end of an attachment that was let go.
    Detached(attach::Detached),
    /// The session has ended; every byte of it came before.
    Exited(info::Exited),
    /// To a lone `Resize`.
    Resized,
    /// To `Logs`, and its pieces.
    LogData(logs::LogData),
    /// To `SendInput`.
    InputSent(send::InputSent),
    /// To `Kill`.
    Killed(kill::Killed),
    /// To `KillAll` and `KillByTags`.
    KilledAll(kill::KilledAll),
    /// To `GetStatus`.
    SessionStatus(Box<status::SessionStatus>),
    /// To `WatchSession`, many times.
    WatchUpdate(watch::WatchUpdate),
    /// To `Wait`, at once.
    Waiting,
    /// To `Wait`, in the end.
    WaitResult(wait::WaitResult),
    /// To `Subscribe`; events follow.
    SubscribeAck(subscribe::Subscribed),
    /// To `Unsubscribe`.
    Unsubscribed,
    /// To `Screen`.
    ScreenShown(screen::ScreenShown),
    /// To `Rename`.
    Renamed(rename::Renamed),
    /// To `Tag`.
    Tagged(tag::Tagged),
    /// To `MsgSend`.
    MsgSent(msg::MsgSent),
    /// To `MsgRead`.
    MsgReadResult(inbox::Messages),
    /// To `MsgRequest`, when the answer has come.
    MsgRequestResult(request::Answered),
    /// To `MsgReply`.
    MsgReplySent(reply::Sent),
    /// To `MsgRequest` that does not wait.
    MsgRequested(request::Asked),
    /// To `MsgListen`; events follow.
    MsgListenAck(listen::Listening),
    /// To `MsgOutbox`.
    MsgLetters(outbox::Letters),
    /// To `MsgProgress`.
    MsgProgress(progress::Now),
    /// To `MsgDeliver`.
    MsgDelivered(deliver::Delivered),
    /// Something that happened.
    Event(event::Happened),
    /// Events that are no longer kept.
    EventGap(subscribe::Gap),
    /// To `KVSet`.
    #[serde(rename = "KVSetOK")]
    KvSet(kv::Done),
    /// To `KVGet`.
    #[serde(rename = "KVGetResult")]
    KvValue(kv::Value),
    /// To `KVDelete`.
    #[serde(rename = "KVDeleteOK")]
    KvDelete(kv::Done),
    /// To `KVList`.
    #[serde(rename = "KVListResult")]
    KvEntries(kv::Entries),
    /// To `KVWatch`, many times.
    #[serde(rename = "KVChanged")]
    KvChanged(kv::Changed),
    /// To `ListNodes`.
    NodeList(node::Nodes),
    /// To `PingNode`.
    NodePong(node::Pong),
    /// To `JoinNetwork`.
    NetworkJoined(network::Joined),
    /// To `RunErrand`.
    ErrandRun(errand::Done),
    /// To `StopNode`; the node is gone when the connection closes.
    NodeStopping(process::Stopping),
    /// To `RestartNode`.
    NodeRestarting,
    /// It did not work.
    Error(Failure),
    /// To `LendTerminal` that cannot be used: raw bytes follow, and are expected.
    TerminalReturned,
    /// To `ListSessions` that asks for it.
    SessionTable(list::SessionTable),
    /// To `NodeStatus`.
    NodeStanding(Box<node::status::Standing>),
    /// To `NodeMetrics`.
    NodeNumbers(node::metrics::Numbers),
}

impl Reply {
    /// The error for an answer that does not belong to the question.
    #[must_use]
    pub fn unexpected(self) -> Error {
        match self {
            Self::Error(failure) => failure.into(),
            other => Error::bad_request(format!("unexpected answer {other:?}")),
        }
    }
}

impl Call {
    /// Where the call says which node it is for, so that routing can read and clear it.
    pub fn node_mut(&mut self) -> Option<&mut Option<String>> {
        Some(match self {
            Self::Launch(call) => &mut call.node,
            Self::ListSessions(call) => &mut call.node,
            Self::Attach(call) => &mut call.target.node,
            Self::Logs(call) => &mut call.target.node,
            Self::SendInput(call) => &mut call.target.node,
            Self::Kill(call) => &mut call.target.node,
            Self::KillAll(call) => &mut call.node,
            Self::KillByTags(call) => &mut call.node,
            Self::GetStatus(call) => &mut call.target.node,
            Self::WatchSession(call) => &mut call.select.node,
            Self::Wait(call) => &mut call.select.node,
            Self::Subscribe(call) => &mut call.select.node,
            Self::Screen(call) => &mut call.target.node,
            Self::Rename(call) => &mut call.target.node,
            Self::Tag(call) => &mut call.target.node,
            Self::MsgSend(call) => call.to.node_mut(),
            Self::MsgRead(call) => &mut call.target.node,
            Self::MsgRequest(call) => &mut call.to.node,
            Self::MsgReply(call) => &mut call.node,
            Self::MsgListen(call) => &mut call.node,
            Self::Hello(_)
            | Self::Detach
            | Self::Resize(_)
            | Self::Unsubscribe
            | Self::MsgResume(_)
            | Self::MsgOutbox(_)
            | Self::MsgProgress(_)
            | Self::MsgDeliver(_)
            | Self::KvSet(_)
            | Self::KvGet(_)
            | Self::KvDelete(_)
            | Self::KvList(_)
            | Self::KvWatch(_)
            | Self::ListNodes(_)
            | Self::PingNode(_)
            | Self::NodeStatus(_)
            | Self::NodeMetrics(_)
            | Self::JoinNetwork(_)
            | Self::RunErrand(_)
            | Self::RestartNode(_)
            | Self::LendTerminal
            | Self::StopNode(_) => return None,
        })
    }

    /// The session that the caller says it is, for the calls that have a sender.
    #[must_use]
    pub fn sender(&self) -> Option<&Locator> {
        match self {
            Self::MsgSend(call) => call.from.as_ref(),
            Self::MsgRequest(call) => call.from.as_ref(),
            Self::MsgReply(call) => call.from.as_ref(),
            _ => None,
        }
    }

    /// What the call does, for the policy. Each verb has its row; none is forgotten because the
    /// match has no default arm.
    #[must_use]
    pub fn action(&self) -> Action {
        match self {
            Self::Hello(_)
            | Self::Detach
            | Self::Resize(_)
            | Self::LendTerminal
            | Self::Unsubscribe => Action::Greet,
            Self::ListSessions(_) => Action::List,
            Self::Attach(call) if call.read_only => Action::Watch,
            Self::Attach(_)
            | Self::Launch(_)
            | Self::SendInput(_)
            | Self::Kill(_)
            | Self::KillAll(_)
            | Self::KillByTags(_)
            | Self::Rename(_)
            | Self::Tag(_) => Action::Manage,
            Self::Logs(_)
            | Self::GetStatus(_)
            | Self::Screen(_)
            | Self::WatchSession(_)
            | Self::Wait(_)
            | Self::Subscribe(_) => Action::Watch,
            Self::MsgSend(_)
            | Self::MsgRequest(_)
            | Self::MsgResume(_)
            | Self::MsgProgress(_)
            | Self::MsgDeliver(_) => Action::Message,
            // A session gets its own alone.
            Self::MsgOutbox(_) => Action::Network,
            Self::MsgReply(_) => Action::Reply,
            Self::MsgRead(call) => Action::ReadInbox(call.target.session.clone()),
            Self::MsgListen(call) => Action::Listen(call.session.clone()),
            Self::KvSet(_)
            | Self::KvGet(_)
            | Self::KvDelete(_)
            | Self::KvList(_)
            | Self::KvWatch(_) => Action::Share,
            Self::ListNodes(_) | Self::PingNode(_) | Self::NodeStatus(_) | Self::NodeMetrics(_) => {
                Action::Network
            }
            Self::JoinNetwork(_)
            | Self::RunErrand(_)
            | Self::StopNode(_)
            | Self::RestartNode(_) => Action::Administer,
        }
    }

    /// The session that the call is about, for the policy.
    #[must_use]
    pub fn about(&self) -> Option<&Session> {
        match self {
            Self::Attach(call) => Some(&call.target.session),
            Self::Logs(call) => Some(&call.target.session),
            Self::SendInput(call) => Some(&call.target.session),
            Self::Kill(call) => Some(&call.target.session),
            Self::GetStatus(call) => Some(&call.target.session),
            Self::Screen(call) => Some(&call.target.session),
            Self::Rename(call) => Some(&call.target.session),
            Self::Tag(call) => Some(&call.target.session),
            Self::MsgRead(call) => Some(&call.target.session),
            Self::MsgListen(call) => call.session.as_ref(),
            Self::WatchSession(call) => call.select.session.as_ref(),
            Self::Wait(call) => call.select.session.as_ref(),
            Self::Subscribe(call) => call.select.session.as_ref(),
            // Messages may go to several; each is decided where its recipient is known.
            _ => None,
        }
    }

    /// Where the call has the token of a grant.
    pub fn grant_mut(&mut self) -> Option<&mut Option<String>> {
        match self {
            Self::MsgRead(call) => Some(&mut call.grant),
            Self::MsgListen(call) => Some(&mut call.grant),
            Self::Attach(call) => Some(&mut call.grant),
            _ => None,
        }
    }

    /// Answers the call. What is streamed goes through the context's channel; what is returned is
    /// the last frame.
    ///
    /// # Errors
    ///
    /// Whatever the verb says.
    pub async fn handle(self, context: &mut Context<'_>) -> Result<Reply> {
        match self {
            Self::Hello(call) => Ok(call.handle(context)),
            Self::Launch(call) => call.handle(context).await,
            Self::ListSessions(call) => call.handle(context),
            Self::Attach(call) => call.handle(context).await,
            Self::Detach => Ok(Reply::Detached(attach::Detached { id: None })),
            Self::Resize(_) => Ok(Reply::Resized),
            Self::Logs(call) => call.handle(context).await,
            Self::SendInput(call) => call.handle(context).await,
            Self::Kill(call) => call.handle(context).await,
            Self::KillAll(call) => call.handle(context).await,
            Self::KillByTags(call) => call.handle(context).await,
            Self::GetStatus(call) => call.handle(context),
            Self::WatchSession(call) => call.handle(context).await,
            Self::Wait(call) => call.handle(context).await,
            Self::Subscribe(call) => call.handle(context).await,
            Self::Unsubscribe => Ok(Reply::Unsubscribed),
            Self::Screen(call) => call.handle(context).await,
            Self::Rename(call) => call.handle(context).await,
            Self::Tag(call) => call.handle(context).await,
            Self::MsgSend(call) => call.handle(context).await,
            Self::MsgRead(call) => call.handle(context).await,
            Self::MsgRequest(call) => call.handle(context).await,
            Self::MsgReply(call) => call.handle(context).await,
            Self::MsgListen(call) => call.handle(context).await,
            Self::MsgResume(call) => call.handle(context).await,
            Self::MsgOutbox(call) => call.handle(context),
            Self::MsgProgress(call) => call.handle(context).await,
            Self::MsgDeliver(call) => call.handle(context).await,
            Self::KvSet(call) => call.handle(context).await,
            Self::KvGet(call) => call.handle(context).await,
            Self::KvDelete(call) => call.handle(context).await,
            Self::KvList(call) => call.handle(context).await,
            Self::KvWatch(call) => call.handle(context).await,
            Self::ListNodes(call) => call.handle(context).await,
            Self::PingNode(call) => call.handle(context).await,
            Self::NodeStatus(call) => call.handle(context).await,
            Self::NodeMetrics(call) => call.handle(context),
            Self::JoinNetwork(call) => call.handle(context).await,
            Self::RunErrand(call) => call.handle(context).await,
            Self::StopNode(call) => Ok(call.handle(context)),
            Self::RestartNode(call) => call.handle(context).await,
            Self::LendTerminal => Err(Error::bad_request("LendTerminal goes with an attachment")),
        }
    }
}

/// The number of a session, for a call that names it.
///
/// # Errors
///
/// `session_not_found`, `name_invalid`.
pub(crate) fn find(context: &Context<'_>, session: &Session) -> Result<session::Info> {
    Ok(context.host.sessions.find(&session.to_ref()?)?)
}
