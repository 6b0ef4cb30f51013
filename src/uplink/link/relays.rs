//! The relays at which a node may be: the one where it joined, and others over the same database,
//! as they say of each other. It stays where it is until that is gone, and tries the others then,
//! one after another.

use mesh::NodeKey;

use crate::coord::{MAX_RELAYS, RelayPlace};
use crate::uplink::RelayUrl;

/// The longest URL that is believed, bytes.
const MAX_URL: usize = 512;

/// See the module.
pub(super) struct Relays {
    home: RelayUrl,
    others: Vec<Other>,
    current: RelayUrl,
    /// Attempts that have failed in a row.
    failed: usize,
}

#[derive(PartialEq)]
struct Other {
    url: RelayUrl,
    key: NodeKey,
}

impl Relays {
    /// The relay of the membership, and what was told of others.
    pub(super) fn new(home: RelayUrl, told: &[RelayPlace]) -> Self {
        let current = home.clone();
        let mut relays = Self {
            home,
            others: Vec::new(),
            current,
            failed: 0,
        };
        relays.handle_told(told);
        relays
    }

    /// The relays say where they are; whether that is news. What cannot be used is passed over:
    /// whoever joined with TLS is not led to a relay without, nor the other way round.
    pub(super) fn handle_told(&mut self, told: &[RelayPlace]) -> bool {
        let mut others = Vec::new();
        for RelayPlace { url, key } in told.iter().take(MAX_RELAYS) {
            let url = Some(url).filter(|url| url.len() <= MAX_URL);
            let Some(url) = url.and_then(|url| url.parse::<RelayUrl>().ok()) else {
                continue;
            };
            let is_new = !others.iter().any(|other: &Other| other.url == url);
            if url.tls == self.home.tls && url != self.home && is_new {
                others.push(Other { url, key: *key });
            }
        }
        let is_news = self.others != others;
        self.others = others;
        is_news
    }

    /// The one to be connected to.
    pub(super) const fn current(&self) -> &RelayUrl {
        &self.current
    }

    /// All but the one where the node joined.
    pub(super) fn others(&self) -> Vec<RelayPlace> {
        let place = |other: &Other| RelayPlace {
            url: other.url.to_string(),
            key: other.key,
        };
        self.others.iter().map(place).collect()
    }

    /// The connection, or an attempt at one, is over; whether it was the last one of a round. One
    /// that has just worked is tried once more.
    pub(super) fn handle_over(&mut self, was_up: bool) -> bool {
        if was_up {
            self.failed = 0;
            return false;
        }
        self.failed += 1;
        let others = self.others.iter().map(|other| &other.url);
        let all: Vec<&RelayUrl> = [&self.home].into_iter().chain(others).collect();
        let at = all.iter().position(|url| **url == self.current);
        let next = at.map_or(0, |at| (at + 1) % all.len());
        let is_round = self.failed.is_multiple_of(all.len());
        self.current = all[next].clone();
        is_round
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relays(told: &[&str]) -> Relays {
        let home = "https://a.example".parse().unwrap();
        Relays::new(home, &owned(told))
    }

    fn owned(urls: &[&str]) -> Vec<RelayPlace> {
        urls.iter().map(|url| place(url)).collect()
    }

    fn place(url: &str) -> RelayPlace {
        RelayPlace {
            url: url.to_owned(),
            key: NodeKey::from_bytes([7; 32]),
        }
    }

    fn at(relays: &Relays) -> &str {
        relays.current().host.split('.').next().unwrap()
    }

    #[test]
    fn others_are_tried_in_turn_and_the_last_one_that_worked_first() {
        let mut relays = relays(&["https://b.example", "https://c.example"]);
        assert_eq!(at(&relays), "a");
        // It was there a moment ago.
        assert!(!relays.handle_over(true));
        assert_eq!(at(&relays), "a");
        let mut rounds = Vec::new();
        for next in ["b", "c", "a", "b", "c"] {
            rounds.push(relays.handle_over(false));
            assert_eq!(at(&relays), next);
        }
        assert_eq!(rounds, [false, false, true, false, false]);
        // One that is not told of any more is kept while it works.
        assert!(relays.handle_told(&owned(&["https://b.example"])));
        assert_eq!(at(&relays), "c");
        relays.handle_over(true);
        relays.handle_over(false);
        assert_eq!(at(&relays), "a");
    }

    #[test]
    fn a_node_that_knows_one_relay_stays_with_it() {
        let mut relays = relays(&[]);
        for _ in 0..3 {
            assert!(relays.handle_over(false));
            assert_eq!(at(&relays), "a");
        }
    }

    #[test]
    fn what_cannot_be_a_relay_is_passed_over() {
        let long = format!("https://{}.example", "a".repeat(MAX_URL));
        let mut relays = relays(&[
            "https://b.example",
            "http://plain.example",
            "https://a.example:443",
            "https://b.example:443",
            "nonsense",
            "https://x.example/path",
            &long,
        ]);
        assert_eq!(relays.others(), [place("https://b.example:443")]);
        assert!(!relays.handle_told(&owned(&["https://b.example/"])));
        let many = (0..100).map(|n| place(&format!("https://{n}.example")));
        let many: Vec<_> = many.collect();
        assert!(relays.handle_told(&many));
        assert_eq!(relays.others().len(), MAX_RELAYS);
    }
}
