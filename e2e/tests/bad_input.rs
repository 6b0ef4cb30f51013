//! Wrong words, broken files, hostile bytes: each is answered with an error that has a code and
//! says what to do, and afterwards everything works as before.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::{Duration, SystemTime};

use e2e::processes::Processes;
use e2e::steps::{self, SLEEPER};
use e2e::substrate::{Host, Substrate, Way};
use e2e::wire::{Frame, Wire};
use e2e::{Cw, Local, PATIENCE, case, wait_until};

const CW: &str = env!("CARGO_BIN_EXE_cw-under-test");

/// Bytes that are nothing, the same ones each time.
fn garbage(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

/// An ordinary command.
#[track_caller]
fn works(cw: &Cw) {
    let list = cw.run(&["list"]).ok();
    assert!(list.stderr.is_empty(), "{list}");
}

#[test]
fn words_that_mean_nothing() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        steps::launch(cw, "coder", &SLEEPER);
        for (words, code, hint) in [
            (&["msg", "nobody", "hi"][..], "session_not_found", "cw list"),
            (&["logs", "99"], "session_not_found", "cw list"),
            (&["kill", "99"], "session_not_found", "cw list"),
            (
                &["msg", "dev-9:coder", "hi"],
                "no_network",
                "cw network join",
            ),
            (&["list", "dev-9"], "no_network", "cw network join"),
            (&["node", "list"], "no_network", "cw network join"),
            (&["node", "ping", "dev-9"], "no_network", "cw network join"),
            (
                &["launch", "coder", "--", "true"],
                "name_taken",
                "another name",
            ),
            (&["launch", "x", "-e", "NOVALUE", "--", "true"], "usage", ""),
            (
                &["launch", "x", "--size", "0x0", "--", "true"],
                "size_invalid",
                "COLUMNSxROWS",
            ),
            (&["launch", "x"], "usage", "cw launch"),
            (
                &["msg", "-f", "dev-2:planner", "coder", "hi"],
                "sender_forbidden",
                "",
            ),
            (
                &["reply", "req_0000000000000000000000", "x", "-f", "coder"],
                "request_not_found",
                "cw inbox",
            ),
            (
                &["reply", "nonsense", "x", "-f", "coder"],
                "request_not_found",
                "cw inbox",
            ),
            (&["attach", "coder"], "not_a_terminal", "cw logs -f"),
            (
                &["network", "list", "--relay-url", "http://127.0.0.1:1"],
                "unauthorized",
                "CODEWIRE_RELAY_AUTH_TOKEN",
            ),
            (
                &["network", "join", "CW-INV-x"],
                "config_invalid",
                "--relay-url",
            ),
        ] {
            let done = cw.run(words).fails(code);
            if !hint.is_empty() {
                done.hints(hint);
            }
        }
        for (words, code) in [
            (&["launch", "-", "--", "true"][..], "name_invalid"),
            (&["launch", "a b", "--", "true"], "name_invalid"),
            (
                &["launch", "x", "--", "no-such-command-anywhere"],
                "command_not_found",
            ),
            (
                &["launch", "x", "--", "/no/such/command"],
                "command_not_found",
            ),
            (
                &["launch", "x", "-d", "/no/such/dir", "--", "true"],
                "dir_not_found",
            ),
            (&["send", "coder", "-f", "/no/such/file"], "not_found"),
        ] {
            cw.run(words).fails(code);
        }
        // What the command line itself refuses, before there is a node to ask.
        for words in [
            &["msg", "a:b:c", "hi"][..],
            &["logs", ""],
            &["kill"],
            &["dance"],
            &["logs", "1", "--tail=-1"],
        ] {
            let done = cw.run(words);
            assert_eq!((done.status, done.stdout.as_str()), (Some(2), ""), "{done}");
            assert!(!done.stderr.is_empty(), "{done}");
        }
        works(cw);
        assert_eq!(steps::inbox(cw, "coder").len(), 0);
        assert_eq!(cw.ok(&["list"]).lines().count(), 2, "nothing was started");
    });
}

#[test]
fn a_message_has_a_limit() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        steps::launch(cw, "coder", &SLEEPER);
        let limit = 1 << 20;
        let most = vec![b'x'; limit];
        let _ = cw.run_with(&["msg", "coder", "-"], &most, PATIENCE).ok();
        let more = vec![b'x'; limit + 1];
        let done = cw.run_with(&["msg", "coder", "-"], &more, PATIENCE);
        let done = done.fails("body_too_large").hints("1 MiB");
        assert_eq!(done.status, Some(7), "{done}");
        cw.run_with(&["msg", "coder", "-"], &[0xff, 0xfe], PATIENCE)
            .fails("bad_request");
        let call = serde_json::json!({"type": "MsgSend", "to_name": "coder", "body": "x".repeat(limit + 1)});
        let error = Wire::connect(&local.home().socket()).ask(&call, "Error");
        assert_eq!(error["code"], "body_too_large");
        assert_eq!(steps::inbox(cw, "coder").len(), 1);
        works(cw);
    });
}

#[test]
fn one_directory_has_one_node() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        steps::launch(cw, "coder", &SLEEPER);
        let second = cw.run(&["node", "run"]).fails("locked").hints("cw stop");
        assert_eq!(second.status, Some(6), "{second}");
        works(cw);
        assert_eq!(steps::status(cw, "coder")["status"], "running");
    });
}

#[test]
fn damaged_files_are_told_and_survived() {
    case(&Local::new(CW), |local| {
        let (cw, dir) = (local.cw(), local.home().dir());
        let write = |name: &str, text: &[u8]| std::fs::write(dir.join(name), text).unwrap();
        steps::launch(cw, "coder", &["sh", "-c", "echo printed"]);
        steps::wait_for_end(cw, "coder");
        let _ = cw.run(&["stop"]).ok();

        // What can be found out again is, and nothing that was there is lost.
        write("sessions.json", b"{ torn");
        write("membership.json", b"{ torn");
        assert_eq!(steps::status(cw, "coder")["status"], "completed (0)");
        assert_eq!(cw.ok(&["logs", "coder"]), "printed\n");
        cw.run(&["msg", "dev-2:coder", "hi"])
            .fails("corrupt")
            .hints("join the network again");
        assert!(
            local.home().log().contains("membership.json"),
            "the log says why"
        );
        steps::launch(cw, "next", &SLEEPER);
        assert_eq!(
            steps::status(cw, "next")["id"],
            2,
            "numbers are not used again"
        );
        let _ = cw.run(&["stop", "--grace", "0"]).ok();

        // What a person wrote is not guessed at.
        write("config.toml", b"[node]\nname = = 1\n");
        let done = cw.run(&["start"]);
        assert_ne!(done.status, Some(0), "{done}");
        let told = format!("{}{}", done.stderr, local.home().log());
        assert!(
            told.contains("config_invalid") && told.contains("config.toml"),
            "{told}"
        );
        assert_eq!(
            std::fs::read(dir.join("config.toml")).unwrap(),
            b"[node]\nname = = 1\n"
        );
        std::fs::remove_file(dir.join("config.toml")).unwrap();
        works(cw);
    });
}

#[test]
fn garbage_on_the_local_socket() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        steps::launch(cw, "coder", &SLEEPER);
        let socket = local.home().socket();
        let mut large = vec![0];
        large.extend_from_slice(&(17_u32 << 20).to_be_bytes());
        let announced = large.clone();
        large.resize(5 + (17 << 20), b' ');
        for (bytes, code) in [
            (large, "frame_too_large"),
            (announced, "frame_too_large"),
            (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "bad_request"),
            (vec![0xff; 64], "bad_request"),
            (garbage(4096), ""),
            (vec![0, 0, 0, 0, 4, b'{', b'{', b'{', b'{'], "bad_request"),
            (vec![2, 0, 0, 0, 1, 7], "bad_request"),
        ] {
            let mut wire = Wire::connect(&socket);
            wire.raw(&bytes);
            match wire.hear() {
                Some(Frame::Control(answer)) => {
                    assert_eq!(answer["type"], "Error", "{answer}");
                    assert!(
                        code.is_empty() || answer["code"] == code,
                        "{code}: {answer}"
                    );
                    assert_eq!(wire.hear(), None, "it is the end");
                }
                other => assert!(code.is_empty(), "{code}: {other:?}"),
            }
        }
        // Clients that come, say half of something and stay do not keep others out.
        let mut silent: Vec<Wire> = (0..100).map(|_| Wire::connect(&socket)).collect();
        for wire in &mut silent {
            wire.raw(&[0, 0, 0, 1]);
        }
        works(cw);
        drop(silent);
        works(cw);
    });
}

#[test]
fn invites_that_are_not_good() {
    case(
        &Processes::new(CW, Way::Relayed) as &dyn Substrate,
        |substrate| {
            substrate.start_relay();
            let url = substrate.relay_url();
            let admin = steps::admin(substrate);
            let _ = admin
                .run(&["network", "create", "alpha", "--relay-url", &url])
                .ok();
            let wrong = admin.clone().env("CODEWIRE_RELAY_AUTH_TOKEN", "wrong");
            wrong
                .run(&["network", "create", "beta", "--relay-url", &url])
                .fails("unauthorized");

            let second = Host::Dev2;
            let join = |invite: &str| steps::join(substrate, second, invite);
            join("CW-INV-nonsense").fails("invite_malformed");
            let once = steps::invite(substrate, &["--mine"]);
            let mut other = once.clone();
            // Another secret of the same form.
            let at = "CW-INV-".len() + 2;
            let swapped = if &once[at..=at] == "A" { "B" } else { "A" };
            other.replace_range(at..=at, swapped);
            let done = join(&other);
            assert!(done.stderr.contains("[invite_"), "{done}");
            assert_ne!(done.status, Some(0), "{done}");

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
            join(&short).fails("invite_expired");

            let _ = steps::join(substrate, Host::Dev1, &once).ok();
            join(&once).fails("invite_used_up");
            let again = steps::invite(substrate, &["--mine"]);
            let named = substrate.cw(second).run(&[
                "network",
                "join",
                "--relay-url",
                &url,
                "--node-name",
                "dev-1",
                &again,
            ]);
            named.fails("name_taken");
            let named = substrate.cw(second).run(&[
                "network",
                "join",
                "--relay-url",
                &url,
                "--node-name",
                "a.b",
                &again,
            ]);
            named.fails("name_invalid");
            substrate
                .cw(second)
                .run(&[
                    "network",
                    "join",
                    "--relay-url",
                    "http://127.0.0.1:1",
                    &again,
                ])
                .fails("relay_unreachable")
                .hints("relay");
            // None of it has used the invite up.
            let _ = join(&again).ok();
            steps::wait_until_online(substrate);
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
                let done = here.run(&["msg", "dev-2:coder", "hi"]);
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
    case(
        &Processes::new(CW, Way::Direct) as &dyn Substrate,
        |substrate| {
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
                throw_datagrams(&substrate.home(host).udp_ports());
            }
            let _ = here.run(&["msg", "dev-2:coder", "still here?"]).ok();
            steps::wait_until_online(substrate);
            assert_eq!(steps::inbox(&here, "dev-2:coder").len(), 1);
            // Somebody new can join as well.
            let invite = steps::invite(substrate, &["--mine"]);
            assert!(invite.starts_with("CW-INV-"));
        },
    );
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
