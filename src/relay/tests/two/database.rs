//! The database that two relays share cannot be read, or is away.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use sqlx::{Connection as _, Executor as _, PgConnection};

use super::packets::{packets, pass, until_linked};
use crate::relay::store::Server;
use crate::relay::tests::hostile::derp;
use crate::relay::tests::rig::{Rig, code, limited, node_name};
use crate::uplink::NetworkView;
use crate::uplink::http::Http;

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
