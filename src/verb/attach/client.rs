//! The client's half of `cw attach`: raw mode, keys out, bytes in, and everything put back.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};

use super::{Attach, Resize};
use crate::cli::Cli;
use crate::error::{Error, Result};
use crate::rpc::{Incoming, Sender};
use crate::term::{Detach, RawMode, size};
use crate::verb::{Call, Reply};

/// How an attachment ended.
enum End {
    Detached,
    Exited(String),
}

impl Attach {
    pub(crate) async fn run(mut self, cli: &Cli) -> Result<()> {
        let name = self.target.to_string();
        self.size = size().map(|(cols, rows)| Resize { cols, rows });
        let mut channel = cli.open().await?;
        channel.sender.send(&Call::Attach(self)).await?;
        match channel.receiver.next::<Reply>().await? {
            Some(Incoming::Control(Reply::Attached(_))) => {}
            Some(Incoming::Control(other)) => return Err(other.unexpected()),
            _ => return Err(Error::new("connection_lost", "connection lost")),
        }
        cli.note(&format!("[cw] attached to {name}; Ctrl+B d lets it go"));
        let mode = RawMode::enter()?;
        let end = relay(channel).await;
        drop(mode);
        match end? {
            End::Detached => cli.note(&format!("[cw] detached from {name}")),
            End::Exited(status) => cli.note(&format!("[cw] session {status}")),
        }
        Ok(())
    }
}

async fn relay(channel: crate::rpc::Channel) -> Result<End> {
    let (mut receiver, mut sender) = (channel.receiver, channel.sender);
    let show = async {
        let mut out = tokio::io::stdout();
        loop {
            match receiver.next::<Reply>().await? {
                Some(Incoming::Data(bytes)) => {
                    out.write_all(&bytes).await?;
                    out.flush().await?;
                }
                Some(Incoming::Control(Reply::Exited(exited))) => {
                    return Ok(End::Exited(exited.status));
                }
                Some(Incoming::Control(Reply::Detached(_))) => return Ok(End::Detached),
                Some(Incoming::Control(other)) => return Err(other.unexpected()),
                None => {
                    return Err(Error::new("connection_lost", "connection lost")
                        .hint("the session runs on; attach again"));
                }
            }
        }
    };
    // Letting go is the node's to confirm, so the keys never end the loop before the last bytes.
    tokio::select! {
        end = show => end,
        error = keys(&mut sender) => Err(error),
    }
}

/// Sends keys and sizes until something fails; after the detach chord it waits to be ended.
async fn keys(sender: &mut Sender) -> Error {
    match forward(sender).await {
        Ok(()) => std::future::pending().await,
        Err(error) => error,
    }
}

async fn forward(sender: &mut Sender) -> Result<()> {
    let mut resized = signal(SignalKind::window_change())?;
    let mut input = tokio::io::stdin();
    let mut detach = Detach::default();
    let mut buffer = [0; 16 * 1024];
    loop {
        tokio::select! {
            read = input.read(&mut buffer) => {
                let count = read?;
                let typed = detach.feed(&buffer[..count]);
                if !typed.bytes.is_empty() {
                    sender.send_data(&typed.bytes).await?;
                }
                if typed.detach || count == 0 {
                    return sender.send(&Call::Detach).await;
                }
            }
            _ = resized.recv() => {
                if let Some((cols, rows)) = size() {
                    sender.send(&Call::Resize(Resize { cols, rows })).await?;
                }
            }
        }
    }
}
