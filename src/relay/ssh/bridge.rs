//! A channel of somebody's connection, passed on to the node's own SSH server message by message.
//!
//! What is asked for is answered here already (see [`crate::ssh::Asked`]), by the node's own rules,
//! so the node is asked for no answers; of what goes wrong there it tells on standard error.

use std::sync::Arc;
use std::time::Duration;

use russh::client;
use russh::keys::PublicKeyOrCertificate;
use russh::server::{ChannelOpenHandle, Handle, Msg};
use russh::{
    Channel, ChannelId, ChannelMsg, ChannelOpenFailure, ChannelReadHalf, ChannelWriteHalf,
};
use tokio::io::copy_bidirectional;
use tokio::time::timeout;

use super::Found;
use crate::relay::app::App;
use crate::relay::store::Subject;
use crate::ssh::{Door, Pipe, preferred};

/// How long the node may take to greet.
const GREETING: Duration = Duration::from_secs(15);

/// The code of standard error in extended data (RFC 4254, 5.2).
const STDERR: u32 = 1;

/// What OpenSSH's client itself ends with when the other side is not there.
const NO_CONNECTION: u32 = 255;

/// The relay as a client of a node. The way was opened by the node for this very visit, so there is
/// no host key to be checked beyond that.
struct Client;

impl client::Handler for Client {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

/// Logs in at the node.
async fn greet(way: Pipe) -> Option<client::Handle<Client>> {
    let config = Arc::new(client::Config {
        preferred: preferred(),
        ..client::Config::default()
    });
    let greeted = async {
        let mut node = client::connect_stream(config, way, Client).await.ok()?;
        let is_in = node.authenticate_none("relay").await.ok()?.success();
        is_in.then_some(node)
    };
    timeout(GREETING, greeted).await.ok().flatten()
}

async fn open(
    app: &Arc<App>,
    subject: &Subject,
    found: Result<Found, String>,
) -> Result<client::Handle<Client>, String> {
    let Found { network, key, name } = found?;
    let way = app
        .way(&network, &key, Door::Terminal, subject.as_str())
        .await;
    let way = way.map_err(|why| match why {
        super::super::visits::NoWay::Closed => format!(
            "{name} takes no terminals from a relay; there, set [node] ssh = \"relay\"; \
             or come by ssh -J"
        ),
        why => format!("{name}: {why}"),
    })?;
    greet(way)
        .await
        .ok_or_else(|| format!("{name} does not answer"))
}

/// Passes a session channel on; says why if that is not possible.
pub(super) async fn terminal(
    app: &Arc<App>,
    subject: &Subject,
    found: Result<Found, String>,
    channel: Channel<Msg>,
    handle: &Handle,
) {
    let id = channel.id();
    let (requests, answers) = channel.split();
    let node = match open(app, subject, found).await {
        Ok(node) => node,
        Err(why) => {
            refuse(id, handle, requests, &why).await;
            let _ = answers.close().await;
            return;
        }
    };
    match node.channel_open_session().await {
        Ok(there) => {
            let (from_node, to_node) = there.split();
            tokio::select! {
                () = inwards(requests, &to_node) => {}
                () = outwards(from_node, id, handle) => {}
            }
        }
        Err(why) => refuse(id, handle, requests, &format!("the node: {why}")).await,
    }
    let _ = answers.close().await;
}

/// Passes a connection to a port on the node's loopback on.
pub(super) async fn port(
    app: &Arc<App>,
    subject: &Subject,
    found: Result<Found, String>,
    (host, port): (&str, u32),
    channel: Channel<Msg>,
    reply: ChannelOpenHandle,
) {
    let Ok(node) = open(app, subject, found).await else {
        return reply.reject(ChannelOpenFailure::ConnectFailed).await;
    };
    match node
        .channel_open_direct_tcpip(host, port, "127.0.0.1", 0)
        .await
    {
        Ok(there) => {
            reply.accept().await;
            let (mut here, mut there) = (channel.into_stream(), there.into_stream());
            let _ = copy_bidirectional(&mut here, &mut there).await;
        }
        Err(russh::Error::ChannelOpenFailure(why)) => reply.reject(why).await,
        Err(_) => reply.reject(ChannelOpenFailure::ConnectFailed).await,
    }
}

/// Waits for what the client wants to start, and answers with the reason why there is nothing.
async fn refuse(id: ChannelId, handle: &Handle, mut requests: ChannelReadHalf, why: &str) {
    while let Some(message) = requests.wait().await {
        match message {
            ChannelMsg::RequestShell { .. }
            | ChannelMsg::Exec { .. }
            | ChannelMsg::RequestSubsystem { .. } => {
                let text = format!("cw: {why}\r\n");
                let _ = handle.extended_data(id, STDERR, text).await;
                let _ = handle.exit_status_request(id, NO_CONNECTION).await;
                let _ = handle.eof(id).await;
                return;
            }
            ChannelMsg::Close => return,
            _ => {}
        }
    }
}

/// What the client says.
async fn inwards(mut from: ChannelReadHalf, to: &ChannelWriteHalf<client::Msg>) {
    while let Some(message) = from.wait().await {
        let passed = match message {
            ChannelMsg::Data { data } => to.data_bytes(data).await,
            ChannelMsg::Eof => to.eof().await,
            ChannelMsg::RequestPty {
                term,
                col_width,
                row_height,
                pix_width,
                pix_height,
                terminal_modes,
                ..
            } => {
                let size = (col_width, row_height, pix_width, pix_height);
                let (cols, rows, width, height) = size;
                to.request_pty(false, &term, cols, rows, width, height, &terminal_modes)
                    .await
            }
            ChannelMsg::SetEnv {
                variable_name,
                variable_value,
                ..
            } => to.set_env(false, variable_name, variable_value).await,
            ChannelMsg::RequestShell { .. } => to.request_shell(false).await,
            ChannelMsg::Exec { command, .. } => to.exec(false, command).await,
            ChannelMsg::RequestSubsystem { name, .. } => to.request_subsystem(false, name).await,
            ChannelMsg::Signal { signal } => to.signal(signal).await,
            ChannelMsg::WindowChange {
                col_width,
                row_height,
                pix_width,
                pix_height,
            } => {
                to.window_change(col_width, row_height, pix_width, pix_height)
                    .await
            }
            ChannelMsg::Close => return,
            _ => Ok(()),
        };
        if passed.is_err() {
            return;
        }
    }
}

/// What the node says.
async fn outwards(mut from: ChannelReadHalf, id: ChannelId, to: &Handle) {
    while let Some(message) = from.wait().await {
        let passed = match message {
            ChannelMsg::Data { data } => to.data(id, data).await.map_err(drop),
            ChannelMsg::ExtendedData { data, ext } => {
                to.extended_data(id, ext, data).await.map_err(drop)
            }
            ChannelMsg::Eof => to.eof(id).await,
            ChannelMsg::ExitStatus { exit_status } => to.exit_status_request(id, exit_status).await,
            ChannelMsg::ExitSignal {
                signal_name,
                core_dumped,
                error_message,
                lang_tag,
            } => {
                to.exit_signal_request(id, signal_name, core_dumped, error_message, lang_tag)
                    .await
            }
            ChannelMsg::Close => return,
            _ => Ok(()),
        };
        if passed.is_err() {
            return;
        }
    }
}
