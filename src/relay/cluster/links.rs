//! Links to the other relays of the database, over which packets for their nodes go.
//!
//! Which relays run, where, and with what keys is in the database; what they prove to each other
//! that they belong together is there, too, or in a file that all of them have. The protocol is the
//! `derp` crate's.
//!
//! A relay that is off the books may but have lost the database: as long as the link to it holds, it
//! stays.

use std::collections::HashMap;
use std::sync::Arc;

use derp::NodeKey;
use derp::io::region::Neighbour;
use derp::io::server::Server;
use parking_lot::Mutex;
use rustls::ClientConfig;
use tokio::task::JoinHandle;

use crate::error::Result;
use crate::relay::store::cluster::Fellow;
use crate::uplink;

/// Relays over one database that are linked to, at most; each is a connection of its own.
const MAX_LINKS: usize = 64;

/// How another relay shows that it is the one at its URL. What this system trusts is read once: it
/// is many files.
#[derive(Default)]
pub(super) struct Trust(Mutex<Option<Arc<ClientConfig>>>);

impl Trust {
    /// What is needed to get to a URL; nothing without TLS.
    ///
    /// # Errors
    ///
    /// `tls` when nothing is trusted.
    pub(super) fn to(&self, url: &str) -> Result<Option<Arc<ClientConfig>>> {
        if !url.starts_with("https:") {
            return Ok(None);
        }
        let mut read = self.0.lock();
        let config = match &*read {
            Some(config) => Arc::clone(config),
            None => Arc::clone(read.insert(uplink::client_config()?)),
        };
        Ok(Some(config))
    }
}

/// The links of one relay; dropping it ends them.
#[derive(Default)]
pub(super) struct Links(HashMap<NodeKey, Link>);

struct Link {
    url: String,
    task: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Links {
    /// Keeps a link to each of these but this relay, the last run of each, and to nobody else.
    pub(super) fn follow<'a>(
        &mut self,
        derp: &Server,
        trust: &Trust,
        fellows: impl IntoIterator<Item = &'a Fellow>,
    ) {
        let mut wanted: HashMap<NodeKey, &str> = HashMap::new();
        for fellow in fellows {
            wanted.insert(fellow.key, &fellow.url);
        }
        wanted.remove(&derp.public_key());
        self.0.retain(|key, link| match wanted.get(key) {
            Some(url) => link.url == *url,
            None => derp.is_linked(key),
        });
        for (key, url) in wanted {
            if self.0.contains_key(&key) || self.0.len() >= MAX_LINKS {
                continue;
            }
            match neighbour(trust, url, key) {
                Ok(to) => {
                    let (url, derp) = (url.to_owned(), derp.clone());
                    let task = tokio::spawn(async move { derp.keep_link(to).await });
                    self.0.insert(key, Link { url, task });
                }
                Err(error) => tracing::warn!(%url, %error, "no link to another relay"),
            }
        }
    }
}

fn neighbour(trust: &Trust, url: &str, key: NodeKey) -> Result<Neighbour> {
    Ok(Neighbour {
        url: url.to_owned(),
        tls: trust.to(url)?,
        key: Some(key),
    })
}
