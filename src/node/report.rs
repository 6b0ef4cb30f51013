//! Tells the relay which way this node reaches the others, for the relay's page; of its sessions
//! only if the settings say so. A report is made every few seconds and sent when it is another.

use std::sync::{Arc, Weak};
use std::time::Duration;

use mesh::NodeKey;
use mesh::io::{Mesh, Path};
use tokio::sync::watch;

use super::Host;
use crate::config::Tells;
use crate::coord::report::{MAX_NAME, MAX_PATHS, MAX_SESSIONS, Report, Session, Way};
use crate::uplink::NetworkView;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(3);

/// A round trip that changes by less than this part of it, or by less than these microseconds, is
/// the same: it would else be told at every look.
const SAME: (u32, u32) = (4, 200);

/// Reports for as long as the network is there.
pub(super) async fn keep(
    mesh: Mesh,
    view: watch::Receiver<Arc<NetworkView>>,
    host: Weak<Host>,
    told: watch::Sender<Option<Report>>,
) {
    let mut due = tokio::time::interval(EVERY);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        let Some(host) = host.upgrade() else {
            return;
        };
        if host.config.tells == Tells::Nothing {
            return;
        }
        let peers = view.borrow().clone();
        let peers = peers.peers.values().map(|peer| peer.record.key);
        let report = Report {
            paths: ways(&mesh, peers),
            sessions: (host.config.tells == Tells::Sessions).then(|| sessions(&host)),
        };
        told.send_if_modified(|before| {
            let is_same = before.as_ref().is_some_and(|it| is_same(it, &report));
            if !is_same {
                *before = Some(report);
            }
            !is_same
        });
    }
}

fn ways(mesh: &Mesh, peers: impl Iterator<Item = NodeKey>) -> Vec<Way> {
    let ways = peers.filter_map(|peer| {
        let status = mesh.status(&peer)?;
        let direct = match status.path {
            Path::Direct(_) => true,
            Path::Relayed => false,
            Path::None => return None,
        };
        let rtt = status
            .rtt
            .and_then(|rtt| u32::try_from(rtt.as_micros()).ok());
        Some(Way {
            peer,
            direct,
            rtt_us: rtt,
        })
    });
    ways.take(MAX_PATHS).collect()
}

/// Those that run first, the newest of them first.
fn sessions(host: &Host) -> Vec<Session> {
    let mut found = Vec::new();
    host.sessions.glance(|brief| {
        let name = brief.name.map(ToString::to_string);
        let session = Session {
            id: brief.id.0,
            name: name.filter(|name| name.len() <= MAX_NAME),
            status: brief.status.word().to_owned(),
        };
        found.push((!brief.status.is_running(), brief.created_ms, session));
    });
    found.sort_by_key(|(is_over, created, _)| (*is_over, std::cmp::Reverse(*created)));
    let found = found.into_iter().take(MAX_SESSIONS);
    found.map(|(_, _, session)| session).collect()
}

/// Whether nothing is worth being told.
fn is_same(before: &Report, now: &Report) -> bool {
    let about = |before: &Way, now: &Way| {
        (before.peer, before.direct) == (now.peer, now.direct)
            && match (before.rtt_us, now.rtt_us) {
                (Some(before), Some(now)) => before.abs_diff(now) < (before / SAME.0).max(SAME.1),
                (before, now) => before == now,
            }
    };
    before.sessions == now.sessions
        && before.paths.len() == now.paths.len()
        && before
            .paths
            .iter()
            .zip(&now.paths)
            .all(|(a, b)| about(a, b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_about_the_same_is_not_told_again() {
        let way = |rtt_us, direct| Way {
            peer: NodeKey::from_bytes([1; 32]),
            direct,
            rtt_us,
        };
        let report = |way| Report {
            paths: vec![way],
            sessions: None,
        };
        let before = report(way(Some(10_000), true));
        for (now, is_told) in [
            (report(way(Some(10_000), true)), false),
            (report(way(Some(12_000), true)), false),
            (report(way(Some(13_000), true)), true),
            (report(way(Some(10_000), false)), true),
            (report(way(None, true)), true),
            (Report::default(), true),
        ] {
            assert_eq!(!is_same(&before, &now), is_told, "{now:?}");
        }
        // Between two machines of one room the least is noise.
        assert!(is_same(
            &report(way(Some(100), true)),
            &report(way(Some(290), true))
        ));
    }
}
