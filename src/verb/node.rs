//! `cw node list` and `cw node ping`: the nodes of the network, how each is reached and how long
//! it takes to answer. More about the ways is in [`status`], and for monitoring in [`metrics`].

pub mod metrics;
pub mod status;

use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::{Call, Reply};
use crate::cli::Cli;
use crate::error::{Error, Result};
use crate::node::{Context, no_relay};
use crate::show;

/// How long `node list` waits for a node to answer before it is shown without a round trip.
const LIST_WAIT: Duration = Duration::from_secs(2);
/// How long a ping may take.
const PING_WAIT: Duration = Duration::from_secs(5);

/// List the nodes of the network, and how each is reached.
#[derive(Args, Clone, Debug, Default, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct List {
    /// Those of this network, as the relay has them.
    #[arg(long, value_name = "NETWORK", value_parser = network_name, add = super::complete::networks())]
    #[serde(skip)]
    pub network: Option<String>,
    /// Those of all your networks, as the relay has them.
    #[arg(long, conflicts_with = "network")]
    #[serde(skip)]
    pub all: bool,
    /// Print JSON.
    #[arg(short, long)]
    #[serde(skip)]
    pub json: bool,
}

/// Measure the way to a node.
#[derive(Args, Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Ping {
    /// The node.
    #[arg(value_parser = crate::locator::node_name, add = super::complete::nodes())]
    pub node: String,
    /// How many times, one second apart.
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    #[serde(skip)]
    pub count: u32,
    /// Print JSON.
    #[arg(short, long)]
    #[serde(skip)]
    pub json: bool,
}

/// The answer to `list`.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Nodes {
    /// The network.
    pub network: String,
    /// Whether the relay is reached; if not, who is online is what was last known.
    pub relay_connected: bool,
    /// Why the relay is not reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// By name, this node included.
    pub nodes: Vec<NodeInfo>,
}

/// A node.
#[derive(
    Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode, schemars::JsonSchema,
)]
pub struct NodeInfo {
    /// Its name in the network.
    pub name: String,
    /// Whose it is.
    pub owner: String,
    /// Its address inside the mesh.
    pub address: String,
    /// Whether this is the node that was asked.
    pub this: bool,
    /// Whether the relay sees it, or it is the node that was asked.
    pub online: bool,
    /// `direct <address>`, `relayed`, `this node` or `-`.
    pub path: String,
    /// The round trip, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
}

/// The answer to `ping`.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Pong {
    /// As in [`NodeInfo::path`].
    pub path: String,
    /// The round trip, in milliseconds.
    pub rtt_ms: f64,
}

/// Make a password for one login to a node over SSH, and show it as a QR code.
#[derive(Args, Clone, Debug)]
pub struct Qr {
    /// The node; this one if left out.
    pub node: Option<mesh::NodeName>,
    /// Print JSON.
    #[arg(short, long)]
    pub json: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub at: super::network::At,
}

impl Qr {
    pub(crate) async fn run(self, cli: &Cli) -> Result<()> {
        let (api, network) = self.at.open(cli).await?;
        let node = match self.node {
            Some(node) => node,
            None => match cli.ask(Call::ListNodes(List::default())).await? {
                Reply::NodeList(nodes) => this_of(&nodes)?,
                other => return Err(other.unexpected()),
            },
        };
        let made = api.ssh_password(&network, &node).await?;
        let port = made.ssh_port.ok_or_else(super::config_ssh::no_door)?;
        let host = super::config_ssh::host_of(&self.at.relay(cli)?)?;
        if self.json {
            return cli.print_json(&serde_json::json!({
                "host": host, "port": port, "user": format!("{network}/{node}"),
                "password": made.password, "expires_at": made.expires_at,
            }));
        }
        let url = format!("ssh://{network}%2F{node}:{}@{host}:{port}", made.password);
        cli.note(&format!(
            "{}\nssh -p {port} {network}/{node}@{host}\nGood for one login, until {}. The password:",
            show::qr(&url)?,
            show::clean(&made.expires_at)
        ));
        cli.print(&format!("{}\n", show::clean(&made.password)))
    }
}

fn this_of(nodes: &Nodes) -> Result<mesh::NodeName> {
    let this = nodes.nodes.iter().find(|node| node.this);
    let this = this.ok_or_else(|| Error::internal("the node does not know itself"))?;
    Ok(this.name.parse()?)
}

fn network_name(text: &str) -> Result<String> {
    Ok(text.parse::<mesh::NetworkId>()?.to_string())
}

impl List {
    pub(crate) async fn run(self, cli: &Cli) -> Result<()> {
        let json = self.json;
        if self.all || self.network.is_some() {
            return super::network::nodes(cli, self.network.as_deref(), json).await;
        }
        let nodes = match cli.ask(Call::ListNodes(self)).await? {
            Reply::NodeList(nodes) => nodes,
            other => return Err(other.unexpected()),
        };
        if json {
            return cli.print_json(&nodes);
        }
        if !nodes.relay_connected {
            let why = nodes
                .reason
                .as_deref()
                .map(|why| format!(" ({})", show::clean(why)));
            cli.note(&format!(
                "[cw] the relay is not reached{}; this is what was last known",
                why.unwrap_or_default()
            ));
        }
        let mut out = format!(
            "{:<20} {:<8} {:<30} {:<10} OWNER\n",
            "NAME", "STATUS", "PATH", "RTT"
        );
        for node in nodes.nodes {
            let status = if node.online { "online" } else { "offline" };
            let rtt = node
                .rtt_ms
                .map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1} ms"));
            let name = if node.this {
                format!("{} *", node.name)
            } else {
                node.name
            };
            out.push_str(&format!(
                "{name:<20} {status:<8} {:<30} {rtt:<10} {}\n",
                node.path,
                show::clean(&node.owner)
            ));
        }
        cli.print(&out)
    }

    pub(crate) async fn handle(self, context: &mut Context<'_>) -> Result<Reply> {
        let network = context.host.network()?;
        network.exists()?;
        let view = network.view();
        let mut nodes = vec![NodeInfo {
            name: view.me.name.to_string(),
            owner: view.me.owner.clone(),
            address: mesh::address_of(&view.me.key).to_string(),
            this: true,
            // It has just answered, whatever the relay sees.
            online: true,
            path: "this node".to_owned(),
            rtt_ms: None,
        }];
        let mut pings = tokio::task::JoinSet::new();
        for (name, peer) in &view.peers {
            let at = nodes.len();
            nodes.push(NodeInfo {
                name: name.to_string(),
                owner: peer.record.owner.clone(),
                address: mesh::address_of(&peer.record.key).to_string(),
                this: false,
                online: peer.online,
                path: "-".to_owned(),
                rtt_ms: None,
            });
            if peer.online {
                let (mesh, key) = (network.mesh.clone(), peer.record.key);
                pings.spawn(
                    async move { (at, tokio::time::timeout(LIST_WAIT, mesh.ping(&key)).await) },
                );
            }
        }
        while let Some(ping) = pings.join_next().await {
            if let Ok((at, Ok(Ok(pong)))) = ping {
                nodes[at].path = path_text(&pong.path);
                nodes[at].rtt_ms = Some(milliseconds(pong.rtt));
            }
        }
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Reply::NodeList(Nodes {
            network: view.network.to_string(),
            relay_connected: view.connected,
            reason: view.last_error.clone(),
            nodes,
        }))
    }
}

/// What many pings come to.
#[derive(Default, Serialize)]
struct Pings {
    node: String,
    sent: u32,
    answered: u32,
    /// Which part was not answered, 0 to 1.
    loss: f64,
    rtt_ms: Option<Spread>,
    pongs: Vec<Option<Pong>>,
}

#[derive(Serialize)]
struct Spread {
    min: f64,
    avg: f64,
    max: f64,
}

impl Pings {
    fn of(node: String, pongs: Vec<Option<Pong>>) -> Self {
        let rtts: Vec<_> = pongs.iter().flatten().map(|pong| pong.rtt_ms).collect();
        let (sent, answered) = (pongs.len() as u32, rtts.len() as u32);
        Self {
            node,
            sent,
            answered,
            loss: f64::from(sent - answered) / f64::from(sent.max(1)),
            rtt_ms: (answered > 0).then(|| Spread {
                min: rtts.iter().copied().fold(f64::INFINITY, f64::min),
                avg: rtts.iter().sum::<f64>() / f64::from(answered),
                max: rtts.iter().copied().fold(0.0, f64::max),
            }),
            pongs,
        }
    }

    fn text(&self) -> String {
        let mut out = format!(
            "{} of {} answered, {:.0} % lost",
            self.answered,
            self.sent,
            self.loss * 100.0
        );
        if let Some(Spread { min, avg, max }) = &self.rtt_ms {
            out += &format!(", round trip min/avg/max {min:.2}/{avg:.2}/{max:.2} ms");
        }
        out
    }
}

impl Ping {
    pub(crate) async fn run(self, cli: &Cli) -> Result<()> {
        let mut channel = cli.open().await?;
        let mut pongs = Vec::new();
        let (mut last, mut interrupted) = (None, false);
        let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
        for round in 0..self.count {
            let ping = async {
                if round > 0 {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                channel.call(&Call::PingNode(self.clone())).await
            };
            let answer = tokio::select! {
                biased;
                // What was found so far is still told.
                _ = &mut interrupt => {
                    interrupted = true;
                    break;
                }
                answer = ping => answer?,
            };
            match answer {
                Reply::NodePong(pong) => {
                    if !self.json {
                        cli.print(&format!(
                            "pong from {} in {:.2} ms ({})\n",
                            self.node, pong.rtt_ms, pong.path
                        ))?;
                    }
                    pongs.push(Some(pong));
                }
                // Of many, one may be lost; any other error ends them.
                Reply::Error(failure) if is_loss(&failure.code) => {
                    if !self.json && self.count > 1 {
                        cli.note(&format!("no answer: {}", show::clean(&failure.message)));
                    }
                    pongs.push(None);
                    last = Some(failure);
                }
                other => return Err(other.unexpected()),
            }
        }
        let pings = Pings::of(self.node, pongs);
        if self.json {
            cli.print_json(&pings)?;
        } else if self.count > 1 {
            cli.note(&pings.text());
        }
        if interrupted {
            return Err(Error::new("interrupted", "a signal ended it"));
        }
        match last.filter(|_| pings.answered == 0) {
            Some(failure) => Err(failure.into()),
            None => Ok(()),
        }
    }

    pub(crate) async fn handle(self, context: &mut Context<'_>) -> Result<Reply> {
        let network = context.host.network()?;
        let node = &self.node;
        let peer = network.peer(node)?;
        // Also where the relay does not see it there may be a direct path, but it is soon known.
        let wait = match network.is_absent(&peer) {
            true => LIST_WAIT,
            false => PING_WAIT,
        };
        let failed = match tokio::time::timeout(wait, network.mesh.ping(&peer.record.key)).await {
            Ok(Ok(pong)) => {
                return Ok(Reply::NodePong(Pong {
                    path: path_text(&pong.path),
                    rtt_ms: milliseconds(pong.rtt),
                }));
            }
            Ok(Err(error)) => Error::from(error),
            Err(_) => {
                let seconds = wait.as_secs();
                Error::new(
                    "timeout",
                    format!("{node} did not answer within {seconds} s"),
                )
            }
        };
        // It may have gone meanwhile.
        let absent = network.is_absent(&network.peer(node)?);
        Err(verdict(node, failed, absent, network.cut_off()))
    }
}

/// What a lost ping means, in the words of every other call to that node.
fn verdict(node: &str, failed: Error, absent: bool, cut_off: Option<String>) -> Error {
    match cut_off {
        _ if !is_loss(&failed.code) => failed,
        _ if absent => Error::new("node_down", format!("node {node} is down")),
        Some(cause) => Error::new("node_unreachable", format!("node {node} does not answer"))
            .hint(no_relay(&cause)),
        None => failed,
    }
}

fn is_loss(code: &str) -> bool {
    [
        "timeout",
        "peer_unreachable",
        "relay_unreachable",
        "node_down",
        "node_unreachable",
    ]
    .contains(&code)
}

fn path_text(path: &mesh::io::Path) -> String {
    match path {
        mesh::io::Path::Direct(address) => format!("direct {address}"),
        mesh::io::Path::Relayed => "relayed".to_owned(),
        mesh::io::Path::None => "-".to_owned(),
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_ping_says_why() {
        let slow = || Error::new("timeout", "dev-2 did not answer within 5 s");
        let cause = "this node was revoked";
        for (absent, cut_off, code) in [
            (false, None, "timeout"),
            (true, None, "node_down"),
            (false, Some(cause), "node_unreachable"),
        ] {
            let verdict = verdict("dev-2", slow(), absent, cut_off.map(str::to_owned));
            assert_eq!(verdict.code, code);
            assert!(is_loss(&verdict.code), "another ping may be answered");
            let hint = verdict.hint.unwrap_or_default();
            assert_eq!(hint.contains(cause), cut_off.is_some(), "{hint}");
        }
        let other = verdict("dev-2", Error::internal("x"), true, None);
        assert_eq!(other.code, "internal");
    }
}
