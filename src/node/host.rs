//! The node itself: what handlers may touch.

use std::sync::Arc;
use std::time::Duration;

use mesh::{Identity, Seed};
use parking_lot::RwLock;
use session::io::{Options, Sessions, keeper::Link};
use tokio::sync::watch;

use super::network::{self, Network};
use super::post::Post;
use super::rest::Rest;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::home::{Home, write_private};
use crate::uplink::Membership;

/// What sessions get to end by themselves when the node is told to stop by a signal.
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// The pause between the answer to a restart and the end, in which the answer goes out.
const RESTART_AFTER: Duration = Duration::from_millis(50);
/// How long a new program may take to say its version.
const VERSION_WAIT: Duration = Duration::from_secs(10);

/// How a node ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// With its sessions.
    Stop,
    /// For a successor.
    Restart,
}

/// The state of a node.
pub struct Host {
    /// Where it keeps its files.
    pub home: Home,
    /// What it was told.
    pub config: Config,
    /// Its sessions.
    pub sessions: Sessions,
    /// Its messages to other nodes.
    pub post: Post,
    /// Its keys.
    pub identity: Arc<Identity>,
    network: RwLock<Option<Arc<Network>>>,
    /// Why there is no network although one was joined.
    no_network: RwLock<Option<Error>>,
    /// Joining is done by one at a time.
    joining: tokio::sync::Mutex<()>,
    ended: watch::Sender<Option<Ending>>,
    /// What happens between calls.
    pub(super) rest: Arc<Rest>,
}

impl Host {
    pub(super) async fn start(home: Home, config: Config, link: Link) -> Result<Arc<Self>> {
        let identity = Arc::new(identity(&home)?);
        let usual = Options::default();
        let options = Options {
            keeper_argv: vec![
                std::env::current_exe()?.into_os_string(),
                "keeper".into(),
                "--adopt".into(),
            ],
            sync_always: config.sync_always,
            log_cap: config.log_mib.map_or(usual.log_cap, |mib| mib << 20),
            keep_finished: config
                .keep_finished
                .and_then(|count| usize::try_from(count).ok())
                .unwrap_or(usual.keep_finished),
            keep_finished_for: config.keep_days.map_or(usual.keep_finished_for, |days| {
                Duration::from_secs(days * 24 * 60 * 60)
            }),
        };
        let sessions = Sessions::open(home.dir().to_path_buf(), link, options).await?;
        let post = Post::open(&home, config.sync_always, sessions.clone())?;
        let host = Arc::new(Self {
            home,
            config,
            sessions,
            post,
            identity,
            network: RwLock::new(None),
            no_network: RwLock::new(None),
            joining: tokio::sync::Mutex::new(()),
            ended: watch::Sender::new(None),
            rest: Arc::default(),
        });
        tokio::spawn(Arc::clone(&host.rest).run());
        host.post.start(&host).await;
        Ok(host)
    }

    /// The node's name: the one it has in its network, else the one it would ask for.
    #[must_use]
    pub fn name(&self) -> String {
        self.network
            .read()
            .as_ref()
            .map_or_else(|| self.config.node_name.clone(), |network| network.name())
    }

    /// The network.
    ///
    /// # Errors
    ///
    /// `no_network`.
    pub fn network(&self) -> Result<Arc<Network>> {
        let network = self.network.read().clone();
        network.ok_or_else(|| {
            self.no_network
                .read()
                .clone()
                .unwrap_or_else(super::no_network)
        })
    }

    pub(super) fn set_no_network(&self, why: Error) {
        *self.no_network.write() = Some(why);
    }

    pub(super) fn set_network(&self, network: Arc<Network>) {
        *self.network.write() = Some(network);
    }

    /// Joins a network by an invite, in place of the one before.
    ///
    /// # Errors
    ///
    /// The relay's, or `relay_unreachable`.
    pub async fn join(self: &Arc<Self>, url: &str, invite: &str, name: &str) -> Result<Membership> {
        let _one = self.joining.lock().await;
        self.join_alone(url, invite, name).await
    }

    /// The same, if there is no network yet.
    ///
    /// # Errors
    ///
    /// Those of [`Self::join`], and `already_joined`.
    pub(super) async fn join_first(
        self: &Arc<Self>,
        url: &str,
        invite: &str,
        name: &str,
    ) -> Result<Membership> {
        let _one = self.joining.lock().await;
        match self.network() {
            Ok(network) => Err(Error::new(
                "already_joined",
                format!(
                    "this node was joined to {} meanwhile",
                    network.membership.network
                ),
            )),
            Err(_) => self.join_alone(url, invite, name).await,
        }
    }

    async fn join_alone(
        self: &Arc<Self>,
        url: &str,
        invite: &str,
        name: &str,
    ) -> Result<Membership> {
        let name = name.parse::<mesh::NodeName>()?;
        let membership = crate::uplink::join(url, invite, &name, &self.identity).await?;
        let bytes = serde_json::to_vec_pretty(&membership).map_err(Error::internal)?;
        write_private(&self.home.membership(), &bytes)?;
        let before = self.network.write().take();
        if let Some(before) = before {
            before.close().await;
        }
        network::start(self, membership.clone()).await?;
        if let Ok(network) = self.network() {
            network.introduced().await;
        }
        Ok(membership)
    }

    /// Ends the node alone, soon; its keeper starts it again, from `program` if one is given.
    ///
    /// # Errors
    ///
    /// `not_found` for a program that cannot be run; the keeper's when it cannot be replaced.
    pub async fn restart(self: &Arc<Self>, program: Option<std::path::PathBuf>) -> Result<()> {
        if let Some(program) = program {
            check_program(&program).await?;
            // It stays the parent of the sessions, and starts the node from its new program.
            self.sessions.upgrade_keeper(program).await?;
        }
        let host = Arc::clone(self);
        tokio::spawn(async move {
            // The answer is on its way; what was typed goes to the sessions.
            tokio::time::sleep(RESTART_AFTER).await;
            let network = host.network.write().take();
            if let Some(network) = network {
                network.close().await;
            }
            host.ended.send_replace(Some(Ending::Restart));
        });
        Ok(())
    }

    /// Ends the sessions, then the node. Returns at once.
    pub fn stop(self: &Arc<Self>, grace: Duration) {
        let host = Arc::clone(self);
        tokio::spawn(async move {
            host.sessions.shutdown(grace).await;
            let network = host.network.write().take();
            if let Some(network) = network {
                network.close().await;
            }
            host.ended.send_replace(Some(Ending::Stop));
        });
    }

    /// Resolves when the node is to end, and says how.
    pub(super) async fn ended(&self) -> Ending {
        // The sender lives as long as `self`.
        match self.ended.subscribe().wait_for(Option::is_some).await {
            Ok(ending) => ending.unwrap_or(Ending::Stop),
            Err(_) => Ending::Stop,
        }
    }
}

/// The node's keys, from its seed; a new one is made from the system's random numbers.
fn identity(home: &Home) -> Result<Identity> {
    let bytes = match std::fs::read(home.seed()) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let mut seed = [0; 32];
            getrandom::fill(&mut seed).map_err(Error::internal)?;
            write_private(&home.seed(), &seed)?;
            seed.to_vec()
        }
        Err(error) => return Err(error.into()),
    };
    let seed: [u8; 32] = bytes.try_into().map_err(|_| {
        Error::new("corrupt", format!("{} is not 32 bytes", home.seed().display()))
            .hint("restore it from a backup, or remove it: the node then has a new identity and must join again")
    })?;
    Ok(Identity::from_seed(&Seed::from_bytes(seed)))
}

/// A program that does not even say its version will not hold sessions.
async fn check_program(program: &std::path::Path) -> Result<()> {
    let said = tokio::process::Command::new(program)
        .arg("--version")
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output();
    let why = match tokio::time::timeout(VERSION_WAIT, said).await {
        Ok(Ok(said)) if said.status.success() && said.stdout.starts_with(b"cw ") => return Ok(()),
        Ok(Ok(said)) => format!("it is no cw ({})", said.status),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it does not say its version".to_owned(),
    };
    let program = program.display();
    Err(
        Error::new("not_found", format!("cannot restart onto {program}: {why}"))
            .hint("the node runs on as it was"),
    )
}
