//! Redeems an invite: this node becomes a member of a network.

use std::time::{SystemTime, UNIX_EPOCH};

use mesh::{Identity, NodeName};
use reqwest::Method;

use super::Membership;
use super::http::Http;
use crate::coord::handover::Issuers;
use crate::coord::request::{Credential, Request, SCHEME, Signer};
use crate::coord::{Invite, JoinProof, JoinRequest, JoinResponse, Nonce, Signature};
use crate::error::{Error, Result};

/// Joins the network that `invite` is for, under `name`. May be repeated: the
/// same node with the same name gets the same place again.
///
/// # Errors
///
/// The relay's refusals (`invite_invalid`, `invite_expired`, `invite_used_up`,
/// `name_taken`, `already_joined`, `revoked`, …), `invite_malformed`,
/// `relay_unreachable`, and `relay_untrusted` when what came back is not signed
/// by the key that the invite names.
pub async fn join(
    relay_url: &str,
    invite: &str,
    name: &NodeName,
    identity: &Identity,
) -> Result<Membership> {
    let invite: Invite = invite
        .trim()
        .parse()
        .map_err(|error: crate::coord::Malformed| {
            Error::new("invite_malformed", error.to_string())
        })?;
    let http = Http::new(relay_url, None)?;
    let request = request(&invite, name, identity);
    let request = http.request(Method::POST, "/api/v1/join").json(&request);
    let answer: JoinResponse = http.send(request).await?;

    let untrusted = |why: &str| {
        Error::new(
            "relay_untrusted",
            format!("the relay's answer is not to be trusted: {why}"),
        )
        .hint("check that the invite and the relay's URL belong together")
    };
    let (network, root) = (answer.network_id.clone(), answer.issuer_key);
    let issuers = Issuers::restore(network, root, &answer.handovers)
        .map_err(|error| untrusted(&format!("a hand-over of its issuer is not right: {error}")))?;
    // The key in the invite may have handed over meanwhile, or follow others itself.
    if !issuers.includes(invite.issuer()) {
        return Err(untrusted("it is not of the issuer that the invite names"));
    }
    let (record, _) = issuers
        .verify(&answer.record, unix_now())
        .map_err(|error| untrusted(&error.to_string()))?;
    let is_ours = record.key == identity.key()
        && record.sign_key == identity.verifying_key()
        && record.name == *name;
    if !is_ours {
        return Err(untrusted("the record is another node's"));
    }
    Ok(Membership {
        relay_url: relay_url.trim().trim_end_matches('/').to_owned(),
        network: answer.network_id,
        name: name.clone(),
        issuer: *issuers.root(),
        handovers: issuers.after(0),
        record: answer.record,
    })
}

fn request(invite: &Invite, name: &NodeName, identity: &Identity) -> JoinRequest {
    let (key, sign_key) = (identity.key(), identity.verifying_key());
    let timestamp = unix_now();
    let proof = JoinProof {
        invite,
        name: name.as_str(),
        key: &key,
        sign_key: &sign_key,
        timestamp,
    };
    JoinRequest {
        invite_token: invite.to_string(),
        node_name: name.to_string(),
        key,
        sign_key,
        timestamp,
        proof: Signature::sign(identity.signing_key(), &proof.message()),
    }
}

/// The header by which a request counts as this node's.
///
/// # Errors
///
/// `internal` without random numbers.
pub fn sign(
    membership: &Membership,
    identity: &Identity,
    target: (&str, &str),
    body: &[u8],
) -> Result<String> {
    let signer = Signer {
        network: &membership.network,
        key: identity.key(),
        signing: identity.signing_key(),
    };
    let request = Request {
        issuer: &membership.issuer,
        method: target.0,
        path: target.1,
    };
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(Error::internal)?;
    let credential = Credential::sign(&signer, &request, body, unix_now(), Nonce(nonce));
    Ok(format!("{SCHEME} {credential}"))
}

/// Makes a request of the API in this node's name; the answer's body.
///
/// # Errors
///
/// The relay's refusals, or `relay_unreachable`.
pub async fn sign_request(
    membership: &Membership,
    identity: &Identity,
    (method, path): (Method, &str),
    body: Option<&[u8]>,
) -> Result<Vec<u8>> {
    let target = (method.as_str(), path);
    let auth = sign(membership, identity, target, body.unwrap_or_default())?;
    let client = Http::new(&membership.relay_url, None)?;
    let request = client.request(method.clone(), path);
    let mut request = request.header(http::header::AUTHORIZATION, auth);
    if let Some(body) = body {
        request = request
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(body.to_vec());
    }
    client.send_raw(request).await
}

/// Seconds since 1970; 0 for a clock before that.
pub(crate) fn unix_now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |passed| passed.as_secs())
}
