//! `GET /metrics`: numbers for monitoring, in the text format of Prometheus.
//!
//! They count; no name of a network or node is among them, so the route needs
//! no token.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use derp::router::Counters;

use crate::relay::app::App;

/// See the module.
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Response {
    let (census, derp) = (app.hub.census(), app.derp.counters());
    let here = app.derp.census();
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
            here.connections as u64,
        ),
        (
            "derp_preferred",
            "DERP clients that call this relay their home.",
            derp.preferred,
        ),
        (
            "derp_links",
            "Links to other relays of the region.",
            here.links as u64,
        ),
        (
            "derp_away",
            "Clients of other relays of the region.",
            here.away as u64,
        ),
    ];
    let counters = counters(&derp);
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
    ([(header::CONTENT_TYPE, content_type)], text).into_response()
}

/// What has happened since the start: name, help, value.
const fn counters(derp: &Counters) -> [(&'static str, &'static str, u64); 10] {
    [
        ("derp_packets_total", "Packets forwarded.", derp.packets),
        ("derp_bytes_total", "Bytes in them.", derp.bytes),
        ("derp_not_here_total", "Packets for nobody.", derp.not_here),
        ("derp_held_up_total", "Senders held up.", derp.held_up),
        ("derp_dropped_total", "Packets dropped.", derp.dropped),
        (
            "derp_forwarded_total",
            "Packets given to another relay of the region.",
            derp.forwarded,
        ),
        (
            "derp_throttled_total",
            "Times a client was read later because it sent too much.",
            derp.throttled,
        ),
        (
            "derp_control_dropped_total",
            "Control frames for clients that do not read.",
            derp.control_dropped,
        ),
        (
            "derp_connected_total",
            "DERP connections made.",
            derp.connected,
        ),
        (
            "derp_disconnected_total",
            "DERP connections ended.",
            derp.disconnected,
        ),
    ]
}
