//! `cw group …`: sessions that may write to each other, apart from the rest of the network.
//!
//! Groups are the relay's, which tells the nodes; each node sees to it for its own sessions. What
//! a person does here goes to the relay with the person's token, or without one in the name of
//! the node of this machine.

use clap::{Args, Subcommand};
use mesh::NodeName;

use super::network::At;
use super::{Call, Reply};
use crate::cli::Cli;
use crate::error::{Error, Result};
use crate::locator::{Locator, Session};
use crate::paper::{Debug, GroupName, Joining, Messages};
use crate::show;
use crate::uplink::api;

/// Groups: which sessions may write to each other.
#[derive(Subcommand, Clone, Debug)]
pub enum Group {
    /// Create a group. At first only its sessions write to each other, and others may look on.
    Create(Named),
    /// Delete a group; its sessions are as all others then.
    Delete(Named),
    /// List the groups.
    List(All),
    /// List the sessions of a group.
    Members(Named),
    /// Put a session into a group.
    Add(Seat),
    /// Take a session out of a group.
    Remove(Seat),
    /// Show the rules of a group, or change them.
    Policy(Policy),
}

/// A group.
#[derive(Args, Clone, Debug)]
pub struct Named {
    /// The group.
    #[arg(value_name = "GROUP", add = super::complete::groups())]
    pub group: GroupName,
    /// Print JSON.
    #[arg(short, long)]
    pub json: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub at: At,
}

/// All groups.
#[derive(Args, Clone, Debug)]
pub struct All {
    /// Print JSON.
    #[arg(short, long)]
    pub json: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub at: At,
}

/// A session of a group.
#[derive(Args, Clone, Debug)]
pub struct Seat {
    /// The group.
    #[arg(value_name = "GROUP", add = super::complete::groups())]
    pub group: GroupName,
    /// The session: its name or number, or node:session.
    #[arg(add = super::complete::sessions())]
    pub session: Locator,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub at: At,
}

/// The rules of a group.
#[derive(Args, Clone, Debug)]
pub struct Policy {
    /// The group.
    #[arg(value_name = "GROUP", add = super::complete::groups())]
    pub group: GroupName,
    /// Whose messages its sessions get.
    #[arg(long, value_enum)]
    pub messages: Option<Messages>,
    /// What sessions outside of it may do with those in it.
    #[arg(long, value_enum)]
    pub debug: Option<Debug>,
    /// Who may put sessions into it.
    #[arg(long, value_enum, value_name = "WHO")]
    pub join: Option<Joining>,
    /// Print JSON.
    #[arg(short, long)]
    pub json: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print it as help")]
    pub at: At,
}

impl Group {
    pub(crate) async fn run(self, cli: &Cli) -> Result<()> {
        match self {
            Self::Create(call) => call.create(cli).await,
            Self::Delete(call) => {
                let (api, network) = call.at.open(cli).await?;
                api.delete_group(&network, &call.group).await?;
                let text = format!("Deleted group \"{}\" in network \"{network}\".", call.group);
                if call.json {
                    return cli.print_json(&serde_json::json!({ "deleted": call.group }));
                }
                cli.note(&text);
                Ok(())
            }
            Self::List(call) => call.run(cli).await,
            Self::Members(call) => call.members(cli).await,
            Self::Add(call) => call.add(cli).await,
            Self::Remove(call) => call.remove(cli).await,
            Self::Policy(call) => call.run(cli).await,
        }
    }
}

impl Named {
    async fn create(self, cli: &Cli) -> Result<()> {
        let (api, network) = self.at.open(cli).await?;
        let group = api.create_group(&network, &self.group).await?;
        if self.json {
            return cli.print_json(&group);
        }
        cli.note(&format!(
            "Created group \"{}\" in network \"{network}\".\n{}",
            group.name,
            rules(&group)
        ));
        Ok(())
    }

    async fn members(self, cli: &Cli) -> Result<()> {
        let (api, network) = self.at.open(cli).await?;
        let group = api.group(&network, &self.group).await?;
        if self.json {
            return cli.print_json(&group.members);
        }
        if group.members.is_empty() {
            return cli.print(&format!("Group \"{}\" has no members\n", group.name));
        }
        let mut out = format!("{:<20} {:<6} {:<24} ADDED\n", "NODE", "ID", "SESSION");
        for seat in group.members {
            let name = if seat.session_name.is_empty() {
                "-".to_owned()
            } else {
                show::clean(&seat.session_name)
            };
            out.push_str(&format!(
                "{:<20} {:<6} {name:<24} {}\n",
                show::clean(&seat.node_name),
                seat.session_id,
                seat.created_at
            ));
        }
        cli.print(&out)
    }
}

impl All {
    async fn run(self, cli: &Cli) -> Result<()> {
        let (api, network) = self.at.open(cli).await?;
        let groups = api.groups(&network).await?;
        if self.json {
            return cli.print_json(&groups);
        }
        if groups.is_empty() {
            return cli.print("No groups\n");
        }
        let mut out = format!(
            "{:<24} {:<14} {:<13} {:<8} {:<8} CREATED\n",
            "NAME", "MESSAGES", "DEBUG", "JOIN", "MEMBERS"
        );
        for group in groups {
            let policy = &group.policy;
            out.push_str(&format!(
                "{:<24} {:<14} {:<13} {:<8} {:<8} {}\n",
                group.name,
                word(&policy.messages_policy),
                word(&policy.debug_policy),
                word(&policy.join_policy),
                group.members.len(),
                group.created_at
            ));
        }
        cli.print(&out)
    }
}

impl Seat {
    async fn add(self, cli: &Cli) -> Result<()> {
        let (api, network) = self.at.open(cli).await?;
        let found = find(cli, &self.session).await?;
        let seat = (&found.node, found.id, found.name.as_deref());
        api.enter_group(&network, &self.group, seat).await?;
        cli.note(&format!(
            "Added {} to group \"{}\"",
            self.session, self.group
        ));
        Ok(())
    }

    async fn remove(self, cli: &Cli) -> Result<()> {
        let (api, network) = self.at.open(cli).await?;
        // A node that is away cannot be asked; the relay knows who is in the group.
        let seat = match find(cli, &self.session).await {
            Ok(found) => (found.node, found.id),
            Err(error) => {
                let group = api.group(&network, &self.group).await?;
                seat_of(&group, &self.session).ok_or(error)?
            }
        };
        api.leave_group(&network, &self.group, (&seat.0, seat.1))
            .await?;
        cli.note(&format!(
            "Removed {} from group \"{}\"",
            self.session, self.group
        ));
        Ok(())
    }
}

impl Policy {
    async fn run(self, cli: &Cli) -> Result<()> {
        let (api, network) = self.at.open(cli).await?;
        let change = (self.messages, self.debug, self.join);
        let group = if change == (None, None, None) {
            api.group(&network, &self.group).await?
        } else {
            api.set_group_policy(&network, &self.group, change).await?
        };
        if self.json {
            return cli.print_json(&group.policy);
        }
        cli.print(&format!("{}\n", rules(&group)))
    }
}

/// A session that was found on its node.
pub(super) struct Found {
    pub(super) node: NodeName,
    pub(super) id: u32,
    pub(super) name: Option<String>,
}

/// Finds a session on its node, which is asked.
///
/// # Errors
///
/// `session_not_found`, `node_unknown`, and why the node cannot be asked.
pub(super) async fn find(cli: &Cli, session: &Locator) -> Result<Found> {
    let list = super::list::List {
        node: session.node.clone(),
        status: "all".to_owned(),
        ..super::list::List::default()
    };
    let (list, me) = match cli.ask(Call::ListSessions(list)).await? {
        Reply::SessionList(list) => (list, node_of(cli, session).await?),
        other => return Err(other.unexpected()),
    };
    // The last one of a name is the one that may run.
    let is = |info: &&super::info::SessionInfo| match &session.session {
        Session::Id(id) => info.id == *id,
        Session::Name(name) => info.name.as_ref() == Some(name),
    };
    let found = list.sessions.iter().filter(is);
    let found = found.max_by_key(|info| (info.status == "running", info.id));
    let found =
        found.ok_or_else(|| Error::new("session_not_found", format!("no session {session}")))?;
    Ok(Found {
        node: me,
        id: found.id,
        name: found.name.clone(),
    })
}

/// The node of a session: the one named, else this one, by its name in the network.
async fn node_of(cli: &Cli, session: &Locator) -> Result<NodeName> {
    if let Some(node) = &session.node {
        return Ok(node.parse()?);
    }
    match cli
        .ask(Call::Hello(super::hello::Hello {
            version: super::hello::VERSION,
        }))
        .await?
    {
        Reply::Hello(welcome) => Ok(welcome.node.parse()?),
        other => Err(other.unexpected()),
    }
}

fn seat_of(group: &api::Group, session: &Locator) -> Option<(NodeName, u32)> {
    let node = session.node.as_ref()?;
    let is = |seat: &&api::Seat| {
        seat.node_name == *node
            && match &session.session {
                Session::Id(id) => seat.session_id == *id,
                Session::Name(name) => seat.session_name == *name,
            }
    };
    let seat = group.members.iter().find(is)?;
    Some((seat.node_name.parse().ok()?, seat.session_id))
}

/// `Policy: messages=internal-only debug=observe-only join=owners`.
fn rules(group: &api::Group) -> String {
    let policy = &group.policy;
    format!(
        "Policy: messages={} debug={} join={}",
        word(&policy.messages_policy),
        word(&policy.debug_policy),
        word(&policy.join_policy)
    )
}

fn word(value: &impl clap::ValueEnum) -> String {
    let word = value.to_possible_value();
    word.map_or_else(String::new, |word| word.get_name().to_owned())
}
