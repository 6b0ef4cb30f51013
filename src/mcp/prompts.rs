//! The two patterns that agents start from: one that leads others, one that is led.

use rmcp::model::{GetPromptResult, JsonObject, Prompt, PromptArgument, PromptMessage, Role};
use serde_json::Value;

/// What there is.
pub(super) fn list() -> Vec<Prompt> {
    vec![
        Prompt::new(
            "supervisor",
            Some("Lead several worker sessions through a task"),
            Some(vec![
                PromptArgument::new("task")
                    .with_description("What is to be done")
                    .with_required(true),
                PromptArgument::new("workers").with_description("How many workers, 2 if left out"),
                PromptArgument::new("command")
                    .with_description("The command that starts a worker, for example claude"),
            ]),
        ),
        Prompt::new(
            "worker",
            Some("Work in a session for a supervisor, and answer its requests"),
            Some(vec![
                PromptArgument::new("task")
                    .with_description("What is to be done")
                    .with_required(true),
                PromptArgument::new("supervisor").with_description("The session that leads"),
            ]),
        ),
    ]
}

/// One of them, filled in.
pub(super) fn get(name: &str, arguments: &JsonObject) -> Option<GetPromptResult> {
    let word = |key: &str, default: &str| {
        let given = arguments.get(key).map(|value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        given.unwrap_or_else(|| default.to_owned())
    };
    let task = word("task", "");
    let text = match name {
        "supervisor" => format!(
            "You lead {workers} worker sessions. The task:\n\n{task}\n\n\
             1. Split the task into parts that do not get in each other's way.\n\
             2. Launch one session for each with codewire_launch_session: command {command}, a name \
             that says what it does, the tag worker, and its part as the prompt.\n\
             3. Wait with codewire_wait_for (tags: worker, condition: any). Call it again while done \
             is false. Meanwhile codewire_subscribe tells you of requests; answer them with \
             codewire_reply.\n\
             4. Read what each has printed with codewire_read_session_output. If one has failed, find \
             out why and launch it again or change its part.\n\
             5. When all are done, put the results together and say what was done and what was not.",
            workers = word("workers", "2"),
            command = word("command", "claude"),
        ),
        "worker" => format!(
            "You work in a session that {leader} leads. Your part:\n\n{task}\n\n\
             Read your messages with codewire_read_messages now and then; requests with the state \
             pending wait for your codewire_reply. When you are stuck or need a decision, ask {leader} \
             with codewire_request. When you are done, send {leader} a codewire_msg that says what \
             you did, what you checked, and what is left.",
            leader = word("supervisor", "a supervisor"),
        ),
        _ => return None,
    };
    Some(GetPromptResult::new(vec![PromptMessage::new_text(
        Role::User,
        text,
    )]))
}
