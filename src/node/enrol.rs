//! A node that joins the selected network by itself, in its owner's name: the owner's token is in
//! its environment, or the owner has logged in on this machine.
//!
//! It tries until it is in, until somebody joins it by hand, or until the relay says no. A relay
//! that does not answer has not said no: a machine may well be up before its network. What keeps
//! it is told by whatever needs the network, and by `cw doctor`.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::Host;
use crate::error::{Error, Result};
use crate::logins;
use crate::uplink::api::{Api, NewInvite};

/// The first wait after an attempt that failed, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What an owner has set for a node to join by itself.
struct Selected {
    url: String,
    network: String,
    token: String,
}

/// See the module.
pub(super) async fn keep_trying(host: Weak<Host>) {
    let Some(selected) = host.upgrade().and_then(|host| selected(&host)) else {
        return;
    };
    let network = &selected.network;
    let mut wait = BACKOFF.0;
    loop {
        let Some(strong) = host.upgrade() else { return };
        if strong.network().is_ok() {
            return;
        }
        let error = match attempt(&strong, &selected).await {
            Ok(name) => {
                tracing::info!(%network, node = %name, "enrolled");
                return;
            }
            Err(error) => error,
        };
        if is_refusal(&error.code) {
            tracing::warn!(%error, %network, "this node may not join the selected network");
            strong.set_no_network(Error {
                message: format!(
                    "this node may not join network \"{network}\" by itself: {}",
                    error.message
                ),
                ..error
            });
            return;
        }
        let pause = crate::uplink::jittered(wait);
        tracing::warn!(%error, %network, ?pause, "this node has not joined the selected network yet");
        strong.set_no_network(waiting(network, &error));
        drop(strong);
        tokio::time::sleep(pause).await;
        wait = (wait * 2).min(BACKOFF.1);
    }
}

fn selected(host: &Host) -> Option<Selected> {
    let url = host.config.relay_url.clone()?;
    let network = host.config.network.clone()?;
    let token = std::env::var("CODEWIRE_RELAY_AUTH_TOKEN").ok();
    let token = token.map(|token| token.trim().to_owned());
    let login = || logins::find(&host.home, &url).ok()??.token;
    let token = token.filter(|token| !token.is_empty()).or_else(login)?;
    Some(Selected {
        url,
        network,
        token,
    })
}

/// One attempt, with an invite of its own; the name that the node has then.
async fn attempt(host: &Arc<Host>, selected: &Selected) -> Result<String> {
    let name = host.name();
    let new = NewInvite {
        network: selected.network.parse()?,
        uses: 1,
        ttl: "10m".to_owned(),
        mine: true,
        node_name: Some(name.parse()?),
    };
    let api = Api::new(&selected.url, &selected.token)?;
    let invite = api.create_invite(&new).await?;
    let token = invite.token.unwrap_or_default();
    let joined = host.join_first(&selected.url, &token, &name).await;
    if joined.is_err() {
        // Nobody else has use for it; if this fails it ends by itself.
        let _ = api.delete_invite(&new.network, &invite.id).await;
    }
    Ok(joined?.name.to_string())
}

/// Whether trying again with the same would change nothing.
fn is_refusal(code: &str) -> bool {
    !matches!(
        code,
        "relay_unreachable"
            | "relay_invalid"
            | "rate_limited"
            | "timeout"
            | "internal"
            | "not_ready"
            | "store_unavailable"
            | "disk_full"
    )
}

fn waiting(network: &str, error: &Error) -> Error {
    let text = format!(
        "this node has not joined network \"{network}\" yet, and tries again: {}",
        error.message
    );
    let waiting = Error::new("not_joined", text);
    match &error.hint {
        Some(hint) => waiting.hint(hint.clone()),
        None => waiting,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_tried_again() {
        for code in [
            "relay_unreachable",
            "relay_invalid",
            "rate_limited",
            "internal",
            "not_ready",
            "store_unavailable",
        ] {
            assert!(!is_refusal(code), "{code}");
        }
        for code in [
            "unauthorized",
            "forbidden",
            "name_taken",
            "revoked",
            "network_unknown",
        ] {
            assert!(is_refusal(code), "{code}");
        }
        let error = Error::new("relay_unreachable", "no answer from http://x");
        let shown = waiting("home", &error);
        assert!(shown.message.contains("home") && shown.message.contains("http://x"));
        assert_eq!(shown.hint, error.hint);
    }
}
