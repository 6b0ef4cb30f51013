//! Ending sessions with all that they have started, and knowing what belongs to
//! them.

use std::time::Duration;

use rustix::process::{Pid, test_kill_process};
use session::{Outcome, Status};

use crate::common::{Home, shell, timed, wait_for_end, wait_for_output};

#[tokio::test(flavor = "multi_thread")]
async fn w10_w19_w20_killed_stays_killed_and_takes_the_family_along() {
    timed(async {
        let home = Home::new();
        let sessions = home.open().await;
        // Child and grandchild ignore SIGTERM, one of them in a session of its own.
        let script = "trap 'exit 0' TERM; \
            sh -c 'trap \"\" TERM HUP; echo child $$; \
                   sh -c \"echo grandchild \\$\\$; while :; do sleep 1; done\"' & \
            setsid sh -c 'trap \"\" TERM HUP; echo stray $$; while :; do sleep 1; done' & \
            while :; do wait; done";
        let id = sessions.launch(shell(script)).await.unwrap().id;
        for who in ["child", "grandchild", "stray"] {
            wait_for_output(&sessions, id, &format!("{who} ")).await;
        }
        let text = wait_for_output(&sessions, id, "stray ").await;
        let grace = Duration::from_millis(300);
        let info = sessions.kill(id, grace).await.unwrap();
        assert_eq!(info.status.word(), "killed");
        // It answered SIGTERM with exit code 0; killed it is all the same.
        assert_eq!(info.status.outcome(), Some(Outcome::Code(0)));
        let mut checked = 0;
        for line in text.lines() {
            let Some(pid) = line.split(' ').nth(1).and_then(|pid| pid.parse().ok()) else {
                continue;
            };
            assert!(is_gone(pid), "{line} is still there");
            checked += 1;
        }
        assert!(checked >= 3, "{text}");
        let again = sessions.kill(id, grace).await.unwrap_err();
        assert_eq!(again.code(), "session_not_running");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_ignores_sigterm_hears_sighup() {
    timed(async {
        let home = Home::new();
        let sessions = home.open().await;
        let script = "trap '' TERM; trap 'exit 9' HUP; echo ready; while :; do read x; done";
        let id = sessions.launch(shell(script)).await.unwrap().id;
        wait_for_output(&sessions, id, "ready").await;
        let info = sessions.kill(id, Duration::from_secs(60)).await.unwrap();
        assert_eq!(info.status.outcome(), Some(Outcome::Code(9)));
        // Who handles SIGTERM hears nothing else.
        let script = "trap 'exit 8' TERM; trap 'exit 9' HUP; echo ready; while :; do read x; done";
        let id = sessions.launch(shell(script)).await.unwrap().id;
        wait_for_output(&sessions, id, "ready").await;
        let info = sessions.kill(id, Duration::from_secs(60)).await.unwrap();
        assert_eq!(info.status.outcome(), Some(Outcome::Code(8)));
    })
    .await;
}

/// Gone, or a zombie that nobody collects.
fn is_gone(pid: i32) -> bool {
    let gone = test_kill_process(Pid::from_raw(pid).unwrap()).is_err();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    gone || stat.contains(") Z ") || stat.is_empty()
}

#[tokio::test(flavor = "multi_thread")]
async fn w20_a_program_that_ignores_everything_is_killed_after_the_grace() {
    timed(async {
        let home = Home::new();
        let sessions = home.open().await;
        let script = "trap '' TERM HUP INT; echo ready; while :; do sleep 1; done";
        let id = sessions.launch(shell(script)).await.unwrap().id;
        wait_for_output(&sessions, id, "ready").await;
        // The caller leaves; the end comes all the same.
        let kill = sessions.kill(id, Duration::from_millis(100));
        assert!(
            tokio::time::timeout(Duration::from_millis(20), kill)
                .await
                .is_err()
        );
        let info = wait_for_end(&sessions, id).await;
        let outcome = Outcome::Signal(9);
        let killed = true;
        assert_eq!(info.status, Status::Exited { outcome, killed });
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn w26_processes_are_known_by_their_session() {
    timed(async {
        let home = Home::new();
        let sessions = home.open().await;
        // A child, and an orphan of the same terminal.
        let script =
            "sleep 1000 & echo child $! ; (sleep 1000 & echo orphan $! ) ; echo ready; wait";
        let info = sessions.launch(shell(script)).await.unwrap();
        let text = wait_for_output(&sessions, info.id, "ready").await;
        let leader = info.pid.unwrap();
        let of = |pid| sessions.session_of_pid(pid);
        assert_eq!(of(leader).unwrap(), Some(info.id));
        for line in text.lines().filter(|line| line.contains(' ')) {
            let pid = line.split(' ').nth(1).unwrap().parse().unwrap();
            assert_eq!(of(pid).unwrap(), Some(info.id), "{line}");
        }
        assert_eq!(of(std::process::id()).unwrap(), None);
        let gone = of(u32::MAX).unwrap_err();
        assert_eq!(gone.code(), "caller_unknown");
        sessions
            .kill(info.id, Duration::from_secs(60))
            .await
            .unwrap();
        assert_eq!(of(leader).unwrap_err().code(), "caller_unknown");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_its_terminal_and_parent_is_not_taken_for_the_owner() {
    timed(async {
        let home = Home::new();
        let sessions = home.open().await;
        let script = "(setsid sleep 1000 & echo told $!); \
            (env -u CW_SESSION_ID setsid sleep 1000 & echo untold $!); echo ready; read x";
        let info = sessions.launch(shell(script)).await.unwrap();
        let text = wait_for_output(&sessions, info.id, "ready").await;
        let pid = |word: &str| -> u32 {
            let line = text.lines().find_map(|line| line.strip_prefix(word));
            line.unwrap().trim().parse().unwrap()
        };
        // While it becomes another program it has no environment that could be read.
        let told = format!("/proc/{}/cmdline", pid("told "));
        while std::fs::read(&told).unwrap() != b"sleep\x001000\x00" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(
            sessions.session_of_pid(pid("told ")).unwrap(),
            Some(info.id)
        );
        // Until its parent has ended it is of the session all the same.
        let untold = loop {
            match sessions.session_of_pid(pid("untold ")) {
                Err(error) => break error,
                Ok(of) => assert_eq!(of, Some(info.id)),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        assert_eq!(untold.code(), "caller_unknown");
        let stray = i32::try_from(pid("untold ")).unwrap();
        let stray = Pid::from_raw(stray).unwrap();
        rustix::process::kill_process(stray, rustix::process::Signal::KILL).unwrap();
    })
    .await;
}
