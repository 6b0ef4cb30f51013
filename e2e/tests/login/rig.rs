//! A relay, a provider, and people with browsers and without.

use std::path::Path;

use e2e::relay::Relay;
use e2e::running::Running;
use e2e::web::{Answer, ask, parameter};
use e2e::{Cw, Local, PATIENCE};
use serde_json::{Value, json};

pub(crate) const CW: &str = env!("CARGO_BIN_EXE_cw-under-test");
const PROVIDER: &str = env!("CARGO_BIN_EXE_test-provider");

/// What the relay is called at the provider, and its secret.
pub(crate) const CLIENT: &str = "the-relay";
pub(crate) const SECRET: &str = "s3cret/of-the-relay";

/// What a client proves that it has begun a login with.
pub(crate) const VERIFIER: &str = "the-verifier-of-a-test-that-is-long-enough-for-it";

/// The provider.
pub(crate) struct Provider {
    process: Option<Running>,
    pub(crate) address: String,
}

impl Provider {
    pub(crate) fn start(address: &str) -> Self {
        let mut command = std::process::Command::new(PROVIDER);
        command.arg(address);
        let process = Running::start(command, b"");
        let line = process.stderr.line("provider listening on ", PATIENCE);
        let address = line.split(' ').next_back().expect("an address").to_owned();
        Self {
            process: Some(process),
            address,
        }
    }

    pub(crate) fn new() -> Self {
        Self::start("127.0.0.1:0")
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    #[track_caller]
    pub(crate) fn told(&self, order: &Value) {
        let url = format!("{}/control", self.url());
        let headers = [("content-type", "application/json")];
        let answer = ask("POST", &url, &headers, &order.to_string());
        assert_eq!(answer.status, 204, "{order}");
    }

    pub(crate) fn seen(&self) -> Value {
        ask("GET", &format!("{}/seen", self.url()), &[], "").json()
    }

    pub(crate) fn stop(&mut self) {
        self.process = None;
    }
}

/// A relay that sends people to the provider.
pub(crate) fn relay(local: &Local, provider: &Provider, more: &[&str]) -> Relay {
    let cw = local.cw().clone().env("CW_OIDC_CLIENT_SECRET", SECRET);
    let data = local.home().dir().join("relay");
    let issuer = provider.url();
    let mut words = vec!["--auth-mode", "oidc", "--oidc-issuer", &issuer];
    words.extend(["--oidc-client-id", CLIENT]);
    words.extend(more);
    let relay = Relay::new(cw, &data, "127.0.0.1:0").with(&words);
    relay.start();
    // Browsers are sent back to where the relay says that it is: its port is known now.
    relay.stop();
    relay.start();
    relay
}

/// `cw` of somebody without any token.
pub(crate) fn person(local: &Local, relay: &Relay) -> Cw {
    local.cw().clone().env("CODEWIRE_RELAY_URL", relay.url())
}

/// The challenge of [`VERIFIER`].
pub(crate) fn challenge() -> String {
    use base64::Engine as _;
    let digest = ring::digest::digest(&ring::digest::SHA256, VERIFIER.as_bytes());
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(digest.as_ref())
}

/// A browser on its way: to the relay, to the provider, and where the provider sends it.
pub(crate) fn browse(relay: &Relay) -> (String, String) {
    let url = format!(
        "{}/auth/login?redirect_uri=http://127.0.0.1:9/callback&code_challenge={}&state=mine",
        relay.url(),
        challenge()
    );
    let there = ask("GET", &url, &[], "");
    assert_eq!(there.status, 303, "{there:?}");
    let cookie = there.header("set-cookie").expect("a cookie");
    let cookie = cookie.split(';').next().expect("a cookie").to_owned();
    let provider = there.header("location").expect("a place").to_owned();
    let back = ask("GET", &provider, &[], "");
    assert_eq!(back.status, 303, "{back:?}");
    let back = back.header("location").expect("a place").to_owned();
    (back, cookie)
}

/// Where the browser ends: at the client, with a code or an error.
pub(crate) fn arrive(back: &str, cookie: &str) -> Answer {
    ask("GET", back, &[("cookie", cookie)], "")
}

pub(crate) fn at_client(answer: &Answer) -> String {
    let place = answer.header("location").unwrap_or_default();
    assert!(
        answer.status == 303 && place.starts_with("http://127.0.0.1:9/callback?"),
        "{answer:?}"
    );
    assert_eq!(parameter(place, "state").as_deref(), Some("mine"));
    place.to_owned()
}

pub(crate) fn exchange(relay: &Relay, code: &str, verifier: &str) -> Answer {
    let body = json!({ "code": code, "code_verifier": verifier });
    let url = format!("{}/api/v1/auth/token", relay.url());
    ask("POST", &url, &[], &body.to_string())
}

/// The code or the error that a whole visit ends with.
pub(crate) fn visit(relay: &Relay) -> (Option<String>, Option<String>) {
    let (back, cookie) = browse(relay);
    let place = at_client(&arrive(&back, &cookie));
    (parameter(&place, "code"), parameter(&place, "error"))
}

pub(crate) fn code(answer: &Answer) -> String {
    answer.json()["code"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// `cw login` that waits for somebody to type its code.
pub(crate) fn begin(cw: &Cw) -> Running {
    let login = cw.start(&["login"]);
    let _ = login.stderr.line("WDJB-MJHT", PATIENCE);
    login
}

pub(crate) fn whoami(cw: &Cw) -> Value {
    serde_json::from_str(&cw.ok(&["whoami", "--json"])).expect("JSON")
}

/// No file in a directory, and nothing in a log, has a secret in it.
#[track_caller]
pub(crate) fn is_nowhere(dir: &Path, secret: &str) {
    for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            is_nowhere(&path, secret);
        } else if let Ok(bytes) = std::fs::read(&path) {
            let found = bytes
                .windows(secret.len())
                .any(|part| part == secret.as_bytes());
            assert!(!found, "{} has it", path.display());
        }
    }
}
