//! Somebody at the front door: who they are, and what they ask for.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use russh::keys::{HashAlg, PublicKey};
use russh::server::{
    Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey,
};
use russh::{Channel, ChannelOpenFailure};
use tokio::io::copy_bidirectional;
use tokio::sync::{Semaphore, oneshot};

use super::bridge;
use super::{Found, Wanted};
use crate::relay::app::App;
use crate::relay::clock::unix_now;
use crate::relay::store::Subject;
use crate::relay::strangers::{Step, Stranger};
use crate::ssh::{Asked, Door, answer_requests, password_hash};

/// Channels of one connection at a time.
const MAX_CHANNELS: usize = 16;

/// The port under which a jump reaches a node's own SSH server; there is no other.
const SSH_PORT: u32 = 22;

/// The longest password that is looked at, bytes.
const MAX_PASSWORD: usize = 256;

/// See the module.
pub(super) struct Guest {
    app: Arc<App>,
    ip: IpAddr,
    who: Option<Who>,
    channels: Arc<Semaphore>,
    asked: Asked,
    /// Until they have logged in.
    stranger: Option<Stranger>,
    logged_in: Option<oneshot::Sender<()>>,
}

/// Somebody who has logged in.
#[derive(Clone)]
struct Who {
    subject: Subject,
    /// The name they came under, which is a node's.
    user: String,
    /// The only node that they may reach, if a password let them in.
    only: Option<Found>,
}

impl Guest {
    /// Somebody new; the receiver hears when they have logged in.
    pub(super) fn new(
        app: Arc<App>,
        remote: SocketAddr,
        stranger: Stranger,
    ) -> (Self, oneshot::Receiver<()>) {
        let (logged_in, login) = oneshot::channel();
        let guest = Self {
            app,
            ip: remote.ip().to_canonical(),
            who: None,
            channels: Arc::new(Semaphore::new(MAX_CHANNELS)),
            asked: Asked::default(),
            stranger: Some(stranger),
            logged_in: Some(logged_in),
        };
        (guest, login)
    }

    async fn whose(&self, key: &PublicKey) -> Option<Subject> {
        let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
        match self.app.store.ssh_key(fingerprint).await {
            Ok(known) => known.map(|known| known.subject),
            Err(error) => {
                tracing::error!(%error, "store");
                None
            }
        }
    }

    /// Whom a password lets in; it is used up by that.
    async fn by_password(&self, user: &str, password: &str) -> Option<Who> {
        let wanted: Wanted = user.parse().ok()?;
        if password.len() > MAX_PASSWORD {
            return None;
        }
        let taken = self
            .app
            .store
            .take_ssh_password(password_hash(password), unix_now())
            .await;
        let right = taken.unwrap_or_else(|error| {
            tracing::error!(%error, "store");
            None
        })?;
        let is_there = right.node == wanted.node
            && wanted
                .network
                .as_ref()
                .is_none_or(|network| *network == right.network);
        let place = Wanted {
            network: Some(right.network),
            node: right.node,
        };
        let only = place.find(&self.app, &right.subject).ok()?;
        is_there.then(|| Who {
            subject: right.subject,
            user: user.to_owned(),
            only: Some(only),
        })
    }

    /// Else nobody tries to log in.
    fn keys_are_exchanged(&mut self) {
        if let Some(stranger) = &mut self.stranger {
            stranger.reaches(Step::Keys);
        }
    }

    fn welcome(&mut self, who: Who) -> Auth {
        tracing::info!(subject = who.subject.as_str(), address = %self.ip, "SSH login");
        self.who = Some(who);
        self.stranger = None;
        Auth::Accept
    }
}

impl Who {
    /// The node that they mean.
    fn node(&self, app: &App, wanted: &Wanted) -> Result<Found, String> {
        let found = wanted.find(app, &self.subject)?;
        if self.only.as_ref().is_some_and(|only| *only != found) {
            return Err("this password is for another node".to_owned());
        }
        Ok(found)
    }

    /// The node whose name they came under.
    fn by_user(&self, app: &App) -> Result<Found, String> {
        let wanted = self.user.parse();
        let wanted: Wanted = wanted.map_err(|()| {
            "say which node: ssh <node>@relay, or ssh <network>/<node>@relay".to_owned()
        })?;
        self.node(app, &wanted)
    }
}

impl Handler for Guest {
    type Error = russh::Error;

    /// Most clients begin with this, to hear what there is.
    async fn auth_none(&mut self, _: &str) -> Result<Auth, Self::Error> {
        self.keys_are_exchanged();
        Ok(Auth::reject())
    }

    async fn auth_publickey_offered(
        &mut self,
        _: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        self.keys_are_exchanged();
        Ok(match self.whose(offer.public_key).await {
            Some(_) => Auth::Accept,
            None => Auth::reject(),
        })
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        self.keys_are_exchanged();
        let Some(subject) = self.whose(key.public_key).await else {
            return Ok(Auth::reject());
        };
        Ok(self.welcome(Who {
            subject,
            user: user.to_owned(),
            only: None,
        }))
    }

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, Self::Error> {
        self.keys_are_exchanged();
        if self.app.guards.may_show_token(self.ip).is_err() {
            return Ok(Auth::reject());
        }
        match self.by_password(user, password).await {
            Some(who) => Ok(self.welcome(who)),
            None => {
                self.app.guards.wrong_token(self.ip);
                Ok(Auth::reject())
            }
        }
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
        let place = Arc::clone(&self.channels).try_acquire_owned();
        let (Some(who), Ok(place)) = (self.who.clone(), place) else {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        };
        let served = self.asked.open(channel.id());
        reply.accept().await;
        let (app, handle) = (Arc::clone(&self.app), session.handle());
        tokio::spawn(async move {
            let found = who.by_user(&app);
            bridge::terminal(&app, &who.subject, found, channel, &handle).await;
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
        let place = Arc::clone(&self.channels).try_acquire_owned();
        let (Some(who), Ok(place)) = (self.who.clone(), place) else {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        };
        let (app, host) = (Arc::clone(&self.app), host.to_owned());
        tokio::spawn(async move {
            let to_port = ["localhost", "127.0.0.1", "::1"].contains(&host.as_str());
            if to_port {
                bridge::port(
                    &app,
                    &who.subject,
                    who.by_user(&app),
                    (&host, port),
                    channel,
                    reply,
                )
                .await;
            } else {
                jump(&app, &who, (&host, port), channel, reply).await;
            }
            drop(place);
        });
        Ok(())
    }
}

/// A way to the node's own SSH server; what goes over it is sealed for the node.
async fn jump(
    app: &Arc<App>,
    who: &Who,
    (host, port): (&str, u32),
    channel: Channel<Msg>,
    reply: ChannelOpenHandle,
) {
    let wanted = host.parse::<Wanted>().ok().filter(|_| port == SSH_PORT);
    let found = wanted.and_then(|wanted| who.node(app, &wanted).ok());
    let Some(found) = found else {
        return reply
            .reject(ChannelOpenFailure::AdministrativelyProhibited)
            .await;
    };
    let subject = who.subject.as_str();
    match app
        .way(&found.network, &found.key, Door::Jump, subject)
        .await
    {
        Ok(mut way) => {
            reply.accept().await;
            let mut channel = channel.into_stream();
            // How it ended is the two ends' business.
            let _ = copy_bidirectional(&mut channel, &mut way).await;
        }
        Err(why) => {
            tracing::debug!(node = %host, %why, "no way for a jump");
            reply.reject(ChannelOpenFailure::ConnectFailed).await;
        }
    }
}
