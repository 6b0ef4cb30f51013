//! A provider of OpenID Connect, and of what is GitHub's own, for tests: a process of its own with
//! real keys, that can be told to lie.
//!
//! It has discovery, keys (RS256 and EdDSA), the flow by a browser with PKCE, and the one by a code
//! (RFC 8628) with its pace. Whoever comes is the user that it was told last. `POST /control` tells
//! it who that is, what to sign wrongly ([`jwt::Lie`]) and what becomes of a code; `GET /seen` says
//! what it was asked. The key in `rsa.pk8` was made for this and is nobody's.

mod jwt;
mod state;

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Form, Query, State};
use axum::http::header::{AUTHORIZATION, LOCATION};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use state::{CLIENT, Provider, SECRET};

type Fields = HashMap<String, String>;
type Shared = Arc<Mutex<Provider>>;

fn main() {
    let address = std::env::args().nth(1);
    let address = address.unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(&address);
        let listener = listener.await.expect("the address is free");
        let address = listener.local_addr().expect("an address");
        let shared: Shared = Arc::new(Mutex::new(Provider::new(format!("http://{address}"))));
        let _ = writeln!(std::io::stderr(), "provider listening on {address}");
        axum::serve(listener, routes(shared))
            .await
            .expect("it serves");
    });
}

fn routes(shared: Shared) -> Router {
    Router::new()
        .route("/.well-known/openid-configuration", get(discovery))
        .route("/jwks", get(jwks))
        .route("/authorize", get(authorize))
        .route("/device", post(device))
        .route("/token", post(token))
        .route("/login/oauth/authorize", get(authorize))
        .route("/login/device/code", post(github_device))
        .route("/login/oauth/access_token", post(github_token))
        .route("/api/v3/user", get(github_user))
        .route("/control", post(control))
        .route("/seen", get(seen))
        .with_state(shared)
}

fn lock(shared: &Shared) -> std::sync::MutexGuard<'_, Provider> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn discovery(State(shared): State<Shared>) -> Json<Value> {
    let mut provider = lock(&shared);
    provider.count("discovery");
    let url = provider.url.clone();
    let mut metadata = json!({
        "issuer": provider.announced(),
        "authorization_endpoint": format!("{url}/authorize"),
        "token_endpoint": format!("{url}/token"),
        "jwks_uri": format!("{url}/jwks"),
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256", "EdDSA"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": true,
    });
    if provider.has_codes() {
        metadata["device_authorization_endpoint"] = json!(format!("{url}/device"));
    }
    Json(metadata)
}

async fn jwks(State(shared): State<Shared>) -> Json<Value> {
    Json(lock(&shared).keys.public())
}

/// Whoever comes agrees, unless told otherwise.
async fn authorize(State(shared): State<Shared>, Query(ask): Query<Fields>) -> Response {
    let mut provider = lock(&shared);
    provider.count("authorize");
    match provider.authorize(&ask) {
        Ok(url) => (StatusCode::SEE_OTHER, [(LOCATION, url)]).into_response(),
        Err(why) => (StatusCode::BAD_REQUEST, why).into_response(),
    }
}

async fn device(
    State(shared): State<Shared>,
    headers: HeaderMap,
    Form(form): Form<Fields>,
) -> Response {
    let mut provider = lock(&shared);
    provider.count("device");
    if !is_client(&headers, &form) {
        return refuse("invalid_client");
    }
    Json(provider.begin()).into_response()
}

async fn token(
    State(shared): State<Shared>,
    headers: HeaderMap,
    Form(form): Form<Fields>,
) -> Response {
    let mut provider = lock(&shared);
    provider.count("token");
    if !is_client(&headers, &form) {
        return refuse("invalid_client");
    }
    match provider.grant(&form) {
        Ok(nonce) => {
            let id_token = provider.id_token(nonce.as_deref());
            Json(json!({
                "access_token": "an access token", "token_type": "Bearer", "expires_in": 300,
                "id_token": id_token,
            }))
            .into_response()
        }
        Err(error) => refuse(error),
    }
}

async fn github_device(State(shared): State<Shared>, Form(form): Form<Fields>) -> Response {
    let mut provider = lock(&shared);
    provider.count("device");
    if form.get("client_id").map(String::as_str) != Some(CLIENT) {
        return refuse("incorrect_client_credentials");
    }
    Json(provider.begin()).into_response()
}

/// GitHub says what is wrong with status 200.
async fn github_token(State(shared): State<Shared>, Form(form): Form<Fields>) -> Json<Value> {
    let mut provider = lock(&shared);
    provider.count("token");
    let by_code = form.contains_key("device_code");
    let mut form = form;
    if !by_code {
        if form.get("client_secret").map(String::as_str) != Some(SECRET) {
            return Json(json!({"error": "incorrect_client_credentials"}));
        }
        form.insert("grant_type".to_owned(), "authorization_code".to_owned());
    }
    Json(match provider.grant(&form) {
        Ok(_) => json!({"access_token": "gho_access", "token_type": "bearer", "scope": ""}),
        Err("invalid_grant") => json!({"error": "bad_verification_code"}),
        Err(error) => json!({"error": error}),
    })
}

async fn github_user(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let provider = lock(&shared);
    let shown = headers.get(AUTHORIZATION).and_then(|it| it.to_str().ok());
    if shown != Some("Bearer gho_access") {
        return (
            StatusCode::UNAUTHORIZED,
            Json(json!({"message": "Bad credentials"})),
        )
            .into_response();
    }
    Json(provider.account()).into_response()
}

async fn control(State(shared): State<Shared>, Json(order): Json<Value>) -> StatusCode {
    match lock(&shared).obey(&order) {
        Ok(()) => StatusCode::NO_CONTENT,
        Err(()) => StatusCode::BAD_REQUEST,
    }
}

async fn seen(State(shared): State<Shared>) -> Json<Value> {
    Json(lock(&shared).seen())
}

fn refuse(error: &str) -> Response {
    let status = if error == "invalid_client" {
        StatusCode::UNAUTHORIZED
    } else {
        StatusCode::BAD_REQUEST
    };
    (status, Json(json!({ "error": error }))).into_response()
}

/// Whether it is the relay, by its secret in the head or in the form.
fn is_client(headers: &HeaderMap, form: &Fields) -> bool {
    // RFC 6749 2.3.1: as in a form.
    let secret = SECRET.replace('/', "%2F");
    let wanted = format!("Basic {}", STANDARD.encode(format!("{CLIENT}:{secret}")));
    let shown = headers.get(AUTHORIZATION).and_then(|it| it.to_str().ok());
    let posted = |key: &str| form.get(key).map(String::as_str);
    shown == Some(&wanted)
        || (posted("client_id"), posted("client_secret")) == (Some(CLIENT), Some(SECRET))
}
