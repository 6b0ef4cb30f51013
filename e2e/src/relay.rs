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
    more: Vec<String>,
    tls: Option<Certificate>,
    /// The URL it is known by, if that is not where it listens.
    called: Option<String>,
    state: Mutex<State>,
}

/// A certificate that the relay itself vouches for, and its key.
pub(crate) struct Certificate {
    chain: PathBuf,
    key: PathBuf,
}

struct State {
    /// `host:port`; the port is 0 until the relay has said which it is.
    listen: String,
    /// The same of the SSH front door.
    ssh: String,
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
            more: Vec::new(),
            tls: None,
            called: None,
            state: Mutex::new(State {
                listen: listen.to_owned(),
                ssh: format!(
                    "{}:0",
                    listen
                        .rsplit_once(':')
                        .map_or("127.0.0.1", |(host, _)| host)
                ),
                running: None,
                log: String::new(),
            }),
        }
    }

    /// The same with more arguments.
    #[must_use]
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.more = arguments.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// The same, known by another URL than the one at which it listens.
    #[must_use]
    pub fn called(mut self, url: &str) -> Self {
        self.called = Some(url.to_owned());
        self
    }

    /// From its next start on it is known by another URL than the one at which it listens, and has
    /// more arguments.
    pub(crate) fn set_called(&mut self, url: &str, arguments: &[&str]) {
        self.called = Some(url.to_owned());
        self.more = arguments.iter().map(|word| (*word).to_owned()).collect();
    }

    /// Where it keeps its files.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// From its next start on it is behind TLS.
    pub(crate) fn set_tls(&mut self, certificate: Certificate) {
        self.tls = Some(certificate);
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
        let url = format!("{}://{}", self.scheme(), state.listen);
        let url = self.called.clone().unwrap_or(url);
        let host = state
            .listen
            .rsplit_once(':')
            .map_or("127.0.0.1", |(host, _)| host);
        let stun = format!("{host}:0");
        let data = self.data.display().to_string();
        let mut arguments = vec!["relay", "serve", "--base-url", &url, "--data-dir", &data];
        arguments.extend(["--listen", &state.listen, "--stun-listen", &stun]);
        arguments.extend(["--ssh-listen", &state.ssh]);
        arguments.extend(self.more.iter().map(String::as_str));
        let files = self.tls.as_ref().map(Certificate::files);
        if let Some((chain, key)) = &files {
            arguments.extend(["--tls-cert", chain, "--tls-key", key]);
        }
        let running = self.cw.start(&arguments);
        let door = running.stderr.line("[relay] SSH listening on ", PATIENCE);
        let ssh = door
            .split_whitespace()
            .nth(4)
            .unwrap_or_default()
            .to_owned();
        let line = running.stderr.line("[relay] HTTP listening on ", PATIENCE);
        let address = line
            .split_whitespace()
            .nth(4)
            .unwrap_or_default()
            .to_owned();
        state.running = Some(running);
        state.listen = address;
        state.ssh = ssh;
    }

    /// Its URL.
    ///
    /// # Panics
    ///
    /// When it was never started.
    #[must_use]
    pub fn url(&self) -> String {
        let here = || format!("{}://{}", self.scheme(), self.address());
        self.called.clone().unwrap_or_else(here)
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

    /// Where its SSH front door is, `host:port`.
    #[must_use]
    pub fn ssh(&self) -> String {
        self.lock().ssh.clone()
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

    /// Its process number, if it runs.
    pub(crate) fn pid(&self) -> Option<Pid> {
        let pid = self.lock().running.as_ref().map(Running::pid)?;
        i32::try_from(pid).ok().and_then(Pid::from_raw)
    }

    /// What it has printed.
    #[must_use]
    pub fn log(&self) -> String {
        let state = self.lock();
        let now = state.running.as_ref().map(|running| running.stderr.text());
        format!("{}{}", state.log, now.unwrap_or_default())
    }

    fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Certificate {
    /// Makes one for the loopback address, and for a name that only a proxy knows, in files in `dir`.
    pub(crate) fn make(dir: &Path) -> Self {
        let names = ["127.0.0.1", "relay.test"].map(str::to_owned);
        let made = rcgen::generate_simple_self_signed(names);
        let made = made.expect("an address can have a certificate");
        let (chain, key) = (dir.join("cert.pem"), dir.join("key.pem"));
        for (path, text) in [
            (&chain, made.cert.pem()),
            (&key, made.signing_key.serialize_pem()),
        ] {
            std::fs::write(path, text).expect("a directory of our own can be written");
        }
        Self { chain, key }
    }

    /// The file by which others come to trust it.
    pub(crate) fn chain(&self) -> &Path {
        &self.chain
    }

    fn files(&self) -> (String, String) {
        (
            self.chain.display().to_string(),
            self.key.display().to_string(),
        )
    }
}
