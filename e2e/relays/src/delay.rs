//! How long a packet takes: there and back by the relay, when nobody else is there, and while other
//! pairs send three quarters of what passes at most.
//!
//! Those who make the load would be other machines. So the relay has a processor to itself then, and
//! the load and who measures share another one, where the load has the lowest priority (`load`; on
//! Linux `SCHED_IDLE`): whenever who measures has something to do it is done at once. The load is
//! sent evenly, and the most that passes is measured with the very same processes on the very same
//! processors; how much of its own the relay needs at three quarters of it is printed. If they shared
//! both processors the load would wait whenever the relay works, and come in heaps afterwards: that
//! was measured too, and tells of the machine, not of the relay. What cannot be kept apart, above all
//! that the kernel carries a packet by loopback in the time and on the processor of who sends it, is
//! told by plain echoes beside the same load, which do not pass the relay at all.
//!
//! Who measures under load rests between two round trips, for one after the other they would be a
//! load of their own, and of the idle relay the tail is measured alike, on the same
//! processors.
//!
//! Beside the idle relay there are echoes without TLS, which are the yardstick, and, when the relay
//! has TLS, echoes with it, which tell what of the difference is TLS. Who serves and who measures are
//! on one core, and then on a core each: where the system happens to put them makes more of a
//! difference, threefold, than what they do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::client::{Client, Kind};
use crate::load::{self, Load};
use crate::report::{Samples, row, rows};
use crate::serve::{Served, Tls, stay};

const ROUNDS: usize = 5;
/// Round trips in a round, after a tenth of that to warm up.
const TRIPS: usize = 2_000;
/// The same with a rest before each.
const RARE: usize = 600;
const REST: Duration = Duration::from_millis(1);
/// Bytes of what goes round.
const SMALL: usize = 64;
/// The share of the most that passes.
const SHARE: f64 = 0.75;
/// Where the relay is while there is load.
const RELAY: usize = 0;
/// Until the load is what it is to be.
const WARM_UP: Duration = Duration::from_millis(300);

/// A figure of its own for each place of who serves.
const PLACES: [(usize, &str); 2] = [(load::CORE, "same core"), (RELAY, "two cores")];

#[derive(Default)]
struct Figures {
    /// In each of the [`PLACES`].
    idle: [Trips; PLACES.len()],
    /// Rarely, and so on.
    rare_tail: Samples,
    busy: Samples,
    busy_tail: Samples,
    /// How many times the tail of the idle relay.
    times: Samples,
    /// The same of echoes beside the load.
    echo_times: Samples,
    /// The load, thousands of datagrams a second.
    load: Samples,
    /// How much of it, percent.
    arrived: Samples,
    /// How much of the processors nobody needed, percent.
    rest: Samples,
    /// How much of its processor the relay needed, percent.
    needed: Samples,
}

/// Round trips of the rounds, microseconds.
#[derive(Default)]
struct Trips {
    half: Samples,
    tail: Samples,
}

/// One of the two.
type Column = fn(&Trips) -> &Samples;

impl Trips {
    /// Adds a round, in which each counts so many times.
    fn round(&mut self, trips: &Samples, times: f64) {
        self.half.number(times * trips.quantile(0.5));
        self.tail.number(times * trips.quantile(0.99));
    }
}

/// Measures and prints.
pub async fn run(tls: Tls) -> Result<()> {
    let kinds: Vec<_> = Kind::built().into_iter().take(2).collect();
    let mut figures: Vec<Figures> = kinds.iter().map(|_| Figures::default()).collect();
    let mut peaks = vec![None; kinds.len()];
    let [mut plain, mut alike] = [(); 2].map(|()| <[Trips; PLACES.len()]>::default());
    stay(std::process::id(), &[load::CORE])?;
    for _ in 0..ROUNDS {
        for (place, (core, _)) in PLACES.into_iter().enumerate() {
            // An echo is there and back once, what goes by a relay is so twice.
            let trips = echo(Tls::Plain, Pace::Often, core).await?;
            plain[place].round(&trips, 2.0);
            if tls == Tls::Tls {
                let trips = echo(tls, Pace::Often, core).await?;
                alike[place].round(&trips, 2.0);
            }
            for (kind, figures) in kinds.iter().zip(&mut figures) {
                let relay = Served::relay_on(core, *kind, tls)?;
                let trips = by_relay(*kind, &relay, Pace::Often).await?;
                figures.idle[place].round(&trips, 1.0);
            }
        }
        let echo_tail = echo(Tls::Plain, Pace::Rare, RELAY).await?.quantile(0.99);
        for ((kind, figures), last) in kinds.iter().zip(&mut figures).zip(&mut peaks) {
            let relay = Served::relay_on(RELAY, *kind, tls)?;
            let tail = by_relay(*kind, &relay, Pace::Rare).await?.quantile(0.99);
            // Each time anew, for the machine is not always as fast.
            let peak = Load::start(*kind, &relay)?.peak(*last).await?;
            *last = Some(peak);
            let busy = loaded(*kind, tls, peak * SHARE).await?;
            figures.rare_tail.number(tail);
            figures.busy.number(busy.trips.quantile(0.5));
            figures.busy_tail.number(busy.trips.quantile(0.99));
            figures.times.number(busy.trips.quantile(0.99) / tail);
            figures
                .echo_times
                .number(busy.echoes.quantile(0.99) / echo_tail);
            figures.load.number(peak * SHARE / 1e3);
            figures.arrived.number(busy.arrived);
            figures.rest.number(busy.rest);
            figures.needed.number(busy.needed);
        }
    }
    stay(std::process::id(), &[RELAY, load::CORE])?;
    for (place, (_, name)) in PLACES.iter().enumerate() {
        let echoes = [&plain[place], &alike[place]];
        let iroh = figures.get(1).map(|it| &it.idle[place]);
        print_idle(tls, name, &figures[0].idle[place], echoes, iroh);
    }
    print_busy(tls, &figures);
    Ok(())
}

fn print_idle(tls: Tls, place: &str, ours: &Trips, echoes: [&Trips; 2], iroh: Option<&Trips>) {
    let [plain, alike] = echoes;
    let columns: [(_, Column, _); 2] = [
        ("p50", |it| &it.half, "<= 1.25 x"),
        ("p99", |it| &it.tail, "reported"),
    ];
    for (column, of, goal) in columns {
        let title = format!("idle, {place}, {column}, {}", tls.name());
        let mut peers = vec![("2 TCP echoes", of(plain))];
        if tls == Tls::Tls {
            peers.push(("2 TLS echoes", of(alike)));
        }
        peers.extend(iroh.map(|iroh| ("iroh-relay", of(iroh))));
        rows(&title, "us", of(ours), &peers, goal);
    }
}

fn print_busy(tls: Tls, figures: &[Figures]) {
    let ours = &figures[0];
    let iroh = |of: fn(&Figures) -> &Samples| figures.get(1).map(|it| ("iroh-relay", of(it)));
    let title = |text: &str| format!("{text}, {}", tls.name());
    let head = title("round trip, 75 % load, p50");
    row(&head, "us", &ours.busy, iroh(|it| &it.busy), "reported");
    let head = title("round trip, 75 % load, p99");
    let theirs = iroh(|it| &it.busy_tail);
    row(&head, "us", &ours.busy_tail, theirs, "reported");
    let head = title("  idle, as rarely, p99");
    let theirs = iroh(|it| &it.rare_tail);
    row(&head, "us", &ours.rare_tail, theirs, "reported");
    let head = title("  to that of the idle relay");
    row(&head, "x", &ours.times, iroh(|it| &it.times), "<= 1.5 x");
    let head = title("  an echo beside, to an idle one");
    let theirs = iroh(|it| &it.echo_times);
    row(&head, "x", &ours.echo_times, theirs, "the machine's");
    let head = title("  that load");
    row(&head, "k/s", &ours.load, iroh(|it| &it.load), "reported");
    let head = title("  of that load arrived");
    row(&head, "%", &ours.arrived, iroh(|it| &it.arrived), "100");
    let head = title("  the relay's processor, in use");
    row(&head, "%", &ours.needed, iroh(|it| &it.needed), "reported");
    let head = title("  the processors at rest");
    row(&head, "%", &ours.rest, iroh(|it| &it.rest), "reported");
}

/// How round trips follow each other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// At once.
    Often,
    /// After a rest.
    Rare,
}

impl Pace {
    const fn trips(self) -> usize {
        match self {
            Self::Often => TRIPS,
            Self::Rare => RARE,
        }
    }

    async fn rest(self) {
        if self == Self::Rare {
            sleep(REST).await;
        }
    }
}

/// Round trips of an echo on a core, microseconds.
async fn echo(tls: Tls, pace: Pace, core: usize) -> Result<Samples> {
    let echo = Served::echo_on(core, tls)?;
    let tcp = TcpStream::connect(echo.at.address).await?;
    tcp.set_nodelay(true)?;
    // In a task of its own, as the clients of relays are.
    let trips = match tls {
        Tls::Plain => tokio::spawn(echoes(tcp, pace)),
        Tls::Tls => {
            let connector = tokio_rustls::TlsConnector::from(Arc::clone(&echo.at.trust));
            let stream = connector.connect("127.0.0.1".try_into()?, tcp).await?;
            tokio::spawn(echoes(stream, pace))
        }
    };
    trips.await?
}

async fn echoes(mut io: impl AsyncRead + AsyncWrite + Unpin, pace: Pace) -> Result<Samples> {
    let mut buffer = [7; SMALL];
    let mut trips = Samples::default();
    for trip in 0..pace.trips() + pace.trips() / 10 {
        pace.rest().await;
        let start = Instant::now();
        io.write_all(&buffer).await?;
        io.flush().await?;
        io.read_exact(&mut buffer).await?;
        if trip >= pace.trips() / 10 {
            trips.time(start.elapsed());
        }
    }
    Ok(trips)
}

/// What was measured at a relay.
struct Busy {
    trips: Samples,
    /// Beside it.
    echoes: Samples,
    /// How much of the load, percent.
    arrived: f64,
    /// How much of the processors nobody needed, percent.
    rest: f64,
    /// How much of its processor the relay needed, percent.
    needed: f64,
}

/// Time of all processors so far, ticks: at rest, and in all.
struct Processors {
    rest: f64,
    all: f64,
}

impl Processors {
    fn now() -> Result<Self> {
        let stat = std::fs::read_to_string("/proc/stat")?;
        let fields = stat.lines().next().unwrap_or_default().split_whitespace();
        let ticks: Vec<f64> = fields.skip(1).map_while(|it| it.parse().ok()).collect();
        // Guests are counted as users too.
        let ticks = ticks.get(..8).context("no processors in /proc/stat")?;
        Ok(Self {
            rest: ticks[3] + ticks[4],
            all: ticks.iter().sum(),
        })
    }

    /// Percent.
    fn rest_since(&self, then: &Self) -> f64 {
        100.0 * (self.rest - then.rest) / (self.all - then.all)
    }
}

/// Round trips by a relay while others send so many datagrams a second through it.
async fn loaded(kind: Kind, tls: Tls, rate: f64) -> Result<Busy> {
    let relay = Served::relay_on(RELAY, kind, tls)?;
    let mut load = Load::start(kind, &relay)?;
    load.send(rate)?;
    sleep(WARM_UP).await;
    let (start, before, then) = (Instant::now(), load.send(rate)?, Processors::now()?);
    let cpu = relay.cpu()?;
    let trips = by_relay(kind, &relay, Pace::Rare).await?;
    let rest = Processors::now()?.rest_since(&then);
    let needed = 100.0 * (relay.cpu()? - cpu) / start.elapsed().as_secs_f64();
    let echoes = echo(Tls::Plain, Pace::Rare, RELAY).await?;
    let passed = (load.send(rate)? - before) / start.elapsed().as_secs_f64();
    Ok(Busy {
        trips,
        echoes,
        arrived: 100.0 * passed / rate,
        rest,
        needed,
    })
}

/// Round trips by a relay, microseconds.
async fn by_relay(kind: Kind, relay: &Served, pace: Pace) -> Result<Samples> {
    let (mut far, mut far_in) = Client::connect(kind, &relay.at, 200).await?.split(201)?;
    let (mut near, mut near_in) = Client::connect(kind, &relay.at, 201).await?.split(200)?;
    let message = Bytes::from(vec![7; SMALL]);
    let answer = message.clone();
    let mut answering = JoinSet::new();
    answering.spawn(async move {
        while far_in.recv().await.is_ok() {
            if far.send(&answer, SMALL).await.is_err() || far.flush().await.is_err() {
                return;
            }
        }
    });
    let trips = tokio::spawn(async move {
        let mut trips = Samples::default();
        for trip in 0..pace.trips() + pace.trips() / 10 {
            pace.rest().await;
            let start = Instant::now();
            near.send(&message, SMALL).await?;
            near.flush().await?;
            near_in.recv().await?;
            if trip >= pace.trips() / 10 {
                trips.time(start.elapsed());
            }
        }
        anyhow::Ok(trips)
    });
    trips.await?
}
