//! The routes, one file per noun; [`table`] has all of them, and [`openapi`] says what they are.

mod account;
mod body;
mod describe;
mod grants;
mod groups;
mod invites;
mod join;
pub(crate) mod kv;
mod login;
mod logins;
mod members;
mod metrics;
mod networks;
mod nodes;
mod openapi;
mod page;
#[cfg(test)]
mod promise;
mod route;
mod ssh;
mod table;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use serde_json::Value;

pub(crate) use body::{Body as JsonBody, Path, Upgrade, network_of, upgrade_required};

use super::app::App;
use super::auth;
use super::error::ApiError;
use super::page::session;
use table::routes;

/// The longest request body, bytes. The largest request is a join, below 1 KiB.
const MAX_BODY: usize = 64 * 1024;

/// How long a request may take from its head to its answer, a slowly sent body
/// included.
const REQUEST_LIMIT: Duration = Duration::from_secs(15);

/// Everything the relay answers over HTTP.
pub(crate) fn router(app: Arc<App>) -> Router {
    routes()
        .router()
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), guard))
        .with_state(app)
}

/// The description of all of it (OpenAPI 3.1).
pub(crate) fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(|| routes().document())
}

/// A deadline, the end with the login by which it was asked, and headers that every answer has.
async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let token = token_of(&request, &app).map(str::to_owned);
    #[cfg(test)]
    let asked = promise::Asked::of(&request);
    let over = auth::until_over(token, app);
    let mut over = Box::pin(over);
    let answer = tokio::select! {
        answer = tokio::time::timeout(REQUEST_LIMIT, next.run(request)) => answer,
        () = over.as_mut() => Ok(ApiError::unauthorized().into_response()),
    };
    let answer = answer.unwrap_or_else(|_| {
        let status = StatusCode::REQUEST_TIMEOUT;
        ApiError::new(status, "timeout", "the request took too long").into_response()
    });
    let mut answer = if is_stream(&answer) {
        answer.map(|body| Body::from_stream(body.into_data_stream().take_until(over)))
    } else {
        answer
    };
    let headers = answer.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    #[cfg(test)]
    asked.check(&answer);
    answer
}

/// By which login it is asked: a program's, or that of a browser at the status page.
fn token_of<'a>(request: &'a Request, app: &App) -> Option<&'a str> {
    if request.uri().path().starts_with("/page/") {
        return session::token_of(request.headers(), app);
    }
    auth::bearer(request.headers())
}

/// Whether an answer has no end of its own.
fn is_stream(answer: &Response) -> bool {
    let kind = answer.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

async fn not_found() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "not_found", "there is nothing here")
}

async fn wrong_method() -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "this is not what can be done here",
    )
}
