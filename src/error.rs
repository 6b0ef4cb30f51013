//! The one error that users and callers see: a stable code, what was wrong, and what to do.
//!
//! Libraries have their own small enums; at the edge (the CLI, the local socket, the mesh) each
//! becomes an [`Error`], which travels as `{"type":"Error","message":…,"code":…,"hint":…}` and
//! ends a command with an exit status taken from its code.

use std::fmt;

/// A failure with a stable code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Stable, `snake_case`; scripts may branch on it.
    pub code: String,
    /// What was wrong, for a person.
    pub message: String,
    /// What to do about it, when there is something to say.
    pub hint: Option<String>,
}

/// A result whose failure can be shown to a user.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error with the usual hint of its code.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
            hint: usual_hint(code).map(str::to_owned),
        }
    }

    /// The same error with another hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A fault of the program or the machine rather than of the caller.
    pub fn internal(message: impl fmt::Display) -> Self {
        Self::new("internal", message.to_string())
    }

    /// Something that the documentation names and that does not exist yet.
    pub fn not_built(what: &str) -> Self {
        Self::new("not_built", format!("{what} is not built yet"))
    }

    /// A call that the other end sent and that makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new("bad_request", message)
    }

    /// The exit status of a command that ends with this error.
    ///
    /// 1 other, 2 wrong usage or input, 3 not found, 4 refused, 5 not reachable, 6 conflict,
    /// 7 over a limit, 8 a session that was waited for failed, 124 time is up (as `timeout(1)` has it).
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self.code.as_str() {
            "usage" | "bad_request" | "name_invalid" | "locator_invalid" | "body_empty"
            | "network_invalid" | "invite_malformed" | "config_invalid" | "size_invalid"
            | "tag_invalid" | "command_invalid" | "key_invalid" | "namespace_invalid"
            | "ttl_invalid" | "this_node" => 2,
            "session_not_found" | "node_unknown" | "request_not_found" | "command_not_found"
            | "dir_not_found" | "network_unknown" | "key_not_found" | "not_found"
            | "group_unknown" | "grant_unknown" | "not_in_group" => 3,
            "denied" | "not_typed" | "not_addressee" | "sender_forbidden" | "sender_required"
            | "unauthorized" | "forbidden" | "invite_invalid" | "invite_used_up"
            | "invite_expired" | "revoked" | "proof_invalid" | "namespace_reserved"
            | "group_forbids" | "grant_invalid" | "name_bound" | "caller_unknown"
            | "login_denied" | "login_invalid" | "login_expired" | "not_allowed" => 4,
            "node_down"
            | "node_unreachable"
            | "peer_unreachable"
            | "peer_unknown"
            | "relay_unreachable"
            | "no_network"
            | "not_joined"
            | "network_deleted"
            | "store_unavailable"
            | "node_not_running"
            | "connection_lost"
            | "relay_untrusted"
            | "relay_invalid"
            | "tls"
            | "node_unresponsive"
            | "keeper_unavailable"
            | "provider_unreachable" => 5,
            "name_taken" | "id_taken" | "locked" | "network_taken" | "already_joined"
            | "conflict" | "group_taken" | "last_owner" | "no_provider" | "no_device_flow"
            | "no_browser_flow" => 6,
            "body_too_large" | "inbox_full" | "frame_too_large" | "too_many" | "rate_limited"
            | "disk_full" | "network_full" | "outbox_full" | "too_many_sessions"
            | "too_many_files" | "kv_full" | "login_busy" => 7,
            "session_failed" => 8,
            "timeout" => 124,
            _ => 1,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        if is_out_of_files(&error) {
            return Self::new("too_many_files", error.to_string());
        }
        match error.kind() {
            std::io::ErrorKind::StorageFull => Self::new("disk_full", error.to_string()),
            std::io::ErrorKind::PermissionDenied => Self::new("permission", error.to_string()),
            _ => Self::internal(error),
        }
    }
}

/// Whether this process, or the system, may open no more files.
pub(crate) fn is_out_of_files(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE))
}

impl From<session::Error> for Error {
    fn from(error: session::Error) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl From<mesh::Error> for Error {
    fn from(error: mesh::Error) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

fn usual_hint(code: &str) -> Option<&'static str> {
    Some(match code {
        "session_not_found" => "use 'cw list' to see the sessions",
        "session_not_running" | "session_ended" => "use 'cw status <session>' to see how it ended",
        "node_unknown" => "use 'cw node list' to see the nodes of the network",
        "node_down" => "start it with 'cw start' on that machine; 'cw node list' shows who is up",
        "no_network" | "network_deleted" => {
            "join one with 'cw network join --relay-url <url> <invite>'"
        }
        "name_taken" => "choose another name, or end the session that has it",
        "outbox_full" => "'cw outbox' shows what waits, and for whom",
        "not_typed" => {
            "'cw attach' shows what the program is doing; the inbox is there at any time"
        }
        "body_too_large" => "put it in a file and send the path",
        "group_forbids" => "'cw group list' shows the groups and their rules",
        "group_unknown" => "'cw group list' shows the groups",
        "request_not_found" => "use 'cw inbox <session>' to see the pending requests",
        "sender_required" => "say which session replies with '-f <session>'",
        "caller_unknown" => "call from a shell, or from a session that runs",
        "locked" => "another node runs in this directory; 'cw stop' ends it",
        "relay_unreachable" => "check the relay's URL and that it is running",
        "invite_malformed" => "copy all of it, from CW-INV- to the end",
        "disk_full" => "free some space; nothing was lost",
        "keeper_unavailable" => {
            "if the 'cw keeper' of this directory was stopped, 'kill -CONT' lets it go on"
        }
        "too_many_files" => {
            "end some sessions, or raise the limit ('ulimit -n') and run 'cw stop' and 'cw start'"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_has_its_exit_status() {
        for (code, status) in [
            ("session_not_found", 3),
            ("denied", 4),
            ("node_down", 5),
            ("name_taken", 6),
            ("body_too_large", 7),
            ("timeout", 124),
            ("something_new", 1),
        ] {
            assert_eq!(Error::new(code, "x").exit_status(), status, "{code}");
        }
    }

    #[test]
    fn a_hint_can_be_replaced() {
        let error = Error::new("node_down", "dev-2 is down").hint("wake it");
        assert_eq!(error.hint.as_deref(), Some("wake it"));
    }
}
