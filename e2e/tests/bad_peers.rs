//! Invites that are not good, nodes that are not there, hostile bytes from the network: each is
//! answered as it should be, and afterwards everything works as before.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::{Duration, SystemTime};

use e2e::processes::Processes;
use e2e::steps::{self, SLEEPER, works};
use e2e::substrate::{Host, Substrate, Way};
use e2e::wire::garbage;
use e2e::{PATIENCE, case, wait_until};

const CW: &str = env!("CARGO_BIN_EXE_cw-under-test");

#[test]
fn invites_that_are_not_good() {
    case(
        &Processes::new(CW, Way::Relayed) as &dyn Substrate,
        |substrate| {
            let admin = steps::network(substrate);
            let url = substrate.relay_url();
            let wrong = admin.env("CODEWIRE_RELAY_AUTH_TOKEN", "wrong");
            wrong
                .run(&["network", "create", "beta", "--relay-url", &url])
                .fails("unauthorized");

            let join = |invite: &str| steps::join(substrate, Host::Dev2, invite);
            join("CW-INV-nonsense").fails("invite_malformed");
            let good = steps::invite(substrate, &["--mine"]);
            join(&another_secret(&good))
                .fails("invite_invalid")
                .hints("");

            let short = steps::invite(substrate, &["--mine", "--ttl", "1s"]);
            let made = SystemTime::now();
            wait_until("the invite is too old", PATIENCE, || {
                let age = made.elapsed().unwrap_or_default();
                if age > Duration::from_secs(2) {
                    Ok(())
                } else {
                    Err(format!("{age:?}"))
                }
            });
            join(&short).fails("invite_expired").hints("");

            let _ = steps::join(substrate, Host::Dev1, &good).ok();
            join(&good).fails("invite_used_up").hints("");
            works(&substrate.cw(Host::Dev2));
        },
    );
}

/// An invite of the same form that nobody made.
fn another_secret(invite: &str) -> String {
    let at = "CW-INV-".len() + 2;
    let other = if &invite[at..=at] == "A" { "B" } else { "A" };
    let mut changed = invite.to_owned();
    changed.replace_range(at..=at, other);
    changed
}

#[test]
fn b19_names_that_a_node_cannot_have() {
    case(
        &Processes::new(CW, Way::Relayed) as &dyn Substrate,
        |substrate| {
            steps::network(substrate);
            let first = steps::invite(substrate, &["--mine"]);
            let _ = steps::join(substrate, Host::Dev1, &first).ok();
            let invite = steps::invite(substrate, &["--mine"]);
            let url = substrate.relay_url();
            let second = substrate.cw(Host::Dev2);
            let join = |name: &str, url: &str| {
                second.run(&[
                    "network",
                    "join",
                    "--relay-url",
                    url,
                    "--node-name",
                    name,
                    &invite,
                ])
            };
            join("dev-1", &url).fails("name_taken").hints("");
            join("a.b", &url).fails("name_invalid");
            join("dev-2", "http://127.0.0.1:1")
                .fails("relay_unreachable")
                .hints("relay");
            join("dev-2", "nonsense").fails("config_invalid");
            // None of it has used the invite up.
            let _ = join("dev-2", &url).ok();
            steps::wait_until_online(substrate);
        },
    );
}

#[test]
fn networks_that_are_not_there() {
    case(
        &Processes::new(CW, Way::Relayed) as &dyn Substrate,
        |substrate| {
            let (network, second) = (substrate.network(), substrate.cw(Host::Dev2));
            // Who knows nobody to ask is told so.
            let done = second.run(&["network", "use", "home"]).ok();
            assert!(done.stderr.contains("not known"), "{done}");
            assert_eq!(second.ok(&["network", "current"]), "home\n");

            let admin = steps::network(substrate);
            let url = substrate.relay_url();
            let url_of = ["--relay-url", &url];
            let typo = [&["network", "use", "beta"][..], &url_of].concat();
            let done = admin.run(&typo).fails("network_unknown");
            assert!(
                done.stderr.contains(&format!("there is {network}")),
                "{done}"
            );
            let _ = admin
                .run(&[&["network", "create", "work", "--no-use"][..], &url_of].concat())
                .ok();
            let done = admin.run(&typo).fails("network_unknown");
            assert!(done.stderr.contains(&format!("{network}, work")), "{done}");
            assert_eq!(admin.ok(&["network", "current"]), format!("{network}\n"));
            let done = admin.run(&[&["network", "use", "work"][..], &url_of].concat());
            assert!(!done.ok().stderr.contains("not known"));
            assert_eq!(admin.ok(&["network", "current"]), "work\n");

            let words = ["network", "invite", "--mine", "--network", &network];
            let invite = admin.ok(&[&words[..], &url_of].concat()).trim().to_owned();
            // A machine that has joined knows its own network without anybody's token.
            let _ = second
                .run(&["network", "join", "--relay-url", &url, &invite])
                .ok();
            second
                .run(&["network", "use", "work"])
                .fails("network_unknown")
                .hints("CODEWIRE_RELAY_AUTH_TOKEN");
            substrate.stop_relay();
            let _ = second.run(&["network", "use", &network]).ok();
            assert_eq!(second.ok(&["network", "current"]), format!("{network}\n"));
        },
    );
}

#[test]
fn nodes_that_are_not_there() {
    case(
        &Processes::new(CW, Way::Relayed) as &dyn Substrate,
        |substrate| {
            steps::join_both(substrate);
            steps::wait_until_online(substrate);
            let here = substrate.cw(Host::Dev1);
            here.run(&["msg", "dev-9:coder", "hi"])
                .fails("node_unknown")
                .hints("cw node list");
            here.run(&["msg", "dev-2:nobody", "hi"])
                .fails("session_not_found")
                .hints("cw list");
            here.run(&["launch", "dev-9", "--name", "x", "--", "true"])
                .fails("node_unknown");
            here.run(&["launch", "dev-2", "--", "/no/such/command"])
                .fails("command_not_found");
            steps::launch(&here, "dev-2:coder", &SLEEPER);
            here.run(&["launch", "dev-2:coder", "--", "true"])
                .fails("name_taken")
                .hints("another name");
            // A whole MiB goes to the other machine, and not a byte more.
            let most = vec![b'x'; 1 << 20];
            let _ = here
                .run_with(&["msg", "dev-2:coder", "-"], &most, PATIENCE)
                .ok();

            let _ = substrate.cw(Host::Dev2).run(&["stop", "--grace", "0"]).ok();
            wait_until("dev-2 is down", PATIENCE, || {
                let done = here.run(&["msg", "--no-queue", "dev-2:coder", "hi"]);
                if done.stderr.contains("[node_down]") {
                    Ok(done)
                } else {
                    Err(done.to_string())
                }
            })
            .fails("node_down")
            .hints("cw start");
            works(&here);
        },
    );
}

#[test]
fn garbage_on_the_network() {
    let processes = Processes::new(CW, Way::Direct);
    case(&processes as &dyn Substrate, |substrate| {
        steps::join_both(substrate);
        steps::wait_until_online(substrate);
        let here = substrate.cw(Host::Dev1);
        steps::launch(&here, "dev-2:coder", &SLEEPER);
        let address = substrate
            .relay_url()
            .trim_start_matches("http://")
            .to_owned();
        let upgrade =
            "GET /derp HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: DERP\r\n\r\n";
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(100_000));
        for bytes in [
            garbage(100_000),
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
            [upgrade.as_bytes(), &garbage(100_000)].concat(),
            [upgrade.as_bytes(), &[2, 0xff, 0xff, 0xff, 0xff]].concat(),
            many.into_bytes(),
            b"POST /api/v1/join HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n{".to_vec(),
            b"GET /api/v1/coordinate HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\xff\xff\xff\xff".to_vec(),
        ] {
            throw(&address, &bytes);
        }
        for host in Host::ALL {
            throw_datagrams(&processes.home(host).udp_ports());
        }
        let _ = here.run(&["msg", "dev-2:coder", "still here?"]).ok();
        steps::wait_until_online(substrate);
        assert_eq!(steps::inbox(&here, "dev-2:coder").len(), 1);
        // Somebody new can join as well.
        let invite = steps::invite(substrate, &["--mine"]);
        assert!(invite.starts_with("CW-INV-"));
    });
}

/// Sends bytes over TCP, and reads until the other end has had enough or a moment has passed.
#[track_caller]
fn throw(address: &str, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).expect("the relay takes connections");
    let moment = Duration::from_millis(300);
    stream
        .set_read_timeout(Some(moment))
        .expect("a socket takes a limit");
    stream
        .set_write_timeout(Some(moment))
        .expect("a socket takes a limit");
    // It may close in the middle; that is its right.
    let _ = stream.write_all(bytes);
    let _ = stream.read_to_end(&mut Vec::new());
}

/// Sends datagrams that look like nothing, like WireGuard and like its forgeries.
#[track_caller]
fn throw_datagrams(ports: &[u16]) {
    assert!(!ports.is_empty(), "a node in a network has a UDP port");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("there are ports left");
    for port in ports {
        for length in [0, 1, 31, 32, 92, 148, 1200, 9000] {
            for kind in 0..=4 {
                let mut datagram = garbage(length);
                if let Some(head) = datagram.get_mut(..4) {
                    head.copy_from_slice(&[kind, 0, 0, 0]);
                }
                // A port that is bound to another address takes nothing.
                let _ = socket.send_to(&datagram, ("127.0.0.1", *port));
            }
            let _ = socket.send_to(&garbage(length), ("127.0.0.1", *port));
        }
    }
}
