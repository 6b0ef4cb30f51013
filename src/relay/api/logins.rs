//! Who am I, and where else am I logged in.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::Body;
use crate::relay::app::App;
use crate::relay::auth::Person;
use crate::relay::clock::{rfc3339, unix_now};
use crate::relay::error::ApiError;
use crate::relay::login::{LoginToken, label};
use crate::relay::policy::may_end_logins;
use crate::relay::store::logins::Login;

/// The id under which a login names itself.
const CURRENT: &str = "current";

/// `GET /api/v1/auth/whoami`.
pub(crate) async fn whoami(State(app): State<Arc<App>>, person: Person) -> Json<Value> {
    let login = person.login.as_ref();
    Json(json!({
        "subject": person.subject.as_str(),
        "name": login.map(|login| &login.name),
        "auth_mode": app.gate.mode(),
        "login": login.map(|login| show(login, login)),
    }))
}

#[derive(Deserialize)]
pub(crate) struct Which {
    #[serde(default)]
    all: bool,
}

/// `GET /api/v1/auth/logins`: one's own; with `all=true` everybody's, for the administrator.
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    person: Person,
    Query(which): Query<Which>,
) -> Result<Json<Value>, ApiError> {
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

#[derive(Deserialize)]
pub(crate) struct Make {
    #[serde(default)]
    label: String,
}

/// `POST /api/v1/auth/logins`: a login for who has the relay's token, so that the token need not
/// lie on their machine. A login makes no other: it would never end.
pub(crate) async fn make(
    State(app): State<Arc<App>>,
    person: Person,
    Body(make): Body<Make>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
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
) -> Result<Json<Value>, ApiError> {
    let ended = app.store.end_logins(Some(person.subject), None).await?;
    Ok(Json(json!({ "ended": ended })))
}

/// A login with its token, for the client that has got it.
pub(crate) fn granted(login: &Login, token: &LoginToken) -> Value {
    json!({
        "status": "authorized",
        "token": token.text(),
        "id": login.id,
        "subject": login.subject.as_str(),
        "name": login.name,
        "expires_at": rfc3339(login.expires),
    })
}

fn show(login: &Login, current: &Login) -> Value {
    shown(login, login.id == current.id)
}

fn shown(login: &Login, is_current: bool) -> Value {
    json!({
        "id": login.id,
        "subject": login.subject.as_str(),
        "name": login.name,
        "label": login.label,
        "created_at": rfc3339(login.created),
        "expires_at": rfc3339(login.expires),
        "current": is_current,
    })
}

fn not_yours() -> ApiError {
    let text = "only the administrator sees everybody's logins";
    ApiError::new(StatusCode::FORBIDDEN, "forbidden", text)
}
