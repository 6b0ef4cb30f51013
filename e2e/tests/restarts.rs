//! Nodes that are killed or replaced under those who wait, watch and subscribe: nobody loses or
//! gets twice a byte, an event or an end. And programs of different ages that meet.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};

use e2e::home::Part;
use e2e::running::Running;
use e2e::steps::{self, ECHO};
use e2e::{Local, PATIENCE, case, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const CW: &str = env!("CARGO_BIN_EXE_cw-under-test");

/// Kills in one directory: the pause before a node is started again grows with each.
const KILLS: u32 = 10;

/// Writes numbers until told to stop.
const COUNT: &str = "trap 'stop=1' USR1; i=0; while [ -z \"$stop\" ]; do echo $i; i=$((i+1)); \
    [ $((i%50)) = 0 ] && sleep 0.02; done; echo end; exit 7";

#[test]
fn w10_w14_w15_w36_twenty_killed_nodes_lose_nobody_anything() {
    for _ in 0..2 {
        killed_nodes();
    }
}

#[test]
#[ignore = "takes many minutes; a recorded run"]
fn w10_w14_w15_w36_a_thousand_killed_nodes_lose_nobody_anything() {
    for _ in 0..1000 / KILLS {
        killed_nodes();
    }
}

/// Kills nodes under numbered output, somebody who watches it, one who waits for each session, and
/// a subscriber.
fn killed_nodes() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        steps::launch(cw, "counter", &["sh", "-c", COUNT]);
        let watch = cw.start(&["watch", "counter"]);
        let wait = cw.start(&["wait", "counter"]);
        let events = cw.start(&["subscribe", "--since", "0", "--json"]);
        let _ = watch.stdout.line("5", PATIENCE);
        let _ = events.stdout.line("session.created", PATIENCE);
        let mut waiting: Vec<(u32, Running)> = Vec::new();
        for round in 0..KILLS {
            let name = format!("short-{round}");
            let script = format!("read -r x; exit {}", round + 1);
            steps::launch(cw, &name, &["sh", "-c", &script]);
            waiting.push((round + 1, cw.start(&["wait", &name])));
            let size = || steps::status(cw, "counter")["output_bytes"].as_u64();
            let before = size();
            let node = local.home().kill(Part::Node);
            let _ = local.home().wait_for(Part::Node, Some(node));
            let _ = cw.run(&["send", &name, "go"]).ok();
            wait_until("the counter goes on", PATIENCE, || {
                let now = size();
                (now > before)
                    .then_some(())
                    .ok_or_else(|| format!("{now:?}"))
            });
        }
        let pid = steps::status(cw, "counter")["pid"].as_i64();
        let pid = pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        kill_process(pid.expect("it runs"), Signal::USR1).expect("it lives");

        let watched = watch.wait(PATIENCE * 2).ok().stdout;
        let numbers = watched
            .trim_end()
            .strip_suffix("end")
            .expect("the last line");
        let count = numbers.lines().count();
        let numbers = numbers.lines().map(|line| line.trim().parse::<usize>());
        assert!(numbers.eq((0..count).map(Ok)), "{count} numbers");
        waiting.push((7, wait));
        for (code, wait) in waiting {
            let done = wait.wait(PATIENCE);
            assert_eq!(done.status, Some(8), "{done}");
            let said = done.stdout.matches("exit_code=").count();
            assert!(
                said == 1 && done.stdout.contains(&format!("exit_code={code})")),
                "{done}"
            );
        }
        told_once(local, &events);
    });
}

/// A subscriber from the start has heard what is in the files, each once and in order.
fn told_once(local: &Local, events: &Running) {
    let mut written = BTreeMap::new();
    for id in 1..=KILLS + 1 {
        let path = local
            .home()
            .dir()
            .join(format!("sessions/{id}/events.jsonl"));
        let text = std::fs::read_to_string(path).expect("it is there");
        for (line, seq) in text.lines().zip(1..) {
            let event: Value = serde_json::from_str(line).expect("JSON");
            assert_eq!(event["seq"].as_u64(), Some(seq), "{text}");
            let cursor = event["cursor"].as_u64().expect("a cursor");
            assert_eq!(
                written.insert(cursor, (u64::from(id), seq)),
                None,
                "{cursor} twice"
            );
        }
    }
    let last = written.keys().next_back().copied().unwrap_or_default();
    let _ = events.stdout.line(&format!("\"cursor\":{last}"), PATIENCE);
    let text = events.stdout.text();
    let heard = text.lines().filter_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        let event = &line["event"];
        let place = (line["session_id"].as_u64()?, event["seq"].as_u64()?);
        Some((event["cursor"].as_u64()?, place))
    });
    let heard: Vec<_> = heard.collect();
    let written: Vec<_> = written.into_iter().collect();
    let heard = &heard[..heard.len().min(written.len())];
    assert_eq!(heard, written, "what was heard and what is written");
}

/// The program behind a process.
fn program_of(pid: Pid) -> String {
    let path = std::fs::read_link(format!("/proc/{}/exe", pid.as_raw_nonzero()));
    path.map(|path| path.display().to_string())
        .unwrap_or_default()
}

#[test]
fn a_node_becomes_another_program_under_a_hundred_sessions() {
    case(&Local::new(CW), |local| {
        let (cw, home) = (local.cw(), local.home());
        steps::launch(cw, "coder", &ECHO);
        let call = json!({
            "type": "Launch", "command": ["sh", "-c", "read -r x; echo \"got:$x\"; exit 3"],
            "working_dir": "/", "tags": ["many"],
        });
        let mut wire = e2e::wire::Wire::connect(&home.socket());
        for _ in 0..100 {
            let _ = wire.ask(&call, "Launched");
        }
        let waiting = cw.start(&["wait", "--tag", "many"]);
        let next = home.dir().join("next");
        std::fs::copy(CW, &next).expect("a program");
        let next = next.display().to_string();
        let keeper = home.pid(Part::Keeper);
        let _ = cw.run(&["node", "restart", "--program", &next]).ok();
        assert_eq!(
            home.pid(Part::Keeper),
            keeper,
            "the keeper is the same process"
        );
        for part in [Part::Node, Part::Keeper] {
            assert_eq!(
                program_of(home.pid(part).expect("it runs")),
                next,
                "{part:?}"
            );
        }
        let mut wire = e2e::wire::Wire::connect(&home.socket());
        for id in 2..=101 {
            let _ = wire.ask(
                &json!({"type": "SendInput", "id": id, "data": "Z28K"}),
                "InputSent",
            );
        }
        let done = waiting.wait(PATIENCE * 3);
        assert_eq!(
            done.stdout.matches("got:go").count(),
            100,
            "{}",
            done.stderr
        );
        assert_eq!(done.stdout.matches("exit_code=3").count(), 100);
        let _ = cw.run(&["send", "coder", "on"]).ok();
        steps::wait_for_output(cw, "coder", "got:on");
    });
}

/// A node that answers each call with the next of these, whatever it was.
fn pretend(socket: &std::path::Path, answers: &[Value]) {
    let _ = std::fs::remove_file(socket);
    let listener = UnixListener::bind(socket).expect("a socket");
    let answers = answers.to_vec();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        for answer in answers {
            read_frame(&mut stream)?;
            let text = answer.to_string();
            let length = u32::try_from(text.len()).unwrap_or_default();
            stream.write_all(&[&[0][..], &length.to_be_bytes(), text.as_bytes()].concat())?;
        }
        // Whoever listens on is told so by the end.
        std::io::Result::Ok(())
    });
}

fn read_frame(stream: &mut UnixStream) -> std::io::Result<()> {
    let mut head = [0; 5];
    stream.read_exact(&mut head)?;
    let [_, length @ ..] = head;
    let mut body = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut body)
}

#[test]
fn w41_programs_of_different_ages_tell_each_other() {
    case(&Local::new(CW), |local| {
        let (cw, socket) = (local.cw(), local.home().socket());
        let hello = |version: u32| json!({"type": "Hello", "version": version, "release": "9", "node": "x", "pid": 1});
        let unknown = json!({"type": "Error", "message": "unknown request type: Hello"});
        // Older nodes, one of which has never heard of a greeting.
        for answer in [unknown, hello(0)] {
            pretend(&socket, &[answer]);
            let told = cw.run(&["list"]).fails("version");
            let _ = told.hints("cw stop");
        }
        // A newer one is understood as long as it says what is known, and else told.
        let list = json!({"type": "SessionList", "sessions": [], "future": {"a": 1}});
        pretend(&socket, &[hello(99), list]);
        assert_eq!(cw.ok(&["list", "--json"]), "[]\n");
        pretend(&socket, &[hello(99), json!({"type": "Future", "a": 1})]);
        let _ = cw.run(&["list"]).fails("version").hints("cw node restart");
        let _ = std::fs::remove_file(&socket);

        // An older client knows no greeting, a newer one says more; both are served.
        let _ = cw.run(&["start"]).ok();
        let mut wire = e2e::wire::Wire::connect(&socket);
        let _ = wire.ask(&json!({"type": "ListSessions"}), "SessionList");
        let mut wire = e2e::wire::Wire::connect(&socket);
        let welcome = wire.ask(
            &json!({"type": "Hello", "version": 99, "more": []}),
            "Hello",
        );
        assert_eq!(welcome["version"], 1);
        let error = wire.ask(&json!({"type": "Future"}), "Error");
        assert_eq!(error["code"], "bad_request", "{error}");
    });
}
