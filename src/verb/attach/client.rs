//! The client's half of `cw attach`: raw mode, keys out, bytes in, and everything put back.
//!
//! When the connection is lost the terminal stays as it is, and the client goes on from the byte
//! where it was as soon as the node is back; keys that are typed meanwhile are sent then.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Attach, Resize};
use crate::cli::Cli;
use crate::error::{Error, Result};
use crate::locator::{Locator, Session};
use crate::rpc::{Channel, Incoming, Receiver, Sender};
use crate::term::{Detach, Keyboard, RawMode, Screen, size};
use crate::verb::again::{Patience, until_done};
use crate::verb::list::List;
use crate::verb::status::Status;
use crate::verb::{Call, Reply};

/// How long a node may take to confirm that it was let go.
const LET_GO: Duration = Duration::from_secs(5);

/// How an attachment ended.
enum End {
    Detached,
    Exited(String),
}

/// What outlives a lost connection.
struct Client {
    call: Attach,
    keys: Keys,
    /// Bytes of the repaint that are still to come.
    repaint: u64,
    /// Raw mode, once attached; dropping it restores the terminal.
    mode: Option<RawMode>,
}

impl Attach {
    pub(crate) async fn run(mut self, cli: &Cli) -> Result<()> {
        if self.target == Locator::default() {
            self.target = free(cli, self.target.node).await?;
        }
        let name = self.target.to_string();
        if cli.server.is_none() {
            self.ssh_auth_sock = std::env::var("SSH_AUTH_SOCK").ok();
        }
        // Found out before anything is shown.
        RawMode::check()?;
        let mut client = Client {
            keys: Keys::new(self.read_only)?,
            call: self,
            repaint: 0,
            mode: None,
        };
        let end = until_done(cli, async |channel, patience| {
            client.round(cli, &name, channel, patience).await
        })
        .await;
        let end = match end {
            // It ended while nobody could hear it.
            Err(error) if client.mode.is_some() && error.code == "session_not_running" => {
                ended(cli, &client.call.target).await
            }
            end => end,
        };
        drop(client.mode.take());
        match end? {
            End::Detached => cli.note(&format!("[cw] detached from {name}")),
            End::Exited(status) => cli.note(&format!("[cw] session {status}")),
        }
        Ok(())
    }
}

/// The oldest running session that nobody is attached to.
async fn free(cli: &Cli, node: Option<String>) -> Result<Locator> {
    let list = List {
        node: node.clone(),
        status: "running".to_owned(),
        ..List::default()
    };
    let Reply::SessionList(list) = cli.ask(Call::ListSessions(list)).await? else {
        return Err(Error::internal("no list"));
    };
    let found = list.sessions.iter().find(|info| !info.attached);
    let info = found.ok_or_else(|| {
        Error::new(
            "session_not_found",
            "no running unattached sessions available",
        )
    })?;
    Ok(Locator {
        node,
        session: Session::Id(info.id),
    })
}

/// How a session ended.
async fn ended(cli: &Cli, target: &Locator) -> Result<End> {
    let call = Status {
        target: target.clone(),
        json: false,
    };
    match cli.ask(Call::GetStatus(call)).await? {
        Reply::SessionStatus(status) => Ok(End::Exited(status.info.status)),
        other => Err(other.unexpected()),
    }
}

impl Client {
    /// One connection.
    async fn round(
        &mut self,
        cli: &Cli,
        name: &str,
        mut channel: Channel,
        patience: &mut Patience,
    ) -> Result<End> {
        self.call.size = size().map(|(cols, rows)| Resize { cols, rows });
        channel
            .sender
            .send(&Call::Attach(self.call.clone()))
            .await?;
        let attached = match channel.receiver.next::<Reply>().await? {
            Some(Incoming::Control(Reply::Attached(attached))) => attached,
            Some(Incoming::Control(other)) => return Err(other.unexpected()),
            _ => return Err(Error::new("connection_lost", "connection lost")),
        };
        patience.heard();
        if self.mode.is_none() {
            let only = if self.call.read_only {
                ", to look only"
            } else {
                ""
            };
            cli.note(&format!(
                "[cw] attached to {name}{only}; Ctrl+B d lets it go"
            ));
            self.mode = Some(RawMode::enter()?);
        }
        self.call.resume = Some(attached.offset);
        self.repaint = attached.repaint;
        let Channel {
            mut receiver,
            mut sender,
        } = channel;
        let (seen, repaint) = (&mut self.call.resume, &mut self.repaint);
        // Letting go is the node's to confirm, so the keys do not end the loop before the last bytes.
        tokio::select! {
            // First what has come: a connection that is over takes no keys.
            biased;
            end = show(&mut receiver, seen, repaint, patience) => end,
            end = self.keys.forward_all(&mut sender) => end,
        }
    }
}

/// Shows what comes until the end, and counts how far that is.
async fn show(
    receiver: &mut Receiver,
    seen: &mut Option<u64>,
    repaint: &mut u64,
    patience: &mut Patience,
) -> Result<End> {
    let mut out = Screen::new();
    loop {
        match receiver.next::<Reply>().await? {
            Some(Incoming::Data(bytes)) => {
                out.show(&bytes).await?;
                patience.heard();
                let painted = (*repaint).min(bytes.len() as u64);
                *repaint -= painted;
                *seen = seen.map(|seen| seen + bytes.len() as u64 - painted);
            }
            Some(Incoming::Control(Reply::Repainted(skipped))) => {
                *seen = Some(skipped.offset);
                *repaint = skipped.repaint;
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
}

/// The user's keyboard.
struct Keys {
    input: Keyboard,
    resized: Signal,
    detach: Detach,
    /// Keys that were typed and could not be sent.
    pending: Vec<u8>,
    /// Keys do nothing but let go.
    read_only: bool,
    /// The chord was typed; only the node's word is awaited.
    done: bool,
}

impl Keys {
    fn new(read_only: bool) -> Result<Self> {
        Ok(Self {
            input: Keyboard::new(),
            resized: signal(SignalKind::window_change())?,
            detach: Detach::default(),
            pending: Vec::new(),
            read_only,
            done: false,
        })
    }

    /// Sends keys and sizes until something fails; after the detach chord it waits to be ended by
    /// the node, but not for ever: it may hang, and the user has the terminal back all the same.
    async fn forward_all(&mut self, sender: &mut Sender) -> Result<End> {
        loop {
            self.send(sender).await?;
            if self.done {
                tokio::time::sleep(LET_GO).await;
                return Ok(End::Detached);
            }
            self.take(sender).await?;
        }
    }

    /// Sends what was typed.
    async fn send(&mut self, sender: &mut Sender) -> Result<()> {
        if !self.pending.is_empty() {
            sender.send_data(&self.pending).await?;
            self.pending.clear();
        }
        if self.done {
            sender.send(&Call::Detach).await?;
        }
        Ok(())
    }

    /// Waits for keys, or another size.
    async fn take(&mut self, sender: &mut Sender) -> Result<()> {
        let mut buffer = [0; 16 * 1024];
        tokio::select! {
            read = self.input.read(&mut buffer) => {
                let count = read?;
                let typed = self.detach.feed(&buffer[..count]);
                self.done = typed.detach || count == 0;
                if !self.read_only {
                    self.pending.extend(typed.bytes);
                }
            }
            _ = self.resized.recv() => {
                if let Some((cols, rows)) = size() {
                    sender.send(&Call::Resize(Resize { cols, rows })).await?;
                }
            }
        }
        Ok(())
    }
}
