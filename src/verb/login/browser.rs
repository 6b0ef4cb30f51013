//! Logging in by a browser of this machine.
//!
//! The browser is sent to the relay, the relay sends it to the provider and in the end back here, to
//! a port of the loopback interface that is open for this alone (RFC 8252). What it brings is a code
//! that is worth nothing without the secret of which the relay has seen the hash.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use reqwest::Url;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::cli::Cli;
use crate::error::{Error, Result};
use crate::random;
use crate::uplink::api::{Api, Granted};

/// How long somebody may take.
const LIMIT: Duration = Duration::from_secs(600);

/// What the browser brings, or why not.
type Brought = Result<String>;

struct Wait {
    state: String,
    told: Mutex<Option<oneshot::Sender<Brought>>>,
}

#[derive(Deserialize)]
struct Back {
    state: String,
    code: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
}

/// Waits for the browser.
///
/// # Errors
///
/// What the relay says, or `login_expired`.
pub(super) async fn login(cli: &Cli, api: &Api, relay: &str, label: &str) -> Result<Granted> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let back = format!("http://{}/callback", listener.local_addr()?);
    let verifier = URL_SAFE_NO_PAD.encode(random::<32>());
    let state = URL_SAFE_NO_PAD.encode(random::<16>());
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(&verifier));
    let mut url = Url::parse(relay).map_err(Error::internal)?;
    url.set_path("/auth/login");
    url.query_pairs_mut()
        .append_pair("redirect_uri", &back)
        .append_pair("code_challenge", &challenge)
        .append_pair("state", &state)
        .append_pair("label", label);

    let (told, brought) = oneshot::channel();
    let wait = Arc::new(Wait {
        state,
        told: Mutex::new(Some(told)),
    });
    let (end, ended) = oneshot::channel::<()>();
    let routes = Router::new()
        .route("/callback", get(come_back))
        .with_state(wait);
    let serving = axum::serve(listener, routes).with_graceful_shutdown(async {
        let _ = ended.await;
    });
    let serving = tokio::spawn(async move { serving.await });

    cli.note(&format!(
        "Open this address in a browser of this machine:\n\n    {url}\n"
    ));
    let brought = timeout(LIMIT, brought).await;
    drop(end);
    // The browser gets its page first; it may keep the connection for longer than anybody cares.
    let _ = timeout(Duration::from_secs(1), serving).await;
    let code = match brought {
        Ok(Ok(brought)) => brought?,
        _ => {
            return Err(Error::new("login_expired", "no browser came back in time")
                .hint("begin again with 'cw login --browser'"));
        }
    };
    api.exchange(&code, &verifier).await
}

async fn come_back(
    State(wait): State<Arc<Wait>>,
    Query(back): Query<Back>,
) -> (StatusCode, &'static str) {
    if back.state != wait.state {
        return (StatusCode::BAD_REQUEST, "This is another login.\n");
    }
    let (brought, page) = match (back.code, back.error) {
        (Some(code), None) => (Ok(code), "Go back to the terminal.\n"),
        (_, error) => {
            let is_code = |c: char| c.is_ascii_lowercase() || c == '_';
            let error = error.filter(|error| error.len() <= 40 && error.chars().all(is_code));
            let text = back.error_description.unwrap_or_default();
            let error = Error::new(
                error.as_deref().unwrap_or("login_denied"),
                crate::show::cut(&text, 300),
            );
            (
                Err(error),
                "You are not logged in; the terminal says why.\n",
            )
        }
    };
    if let Some(told) = wait.told.lock().take() {
        // Whoever waits may have given up.
        let _ = told.send(brought);
    }
    (StatusCode::OK, page)
}
