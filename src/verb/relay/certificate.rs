//! What `cw relay doctor` finds out about certificates: the one that is shown to everybody, and how
//! it stands with one that the relay gets by itself.

use std::path::Path;

use crate::relay::{CertificateInfo, CertificateStanding, certificate_standing};
use crate::show;
use crate::verb::doctor::Check;

/// A certificate of which less than this is left, in seconds or as a part of its time, whichever is
/// less, should have been renewed.
const LATE: u64 = 14 * DAY;
const LATE_PART: u64 = 6;

const DAY: u64 = 86_400;

/// How it stands in the directory of a relay; nothing to say where it has its certificate from
/// somebody else.
pub(super) fn kept(dir: &Path, now: u64) -> Option<Check> {
    match certificate_standing(dir) {
        Ok(stands) => Some(standing(&stands?, now)),
        Err(error) => Some(Check::of("certificate", Err(error))),
    }
}

fn standing(stands: &CertificateStanding, now: u64) -> Check {
    let domains = stands.domains.join(", ");
    let has = match &stands.info {
        Some(info) => format!(
            "for {domains} {}, from {}",
            ends(info, now),
            stands.directory
        ),
        None => format!("none yet for {domains} from {}", stands.directory),
    };
    match &stands.last_failure {
        Some(last_failure) => Check::bad(
            "certificate",
            format!("{has}: {}", show::clean(&last_failure.why)),
            format!(
                "the authority is asked again at {}: the relay has to reach it, and it the relay, by \
                 port 443 of each domain and with TLS as it comes",
                time(last_failure.next)
            ),
        ),
        None if stands.info.is_none() => Check::bad(
            "certificate",
            has,
            "it is being asked for, if the relay runs",
        ),
        None if stands.info.as_ref().is_some_and(|it| is_late(it, now)) => Check::bad(
            "certificate",
            has,
            "it should have been renewed: see whether the relay runs, and what its log says",
        ),
        None => Check::ok("certificate", has),
    }
}

/// The certificate that a relay has shown.
pub(super) fn shown(der: &[u8], now: u64) -> Check {
    match CertificateInfo::read(der) {
        Ok(info) if is_late(&info, now) => Check::bad(
            "TLS",
            format!("the certificate {}", ends(&info, now)),
            "renew it; a relay with --acme-domain does so by itself, and its log says why it could \
             not",
        ),
        Ok(info) => Check::ok("TLS", format!("the certificate {}", ends(&info, now))),
        Err(why) => Check::bad(
            "TLS",
            format!("the certificate cannot be read: {}", show::clean(&why)),
            "get another one",
        ),
    }
}

fn is_late(info: &CertificateInfo, now: u64) -> bool {
    let all = info.until.saturating_sub(info.from);
    info.until.saturating_sub(now) < LATE.min(all / LATE_PART)
}

fn ends(info: &CertificateInfo, now: u64) -> String {
    let at = time(info.until);
    match info.until.checked_sub(now) {
        Some(left) if left >= 2 * DAY => format!("ends at {at}, in {} days", left / DAY),
        Some(left) => format!("ends at {at}, in {} minutes", left / 60),
        None => format!("has ended at {at}"),
    }
}

fn time(unix: u64) -> String {
    show::rfc3339(unix.saturating_mul(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(days: u64) -> CertificateInfo {
        CertificateInfo {
            from: 0,
            until: days * DAY,
            names: Vec::new(),
        }
    }

    #[test]
    fn a_certificate_is_late_when_a_sixth_or_two_weeks_are_left() {
        for (days, at, late) in [
            (90, 75, false),
            (90, 77, true),
            (365, 350, false),
            (365, 352, true),
            (6, 4, false),
            (6, 6, true),
        ] {
            assert_eq!(is_late(&info(days), at * DAY), late, "{days} {at}");
        }
    }

    #[test]
    fn a_relay_that_does_not_renew_is_not_well() {
        let stands = |info| CertificateStanding {
            directory: "https://ca.example/dir".to_owned(),
            domains: vec!["relay.example".to_owned()],
            info,
            last_failure: None,
        };
        assert!(standing(&stands(Some(info(90))), 10 * DAY).is_ok());
        assert!(!standing(&stands(Some(info(90))), 80 * DAY).is_ok());
        assert!(!standing(&stands(Some(info(90))), 100 * DAY).is_ok());
        assert!(!standing(&stands(None), 0).is_ok());
    }

    #[test]
    fn its_end_is_said_in_words() {
        assert!(ends(&info(90), 10 * DAY).ends_with("in 80 days"));
        assert!(ends(&info(1), 0).ends_with("in 1440 minutes"));
        assert!(ends(&info(1), 2 * DAY).contains("has ended"));
        assert!(!shown(b"nothing", 0).is_ok());
    }
}
