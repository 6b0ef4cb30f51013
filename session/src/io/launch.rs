//! Launching: what is checked, in which order things become true, and how a
//! launch that fails leaves nothing behind.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::{block_in_place, spawn_blocking};

use super::LaunchSpec;
use super::desk::{Desk, session_dir};
use super::disk;
use super::inner::Inner;
use super::keeper::NODE_ENV;
use super::keeper::proto::Spawn;
use super::news::Pointer;
use super::terminal::QUEUE;
use super::unix_ms_now;
use crate::{Created, Error, EventKind, Info, SessionId};

impl Inner {
    /// Starts a program. Runs to its end even when nobody waits for it.
    pub(super) async fn launch(self: Arc<Self>, spec: LaunchSpec) -> Result<Info, Error> {
        self.check_open()?;
        // A path may lead to a disk that does not answer.
        let spec = match Handle::current().runtime_flavor() {
            RuntimeFlavor::MultiThread => block_in_place(|| check(&spec)).map(|()| spec),
            _ => {
                let checked = spawn_blocking(move || check(&spec).map(|()| spec));
                checked.await.map_err(|_| Error::ShuttingDown)?
            }
        }?;

        let (desk, flush, pointer) = self.prepare(&spec)?;
        let id = desk.id;
        let started = async {
            self.flusher.acknowledge(flush).await;
            let (pid, fds) = self.client.spawn(order(id, &spec)).await?;
            self.serve(&desk, pid, fds)
        };
        let terminal = match started.await {
            Ok(terminal) => terminal,
            Err(error) => {
                self.undo(id);
                self.news.take_back(pointer.cursor);
                return Err(error);
            }
        };
        self.engine.lock().handle_started(id);
        self.tell(pointer);
        self.changed.notify_one();
        if let Some(input) = spec.input {
            let bytes = input.len() as u64;
            terminal.first_input(input)?;
            let source = "launch".to_owned();
            self.note(id, EventKind::Input { source, bytes });
        }
        self.info(id)
    }

    /// Takes a number and a name and writes the first event: if we die now, the
    /// next node knows what the keeper holds, or that it never ran.
    fn prepare(&self, spec: &LaunchSpec) -> Result<(Arc<Desk>, u64, Pointer), Error> {
        let created = Created {
            command: spec.argv.clone(),
            working_dir: spec.cwd.to_string_lossy().into_owned(),
            tags: spec.tags.clone(),
            name: spec.name.clone(),
            size: spec.size.at_least_one(),
        };
        let mut engine = self.engine.lock();
        let event = engine.handle_launch(created, unix_ms_now())?;
        let id = event.session;
        let dir = session_dir(&self.dir, id);
        let written = (|| {
            disk::create_dir(&dir)?;
            let desk = Arc::new(Desk::new(id, &dir, self.limits.log_cap, 0, None)?);
            desk.set_size(spec.size);
            // Before the program is: its output must have a place.
            desk.log.writer()?;
            self.desks.write().insert(id, Arc::clone(&desk));
            let (flush, pointer, _) = self.write_quietly(&mut engine, event)?;
            // What happens meanwhile is told after this, if it comes to be.
            self.news.hold_back(pointer.cursor);
            Ok((desk, flush, pointer))
        })();
        drop(engine);
        if written.is_err() {
            self.undo(id);
        }
        let (desk, mut flush, pointer) = written?;
        // The names of new files are kept by the disk only with their directory.
        if let Ok(dir) = std::fs::File::open(&dir) {
            self.flusher.mark(&Arc::new(dir));
        }
        flush = flush.max(self.flusher.mark(&self.sessions_dir));
        Ok((desk, flush, pointer))
    }

    fn undo(&self, id: SessionId) {
        // A program that runs after all loses its terminal, and hears SIGHUP.
        self.client.forget(id);
        self.engine.lock().handle_launch_failed(id);
        self.desks.write().remove(&id);
        let dir = session_dir(&self.dir, id);
        if let Err(error) = std::fs::remove_dir_all(&dir) {
            tracing::warn!(%error, session = %id, "a failed launch leaves files behind");
        }
    }
}

/// Refuses what cannot work, with a reason better than the system's.
fn check(spec: &LaunchSpec) -> Result<(), Error> {
    let Some(program) = spec.argv.first().filter(|program| !program.is_empty()) else {
        return Err(Error::CommandInvalid("no program"));
    };
    if spec.argv.iter().any(|argument| argument.contains('\0')) {
        return Err(Error::CommandInvalid("an argument contains a NUL byte"));
    }
    let legal = |(name, value): &(String, String)| {
        !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0')
    };
    if !spec.env.iter().all(legal) {
        return Err(Error::CommandInvalid(
            "a variable of the environment has no name, a name with =, or a NUL byte",
        ));
    }
    if spec.input.as_ref().is_some_and(|input| input.len() > QUEUE) {
        return Err(Error::CommandInvalid("more than 1 MiB of input"));
    }
    if spec.cwd.to_str().is_none() || !spec.cwd.is_absolute() || !spec.cwd.is_dir() {
        return Err(Error::DirNotFound(spec.cwd.display().to_string()));
    }
    let path = spec.env.iter().rev().find(|(name, _)| name == "PATH");
    let path = path.map_or("", |(_, value)| value.as_str());
    if candidates(program, path, &spec.cwd).any(|file| is_executable(&file)) {
        Ok(())
    } else {
        Err(Error::CommandNotFound(program.clone()))
    }
}

/// Where a program may be.
fn candidates(program: &str, path: &str, cwd: &Path) -> impl Iterator<Item = PathBuf> {
    let direct = program.contains('/').then(|| cwd.join(program));
    let searched = direct.is_none();
    let dirs: Vec<_> = std::env::split_paths(path).collect();
    let found = dirs
        .into_iter()
        .filter(move |_| searched)
        .map(|dir| cwd.join(dir).join(program))
        .collect::<Vec<_>>();
    direct.into_iter().chain(found)
}

fn is_executable(file: &Path) -> bool {
    file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok()
}

/// What the keeper is told.
fn order(id: SessionId, spec: &LaunchSpec) -> Spawn {
    let mut own = vec![("CW_SESSION_ID", id.to_string())];
    if let Some(name) = &spec.name {
        own.push(("CW_SESSION_NAME", name.to_string()));
    }
    if let Some(tag) = spec.tags.first() {
        own.push(("CW_COHORT_TAG", tag.to_string()));
    }
    let reserved = [
        "CW_SESSION_ID",
        "CW_SESSION_NAME",
        "CW_COHORT_TAG",
        NODE_ENV,
    ];
    let given = spec.env.iter();
    let mut env: Vec<_> = given
        .filter(|(name, _)| !reserved.contains(&name.as_str()))
        .cloned()
        .collect();
    env.extend(
        own.into_iter()
            .map(|(name, value)| (name.to_owned(), value)),
    );
    // A program named by a relative path with a directory is found from cwd.
    let mut argv = spec.argv.clone();
    if argv[0].contains('/') {
        argv[0] = spec.cwd.join(&argv[0]).to_string_lossy().into_owned();
    }
    Spawn {
        id: id.0,
        argv,
        env,
        cwd: spec.cwd.to_string_lossy().into_owned(),
        size: spec.size,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Size;

    fn spec(argv: &[&str]) -> LaunchSpec {
        LaunchSpec {
            argv: argv.iter().map(ToString::to_string).collect(),
            cwd: "/".into(),
            env: vec![("PATH".into(), "/nowhere:/bin:/usr/bin".into())],
            name: None,
            tags: Vec::new(),
            size: Size::default(),
            input: None,
        }
    }

    #[test]
    fn programs_are_found_in_the_path_given_and_from_the_directory_given() {
        check(&spec(&["sh"])).unwrap();
        check(&spec(&["/bin/sh"])).unwrap();
        check(&spec(&["bin/sh"])).unwrap();
        for argv in [
            &["no-such-program"][..],
            &["/bin"],
            &["/etc/passwd"],
            &["./sh"],
        ] {
            let error = check(&spec(argv)).unwrap_err();
            assert_eq!(error.code(), "command_not_found", "{argv:?}");
        }
        let mut no_path = spec(&["sh"]);
        no_path.env.clear();
        assert_eq!(check(&no_path).unwrap_err().code(), "command_not_found");
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for argv in [&[][..], &[""], &["sh", "\0"]] {
            assert_eq!(check(&spec(argv)).unwrap_err().code(), "command_invalid");
        }
        for cwd in ["/no/such/dir", "relative", "/bin/sh"] {
            let mut elsewhere = spec(&["sh"]);
            elsewhere.cwd = cwd.into();
            assert_eq!(check(&elsewhere).unwrap_err().code(), "dir_not_found");
        }
        for name in ["", "A=B", "A\0"] {
            let mut odd = spec(&["sh"]);
            odd.env.push((name.into(), String::new()));
            assert_eq!(check(&odd).unwrap_err().code(), "command_invalid");
        }
    }

    #[test]
    fn the_environment_is_what_was_given_and_our_variables() {
        let mut named = spec(&["bin/sh"]);
        named.env.push(("CW_SESSION_ID".into(), "999".into()));
        named.env.push(("CW_KEEPER_FD".into(), "0".into()));
        named.name = Some("coder".parse().unwrap());
        named.tags = vec!["one".parse().unwrap(), "two".parse().unwrap()];
        let order = order(SessionId(7), &named);
        let env: Vec<_> = order.env.iter().map(|(n, v)| format!("{n}={v}")).collect();
        let expected = [
            "PATH=/nowhere:/bin:/usr/bin",
            "CW_SESSION_ID=7",
            "CW_SESSION_NAME=coder",
            "CW_COHORT_TAG=one",
        ];
        assert_eq!(env, expected);
        assert_eq!(order.argv, ["/bin/sh"]);
    }
}
