//! A relay that gets its certificate by itself, from an authority that others have written.
//!
//! The relay is known by a name that only a proxy, and the authority's DNS server, can find.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use e2e::authority::{Authority, BLOCKED};
use e2e::case::or_skip;
use e2e::https::Https;
use e2e::processes::Processes;
use e2e::proxy::Proxy;
use e2e::steps;
use e2e::substrate::{Host, Substrate};
use e2e::{Cw, Done, PATIENCE, case, wait_until};

const CW: &str = env!("CARGO_BIN_EXE_cw-under-test");

/// What the relay is called.
const NAME: &str = "relay.test";
const OTHER: &str = "other.relay.test";
const URL: &str = "https://relay.test";

/// How long a certificate may take: the relay asks again, later and later.
const GIVEN: Duration = Duration::from_secs(90);

/// A certificate's time in seconds: one that outlives the test, and one of which the relay needs
/// another within it.
const LONG: u32 = 86_400;
const SHORT: u32 = 24;

/// The certificate that the relay shows under a name to who trusts this authority.
fn shown(processes: &Processes, authority: &Authority, name: &str) -> Result<Vec<u8>, String> {
    let client = Https::trusting(&authority.root());
    let answer = client.get(&processes.relay().address(), name, "/healthz");
    let answer = answer.map_err(|error| error.to_string())?;
    assert_eq!(answer.body, "ok");
    Ok(answer.certificate)
}

/// Waits until there is one, and not `before`.
#[track_caller]
fn given(processes: &Processes, authority: &Authority, before: &[u8]) -> Vec<u8> {
    wait_until("the relay has a certificate", GIVEN, || {
        let log = || format!("{}\n{}", processes.relay_log(), authority.log());
        let shown = shown(processes, authority, NAME).map_err(|why| format!("{why}\n{}", log()))?;
        match shown == before {
            true => Err("it is the one before".to_owned()),
            false => Ok(shown),
        }
    })
}

fn port(processes: &Processes) -> u16 {
    let address = processes.relay().address();
    let port = address
        .rsplit(':')
        .next()
        .and_then(|port| port.parse().ok());
    port.expect("an address has a port")
}

/// What the doctor finds in the relay's directory.
fn doctor(processes: &Processes) -> Done {
    let data = processes.relay().data().display().to_string();
    let words = ["relay", "doctor", "--data-dir", &data];
    processes.cw(Host::Dev1).run(&words)
}

/// Both nodes join by the relay's name, and one sends the other a message.
fn join(processes: &Processes, proxy: &Proxy) {
    let by = |cw: Cw| cw.env("HTTPS_PROXY", proxy.url());
    let admin = by(processes.admin());
    let create = ["network", "create", "alpha", "--relay-url", URL];
    let _ = admin.run(&create).ok();
    for host in Host::ALL {
        let invite = admin.ok(&["network", "invite", "--mine", "--relay-url", URL]);
        let join = ["network", "join", "--relay-url", URL, invite.trim()];
        let _ = by(processes.cw(host)).run(&join).ok();
    }
    steps::wait_until_online(processes);
}

#[track_caller]
fn say(processes: &Processes, word: &str) {
    let here = processes.cw(Host::Dev1);
    let told = wait_until("a message gets there", GIVEN, || {
        let done = here.run(&["msg", "dev-2:coder", word]);
        match done.status {
            Some(0) => Ok(done),
            _ => Err(done.to_string()),
        }
    });
    assert!(
        told.stdout.contains("msg_") || told.stderr.contains("msg_"),
        "{told}"
    );
}

fn proxy(processes: &Processes) -> Proxy {
    let address = processes.relay().address();
    Proxy::start("relay.test:443", address.parse().expect("on loopback"))
}

#[test]
fn a_relay_gets_its_certificate_keeps_it_and_starts_without_the_authority() {
    let Some(authority) = or_skip(Authority::new()) else {
        return;
    };
    let processes = Processes::with_authority(CW, &authority, &[NAME, OTHER]);
    case(&processes as &dyn Substrate, |substrate| {
        // The authority is away: the relay runs, and says what it lacks.
        substrate.start_relay();
        assert!(substrate.relay_log().contains("no TLS until then"));
        wait_until("the doctor knows", PATIENCE, || {
            let found = doctor(&processes);
            let told = found.stdout.contains("BAD certificate")
                && found
                    .stdout
                    .contains("none yet for other.relay.test, relay.test")
                && found.stdout.contains("is asked again at");
            told.then_some(()).ok_or_else(|| found.to_string())
        });
        let address = processes.relay().address();
        let stranger = Https::trusting(&authority.ca());
        assert!(stranger.get(&address, NAME, "/healthz").is_err());

        authority.start(port(&processes), LONG);
        let first = given(&processes, &authority, &[]);
        assert_eq!(shown(&processes, &authority, OTHER), Ok(first.clone()));
        assert!(
            stranger.get(&address, NAME, "/healthz").is_err(),
            "not from them"
        );
        // Nobody asks whose domain it is now, and nobody is answered.
        let asks = Https::trusting(&authority.root()).speaking("acme-tls/1");
        assert!(asks.get(&address, NAME, "/healthz").is_err());
        let found = doctor(&processes).ok();
        assert!(found.stdout.contains("ok  certificate"), "{found}");
        for name in [
            "acme-certificate.json",
            "acme-account.json",
            "acme-state.json",
        ] {
            let file = processes.relay().data().join(name);
            let mode = file.metadata().expect("it is kept").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }

        let proxy = proxy(&processes);
        join(&processes, &proxy);
        steps::launch(&processes.cw(Host::Dev1), "dev-2:coder", &steps::SLEEPER);
        say(&processes, "before");

        // The relay comes back with what it has, from whom nobody is there any more.
        authority.stop();
        substrate.stop_relay();
        substrate.start_relay();
        assert_eq!(shown(&processes, &authority, NAME), Ok(first));
        steps::wait_until_online(&processes);
        say(&processes, "after");
        assert!(substrate.relay_log().contains("is kept"));
        assert_eq!(
            steps::inbox(&processes.cw(Host::Dev1), "dev-2:coder").len(),
            2
        );
    });
}

#[test]
fn a_certificate_is_renewed_and_nobody_notices() {
    let Some(authority) = or_skip(Authority::new()) else {
        return;
    };
    let processes = Processes::with_authority(CW, &authority, &[NAME]);
    case(&processes as &dyn Substrate, |substrate| {
        substrate.start_relay();
        authority.start(port(&processes), SHORT);
        let first = given(&processes, &authority, &[]);
        let proxy = proxy(&processes);
        join(&processes, &proxy);
        steps::launch(&processes.cw(Host::Dev1), "dev-2:coder", &steps::SLEEPER);
        let second = given(&processes, &authority, &first);
        say(&processes, "still there");
        assert_eq!(
            steps::inbox(&processes.cw(Host::Dev1), "dev-2:coder").len(),
            1
        );

        // An authority that has lost its memory: the relay is somebody new to it.
        authority.stop();
        authority.start(port(&processes), LONG);
        let last = given(&processes, &authority, &second);
        assert_ne!(last, first);
    });
}

#[test]
fn what_an_authority_refuses_is_said() {
    let Some(authority) = or_skip(Authority::new()) else {
        return;
    };
    let processes = Processes::with_authority(CW, &authority, &[BLOCKED]);
    case(&processes as &dyn Substrate, |substrate| {
        substrate.start_relay();
        authority.start(port(&processes), LONG);
        wait_until("the doctor knows", GIVEN, || {
            let found = doctor(&processes);
            let told = found.stdout.contains("rejectedIdentifier");
            told.then_some(()).ok_or_else(|| found.to_string())
        });
        assert!(substrate.relay_log().contains("rejectedIdentifier"));
    });
}
