//! The suite on a server that the tests start.

use std::path::PathBuf;
use std::sync::Arc;

use sqlx::Row as _;
use sqlx::postgres::PgListener;
use tokio::io::copy_bidirectional;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use super::super::{Refusal, Store, suite};
use super::cluster::MAX_ERRANDS;
use super::server::Server;
use super::*;
use crate::relay::store::cluster::{Errand, Fellow, Heard, RelayId, Seating};
use crate::relay::visits::NoWay;
use crate::ssh::Door;

/// A new database; `None`, and said so, where there is no server.
pub(crate) fn database() -> Option<Address> {
    let server = Server::shared()?;
    Some(Address::parse(&server.database()).unwrap())
}

macro_rules! on_postgres {
    ($name:ident) => {
        #[tokio::test]
        async fn $name() {
            let Some(address) = database() else { return };
            let store = Postgres::open(&address).await.unwrap();
            suite::$name(Arc::new(store)).await;
        }
    };
}

suite::for_each_test!(on_postgres);

#[tokio::test]
async fn relays_that_start_together_find_one_schema() {
    let Some(address) = database() else { return };
    let opened = futures_util::future::join_all((0..8).map(|_| Postgres::open(&address))).await;
    assert!(opened.iter().all(Result::is_ok));
    let (found, relays) = look(&address).await.unwrap();
    assert_eq!((found.networks, found.nodes), (0, 0));
    assert!(relays.is_empty());
    assert_eq!(found.version, i64::try_from(MIGRATIONS.len()).unwrap());
}

#[tokio::test]
async fn it_opens_again_unless_a_newer_program_wrote_it() {
    let Some(address) = database() else { return };
    assert!(matches!(look(&address).await, Err(Error::Damaged(_))));
    suite::networks_have_owners(Arc::new(Postgres::open(&address).await.unwrap())).await;
    let store = Postgres::open(&address).await.unwrap();
    assert_eq!(store.load().await.unwrap().len(), 2);
    store
        .pool
        .execute("UPDATE relay_schema SET version = 99")
        .await
        .unwrap();
    let newer = Postgres::open(&address).await.err();
    assert!(matches!(newer, Some(Error::Newer { found: 99, .. })));
    let newer = look(&address).await.err();
    assert!(matches!(newer, Some(Error::Newer { found: 99, .. })));
}

#[tokio::test]
async fn damage_is_an_error() {
    let Some(address) = database() else { return };
    let store = Postgres::open(&address).await.unwrap();
    for insert in [
        "INSERT INTO networks VALUES ('a b', 0, 0, '\\x00', 0)",
        "INSERT INTO issuers SELECT 'a b', decode(repeat('00', 32), 'hex'), 0",
    ] {
        store.pool.execute(insert).await.unwrap();
    }
    assert!(matches!(store.load().await, Err(Error::Damaged(_))));
}

/// Two relays have each a pool of their own, and nothing else in common than the database.
#[tokio::test]
async fn racers_over_two_relays_share_the_uses() {
    let Some(address) = database() else { return };
    let a = Arc::new(Postgres::open(&address).await.unwrap());
    let b = Arc::new(Postgres::open(&address).await.unwrap());
    suite::racers_of_one_use(a, b).await;
}

#[tokio::test]
async fn a_transaction_that_nobody_goes_on_with_holds_nobody_up_for_ever() {
    let Some(address) = database() else { return };
    let a = Postgres::open(&address).await.unwrap();
    let mut stuck = a.write("home").await.unwrap();
    stuck
        .execute("SET idle_in_transaction_session_timeout = '100ms'")
        .await
        .unwrap();
    let b = Postgres::open(&address).await.unwrap();
    let mut tx = b.write("home").await.unwrap();
    let row = sqlx::query("SELECT 1 AS one").fetch_one(&mut *tx).await;
    assert_eq!(row.unwrap().try_get::<i32, _>("one").unwrap(), 1);
}

#[tokio::test]
async fn it_comes_back_when_the_server_does() {
    let Some(server) = Server::own() else { return };
    let address = Address::parse(&server.database()).unwrap();
    let store = Postgres::open(&address).await.unwrap();
    store.ready().await.unwrap();
    server.stop();
    let away = store.ready().await.unwrap_err();
    assert!(away.is_away(), "{away}");
    server.start();
    store.ready().await.unwrap();
    server.stop();
    let away = Postgres::open(&address).await.err().unwrap();
    assert!(away.is_away(), "{away}");
}

#[tokio::test]
async fn an_invite_that_is_withdrawn_while_it_is_redeemed_lets_nobody_in() {
    let Some((a, b)) = two().await else { return };
    let a = Arc::new(a);
    let join = suite::invited(&*a).await;
    let mut withdrawal = b.pool.begin().await.unwrap();
    withdrawal.execute("DELETE FROM invites").await.unwrap();
    let joining = {
        let a = Arc::clone(&a);
        tokio::spawn(async move { a.join(join).await })
    };
    let waits = "SELECT EXISTS (SELECT FROM pg_locks JOIN pg_stat_activity USING (pid)
         WHERE NOT granted AND datname = current_database())";
    let waits = async || {
        let waits = sqlx::query_scalar::<_, bool>(waits);
        waits.fetch_one(&b.pool).await.unwrap()
    };
    while !joining.is_finished() && !waits().await {
        tokio::task::yield_now().await;
    }
    withdrawal.commit().await.unwrap();
    let refused = joining.await.unwrap().err();
    assert!(
        matches!(refused, Some(Error::Refused(Refusal::InviteInvalid))),
        "{refused:?}"
    );
    assert!(a.load().await.unwrap()[0].nodes.is_empty());
}

/// Where a server listens in its directory.
const SOCKET: &str = ".s.PGSQL.5432";

/// Connections to `far` by way of `near`. When told to, those that there are fall silent, and stay
/// open.
fn line(near: PathBuf, far: PathBuf) -> watch::Sender<()> {
    let listener = UnixListener::bind(near).unwrap();
    let (fall_silent, _) = watch::channel(());
    let lines = fall_silent.clone();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut far = UnixStream::connect(&far).await.unwrap();
            let mut silent = lines.subscribe();
            tokio::spawn(async move {
                tokio::select! {
                    _ = copy_bidirectional(&mut near, &mut far) => {}
                    _ = silent.changed() => std::future::pending().await,
                }
            });
        }
    });
    fall_silent
}

#[tokio::test]
async fn connections_that_are_dead_without_a_word_keep_no_places() {
    let Some(server) = Server::shared() else {
        return;
    };
    let url = server.database();
    let (url, far) = url.split_once("?host=").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let fall_silent = line(dir.path().join(SOCKET), PathBuf::from(far).join(SOCKET));
    let address = Address::parse(&format!("{url}?host={}", dir.path().display())).unwrap();
    let store = Postgres::open(&address).await.unwrap();
    // Half of them are idle, and half are in use.
    let (mut idle, mut used) = (Vec::new(), Vec::new());
    for _ in 0..MAX_CONNECTIONS / 2 {
        idle.push(store.pool.acquire().await.unwrap());
        used.push(read(&store.pool).await.unwrap());
    }
    for connection in &mut idle {
        connection.return_to_pool().await;
    }
    fall_silent.send_replace(());
    drop(used);
    // Each that asks meets some of those that are dead; there is an end of them.
    for _ in 0..MAX_CONNECTIONS {
        if store.ready().await.is_ok() {
            return;
        }
    }
    panic!("the pool has no place left");
}

#[tokio::test]
async fn who_gets_no_answer_does_not_wait_for_ever() {
    let silent = std::future::pending::<Result<(), Error>>();
    let error = within(Duration::from_millis(1), silent).await.unwrap_err();
    assert!(error.is_away(), "{error}");
}

async fn two() -> Option<(Postgres, Postgres)> {
    let address = database()?;
    let a = Postgres::open(&address).await.unwrap();
    Some((a, Postgres::open(&address).await.unwrap()))
}

fn fellow(id: i64) -> Fellow {
    let url = format!("http://relay-{id}.test");
    Fellow {
        id: RelayId(id),
        base_url: (id != 1).then(|| url.clone()),
        url,
        key: derp::NodeKey::from_bytes([7; 32]),
    }
}

fn seating(key: u8, is_here: bool) -> Seating {
    Seating {
        network: "home".parse().unwrap(),
        key: derp::NodeKey::from_bytes([key; 32]),
        is_here,
    }
}

#[tokio::test]
async fn relays_know_of_each_other_until_they_leave_or_are_silent() {
    let Some((a, b)) = two().await else { return };
    let beat = a.beat(fellow(1)).await.unwrap();
    assert!(!beat.was_known && !beat.somebody_is_dead);
    b.beat(fellow(2)).await.unwrap();
    let beat = a.beat(fellow(1)).await.unwrap();
    assert!(beat.was_known);
    assert_eq!(beat.fellows, [fellow(2), fellow(1)]);

    let place = b.seat(RelayId(2), vec![seating(1, true), seating(2, true)]);
    let place = place.await.unwrap().unwrap();
    let seats = a.seats(0).await.unwrap();
    assert_eq!(seats.len(), 2);
    assert!(seats.iter().all(|seat| seat.relay == Some(RelayId(2))));
    // One of them comes to the other relay, and its end at the first is no news.
    let later = a.seat(RelayId(1), vec![seating(1, true)]);
    assert!(later.await.unwrap().unwrap() > place);
    b.seat(RelayId(2), vec![seating(1, false)]).await.unwrap();
    let seats = b.seats(place).await.unwrap();
    assert_eq!(seats.len(), 1);
    assert_eq!(seats[0].relay, Some(RelayId(1)));
    // Who is not on the books has nobody.
    let stranger = a.seat(RelayId(3), vec![seating(1, true)]).await;
    assert_eq!(stranger.unwrap(), None);

    let silent = "UPDATE relays SET beat = beat - interval '1 hour' WHERE id = 2";
    a.pool.execute(silent).await.unwrap();
    let beat = a.beat(fellow(1)).await.unwrap();
    assert!(beat.somebody_is_dead);
    assert_eq!(beat.fellows, [fellow(1)]);
    a.bury().await.unwrap();
    let seats = a.seats(0).await.unwrap();
    let at: Vec<_> = seats.iter().map(|seat| seat.relay).collect();
    assert!(
        at.contains(&None) && at.contains(&Some(RelayId(1))),
        "{at:?}"
    );
    assert!(!b.beat(fellow(2)).await.unwrap().was_known);
    a.leave(RelayId(1)).await.unwrap();
    let seats = a.seats(0).await.unwrap();
    assert!(seats.iter().all(|seat| seat.relay.is_none()));
    a.tidy(Duration::ZERO).await.unwrap();
    assert!(a.seats(0).await.unwrap().is_empty(), "there is no network");
}

#[tokio::test]
async fn what_one_relay_commits_the_other_hears() {
    let Some((a, b)) = two().await else { return };
    let a: Arc<dyn Store> = Arc::new(a);
    let (tell, mut heard) = tokio::sync::mpsc::channel(64);
    let hearing = tokio::spawn(async move { b.hear(tell).await });
    assert!(matches!(heard.recv().await, Some(Heard::Listening)));
    suite::networks_have_owners(Arc::clone(&a)).await;
    for network in ["home", "work"] {
        let Some(Heard::Note(Note::Network(named))) = heard.recv().await else {
            panic!("{network} is not told of");
        };
        assert_eq!(named.as_str(), network);
    }
    a.cluster().unwrap().tell(Note::Here).await.unwrap();
    assert!(matches!(heard.recv().await, Some(Heard::Note(Note::Here))));
    drop(heard);
    a.cluster().unwrap().tell(Note::Here).await.unwrap();
    hearing.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_a_relay_is_to_do_is_told_to_nobody_else() {
    let Some((a, b)) = two().await else { return };
    let mut anybody = PgListener::connect_with(&b.pool).await.unwrap();
    anybody.listen(CHANNEL).await.unwrap();
    let (me, other) = (RelayId(2), RelayId(1));
    let visit = Errand::Visit {
        from: other,
        network: "home".parse().unwrap(),
        key: derp::NodeKey::from_bytes([7; 32]),
        ticket: "a ticket".to_owned(),
        door: Door::Jump,
        subject: "admin".to_owned(),
    };
    let refusal = Errand::NoVisit {
        ticket: "another".to_owned(),
        why: NoWay::Closed,
    };
    for errand in [&visit, &refusal] {
        assert!(a.send(me, errand.clone()).await.unwrap());
        let heard = anybody.recv().await.unwrap();
        assert_eq!(heard.payload(), r#"{"errands":2}"#);
    }
    assert!(b.take(other).await.unwrap().is_empty());
    let young = "UPDATE errands SET sent = clock_timestamp() + interval '1 hour'";
    b.pool.execute(young).await.unwrap();
    let taken = b.take(me).await.unwrap();
    assert!(taken.len() == 2 && taken.contains(&visit) && taken.contains(&refusal));
    assert!(b.take(me).await.unwrap().is_empty(), "once");

    // There are not without end of them, and nobody waits for those that are old.
    let fill = "INSERT INTO errands (to_relay, body, sent)
         SELECT $1, $2, clock_timestamp() - interval '1 hour' FROM generate_series(1, $3)";
    for relay in [me, other] {
        sqlx::query(fill)
            .bind(relay.0)
            .bind(serde_json::to_string(&visit).unwrap())
            .bind(MAX_ERRANDS)
            .execute(&b.pool)
            .await
            .unwrap();
        assert!(!a.send(relay, visit.clone()).await.unwrap());
    }
    assert!(b.take(me).await.unwrap().is_empty());
    assert!(a.send(me, refusal).await.unwrap());
    a.tidy(Duration::from_secs(3600)).await.unwrap();
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM errands WHERE to_relay = $1")
        .bind(other.0)
        .fetch_one(&b.pool)
        .await
        .unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn nonces_are_good_once_and_what_is_kept_is_the_firsts() {
    let Some((a, b)) = two().await else { return };
    let nonce = crate::coord::Nonce([7; 32]);
    let (at_a, at_b) = tokio::join!(a.take_nonce(nonce), b.take_nonce(nonce));
    assert_ne!(at_a.unwrap(), at_b.unwrap());
    a.tidy(Duration::from_secs(3600)).await.unwrap();
    assert!(!a.take_nonce(nonce).await.unwrap());
    a.tidy(Duration::ZERO).await.unwrap();
    assert!(b.take_nonce(nonce).await.unwrap());
    let (at_a, at_b) = tokio::join!(a.keep("x", vec![1]), b.keep("x", vec![2]));
    assert_eq!(at_a.unwrap(), at_b.unwrap());
}

#[test]
fn an_address_shows_no_secret() {
    let address = Address::parse("postgres://me:geheim@db.test:5433/relay").unwrap();
    for shown in [address.to_string(), format!("{address:?}")] {
        assert!(shown.contains("relay at db.test:5433"), "{shown}");
        assert!(
            !shown.contains("geheim") && !shown.contains("me"),
            "{shown}"
        );
    }
    for bad in [
        "",
        "relay.db",
        "mysql://me:geheim@db.test/relay",
        "postgres://me:geheim@db.test:port/relay",
        "postgres://me:geheim@[db/relay",
        "postgres://me:geheim@db.test/relay?sslmode=geheim",
    ] {
        let why = Address::parse(bad).unwrap_err();
        assert!(!why.contains("geheim"), "{why}");
    }
}
