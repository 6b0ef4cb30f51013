//! A relay as a process of the test.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::PATIENCE;
use crate::cw::Cw;
use crate::running::Running;

/// The token of the relay's administrator in every test.
pub const TOKEN: &str = "e2e-administrator";

/// How long a relay may take to stop when it is asked to.
const STOP: Duration = Duration::from_secs(10);

/// A relay that can be stopped, killed and started again at the same place.
pub struct Relay {
    cw: Cw,
    data: PathBuf,
    state: Mutex<State>,
}

struct State {
    /// `host:port`; the port is 0 until the relay has said which it is.
    listen: String,
    running: Option<Running>,
    /// What earlier runs have printed.
    log: String,
}

impl Relay {
    /// A relay that listens on `listen` and keeps its files in `data`; not started.
    #[must_use]
    pub fn new(cw: Cw, data: &Path, listen: &str) -> Self {
        Self {
            cw: cw.env("CODEWIRE_RELAY_AUTH_TOKEN", TOKEN),
            data: data.to_owned(),
            state: Mutex::new(State {
                listen: listen.to_owned(),
                running: None,
                log: String::new(),
            }),
        }
    }

    /// Starts it, and waits until it listens. After the first time it keeps its port.
    ///
    /// # Panics
    ///
    /// When it does not listen within [`PATIENCE`].
    #[track_caller]
    pub fn start(&self) {
        let mut state = self.lock();
        assert!(state.running.is_none(), "the relay runs already");
        let url = format!("http://{}", state.listen);
        let host = state
            .listen
            .rsplit_once(':')
            .map_or("127.0.0.1", |(host, _)| host);
        let stun = format!("{host}:0");
        let data = self.data.display().to_string();
        let running = self.cw.start(&[
            "relay",
            "serve",
            "--base-url",
            &url,
            "--listen",
            &state.listen,
            "--stun-listen",
            &stun,
            "--data-dir",
            &data,
        ]);
        let line = running.stderr.line("[relay] HTTP listening on ", PATIENCE);
        let address = line
            .split_whitespace()
            .nth(4)
            .unwrap_or_default()
            .to_owned();
        state.running = Some(running);
        state.listen = address;
    }

    /// Its URL.
    ///
    /// # Panics
    ///
    /// When it was never started.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Its `host:port`.
    ///
    /// # Panics
    ///
    /// When it was never started.
    #[must_use]
    pub fn address(&self) -> String {
        let listen = self.lock().listen.clone();
        assert!(!listen.ends_with(":0"), "the relay was never started");
        listen
    }

    /// Asks it to stop (SIGTERM), and waits until it has.
    ///
    /// # Panics
    ///
    /// When it does not stop in time, or not with status 0.
    #[track_caller]
    pub fn stop(&self) {
        let running = self.lock().running.take();
        let running = running.unwrap_or_else(|| panic!("the relay does not run"));
        let pid = i32::try_from(running.pid()).ok().and_then(Pid::from_raw);
        let asked = pid.map(|pid| kill_process(pid, Signal::TERM));
        assert_eq!(asked, Some(Ok(())), "the relay has ended by itself");
        let done = running.wait(STOP).ok();
        self.lock().log.push_str(&done.stderr);
    }

    /// Kills it (SIGKILL).
    pub fn kill(&self) {
        let mut state = self.lock();
        if let Some(mut running) = state.running.take() {
            running.kill();
            state.log.push_str(&running.stderr.text());
        }
    }

    /// What it has printed.
    #[must_use]
    pub fn log(&self) -> String {
        let state = self.lock();
        let now = state.running.as_ref().map(|running| running.stderr.text());
        format!("{}{}", state.log, now.unwrap_or_default())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
