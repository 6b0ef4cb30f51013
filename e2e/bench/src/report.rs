//! Medians, percentiles and the table.

use std::time::Duration;

/// What was measured in one round.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// None yet.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds a time, kept in microseconds.
    pub fn time(&mut self, time: Duration) {
        self.0.push(time.as_secs_f64() * 1e6);
    }

    /// Adds a plain number.
    pub fn number(&mut self, number: f64) {
        self.0.push(number);
    }

    /// The value below which `share` (0 to 1) of the samples lie.
    pub fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let at = ((sorted.len() as f64 - 1.0) * share).round() as usize;
        sorted.get(at).copied().unwrap_or(f64::NAN)
    }

    /// What was measured, in its order.
    pub fn values(&self) -> &[f64] {
        &self.0
    }

    /// Round by round, how much more than `other`.
    pub fn minus(&self, other: &Self) -> Self {
        let pairs = self.0.iter().zip(&other.0);
        Self(pairs.map(|(one, other)| one - other).collect())
    }

    /// Whether nothing was measured.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The middle.
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }
}

/// One line: ours, the peer's, their ratio (median of the rounds' ratios) and the goal.
pub fn row(name: &str, unit: &str, ours: &Samples, peer: Option<(&str, &Samples)>, goal: &str) {
    let (peer_name, peer_value, ratio) = match peer {
        Some((name, peer)) => (
            name,
            format!("{:.1}", peer.median()),
            format!("{:.2}", ratio(ours, peer)),
        ),
        None => ("-", "-".to_owned(), "-".to_owned()),
    };
    println!(
        "{name:<34} {:>10.1} {unit:<7} {peer_name:>12} {peer_value:>10} {ratio:>6}   {goal}",
        ours.median()
    );
}

/// One line for each peer; what is ours and the goal stand in the first.
pub fn rows(name: &str, unit: &str, ours: &Samples, peers: &[(&str, &Samples)], goal: &str) {
    let mut peers = peers.iter();
    row(name, unit, ours, peers.next().copied(), goal);
    for (peer_name, peer) in peers {
        println!(
            "{:<34} {:>10} {:<7} {peer_name:>12} {:>10.1} {:>6.2}",
            "",
            "",
            "",
            peer.median(),
            ratio(ours, peer),
        );
    }
}

/// The heading of the table.
pub fn head() {
    println!(
        "{:<34} {:>10} {:<7} {:>12} {:>10} {:>6}   goal",
        "figure", "ours", "", "peer", "theirs", "ratio"
    );
}

/// Ours to the peer's: the median of the rounds' ratios.
fn ratio(ours: &Samples, peer: &Samples) -> f64 {
    let pairs = ours.0.iter().zip(&peer.0);
    Samples(pairs.map(|(ours, peer)| ours / peer).collect()).median()
}

/// The machine's load averages.
pub fn load() -> String {
    std::fs::read_to_string("/proc/loadavg").map_or_else(
        |_| "unknown".to_owned(),
        |text| text.split(' ').take(3).collect::<Vec<_>>().join(" "),
    )
}
