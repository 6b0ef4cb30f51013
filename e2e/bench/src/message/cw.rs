//! `cw` by its local socket: `[kind u8][length u32, big-endian][JSON]`.

use std::io::{Read, Write};

use anyhow::{Context as _, Result, bail, ensure};

use super::server::{Line, Running};

/// Starts a node and its recipients. The first session is the one that is asked.
pub fn start(running: &Running, always: bool, recipients: usize) -> Result<()> {
    std::fs::create_dir(running.home())?;
    let sync = if always { "always" } else { "group" };
    let config = format!("[node]\nsync = \"{sync}\"\n");
    std::fs::write(running.home().join("config.toml"), config)?;
    for number in 0..recipients {
        let name = format!("s{number}");
        running.cw(&["launch", &name, "--", "sleep", "3600"])?;
    }
    Ok(())
}

/// A frame.
pub fn frame(json: &str) -> Vec<u8> {
    let length = u32::try_from(json.len()).unwrap_or(u32::MAX);
    let mut frame = vec![0];
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(json.as_bytes());
    frame
}

/// A message to a recipient.
pub fn message(recipient: usize, body: &str) -> Vec<u8> {
    let call = format!(r#"{{"type":"MsgSend","to_name":"s{recipient}","body":"{body}"}}"#);
    frame(&call)
}

/// Takes whole acknowledgements off what was heard, and counts them.
pub fn acknowledged(heard: &mut Vec<u8>) -> Result<usize> {
    let (mut at, mut count) = (0, 0);
    while let Some(payload) = whole(&heard[at..]) {
        let text = &heard[at + 5..at + 5 + payload];
        if !text.starts_with(br#"{"type":"MsgSent""#) {
            bail!("cw says {}", String::from_utf8_lossy(text));
        }
        at += 5 + payload;
        count += 1;
    }
    heard.drain(..at);
    Ok(count)
}

/// The length of the payload of a frame that is there as a whole.
fn whole(bytes: &[u8]) -> Option<usize> {
    let (head, rest) = bytes.split_first_chunk::<5>()?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    (rest.len() >= length).then_some(length)
}

/// Messages in the logs of all recipients.
pub fn stored(running: &Running, recipients: usize) -> Result<usize> {
    let mut count = 0;
    for number in 1..=recipients {
        let path = running
            .home()
            .join(format!("sessions/{number}/events.jsonl"));
        let text = std::fs::read(&path).with_context(|| path.display().to_string())?;
        count += memchr::memmem::find_iter(&text, br#""type":"direct.message""#).count();
    }
    Ok(count)
}

/// Sends a call.
pub fn say(line: &mut Line, json: &str) -> Result<()> {
    Ok(line.write_all(&frame(json))?)
}

/// The next answer.
pub fn hear(line: &mut Line) -> Result<String> {
    let mut head = [0; 5];
    line.read_exact(&mut head)?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    ensure!(length <= 1 << 24, "a frame of {length} bytes");
    let mut payload = vec![0; length];
    line.read_exact(&mut payload)?;
    Ok(String::from_utf8(payload)?)
}
