//! What the tests stand on: a relay in a temporary directory, nodes, and
//! waiting for a view.

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mesh::{Identity, NetworkId, NodeName, Seed};
use sqlx::Connection as _;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::coord::report::Report;
use crate::error::Result;
use crate::relay::acme::Acme;
use crate::relay::app::random;
use crate::relay::clock::unix_now;
use crate::relay::config::Config;
use crate::relay::login::{self, Granted, LoginToken, Providers};
use crate::relay::server::Relay;
use crate::relay::store::Server;
use crate::uplink::api::{Api, NewInvite};
use crate::uplink::{self, Files, Membership, NetworkView, Uplink};

pub(super) const TOKEN: &str = "a token for tests";

/// Longer than anything here takes on a loaded machine.
pub(super) const LIMIT: Duration = Duration::from_secs(60);

/// A relay and its directory; the directory outlives restarts.
pub(super) struct Rig {
    dir: TempDir,
    relay: Option<Relay>,
    url: String,
    /// The URL of its PostgreSQL database, if it has one.
    database: Option<String>,
}

thread_local! {
    /// Whether rigs of this thread have a database in PostgreSQL.
    static ON_POSTGRES: Cell<bool> = const { Cell::new(false) };
}

/// Runs a test, which is a function of its own thread and runtime, with PostgreSQL.
pub(super) fn on_postgres(test: fn()) {
    if Server::shared().is_some() {
        ON_POSTGRES.set(true);
        test();
        ON_POSTGRES.set(false);
    }
}

impl Rig {
    pub(super) async fn new() -> Self {
        let server = ON_POSTGRES.get().then(Server::shared).flatten();
        Self::over(server.map(Server::database)).await
    }

    /// Over a database of this URL, or one of its own.
    pub(super) async fn over(database: Option<String>) -> Self {
        let mut rig = Self {
            dir: tempfile::tempdir().unwrap(),
            relay: None,
            url: String::new(),
            database,
        };
        rig.start("127.0.0.1:0", |_| ()).await;
        rig
    }

    /// Another relay over the same database, once the two know of each other.
    pub(super) async fn beside(&self) -> Self {
        let other = Self::over(self.database.clone()).await;
        for (one, another) in [(self, &other), (&other, self)] {
            let url = another.url().to_owned();
            let cluster = one.relay().app().cluster.as_ref();
            let cluster = cluster.expect("its database can be shared");
            while !cluster.fellows().contains(&url) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        other
    }

    async fn start(&mut self, listen: &str, change: impl FnOnce(&mut Config)) {
        let mut config = config(self.dir.path().join("relay"), listen);
        if let Some(database) = &self.database {
            let file = self.path("database-url");
            std::fs::write(&file, database).unwrap();
            config.database_url_file = Some(file);
            config.peer_url = Some("http://127.0.0.1:0".to_owned());
            config.ssh_listen = "127.0.0.1:0".to_owned();
        }
        change(&mut config);
        let relay = Relay::start(&config).await.unwrap();
        self.url = format!("http://{}", relay.http());
        self.relay = Some(relay);
    }

    pub(super) async fn stop(&mut self) {
        self.relay.take().unwrap().stop().await;
    }

    /// Stops the relay, if it runs, and starts it at the same address.
    pub(super) async fn restart(&mut self) {
        self.restart_with(|_| ()).await;
    }

    /// The same with another configuration, for this time.
    pub(super) async fn restart_with(&mut self, change: impl FnOnce(&mut Config)) {
        if self.relay.is_some() {
            self.stop().await;
        }
        let listen = self.url.trim_start_matches("http://").to_owned();
        self.start(&listen, change).await;
    }

    pub(super) fn relay(&self) -> &Relay {
        self.relay.as_ref().unwrap()
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The relay's database, beside the relay. To be closed before the relay's own: of two that
    /// close at the same time each may leave the log to the other, for which [`Self::close`] waits.
    async fn database(&self) -> sqlx::SqliteConnection {
        let file = self.path("relay/relay.db");
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
        sqlx::SqliteConnection::connect_with(&options)
            .await
            .unwrap()
    }

    /// A copy of the database as it is now.
    pub(super) async fn backup(&self) -> Vec<u8> {
        let copy = self.path("copy.db");
        let mut database = self.database().await;
        sqlx::query("VACUUM INTO ?")
            .bind(copy.to_str().unwrap())
            .execute(&mut database)
            .await
            .unwrap();
        database.close().await.unwrap();
        std::fs::read(copy).unwrap()
    }

    /// Stops the relay, and waits until its database is closed: that is done behind its back.
    pub(super) async fn close(&mut self) {
        self.stop().await;
        while self.path("relay/relay.db-wal").exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Puts a copy in the place of the database, and starts the relay.
    pub(super) async fn put_back(&mut self, copy: &[u8]) {
        self.close().await;
        std::fs::write(self.path("relay/relay.db"), copy).unwrap();
        self.restart().await;
    }

    /// The secret of a network's issuer, as it lies in the database.
    pub(super) async fn seed(&self, network: &NetworkId) -> Vec<u8> {
        let mut database = self.database().await;
        let seed = sqlx::query_scalar("SELECT seed FROM issuers WHERE network = ?")
            .bind(network.as_str())
            .fetch_one(&mut database)
            .await
            .unwrap();
        database.close().await.unwrap();
        seed
    }

    pub(super) fn api(&self) -> Api {
        Api::new(&self.url, TOKEN).unwrap()
    }

    /// Logs somebody in, without asking anybody; the token of the login.
    pub(super) async fn login(&self, subject: &str) -> String {
        let (app, token) = (self.relay().app(), LoginToken::new());
        let identity = login::Identity {
            subject: subject.to_owned(),
            name: String::new(),
        };
        let label = "a test".to_owned();
        let now = unix_now();
        let login = app.gate.login(Granted { identity, label }, &token, now);
        app.store.add_login(login, now).await.unwrap();
        token.text().to_owned()
    }

    pub(super) async fn network(&self, id: &str) -> NetworkId {
        let id: NetworkId = id.parse().unwrap();
        self.api().create_network(&id).await.unwrap();
        id
    }

    pub(super) async fn invite(&self, network: &NetworkId, uses: u32) -> String {
        let new = NewInvite {
            network: network.clone(),
            uses,
            ttl: "1h".to_owned(),
            mine: true,
            node_name: None,
        };
        self.api().create_invite(&new).await.unwrap().token.unwrap()
    }

    pub(super) async fn join(&self, invite: &str, name: &str) -> Result<Node> {
        self.join_as(invite, name, identity()).await
    }

    pub(super) async fn join_as(
        &self,
        invite: &str,
        name: &str,
        identity: Arc<Identity>,
    ) -> Result<Node> {
        let membership = uplink::join(&self.url, invite, &node_name(name), &identity).await?;
        let cache = self.path(&format!("netmap-{}-{name}.json", membership.network));
        Ok(Node {
            membership,
            identity,
            cache,
        })
    }
}

/// A machine that joined.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) membership: Membership,
    pub(super) identity: Arc<Identity>,
    pub(super) cache: PathBuf,
}

impl Node {
    pub(super) fn up(&self) -> Up {
        self.up_through(&self.membership.relay_url)
    }

    pub(super) fn files(&self) -> Files {
        Files {
            cache: self.cache.clone(),
            issuers: self.cache.with_extension("issuers"),
        }
    }

    /// Its membership with the relay at another address.
    pub(super) fn membership_at(&self, url: &str) -> Membership {
        Membership {
            relay_url: url.to_owned(),
            ..self.membership.clone()
        }
    }

    /// With the relay at another address, which leads to it.
    pub(super) fn up_through(&self, url: &str) -> Up {
        let (membership, identity) = (self.membership_at(url), Arc::clone(&self.identity));
        let uplink = Uplink::start(membership, identity, self.files(), Vec::new());
        let (uplink, _) = uplink.unwrap();
        Up {
            view: uplink.view(),
            uplink,
        }
    }
}

/// A node that runs.
pub(super) struct Up {
    view: watch::Receiver<Arc<NetworkView>>,
    uplink: Uplink,
}

impl Up {
    pub(super) async fn until(
        &mut self,
        what: &str,
        is_it: impl Fn(&NetworkView) -> bool,
    ) -> Arc<NetworkView> {
        let waited = timeout(LIMIT, self.view.wait_for(|view| is_it(view))).await;
        let view = waited.map(|view| Arc::clone(&view.unwrap())).ok();
        view.unwrap_or_else(|| panic!("never {what}: {:#?}", self.view.borrow()))
    }

    pub(super) async fn until_connected(&mut self) -> Arc<NetworkView> {
        self.until("connected", |view| view.connected).await
    }

    /// Waits until this node sees `name` online, offline, or not at all.
    pub(super) async fn until_sees(&mut self, name: &str, how: Option<bool>) -> Arc<NetworkView> {
        let name = node_name(name);
        self.until(&format!("sees {name} as {how:?}"), |view| {
            view.connected && view.peers.get(&name).map(|peer| peer.online) == how
        })
        .await
    }

    /// Tells the relay how this node is.
    pub(super) fn tell(&self, report: Report) {
        self.uplink.teller().send_replace(Some(report));
    }

    pub(super) fn watch(&self) -> watch::Receiver<Arc<NetworkView>> {
        self.view.clone()
    }

    pub(super) fn now(&self) -> Arc<NetworkView> {
        Arc::clone(&self.view.borrow())
    }
}

pub(super) fn config(data_dir: PathBuf, listen: &str) -> Config {
    Config {
        base_url: "http://relay.test:8080".to_owned(),
        listen: listen.to_owned(),
        ssh_listen: String::new(),
        stun_listen: "127.0.0.1:0".to_owned(),
        data_dir: Some(data_dir),
        database_url_file: None,
        peer_url: None,
        lock_wait: 0,
        auth_mode: "token".to_owned(),
        providers: Providers::default(),
        auth_token: Some(TOKEN.parse().unwrap()),
        auth_token_file: None,
        acme: Acme::default(),
        tls_cert: None,
        tls_key: None,
        mesh_psk_file: None,
        mesh_with: Vec::new(),
        client_rate: None,
    }
}

pub(super) fn identity() -> Arc<Identity> {
    Arc::new(Identity::from_seed(&Seed::from_bytes(random())))
}

pub(super) fn node_name(name: &str) -> NodeName {
    name.parse().unwrap()
}

/// Runs a test with its limit.
pub(super) async fn limited<T>(test: impl Future<Output = T>) -> T {
    timeout(LIMIT * 2, test)
        .await
        .expect("the test took too long")
}

pub(super) fn code<T>(result: Result<T>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(error) => error.code,
    }
}
