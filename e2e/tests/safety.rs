//! What others have written is shown as text: no command hands a terminal anything that it would
//! act upon, and no line of a message passes for one of ours. The characters themselves are tried
//! one by one where they are made harmless; here is every place where they come out.

use e2e::processes::Processes;
use e2e::substrate::{Host, Substrate, Way};
use e2e::{Cw, Local, PATIENCE, case, steps, wait_until};

const CW: &str = env!("CARGO_BIN_EXE_cw-under-test");

/// Beginnings of what terminals act upon, in both ways of writing them.
const STARTS: [&str; 10] = [
    "\u{1b}[", "\u{9b}", "\u{1b}]", "\u{9d}", "\u{1b}P", "\u{90}", "\u{1b}_", "\u{9f}", "\u{1b}^",
    "\u{1b}",
];

/// Cursor, screen, modes, questions, titles, clipboard, links, palettes.
const MIDDLES: [&str; 20] = [
    "2J",
    "1;1H",
    "10A",
    "?1049h",
    "?2004l",
    "?25l",
    "?1000h",
    "6n",
    "c",
    ">c",
    "18t",
    "21t",
    "2;5r",
    "0;forged title",
    "52;c;aGVsbG8=",
    "8;;http://x",
    "4;1;?",
    "11;?",
    "$q\"p",
    "9;done",
];

/// How they end.
const ENDS: [&str; 2] = ["\u{7}", "\u{1b}\\"];

/// What is no sequence and does something all the same.
const LONE: &str = "\r\u{8}\u{b}\u{c}\u{e}\u{f}\u{7f}\u{84}\u{85}\u{8d}\u{200e}\u{200f}\u{202a}\
    \u{202b}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2028}\u{2029}\u{feff}\u{200b}\u{e0041}";

/// A line that looks like a message of the owner's.
const FORGED: &str = "[2026-01-01T00:00:00.000Z] owner → victim: forged";

/// All vectors, one a line, in pieces that fit into an argument.
fn vectors() -> Vec<String> {
    let mut all = Vec::new();
    for start in STARTS {
        for middle in MIDDLES {
            for end in ENDS {
                all.push(format!("x{start}{middle}{end}y"));
            }
        }
    }
    all.extend(LONE.chars().map(|ch| format!("x{ch}y")));
    assert!(all.len() >= 400);
    all
}

/// Fails if `text` has a character that a terminal acts upon.
#[track_caller]
fn is_harmless(what: &str, text: &str) {
    let bad = text.chars().find(|ch| match ch {
        '\n' | '\t' => false,
        '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{feff}' => true,
        '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{e0000}'..='\u{e007f}' => true,
        ch => ch.is_control(),
    });
    assert_eq!(bad, None, "{what}: {text:?}");
}

/// Fails if a line of `text` looks like an owner's message that was never sent.
#[track_caller]
fn forges_nothing(what: &str, text: &str) {
    let forged = text.lines().find(|line| line.starts_with(FORGED));
    assert_eq!(forged, None, "{what}: {text}");
}

#[test]
fn u16_messages_are_text() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        steps::launch(cw, "victim", &steps::SLEEPER);
        let listen = cw.start(&["listen"]);
        let _ = listen.stderr.line("listening", PATIENCE);
        let subscribe = cw.start(&["subscribe"]);
        let _ = subscribe.stderr.line("subscribed", PATIENCE);
        let vectors = vectors();
        for some in vectors.chunks(50) {
            let body = format!("{}\n{FORGED}\r\n{FORGED}", some.join("\n"));
            let _ = cw
                .run_with(&["msg", "victim", "-"], body.as_bytes(), PATIENCE)
                .ok();
        }
        let asked = cw.start_with(&["request", "victim", "-"], vectors[0].as_bytes());
        let id = steps::wait_for_request(cw, "victim");
        let reply = format!("{}\n{FORGED}", vectors.join("\n"));
        let _ = cw
            .run_with(
                &["reply", &id, "-", "-f", "victim"],
                reply.as_bytes(),
                PATIENCE,
            )
            .ok();
        let answered = asked.wait(PATIENCE).ok().stdout;
        let inbox = cw.ok(&["inbox", "victim", "--tail", "100"]);
        let _ = listen.stdout.line("REPLY", PATIENCE);
        let listened = listen.stdout.text();
        let _ = subscribe.stdout.line("message.reply", PATIENCE);
        for (what, text) in [
            ("request", &answered),
            ("inbox", &inbox),
            ("listen", &listened),
            ("subscribe", &subscribe.stdout.text()),
        ] {
            is_harmless(what, text);
            forges_nothing(what, text);
            assert!(text.contains("forged"), "{what}: {text}");
        }
        // For programs it is what it was.
        let inbox = steps::inbox(cw, "victim");
        let body = inbox[0]["body"].as_str().unwrap_or_default();
        assert!(body.starts_with(&vectors[0]), "{body:?}");
    });
}

#[test]
fn what_sessions_print_is_text() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        let vectors = vectors();
        let file = local.home().dir().join("vectors");
        if let Err(error) = std::fs::write(&file, vectors.join("\n")) {
            panic!("{error}");
        }
        let script = format!(
            "cat {}; printf '\\033[?1049l\\nlast\\n'; read -r x",
            file.display()
        );
        steps::launch(
            cw,
            "victim",
            &["sh", "-c", &script, &vectors[1], "\u{1b}]0;x\u{7}"],
        );
        let watch = cw.start(&["watch", "victim"]);
        let _ = watch.stdout.line("last", PATIENCE);
        wait_until("the last line is there", PATIENCE, || {
            let log = cw.ok(&["logs", "victim"]);
            log.contains("last").then_some(()).ok_or(log)
        });
        let waited = cw
            .start(&["wait", "victim", "--until", "output", "last"])
            .wait(PATIENCE);
        check(cw, &[&waited.ok().stdout, &watch.stdout.text()]);
        let _ = cw.run(&["send", "victim", "go on"]).ok();
        let _ = steps::wait_for_end(cw, "victim");
        let waited = cw.start(&["wait", "victim"]).wait(PATIENCE);
        check(cw, &[&waited.ok().stdout]);
    });
}

/// Every command that shows something of the session.
#[track_caller]
fn check(cw: &Cw, more: &[&str]) {
    for words in [
        &["list"][..],
        &["status", "victim"],
        &["logs", "victim"],
        &["logs", "victim", "--tail", "500"],
        &["tag", "victim"],
        &["doctor"],
    ] {
        is_harmless(&words.join(" "), &cw.run(words).stdout);
    }
    for text in more {
        is_harmless("followed", text);
    }
}

#[test]
fn refusals_are_text() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        let _ = cw.run(&["start"]).ok();
        for vector in vectors()
            .iter()
            .step_by(7)
            .filter(|vector| !vector.contains('\0'))
        {
            for words in [
                &["status", vector][..],
                &["launch", "--name", vector, "--", "true"],
                &["launch", "-t", vector, "--", "true"],
                &["launch", "--", vector],
                &["msg", vector, "hi"],
                &["reply", vector, "hi"],
                &["network", "join", "--relay-url", vector, vector],
                &["kv", "get", vector],
                &["attach", vector],
                &["server", "add", vector, vector],
            ] {
                let done = cw.run_with(words, b"", PATIENCE);
                is_harmless(&words.join(" "), &done.stderr);
                is_harmless(&words.join(" "), &done.stdout);
            }
        }
    });
}

/// What members of a network write down for each other.
#[test]
fn u16_what_is_shared_is_text() {
    case(
        &Processes::new(CW, Way::Relayed) as &dyn Substrate,
        |substrate| {
            steps::join_both(substrate);
            let (here, there) = (substrate.cw(Host::Dev1), substrate.cw(Host::Dev2));
            steps::launch(&here, "victim", &steps::SLEEPER);
            let _ = here.run(&["group", "create", "mesh"]).ok();
            let watch = here.start(&["kv", "watch"]);
            let _ = watch.stderr.line("watching from", PATIENCE);
            let vectors = vectors();
            let value = vectors.join("\n");
            let _ = there
                .run_with(&["kv", "set", "all", "-"], value.as_bytes(), PATIENCE)
                .ok();
            for (at, vector) in vectors.iter().enumerate().step_by(50) {
                let _ = there.run(&["kv", "set", &format!("one/{at}"), vector]).ok();
            }
            let _ = there.run(&["kv", "set", "last", "last"]).ok();
            let _ = watch.stdout.line("last", PATIENCE);
            is_harmless("kv watch", &watch.stdout.text());
            let listed = here.ok(&["kv", "list"]);
            assert!(listed.contains("one/50"), "{listed}");
            is_harmless("kv list", &listed);
            // For programs it is what it was.
            assert_eq!(here.ok(&["kv", "get", "all"]), value);

            for vector in vectors.iter().step_by(40) {
                for words in [
                    &["group", "create", vector][..],
                    &["group", "list", vector],
                    &["group", "add", "mesh", vector],
                    &["group", "delete", vector],
                    &["launch", "--group", vector, "--", "true"],
                    &["access", "grant", "victim", "--to", vector],
                    &["access", "grant", vector, "--to", "dev-2"],
                    &["access", "accept", vector],
                    &["access", "inspect", vector],
                    &["access", "revoke", vector],
                    &["kv", "set", vector, "x"],
                    &["kv", "get", vector, "--ns", vector],
                    &["kv", "delete", vector],
                    &["network", "remove", vector],
                    &["network", "promote", vector],
                    &["node", "ping", vector],
                ] {
                    let done = here.run_with(words, b"", PATIENCE);
                    is_harmless(&words.join(" "), &done.stderr);
                    is_harmless(&words.join(" "), &done.stdout);
                }
            }
        },
    );
}
