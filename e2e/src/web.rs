//! One HTTP request at a time, as a browser makes it that follows nothing by itself.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::PATIENCE;

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Of the first line.
    pub status: u16,
    /// As they came, the names in small letters.
    pub headers: Vec<(String, String)>,
    /// As text.
    pub body: String,
}

impl Answer {
    /// The first header of that name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// The body as JSON; null for what is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

/// Asks `http://host:port/path`.
///
/// # Panics
///
/// When nobody answers.
#[track_caller]
#[must_use]
pub fn ask(method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    try_ask(method, url, headers, body).unwrap_or_else(|error| panic!("{method} {url}: {error}"))
}

/// The same, for where nobody may answer.
///
/// # Errors
///
/// What the system says.
pub fn try_ask(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> std::io::Result<Answer> {
    let mut bytes = Vec::new();
    send(method, url, headers, body)?.read_to_end(&mut bytes)?;
    parse(&String::from_utf8_lossy(&bytes)).ok_or_else(|| std::io::Error::other("no answer"))
}

/// An answer that goes on and on.
pub struct Stream(TcpStream);

/// Asks for one, and waits for its head.
///
/// # Panics
///
/// When it is not given.
#[track_caller]
#[must_use]
pub fn open(url: &str, headers: &[(&str, &str)]) -> Stream {
    let mut stream = send("GET", url, headers, "").unwrap_or_else(|error| panic!("{url}: {error}"));
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            ended => panic!("{url}: {ended:?} after {}", String::from_utf8_lossy(&head)),
        }
    }
    assert!(
        head.starts_with(b"HTTP/1.1 200 "),
        "{}",
        String::from_utf8_lossy(&head)
    );
    Stream(stream)
}

impl Stream {
    /// Waits for its end.
    ///
    /// # Panics
    ///
    /// When it does not end within `limit`.
    #[track_caller]
    pub fn ends(mut self, limit: Duration) {
        let end = Instant::now() + limit;
        let mut buffer = [0; 4096];
        loop {
            match self.0.read(&mut buffer) {
                Ok(0) => return,
                Ok(_) if Instant::now() < end => {}
                // Cut off is an end, too.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
                other => panic!("it goes on: {other:?}"),
            }
        }
    }
}

fn send(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> std::io::Result<TcpStream> {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let (address, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut request = format!("{method} /{path} HTTP/1.1\r\nconnection: close\r\n");
    let has_host = headers.iter().any(|(name, _)| *name == "host");
    if !has_host {
        request.push_str(&format!("host: {address}\r\n"));
    }
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
    stream.write_all(request.as_bytes())?;
    Ok(stream)
}

fn parse(text: &str) -> Option<Answer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers = lines.filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    });
    Some(Answer {
        status,
        headers: headers.collect(),
        body: body.to_owned(),
    })
}

/// A parameter of a URL's query, its bytes put back.
#[must_use]
pub fn parameter(url: &str, name: &str) -> Option<String> {
    let (_, query) = url.split_once('?')?;
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(key, _)| *key == name)?;
    let mut bytes = Vec::new();
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}
