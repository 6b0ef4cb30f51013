//! Every route of the relay: who serves it, and what is said of it.

mod browser;

use serde_json::{Value, json};

use super::openapi::Teller;
use super::route::{Routes, delete, get, post, put};
use super::{
    account, describe, grants, groups, invites, join, kv, login, logins, members, metrics,
    networks, nodes, page, ssh,
};
use crate::relay::store::shared::MAX_VALUE;
use crate::relay::{coordinate, derp, visits};
use browser::html;

/// The table.
pub(crate) fn routes() -> Routes {
    let routes = health(Routes::default());
    let routes = doors(people(routes));
    let routes = nodes_of_networks(networks_themselves(routes));
    let routes = grants_for_sessions(groups_of_sessions(routes));
    browser::routes(nodes_only(shared(routes)))
}

fn health(routes: Routes) -> Routes {
    routes
        .route("/healthz", [get(account::healthz, "The process answers")])
        .route(
            "/readyz",
            [get(account::readyz, "The store answers too").refuses(&["not_ready"])],
        )
        .route(
            "/metrics",
            [get(metrics::metrics, "Numbers for Prometheus").also(plain_text)],
        )
        .route(
            "/api/v1/openapi.json",
            [get(describe::openapi, "This document")],
        )
        .route(
            "/join",
            [get(page::join, "What to type, for who was sent an invite")
                .also(|it| it.answer(200, Some("text/html"), &json!({ "type": "string" })))],
        )
}

fn plain_text(it: &mut Teller) {
    it.answer(200, Some("text/plain"), &json!({ "type": "string" }));
}

/// What a provider may come to say.
const PROVIDER: &[&str] = &[
    "rate_limited",
    "no_provider",
    "no_device_flow",
    "no_browser_flow",
    "provider_unreachable",
    "login_invalid",
    "login_denied",
    "not_allowed",
    "login_expired",
    "login_busy",
];

fn people(routes: Routes) -> Routes {
    routes
        .route(
            "/api/v1/auth/config",
            [get(account::config, "How users prove themselves here")],
        )
        .route(
            "/api/v1/auth/validate",
            [get(account::validate, "Whether the token is right")],
        )
        .route("/api/v1/auth/whoami", [get(logins::whoami, "Who one is")])
        .route(
            "/api/v1/auth/logins",
            [
                get(logins::list, "One's logins, or everybody's"),
                post(logins::make, "A login for who has the relay's token").status(&[201]),
                delete(logins::end_all, "Ends all of one's logins"),
            ],
        )
        .route(
            "/api/v1/auth/logins/{id}",
            [
                delete(logins::end, "Ends a login; current is the one that asks")
                    .status(&[204])
                    .refuses(&["not_found"]),
            ],
        )
        .route(
            "/api/v1/auth/token",
            [post(login::token, "The login that a browser has come back with").refuses(PROVIDER)],
        )
        .route(
            "/api/v1/device/authorize",
            [post(login::device, "Begins a login by a code (RFC 8628)").refuses(PROVIDER)],
        )
        .route(
            "/api/v1/device/poll",
            [post(login::poll, "Whether the code was typed")
                .status(&[200, 202])
                .refuses(PROVIDER)],
        )
        .route(
            "/auth/login",
            [get(login::start, "Sends a browser to the provider")
                .refuses(PROVIDER)
                .also(redirects)],
        )
        .route(
            "/auth/callback",
            [
                get(login::callback, "Where the provider sends a browser back")
                    .refuses(PROVIDER)
                    .also(|it| {
                        redirects(it);
                        html(it);
                    }),
            ],
        )
}

fn doors(routes: Routes) -> Routes {
    routes
        .route(
            "/api/v1/ssh-keys",
            [
                get(ssh::list, "The keys by which one comes in over SSH"),
                post(ssh::add, "Lets a key in")
                    .status(&[200, 201])
                    .refuses(&["too_many", "key_taken"]),
                delete(ssh::remove, "Lets a key in no more")
                    .status(&[204])
                    .refuses(&["not_found"]),
            ],
        )
        .route(
            "/api/v1/ssh-passwords",
            [
                post(ssh::password, "A password for one login to a node over SSH").refuses(&[
                    "network_invalid",
                    "network_unknown",
                    "node_unknown",
                    "too_many",
                ]),
            ],
        )
}

fn redirects(it: &mut Teller) {
    it.answer(303, None, &Value::Null);
    it.answer_headers(
        303,
        &[
            ("Location", "where to go on"),
            ("Set-Cookie", "ties it to the browser"),
        ],
    );
}

fn networks_themselves(routes: Routes) -> Routes {
    routes
        .route(
            "/api/v1/networks",
            [
                get(
                    networks::list,
                    "One's networks; all of them for the administrator",
                ),
                post(networks::create, "Creates a network that the caller owns").refuses(&[
                    "network_invalid",
                    "network_taken",
                    "too_many",
                ]),
            ],
        )
        .route(
            "/api/v1/networks/{id}",
            [delete(
                networks::remove,
                "Deletes a network, with all that is in it",
            )
            .refuses(&["network_invalid", "network_unknown"])],
        )
        .route(
            "/api/v1/networks/{id}/rotate",
            [
                post(networks::rotate, "Hands over to a new issuer").refuses(&[
                    "network_invalid",
                    "network_unknown",
                    "too_many",
                ]),
            ],
        )
        .route(
            "/api/v1/networks/{id}/members",
            [
                get(members::list, "Who belongs to a network")
                    .refuses(&["network_invalid", "network_unknown"]),
                put(members::set, "Gives somebody another role").refuses(MEMBER),
                delete(members::remove, "Takes somebody out, with their nodes").refuses(MEMBER),
            ],
        )
}

fn nodes_of_networks(routes: Routes) -> Routes {
    routes
        .route(
            "/api/v1/invites",
            [
                get(invites::list, "The invites that can be redeemed"),
                post(invites::create, "Makes an invite").refuses(&[
                    "network_invalid",
                    "network_unknown",
                    "too_many",
                ]),
            ],
        )
        .route(
            "/api/v1/invites/{id}",
            [delete(invites::withdraw, "Withdraws an invite")
                .status(&[204])
                .refuses(&["not_found"])],
        )
        .route(
            "/api/v1/join",
            [post(join::join, "A node redeems an invite").refuses(&[
                "rate_limited",
                "forbidden",
                "invite_malformed",
                "invite_invalid",
                "invite_used_up",
                "invite_expired",
                "name_invalid",
                "name_taken",
                "name_bound",
                "already_joined",
                "network_full",
                "revoked",
                "clock_skew",
                "proof_invalid",
            ])],
        )
        .route(
            "/api/v1/nodes",
            [get(nodes::list, "The nodes of a network")],
        )
        .route(
            "/api/v1/nodes/{name}",
            [delete(nodes::revoke, "Puts a node out for good").refuses(&["node_unknown"])],
        )
}

const MEMBER: &[&str] = &[
    "network_invalid",
    "network_unknown",
    "not_found",
    "last_owner",
];

const GROUP: &[&str] = &["network_invalid", "network_unknown", "group_unknown"];

fn groups_of_sessions(routes: Routes) -> Routes {
    routes
        .route(
            "/api/v1/groups",
            [
                get(groups::list, "The groups of a network"),
                post(groups::create, "Creates a group").refuses(&[
                    "network_invalid",
                    "network_unknown",
                    "group_unknown",
                    "group_taken",
                    "too_many",
                ]),
            ],
        )
        .route(
            "/api/v1/groups/{name}",
            [
                get(groups::get, "A group").refuses(GROUP),
                delete(groups::delete, "Deletes a group").refuses(GROUP),
            ],
        )
        .route(
            "/api/v1/groups/{name}/members",
            [
                post(groups::enter, "Puts a session into a group").refuses(&[
                    "network_invalid",
                    "network_unknown",
                    "node_unknown",
                    "group_unknown",
                    "too_many",
                ]),
                delete(groups::leave, "Takes a session out of a group").refuses(&[
                    "node_unknown",
                    "group_unknown",
                    "not_in_group",
                ]),
            ],
        )
        .route(
            "/api/v1/groups/{name}/policy",
            [put(groups::set_policy, "Changes the rules of a group").refuses(GROUP)],
        )
}

fn grants_for_sessions(routes: Routes) -> Routes {
    routes
        .route(
            "/api/v1/access-grants",
            [
                get(
                    grants::list,
                    "The grants that the caller gave or got, the newest first",
                ),
                post(
                    grants::create,
                    "Lets somebody look at a session for a while",
                )
                .refuses(&[
                    "network_invalid",
                    "network_unknown",
                    "node_unknown",
                    "too_many",
                ]),
            ],
        )
        .route(
            "/api/v1/access-grants/{id}",
            [
                get(grants::get, "A grant").refuses(&["grant_unknown"]),
                delete(grants::revoke, "Revokes a grant at once").refuses(&["grant_unknown"]),
            ],
        )
        .route(
            "/api/v1/access/cache/events",
            [
                get(grants::events, "Grants as they are revoked").also(|it| {
                    let schema = json!({ "type": "string", "pattern": "^[0-9]+$" });
                    it.header("Last-Event-ID", "goes on after this one", &schema);
                }),
            ],
        )
}

fn shared(routes: Routes) -> Routes {
    routes
        .route(
            "/api/v1/kv/{space}",
            [get(
                kv::list,
                "The values that a network shares, or what changed",
            )
            .refuses(&["namespace_invalid", "namespace_reserved"])],
        )
        .route(
            "/api/v1/kv/{space}/{*key}",
            [
                get(kv::read, "A shared value")
                    .limit(MAX_VALUE)
                    .refuses(VALUE)
                    .also(|it| {
                        let bytes = Some("application/octet-stream");
                        it.answer(200, bytes, &json!({ "type": "string", "format": "binary" }));
                        it.answer_headers(
                            200,
                            &[
                                ("ETag", "the revision"),
                                ("X-Changed-By", "who wrote it"),
                                ("X-Changed-At", "when, RFC 3339"),
                            ],
                        );
                    }),
                put(kv::write, "Writes a shared value")
                    .limit(MAX_VALUE)
                    .refuses(WRITES)
                    .also(|it| {
                        conditions(it);
                        let schema = json!({ "type": "string", "examples": ["10m"] });
                        it.header("X-TTL", "how long it lives, such as 90s, 10m", &schema);
                        let bytes = json!({ "type": "string", "format": "binary" });
                        it.body("application/octet-stream", &bytes);
                    }),
                delete(kv::remove, "Deletes a shared value")
                    .limit(MAX_VALUE)
                    .refuses(WRITES)
                    .also(conditions),
            ],
        )
}

const VALUE: &[&str] = &[
    "namespace_invalid",
    "namespace_reserved",
    "key_invalid",
    "key_not_found",
];

const WRITES: &[&str] = &[
    "namespace_invalid",
    "namespace_reserved",
    "key_invalid",
    "key_not_found",
    "ttl_invalid",
    "conflict",
    "kv_full",
];

fn conditions(it: &mut Teller) {
    let schema = json!({ "type": "string", "pattern": "^(\"[0-9]+\"|[0-9]+)$" });
    it.header("If-Match", "only if this is the revision", &schema);
    it.header(
        "If-None-Match",
        "only if there is none",
        &json!({ "const": "*" }),
    );
}

fn nodes_only(routes: Routes) -> Routes {
    routes
        .route(
            "/api/v1/coordinate",
            [get(
                coordinate::coordinate,
                "A node's connection: who is there, and what changes",
            )
            .refuses(&["forbidden", "rate_limited", "not_ready"])],
        )
        .route(
            "/api/v1/back/{ticket}",
            [get(
                visits::back,
                "A node comes for somebody who is there over SSH",
            )
            .refuses(&[
                "forbidden",
                "rate_limited",
                "not_found",
                "relay_unreachable",
            ])],
        )
        .route(
            "/derp",
            [get(
                derp::upgrade,
                "Sealed packets of nodes, by DERP or over WebSocket",
            )
            .refuses(&["upgrade_required"])
            .also(|it| it.answer(101, None, &Value::Null))],
        )
        .route(
            "/derp/probe",
            [get(derp::probe, "How far away the relay is").also(nothing)],
        )
        .route(
            "/derp/latency-check",
            [get(derp::probe, "The same, as others call it").also(nothing)],
        )
}

fn nothing(it: &mut Teller) {
    it.answer(200, None, &Value::Null);
}
