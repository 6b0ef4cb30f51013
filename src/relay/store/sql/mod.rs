//! The store in SQL.
//!
//! These files are compiled once for each engine, as a module of `sqlite` and as one of
//! `postgres`: every rule is written once, and what both engines understand is all that is used.
//! What they do differently is in `engine`, the module around this one: how a transaction begins,
//! and how other relays are told of what it has changed.
//!
//! A transaction that writes stands in a *line*: of those with the same line one runs at a time,
//! so what it read still holds when it writes. Nearly always the line is the network. A
//! transaction stands in one line only, so that two never wait for each other.

mod doors;
mod invites;
mod issuers;
mod logins;
mod networks;
mod nodes;
mod papers;
mod progress;
pub(super) mod row;
mod shared;

use derp::NodeKey;
use futures_util::FutureExt as _;
use mesh::{NetworkId, SignKey};
use sqlx::{Pool, Transaction};

use self::row::signed;
use super::{self as engine, Engine, Row};
use crate::paper::Paper;
use crate::relay::papers::PaperEdit;
use crate::relay::store::cluster::{Cluster, Head, Progress, Since};
use crate::relay::store::doors::{SshKey, SshPassword};
use crate::relay::store::shared::{Changes, Entry, Place, Put, Query, Removal};
use crate::relay::store::{
    Answer, Change, Creation, Death, EXPIRED_INVITES_KEPT, Error, InviteInfo, Join, Joined,
    MAX_CHANGES, MemberInfo, Mourner, NetworkInfo, NetworkState, NewInvite, NewNetwork,
    OBITUARIES_KEPT, Renewal, Revocation, Role, Rotated, Rotation, Sighting, Store, Subject,
};

/// A transaction under way.
pub(super) type Tx = Transaction<'static, Engine>;

/// See the module.
pub(crate) struct Database {
    pub(super) pool: Pool<Engine>,
}

impl Database {
    /// Begins a transaction that writes; see the module for the line.
    pub(super) async fn write(&self, line: &str) -> Result<Tx, Error> {
        engine::write(&self.pool, line).await
    }

    /// Begins a transaction whose queries all see the same.
    async fn read(&self) -> Result<Tx, Error> {
        engine::read(&self.pool).await
    }

    async fn drop_old(&self, now: u64) -> Result<(), Error> {
        let mut tx = self.write("purge").await?;
        sqlx::query("DELETE FROM invites WHERE expires < $1")
            .bind(signed(now.saturating_sub(EXPIRED_INVITES_KEPT))?)
            .execute(&mut *tx)
            .await?;
        sqlx::query("DELETE FROM obituaries WHERE deleted < $1")
            .bind(signed(now.saturating_sub(OBITUARIES_KEPT))?)
            .execute(&mut *tx)
            .await?;
        sqlx::query("DELETE FROM papers WHERE until < $1")
            .bind(signed(now)?)
            .execute(&mut *tx)
            .await?;
        sqlx::query(
            "DELETE FROM changes WHERE revision + $1 <
               (SELECT revision FROM networks WHERE id = changes.network)",
        )
        .bind(signed(MAX_CHANGES)?)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(())
    }
}

impl Store for Database {
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

    fn edit_paper(&self, edit: PaperEdit) -> Answer<'_, Option<Paper>> {
        self.change_paper(edit).boxed()
    }

    fn members(&self, network: NetworkId) -> Answer<'_, Vec<MemberInfo>> {
        self.list_members(network).boxed()
    }

    fn set_role(
        &self,
        network: NetworkId,
        subject: Subject,
        role: Option<Role>,
    ) -> Answer<'_, bool> {
        self.change_role(network, subject, role).boxed()
    }

    fn delete_network(&self, network: NetworkId, now: u64) -> Answer<'_, Option<Death>> {
        self.drop_network(network, now).boxed()
    }

    fn deaths(&self, network: NetworkId, key: NodeKey) -> Answer<'_, Vec<Mourner>> {
        self.find_deaths(network, key).boxed()
    }

    fn rotate(&self, rotation: Rotation) -> Answer<'_, Option<Rotated>> {
        self.hand_over(rotation).boxed()
    }

    fn death(&self, network: NetworkId, root: SignKey) -> Answer<'_, Option<Death>> {
        self.find_death(network, root).boxed()
    }

    fn heads(&self, only: Option<NetworkId>) -> Answer<'_, Vec<Head>> {
        self.list_heads(only).boxed()
    }

    fn progress(&self, network: NetworkId, since: Option<Since>) -> Answer<'_, Option<Progress>> {
        self.find_progress(network, since).boxed()
    }

    fn cluster(&self) -> Option<&dyn Cluster> {
        engine::cluster(self)
    }

    fn seen(&self, sightings: Vec<Sighting>) -> Answer<'_, ()> {
        self.note_seen(sightings).boxed()
    }

    fn purge(&self, now: u64) -> Answer<'_, ()> {
        self.drop_old(now).boxed()
    }

    fn put_shared(&self, put: Put) -> Answer<'_, u64> {
        self.put_value(put).boxed()
    }

    fn remove_shared(&self, removal: Removal) -> Answer<'_, Option<u64>> {
        self.remove_value(removal).boxed()
    }

    fn get_shared(&self, place: Place, now: u64) -> Answer<'_, Option<Entry>> {
        self.get_value(place, now).boxed()
    }

    fn list_shared(&self, query: Query, after: Option<String>) -> Answer<'_, Vec<Entry>> {
        self.list_values(query, after).boxed()
    }

    fn shared_changes(&self, query: Query, since: Option<u64>) -> Answer<'_, Changes> {
        self.values_since(query, since).boxed()
    }

    fn expire_shared(&self, now: u64) -> Answer<'_, Vec<NetworkId>> {
        self.expire_values(now).boxed()
    }

    fn forget_shared(&self, now: u64) -> Answer<'_, ()> {
        self.forget_deletions(now).boxed()
    }

    fn add_ssh_key(&self, key: SshKey) -> Answer<'_, bool> {
        self.put_ssh_key(key).boxed()
    }

    fn ssh_keys(&self, subject: Subject) -> Answer<'_, Vec<SshKey>> {
        self.list_ssh_keys(subject).boxed()
    }

    fn remove_ssh_key(&self, subject: Subject, fingerprint: String) -> Answer<'_, bool> {
        self.delete_ssh_key(subject, fingerprint).boxed()
    }

    fn ssh_key(&self, fingerprint: String) -> Answer<'_, Option<SshKey>> {
        self.find_ssh_key(fingerprint).boxed()
    }

    fn add_ssh_password(&self, password: SshPassword, now: u64) -> Answer<'_, ()> {
        self.put_ssh_password(password, now).boxed()
    }

    fn take_ssh_password(&self, hash: [u8; 32], now: u64) -> Answer<'_, Option<SshPassword>> {
        self.use_ssh_password(hash, now).boxed()
    }
}
