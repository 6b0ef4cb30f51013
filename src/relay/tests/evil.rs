//! A relay that lies: it stands between a node and the real one, lets the node prove itself there,
//! and changes what comes back.

use std::net::SocketAddr;
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use futures_util::{SinkExt as _, StreamExt as _};
use mesh::{NetworkId, SignKey};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, watch};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{accept_async, connect_async};

use super::rig::Rig;
use crate::coord::ToNode;
use crate::coord::handover::{Handover, Obituary, SignedHandover, SignedObituary};

type Lie = Box<dyn FnMut(ToNode) -> Vec<ToNode> + Send>;

/// See the module.
pub(super) struct Evil {
    address: SocketAddr,
    lie: Arc<Mutex<Lie>>,
    cut: watch::Sender<()>,
    said: broadcast::Sender<ToNode>,
}

impl Evil {
    /// Tells the truth until it is told otherwise.
    pub(super) async fn start(rig: &Rig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let lie: Arc<Mutex<Lie>> = Arc::new(Mutex::new(Box::new(|frame| vec![frame])));
        let (cut, _) = watch::channel(());
        let (said, _) = broadcast::channel(16);
        let to = format!("{}/api/v1/coordinate", rig.url().replace("http", "ws"));
        let (heard, cuts, words) = (Arc::clone(&lie), cut.clone(), said.clone());
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (lie, mut cut) = (Arc::clone(&heard), cuts.subscribe());
                let (to, words) = (to.clone(), words.subscribe());
                tokio::spawn(async move {
                    tokio::select! {
                        () = pass(near, to, lie, words) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self {
            address,
            lie,
            cut,
            said,
        }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From here on this is made of every frame.
    pub(super) fn set(&self, lie: impl FnMut(ToNode) -> Vec<ToNode> + Send + 'static) {
        *self.lie.lock() = Box::new(lie);
    }

    /// Ends the connections that there are.
    pub(super) fn cut(&self) {
        self.cut.send_replace(());
    }

    /// Says something that nobody has asked for.
    pub(super) fn say(&self, frame: ToNode) {
        self.said.send(frame).expect("a node is connected");
    }
}

async fn pass(
    near: TcpStream,
    to: String,
    lie: Arc<Mutex<Lie>>,
    mut words: broadcast::Receiver<ToNode>,
) {
    let (Ok(near), Ok((far, _))) = (accept_async(near).await, connect_async(to).await) else {
        return;
    };
    let (mut to_node, mut from_node) = near.split();
    let (mut to_relay, mut from_relay) = far.split();
    loop {
        let frames = tokio::select! {
            said = from_node.next() => {
                let Some(Ok(said)) = said else { return };
                if to_relay.send(said).await.is_err() {
                    return;
                }
                continue;
            }
            said = from_relay.next() => match said {
                Some(Ok(Message::Text(text))) => {
                    let frame = serde_json::from_str(&text).unwrap();
                    (lie.lock())(frame)
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                _ => return,
            },
            word = words.recv() => match word {
                Ok(word) => vec![word],
                Err(_) => return,
            },
        };
        for frame in frames {
            let text = serde_json::to_string(&frame).unwrap();
            if to_node.send(Message::Text(text.into())).await.is_err() {
                return;
            }
        }
    }
}

/// A key that is not the network's.
pub(super) fn signing(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

pub(super) fn public(n: u8) -> SignKey {
    SignKey::from(&signing(n).verifying_key())
}

/// A hand-over from `old`, signed by two keys of its maker's.
pub(super) fn link(
    network: &NetworkId,
    number: u32,
    old: SignKey,
    (by, new): (u8, u8),
) -> SignedHandover {
    let handover = Handover {
        network: network.clone(),
        number,
        old,
        new: public(new),
        issued: 0,
        retires: u64::MAX,
    };
    SignedHandover::sign(&handover, &signing(by), &signing(new))
}

/// An obituary by a key of its maker's.
pub(super) fn obituary(network: &NetworkId, root: SignKey, by: u8) -> SignedObituary {
    let obituary = Obituary {
        network: network.clone(),
        root,
        deleted: 0,
    };
    SignedObituary::sign(&obituary, &signing(by))
}
