//! The way to one node: carries its letters in order, several at a time, for as long as there is
//! a node.
//!
//! While the other node is away its letters are queued, and it is tried again: after a pause that
//! grows, and at once when the network has news. What went out and was not confirmed goes out
//! again; the other end knows it by its id.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::super::Host;
use super::super::proxy::{self, Envelope};
use super::outbox::{Letter, State};
use crate::error::{Error, Result};
use crate::verb::deliver::{Deliver, Outcome, Parcel};
use crate::verb::{Call, Reply};

/// The first pause between two tries, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// Letters carried at once, and the bytes after which no more are added; a frame takes 16 MiB.
const BATCH: (usize, usize) = (256, 1024 * 1024);

/// How long the other node may take to keep them.
const ANSWER: Duration = Duration::from_secs(20);

/// How often letters are looked at that nobody comes for.
const IDLE: Duration = Duration::from_secs(600);

/// Carries until the node ends.
pub(super) async fn carry(host: Weak<Host>, node: String, bell: Arc<Notify>) {
    let mut pause = PAUSE.0;
    loop {
        let Some(strong) = host.upgrade() else { return };
        expire(&strong).await;
        let batch = strong
            .post
            .books
            .lock()
            .outbox
            .next_for(&node, BATCH.0, BATCH.1);
        if batch.is_empty() {
            drop(strong);
            let _ = timeout(IDLE, bell.notified()).await;
            continue;
        }
        let carried = match deliver(&strong, &node, &batch).await {
            Ok(outcomes) => note(&strong, &batch, outcomes).await,
            Err(error) => Err(error),
        };
        let Err(error) = carried else {
            pause = PAUSE.0;
            continue;
        };
        queue(&strong, &node, &error).await;
        drop(strong);
        // A bell that rings all the time does not make it faster than this.
        sleep(PAUSE.0).await;
        let _ = timeout(jitter(pause), bell.notified()).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// The pause, give or take a quarter: nodes that lost the same one do not come back in step.
fn jitter(pause: Duration) -> Duration {
    let mut byte = [0; 1];
    // Without chance they come in step, which is only slower.
    let _ = getrandom::fill(&mut byte);
    pause.mul_f64(0.75 + f64::from(byte[0]) / 512.0)
}

async fn expire(host: &Host) {
    let now = host.post.age_ms();
    let expired = host
        .post
        .change(|outbox| Ok(outbox.poll_expired(now)))
        .await;
    if let Err(error) = expired {
        tracing::warn!(%error, "letters that are too old stay");
    }
}

async fn deliver(host: &Arc<Host>, node: &str, batch: &[Letter]) -> Result<Vec<Outcome>> {
    let network = host.network()?;
    let peer = network.peer(node)?;
    let key = peer.record.key;
    let parcels = batch.iter().map(|letter| Parcel {
        misdirected: letter.key.is_some_and(|wanted| wanted != key),
        ..Parcel::from(letter)
    });
    let (wrong, right): (Vec<_>, Vec<_>) = parcels.partition(|parcel| parcel.misdirected);
    if let Some(parcel) = wrong.first() {
        // All before it go first, so that the order stays.
        let at = batch
            .iter()
            .position(|letter| letter.id.to_string() == parcel.id)
            .unwrap_or(0);
        if at == 0 {
            let why = format!("{node} is another machine now");
            return Ok(vec![Outcome::refused(&Error::new("node_replaced", why))]);
        }
        return carry_now(&network, node, right.into_iter().take(at).collect()).await;
    }
    carry_now(&network, node, right).await
}

async fn carry_now(
    network: &super::super::Network,
    node: &str,
    parcels: Vec<Parcel>,
) -> Result<Vec<Outcome>> {
    let call = Call::MsgDeliver(Deliver { parcels });
    let envelope = Envelope {
        session: None,
        grant: None,
        call,
    };
    match proxy::ask(network, node, &envelope, ANSWER).await? {
        Reply::MsgDelivered(delivered) => Ok(delivered.outcomes),
        other => Err(other.unexpected()),
    }
}

/// Writes down what became of them, as far as the other node has come.
async fn note(host: &Host, batch: &[Letter], outcomes: Vec<Outcome>) -> Result<()> {
    let mut later = None;
    if outcomes.is_empty() {
        return Err(Error::bad_request(
            "the other node says nothing of the letters",
        ));
    }
    host.post
        .change(|outbox| {
            let mut changes = Vec::new();
            for (letter, outcome) in batch.iter().zip(outcomes) {
                let (state, why) = match outcome.state.as_str() {
                    "delivered" => (State::Delivered, None),
                    "refused" => (
                        State::Refused,
                        Some((
                            outcome.code.unwrap_or_default(),
                            outcome.reason.unwrap_or_default(),
                        )),
                    ),
                    _ => {
                        later = Some(Error::new(
                            &outcome.code.unwrap_or_default(),
                            outcome.reason.unwrap_or_default(),
                        ));
                        break;
                    }
                };
                changes.extend(outbox.handle_state(letter.id, state, why, outcome.got_by));
            }
            Ok(changes)
        })
        .await?;
    later.map_or(Ok(()), Err)
}

/// Tells those who wait that their letters wait as well, and why.
async fn queue(host: &Host, node: &str, error: &Error) {
    let cut_off = error
        .hint
        .as_ref()
        .filter(|_| error.code == "node_unreachable");
    let cut_off = cut_off.map(|hint| format!("; {hint}")).unwrap_or_default();
    let why = (error.code.clone(), format!("{}{cut_off}", error.message));
    let queued = host
        .post
        .change(|outbox| {
            let accepted = outbox
                .iter()
                .filter(|record| record.letter.node == node && record.state == State::Accepted);
            Ok(accepted
                .filter_map(|record| {
                    outbox.handle_state(record.letter.id, State::Queued, Some(why.clone()), None)
                })
                .collect())
        })
        .await;
    if let Err(error) = queued {
        tracing::warn!(%error, "the outbox cannot be written");
    }
}
