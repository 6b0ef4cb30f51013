//! `cw send <session> [text]`: types into a session without attaching.

use clap::Args;
use serde::{Deserialize, Serialize};
use std::io::Read;

use super::{Call, Reply};
use crate::cli::Cli;
use crate::error::{Error, Result};
use crate::locator::Locator;
use crate::node::Context;
use crate::rpc::codec::Base64;
use crate::term::keys;

/// The most that one call types, in bytes; what is longer belongs into a file.
const INPUT_MAX: u64 = 8 * 1024 * 1024;

/// Type text into a session, followed by a newline.
#[derive(Args, Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Send {
    /// The session: its name or number, or node:session.
    #[arg(add = super::complete::sessions())]
    #[serde(flatten)]
    pub target: Locator,
    /// The text; with --keys the names of keys.
    #[serde(skip)]
    pub input: Vec<String>,
    /// Take the text from standard input.
    #[arg(long, conflicts_with = "input")]
    #[serde(skip)]
    pub stdin: bool,
    /// Take the text from a file.
    #[arg(short, long, value_name = "PATH", conflicts_with_all = ["input", "stdin"])]
    #[serde(skip)]
    pub file: Option<String>,
    /// Without a newline at the end.
    #[arg(short, long)]
    #[serde(skip)]
    pub no_newline: bool,
    /// As a terminal pastes: between the marks that keep the program from taking its lines one by
    /// one; then Enter.
    #[arg(long)]
    #[serde(skip)]
    pub paste: bool,
    /// The words are keys: C-c, Enter, Up, F5, M-x; what is no key is typed as it is. No newline.
    #[arg(short, long, conflicts_with_all = ["stdin", "file", "paste"])]
    #[serde(skip)]
    pub keys: bool,
    /// The bytes to type.
    #[arg(skip)]
    #[serde(default)]
    pub data: Base64,
}

/// The answer.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct InputSent {
    /// How many bytes the session took.
    pub bytes: u64,
}

impl Send {
    pub(crate) async fn run(mut self, cli: &Cli) -> Result<()> {
        self.data = Base64(self.bytes()?);
        let target = self.target.clone();
        match cli.ask(Call::SendInput(self)).await? {
            Reply::InputSent(sent) => {
                cli.note(&format!("Sent {} bytes to session {target}", sent.bytes));
                Ok(())
            }
            other => Err(other.unexpected()),
        }
    }

    /// These bytes.
    pub(crate) const fn bytes_to(target: Locator, data: Vec<u8>) -> Self {
        Self {
            target,
            input: Vec::new(),
            stdin: false,
            file: None,
            no_newline: false,
            paste: false,
            keys: false,
            data: Base64(data),
        }
    }

    fn bytes(&self) -> Result<Vec<u8>> {
        if self.keys {
            return Ok(self
                .input
                .iter()
                .flat_map(|word| keys::bytes(word))
                .collect());
        }
        let mut data = match (&self.file, self.stdin) {
            _ if !self.input.is_empty() => self.input.join(" ").into_bytes(),
            (_, true) => read_input("-")?,
            (Some(path), _) => read_input(path)?,
            (None, false) => {
                return Err(Error::new("usage", "no input source specified")
                    .hint("give the text, or --stdin, or --file <path>"));
            }
        };
        if self.paste {
            // Nothing in the text may end the paste early.
            data.retain(|byte| *byte != 0x1b);
            data.splice(0..0, *b"\x1b[200~");
            data.extend_from_slice(b"\x1b[201~");
        }
        if !self.no_newline {
            data.push(if self.paste { b'\r' } else { b'\n' });
        }
        Ok(data)
    }

    pub(crate) async fn handle(self, context: &mut Context<'_>) -> Result<Reply> {
        if self.data.0.len() as u64 > INPUT_MAX + 1 {
            return Err(too_long());
        }
        let info = super::find(context, &self.target.session)?;
        let bytes = context
            .host
            .sessions
            .input(info.id, self.data.0.into())
            .await?;
        Ok(Reply::InputSent(InputSent {
            bytes: bytes as u64,
        }))
    }
}

fn too_long() -> Error {
    Error::new(
        "body_too_large",
        format!("at most {INPUT_MAX} bytes can be sent at once"),
    )
    .hint("send it in parts, or put it where the program can read it as a file")
}

/// All of a file, or of standard input for `-`.
///
/// # Errors
///
/// `not_found`, or `body_too_large` over 8 MiB.
pub(super) fn read_input(path: &str) -> Result<Vec<u8>> {
    let mut data = Vec::new();
    if path == "-" {
        std::io::stdin()
            .take(INPUT_MAX + 1)
            .read_to_end(&mut data)?;
    } else {
        let read = std::fs::File::open(path)
            .and_then(|file| file.take(INPUT_MAX + 1).read_to_end(&mut data));
        read.map_err(|error| Error::new("not_found", format!("cannot read {path}: {error}")))?;
    }
    if data.len() as u64 > INPUT_MAX {
        return Err(too_long());
    }
    Ok(data)
}
