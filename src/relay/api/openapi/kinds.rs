//! What each kind of argument and result of a handler says of itself.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::response::sse::Sse;
use schemars::JsonSchema;
use serde_json::{Value, json};

use super::{Described, Gives, Takes, Teller};
use crate::relay::api::body::{Body, InNetwork, Path, Query, Upgrade};
use crate::relay::auth::{Person, Remote, User};
use crate::relay::error::ApiError;
use crate::relay::page::session::Viewer;
use crate::relay::server::Place;
use crate::relay::signed::{Sharer, Visitor};

impl Takes for Remote {
    fn take(_: &mut Teller) {}
}

impl Takes for Place {
    fn take(_: &mut Teller) {}
}

impl Takes for HeaderMap {
    fn take(_: &mut Teller) {}
}

impl Takes for Request {
    fn take(_: &mut Teller) {}
}

impl<S> Takes for State<S> {
    fn take(_: &mut Teller) {}
}

impl Takes for User {
    fn take(teller: &mut Teller) {
        teller.proof("token");
        teller.refuse(&["unauthorized", "forbidden", "rate_limited"]);
    }
}

impl Takes for Person {
    fn take(teller: &mut Teller) {
        User::take(teller);
    }
}

impl Takes for Viewer {
    fn take(teller: &mut Teller) {
        teller.proof("page");
        teller.refuse(&["unauthorized", "forbidden", "rate_limited"]);
    }
}

impl Takes for Visitor {
    fn take(teller: &mut Teller) {
        User::take(teller);
        teller.proof("node");
        teller.refuse(&["revoked"]);
    }
}

impl Takes for Sharer {
    fn take(teller: &mut Teller) {
        Visitor::take(teller);
        let what = "in which network; a node's own, if it is left out";
        let schema = network_schema();
        teller.parameter("query", "network_id", false, what, &schema);
        teller.refuse(&[
            "bad_request",
            "network_invalid",
            "network_unknown",
            "body_too_large",
        ]);
    }
}

impl<T: Takes> Takes for Result<T, ApiError> {
    fn take(teller: &mut Teller) {
        T::take(teller);
    }
}

impl Takes for InNetwork {
    fn take(teller: &mut Teller) {
        let schema = network_schema();
        teller.parameter("query", "network_id", true, "in which network", &schema);
        teller.refuse(&["bad_request", "network_invalid", "network_unknown"]);
    }
}

impl<T: JsonSchema> Takes for Query<T> {
    fn take(teller: &mut Teller) {
        teller.query::<T>();
        teller.refuse(&["bad_request"]);
    }
}

impl<T> Takes for Path<T> {
    fn take(teller: &mut Teller) {
        let path = teller.told.path;
        let parts = path.split('/').filter_map(|part| {
            let name = part.strip_prefix('{')?.strip_suffix('}')?;
            Some(name.trim_start_matches('*'))
        });
        for name in parts {
            let schema = json!({ "type": "string", "minLength": 1 });
            teller.parameter("path", name, true, "", &schema);
        }
        teller.refuse(&["bad_request"]);
    }
}

impl<T: JsonSchema> Takes for Body<T> {
    fn take(teller: &mut Teller) {
        let schema = teller.sent.subschema_for::<T>().to_value();
        teller.body("application/json", &schema);
        // What is signed is signed with its body.
        teller.refuse(&[
            "bad_request",
            "body_too_large",
            "media_type",
            "unauthorized",
        ]);
    }
}

impl Takes for Upgrade {
    fn take(teller: &mut Teller) {
        teller.told.statuses = &[101];
        teller.answer(101, None, &Value::Null);
        teller.refuse(&["upgrade_required"]);
    }
}

impl Gives for Response {
    fn give(_: &mut Teller) {}
}

impl Gives for &'static str {
    fn give(teller: &mut Teller) {
        let schema = json!({ "type": "string" });
        teller.answer(200, Some("text/plain"), &schema);
    }
}

impl Gives for StatusCode {
    fn give(teller: &mut Teller) {
        for status in teller.statuses() {
            teller.answer(*status, None, &Value::Null);
        }
    }
}

impl<T: JsonSchema> Gives for Json<T> {
    fn give(teller: &mut Teller) {
        let schema = teller.given.subschema_for::<T>().to_value();
        for status in teller.statuses() {
            teller.answer(*status, Some("application/json"), &schema);
        }
    }
}

impl<T: JsonSchema> Gives for (StatusCode, Json<T>) {
    fn give(teller: &mut Teller) {
        Json::<T>::give(teller);
    }
}

impl<S> Gives for Sse<S> {
    fn give(teller: &mut Teller) {
        let schema = json!({ "type": "string" });
        teller.answer(200, Some("text/event-stream"), &schema);
    }
}

impl<T: Gives> Gives for Result<T, ApiError> {
    fn give(teller: &mut Teller) {
        T::give(teller);
    }
}

/// The shape of a network's name.
fn network_schema() -> Value {
    json!({
        "type": "string",
        "pattern": "^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$",
        "examples": ["home"],
    })
}

macro_rules! described {
    ($($taken:ident)*) => {
        impl<F, R, Answer, $($taken),*> Described<(Answer, $($taken,)*)> for F
        where
            F: Fn($($taken),*) -> R,
            R: Future<Output = Answer>,
            Answer: Gives,
            $($taken: Takes,)*
        {
            fn describe(teller: &mut Teller) {
                $($taken::take(teller);)*
                Answer::give(teller);
            }
        }
    };
}

described!();
described!(A);
described!(A B);
described!(A B C);
described!(A B C D);
described!(A B C D E);
described!(A B C D E G);
