//! What comes from a relay, or to one.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer as _, SigningKey};
use http::{HeaderMap, HeaderName, HeaderValue};
use mesh::{NetworkId, NodeKey, NodeRecord, SignKey, SignedRecord};

use crate::coord::handover::Issuers;
use crate::coord::request::Credential;
use crate::coord::{Invite, JoinRequest, JoinResponse, Peer, ToNode, ToRelay};
use crate::paper::{GrantToken, SecretHash, SignedPaper};
use crate::relay::api::kv;
use crate::relay::signed;
use crate::uplink::cache::Saved;
use crate::uplink::events::Lines;
use crate::uplink::netmap::Netmap;
use crate::uplink::papers::{Papers, SavedPapers};

const NOW: u64 = 1_800_000_000;

/// Invites, grants, the credential of a request, and what is inside a join.
pub fn credentials(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(invite) = text.parse::<Invite>() {
        assert_eq!(invite.to_string(), text);
        let _ = (invite.hash(), invite.issuer());
    }
    if let Ok(token) = text.parse::<GrantToken>() {
        let _ = token.hash();
        assert!(
            !format!("{token:?}").contains(&*text),
            "a secret is not shown"
        );
    }
    if let Ok(credential) = text.parse::<Credential>() {
        let again = credential.to_string().parse::<Credential>();
        assert_eq!(again.ok(), Some(credential));
    }
    let _ = SecretHash::try_from(text.into_owned());
    let _ = serde_json::from_slice::<JoinRequest>(data);
    let _ = serde_json::from_slice::<JoinResponse>(data);
}

/// A paper that anybody made up, one that the issuer signed whatever it says, and the file of
/// papers: what is not signed is not believed.
pub fn papers(data: &[u8]) {
    let (issuer, issuers) = (issuer(), issuers());
    let mut papers = Papers::new(network());
    if let Ok(signed) = serde_json::from_slice::<SignedPaper>(data) {
        assert_eq!(
            papers.handle(vec![signed], 1, false, (&issuers, NOW)).len(),
            1
        );
    }
    if let Ok(saved) = serde_json::from_slice::<SavedPapers>(data) {
        papers.restore(saved, &issuers, NOW);
    }
    assert!(papers.rules().groups.is_empty() && papers.rules().grants.is_empty());
    let signature = issuer.sign(&[b"codewire paper v1\0", data].concat());
    let signed = serde_json::json!({
        "paper": URL_SAFE_NO_PAD.encode(data),
        "signature": URL_SAFE_NO_PAD.encode(signature.to_bytes()),
    });
    let Ok(signed) = serde_json::from_value::<SignedPaper>(signed) else {
        return;
    };
    let bad = papers.handle(vec![signed.clone(), signed], 1, false, (&issuers, NOW));
    let rules = papers.rules();
    assert!(rules.groups.len() + rules.grants.len() <= 1);
    assert!(bad.len() == 2 || bad.is_empty());
    if let Ok(text) = serde_json::to_vec(&papers.save()) {
        let mut again = Papers::new(network());
        if let Ok(saved) = serde_json::from_slice(&text) {
            again.restore(saved, &issuers, NOW);
        }
        assert_eq!(again.rules().groups, rules.groups);
        assert_eq!(again.rules().grants, rules.grants);
    }
}

/// Frames of a coordination connection, one a line, and the file of the last known state: no peer
/// is known whose record is not signed.
pub fn coordination(data: &[u8]) {
    let issuer = issuer();
    let record = NodeRecord {
        network: network(),
        name: name(),
        key: NodeKey::from_bytes([7; 32]),
        sign_key: SignKey::from(&issuer.verifying_key()),
        owner: "me".to_owned(),
        groups: Vec::new(),
        issued: NOW - 10,
        expires: NOW + 10,
    };
    let signed = SignedRecord::sign(&record, &issuer);
    let mut map = Netmap::new(issuers(), signed.clone(), record);
    for line in data.split(|byte| *byte == b'\n') {
        let _ = serde_json::from_slice::<ToRelay>(line);
        if let Ok(saved) = serde_json::from_slice::<Saved>(line) {
            map.restore(saved.netmap, NOW);
        }
        match serde_json::from_slice::<ToNode>(line) {
            Ok(ToNode::Snapshot {
                revision,
                mut peers,
                more,
            }) => {
                // A record of this node itself is no peer.
                peers.push(Peer {
                    record: signed.clone(),
                    online: true,
                });
                let _ = map.handle_snapshot(revision, peers, more, NOW);
            }
            Ok(ToNode::Delta(delta)) => drop(map.handle_delta(delta, NOW)),
            Ok(ToNode::Welcome { record, .. }) => drop(map.handle_own(record, NOW)),
            Ok(ToNode::Handovers { handovers }) => drop(map.handle_handovers(&handovers)),
            Ok(_) | Err(_) => {}
        }
        assert!(map.peers(NOW).is_empty(), "nobody was signed");
    }
    map.handle_connected();
    let _ = map.save();
}

/// Headers of a request, one a line, `name: value`; the first line is a key.
pub fn relay_headers(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let first = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let (space, key) = first.split_once('/').unwrap_or((&first, &first));
    let _ = kv::place(network(), space, key);
    let mut headers = HeaderMap::new();
    for line in lines.take(100) {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let name = HeaderName::from_bytes(parts.next().unwrap_or_default());
        let value = HeaderValue::from_bytes(parts.next().unwrap_or_default().trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    if let Ok(Some(ttl)) = kv::ttl(&headers) {
        assert!((1..=3650 * 86_400).contains(&ttl));
    }
    let _ = kv::condition(&headers);
    if let Ok(Some(credential)) = signed::credential(&headers) {
        assert_eq!(
            headers.get_all(http::header::AUTHORIZATION).iter().count(),
            1
        );
        let _ = credential.to_string();
    }
}

/// Server-sent events: the same in any pieces.
pub fn relay_events(data: &[u8]) {
    let (piece, stream) = data
        .split_first()
        .map_or((1, data), |(piece, rest)| (1 + usize::from(*piece), rest));
    let read = |piece: usize| {
        let (mut lines, mut heard) = (Lines::default(), Vec::new());
        for part in stream.chunks(piece) {
            if lines.handle(part).is_err() {
                return None;
            }
            heard.extend(std::iter::from_fn(|| lines.take()));
        }
        Some(heard)
    };
    if let (Some(whole), Some(pieces)) = (read(usize::MAX), read(piece)) {
        assert_eq!(whole, pieces);
    }
}

/// What somebody says who comes by SSH: the user name that stands for a node, and what the node is
/// asked for.
pub fn ssh(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if crate::relay::ssh::names_a_node(&text) {
        let plain = |ch: char| ch.is_ascii_graphic() && !matches!(ch, ',' | '\\');
        assert!(text.chars().all(plain) && !text.contains(".."));
    }
    crate::ssh::hear_anything(data);
}

/// What somebody says who has come in for files.
pub fn sftp(data: &[u8]) {
    crate::ssh::hear_files(data);
}

fn issuer() -> SigningKey {
    SigningKey::from_bytes(&[3; 32])
}

fn issuers() -> Issuers {
    Issuers::new(network(), SignKey::from(&issuer().verifying_key()))
}

fn network() -> NetworkId {
    "home".parse().expect("a name")
}

fn name() -> mesh::NodeName {
    "dev-1".parse().expect("a name")
}
