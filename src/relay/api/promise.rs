//! Every answer that a test gets, held against the document: the status, the content type and the
//! code of a refusal have to be among those that it promises.

use axum::extract::{MatchedPath, Request};
use axum::http::{Method, StatusCode, header};
use axum::response::Response;
use serde_json::Value;

use super::document;
use super::openapi::plain;
use crate::relay::error::Code;

/// What was asked for.
pub(super) struct Asked {
    method: Method,
    path: Option<String>,
}

impl Asked {
    pub(super) fn of(request: &Request) -> Self {
        let path = request.extensions().get::<MatchedPath>();
        Self {
            method: request.method().clone(),
            path: path.map(|path| plain(path.as_str())),
        }
    }

    /// Fails the test if nobody has promised this answer.
    pub(super) fn check(&self, answer: &Response) {
        // What there is not, and what cannot be done to what there is, is not in the document.
        let Some(path) = &self.path else {
            assert_eq!(answer.status(), StatusCode::NOT_FOUND);
            return;
        };
        if answer.status() == StatusCode::METHOD_NOT_ALLOWED {
            return;
        }
        let method = match self.method {
            Method::HEAD => "get".to_owned(),
            ref method => method.as_str().to_lowercase(),
        };
        let status = answer.status().as_u16();
        let at = format!("{method} {path}: {status}");
        let operation = &document()["paths"][path][&method];
        let promised = &operation["responses"][status.to_string()];
        assert!(promised.is_object(), "{at} is promised nowhere");
        let kind = answer.headers().get(header::CONTENT_TYPE);
        let kind = kind.map(|kind| kind.to_str().expect("a content type is text"));
        let kind = kind.map(|kind| kind.split(';').next().unwrap_or_default());
        let content = promised["content"].as_object();
        match (kind, content) {
            (None, None) => {}
            (Some(kind), Some(content)) if content.contains_key(kind) => {}
            _ => panic!("{at} is of type {kind:?}, promised was {content:?}"),
        }
        let code = answer.extensions().get::<Code>();
        if answer.status().is_client_error() || answer.status().is_server_error() {
            let code = code.unwrap_or_else(|| panic!("{at} has no code")).0;
            let codes = promised.pointer("/content/application~1problem+json/schema/allOf/1");
            let codes = codes.map(|it| &it["properties"]["code"]["enum"]);
            let codes = codes.and_then(Value::as_array).expect("a list of codes");
            assert!(
                codes.iter().any(|it| it == code),
                "{at} {code} is promised nowhere"
            );
        }
    }
}
