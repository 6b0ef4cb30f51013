//! The client's half of `cw attach`: raw mode, keys out, bytes in, and everything put back.
//!
//! When the connection is lost the terminal stays as it is, and the client goes on from the byte
//! where it was as soon as the node is back; keys that are typed meanwhile are sent then.
//!
//! To the node of this machine the terminal is lent, where that can be ([`crate::term::lend`]):
//! then all that is left to do is to tell its size and to wait for the end.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Attach, Resize};
use crate::cli::Cli;
use crate::error::{Error, Result};
use crate::locator::{Locator, Session};
use crate::rpc::{Channel, Incoming, Receiver, Sender};
use crate::term::lend::Loan;
use crate::term::{Detach, Keyboard, RawMode, Screen, Typed, size};
use crate::verb::again::{Patience, until_done};
use crate::verb::list::List;
use crate::verb::own::own_session;
use crate::verb::status::Status;
use crate::verb::{Call, Reply};

/// How long a node may take to confirm that it was let go.
const LET_GO: Duration = Duration::from_secs(5);

/// Between two looks whether the node reads the keyboard that it was lent. Keys that lie there at
/// two of them show that it hangs.
const LOOK: Duration = Duration::from_secs(3);

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
    /// To lend the terminal to the node of this machine.
    loan: Option<Loan>,
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
            // To another node it would have to be sent by this one.
            loan: match (&cli.server, &self.target.node) {
                (None, None) => Loan::offer(),
                _ => None,
            },
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

/// The oldest running session that nobody is attached to, and that this is not typed in.
async fn free(cli: &Cli, node: Option<String>) -> Result<Locator> {
    let list = List {
        node: node.clone(),
        status: "running".to_owned(),
        ..List::default()
    };
    let Reply::SessionList(list) = cli.ask(Call::ListSessions(list)).await? else {
        return Err(Error::internal("no list"));
    };
    let own = own_session(cli).filter(|_| node.is_none());
    let mut free = list.sessions.iter().filter(|info| !info.attached);
    let found = free.find(|info| Some(info.id) != own);
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
        self.call.lends = self.loan.is_some();
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
        let Channel {
            mut receiver,
            mut sender,
        } = channel;
        if attached.waits
            && let Some(loan) = &self.loan
        {
            let lent = self.keys.lend(loan, &mut receiver, &mut sender).await;
            self.call.resume = loan.shown();
            // It was there until now, however silent.
            patience.heard();
            if let Some(end) = lent? {
                return Ok(end);
            }
            // It cannot be used, and will not be the next time.
            self.loan = None;
        }
        self.call.resume = Some(attached.offset);
        self.repaint = attached.repaint;
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
            None => return Err(lost()),
        }
    }
}

fn lost() -> Error {
    Error::new("connection_lost", "connection lost").hint("the session runs on; attach again")
}

/// The user's keyboard.
struct Keys {
    /// Looked at only when it is not lent.
    input: Option<Keyboard>,
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
            input: None,
            resized: signal(SignalKind::window_change())?,
            detach: Detach::default(),
            pending: Vec::new(),
            read_only,
            done: false,
        })
    }

    /// Lends the terminal until the end; none if the node has no use for it.
    async fn lend(
        &mut self,
        loan: &Loan,
        receiver: &mut Receiver,
        sender: &mut Sender,
    ) -> Result<Option<End>> {
        sender
            .send_with(&Call::LendTerminal, &loan.descriptors())
            .await?;
        let mut looks = tokio::time::interval(LOOK);
        let mut unread = 0;
        loop {
            tokio::select! {
                biased;
                said = receiver.next::<Reply>() => return match said? {
                    Some(Incoming::Control(Reply::TerminalReturned)) => Ok(None),
                    Some(Incoming::Control(Reply::Exited(exited))) => {
                        Ok(Some(End::Exited(exited.status)))
                    }
                    Some(Incoming::Control(Reply::Detached(_))) => Ok(Some(End::Detached)),
                    Some(Incoming::Control(other)) => Err(other.unexpected()),
                    Some(Incoming::Data(_)) => Err(Error::bad_request("bytes for a lent terminal")),
                    None => Err(lost()),
                },
                _ = self.resized.recv() => self.tell_size(sender).await?,
                _ = looks.tick() => {
                    unread = if loan.has_unread() { unread + 1 } else { 0 };
                }
                // The node hangs: its user is let go all the same.
                heard = listen(&mut self.input, &mut self.detach), if unread > 1 => {
                    let typed = heard?;
                    if typed.detach {
                        return Ok(Some(End::Detached));
                    }
                    if !self.read_only {
                        // For a node that lives again, or a program that reads again.
                        self.pending.extend(typed.bytes);
                        self.send(sender).await?;
                    }
                }
            }
        }
    }

    /// Tells the size of the terminal.
    async fn tell_size(&self, sender: &mut Sender) -> Result<()> {
        if let Some((cols, rows)) = size() {
            sender.send(&Call::Resize(Resize { cols, rows })).await?;
        }
        Ok(())
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
        tokio::select! {
            heard = listen(&mut self.input, &mut self.detach) => {
                let typed = heard?;
                self.done = typed.detach;
                if !self.read_only {
                    self.pending.extend(typed.bytes);
                }
            }
            _ = self.resized.recv() => self.tell_size(sender).await?,
        }
        Ok(())
    }
}

/// Waits for keys; the end of the keyboard lets go as the chord does.
async fn listen(input: &mut Option<Keyboard>, detach: &mut Detach) -> Result<Typed> {
    let mut buffer = [0; 16 * 1024];
    let input = input.get_or_insert_with(Keyboard::new);
    let count = input.read(&mut buffer).await?;
    let mut typed = detach.feed(&buffer[..count]);
    typed.detach |= count == 0;
    Ok(typed)
}
