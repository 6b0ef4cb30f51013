//! Values that nodes share: who may, and what a request must be like.

use std::sync::Arc;

use mesh::NetworkId;
use reqwest::{Method, StatusCode};

use super::rig::{Node, Rig, TOKEN, code, identity, limited, node_name};
use crate::coord::Nonce;
use crate::coord::request::{Credential, REQUEST_WINDOW, Request, SCHEME, Signer};
use crate::relay::app::random;
use crate::relay::clock::unix_now;
use crate::uplink::http::Http;
use crate::uplink::kv::{Change, Shared};

fn shared(node: &Node) -> Shared {
    let url = node.membership.relay_url.clone();
    Shared::new(&node.membership, Arc::clone(&node.identity), move || {
        url.clone()
    })
}

fn set(key: &str, value: &[u8]) -> Change {
    Change {
        space: "default".to_owned(),
        key: key.to_owned(),
        value: Some(value.to_vec()),
        session: Some("planner".to_owned()),
        ..Change::default()
    }
}

async fn two(rig: &Rig) -> (NetworkId, Node, Node) {
    let network = rig.network("home").await;
    let invite = rig.invite(&network, 2).await;
    let one = rig.join(&invite, "dev-1").await.unwrap();
    let other = rig.join(&invite, "dev-2").await.unwrap();
    (network, one, other)
}

#[tokio::test]
pub(super) async fn what_one_node_stores_another_reads() {
    limited(async {
        let mut rig = Rig::new().await;
        let (_, one, other) = two(&rig).await;
        let (mine, theirs) = (shared(&one), shared(&other));
        let bytes: Vec<u8> = (0..=255).collect();
        let keys = ["a", "tasks/1", "ü %?#&/+;=", "a//b", "-.~_", "..."];
        for key in keys {
            mine.change(set(key, &bytes)).await.unwrap();
            let found = theirs.get("default", key).await.unwrap();
            assert_eq!(found.value, bytes, "{key}");
            assert_eq!(found.changed_by.as_deref(), Some("dev-1:planner"));
        }
        let page = theirs.list("default", "", None).await.unwrap();
        assert_eq!((page.entries.len(), page.more), (keys.len(), false));
        // The largest value there may be, and one byte more.
        mine.change(set("large", &vec![7; 1024 * 1024]))
            .await
            .unwrap();
        assert_eq!(
            theirs.get("default", "large").await.unwrap().value.len(),
            1024 * 1024
        );
        let over = mine.change(set("large", &vec![7; 1024 * 1024 + 1])).await;
        assert_eq!(code(over), "body_too_large");
        // Nothing of it depends on this run of the relay.
        rig.restart().await;
        assert_eq!(theirs.get("default", "a").await.unwrap().value, bytes);
        let delete = Change {
            value: None,
            ..set("a", b"")
        };
        theirs.change(delete.clone()).await.unwrap();
        assert_eq!(code(theirs.change(delete).await), "key_not_found");
        assert_eq!(code(mine.get("default", "a").await), "key_not_found");
    })
    .await;
}

/// Hole B1: no member reaches what the relay keeps for itself; prefixes are literal (D7).
#[tokio::test]
async fn b01_s22_namespaces_of_the_relay_are_out_of_reach() {
    limited(async {
        let rig = Rig::new().await;
        let (_, one, _) = two(&rig).await;
        let mine = shared(&one);
        for space in ["relay", "relay.networkauth", "codewire", "RELAY.x"] {
            assert_eq!(
                code(mine.get(space, "issuer.current").await),
                "namespace_reserved"
            );
            assert_eq!(code(mine.list(space, "", None).await), "namespace_reserved");
            let mut change = set("issuer.current", b"x");
            change.space = space.to_owned();
            assert_eq!(code(mine.change(change).await), "namespace_reserved");
        }
        for space in ["", ".", "..", "a b", "ä"] {
            assert_ne!(code(mine.get(space, "k").await), "ok", "{space:?}");
        }
        for key in ["", "a\nb", "\u{1b}[2J", "\0"] {
            assert_ne!(code(mine.change(set(key, b"x")).await), "ok", "{key:?}");
        }
        for ttl in ["0s", "x", "-1s", "99999d"] {
            let mut change = set("k", b"x");
            change.ttl = Some(ttl.to_owned());
            assert_eq!(code(mine.change(change).await), "ttl_invalid", "{ttl}");
        }
    })
    .await;
}

#[tokio::test]
async fn b11_u24_s26_a_node_that_was_revoked_shares_no_more() {
    limited(async {
        let mut rig = Rig::new().await;
        let (network, one, other) = two(&rig).await;
        let (mine, theirs) = (shared(&one), shared(&other));
        theirs.change(set("a", b"1")).await.unwrap();
        rig.api()
            .revoke(&network, &node_name("dev-2"))
            .await
            .unwrap();
        assert_eq!(code(theirs.get("default", "a").await), "revoked");
        assert_eq!(code(theirs.change(set("a", b"2")).await), "revoked");
        rig.restart().await;
        assert_eq!(code(theirs.get("default", "a").await), "revoked");
        assert_eq!(mine.get("default", "a").await.unwrap().value, b"1");
    })
    .await;
}

/// A follower hears of a change while it waits, and one that was revoked meanwhile does not.
#[tokio::test]
pub(super) async fn who_follows_hears_of_changes() {
    limited(async {
        let rig = Rig::new().await;
        let (network, one, other) = two(&rig).await;
        let (mine, theirs) = (shared(&one), shared(&other));
        let start = theirs.changes("default", "a", None).await.unwrap().upto;
        let (heard, ()) = tokio::join!(theirs.changes("default", "a", Some(start)), async {
            mine.change(set("b", b"not asked for")).await.unwrap();
            mine.change(set("a", b"1")).await.unwrap();
        });
        let heard = heard.unwrap();
        assert_eq!(heard.changes.len(), 1);
        assert_eq!((&heard.changes[0].key[..], heard.upto), ("a", start + 2));
        let (heard, ()) = tokio::join!(theirs.changes("default", "", Some(heard.upto)), async {
            let api = rig.api();
            api.revoke(&network, &node_name("dev-2")).await.unwrap();
            mine.change(set("secret", b"2")).await.unwrap();
        });
        assert_ne!(code(heard), "ok");
    })
    .await;
}

/// A signature is good for one request, once, for as long as clocks may differ.
#[tokio::test]
pub(super) async fn b04_u11_s05_s25_a_request_that_was_not_signed_so_is_refused() {
    limited(async {
        let rig = Rig::new().await;
        let (network, one, _) = two(&rig).await;
        let http = Http::new(rig.url(), None).unwrap();
        let send = async |method: Method, path: &str, credential: String, body: &'static [u8]| {
            let request = http
                .request(method, path)
                .header("authorization", credential)
                .body(body);
            request.send().await.unwrap().status()
        };
        let sign = |method: &str, path: &str, body: &[u8], time: u64| {
            let signer = Signer {
                network: &network,
                key: one.identity.key(),
                signing: one.identity.signing_key(),
            };
            let request = Request {
                issuer: &one.membership.issuer,
                method,
                path,
            };
            Credential::sign(&signer, &request, body, time, Nonce(random()))
        };
        let (path, now) = ("/api/v1/kv/default/k", unix_now());
        let text = |credential: &Credential| format!("{SCHEME} {credential}");
        let good = sign("PUT", path, b"v", now);
        assert_eq!(
            send(Method::PUT, path, text(&good), b"v").await,
            StatusCode::OK
        );
        let refused = StatusCode::UNAUTHORIZED;
        // Again; with another body, method, key or query; from another time; by a stranger.
        assert_eq!(send(Method::PUT, path, text(&good), b"v").await, refused);
        let fresh = || text(&sign("PUT", path, b"v", now));
        assert_eq!(send(Method::PUT, path, fresh(), b"w").await, refused);
        assert_eq!(send(Method::DELETE, path, fresh(), b"v").await, refused);
        let elsewhere = "/api/v1/kv/default/l";
        assert_eq!(send(Method::PUT, elsewhere, fresh(), b"v").await, refused);
        let asked = "/api/v1/kv/default/k?x=1";
        assert_eq!(send(Method::PUT, asked, fresh(), b"v").await, refused);
        for time in [now - REQUEST_WINDOW - 5, now + REQUEST_WINDOW + 5] {
            let old = text(&sign("PUT", path, b"v", time));
            assert_eq!(send(Method::PUT, path, old, b"v").await, refused);
        }
        let stranger = identity();
        let mut forged = sign("PUT", path, b"v", now);
        forged.key = stranger.key();
        assert_eq!(send(Method::PUT, path, text(&forged), b"v").await, refused);
        for garbage in ["", "x", "CW-Node", "CW-Node x", "CW-Node .....", "Bearer x"] {
            let status = send(Method::PUT, path, garbage.to_owned(), b"v").await;
            assert_eq!(status, refused, "{garbage:?}");
        }
        // A user says which network.
        let bearer = || format!("Bearer {TOKEN}");
        assert_eq!(
            send(Method::GET, path, bearer(), b"").await,
            StatusCode::BAD_REQUEST
        );
        let named = format!("{path}?network_id={network}");
        assert_eq!(
            send(Method::GET, &named, bearer(), b"").await,
            StatusCode::OK
        );
        let other = format!("{path}?network_id=other");
        assert_eq!(
            send(Method::GET, &other, bearer(), b"").await,
            StatusCode::NOT_FOUND
        );
    })
    .await;
}

#[tokio::test]
async fn s35_values_have_an_end_prefixes_are_literal_and_a_network_is_made_once() {
    limited(async {
        let rig = Rig::new().await;
        // Of two who make it at once, both find it, with one issuer.
        let (network, again) = tokio::join!(rig.network("home"), rig.network("home"));
        assert_eq!(network, again);
        let issuer = rig.seed(&network).await;
        let (_, one, other) = two(&rig).await;
        assert_eq!(rig.seed(&network).await, issuer);
        let (mine, theirs) = (shared(&one), shared(&other));
        let over = mine.change(set("large", &vec![7; 1024 * 1024 + 1])).await;
        assert_eq!(code(over), "body_too_large");
        for key in ["a%", "a%b", "ab", "a_", "a_b", "A%"] {
            mine.change(set(key, b"x")).await.unwrap();
        }
        for (prefix, expected) in [
            ("a%", &["a%", "a%b"][..]),
            ("a_", &["a_", "a_b"]),
            ("%", &[]),
            ("a", &["a%", "a%b", "a_", "a_b", "ab"]),
        ] {
            let page = theirs.list("default", prefix, None).await.unwrap();
            let keys: Vec<_> = page.entries.iter().map(|entry| &entry.key[..]).collect();
            assert_eq!(keys, expected, "{prefix}");
        }
    })
    .await;
}
