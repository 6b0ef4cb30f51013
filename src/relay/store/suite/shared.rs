//! Shared values.

use std::sync::Arc;

use mesh::NetworkId;

use super::super::shared::{
    Condition, DELETIONS_KEPT, Key, MAX_BYTES, MAX_VALUE, Place, Put, Query, Removal, Space,
};
use super::super::{Error, Refusal, Store};
use super::{NOW, network};

const NOW_MS: u64 = NOW * 1000;

fn place(network: &NetworkId, key: &str) -> Place {
    Place {
        network: network.clone(),
        space: Space::new("default").unwrap(),
        key: Key::new(key).unwrap(),
    }
}

fn put(network: &NetworkId, key: &str, value: &str) -> Put {
    Put {
        place: place(network, key),
        value: value.as_bytes().to_vec(),
        expires: None,
        condition: Condition::Always,
        by: "dev-1:planner".to_owned(),
        now: NOW_MS,
    }
}

fn removal(network: &NetworkId, key: &str) -> Removal {
    Removal {
        place: place(network, key),
        condition: Condition::Always,
        by: "dev-2".to_owned(),
        now: NOW_MS,
    }
}

fn query(network: &NetworkId, prefix: &str) -> Query {
    Query {
        network: network.clone(),
        space: Space::new("default").unwrap(),
        prefix: prefix.to_owned(),
        limit: 1_000,
        now: NOW_MS,
    }
}

async fn value(store: &dyn Store, network: &NetworkId, key: &str, now: u64) -> Option<String> {
    let entry = store.get_shared(place(network, key), now).await.unwrap()?;
    Some(String::from_utf8(entry.value.unwrap()).unwrap())
}

/// Values of any bytes are what they were, each network and namespace has its own, prefixes are
/// literal.
pub(in super::super) async fn shared_values_are_kept(store: Arc<dyn Store>) {
    let (home, other) = (
        network(&*store, "home").await,
        network(&*store, "other").await,
    );
    assert_eq!(store.put_shared(put(&home, "a", "1")).await.unwrap(), 1);
    assert_eq!(store.put_shared(put(&home, "a", "2")).await.unwrap(), 2);
    assert_eq!(store.put_shared(put(&other, "a", "3")).await.unwrap(), 1);
    assert_eq!(value(&*store, &home, "a", NOW_MS).await.unwrap(), "2");
    assert_eq!(value(&*store, &other, "a", NOW_MS).await.unwrap(), "3");
    let elsewhere = Place {
        space: Space::new("b").unwrap(),
        ..place(&home, "a")
    };
    assert_eq!(store.get_shared(elsewhere, NOW_MS).await.unwrap(), None);

    let bytes: Vec<u8> = (0..=255).collect();
    for (key, value) in [
        ("%", &b""[..]),
        ("_%x", &bytes),
        ("ab", b"x"),
        ("aüb", b"y"),
    ] {
        let put = Put {
            value: value.to_vec(),
            ..put(&home, key, "")
        };
        store.put_shared(put).await.unwrap();
        let entry = store.get_shared(place(&home, key), NOW_MS).await.unwrap();
        let entry = entry.unwrap();
        assert_eq!(entry.value.as_deref(), Some(value));
        assert_eq!(entry.size, value.len() as u64);
        assert_eq!((&entry.by[..], entry.changed), ("dev-1:planner", NOW_MS));
    }
    for (prefix, keys) in [
        ("", &["%", "_%x", "a", "ab", "aüb"][..]),
        ("a", &["a", "ab", "aüb"]),
        ("aü", &["aüb"]),
        ("%", &["%"]),
        ("_", &["_%x"]),
        ("x", &[]),
    ] {
        let found = store.list_shared(query(&home, prefix), None).await.unwrap();
        let found: Vec<_> = found.iter().map(|entry| &entry.key[..]).collect();
        assert_eq!(found, keys, "{prefix:?}");
    }
    let mut page = query(&home, "");
    page.limit = 2;
    let found = store
        .list_shared(page, Some("_%x".to_owned()))
        .await
        .unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].key, "a");
}

/// A value whose time is over is gone for every reader, swept out or not; one that was set again
/// has its new time.
pub(in super::super) async fn u15_shared_values_expire(store: Arc<dyn Store>) {
    let home = network(&*store, "home").await;
    let short = |expires| Put {
        expires: Some(expires),
        ..put(&home, "a", "short")
    };
    store.put_shared(short(NOW_MS + 10)).await.unwrap();
    assert!(value(&*store, &home, "a", NOW_MS + 9).await.is_some());
    assert!(value(&*store, &home, "a", NOW_MS + 10).await.is_none());
    let mut late = query(&home, "");
    late.now = NOW_MS + 10;
    assert!(store.list_shared(late, None).await.unwrap().is_empty());
    // Whoever wants a key without a value gets it, before the sweep too.
    let mut taken = put(&home, "a", "taken");
    taken.condition = Condition::Absent;
    assert!(store.put_shared(taken.clone()).await.is_err());
    taken.now = NOW_MS + 10;
    store.put_shared(taken).await.unwrap();
    assert!(store.expire_shared(NOW_MS + 11).await.unwrap().is_empty());
    assert_eq!(
        value(&*store, &home, "a", NOW_MS + 11).await.unwrap(),
        "taken"
    );

    store.put_shared(short(NOW_MS + 20)).await.unwrap();
    assert_eq!(
        store.expire_shared(NOW_MS + 20).await.unwrap(),
        std::slice::from_ref(&home)
    );
    assert!(value(&*store, &home, "a", 0).await.is_none());
    let changes = store
        .shared_changes(query(&home, ""), Some(0))
        .await
        .unwrap();
    assert_eq!(changes.entries.len(), 1);
    assert_eq!(
        (changes.entries[0].revision, &changes.entries[0].value),
        (4, &None)
    );
}

/// Of many that want a key one gets it, and nobody overwrites what he has not seen.
pub(in super::super) async fn shared_values_change_on_condition(store: Arc<dyn Store>) {
    let home = network(&*store, "home").await;
    let racers = (0..64).map(|n| {
        let (store, mut put) = (Arc::clone(&store), put(&home, "lock", &n.to_string()));
        put.condition = Condition::Absent;
        tokio::spawn(async move { store.put_shared(put).await.is_ok() })
    });
    let racers: Vec<_> = racers.collect();
    let mut winners = 0;
    for racer in racers {
        winners += u32::from(racer.await.unwrap());
    }
    assert_eq!(winners, 1);

    let with = |condition| Put {
        condition,
        ..put(&home, "lock", "next")
    };
    for wrong in [Condition::Is(0), Condition::Is(2), Condition::Absent] {
        let refused = store.put_shared(with(wrong)).await;
        assert!(matches!(
            refused,
            Err(Error::Refused(Refusal::SharedChanged))
        ));
        let mut removal = removal(&home, "lock");
        removal.condition = wrong;
        assert!(store.remove_shared(removal).await.is_err());
    }
    assert_eq!(store.put_shared(with(Condition::Is(1))).await.unwrap(), 2);
    let gone = store.remove_shared(removal(&home, "lock")).await.unwrap();
    assert_eq!(gone, Some(3));
    assert_eq!(
        store.remove_shared(removal(&home, "lock")).await.unwrap(),
        None
    );
    assert_eq!(store.put_shared(with(Condition::Absent)).await.unwrap(), 4);
}

/// Who follows hears of every key that changed, of deletions too, or of a gap.
pub(in super::super) async fn shared_changes_are_told(store: Arc<dyn Store>) {
    let home = network(&*store, "home").await;
    let since = async |since| store.shared_changes(query(&home, ""), since).await.unwrap();
    assert_eq!(since(None).await.upto, 0);
    for key in ["a", "b", "c"] {
        store.put_shared(put(&home, key, key)).await.unwrap();
    }
    store.remove_shared(removal(&home, "b")).await.unwrap();
    let all = since(Some(0)).await;
    let keys: Vec<_> = all.entries.iter().map(|entry| &entry.key[..]).collect();
    assert_eq!((keys, all.upto, all.gap), (vec!["a", "c", "b"], 4, false));
    assert_eq!(all.entries[2].value, None);
    assert!(since(Some(4)).await.entries.is_empty());
    let mut few = query(&home, "");
    few.limit = 2;
    let part = store.shared_changes(few, Some(0)).await.unwrap();
    assert_eq!((part.entries.len(), part.upto), (2, 3));
    assert!(since(Some(5)).await.gap);

    store.forget_shared(NOW_MS + DELETIONS_KEPT).await.unwrap();
    assert!(!since(Some(3)).await.gap);
    store
        .forget_shared(NOW_MS + DELETIONS_KEPT + 1)
        .await
        .unwrap();
    assert!(since(Some(3)).await.gap);
    assert!(!since(Some(4)).await.gap);
}

/// What one network shares has a limit, which deletions and expiries make room under.
pub(in super::super) async fn shared_values_are_limited(store: Arc<dyn Store>) {
    let home = network(&*store, "home").await;
    let big = |key: &str| Put {
        value: vec![0; MAX_VALUE],
        ..put(&home, key, "")
    };
    let fit = (MAX_BYTES as usize) / (MAX_VALUE + 16);
    for n in 0..fit {
        store.put_shared(big(&format!("big-{n}"))).await.unwrap();
    }
    let full = store.put_shared(big("one-more")).await;
    assert!(matches!(full, Err(Error::Refused(Refusal::SharedFull))));
    // In place of another it has room.
    store.put_shared(big("big-0")).await.unwrap();
    store.remove_shared(removal(&home, "big-0")).await.unwrap();
    let mut short = big("one-more");
    short.expires = Some(NOW_MS + 1);
    store.put_shared(short).await.unwrap();
    assert!(store.put_shared(big("and-more")).await.is_err());
    store.expire_shared(NOW_MS + 1).await.unwrap();
    store.put_shared(big("and-more")).await.unwrap();
    // Others have their own room.
    let other = network(&*store, "other").await;
    store.put_shared(put(&other, "a", "b")).await.unwrap();
}
