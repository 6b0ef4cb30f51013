//! Which sessions a call is about: one by its name or number, those with a tag, or all.
//!
//! A word names the session that has it as its name; if none has, the sessions that have it as a
//! tag. On the wire that is `id` or `name`, `tags` and `node`.

use clap::Args;
use serde::{Deserialize, Serialize};
use session::{Info, SessionId, Tag};

use crate::error::{Error, Result};
use crate::locator::{Locator, Session};
use crate::node::{Action, Context};

/// One session or several.
#[derive(Args, Clone, Debug, Default, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Selection {
    /// The session: its name or number, a tag, or node:session; with --tag the node.
    #[arg(value_name = "SESSION|TAG", add = super::complete::sessions_and_tags())]
    #[serde(skip)]
    pub target: Option<Locator>,
    /// Sessions with this tag; may be given several times.
    #[arg(short, long = "tag", value_name = "TAG", value_delimiter = ',', add = super::complete::tags())]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// The node they are on; this one if left out.
    #[arg(long, value_name = "NODE", value_parser = crate::locator::node_name, add = super::complete::nodes())]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The session, without its node.
    #[arg(skip)]
    #[serde(flatten, with = "crate::locator::one")]
    pub session: Option<Session>,
}

/// What was selected, at one moment.
#[derive(Clone, Debug)]
pub(crate) enum Selected {
    /// Exactly this session.
    One(Box<Info>),
    /// Every session that has one of these tags, now or later.
    Tagged(Vec<Tag>),
    /// Every session.
    All,
}

impl Selection {
    /// Takes the word of the command line apart, so that routing sees the node.
    ///
    /// # Errors
    ///
    /// `usage` when two nodes are named.
    pub(crate) fn settle(mut self) -> Result<Self> {
        if let Some(target) = self.target.take() {
            if !self.tags.is_empty() {
                return self.on_node(target);
            }
            if target.node.is_some() && self.node.is_some() && target.node != self.node {
                return Err(Error::new("usage", "two nodes are named"));
            }
            self.node = target.node.or(self.node);
            self.session = Some(target.session);
        }
        Ok(self)
    }

    /// `dev-1 --tag build`: beside a tag the word can only be a node.
    fn on_node(mut self, word: Locator) -> Result<Self> {
        match (word.node, word.session, &self.node) {
            (None, Session::Name(node), None) => self.node = Some(node),
            _ => {
                return Err(Error::new("usage", "a session and a tag are named")
                    .hint("one of them is enough; a word beside --tag is a node"));
            }
        }
        Ok(self)
    }

    /// Whether nothing narrows it down.
    pub(crate) fn is_all(&self) -> bool {
        self.target.is_none() && self.session.is_none() && self.tags.is_empty()
    }

    /// Finds out what is meant.
    ///
    /// # Errors
    ///
    /// `session_not_found` for a word that is neither a session nor a tag, `tag_invalid`.
    pub(crate) fn select(&self, context: &Context<'_>) -> Result<Selected> {
        if let Some(session) = &self.session {
            return named(context, session);
        }
        if self.tags.is_empty() {
            return Ok(Selected::All);
        }
        let tags = self.tags.iter().map(|tag| tag.parse::<Tag>());
        Ok(Selected::Tagged(tags.collect::<Result<_, _>>()?))
    }
}

/// What a word means: a session, else a tag.
///
/// # Errors
///
/// `session_not_found`.
pub(super) fn named(context: &Context<'_>, session: &Session) -> Result<Selected> {
    let missing = match super::find(context, session) {
        Ok(info) => return Ok(Selected::One(Box::new(info))),
        Err(error) => error,
    };
    let Session::Name(word) = session else {
        return Err(missing);
    };
    let tag = word.parse::<Tag>()?;
    let known = context.host.sessions.list();
    if known.iter().any(|info| info.tags.contains(&tag)) {
        return Ok(Selected::Tagged(vec![tag]));
    }
    Err(Error::new(
        "session_not_found",
        format!("no session or tag named {word:?}"),
    ))
}

impl Selected {
    /// The sessions that are selected now and with which the caller may do `action`, oldest first.
    pub(crate) fn now(&self, context: &Context<'_>, action: &Action) -> Vec<Info> {
        let judge = context.judge();
        let all = context.host.sessions.list().into_iter();
        let all = all.filter(|info| judge.may(action, Some(info.id)).is_ok());
        match self {
            Self::One(info) => vec![(**info).clone()],
            Self::Tagged(tags) => {
                let tagged = |info: &Info| info.tags.iter().any(|tag| tags.contains(tag));
                all.filter(tagged).collect()
            }
            Self::All => all.collect(),
        }
    }

    /// As [`Self::now`], but nothing is an error.
    ///
    /// # Errors
    ///
    /// `session_not_found`.
    pub(crate) fn some(&self, context: &Context<'_>) -> Result<Vec<Info>> {
        let found = self.now(context, &Action::Watch);
        if !found.is_empty() {
            return Ok(found);
        }
        let what = match self {
            Self::Tagged(tags) => {
                let tags: Vec<_> = tags.iter().map(Tag::as_str).collect();
                format!("no session has the tag {}", tags.join(" or "))
            }
            Self::One(_) | Self::All => "there is no session".to_owned(),
        };
        Err(Error::new("session_not_found", what))
    }

    /// The one session, for subscriptions.
    pub(crate) fn id(&self) -> Option<SessionId> {
        match self {
            Self::One(info) => Some(info.id),
            Self::Tagged(_) | Self::All => None,
        }
    }
}
