//! Directories that are damaged, in use, or full.

use std::process::Command;
use std::time::Duration;

use session::io::Sessions;
use session::{EventType, Outcome, Party, SessionId, SessionRef};

use crate::common::{
    Home, named, read_to_end, roughly, shell, timed, wait_for_end, wait_for_output,
};

async fn close(sessions: Sessions) {
    sessions.shutdown(Duration::ZERO).await;
    drop(sessions);
}

#[tokio::test(flavor = "multi_thread")]
async fn w17_a_directory_has_one_node() {
    timed(async {
        let home = Home::new();
        let sessions = home.open().await;
        let refused = home.try_open().await.unwrap_err();
        assert_eq!(refused.code(), "locked");
        close(sessions).await;
        home.reopen().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn w14_the_snapshot_is_never_needed() {
    timed(async {
        let home = Home::new();
        let sessions = home.open().await;
        let first = sessions.launch(named("coder", "echo hi; exit 3")).await;
        let first = wait_for_end(&sessions, first.unwrap().id).await;
        close(sessions).await;
        let snapshot = home.path().join("sessions.json");
        let text = std::fs::read_to_string(&snapshot).unwrap();
        let list: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(list[0]["name"], "coder");
        assert_eq!(list[0]["prompt"], "/bin/sh -c echo hi; exit 3");
        assert_eq!(list[0]["status"], "completed");
        assert_eq!(list[0]["exit_code"], 3);

        for damage in ["{not json", "", "{\"id\":1}"] {
            std::fs::write(&snapshot, damage).unwrap();
            let sessions = home.reopen().await;
            let list: Vec<_> = sessions.list().into_iter().map(roughly).collect();
            assert_eq!(list, [roughly(first.clone())]);
            let (output, _) = read_to_end(&sessions, first.id).await;
            assert_eq!(output, b"hi\r\n");
            close(sessions).await;
            let names = std::fs::read_dir(home.path()).unwrap();
            let backups = names.filter_map(|entry| {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                name.starts_with("sessions.json.corrupt.").then_some(path)
            });
            let backups: Vec<_> = backups.collect();
            assert_eq!(backups.len(), 1);
            assert_eq!(std::fs::read_to_string(&backups[0]).unwrap(), damage);
            std::fs::remove_file(&backups[0]).unwrap();
        }
        // Numbers are not used again even when the directory is gone.
        std::fs::remove_dir_all(home.path().join("sessions/1")).unwrap();
        let sessions = home.reopen().await;
        assert!(sessions.list().is_empty());
        let next = sessions.launch(shell("true")).await.unwrap().id;
        assert_eq!(next, SessionId(2));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_last_event_is_cut_off_and_noted() {
    timed(async {
        let home = Home::new();
        let sessions = home.open().await;
        let id = sessions.launch(named("coder", "read x")).await.unwrap().id;
        let to = id.into();
        for body in ["one", "two"] {
            sessions
                .deliver(&to, Party::owner(), body.into())
                .await
                .unwrap();
        }
        close(sessions).await;
        let path = home.session_file(id, "events.jsonl");
        let whole = std::fs::read(&path).unwrap();
        let lines: Vec<_> = whole.split_inclusive(|byte| *byte == b'\n').collect();
        let kept = lines[..3].concat();
        std::fs::write(&path, &kept[..kept.len() - 9]).unwrap();

        let sessions = home.reopen().await;
        let inbox = sessions.inbox(&to, 9).unwrap();
        assert_eq!(inbox.len(), 1);
        assert_eq!(inbox[0].message.body, "one");
        // With the end its outcome is lost too.
        let info = sessions.find(&to).unwrap();
        assert_eq!(info.status.outcome(), Some(Outcome::Unknown));
        close(sessions).await;
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(EventType::Restored.as_str()), "{text}");
        let torn = lines[2].len() - 9;
        assert!(text.contains(&format!("\"torn_bytes\":{torn}")), "{text}");
        // Every line is an event again.
        for line in text.lines() {
            serde_json::from_str::<serde_json::Value>(line).unwrap();
        }
        let sessions = home.reopen().await;
        let found = sessions.find(&to).unwrap();
        assert_eq!(roughly(found), roughly(info));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_belong_there_is_left_alone() {
    timed(async {
        let home = Home::new();
        let stray = home.path().join("sessions");
        std::fs::create_dir_all(stray.join("notes")).unwrap();
        std::fs::create_dir_all(stray.join("7")).unwrap();
        std::fs::create_dir_all(stray.join("8")).unwrap();
        std::fs::write(stray.join("8/events.jsonl"), "\0\0\0\n{}\n").unwrap();
        let sessions = home.open().await;
        assert!(sessions.list().is_empty());
        let id = sessions.launch(shell("true")).await.unwrap().id;
        assert_eq!(id, SessionId(9));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn w35_files_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    timed(async {
        let home = Home::new();
        let sessions = home.open().await;
        let id = sessions.launch(shell("echo secret")).await.unwrap().id;
        wait_for_end(&sessions, id).await;
        close(sessions).await;
        let mut seen = 0;
        let mut dirs = vec![home.path()];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                let mode = std::fs::metadata(&path).unwrap().permissions().mode();
                let expected = if path.is_dir() { 0o700 } else { 0o600 };
                assert_eq!(mode & 0o777, expected, "{}", path.display());
                seen += 1;
                if path.is_dir() {
                    dirs.push(path);
                }
            }
        }
        assert_eq!(seen, 7);
    })
    .await;
}

/// A small file system, gone at the end.
struct Tmpfs(std::path::PathBuf);

impl Tmpfs {
    /// Only root may do this; `None` for others.
    fn mount(path: std::path::PathBuf, size: &str) -> Option<Self> {
        std::fs::create_dir_all(&path).unwrap();
        let mounted = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={size},mode=700"),
                "tmpfs",
            ])
            .arg(&path)
            .output();
        mounted.ok()?.status.success().then_some(Self(path))
    }
}

impl Tmpfs {
    fn mount_or_skip(home: &Home) -> Option<Self> {
        use std::io::Write as _;
        let mounted = Self::mount(home.path(), "2m");
        if mounted.is_none() {
            // Not by a macro: what those print of a test that passes is shown to nobody.
            let _ = writeln!(
                std::io::stderr(),
                "\nskipped: a full disk: only root mounts one"
            );
        }
        mounted
    }
}

/// Makes room on the disk of a home.
fn grow(home: &Home, size: &str) {
    let grown = Command::new("mount")
        .args(["-o", &format!("remount,size={size}")])
        .arg(home.path())
        .status();
    assert!(grown.unwrap().success());
}

/// Waits until a program that runs has filled the disk.
async fn until_full(sessions: &Sessions, of: &SessionRef) {
    loop {
        let info = sessions.find(of).unwrap();
        if info.disk_full {
            return;
        }
        assert!(info.status.is_running());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_the_program_and_loses_nothing() {
    timed(async {
        let home = Home::new();
        let Some(_mounted) = Tmpfs::mount_or_skip(&home) else {
            return;
        };
        let sessions = home.open().await;
        let id = sessions.launch(shell("seq 1 300000")).await.unwrap().id;
        let to = id.into();
        // The disk is full before the program has ended.
        until_full(&sessions, &to).await;
        let body = "x".repeat(1000);
        let refused = sessions.deliver(&to, Party::owner(), body.clone()).await;
        let mut error = refused.err();
        while error.is_none() {
            // A page of the journal may still have had room.
            error = sessions
                .deliver(&to, Party::owner(), body.clone())
                .await
                .err();
        }
        assert_eq!(error.unwrap().code(), "disk_full");
        let launch = sessions.launch(shell("true")).await.unwrap_err();
        assert_eq!(launch.code(), "disk_full");
        assert!(sessions.find(&to).unwrap().status.is_running());

        grow(&home, "64m");
        let (output, status) = read_to_end(&sessions, id).await;
        let expected: String = (1..=300_000)
            .map(|number| format!("{number}\r\n"))
            .collect();
        assert!(output == expected.as_bytes());
        assert_eq!(status.outcome(), Some(Outcome::Code(0)));
        assert!(!sessions.find(&to).unwrap().disk_full);
        let next = sessions
            .launch(shell("echo fine; read x"))
            .await
            .unwrap()
            .id;
        wait_for_output(&sessions, next, "fine").await;
        close(sessions).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_sessions_can_be_ended_and_the_node_too() {
    timed(async {
        let home = Home::new();
        let Some(_mounted) = Tmpfs::mount_or_skip(&home) else {
            return;
        };
        let sessions = home.open().await;
        let (one, other) = (shell("seq 1 300000; exec sleep 1000"), shell("exec yes"));
        let id = sessions.launch(one).await.unwrap().id;
        let other = sessions.launch(other).await.unwrap().id.into();
        let to = id.into();
        until_full(&sessions, &to).await;
        // Not even that it is to end can be recorded.
        let mut body = "x".repeat(1000);
        while !body.is_empty() {
            let said = sessions.deliver(&to, Party::owner(), body.clone()).await;
            if said.is_err() {
                body.truncate(body.len() / 2);
            }
        }
        let refused = sessions.kill(id, Duration::ZERO).await.unwrap_err();
        assert_eq!(refused.code(), "disk_full");
        assert!(refused.to_string().contains("is ended"), "{refused}");
        grow(&home, "64m");
        assert!(!wait_for_end(&sessions, id).await.status.is_running());

        // The other one's program has more to say, and nowhere to say it.
        until_full(&sessions, &other).await;
        close(sessions).await;
        grow(&home, "128m");
        let sessions = home.reopen().await;
        let other = sessions.find(&other).unwrap();
        assert!(!other.status.is_running(), "{:?}", other.status);
        close(sessions).await;
    })
    .await;
}
