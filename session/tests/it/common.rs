//! A node in the test's own process, with a keeper beside it.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use session::io::keeper::Link;
use session::io::{Chunk, From, LaunchSpec, Notice, Options, Sessions, Subscription};
use session::{Event, Info, SessionId, Size, Status};

/// The keeper and node of `tests/support`.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_session-under-test");

/// No step of a test takes longer, even on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A directory of its own, gone at the end.
pub(crate) struct Home {
    dir: tempfile::TempDir,
    sync_always: bool,
    options: Options,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            sync_always: false,
            options: Options::default(),
        }
    }

    pub(crate) fn synced(mut self) -> Self {
        self.sync_always = true;
        self
    }

    /// With other limits.
    pub(crate) fn with(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    pub(crate) fn session_file(&self, id: SessionId, name: &str) -> PathBuf {
        self.path().join("sessions").join(id.to_string()).join(name)
    }

    pub(crate) async fn open(&self) -> Sessions {
        self.try_open().await.unwrap()
    }

    /// Opens the directory again after the former keeper, which had the lock,
    /// has ended.
    pub(crate) async fn reopen(&self) -> Sessions {
        loop {
            match self.try_open().await {
                Ok(sessions) => return sessions,
                Err(error) if error.code() == "locked" => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub(crate) async fn try_open(&self) -> Result<Sessions, session::Error> {
        let keeper_argv = vec![PROGRAM.into(), "adopt-only".into(), self.path().into()];
        let link = Link::start(&keeper_argv)?;
        let options = Options {
            keeper_argv,
            sync_always: self.sync_always,
            ..self.options.clone()
        };
        Sessions::open(self.path(), link, options).await
    }
}

/// A shell command to launch.
pub(crate) fn shell(script: &str) -> LaunchSpec {
    LaunchSpec {
        argv: vec!["/bin/sh".into(), "-c".into(), script.into()],
        cwd: "/".into(),
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        name: None,
        tags: Vec::new(),
        size: Size::default(),
        input: None,
    }
}

/// The same with a name.
pub(crate) fn named(name: &str, script: &str) -> LaunchSpec {
    LaunchSpec {
        name: Some(name.parse().unwrap()),
        ..shell(script)
    }
}

/// A test that ends.
pub(crate) async fn timed<T>(test: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, test)
        .await
        .expect("the test hangs")
}

/// All output up to the end, and the status that came with it.
pub(crate) async fn read_to_end(sessions: &Sessions, id: SessionId) -> (Vec<u8>, Status) {
    let mut reader = sessions.reader(id, From::Start).unwrap();
    let mut all = Vec::new();
    loop {
        match reader.next().await.unwrap() {
            Chunk::Bytes { offset, bytes } => {
                assert_eq!(offset, all.len() as u64);
                all.extend_from_slice(&bytes);
            }
            Chunk::Gap { .. } => panic!("a gap"),
            Chunk::End { offset, status } => {
                assert_eq!(offset, all.len() as u64);
                return (all, status);
            }
        }
    }
}

/// Waits until the output contains something.
pub(crate) async fn wait_for_output(sessions: &Sessions, id: SessionId, wanted: &str) -> String {
    let mut reader = sessions.reader(id, From::Start).unwrap();
    let mut all = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&all).into_owned();
        if text.contains(wanted) {
            return text;
        }
        match reader.next().await.unwrap() {
            Chunk::Bytes { bytes, .. } => all.extend_from_slice(&bytes),
            other => panic!("{other:?} after {text:?}, without {wanted:?}"),
        }
    }
}

/// The session when it has ended.
pub(crate) async fn wait_for_end(sessions: &Sessions, id: SessionId) -> Info {
    let mut reader = sessions.reader(id, From::End).unwrap();
    while !matches!(reader.next().await.unwrap(), Chunk::End { .. }) {}
    sessions.find(&id.into()).unwrap()
}

/// The same without what the file system knows only roughly.
pub(crate) fn roughly(mut info: Info) -> Info {
    info.last_output_ms = None;
    info
}

/// The next event; none may be missed.
pub(crate) async fn next_event(events: &mut Subscription) -> Event {
    match events.next().await {
        Some(Notice::Event(event)) => *event,
        other => panic!("{other:?}"),
    }
}
