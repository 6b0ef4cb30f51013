//! `cw network members|promote|remove|delete|rotate`: who belongs to a network, and who speaks for
//! it.

use clap::{Args, ValueEnum};
use mesh::NetworkId;

use super::{Access, At};
use crate::cli::Cli;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::show;

/// List who belongs to a network.
#[derive(Args, Clone, Debug)]
pub struct Members {
    /// Print JSON.
    #[arg(short, long)]
    pub json: bool,
    #[command(flatten)]
    pub at: At,
}

/// Give somebody another role.
#[derive(Args, Clone, Debug)]
pub struct Promote {
    /// Who, as 'cw network members' shows it.
    #[arg(value_name = "SUBJECT")]
    pub subject: String,
    /// What they are from now on.
    #[arg(long, value_enum, default_value_t)]
    pub role: Role,
    #[command(flatten)]
    pub at: At,
}

/// What somebody is in a network.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum Role {
    /// May do everything in it.
    #[default]
    Owner,
    /// Belongs to it.
    Member,
    /// Has brought a node, and no more.
    Guest,
}

/// Take somebody out, with their nodes.
#[derive(Args, Clone, Debug)]
pub struct Remove {
    /// Who, as 'cw network members' shows it.
    #[arg(value_name = "SUBJECT")]
    pub subject: String,
    #[command(flatten)]
    pub at: At,
}

/// Delete a network.
#[derive(Args, Clone, Debug)]
pub struct Delete {
    /// Its name, in full.
    pub name: NetworkId,
    #[command(flatten)]
    pub access: Access,
}

/// Give a network a new issuer key.
#[derive(Args, Clone, Debug)]
pub struct Rotate {
    /// How long what the old key has signed is still believed, 30d at most: by nodes that are away
    /// meanwhile, from what they remember. 0s if the old key may be in wrong hands.
    #[arg(long, value_name = "TIME", default_value = "24h")]
    pub overlap: String,
    /// Print JSON.
    #[arg(short, long)]
    pub json: bool,
    #[command(flatten)]
    pub at: At,
}

impl Rotate {
    pub(super) async fn run(self, cli: &Cli) -> Result<()> {
        let (api, network) = self.at.open_as_user(cli).await?;
        let handover = api.rotate(&network, &self.overlap).await?;
        if self.json {
            return cli.print_json(&handover);
        }
        cli.print(&format!("{}\n", handover.issuer))?;
        cli.note(&format!(
            "Network \"{network}\" has a new issuer key, by hand-over {}; {} records signed anew",
            handover.number, handover.node_count
        ));
        cli.note(&format!(
            "What the old key has signed is believed until {}",
            handover.retires_at
        ));
        Ok(())
    }
}

impl Members {
    pub(super) async fn run(self, cli: &Cli) -> Result<()> {
        let (api, network) = self.at.open(cli).await?;
        let members = api.members(&network).await?;
        if self.json {
            return cli.print_json(&members);
        }
        let mut out = format!("{:<32} {:<8} {:<6} SINCE\n", "SUBJECT", "ROLE", "NODES");
        for member in members {
            out.push_str(&format!(
                "{:<32} {:<8} {:<6} {}\n",
                show::clean(&member.subject),
                member.role,
                member.node_count,
                member.created_at
            ));
        }
        cli.print(&out)
    }
}

impl Promote {
    pub(super) async fn run(self, cli: &Cli) -> Result<()> {
        let (api, network) = self.at.open_as_user(cli).await?;
        let role = match self.role {
            Role::Owner => "owner",
            Role::Member => "member",
            Role::Guest => "guest",
        };
        api.set_role(&network, &self.subject, role).await?;
        cli.note(&format!(
            "{} is {role} of network \"{network}\" now",
            self.subject
        ));
        Ok(())
    }
}

impl Remove {
    pub(super) async fn run(self, cli: &Cli) -> Result<()> {
        let (api, network) = self.at.open_as_user(cli).await?;
        api.remove_member(&network, &self.subject).await?;
        cli.note(&format!(
            "{} and their nodes are out of network \"{network}\"",
            self.subject
        ));
        Ok(())
    }
}

impl Delete {
    pub(super) async fn run(self, cli: &Cli) -> Result<()> {
        let (access, name) = (self.access, self.name);
        access.api(cli)?.delete_network(&name).await?;
        let config = Config::load(&cli.home)?;
        if config.network.as_deref() == Some(name.as_str()) {
            clear(cli)?;
        }
        cli.note(&format!("Network \"{name}\" deleted"));
        Ok(())
    }
}

/// Selects no network.
pub(super) fn clear(cli: &Cli) -> Result<()> {
    Config::edit(&cli.home, crate::config::Edit::clear_network)?;
    if Config::load(&cli.home)?.network.is_some() {
        return Err(Error::new(
            "config_invalid",
            "CODEWIRE_RELAY_NETWORK still selects one",
        ));
    }
    Ok(())
}
