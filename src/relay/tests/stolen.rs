//! What somebody can do with a credential that is not quite theirs: changed in any place, used
//! again, after it ended, after a restart, by many at once.

use std::collections::BTreeMap;

use reqwest::Method;
use reqwest::header::AUTHORIZATION;

use super::rig::{Node, Rig, TOKEN, code, limited, node_name};
use crate::uplink;
use crate::uplink::api::{Api, NewInvite};
use crate::uplink::http::Http;

/// The text with another letter in one place; a digit of a key may be written either way.
fn changed(text: &str, at: usize) -> String {
    let mut bytes = text.as_bytes().to_vec();
    bytes[at] = if bytes[at].eq_ignore_ascii_case(&b'A') {
        b'B'
    } else {
        b'A'
    };
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn t3_an_invite_that_was_changed_is_none_and_one_that_was_used_is_used() {
    limited(async {
        let mut rig = Rig::new().await;
        let network = rig.network("home").await;
        let invite = rig.invite(&network, 1).await;
        for at in 0..invite.len() {
            let refused = code(rig.join(&changed(&invite, at), "dev-1").await);
            let known = ["invite_malformed", "invite_invalid"];
            assert!(known.contains(&refused.as_str()), "{at}: {refused}");
        }
        assert_eq!(
            rig.api().invites(&network).await.unwrap()[0].uses_remaining,
            1
        );
        assert_eq!(code(rig.join(&invite, "dev-1").await), "ok");
        assert_eq!(code(rig.join(&invite, "dev-2").await), "invite_used_up");
        let withdrawn = rig.invite(&network, 1).await;
        let id = rig.api().invites(&network).await.unwrap();
        assert_eq!(id.len(), 1, "the one that was used is not shown");
        let id = &id[0];
        rig.api().delete_invite(&network, &id.id).await.unwrap();
        for _ in 0..2 {
            assert_eq!(code(rig.join(&invite, "dev-2").await), "invite_used_up");
            assert_eq!(code(rig.join(&withdrawn, "dev-2").await), "invite_invalid");
            rig.restart().await;
        }
    })
    .await;
}

#[tokio::test]
pub(super) async fn t3_u12_of_64_that_race_with_one_enrolment_one_is_in() {
    limited(async {
        let rig = Rig::new().await;
        let network = rig.network("home").await;
        let new = NewInvite {
            network: network.clone(),
            uses: 1,
            ttl: "10m".to_owned(),
            mine: true,
            node_name: Some(node_name("dev-1")),
        };
        let enrolment = rig.api().create_invite(&new).await.unwrap().token.unwrap();
        // By another name it burns nothing.
        assert_eq!(code(rig.join(&enrolment, "dev-2").await), "name_bound");
        let racers = (0..64).map(|_| rig.join(&enrolment, "dev-1"));
        let mut codes = BTreeMap::new();
        for joined in futures_util::future::join_all(racers).await {
            *codes.entry(code(joined)).or_insert(0) += 1;
        }
        assert_eq!(codes.remove("ok"), Some(1), "{codes:?}");
        assert_eq!(codes.remove("invite_used_up"), Some(63), "{codes:?}");
        assert_eq!(rig.api().nodes(&network).await.unwrap().len(), 1);
    })
    .await;
}

const PATH: &str = "/api/v1/nodes?network_id=home";

fn header(node: &Node) -> String {
    uplink::sign(&node.membership, &node.identity, ("GET", PATH), b"").unwrap()
}

async fn show(rig: &Rig, header: &str) -> String {
    let http = Http::new(rig.url(), None).unwrap();
    let request = http
        .request(Method::GET, PATH)
        .header(AUTHORIZATION, header);
    code(http.send_raw(request).await)
}

#[tokio::test]
pub(super) async fn t3_u11_a_signed_request_is_good_once_and_only_as_it_was() {
    limited(async {
        let mut rig = Rig::new().await;
        let network = rig.network("home").await;
        let invite = rig.invite(&network, 1).await;
        let node = rig.join(&invite, "dev-1").await.unwrap();
        let signed = header(&node);
        let start = signed.find(' ').unwrap() + 1;
        // Every second place: whoever is wrong too often has to wait, which is another refusal.
        for at in (start..signed.len()).step_by(2) {
            assert_eq!(
                show(&rig, &changed(&signed, at)).await,
                "unauthorized",
                "{at}"
            );
        }
        assert_eq!(show(&rig, &signed).await, "ok");
        assert_eq!(show(&rig, &signed).await, "unauthorized");
        // What was seen on its way is of no use after a restart either.
        rig.restart().await;
        assert_eq!(show(&rig, &signed).await, "unauthorized");

        let signed = header(&node);
        let at_once = (0..64).map(|_| show(&rig, &signed));
        let answers = futures_util::future::join_all(at_once).await;
        let good = answers.iter().filter(|code| *code == "ok").count();
        assert_eq!(good, 1, "{answers:?}");

        let unused = header(&node);
        rig.api()
            .revoke(&network, &node_name("dev-1"))
            .await
            .unwrap();
        assert_eq!(show(&rig, &unused).await, "revoked");
        rig.restart().await;
        assert_eq!(show(&rig, &header(&node)).await, "revoked");
    })
    .await;
}

#[tokio::test]
async fn t3_the_administrators_token_is_right_in_every_place() {
    limited(async {
        let rig = Rig::new().await;
        rig.network("home").await;
        let mut wrong: Vec<_> = (0..TOKEN.len()).map(|at| changed(TOKEN, at)).collect();
        wrong.extend([TOKEN[1..].to_owned(), format!("{TOKEN}x")]);
        for token in wrong {
            let api = Api::new(rig.url(), &token).unwrap();
            assert_eq!(code(api.networks().await), "unauthorized", "{token:?}");
        }
        assert_eq!(code(rig.api().networks().await), "ok");
        // Nobody gets further by trying: 64 at once, and then not even the right one.
        let guess = Api::new(rig.url(), "guessed").unwrap();
        let guesses = (0..64).map(|_| guess.networks());
        let answers = futures_util::future::join_all(guesses).await;
        let refused = answers.into_iter().map(code).collect::<Vec<_>>();
        assert!(refused.iter().all(|code| code != "ok"), "{refused:?}");
        assert!(
            refused.iter().any(|code| code == "rate_limited"),
            "{refused:?}"
        );
    })
    .await;
}
