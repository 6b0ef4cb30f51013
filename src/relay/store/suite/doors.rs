//! Keys and passwords for SSH.

use std::sync::Arc;

use super::super::doors::{MAX_SSH_KEYS, SshKey, SshPassword};
use super::super::{Error, Refusal, Store};
use super::{NOW, network, user};

fn key(number: u32, of: &str) -> SshKey {
    SshKey {
        fingerprint: format!("SHA256:{number}"),
        subject: user(of),
        key: format!("ssh-ed25519 AAAA{number} laptop"),
        created: NOW + u64::from(number),
    }
}

pub(crate) async fn ssh_keys_are_one_persons(store: Arc<dyn Store>) {
    assert!(store.add_ssh_key(key(1, "alice")).await.unwrap());
    assert!(!store.add_ssh_key(key(1, "alice")).await.unwrap());
    let taken = store.add_ssh_key(key(1, "bob")).await.unwrap_err();
    assert!(matches!(taken, Error::Refused(Refusal::KeyTaken)));
    assert!(store.add_ssh_key(key(2, "bob")).await.unwrap());
    let found = store.ssh_key("SHA256:1".to_owned()).await.unwrap();
    assert_eq!(found, Some(key(1, "alice")));
    assert_eq!(store.ssh_keys(user("bob")).await.unwrap(), [key(2, "bob")]);

    let foreign = store.remove_ssh_key(user("bob"), "SHA256:1".to_owned());
    assert!(!foreign.await.unwrap());
    let own = store.remove_ssh_key(user("alice"), "SHA256:1".to_owned());
    assert!(own.await.unwrap());
    assert_eq!(store.ssh_key("SHA256:1".to_owned()).await.unwrap(), None);

    for number in 0..MAX_SSH_KEYS {
        assert!(store.add_ssh_key(key(100 + number, "carol")).await.unwrap());
    }
    let full = store.add_ssh_key(key(99, "carol")).await.unwrap_err();
    assert!(matches!(full, Error::Refused(Refusal::TooManyKeys)));
}

pub(crate) async fn ssh_passwords_are_good_once(store: Arc<dyn Store>) {
    let network = network(&*store, "mine").await;
    let password = |number: u8, expires| SshPassword {
        hash: [number; 32],
        subject: user("alice"),
        network: network.clone(),
        node: "dev-1".parse().unwrap(),
        expires,
    };
    for made in [password(1, NOW + 600), password(2, NOW + 1)] {
        store.add_ssh_password(made, NOW).await.unwrap();
    }
    let racers = (0..16).map(|_| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.take_ssh_password([1; 32], NOW).await.unwrap() })
    });
    let mut won = Vec::new();
    for racer in racers.collect::<Vec<_>>() {
        won.extend(racer.await.unwrap());
    }
    assert_eq!(won, [password(1, NOW + 600)]);
    let late = store.take_ssh_password([2; 32], NOW + 1).await.unwrap();
    assert_eq!(late, None);
    assert_eq!(store.take_ssh_password([9; 32], NOW).await.unwrap(), None);
}
