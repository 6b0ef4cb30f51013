//! Wrong words, broken files, hostile bytes: each is answered with an error that has a code and
//! says what to do, and afterwards everything works as before.

use std::io::Write as _;

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

/// Sends bytes, says no more, and reads all that comes: the types of the answers, and of errors
/// the codes.
fn exchange(socket: &std::path::Path, bytes: &[u8]) -> Vec<String> {
    let mut wire = Wire::connect(socket);
    let mut other = wire.writer();
    let mut answers = Vec::new();
    std::thread::scope(|scope| {
        // At the same time: answers to thousands of calls fill the socket.
        scope.spawn(move || {
            // It may have had enough before the end.
            let _ = other.write_all(bytes);
            let _ = other.shutdown(std::net::Shutdown::Write);
        });
        while let Some(frame) = wire.hear() {
            let Frame::Control(answer) = frame else {
                panic!("bytes of a terminal: {frame:?}");
            };
            let told = if answer["type"] == "Error" {
                &answer["code"]
            } else {
                &answer["type"]
            };
            answers.push(told.as_str().unwrap_or_default().to_owned());
        }
    });
    answers
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("it is short");
    [&[kind][..], &length.to_be_bytes(), payload].concat()
}

/// Heads and pieces of frames, and what comes of them.
fn frames() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let announced = |length: u32| [&[0][..], &length.to_be_bytes()].concat();
    let call = frame(0, br#"{"type":"GetStatus","name":"nobody"}"#);
    vec![
        ("type 2", frame(2, b"x"), "bad_request"),
        ("type 255", frame(255, b"x"), "bad_request"),
        ("no payload", frame(0, b""), "bad_request"),
        ("one byte", frame(0, b"{"), "bad_request"),
        (
            "all the limit",
            frame(0, &vec![b' '; 16 << 20]),
            "bad_request",
        ),
        (
            "the limit and one",
            announced((16 << 20) + 1),
            "frame_too_large",
        ),
        ("2^32 - 1", announced(u32::MAX), "frame_too_large"),
        ("a head of 1 byte", vec![0], "connection_lost"),
        ("a head of 2 bytes", vec![0, 0], "connection_lost"),
        ("a head of 3 bytes", vec![0, 0, 0], "connection_lost"),
        ("a head of 4 bytes", vec![0, 0, 0, 0], "connection_lost"),
        ("half a payload", call[..20].to_vec(), "connection_lost"),
        ("nothing", vec![], ""),
        ("bytes before an attach", frame(1, b"ls\n"), "bad_request"),
        ("no bytes before an attach", frame(1, b""), "bad_request"),
    ]
}

/// Control messages that are none, and such about nobody.
fn controls() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let text = |text: &str| text.as_bytes().to_vec();
    let deep = |open: &str| {
        let open = open.repeat(10_000);
        format!(r#"{{"type":"ListSessions","tags":{open}"#).into_bytes()
    };
    vec![
        ("no UTF-8", b"{\"type\":\"\xff\"}".to_vec(), "bad_request"),
        ("lists 10,000 deep", deep("["), "bad_request"),
        ("objects 10,000 deep", deep(r#"{"a":"#), "bad_request"),
        ("null", text("null"), "bad_request"),
        ("a number", text("7"), "bad_request"),
        ("a list", text("[]"), "bad_request"),
        ("an empty object", text("{}"), "bad_request"),
        (
            "a type that is a number",
            text(r#"{"type":7}"#),
            "bad_request",
        ),
        ("no such type", text(r#"{"type":"Dance"}"#), "bad_request"),
        (
            "a type with a NUL",
            text(r#"{"type":"ListSessions\u0000"}"#),
            "bad_request",
        ),
        (
            "two types",
            text(r#"{"type":"ListSessions","type":"Dance"}"#),
            "bad_request",
        ),
        (
            "bytes after it",
            text(r#"{"type":"ListSessions"}{}"#),
            "bad_request",
        ),
        (
            "a number without an end",
            text(r#"{"type":"GetStatus","id":1e400}"#),
            "bad_request",
        ),
        (
            "a number below zero",
            text(r#"{"type":"GetStatus","id":-1}"#),
            "bad_request",
        ),
        (
            "2^32",
            text(r#"{"type":"GetStatus","id":4294967296}"#),
            "bad_request",
        ),
        (
            "number 0",
            text(r#"{"type":"GetStatus","id":0}"#),
            "session_not_found",
        ),
        (
            "a body that is a list",
            text(r#"{"type":"MsgSend","to_name":"coder","body":[]}"#),
            "bad_request",
        ),
        (
            "half a surrogate",
            text(r#"{"type":"MsgSend","to_name":"coder","body":"\ud800"}"#),
            "bad_request",
        ),
        (
            "an id that is none",
            text(r#"{"type":"MsgSend","to_name":"coder","body":"x","message_id":"msg_x"}"#),
            "bad_request",
        ),
    ]
}

#[test]
fn a5_unix_socket_frames_and_controls() {
    case(&Local::new(CW), |local| {
        steps::launch(local.cw(), "coder", &SLEEPER);
        let socket = local.home().socket();
        let controls = controls().into_iter();
        let controls = controls.map(|(row, payload, code)| (row, frame(0, &payload), code));
        let mut wrong = Vec::new();
        for (row, bytes, code) in frames().into_iter().chain(controls) {
            let answers = exchange(&socket, &bytes);
            let expected: &[&str] = if code.is_empty() { &[] } else { &[code] };
            if answers != expected {
                wrong.push(format!("{row}: {code:?} was due, there came {answers:?}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        // Ten thousand calls in one go, and one in single bytes.
        let call = frame(0, br#"{"type":"GetStatus","id":0}"#);
        let answers = exchange(&socket, &call.repeat(10_000));
        assert_eq!(answers.len(), 10_000);
        assert!(answers.iter().all(|code| code == "session_not_found"));
        let mut wire = Wire::connect(&socket);
        call.iter().for_each(|byte| wire.raw(&[*byte]));
        assert_eq!(wire.expect("Error")["code"], "session_not_found");
        // None of it was a message.
        assert!(steps::inbox(local.cw(), "coder").is_empty());
        works(local.cw());
    });
}

/// Lines to the server for agents that are no requests; it answers the next one, and writes nothing
/// but answers.
#[test]
fn a5_mcp_lines_that_are_no_requests() {
    let rows = [
        "no JSON",
        "[]",
        r#"[{"jsonrpc":"2.0","id":7,"method":"ping"}]"#,
        "null",
        "{}",
        r#"{"jsonrpc":"1.0","id":7,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":7,"method":"no/such/method"}"#,
        r#"{"jsonrpc":"2.0","id":7,"method":"tools/call"}"#,
        r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"no_tool"}}"#,
        r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"codewire_request","arguments":7}}"#,
        r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"codewire_request","arguments":{"body":7}}}"#,
        r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"codewire\u0000","arguments":{}}}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":999}}"#,
        r#"{"jsonrpc":"2.0","method":"no/such/notification"}"#,
        r#"{"jsonrpc":"2.0","id":7,"result":{}}"#,
        "\u{1b}[2J",
        "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"pi",
    ];
    case(&Local::new(CW), |local| {
        let mut lines = vec![
            concat!(
                r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"#,
                r#""2025-06-18","capabilities":{},"clientInfo":{"name":"x","version":"1"}}}"#
            )
            .to_owned(),
            r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#.to_owned(),
        ];
        for (number, row) in rows.iter().enumerate() {
            lines.push((*row).to_owned());
            let id = 100 + number;
            lines.push(format!(
                r#"{{"jsonrpc":"2.0","id":{id},"method":"prompts/list"}}"#
            ));
        }
        lines.push(" ".repeat(8 << 20));
        lines.push(r#"{"jsonrpc":"2.0","id":500,"method":"prompts/list"}"#.to_owned());
        lines.push(String::new());
        let server = local
            .cw()
            .start_with(&["mcp-server"], lines.join("\n").as_bytes());
        for number in 0..rows.len() {
            let id = format!("\"id\":{}", 100 + number);
            let _ = server.stdout.line(&id, PATIENCE);
        }
        let _ = server.stdout.line("\"id\":500", PATIENCE);
        let done = server.wait(PATIENCE);
        for line in done.stdout.lines() {
            let json = serde_json::from_str::<serde_json::Value>(line);
            assert!(json.is_ok_and(|json| json["jsonrpc"] == "2.0"), "{line:?}");
        }
        works(local.cw());
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
