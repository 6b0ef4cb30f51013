//! Keeper and node as processes that tests can kill.
//!
//! `keeper DIR` and `adopt DIR` are keepers of a directory; `adopt-only DIR` is
//! one for a node that lives in a test. `node DIR` serves `DIR/control`, a Unix
//! socket: a JSON array of words a line, a JSON object back, one connection for
//! each call.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};
use session::io::{LaunchSpec, Options, Sessions, keeper};
use session::{Error, Info, Party, SessionId, SessionRef, Size};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [role, dir] = arguments.as_slice() else {
        return ExitCode::from(2);
    };
    let dir = PathBuf::from(dir);
    let ended = match role.to_str() {
        Some("keeper") => keeper::run(&dir, &me("node", &dir)),
        Some("adopt") => keeper::adopt(&dir, &me("node", &dir)),
        Some("adopt-only") => keeper::adopt(&dir, &[]),
        Some("node") => node(&dir),
        _ => return ExitCode::from(2),
    };
    ended.unwrap_or_else(|error| {
        let text = format!("{}: {error}\n", error.code());
        let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
        ExitCode::FAILURE
    })
}

fn me(role: &str, dir: &Path) -> Vec<OsString> {
    let me = std::env::current_exe().expect("we have been started");
    vec![me.into(), role.into(), dir.into()]
}

fn node(dir: &Path) -> Result<ExitCode, Error> {
    let link = keeper::Link::from_env()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Error::io("runtime", error))?;
    runtime.block_on(serve(dir, link))
}

async fn serve(dir: &Path, link: keeper::Link) -> Result<ExitCode, Error> {
    let options = Options {
        keeper_argv: me("adopt", dir),
        sync_always: std::env::var_os("TEST_SYNC").is_some(),
        ..Options::default()
    };
    let sessions = Sessions::open(dir.to_owned(), link, options).await?;
    let path = dir.join("control");
    // Only the node that holds the lock gets here.
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).map_err(|error| Error::io("control", error))?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(|error| Error::io("signals", error))?;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    tokio::spawn(answer(sessions.clone(), stream));
                }
            }
            _ = terminate.recv() => {
                sessions.shutdown(Duration::from_secs(1)).await;
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
}

async fn answer(sessions: Sessions, stream: UnixStream) {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    if BufReader::new(read).read_line(&mut line).await.is_err() {
        return;
    }
    let words: Vec<String> = serde_json::from_str(&line).unwrap_or_default();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let said = obey(&sessions, &words).await;
    let said =
        said.unwrap_or_else(|error| json!({"code": error.code(), "error": error.to_string()}));
    // The test may have gone.
    let _ = write.write_all(format!("{said}\n").as_bytes()).await;
}

async fn obey(sessions: &Sessions, words: &[&str]) -> Result<Value, Error> {
    Ok(match words {
        ["pid"] => json!({"pid": std::process::id()}),
        ["list"] => sessions.list().iter().map(describe).collect(),
        ["launch", name, argv @ ..] => {
            let name = Some(*name).filter(|name| !name.is_empty());
            let spec = LaunchSpec {
                argv: argv.iter().map(ToString::to_string).collect(),
                cwd: "/".into(),
                env: vec![("PATH".into(), "/usr/bin:/bin".into())],
                name: name.map(str::parse).transpose()?,
                tags: Vec::new(),
                size: Size::default(),
                input: None,
            };
            describe(&sessions.launch(spec).await?)
        }
        ["upgrade", program] => {
            sessions.upgrade_keeper((*program).into()).await?;
            json!({"upgraded": true})
        }
        ["find", session] => describe(&sessions.find(&session.parse()?)?),
        ["wait", id] => {
            let id = id.parse()?;
            let mut reader = sessions.reader(id, session::io::From::End)?;
            while !matches!(reader.next().await?, session::io::Chunk::End { .. }) {}
            describe(&sessions.find(&SessionRef::Id(id))?)
        }
        ["deliver", to, body] => {
            let message = sessions
                .deliver(&to.parse()?, Party::owner(), (*body).into())
                .await?;
            json!({"id": message.id.to_string()})
        }
        ["request", from, to, body] => {
            let from = sessions.find(&from.parse()?)?;
            let from = Party::local(from.id, from.name);
            let (message, _) = sessions.request(&to.parse()?, from, (*body).into()).await?;
            json!({"id": message.id.to_string()})
        }
        ["reply", request, by, body] => {
            let by: SessionId = by.parse()?;
            let message = sessions.reply(request, Some(by), (*body).into()).await?;
            json!({"id": message.id.to_string()})
        }
        ["inbox", session] => {
            let items = sessions.inbox(&session.parse()?, usize::MAX)?;
            items
                .iter()
                .map(|item| {
                    json!({
                        "id": item.message.id.to_string(),
                        "body": item.message.body,
                        "state": item.state.map(|state| format!("{state:?}")),
                    })
                })
                .collect()
        }
        _ => return Err(Error::Protocol(format!("{words:?}"))),
    })
}

fn describe(info: &Info) -> Value {
    json!({
        "id": info.id,
        "name": info.name,
        "pid": info.pid,
        "status": info.status.to_string(),
        "word": info.status.word(),
        "output_end": info.output_end,
        "output_lines": info.output_lines,
        "pending": info.pending_requests,
        "disk_full": info.disk_full,
        "usage": info.usage.is_some(),
    })
}
