//! What the provider knows: who comes, the codes it has given, what it was asked.

use std::collections::{BTreeMap, HashMap};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::{Value, json};

use super::Fields;
use super::jwt::{Keys, Lie, encode};

/// What the relay is called here.
pub(crate) const CLIENT: &str = "the-relay";

/// Its secret.
pub(crate) const SECRET: &str = "s3cret/of-the-relay";

/// See the module.
pub(crate) struct Provider {
    pub(crate) url: String,
    pub(crate) keys: Keys,
    /// The claims of whoever comes.
    user: Value,
    lie: Option<Lie>,
    /// What becomes of codes: `pending`, `approve`, `deny`, `expire`, `slow`.
    device: String,
    /// Between two polls, seconds.
    interval: u64,
    /// Whoever comes says no.
    denies: bool,
    /// There are no codes to type.
    no_codes: bool,
    /// The issuer that discovery has, if not its own.
    issuer: Option<String>,
    /// The `iss` with which a browser is sent back, if not its own.
    iss: Option<String>,
    /// Codes of browsers: where to, the challenge, the nonce.
    codes: HashMap<String, Code>,
    devices: HashMap<String, Option<Instant>>,
    counts: BTreeMap<&'static str, u64>,
    /// The fastest that a code was asked for again, milliseconds.
    fastest: Option<u128>,
}

struct Code {
    redirect: String,
    challenge: String,
    nonce: Option<String>,
}

impl Provider {
    pub(crate) fn new(url: String) -> Self {
        Self {
            url,
            keys: Keys::new(),
            user: json!({"sub": "248289761001", "preferred_username": "ann", "groups": ["staff"]}),
            lie: None,
            device: "pending".to_owned(),
            interval: 1,
            denies: false,
            no_codes: false,
            issuer: None,
            iss: None,
            codes: HashMap::new(),
            devices: HashMap::new(),
            counts: BTreeMap::new(),
            fastest: None,
        }
    }

    /// Takes an order of the test; what it does not name stays as it is.
    pub(crate) fn obey(&mut self, order: &Value) -> Result<(), ()> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        for (key, value) in order.as_object().ok_or(())? {
            match key.as_str() {
                "user" => self.user = value.clone(),
                "lie" => self.lie = serde_json::from_value(value.clone()).map_err(drop)?,
                "device" => self.device = text(value).ok_or(())?,
                "interval" => self.interval = value.as_u64().ok_or(())?,
                "denies" => self.denies = value.as_bool().ok_or(())?,
                "no_codes" => self.no_codes = value.as_bool().ok_or(())?,
                "issuer" => self.issuer = text(value),
                "iss" => self.iss = text(value),
                _ => return Err(()),
            }
        }
        Ok(())
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub(crate) fn seen(&self) -> Value {
        json!({ "counts": self.counts, "fastest_ms": self.fastest })
    }

    pub(crate) fn announced(&self) -> &str {
        self.issuer.as_deref().unwrap_or(&self.url)
    }

    pub(crate) const fn has_codes(&self) -> bool {
        !self.no_codes
    }

    /// Where to send a browser that asks.
    pub(crate) fn authorize(&mut self, ask: &Fields) -> Result<String, &'static str> {
        let field = |key: &str| ask.get(key).map(String::as_str);
        if field("client_id") != Some(CLIENT) {
            return Err("client_id");
        }
        let redirect = field("redirect_uri").ok_or("redirect_uri")?;
        let state = field("state").ok_or("state")?;
        if field("code_challenge_method") != Some("S256") {
            return Err("code_challenge_method");
        }
        let challenge = field("code_challenge").ok_or("code_challenge")?;
        let state = escape(state);
        let iss = escape(self.iss.as_deref().unwrap_or(&self.url));
        if self.denies {
            let back = format!("{redirect}?error=access_denied&state={state}&iss={iss}");
            return Ok(back);
        }
        let code = secret();
        let back = format!("{redirect}?code={code}&state={state}&iss={iss}");
        let kept = Code {
            redirect: redirect.to_owned(),
            challenge: challenge.to_owned(),
            nonce: field("nonce").map(str::to_owned),
        };
        self.codes.insert(code, kept);
        Ok(back)
    }

    /// Begins a login by a code.
    pub(crate) fn begin(&mut self) -> Value {
        let code = secret();
        self.devices.insert(code.clone(), None);
        json!({
            "device_code": code,
            "user_code": "WDJB-MJHT",
            "verification_uri": format!("{}/activate", self.url),
            "verification_uri_complete": format!("{}/activate?user_code=WDJB-MJHT", self.url),
            "expires_in": 300,
            "interval": self.interval,
        })
    }

    /// Judges a request for tokens; the nonce that belongs to it.
    pub(crate) fn grant(&mut self, form: &Fields) -> Result<Option<String>, &'static str> {
        let field = |key: &str| form.get(key).map(String::as_str);
        if field("grant_type") == Some("authorization_code") {
            // Once: whatever comes of it, it is gone.
            let code = field("code").and_then(|code| self.codes.remove(code));
            let code = code.ok_or("invalid_grant")?;
            let verifier = field("code_verifier").unwrap_or_default();
            let shown = encode(digest(&SHA256, verifier.as_bytes()).as_ref());
            if shown != code.challenge || field("redirect_uri") != Some(&code.redirect) {
                return Err("invalid_grant");
            }
            return Ok(code.nonce);
        }
        if field("grant_type") != Some("urn:ietf:params:oauth:grant-type:device_code") {
            return Err("unsupported_grant_type");
        }
        let code = field("device_code").unwrap_or_default().to_owned();
        let last = self.devices.get_mut(&code).ok_or("invalid_grant")?;
        let passed = last.replace(Instant::now()).map(|last| last.elapsed());
        if let Some(passed) = passed {
            let passed = passed.as_millis();
            self.fastest = Some(self.fastest.map_or(passed, |fastest| fastest.min(passed)));
        }
        match self.device.as_str() {
            "approve" => {
                self.devices.remove(&code);
                Ok(None)
            }
            "deny" => Err("access_denied"),
            "expire" => Err("expired_token"),
            "slow" => Err("slow_down"),
            _ => Err("authorization_pending"),
        }
    }

    /// The id token of whoever comes.
    pub(crate) fn id_token(&self, nonce: Option<&str>) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |now| now.as_secs());
        let mut claims = self.user.clone();
        claims["iss"] = json!(self.url);
        claims["aud"] = json!(CLIENT);
        claims["iat"] = json!(now);
        claims["exp"] = json!(now + 300);
        if let Some(nonce) = nonce {
            claims["nonce"] = json!(nonce);
        }
        if let Some(lie) = self.lie {
            lie.distort(&mut claims, CLIENT);
        }
        self.keys.sign(&claims, self.lie)
    }

    /// Whoever comes, as GitHub shows them.
    pub(crate) fn account(&self) -> Value {
        json!({ "id": self.user["id"], "login": self.user["login"], "email": self.user["email"] })
    }
}

fn secret() -> String {
    let mut bytes = [0; 24];
    SystemRandom::new().fill(&mut bytes).expect("random bytes");
    encode(&bytes)
}

/// As part of a query.
fn escape(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    text.bytes()
        .map(|byte| {
            if plain(&byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}
