//! Issuers that hand over, and networks that end.

use std::sync::Arc;

use derp::NodeKey;
use ed25519_dalek::SigningKey;
use mesh::SignKey;

use super::{NOW, added, invite, join, network, new_network};
use crate::coord::Mark;
use crate::relay::papers::{Edit, PaperEdit};
use crate::relay::store::{Creation, OBITUARIES_KEPT, Rotation, Store};

fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

fn public(n: u8) -> SignKey {
    SignKey::from(&key(n).verifying_key())
}

fn rotation(network: &mesh::NetworkId, n: u8, now: u64) -> Rotation {
    Rotation {
        network: network.clone(),
        issuer: key(n),
        retires: now + 60,
        expires: now + 5_000,
        mark: Mark([n; 8]),
        now_ms: now * 1_000,
    }
}

pub(crate) async fn issuers_hand_over(store: Arc<dyn Store>) {
    let home = network(&*store, "home").await;
    invite(&*store, &home, 1, 3).await;
    let first = added(&*store, join(1, 1, "dev-1")).await;
    let edit = PaperEdit {
        network: home.clone(),
        edit: Edit::CreateGroup {
            name: "mesh".parse().unwrap(),
            by: "alice".to_owned(),
        },
        now_ms: NOW * 1_000,
    };
    let paper = store.edit_paper(edit).await.unwrap().unwrap();

    let rotated = store.rotate(rotation(&home, 8, NOW + 10)).await.unwrap();
    let rotated = rotated.unwrap();
    assert_eq!(rotated.revision.number, first.revision.number + 1);
    assert_eq!(rotated.issuers.root(), &public(7));
    assert_eq!(rotated.issuers.current(), &public(8));
    let [node] = &rotated.nodes[..] else {
        panic!("{:?}", rotated.nodes)
    };
    assert_eq!(node.record.issued, NOW + 10);
    assert_eq!(node.record.expires, NOW + 5_010);
    assert_eq!(node.changed, rotated.revision.number);
    assert_eq!(rotated.papers.len(), 1);
    assert!(rotated.papers[0].serial > paper.serial);

    // By a clock that was set back, nothing becomes older than it is.
    let again = store
        .rotate(rotation(&home, 9, NOW))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(again.nodes[0].record.issued, NOW + 10);
    assert!(again.papers[0].serial > rotated.papers[0].serial);

    let loaded = store.load().await.unwrap().remove(0);
    assert_eq!(loaded.issuer.to_bytes(), [9; 32]);
    assert_eq!(loaded.issuers, again.issuers);
    assert_eq!(loaded.issuers.count(), 2);
    assert_eq!(loaded.revision, again.revision);
    assert_eq!(loaded.nodes, again.nodes);
    assert_eq!(loaded.papers, again.papers);
    let elsewhere = "work".parse().unwrap();
    assert!(
        store
            .rotate(rotation(&elsewhere, 9, NOW))
            .await
            .unwrap()
            .is_none()
    );
}

pub(crate) async fn a_deleted_network_leaves_an_obituary(store: Arc<dyn Store>) {
    let home = network(&*store, "home").await;
    invite(&*store, &home, 1, 3).await;
    added(&*store, join(1, 1, "dev-1")).await;
    store.rotate(rotation(&home, 8, NOW)).await.unwrap();
    let issuers = store.load().await.unwrap().remove(0).issuers;

    let death = store.delete_network(home.clone(), NOW + 5).await.unwrap();
    let death = death.unwrap();
    assert_eq!(death.obituary.verify(&issuers), Ok(NOW + 5));
    assert!(
        store
            .delete_network(home.clone(), NOW)
            .await
            .unwrap()
            .is_none()
    );
    assert!(store.load().await.unwrap().is_empty());

    // Also when there is another network of that name.
    let again = store.create_network(new_network("home", "bob")).await;
    assert!(matches!(again, Ok(Creation::Created(_))));
    let mourners = |n| store.deaths(home.clone(), NodeKey::from_bytes([n; 32]));
    let found = mourners(1).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].root, public(7));
    assert_eq!(found[0].sign_key, SignKey::from_bytes([1 ^ 0xff; 32]));
    assert_eq!(found[0].death, death);
    assert!(mourners(2).await.unwrap().is_empty());
    store.purge(NOW + 5 + OBITUARIES_KEPT).await.unwrap();
    assert_eq!(mourners(1).await.unwrap().len(), 1);
    store.purge(NOW + 6 + OBITUARIES_KEPT).await.unwrap();
    assert!(mourners(1).await.unwrap().is_empty());
}
