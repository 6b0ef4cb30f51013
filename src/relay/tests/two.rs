//! Two relays over one database serve one network together.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use derp::NodeKey;
use derp::io::client::{Event, Receiver, Sender};
use derp::io::region::Neighbour;
use derp::io::server::Admission as _;
use futures_util::future::join_all;
use mesh::NetworkId;
use reqwest::header::AUTHORIZATION;
use reqwest::{Method, StatusCode};
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional, split};
use tokio::net::{TcpListener, TcpStream};

use super::hostile::derp;
use super::packets::metric;
use super::rig::{Node, Rig, TOKEN, code, limited, node_name};
use crate::relay::store::Server;
use crate::relay::visits::NoWay;
use crate::ssh::Door;
use crate::uplink::api::NewGrant;
use crate::uplink::http::Http;
use crate::uplink::kv::{Change, Shared};
use crate::uplink::{self, NetworkView, Uplink};

/// Two relays; `None` where there is no PostgreSQL.
async fn pair() -> Option<(Rig, Rig)> {
    let database = Server::shared()?.database();
    let a = Rig::over(Some(database)).await;
    let b = a.beside().await;
    Some((a, b))
}

/// Runs a test with two relays, a network, and two nodes that have joined at the first.
async fn with_pair(test: impl AsyncFnOnce(Rig, Rig, NetworkId, [Node; 2])) {
    limited(async {
        let Some((a, b)) = pair().await else { return };
        let network = a.network("home").await;
        let invite = a.invite(&network, 2).await;
        let one = a.join(&invite, "dev-1").await.unwrap();
        let two = a.join(&invite, "dev-2").await.unwrap();
        test(a, b, network, [one, two]).await;
    })
    .await;
}

/// Connections go to the first of the relays that takes them, as behind a load balancer.
async fn balancer(relays: [SocketAddr; 2]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            tokio::spawn(async move {
                for relay in relays {
                    if let Ok(mut far) = TcpStream::connect(relay).await {
                        let _ = copy_bidirectional(&mut near, &mut far).await;
                        return;
                    }
                }
            });
        }
    });
    format!("http://{address}")
}

#[tokio::test]
async fn s34_nodes_at_two_relays_see_each_other_come_and_go() {
    with_pair(async |a, b, network, [one, two]| {
        let mut one = one.up();
        let mut at_b = two.up_through(b.url());
        one.until_sees("dev-2", Some(true)).await;
        at_b.until_sees("dev-1", Some(true)).await;
        for rig in [&a, &b] {
            let nodes = rig.api().nodes(&network).await.unwrap();
            assert!(nodes.iter().all(|node| node.connected));
        }
        drop(at_b);
        one.until_sees("dev-2", Some(false)).await;

        // From one relay to the other and back: the newer connection is the one that counts.
        let mut at_b = two.up_through(b.url());
        one.until_sees("dev-2", Some(true)).await;
        for _ in 0..3 {
            let mut at_a = two.up();
            at_a.until_connected().await;
            at_b.until("replaced", |view| !view.connected).await;
            drop(at_b);
            at_b = two.up_through(b.url());
            at_b.until_sees("dev-1", Some(true)).await;
            at_a.until("replaced", |view| !view.connected).await;
            one.until_sees("dev-2", Some(true)).await;
        }
        // A revision at one is the revision at the other.
        let at_both = [one.now().revision, at_b.now().revision];
        assert_eq!(at_both[0], at_both[1]);
    })
    .await;
}

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
            let mut membership = node.membership.clone();
            membership.relay_url = b.url().to_owned();
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
            let mut membership = node.membership.clone();
            membership.relay_url = rig.url().to_owned();
            let url = membership.relay_url.clone();
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

/// A node that takes jumps, and sends back what comes.
async fn echo(node: &Node, relay: &str) -> Uplink {
    let mut membership = node.membership.clone();
    membership.relay_url = relay.to_owned();
    let doors = vec![Door::Jump];
    let started = Uplink::start(membership, Arc::clone(&node.identity), node.files(), doors);
    let (uplink, mut visits) = started.unwrap();
    let relay = relay.to_owned();
    tokio::spawn(async move {
        while let Some(visit) = visits.recv().await {
            let (pipe, _) = uplink::come(&relay, None, &visit.ticket).await.unwrap();
            tokio::spawn(async move {
                let (mut from, mut to) = split(pipe);
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    let mut view = uplink.view();
    view.wait_for(|view| view.connected).await.unwrap();
    uplink
}

#[tokio::test]
async fn s09_s34_who_comes_over_ssh_to_one_relay_gets_to_a_node_at_the_other() {
    with_pair(async |a, b, network, [one, two]| {
        let key = one.identity.key();
        let app = b.relay().app();
        let away = app.way(&network, &key, Door::Jump, "admin").await;
        assert_eq!(away.err(), Some(NoWay::Away));
        let _node = echo(&one, a.url()).await;
        let mut at_b = two.up_through(b.url());
        at_b.until_sees("dev-1", Some(true)).await;
        for _ in 0..3 {
            let mut way = app.way(&network, &key, Door::Jump, "admin").await.unwrap();
            let sent: Vec<u8> = (0..200_000_u32).map(|n| n as u8).collect();
            let mut back = vec![0; sent.len()];
            let (mut from, mut to) = split(&mut way);
            let (written, read) = tokio::join!(to.write_all(&sent), from.read_exact(&mut back));
            written.unwrap();
            read.unwrap();
            assert!(sent == back);
        }
        // What the node says no to is said there, too.
        let closed = app.way(&network, &key, Door::Terminal, "admin").await;
        assert_eq!(closed.err(), Some(NoWay::Closed));
    })
    .await;
}

#[tokio::test]
async fn s21_s34_nodes_of_a_relay_that_is_gone_go_on_at_the_other() {
    with_pair(async |mut a, b, network, [one, two]| {
        let shared = balancer([a.relay().http(), b.relay().http()]).await;
        let mut one = one.up_through(&shared);
        let mut at_b = two.up_through(b.url());
        at_b.until_sees("dev-1", Some(true)).await;
        one.until_sees("dev-2", Some(true)).await;
        let before = one.now().revision;
        a.stop().await;
        // It may be there before anybody has seen it away.
        while b.relay().app().hub.census().connected < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let view = one.until_sees("dev-2", Some(true)).await;
        assert_eq!(view.revision, before, "nothing was changed by it");
        at_b.until_sees("dev-1", Some(true)).await;
        let invite = b.invite(&network, 1).await;
        b.join(&invite, "dev-3").await.unwrap();
        one.until_sees("dev-3", Some(false)).await;
        // And back when it is there again.
        a.restart().await;
        let mut at_a = two.up_through(a.url());
        at_a.until_sees("dev-1", Some(true)).await;
        one.until_sees("dev-2", Some(true)).await;
    })
    .await;
}

/// Until each of two relays that have two nodes knows that of the other.
async fn until_linked(a: &Rig, b: &Rig) {
    for rig in [a, b] {
        while metric(rig, "derp_links").await != 1 || metric(rig, "derp_away").await != 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A node's connection for packets. The relay may be about to hear that another has let it in; nodes
/// come again then.
async fn packets(rig: &Rig, node: &Node) -> (Sender, Receiver) {
    while !rig.relay().app().hub.admits(&node.identity.key()) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    derp(rig, &node.identity).await.unwrap()
}

/// Sends a packet and waits for it.
async fn pass(from: (&Node, &Sender), to: (&Node, &mut Receiver), data: &[u8]) {
    let ((one, out), (two, back)) = (from, to);
    out.try_send(&two.identity.key(), data).unwrap();
    loop {
        match back.recv().await.unwrap() {
            // Of a time before.
            Event::PeerGone { .. } => {}
            Event::Packet { from, data: found } => {
                assert_eq!((from, &found[..]), (one.identity.key(), data));
                return;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn s34_packets_pass_from_one_relay_to_the_other() {
    with_pair(async |a, mut b, _, [one, two]| {
        let (out, mut back) = packets(&a, &one).await;
        for round in 0..2_u64 {
            // The link comes back with the relay.
            let (there, mut from_there) = packets(&b, &two).await;
            until_linked(&a, &b).await;
            pass((&one, &out), (&two, &mut from_there), b"there").await;
            pass((&two, &there), (&one, &mut back), b"back").await;
            assert_eq!(metric(&a, "derp_forwarded_total").await, round + 1);
            if round == 0 {
                b.stop().await;
                while metric(&a, "derp_links").await > 0 {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                b.restart().await;
            }
        }
        // Who has the database has the key; nobody else is a relay.
        let stranger = Rig::over(Server::shared().map(Server::database)).await;
        let key = b.relay().app().derp.public_key();
        let link = Neighbour {
            url: b.url().to_owned(),
            tls: None,
            key: Some(key),
        };
        let derp = &stranger.relay().app().derp;
        let tried = tokio::time::timeout(Duration::from_millis(500), derp.keep_link(link)).await;
        assert!(tried.is_err(), "it goes on trying");
        assert_eq!(derp.census().away, 0);
        assert_eq!(metric(&b, "derp_links").await, 1);
    })
    .await;
}

#[tokio::test]
async fn b11_s34_packets_of_who_is_revoked_at_one_relay_end_at_the_other() {
    with_pair(async |a, b, network, [one, two]| {
        let (out, mut back) = packets(&a, &one).await;
        let (_there, mut from_there) = packets(&b, &two).await;
        until_linked(&a, &b).await;
        pass((&one, &out), (&two, &mut from_there), b"there").await;
        a.api().revoke(&network, &node_name("dev-2")).await.unwrap();
        while from_there.recv().await.is_ok() {}
        // And who has exchanged packets with it hears that it is gone.
        let key = two.identity.key();
        let gone = Event::PeerGone { key, reason: 0 };
        assert_eq!(back.recv().await.unwrap(), gone);
        assert!(derp(&b, &two.identity).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn what_is_done_is_answered_so_also_when_it_cannot_be_taken_in_yet() {
    limited(async {
        let Some(server) = Server::shared() else {
            return;
        };
        let database = server.database();
        let a = Rig::over(Some(database.clone())).await;
        let network = a.network("home").await;
        let invite = a.invite(&network, 1).await;
        let mut one = a.join(&invite, "dev-1").await.unwrap().up();
        one.until_connected().await;
        // What a relay reads to follow a network, and does not need to revoke.
        let mut behind_its_back = PgConnection::connect(&database).await.unwrap();
        behind_its_back
            .execute("ALTER TABLE handovers RENAME TO lost")
            .await
            .unwrap();
        a.api().revoke(&network, &node_name("dev-1")).await.unwrap();
        behind_its_back
            .execute("ALTER TABLE lost RENAME TO handovers")
            .await
            .unwrap();
        let said = |view: &NetworkView| view.last_error.as_deref() == Some("this node was revoked");
        one.until("cut", said).await;
    })
    .await;
}

#[tokio::test]
async fn a_text_that_postgresql_cannot_store_is_a_bad_request() {
    limited(async {
        let Some(server) = Server::shared() else {
            return;
        };
        let a = Rig::over(Some(server.database())).await;
        let network = a.network("home").await;
        let http = Http::new(a.url(), Some(TOKEN)).unwrap();
        for (method, path) in [
            (Method::DELETE, "/api/v1/invites/%00?"),
            (Method::GET, "/api/v1/kv/default?prefix=%00&"),
        ] {
            let path = format!("{path}network_id={network}");
            let asked = http.send_raw(http.request(method, &path)).await;
            assert_eq!(code(asked), "bad_request", "{path}");
        }
    })
    .await;
}

#[tokio::test]
async fn while_the_database_is_away_nodes_stay_and_it_comes_back_by_itself() {
    limited(async {
        let Some(server) = Server::own() else { return };
        let a = Rig::over(Some(server.database())).await;
        let b = a.beside().await;
        let network = a.network("home").await;
        let invite = a.invite(&network, 3).await;
        let alpha = a.join(&invite, "dev-1").await.unwrap();
        let mut one = alpha.up();
        let two = a.join(&invite, "dev-2").await.unwrap();
        let mut at_b = two.up_through(b.url());
        one.until_sees("dev-2", Some(true)).await;
        at_b.until_sees("dev-1", Some(true)).await;

        let (out, _back) = packets(&a, &alpha).await;
        let (_there, mut from_there) = packets(&b, &two).await;
        until_linked(&a, &b).await;

        server.stop();
        let http = Http::new(a.url(), None).unwrap();
        let ready = async || {
            let answer = http.request(Method::GET, "/readyz").send().await;
            answer.unwrap().status()
        };
        assert_eq!(ready().await, StatusCode::SERVICE_UNAVAILABLE);
        let refused = a.api().create_network(&"work".parse().unwrap()).await;
        assert_eq!(code(refused), "store_unavailable");
        assert_eq!(code(b.join(&invite, "dev-3").await), "store_unavailable");
        assert!(one.now().connected && at_b.now().connected);
        // Whether somebody was revoked meanwhile cannot be known: after a while nobody new is let in.
        a.relay().app().cluster.as_ref().unwrap().lose_sight();
        let mut late = two.up();
        let why = "the relay cannot reach its database now";
        let refused = |view: &NetworkView| view.last_error.as_deref() == Some(why);
        late.until("refused", refused).await;
        drop(late);
        assert!(derp(&a, &two.identity).await.is_err());
        assert!(one.now().connected && at_b.now().connected);
        pass((&alpha, &out), (&two, &mut from_there), b"still").await;

        server.start();
        while ready().await != StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // Both hear again.
        b.join(&invite, "dev-3").await.unwrap();
        one.until_sees("dev-3", Some(false)).await;
        drop(at_b);
        one.until_sees("dev-2", Some(false)).await;
        let _at_a = two.up();
        one.until_sees("dev-2", Some(true)).await;
    })
    .await;
}

/// Two relays that tell nodes where they are.
async fn open_pair() -> Option<(Rig, Rig)> {
    let (mut a, mut b) = pair().await?;
    open(&mut a).await;
    open(&mut b).await;
    Some((a, b))
}

async fn open(rig: &mut Rig) {
    let url = rig.url().to_owned();
    rig.restart_with(|config| config.base_url = url).await;
}

#[tokio::test]
async fn a_node_goes_to_the_other_relay_when_its_own_is_gone() {
    limited(async {
        let Some((mut a, mut b)) = open_pair().await else {
            return;
        };
        let network = a.network("home").await;
        let invite = a.invite(&network, 2).await;
        let one = a.join(&invite, "dev-1").await.unwrap();
        let two = a.join(&invite, "dev-2").await.unwrap();
        let (url_a, url_b) = (a.url().to_owned(), b.url().to_owned());
        let knows = |url: &str| {
            let url = url.to_owned();
            move |view: &NetworkView| {
                let [place] = &view.relays[..] else {
                    return false;
                };
                view.connected && place.url == url
            }
        };
        let is_at = |url: &str| {
            let url = url.to_owned();
            move |view: &NetworkView| view.connected && view.relay == url
        };
        let mut one = one.up();
        let up = &mut two.up();
        one.until("told of the other", knows(&url_b)).await;
        up.until("told of the other", knows(&url_b)).await;
        assert_eq!(one.now().relay, url_a);
        a.stop().await;
        one.until("at the other", is_at(&url_b)).await;
        up.until_sees("dev-1", Some(true)).await;
        open(&mut a).await;
        b.stop().await;
        one.until("where it joined", is_at(&url_a)).await;
        up.until_sees("dev-1", Some(true)).await;
        one.until("alone", |view| view.connected && view.relays.is_empty())
            .await;
        open(&mut b).await;
        one.until("told again", knows(&url_b)).await;
    })
    .await;
}
