//! Wrong words, broken files, hostile bytes: each is answered with an error that has a code and
//! says what to do, and afterwards everything works as before.

use e2e::steps::{self, SLEEPER, works};
use e2e::wire::{Frame, Wire, garbage};
use e2e::{Local, PATIENCE, case};

const CW: &str = env!("CARGO_BIN_EXE_cw-under-test");

/// Words, the code of the error, and a part of the hint.
const MEANINGLESS: &[(&[&str], &str, &str)] = &[
    (&["msg", "nobody", "hi"], "session_not_found", "cw list"),
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
];

/// Words and the code of the error, of which a hint would only repeat the text.
const IMPOSSIBLE: &[(&[&str], &str)] = &[
    (&["launch", "-", "--", "true"], "name_invalid"),
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
];

#[test]
fn words_that_mean_nothing() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        steps::launch(cw, "coder", &SLEEPER);
        for &(words, code, hint) in MEANINGLESS {
            let done = cw.run(words).fails(code);
            if !hint.is_empty() {
                done.hints(hint);
            }
        }
        for &(words, code) in IMPOSSIBLE {
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
fn s19_damaged_files_are_told_and_survived() {
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

/// One line that is too much or no message does not end the server for agents.
#[test]
fn u21_a_line_that_is_no_message_does_not_end_the_mcp_server() {
    case(&Local::new(CW), |local| {
        let hello = concat!(
            r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"#,
            r#""2025-06-18","capabilities":{},"clientInfo":{"name":"x","version":"1"}}}"#
        );
        let initialized = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        let prompts = r#"{"jsonrpc":"2.0","id":2,"method":"prompts/list"}"#;
        let long = "x".repeat(2 << 20);
        let lines = [
            hello,
            "garbage",
            initialized,
            &long,
            &format!("{long:?}"),
            prompts,
            "",
        ];
        let server = local
            .cw()
            .start_with(&["mcp-server"], lines.join("\n").as_bytes());
        let _ = server.stdout.line("\"id\":1", PATIENCE);
        let _ = server.stdout.line("\"id\":2", PATIENCE);
    });
}
