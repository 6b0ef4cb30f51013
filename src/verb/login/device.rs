//! Logging in with a code that is typed in a browser, on whatever machine there is one.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::cli::Cli;
use crate::error::{Error, Result};
use crate::show;
use crate::uplink::api::{Api, Granted, Polled};

/// By how much to slow down when the relay says so and not how much, seconds (RFC 8628, 3.5).
const SLOWER: u64 = 5;

/// The longest time between two polls, seconds.
const LONGEST: u64 = 60;

/// Shows the code, and waits until it was typed.
///
/// # Errors
///
/// `login_denied`, `login_expired`, `not_allowed`, or the relay's.
pub(super) async fn login(cli: &Cli, api: &Api, label: &str) -> Result<Granted> {
    let device = api.device(label).await?;
    let whole = device.verification_uri_complete.as_deref();
    cli.note(&format!(
        "Open this address in a browser, on any machine:\n\n    {}\n\nand see to it that it shows \
         this code, or type it:\n\n    {}\n",
        show::clean(whole.unwrap_or(&device.verification_uri)),
        show::clean(&device.user_code),
    ));
    let end = Instant::now() + Duration::from_secs(device.expires_in);
    let mut interval = device.interval.clamp(1, LONGEST);
    loop {
        sleep(Duration::from_secs(interval)).await;
        match api.poll(&device.poll_token).await {
            Ok(Polled::Authorized(granted)) => return Ok(granted),
            Ok(Polled::Pending { interval: told }) => interval = told.unwrap_or(interval),
            Ok(Polled::SlowDown { interval: told }) => {
                interval = told.unwrap_or(interval + SLOWER);
            }
            // Somebody is at it in a browser; a moment without the relay or the provider is none of
            // their business.
            Err(error) if may_pass(&error.code) && Instant::now() < end => interval += SLOWER,
            Err(error) => return Err(error),
        }
        interval = interval.clamp(1, LONGEST);
        if Instant::now() >= end {
            return Err(Error::new("login_expired", "nobody typed the code in time")
                .hint("begin again with 'cw login'"));
        }
    }
}

fn may_pass(code: &str) -> bool {
    matches!(
        code,
        "relay_unreachable" | "provider_unreachable" | "rate_limited" | "timeout" | "not_ready"
    )
}
