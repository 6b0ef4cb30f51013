//! Every code that the HTTP API refuses with: the status it comes with, and what to do about it
//! unless the place that refuses knows better. Programs go by the codes, so none of them changes.

/// Code, status, hint; in the order of the statuses.
pub(crate) const CODES: &[(&str, u16, &str)] = &[
    ("bad_request", 400, DOCUMENT),
    ("network_invalid", 400, "choose a name such as home"),
    ("name_invalid", 400, "choose a name such as dev-1"),
    ("key_invalid", 400, "choose a key such as tasks/1"),
    ("namespace_invalid", 400, "choose a name such as default"),
    ("ttl_invalid", 400, "write it as 90s, 10m or 1h30m"),
    (
        "invite_malformed",
        400,
        "copy the whole invite, from CW-INV- to its end",
    ),
    (
        "clock_skew",
        400,
        "set the clock of this machine, or the relay's",
    ),
    (
        "proof_invalid",
        400,
        "join again; when that does not help, this machine needs a new identity",
    ),
    (
        "unauthorized",
        401,
        "'cw login' logs you in; or pass the relay's token, by --token-file or CODEWIRE_RELAY_AUTH_TOKEN",
    ),
    ("forbidden", 403, "ask an owner of the network"),
    ("invite_invalid", 403, NEW_INVITE),
    ("invite_used_up", 403, NEW_INVITE),
    ("invite_expired", 403, NEW_INVITE),
    ("revoked", 403, crate::home::NEW_IDENTITY),
    (
        "name_bound",
        403,
        "join under the name that the invite was made for",
    ),
    ("namespace_reserved", 403, "choose another namespace"),
    ("login_invalid", 403, "begin again with 'cw login'"),
    (
        "login_denied",
        403,
        "begin again, and agree at the provider",
    ),
    ("not_allowed", 403, "ask whoever runs the relay"),
    ("not_found", 404, DOCUMENT),
    (
        "network_unknown",
        404,
        "create it with 'cw network create <name>'",
    ),
    ("node_unknown", 404, "'cw node list' shows the nodes"),
    ("group_unknown", 404, GROUPS),
    ("not_in_group", 404, GROUPS),
    ("grant_unknown", 404, "'cw access list' shows the grants"),
    ("key_not_found", 404, "'cw kv list' shows the keys"),
    (
        "method_not_allowed",
        405,
        "the header Allow says what can be done",
    ),
    ("timeout", 408, "try again"),
    ("name_taken", 409, "choose another name for this node"),
    (
        "already_joined",
        409,
        "join under the name this node has, or revoke that name first",
    ),
    ("network_full", 409, "revoke nodes that are gone for good"),
    ("too_many", 409, "take away some that are no longer needed"),
    (
        "last_owner",
        409,
        "make somebody else an owner first, or delete the network",
    ),
    ("key_taken", 409, "use another key"),
    ("group_taken", 409, "choose another name"),
    (
        "network_taken",
        409,
        "choose another name, or ask its owner for an invite",
    ),
    (
        "no_provider",
        409,
        "'cw login --token-file FILE' logs in with the relay's token",
    ),
    ("no_device_flow", 409, "use 'cw login --browser'"),
    ("no_browser_flow", 409, "use 'cw login' without --browser"),
    ("login_expired", 410, "begin again with 'cw login'"),
    ("conflict", 412, "read it again, and decide again"),
    ("body_too_large", 413, "send less at once"),
    ("media_type", 415, "send it as application/json"),
    ("upgrade_required", 426, DOCUMENT),
    ("rate_limited", 429, "wait a minute"),
    ("internal", 500, "tell whoever runs the relay"),
    (
        "provider_unreachable",
        502,
        "try again later; who is logged in stays so",
    ),
    ("relay_unreachable", 502, "try again in a moment"),
    ("not_ready", 503, "try again in a moment"),
    (
        "store_unavailable",
        503,
        "try again in a moment; whoever keeps the relay finds more in its log",
    ),
    (
        "page_busy",
        503,
        "close a page that nobody looks at, and try again",
    ),
    ("login_busy", 503, "try again in some minutes"),
    (
        "kv_full",
        507,
        "delete keys that are no longer needed, or give them a --ttl",
    ),
];

const DOCUMENT: &str = "'cw relay openapi' prints what there is, and how it is asked for";

const GROUPS: &str = "'cw group list' shows the groups";

const NEW_INVITE: &str = "ask for a new invite";

/// The status and the hint of a code.
pub(crate) fn known(code: &str) -> Option<(u16, &'static str)> {
    let found = CODES.iter().find(|(known, ..)| *known == code);
    found.map(|(_, status, hint)| (*status, *hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_of_one_status_each() {
        for (at, (code, status, hint)) in CODES.iter().enumerate() {
            assert!((400..600).contains(status), "{code}");
            assert!(!hint.is_empty(), "{code}");
            let again = CODES[at + 1..].iter().find(|(other, ..)| other == code);
            assert!(again.is_none(), "{code} twice");
        }
        assert!(CODES.is_sorted_by_key(|(_, status, _)| *status));
    }
}
