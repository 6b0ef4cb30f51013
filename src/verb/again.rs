//! Calls that outlive the node they were made to: watching, waiting and following go on by
//! themselves when the node is restarted, or the way to another machine is lost for a while.
//!
//! A call that was answered once says where to go on. One that never was is made a few times: the
//! node may have been lost before it could answer, but a call may also be what it is lost by. A node
//! that was stopped on purpose is not started again for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::cli::Cli;
use crate::error::{Error, Result};
use crate::rpc::Channel;
use crate::verb::{Call, Reply};

/// How long to try without any answer.
const GIVE_UP: Duration = Duration::from_secs(60);
/// The first pause between two tries, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// How often a call is made that is never answered.
const UNANSWERED: u32 = 4;

/// How long to try before that is said.
const TELL: Duration = Duration::from_secs(2);

/// How long it has been silent.
pub(crate) struct Patience {
    /// Since when it is tried in vain; none while there was an answer and nothing was lost since.
    since: Option<Instant>,
    /// How often the call was made, while it was never answered.
    unanswered: u32,
    pause: Duration,
    told: Arc<AtomicBool>,
    /// Says that it is tried again, when it is time and whatever is under way then: one try may
    /// take half a minute. Ends when this is dropped.
    teller: JoinSet<()>,
}

impl Patience {
    /// The node has answered.
    pub(crate) fn heard(&mut self) {
        *self = Self::new(0);
    }

    fn new(unanswered: u32) -> Self {
        Self {
            since: (unanswered > 0).then(Instant::now),
            unanswered,
            pause: PAUSE.0,
            told: Arc::default(),
            teller: JoinSet::new(),
        }
    }

    /// A call is lost that was under way for so long. No node that is away takes a minute to be
    /// found out, so this one was there until now, though some calls are answered only at their end.
    fn lasted(&mut self, time: Duration) {
        if time >= GIVE_UP {
            self.since = None;
        }
    }

    /// From now on it may be silent although all is well.
    pub(crate) fn may_be_silent(&mut self) {
        self.teller = JoinSet::new();
    }

    /// Says in a while that it is tried again, unless something is heard until then.
    fn tell(&mut self, cli: &Cli, since: Instant, lost: &Error) {
        if !self.teller.is_empty() {
            return;
        }
        let (cli, told) = (cli.clone(), Arc::clone(&self.told));
        let note = format!("[cw] {lost}; trying again");
        self.teller.spawn(async move {
            tokio::time::sleep_until((since + TELL).into()).await;
            if !told.swap(true, Ordering::Relaxed) {
                cli.note(&note);
            }
        });
    }

    /// A new channel after `lost`.
    async fn reopen(&mut self, cli: &Cli, lost: Error) -> Result<Channel> {
        if self.unanswered > 0 {
            self.unanswered += 1;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        self.tell(cli, since, &lost);
        while since.elapsed() < GIVE_UP && self.unanswered <= UNANSWERED {
            tokio::time::sleep(self.pause).await;
            self.pause = (self.pause * 2).min(PAUSE.1);
            match cli.reopen().await {
                Ok(channel) => return Ok(channel),
                Err(error) if is_lost(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Err(lost)
    }
}

/// Makes a call, and again when it was lost, until it is done or has failed.
///
/// # Errors
///
/// The call's; what was lost when nothing was heard for a minute.
pub(crate) async fn until_done<T>(
    cli: &Cli,
    mut round: impl AsyncFnMut(Channel, &mut Patience) -> Result<T>,
) -> Result<T> {
    let mut patience = Patience::new(1);
    let mut channel = cli.open().await?;
    loop {
        let begun = Instant::now();
        match round(channel, &mut patience).await {
            Err(error) if is_lost(&error) => {
                patience.lasted(begun.elapsed());
                channel = patience.reopen(cli, error).await?;
            }
            ended => return ended,
        }
    }
}

/// One question, one answer, asked again when the node is lost before it has answered: only for
/// what may be asked twice.
///
/// # Errors
///
/// The node's; what was lost when nothing was heard for a minute.
pub(crate) async fn ask(cli: &Cli, call: Call) -> Result<Reply> {
    ask_anew(cli, || call.clone()).await
}

/// As [`ask`], with a call that is made anew each time: what it says of the time that is left is
/// no longer so the next time.
///
/// # Errors
///
/// As [`ask`].
pub(crate) async fn ask_anew(cli: &Cli, call: impl Fn() -> Call) -> Result<Reply> {
    let mut patience = Patience::new(0);
    let mut channel = cli.open().await?;
    loop {
        patience.may_be_silent();
        let begun = Instant::now();
        match channel.call(&call()).await {
            Ok(Reply::Error(failure)) => return Err(failure.into()),
            Ok(reply) => return Ok(reply),
            Err(error) if is_lost(&error) => {
                patience.lasted(begun.elapsed());
                channel = patience.reopen(cli, error).await?;
            }
            Err(error) => return Err(error),
        }
    }
}

/// What is left until then in whole seconds, as calls say it: never less than there is, or what
/// was waited for would be given up too early, and never 0, which means something else.
pub(crate) fn seconds_until(end: Instant) -> u64 {
    whole_seconds(end.saturating_duration_since(Instant::now()))
}

fn whole_seconds(left: Duration) -> u64 {
    let whole = left.as_millis().div_ceil(1000).max(1);
    u64::try_from(whole).unwrap_or(u64::MAX)
}

/// Whether trying again may help.
pub(crate) fn is_lost(error: &Error) -> bool {
    matches!(
        error.code.as_str(),
        "connection_lost"
            | "node_down"
            | "node_unreachable"
            | "node_unresponsive"
            | "node_restarting"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_that_is_left_is_rounded_up() {
        for (millis, seconds) in [(0, 1), (1, 1), (999, 1), (1000, 1), (1001, 2), (3999, 4)] {
            let left = whole_seconds(Duration::from_millis(millis));
            assert_eq!(left, seconds, "{millis}");
        }
    }

    #[test]
    fn who_was_answered_has_not_waited_in_vain_since() {
        let mut patience = Patience::new(1);
        assert!(patience.since.is_some(), "it was never answered");
        patience.heard();
        assert_eq!(patience.since, None);
        for (time, forgotten) in [(GIVE_UP / 2, false), (GIVE_UP, true)] {
            let mut patience = Patience::new(1);
            patience.lasted(time);
            assert_eq!(patience.since.is_none(), forgotten, "{time:?}");
        }
    }
}
