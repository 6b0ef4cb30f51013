//! Invites and joins.

use std::sync::Arc;

use super::rig::{Rig, code, identity, limited, node_name};
use crate::relay::store::Subject;
use crate::uplink::api::{Api, NewInvite};
use crate::uplink::{self};

#[tokio::test]
pub(super) async fn a_node_joins_and_may_join_again() {
    limited(async {
        let rig = Rig::new().await;
        let network = rig.network("home").await;
        let invite = rig.invite(&network, 1).await;
        let me = identity();
        let node = rig
            .join_as(&invite, "dev-1", Arc::clone(&me))
            .await
            .unwrap();
        assert_eq!(node.membership.network, network);
        assert_eq!(node.membership.name, node_name("dev-1"));

        // The invite has no use left, and needs none.
        let again = rig
            .join_as(&invite, "dev-1", Arc::clone(&me))
            .await
            .unwrap();
        assert_eq!(again.membership.record, node.membership.record);
        // Under another name it is no repetition.
        let other = rig.join_as(&invite, "dev-2", Arc::clone(&me)).await;
        assert_eq!(code(other), "already_joined");
        // With another invite, a use is not taken either.
        let second = rig.invite(&network, 1).await;
        rig.join_as(&second, "dev-1", me).await.unwrap();
        let open = rig.api().invites(&network).await.unwrap();
        assert_eq!(
            open.iter().map(|invite| invite.uses_remaining).sum::<u32>(),
            1
        );
        assert!(open.iter().all(|invite| invite.token.is_none()));
    })
    .await;
}

#[tokio::test]
pub(super) async fn s03_s04_invites_that_are_not_good() {
    limited(async {
        let rig = Rig::new().await;
        let network = rig.network("home").await;
        let invite = rig.invite(&network, 1).await;
        rig.join(&invite, "dev-1").await.unwrap();
        assert_eq!(code(rig.join(&invite, "dev-2").await), "invite_used_up");

        let unknown = format!("CW-INV-{}{}", "x".repeat(24), &invite[31..]);
        assert_eq!(code(rig.join(&unknown, "dev-2").await), "invite_invalid");
        for malformed in ["", "CW-INV-", &invite[..40], &invite[1..], "CW-INV-ü"] {
            assert_eq!(code(rig.join(malformed, "dev-2").await), "invite_malformed");
        }

        let short = NewInvite {
            network: network.clone(),
            uses: 1,
            ttl: "1s".to_owned(),
            mine: false,
            node_name: None,
        };
        let short = rig
            .api()
            .create_invite(&short)
            .await
            .unwrap()
            .token
            .unwrap();
        // The clock counts in seconds: it ends within two.
        loop {
            match code(rig.join(&short, "dev-1").await).as_str() {
                "name_taken" => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
                ended => break assert_eq!(ended, "invite_expired"),
            }
        }

        let withdrawn = rig.invite(&network, 1).await;
        let listed = rig.api().invites(&network).await.unwrap();
        let open = listed
            .iter()
            .find(|invite| invite.uses_remaining > 0)
            .unwrap();
        rig.api().delete_invite(&network, &open.id).await.unwrap();
        assert_eq!(code(rig.join(&withdrawn, "dev-2").await), "invite_invalid");
        assert_eq!(
            code(rig.api().delete_invite(&network, &open.id).await),
            "not_found"
        );
    })
    .await;
}

#[tokio::test]
async fn b06_s23_a_taken_name_burns_no_use() {
    limited(async {
        let rig = Rig::new().await;
        let network = rig.network("home").await;
        let first = rig.invite(&network, 1).await;
        rig.join(&first, "dev-1").await.unwrap();
        let second = rig.invite(&network, 1).await;
        assert_eq!(code(rig.join(&second, "dev-1").await), "name_taken");
        rig.join(&second, "dev-2").await.unwrap();
    })
    .await;
}

#[tokio::test]
pub(super) async fn u12_s04_of_64_that_race_for_one_use_one_wins() {
    limited(async {
        let rig = Arc::new(Rig::new().await);
        let network = rig.network("home").await;
        let invite = rig.invite(&network, 1).await;
        let racers: Vec<_> = (0..64)
            .map(|n| {
                let (rig, invite) = (Arc::clone(&rig), invite.clone());
                tokio::spawn(async move { code(rig.join(&invite, &format!("dev-{n}")).await) })
            })
            .collect();
        let mut codes = Vec::new();
        for racer in racers {
            codes.push(racer.await.unwrap());
        }
        let count = |code: &str| codes.iter().filter(|c| *c == code).count();
        assert_eq!((count("ok"), count("invite_used_up")), (1, 63), "{codes:?}");
        assert_eq!(rig.api().nodes(&network).await.unwrap().len(), 1);
    })
    .await;
}

#[tokio::test]
pub(super) async fn whose_a_node_is() {
    limited(async {
        let rig = Rig::new().await;
        let network = rig.network("home").await;
        let mut new = NewInvite {
            network: network.clone(),
            uses: 1,
            ttl: "10m".to_owned(),
            mine: true,
            node_name: None,
        };
        let mine = rig.api().create_invite(&new).await.unwrap();
        new.mine = false;
        let theirs = rig.api().create_invite(&new).await.unwrap();
        assert!(mine.mine && !theirs.mine);
        rig.join(mine.token.as_deref().unwrap(), "dev-1")
            .await
            .unwrap();
        rig.join(theirs.token.as_deref().unwrap(), "dev-2")
            .await
            .unwrap();
        let nodes = rig.api().nodes(&network).await.unwrap();
        let owners: Vec<_> = nodes.iter().map(|node| node.owner.clone()).collect();
        assert_eq!(owners, ["admin".to_owned(), format!("guest:{}", theirs.id)]);
    })
    .await;
}

#[tokio::test]
async fn a_removal_that_ended_half_way_is_gone_on_with() {
    limited(async {
        let rig = Rig::new().await;
        let network = rig.network("home").await;
        let new = NewInvite {
            network: network.clone(),
            uses: 2,
            ttl: "10m".to_owned(),
            mine: false,
            node_name: None,
        };
        let invite = rig.api().create_invite(&new).await.unwrap();
        for name in ["dev-1", "dev-2"] {
            rig.join(invite.token.as_deref().unwrap(), name)
                .await
                .unwrap();
        }
        // The role was taken, and then the database was away.
        let guest = format!("guest:{}", invite.id);
        let store = &rig.relay().app().store;
        let subject = Subject::named(&guest);
        let had = store.set_role(network.clone(), subject, None).await;
        assert!(had.unwrap());
        rig.api().remove_member(&network, &guest).await.unwrap();
        assert!(rig.api().nodes(&network).await.unwrap().is_empty());
        let again = rig.api().remove_member(&network, &guest).await;
        assert_eq!(code(again), "not_found");
    })
    .await;
}

#[tokio::test]
pub(super) async fn b07_s23_networks_are_made_once() {
    limited(async {
        let rig = Rig::new().await;
        let id = "home".parse().unwrap();
        assert!(rig.api().create_network(&id).await.unwrap());
        assert!(!rig.api().create_network(&id).await.unwrap());
        let invite = rig.invite(&id, 1).await;
        rig.join(&invite, "dev-1").await.unwrap();
        rig.invite(&id, 5).await;
        let networks = rig.api().networks().await.unwrap();
        assert_eq!(networks.len(), 1);
        assert_eq!((networks[0].node_count, networks[0].invite_count), (1, 1));
        let nowhere = "nowhere".parse().unwrap();
        assert_eq!(code(rig.api().nodes(&nowhere).await), "network_unknown");
    })
    .await;
}

#[tokio::test]
async fn b18_u22_s04_without_the_token_nothing_is_said() {
    limited(async {
        let rig = Rig::new().await;
        let network = rig.network("home").await;
        rig.api().validate().await.unwrap();
        let stranger = Api::new(rig.url(), "another token").unwrap();
        assert_eq!(code(stranger.validate().await), "unauthorized");
        assert_eq!(code(stranger.networks().await), "unauthorized");
        assert_eq!(
            code(stranger.create_network(&network).await),
            "unauthorized"
        );
        assert_eq!(code(stranger.invites(&network).await), "unauthorized");
        assert_eq!(code(stranger.nodes(&network).await), "unauthorized");
        assert_eq!(
            code(stranger.revoke(&network, &node_name("dev-1")).await),
            "unauthorized"
        );
        // A guesser is stopped, and then so is everybody at that address.
        while code(stranger.validate().await) != "rate_limited" {}
        assert_eq!(code(rig.api().validate().await), "rate_limited");
    })
    .await;
}

#[tokio::test]
async fn an_answer_of_another_relay_is_not_believed() {
    limited(async {
        let (rig, other) = (Rig::new().await, Rig::new().await);
        let network = rig.network("home").await;
        other.network("home").await;
        let invite = rig.invite(&network, 1).await;
        let to_other = uplink::join(other.url(), &invite, &node_name("dev-1"), &identity()).await;
        assert_eq!(code(to_other), "invite_invalid");
        // The right secret with another issuer's key: somebody between the
        // inviter and us exchanged it.
        let foreign = other.invite(&"home".parse().unwrap(), 1).await;
        let mixed = format!("{}{}", &invite[..31], &foreign[31..]);
        assert_eq!(code(rig.join(&mixed, "dev-1").await), "invite_invalid");
    })
    .await;
}
