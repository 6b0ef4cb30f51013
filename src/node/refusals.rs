//! What other nodes were refused, in the log: whoever looks after this node finds out who tries
//! what is not theirs.
//!
//! Nobody fills the log that way: of the same refusals of one node, the first is told, and then
//! the second, the fourth, the eighth.

use std::collections::HashMap;

use mesh::NodeKey;
use parking_lot::Mutex;

use crate::verb::Reply;

/// Refusals that say that somebody may not, and not that something went wrong.
const CODES: [&str; 5] = [
    "denied",
    "group_forbids",
    "sender_forbidden",
    "grant_invalid",
    "bad_request",
];

/// Nodes of which they are counted; of more it is not told.
const MAX_NODES: usize = 10_000;

/// See the module.
#[derive(Default)]
pub(super) struct Refusals {
    counts: Mutex<HashMap<NodeKey, [u64; CODES.len()]>>,
}

impl Refusals {
    /// Notes the answer that a node gets, if it is a refusal. `name` is none for a node that is
    /// in no network of ours.
    pub(super) fn note(&self, key: &NodeKey, name: Option<&str>, reply: &Reply) {
        let node = name.unwrap_or("-");
        for (code, message) in refused(reply) {
            if let Some(count) = self
                .count(key, code)
                .filter(|count| count.is_power_of_two())
            {
                tracing::info!(%node, %key, %code, count, "refused a call of another node: {message}");
            }
        }
    }

    /// Which of its kind this is, counted from 1; none for what is not counted.
    fn count(&self, key: &NodeKey, code: &str) -> Option<u64> {
        let at = CODES.iter().position(|known| *known == code)?;
        let mut counts = self.counts.lock();
        if counts.len() >= MAX_NODES && !counts.contains_key(key) {
            return None;
        }
        let count = counts.entry(*key).or_default().get_mut(at)?;
        *count += 1;
        Some(*count)
    }
}

fn refused(reply: &Reply) -> Vec<(&str, &str)> {
    match reply {
        Reply::Error(failure) => vec![(&failure.code, &failure.message)],
        Reply::MsgDelivered(delivered) => delivered
            .outcomes
            .iter()
            .filter_map(|outcome| Some((outcome.code.as_deref()?, outcome.reason.as_deref()?)))
            .collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::verb::deliver::{Delivered, Outcome};

    #[test]
    fn each_kind_of_each_node_is_counted_by_itself() {
        let (refusals, one, other) = (
            Refusals::default(),
            NodeKey::from_bytes([1; 32]),
            NodeKey::from_bytes([2; 32]),
        );
        let counts = [(); 3].map(|()| refusals.count(&one, "denied"));
        assert_eq!(counts, [Some(1), Some(2), Some(3)]);
        assert_eq!(refusals.count(&one, "group_forbids"), Some(1));
        assert_eq!(refusals.count(&other, "denied"), Some(1));
        assert_eq!(refusals.count(&one, "session_not_found"), None);
    }

    #[test]
    fn a_message_that_was_not_taken_is_a_refusal_too() {
        let error = Error::new("denied", "no");
        let outcomes = vec![Outcome::default(), Outcome::refused(&error)];
        let reply = Reply::MsgDelivered(Delivered { outcomes });
        assert_eq!(refused(&reply), [("denied", "no")]);
        assert_eq!(refused(&Reply::Error(error.into())), [("denied", "no")]);
        assert!(refused(&Reply::Resized).is_empty());
    }
}
