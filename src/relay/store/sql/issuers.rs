//! Issuers: how they follow each other, and how a network ends.

use derp::NodeKey;
use ed25519_dalek::SigningKey;
use mesh::{NetworkId, SignKey};
use sqlx::Row as _;

use super::networks::next_revision;
use super::papers::next_serial;
use super::row::{NODE_COLUMNS, fixed, node, signed};
use super::{Database, Death, Error, Mourner, Rotated, Rotation, Row, Tx, engine};
use crate::coord::Revision;
use crate::coord::handover::{
    Handover, Issuers, MAX_HANDOVERS, Obituary, SignedHandover, SignedObituary,
};
use crate::paper::Paper;
use crate::relay::store::cluster::Note;
use crate::relay::store::{NodeRow, Refusal};

impl Database {
    pub(super) async fn hand_over(&self, rotation: Rotation) -> Result<Option<Rotated>, Error> {
        let now = rotation.now_ms / 1000;
        let network = &rotation.network;
        let mut tx = self.write(network.as_str()).await?;
        let Some(old) = seed(&mut tx, network).await? else {
            return Ok(None);
        };
        let mut issuers = load(&mut tx, network, &old).await?;
        let number = issuers.count().saturating_add(1);
        if usize::try_from(number).is_ok_and(|number| number > MAX_HANDOVERS) {
            return Err(Refusal::TooManyHandovers.into());
        }
        let handover = Handover {
            network: network.clone(),
            number,
            old: *issuers.current(),
            new: SignKey::from(&rotation.issuer.verifying_key()),
            issued: now,
            retires: rotation.retires,
        };
        let link = SignedHandover::sign(&handover, &old, &rotation.issuer);
        let body = serde_json::to_string(&link).map_err(|_| Error::Damaged("a hand-over"))?;
        issuers
            .extend(&[link])
            .map_err(|_| Error::Damaged("a hand-over"))?;
        sqlx::query("INSERT INTO handovers (network, number, body) VALUES ($1, $2, $3)")
            .bind(network.as_str())
            .bind(i64::from(number))
            .bind(body)
            .execute(&mut *tx)
            .await?;
        sqlx::query("UPDATE issuers SET seed = $1, created = $2 WHERE network = $3")
            .bind(rotation.issuer.to_bytes().as_slice())
            .bind(signed(now)?)
            .bind(network.as_str())
            .execute(&mut *tx)
            .await?;
        let revision = next_revision(&mut tx, network, rotation.mark, now).await?;
        let nodes = renew_all(&mut tx, &rotation, revision).await?;
        let papers = refile_all(&mut tx, &rotation).await?;
        tx.commit().await?;
        if let Err(error) = engine::forget_secrets(&self.pool).await {
            tracing::warn!(%error, "the old issuer's key could not be wiped out");
        }
        Ok(Some(Rotated {
            issuer: rotation.issuer,
            issuers,
            revision,
            nodes,
            papers,
        }))
    }

    pub(super) async fn drop_network(
        &self,
        network: NetworkId,
        now: u64,
    ) -> Result<Option<Death>, Error> {
        let mut tx = self.write(network.as_str()).await?;
        let Some(issuer) = seed(&mut tx, &network).await? else {
            return Ok(None);
        };
        let issuers = load(&mut tx, &network, &issuer).await?;
        let obituary = Obituary {
            network: network.clone(),
            root: *issuers.root(),
            deleted: now,
        };
        let death = Death {
            handovers: issuers.after(0),
            obituary: SignedObituary::sign(&obituary, &issuer),
        };
        let body = serde_json::to_string(&death).map_err(|_| Error::Damaged("an obituary"))?;
        sqlx::query(
            "INSERT INTO obituaries (network, root, key, sign_key, body, deleted)
             SELECT network, $2, key, sign_key, $3, $4 FROM nodes
             WHERE network = $1 AND revoked IS NULL",
        )
        .bind(network.as_str())
        .bind(issuers.root().as_bytes().as_slice())
        .bind(body)
        .bind(signed(now)?)
        .execute(&mut *tx)
        .await?;
        sqlx::query("DELETE FROM networks WHERE id = $1")
            .bind(network.as_str())
            .execute(&mut *tx)
            .await?;
        engine::note(&mut tx, &Note::Network(network)).await?;
        tx.commit().await?;
        Ok(Some(death))
    }

    pub(super) async fn find_deaths(
        &self,
        network: NetworkId,
        key: NodeKey,
    ) -> Result<Vec<Mourner>, Error> {
        let rows = sqlx::query(
            "SELECT root, sign_key, body FROM obituaries WHERE network = $1 AND key = $2
             ORDER BY deleted DESC LIMIT 16",
        )
        .bind(network.as_str())
        .bind(key.as_bytes().as_slice())
        .fetch_all(&self.pool)
        .await?;
        let mourner = |row: &Row| {
            let body: String = row.try_get("body")?;
            Ok(Mourner {
                root: SignKey::from_bytes(fixed(row.try_get("root")?)?),
                sign_key: SignKey::from_bytes(fixed(row.try_get("sign_key")?)?),
                death: serde_json::from_str(&body).map_err(|_| Error::Damaged("an obituary"))?,
            })
        };
        rows.iter().map(mourner).collect()
    }
}

/// The issuers of a network, the last of them with this key.
pub(super) async fn load(
    tx: &mut Tx,
    network: &NetworkId,
    issuer: &SigningKey,
) -> Result<Issuers, Error> {
    let damaged = |_| Error::Damaged("a hand-over");
    let bodies: Vec<String> =
        sqlx::query_scalar("SELECT body FROM handovers WHERE network = $1 ORDER BY number")
            .bind(network.as_str())
            .fetch_all(&mut **tx)
            .await?;
    let links = bodies
        .iter()
        .map(|body| serde_json::from_str(body).map_err(|_| Error::Damaged("a hand-over")))
        .collect::<Result<Vec<SignedHandover>, _>>()?;
    let current = SignKey::from(&issuer.verifying_key());
    let root = match links.first() {
        Some(first) => first.verify(network).map_err(damaged)?.old,
        None => current,
    };
    let issuers = Issuers::restore(network.clone(), root, &links).map_err(damaged)?;
    if *issuers.current() == current {
        Ok(issuers)
    } else {
        Err(Error::Damaged("the issuer is not the one handed over to"))
    }
}

async fn seed(tx: &mut Tx, network: &NetworkId) -> Result<Option<SigningKey>, Error> {
    let seed: Option<Vec<u8>> = sqlx::query_scalar("SELECT seed FROM issuers WHERE network = $1")
        .bind(network.as_str())
        .fetch_optional(&mut **tx)
        .await?;
    let seed = seed.map(fixed).transpose()?;
    Ok(seed.map(|seed| SigningKey::from_bytes(&seed)))
}

/// New periods for the records of all live nodes. One that was issued by a clock ahead of this
/// one keeps its time: a reader takes the later of two.
async fn renew_all(
    tx: &mut Tx,
    rotation: &Rotation,
    revision: Revision,
) -> Result<Vec<NodeRow>, Error> {
    sqlx::query(
        "UPDATE nodes SET issued = CASE WHEN issued < $1 THEN $1 ELSE issued END,
           expires = CASE WHEN expires < $2 THEN $2 ELSE expires END, changed = $3
         WHERE network = $4 AND revoked IS NULL",
    )
    .bind(signed(rotation.now_ms / 1000)?)
    .bind(signed(rotation.expires)?)
    .bind(signed(revision.number)?)
    .bind(rotation.network.as_str())
    .execute(&mut **tx)
    .await?;
    let query = format!("SELECT {NODE_COLUMNS} FROM nodes WHERE network = $1 AND revoked IS NULL");
    let rows = sqlx::query(sqlx::AssertSqlSafe(query))
        .bind(rotation.network.as_str())
        .fetch_all(&mut **tx)
        .await?;
    rows.iter().map(node).collect()
}

/// New serials for all papers, in the order in which they were.
async fn refile_all(tx: &mut Tx, rotation: &Rotation) -> Result<Vec<Paper>, Error> {
    let mut papers = super::papers::load(tx, &rotation.network, 0).await?;
    for paper in &mut papers {
        let serial = next_serial(tx, &rotation.network, rotation.now_ms).await?;
        sqlx::query("UPDATE papers SET serial = $1 WHERE network = $2 AND name = $3")
            .bind(signed(serial)?)
            .bind(rotation.network.as_str())
            .bind(paper.matter.name().text())
            .execute(&mut **tx)
            .await?;
        paper.serial = serial;
    }
    Ok(papers)
}
