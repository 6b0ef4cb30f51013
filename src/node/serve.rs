//! Takes calls in: from the Unix socket, several on one connection, and from the mesh, one on
//! each stream.

use std::os::unix::fs::PermissionsExt;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use mesh::io::{Incoming as Arrival, Mesh};
use session::{Name, Party, SessionId};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::batch::Batch;
use super::proxy::{self, Envelope};
use super::refusals::Refusals;
use super::route::{Route, route};
use super::{Caller, Context, Host, Judge, grants};
use crate::error::{Error, Result};
use crate::home::Home;
use crate::locator::Locator;
use crate::paper::GrantToken;
use crate::rpc::{Channel, Coding, Incoming};
use crate::verb::{Call, Failure, Reply};

/// Clients at one time on the Unix socket; more wait in the kernel's queue until one leaves.
const CLIENTS_MAX: usize = 2048;
/// How long a peer has to say what it wants on a stream it has opened.
const ENVELOPE_WAIT: Duration = Duration::from_secs(10);
/// The pause after a failed accept, which is a lack of descriptors and passes.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How often it is tried again to look up who calls, with that pause between.
const IDENTIFY_TRIES: u32 = 20;

/// Binds the socket, 0600. The keeper's lock says that no other node lives here, so a socket that
/// is there already is a dead one's.
pub(super) fn listen(home: &Home) -> Result<UnixListener> {
    let path = home.socket();
    match std::fs::remove_file(&path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    // Bound under another name first: it is never reachable with the wrong mode.
    let temporary = path.with_extension("new");
    let _ = std::fs::remove_file(&temporary);
    let listener = UnixListener::bind(&temporary)?;
    std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&temporary, &path)?;
    Ok(listener)
}

pub(super) async fn local(listener: UnixListener, host: Arc<Host>) -> Result<()> {
    let places = Arc::new(Semaphore::new(CLIENTS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return Ok(());
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                // Before the next one is accepted, which would take a descriptor that this may need.
                let caller = identify_patiently(&host, &stream).await;
                let host = Arc::clone(&host);
                tokio::spawn(async move {
                    client(&host, stream, caller).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a client");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One client of the Unix socket, until it leaves or says something that is not a call.
async fn client(host: &Arc<Host>, stream: UnixStream, caller: Result<Caller>) {
    let caller = match caller {
        Ok(caller) => caller,
        Err(error) => {
            tracing::info!(%error, "a client was turned away");
            let mut channel = Channel::local(stream);
            // It may be gone.
            let _ = channel.sender.send(&Reply::Error(error.into())).await;
            channel.sender.finish().await;
            return;
        }
    };
    calls(host, &caller, Channel::local(stream)).await;
}

/// WebSocket clients, for ever. They have shown the token, so they are the owner.
pub(super) async fn remote(address: String, token: String, host: Arc<Host>) {
    let client = move |channel, remote| {
        let host = Arc::clone(&host);
        async move {
            tracing::debug!(%remote, "a WebSocket client");
            calls(&host, &Caller::Owner, channel).await;
        }
    };
    if let Err(error) = crate::ws::listen(&address, token, client).await {
        // The sessions of this machine are more important than its visitors.
        tracing::error!(%error, "no WebSocket clients");
    }
}

/// One call after another on one connection.
async fn calls(host: &Arc<Host>, caller: &Caller, mut channel: Channel) {
    let mut modern = false;
    let mut batch = Batch::default();
    loop {
        let call = match batch.next_frame(host, &mut channel).await {
            Ok(Some(frame)) => channel.receiver.interpret::<Call>(frame),
            Ok(None) => return,
            Err(error) => Err(error),
        };
        let call = match call {
            Ok(Incoming::Control(call)) => call,
            Ok(Incoming::Data(_)) => {
                let error = Error::bad_request("raw bytes where a call was due");
                let _ = batch.settle(host, &mut channel).await;
                return refuse(&mut channel, error).await;
            }
            Err(error) => {
                // What came before it is acknowledged; the client may be gone already.
                let _ = batch.settle(host, &mut channel).await;
                return refuse(&mut channel, error).await;
            }
        };
        let call = match batch.take(host, caller, call, &mut channel) {
            Ok(Some(call)) => call,
            Ok(None) => continue,
            Err(_) => return,
        };
        let settled = batch.settle(host, &mut channel).await;
        let ended = match settled {
            Ok(()) => answer(host, caller, call, &mut channel, &mut modern).await,
            Err(error) => Err(error),
        };
        if ended.is_err() {
            return;
        }
    }
}

async fn refuse(channel: &mut Channel, error: Error) {
    let error = Error {
        message: error
            .message
            .replace("unknown variant", "unknown request type:"),
        ..error
    };
    // The client may be gone already.
    let _ = channel.sender.send(&Reply::Error(error.into())).await;
    channel.sender.finish().await;
}

/// As [`identify`], in a while when there is no descriptor for it now.
async fn identify_patiently(host: &Host, stream: &UnixStream) -> Result<Caller> {
    let mut found = identify(host, stream);
    for _ in 0..IDENTIFY_TRIES {
        match &found {
            Err(error) if error.code == "too_many_files" => {}
            _ => break,
        }
        tokio::time::sleep(ACCEPT_PAUSE).await;
        found = identify(host, stream);
    }
    found
}

/// The process at the other end, and the session it is in.
fn identify(host: &Host, stream: &UnixStream) -> Result<Caller> {
    let credentials = stream.peer_cred()?;
    let me = rustix::process::geteuid().as_raw();
    if credentials.uid() != me && credentials.uid() != 0 {
        return Err(Error::new(
            "denied",
            format!("user {} is not the owner", credentials.uid()),
        ));
    }
    let pid = credentials.pid().and_then(|pid| u32::try_from(pid).ok());
    let of = pid.map(|pid| host.sessions.session_of_pid(pid));
    let Some(id) = of.transpose()?.flatten() else {
        return Ok(Caller::Owner);
    };
    let name = host
        .sessions
        .find(&session::SessionRef::Id(id))
        .ok()
        .and_then(|info| info.name);
    Ok(Caller::Session(id, name))
}

/// Answers one call of a local client. An error means that the client can no longer be spoken to.
async fn answer(
    host: &Arc<Host>,
    caller: &Caller,
    mut call: Call,
    channel: &mut Channel,
    modern: &mut bool,
) -> Result<()> {
    let outcome = async {
        let me = host.name();
        let network = host.network().ok();
        let knows = |node: &str| {
            network
                .as_ref()
                .is_some_and(|network| network.peer(node).is_ok())
        };
        let place = route(&mut call, &me, knows).map_err(|error| match &network {
            None if error.code == "node_unknown" => host.network().err().unwrap_or(error),
            Some(network) if error.code == "node_unknown" => {
                network.exists().err().unwrap_or(error)
            }
            _ => error,
        })?;
        match (place, network) {
            (Route::There(node), Some(network)) => {
                // The other node decides what its sessions allow; here only who speaks is decided.
                let session = vouch(host, caller, &call, &me)?;
                let shown = call.grant_mut().and_then(Option::take);
                let accepted = || grants::accepted(&host.home, &network, &node, &call);
                let grant = shown.or_else(|| accepted().filter(|_| *caller == Caller::Owner));
                proxy::forward(
                    &network,
                    &node,
                    Envelope {
                        session,
                        grant,
                        call,
                    },
                    channel,
                    *modern,
                )
                .await?;
                Ok(None)
            }
            _ => {
                let acting = caller.acting(call.sender(), &me, |from| own_session(host, from))?;
                if call.grant_mut().is_some_and(|grant| grant.is_some()) {
                    return Err(
                        Error::new("usage", "a grant is for sessions of other nodes")
                            .hint("leave out --grant"),
                    );
                }
                handle(host, (caller.clone(), acting, None), call, channel, modern)
                    .await
                    .map(Some)
            }
        }
    }
    .await;
    match outcome {
        Ok(None) => Ok(()),
        Ok(Some(reply)) => channel.sender.send(&reply).await,
        Err(error) => {
            channel
                .sender
                .send(&Reply::Error(Failure::from(error)))
                .await
        }
    }
}

/// The session of this node on whose behalf a call goes out. A sender that is not a session of this
/// node stays in the call: the other node knows its own.
fn vouch(
    host: &Host,
    caller: &Caller,
    call: &Call,
    me: &str,
) -> Result<Option<(u32, Option<String>)>> {
    let reply = matches!(call, Call::MsgReply(_));
    let claimed = if reply && *caller == Caller::Owner {
        None
    } else {
        call.sender().cloned()
    };
    let acting = caller.acting(claimed.as_ref(), me, |from| own_session(host, from))?;
    Ok(acting
        .session
        .map(|(id, name)| (id.0, name.map(|name| name.to_string()))))
}

pub(super) fn own_session(host: &Host, from: &Locator) -> Result<Party> {
    let info = host.sessions.find(&from.session.to_ref()?)?;
    Ok(Party::local(info.id, info.name))
}

async fn handle(
    host: &Arc<Host>,
    (caller, acting, grant): (Caller, Party, Option<GrantToken>),
    call: Call,
    channel: &mut Channel,
    modern: &mut bool,
) -> Result<Reply> {
    host.rest.handle_call();
    let judge = Judge {
        host: Arc::clone(host),
        caller: caller.clone(),
        acting: acting.clone(),
        grant: grant.clone(),
    };
    let action = call.action();
    let target = call.about().and_then(|session| {
        // One that there is not is for the verb to tell; it may be a tag, too.
        let found = session.to_ref().ok();
        Some(host.sessions.find(&found?).ok()?.id)
    });
    judge.may(&action, target)?;
    let mut context = Context {
        host,
        caller,
        acting,
        grant,
        channel,
        modern: *modern,
    };
    if !proxy::steers(&call) || matches!(call, Call::MsgRequest(_)) {
        let reply = call.handle(&mut context).await;
        *modern = context.modern;
        return reply;
    }
    // What goes on is allowed as long as it would be allowed to begin.
    let targets = target.map_or_else(|| judge.allowed(&action), |target| vec![target]);
    tokio::select! {
        reply = call.handle(&mut context) => reply,
        error = judge.until_refused(&action, &targets) => Err(error),
    }
}

/// Calls from the other nodes, until the mesh closes. Boxed, because a call may join a network,
/// which starts this again.
pub(super) fn mesh(mesh: Mesh, host: Weak<Host>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        visitors(&mesh, &host).await;
    })
}

async fn visitors(mesh: &Mesh, host: &Weak<Host>) {
    let refusals = Arc::new(Refusals::default());
    while let Some(arrival) = mesh.accept().await {
        let Some(host) = host.upgrade() else { return };
        let refusals = Arc::clone(&refusals);
        tokio::spawn(async move {
            if let Err(error) = visitor(&host, arrival, &refusals).await {
                tracing::debug!(%error, "a call from another node ended");
            }
        });
    }
}

async fn visitor(host: &Arc<Host>, arrival: Arrival, refusals: &Refusals) -> Result<()> {
    let key = arrival.peer;
    let peer = host.network()?.by_key(&key);
    let mut channel = Channel::new(arrival.recv, arrival.send, Coding::Binary);
    let envelope = tokio::time::timeout(ENVELOPE_WAIT, channel.receiver.next::<Envelope>())
        .await
        .map_err(|_| Error::new("timeout", "a node has opened a stream and said nothing"))??;
    let Some(Incoming::Control(envelope)) = envelope else {
        return Err(Error::bad_request("a stream without a call"));
    };
    let name = peer.as_ref().map(|peer| peer.record.name.to_string());
    let reply = match peer {
        Some(peer) => serve_peer(host, &peer.record, envelope, &mut channel).await,
        None => Err(Error::new(
            "denied",
            "this node is not in the network that was joined here",
        )),
    };
    let reply = reply.unwrap_or_else(|error| Reply::Error(error.into()));
    refusals.note(&key, name.as_deref(), &reply);
    channel.sender.send(&reply).await?;
    channel.sender.finish().await;
    // The stream may only be dropped once the peer has taken everything, or has gone.
    while let Ok(Some(_)) = channel.receiver.next_frame().await {}
    Ok(())
}

async fn serve_peer(
    host: &Arc<Host>,
    record: &mesh::NodeRecord,
    envelope: Envelope,
    channel: &mut Channel,
) -> Result<Reply> {
    let network = host.network()?;
    let name = |text: Option<String>| text.map(|text| text.parse::<Name>()).transpose();
    let session = envelope
        .session
        .map(|(id, text)| Ok::<_, session::Error>((SessionId(id), name(text)?)))
        .transpose()?;
    let caller = Caller::Peer {
        node: record.name.to_string(),
        key: record.key,
        owner: record.owner.clone(),
        same_owner: record.owner == network.view().me.owner,
        session,
    };
    let grant = envelope.grant.as_deref().map(str::parse::<GrantToken>);
    let grant = grant
        .transpose()
        .map_err(|error| Error::new("grant_invalid", error.to_string()))?;
    let mut call = envelope.call;
    // A call is passed on once; one that still names a node was not made by our program.
    if call
        .node_mut()
        .is_some_and(|node| node.take().is_some_and(|node| node != host.name()))
    {
        return Err(Error::bad_request("a call for another node"));
    }
    let acting = caller.acting(call.sender(), &host.name(), |from| own_session(host, from))?;
    handle(host, (caller, acting, grant), call, channel, &mut true).await
}
