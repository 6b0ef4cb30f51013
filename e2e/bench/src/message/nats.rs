//! NATS by its text protocol. A message is published with a reply subject; the acknowledgement
//! of JetStream comes there when the message is stored.

use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::server::{Line, Running};

fn config(dir: &Path, port: u16, always: bool) -> String {
    let sync = if always {
        ", sync_interval: always"
    } else {
        ""
    };
    let store = dir.join("store");
    format!("listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: {store:?}{sync} }}\n")
}

/// Whether this version can be told to sync every message (2.10 and later).
pub fn can_sync(program: &Path) -> bool {
    let tried = || -> Result<bool> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("nats.conf");
        std::fs::write(&path, config(dir.path(), 4222, true))?;
        let said = Command::new(program)
            .arg("-t")
            .arg("-c")
            .arg(&path)
            .output()?;
        Ok(said.status.success())
    };
    tried().unwrap_or(false)
}

/// The command that serves.
pub fn command(program: &Path, dir: &Path, port: u16, always: bool) -> Result<Command> {
    let path = dir.join("nats.conf");
    std::fs::write(&path, config(dir, port, always))?;
    let mut command = Command::new(program);
    command.arg("-c").arg(path);
    Ok(command)
}

/// The first words on a connection.
pub fn greet(line: &mut Line) -> Result<()> {
    ensure!(read_line(line)?.starts_with("INFO "), "not NATS");
    line.write_all(b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\nPING\r\n")?;
    ensure!(read_line(line)? == "PONG", "NATS does not answer");
    Ok(())
}

/// Creates the stream of all messages.
pub fn prepare(line: &mut Line) -> Result<()> {
    let stream = r#"{"name":"M","subjects":["m.*"],"storage":"file","num_replicas":1}"#;
    let said = api(line, "STREAM.CREATE.M", stream)?;
    ensure!(
        said.contains("stream_create_response") && !said.contains("\"error\""),
        "{said}"
    );
    Ok(())
}

/// Asks the server something.
pub fn api(line: &mut Line, subject: &str, json: &str) -> Result<String> {
    line.write_all(b"SUB _INBOX.api 9\r\nUNSUB 9 1\r\n")?;
    publish(line, &format!("$JS.API.{subject}"), "_INBOX.api", json)?;
    next(line)
}

/// Publishes, with a subject for the answer.
pub fn publish(line: &mut Line, subject: &str, reply: &str, body: &str) -> Result<()> {
    let length = body.len();
    let text = format!("PUB {subject} {reply} {length}\r\n{body}\r\n");
    Ok(line.write_all(text.as_bytes())?)
}

/// The next message on this connection.
pub fn next(line: &mut Line) -> Result<String> {
    loop {
        let head = read_line(line)?;
        if head == "PING" {
            line.write_all(b"PONG\r\n")?;
            continue;
        }
        ensure!(head.starts_with("MSG "), "NATS says {head}");
        let length = head.rsplit(' ').next().context("no length")?;
        let mut body = vec![0; length.parse::<usize>()? + 2];
        line.read_exact(&mut body)?;
        body.truncate(body.len() - 2);
        return Ok(String::from_utf8(body)?);
    }
}

fn read_line(line: &mut Line) -> Result<String> {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n") {
        ensure!(text.len() < 1 << 16, "a line without an end");
        let mut byte = [0];
        line.read_exact(&mut byte)?;
        text.push(byte[0]);
    }
    text.truncate(text.len() - 2);
    Ok(String::from_utf8(text)?)
}

/// Where the acknowledgements of a sender come.
pub fn listen(line: &mut Line, sender: usize) -> Result<()> {
    Ok(line.write_all(format!("SUB _INBOX.s{sender} 1\r\n").as_bytes())?)
}

/// A message to a recipient.
pub fn message(recipient: usize, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("PUB m.{recipient} _INBOX.s{recipient} {length}\r\n{body}\r\n").into_bytes()
}

/// Takes whole acknowledgements off what was heard, and counts them.
pub fn acknowledged(heard: &mut Vec<u8>, line: &mut Line) -> Result<usize> {
    let (mut at, mut count) = (0, 0);
    while let Some(end) = memchr::memmem::find(&heard[at..], b"\r\n") {
        let head = &heard[at..at + end];
        let body = at + end + 2;
        if head == b"PING" {
            line.write_all(b"PONG\r\n")?;
            at = body;
            continue;
        }
        ensure!(
            head.starts_with(b"MSG "),
            "NATS says {}",
            String::from_utf8_lossy(head)
        );
        let length = head.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
        let length: usize = std::str::from_utf8(length)?.parse()?;
        let Some(text) = heard.get(body..body + length + 2) else {
            break;
        };
        if !text.starts_with(br#"{"stream":"M""#) {
            bail!("NATS says {}", String::from_utf8_lossy(text));
        }
        at = body + length + 2;
        count += 1;
    }
    heard.drain(..at);
    Ok(count)
}

/// Messages in the stream.
pub fn stored(running: &Running) -> Result<usize> {
    let said = api(&mut running.connect()?, "STREAM.INFO.M", "")?;
    let (_, rest) = said.split_once("\"messages\":").context("no count")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Ok(digits.parse()?)
}
