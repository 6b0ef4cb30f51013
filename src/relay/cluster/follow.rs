//! The tasks of a relay that shares its database: it says that it runs, writes down who is here, and
//! takes in what others say.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::links::Links;
use super::{Cluster, step};
use crate::coord::request::REQUEST_WINDOW;
use crate::relay::app::App;
use crate::relay::store::cluster::{DEAD_AFTER, Heard, Note};

/// How often a relay says that it runs.
const BEAT: Duration = Duration::from_secs(1);

/// How often a relay looks what has changed without being told.
const LOOK: Duration = Duration::from_secs(2);

/// After this many beats the others are told, so that they know that they hear.
const BEATS_TOLD: u64 = 10;

/// After this many beats the database is tidied.
const BEATS_TIDIED: u64 = 60;

/// How long nonces are remembered, seconds: a request is good for this many at most, and the clocks
/// of two relays may be some minutes apart.
const NONCES_KEPT: Duration = Duration::from_secs(4 * REQUEST_WINDOW + 300);

/// After a failure.
const PAUSE: Duration = Duration::from_millis(250);

/// What is heard and not yet taken in.
const UNHEARD: usize = 1024;

/// Follows what other relays do. Returns at once if there cannot be any.
pub(crate) async fn follow(app: Arc<App>) {
    if app.cluster.is_none() {
        return;
    }
    tokio::join!(beat(&app), write(&app), hear(&app));
}

/// Says again and again that this relay runs, and takes off the books who does not.
async fn beat(app: &App) {
    let Some((cluster, together)) = app.together() else {
        return;
    };
    let mut due = interval(BEAT);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut steady_since = None;
    let mut links = Links::default();
    for number in 0_u64.. {
        tokio::select! {
            _ = due.tick() => {}
            () = cluster.beat_now.notified() => {}
        }
        // Who was silent may not have been able to say anything.
        let is_steady = steady_since.is_some_and(|since: Instant| since.elapsed() > DEAD_AFTER);
        let Some(somebody_is_dead) = cluster.note(cluster.beat(together, is_steady).await) else {
            steady_since = None;
            continue;
        };
        links.follow(&app.derp, &cluster.trust, &*cluster.fellows.lock());
        steady_since.get_or_insert_with(Instant::now);
        if somebody_is_dead && is_steady {
            cluster.note(together.bury().await);
        }
        if number.is_multiple_of(BEATS_TOLD) {
            cluster.note(together.tell(Note::Here).await);
        }
        if number.is_multiple_of(BEATS_TIDIED) {
            cluster.note(together.tidy(NONCES_KEPT).await);
        }
    }
}

/// Writes down who is here. What comes while it writes is written together next.
async fn write(app: &App) {
    let Some((cluster, together)) = app.together() else {
        return;
    };
    loop {
        let Some((batch, seatings)) = cluster.seats.lock().poll_write() else {
            cluster.write.notified().await;
            continue;
        };
        let written = together.seat(cluster.me.id, seatings).await;
        match cluster.note(written).flatten() {
            Some(place) => {
                let me = cluster.me.id;
                let effects = cluster.seats.lock().handle_written(me, batch, place);
                app.follow_seats(effects);
            }
            None => {
                // Away, or this relay is not on the books and will be with its next beat.
                let me = cluster.me.id;
                let effects = cluster.seats.lock().handle_failed(me, batch);
                app.follow_seats(effects);
                sleep(PAUSE).await;
            }
        }
    }
}

/// Of more notes than that it is less work to look around once, which takes all in.
const MANY: usize = 16;

/// Takes in what others say, and looks around.
async fn hear(app: &App) {
    let Some((cluster, together)) = app.together() else {
        return;
    };
    loop {
        let (tell, heard) = mpsc::channel(UNHEARD);
        tokio::select! {
            over = together.hear(tell) => { cluster.note(over); }
            () = take_all_in(app, cluster, heard) => {}
        }
        sleep(PAUSE).await;
        cluster.note(step(app.look_around()).await);
    }
}

async fn take_all_in(app: &App, cluster: &Cluster, mut heard: mpsc::Receiver<Heard>) {
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let done = tokio::select! {
            first = heard.recv() => match first {
                None => return,
                Some(Heard::Listening) => step(app.look_at_all()).await,
                Some(Heard::Note(note)) => {
                    let mut notes = vec![note];
                    // What many have said many times is looked at once.
                    while let Ok(Heard::Note(note)) = heard.try_recv() {
                        if !notes.contains(&note) {
                            notes.push(note);
                        }
                    }
                    if notes.len() > MANY {
                        step(app.look_around()).await
                    } else {
                        let mut done = Ok(());
                        for note in notes {
                            done = done.and(step(app.handle(note)).await);
                        }
                        done
                    }
                }
            },
            _ = look.tick() => step(app.look_around()).await,
        };
        cluster.note(done);
    }
}
