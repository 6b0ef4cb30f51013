//! What is kept of output and of finished sessions, and what goes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use session::io::{Chunk, Filter, From, Notice, Options, Played, Sessions};
use session::{SessionId, Size};

use crate::common::{Home, next_event, read_to_end, shell, timed, wait_for_end, wait_for_output};

const CAP: u64 = 1024 * 1024;

/// The lines of `seq 1 last` from a byte on.
fn numbers(last: u32, from: u64) -> Vec<u8> {
    let all: String = (1..=last).map(|number| format!("{number}\r\n")).collect();
    all.as_bytes()[from as usize..].to_vec()
}

async fn read_from(sessions: &Sessions, id: SessionId, from: From) -> (u64, Vec<u8>) {
    let mut reader = sessions.reader(id, from).unwrap();
    let (mut start, mut all) = (None, Vec::new());
    loop {
        match reader.next().await.unwrap() {
            Chunk::Bytes { offset, bytes } => {
                let start = *start.get_or_insert(offset);
                assert_eq!(offset, start + all.len() as u64);
                all.extend_from_slice(&bytes);
            }
            Chunk::Gap { resume_at } => {
                assert!(start.replace(resume_at).is_none(), "a second gap");
            }
            Chunk::End { .. } => return (start.unwrap(), all),
        }
    }
}

fn limits() -> Options {
    Options {
        log_cap: CAP,
        ..Options::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn w40_old_output_goes_and_offsets_stay_right() {
    timed(async {
        const LAST: u32 = 600_000;
        let home = Home::new().with(limits());
        let sessions = home.open().await;
        let script = format!("seq 1 {LAST}; read x; echo end");
        let id = sessions.launch(shell(&script)).await.unwrap().id;
        wait_for_tail(&sessions, id, "600000\r\n").await;
        let info = sessions.find(&id.into()).unwrap();
        assert_eq!(info.output_end, numbers(LAST, 0).len() as u64);
        assert!(info.output_end - info.output_start <= CAP + 64 * 1024);
        assert!(info.output_end - info.output_start >= CAP / 2);
        let dir = home.session_file(id, "");
        let size =
            |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().metadata().unwrap().len();
        let on_disk: u64 = std::fs::read_dir(&dir).unwrap().map(size).sum();
        assert!(on_disk < CAP * 3 / 2, "{on_disk}");
        sessions.input(id, "\n".into()).await.unwrap();
        let ended = wait_for_end(&sessions, id).await;
        assert_eq!(ended.output_lines, u64::from(LAST) + 2);
        // The last line may have begun a new file, so that an old one went.
        let info = sessions.find(&id.into()).unwrap();
        let mut expected = numbers(LAST, info.output_start);
        expected.extend_from_slice(b"\r\nend\r\n");

        let first = sessions.attach(id);
        drop(first);
        for from in [From::Start, From::Offset(5)] {
            let (start, all) = read_from(&sessions, id, from).await;
            assert_eq!(start, info.output_start);
            assert!(all == expected);
        }
        let lines = read_from(&sessions, id, From::TailLines(90_000)).await.1;
        assert_eq!(lines.iter().filter(|byte| **byte == b'\n').count(), 90_000);
        let mut recording = sessions.recording(id).unwrap();
        let mut played = Vec::new();
        while let Some(next) = recording.next().await.unwrap() {
            if let Played::Output { bytes, .. } = next {
                played.extend_from_slice(&bytes);
            }
        }
        assert!(played == expected);
        sessions.shutdown(Duration::ZERO).await;
        drop(sessions);

        let sessions = home.reopen().await;
        let (start, all) = read_from(&sessions, id, From::Start).await;
        assert_eq!(start, info.output_start);
        assert!(all == expected);
    })
    .await;
}

async fn wait_for_tail(sessions: &Sessions, id: SessionId, wanted: &str) {
    let mut reader = sessions.reader(id, From::TailBytes(100)).unwrap();
    let mut all = Vec::new();
    while !all.ends_with(wanted.as_bytes()) {
        if let Chunk::Bytes { bytes, .. } = reader.next().await.unwrap() {
            all.extend_from_slice(&bytes);
            all.drain(..all.len().saturating_sub(100));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn w40_finished_sessions_go_when_they_are_many() {
    timed(async {
        let home = Home::new().with(Options {
            keep_finished: 10,
            ..Options::default()
        });
        let sessions = home.open().await;
        let live = sessions.launch(shell("read x")).await.unwrap().id;
        let mut last = live;
        for _ in 0..20 {
            last = sessions.launch(shell("echo x")).await.unwrap().id;
            wait_for_end(&sessions, last).await;
        }
        while sessions.list().len() > 11 {
            tokio::task::yield_now().await;
        }
        let list = sessions.list();
        assert_eq!((list[0].id, list[10].id), (live, last));
        assert!(list.windows(2).all(|pair| pair[0].id < pair[1].id));
        let gone = SessionId(live.0 + 1);
        let error = sessions.find(&gone.into()).unwrap_err();
        assert_eq!(error.code(), "session_not_found");
        while home.session_file(gone, "").exists() {
            tokio::task::yield_now().await;
        }
        // Who comes back for what is gone is told, and gets the rest.
        let mut events = sessions.subscribe_since(Filter::default(), 1);
        let Some(Notice::Gap { from: 1, to }) = events.next().await else {
            panic!("no gap");
        };
        assert!(to > 10 && to < sessions.cursor());
        let kept = next_event(&mut events).await;
        assert!(list.iter().any(|info| info.id == kept.session));
        let filter = Filter {
            session: Some(live),
            ..Filter::default()
        };
        next_event(&mut sessions.subscribe_since(filter, 0)).await;
        let cursor = sessions.cursor();
        sessions.shutdown(Duration::ZERO).await;
        drop(sessions);

        // Even without the list, numbers are not used again.
        std::fs::remove_file(home.path().join("sessions.json")).unwrap();
        for id in 1..=last.0 {
            let _ = std::fs::remove_dir_all(home.session_file(SessionId(id), ""));
        }
        let sessions = home.reopen().await;
        let next = sessions.launch(shell("true")).await.unwrap().id;
        assert!(next > gone, "{next}");
        assert!(sessions.cursor() > to && cursor > to);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn w40_finished_sessions_go_when_they_are_old() {
    timed(async {
        let home = Home::new();
        let sessions = home.open().await;
        let id = sessions.launch(shell("echo x")).await.unwrap().id;
        wait_for_end(&sessions, id).await;
        sessions.shutdown(Duration::ZERO).await;
        drop(sessions);
        let home = home.with(Options {
            keep_finished_for: Duration::ZERO,
            ..Options::default()
        });
        let sessions = home.reopen().await;
        while !sessions.list().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_removed_concerns_nobody_else() {
    timed(async {
        let home = Home::new();
        let sessions = home.open().await;
        let script = "echo one; read x; echo $x; exit 3";
        let id = sessions.launch(shell(script)).await.unwrap().id;
        let other = sessions.launch(shell(script)).await.unwrap().id;
        wait_for_output(&sessions, id, "one").await;
        std::fs::remove_dir_all(home.session_file(id, "")).unwrap();
        // It goes on, with its output, until its end.
        let mut reader = sessions.reader(id, From::Start).unwrap();
        sessions.input(id, "two\n".into()).await.unwrap();
        sessions.attach(id).unwrap();
        let mut all = Vec::new();
        let status = loop {
            match reader.next().await.unwrap() {
                Chunk::Bytes { bytes, .. } => all.extend_from_slice(&bytes),
                Chunk::End { status, .. } => break status,
                Chunk::Gap { .. } => panic!("a gap"),
            }
        };
        assert_eq!(all, b"one\r\ntwo\r\ntwo\r\n");
        assert_eq!(status.to_string(), "completed (3)");
        // Then what it wrote is gone, and it says so.
        let mut late = sessions.reader(id, From::Start).unwrap();
        assert_eq!(late.next().await.unwrap_err().code(), "io");

        sessions.input(other, "x\n".into()).await.unwrap();
        let (output, _) = read_to_end(&sessions, other).await;
        assert_eq!(output, b"one\r\nx\r\nx\r\n");
        std::fs::remove_dir_all(home.path().join("sessions")).unwrap();
        let next = sessions.launch(shell("echo fine")).await.unwrap().id;
        assert_eq!(read_to_end(&sessions, next).await.0, b"fine\r\n");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_knows_when_what_came() {
    timed(async {
        let home = Home::new();
        let sessions = home.open().await;
        let mut spec = shell("echo one; read x; echo two; read x");
        spec.size = Size { cols: 90, rows: 33 };
        let id = sessions.launch(spec).await.unwrap().id;
        wait_for_output(&sessions, id, "one").await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let later = since.as_millis() as u64;
        let size = Size { cols: 50, rows: 10 };
        sessions.resize(id, size).unwrap();
        sessions.input(id, "\n".into()).await.unwrap();
        wait_for_output(&sessions, id, "two").await;
        for _ in 0..2 {
            let mut recording = sessions.recording(id).unwrap();
            assert_eq!(recording.size(), Size { cols: 90, rows: 33 });
            let mut all = Vec::new();
            let mut last = recording.started_ms();
            let mut resized = false;
            while let Some(played) = recording.next().await.unwrap() {
                let (Played::Output { at_ms, .. } | Played::Resize { at_ms, .. }) = played;
                assert!(at_ms >= last);
                last = at_ms;
                match played {
                    Played::Resize { size: to, .. } => {
                        assert_eq!(to, size);
                        assert_eq!(all, b"one\r\n");
                        resized = true;
                    }
                    Played::Output { bytes, .. } => {
                        assert_eq!(at_ms >= later, resized, "{bytes:?}");
                        all.extend_from_slice(&bytes);
                    }
                }
            }
            assert!(resized);
            assert_eq!(all, b"one\r\n\r\ntwo\r\n");
            if sessions.find(&id.into()).unwrap().status.is_running() {
                // The same of one that has ended.
                sessions.kill(id, Duration::ZERO).await.unwrap();
            }
        }
    })
    .await;
}
