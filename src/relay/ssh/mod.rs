//! The SSH front door: `ssh dev-1@relay -p 2222`, and the jump host of `ssh -J relay:2222 dev-1`.
//!
//! Who comes in is a person whose key the relay knows (`cw ssh-key add`), or who has a password for
//! one login to one node (`cw node qr`). They get to nodes that are theirs. What they do there goes
//! over a way that the node opens for it ([`super::visits`]): a session channel is passed on to the
//! node's own SSH server ([`bridge`]); a jump is spliced, and the relay sees ciphertext.
//!
//! Connections that have not logged in yet are few and short-lived ([`Strangers`]), and begin with
//! little ([`flight`]), so that stalled ones keep nobody out.

mod bridge;
mod flight;
mod guest;
mod severed;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh::{NetworkId, NodeName};
use russh::MethodKind;
use russh::keys::PrivateKey;
use russh::server::{Config, run_stream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use super::app::App;
use super::directory::Found;
use super::store::Subject;
use super::strangers::{Step, Stranger, Strangers};
use flight::Flown;
use guest::Guest;
use severed::Severed;

/// Connections at a time, logged in or not.
const MAX_CONNECTIONS: usize = 2_048;

/// Connections that have not logged in, at a time. Each holds below 64 KiB.
const MAX_STRANGERS: usize = 256;

/// From the first byte to a login.
const LOGIN_LIMIT: Duration = Duration::from_secs(30);

/// A pause after `accept` failed, for want of descriptors for example.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until the relay stops.
pub(super) async fn serve(app: Arc<App>, listener: TcpListener, key: PrivateKey) {
    let methods = [MethodKind::PublicKey, MethodKind::Password];
    let config = crate::ssh::config(key, &methods);
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let strangers = Strangers::new(MAX_STRANGERS);
    let mut stop = app.stop.clone();
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let (stream, remote) = match accepted {
            Ok(accepted) => {
                // Keys that somebody types.
                let _ = accepted.0.set_nodelay(true);
                accepted
            }
            Err(error) => {
                tracing::warn!(%error, "accept of SSH");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (stranger, put_out) = strangers.come(remote.ip().to_canonical());
        let (stream, held) = Severed::new(stream);
        let visit = connection(
            Arc::clone(&app),
            Arc::clone(&config),
            stream,
            remote,
            stranger,
        );
        tokio::spawn(async move {
            tokio::select! {
                () = visit => {}
                Ok(()) = put_out => {}
            }
            drop((held, place));
        });
    }
}

async fn connection(
    app: Arc<App>,
    config: Arc<Config>,
    stream: Severed<TcpStream>,
    remote: SocketAddr,
    mut stranger: Stranger,
) {
    let end = Instant::now() + LOGIN_LIMIT;
    let stream = match timeout_at(end, flight::begin(stream, &config.server_id)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%remote, %error, "SSH");
            return;
        }
        Err(_) => return,
    };
    if stream.is_whole {
        stranger.reaches(Step::Hello);
    }
    // Boxed, so that those who have not come so far need no room for it.
    Box::pin(session(app, config, stream, (remote, end), stranger)).await;
}

async fn session(
    app: Arc<App>,
    config: Arc<Config>,
    stream: Flown<Severed<TcpStream>>,
    (remote, end): (SocketAddr, Instant),
    stranger: Stranger,
) {
    let mut stop = app.stop.clone();
    let (guest, login) = Guest::new(app, remote, stranger);
    let running = match timeout_at(end, run_stream(config, stream, guest)).await {
        Ok(Ok(running)) => running,
        Ok(Err(error)) => {
            tracing::debug!(%remote, %error, "SSH");
            return;
        }
        Err(_) => return,
    };
    let goodbye = Goodbye(running.handle());
    let mut running = std::pin::pin!(running);
    let why = tokio::select! {
        _ = &mut running => return,
        why = async {
            if !matches!(timeout_at(end, login).await, Ok(Ok(()))) {
                return "nobody has logged in";
            }
            let _ = stop.wait_for(|stop| *stop).await;
            "the relay is stopping"
        } => why,
    };
    goodbye.say(why).await;
    let _ = timeout(Duration::from_secs(1), running).await;
}

/// Ends a connection with a reason.
struct Goodbye(russh::server::Handle);

impl Goodbye {
    async fn say(&self, why: &str) {
        let code = russh::Disconnect::ByApplication;
        let _ = self.0.disconnect(code, why.to_owned(), String::new()).await;
    }
}

/// A node as somebody names it: `dev-1`, or `network/dev-1`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    network: Option<NetworkId>,
    node: NodeName,
}

impl std::str::FromStr for Wanted {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (network, node) = match text.split_once('/') {
            Some((network, node)) => (Some(network.parse().map_err(drop)?), node),
            None => (None, text),
        };
        Ok(Self {
            network,
            node: node.parse().map_err(drop)?,
        })
    }
}

/// Whether this user name says which node is wanted. For `crate::fuzzing`.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn names_a_node(user: &str) -> bool {
    user.parse::<Wanted>().is_ok()
}

impl Wanted {
    /// The node, if there is one of this name that is `subject`'s. What is not is not told from
    /// what does not exist.
    fn find(&self, app: &App, subject: &Subject) -> Result<Found, String> {
        let mut found = app.hub.nodes_named(&self.node, subject.as_str());
        if let Some(network) = &self.network {
            found.retain(|found| found.network == *network);
        }
        match &found[..] {
            [] => Err(format!("there is no node {} of yours", self.node)),
            [one] => Ok(one.clone()),
            many => {
                let networks: Vec<_> = many
                    .iter()
                    .map(|found| format!("{}/{}", found.network, self.node))
                    .collect();
                Err(format!("say which one: {}", networks.join(", ")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Wanted;

    #[test]
    fn nodes_are_named_alone_or_with_their_network() {
        let wanted: Wanted = "mine/dev-1".parse().unwrap();
        assert_eq!(wanted.network.unwrap().as_str(), "mine");
        assert_eq!(wanted.node.as_str(), "dev-1");
        assert!("dev-1".parse::<Wanted>().unwrap().network.is_none());
        for bad in [
            "",
            "/",
            "a/",
            "/b",
            "a/b/c",
            "net/../node",
            "a,b",
            "a b",
            "dev-1\n",
        ] {
            assert!(bad.parse::<Wanted>().is_err(), "{bad:?}");
        }
    }
}
