//! `GET /metrics`: numbers for monitoring, in the text format of Prometheus.
//!
//! They count; no name of a network or node is among them, so the route needs
//! no token.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use crate::relay::app::App;

/// See the module.
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    let (census, derp) = (app.hub.census(), app.derp.counters());
    let gauges = [
        ("networks", "Networks.", census.networks),
        ("nodes", "Nodes that are members.", census.nodes),
        (
            "nodes_connected",
            "Of these, connected now.",
            census.connected,
        ),
        (
            "derp_clients",
            "DERP connections now.",
            app.derp.clients() as u64,
        ),
    ];
    let counters = [
        ("derp_packets_total", "Packets forwarded.", derp.packets),
        ("derp_bytes_total", "Bytes in them.", derp.bytes),
        ("derp_not_here_total", "Packets for nobody.", derp.not_here),
        ("derp_held_up_total", "Senders held up.", derp.held_up),
        ("derp_dropped_total", "Packets dropped.", derp.dropped),
    ];
    let mut text = String::new();
    let gauges = gauges.into_iter().map(|line| ("gauge", line));
    let counters = counters.into_iter().map(|line| ("counter", line));
    for (kind, (name, help, value)) in gauges.chain(counters) {
        let name = format!("codewire_relay_{name}");
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}"
        );
    }
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], text)
}
