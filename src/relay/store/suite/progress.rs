//! What somebody does not know of a network yet.

use std::sync::Arc;

use ed25519_dalek::SigningKey;
use mesh::{NetworkId, SignKey};

use super::{NOW, added, id, invite, join, network, new_network, revocation};
use crate::coord::{Mark, Revision};
use crate::paper::GroupName;
use crate::relay::papers::{Edit, PaperEdit};
use crate::relay::store::cluster::{Head, Part, Progress, Since};
use crate::relay::store::shared::{Condition, Key, Place, Put, Space};
use crate::relay::store::{Creation, Rotation, Store};

fn root() -> SignKey {
    SignKey::from(&SigningKey::from_bytes(&[7; 32]).verifying_key())
}

async fn head(store: &dyn Store, network: &NetworkId) -> Head {
    let mut heads = store.heads(Some(network.clone())).await.unwrap();
    assert_eq!(heads.len(), 1);
    heads.remove(0)
}

async fn part(store: &dyn Store, network: &NetworkId, since: Since) -> Part {
    match store.progress(network.clone(), Some(since)).await.unwrap() {
        Some(Progress::Part(part)) => part,
        Some(Progress::Other(_)) => panic!("another network"),
        None => panic!("no network"),
    }
}

async fn create_group(store: &dyn Store, network: &NetworkId, name: &str) {
    let name: GroupName = name.parse().unwrap();
    let by = "alice".to_owned();
    let edit = PaperEdit {
        network: network.clone(),
        edit: Edit::CreateGroup { name, by },
        now_ms: NOW * 1000,
    };
    store.edit_paper(edit).await.unwrap().unwrap();
}

fn names(part: &Part) -> Vec<&str> {
    let nodes = part.nodes.iter();
    nodes.map(|row| row.record.name.as_str()).collect()
}

pub(in crate::relay::store) async fn progress_is_what_is_not_known(store: Arc<dyn Store>) {
    let store = &*store;
    let home = network(store, "home").await;
    let away = network(store, "away").await;
    let start = head(store, &home).await;
    assert_eq!(start.revision.number, 0);
    let since = |head: &Head| Since {
        root: root(),
        revision: head.revision,
        serial: head.serial,
    };
    let nothing = part(store, &home, since(&start)).await;
    assert!(nothing.nodes.is_empty() && nothing.papers.is_empty() && !nothing.is_all);

    invite(store, &home, 1, 3).await;
    added(store, join(1, 10, "dev-1")).await;
    added(store, join(1, 11, "dev-2")).await;
    create_group(store, &home, "one").await;
    let first = head(store, &home).await;
    let all = part(store, &home, since(&start)).await;
    assert_eq!(names(&all), ["dev-1", "dev-2"]);
    assert_eq!((all.history.len(), all.papers.len()), (2, 1));
    assert_eq!((all.revision, all.is_all), (first.revision, false));

    store.revoke(revocation(&home, "dev-2")).await.unwrap();
    create_group(store, &home, "two").await;
    let some = part(store, &home, since(&first)).await;
    assert_eq!((names(&some), some.papers.len()), (vec!["dev-2"], 1));
    assert!(some.nodes[0].revoked.is_some() && !some.is_all);
    assert_eq!(some.history, [some.revision]);
    // A revision of another database, or of the future: everything.
    for (number, mark) in [(2, Mark([9; 8])), (99, first.revision.mark)] {
        let revision = Revision { number, mark };
        let other = Since {
            revision,
            ..since(&first)
        };
        let everything = part(store, &home, other).await;
        assert!(everything.is_all);
        assert_eq!((everything.nodes.len(), everything.papers.len()), (2, 2));
        assert_eq!(everything.history.len(), 3);
    }

    let value = Put {
        place: Place {
            network: home.clone(),
            space: Space::new("default").ok().unwrap(),
            key: Key::new("k").unwrap(),
        },
        value: b"v".to_vec(),
        expires: None,
        condition: Condition::Always,
        by: "alice".to_owned(),
        now: NOW * 1000,
    };
    store.put_shared(value).await.unwrap();
    let heads = store.heads(None).await.unwrap();
    let shown: Vec<_> = heads
        .iter()
        .map(|head| (head.network.clone(), head.revision.number, head.shared))
        .collect();
    assert_eq!(shown, [(away, 0, 0), (home, 3, 1)]);
}

pub(in crate::relay::store) async fn another_network_of_a_name_is_told_whole(
    store: Arc<dyn Store>,
) {
    let store = &*store;
    let home = network(store, "home").await;
    invite(store, &home, 1, 3).await;
    added(store, join(1, 10, "dev-1")).await;
    let known = head(store, &home).await;
    let since = Since {
        root: root(),
        revision: known.revision,
        serial: known.serial,
    };
    // Another issuer of the same network: everybody is signed anew.
    let rotation = Rotation {
        network: home.clone(),
        issuer: SigningKey::from_bytes(&[8; 32]),
        retires: NOW,
        expires: NOW + 9_000,
        mark: Mark([5; 8]),
        now_ms: NOW * 1000,
    };
    store.rotate(rotation).await.unwrap().unwrap();
    let after = part(store, &home, since.clone()).await;
    assert_eq!(
        (after.issuer.to_bytes(), after.issuers.count()),
        ([8; 32], 1)
    );
    assert_eq!(names(&after), ["dev-1"]);

    let death = store.delete_network(home.clone(), NOW).await.unwrap();
    assert!(store.heads(Some(home.clone())).await.unwrap().is_empty());
    let gone = store.progress(home.clone(), Some(since.clone())).await;
    assert!(gone.unwrap().is_none());
    assert_eq!(store.death(home.clone(), root()).await.unwrap(), death);
    let stranger = SignKey::from_bytes([1; 32]);
    assert_eq!(store.death(home.clone(), stranger).await.unwrap(), None);

    let mut new = new_network("home", "bob");
    new.issuer = SigningKey::from_bytes(&[9; 32]);
    assert!(matches!(
        store.create_network(new).await,
        Ok(Creation::Created(_))
    ));
    for since in [Some(since), None] {
        let other = store.progress(id("home"), since).await.unwrap();
        let Some(Progress::Other(state)) = other else {
            panic!("it is not told whole");
        };
        assert_eq!((state.issuer.to_bytes(), state.nodes.len()), ([9; 32], 0));
    }
}
