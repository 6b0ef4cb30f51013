//! `cw network invite` and `cw network enroll`: what a machine joins with.

use clap::{Args, Subcommand};
use mesh::NodeName;

use super::{At, Join};
use crate::cli::Cli;
use crate::error::{Error, Result};
use crate::show;
use crate::uplink::api::{InviteInfo, NewInvite};

/// Make an invite, or see to those that there are.
#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Invite {
    #[command(subcommand)]
    pub verb: Option<Existing>,
    #[command(flatten)]
    pub new: New,
}

/// Invites that there are.
#[derive(Subcommand, Clone, Debug)]
pub enum Existing {
    /// List the invites that can still be used.
    List {
        /// Print JSON.
        #[arg(short, long)]
        json: bool,
        #[command(flatten)]
        at: At,
    },
    /// Withdraw an invite; what has joined with it stays.
    Revoke {
        /// Its id, as the list shows it: inv_…
        id: String,
        #[command(flatten)]
        at: At,
    },
}

/// A new invite.
#[derive(Args, Clone, Debug)]
pub struct New {
    /// How many machines may join with it.
    #[arg(long, default_value_t = 1)]
    pub uses: u32,
    /// How long it is good: 90s, 10m, 1h, 7d.
    #[arg(long, default_value = "1h")]
    pub ttl: String,
    /// What joins with it is yours: it may do everything with your sessions, and you with its.
    #[arg(long)]
    pub mine: bool,
    /// Print a QR code of the link too.
    #[arg(long)]
    pub qr: bool,
    /// Print JSON.
    #[arg(short, long)]
    pub json: bool,
    #[command(flatten)]
    pub at: At,
}

/// Enrolments: machines of your own that come by themselves.
#[derive(Subcommand, Clone, Debug)]
pub enum Enroll {
    /// Make a token with which a machine of yours joins.
    Create(Create),
    /// Join this machine with such a token.
    Redeem(Redeem),
}

/// A token for a machine of yours.
#[derive(Args, Clone, Debug)]
pub struct Create {
    /// Only a machine of this name may use it.
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<NodeName>,
    /// How many machines may use it.
    #[arg(long, default_value_t = 1)]
    pub uses: u32,
    /// How long it is good: 90s, 10m, 1h, 7d.
    #[arg(long, default_value = "10m")]
    pub ttl: String,
    /// Print JSON.
    #[arg(short, long)]
    pub json: bool,
    #[command(flatten)]
    pub at: At,
}

/// Join with such a token.
#[derive(Args, Clone, Debug)]
pub struct Redeem {
    /// The token, or - to read it from standard input.
    pub token: String,
    /// This machine's name in the network; else the configured one, else the host name.
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// The relay's URL; else CODEWIRE_RELAY_URL, else the configuration.
    #[arg(long, value_name = "URL")]
    pub relay_url: Option<String>,
}

impl Invite {
    pub(super) async fn run(self, cli: &Cli) -> Result<()> {
        match self.verb {
            None => self.new.run(cli).await,
            Some(Existing::List { json, at }) => list(cli, &at, json).await,
            Some(Existing::Revoke { id, at }) => {
                let (api, network) = at.open_as_user(cli).await?;
                api.delete_invite(&network, &id).await?;
                cli.note(&format!("Invite {id} withdrawn"));
                Ok(())
            }
        }
    }
}

impl New {
    async fn run(self, cli: &Cli) -> Result<()> {
        let (api, network) = self.at.open_as_user(cli).await?;
        let new = NewInvite {
            network,
            uses: self.uses,
            ttl: self.ttl,
            mine: self.mine,
            node_name: None,
        };
        let invite = api.create_invite(&new).await?;
        if self.json {
            return cli.print_json(&invite);
        }
        let relay = self.at.access.url(cli)?;
        let token = told(cli, &invite, &relay)?;
        if self.mine {
            cli.note("What joins with it is yours: keep the invite to yourself.");
        }
        if self.qr {
            cli.note(&show::qr(&link(&relay, &token))?);
        }
        Ok(())
    }
}

/// The token alone on standard output, so that a script can take it; the rest for people.
fn told(cli: &Cli, invite: &InviteInfo, relay: &str) -> Result<String> {
    let token = invite
        .token
        .clone()
        .ok_or_else(|| Error::internal("the relay made an invite and did not show it"))?;
    cli.print(&format!("{token}\n"))?;
    cli.note(&format!("Uses: {}", invite.uses_remaining));
    cli.note(&format!("Expires: {}", invite.expires_at));
    cli.note(&format!("URL: {}", link(relay, &token)));
    cli.note(&format!(
        "Join: cw network join --relay-url {relay} {token}"
    ));
    Ok(token)
}

/// The page that tells how to join. The token is behind the `#` of nothing: the page has to show
/// it, so it is in the query, which the relay does not write into its log.
fn link(relay: &str, token: &str) -> String {
    format!("{}/join?invite={token}", relay.trim_end_matches('/'))
}

async fn list(cli: &Cli, at: &At, json: bool) -> Result<()> {
    let (api, network) = at.open_as_user(cli).await?;
    let invites = api.invites(&network).await?;
    if json {
        return cli.print_json(&invites);
    }
    if invites.is_empty() {
        return cli.print("No invites\n");
    }
    let mut out = format!(
        "{:<22} {:<6} {:<6} {:<20} {:<26} BY\n",
        "ID", "USES", "MINE", "NODE", "EXPIRES"
    );
    for invite in invites {
        let node = invite.node_name.map(|name| name.to_string());
        out.push_str(&format!(
            "{:<22} {:<6} {:<6} {:<20} {:<26} {}\n",
            show::clean(&invite.id),
            invite.uses_remaining,
            if invite.mine { "yes" } else { "no" },
            node.as_deref().unwrap_or("-"),
            invite.expires_at,
            show::clean(&invite.created_by)
        ));
    }
    cli.print(&out)
}

impl Enroll {
    pub(super) async fn run(self, cli: &Cli) -> Result<()> {
        match self {
            Self::Create(call) => call.run(cli).await,
            Self::Redeem(call) => {
                let join = Join {
                    invite: cli.body(call.token)?.trim().to_owned(),
                    relay_url: call.relay_url,
                    node_name: call.node_name,
                };
                join.run(cli).await
            }
        }
    }
}

impl Create {
    async fn run(self, cli: &Cli) -> Result<()> {
        let (api, network) = self.at.open_as_user(cli).await?;
        let new = NewInvite {
            network,
            uses: self.uses,
            ttl: self.ttl,
            mine: true,
            node_name: self.node_name,
        };
        let invite = api.create_invite(&new).await?;
        if self.json {
            return cli.print_json(&invite);
        }
        let node = invite.node_name.as_ref().map(ToString::to_string);
        cli.note(&format!("Network: {}", invite.network_id));
        cli.note(&format!("Node: {}", node.as_deref().unwrap_or("any")));
        let relay = self.at.access.url(cli)?;
        told(cli, &invite, &relay).map(drop)
    }
}

impl At {
    /// As [`At::open`], but as a person: nodes are not let do this.
    pub(super) async fn open_as_user(
        &self,
        cli: &Cli,
    ) -> Result<(crate::uplink::api::Api, mesh::NetworkId)> {
        // Without a token the error says how to give one.
        let api = self.access.api(cli)?;
        Ok((api, self.network(cli).await?))
    }
}
