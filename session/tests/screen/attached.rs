//! What a client gets that comes to a real session.

use std::time::Duration;

use session::io::keeper::Link;
use session::io::{Attachment, Chunk, From, LaunchSpec, Options, Sessions};
use session::screen::Screen;
use session::{SessionId, Size};

const PROGRAM: &str = env!("CARGO_BIN_EXE_session-under-test");

/// No step of a test takes longer, even on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(120);

const SIZE: Size = Size { cols: 50, rows: 12 };

struct World {
    _dir: tempfile::TempDir,
    sessions: Sessions,
}

async fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    let keeper_argv = vec![PROGRAM.into(), "adopt-only".into(), home.clone().into()];
    let link = Link::start(&keeper_argv).unwrap();
    let options = Options {
        keeper_argv,
        sync_always: false,
        ..Options::default()
    };
    let sessions = Sessions::open(home, link, options).await.unwrap();
    World {
        _dir: dir,
        sessions,
    }
}

impl World {
    async fn launch(&self, script: &str) -> SessionId {
        let spec = LaunchSpec {
            argv: vec!["/bin/sh".into(), "-c".into(), script.into()],
            cwd: "/".into(),
            env: vec![("PATH".into(), "/usr/bin:/bin".into())],
            name: None,
            tags: Vec::new(),
            size: SIZE,
            input: None,
        };
        self.sessions.launch(spec).await.unwrap().id
    }

    /// Waits until the output contains something.
    async fn wait_for(&self, id: SessionId, wanted: &str) {
        let mut reader = self.sessions.reader(id, From::Start).unwrap();
        let mut all = Vec::new();
        while !String::from_utf8_lossy(&all).contains(wanted) {
            match reader.next().await.unwrap() {
                Chunk::Bytes { bytes, .. } => all.extend_from_slice(&bytes),
                other => panic!("{other:?} instead of {wanted:?}"),
            }
        }
    }

    /// What a terminal shows that has seen all of it.
    async fn whole(&self, id: SessionId, until: u64) -> Screen {
        let mut reader = self.sessions.reader(id, From::Start).unwrap();
        let mut screen = Screen::new(SIZE);
        while reader.offset() < until {
            if let Chunk::Bytes { bytes, offset } = reader.next().await.unwrap() {
                let len = usize::try_from(until - offset).unwrap().min(bytes.len());
                screen.feed(&bytes[..len]);
            }
        }
        screen
    }
}

/// A terminal in use, that gets the repaint and what follows until `end`.
async fn shown(client: &mut Attachment, end: u64) -> Screen {
    let mut screen = Screen::new(SIZE);
    screen.feed(b"what the user did before\r\n$ cw attach\r\n");
    screen.feed(&client.repaint);
    while client.reader.offset() < end {
        if let Chunk::Bytes { bytes, .. } = client.reader.next().await.unwrap() {
            screen.feed(&bytes);
        }
    }
    screen
}

async fn timed(test: impl Future<Output = ()>) {
    tokio::time::timeout(PATIENCE, test)
        .await
        .expect("the test hangs");
}

#[tokio::test(flavor = "multi_thread")]
async fn w23_a_client_that_comes_in_the_middle_sees_what_is_there() {
    timed(async {
        let world = world().await;
        let script = r#"printf '\033]2;busy\007\033[?2004h\033[5;9r\033[?1h'
            i=0; while [ $i -lt 400 ]; do i=$((i+1))
            printf '\033[3%dm%d \033[48;5;%dm more \033[m\033[%d;3H' $((i%8)) $i $i $((i%12))
            done; printf 'all said'; read x"#;
        let id = world.launch(script).await;
        // Clients at every stage of it.
        let mut clients = Vec::new();
        while clients.len() < 20 {
            clients.push(world.sessions.attach(id).unwrap());
            tokio::task::yield_now().await;
        }
        world.wait_for(id, "all said").await;
        clients.push(world.sessions.attach(id).unwrap());
        let end = world.sessions.find(&id.into()).unwrap().output_end;
        let whole = world.whole(id, end).await;
        for client in &mut clients {
            let screen = shown(client, end).await;
            assert_eq!(screen.text(0), whole.text(0));
            assert_eq!(screen.cursor(), whole.cursor());
            assert_eq!(screen.title(), Some("busy"));
            let kept = |screen: &Screen| {
                let all = screen.describe();
                let lines = all.lines().filter(|line| !line.starts_with("above "));
                lines.map(str::to_owned).collect::<Vec<_>>()
            };
            assert_eq!(kept(&screen), kept(&whole));
            // And nothing of the user's is lost.
            let above = screen.text(usize::MAX);
            assert!(above.iter().any(|line| line == "$ cw attach"));
        }
        world.sessions.shutdown(Duration::ZERO).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn w38_much_output_before_does_not_matter() {
    timed(async {
        let world = world().await;
        let script = r"printf '\033]2;long\007\033[?1004h'; yes 'a line that comes again' | head -c 6000000
            printf '\033[1mall said'; read x";
        let id = world.launch(script).await;
        world.wait_for(id, "all said").await;
        let client = world.sessions.attach(id).unwrap();
        assert!(client.repaint.len() < 80 * 1024);
        let mut screen = Screen::new(SIZE);
        screen.feed(&client.repaint);
        assert_eq!(screen.title(), Some("long"));
        assert!(screen.describe().contains("(1004, true)"));
        assert!(screen.text(0).iter().any(|line| line.ends_with("all said")));
        world.sessions.shutdown(Duration::ZERO).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn w02_a_program_alone_gets_answers() {
    timed(async {
        let world = world().await;
        let script = r#"stty raw -echo; printf 'ab\033[6n'
            answer=$(dd bs=1 count=6 2>/dev/null | tr '\033' 'E'); stty sane
            echo "got $answer."; read x"#;
        let id = world.launch(script).await;
        world.wait_for(id, "got E[1;3R.").await;
        world.sessions.shutdown(Duration::ZERO).await;
    })
    .await;
}
