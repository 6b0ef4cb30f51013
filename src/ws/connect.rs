//! The client's side: from a URL and a token to a channel.

use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::{HANDSHAKE, channel, config};
use crate::error::{Error, Result};
use crate::rpc::Channel;
use crate::uplink::{RelayUrl, client_config, dial};

/// Reads what users write: `ws://host:port`, `wss://`, `http(s)://`, or `host:port` alone, with or
/// without `/ws` behind it.
///
/// # Errors
///
/// `usage`.
pub(crate) fn address(text: &str) -> Result<RelayUrl> {
    let trimmed = text.trim().trim_end_matches('/');
    let bare = trimmed.strip_suffix("/ws").unwrap_or(trimmed);
    let url = match bare.split_once("://") {
        Some(("ws" | "http", rest)) => format!("http://{rest}"),
        Some(("wss" | "https", rest)) => format!("https://{rest}"),
        Some(_) => bare.to_owned(),
        None => format!("http://{bare}"),
    };
    url.parse().map_err(|_| {
        Error::new("usage", format!("{text:?} is not the address of a node"))
            .hint("write ws://host:port or wss://host[:port], or a name from 'cw server list'")
    })
}

/// Connects and shows the token.
///
/// # Errors
///
/// `node_unreachable`, `unauthorized`, `tls`.
pub(crate) async fn connect(url: &RelayUrl, token: &str) -> Result<Channel> {
    let tls = if url.tls {
        Some(client_config()?)
    } else {
        None
    };
    let unreachable =
        |why: String| Error::new("node_unreachable", format!("cannot reach {url}: {why}"));
    let (stream, _) = dial(url, tls.as_ref())
        .await
        .map_err(|error| unreachable(error.to_string()))?;
    let mut request = url
        .websocket("/ws")
        .into_client_request()
        .map_err(Error::internal)?;
    let value = format!("Bearer {token}").parse();
    let mut value: http::HeaderValue =
        value.map_err(|_| Error::new("usage", "the token has characters that no token has"))?;
    value.set_sensitive(true);
    request
        .headers_mut()
        .insert(http::header::AUTHORIZATION, value);
    let handshake = client_async_with_config(request, stream, Some(config()));
    match tokio::time::timeout(HANDSHAKE, handshake).await {
        Ok(Ok((socket, _))) => Ok(channel(socket)),
        Ok(Err(tungstenite::Error::Http(response))) if response.status() == 401 => Err(Error::new(
            "unauthorized",
            format!("{url} does not know this token"),
        )
        .hint("the token is in the file 'token' of that node's directory")),
        Ok(Err(error)) => Err(unreachable(error.to_string())),
        Err(_) => Err(unreachable("no answer to the handshake".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_users_write() {
        for (text, socket) in [
            ("gpu-host:9100", "ws://gpu-host:9100/ws"),
            ("ws://gpu-host:9100", "ws://gpu-host:9100/ws"),
            ("wss://remote-host:9100/ws", "wss://remote-host:9100/ws"),
            ("https://host/", "wss://host:443/ws"),
            ("http://[::1]:9100", "ws://[::1]:9100/ws"),
        ] {
            assert_eq!(address(text).unwrap().websocket("/ws"), socket, "{text}");
        }
        for text in ["", "ftp://x", "ws://", "host:port", "ws://u:p@host:1"] {
            assert_eq!(address(text).unwrap_err().code, "usage", "{text:?}");
        }
    }
}
