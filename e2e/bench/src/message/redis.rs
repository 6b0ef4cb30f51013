//! Redis by its protocol: XADD, which is acknowledged with the id of the entry.

use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail, ensure};

use super::server::{Line, Running};

/// The command that serves.
pub fn command(program: &Path, dir: &Path, port: u16, always: bool) -> Command {
    let mut command = Command::new(program);
    let sync = if always { "always" } else { "everysec" };
    command
        .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir"])
        .arg(dir)
        .args(["--save", "", "--appendonly", "yes", "--appendfsync", sync]);
    command
}

/// A command as it is on the wire.
pub fn encode(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
    bytes
}

/// A message to a recipient.
pub fn message(recipient: usize, body: &str) -> Vec<u8> {
    encode(&["XADD", &format!("m{recipient}"), "*", "b", body])
}

/// Takes whole acknowledgements off what was heard, and counts them.
pub fn acknowledged(heard: &mut Vec<u8>) -> Result<usize> {
    let (mut at, mut count) = (0, 0);
    while let Some(end) = memchr::memmem::find(&heard[at..], b"\r\n") {
        let head = &heard[at..at + end];
        if head.first() != Some(&b'$') {
            bail!("Redis says {}", String::from_utf8_lossy(head));
        }
        let length: usize = std::str::from_utf8(&head[1..])?.parse()?;
        let whole = at + end + 2 + length + 2;
        if heard.len() < whole {
            break;
        }
        at = whole;
        count += 1;
    }
    heard.drain(..at);
    Ok(count)
}

/// Messages in all streams.
pub fn stored(running: &Running, recipients: usize) -> Result<usize> {
    let mut line = running.connect()?;
    let mut count = 0;
    for number in 0..recipients {
        line.write_all(&encode(&["XLEN", &format!("m{number}")]))?;
        let said = read_line(&mut line)?;
        count += said.trim_start_matches(':').parse::<usize>()?;
    }
    Ok(count)
}

/// The next line.
pub fn read_line(line: &mut Line) -> Result<String> {
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

/// A whole value: all its strings, in their order.
pub fn value(line: &mut Line) -> Result<Vec<String>> {
    let head = read_line(line)?;
    let (kind, rest) = head.split_at(1);
    match kind {
        "$" => {
            let mut bytes = vec![0; rest.parse::<usize>()? + 2];
            line.read_exact(&mut bytes)?;
            bytes.truncate(bytes.len() - 2);
            Ok(vec![String::from_utf8(bytes)?])
        }
        "*" => {
            let mut all = Vec::new();
            for _ in 0..rest.parse::<i64>()? {
                all.extend(value(line)?);
            }
            Ok(all)
        }
        ":" | "+" => Ok(vec![rest.to_owned()]),
        _ => bail!("Redis says {head}"),
    }
}
