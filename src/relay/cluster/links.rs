//! Links to the other relays of the database, over which packets for their nodes go.
//!
//! Which relays run, where, and with what keys is in the database; what they prove to each other
//! that they belong together is there, too, or in a file that all of them have. The protocol is the
//! `derp` crate's.
//!
//! A relay that is off the books may but have lost the database: as long as the link to it holds, it
//! stays.

use std::collections::HashMap;

use derp::NodeKey;
use derp::io::region::Neighbour;
use derp::io::server::Server;
use tokio::task::JoinHandle;

use crate::error::Result;
use crate::relay::store::cluster::Fellow;
use crate::uplink;

/// Relays over one database that are linked to, at most; each is a connection of its own.
const MAX_LINKS: usize = 64;

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
            match neighbour(url, key) {
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

fn neighbour(url: &str, key: NodeKey) -> Result<Neighbour> {
    let is_secure = url.starts_with("https:");
    Ok(Neighbour {
        url: url.to_owned(),
        tls: is_secure.then(uplink::client_config).transpose()?,
        key: Some(key),
    })
}
