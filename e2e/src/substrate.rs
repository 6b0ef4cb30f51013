//! Where the hosts of a scenario are, and what can be done to them.

use crate::case::Setting;
use crate::cw::Cw;
use crate::relay::TOKEN;

/// The network of a relay that no other test has.
const NETWORK: &str = "alpha";

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

/// A relay and two hosts. The relay does not run at first; a node may have to be started by the
/// first command that needs it.
pub trait Substrate: Send + Sync {
    /// What to call it.
    fn label(&self) -> &'static str;

    /// The way that packets have to take here.
    fn way(&self) -> Way;

    /// `cw` on a host.
    fn cw(&self, host: Host) -> Cw;

    /// `cw` of the relay's administrator, who knows its token.
    fn admin(&self) -> Cw {
        self.cw(Host::Dev1).env("CODEWIRE_RELAY_AUTH_TOKEN", TOKEN)
    }

    /// A name for the network that both nodes join; no other run has used it on this relay.
    fn network(&self) -> String {
        NETWORK.to_owned()
    }

    /// Starts the relay, at the same place and with the same data as before, and waits until it
    /// answers.
    fn start_relay(&self);

    /// Asks the relay to stop, and waits until it has.
    fn stop_relay(&self);

    /// Kills the relay.
    fn kill_relay(&self);

    /// Takes the relay away as it happens here, and has it back as soon as that can be.
    fn restart_relay(&self) {
        self.kill_relay();
        self.start_relay();
    }

    /// The relay's URL as its administrator knows it.
    fn relay_url(&self) -> String;

    /// The relay's URL as a host knows it.
    fn relay_url_on(&self, _host: Host) -> String {
        self.relay_url()
    }

    /// What the relay has printed.
    fn relay_log(&self) -> String;

    /// Starts a host's node, with the same data as before, and waits until it answers.
    fn start_node(&self, host: Host) {
        let _ = self.cw(host).run(&["start"]).ok();
    }

    /// Kills a host's node with everything that it runs, as the end of the machine would.
    fn kill_node(&self, host: Host);

    /// Takes a host's node away as it happens here, and has it back as soon as that can be.
    fn restart_node(&self, host: Host) {
        self.kill_node(host);
        self.start_node(host);
    }

    /// What a host's node has logged.
    fn node_log(&self, host: Host) -> String;

    /// Cuts a host off the network; false where that cannot be done.
    fn cut(&self, _host: Host) -> bool {
        false
    }

    /// Connects it again.
    fn heal(&self, _host: Host) {}

    /// Lets no datagram pass from node to node, in silence; what goes by the relay passes. False
    /// where that cannot be done.
    fn cut_direct(&self) -> bool {
        false
    }

    /// Lets them pass again.
    fn heal_direct(&self) {}

    /// Ends everything. Never panics; may be called twice.
    fn tear_down(&self);

    /// What is left of it: nothing after [`Self::tear_down`].
    fn remains(&self) -> Vec<String>;
}

impl Setting for dyn Substrate + '_ {
    fn logs(&self) -> Vec<(String, String)> {
        let mut logs = vec![(format!("relay ({})", self.label()), self.relay_log())];
        for host in Host::ALL {
            logs.push((host.name().to_owned(), self.node_log(host)));
        }
        logs
    }

    fn tear_down(&self) {
        Substrate::tear_down(self);
    }
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
