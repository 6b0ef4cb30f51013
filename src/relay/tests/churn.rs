//! Many who come and go.

use super::rig::{Rig, limited, node_name};
use crate::uplink::http::Http;

/// Fewer than `scripts/bench relay` has, which looks at times and memory.
const MANY: usize = 24;

/// How often all of them come and go.
const ROUNDS: usize = 3;

/// A number of `/metrics`.
async fn number(rig: &Rig, name: &str) -> String {
    let http = Http::new(rig.url(), None).unwrap();
    let request = http.request(reqwest::Method::GET, "/metrics");
    let text = String::from_utf8(http.send_raw(request).await.unwrap()).unwrap();
    let line = text.lines().find(|line| {
        let word = line.split(' ').next().unwrap_or_default();
        !line.starts_with('#') && word.ends_with(name)
    });
    let line = line.unwrap_or_else(|| panic!("no {name}: {text}"));
    line.rsplit(' ').next().unwrap().to_owned()
}

#[tokio::test]
pub(super) async fn s30_many_who_come_and_go_leave_nothing_behind() {
    limited(async {
        let rig = Rig::new().await;
        let network = rig.network("home").await;
        let invite = rig.invite(&network, MANY as u32 + 1).await;
        let mut watcher = rig.join(&invite, "watcher").await.unwrap().up();
        let mut nodes = Vec::new();
        for n in 0..MANY {
            nodes.push(rig.join(&invite, &format!("dev-{n}")).await.unwrap());
        }
        let online = |count: usize| {
            move |view: &crate::uplink::NetworkView| {
                view.connected && view.peers.values().filter(|peer| peer.online).count() == count
            }
        };
        for _ in 0..ROUNDS {
            let ups: Vec<_> = nodes.iter().map(super::rig::Node::up).collect();
            watcher.until("all are there", online(MANY)).await;
            drop(ups);
            watcher.until("none is there", online(0)).await;
        }
        assert_eq!(number(&rig, "nodes_connected").await, "1");
        for n in 0..MANY {
            let name = node_name(&format!("dev-{n}"));
            rig.api().revoke(&network, &name).await.unwrap();
        }
        let view = watcher
            .until("all are withdrawn", |view| view.peers.is_empty())
            .await;
        assert!(view.connected);
        assert_eq!(number(&rig, "nodes").await, "1");
    })
    .await;
}
