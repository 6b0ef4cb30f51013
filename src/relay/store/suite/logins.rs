//! Logins, and those under way.

use std::sync::Arc;

use super::super::logins::{Attempt, Login, MAX_ATTEMPTS, MAX_LOGINS, Turn};
use super::super::{Error, Refusal, Store};
use super::{NOW, user};

fn login(number: u32, of: &str) -> Login {
    let mut hash = [0; 32];
    hash[..4].copy_from_slice(&number.to_be_bytes());
    Login {
        hash,
        id: format!("login_{number:04}"),
        subject: user(of),
        name: format!("{of} the user"),
        via: "token".to_owned(),
        label: "cw on a laptop".to_owned(),
        created: NOW + u64::from(number),
        expires: NOW + 10_000,
    }
}

fn attempt(number: u32) -> Attempt {
    Attempt {
        hash: login(number, "").hash,
        state: format!("{{\"number\":{number}}}"),
        expires: NOW + 600,
    }
}

pub(crate) async fn logins_are_found_and_end(store: Arc<dyn Store>) {
    for (number, of) in [(1, "alice"), (2, "alice"), (3, "bob")] {
        store.add_login(login(number, of), NOW).await.unwrap();
    }
    // The answer to the first time may have been lost.
    store.add_login(login(1, "alice"), NOW).await.unwrap();
    let find = |number, now| store.login(login(number, "").hash, now);
    assert_eq!(find(1, NOW).await.unwrap(), Some(login(1, "alice")));
    assert_eq!(find(9, NOW).await.unwrap(), None);
    let over = NOW + 10_000;
    assert_eq!(find(1, over).await.unwrap(), None);
    assert_eq!(store.logins(None, over).await.unwrap(), []);

    let of = |name: &str| store.logins(Some(user(name)), NOW);
    assert_eq!(
        of("alice").await.unwrap(),
        [login(2, "alice"), login(1, "alice")]
    );
    assert_eq!(store.logins(None, NOW).await.unwrap().len(), 3);

    let end = |name: Option<&str>, id: Option<&str>| {
        store.end_logins(name.map(user), id.map(str::to_owned))
    };
    let foreign = end(Some("bob"), Some("login_0001"));
    assert_eq!(foreign.await.unwrap(), 0);
    assert_eq!(end(Some("alice"), Some("login_0001")).await.unwrap(), 1);
    assert_eq!(find(1, NOW).await.unwrap(), None);
    assert_eq!(end(None, Some("login_0003")).await.unwrap(), 1);
    assert_eq!(end(Some("alice"), None).await.unwrap(), 1);
    assert_eq!(end(None, None).await.unwrap(), 0);
}

pub(crate) async fn the_oldest_login_makes_room(store: Arc<dyn Store>) {
    store.add_login(login(9_000, "bob"), NOW).await.unwrap();
    for number in 0..=MAX_LOGINS {
        store.add_login(login(number, "alice"), NOW).await.unwrap();
    }
    let kept = store.logins(Some(user("alice")), NOW).await.unwrap();
    assert_eq!(kept.len(), MAX_LOGINS as usize);
    assert!(kept.iter().all(|kept| kept.id != "login_0000"));
    assert_eq!(kept[0], login(MAX_LOGINS, "alice"));
    let other = store.login(login(9_000, "").hash, NOW).await.unwrap();
    assert_eq!(other, Some(login(9_000, "bob")));
}

pub(crate) async fn an_attempt_has_turns_and_one_end(store: Arc<dyn Store>) {
    store.add_attempt(attempt(1), NOW).await.unwrap();
    let hash = attempt(1).hash;
    let turn = |now, next| store.turn(hash, now, next);
    assert_eq!(turn(NOW, NOW + 5).await.unwrap(), Turn::Due(attempt(1)));
    assert_eq!(turn(NOW + 4, NOW + 9).await.unwrap(), Turn::Early);
    assert_eq!(turn(NOW + 5, NOW + 9).await.unwrap(), Turn::Due(attempt(1)));
    let changed = store.change_attempt(hash, "{}".to_owned(), NOW);
    assert!(changed.await.unwrap());
    let Turn::Due(found) = turn(NOW + 1, NOW + 2).await.unwrap() else {
        panic!("it was its time");
    };
    assert_eq!(found.state, "{}");
    assert_eq!(turn(NOW + 600, 0).await.unwrap(), Turn::Gone);
    let unknown = attempt(2).hash;
    assert_eq!(store.turn(unknown, NOW, NOW).await.unwrap(), Turn::Gone);
    let changed = store.change_attempt(unknown, "{}".to_owned(), NOW);
    assert!(!changed.await.unwrap());

    let racers = (0..16).map(|_| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.take_attempt(hash, NOW).await.unwrap() })
    });
    let mut won = Vec::new();
    for racer in racers.collect::<Vec<_>>() {
        won.extend(racer.await.unwrap());
    }
    assert_eq!(won.len(), 1);
    store.add_attempt(attempt(3), NOW).await.unwrap();
    let late = store.take_attempt(attempt(3).hash, NOW + 600);
    assert_eq!(late.await.unwrap(), None);
}

pub(crate) async fn attempts_are_limited(store: Arc<dyn Store>) {
    for number in 0..MAX_ATTEMPTS {
        store.add_attempt(attempt(number), NOW).await.unwrap();
    }
    let one_more = attempt(MAX_ATTEMPTS);
    let full = store.add_attempt(one_more.clone(), NOW).await.unwrap_err();
    assert!(matches!(full, Error::Refused(Refusal::TooManyAttempts)));
    let later = Attempt {
        expires: NOW + 1_200,
        ..one_more
    };
    store.add_attempt(later, NOW + 600).await.unwrap();
}
