//! What the channels of one connection have asked for, and what is answered.
//!
//! Answers belong to requests by their order alone (RFC 4254, 5.4), and russh keeps of a channel no
//! more than whether its *last* request wants one. So a request is answered while it is read; given
//! later, the answer to one could be taken for that to the next. What takes longer, a start, is
//! always granted once: if it goes wrong the client reads why on standard error, and the status is
//! 255.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Weak};

use russh::ChannelId;

use super::sftp;

/// Variables of the client that are passed on; each name may end in a star.
const VARIABLES: [&str; 4] = ["LANG", "LC_*", "COLORTERM", "CW_*"];

/// Variables of one channel, and the longest of them, name and value together, bytes.
pub(super) const MAX_VARIABLES: usize = 32;
const MAX_VARIABLE: usize = 4096;

/// See the module.
pub(crate) struct Asked<Id = ChannelId> {
    channels: HashMap<Id, Channel>,
}

struct Channel {
    has_started: bool,
    variables: usize,
    /// Who serves it; russh does not tell of the end of a channel that was closed from here.
    served: Weak<Served>,
}

/// Held as long as a channel is served.
pub(crate) struct Served;

impl<Id: Eq + Hash> Default for Asked<Id> {
    fn default() -> Self {
        let channels = HashMap::new();
        Self { channels }
    }
}

impl<Id: Eq + Hash> Asked<Id> {
    /// A channel for a session, until what is returned is dropped.
    pub(crate) fn open(&mut self, id: Id) -> Arc<Served> {
        self.channels
            .retain(|_, channel| channel.served.strong_count() > 0);
        let served = Arc::new(Served);
        let channel = Channel {
            has_started: false,
            variables: 0,
            served: Arc::downgrade(&served),
        };
        self.channels.insert(id, channel);
        served
    }

    /// A terminal.
    pub(crate) fn terminal(&mut self, id: Id) -> bool {
        self.before_start(id).is_some()
    }

    /// A variable.
    pub(crate) fn variable(&mut self, id: Id, name: &str, value: &str) -> bool {
        let Some(channel) = self.before_start(id) else {
            return false;
        };
        let ok = is_passed_on(channel.variables, name, value);
        channel.variables += usize::from(ok);
        ok
    }

    /// A shell or a command.
    pub(crate) fn start(&mut self, id: Id) -> bool {
        let channel = self.before_start(id);
        channel.map(|channel| channel.has_started = true).is_some()
    }

    /// A subsystem. Where files are not given this is said by a start that fails: of one that is
    /// refused OpenSSH shows no reason.
    pub(crate) fn subsystem(&mut self, id: Id, name: &str) -> bool {
        name == sftp::NAME && self.start(id)
    }

    fn before_start(&mut self, id: Id) -> Option<&mut Channel> {
        let channel = self.channels.get_mut(&id);
        // Whoever serves it may have heard of this request before it is answered, and be done.
        channel.filter(|channel| !channel.has_started)
    }
}

/// Whether a variable is passed on to a program that has got `others` already.
pub(super) fn is_passed_on(others: usize, name: &str, value: &str) -> bool {
    let known = VARIABLES.iter().any(|known| match known.strip_suffix('*') {
        Some(prefix) => name
            .strip_prefix(prefix)
            .is_some_and(|rest| !rest.is_empty()),
        None => name == *known,
    });
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let fits = name.len() + value.len() <= MAX_VARIABLE && others < MAX_VARIABLES;
    // Who speaks as a session is proven by the process tree, not by a variable; one that claims it
    // would only confuse.
    let is_claim = name.starts_with("CW_SESSION");
    known && fits && !is_claim && name.bytes().all(plain) && !value.contains('\0')
}

/// The methods of a [`russh::server::Handler`] that answer the requests of its channels, from its
/// field `asked`. What agents are asked for is refused by russh itself.
macro_rules! answer_requests {
    () => {
        async fn pty_request(
            &mut self,
            id: russh::ChannelId,
            _: &str,
            _: u32,
            _: u32,
            _: u32,
            _: u32,
            _: &[(russh::Pty, u32)],
            session: &mut russh::server::Session,
        ) -> Result<(), Self::Error> {
            $crate::ssh::answer(session, id, self.asked.terminal(id))
        }

        async fn x11_request(
            &mut self,
            id: russh::ChannelId,
            _: bool,
            _: &str,
            _: &str,
            _: u32,
            session: &mut russh::server::Session,
        ) -> Result<(), Self::Error> {
            $crate::ssh::answer(session, id, false)
        }

        async fn env_request(
            &mut self,
            id: russh::ChannelId,
            name: &str,
            value: &str,
            session: &mut russh::server::Session,
        ) -> Result<(), Self::Error> {
            $crate::ssh::answer(session, id, self.asked.variable(id, name, value))
        }

        async fn shell_request(
            &mut self,
            id: russh::ChannelId,
            session: &mut russh::server::Session,
        ) -> Result<(), Self::Error> {
            $crate::ssh::answer(session, id, self.asked.start(id))
        }

        async fn exec_request(
            &mut self,
            id: russh::ChannelId,
            _: &[u8],
            session: &mut russh::server::Session,
        ) -> Result<(), Self::Error> {
            $crate::ssh::answer(session, id, self.asked.start(id))
        }

        async fn subsystem_request(
            &mut self,
            id: russh::ChannelId,
            name: &str,
            session: &mut russh::server::Session,
        ) -> Result<(), Self::Error> {
            $crate::ssh::answer(session, id, self.asked.subsystem(id, name))
        }
    };
}
pub(crate) use answer_requests;

/// Answers the request that is being read, if an answer is wanted.
pub(crate) fn answer(
    session: &mut russh::server::Session,
    id: ChannelId,
    ok: bool,
) -> Result<(), russh::Error> {
    if ok {
        session.channel_success(id)
    } else {
        session.channel_failure(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_chosen() {
        let mut asked = Asked::default();
        let _served = asked.open(1);
        assert!(asked.variable(1, "LANG", "C.UTF-8"));
        assert!(asked.variable(1, "LC_ALL", "C"));
        for (name, value) in [
            ("LD_PRELOAD", "/tmp/x.so"),
            ("PATH", "/tmp"),
            ("LC_", "x"),
            ("LC_A B", "x"),
            ("LANG", "a\0b"),
            ("CW_SESSION_ID", "7"),
            ("CODEWIRE_HOME", "/tmp"),
        ] {
            assert!(!asked.variable(1, name, value), "{name}");
        }
        assert!(!asked.variable(1, "LANG", &"x".repeat(5000)));
        let taken = (2..40).filter(|_| asked.variable(1, "LANG", "x")).count();
        assert_eq!(taken, MAX_VARIABLES - 2);
    }

    #[test]
    fn a_channel_starts_once_and_takes_nothing_afterwards() {
        let mut asked = Asked::default();
        assert!(!asked.terminal(1), "there is no channel yet");
        let (first, _second) = (asked.open(1), asked.open(2));
        assert!(asked.terminal(1) && asked.start(1));
        assert!(!asked.start(1) && !asked.terminal(1) && !asked.subsystem(1, sftp::NAME));
        assert!(!asked.variable(1, "LANG", "C"));
        assert!(!asked.subsystem(2, "netconf"));
        assert!(asked.subsystem(2, sftp::NAME) && !asked.start(2));
        drop(first);
        let _third = asked.open(3);
        assert!(asked.terminal(3));
        assert!(!asked.terminal(1), "it is over and forgotten");
    }

    #[test]
    fn channels_that_are_over_are_forgotten() {
        let mut asked = Asked::default();
        for id in 0..1000 {
            drop(asked.open(id));
        }
        assert_eq!(asked.channels.len(), 1);
    }
}
