//! Sockets: the HTTP listener, TLS in front of it, STUN, start and stop.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::acme::Renewer;
use super::api::router;
use super::app::App;
use super::assemble::assemble;
use super::auth::Remote;
use super::config::{Config, DataDir};
use super::connection::{Caller, Ways, serve as serve_connection};
use super::error::ApiError;
use super::listen::{bind, bind_udp};
use super::store::Address;
use super::strangers::Strangers;
use super::tls::Tls;
use super::{cluster, database, ssh, stun};
use crate::error::Result;

/// Connections at one time, at most; further ones wait to be accepted. A node
/// needs two. Fewer if the process may open fewer files.
const MAX_CONNECTIONS: usize = 32_768;

/// Descriptors kept for everything that is no connection.
const RESERVED_FILES: usize = 64;

/// How long the relay waits for requests that are under way when it stops.
const STOP_LIMIT: Duration = Duration::from_secs(4);

/// What nodes are told when the relay stops: when to come back, and for how long to try.
const RECONNECT_IN: Duration = Duration::from_millis(200);
const TRY_FOR: Duration = Duration::from_secs(60);

/// How often the store is told who was seen.
const SEEN_FLUSH: Duration = Duration::from_secs(10);

/// How often records are renewed and old rows dropped.
const HOUSEKEEPING: Duration = Duration::from_secs(3_600);

/// How often shared values that have expired are swept out.
const EXPIRY_CHECK: Duration = Duration::from_secs(1);

/// Between two looks whether the data directory is free.
const LOCK_LOOK: Duration = Duration::from_millis(50);

/// A pause after `accept` failed, for want of descriptors for example.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Runs the relay until SIGINT or SIGTERM.
///
/// # Errors
///
/// `config_invalid`, `locked`, or what the system says when the
/// relay cannot start.
pub async fn serve(config: Config) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut told = std::pin::pin!(async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    });
    let relay = tokio::select! {
        relay = start_in_turn(&config) => relay?,
        () = told.as_mut() => return Ok(()),
    };
    relay.announce();
    // To systemd, if it has started us and wants to know.
    notify(&[sd_notify::NotifyState::Ready]);
    told.await;
    say("[relay] stopping");
    notify(&[sd_notify::NotifyState::Stopping]);
    relay.stop().await;
    Ok(())
}

fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

/// Starts, after whoever still has the data directory, if that is soon enough:
/// where a supervisor starts a relay's successor before it has ended.
pub(super) async fn start_in_turn(config: &Config) -> Result<Relay> {
    let deadline = Instant::now() + Duration::from_secs(config.lock_wait.into());
    loop {
        match Relay::start(config).await {
            Err(error) if error.code == "locked" && Instant::now() < deadline => {
                sleep(LOCK_LOOK).await;
            }
            other => return other,
        }
    }
}

/// A relay that runs.
pub(crate) struct Relay {
    base_url: String,
    http: SocketAddr,
    stun: Option<SocketAddr>,
    ssh: Option<SocketAddr>,
    token_made: Option<PathBuf>,
    /// Another relay has made it.
    token_is_anothers: bool,
    database: Option<Address>,
    /// How it stands with a certificate that the relay gets by itself.
    certificate: Option<String>,
    app: Arc<App>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Relay {
    /// Opens the store, binds the sockets and starts to serve.
    pub(crate) async fn start(config: &Config) -> Result<Self> {
        let checked = config.check()?;
        let listener = bind("HTTP", checked.listen)?;
        let http = listener.local_addr()?;
        let udp = match checked.stun_listen {
            Some(address) => Some(bind_udp(address).await?),
            None => None,
        };
        let stun = udp.as_ref().map(UdpSocket::local_addr).transpose()?;
        let door = match checked.ssh_listen {
            Some(address) => Some(bind("SSH", address)?),
            None => None,
        };
        let door_at = door.as_ref().map(TcpListener::local_addr).transpose()?;
        let (stop, stopped) = watch::channel(false);
        let store = database::open(&checked).await?;
        let (token, is_another) = database::token(&checked, &*store).await?;
        let places = (http, stun, door_at);
        let app = assemble(&checked, (store, token), places, stopped.clone()).await?;
        let door = match door {
            Some(door) => Some((door, database::host_key(&checked.data, &*app.store).await?)),
            None => None,
        };

        let mut tasks = JoinSet::new();
        let (tls, renewer) = secure(checked.tls, &checked.data)?;
        let certificate = renewer.as_ref().map(Renewer::words);
        if let Some(renewer) = renewer {
            tasks.spawn(until_stopped(stopped.clone(), renewer.run()));
        }
        let acceptor = Acceptor {
            ways: Ways {
                app: Arc::clone(&app),
                router: router(Arc::clone(&app)),
                tls,
                stop: stopped.clone(),
            },
            _data: checked.data,
        };
        tasks.spawn(acceptor.run(listener));
        keep_going(&mut tasks, &app, &stopped);
        for neighbour in checked.neighbours {
            let derp = app.derp.clone();
            let link = async move { derp.keep_link(neighbour).await };
            tasks.spawn(until_stopped(stopped.clone(), link));
        }
        if let Some((door, key)) = door {
            tasks.spawn(ssh::serve(Arc::clone(&app), door, key));
        }
        if let Some(udp) = udp {
            tasks.spawn(until_stopped(stopped, stun::serve(udp)));
        }
        Ok(Self {
            base_url: checked.base_url,
            http,
            stun,
            ssh: door_at,
            token_made: checked.token_made.filter(|_| !is_another),
            token_is_anothers: is_another,
            database: checked.database,
            certificate,
            app,
            stop,
            tasks,
        })
    }

    /// Says on standard error what is listening where.
    fn announce(&self) {
        if self.app.gate.is_open() {
            say("[relay] nobody is asked who they are: who reaches it is its administrator");
        }
        if let Some(path) = &self.token_made {
            say(&format!("[relay] auth token in {}", path.display()));
        }
        if self.token_is_anothers {
            say("[relay] the auth token is that of the relay which used this database first");
        }
        if let Some(stun) = self.stun {
            say(&format!("[relay] STUN listening on {stun}"));
        }
        if let Some(ssh) = self.ssh {
            say(&format!("[relay] SSH listening on {ssh}"));
        }
        if let Some(database) = &self.database {
            say(&format!("[relay] database {database}"));
        }
        if let Some(certificate) = &self.certificate {
            say(&format!("[relay] {certificate}"));
        }
        let (http, base_url) = (self.http, &self.base_url);
        say(&format!(
            "[relay] HTTP listening on {http} (base_url={base_url})"
        ));
    }

    /// Where HTTP is served.
    #[cfg(test)]
    pub(crate) fn http(&self) -> SocketAddr {
        self.http
    }

    /// What its routes share.
    #[cfg(test)]
    pub(crate) fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// Where the SSH front door is.
    #[cfg(test)]
    pub(crate) fn ssh(&self) -> Option<SocketAddr> {
        self.ssh
    }

    /// Where STUN is answered.
    #[cfg(test)]
    pub(crate) fn stun(&self) -> Option<SocketAddr> {
        self.stun
    }

    /// Says goodbye to the nodes, lets requests end, and returns within
    /// twice [`STOP_LIMIT`].
    pub(crate) async fn stop(mut self) {
        self.app.derp.depart(RECONNECT_IN, TRY_FOR);
        self.stop.send_replace(true);
        let ended = timeout(STOP_LIMIT, async {
            while self.tasks.join_next().await.is_some() {}
        });
        if ended.await.is_err() {
            self.tasks.shutdown().await;
        }
        // Others wait to hear that this one is gone; when nodes were seen can be lost.
        let written = timeout(STOP_LIMIT, async {
            self.app.leave_cluster().await;
            self.app.flush_seen().await;
        });
        if written.await.is_err() {
            tracing::warn!("the database was too slow for what was to be written at the end");
        }
    }
}

/// What a relay does beside serving, until it stops.
fn keep_going(tasks: &mut JoinSet<()>, app: &Arc<App>, stopped: &watch::Receiver<bool>) {
    let app = || Arc::clone(app);
    tasks.spawn(until_stopped(stopped.clone(), keep_house(app())));
    tasks.spawn(until_stopped(stopped.clone(), flush_seen(app())));
    tasks.spawn(until_stopped(stopped.clone(), cluster::follow(app())));
    tasks.spawn(until_stopped(stopped.clone(), expire_shared(app())));
}

/// TLS, and who looks after its certificate if that is not somebody else.
fn secure(tls: Option<Tls>, data: &DataDir) -> Result<(Option<TlsAcceptor>, Option<Renewer>)> {
    if !matches!(tls, Some(Tls::Acme(_))) {
        Renewer::none(data);
    }
    match tls {
        None => Ok((None, None)),
        Some(Tls::Files(config)) => Ok((Some(config.into()), None)),
        Some(Tls::Acme(settings)) => {
            let renewer = Renewer::new(*settings, data);
            Ok((Some(renewer.tls()?.into()), Some(renewer)))
        }
    }
}

struct Acceptor {
    ways: Ways,
    /// Held until the last connection is over.
    _data: DataDir,
}

impl Acceptor {
    async fn run(self, listener: TcpListener) {
        let mut stop = self.ways.stop.clone();
        let room = Arc::new(Semaphore::new(most_connections()));
        let strangers = Strangers::new(most_connections() / 2);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = accept(&listener, &room) => {
                    if let Some((stream, remote, permit)) = accepted {
                        let (stranger, put_out) = strangers.come(remote.ip());
                        let place = Place::new(permit);
                        let caller = Caller { remote: Remote(remote), place, stranger };
                        connections.spawn(serve_connection(
                            self.ways.clone(),
                            stream,
                            caller,
                            put_out,
                        ));
                    }
                }
                Some(_) = connections.join_next() => {}
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
        // Connections that were upgraded (coordination, packets) live in
        // tasks of their own and give their place back when they are gone.
        let all = u32::try_from(most_connections()).unwrap_or(u32::MAX);
        let _ = room.acquire_many(all).await;
    }
}

/// A connection's place among [`MAX_CONNECTIONS`]; whoever takes the
/// connection over by an upgrade keeps a clone.
#[derive(Clone)]
pub(crate) struct Place {
    _permit: Arc<OwnedSemaphorePermit>,
}

impl<S: Sync> FromRequestParts<S> for Place {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let place = parts.extensions.get::<Self>().cloned();
        place.ok_or_else(|| ApiError::bad_request("the connection has no place"))
    }
}

impl Place {
    fn new(permit: OwnedSemaphorePermit) -> Self {
        Self {
            _permit: Arc::new(permit),
        }
    }
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = Arc::clone(room).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, remote)) => {
            // Small frames, each of which somebody waits for.
            let _ = stream.set_nodelay(true);
            Some((stream, canonical(remote), permit))
        }
        Err(error) => {
            tracing::warn!(%error, "accept");
            sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn keep_house(app: Arc<App>) {
    loop {
        app.keep_house().await;
        sleep(HOUSEKEEPING).await;
    }
}

/// Readers do not depend on it: it tells those who follow, and makes room.
async fn expire_shared(app: Arc<App>) {
    loop {
        app.expire_shared().await;
        sleep(EXPIRY_CHECK).await;
    }
}

async fn flush_seen(app: Arc<App>) {
    loop {
        sleep(SEEN_FLUSH).await;
        app.flush_seen().await;
    }
}

async fn until_stopped(mut stop: watch::Receiver<bool>, work: impl Future<Output = ()>) {
    tokio::select! {
        () = work => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

/// As many as the limit on open files allows, after raising it to what the
/// system permits.
fn most_connections() -> usize {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
    let files = getrlimit(Resource::Nofile).current;
    let files = files.and_then(|files| usize::try_from(files).ok());
    let files = files.unwrap_or(usize::MAX).saturating_sub(RESERVED_FILES);
    files.clamp(16, MAX_CONNECTIONS)
}

fn canonical(address: SocketAddr) -> SocketAddr {
    let ip: IpAddr = address.ip().to_canonical();
    SocketAddr::new(ip, address.port())
}

fn say(line: &str) {
    // Nobody may be listening.
    let _ = writeln!(std::io::stderr(), "{line}");
}
