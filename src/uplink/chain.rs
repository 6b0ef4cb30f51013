//! Who speaks for the network, in a file: the hand-overs that this node has heard, and the
//! obituary if there was one.
//!
//! Unlike the cache it is on the disk before anything else of the relay's is taken in: a node
//! that has once believed a key does not go back to the one before. Nothing in it is believed
//! without its signatures.

use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mesh::{Identity, NodeRecord, SignKey, SignedRecord};
use serde::{Deserialize, Serialize};

use super::Membership;
use super::join::unix_now;
use crate::coord::handover::{Broken, Issuers, SignedHandover, SignedObituary};
use crate::error::{Error, Result};
use crate::home::write_private;

/// The longest file that is read, bytes: as many hand-overs as there may be are half of it.
const MAX_FILE: u64 = 1024 * 1024;

/// See the module.
#[derive(Serialize, Deserialize)]
struct Saved {
    /// The first issuer: a file of another network is of no use.
    root: SignKey,
    handovers: Vec<SignedHandover>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    obituary: Option<SignedObituary>,
}

/// What there is to know of the issuer at start, and whether the network has ended.
///
/// # Errors
///
/// `corrupt` when the membership does not hold together.
pub(super) fn load(membership: &Membership, path: &Path) -> Result<(Issuers, bool)> {
    let broken = |error: Broken| {
        let text = format!("the membership has a hand-over that is not right: {error}");
        Error::new("corrupt", text).hint("join the network again")
    };
    let (network, root) = (membership.network.clone(), membership.issuer);
    let mut issuers = Issuers::restore(network, root, &membership.handovers).map_err(broken)?;
    let Some(saved) = read(path).filter(|saved| saved.root == membership.issuer) else {
        return Ok((issuers, false));
    };
    if let Err(error) = issuers.extend(&saved.handovers) {
        tracing::warn!(path = %path.display(), %error, "a kept hand-over is not believed");
    }
    let ended = saved.obituary.map(|obituary| obituary.verify(&issuers));
    Ok((issuers, matches!(ended, Some(Ok(_)))))
}

fn read(path: &Path) -> Option<Saved> {
    let size = std::fs::metadata(path).map_or(0, |file| file.len());
    if size == 0 || size > MAX_FILE {
        return None;
    }
    let read = std::fs::read(path).and_then(|bytes| Ok(serde_json::from_slice(&bytes)?));
    read.inspect_err(|error| {
        tracing::warn!(path = %path.display(), %error, "the kept hand-overs are unreadable");
    })
    .ok()
}

/// Keeps what there is to know, on the disk when this returns.
pub(super) async fn store(
    path: PathBuf,
    issuers: &Issuers,
    obituary: Option<SignedObituary>,
) -> io::Result<()> {
    let saved = Saved {
        root: *issuers.root(),
        handovers: issuers.after(0),
        obituary,
    };
    let bytes = serde_json::to_vec_pretty(&saved)?;
    let written = tokio::task::spawn_blocking(move || write_private(&path, &bytes)).await;
    written.map_err(io::Error::other)?
}

/// The record in the membership. That it has expired is no reason not to
/// start: the relay renews it.
pub(super) fn own_record(
    membership: &Membership,
    issuers: &Issuers,
    identity: &Identity,
) -> Result<NodeRecord> {
    let signed = &membership.record;
    // The key that signed it may have retired since; its hand-overs are those of the file.
    let joined = Issuers::restore(
        membership.network.clone(),
        *issuers.root(),
        &membership.handovers,
    );
    let by = joined.map_or_else(|_| *issuers.root(), |joined| *joined.current());
    let record = match signed.verify(&by, &membership.network, unix_now()) {
        Err(mesh::Error::RecordExpired) => {
            unchecked(signed).ok_or(mesh::Error::RecordInvalid("not the expected JSON"))?
        }
        verified => verified?,
    };
    if record.key == identity.key() {
        Ok(record)
    } else {
        Err(Error::new(
            "config_invalid",
            "the membership is of another identity than this node's",
        )
        .hint("join the network again"))
    }
}

/// The record inside, for one whose signature was found right before.
fn unchecked(signed: &SignedRecord) -> Option<NodeRecord> {
    let outer = serde_json::to_value(signed).ok()?;
    let bytes = URL_SAFE_NO_PAD
        .decode(outer.get("record")?.as_str()?)
        .ok()?;
    serde_json::from_slice(&bytes).ok()
}
