//! Whether a call is allowed, with everything that counts: who calls and as whom, what the groups
//! of the network say, and the grant that was shown. [`super::policy`] decides; this brings
//! together what it needs, now and each time that something of it has changed.

use std::sync::Arc;
use std::time::Duration;

use session::{Name, Party, SessionId, Tag};

use super::policy::{self, Holder, Speaker, Standing, Target};
use super::{Action, Caller, Host};
use crate::error::{Error, Result};
use crate::paper::{Grant, GrantToken, GroupName};
use crate::show;
use crate::uplink::NetworkView;

/// The tag of a session that is closed by a group.
const MARK: &str = "group:";

/// How often a stream that a grant has opened is looked at besides when something changes, for
/// the end of the grant.
const LOOK: Duration = Duration::from_secs(1);

/// Decides for one call.
#[derive(Clone)]
pub struct Judge {
    pub(super) host: Arc<Host>,
    pub(crate) caller: Caller,
    pub(crate) acting: Party,
    pub(super) grant: Option<GrantToken>,
}

impl Judge {
    /// The node.
    pub(crate) const fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// From here on the call is one of this session of the calling node, for which that node
    /// vouches, or of none. The node's name, and whether it is of the same owner.
    ///
    /// # Errors
    ///
    /// `bad_request` when no other node calls.
    pub(crate) fn speaks_as(
        &mut self,
        from: Option<(SessionId, Option<Name>)>,
    ) -> Result<(String, bool)> {
        let Caller::Peer {
            node,
            same_owner,
            session,
            ..
        } = &mut self.caller
        else {
            return Err(Error::bad_request("only nodes hand messages over"));
        };
        session.clone_from(&from);
        self.acting = Party {
            node: Some(node.clone()),
            session: from,
        };
        Ok((node.clone(), *same_owner))
    }

    /// Whether the caller may do `action`, to the session `target` if it is about one.
    ///
    /// # Errors
    ///
    /// `denied`, `group_forbids`.
    pub fn may(&self, action: &Action, target: Option<SessionId>) -> Result<()> {
        let standing = target.map(|id| self.standing(id)).unwrap_or_default();
        policy::check(&self.caller, action, &standing)
    }

    /// Whether the caller may ask a session: also whether the answer may come back.
    ///
    /// # Errors
    ///
    /// `group_forbids`.
    pub fn may_ask(&self, target: SessionId) -> Result<()> {
        self.may(&Action::Message, Some(target))?;
        let me = self.host.identity.key();
        let Speaker::Session(node, session) = Speaker::of(&self.caller, &self.acting, &me) else {
            return Ok(());
        };
        let view = self.view();
        let marks = if node == me {
            self.marks(SessionId(session))
        } else {
            Vec::new()
        };
        let back = Target {
            node,
            session,
            marks,
        };
        let rules = view.as_ref().map(|view| &*view.rules);
        let from = Speaker::Session(me, target.0);
        let tie = policy::tie(rules, &me, from, &back);
        let standing = Standing {
            tie,
            ..Standing::default()
        };
        policy::check(&Caller::Session(target, None), &Action::Reply, &standing).map_err(|error| {
            error.hint("its reply could not come in; put both into one group, or send a message")
        })
    }

    /// Resolves when what was allowed no longer is: a grant has ended, a session has changed
    /// groups, a node has changed owners.
    pub async fn until_refused(&self, action: &Action, targets: &[SessionId]) -> Error {
        if self.caller == Caller::Owner && self.acting.session.is_none() {
            return std::future::pending().await;
        }
        let Ok(network) = self.host.network() else {
            return std::future::pending().await;
        };
        let mut news = network.watch();
        loop {
            let refused = targets
                .iter()
                .find_map(|target| self.may(action, Some(*target)).err());
            if let Some(error) = refused {
                return error;
            }
            tokio::select! {
                changed = news.changed() => if changed.is_err() {
                    // The network was left; its peers are gone with it.
                    return std::future::pending().await;
                },
                () = tokio::time::sleep(LOOK), if self.grant.is_some() => {}
            }
        }
    }

    /// The sessions that this caller may do something to now.
    #[must_use]
    pub fn allowed(&self, action: &Action) -> Vec<SessionId> {
        let all = self.host.sessions.list().into_iter().map(|info| info.id);
        all.filter(|id| self.may(action, Some(*id)).is_ok())
            .collect()
    }

    fn view(&self) -> Option<Arc<NetworkView>> {
        self.host.network().ok().map(|network| network.view())
    }

    fn standing(&self, target: SessionId) -> Standing {
        let me = self.host.identity.key();
        let speaker = Speaker::of(&self.caller, &self.acting, &me);
        if speaker == Speaker::Owner && self.grant.is_none() {
            // No group stands in the owner's way.
            return Standing::default();
        }
        let view = self.view();
        let rules = view.as_ref().map(|view| &*view.rules);
        let about = Target {
            node: me,
            session: target.0,
            marks: self.marks(target),
        };
        let granted = view.as_ref().and_then(|view| self.granted(view, target));
        Standing {
            tie: policy::tie(rules, &me, speaker, &about),
            granted: granted.map(|grant| grant.verbs).unwrap_or_default(),
        }
    }

    fn granted(&self, view: &NetworkView, target: SessionId) -> Option<Grant> {
        let (Some(token), Caller::Peer { key, owner, .. }) = (&self.grant, &self.caller) else {
            return None;
        };
        let holder = Holder {
            token,
            key: *key,
            owner,
        };
        let (me, now) = (self.host.identity.key(), show::now_ms() / 1000);
        policy::grant(&view.rules, (&me, &view.me.owner), &holder, target.0, now).cloned()
    }

    fn marks(&self, session: SessionId) -> Vec<GroupName> {
        let tags = self.host.sessions.tags(session).unwrap_or_default();
        marks(&tags)
    }
}

/// The groups by which a session is marked as closed.
pub(super) fn marks(tags: &[Tag]) -> Vec<GroupName> {
    let marked = tags
        .iter()
        .filter_map(|tag| tag.as_str().strip_prefix(MARK));
    marked.filter_map(|name| name.parse().ok()).collect()
}

/// The tag that marks a session as closed by a group.
pub(crate) fn mark(group: &GroupName) -> Tag {
    let tag = format!("{MARK}{group}");
    tag.parse().expect("a group's name is short and plain")
}

/// Whether a tag is such a mark, which nobody may put there by hand.
pub(crate) fn is_mark(tag: &Tag) -> bool {
    tag.as_str().starts_with(MARK)
}
