//! Invites, apart from their redemption.

use mesh::NetworkId;
use sqlx::Row as _;

use super::row::{number, signed};
use super::{Database, Error, InviteInfo, NewInvite, Row, Subject};
use crate::relay::store::{MAX_INVITES, Refusal};

impl Database {
    pub(super) async fn add_invite(&self, invite: NewInvite) -> Result<(), Error> {
        let mut tx = self.write(invite.network.as_str()).await?;
        let open: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM invites
             WHERE network = $1 AND uses_remaining > 0 AND expires > $2",
        )
        .bind(invite.network.as_str())
        .bind(signed(invite.now)?)
        .fetch_one(&mut *tx)
        .await?;
        if open >= i64::from(MAX_INVITES) {
            return Err(Refusal::TooManyInvites.into());
        }
        sqlx::query(
            "INSERT INTO invites
               (id, hash, network, created_by, mine, uses_remaining, created, expires, node_name)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(&invite.id)
        .bind(invite.hash.0.as_slice())
        .bind(invite.network.as_str())
        .bind(invite.created_by.as_str())
        .bind(invite.mine)
        .bind(i64::from(invite.uses))
        .bind(signed(invite.now)?)
        .bind(signed(invite.expires)?)
        .bind(invite.node_name.as_ref().map(mesh::NodeName::as_str))
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(())
    }

    pub(super) async fn list_invites(
        &self,
        network: NetworkId,
        now: u64,
    ) -> Result<Vec<InviteInfo>, Error> {
        let rows = sqlx::query(
            "SELECT id, created_by, mine, uses_remaining, created, expires, node_name FROM invites
             WHERE network = $1 AND uses_remaining > 0 AND expires > $2 ORDER BY created DESC, id",
        )
        .bind(network.as_str())
        .bind(signed(now)?)
        .fetch_all(&self.pool)
        .await?;
        let info = |row: &Row| {
            let bound: Option<String> = row.try_get("node_name")?;
            let bound = bound.map(|name| name.parse().map_err(|_| Error::Damaged("a name")));
            Ok(InviteInfo {
                node_name: bound.transpose()?,
                id: row.try_get("id")?,
                created_by: Subject(row.try_get("created_by")?),
                mine: row.try_get("mine")?,
                uses_remaining: u32::try_from(number(row, "uses_remaining")?)
                    .map_err(|_| Error::Damaged("the uses of an invite"))?,
                created: number(row, "created")?,
                expires: number(row, "expires")?,
            })
        };
        rows.iter().map(info).collect()
    }

    pub(super) async fn remove_invite(
        &self,
        network: NetworkId,
        id: String,
    ) -> Result<bool, Error> {
        let done = sqlx::query("DELETE FROM invites WHERE network = $1 AND id = $2")
            .bind(network.as_str())
            .bind(id)
            .execute(&self.pool)
            .await?;
        Ok(done.rows_affected() > 0)
    }
}
