//! `cw kill`: ends one session, those with a tag, or all of them.
//!
//! First a polite signal to the whole process group, after a grace the one that nothing survives.
//! The answer comes when it has ended.

use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};
use session::{Info, Status};

use super::select::{Selected, named};
use super::{Call, Reply};
use crate::cli::Cli;
use crate::error::{Error, Result};
use crate::locator::Locator;
use crate::node::{Action, Context};

/// The time between SIGTERM and SIGKILL unless the caller says otherwise, in seconds.
const GRACE: u32 = 10;
/// The longest grace that can be asked for, in seconds.
const GRACE_MAX: u32 = 600;

/// End a session and everything it started.
#[derive(Args, Clone, Debug)]
pub struct Kill {
    /// The session: its name or number, a tag, or node:session.
    #[arg(add = super::complete::sessions_and_tags(), required_unless_present_any = ["all", "tags"])]
    pub target: Option<Locator>,
    /// Every running session.
    #[arg(short, long, conflicts_with_all = ["target", "tags"])]
    pub all: bool,
    /// Every running session with one of these tags.
    #[arg(short, long = "tag", value_name = "TAG", value_delimiter = ',', conflicts_with = "target", add = super::complete::tags())]
    pub tags: Vec<String>,
    /// Seconds between the polite signal and the last one.
    #[arg(long, value_name = "SECONDS", default_value_t = GRACE)]
    pub grace: u32,
    /// With --all or --tag: on this node.
    #[arg(long, value_name = "NODE", value_parser = crate::locator::node_name)]
    pub node: Option<String>,
}

/// One session.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct KillOne {
    /// Which.
    #[serde(flatten)]
    pub target: Locator,
    /// Seconds before SIGKILL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_seconds: Option<u32>,
}

/// All sessions.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct KillAll {
    /// Where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Seconds before SIGKILL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_seconds: Option<u32>,
}

/// The sessions with one of some tags.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct KillByTags {
    /// Where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Any of these.
    pub tags: Vec<String>,
    /// Seconds before SIGKILL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_seconds: Option<u32>,
}

/// The answer for one.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Killed {
    /// Which.
    pub id: u32,
    /// How it ended.
    #[serde(default)]
    pub status: String,
}

/// The answer for several.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct KilledAll {
    /// How many.
    pub count: u32,
}

impl Kill {
    pub(crate) async fn run(self, cli: &Cli) -> Result<()> {
        let grace_seconds = Some(self.grace);
        let matching = if self.tags.is_empty() {
            String::new()
        } else {
            format!(" matching tags [{}]", self.tags.join(" "))
        };
        let call = match self.target {
            Some(target) => Call::Kill(KillOne {
                target,
                grace_seconds,
            }),
            None if self.all => Call::KillAll(KillAll {
                node: self.node,
                grace_seconds,
            }),
            None => Call::KillByTags(KillByTags {
                node: self.node,
                tags: self.tags,
                grace_seconds,
            }),
        };
        match cli.ask(call).await? {
            Reply::Killed(killed) if killed.status == "killed" || killed.status.is_empty() => {
                cli.note(&format!("Session {} killed", killed.id));
            }
            Reply::Killed(killed) => cli.note(&format!(
                "Session {} had ended: {}",
                killed.id, killed.status
            )),
            Reply::KilledAll(killed) => {
                cli.note(&format!("Killed {} session(s){matching}", killed.count))
            }
            other => return Err(other.unexpected()),
        }
        Ok(())
    }
}

impl KillOne {
    pub(crate) async fn handle(self, context: &mut Context<'_>) -> Result<Reply> {
        let info = match named(context, &self.target.session)? {
            Selected::One(info) => info,
            // A word that is no session's name may be a tag.
            tagged => {
                let ids: Vec<_> = tagged
                    .now(context, &Action::Manage)
                    .iter()
                    .map(|info| info.id)
                    .collect();
                let wanted = |info: &Info| ids.contains(&info.id);
                return kill_each(context, self.grace_seconds, wanted).await;
            }
        };
        let grace = grace(self.grace_seconds)?;
        let info = context.host.sessions.kill(info.id, grace).await?;
        Ok(Reply::Killed(Killed {
            id: info.id.0,
            status: super::info::status_text(&info.status),
        }))
    }
}

impl KillAll {
    pub(crate) async fn handle(self, context: &mut Context<'_>) -> Result<Reply> {
        kill_each(context, self.grace_seconds, |_| true).await
    }
}

impl KillByTags {
    pub(crate) async fn handle(self, context: &mut Context<'_>) -> Result<Reply> {
        let tagged = |info: &Info| {
            info.tags
                .iter()
                .any(|tag| self.tags.contains(&tag.to_string()))
        };
        kill_each(context, self.grace_seconds, tagged).await
    }
}

async fn kill_each(
    context: &Context<'_>,
    grace_seconds: Option<u32>,
    wanted: impl Fn(&Info) -> bool,
) -> Result<Reply> {
    let grace = grace(grace_seconds)?;
    let mut ends = tokio::task::JoinSet::new();
    let judge = context.judge();
    let may = |info: &Info| judge.may(&Action::Manage, Some(info.id)).is_ok();
    for info in context.host.sessions.list() {
        if info.status == Status::Running && wanted(&info) && may(&info) {
            let sessions = context.host.sessions.clone();
            ends.spawn(async move { sessions.kill(info.id, grace).await });
        }
    }
    let mut count = 0;
    while let Some(end) = ends.join_next().await {
        end.map_err(Error::internal)??;
        count += 1;
    }
    Ok(Reply::KilledAll(KilledAll { count }))
}

fn grace(seconds: Option<u32>) -> Result<Duration> {
    let seconds = seconds.unwrap_or(GRACE);
    if seconds > GRACE_MAX {
        return Err(Error::new(
            "usage",
            format!("a grace of {seconds} s is too long; at most {GRACE_MAX}"),
        ));
    }
    Ok(Duration::from_secs(seconds.into()))
}
