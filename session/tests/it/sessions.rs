//! Launch, output, end: what a session is for its callers.

use std::time::Duration;

use rustix::process::Pid;
use session::io::{Chunk, Filter, From, Notice, Sessions};
use session::{EventKind, Outcome, Size, Status};

use crate::common::{
    Home, named, next_event, read_to_end, shell, timed, wait_for_end, wait_for_output,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_session_runs_and_ends_with_its_last_byte_and_its_code() {
    timed(async {
        let home = Home::new();
        let sessions = home.open().await;
        let mut spec = named("coder", "stty size; echo hello; exit 42");
        spec.size = Size { cols: 99, rows: 33 };
        let info = sessions.launch(spec).await.unwrap();
        assert_eq!(info.id.0, 1);
        let (output, status) = read_to_end(&sessions, info.id).await;
        assert_eq!(String::from_utf8(output).unwrap(), "33 99\r\nhello\r\n");
        let outcome = Outcome::Code(42);
        let killed = false;
        assert_eq!(status, Status::Exited { outcome, killed });
        let info = sessions.find(&info.id.into()).unwrap();
        assert_eq!(info.status, status);
        assert_eq!((info.output_end, info.output_lines), (14, 2));
        assert_eq!(info.pid, None);
        sessions.shutdown(Duration::ZERO).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn w05_w06_w07_w11_results_of_short_sessions_are_complete() {
    timed(short_sessions(300)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes"]
async fn w05_w06_w07_w11_results_of_ten_thousand_sessions_are_complete() {
    short_sessions(10_000).await;
}

/// So many sessions, twenty at a time: all that is known of each when it is
/// said to be over, and what stays open when all are.
async fn short_sessions(count: u32) {
    let home = Home::new();
    let sessions = home.open().await;
    let workers = (0..20).map(|worker| {
        let (sessions, home) = (sessions.clone(), home.path());
        tokio::spawn(async move {
            for round in 0..count / 20 {
                short_session(&sessions, &home, (worker + round) % 7).await;
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.unwrap();
    }
    let list = sessions.list();
    assert!(list.iter().all(|info| !info.status.is_running()));
    // When the disk has everything, nothing of them stays open.
    sessions.shutdown(Duration::ZERO).await;
    let open = std::fs::read_dir("/proc/self/fd").unwrap();
    let open = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    let open = open.filter(|path| path.starts_with(home.path().join("sessions")));
    let open: Vec<_> = open.collect();
    assert!(open.len() < 5, "{open:?}");
}

async fn short_session(sessions: &Sessions, home: &std::path::Path, code: u32) {
    let spec = shell(&format!("printf 'the last byte is {code}'; exit {code}"));
    let id = sessions.launch(spec).await.unwrap().id;
    let (output, status) = read_to_end(sessions, id).await;
    let text = String::from_utf8(output).unwrap();
    assert_eq!(text, format!("the last byte is {code}"));
    let outcome = Some(Outcome::Code(code.try_into().unwrap()));
    assert_eq!(status.outcome(), outcome);
    // The end is in the events before anybody hears of it.
    let events = home.join("sessions").join(id.to_string());
    let events = std::fs::read_to_string(events.join("events.jsonl")).unwrap();
    let last = events.lines().last().unwrap();
    assert!(last.contains("session.status"), "{events}");
    let info = sessions.find(&id.into()).unwrap();
    assert_eq!(info.output_end, text.len() as u64);
    assert!(info.usage.unwrap().max_rss_bytes > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_program_used_is_known_when_it_has_ended() {
    timed(async {
        let home = Home::new();
        let sessions = home.open().await;
        let spec = shell("i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done");
        let id = sessions.launch(spec).await.unwrap().id;
        assert_eq!(sessions.find(&id.into()).unwrap().usage, None);
        let usage = wait_for_end(&sessions, id).await.usage.unwrap();
        assert!(usage.user_ms + usage.system_ms > 0, "{usage:?}");
        assert!(
            (1 << 16..1 << 30).contains(&usage.max_rss_bytes),
            "{usage:?}"
        );
        sessions.shutdown(Duration::ZERO).await;
        drop(sessions);
        let info = home.reopen().await.find(&id.into()).unwrap();
        assert_eq!(info.usage, Some(usage));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_launches_at_once_are_many_sessions() {
    timed(async {
        let home = Home::new();
        let sessions = home.open().await;
        let launches = (0..100).map(|number| {
            let sessions = sessions.clone();
            let spec = named(&format!("agent-{number}"), "echo $CW_SESSION_NAME; read x");
            tokio::spawn(async move { sessions.launch(spec).await.unwrap() })
        });
        let mut ids = Vec::new();
        for launch in launches.collect::<Vec<_>>() {
            let info = launch.await.unwrap();
            let name = info.name.unwrap().to_string();
            wait_for_output(&sessions, info.id, &name).await;
            ids.push(info.id.0);
        }
        ids.sort_unstable();
        assert_eq!(ids, (1..=100).collect::<Vec<_>>());
        sessions.shutdown(Duration::ZERO).await;
        let list = sessions.list();
        assert!(list.iter().all(|info| info.status.word() == "killed"));
        let refused = sessions.launch(shell("true")).await.unwrap_err();
        assert_eq!(refused.code(), "shutting_down");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launch_that_fails_leaves_nothing() {
    timed(async {
        let home = Home::new();
        let sessions = home.open().await;
        let first = sessions.launch(named("coder", "read x")).await.unwrap().id;
        let taken = sessions.launch(named("coder", "true")).await.unwrap_err();
        assert_eq!(taken.code(), "name_taken");
        let mut missing = named("other", "true");
        missing.argv = vec!["no-such-program".into()];
        let missing = sessions.launch(missing).await.unwrap_err();
        assert_eq!(missing.code(), "command_not_found");
        // Found, but the system cannot run it.
        let script = home.path().join("broken");
        std::fs::write(&script, "#!/no/such/interpreter\n").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(&script, mode).unwrap();
        let mut broken = named("other", "true");
        broken.argv = vec![script.to_str().unwrap().into()];
        let broken = sessions.launch(broken).await.unwrap_err();
        assert_eq!(broken.code(), "launch_failed");
        assert_eq!(sessions.list().len(), 1);
        let left = std::fs::read_dir(home.path().join("sessions")).unwrap();
        assert_eq!(left.count(), 1);
        sessions.kill(first, Duration::ZERO).await.unwrap();
        let again = sessions.launch(named("coder", "true")).await.unwrap();
        assert!(again.id > first);
        sessions.launch(named("other", "true")).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn w29_the_environment_is_what_was_given() {
    timed(async {
        let home = Home::new();
        let sessions = home.open().await;
        let mut spec = named("coder", "env; pwd");
        spec.cwd = "/usr".into();
        spec.env.push(("SHELL".into(), "/bin/sh".into()));
        spec.env.push(("CW_SESSION_ID".into(), "forged".into()));
        spec.tags = vec!["one".parse().unwrap()];
        let id = sessions.launch(spec).await.unwrap().id;
        let (output, _) = read_to_end(&sessions, id).await;
        let text = String::from_utf8(output).unwrap();
        let mut lines: Vec<_> = text
            .lines()
            .filter(|line| !line.starts_with("PWD="))
            .collect();
        lines.sort_unstable();
        let expected = [
            "/usr",
            "CW_COHORT_TAG=one",
            "CW_SESSION_ID=1",
            "CW_SESSION_NAME=coder",
            "PATH=/usr/bin:/bin",
            "SHELL=/bin/sh",
        ];
        assert_eq!(lines, expected);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_typed_arrives() {
    timed(async {
        let home = Home::new();
        let sessions = home.open().await;
        let mut spec = shell("read one; echo got $one; read two; echo got $two");
        spec.input = Some("first\n".into());
        let id = sessions.launch(spec).await.unwrap().id;
        wait_for_output(&sessions, id, "got first").await;
        assert_eq!(sessions.input(id, "second\n".into()).await.unwrap(), 7);
        wait_for_output(&sessions, id, "got second").await;
        let info = wait_for_end(&sessions, id).await;
        assert_eq!(info.status.to_string(), "completed (0)");
        let late = sessions.input(id, "third\n".into()).await.unwrap_err();
        assert_eq!(late.code(), "session_not_running");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_input_arrives_whole_however_slowly_it_is_read() {
    timed(async {
        let home = Home::new();
        let sessions = home.open().await;
        let len = 3 * 1024 * 1024;
        let script = format!("stty raw -echo; echo ready; sleep 0.3; head -c {len} | cksum");
        let id = sessions.launch(shell(&script)).await.unwrap().id;
        wait_for_output(&sessions, id, "ready").await;
        let input: Vec<u8> = (0..len).map(|at: usize| (at % 251) as u8).collect();
        let expected = cksum(&input);
        sessions.input(id, input.into()).await.unwrap();
        wait_for_output(&sessions, id, &expected).await;
    })
    .await;
}

fn cksum(bytes: &[u8]) -> String {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    let mut child = Command::new("cksum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn w18_input_waits_for_room_and_hears_of_the_end() {
    timed(async {
        let home = Home::new();
        let sessions = home.open().await;
        let script = "stty raw -echo; echo ready; exec sleep 1000";
        let id = sessions.launch(shell(script)).await.unwrap().id;
        wait_for_output(&sessions, id, "ready").await;
        let waiting = {
            let sessions = sessions.clone();
            let input = vec![b'x'; 4 * 1024 * 1024];
            tokio::spawn(async move { sessions.input(id, input.into()).await })
        };
        sessions.kill(id, Duration::from_secs(60)).await.unwrap();
        let error = waiting.await.unwrap().unwrap_err();
        assert!(
            matches!(error.code(), "session_ended" | "session_not_running"),
            "{error}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn w08_w12_a_slow_reader_misses_nothing() {
    timed(async {
        let home = Home::new();
        let sessions = home.open().await;
        let id = sessions.launch(shell("seq 1 400000")).await.unwrap().id;
        // One reads a byte's worth before everything is over.
        let mut slow = sessions.reader(id, From::Start).unwrap();
        let Chunk::Bytes { bytes: first, .. } = slow.next().await.unwrap() else {
            panic!("no output");
        };
        let (all, _) = read_to_end(&sessions, id).await;
        let expected: String = (1..=400_000)
            .map(|number| format!("{number}\r\n"))
            .collect();
        assert!(all == expected.as_bytes());
        let mut late = first.to_vec();
        loop {
            match slow.next().await.unwrap() {
                Chunk::Bytes { bytes, .. } => late.extend_from_slice(&bytes),
                Chunk::End { .. } => break,
                Chunk::Gap { .. } => panic!("a gap"),
            }
        }
        assert!(late == all);
        // The end comes once.
        assert_eq!(slow.next().await.unwrap_err().code(), "session_ended");
        let info = sessions.find(&id.into()).unwrap();
        assert_eq!(info.output_lines, 400_000);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn w39_readers_start_where_they_are_told() {
    timed(async {
        let home = Home::new();
        let sessions = home.open().await;
        let script = "stty -opost; printf 'one\\ntwo\\n\\nfour\\nfive'";
        let id = sessions.launch(shell(script)).await.unwrap().id;
        let (all, _) = read_to_end(&sessions, id).await;
        assert_eq!(all, b"one\ntwo\n\nfour\nfive");
        let from = |from| {
            let mut reader = sessions.reader(id, from).unwrap();
            let mut text = String::new();
            loop {
                match reader.try_next().unwrap().unwrap() {
                    Chunk::Bytes { bytes, .. } => text += std::str::from_utf8(&bytes).unwrap(),
                    Chunk::End { .. } => return text,
                    Chunk::Gap { .. } => panic!("a gap"),
                }
            }
        };
        assert_eq!(from(From::TailLines(0)), "");
        assert_eq!(from(From::TailLines(1)), "five");
        assert_eq!(from(From::TailLines(2)), "four\nfive");
        assert_eq!(from(From::TailLines(3)), "\nfour\nfive");
        assert_eq!(from(From::TailLines(usize::MAX)), "one\ntwo\n\nfour\nfive");
        assert_eq!(from(From::TailBytes(3)), "ive");
        assert_eq!(from(From::TailBytes(u64::MAX)), "one\ntwo\n\nfour\nfive");
        assert_eq!(from(From::Offset(14)), "five");
        assert_eq!(from(From::Offset(u64::MAX)), "");
        assert_eq!(from(From::End), "");
        let missing = sessions.reader(session::SessionId(9), From::Start);
        assert_eq!(missing.unwrap_err().code(), "session_not_found");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn w04_w09_the_end_does_not_wait_for_those_who_stay_behind() {
    timed(async {
        let home = Home::new();
        let sessions = home.open().await;
        // The first keeps the terminal open, the second even writes to it.
        let quiet = "trap '' HUP; sleep 1000 & echo $!; exit 3";
        let loud = "trap '' HUP; while :; do echo noise; done & echo $!; exit 4";
        for (script, code) in [(quiet, 3), (loud, 4)] {
            let id = sessions.launch(shell(script)).await.unwrap().id;
            let (output, status) = read_to_end(&sessions, id).await;
            assert_eq!(status.outcome(), Some(Outcome::Code(code)));
            let text = String::from_utf8(output).unwrap();
            let mut numbers = text.lines().filter_map(|line| line.parse().ok());
            let left: i32 = numbers.next().expect("its number");
            let left = Pid::from_raw(left).unwrap();
            let _ = rustix::process::kill_process(left, rustix::process::Signal::KILL);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_may_close_its_terminal_and_come_back() {
    timed(async {
        let home = Home::new();
        let sessions = home.open().await;
        let script = "echo before; exec 0<&- 1>&- 2>&-; sleep 0.2; \
                      exec >/dev/tty; echo after; exit 5";
        let id = sessions.launch(shell(script)).await.unwrap().id;
        let (output, status) = read_to_end(&sessions, id).await;
        assert_eq!(String::from_utf8(output).unwrap(), "before\r\nafter\r\n");
        assert_eq!(status.outcome(), Some(Outcome::Code(5)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_is_told_from_a_code() {
    timed(async {
        let home = Home::new();
        let sessions = home.open().await;
        let id = sessions.launch(shell("kill -SEGV $$")).await.unwrap().id;
        let info = wait_for_end(&sessions, id).await;
        assert_eq!(info.status.outcome(), Some(Outcome::Signal(11)));
        assert_eq!(info.status.word(), "completed");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_come_and_go() {
    timed(async {
        let home = Home::new();
        let sessions = home.open().await;
        let script = "trap 'stty size' WINCH; echo one; while :; do read x; echo $x; done";
        let id = sessions.launch(shell(script)).await.unwrap().id;
        wait_for_output(&sessions, id, "one").await;
        let mut events = sessions.subscribe(Filter {
            session: Some(id),
            ..Filter::default()
        });
        let mut first = sessions.attach(id).unwrap();
        assert!(first.repaint.ends_with(b"\x1b[Jone\x1b[2;1H"));
        let second = sessions.attach(id).unwrap();
        assert_eq!(sessions.find(&id.into()).unwrap().attached, 2);
        drop(second);
        assert_eq!(sessions.find(&id.into()).unwrap().attached, 1);
        let size = Size { cols: 77, rows: 22 };
        sessions.resize(id, size).unwrap();
        assert_eq!(sessions.find(&id.into()).unwrap().size, size);
        sessions.input(id, "\n".into()).await.unwrap();
        wait_for_output(&sessions, id, "22 77").await;
        let Chunk::Bytes { offset, .. } = first.reader.next().await.unwrap() else {
            panic!("no output");
        };
        assert_eq!(offset, 5);
        drop(first);
        let mut kinds = Vec::new();
        while kinds.len() < 5 {
            kinds.push(next_event(&mut events).await.kind.event_type().as_str());
        }
        let expected = [
            "session.attached",
            "session.attached",
            "session.detached",
            "session.input",
            "session.detached",
        ];
        assert_eq!(kinds, expected);
        sessions.kill(id, Duration::from_secs(60)).await.unwrap();
        let late = sessions.attach(id).unwrap_err();
        assert_eq!(late.code(), "session_not_running");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_tell_the_life_of_a_session() {
    timed(async {
        let home = Home::new().synced();
        let sessions = home.open().await;
        let mut events = sessions.subscribe(Filter::default());
        let id = sessions.launch(named("coder", "exit 3")).await.unwrap().id;
        let created = next_event(&mut events).await;
        assert_eq!((created.session, created.seq), (id, 1));
        assert!(matches!(created.kind, EventKind::Created(_)));
        let ended = next_event(&mut events).await;
        assert_eq!(ended.seq, 2);
        let EventKind::Exited(exited) = ended.kind else {
            panic!("{ended:?}");
        };
        assert_eq!(exited.outcome, Outcome::Code(3));
        wait_for_end(&sessions, id).await;
        let text = std::fs::read_to_string(home.session_file(id, "events.jsonl")).unwrap();
        assert_eq!(text.lines().count(), 2);
        drop(sessions);
        assert_eq!(events.next().await, None::<Notice>);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn w01_absurd_positions_are_positions() {
    timed(async {
        let home = Home::new();
        let sessions = home.open().await;
        let id = sessions
            .launch(shell("echo one; echo two"))
            .await
            .unwrap()
            .id;
        wait_for_end(&sessions, id).await;
        let absurd = [
            (From::TailLines(usize::MAX), 10),
            (From::TailLines(0), 0),
            (From::TailBytes(u64::MAX), 10),
            (From::TailBytes(0), 0),
            (From::Offset(u64::MAX), 0),
        ];
        for (from, expected) in absurd {
            let mut reader = sessions.reader(id, from).unwrap();
            let mut len = 0;
            while let Chunk::Bytes { bytes, .. } = reader.next().await.unwrap() {
                len += bytes.len();
            }
            assert_eq!(len, expected, "{from:?}");
        }
        assert!(sessions.inbox(&id.into(), usize::MAX).unwrap().is_empty());
        let size = Size {
            cols: u16::MAX,
            rows: u16::MAX,
        };
        let mut spec = shell("read x");
        spec.size = size;
        let id = sessions.launch(spec).await.unwrap().id;
        sessions.resize(id, Size { cols: 0, rows: 0 }).unwrap();
        sessions.attach(id).unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn w25_every_byte_comes_out_as_it_was_written() {
    timed(async {
        let home = Home::new();
        let sessions = home.open().await;
        let every: Vec<u8> = (0..=255).cycle().take(100_000).collect();
        let file = home.path().join("bytes");
        std::fs::write(&file, &every).unwrap();
        let script = format!("stty raw -echo; cat {}", file.display());
        let id = sessions.launch(shell(&script)).await.unwrap().id;
        assert!(read_to_end(&sessions, id).await.0 == every);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn w30_a_terminal_has_its_size_from_the_start() {
    timed(async {
        let home = Home::new();
        let sessions = home.open().await;
        let mut spec = shell("stty size");
        spec.size = Size {
            cols: 120,
            rows: 40,
        };
        let id = sessions.launch(spec).await.unwrap().id;
        assert_eq!(read_to_end(&sessions, id).await.0, b"40 120\r\n");
    })
    .await;
}
