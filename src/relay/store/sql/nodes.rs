//! Nodes: join, renew, revoke.

use derp::NodeKey;
use mesh::{NetworkId, NodeRecord};
use sqlx::Row as _;

use super::networks::{add_member, next_revision};
use super::row::{NODE_COLUMNS, fixed, node, number, signed, text};
use super::{Change, Database, Error, Join, Joined, Renewal, Revocation, Sighting, Subject, Tx};
use crate::coord::Revision;
use crate::relay::store::{MAX_NODES, NodeRow, Refusal};

impl Database {
    pub(super) async fn redeem(&self, join: Join) -> Result<Joined, Error> {
        let network: Option<String> =
            sqlx::query_scalar("SELECT network FROM invites WHERE hash = $1")
                .bind(join.invite.0.as_slice())
                .fetch_optional(&self.pool)
                .await?;
        let mut tx = self.write(&network.ok_or(Refusal::InviteInvalid)?).await?;
        let invite = find_invite(&mut tx, &join).await?;
        if let Some(known) = find_by_key(&mut tx, &invite.network, &join.key).await? {
            return known_node(&invite, known, &join);
        }
        if invite.uses == 0 {
            return Err(Refusal::InviteUsedUp.into());
        }
        let bound_to = invite.bound_to.as_deref();
        if bound_to.is_some_and(|name| name != join.name.as_str()) {
            return Err(Refusal::NameBound.into());
        }
        let (nodes, namesakes): (i64, i64) = sqlx::query_as(
            "SELECT count(*), count(*) FILTER (WHERE name = $1) FROM nodes
             WHERE network = $2 AND revoked IS NULL",
        )
        .bind(join.name.as_str())
        .bind(invite.network.as_str())
        .fetch_one(&mut *tx)
        .await?;
        if namesakes > 0 {
            return Err(Refusal::NameTaken.into());
        }
        if nodes >= i64::from(MAX_NODES) {
            return Err(Refusal::NetworkFull.into());
        }
        let used = sqlx::query(
            "UPDATE invites SET uses_remaining = uses_remaining - 1
             WHERE id = $1 AND uses_remaining > 0",
        )
        .bind(&invite.id)
        .execute(&mut *tx)
        .await?;
        if used.rows_affected() == 0 {
            // Withdrawn in this very moment: that stands in no line.
            return Err(Refusal::InviteInvalid.into());
        }
        let revision = next_revision(&mut tx, &invite.network, join.mark, join.now).await?;
        let node = add_node(&mut tx, invite, join, revision).await?;
        tx.commit().await?;
        Ok(Joined::Added(Change { revision, node }))
    }

    pub(super) async fn renew_record(&self, renewal: Renewal) -> Result<Option<Change>, Error> {
        let mut tx = self.write(renewal.network.as_str()).await?;
        let Some(mut node) = find_by_key(&mut tx, &renewal.network, &renewal.key).await? else {
            return Ok(None);
        };
        if node.row.revoked.is_some() {
            return Ok(None);
        }
        let network = &renewal.network;
        let revision = next_revision(&mut tx, network, renewal.mark, renewal.now).await?;
        sqlx::query(
            "UPDATE nodes SET issued = $1, expires = $2, changed = $3 WHERE network = $4 AND key = $5",
        )
        .bind(signed(renewal.now)?)
        .bind(signed(renewal.expires)?)
        .bind(signed(revision.number)?)
        .bind(network.as_str())
        .bind(renewal.key.as_bytes().as_slice())
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        node.row.record.issued = renewal.now;
        node.row.record.expires = renewal.expires;
        node.row.changed = revision.number;
        Ok(Some(Change {
            revision,
            node: node.row,
        }))
    }

    pub(super) async fn revoke_node(
        &self,
        revocation: Revocation,
    ) -> Result<Option<Change>, Error> {
        let network = &revocation.network;
        let mut tx = self.write(network.as_str()).await?;
        let key: Option<Vec<u8>> = sqlx::query_scalar(
            "SELECT key FROM nodes WHERE network = $1 AND name = $2 AND revoked IS NULL",
        )
        .bind(network.as_str())
        .bind(revocation.name.as_str())
        .fetch_optional(&mut *tx)
        .await?;
        let Some(key) = key else { return Ok(None) };
        let revision = next_revision(&mut tx, network, revocation.mark, revocation.now).await?;
        sqlx::query("UPDATE nodes SET revoked = $1, changed = $2 WHERE network = $3 AND key = $4")
            .bind(signed(revocation.now)?)
            .bind(signed(revision.number)?)
            .bind(network.as_str())
            .bind(&key)
            .execute(&mut *tx)
            .await?;
        let key = NodeKey::from_bytes(fixed(key)?);
        let node = find_by_key(&mut tx, network, &key).await?;
        let node = node.ok_or(Error::Damaged("a node vanished"))?.row;
        tx.commit().await?;
        Ok(Some(Change { revision, node }))
    }

    pub(super) async fn note_seen(&self, mut sightings: Vec<Sighting>) -> Result<(), Error> {
        sightings.sort_by(|a, b| a.network.as_str().cmp(b.network.as_str()));
        for of_network in sightings.chunk_by(|a, b| a.network == b.network) {
            let Some(Sighting { network, .. }) = of_network.first() else {
                continue;
            };
            let mut tx = self.write(network.as_str()).await?;
            for Sighting { network, key, at } in of_network {
                sqlx::query(
                    "UPDATE nodes SET seen = $1
                     WHERE network = $2 AND key = $3 AND (seen IS NULL OR seen < $1)",
                )
                .bind(signed(*at)?)
                .bind(network.as_str())
                .bind(key.as_bytes().as_slice())
                .execute(&mut *tx)
                .await?;
            }
            tx.commit().await?;
        }
        Ok(())
    }
}

/// An invite in the middle of being redeemed.
struct Redeemed {
    id: String,
    network: NetworkId,
    created_by: String,
    mine: bool,
    bound_to: Option<String>,
    uses: i64,
}

/// A node and the invite that brought it.
struct Known {
    row: NodeRow,
    invite: String,
}

async fn find_invite(tx: &mut Tx, join: &Join) -> Result<Redeemed, Error> {
    let row = sqlx::query(
        "SELECT id, network, created_by, mine, node_name, uses_remaining, expires
         FROM invites WHERE hash = $1",
    )
    .bind(join.invite.0.as_slice())
    .fetch_optional(&mut **tx)
    .await?
    .ok_or(Refusal::InviteInvalid)?;
    if number(&row, "expires")? <= join.now {
        return Err(Refusal::InviteExpired.into());
    }
    Ok(Redeemed {
        id: row.try_get("id")?,
        network: text(&row, "network")?,
        created_by: row.try_get("created_by")?,
        mine: row.try_get("mine")?,
        bound_to: row.try_get("node_name")?,
        uses: row.try_get("uses_remaining")?,
    })
}

/// The answer to a join with a key that the network knows. The invite has to
/// be good for another use, or be the one this node came with.
fn known_node(invite: &Redeemed, known: Known, join: &Join) -> Result<Joined, Error> {
    if invite.uses == 0 && known.invite != invite.id {
        return Err(Refusal::InviteUsedUp.into());
    }
    let record = &known.row.record;
    if record.sign_key != join.sign_key {
        return Err(Refusal::NameTaken.into());
    }
    if known.row.revoked.is_some() {
        return Err(Refusal::Revoked.into());
    }
    if record.name != join.name {
        return Err(Refusal::AlreadyJoined.into());
    }
    Ok(Joined::Was(known.row))
}

async fn add_node(
    tx: &mut Tx,
    invite: Redeemed,
    join: Join,
    revision: Revision,
) -> Result<NodeRow, Error> {
    let owner = if invite.mine {
        Subject(invite.created_by)
    } else {
        let guest = Subject::guest(&invite.id);
        add_member(tx, &invite.network, &guest, "guest", signed(join.now)?).await?;
        guest
    };
    sqlx::query(
        "INSERT INTO nodes (network, key, name, sign_key, owner, groups, invite, issued, expires,
           created, changed) VALUES ($1, $2, $3, $4, $5, '[]', $6, $7, $8, $9, $10)",
    )
    .bind(invite.network.as_str())
    .bind(join.key.as_bytes().as_slice())
    .bind(join.name.as_str())
    .bind(join.sign_key.as_bytes().as_slice())
    .bind(owner.as_str())
    .bind(&invite.id)
    .bind(signed(join.now)?)
    .bind(signed(join.expires)?)
    .bind(signed(join.now)?)
    .bind(signed(revision.number)?)
    .execute(&mut **tx)
    .await?;
    Ok(NodeRow {
        record: NodeRecord {
            network: invite.network,
            name: join.name,
            key: join.key,
            sign_key: join.sign_key,
            owner: owner.0,
            groups: Vec::new(),
            issued: join.now,
            expires: join.expires,
        },
        changed: revision.number,
        seen: None,
        revoked: None,
    })
}

async fn find_by_key(
    tx: &mut Tx,
    network: &NetworkId,
    key: &NodeKey,
) -> Result<Option<Known>, Error> {
    let query = format!("SELECT {NODE_COLUMNS}, invite FROM nodes WHERE network = $1 AND key = $2");
    let row = sqlx::query(sqlx::AssertSqlSafe(query))
        .bind(network.as_str())
        .bind(key.as_bytes().as_slice())
        .fetch_optional(&mut **tx)
        .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Known {
        invite: row.try_get("invite")?,
        row: node(&row)?,
    }))
}
