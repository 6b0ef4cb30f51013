//! The store in one SQLite file.
//!
//! One connection does everything: transactions stand in line in memory
//! instead of colliding in the file, and reads are few since the directory
//! answers from memory. Writing transactions begin as such (`BEGIN
//! IMMEDIATE`), so what they read still holds when they write. The file and
//! its log are 0600.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use derp::NodeKey;
use ed25519_dalek::SigningKey;
use futures_util::FutureExt as _;
use mesh::{NetworkId, NodeName, NodeRecord, SignKey};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
};
use sqlx::{Row as _, Sqlite as Engine, Transaction};

use super::{
    Answer, Change, Creation, EXPIRED_INVITES_KEPT, Error, InviteInfo, Join, Joined, MAX_CHANGES,
    MAX_INVITES, MAX_NODES, NetworkInfo, NetworkState, NewInvite, NewNetwork, NodeRow, Refusal,
    Renewal, Revocation, Role, Store, Subject,
};
use crate::coord::{Mark, Revision};

/// Each brings the schema one version further. Never edit one that was
/// released: add another.
const MIGRATIONS: &[&str] = &[include_str!("migrations/0001_start.sql")];

/// How long to wait for another process (a backup, a shell) that holds the
/// file.
const BUSY: Duration = Duration::from_secs(5);

const NODE_COLUMNS: &str = "network, key, name, sign_key, owner, groups, issued, expires, \
     changed, seen, revoked";

/// See the module.
pub(crate) struct Sqlite {
    pool: SqlitePool,
}

impl Sqlite {
    /// Opens the database, creates it if there is none, and brings it to the
    /// present version.
    ///
    /// # Errors
    ///
    /// [`Error::Newer`] when a newer program wrote it, or what the file
    /// system and the database say.
    pub(crate) async fn open(path: &Path) -> Result<Self, Error> {
        std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .map_err(|source| Error::File {
                path: path.display().to_string(),
                source,
            })?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .busy_timeout(BUSY)
            .foreign_keys(true);
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options)
            .await?;
        let store = Self { pool };
        store.migrate().await?;
        Ok(store)
    }

    async fn migrate(&self) -> Result<(), Error> {
        let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
        let mut tx = self.write().await?;
        let found: i64 = sqlx::query_scalar("PRAGMA user_version")
            .fetch_one(&mut *tx)
            .await?;
        if found > known {
            return Err(Error::Newer { found, known });
        }
        let done = usize::try_from(found).map_err(|_| Error::Damaged("a negative version"))?;
        for migration in MIGRATIONS.iter().skip(done) {
            sqlx::raw_sql(*migration).execute(&mut *tx).await?;
        }
        // A pragma takes no parameters; this one is a number of ours.
        let version = format!("PRAGMA user_version = {known}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(version))
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(())
    }

    async fn write(&self) -> Result<Transaction<'static, Engine>, Error> {
        Ok(self.pool.begin_with("BEGIN IMMEDIATE").await?)
    }

    async fn load_all(&self) -> Result<Vec<NetworkState>, Error> {
        let mut tx = self.pool.begin().await?;
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

    async fn list_networks(
        &self,
        subject: Option<Subject>,
        now: u64,
    ) -> Result<Vec<NetworkInfo>, Error> {
        let rows = sqlx::query(
            "SELECT id, created,
               (SELECT count(*) FROM nodes WHERE network = networks.id AND revoked IS NULL) AS nodes,
               (SELECT count(*) FROM invites
                WHERE network = networks.id AND uses_remaining > 0 AND expires > ?1) AS invites
             FROM networks
             WHERE ?2 IS NULL
                OR EXISTS (SELECT 1 FROM members WHERE network = networks.id AND subject = ?2)
             ORDER BY id",
        )
        .bind(signed(now)?)
        .bind(subject.map(|subject| subject.0))
        .fetch_all(&self.pool)
        .await?;
        let info = |row: &SqliteRow| {
            Ok(NetworkInfo {
                id: text(row, "id")?,
                created: number(row, "created")?,
                nodes: number(row, "nodes")?,
                invites: number(row, "invites")?,
            })
        };
        rows.iter().map(info).collect()
    }

    async fn add_network(&self, new: NewNetwork) -> Result<Creation, Error> {
        let mut tx = self.write().await?;
        let id = new.id.as_str();
        let exists: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM networks WHERE id = ?)")
                .bind(id)
                .fetch_one(&mut *tx)
                .await?;
        if exists {
            let member: bool = sqlx::query_scalar(
                "SELECT EXISTS (SELECT 1 FROM members WHERE network = ? AND subject = ?)",
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
        sqlx::query("INSERT INTO networks (id, created, revision, mark) VALUES (?, ?, 0, ?)")
            .bind(id)
            .bind(now)
            .bind(new.mark.0.as_slice())
            .execute(&mut *tx)
            .await?;
        sqlx::query("INSERT INTO issuers (network, seed, created) VALUES (?, ?, ?)")
            .bind(id)
            .bind(new.issuer.to_bytes().as_slice())
            .bind(now)
            .execute(&mut *tx)
            .await?;
        add_member(&mut tx, &new.id, &new.owner, "owner", now).await?;
        tx.commit().await?;
        Ok(Creation::Created(NetworkState {
            id: new.id,
            issuer: new.issuer,
            revision: Revision {
                number: 0,
                mark: new.mark,
            },
            history: Vec::new(),
            nodes: Vec::new(),
        }))
    }

    async fn find_role(&self, network: NetworkId, subject: Subject) -> Result<Option<Role>, Error> {
        let role: Option<String> =
            sqlx::query_scalar("SELECT role FROM members WHERE network = ? AND subject = ?")
                .bind(network.as_str())
                .bind(subject.as_str())
                .fetch_optional(&self.pool)
                .await?;
        match role.as_deref() {
            None => Ok(None),
            Some("owner") => Ok(Some(Role::Owner)),
            Some("member") => Ok(Some(Role::Member)),
            Some("guest") => Ok(Some(Role::Guest)),
            Some(_) => Err(Error::Damaged("a role")),
        }
    }

    async fn add_invite(&self, invite: NewInvite) -> Result<(), Error> {
        let mut tx = self.write().await?;
        let open: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM invites
             WHERE network = ? AND uses_remaining > 0 AND expires > ?",
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
               (id, hash, network, created_by, mine, uses_remaining, created, expires)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(&invite.id)
        .bind(invite.hash.0.as_slice())
        .bind(invite.network.as_str())
        .bind(invite.created_by.as_str())
        .bind(invite.mine)
        .bind(i64::from(invite.uses))
        .bind(signed(invite.now)?)
        .bind(signed(invite.expires)?)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(())
    }

    async fn list_invites(&self, network: NetworkId, now: u64) -> Result<Vec<InviteInfo>, Error> {
        let rows = sqlx::query(
            "SELECT id, created_by, mine, uses_remaining, created, expires FROM invites
             WHERE network = ? AND expires > ? ORDER BY created DESC, id",
        )
        .bind(network.as_str())
        .bind(signed(now)?)
        .fetch_all(&self.pool)
        .await?;
        let info = |row: &SqliteRow| {
            Ok(InviteInfo {
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

    async fn remove_invite(&self, network: NetworkId, id: String) -> Result<bool, Error> {
        let done = sqlx::query("DELETE FROM invites WHERE network = ? AND id = ?")
            .bind(network.as_str())
            .bind(id)
            .execute(&self.pool)
            .await?;
        Ok(done.rows_affected() > 0)
    }

    async fn redeem(&self, join: Join) -> Result<Joined, Error> {
        let mut tx = self.write().await?;
        let invite = find_invite(&mut tx, &join).await?;
        if let Some(known) = find_by_key(&mut tx, &invite.network, &join.key).await? {
            return known_node(&invite, known, &join);
        }
        if invite.uses == 0 {
            return Err(Refusal::InviteUsedUp.into());
        }
        let (nodes, taken): (i64, bool) = sqlx::query_as(
            "SELECT count(*), coalesce(max(name = ?), 0) FROM nodes
             WHERE network = ? AND revoked IS NULL",
        )
        .bind(join.name.as_str())
        .bind(invite.network.as_str())
        .fetch_one(&mut *tx)
        .await?;
        if taken {
            return Err(Refusal::NameTaken.into());
        }
        if nodes >= i64::from(MAX_NODES) {
            return Err(Refusal::NetworkFull.into());
        }
        sqlx::query("UPDATE invites SET uses_remaining = uses_remaining - 1 WHERE id = ?")
            .bind(&invite.id)
            .execute(&mut *tx)
            .await?;
        let revision = next_revision(&mut tx, &invite.network, join.mark, join.now).await?;
        let node = add_node(&mut tx, invite, join, revision).await?;
        tx.commit().await?;
        Ok(Joined::Added(Change { revision, node }))
    }

    async fn renew_record(&self, renewal: Renewal) -> Result<Option<Change>, Error> {
        let mut tx = self.write().await?;
        let Some(mut node) = find_by_key(&mut tx, &renewal.network, &renewal.key).await? else {
            return Ok(None);
        };
        if node.row.revoked.is_some() {
            return Ok(None);
        }
        let network = &renewal.network;
        let revision = next_revision(&mut tx, network, renewal.mark, renewal.now).await?;
        sqlx::query(
            "UPDATE nodes SET issued = ?, expires = ?, changed = ? WHERE network = ? AND key = ?",
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

    async fn revoke_node(&self, revocation: Revocation) -> Result<Option<Change>, Error> {
        let mut tx = self.write().await?;
        let network = &revocation.network;
        let key: Option<Vec<u8>> = sqlx::query_scalar(
            "SELECT key FROM nodes WHERE network = ? AND name = ? AND revoked IS NULL",
        )
        .bind(network.as_str())
        .bind(revocation.name.as_str())
        .fetch_optional(&mut *tx)
        .await?;
        let Some(key) = key else { return Ok(None) };
        let revision = next_revision(&mut tx, network, revocation.mark, revocation.now).await?;
        sqlx::query("UPDATE nodes SET revoked = ?, changed = ? WHERE network = ? AND key = ?")
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

    async fn note_seen(&self, network: NetworkId, key: NodeKey, at: u64) -> Result<(), Error> {
        sqlx::query(
            "UPDATE nodes SET seen = max(coalesce(seen, 0), ?) WHERE network = ? AND key = ?",
        )
        .bind(signed(at)?)
        .bind(network.as_str())
        .bind(key.as_bytes().as_slice())
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    async fn drop_old(&self, now: u64) -> Result<(), Error> {
        let mut tx = self.write().await?;
        sqlx::query("DELETE FROM invites WHERE expires < ?")
            .bind(signed(now.saturating_sub(EXPIRED_INVITES_KEPT))?)
            .execute(&mut *tx)
            .await?;
        sqlx::query(
            "DELETE FROM changes WHERE revision + ? <
               (SELECT revision FROM networks WHERE id = changes.network)",
        )
        .bind(signed(MAX_CHANGES)?)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(())
    }
}

impl Store for Sqlite {
    fn ready(&self) -> Answer<'_, ()> {
        async {
            sqlx::query("SELECT 1").execute(&self.pool).await?;
            Ok(())
        }
        .boxed()
    }

    fn load(&self) -> Answer<'_, Vec<NetworkState>> {
        self.load_all().boxed()
    }

    fn networks(&self, subject: Option<Subject>, now: u64) -> Answer<'_, Vec<NetworkInfo>> {
        self.list_networks(subject, now).boxed()
    }

    fn create_network(&self, new: NewNetwork) -> Answer<'_, Creation> {
        self.add_network(new).boxed()
    }

    fn role(&self, network: NetworkId, subject: Subject) -> Answer<'_, Option<Role>> {
        self.find_role(network, subject).boxed()
    }

    fn create_invite(&self, invite: NewInvite) -> Answer<'_, ()> {
        self.add_invite(invite).boxed()
    }

    fn invites(&self, network: NetworkId, now: u64) -> Answer<'_, Vec<InviteInfo>> {
        self.list_invites(network, now).boxed()
    }

    fn delete_invite(&self, network: NetworkId, id: String) -> Answer<'_, bool> {
        self.remove_invite(network, id).boxed()
    }

    fn join(&self, join: Join) -> Answer<'_, Joined> {
        self.redeem(join).boxed()
    }

    fn renew(&self, renewal: Renewal) -> Answer<'_, Option<Change>> {
        self.renew_record(renewal).boxed()
    }

    fn revoke(&self, revocation: Revocation) -> Answer<'_, Option<Change>> {
        self.revoke_node(revocation).boxed()
    }

    fn seen(&self, network: NetworkId, key: NodeKey, at: u64) -> Answer<'_, ()> {
        self.note_seen(network, key, at).boxed()
    }

    fn purge(&self, now: u64) -> Answer<'_, ()> {
        self.drop_old(now).boxed()
    }
}

/// An invite in the middle of being redeemed.
struct Redeemed {
    id: String,
    network: NetworkId,
    created_by: String,
    mine: bool,
    uses: i64,
}

/// A node and the invite that brought it.
struct Known {
    row: NodeRow,
    invite: String,
}

async fn find_invite(tx: &mut Transaction<'_, Engine>, join: &Join) -> Result<Redeemed, Error> {
    let row = sqlx::query(
        "SELECT id, network, created_by, mine, uses_remaining, expires FROM invites WHERE hash = ?",
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
    tx: &mut Transaction<'_, Engine>,
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
           created, changed) VALUES (?, ?, ?, ?, ?, '[]', ?, ?, ?, ?, ?)",
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

/// Adds a member unless there is one, whose role then stays.
async fn add_member(
    tx: &mut Transaction<'_, Engine>,
    network: &NetworkId,
    subject: &Subject,
    role: &str,
    now: i64,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO members (network, subject, role, created) VALUES (?, ?, ?, ?)
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

async fn next_revision(
    tx: &mut Transaction<'_, Engine>,
    network: &NetworkId,
    mark: Mark,
    now: u64,
) -> Result<Revision, Error> {
    let number: i64 = sqlx::query_scalar(
        "UPDATE networks SET revision = revision + 1, mark = ? WHERE id = ? RETURNING revision",
    )
    .bind(mark.0.as_slice())
    .bind(network.as_str())
    .fetch_one(&mut **tx)
    .await?;
    sqlx::query("INSERT INTO changes (network, revision, mark, at) VALUES (?, ?, ?, ?)")
        .bind(network.as_str())
        .bind(number)
        .bind(mark.0.as_slice())
        .bind(signed(now)?)
        .execute(&mut **tx)
        .await?;
    let number = unsigned(number)?;
    Ok(Revision { number, mark })
}

async fn find_by_key(
    tx: &mut Transaction<'_, Engine>,
    network: &NetworkId,
    key: &NodeKey,
) -> Result<Option<Known>, Error> {
    let query = format!("SELECT {NODE_COLUMNS}, invite FROM nodes WHERE network = ? AND key = ?");
    let row = sqlx::query(sqlx::AssertSqlSafe(query))
        .bind(network.as_str())
        .bind(key.as_bytes().as_slice())
        .fetch_optional(&mut **tx)
        .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Known {
        invite: row.try_get("invite")?,
        row: node_row(&row)?,
    }))
}

async fn network_state(
    tx: &mut Transaction<'_, Engine>,
    row: &SqliteRow,
) -> Result<NetworkState, Error> {
    let id: NetworkId = text(row, "id")?;
    let query = format!("SELECT {NODE_COLUMNS} FROM nodes WHERE network = ? ORDER BY key");
    let nodes = sqlx::query(sqlx::AssertSqlSafe(query))
        .bind(id.as_str())
        .fetch_all(&mut **tx)
        .await?;
    let history =
        sqlx::query("SELECT revision, mark FROM changes WHERE network = ? ORDER BY revision")
            .bind(id.as_str())
            .fetch_all(&mut **tx)
            .await?;
    let seed = fixed(row.try_get("seed")?)?;
    Ok(NetworkState {
        id,
        issuer: SigningKey::from_bytes(&seed),
        revision: revision(row)?,
        history: history.iter().map(revision).collect::<Result<_, _>>()?,
        nodes: nodes.iter().map(node_row).collect::<Result<_, _>>()?,
    })
}

fn node_row(row: &SqliteRow) -> Result<NodeRow, Error> {
    let groups: String = row.try_get("groups")?;
    Ok(NodeRow {
        record: NodeRecord {
            network: text(row, "network")?,
            name: text::<NodeName>(row, "name")?,
            key: NodeKey::from_bytes(fixed(row.try_get("key")?)?),
            sign_key: SignKey::from_bytes(fixed(row.try_get("sign_key")?)?),
            owner: row.try_get("owner")?,
            groups: serde_json::from_str(&groups).map_err(|_| Error::Damaged("groups"))?,
            issued: number(row, "issued")?,
            expires: number(row, "expires")?,
        },
        changed: number(row, "changed")?,
        seen: optional(row, "seen")?,
        revoked: optional(row, "revoked")?,
    })
}

fn revision(row: &SqliteRow) -> Result<Revision, Error> {
    Ok(Revision {
        number: number(row, "revision")?,
        mark: Mark(fixed(row.try_get("mark")?)?),
    })
}

fn text<T: std::str::FromStr>(row: &SqliteRow, column: &str) -> Result<T, Error> {
    let text: String = row.try_get(column)?;
    text.parse().map_err(|_| Error::Damaged("a name"))
}

fn number(row: &SqliteRow, column: &str) -> Result<u64, Error> {
    unsigned(row.try_get(column)?)
}

fn optional(row: &SqliteRow, column: &str) -> Result<Option<u64>, Error> {
    let number: Option<i64> = row.try_get(column)?;
    number.map(unsigned).transpose()
}

fn fixed<const N: usize>(bytes: Vec<u8>) -> Result<[u8; N], Error> {
    bytes.try_into().map_err(|_| Error::Damaged("a key"))
}

fn unsigned(number: i64) -> Result<u64, Error> {
    u64::try_from(number).map_err(|_| Error::Damaged("a negative number"))
}

fn signed(number: u64) -> Result<i64, Error> {
    i64::try_from(number).map_err(|_| Error::Damaged("a number beyond 63 bits"))
}
