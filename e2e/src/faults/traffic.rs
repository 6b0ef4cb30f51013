//! What everybody says while faults happen.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::{Value, json};

use super::client::{Client, End};
use super::rng::Rng;
use super::world::World;
use crate::history::{Call, Line, Receipt};
use crate::substrate::Host;

/// Sessions on each node.
pub(super) const SESSIONS: usize = 3;

/// How long a call is asked again before nobody knows what became of it.
const LIMIT: Duration = Duration::from_secs(60);

/// A run that goes on.
pub(super) struct Run<'a> {
    pub(super) world: &'a World,
    pub(super) seed: u64,
    /// Of this run in its world; names are made from it.
    pub(super) number: u32,
    /// Calls that each sender wants to be acknowledged.
    pub(super) quota: usize,
    lines: Mutex<Vec<Line>>,
    next: AtomicU64,
    /// Calls that are over.
    done: AtomicUsize,
    /// Senders that are not.
    pub(super) sending: AtomicUsize,
    pub(super) over: AtomicBool,
    changed: (Mutex<()>, Condvar),
    /// Requests: id, who asked, who was asked.
    pub(super) requests: Mutex<Vec<(String, String, String)>>,
}

impl<'a> Run<'a> {
    pub(super) fn new(world: &'a World, seed: u64, quota: usize) -> Self {
        Self {
            world,
            seed,
            number: world.next_run(),
            quota,
            lines: Mutex::default(),
            next: AtomicU64::new(1),
            done: AtomicUsize::new(0),
            sending: AtomicUsize::new(Host::ALL.len() * SESSIONS),
            over: AtomicBool::new(false),
            changed: Default::default(),
            requests: Mutex::default(),
        }
    }

    /// A session's name.
    pub(super) fn name(&self, number: usize) -> String {
        format!("r{}-{number}", self.number)
    }

    /// A session's name as the history has it.
    pub(super) fn label(&self, host: Host, number: usize) -> String {
        format!("{}:{}", host.name(), self.name(number))
    }

    /// The tag of all sessions that talk.
    pub(super) fn tag(&self) -> String {
        format!("r{}", self.number)
    }

    pub(super) fn client(&self, host: Host) -> Client {
        Client::new(&self.world.home(host).socket())
    }

    pub(super) fn write(&self, line: Line) {
        lock(&self.lines).push(line);
    }

    pub(super) fn take_lines(&self) -> Vec<Line> {
        std::mem::take(&mut *lock(&self.lines))
    }

    /// A call begins.
    pub(super) fn invoke(&self, call: Call) -> u64 {
        let op = self.next.fetch_add(1, Ordering::SeqCst);
        self.write(Line::Invoke { op, call });
        op
    }

    /// Makes a call and writes down how it ended; true when it counts.
    fn make(
        &self,
        client: &mut Client,
        call: Call,
        frame: &Value,
        receipts: impl FnOnce(&Value) -> Vec<Receipt>,
    ) -> bool {
        // The copies of a broadcast are delivered one by one: one that is repeated when those who had
        // got theirs are dead is told that there is nobody.
        let several = matches!(&call, Call::Message { to, .. } if to.len() > 1);
        let op = self.invoke(call);
        let line = match client.call(frame, LIMIT) {
            End::Answer(answer) => Line::Ok {
                op,
                receipts: receipts(&answer),
            },
            // So may a sender be: another session has the name, and the id is not that one's.
            End::Refused(code, true) if several || code == "id_taken" => {
                Line::Info { op, why: code }
            }
            End::Refused(code, _) => Line::Fail { op, code },
            End::Lost(why) => Line::Info { op, why },
        };
        let ok = matches!(line, Line::Ok { .. });
        self.write(line);
        self.done.fetch_add(1, Ordering::SeqCst);
        self.changed.1.notify_all();
        ok
    }

    pub(super) fn done(&self) -> usize {
        self.done.load(Ordering::SeqCst)
    }

    /// Waits until so many calls are over, or all, or the time is.
    pub(super) fn wait_for(&self, done: usize, limit: Duration) {
        let end = Instant::now() + limit;
        let mut guard = lock(&self.changed.0);
        while self.done() < done && self.sending.load(Ordering::SeqCst) > 0 {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            // Looks again now and then: a change may come between the two.
            let left = left.min(Duration::from_millis(50));
            let woken = self.changed.1.wait_timeout(guard, left);
            guard = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for so long, or until the run is over.
    pub(super) fn rest(&self, limit: Duration) {
        let end = Instant::now() + limit;
        let mut guard = lock(&self.changed.0);
        while !self.is_over() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let woken = self.changed.1.wait_timeout(guard, left);
            guard = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    pub(super) fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
        self.changed.1.notify_all();
    }

    /// The recipient as a call names it: session and node.
    fn to(&self, from: Host, to: (Host, usize)) -> (String, Option<&'static str>) {
        let node = (from != to.0).then(|| to.0.name());
        (self.name(to.1), node)
    }
}

/// So many messages from the first session of the first node to that of the second.
pub(super) fn send_some(run: &Run<'_>, count: usize) {
    let mut sender = Sender::new(run, Host::Dev1, 0);
    for _ in 0..count {
        let _ = sender.message_to((Host::Dev2, 0));
    }
}

/// One sender: its calls one after the other.
pub(super) fn send(run: &Run<'_>, host: Host, number: usize) {
    let mut sender = Sender::new(run, host, number);
    let mut acknowledged = 0;
    while acknowledged < run.quota && sender.sent < 6 * run.quota && !run.is_over() {
        if sender.one() {
            acknowledged += 1;
        } else {
            // What was refused now is not asked for again at once.
            run.rest(Duration::from_millis(20));
        }
    }
    run.sending.fetch_sub(1, Ordering::SeqCst);
    run.changed.1.notify_all();
}

/// See [`send`].
pub(super) struct Sender<'a> {
    run: &'a Run<'a>,
    host: Host,
    number: usize,
    rng: Rng,
    client: Client,
    sent: usize,
}

impl<'a> Sender<'a> {
    pub(super) fn new(run: &'a Run<'a>, host: Host, number: usize) -> Self {
        let part = 10 + number as u64 + 100 * u64::from(host == Host::Dev2);
        Self {
            run,
            host,
            number,
            rng: Rng::new(run.seed, part),
            client: run.client(host),
            sent: 0,
        }
    }

    fn one(&mut self) -> bool {
        match self.rng.below(100) {
            0..=59 => self.message(),
            60..=79 => self.request(),
            80..=91 => self.broadcast(),
            _ => self.wrong_reply(),
        }
    }

    fn me(&self) -> String {
        self.run.label(self.host, self.number)
    }

    fn body(&mut self) -> String {
        self.sent += 1;
        format!("{}#{}", self.me(), self.sent)
    }

    fn somebody(&mut self) -> (Host, usize) {
        (*self.rng.pick(&Host::ALL), self.rng.below(SESSIONS))
    }

    fn message(&mut self) -> bool {
        let to = self.somebody();
        self.message_to(to)
    }

    pub(super) fn message_to(&mut self, to: (Host, usize)) -> bool {
        let (label, body) = (self.run.label(to.0, to.1), self.body());
        let (name, node) = self.run.to(self.host, to);
        let frame = json!({
            "type": "MsgSend", "to_name": name, "node": node, "body": body, "delivery": "inbox",
            "from_name": self.run.name(self.number), "message_id": id("msg", &mut self.rng),
        });
        let call = Call::Message {
            from: self.me(),
            to: vec![label.clone()],
            body,
        };
        self.run.make(&mut self.client, call, &frame, |answer| {
            vec![Receipt {
                to: label,
                id: text(&answer["message_id"]),
                state: text(&answer["state"]),
            }]
        })
    }

    fn broadcast(&mut self) -> bool {
        let host = *self.rng.pick(&Host::ALL);
        self.broadcast_to(host)
    }

    pub(super) fn broadcast_to(&mut self, host: Host) -> bool {
        let node = (host != self.host).then(|| host.name());
        let body = self.body();
        let frame = json!({
            "type": "MsgSend", "to_tag": self.run.tag(), "node": node, "body": body,
            "delivery": "inbox", "from_name": self.run.name(self.number),
            "message_id": id("msg", &mut self.rng),
        });
        let call = Call::Message {
            from: self.me(),
            to: (0..SESSIONS).map(|one| self.run.label(host, one)).collect(),
            body,
        };
        self.run.make(&mut self.client, call, &frame, |answer| {
            let receipts = answer["receipts"].as_array().into_iter().flatten();
            let receipt = |one: &Value| {
                let name = text(&one["recipient"]);
                let name = name.rsplit(':').next().unwrap_or_default();
                Receipt {
                    to: format!("{}:{name}", host.name()),
                    id: text(&one["message_id"]),
                    state: text(&one["state"]),
                }
            };
            receipts.map(receipt).collect()
        })
    }

    fn request(&mut self) -> bool {
        let mut to = self.somebody();
        if to == (self.host, self.number) {
            to.1 = (to.1 + 1) % SESSIONS;
        }
        self.request_to(to)
    }

    pub(super) fn request_to(&mut self, to: (Host, usize)) -> bool {
        let (label, body) = (self.run.label(to.0, to.1), self.body());
        let (name, node) = self.run.to(self.host, to);
        let id = id("req", &mut self.rng);
        let frame = json!({
            "type": "MsgRequest", "to_name": name, "node": node, "body": body, "async": true,
            "delivery": "inbox", "from_name": self.run.name(self.number), "request_id": id,
        });
        let call = Call::Request {
            id: id.clone(),
            from: self.me(),
            to: label.clone(),
            body,
        };
        let known = (id.clone(), self.me(), label.clone());
        lock(&self.run.requests).push(known);
        self.run.make(&mut self.client, call, &frame, |answer| {
            vec![Receipt {
                to: label,
                id,
                state: text(&answer["state"]),
            }]
        })
    }

    /// A reply to what somebody else was asked. Nothing that counts when it is refused, as it has
    /// to be.
    fn wrong_reply(&mut self) -> bool {
        let me = self.me();
        let here = format!("{}:", self.host.name());
        let other = {
            let requests = lock(&self.run.requests);
            let others: Vec<_> = requests
                .iter()
                .filter(|(_, _, to)| to.starts_with(&here) && *to != me)
                .collect();
            (!others.is_empty()).then(|| (*self.rng.pick(&others)).clone())
        };
        let Some((request, ..)) = other else {
            return self.message();
        };
        self.sent += 1;
        let body = format!("{me}/wrong#{}", self.sent);
        let _ = reply(
            self.run,
            &mut self.client,
            (self.host, self.number),
            (&request, &body),
            &mut self.rng,
        );
        true
    }
}

/// Replies as a session; true when it was taken.
fn reply(
    run: &Run<'_>,
    client: &mut Client,
    by: (Host, usize),
    (request, body): (&str, &str),
    rng: &mut Rng,
) -> bool {
    let asker = {
        let requests = lock(&run.requests);
        let known = requests.iter().find(|(id, ..)| id == request);
        known.map(|(_, from, _)| from.clone())
    };
    let id = id("rpl", rng);
    let frame = json!({
        "type": "MsgReply", "request_id": request, "body": body,
        "from_name": run.name(by.1), "message_id": id,
    });
    let call = Call::Reply {
        request: request.to_owned(),
        by: run.label(by.0, by.1),
        body: body.to_owned(),
    };
    run.make(client, call, &frame, |answer| {
        let state = answer["state"].as_str().unwrap_or("delivered");
        vec![Receipt {
            to: asker.unwrap_or_default(),
            id,
            state: state.to_owned(),
        }]
    })
}

/// Replies to what a session is asked, until the run is over; now and then a second time.
pub(super) fn answer(run: &Run<'_>, host: Host, number: usize) {
    let part = 1000 + number as u64 + 100 * u64::from(host == Host::Dev2);
    let mut rng = Rng::new(run.seed, part);
    let mut client = run.client(host);
    let me = run.label(host, number);
    let (mut cursor, mut sent) = (0, 0);
    while !run.is_over() {
        let read = json!({"type": "MsgRead", "to_name": run.name(number), "since": cursor});
        let End::Answer(answer) = client.call(&read, LIMIT) else {
            run.rest(Duration::from_millis(100));
            continue;
        };
        for one in answer["messages"].as_array().into_iter().flatten() {
            let asked = one["type"] == "message.request" && one["to_name"] == run.name(number);
            let sent_by_me = one["from_name"] == run.name(number);
            let next = one["cursor"].as_u64().unwrap_or(cursor).max(cursor);
            // A clock that was set ahead makes one look late, which may be replied to.
            let open = one["state"] == "pending" || one["state"] == "expired";
            if !asked || sent_by_me || !open {
                cursor = next;
                continue;
            }
            let request = text(&one["request_id"]);
            let mut taken = false;
            for _ in 0..=usize::from(rng.percent(20)) {
                sent += 1;
                let body = format!("{me}/replies#{sent}");
                let by = (host, number);
                taken |= reply(run, &mut client, by, (&request, &body), &mut rng);
            }
            if !taken {
                // Its disk may be full: it is asked again what is pending.
                break;
            }
            cursor = next;
        }
        run.rest(Duration::from_millis(100));
    }
}

/// A new id.
fn id(kind: &str, rng: &mut Rng) -> String {
    let encoding = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    format!("{kind}_{}", encoding.encode(rng.bytes()))
}

pub(super) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
