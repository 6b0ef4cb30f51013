//! The far end of a measurement: answers on streams, on a thread and a core of its own.
//!
//! The first byte of a stream says what is wanted: `e` sends everything back, `b` takes
//! everything and answers with its length (8 bytes, little-endian).

use quinn::{RecvStream, SendStream};

/// Puts the calling thread on a core, where the system lets us.
pub fn pin(core: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(core);
    // On a machine with one core there is nothing to choose.
    let _ = rustix::thread::sched_setaffinity(None, &set);
}

/// Answers one stream.
pub async fn answer(mut send: SendStream, mut recv: RecvStream) {
    let mut wanted = [0; 1];
    if recv.read_exact(&mut wanted).await.is_err() {
        return;
    }
    if wanted == *b"e" {
        if let Ok(bytes) = recv.read_to_end(1 << 16).await {
            let _ = send.write_all(&bytes).await;
        }
    } else {
        let mut length = 0u64;
        while let Ok(Some(chunk)) = recv.read_chunk(usize::MAX, true).await {
            length += chunk.bytes.len() as u64;
        }
        let _ = send.write_all(&length.to_le_bytes()).await;
    }
    let _ = send.finish();
    let _ = send.stopped().await;
}
