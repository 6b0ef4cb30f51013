//! `cw network …`: networks on a relay.
//!
//! What a person does on the relay (create, list, invite) goes straight to its HTTP interface
//! with the person's token. Joining is the node's: its keys never leave it, and it keeps what the
//! relay signed.

use clap::{Args, Subcommand};
use mesh::{NetworkId, NodeName};
use serde::{Deserialize, Serialize};

use super::{Call, Reply};
use crate::cli::Cli;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::node::Context;
use crate::show;
use crate::uplink::api::{Api, NewInvite};

/// Networks: which machines belong together.
#[derive(Subcommand, Clone, Debug)]
pub enum Network {
    /// Create a network on the relay and select it.
    Create(Create),
    /// Select a network for the commands that follow.
    Use {
        /// Its name.
        name: NetworkId,
    },
    /// Print the selected network.
    Current,
    /// List the networks that you belong to.
    List(Access),
    /// Make an invite with which a machine joins.
    Invite(Invite),
    /// Join this machine to a network by an invite.
    Join(Join),
    /// Take a node out of a network, at once.
    Revoke(Revoke),
}

/// How to reach the relay as yourself.
#[derive(Args, Clone, Debug, Default)]
pub struct Access {
    /// The relay's URL; else CODEWIRE_RELAY_URL, else the configuration.
    #[arg(long, value_name = "URL")]
    pub relay_url: Option<String>,
    /// A file with your token; else CODEWIRE_RELAY_AUTH_TOKEN holds it.
    #[arg(long, value_name = "PATH")]
    pub token_file: Option<std::path::PathBuf>,
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

/// Make an invite.
#[derive(Args, Clone, Debug)]
pub struct Invite {
    /// The network; the selected one if left out.
    #[arg(long)]
    pub network: Option<NetworkId>,
    /// How many machines may join with it.
    #[arg(long, default_value_t = 1)]
    pub uses: u32,
    /// How long it is good: 90s, 10m, 1h, 7d.
    #[arg(long, default_value = "1h")]
    pub ttl: String,
    /// What joins with it is yours: it may do everything with your sessions, and you with its.
    #[arg(long)]
    pub mine: bool,
    /// Print a QR code too.
    #[arg(long)]
    pub qr: bool,
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
    /// The invite: CW-INV-…
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
            Self::Use { name } => {
                select(cli, &name)?;
                cli.note(&format!("Selected network \"{name}\""));
                Ok(())
            }
            Self::Current => {
                let network = Config::load(&cli.home)?.network;
                cli.print(&format!("{}\n", network.as_deref().unwrap_or("none")))
            }
            Self::List(access) => list(cli, &access).await,
            Self::Invite(call) => call.run(cli).await,
            Self::Join(call) => call.run(cli).await,
            Self::Revoke(call) => call.run(cli).await,
        }
    }
}

impl Access {
    fn url(&self, cli: &Cli) -> Result<String> {
        let named = self.relay_url.clone();
        named
            .or(Config::load(&cli.home)?.relay_url)
            .ok_or_else(no_relay)
    }

    /// A client of the relay as this person.
    fn api(&self, cli: &Cli) -> Result<Api> {
        let url = self.url(cli)?;
        let token = match &self.token_file {
            Some(path) => std::fs::read_to_string(path).map_err(|error| {
                Error::new(
                    "not_found",
                    format!("cannot read {}: {error}", path.display()),
                )
            })?,
            None => std::env::var("CODEWIRE_RELAY_AUTH_TOKEN").map_err(|_| {
                Error::new("unauthorized", "relay user authentication not configured")
                    .hint("set CODEWIRE_RELAY_AUTH_TOKEN or pass --token-file")
            })?,
        };
        Api::new(&url, token.trim())
    }
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

async fn list(cli: &Cli, access: &Access) -> Result<()> {
    let networks = access.api(cli)?.networks().await?;
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

impl Invite {
    async fn run(self, cli: &Cli) -> Result<()> {
        let network = chosen(cli, self.network)?;
        let new = NewInvite {
            network,
            uses: self.uses,
            ttl: self.ttl,
            mine: self.mine,
        };
        let invite = self.access.api(cli)?.create_invite(&new).await?;
        let token = invite
            .token
            .ok_or_else(|| Error::internal("the relay made an invite and did not show it"))?;
        // The token alone on stdout, so that a script can take it.
        cli.print(&format!("{token}\n"))?;
        cli.note(&format!("Uses: {}", invite.uses_remaining));
        cli.note(&format!("Expires: {}", invite.expires_at));
        cli.note(&format!(
            "Join: cw network join --relay-url {} {token}",
            self.access.url(cli)?
        ));
        if self.mine {
            cli.note("What joins with it is yours: keep the invite to yourself.");
        }
        if self.qr {
            cli.note(&show::qr(&token)?);
        }
        Ok(())
    }
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
