//! A node that only coordinates: it joins, keeps its connection to the relay, and knows who is
//! there. An account of the protocol of its own, so that the relay is not measured against itself.
//! Each has a loopback address of its own, as machines have.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::Signer as _;
use futures_util::{SinkExt as _, StreamExt as _};
use mesh::{Identity, Seed, SignKey};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::crowd::{Crowd, News, Seen, Sight};

/// The waits between attempts of a node of ours: the first, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
const KEEPALIVE: Duration = Duration::from_secs(3);
/// How frames begin that many get alike.
const SHARED: [&str; 2] = ["{\"type\":\"snapshot\"", "{\"type\":\"delta\""];
/// Letters of an invite before its secret, and of the secret.
const PREFIX: usize = 7;
const SECRET: usize = 24;

/// See the module.
pub struct Light {
    /// Its place among all.
    pub number: usize,
    /// Which network it is in.
    pub network: String,
    identity: Identity,
    issuer: SignKey,
    /// Its record as it travels.
    pub record: String,
}

/// What may be in a frame of the relay.
#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    nonce: Option<&'a str>,
    #[serde(default, borrow)]
    peers: Vec<Peer<'a>>,
    #[serde(default)]
    upsert: Vec<Peer<'a>>,
    #[serde(default)]
    online: Vec<&'a str>,
    #[serde(default)]
    offline: Vec<&'a str>,
    #[serde(default)]
    resumed: bool,
    #[serde(default)]
    more: bool,
    revision: Option<Value>,
}

#[derive(Deserialize)]
struct Peer<'a> {
    #[serde(borrow)]
    record: Record<'a>,
    online: bool,
}

#[derive(Deserialize)]
struct Record<'a> {
    record: &'a str,
}

impl Light {
    /// Redeems an invite.
    pub async fn join(
        relay: SocketAddr,
        network: &str,
        invite: &str,
        number: usize,
    ) -> Result<Self> {
        let mut seed = [7; 32];
        seed[..8].copy_from_slice(&(number as u64).to_be_bytes());
        let identity = Identity::from_seed(&Seed::from_bytes(seed));
        let (name, now) = (format!("node-{number}"), unix_now());
        let secret = invite.get(PREFIX..PREFIX + SECRET).context("no invite")?;
        let issuer = invite.get(PREFIX + SECRET + 1..).context("no invite")?;
        let issuer: SignKey = issuer.parse().ok().context("no issuer")?;
        let mut proof = b"codewire join v1\0".to_vec();
        let hash = Sha256::new_with_prefix(b"codewire invite v2\0");
        let hash = hash.chain_update(issuer.as_bytes()).chain_update(secret);
        proof.extend_from_slice(&hash.finalize());
        sized(&mut proof, name.as_bytes());
        proof.extend_from_slice(identity.key().as_bytes());
        proof.extend_from_slice(identity.verifying_key().as_bytes());
        proof.extend_from_slice(&now.to_be_bytes());
        let body = json!({
            "invite_token": invite,
            "node_name": name,
            "key": identity.key(),
            "sign_key": identity.verifying_key(),
            "timestamp": now,
            "proof": signature(&identity, &proof),
        });
        let answer = post(relay, address(number), "/api/v1/join", None, &body).await?;
        Ok(Self {
            number,
            network: network.to_owned(),
            identity,
            issuer,
            record: answer["record"]["record"]
                .as_str()
                .context("the relay gave no record")?
                .to_owned(),
        })
    }

    /// Its key as others are told it.
    pub fn key(&self) -> String {
        self.identity.key().to_string()
    }

    /// Stays connected, as far as that is up to it.
    pub async fn live(&self, crowd: &Crowd) {
        let mut revision = None;
        let mut wait = BACKOFF.0;
        loop {
            let mut seen = crowd.look(self.number);
            let _ = self.stay(crowd, &mut seen, &mut revision).await;
            if seen.is_welcome {
                wait = BACKOFF.0;
            }
            // Half of it at least, as the real one.
            let part = 50 + (unix_now() + self.number as u64 * 37) % 51;
            tokio::time::sleep(wait * u32::try_from(part).unwrap_or(100) / 100).await;
            wait = (wait * 2).min(BACKOFF.1);
        }
    }

    async fn stay(
        &self,
        crowd: &Crowd,
        seen: &mut Seen<'_>,
        revision: &mut Option<Value>,
    ) -> Result<()> {
        let stream = connect(crowd.relay, address(self.number)).await?;
        let config = WebSocketConfig::default()
            .read_buffer_size(16 * 1024)
            .write_buffer_size(0)
            .max_message_size(Some(8 << 20))
            .max_frame_size(Some(8 << 20));
        let url = format!("ws://{}/api/v1/coordinate", crowd.relay);
        let (mut socket, _) =
            tokio_tungstenite::client_async_with_config(url, stream, Some(config)).await?;
        let mut ping = tokio::time::interval(KEEPALIVE);
        loop {
            let message = tokio::select! {
                _ = ping.tick() => {
                    socket.send(Message::Ping(Vec::new().into())).await?;
                    continue;
                }
                message = socket.next() => message.context("closed")??,
            };
            let Message::Text(text) = message else {
                continue;
            };
            let at = Instant::now();
            if SHARED.iter().any(|start| text.starts_with(start)) {
                let heard = crowd.read(&text, |text| news(text, crowd))?;
                seen.take(&heard.news, at);
                if heard.news.revision.is_some() {
                    revision.clone_from(&heard.news.revision);
                }
                continue;
            }
            let frame: Frame = serde_json::from_str(&text)?;
            match frame.kind {
                "challenge" => {
                    let hello = self.hello(frame.nonce.context("no nonce")?, revision.as_ref())?;
                    socket.send(Message::Text(hello.into())).await?;
                }
                "welcome" => seen.is_welcome = true,
                "error" => bail!("{text}"),
                _ => {}
            }
        }
    }

    fn hello(&self, nonce: &str, revision: Option<&Value>) -> Result<String> {
        let nonce = URL_SAFE_NO_PAD.decode(nonce)?;
        let mut proof = b"codewire hello v1\0".to_vec();
        proof.extend_from_slice(self.issuer.as_bytes());
        proof.extend_from_slice(&nonce);
        sized(&mut proof, self.network.as_bytes());
        proof.extend_from_slice(self.identity.key().as_bytes());
        let mut hello = json!({
            "type": "hello",
            "network": self.network,
            "key": self.identity.key(),
            "version": 1,
            "signature": signature(&self.identity, &proof),
        });
        if let Some(revision) = revision {
            hello["revision"] = revision.clone();
        }
        Ok(hello.to_string())
    }
}

fn news(text: &str, crowd: &Crowd) -> Result<News> {
    let frame: Frame = serde_json::from_str(text)?;
    let mut sights = Vec::new();
    for peer in frame.peers.iter().chain(&frame.upsert) {
        let number = crowd.number(Some(peer.record.record), None);
        sights.push(number.map_or(Sight::New, |number| Sight::Known(number, peer.online)));
    }
    for (keys, online) in [(&frame.online, true), (&frame.offline, false)] {
        let numbers = keys.iter().filter_map(|key| crowd.number(None, Some(key)));
        sights.extend(numbers.map(|number| Sight::Known(number, online)));
    }
    Ok(News {
        resumed: frame.resumed,
        sights,
        revision: frame.revision.filter(|_| !frame.more),
    })
}

/// The address of a machine of its own.
pub fn address(number: usize) -> Ipv4Addr {
    let part = |value: usize| u8::try_from(value % 250).unwrap_or(0);
    Ipv4Addr::new(
        127,
        1 + part(number / 62_500),
        part(number / 250),
        1 + part(number),
    )
}

async fn connect(relay: SocketAddr, from: Ipv4Addr) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    let stream = socket.connect(relay).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// One request to the relay.
pub async fn post(
    relay: SocketAddr,
    from: Ipv4Addr,
    path: &str,
    token: Option<&str>,
    body: &Value,
) -> Result<Value> {
    let mut stream = connect(relay, from).await?;
    let body = body.to_string();
    let proof = token.map_or(String::new(), |it| {
        format!("authorization: Bearer {it}\r\n")
    });
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: relay\r\nconnection: close\r\n{proof}content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    ensure!(head.starts_with("HTTP/1.1 2"), "{path}: {answer}");
    Ok(serde_json::from_str(body)?)
}

fn signature(identity: &Identity, message: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(identity.signing_key().sign(message).to_bytes())
}

fn sized(message: &mut Vec<u8>, bytes: &[u8]) {
    message.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
    message.extend_from_slice(bytes);
}

fn unix_now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |passed| passed.as_secs())
}
