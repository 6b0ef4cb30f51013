//! The routes of the status page, which are for browsers.

use serde_json::{Value, json};

use super::{PROVIDER, redirects};
use crate::relay::api::login;
use crate::relay::api::openapi::Teller;
use crate::relay::api::route::{Routes, delete, get, post};
use crate::relay::page as status;

/// The page, what it loads, and how one signs in.
pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .route("/", [get(status::index, "The status page").also(html)])
        .route(
            "/page/style.css",
            [get(status::style, "How it looks").also(|it| file(it, "text/css"))],
        )
        .route(
            "/page/page.js",
            [get(status::script, "What it does").also(|it| file(it, "text/javascript"))],
        )
        .route(
            "/page/icon.svg",
            [get(status::icon, "Its icon").also(|it| file(it, "image/svg+xml"))],
        )
        .route(
            "/page/events",
            [get(
                status::events,
                "All that the viewer may see, when it changes",
            )
            .refuses(&["page_busy"])],
        )
        .route(
            "/page/login",
            [get(
                login::start_page,
                "Sends a browser to the provider, for the page",
            )
            .refuses(PROVIDER)
            .also(redirects)],
        )
        .route(
            "/page/session",
            [
                get(status::session::show, "Who looks at the page"),
                post(status::session::open, "Signs a browser in")
                    .refuses(&["unauthorized", "forbidden", "rate_limited"])
                    .also(no_content),
                delete(status::session::close, "Signs a browser out")
                    .refuses(&["unauthorized", "forbidden"])
                    .also(no_content),
            ],
        )
}

pub(super) fn html(it: &mut Teller) {
    file(it, "text/html");
}

fn file(it: &mut Teller, kind: &str) {
    it.answer(200, Some(kind), &json!({ "type": "string" }));
}

fn no_content(it: &mut Teller) {
    it.answer(204, None, &Value::Null);
    it.answer_headers(204, &[("Set-Cookie", "the browser's")]);
}
