//! The routes, one file per noun.

mod account;
mod body;
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
mod page;
mod ssh;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, delete, get, post, put};
use futures_util::StreamExt as _;

pub(crate) use body::network_of;

use super::app::App;
use super::error::ApiError;
use super::{auth, coordinate, derp, visits};

/// The longest request body, bytes. The largest request is a join, below 1 KiB.
const MAX_BODY: usize = 64 * 1024;

/// How long a request may take from its head to its answer, a slowly sent body
/// included.
const REQUEST_LIMIT: Duration = Duration::from_secs(15);

/// Routes, and their paths for the test that goes through all of them.
#[derive(Default)]
pub(crate) struct Routes {
    router: Router<Arc<App>>,
    #[cfg(test)]
    pub(crate) paths: Vec<&'static str>,
}

impl Routes {
    /// Adds what is answered at `path`.
    fn route(mut self, path: &'static str, methods: MethodRouter<Arc<App>>) -> Self {
        self.router = self.router.route(path, methods);
        #[cfg(test)]
        self.paths.push(path);
        self
    }
}

/// Everything the relay answers over HTTP.
pub(crate) fn router(app: Arc<App>) -> Router {
    routes()
        .router
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), guard))
        .with_state(app)
}

/// The table of routes.
pub(crate) fn routes() -> Routes {
    Routes::default()
        .route("/healthz", get(account::healthz))
        .route("/readyz", get(account::readyz))
        .route("/metrics", get(metrics::metrics))
        .route("/api/v1/auth/config", get(account::config))
        .route("/api/v1/auth/validate", get(account::validate))
        .route("/api/v1/auth/whoami", get(logins::whoami))
        .route(
            "/api/v1/auth/logins",
            get(logins::list).post(logins::make).delete(logins::end_all),
        )
        .route("/api/v1/auth/logins/{id}", delete(logins::end))
        .route("/api/v1/auth/token", post(login::token))
        .route("/api/v1/device/authorize", post(login::device))
        .route("/api/v1/device/poll", post(login::poll))
        .route("/auth/login", get(login::start))
        .route("/auth/callback", get(login::callback))
        .route(
            "/api/v1/networks",
            get(networks::list).post(networks::create),
        )
        .route("/api/v1/invites", get(invites::list).post(invites::create))
        .route("/api/v1/invites/{id}", delete(invites::withdraw))
        .route("/api/v1/join", post(join::join))
        .route("/api/v1/nodes", get(nodes::list))
        .route("/api/v1/nodes/{name}", delete(nodes::revoke))
        .route("/api/v1/networks/{id}", delete(networks::remove))
        .route("/api/v1/networks/{id}/rotate", post(networks::rotate))
        .route(
            "/api/v1/networks/{id}/members",
            get(members::list).put(members::set).delete(members::remove),
        )
        .route("/api/v1/groups", get(groups::list).post(groups::create))
        .route(
            "/api/v1/groups/{name}",
            get(groups::get).delete(groups::delete),
        )
        .route(
            "/api/v1/groups/{name}/members",
            post(groups::enter).delete(groups::leave),
        )
        .route("/api/v1/groups/{name}/policy", put(groups::set_policy))
        .route(
            "/api/v1/access-grants",
            get(grants::list).post(grants::create),
        )
        .route(
            "/api/v1/access-grants/{id}",
            get(grants::get).delete(grants::revoke),
        )
        .route("/api/v1/access/cache/events", get(grants::events))
        .route("/api/v1/coordinate", get(coordinate::coordinate))
        .route(
            "/api/v1/ssh-keys",
            get(ssh::list).post(ssh::add).delete(ssh::remove),
        )
        .route("/api/v1/ssh-passwords", post(ssh::password))
        .route("/api/v1/back/{ticket}", get(visits::back))
        .route("/join", get(page::join))
        .route("/api/v1/kv/{space}", kv::of_space())
        .route("/api/v1/kv/{space}/{*key}", kv::of_key())
        .route("/derp", get(derp::upgrade))
        .route("/derp/probe", get(derp::probe))
        .route("/derp/latency-check", get(derp::probe))
}

/// A deadline, the end with the login by which it was asked, and headers that every answer has.
async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let token = auth::bearer(request.headers()).map(str::to_owned);
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
    answer
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
