//! What a relay with a file does a relay with a PostgreSQL database does too, and what only that
//! cannot store.

use reqwest::Method;

use super::rig::{Rig, TOKEN, code, limited, on_postgres};
use crate::relay::store::Server;
use crate::uplink::http::Http;

macro_rules! again {
    ($($module:ident::$name:ident;)*) => {
        $(
            #[test]
            fn $name() {
                on_postgres(super::$module::$name);
            }
        )*
    };
}

again! {
    live::two_nodes_see_each_other_join_leave_and_come_back;
    live::s21_after_a_restart_of_the_relay_nodes_come_back_and_go_on;
    live::b11_u24_s26_a_revoked_node_is_cut_withdrawn_and_stays_out;
    enrol::a_node_joins_and_may_join_again;
    enrol::s03_s04_invites_that_are_not_good;
    enrol::u12_s04_of_64_that_race_for_one_use_one_wins;
    enrol::b07_s23_networks_are_made_once;
    enrol::whose_a_node_is;
    kv::what_one_node_stores_another_reads;
    kv::who_follows_hears_of_changes;
    kv::b04_u11_s05_s25_a_request_that_was_not_signed_so_is_refused;
    rotate::s36_nodes_follow_the_issuer_and_lose_nobody;
    rotate::a_node_that_was_away_learns_that_its_network_is_no_more;
    churn::s30_many_who_come_and_go_leave_nothing_behind;
    stolen::t3_u12_of_64_that_race_with_one_enrolment_one_is_in;
    stolen::t3_u11_a_signed_request_is_good_once_and_only_as_it_was;
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
