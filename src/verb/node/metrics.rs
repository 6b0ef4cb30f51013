//! `cw node metrics`: numbers of the node for monitoring, in the text format of Prometheus.
//!
//! They come by the node's own socket, so whoever may ask the node may have them, and nobody else;
//! the names of nodes are among them. To have them scraped, let a timer write them into a file for
//! the node exporter: `cw node metrics > codewire.prom`.

use std::fmt::Write as _;

use clap::Args;
use mesh::io::{Mesh, Path};
use serde::{Deserialize, Serialize};

use super::status::nat_word;
use crate::cli::Cli;
use crate::error::Result;
use crate::node::{Context, Network};
use crate::uplink::NetworkView;
use crate::verb::{Call, Reply};

/// Print numbers of the node and of its ways, for monitoring (Prometheus' text format).
#[derive(Args, Clone, Debug, Default, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Metrics {}

/// The answer.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Numbers {
    /// In the text format of Prometheus, version 0.0.4.
    pub text: String,
}

impl Metrics {
    pub(crate) async fn run(self, cli: &Cli) -> Result<()> {
        match cli.ask(Call::NodeMetrics(self)).await? {
            Reply::NodeNumbers(numbers) => cli.print(&numbers.text),
            other => Err(other.unexpected()),
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "as the other handlers")]
    pub(crate) fn handle(self, context: &Context<'_>) -> Result<Reply> {
        let host = &context.host;
        let sessions = host.sessions.list();
        let running = sessions
            .iter()
            .filter(|info| info.status.is_running())
            .count();
        let mut page = Page::default();
        page.family("sessions", "gauge", "Sessions by state.");
        page.line("sessions", &[("state", "running")], running as f64);
        let finished = sessions.len() - running;
        page.line("sessions", &[("state", "finished")], finished as f64);
        let waiting = host.post.waiting();
        page.one(
            "letters_waiting",
            "gauge",
            "Messages kept for nodes that are away.",
            waiting as f64,
        );
        // A node that is in no network has no ways.
        if let Ok(network) = host.network() {
            ways(&mut page, &network);
        }
        Ok(Reply::NodeNumbers(Numbers { text: page.text }))
    }
}

fn ways(page: &mut Page, network: &Network) {
    let (mesh, view) = (&network.mesh, network.view());
    let connected = flag(view.connected);
    page.one(
        "relay_connected",
        "gauge",
        "Whether the relay says who there is.",
        connected,
    );
    let forwards = flag(mesh.relay_connected());
    page.one(
        "relay_forwards",
        "gauge",
        "Whether the relay forwards packets.",
        forwards,
    );
    if let Some(rtt) = mesh.relay_rtt() {
        let rtt = rtt.as_secs_f64();
        page.one(
            "relay_rtt_seconds",
            "gauge",
            "The round trip to the relay.",
            rtt,
        );
    }
    page.family(
        "nat",
        "gauge",
        "The kind of NAT in front of the node: 1 for what it is.",
    );
    page.line("nat", &[("kind", nat_word(&mesh.nat()))], 1.0);
    let passed = mesh.traffic();
    for (name, help, value) in [
        (
            "udp_sent_packets_total",
            "Datagrams sent by UDP.",
            passed.udp_sent,
        ),
        (
            "udp_sent_bytes_total",
            "Bytes in them.",
            passed.udp_sent_bytes,
        ),
        (
            "udp_received_bytes_total",
            "Bytes that came by UDP.",
            passed.udp_received_bytes,
        ),
        (
            "relay_sent_packets_total",
            "Packets given to the relay.",
            passed.relay_sent,
        ),
        (
            "relay_sent_bytes_total",
            "Bytes in them.",
            passed.relay_sent_bytes,
        ),
        (
            "relay_received_bytes_total",
            "Bytes that came by the relay.",
            passed.relay_received_bytes,
        ),
    ] {
        page.one(name, "counter", help, value as f64);
    }
    peers(page, mesh, &view);
}

/// A family has all its lines together, so each goes through all nodes.
fn peers(page: &mut Page, mesh: &Mesh, view: &NetworkView) {
    let peers = view.peers.iter();
    let peers =
        peers.map(|(name, peer)| (name.as_str(), peer.online, mesh.status(&peer.record.key)));
    let peers: Vec<_> = peers.collect();
    page.family("peer_online", "gauge", "Whether the relay sees the node.");
    for (name, online, _) in &peers {
        page.line("peer_online", &[("peer", name)], flag(*online));
    }
    page.family(
        "peer_path",
        "gauge",
        "The path to the node: 1 for the one in use.",
    );
    for (name, _, status) in &peers {
        let path = match status.map(|status| status.path) {
            Some(Path::Direct(_)) => "direct",
            Some(Path::Relayed) => "relayed",
            Some(Path::None) | None => "none",
        };
        page.line("peer_path", &[("peer", name), ("path", path)], 1.0);
    }
    page.family(
        "peer_rtt_seconds",
        "gauge",
        "The round trip to the node, as last measured.",
    );
    for (name, _, status) in &peers {
        if let Some(rtt) = status.and_then(|status| status.rtt) {
            page.line("peer_rtt_seconds", &[("peer", name)], rtt.as_secs_f64());
        }
    }
    page.family(
        "peer_loss_ratio",
        "gauge",
        "The part of packets lost since the connection was made.",
    );
    for (name, _, status) in &peers {
        if let Some(loss) = status.and_then(|status| status.loss) {
            page.line("peer_loss_ratio", &[("peer", name)], loss);
        }
    }
}

fn flag(set: bool) -> f64 {
    if set { 1.0 } else { 0.0 }
}

/// What is printed.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(
            self.text,
            "# HELP codewire_node_{name} {help}\n# TYPE codewire_node_{name} {kind}"
        );
    }

    /// Values of labels are names of nodes and words of ours: neither has anything to be escaped.
    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<_> = labels.iter().map(|(k, v)| format!("{k}=\"{v}\"")).collect();
        let labels = match labels.is_empty() {
            true => String::new(),
            false => format!("{{{}}}", labels.join(",")),
        };
        let _ = writeln!(self.text, "codewire_node_{name}{labels} {value}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: f64) {
        self.family(name, kind, help);
        self.line(name, &[], value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_as_prometheus_wants_it() {
        let mut page = Page::default();
        page.one("up", "gauge", "Whether.", 1.0);
        page.family("rtt_seconds", "gauge", "How long.");
        page.line(
            "rtt_seconds",
            &[("peer", "dev-2"), ("path", "direct")],
            0.0125,
        );
        let expected = "# HELP codewire_node_up Whether.\n# TYPE codewire_node_up gauge\n\
                        codewire_node_up 1\n# HELP codewire_node_rtt_seconds How long.\n\
                        # TYPE codewire_node_rtt_seconds gauge\n\
                        codewire_node_rtt_seconds{peer=\"dev-2\",path=\"direct\"} 0.0125\n";
        assert_eq!(page.text, expected);
    }
}
