//! The routes about who one is.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::super::http::Http;
use super::{Api, Way, query};
use crate::error::Result;

/// A login that was granted.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct Granted {
    /// The secret.
    pub token: String,
    /// What to end it by.
    pub id: String,
    /// Who the relay takes one for.
    pub subject: String,
    /// What the provider calls them.
    pub name: String,
    /// RFC 3339.
    pub expires_at: String,
}

/// A login as lists show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// What to end it by.
    pub id: String,
    /// Whose it is.
    pub subject: String,
    /// What the provider calls them.
    pub name: String,
    /// What the client calls itself.
    pub label: String,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339.
    pub expires_at: String,
    /// It is the one that asks.
    pub current: bool,
}

/// Who one is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whoami {
    /// Who the relay takes one for.
    pub subject: String,
    /// What the provider calls them; none without a login.
    pub name: Option<String>,
    /// How people prove who they are there.
    pub auth_mode: String,
    /// The login by which one is known; none with the relay's token.
    pub login: Option<Login>,
}

/// A login for which a code is typed at the provider.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct Device {
    /// The secret to poll with.
    pub poll_token: String,
    /// What is typed.
    pub user_code: String,
    /// Where.
    pub verification_uri: String,
    /// The same with the code in it.
    pub verification_uri_complete: Option<String>,
    /// Seconds.
    pub expires_in: u64,
    /// Between two polls, seconds.
    pub interval: u64,
}

/// What a poll says.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Polled {
    /// It is granted.
    Authorized(Granted),
    /// Not yet.
    Pending {
        /// Seconds to the next poll, at least.
        interval: Option<u64>,
    },
    /// That was too often.
    SlowDown {
        /// Seconds to the next poll, at least.
        interval: Option<u64>,
    },
}

#[derive(Deserialize)]
struct Ended {
    ended: u64,
}

impl Api {
    /// For requests without any token.
    ///
    /// # Errors
    ///
    /// As [`Api::new`].
    pub fn nobody(relay_url: &str) -> Result<Self> {
        let way = Way::Token(Http::new(relay_url, None)?);
        Ok(Self { way })
    }

    /// Who one is.
    ///
    /// # Errors
    ///
    /// This and all below: the relay's codes, or `relay_unreachable`.
    pub async fn whoami(&self) -> Result<Whoami> {
        self.get("/api/v1/auth/whoami").await
    }

    /// One's logins; those of everybody with `all`.
    pub async fn logins(&self, all: bool) -> Result<Vec<Login>> {
        self.get(&format!("/api/v1/auth/logins?all={all}")).await
    }

    /// Makes a login for who has the relay's token.
    pub async fn make_login(&self, label: &str) -> Result<Granted> {
        self.post("/api/v1/auth/logins", &json!({ "label": label }))
            .await
    }

    /// Ends a login; `current` is the one that asks.
    pub async fn end_login(&self, id: &str) -> Result<()> {
        self.delete(&format!("/api/v1/auth/logins/{}", query(id)))
            .await
    }

    /// Ends all of one's logins; how many.
    pub async fn end_logins(&self) -> Result<u64> {
        let body = self
            .send(reqwest::Method::DELETE, "/api/v1/auth/logins", None)
            .await?;
        super::parse::<Ended>(&body).map(|ended| ended.ended)
    }

    /// Begins a login by a code.
    pub async fn device(&self, label: &str) -> Result<Device> {
        self.post("/api/v1/device/authorize", &json!({ "label": label }))
            .await
    }

    /// Asks how far it is.
    pub async fn poll(&self, poll_token: &str) -> Result<Polled> {
        let body = json!({ "poll_token": poll_token });
        self.post("/api/v1/device/poll", &body).await
    }

    /// Ends a login by a browser: what it came back with, and the proof that one has begun it.
    pub async fn exchange(&self, code: &str, verifier: &str) -> Result<Granted> {
        let body = json!({ "code": code, "code_verifier": verifier });
        self.post("/api/v1/auth/token", &body).await
    }
}
