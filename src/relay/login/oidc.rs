//! OpenID Connect: the relay as a client of one provider.
//!
//! What the provider is made of is read from its discovery document when it is first needed, and
//! again every hour: a provider that is away keeps nobody out who is logged in, and does not keep
//! the relay from starting. Who somebody is comes from the id token alone: signed by a key of the
//! provider with an asymmetric algorithm, for this client and no other, not expired, and in the flow
//! by a browser with the nonce that the relay has chosen. A key that is not known yet is looked up
//! once more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use openidconnect::core::{
    CoreAuthDisplay, CoreAuthenticationFlow, CoreClaimName, CoreClaimType, CoreClient,
    CoreClientAuthMethod, CoreGenderClaim, CoreGrantType, CoreIdTokenVerifier, CoreJsonWebKey,
    CoreJweContentEncryptionAlgorithm, CoreJweKeyManagementAlgorithm, CoreJwsSigningAlgorithm,
    CoreResponseMode, CoreResponseType, CoreSubjectIdentifierType,
};
use openidconnect::{
    AdditionalClaims, AdditionalProviderMetadata, ClaimsVerificationError, ClientId, CsrfToken,
    DeviceAuthorizationUrl, HttpRequest, IdToken, IdTokenClaims, IssuerUrl, Nonce,
    PkceCodeChallenge, ProviderMetadata, RedirectUrl, Scope,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::Mutex;

use super::attempt::{Await, Device, Started};
use super::settings::Settings;
use super::web::{Secret, Web, chain};
use super::{Identity, away, denied, gone, not_allowed, short, shown, subject, unbelievable};
use crate::error::{Error, Result};
use crate::relay::error::ApiError;

/// How long what the provider says of itself is believed.
const FRESH: Duration = Duration::from_secs(3600);

/// How long to go on with what it said before when it cannot be asked.
const STALE: Duration = Duration::from_secs(60);

/// How long not to ask a provider again that did not answer.
const PAUSE: Duration = Duration::from_secs(2);

/// Between two looks for a key that is not known.
const KEYS_PAUSE: Duration = Duration::from_secs(10);

/// How far ahead the provider's clock may be, seconds.
const SKEW: i64 = 300;

/// Algorithms by which only the provider can sign.
const ALGORITHMS: [CoreJwsSigningAlgorithm; 9] = [
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::RsaSsaPssSha384,
    CoreJwsSigningAlgorithm::RsaSsaPssSha512,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
    CoreJwsSigningAlgorithm::EdDsa,
];

/// The grant of RFC 8628.
pub(super) const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

type Metadata = ProviderMetadata<
    Endpoints,
    CoreAuthDisplay,
    CoreClientAuthMethod,
    CoreClaimName,
    CoreClaimType,
    CoreGrantType,
    CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm,
    CoreJsonWebKey,
    CoreResponseMode,
    CoreResponseType,
    CoreSubjectIdentifierType,
>;

type Token =
    IdToken<Others, CoreGenderClaim, CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm>;

type Claims = IdTokenClaims<Others, CoreGenderClaim>;

/// What RFC 8628 adds to the discovery document.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Endpoints {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device_authorization_endpoint: Option<DeviceAuthorizationUrl>,
}

impl AdditionalProviderMetadata for Endpoints {}

/// The claims of an id token that are no standard.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Others {
    #[serde(flatten)]
    claims: Map<String, Value>,
}

impl AdditionalClaims for Others {}

/// See the module.
pub(super) struct Oidc {
    settings: Settings,
    issuer: IssuerUrl,
    callback: RedirectUrl,
    web: Web,
    known: Mutex<Known>,
}

/// What is known of the provider.
#[derive(Default)]
struct Known {
    metadata: Option<Arc<Metadata>>,
    /// When it said so.
    fetched: Option<Instant>,
    /// When to ask again.
    until: Option<Instant>,
}

impl Oidc {
    /// # Errors
    ///
    /// `config_invalid`, `tls`.
    pub(super) fn new(settings: Settings, callback: String) -> Result<Self> {
        let invalid = |error: openidconnect::url::ParseError| {
            Error::new("config_invalid", format!("no URL of a provider: {error}"))
        };
        Ok(Self {
            issuer: IssuerUrl::new(settings.url.clone()).map_err(invalid)?,
            callback: RedirectUrl::new(callback).map_err(invalid)?,
            web: Web::new(settings.url.starts_with("https"))?,
            settings,
            known: Mutex::default(),
        })
    }

    pub(super) async fn device(&self) -> Result<Device, ApiError> {
        let metadata = self.metadata().await?;
        let endpoint = &metadata.additional_metadata().device_authorization_endpoint;
        let Some(endpoint) = endpoint else {
            let text = "the provider of this relay has no codes to type";
            return Err(ApiError::new(StatusCode::CONFLICT, "no_device_flow", text)
                .hint("use 'cw login --browser'"));
        };
        let scopes = ["openid"].into_iter();
        let scopes: Vec<_> = scopes
            .chain(self.settings.scopes.iter().map(String::as_str))
            .collect();
        let scopes = scopes.join(" ");
        let fields = [("scope", scopes.as_str())];
        Device::of(&self.post(&metadata, endpoint, &fields).await?)
    }

    pub(super) async fn poll(&self, device_code: &str) -> Result<Await, ApiError> {
        let metadata = self.metadata().await?;
        let fields = [("grant_type", DEVICE_GRANT), ("device_code", device_code)];
        let answer = self.post(&metadata, token_url(&metadata)?, &fields).await?;
        if let Some(answer) = Await::of(&answer)? {
            return Ok(answer);
        }
        // There is no nonce in this flow: the code went from the provider to the relay and back,
        // and never through a browser.
        self.identity(&answer, None).await.map(Await::Granted)
    }

    pub(super) async fn start(&self) -> Result<Started, ApiError> {
        let metadata = self.metadata().await?;
        let id = ClientId::new(self.settings.client_id.clone());
        let client = CoreClient::from_provider_metadata((*metadata).clone(), id, None)
            .set_redirect_uri(self.callback.clone());
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let request = client.authorize_url(
            CoreAuthenticationFlow::AuthorizationCode,
            || CsrfToken::new_random_len(32),
            || Nonce::new_random_len(32),
        );
        let scopes = self.settings.scopes.iter().cloned().map(Scope::new);
        let request = request.add_scopes(scopes).set_pkce_challenge(challenge);
        let (url, state, nonce) = request.url();
        Ok(Started {
            url: url.to_string(),
            state: state.secret().clone(),
            nonce: Some(nonce.secret().clone()),
            verifier: verifier.secret().clone(),
        })
    }

    pub(super) async fn finish(
        &self,
        started: &Started,
        code: &str,
        iss: Option<&str>,
    ) -> Result<Identity, ApiError> {
        // RFC 9207: the answer of another provider is not for this one's token endpoint.
        if iss.is_some_and(|iss| iss != self.settings.url) {
            return Err(unbelievable("the answer is another issuer's"));
        }
        let nonce = started.nonce.as_deref();
        let nonce = nonce.ok_or_else(|| unbelievable("no nonce was chosen"))?;
        let metadata = self.metadata().await?;
        let fields = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", self.callback.as_str()),
            ("code_verifier", &started.verifier),
        ];
        let answer = self.post(&metadata, token_url(&metadata)?, &fields).await?;
        match Await::of(&answer)? {
            None => self.identity(&answer, Some(nonce)).await,
            Some(_) => Err(gone()),
        }
    }

    async fn post(
        &self,
        metadata: &Metadata,
        url: &str,
        fields: &[(&str, &str)],
    ) -> Result<Value, ApiError> {
        let methods = metadata.token_endpoint_auth_methods_supported();
        let has = |method| methods.is_some_and(|methods| methods.contains(&method));
        let secret = match self.settings.client_secret.as_deref() {
            None => Secret::None,
            Some(secret)
                if has(CoreClientAuthMethod::ClientSecretPost)
                    && !has(CoreClientAuthMethod::ClientSecretBasic) =>
            {
                Secret::Post(secret)
            }
            Some(secret) => Secret::Basic(secret),
        };
        self.web
            .post(url, fields, &self.settings.client_id, secret)
            .await
    }

    /// Who the id token in an answer is about.
    async fn identity(&self, answer: &Value, nonce: Option<&str>) -> Result<Identity, ApiError> {
        let text = answer["id_token"].as_str();
        let text = text.ok_or_else(|| unbelievable("there is no id token"))?;
        let token: Token = text.parse().map_err(|error: serde_json::Error| {
            unbelievable(&format!("the id token cannot be read: {error}"))
        })?;
        let metadata = self.metadata().await?;
        let claims = match self.verify(&metadata, &token, nonce) {
            Err(ClaimsVerificationError::SignatureVerification(_)) => {
                // It may have a new key.
                let metadata = self.newer().await?;
                self.verify(&metadata, &token, nonce)
            }
            other => other,
        };
        let claims = claims.map_err(|error| unbelievable(&chain(&error)))?;
        self.admit(claims)
    }

    fn verify<'a>(
        &self,
        metadata: &Metadata,
        token: &'a Token,
        nonce: Option<&str>,
    ) -> Result<&'a Claims, ClaimsVerificationError> {
        let verifier = CoreIdTokenVerifier::new_public_client(
            ClientId::new(self.settings.client_id.clone()),
            self.issuer.clone(),
            metadata.jwks().clone(),
        )
        .set_allowed_algs(ALGORITHMS)
        .set_issue_time_verifier_fn(|issued| {
            let ahead = issued.timestamp() - unix_now();
            if ahead > SKEW {
                return Err(format!("it was issued {ahead} s from now"));
            }
            Ok(())
        });
        let is_the_one = |found: Option<&Nonce>| match (nonce, found) {
            (None, _) => Ok(()),
            (Some(nonce), Some(found)) if found.secret() == nonce => Ok(()),
            _ => Err("it is not the one that was chosen".to_owned()),
        };
        let claims = token.claims(&verifier, is_the_one)?;
        let party = claims.authorized_party();
        if party.is_some_and(|party| party.as_str() != self.settings.client_id) {
            let text = "another client is the authorized party".to_owned();
            return Err(ClaimsVerificationError::InvalidAudience(text));
        }
        Ok(claims)
    }

    /// Whether somebody is let in, by the groups that the provider says.
    fn admit(&self, claims: &Claims) -> Result<Identity, ApiError> {
        let who = claims.subject().as_str();
        if who.is_empty() {
            return Err(unbelievable("the subject is empty"));
        }
        let subject = subject("oidc", &short(&["issuer", &self.settings.url]), who);
        let allowed = &self.settings.allowed;
        if !allowed.is_empty() {
            let groups = groups(
                &claims.additional_claims().claims,
                &self.settings.groups_claim,
            );
            if !groups.iter().any(|group| allowed.contains(group)) {
                tracing::info!(%subject, "not in an allowed group");
                return Err(not_allowed());
            }
        }
        let full = claims.name().and_then(|name| name.get(None));
        let name = claims
            .preferred_username()
            .map(|name| name.as_str())
            .or_else(|| full.map(|name| name.as_str()));
        Ok(Identity {
            name: shown(name.unwrap_or(who)),
            subject,
        })
    }

    async fn metadata(&self) -> Result<Arc<Metadata>, ApiError> {
        let mut known = self.known.lock().await;
        if known.until.is_none_or(|until| until <= Instant::now()) {
            self.fetch(&mut known).await;
        }
        let metadata = known.metadata.clone();
        metadata.ok_or_else(|| away("it did not answer a moment ago"))
    }

    /// The same, asked for just now unless that was done a moment ago.
    async fn newer(&self) -> Result<Arc<Metadata>, ApiError> {
        let mut known = self.known.lock().await;
        if known.fetched.is_none_or(|at| at.elapsed() >= KEYS_PAUSE) {
            self.fetch(&mut known).await;
        }
        let metadata = known.metadata.clone();
        metadata.ok_or_else(|| away("it did not answer a moment ago"))
    }

    async fn fetch(&self, known: &mut Known) {
        let web = self.web.clone();
        let http = move |request: HttpRequest| web.clone().call(request);
        let found = Metadata::discover_async(self.issuer.clone(), &http).await;
        let now = Instant::now();
        known.fetched = Some(now);
        known.until = Some(match found {
            Ok(metadata) => {
                known.metadata = Some(Arc::new(metadata));
                now + FRESH
            }
            Err(error) => {
                let why = chain(&error);
                tracing::warn!(%why, issuer = %self.settings.url, "the provider does not say what it is");
                let rest = if known.metadata.is_some() {
                    STALE
                } else {
                    PAUSE
                };
                now + rest
            }
        });
    }
}

fn token_url(metadata: &Metadata) -> Result<&str, ApiError> {
    let url = metadata.token_endpoint().map(|url| url.as_str());
    url.ok_or_else(|| away("it has no token endpoint"))
}

/// The groups in a claim: a list of words, or one word.
fn groups(claims: &Map<String, Value>, name: &str) -> Vec<String> {
    match claims.get(name) {
        Some(Value::Array(groups)) => groups
            .iter()
            .filter_map(|group| group.as_str().map(str::to_owned))
            .collect(),
        Some(Value::String(group)) => vec![group.clone()],
        _ => Vec::new(),
    }
}

fn unix_now() -> i64 {
    i64::try_from(crate::relay::clock::unix_now()).unwrap_or(i64::MAX)
}

impl Device {
    /// As a provider answers (RFC 8628, 3.2).
    ///
    /// # Errors
    ///
    /// `provider_unreachable` for what is no such answer.
    pub(super) fn of(answer: &Value) -> Result<Self, ApiError> {
        let text = |key: &str| answer[key].as_str().filter(|text| text.len() <= 2048);
        let number = |key: &str| answer[key].as_u64();
        let is_url = |url: &&str| url.starts_with("https://") || url.starts_with("http://");
        let uri = text("verification_uri").or_else(|| text("verification_url"));
        let (Some(device_code), Some(user_code), Some(uri)) =
            (text("device_code"), text("user_code"), uri.filter(is_url))
        else {
            let why = answer["error"].as_str().unwrap_or("no code in it");
            return Err(away(&format!("it does not begin a login: {}", shown(why))));
        };
        let complete = text("verification_uri_complete").filter(is_url);
        Ok(Self {
            device_code: device_code.to_owned(),
            user_code: user_code.to_owned(),
            verification_uri: uri.to_owned(),
            verification_uri_complete: complete.map(str::to_owned),
            expires_in: number("expires_in").unwrap_or(600).clamp(1, 1800),
            interval: number("interval").unwrap_or(5).clamp(1, 60),
        })
    }
}

impl Await {
    /// What a token endpoint answers instead of tokens; `None` for tokens.
    ///
    /// # Errors
    ///
    /// `login_denied`, `provider_unreachable`.
    pub(super) fn of(answer: &Value) -> Result<Option<Self>, ApiError> {
        let Some(error) = answer["error"].as_str() else {
            return Ok(None);
        };
        match error {
            "authorization_pending" => Ok(Some(Self::Pending)),
            "slow_down" => Ok(Some(Self::SlowDown)),
            // The last two are those of GitHub.
            "expired_token"
            | "invalid_grant"
            | "bad_verification_code"
            | "incorrect_device_code" => Ok(Some(Self::Expired)),
            "access_denied" => Err(denied()),
            other => Err(away(&format!("it refuses: {}", shown(other)))),
        }
    }
}
