//! What happens in a run, and after how many calls.

use super::rng::Rng;
use crate::substrate::Host;

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The node is killed; its keeper starts another.
    KillNode(Host),
    /// The keeper is killed; its node starts another.
    KillKeeper(Host),
    /// Both are killed, and started again by hand.
    Crash(Host),
    /// The relay is killed and started again.
    KillRelay,
    /// The relay comes back with an older copy of its database.
    RollBackRelay,
    /// A command is killed while it sends.
    KillClient(Host),
    /// The node stands still (SIGSTOP).
    StopNode(Host),
    /// The keeper does.
    StopKeeper(Host),
    /// The relay does.
    StopRelay,
    /// Nothing passes between the node and the relay: from it, to it.
    Hold(Host, bool, bool),
    /// Their connections break, and no new ones are made.
    Cut(Host),
    /// Datagrams to a node are lost, so many in a hundred.
    Lose(Host, u8),
    /// The clock of a node jumps by so many seconds, and back.
    Clock(Host, i64),
    /// The disk of a node is full.
    Disk(Host),
    /// The node may open no more files.
    Descriptors(Host),
    /// Somebody follows all that happens and reads none of it.
    SlowReader(Host),
    /// A session starts processes as fast as it can, up to a number.
    Crowd(Host),
}

/// A fault and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// After so many calls of the run are over.
    pub(super) at: usize,
    /// What.
    pub(super) fault: Fault,
    /// While that lasts, somebody is killed as well.
    pub(super) also: Option<Fault>,
    /// It is over after so many more calls.
    pub(super) calls: usize,
    /// Or after so many milliseconds.
    pub(super) at_most_ms: u64,
}

/// What a world can do.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Can {
    /// Hold back what passes between nodes and relay.
    pub(super) hold: bool,
    /// Lose datagrams.
    pub(super) lose: bool,
    /// Let clocks jump.
    pub(super) clock: bool,
    /// Fill the second node's disk.
    pub(super) disk: bool,
}

impl Fault {
    /// How the summary calls it.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::KillNode(_) => "kill node",
            Self::KillKeeper(_) => "kill keeper",
            Self::Crash(_) => "crash machine",
            Self::KillRelay => "kill relay",
            Self::RollBackRelay => "roll relay back",
            Self::KillClient(_) => "kill client",
            Self::StopNode(_) => "stop node",
            Self::StopKeeper(_) => "stop keeper",
            Self::StopRelay => "stop relay",
            Self::Hold(_, true, true) => "partition",
            Self::Hold(..) => "one-way partition",
            Self::Cut(_) => "cut connections",
            Self::Lose(..) => "lose datagrams",
            Self::Clock(..) => "clock jump",
            Self::Disk(_) => "disk full",
            Self::Descriptors(_) => "no descriptors",
            Self::SlowReader(_) => "slow reader",
            Self::Crowd(_) => "process crowd",
        }
    }
}

/// The faults of a run of about so many calls.
pub(super) fn plan(seed: u64, can: Can, calls: usize) -> Vec<Step> {
    let mut rng = Rng::new(seed, 1);
    let count = 3 + rng.below(3);
    let mut steps = Vec::new();
    for number in 1..=count {
        let fault = fault(&mut rng, can);
        let also = rng.percent(25).then(|| {
            let host = *rng.pick(&Host::ALL);
            *rng.pick(&[Fault::KillNode(host), Fault::KillRelay])
        });
        let held = !matches!(
            fault,
            Fault::KillNode(_) | Fault::Crash(_) | Fault::KillKeeper(_)
        );
        steps.push(Step {
            at: calls * number / (count + 2) + rng.below(8),
            fault,
            also: also.filter(|_| held && !stops(fault)),
            calls: 5 + rng.below(25),
            at_most_ms: 100 + u64::try_from(rng.below(500)).unwrap_or(0),
        });
    }
    steps
}

/// Whether somebody stands still, who cannot be killed and come back meanwhile.
const fn stops(fault: Fault) -> bool {
    matches!(
        fault,
        Fault::StopNode(_) | Fault::StopKeeper(_) | Fault::StopRelay | Fault::Descriptors(_)
    )
}

fn fault(rng: &mut Rng, can: Can) -> Fault {
    let host = *rng.pick(&Host::ALL);
    let mut all = vec![
        Fault::KillNode(host),
        Fault::KillNode(host),
        Fault::KillKeeper(host),
        Fault::Crash(host),
        Fault::KillRelay,
        Fault::RollBackRelay,
        Fault::KillClient(host),
        Fault::StopNode(host),
        Fault::StopKeeper(host),
        Fault::StopRelay,
        Fault::Descriptors(host),
        Fault::SlowReader(host),
        Fault::Crowd(host),
    ];
    if can.hold {
        all.extend([
            Fault::Hold(host, true, true),
            Fault::Hold(host, true, false),
            Fault::Hold(host, false, true),
            Fault::Cut(host),
        ]);
    }
    if can.lose {
        let percents = [10, 30, 100];
        all.extend(percents.map(|percent| Fault::Lose(host, percent)));
        all.push(Fault::Hold(host, true, true));
    }
    if can.clock {
        const DAY: i64 = 24 * 60 * 60;
        let jumps = [400 * DAY, -DAY, 3600];
        all.extend(jumps.map(|by| Fault::Clock(host, by)));
    }
    if can.disk {
        all.extend([Fault::Disk(Host::Dev2); 3]);
    }
    *rng.pick(&all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_plan_and_all_faults_come() {
        let can = Can {
            hold: true,
            lose: true,
            clock: true,
            disk: true,
        };
        let mut words = std::collections::BTreeSet::new();
        for seed in 0..100 {
            let steps = plan(seed, can, 150);
            assert_eq!(format!("{steps:?}"), format!("{:?}", plan(seed, can, 150)));
            assert!(steps.len() >= 3 && steps.is_sorted_by_key(|step| step.at / 8 * 8));
            words.extend(steps.iter().map(|step| step.fault.word()));
        }
        assert_eq!(words.len(), 18, "{words:?}");
    }
}
