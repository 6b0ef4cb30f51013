//! A stored request to its stored reply.

use std::io::Write;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use super::server::{Kind, Line, Running, Server};
use super::{cw, nats, redis};
use crate::report::Samples;

/// Asks so many times, and returns the times.
type Ask = fn(&Running, usize) -> Result<Samples>;
/// Answers so many times: by one line it hears, by the other it says.
type Answer = fn(Line, Line, usize) -> Result<()>;

/// Starts a server, asks so many times, and returns the times; the first tenth warms up.
pub fn run(server: &Server, times: usize) -> Result<Samples> {
    let running = server.start(1)?;
    let (ask, answer): (Ask, Answer) = match running.kind {
        Kind::Cw => (ask_cw, answer_cw),
        Kind::Nats => (ask_nats, answer_nats),
        Kind::Redis => (ask_redis, answer_redis),
    };
    let warm = times / 10;
    let (mut hears, says) = (running.connect()?, running.connect()?);
    // It listens before the first is asked.
    match running.kind {
        Kind::Cw => {
            cw::say(&mut hears, r#"{"type":"MsgListen","name":"s0","since":0}"#)?;
            let said = cw::hear(&mut hears)?;
            ensure!(said.contains("MsgListenAck"), "{said}");
        }
        Kind::Nats => consume(&mut hears, "m.q", "d.q")?,
        Kind::Redis => {}
    }
    let total = times + warm;
    let answers = std::thread::spawn(move || answer(hears, says, total));
    let measured = ask(&running, total);
    if measured.is_err() {
        drop(running);
        let answered = answers
            .join()
            .ok()
            .context("the answering thread is gone")?;
        answered?;
        return measured;
    }
    answers
        .join()
        .ok()
        .context("the answering thread is gone")??;
    let mut samples = Samples::default();
    let measured = measured?;
    for time in measured.values().iter().skip(warm) {
        samples.number(*time);
    }
    Ok(samples)
}

fn ask_cw(running: &Running, times: usize) -> Result<Samples> {
    let mut line = running.connect()?;
    let mut samples = Samples::default();
    for _ in 0..times {
        let start = Instant::now();
        cw::say(
            &mut line,
            r#"{"type":"MsgRequest","to_name":"s0","body":"ready?"}"#,
        )?;
        let said = cw::hear(&mut line)?;
        samples.time(start.elapsed());
        ensure!(said.contains(r#""reply_body":"yes""#), "cw says {said}");
    }
    Ok(samples)
}

fn answer_cw(mut hears: Line, mut says: Line, times: usize) -> Result<()> {
    let mut answered = 0;
    while answered < times {
        let said = cw::hear(&mut hears)?;
        if !said.contains(r#""type":"message.request""#) {
            continue;
        }
        let (_, rest) = said
            .split_once("\"req_")
            .context("a request without an id")?;
        let (id, _) = rest.split_once('"').context("an id without an end")?;
        let reply = format!(
            r#"{{"type":"MsgReply","request_id":"req_{id}","body":"yes","from_name":"s0"}}"#
        );
        cw::say(&mut says, &reply)?;
        let said = cw::hear(&mut says)?;
        ensure!(said.contains("MsgReplySent"), "cw says {said}");
        answered += 1;
    }
    Ok(())
}

/// A push consumer of a subject of the stream, from its beginning.
fn consume(line: &mut Line, subject: &str, to: &str) -> Result<()> {
    line.write_all(format!("SUB {to} 2\r\n").as_bytes())?;
    let wanted = format!(
        r#"{{"stream_name":"M","config":{{"deliver_subject":"{to}","deliver_policy":"all","ack_policy":"none","filter_subject":"{subject}"}}}}"#
    );
    let said = nats::api(line, "CONSUMER.CREATE.M", &wanted)?;
    ensure!(!said.contains("\"error\""), "{said}");
    Ok(())
}

fn ask_nats(running: &Running, times: usize) -> Result<Samples> {
    let mut line = running.connect()?;
    consume(&mut line, "m.r", "d.r")?;
    let mut samples = Samples::default();
    for number in 0..times {
        let start = Instant::now();
        nats::publish(&mut line, "m.q", "_INBOX.nobody", &number.to_string())?;
        let said = nats::next(&mut line)?;
        samples.time(start.elapsed());
        ensure!(said == number.to_string(), "NATS says {said}");
    }
    Ok(samples)
}

fn answer_nats(mut hears: Line, mut says: Line, times: usize) -> Result<()> {
    for _ in 0..times {
        let asked = nats::next(&mut hears)?;
        nats::publish(&mut says, "m.r", "_INBOX.nobody", &asked)?;
    }
    Ok(())
}

fn ask_redis(running: &Running, times: usize) -> Result<Samples> {
    let mut line = running.connect()?;
    let mut samples = Samples::default();
    let mut last = "0".to_owned();
    for number in 0..times {
        let start = Instant::now();
        let number = number.to_string();
        let mut both = redis::encode(&["XADD", "q", "*", "b", &number]);
        both.extend(redis::encode(&[
            "XREAD", "BLOCK", "60000", "STREAMS", "r", &last,
        ]));
        line.write_all(&both)?;
        redis::value(&mut line)?;
        let said = redis::value(&mut line)?;
        samples.time(start.elapsed());
        let [_, id, _, body] = &said[..] else {
            anyhow::bail!("Redis says {said:?}");
        };
        ensure!(*body == number, "Redis says {said:?}");
        last.clone_from(id);
    }
    Ok(samples)
}

fn answer_redis(mut hears: Line, mut says: Line, times: usize) -> Result<()> {
    let mut last = "0".to_owned();
    for _ in 0..times {
        hears.write_all(&redis::encode(&[
            "XREAD", "BLOCK", "60000", "STREAMS", "q", &last,
        ]))?;
        let said = redis::value(&mut hears)?;
        let [_, id, _, body] = &said[..] else {
            anyhow::bail!("Redis says {said:?}");
        };
        last.clone_from(id);
        says.write_all(&redis::encode(&["XADD", "r", "*", "b", body]))?;
        redis::value(&mut says)?;
    }
    Ok(())
}
