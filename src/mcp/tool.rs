//! What a tool is, and the table of all of them.
//!
//! A tool is a struct: its fields are the arguments, its documentation is what the model reads, its
//! output has a schema too. An error of a verb is a result that says so, with the code and the hint
//! that a person would get; a wrong argument is one as well, so that the model can mend it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use rmcp::handler::server::common::{schema_for_input, schema_for_output};
use rmcp::model::{
    CallToolResult, ContentBlock, JsonObject, ProgressNotificationParam, ProgressToken,
    Tool as Description, ToolAnnotations,
};
use rmcp::service::{Peer, RoleServer};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{follow, messages, network, sessions, shared};
use crate::cli::Cli;
use crate::error::{Error, Result};
use crate::verb::{Call, Reply};

/// How often a client that wants to know is told that a call still runs.
const PROGRESS: Duration = Duration::from_secs(5);
/// How long a call may block when nobody is told of its progress: clients give up after a minute.
const BLOCK: Duration = Duration::from_secs(45);
/// How long it may block when somebody is.
const BLOCK_WITH_PROGRESS: Duration = Duration::from_secs(10 * 60);
/// How long a task may run.
const BLOCK_AS_TASK: Duration = Duration::from_secs(24 * 60 * 60);

/// What the caller should expect of a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Changes nothing.
    Reads,
    /// Adds something.
    Adds,
    /// Ends or changes something.
    Destroys,
}

/// A tool. Its documentation is its description.
pub(crate) trait Tool: DeserializeOwned + JsonSchema + Send + 'static {
    /// What it returns, besides text.
    type Output: Serialize + JsonSchema + Send + 'static;
    /// Its name.
    const NAME: &'static str;
    /// Its name for people.
    const TITLE: &'static str;
    /// What it does to the world.
    const EFFECT: Effect;
    /// Whether it may take long, and is a task for clients that know tasks.
    const LONG: bool = false;

    /// Does it, and says in words what was done.
    fn call(self, turn: &Turn) -> impl Future<Output = Result<(String, Self::Output)>> + Send;
}

/// One call.
pub(crate) struct Turn {
    pub(crate) cli: Arc<Cli>,
    pub(crate) manner: Manner,
}

/// How the caller waits.
pub(crate) enum Manner {
    /// Until it is tired.
    Plain,
    /// As long as it hears that something happens.
    Progress(Peer<RoleServer>, ProgressToken),
    /// It does not; it asks now and then.
    Task,
}

impl Turn {
    /// One question, one answer.
    pub(crate) async fn ask(&self, call: Call) -> Result<Reply> {
        self.cli.ask(call).await
    }

    /// How long this call may block at most, of what was asked for.
    pub(crate) fn patience(&self, asked: Duration) -> Duration {
        asked.min(match self.manner {
            Manner::Plain => BLOCK,
            Manner::Progress(..) => BLOCK_WITH_PROGRESS,
            Manner::Task => BLOCK_AS_TASK,
        })
    }

    /// Tells the client now and then that the call still runs; never ends.
    pub(crate) async fn tell_progress(&self) {
        let Manner::Progress(peer, token) = &self.manner else {
            return std::future::pending().await;
        };
        let mut count = 0.0;
        loop {
            tokio::time::sleep(PROGRESS).await;
            count += 1.0;
            let seconds = count * PROGRESS.as_secs_f64();
            let told = ProgressNotificationParam::new(token.clone(), count)
                .with_message(format!("{seconds} s"));
            // A client that is gone ends the call by itself.
            let _ = peer.notify_progress(told).await;
        }
    }
}

type Run = Box<dyn Fn(JsonObject, Turn) -> BoxFuture<'static, CallToolResult> + Send + Sync>;

/// A tool in the table.
pub(crate) struct Entry {
    pub(crate) description: Description,
    pub(crate) long: bool,
    pub(crate) run: Run,
    /// Whether the tool takes these arguments.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) takes: fn(JsonObject) -> bool,
}

/// All tools, by name.
pub(crate) fn table() -> BTreeMap<&'static str, Entry> {
    BTreeMap::from([
        entry::<sessions::Launch>(),
        entry::<sessions::List>(),
        entry::<sessions::ReadOutput>(),
        entry::<sessions::SendInput>(),
        entry::<sessions::Status>(),
        entry::<sessions::Kill>(),
        entry::<follow::Watch>(),
        entry::<follow::Subscribe>(),
        entry::<follow::WaitFor>(),
        entry::<messages::Message>(),
        entry::<messages::ReadMessages>(),
        entry::<messages::Request>(),
        entry::<messages::Answer>(),
        entry::<network::ListNodes>(),
        entry::<shared::SetKey>(),
        entry::<shared::GetKey>(),
        entry::<shared::ListKeys>(),
        entry::<shared::DeleteKey>(),
    ])
}

fn entry<T: Tool>() -> (&'static str, Entry) {
    let schema = schema_for_input::<T>();
    // Only a tool without an object as its arguments has none; the test of the table sees it.
    let input = plain(schema.unwrap_or_default());
    let said = schemars::schema_for!(T);
    let words = said.get("description").and_then(Value::as_str);
    let words = words.unwrap_or(T::TITLE).to_owned();
    let description = Description::new(T::NAME, words, input)
        .with_title(T::TITLE)
        .with_raw_output_schema(plain(schema_for_output::<T::Output>()))
        .with_annotations(annotations(T::EFFECT));
    let run: Run = Box::new(|arguments, turn| Box::pin(run::<T>(arguments, turn)));
    let long = T::LONG;
    (
        T::NAME,
        Entry {
            description,
            long,
            run,
            #[cfg(any(test, feature = "fuzzing"))]
            takes: |arguments| serde_json::from_value::<T>(Value::Object(arguments)).is_ok(),
        },
    )
}

/// The schema without formats of numbers, which are ours and no standard's: clients complain about
/// what they do not know.
fn plain(schema: Arc<JsonObject>) -> Arc<JsonObject> {
    fn walk(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                let number = |format: &Value| {
                    format
                        .as_str()
                        .is_some_and(|format| format.contains("int") || format == "double")
                };
                if fields.get("format").is_some_and(number) {
                    fields.remove("format");
                }
                fields.values_mut().for_each(walk);
            }
            Value::Array(items) => items.iter_mut().for_each(walk),
            _ => {}
        }
    }
    let mut schema = Value::Object(Arc::unwrap_or_clone(schema));
    walk(&mut schema);
    match schema {
        Value::Object(fields) => Arc::new(fields),
        _ => Arc::default(),
    }
}

fn annotations(effect: Effect) -> ToolAnnotations {
    ToolAnnotations::new()
        .read_only(effect == Effect::Reads)
        .destructive(effect == Effect::Destroys)
        .idempotent(effect == Effect::Reads)
        .open_world(effect != Effect::Reads)
}

async fn run<T: Tool>(arguments: JsonObject, turn: Turn) -> CallToolResult {
    let parsed = serde_json::from_value::<T>(Value::Object(arguments))
        .map_err(|error| Error::bad_request(error.to_string()));
    let done = match parsed {
        Ok(tool) => tokio::select! {
            done = tool.call(&turn) => done,
            () = turn.tell_progress() => Err(Error::internal("progress ended")),
        },
        Err(error) => Err(error),
    };
    match done {
        Ok((text, output)) => match serde_json::to_value(output) {
            Ok(output) => {
                let mut result = CallToolResult::structured(output);
                result.content = vec![ContentBlock::text(text)];
                result
            }
            Err(error) => failure(&Error::internal(error)),
        },
        Err(error) => failure(&error),
    }
}

/// An error as the model reads it. It has no structured part: that would have to be of the shape
/// that success has.
pub(crate) fn failure(error: &Error) -> CallToolResult {
    let hint = error.hint.as_deref().map(|hint| format!("\n{hint}"));
    let text = format!(
        "{} [{}]{}",
        error.message,
        error.code,
        hint.unwrap_or_default()
    );
    let mut result = CallToolResult::error(vec![ContentBlock::text(text)]);
    let meta = json!({"codewire/code": error.code});
    result.meta = serde_json::from_value(meta).ok();
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_is_described_to_the_last_argument() {
        let table = table();
        assert_eq!(table.len(), 18);
        for (name, entry) in &table {
            let tool = &entry.description;
            assert!(name.starts_with("codewire_"), "{name}");
            assert!(
                tool.description
                    .as_deref()
                    .is_some_and(|text| text.len() > 20),
                "{name}"
            );
            assert_eq!(tool.input_schema["type"], "object", "{name}");
            let output = tool.output_schema.as_ref().expect("an output schema");
            assert_eq!(output["type"], "object", "{name}");
            assert!(
                !serde_json::to_string(output).unwrap().contains("uint"),
                "{name}"
            );
            let properties = tool
                .input_schema
                .get("properties")
                .and_then(Value::as_object);
            for (argument, schema) in properties.into_iter().flatten() {
                assert!(
                    schema["description"].is_string(),
                    "{name}.{argument}: {schema}"
                );
            }
        }
    }
}
