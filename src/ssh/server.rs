//! The node's SSH server: who may come in, and what channels there are.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::PrivateKey;
use russh::server::{
    Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey, run_stream,
};
use russh::{Channel, ChannelOpenFailure, MethodKind};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::timeout;

use super::program::Account;
use super::{Asked, Authorized, Door, Doors, Pipe, answer_requests, channel, config, forward};

/// Channels of one connection at a time.
const MAX_CHANNELS: usize = 16;

/// From the first byte to a login.
const LOGIN_LIMIT: Duration = Duration::from_secs(60);

/// How long a port on this machine may take to be connected to.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// What a node needs to serve SSH.
#[derive(Clone)]
pub(crate) struct Node {
    /// What it takes.
    pub(crate) doors: Doors,
    /// Whether ports of its loopback may be reached.
    pub(crate) forward: bool,
    /// Whether its files may be had.
    pub(crate) files: bool,
    /// Its `authorized_keys`.
    pub(crate) authorized: PathBuf,
    /// Its host key.
    pub(crate) host_key: PrivateKey,
    /// Whom programs run as.
    pub(crate) account: Account,
}

impl Node {
    /// Whether somebody may come through this door.
    pub(crate) fn takes(&self, door: Door) -> bool {
        self.doors.told().contains(&door)
    }
}

/// Serves one visit; returns when it is over. Its programs are hung up at the latest when `gone`
/// becomes true: a connection whose input nobody takes does not notice its own end.
pub(crate) async fn serve(node: Node, door: Door, stream: Pipe, gone: watch::Receiver<bool>) {
    if !node.takes(door) {
        return;
    }
    let methods: &[MethodKind] = match door {
        Door::Jump => &[MethodKind::PublicKey],
        Door::Terminal => &[MethodKind::None],
    };
    let config = config(node.host_key.clone(), methods);
    let (logged_in, login) = oneshot::channel();
    let visit = Visit {
        node,
        door,
        channels: Arc::new(Semaphore::new(MAX_CHANNELS)),
        asked: Asked::default(),
        logged_in: Some(logged_in),
        gone: gone.clone(),
    };
    let running = timeout(LOGIN_LIMIT, run_stream(config, stream, visit)).await;
    // Else it went away, or does not speak SSH.
    let Ok(Ok(running)) = running else {
        return;
    };
    let handle = running.handle();
    let mut running = std::pin::pin!(running);
    tokio::select! {
        _ = &mut running => return,
        login = timeout(LOGIN_LIMIT, login) => {
            if !matches!(login, Ok(Ok(()))) {
                let why = "nobody has logged in".to_owned();
                let _ = handle
                    .disconnect(russh::Disconnect::ByApplication, why, String::new())
                    .await;
            }
        }
    }
    let _ = running.await;
}

/// One connection.
struct Visit {
    node: Node,
    door: Door,
    channels: Arc<Semaphore>,
    asked: Asked,
    logged_in: Option<oneshot::Sender<()>>,
    gone: watch::Receiver<bool>,
}

impl Handler for Visit {
    type Error = russh::Error;

    async fn auth_none(&mut self, _: &str) -> Result<Auth, Self::Error> {
        // The relay has asked who it is, and this node believes it (see `takes`).
        Ok(match self.door {
            Door::Terminal => Auth::Accept,
            Door::Jump => Auth::reject(),
        })
    }

    async fn auth_publickey_offered(
        &mut self,
        _: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(self.judge(offer.public_key))
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        let judged = self.judge(key.public_key);
        if judged == Auth::Accept {
            let fingerprint = super::keys::fingerprint(key.public_key);
            tracing::info!(user = %crate::show::clean(user), %fingerprint, "SSH login");
        }
        Ok(judged)
    }

    async fn auth_succeeded(&mut self, _: &mut Session) -> Result<(), Self::Error> {
        if let Some(logged_in) = self.logged_in.take() {
            let _ = logged_in.send(());
        }
        Ok(())
    }

    answer_requests!();

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let Ok(place) = Arc::clone(&self.channels).try_acquire_owned() else {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        };
        let served = self.asked.open(channel.id());
        reply.accept().await;
        let handle = session.handle();
        let (account, files) = (self.node.account.clone(), self.node.files);
        let mut gone = self.gone.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = channel::serve(channel, handle, account, files) => {}
                _ = gone.wait_for(|gone| *gone) => {}
            }
            drop((place, served));
        });
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let target = forward::target(host, port).filter(|_| self.node.forward);
        let place = Arc::clone(&self.channels).try_acquire_owned();
        let (Some(target), Ok(place)) = (target, place) else {
            reply
                .reject(ChannelOpenFailure::AdministrativelyProhibited)
                .await;
            return Ok(());
        };
        let mut gone = self.gone.clone();
        tokio::spawn(async move {
            match timeout(CONNECT_LIMIT, TcpStream::connect(target)).await {
                Ok(Ok(stream)) => {
                    reply.accept().await;
                    tokio::select! {
                        () = forward::splice(channel, stream) => {}
                        _ = gone.wait_for(|gone| *gone) => {}
                    }
                }
                Ok(Err(_)) | Err(_) => reply.reject(ChannelOpenFailure::ConnectFailed).await,
            }
            drop(place);
        });
        Ok(())
    }
}

impl Visit {
    fn judge(&self, key: &russh::keys::PublicKey) -> Auth {
        let known = self.door == Door::Jump && Authorized::read(&self.node.authorized).has(key);
        if known { Auth::Accept } else { Auth::reject() }
    }
}
