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

/// The most that one call types, in bytes; what is longer belongs into a file.
const INPUT_MAX: u64 = 8 * 1024 * 1024;

/// Type text into a session, followed by a newline.
#[derive(Args, Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Send {
    /// The session: its name or number, or node:session.
    #[serde(flatten)]
    pub target: Locator,
    /// The text.
    #[serde(skip)]
    pub input: Option<String>,
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
        let mut data = Vec::new();
        if let Some(text) = &self.input {
            data.extend_from_slice(text.as_bytes());
        } else if self.stdin {
            std::io::stdin()
                .take(INPUT_MAX + 1)
                .read_to_end(&mut data)?;
        } else if let Some(path) = &self.file {
            let file = std::fs::File::open(path)
                .map_err(|error| Error::new("not_found", format!("cannot read {path}: {error}")))?;
            file.take(INPUT_MAX + 1).read_to_end(&mut data)?;
        } else {
            return Err(Error::new("usage", "no input source specified")
                .hint("give the text, or --stdin, or --file <path>"));
        }
        if !self.no_newline {
            data.push(b'\n');
        }
        let target = self.target.clone();
        self.data = Base64(data);
        match cli.ask(Call::SendInput(self)).await? {
            Reply::InputSent(sent) => {
                cli.note(&format!("Sent {} bytes to session {target}", sent.bytes));
                Ok(())
            }
            other => Err(other.unexpected()),
        }
    }

    pub(crate) async fn handle(self, context: &mut Context<'_>) -> Result<Reply> {
        if self.data.0.len() as u64 > INPUT_MAX + 1 {
            return Err(Error::new(
                "body_too_large",
                format!("at most {INPUT_MAX} bytes can be sent at once"),
            ));
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
