//! How far a message has come, asked of the node of its recipient. Nobody types this.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use session::{Progress, RequestState};
use tokio::time::timeout;

use super::{Call, Reply, sending};
use crate::error::{Error, Result};
use crate::node::Context;

/// The pause before a node that was lost is asked again.
const AGAIN: Duration = Duration::from_millis(300);

/// How much longer than the other node this one waits.
const SLACK: Duration = Duration::from_secs(10);

/// How far has this come? Answers when it has come as far as is asked, or after a time.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Ask {
    /// The recipient.
    #[serde(rename = "id")]
    pub session: u32,
    /// The message.
    pub message_id: String,
    /// `typed`, `read`, or nothing to be told at once.
    #[serde(default)]
    pub until: String,
    /// How long to wait for that, milliseconds.
    #[serde(default)]
    pub timeout_ms: u64,
}

/// The answer.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Now {
    /// `delivered`, `injected`, `unverified`, `submitted`, `read`, `refused`, `answered`.
    pub state: String,
    /// What came of typing it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub typed: Option<String>,
    /// Why that was not a success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// It is still to be typed.
    #[serde(default)]
    pub to_type: bool,
}

impl Now {
    /// As the sessions have it.
    #[must_use]
    pub fn of(progress: &Progress, state: Option<RequestState>) -> Self {
        use session::Step;
        let state = match (progress.typed, progress.read) {
            _ if state == Some(RequestState::Answered) => "answered",
            (_, true) => "read",
            (Some(Step::Submitted), _) => "submitted",
            (Some(Step::Unverified), _) => "unverified",
            (Some(Step::Injected), _) => "injected",
            _ => "delivered",
        };
        Self {
            state: state.to_owned(),
            typed: progress.typed.map(|step| step.as_str().to_owned()),
            reason: progress.reason.clone(),
            to_type: progress.to_type,
        }
    }

    /// Whether the recipient has it for certain.
    #[must_use]
    pub fn is_read(&self) -> bool {
        matches!(self.state.as_str(), "read" | "submitted" | "answered")
    }
}

impl Ask {
    /// The same with another end.
    #[must_use]
    pub fn until(&self, until: &str) -> Self {
        Self {
            until: until.to_owned(),
            ..self.clone()
        }
    }

    pub(crate) async fn handle(self, context: &mut Context<'_>) -> Result<Reply> {
        let id = self
            .message_id
            .parse()
            .map_err(|_| Error::bad_request("no message id"))?;
        let session = sending::session(self.session);
        let sessions = &context.host.sessions;
        let done = |progress: &Progress, state| match self.until.as_str() {
            "typed" => sending::has_outcome(progress),
            "read" => sending::is_read(progress, state),
            _ => true,
        };
        let limit = Duration::from_millis(self.timeout_ms.min(60_000));
        let waited = timeout(limit, sessions.progressed(session, id, done)).await;
        let (progress, state) = match waited {
            Ok(come) => come?,
            Err(_) => sessions.progress(session, id)?,
        };
        Ok(Reply::MsgProgress(Now::of(&progress, state)))
    }
}

/// Asks another node, again while it is away, until it has come so far or the time is up; then how
/// far it has come by then.
///
/// # Errors
///
/// As the other node says, or why it cannot be asked.
pub(super) async fn there(
    context: &Context<'_>,
    node: &str,
    ask: Ask,
    limit: Duration,
) -> Result<Now> {
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let piece = left.min(Duration::from_secs(50));
        let call = Ask {
            timeout_ms: u64::try_from(piece.as_millis()).unwrap_or(0),
            ..ask.clone()
        };
        let host = context.host;
        let asked = host
            .post
            .ask(host, node, Call::MsgProgress(call), piece + SLACK)
            .await;
        let over = Instant::now() >= end;
        match asked {
            Ok(Reply::MsgProgress(now)) => {
                let far = match ask.until.as_str() {
                    "read" => now.is_read(),
                    _ => !now.to_type,
                };
                if far || over {
                    return Ok(now);
                }
            }
            Ok(other) => return Err(other.unexpected()),
            Err(error) if over || !super::again::is_lost(&error) => return Err(error),
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
    }
}
