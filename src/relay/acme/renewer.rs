//! Sees to it that the relay has a certificate: the one that is kept, a new one when there is none,
//! and the next one in time.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use rustls::ServerConfig;
use tokio::time::sleep;

use super::certificate::Certificate;
use super::files::{Files, IssuedCertificate, LastFailure, State};
use super::order::{Failure, order};
use super::pace::{FailureKind, again, pause, renewal};
use super::resolver::{PROTOCOL, Resolver};
use super::settings::Settings;
use crate::error::Result;
use crate::relay::clock::{rfc3339, unix_now};
use crate::relay::config::DataDir;
use crate::relay::tls;

/// Between two looks at the clock, which somebody may set, and which goes on while a machine sleeps.
const LOOK: Duration = Duration::from_secs(60);

/// Certificates are no more frequent, whatever an authority gives.
const BETWEEN: Duration = Duration::from_secs(5);

/// See the module.
pub(crate) struct Renewer {
    settings: Settings,
    files: Files,
    resolver: Arc<Resolver>,
    /// When the certificate at hand is to be renewed, in seconds since 1970.
    due: u64,
    /// Since the last certificate, of each kind: what an authority refuses counts also if it was away
    /// in between.
    failures: HashMap<FailureKind, u32>,
    /// A certificate that could not be written yet.
    unkept: Option<IssuedCertificate>,
}

impl Renewer {
    /// With the certificate that is kept, if it is of any use.
    pub(in crate::relay) fn new(settings: Settings, data: &DataDir) -> Self {
        let mut renewer = Self {
            settings,
            files: Files::of(data.path("")),
            resolver: Arc::default(),
            due: 0,
            failures: HashMap::new(),
            unkept: None,
        };
        let Settings {
            directory, domains, ..
        } = &renewer.settings;
        let kept = renewer.files.certificate(directory, domains, unix_now());
        match kept {
            Ok(Some(certificate)) => renewer.take(&certificate),
            Ok(None) => {}
            Err(why) => tracing::info!(%why, "the certificate that is kept is of no use now"),
        }
        renewer
    }

    /// A relay of this directory does without.
    pub(in crate::relay) fn none(data: &DataDir) {
        Files::of(data.path("")).forget_state();
    }

    /// TLS with whatever certificate there is at the time.
    ///
    /// # Errors
    ///
    /// `internal`.
    pub(in crate::relay) fn tls(&self) -> Result<Arc<ServerConfig>> {
        let resolver = Arc::clone(&self.resolver);
        let mut config = tls::builder()?.with_cert_resolver(resolver);
        config.alpn_protocols = vec![tls::HTTP.to_vec(), PROTOCOL.to_vec()];
        Ok(Arc::new(config))
    }

    /// How it stands, in words, at the start.
    pub(in crate::relay) fn words(&self) -> String {
        let (domains, directory) = (self.settings.domains.join(", "), &self.settings.directory);
        let has = if self.resolver.has_one() {
            "is kept"
        } else {
            "is asked for: no TLS until then"
        };
        format!("the certificate for {domains}, from {directory}, {has}")
    }

    /// Does so until it is dropped.
    pub(in crate::relay) async fn run(mut self) {
        self.note(None).await;
        loop {
            self.until(self.due).await;
            // Nothing that an authority says may end this.
            let renewed = AssertUnwindSafe(self.renew()).catch_unwind().await;
            let renewed = renewed.unwrap_or_else(|_| {
                Err(Failure::refused(
                    "asking for it ended in a panic: a defect, please report it",
                ))
            });
            match renewed {
                Ok((certificate, given)) => {
                    self.unkept = Some(given);
                    self.keep().await;
                    self.failures.clear();
                    // Before it is shown: who sees it may ask how it stands.
                    self.note(None).await;
                    self.take(&certificate);
                    self.due = self.due.max(again(certificate.info.until, unix_now()));
                    let until = rfc3339(certificate.info.until);
                    tracing::info!(%until, domains = %self.settings.domains.join(","), "a new certificate");
                    sleep(BETWEEN).await;
                }
                Err(failure) => self.put_up_with(failure).await,
            }
        }
    }

    async fn renew(&self) -> Result<(Certificate, IssuedCertificate), Failure> {
        let given = order(&self.settings, &self.files, &self.resolver).await?;
        let certificate = Certificate::of(&given.chain, &given.key);
        let certificate = certificate.and_then(|it| it.check(&self.settings.domains, unix_now()));
        let certificate = certificate
            .map_err(|why| Failure::refused(format!("what was given cannot be used: {why}")))?;
        Ok((certificate, given))
    }

    /// Writes what could not be written yet. It is good as long as the relay runs; who starts again
    /// without it asks for another.
    async fn keep(&mut self) {
        if let Some(given) = self.unkept.take()
            && let Err(error) = self.files.keep_certificate(&given).await
        {
            tracing::error!(%error, "the certificate cannot be kept; this is tried again");
            self.unkept = Some(given);
        }
    }

    async fn until(&mut self, time: u64) {
        loop {
            let left = Duration::from_secs(time.saturating_sub(unix_now()));
            if left.is_zero() {
                return;
            }
            sleep(left.min(LOOK)).await;
            self.keep().await;
        }
    }

    fn take(&mut self, certificate: &Certificate) {
        self.due = renewal(certificate.info.from, certificate.info.until);
        self.resolver.set(Arc::clone(&certificate.key));
    }

    async fn put_up_with(&mut self, failure: Failure) {
        let failures = self.failures.entry(failure.kind).or_default();
        *failures = failures.saturating_add(1);
        let pause = pause(failure.kind, *failures, failure.retry_after);
        let why = failure.why;
        let directory = &self.settings.directory;
        tracing::warn!(%directory, %why, again_in_s = pause.as_secs(), "no certificate");
        let next = unix_now() + pause.as_secs();
        self.note(Some(LastFailure { why, next })).await;
        self.until(next).await;
    }

    /// For the doctor.
    async fn note(&self, last_failure: Option<LastFailure>) {
        let state = State {
            directory: self.settings.directory.clone(),
            domains: self.settings.domains.clone(),
            last_failure,
        };
        if let Err(error) = self.files.keep_state(&state).await {
            tracing::warn!(%error, "how it stands with the certificate cannot be noted");
        }
    }
}
