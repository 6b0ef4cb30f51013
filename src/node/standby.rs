//! The relay that stands by, of those that the network's relays tell of.

use std::sync::Arc;
use std::time::Duration;

use mesh::NodeKey;
use mesh::io::{Mesh, Relay};
use rustls::ClientConfig;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use crate::uplink::{NetworkView, RelayPlace};

/// A choice is kept for that long.
const PAUSE: Duration = Duration::from_secs(1);

/// Keeps a relay standing by for packets, as long as there is another one than the first.
pub(super) async fn keep(
    mesh: Mesh,
    mut view: watch::Receiver<Arc<NetworkView>>,
    tls: Option<Arc<ClientConfig>>,
) {
    let mut first = mesh.relay_key();
    loop {
        let now = view.borrow_and_update().clone();
        let key = *first.borrow_and_update();
        let chosen = choose(&now.me.key, key.as_ref(), &now.relays);
        mesh.set_standby(chosen.and_then(|place| relay(place, tls.clone())));
        // However often the relays change their minds.
        tokio::time::sleep(PAUSE).await;
        tokio::select! {
            changed = view.changed() => if changed.is_err() { return },
            changed = first.changed() => if changed.is_err() { return },
        }
    }
}

/// One that is not the first, which may have several URLs. Every node makes its own choice, or all
/// would go to the same one; and keeps to it while others come and go.
pub(super) fn choose<'a>(
    me: &NodeKey,
    first: Option<&NodeKey>,
    relays: &'a [RelayPlace],
) -> Option<&'a RelayPlace> {
    let weight = |place: &&RelayPlace| {
        let mut hash = Sha256::new();
        hash.update(me.as_bytes());
        hash.update(place.key.as_bytes());
        hash.finalize()
    };
    // While none was reached, any may be it; and then one that stands by is all there is.
    let others = relays.iter().filter(|place| Some(&place.key) != first);
    others.max_by_key(weight)
}

fn relay(place: &RelayPlace, tls: Option<Arc<ClientConfig>>) -> Option<(Relay, NodeKey)> {
    let url = &place.url;
    match crate::uplink::proxy(url) {
        Ok(proxy) => {
            let relay = Relay {
                url: url.clone(),
                tls,
                proxy,
                stun: None,
            };
            Some((relay, place.key))
        }
        Err(error) => {
            tracing::warn!(%url, %error, "no relay stands by");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> Vec<RelayPlace> {
        let place = |n: u8| RelayPlace {
            url: format!("http://{n}.example:80"),
            key: NodeKey::from_bytes([n; 32]),
        };
        (0..5).map(place).collect()
    }

    #[test]
    fn nodes_choose_differently_and_keep_to_it() {
        let relays = places();
        let first = NodeKey::from_bytes([0; 32]);
        let mut chosen = [0; 5];
        for node in 0..=255 {
            let me = NodeKey::from_bytes([node; 32]);
            let choice = choose(&me, Some(&first), &relays).unwrap();
            let at = relays.iter().position(|place| place == choice).unwrap();
            chosen[at] += 1;
            // Whatever happens to the others.
            for gone in relays.iter().filter(|place| *place != choice) {
                let left = relays.iter().filter(|place| *place != gone);
                let left: Vec<RelayPlace> = left.cloned().collect();
                assert_eq!(choose(&me, Some(&first), &left), Some(choice));
            }
        }
        assert_eq!(chosen[0], 0, "the first one stands by for itself");
        assert!(chosen[1..].iter().all(|count| *count > 30), "{chosen:?}");
        assert_eq!(choose(&first, Some(&first), &relays[..1]), None);
        assert_eq!(choose(&first, None, &relays[..1]), Some(&relays[0]));
    }
}
