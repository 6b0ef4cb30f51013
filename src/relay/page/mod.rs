//! The status page at `/`: networks, nodes, the ways between them and sessions, as they are now.
//!
//! The page itself is the same for everybody and says nothing; three files beside it are all that it
//! loads, and its policy forbids any other. What there is to see comes as server-sent events, to
//! whoever has signed in ([`session`]) and as far as they may see it ([`view`]).

mod seats;
pub(crate) mod session;
mod view;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::{Stream, stream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::app::App;
use super::error::ApiError;
use super::store::Subject;
use seats::Seat;
pub(crate) use seats::Seats;
use session::Viewer;

/// What changes within this time is told together.
const PACE: Duration = Duration::from_millis(300);

/// Not everything that can be seen rings: roles do not. So there is a look now and then.
const LOOK: Duration = Duration::from_secs(5);

/// How often a stream says that it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Nothing from elsewhere, nothing inline, in no frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `GET /`.
pub(crate) async fn index() -> Response {
    file("text/html; charset=utf-8", include_str!("index.html"))
}

/// `GET /page/style.css`.
pub(crate) async fn style() -> Response {
    file("text/css; charset=utf-8", include_str!("style.css"))
}

/// `GET /page/page.js`.
pub(crate) async fn script() -> Response {
    file("text/javascript; charset=utf-8", include_str!("page.js"))
}

/// `GET /page/icon.svg`.
pub(crate) async fn icon() -> Response {
    file("image/svg+xml", include_str!("icon.svg"))
}

pub(crate) fn file(kind: &'static str, text: impl Into<axum::body::Body>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ];
    (headers, text.into()).into_response()
}

/// `GET /page/events`: all that the viewer may see, again whenever it has changed. It ends with
/// the login by which they came.
pub(crate) async fn events(
    State(app): State<Arc<App>>,
    viewer: Viewer,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let seat = app.viewers.take(&viewer.subject).ok_or_else(|| {
        let text = "as many pages look on as may";
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "page_busy", text)
    })?;
    let look = Look {
        bell: app.hub.any_bell(),
        app,
        subject: viewer.subject,
        shown: String::new(),
        _seat: seat,
    };
    let events = stream::unfold(look, async |mut look| {
        let event = look.next().await?;
        Some((Ok(event), look))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// Somebody who looks on.
struct Look {
    app: Arc<App>,
    subject: Subject,
    bell: watch::Receiver<()>,
    shown: String,
    _seat: Seat,
}

impl Look {
    /// What there is to see once it is another; `None` when the relay stops or cannot tell.
    async fn next(&mut self) -> Option<Event> {
        let mut stop = self.app.stop.clone();
        loop {
            self.bell.borrow_and_update();
            let state = view::state(&self.app, &self.subject).await.ok()?;
            let state = serde_json::to_string(&state).ok()?;
            if state != self.shown {
                self.shown.clone_from(&state);
                return Some(Event::default().event("state").data(state));
            }
            tokio::select! {
                rung = timeout(LOOK, self.bell.changed()) => {
                    // Time is up: that is a reason to look, too.
                    if rung.is_ok_and(|rung| rung.is_err()) {
                        return None;
                    }
                }
                _ = stop.wait_for(|stop| *stop) => return None,
            }
            sleep(PACE).await;
        }
    }
}
