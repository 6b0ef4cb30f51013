//! Calls: what nodes ask each other, repeated until it is answered, as QUIC would.

use std::time::{Duration, Instant};

use super::node::Sealed;
use super::run::{MS, SECOND, World};
use crate::packet::QUIC_MTU;

/// QUIC goes back to the size that always arrives after so many in vain.
const WIDE_TRIES: usize = 2;

/// Something one node asked another, repeated until it is answered, as QUIC
/// would: after a pause that doubles.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) id: u64,
    pub(super) to: usize,
    pub(super) size: usize,
    /// How often it was sent.
    pub(super) tries: usize,
    /// In the world's time.
    pub(super) started: Instant,
    pub(super) next: Instant,
    pub(super) pause: Duration,
}

/// The answer to a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answered {
    pub(super) started: Instant,
    pub(super) took: Duration,
}

impl World {
    /// Begins a call.
    pub(super) fn call(&mut self, from: usize, to: usize, size: usize) -> Result<(), String> {
        let id = self.next_call;
        self.next_call += 1;
        let now = self.local(from);
        self.nodes[from].core_mut(to).connect(now);
        self.nodes[from].calls.push(Call {
            id,
            to,
            size,
            tries: 0,
            started: self.now,
            next: self.now,
            pause: 100 * MS,
        });
        self.repeat_calls(from)?;
        self.serve(from)
    }

    /// Repeats the calls that have waited for long enough.
    pub(super) fn repeat_calls(&mut self, node: usize) -> Result<(), String> {
        let now = self.now;
        let mut due = vec![];
        for call in &mut self.nodes[node].calls {
            if call.next <= now {
                call.next = now + call.pause;
                call.pause = (call.pause * 2).min(2 * SECOND);
                if call.tries >= WIDE_TRIES {
                    call.size = call.size.min(QUIC_MTU);
                }
                call.tries += 1;
                due.push((call.to, call.id, call.size));
            }
        }
        for (to, id, size) in due {
            let mut payload = vec![0; size.max(9)];
            payload[0] = 1;
            payload[1..9].copy_from_slice(&id.to_be_bytes());
            self.send(node, to, &payload)?;
        }
        Ok(())
    }

    /// Sends a payload to a peer, and looks at the way it takes.
    fn send(&mut self, node: usize, peer: usize, payload: &[u8]) -> Result<(), String> {
        let now = self.local(node);
        let Sealed { ways, wide, bytes } = self.nodes[node].seal(peer, payload, now);
        if self.ways.get(&(node, peer)) != Some(&ways) {
            self.note(|| format!("{node} sends to {peer}: {ways:?}"));
            self.ways.insert((node, peer), ways.clone());
        }
        self.check_ways(node, peer, &ways, wide)?;
        for via in ways {
            if let Some(bytes) = &bytes {
                self.transmit(node, peer, via, bytes);
            }
        }
        self.serve(node)
    }

    /// A call, or the answer to one: a byte, and the call's number.
    pub(super) fn payload(
        &mut self,
        node: usize,
        peer: usize,
        payload: &[u8],
    ) -> Result<(), String> {
        let Some((kind, id)) = payload.split_first() else {
            return Ok(());
        };
        let id = u64::from_be_bytes(*id.first_chunk().unwrap());
        if *kind == 1 {
            let mut answer = payload.to_vec();
            answer[0] = 2;
            return self.send(node, peer, &answer);
        }
        let calls = &mut self.nodes[node].calls;
        if let Some(at) = calls.iter().position(|call| call.id == id) {
            let call = calls.swap_remove(at);
            self.answered.push(Answered {
                started: call.started,
                took: self.now.duration_since(call.started),
            });
        }
        Ok(())
    }
}
