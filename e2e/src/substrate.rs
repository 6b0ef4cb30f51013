//! Where the hosts of a scenario are, and what can be done to them.

use crate::cw::Cw;
use crate::home::Home;

/// A host with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// `dev-1`, where most commands are typed.
    Dev1,
    /// `dev-2`.
    Dev2,
}

/// How packets get from one node to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From host to host.
    Direct,
    /// By the relay, since there is no other way.
    Relayed,
}

/// A relay and two hosts. Nothing runs at first; a node starts with the first command that needs
/// it.
pub trait Substrate: Send + Sync {
    /// What to call it.
    fn label(&self) -> &'static str;

    /// The way that packets have to take here.
    fn way(&self) -> Way;

    /// `cw` on a host.
    fn cw(&self, host: Host) -> Cw {
        self.home(host).cw().clone()
    }

    /// The node's directory on a host.
    fn home(&self, host: Host) -> &Home;

    /// Starts the relay, at the same place as before.
    fn start_relay(&self);

    /// Asks the relay to stop, and waits until it has.
    fn stop_relay(&self);

    /// Kills the relay.
    fn kill_relay(&self);

    /// The relay's URL as the hosts know it.
    fn relay_url(&self) -> String;

    /// What the relay has printed.
    fn relay_log(&self) -> String;

    /// Cuts a host off the network, in silence; false where that cannot be done.
    fn cut(&self, _host: Host) -> bool {
        false
    }

    /// Connects it again.
    fn heal(&self, _host: Host) {}

    /// Ends everything. Never panics; may be called twice.
    fn tear_down(&self);
}

impl Host {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Dev1, Self::Dev2];

    /// The name of its node.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Dev1 => "dev-1",
            Self::Dev2 => "dev-2",
        }
    }
}

impl Way {
    /// How `cw node list` starts to say it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Relayed => "relayed",
        }
    }
}
