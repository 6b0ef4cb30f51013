//! `cw network …`: networks on a relay.
//!
//! What a person does on the relay (create, list, invite) goes straight to its HTTP interface
//! with the person's token. Joining is the node's: its keys never leave it, and it keeps what the
//! relay signed.

use clap::{Args, Subcommand};
use mesh::{NetworkId, NodeName};
use serde::{Deserialize, Serialize};

use super::errand::Errand;
use super::{Call, Reply};
use crate::cli::Cli;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::node::Context;
use crate::uplink::Membership;
use crate::uplink::api::Api;

mod access;
mod invite;
mod people;

pub use access::Access;

/// Networks: which machines belong together.
#[derive(Subcommand, Clone, Debug)]
pub enum Network {
    /// Create a network on the relay and select it.
    Create(Create),
    /// Select a network for the commands that follow.
    Use(Use),
    /// Select no network.
    Clear,
    /// Print the selected network.
    Current,
    /// List the networks that you belong to.
    #[command(visible_alias = "ls")]
    List(List),
    /// Make an invite with which a machine joins, list the invites, or withdraw one.
    Invite(Box<invite::Invite>),
    /// Let machines of your own join by themselves.
    Enroll {
        #[command(subcommand)]
        #[expect(missing_docs, reason = "clap would print it as help")]
        verb: invite::Enroll,
    },
    /// List who belongs to a network.
    Members(people::Members),
    /// Give somebody in a network another role.
    Promote(people::Promote),
    /// Take somebody out of a network, with their nodes.
    Remove(people::Remove),
    /// Delete a network with everything in it.
    Delete(people::Delete),
    /// Have a new key sign for a network; nodes follow by themselves, and no call fails.
    Rotate(people::Rotate),
    /// List the nodes of a network; as 'cw node list'.
    Nodes(super::node::List),
    /// Join this machine to a network by an invite.
    Join(Join),
    /// Take a node out of a network, at once.
    Revoke(Revoke),
}

/// Which network, and how to reach its relay.
#[derive(Args, Clone, Debug, Default)]
pub struct At {
    /// The network; the selected one if left out, else the one that this machine has joined.
    #[arg(long, add = super::complete::networks())]
    pub network: Option<NetworkId>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub access: Access,
}

/// Select a network.
#[derive(Args, Clone, Debug)]
pub struct Use {
    /// Its name.
    #[arg(add = super::complete::networks())]
    pub name: NetworkId,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub access: Access,
}

/// List the networks.
#[derive(Args, Clone, Debug)]
pub struct List {
    /// Print JSON.
    #[arg(short, long)]
    pub json: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub access: Access,
}

/// Create a network.
#[derive(Args, Clone, Debug)]
pub struct Create {
    /// Its name.
    pub name: NetworkId,
    /// Do not select it.
    #[arg(long)]
    pub no_use: bool,
    /// Select it; this is the default.
    #[arg(long = "use", hide = true, conflicts_with = "no_use")]
    pub select: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub access: Access,
}

/// Take a node out.
#[derive(Args, Clone, Debug)]
pub struct Revoke {
    /// The node.
    pub node: NodeName,
    /// The network; the selected one if left out.
    #[arg(long)]
    pub network: Option<NetworkId>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub access: Access,
}

/// Join this machine to a network.
#[derive(Args, Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Join {
    /// The invite: CW-INV-…, or - to read it from standard input.
    pub invite: String,
    /// The relay's URL; else CODEWIRE_RELAY_URL, else the configuration.
    #[arg(long, value_name = "URL")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay_url: Option<String>,
    /// This machine's name in the network; else the configured one, else the host name.
    #[arg(long, value_name = "NAME")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
}

/// The answer.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Joined {
    /// The network.
    pub network: String,
    /// This machine's name in it.
    pub node: String,
}

impl Network {
    pub(crate) async fn run(self, cli: &Cli) -> Result<()> {
        match self {
            Self::Create(call) => call.run(cli).await,
            Self::Use(call) => call.run(cli).await,
            Self::Current => {
                let network = Config::load(&cli.home)?.network;
                cli.print(&format!("{}\n", network.as_deref().unwrap_or("none")))
            }
            Self::Clear => {
                people::clear(cli)?;
                cli.note("Cleared selected network");
                Ok(())
            }
            Self::List(call) => list(cli, &call).await,
            Self::Enroll { verb } => verb.run(cli).await,
            Self::Members(call) => call.run(cli).await,
            Self::Promote(call) => call.run(cli).await,
            Self::Remove(call) => call.run(cli).await,
            Self::Delete(call) => call.run(cli).await,
            Self::Rotate(call) => call.run(cli).await,
            Self::Nodes(call) => call.run(cli).await,
            Self::Invite(call) => call.run(cli).await,
            Self::Join(call) => call.run(cli).await,
            Self::Revoke(call) => call.run(cli).await,
        }
    }
}

/// The network that this machine is in.
fn joined(cli: &Cli) -> Option<Membership> {
    let bytes = std::fs::read(cli.home.membership()).ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn no_relay() -> Error {
    Error::new("config_invalid", "relay not configured")
        .hint("pass --relay-url or set CODEWIRE_RELAY_URL")
}

fn select(cli: &Cli, name: &NetworkId) -> Result<()> {
    Config::edit(&cli.home, |config| config.set_network(name.as_str()))
}

/// The network that was named, else the selected one.
fn chosen(cli: &Cli, network: Option<NetworkId>) -> Result<NetworkId> {
    if let Some(network) = network {
        return Ok(network);
    }
    let selected = Config::load(&cli.home)?.network.ok_or_else(|| {
        Error::new("no_network", "no network selected").hint("'cw network use <name>' selects one")
    })?;
    Ok(selected.parse()?)
}

impl Use {
    async fn run(self, cli: &Cli) -> Result<()> {
        let name = &self.name;
        let is_checked = self.check(cli).await?;
        select(cli, name)?;
        cli.note(&format!("Selected network \"{name}\""));
        if !is_checked {
            cli.note("[cw] whether there is such a network is not known here without your token");
        }
        Ok(())
    }

    /// Whether there is such a network; false if nobody can be asked.
    async fn check(&self, cli: &Cli) -> Result<bool> {
        let joined = joined(cli).map(|membership| membership.network);
        if joined.as_ref() == Some(&self.name) {
            return Ok(true);
        }
        if self.access.has_token(cli) {
            let networks = self.access.api(cli)?.networks().await?;
            let names: Vec<_> = networks.into_iter().map(|network| network.id).collect();
            return if names.contains(&self.name) {
                Ok(true)
            } else {
                Err(self.unknown(&names))
            };
        }
        let Some(joined) = joined else {
            return Ok(false);
        };
        let unknown = self.unknown(&[joined]);
        Err(unknown.hint("after 'cw login', or with CODEWIRE_RELAY_AUTH_TOKEN or --token-file, you see all of yours"))
    }

    fn unknown(&self, names: &[NetworkId]) -> Error {
        let shown: Vec<_> = names.iter().take(20).map(NetworkId::as_str).collect();
        let there = match names.len() {
            0 => "you are in none".to_owned(),
            all if all > shown.len() => format!("there are {}, …", shown.join(", ")),
            1 => format!("there is {}", shown.join(", ")),
            _ => format!("there are {}", shown.join(", ")),
        };
        let text = format!("no network named \"{}\"; {there}", self.name);
        Error::new("network_unknown", text)
            .hint("'cw network list' shows them, 'cw network create <name>' makes one")
    }
}

impl Create {
    async fn run(self, cli: &Cli) -> Result<()> {
        self.access.api(cli)?.create_network(&self.name).await?;
        if let Some(url) = &self.access.relay_url {
            Config::edit(&cli.home, |config| config.set_relay_url(url))?;
        }
        if self.no_use {
            cli.note(&format!("Network \"{}\" created", self.name));
        } else {
            select(cli, &self.name)?;
            cli.note(&format!("Network \"{}\" created and selected", self.name));
        }
        Ok(())
    }
}

impl At {
    /// The relay, as this person if there is a token, else by the node of this machine; and the
    /// network.
    ///
    /// # Errors
    ///
    /// `config_invalid`, `no_network`.
    pub(super) async fn open(&self, cli: &Cli) -> Result<(Api, NetworkId)> {
        let api = if self.access.has_token(cli) {
            self.access.api(cli)?
        } else {
            by_node(cli)
        };
        Ok((api, self.network(cli).await?))
    }

    /// The relay's URL.
    pub(super) fn relay(&self, cli: &Cli) -> Result<String> {
        self.access.url(cli)
    }

    /// The header `Authorization` for reading `path`.
    pub(super) async fn authorization(&self, cli: &Cli, path: &str) -> Result<String> {
        if self.access.has_token(cli) {
            // A relay that asks for nothing does not mind.
            let token = self.access.token(cli)?;
            return Ok(format!("Bearer {}", token.as_deref().unwrap_or("none")));
        }
        let errand = Errand {
            method: "SIGN".to_owned(),
            path: path.to_owned(),
            body: None,
        };
        match cli.ask(Call::RunErrand(errand)).await? {
            Reply::ErrandRun(done) => Ok(done.answer),
            other => Err(other.unexpected()),
        }
    }

    /// The network that was named, else the selected one, else the joined one.
    async fn network(&self, cli: &Cli) -> Result<NetworkId> {
        match chosen(cli, self.network.clone()) {
            Ok(network) => Ok(network),
            // A name that is wrong is told; that there is none may be made good.
            Err(error) if error.code != "no_network" => Err(error),
            Err(error) => {
                let asked = async {
                    let mut node = cli.reopen().await?;
                    node.call(&Call::RunErrand(Errand::default())).await
                };
                match asked.await {
                    Ok(Reply::ErrandRun(done)) => Ok(done.network.parse()?),
                    _ => Err(error),
                }
            }
        }
    }
}

/// The relay, asked by the node of this machine in its name.
pub(super) fn by_node(cli: &Cli) -> Api {
    let cli = cli.clone();
    Api::by_node(Box::new(move |method, path, body| {
        let cli = cli.clone();
        Box::pin(async move {
            let errand = Errand {
                method: method.to_string(),
                path,
                body: body.map(|body| body.to_string()),
            };
            match cli.ask(Call::RunErrand(errand)).await? {
                Reply::ErrandRun(done) => Ok(done.answer.into_bytes()),
                other => Err(other.unexpected()),
            }
        })
    }))
}

/// The nodes of a network, or of all of the caller's, as the relay has them.
pub(super) async fn nodes(cli: &Cli, network: Option<&str>, json: bool) -> Result<()> {
    let at = At {
        network: network.map(str::parse).transpose()?,
        ..At::default()
    };
    let (api, networks) = match &at.network {
        Some(_) => {
            let (api, network) = at.open(cli).await?;
            (api, vec![network])
        }
        // A node knows of one network alone.
        None if !at.access.has_token(cli) => {
            let (api, network) = at.open(cli).await?;
            (api, vec![network])
        }
        None => {
            let api = at.access.api(cli)?;
            let networks = api.networks().await?.into_iter();
            let networks = networks.map(|network| network.id).collect();
            (api, networks)
        }
    };
    let mut found = Vec::new();
    for network in networks {
        let nodes = api.nodes(&network).await?.into_iter();
        found.extend(nodes.map(|node| (network.clone(), node)));
    }
    if json {
        let shown = found.iter().map(|(network, node)| {
            let mut shown = serde_json::json!(node);
            shown["network_id"] = serde_json::json!(network);
            shown
        });
        return cli.print_json(&shown.collect::<Vec<_>>());
    }
    if found.is_empty() {
        return cli.print("No registered nodes\n");
    }
    let mut out = format!("{:<24} {:<20} {:<8} OWNER\n", "NETWORK", "NAME", "STATUS");
    for (network, node) in found {
        let status = if node.connected { "online" } else { "offline" };
        out.push_str(&format!(
            "{network:<24} {:<20} {status:<8} {}\n",
            node.name,
            crate::show::clean(&node.owner)
        ));
    }
    cli.print(&out)
}

async fn list(cli: &Cli, call: &List) -> Result<()> {
    let networks = call.access.api(cli)?.networks().await?;
    if call.json {
        return cli.print_json(&networks);
    }
    let current = Config::load(&cli.home)?.network;
    if networks.is_empty() {
        return cli.print("No networks\n");
    }
    let mut out = format!(
        "{:<8} {:<24} {:<6} {:<8} CREATED\n",
        "CURRENT", "NAME", "NODES", "INVITES"
    );
    for network in networks {
        let mark = if current.as_deref() == Some(network.id.as_str()) {
            "*"
        } else {
            ""
        };
        out.push_str(&format!(
            "{mark:<8} {:<24} {:<6} {:<8} {}\n",
            network.id, network.node_count, network.invite_count, network.created_at
        ));
    }
    cli.print(&out)
}

impl Revoke {
    async fn run(self, cli: &Cli) -> Result<()> {
        let network = chosen(cli, self.network)?;
        self.access.api(cli)?.revoke(&network, &self.node).await?;
        cli.note(&format!("Node \"{}\" revoked", self.node));
        Ok(())
    }
}

impl Join {
    async fn run(mut self, cli: &Cli) -> Result<()> {
        let config = Config::load(&cli.home)?;
        // By the pipe it is in nobody's list of processes.
        self.invite = cli.body(self.invite)?.trim().to_owned();
        self.relay_url = Some(self.relay_url.or(config.relay_url).ok_or_else(no_relay)?);
        self.node_name = Some(self.node_name.unwrap_or(config.node_name));
        match cli.ask(Call::JoinNetwork(self)).await? {
            Reply::NetworkJoined(joined) => {
                cli.note(&format!(
                    "Joined network \"{}\" as \"{}\"",
                    joined.network, joined.node
                ));
                Ok(())
            }
            other => Err(other.unexpected()),
        }
    }

    pub(crate) async fn handle(self, context: &mut Context<'_>) -> Result<Reply> {
        let url = self.relay_url.ok_or_else(no_relay)?;
        let name = self.node_name.unwrap_or_else(|| context.host.name());
        let membership = context.host.join(&url, &self.invite, &name).await?;
        Ok(Reply::NetworkJoined(Joined {
            network: membership.network.to_string(),
            node: membership.name.to_string(),
        }))
    }
}
