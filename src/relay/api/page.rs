//! `GET /join?invite=…`: what to type, for somebody who was sent a link.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{Html, IntoResponse as _, Response};
use schemars::JsonSchema;
use serde::Deserialize;

use super::body::Query;
use crate::coord::Invite;
use crate::relay::app::App;
use crate::relay::error::ApiError;

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Params {
    /// As it was handed out.
    #[serde(default)]
    invite: String,
}

/// See the module. Only what reads as an invite gets into the page.
pub(crate) async fn join(
    State(app): State<Arc<App>>,
    params: Result<Query<Params>, ApiError>,
) -> Response {
    let invite = params.ok().map(|Query(params)| params.invite);
    let invite = invite.and_then(|invite| invite.parse::<Invite>().ok());
    let text = match invite {
        Some(invite) => format!(
            "<p>On the machine that is to join:</p>\n\
             <pre>cw network join --relay-url {} {}</pre>",
            escape(&app.info.base_url),
            escape(&invite.to_string()),
        ),
        None => "<p>This link has no valid invite. Ask for a new one.</p>".to_owned(),
    };
    let page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>Join a network</title>\n\
         <style>body{{font:16px/1.5 sans-serif;margin:3em auto;max-width:44em;padding:0 1em}}\
         pre{{background:#eee;padding:1em;overflow-x:auto;user-select:all}}</style>\n\
         <h1>Join a network</h1>\n{text}\n</html>\n"
    );
    let headers = [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
        ),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, Html(page)).into_response()
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_is_escaped() {
        assert_eq!(
            escape("<a b='c'>&\"</a>"),
            "&lt;a b=&#39;c&#39;&gt;&amp;&quot;&lt;/a&gt;"
        );
    }
}
