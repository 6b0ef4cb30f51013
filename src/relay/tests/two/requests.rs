//! What one relay was asked to do over HTTP holds at the other at once.

use std::sync::Arc;

use derp::NodeKey;
use derp::io::server::Admission as _;
use futures_util::future::join_all;
use reqwest::header::AUTHORIZATION;
use reqwest::{Method, StatusCode};

use super::{pair, with_pair};
use crate::relay::tests::rig::{Node, Rig, TOKEN, code, limited, node_name};
use crate::uplink::api::NewGrant;
use crate::uplink::http::Http;
use crate::uplink::kv::{Change, Shared};
use crate::uplink::{self, NetworkView};

#[tokio::test]
async fn s34_what_one_relay_did_the_other_knows_at_once() {
    limited(async {
        let Some((a, b)) = pair().await else { return };
        // Nothing here waits: who is sent from one relay to the other must not find less.
        for n in 0..10 {
            let network = a.network(&format!("net-{n}")).await;
            let invite = b.invite(&network, 1).await;
            let node = a.join(&invite, "dev-1").await.unwrap();
            let path = format!("/api/v1/nodes?network_id={network}");
            let membership = node.membership_at(b.url());
            let ask = (Method::GET, path.as_str());
            let signed = uplink::sign_request(&membership, &node.identity, ask, None).await;
            assert_eq!(code(signed), "ok");
            let mut up = node.up_through(b.url());
            let view = up.until_connected().await;
            assert_eq!(view.last_error, None);
            let name = format!("group-{n}").parse().unwrap();
            a.api().create_group(&network, &name).await.unwrap();
            assert_eq!(b.api().group(&network, &name).await.unwrap().name, name);
        }
    })
    .await;
}

#[tokio::test]
async fn b11_s34_who_is_revoked_at_one_relay_is_cut_at_the_other() {
    with_pair(async |a, b, network, [one, two]| {
        let mut one = one.up();
        let mut at_b = two.up_through(b.url());
        one.until_sees("dev-2", Some(true)).await;
        at_b.until_connected().await;
        let admits = |rig: &Rig, key: &NodeKey| rig.relay().app().hub.admits(key);
        let key = two.identity.key();
        assert!(admits(&b, &key));
        a.api().revoke(&network, &node_name("dev-2")).await.unwrap();
        let said = |view: &NetworkView| view.last_error.as_deref() == Some("this node was revoked");
        at_b.until("cut", said).await;
        one.until_sees("dev-2", None).await;
        assert!(!admits(&b, &key), "its packets");
        let again = b.api().revoke(&network, &node_name("dev-2")).await;
        assert_eq!(code(again), "node_unknown");
    })
    .await;
}

#[tokio::test]
async fn u12_s34_of_64_that_race_at_two_relays_for_one_use_one_wins() {
    limited(async {
        let Some((a, b)) = pair().await else { return };
        let network = a.network("home").await;
        let invite = a.invite(&network, 1).await;
        let names: Vec<_> = (0..64).map(|n| format!("dev-{n}")).collect();
        let racers = names.iter().enumerate().map(|(n, name)| {
            let rig = if n % 2 == 0 { &a } else { &b };
            rig.join(&invite, name)
        });
        let codes: Vec<_> = join_all(racers).await.into_iter().map(code).collect();
        let count = |which: &str| codes.iter().filter(|code| *code == which).count();
        assert_eq!(count("ok"), 1, "{codes:?}");
        assert_eq!(count("invite_used_up"), 63, "{codes:?}");
        for rig in [&a, &b] {
            assert_eq!(rig.api().nodes(&network).await.unwrap().len(), 1);
        }
    })
    .await;
}

#[tokio::test]
async fn u11_s34_a_signed_request_is_good_at_one_relay_once() {
    with_pair(async |a, b, _, [one, _]| {
        let path = "/api/v1/nodes?network_id=home";
        for _ in 0..10 {
            let header = uplink::sign(&one.membership, &one.identity, ("GET", path), b"").unwrap();
            let ask = async |rig: &Rig| {
                let http = Http::new(rig.url(), None).unwrap();
                let request = http
                    .request(Method::GET, path)
                    .header(AUTHORIZATION, &header);
                code(http.send_raw(request).await)
            };
            let (at_a, at_b) = tokio::join!(ask(&a), ask(&b));
            let mut answers = [at_a, at_b];
            answers.sort();
            assert_eq!(answers, ["ok", "unauthorized"]);
        }
    })
    .await;
}

#[tokio::test]
async fn s22_s34_values_that_are_stored_at_one_relay_are_heard_at_the_other() {
    with_pair(async |a, b, _, [one, two]| {
        let at = |node: &Node, rig: &Rig| {
            let url = rig.url().to_owned();
            let membership = node.membership_at(&url);
            Shared::new(&membership, Arc::clone(&node.identity), move || url.clone())
        };
        let (mine, theirs) = (at(&one, &a), at(&two, &b));
        let set = |key: &str, ttl: Option<&str>| Change {
            space: "default".to_owned(),
            key: key.to_owned(),
            value: Some(b"v".to_vec()),
            ttl: ttl.map(str::to_owned),
            ..Change::default()
        };
        let mut upto = theirs.changes("default", "", None).await.unwrap().upto;
        for key in ["a", "b", "c"] {
            let (heard, stored) = tokio::join!(
                theirs.changes("default", "", Some(upto)),
                mine.change(set(key, None))
            );
            stored.unwrap();
            let heard = heard.unwrap();
            let keys: Vec<_> = heard.changes.iter().map(|change| &change.key[..]).collect();
            assert_eq!(keys, [key]);
            upto = heard.upto;
        }
        // Both sweep; one of them does.
        mine.change(set("short", Some("1s"))).await.unwrap();
        let heard = theirs.changes("default", "s", Some(upto)).await.unwrap();
        assert_eq!(heard.changes.len(), 1);
        let heard = theirs.changes("default", "s", Some(heard.upto)).await;
        let heard = heard.unwrap();
        assert_eq!(heard.changes.len(), 1);
        assert_eq!(code(mine.get("default", "short").await), "key_not_found");
    })
    .await;
}

#[tokio::test]
async fn s25_s34_grants_and_groups_reach_nodes_and_streams_of_the_other_relay() {
    with_pair(async |a, b, network, [one, two]| {
        let mut at_b = two.up_through(b.url());
        at_b.until_connected().await;
        let group = "mesh".parse().unwrap();
        a.api().create_group(&network, &group).await.unwrap();
        let node = node_name("dev-2");
        let entering = (&node, 1, Some("coder"));
        let b_api = b.api();
        b_api.enter_group(&network, &group, entering).await.unwrap();
        let members = a.api().group(&network, &group).await.unwrap().members;
        assert_eq!(members.len(), 1);

        let http = Http::new(b.url(), Some(TOKEN)).unwrap();
        let path = "/api/v1/access/cache/events?network_id=home";
        let mut events = http.request(Method::GET, path).send().await.unwrap();
        assert_eq!(events.status(), StatusCode::OK);
        let grant = NewGrant {
            network: network.clone(),
            node: node.to_string(),
            session: 1,
            label: None,
            audience: "dev-1".to_owned(),
            verbs: Vec::new(),
            ttl: "10m".to_owned(),
        };
        let grant = a.api().create_grant(&grant).await.unwrap();
        a.api()
            .revoke_grant(&network, &grant.grant_id)
            .await
            .unwrap();
        let mut heard = String::new();
        while !heard.contains(&grant.grant_id) {
            let chunk = events.chunk().await.unwrap().expect("the stream goes on");
            heard.push_str(&String::from_utf8_lossy(&chunk));
        }
        assert!(heard.contains("access.grant.revoked"), "{heard}");
        drop(one);
    })
    .await;
}

#[tokio::test]
async fn s36_s34_networks_hand_over_end_and_begin_at_either_relay() {
    with_pair(async |a, b, network, [one, two]| {
        let mut one = one.up();
        let mut at_b = two.up_through(b.url());
        one.until_sees("dev-2", Some(true)).await;
        at_b.until_sees("dev-1", Some(true)).await;
        for (number, rig) in [(1, &a), (2, &b)] {
            let issuer = rig.api().rotate(&network, "0s").await.unwrap().issuer;
            for up in [&mut one, &mut at_b] {
                let follows = |view: &NetworkView| {
                    view.connected
                        && view.issuer == issuer
                        && view.handovers == number
                        && view.peers.len() == 1
                };
                up.until("follows the issuer", follows).await;
            }
        }
        a.api().delete_network(&network).await.unwrap();
        for up in [&mut one, &mut at_b] {
            up.until("hears that it is over", |view| view.deleted).await;
        }
        assert_eq!(code(b.api().nodes(&network).await), "network_unknown");
        // Another one of the name, with the same number of changes.
        b.network("home").await;
        assert!(a.api().nodes(&network).await.unwrap().is_empty());
        let invite = a.invite(&network, 2).await;
        let mut new = b.join(&invite, "dev-1").await.unwrap().up_through(a.url());
        let mut other = a.join(&invite, "dev-2").await.unwrap().up_through(b.url());
        new.until_sees("dev-2", Some(true)).await;
        other.until_sees("dev-1", Some(true)).await;
    })
    .await;
}
