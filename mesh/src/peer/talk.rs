//! The conversation of two nodes inside their tunnel: hello, silence, good-bye.

use std::time::{Duration, Instant};

use super::{ASK_AFTER, Core, DOUBT_AFTER, Event, Transmit};
use crate::control::Message;
use crate::packet::{HEADER_LEN, Port, SEAL_LEN};
use crate::path::{Route, Via};
use crate::wg::{MAX_HANDSHAKE, Sealed};

const HELLO_PAUSE: Duration = Duration::from_millis(250);
const HELLO_TRIES: u32 = 8;
/// The id of the echo that asks after a silence; [`Core::echo`] takes others.
const SILENCE_ECHO: u64 = 0;
/// After a good-bye, stray packets do not bring the tunnel up again.
const MUTE: Duration = Duration::from_secs(1);

impl Core {
    pub(super) fn handle_control(&mut self, via: Via, message: Message, now: Instant) {
        match message {
            Message::Hello { boot } => self.handle_hello(via, boot, now),
            Message::HelloSeen { boot } if boot == self.setup.boot => self.hello = None,
            Message::HelloSeen { .. } => {}
            Message::CallMeMaybe { endpoints } => {
                self.agent.handle_call_me_maybe(&endpoints, now);
            }
            Message::Probe { id, .. } => self.agent.handle_probe(id, via, now),
            Message::Pong { id, observed } => {
                self.agent.handle_pong(id, via, now);
                self.events.push_back(Event::Seen(observed));
            }
            Message::Echo { id } => self.send_via(&Message::EchoReply { id }, via, now),
            // Our own question after a silence; that something came is enough.
            Message::EchoReply { id: SILENCE_ECHO } => {}
            Message::EchoReply { id } => self.events.push_back(Event::Echoed { id, via }),
            Message::Bye => self.handle_bye(now),
            Message::Outside(outside) => self.agent.handle_outside(outside, now),
            Message::OpenUp { from } => self.agent.handle_open_up(from, now),
            Message::Knock => self.agent.handle_knock(via, now),
        }
        self.flush_agent(now);
    }

    pub(super) fn handle_hello(&mut self, via: Via, boot: u64, now: Instant) {
        self.send_via(&Message::HelloSeen { boot }, via, now);
        if self.remote_boot.is_some_and(|known| known != boot) {
            self.agent.handle_restart(now);
        }
        if !self.greeted || self.remote_boot != Some(boot) {
            self.greeted = true;
            self.remote_boot = Some(boot);
            self.events.push_back(Event::Hello { boot });
        }
    }

    pub(super) fn handle_bye(&mut self, now: Instant) {
        self.drop_tunnel();
        self.agent.handle_departure();
        self.remote_boot = None;
        self.muted_until = Some(now + MUTE);
        self.events.push_back(Event::Departed);
    }

    pub(super) fn say_hello(&mut self, now: Instant) {
        let Some((due, tries)) = self.hello else {
            return;
        };
        if due > now {
            return;
        }
        self.hello = (tries + 1 < HELLO_TRIES).then_some((now + HELLO_PAUSE, tries + 1));
        let mut route = self.agent.current(now);
        route.relay |= tries > 0;
        let boot = self.setup.boot;
        self.send(&Message::Hello { boot }, route, now);
    }

    pub(super) fn watch_silence(&mut self, now: Instant) {
        let Some(since) = self.silent_since else {
            return;
        };
        if !self.has_session() {
            // The handshake asks louder than we could.
            self.silent_since = None;
            return;
        }
        let silence = now.saturating_duration_since(since);
        if silence >= DOUBT_AFTER {
            self.silent_since = None;
            self.asked = false;
            self.doubted = true;
            let mut emitted = Vec::new();
            self.tunnel(now).initiate(true, now, &mut emitted);
            self.emit(emitted, now);
        } else if silence >= ASK_AFTER && !self.asked {
            self.asked = true;
            let route = self.agent.current(now);
            self.send(&Message::Echo { id: SILENCE_ECHO }, route, now);
        }
    }

    pub(super) fn flush_agent(&mut self, now: Instant) {
        while let Some((via, message)) = self.agent.poll_transmit() {
            self.send_via(&message, via, now);
        }
    }

    pub(super) fn send(&mut self, message: &Message, route: Route, now: Instant) {
        if let Some(addr) = route.direct {
            self.send_via(message, Via::Direct(addr), now);
        }
        if route.relay {
            self.send_via(message, Via::Relay, now);
        }
    }

    /// Sends a control message, if there is a session; else it is lost, and
    /// whoever needs it sends it again.
    pub(super) fn send_via(&mut self, message: &Message, via: Via, now: Instant) {
        if !self.has_session() {
            return;
        }
        let payload = message.encode();
        let mut packet = vec![0; HEADER_LEN + payload.len()];
        let len = self.pair.build(Port::Control, &payload, &mut packet);
        let mut bytes = vec![0; (len + SEAL_LEN).max(MAX_HANDSHAKE)];
        let mut emitted = Vec::new();
        let sealed = self
            .tunnel(now)
            .seal(&packet, &mut bytes, now, &mut emitted);
        if let Sealed::Data(len) = sealed {
            bytes.truncate(len);
            self.out.push_back(Transmit { via, bytes });
        }
        self.emit(emitted, now);
    }
}
