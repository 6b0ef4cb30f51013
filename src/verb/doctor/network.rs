//! What the doctor looks at in the network: whether the relay answers over HTTP, whether the clocks
//! agree, whether UDP gets out, and which nodes are reached directly.

use std::time::{Duration, Instant};

use super::Check;
use reqwest::header::{DATE, HeaderMap};

use crate::error::Error;
use crate::rpc::Channel;
use crate::show;
use crate::verb::node::status::{InNetwork, Standing, Status};
use crate::verb::{Call, Reply, health};

/// How long the relay may take to answer.
const HTTP_LIMIT: Duration = Duration::from_secs(5);
/// How far the clocks may be apart. The relay refuses what was signed two minutes from its own time.
const SKEW: u64 = 30;

/// Looks at the network that the node is in; nothing to say if it is in none.
pub(super) async fn checks(channel: &mut Channel) -> Vec<Check> {
    let status = Call::NodeStatus(Status::default());
    let Ok(Reply::NodeStanding(standing)) = channel.call(&status).await else {
        // Another check has said what is wrong.
        return Vec::new();
    };
    let Standing { network, .. } = *standing;
    let Some(network) = network else {
        return Vec::new();
    };
    let mut checks = relay(&network.relay.url).await;
    checks.push(udp(&network));
    checks.extend(mapping(&network));
    checks.extend(paths(&network));
    checks
}

/// Whether the relay answers, over TLS if its URL says so, and what time it has.
async fn relay(url: &str) -> Vec<Check> {
    let began = Instant::now();
    let asked = async { health::answer(&health::health_url(url)?, false).await };
    let answered = match tokio::time::timeout(HTTP_LIMIT, asked).await {
        Ok(answered) => answered,
        Err(_) => Err(Error::new(
            "timeout",
            format!("{url} does not answer within {} s", HTTP_LIMIT.as_secs()),
        )),
    };
    let took = began.elapsed().as_secs_f64() * 1000.0;
    let over = if url.starts_with("https://") {
        "TLS, certificate trusted"
    } else {
        "plain HTTP"
    };
    match answered {
        Ok(head) => {
            let mut checks = vec![Check::ok(
                "http",
                format!("{over}, answered in {took:.0} ms"),
            )];
            checks.extend(date(&head).map(|theirs| clock(theirs, show::now_ms() / 1000)));
            checks
        }
        Err(error) => vec![Check::bad("http", error.message.clone(), hint(url, &error))],
    }
}

fn hint(url: &str, error: &Error) -> &'static str {
    let certificate =
        error.message.contains("certificate") || error.message.contains("UnknownIssuer");
    match error.code.as_str() {
        _ if certificate => {
            "the certificate must name this host and be signed by an authority that this machine \
             trusts; SSL_CERT_FILE names more of them"
        }
        "unhealthy" => "something else answers there: check the relay's URL",
        _ if url.starts_with("https://") => {
            "TCP must get out to that port; 'cw relay serve' must run there"
        }
        _ => "check the relay's URL and that it is running",
    }
}

/// What time a relay has, in seconds since 1970, if it says.
fn date(head: &HeaderMap) -> Option<u64> {
    let date = httpdate::parse_http_date(head.get(DATE)?.to_str().ok()?).ok()?;
    let since = date.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(since.as_secs())
}

fn clock(theirs: u64, ours: u64) -> Check {
    let apart = theirs.abs_diff(ours);
    if apart <= SKEW {
        return Check::ok("clock", "agrees with the relay's");
    }
    let which = if theirs > ours { "behind" } else { "ahead of" };
    Check::bad(
        "clock",
        format!("{apart} s {which} the relay's"),
        "set the time on this machine, or on the relay: signed requests are refused otherwise",
    )
}

fn udp(network: &InNetwork) -> Check {
    let outside = network.udp.outside.as_deref().unwrap_or("-");
    let port = network.udp.ports.first().map_or(0, |port| *port);
    match network.udp.nat.as_str() {
        "off" => Check::ok("udp", "switched off: everything goes by the relay"),
        "blocked" => Check::bad(
            "udp",
            "the relay's STUN server does not answer",
            format!(
                "let UDP out from port {port} and the answers in, and out to the relay's port 3478"
            ),
        ),
        "none" => Check::ok("udp", format!("gets out, no NAT: seen as {outside}")),
        "easy" => Check::ok(
            "udp",
            format!("gets out through a NAT that is easy to pass: seen as {outside}"),
        ),
        "hard" if network.udp.mapped.is_some() => Check::ok(
            "udp",
            format!("gets out through a hard NAT: seen as {outside}; others reach its mapped port"),
        ),
        "hard" => Check::ok(
            "udp",
            format!(
                "gets out through a hard NAT, with another address for each peer (the relay sees \
                 {outside}): a direct path takes some seconds, and there is none to another such NAT"
            ),
        ),
        _ if outside == "-" => Check::ok("udp", "the relay has not said yet how it sees us"),
        _ => Check::ok(
            "udp",
            format!("gets out: seen as {outside}; the NAT's kind is not known"),
        ),
    }
}

/// The port that the gateway lends; none where there is nothing to lend.
fn mapping(network: &InNetwork) -> Option<Check> {
    if let Some(port) = &network.udp.mapped {
        let (address, by) = (&port.address, &port.by);
        let lent = format!("the gateway lends {address} ({by}): everybody reaches that");
        return Some(Check::ok("port mapping", lent));
    }
    (network.udp.nat == "hard").then(|| {
        Check::ok(
            "port mapping",
            "the gateway lends no port: with PCP, NAT-PMP or UPnP switched on at the router, direct \
             paths are found at once",
        )
    })
}

/// How the nodes that are online are reached; none if there is none.
fn paths(network: &InNetwork) -> Option<Check> {
    let online: Vec<_> = network.peers.iter().filter(|peer| peer.online).collect();
    let count = |path: &str| online.iter().filter(|peer| peer.path == path).count();
    let (direct, silent) = (count("direct"), count("none"));
    if online.is_empty() {
        return None;
    }
    let found = format!(
        "{direct} of {} nodes that are online directly, {} by the relay, {silent} not at all",
        online.len(),
        count("relayed")
    );
    Some(match silent {
        0 => Check::ok("paths", found),
        _ => Check::bad("paths", found, "'cw node status' says more about each"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_may_be_a_little_apart() {
        for (theirs, ours, ok) in [(1000, 1000, true), (1030, 1000, true), (1000, 1031, false)] {
            assert_eq!(clock(theirs, ours).ok, ok, "{theirs} {ours}");
        }
        assert!(clock(2000, 1000).found.contains("1000 s behind"));
        assert!(clock(1000, 2000).found.contains("1000 s ahead"));
    }

    #[test]
    fn the_time_is_read_from_the_head() {
        let mut head = HeaderMap::new();
        assert_eq!(date(&head), None);
        for (text, time) in [("Thu, 01 Jan 1970 00:01:40 GMT", Some(100)), ("noon", None)] {
            head.insert(DATE, text.parse().unwrap());
            assert_eq!(date(&head), time, "{text}");
        }
    }

    #[tokio::test]
    async fn a_relay_that_is_not_there_is_said_so() {
        let checks = relay("http://127.0.0.1:1").await;
        assert_eq!(checks.len(), 1);
        assert!(!checks[0].ok, "{}", checks[0].found);
        assert!(checks[0].hint.is_some());
    }
}
