//! Who am I, and where else am I logged in.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::body::{Body, Path, Query};
use crate::relay::app::App;
use crate::relay::auth::Person;
use crate::relay::clock::{rfc3339, unix_now};
use crate::relay::error::ApiError;
use crate::relay::login::{LoginToken, label};
use crate::relay::policy::may_end_logins;
use crate::relay::store::logins::Login;

/// The id under which a login names itself.
const CURRENT: &str = "current";

/// Who somebody is.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "WhoAmI")]
pub(crate) struct Me {
    subject: String,
    /// What the provider calls them.
    name: Option<String>,
    /// none, token, github or oidc.
    auth_mode: &'static str,
    /// By which login they ask.
    login: Option<Shown>,
}

/// A login.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Login")]
pub(crate) struct Shown {
    id: String,
    subject: String,
    name: String,
    /// What the client calls itself.
    label: String,
    /// RFC 3339, as is `expires_at`.
    created_at: String,
    expires_at: String,
    /// Whether it is the one that asks.
    current: bool,
}

/// A login with its token.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "LoginGranted")]
pub(crate) struct Granted {
    /// authorized
    status: &'static str,
    token: String,
    id: String,
    subject: String,
    name: String,
    /// RFC 3339.
    expires_at: String,
}

/// How many logins were ended.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "LoginsEnded")]
pub(crate) struct Ended {
    ended: u64,
}

/// `GET /api/v1/auth/whoami`.
pub(crate) async fn whoami(State(app): State<Arc<App>>, person: Person) -> Json<Me> {
    let login = person.login.as_ref();
    Json(Me {
        subject: person.subject.as_str().to_owned(),
        name: login.map(|login| login.name.clone()),
        auth_mode: app.gate.mode(),
        login: login.map(|login| show(login, login)),
    })
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Which {
    /// Everybody's, for the administrator.
    #[serde(default)]
    all: bool,
}

/// `GET /api/v1/auth/logins`: one's own; with `all=true` everybody's, for the administrator.
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    person: Person,
    Query(which): Query<Which>,
) -> Result<Json<Vec<Shown>>, ApiError> {
    let whose = (!which.all).then(|| person.subject.clone());
    if !may_end_logins(&person.subject, whose.as_ref()) {
        return Err(not_yours());
    }
    let mut logins = app.store.logins(whose, unix_now()).await?;
    logins.retain(|login| app.gate.honours(login));
    let shown = logins.iter().map(|login| match &person.login {
        Some(current) => show(login, current),
        None => shown(login, false),
    });
    Ok(Json(shown.collect()))
}

/// A login to make.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "NewLogin")]
pub(crate) struct Make {
    /// What the client calls itself.
    #[serde(default)]
    label: String,
}

/// `POST /api/v1/auth/logins`: a login for who has the relay's token, so that the token need not
/// lie on their machine. A login makes no other: it would never end.
pub(crate) async fn make(
    State(app): State<Arc<App>>,
    person: Person,
    Body(make): Body<Make>,
) -> Result<(StatusCode, Json<Granted>), ApiError> {
    if person.login.is_some() && !app.gate.is_open() {
        let text = "a login cannot make another";
        return Err(ApiError::new(StatusCode::FORBIDDEN, "forbidden", text)
            .hint("the relay's token can, and the provider"));
    }
    let (token, now) = (LoginToken::new(), unix_now());
    let login = app.gate.admin_login(label(&make.label), &token, now);
    app.store.add_login(login.clone(), now).await?;
    Ok((StatusCode::CREATED, Json(granted(&login, &token))))
}

/// `DELETE /api/v1/auth/logins/{id}`: ends one; `current` is the one that asks.
pub(crate) async fn end(
    State(app): State<Arc<App>>,
    person: Person,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let id = match (id.as_str(), &person.login) {
        (CURRENT, Some(login)) => login.id.clone(),
        _ => id,
    };
    let whose = if may_end_logins(&person.subject, None) {
        None
    } else {
        Some(person.subject)
    };
    if app.store.end_logins(whose, Some(id.clone())).await? == 0 {
        let text = "you have no such login";
        return Err(ApiError::new(StatusCode::NOT_FOUND, "not_found", text)
            .hint("'cw login list' shows those that there are"));
    }
    tracing::info!(%id, "login ended");
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /api/v1/auth/logins`: ends all of one's own, the one that asks too.
pub(crate) async fn end_all(
    State(app): State<Arc<App>>,
    person: Person,
) -> Result<Json<Ended>, ApiError> {
    let ended = app.store.end_logins(Some(person.subject), None).await?;
    Ok(Json(Ended { ended }))
}

/// A login with its token, for the client that has got it.
pub(crate) fn granted(login: &Login, token: &LoginToken) -> Granted {
    Granted {
        status: "authorized",
        token: token.text().to_owned(),
        id: login.id.clone(),
        subject: login.subject.as_str().to_owned(),
        name: login.name.clone(),
        expires_at: rfc3339(login.expires),
    }
}

fn show(login: &Login, current: &Login) -> Shown {
    shown(login, login.id == current.id)
}

fn shown(login: &Login, is_current: bool) -> Shown {
    Shown {
        id: login.id.clone(),
        subject: login.subject.as_str().to_owned(),
        name: login.name.clone(),
        label: login.label.clone(),
        created_at: rfc3339(login.created),
        expires_at: rfc3339(login.expires),
        current: is_current,
    }
}

fn not_yours() -> ApiError {
    let text = "only the administrator sees everybody's logins";
    ApiError::new(StatusCode::FORBIDDEN, "forbidden", text)
}
