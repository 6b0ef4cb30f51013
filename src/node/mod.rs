//! The node: one process for each directory, that answers calls from this machine and from the
//! others of its network.
//!
//! A call comes in on the Unix socket or on a stream of the mesh ([`serve`]); who sends it is
//! proven, not claimed ([`caller`]); it is for this node or for another ([`route`], [`proxy`]);
//! it is allowed or not ([`policy`], [`judge`]); then the verb's own handler answers it.

mod batch;
mod caller;
mod enrol;
mod errand;
pub(crate) mod grants;
pub(crate) mod groups;
mod host;
pub(crate) mod judge;
mod network;
mod policy;
pub mod post;
pub(crate) mod proxy;
mod refusals;
mod report;
mod rest;
mod route;
mod serve;
mod standby;
mod visits;

use std::process::ExitCode;
use std::sync::Arc;

use tracing_subscriber::EnvFilter;

pub use caller::Caller;
pub use host::Host;
pub use judge::Judge;
pub use network::{Network, no_relay};
pub use policy::Action;

use self::host::Ending;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::home::{Home, write_private};
use crate::rpc::Channel;

/// The status of a node that wants to be started again (`EX_TEMPFAIL`).
const RESTART: u8 = 75;

/// What is logged unless `CODEWIRE_LOG` says otherwise.
const LOGGED: &str = "info";

/// What a handler has at hand.
pub struct Context<'a> {
    /// The node.
    pub host: &'a Arc<Host>,
    /// Who asks.
    pub caller: Caller,
    /// As whom: a session, or nobody in particular.
    pub acting: session::Party,
    /// The grant that was shown.
    pub grant: Option<crate::paper::GrantToken>,
    /// Where pieces of an answer go.
    pub channel: &'a mut Channel,
    /// Whether the client has said hello.
    pub modern: bool,
}

impl Context<'_> {
    /// The proven sender of a message.
    #[must_use]
    pub fn party(&self) -> session::Party {
        self.acting.clone()
    }

    /// Whether the caller may also do something else, to a session if it is about one.
    ///
    /// # Errors
    ///
    /// `denied`, `group_forbids`.
    pub fn may(&self, action: &Action, target: Option<session::SessionId>) -> Result<()> {
        self.judge().may(action, target)
    }

    /// What decides for this call, for those who go on asking.
    #[must_use]
    pub fn judge(&self) -> Judge {
        Judge {
            host: Arc::clone(self.host),
            caller: self.caller.clone(),
            acting: self.acting.clone(),
            grant: self.grant.clone(),
        }
    }

    /// Whether the call came from another node.
    #[must_use]
    pub fn from_afar(&self) -> bool {
        matches!(self.caller, Caller::Peer { .. })
    }
}

/// Runs the node that a keeper has started, until it is told to stop.
///
/// # Errors
///
/// What keeps it from starting; the keeper tries again.
pub fn serve_until_stopped(home: Home) -> Result<ExitCode> {
    start_log();
    let link = session::io::keeper::Link::from_env()?;
    let config = Config::load(&home)?;
    crate::cli::threads()?.block_on(async move {
        let host = Host::start(home.clone(), config, link).await?;
        let listener = serve::listen(&home)?;
        write_private(&home.pid_file(), std::process::id().to_string().as_bytes())?;
        tracing::info!(home = %home.dir().display(), pid = std::process::id(), "the node answers");
        if let Some(address) = host.config.listen.clone() {
            let token = crate::ws::token(&home)?;
            tokio::spawn(serve::remote(address, token, Arc::clone(&host)));
        }
        network::resume(&host).await;
        // A task of its own: who waits for a runtime is woken by it, which callers would wait for.
        let mut door = tokio::task::JoinSet::new();
        door.spawn(serve::local(listener, Arc::clone(&host)));
        let ending = tokio::select! {
            Some(served) = door.join_next() => served.map_err(Error::internal).flatten().map(|()| Ending::Stop),
            ending = host.ended() => Ok(ending),
            () = terminated() => {
                host.stop(host::GRACE);
                Ok(host.ended().await)
            }
        };
        if matches!(ending, Ok(Ending::Restart)) {
            // The keeper takes this for an accident and starts a successor.
            return Ok(ExitCode::from(RESTART));
        }
        for path in [home.socket(), home.pid_file()] {
            // They are only hints for others; the lock is what counts.
            let _ = std::fs::remove_file(path);
        }
        ending.map(|_| ExitCode::SUCCESS)
    })
}

async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

/// Starts the log of a process that serves: on standard error, which the one who started it has
/// led to a file. `CODEWIRE_LOG` chooses what is in it.
pub(crate) fn start_log() {
    let (filter, wrong) = match log_filter(std::env::var("CODEWIRE_LOG").ok().as_deref()) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new(LOGGED), Some(error)),
    };
    // A second call in one process keeps the first log.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        // What cannot be written, because the disk is full, is left out: to say so in the same place
        // would end the task that had something to say.
        .log_internal_errors(false)
        .try_init();
    if let Some(error) = wrong {
        tracing::warn!("{error}; everything from \"{LOGGED}\" on is logged");
    }
}

/// What is logged, by the value of `CODEWIRE_LOG`.
///
/// # Errors
///
/// `config_invalid`.
pub(crate) fn log_filter(value: Option<&str>) -> Result<EnvFilter> {
    EnvFilter::try_new(value.unwrap_or(LOGGED)).map_err(|error| {
        let value = value.unwrap_or_default();
        Error::new("config_invalid", format!("CODEWIRE_LOG={value:?}: {error}"))
            .hint("it is a level such as debug, or one for each part: info,mesh=debug")
    })
}

/// An error for what a node without a network cannot do.
pub(crate) fn no_network() -> Error {
    Error::new("no_network", "this node is in no network")
}
