//! What every store has to do, whatever it is made of.
//!
//! Each function gets an empty store. An implementation runs them all by
//! [`for_each_test!`].

mod doors;
mod issuers;
mod logins;
mod progress;
mod shared;

use std::sync::Arc;

use derp::NodeKey;
use ed25519_dalek::SigningKey;
use mesh::{NetworkId, SignKey};

use super::{
    Change, Creation, EXPIRED_INVITES_KEPT, Error, Join, Joined, MAX_INVITES, NewInvite,
    NewNetwork, Refusal, Renewal, Revocation, Role, Sighting, Store, Subject,
};
use crate::coord::{InviteHash, Mark, Revision};

/// Calls `$run!(name)` for every test of the suite.
macro_rules! for_each_test {
    ($run:ident) => {
        $run!(networks_have_owners);
        $run!(a_join_adds_a_node);
        $run!(a_failed_join_changes_nothing);
        $run!(a_repeated_join_takes_no_use);
        $run!(racers_share_the_uses);
        $run!(a_revoked_key_stays_out_and_its_name_is_free);
        $run!(revisions_grow_by_one_and_keep_their_marks);
        $run!(open_invites_are_limited);
        $run!(invites_end_with_the_role_of_who_made_them);
        $run!(old_invites_are_dropped);
        $run!(issuers_hand_over);
        $run!(a_deleted_network_leaves_an_obituary);
        $run!(shared_values_are_kept);
        $run!(u15_shared_values_expire);
        $run!(shared_values_change_on_condition);
        $run!(shared_changes_are_told);
        $run!(shared_values_are_limited);
        $run!(progress_is_what_is_not_known);
        $run!(another_network_of_a_name_is_told_whole);
        $run!(ssh_keys_are_one_persons);
        $run!(ssh_passwords_are_good_once);
        $run!(logins_are_found_and_end);
        $run!(the_oldest_login_makes_room);
        $run!(an_attempt_has_turns_and_one_end);
        $run!(attempts_are_limited);
    };
}
pub(super) use doors::{ssh_keys_are_one_persons, ssh_passwords_are_good_once};
pub(super) use for_each_test;
pub(super) use issuers::{a_deleted_network_leaves_an_obituary, issuers_hand_over};
pub(super) use logins::{
    an_attempt_has_turns_and_one_end, attempts_are_limited, logins_are_found_and_end,
    the_oldest_login_makes_room,
};
pub(super) use progress::{another_network_of_a_name_is_told_whole, progress_is_what_is_not_known};
pub(super) use shared::{
    shared_changes_are_told, shared_values_are_kept, shared_values_are_limited,
    shared_values_change_on_condition, u15_shared_values_expire,
};

const NOW: u64 = 1_800_000_000;

fn id(text: &str) -> NetworkId {
    text.parse().unwrap()
}

fn user(name: &str) -> Subject {
    Subject(name.to_owned())
}

fn new_network(name: &str, owner: &str) -> NewNetwork {
    NewNetwork {
        id: id(name),
        owner: user(owner),
        issuer: SigningKey::from_bytes(&[7; 32]),
        mark: Mark([0; 8]),
        now: NOW,
    }
}

async fn network(store: &dyn Store, name: &str) -> NetworkId {
    let created = store
        .create_network(new_network(name, "alice"))
        .await
        .unwrap();
    assert!(matches!(created, Creation::Created(_)));
    id(name)
}

fn new_invite(network: &NetworkId, number: u8, uses: u32) -> NewInvite {
    NewInvite {
        id: format!("inv_{number}"),
        hash: InviteHash([number; 32]),
        network: network.clone(),
        created_by: user("alice"),
        mine: false,
        node_name: None,
        uses,
        now: NOW,
        expires: NOW + 3_600,
    }
}

async fn invite(store: &dyn Store, network: &NetworkId, number: u8, uses: u32) {
    store
        .create_invite(new_invite(network, number, uses))
        .await
        .unwrap();
}

/// The machine `key` asks for a name with invite `invite`.
fn join(invite: u8, key: u8, name: &str) -> Join {
    Join {
        invite: InviteHash([invite; 32]),
        name: name.parse().unwrap(),
        key: NodeKey::from_bytes([key; 32]),
        sign_key: SignKey::from_bytes([key ^ 0xff; 32]),
        expires: NOW + 1_000,
        mark: Mark([key; 8]),
        now: NOW,
    }
}

async fn added(store: &dyn Store, join: Join) -> Change {
    match store.join(join).await.unwrap() {
        Joined::Added(change) => change,
        Joined::Was(row) => panic!("was there: {row:?}"),
    }
}

async fn refusal(store: &dyn Store, join: Join) -> Refusal {
    match store.join(join).await {
        Err(Error::Refused(refusal)) => refusal,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("not refused"),
    }
}

fn revocation(network: &NetworkId, name: &str) -> Revocation {
    Revocation {
        network: network.clone(),
        name: name.parse().unwrap(),
        mark: Mark([0xee; 8]),
        now: NOW + 5,
    }
}

async fn uses_left(store: &dyn Store, network: &NetworkId) -> u32 {
    let invites = store.invites(network.clone(), NOW).await.unwrap();
    invites.iter().map(|invite| invite.uses_remaining).sum()
}

pub(super) async fn networks_have_owners(store: Arc<dyn Store>) {
    let store = &*store;
    let home = network(store, "home").await;
    let again = store.create_network(new_network("home", "alice")).await;
    assert!(matches!(again, Ok(Creation::Existed)));
    let claimed = store.create_network(new_network("home", "mallory")).await;
    assert!(matches!(
        claimed,
        Err(Error::Refused(Refusal::NetworkTaken))
    ));
    let role = |who| store.role(home.clone(), user(who));
    assert_eq!(role("alice").await.unwrap(), Some(Role::Owner));
    assert_eq!(role("mallory").await.unwrap(), None);

    store
        .create_network(new_network("work", "mallory"))
        .await
        .unwrap();
    let names = async |who: Option<&str>| -> Vec<String> {
        let networks = store.networks(who.map(user), NOW).await.unwrap();
        networks
            .iter()
            .map(|network| network.id.to_string())
            .collect()
    };
    assert_eq!(names(None).await, ["home", "work"]);
    assert_eq!(names(Some("alice")).await, ["home"]);
    assert!(names(Some("bob")).await.is_empty());
}

pub(super) async fn a_join_adds_a_node(store: Arc<dyn Store>) {
    let store = &*store;
    let home = network(store, "home").await;
    invite(store, &home, 1, 2).await;
    let change = added(store, join(1, 10, "dev-1")).await;
    assert_eq!(change.revision.number, 1);
    let record = &change.node.record;
    assert_eq!(
        (record.network.as_str(), record.name.as_str()),
        ("home", "dev-1")
    );
    assert_eq!((record.owner.as_str(), record.issued), ("guest:inv_1", NOW));
    let role = store.role(home.clone(), user("guest:inv_1")).await.unwrap();
    assert_eq!(role, Some(Role::Guest));

    let mut mine = new_invite(&home, 2, 1);
    mine.mine = true;
    store.create_invite(mine).await.unwrap();
    let change = added(store, join(2, 11, "dev-2")).await;
    assert_eq!(change.node.record.owner, "alice");

    let loaded = store.load().await.unwrap().remove(0);
    assert_eq!(loaded.revision.number, 2);
    assert_eq!(loaded.issuer.to_bytes(), [7; 32]);
    assert_eq!(loaded.nodes.len(), 2);
    assert!(loaded.nodes.contains(&change.node));
    let networks = store.networks(None, NOW).await.unwrap();
    assert_eq!((networks[0].nodes, networks[0].invites), (2, 1));
}

pub(super) async fn a_failed_join_changes_nothing(store: Arc<dyn Store>) {
    let store = &*store;
    let home = network(store, "home").await;
    invite(store, &home, 1, 2).await;
    added(store, join(1, 10, "dev-1")).await;
    assert_eq!(
        refusal(store, join(1, 11, "dev-1")).await,
        Refusal::NameTaken
    );
    let mut other_sign_key = join(1, 10, "dev-1");
    other_sign_key.sign_key = SignKey::from_bytes([1; 32]);
    assert_eq!(refusal(store, other_sign_key).await, Refusal::NameTaken);
    assert_eq!(
        refusal(store, join(1, 10, "dev-2")).await,
        Refusal::AlreadyJoined
    );
    assert_eq!(
        refusal(store, join(9, 11, "dev-2")).await,
        Refusal::InviteInvalid
    );
    let mut late = join(1, 11, "dev-2");
    late.now = NOW + 3_600;
    assert_eq!(refusal(store, late).await, Refusal::InviteExpired);
    assert_eq!(uses_left(store, &home).await, 1);
    assert_eq!(store.load().await.unwrap()[0].revision.number, 1);
    added(store, join(1, 11, "dev-2")).await;
    assert_eq!(
        refusal(store, join(1, 12, "dev-3")).await,
        Refusal::InviteUsedUp
    );
    assert_eq!(
        refusal(store, join(1, 12, "dev-1")).await,
        Refusal::InviteUsedUp
    );
}

pub(super) async fn a_repeated_join_takes_no_use(store: Arc<dyn Store>) {
    let store = &*store;
    let home = network(store, "home").await;
    invite(store, &home, 1, 1).await;
    invite(store, &home, 2, 1).await;
    let change = added(store, join(1, 10, "dev-1")).await;
    for invite in [1, 1, 2] {
        let Joined::Was(row) = store.join(join(invite, 10, "dev-1")).await.unwrap() else {
            panic!("added twice");
        };
        assert_eq!(row, change.node);
    }
    assert_eq!(uses_left(store, &home).await, 1);
    added(store, join(2, 11, "dev-2")).await;
    // Used up by another node.
    assert_eq!(
        refusal(store, join(2, 10, "dev-1")).await,
        Refusal::InviteUsedUp
    );
}

pub(super) async fn racers_share_the_uses(store: Arc<dyn Store>) {
    let home = network(&*store, "home").await;
    invite(&*store, &home, 1, 3).await;
    let racers: Vec<_> = (0..64)
        .map(|n| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.join(join(1, n, &format!("dev-{n}"))).await.is_ok() })
        })
        .collect();
    let mut winners = 0;
    for racer in racers {
        winners += u32::from(racer.await.unwrap());
    }
    assert_eq!(winners, 3);
    assert_eq!(store.load().await.unwrap()[0].nodes.len(), 3);
}

/// Somebody with an invite that nobody has redeemed yet.
pub(super) async fn invited(store: &dyn Store) -> Join {
    let home = network(store, "home").await;
    invite(store, &home, 1, 1).await;
    join(1, 1, "dev-1")
}

/// Half of them come to one relay and half to another.
pub(super) async fn racers_of_one_use(a: Arc<dyn Store>, b: Arc<dyn Store>) {
    let home = network(&*a, "home").await;
    invite(&*a, &home, 1, 1).await;
    let racers: Vec<_> = (0..64)
        .map(|n| {
            let store = Arc::clone(if n % 2 == 0 { &a } else { &b });
            tokio::spawn(async move { store.join(join(1, n, &format!("dev-{n}"))).await })
        })
        .collect();
    let mut winners = 0;
    for racer in racers {
        match racer.await.unwrap() {
            Ok(_) => winners += 1,
            Err(Error::Refused(Refusal::InviteUsedUp)) => {}
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(winners, 1);
    assert_eq!(uses_left(&*b, &home).await, 0);
    for store in [a, b] {
        let state = store.load().await.unwrap().remove(0);
        assert_eq!((state.nodes.len(), state.revision.number), (1, 1));
    }
}

pub(super) async fn a_revoked_key_stays_out_and_its_name_is_free(store: Arc<dyn Store>) {
    let store = &*store;
    let home = network(store, "home").await;
    invite(store, &home, 1, 3).await;
    added(store, join(1, 10, "dev-1")).await;
    assert!(
        store
            .revoke(revocation(&home, "dev-9"))
            .await
            .unwrap()
            .is_none()
    );
    let change = store
        .revoke(revocation(&home, "dev-1"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(change.node.revoked, Some(NOW + 5));
    assert_eq!((change.revision.number, change.node.changed), (2, 2));
    assert!(
        store
            .revoke(revocation(&home, "dev-1"))
            .await
            .unwrap()
            .is_none()
    );
    assert_eq!(refusal(store, join(1, 10, "dev-1")).await, Refusal::Revoked);
    let renewal = Renewal {
        network: home.clone(),
        key: NodeKey::from_bytes([10; 32]),
        expires: NOW + 9_000,
        mark: Mark([1; 8]),
        now: NOW,
    };
    assert!(store.renew(renewal).await.unwrap().is_none());

    added(store, join(1, 11, "dev-1")).await;
    let nodes = &store.load().await.unwrap()[0].nodes;
    assert_eq!(nodes.len(), 2, "the revoked one is remembered");
    assert_eq!(store.networks(None, NOW).await.unwrap()[0].nodes, 1);
}

pub(super) async fn revisions_grow_by_one_and_keep_their_marks(store: Arc<dyn Store>) {
    let store = &*store;
    let home = network(store, "home").await;
    let away = network(store, "away").await;
    invite(store, &home, 1, 3).await;
    invite(store, &away, 2, 3).await;
    added(store, join(1, 10, "dev-1")).await;
    added(store, join(2, 10, "dev-1")).await;
    let renewal = Renewal {
        network: home.clone(),
        key: NodeKey::from_bytes([10; 32]),
        expires: NOW + 9_000,
        mark: Mark([0xaa; 8]),
        now: NOW + 7,
    };
    let renewed = store.renew(renewal).await.unwrap().unwrap();
    let record = &renewed.node.record;
    assert_eq!((record.issued, record.expires), (NOW + 7, NOW + 9_000));
    store.revoke(revocation(&home, "dev-1")).await.unwrap();
    let sightings = [8, 3].map(|after| Sighting {
        network: home.clone(),
        key: NodeKey::from_bytes([10; 32]),
        at: NOW + after,
    });
    store.seen(sightings.into()).await.unwrap();

    let networks = store.load().await.unwrap();
    let [away, home] = &networks[..] else {
        panic!("two networks");
    };
    assert_eq!(away.revision.number, 1);
    let history = [(1, 10), (2, 0xaa), (3, 0xee)].map(|(number, mark)| Revision {
        number,
        mark: Mark([mark; 8]),
    });
    assert_eq!(home.history, history);
    assert_eq!(home.revision, history[2]);
    assert_eq!(home.nodes[0].seen, Some(NOW + 8));
    assert_eq!(home.nodes[0].changed, 3, "being seen is no change");
}

pub(super) async fn open_invites_are_limited(store: Arc<dyn Store>) {
    let store = &*store;
    let home = network(store, "home").await;
    let numbered = |number: u32| {
        let mut hash = [0; 32];
        hash[..4].copy_from_slice(&number.to_be_bytes());
        NewInvite {
            id: format!("inv_{number}"),
            hash: InviteHash(hash),
            ..new_invite(&home, 0, 1)
        }
    };
    for number in 0..MAX_INVITES {
        store.create_invite(numbered(number)).await.unwrap();
    }
    let refused = store.create_invite(numbered(MAX_INVITES)).await;
    assert!(matches!(
        refused,
        Err(Error::Refused(Refusal::TooManyInvites))
    ));
    assert!(
        store
            .delete_invite(home.clone(), "inv_0".to_owned())
            .await
            .unwrap()
    );
    store.create_invite(numbered(MAX_INVITES)).await.unwrap();
}

pub(super) async fn invites_end_with_the_role_of_who_made_them(store: Arc<dyn Store>) {
    let store = &*store;
    let home = network(store, "home").await;
    invite(store, &home, 1, 1).await;
    added(store, join(1, 1, "dev-1")).await;
    let guest = user("guest:inv_1");
    let role = |role| store.set_role(home.clone(), guest.clone(), role);
    assert!(role(Some(Role::Owner)).await.unwrap());
    for number in [2, 3] {
        let theirs = NewInvite {
            created_by: guest.clone(),
            mine: true,
            ..new_invite(&home, number, 1)
        };
        store.create_invite(theirs).await.unwrap();
    }
    invite(store, &home, 4, 1).await;
    added(store, join(2, 2, "dev-2")).await;
    assert!(role(None).await.unwrap());
    let refused = store.join(join(3, 3, "dev-3")).await;
    assert!(matches!(
        refused,
        Err(Error::Refused(Refusal::InviteInvalid))
    ));
    added(store, join(4, 4, "dev-4")).await;
}

pub(super) async fn old_invites_are_dropped(store: Arc<dyn Store>) {
    let store = &*store;
    let home = network(store, "home").await;
    let away = network(store, "away").await;
    invite(store, &home, 1, 1).await;
    assert!(!store.delete_invite(away, "inv_1".to_owned()).await.unwrap());
    assert_eq!(store.invites(home.clone(), NOW).await.unwrap().len(), 1);
    invite(store, &home, 2, 1).await;
    added(store, join(2, 20, "dev-2")).await;
    let left = store.invites(home.clone(), NOW).await.unwrap();
    assert_eq!(left.len(), 1, "only what can still be used is shown");
    let expired = NOW + 3_600;
    assert!(
        store
            .invites(home.clone(), expired)
            .await
            .unwrap()
            .is_empty()
    );
    store.purge(expired + EXPIRED_INVITES_KEPT).await.unwrap();
    let mut late = join(1, 10, "dev-1");
    late.now = expired;
    assert_eq!(refusal(store, late.clone()).await, Refusal::InviteExpired);
    store
        .purge(expired + EXPIRED_INVITES_KEPT + 1)
        .await
        .unwrap();
    assert_eq!(refusal(store, late).await, Refusal::InviteInvalid);
}
