//! What the foreign clients say to each other.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use ts_derp::Client;
use ts_keys::NodePublicKey;

/// How far a sender is ahead of its receiver at most, so that nothing has to be dropped however
/// slow the machine is.
const WINDOW: usize = 100;

/// A packet that is told from the others, of a length of its own.
pub fn packet(number: u32) -> Vec<u8> {
    let len = 20 + number as usize % 1300;
    let mut data = vec![0xab; len];
    data[..4].copy_from_slice(&number.to_be_bytes());
    data
}

/// So many packets from one to the other, each in its place and whole.
pub fn talk<Io>(
    tasks: &mut JoinSet<()>,
    count: u32,
    (from, source): (Arc<Client<Io>>, NodePublicKey),
    (to, target): (Arc<Client<Io>>, NodePublicKey),
) where
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let window = Arc::new(Semaphore::new(WINDOW));
    let arrived = Arc::clone(&window);
    tasks.spawn(async move {
        for number in 0..count {
            window.acquire().await.unwrap().forget();
            from.send_one(target, &packet(number)).await.unwrap();
        }
    });
    tasks.spawn(async move {
        for number in 0..count {
            let (key, data) = to.recv_one().await.unwrap();
            assert_eq!(key, source);
            assert_eq!(data.as_ref(), packet(number));
            arrived.add_permits(1);
        }
    });
}
