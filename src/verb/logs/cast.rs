//! A session as an asciicast, version 2: a header and one JSON array a line, `[seconds, "o", text]`
//! for output and `[seconds, "r", "COLSxROWS"]` for a size. The format is documented by asciinema.

use serde_json::json;
use session::Info;
use session::io::{Played, Recording};

use super::pieces::take_text;
use crate::error::Result;
use crate::rpc::Sender;

/// Sends it as raw frames of whole lines.
pub(super) async fn send(mut recording: Recording, info: &Info, sender: &mut Sender) -> Result<()> {
    let started = recording.started_ms();
    let (mut size, mut begun) = (recording.size(), false);
    let (mut partial, mut at) = (Vec::new(), 0.0);
    while let Some(played) = recording.next().await? {
        let line = match played {
            // What size it has before it has printed is the size it begins with.
            Played::Resize { size: now, .. } if !begun => {
                size = now;
                continue;
            }
            Played::Resize { at_ms, size } => {
                at = seconds(at_ms.saturating_sub(started));
                json!([at, "r", format!("{}x{}", size.cols, size.rows)])
            }
            Played::Output { at_ms, bytes } => {
                if !std::mem::replace(&mut begun, true) {
                    sender
                        .send_data(header(info, size, started).as_bytes())
                        .await?;
                }
                at = seconds(at_ms.saturating_sub(started));
                partial.extend_from_slice(&bytes);
                json!([at, "o", take_text(&mut partial)])
            }
        };
        sender.send_data(format!("{line}\n").as_bytes()).await?;
    }
    if !begun {
        sender
            .send_data(header(info, size, started).as_bytes())
            .await?;
    }
    if !partial.is_empty() {
        let line = json!([at, "o", String::from_utf8_lossy(&partial)]);
        sender.send_data(format!("{line}\n").as_bytes()).await?;
    }
    Ok(())
}

fn header(info: &Info, size: session::Size, started_ms: u64) -> String {
    let command = info.argv.join(" ");
    let title = info.name.as_ref().map(ToString::to_string);
    let header = json!({
        "version": 2,
        "width": size.cols,
        "height": size.rows,
        "timestamp": started_ms / 1000,
        "command": command,
        "title": title.unwrap_or_else(|| format!("session {}", info.id)),
    });
    format!("{header}\n")
}

#[expect(
    clippy::cast_precision_loss,
    reason = "milliseconds of a year fit into 53 bits"
)]
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}
