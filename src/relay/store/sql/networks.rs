//! Networks and their members.

use ed25519_dalek::SigningKey;
use mesh::{NetworkId, SignKey};
use sqlx::Row as _;

use super::row::{NODE_COLUMNS, fixed, node, number, revision, signed, text, unsigned};
use super::{
    Creation, Database, Error, MemberInfo, NetworkInfo, NetworkState, NewNetwork, Role, Row,
    Subject, Tx, engine,
};
use crate::coord::handover::Issuers;
use crate::coord::{Mark, Revision};
use crate::relay::store::Refusal;
use crate::relay::store::cluster::Note;

impl Database {
    pub(super) async fn load_all(&self) -> Result<Vec<NetworkState>, Error> {
        let mut tx = self.read().await?;
        let rows = sqlx::query(
            "SELECT n.id, n.revision, n.mark, i.seed
             FROM networks n JOIN issuers i ON i.network = n.id ORDER BY n.id",
        )
        .fetch_all(&mut *tx)
        .await?;
        let mut networks = Vec::with_capacity(rows.len());
        for row in rows {
            networks.push(network_state(&mut tx, &row).await?);
        }
        Ok(networks)
    }

    pub(super) async fn list_networks(
        &self,
        subject: Option<Subject>,
        now: u64,
    ) -> Result<Vec<NetworkInfo>, Error> {
        let rows = sqlx::query(
            "SELECT id, created,
               (SELECT count(*) FROM nodes WHERE network = networks.id AND revoked IS NULL) AS nodes,
               (SELECT count(*) FROM invites
                WHERE network = networks.id AND uses_remaining > 0 AND expires > $1) AS invites
             FROM networks
             WHERE $2 IS NULL
                OR EXISTS (SELECT 1 FROM members WHERE network = networks.id AND subject = $2)
             ORDER BY id",
        )
        .bind(signed(now)?)
        .bind(subject.map(|subject| subject.0))
        .fetch_all(&self.pool)
        .await?;
        let info = |row: &Row| {
            Ok(NetworkInfo {
                id: text(row, "id")?,
                created: number(row, "created")?,
                nodes: number(row, "nodes")?,
                invites: number(row, "invites")?,
            })
        };
        rows.iter().map(info).collect()
    }

    pub(super) async fn add_network(&self, new: NewNetwork) -> Result<Creation, Error> {
        let id = new.id.as_str();
        let mut tx = self.write(id).await?;
        let exists: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM networks WHERE id = $1)")
                .bind(id)
                .fetch_one(&mut *tx)
                .await?;
        if exists {
            let member: bool = sqlx::query_scalar(
                "SELECT EXISTS (SELECT 1 FROM members WHERE network = $1 AND subject = $2)",
            )
            .bind(id)
            .bind(new.owner.as_str())
            .fetch_one(&mut *tx)
            .await?;
            return if member {
                Ok(Creation::Existed)
            } else {
                Err(Refusal::NetworkTaken.into())
            };
        }
        let now = signed(new.now)?;
        sqlx::query("INSERT INTO networks (id, created, revision, mark) VALUES ($1, $2, 0, $3)")
            .bind(id)
            .bind(now)
            .bind(new.mark.0.as_slice())
            .execute(&mut *tx)
            .await?;
        sqlx::query("INSERT INTO issuers (network, seed, created) VALUES ($1, $2, $3)")
            .bind(id)
            .bind(new.issuer.to_bytes().as_slice())
            .bind(now)
            .execute(&mut *tx)
            .await?;
        add_member(&mut tx, &new.id, &new.owner, "owner", now).await?;
        engine::note(&mut tx, &Note::Network(new.id.clone())).await?;
        tx.commit().await?;
        let root = SignKey::from(&new.issuer.verifying_key());
        Ok(Creation::Created(NetworkState {
            issuers: Issuers::new(new.id.clone(), root),
            id: new.id,
            issuer: new.issuer,
            revision: Revision {
                number: 0,
                mark: new.mark,
            },
            history: Vec::new(),
            nodes: Vec::new(),
            papers: Vec::new(),
        }))
    }

    pub(super) async fn find_role(
        &self,
        network: NetworkId,
        subject: Subject,
    ) -> Result<Option<Role>, Error> {
        let role: Option<String> =
            sqlx::query_scalar("SELECT role FROM members WHERE network = $1 AND subject = $2")
                .bind(network.as_str())
                .bind(subject.as_str())
                .fetch_optional(&self.pool)
                .await?;
        let role = role.map(|role| Role::parse(&role).ok_or(Error::Damaged("a role")));
        role.transpose()
    }

    pub(super) async fn list_members(&self, network: NetworkId) -> Result<Vec<MemberInfo>, Error> {
        let rows = sqlx::query(
            "SELECT subject, role, created,
               (SELECT count(*) FROM nodes
                WHERE network = $1 AND owner = members.subject AND revoked IS NULL) AS nodes
             FROM members WHERE network = $1
             ORDER BY CASE role WHEN 'owner' THEN 0 WHEN 'member' THEN 1 ELSE 2 END, subject",
        )
        .bind(network.as_str())
        .fetch_all(&self.pool)
        .await?;
        let info = |row: &Row| {
            let role: String = row.try_get("role")?;
            Ok(MemberInfo {
                subject: Subject(row.try_get("subject")?),
                role: Role::parse(&role).ok_or(Error::Damaged("a role"))?,
                since: number(row, "created")?,
                nodes: number(row, "nodes")?,
            })
        };
        rows.iter().map(info).collect()
    }

    pub(super) async fn change_role(
        &self,
        network: NetworkId,
        subject: Subject,
        role: Option<Role>,
    ) -> Result<bool, Error> {
        let mut tx = self.write(network.as_str()).await?;
        let others: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM members WHERE network = $1 AND role = 'owner' AND subject <> $2",
        )
        .bind(network.as_str())
        .bind(subject.as_str())
        .fetch_one(&mut *tx)
        .await?;
        let query = match role {
            Some(_) => "UPDATE members SET role = $3 WHERE network = $1 AND subject = $2",
            None => "DELETE FROM members WHERE network = $1 AND subject = $2 AND $3 IS NULL",
        };
        let done = sqlx::query(query)
            .bind(network.as_str())
            .bind(subject.as_str())
            .bind(role.map(Role::as_str))
            .execute(&mut *tx)
            .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        if others == 0 && role != Some(Role::Owner) {
            return Err(Refusal::LastOwner.into());
        }
        // Only owners invite: what somebody else has from one that was is void.
        if role != Some(Role::Owner) {
            sqlx::query("DELETE FROM invites WHERE network = $1 AND created_by = $2")
                .bind(network.as_str())
                .bind(subject.as_str())
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await?;
        Ok(true)
    }
}

/// Adds a member unless there is one, whose role then stays.
pub(super) async fn add_member(
    tx: &mut Tx,
    network: &NetworkId,
    subject: &Subject,
    role: &str,
    now: i64,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO members (network, subject, role, created) VALUES ($1, $2, $3, $4)
         ON CONFLICT (network, subject) DO NOTHING",
    )
    .bind(network.as_str())
    .bind(subject.as_str())
    .bind(role)
    .bind(now)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub(super) async fn next_revision(
    tx: &mut Tx,
    network: &NetworkId,
    mark: Mark,
    now: u64,
) -> Result<Revision, Error> {
    let number: i64 = sqlx::query_scalar(
        "UPDATE networks SET revision = revision + 1, mark = $1 WHERE id = $2 RETURNING revision",
    )
    .bind(mark.0.as_slice())
    .bind(network.as_str())
    .fetch_one(&mut **tx)
    .await?;
    sqlx::query("INSERT INTO changes (network, revision, mark, at) VALUES ($1, $2, $3, $4)")
        .bind(network.as_str())
        .bind(number)
        .bind(mark.0.as_slice())
        .bind(signed(now)?)
        .execute(&mut **tx)
        .await?;
    engine::note(tx, &Note::Network(network.clone())).await?;
    let number = unsigned(number)?;
    Ok(Revision { number, mark })
}

/// The revisions after a number, oldest first.
pub(super) async fn history(
    tx: &mut Tx,
    network: &NetworkId,
    after: i64,
) -> Result<Vec<Revision>, Error> {
    let rows = sqlx::query(
        "SELECT revision, mark FROM changes WHERE network = $1 AND revision > $2
         ORDER BY revision",
    )
    .bind(network.as_str())
    .bind(after)
    .fetch_all(&mut **tx)
    .await?;
    rows.iter().map(revision).collect()
}

pub(super) async fn network_state(tx: &mut Tx, row: &Row) -> Result<NetworkState, Error> {
    let id: NetworkId = text(row, "id")?;
    let query = format!("SELECT {NODE_COLUMNS} FROM nodes WHERE network = $1 ORDER BY key");
    let nodes = sqlx::query(sqlx::AssertSqlSafe(query))
        .bind(id.as_str())
        .fetch_all(&mut **tx)
        .await?;
    let history = history(tx, &id, -1).await?;
    let papers = super::papers::load(tx, &id, 0).await?;
    let issuer = SigningKey::from_bytes(&fixed(row.try_get("seed")?)?);
    Ok(NetworkState {
        issuers: super::issuers::load(tx, &id, &issuer).await?,
        id,
        issuer,
        revision: revision(row)?,
        history,
        nodes: nodes.iter().map(node).collect::<Result<_, _>>()?,
        papers,
    })
}
