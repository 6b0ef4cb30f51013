//! The protocol's side: what the library asks of a server, answered from the tables.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use rmcp::ErrorData;
use rmcp::ServerHandler;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CancelTaskParams, CreateTaskResult,
    GetPromptRequestParams, GetPromptResponse, GetTaskParams, GetTaskResult, Implementation,
    ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult, ListToolsResult,
    PaginatedRequestParams, ReadResourceRequestParams, ReadResourceResponse, ReadResourceResult,
    ServerCapabilities, ServerConfig, SubscribeRequestParams, SubscriptionFilter, Tool,
    UnsubscribeRequestParams, UpdateTaskParams,
};
use rmcp::service::{RequestContext, RoleServer, SubscriptionContext};
use rmcp::task_manager::{TaskExit, TaskManager, TaskOptions};
use tokio::task::AbortHandle;

use super::resources::{Place, Teller};
use super::tool::{Entry, Manner, Turn, table};
use super::{prompts, resources};
use crate::cli::Cli;

/// What an agent is told before it sees the tools.
const INSTRUCTIONS: &str = "cw keeps commands running in sessions: terminals that outlive you. \
Launch other agents with codewire_launch_session, give each a name, wait for them with \
codewire_wait_for, read what they printed, and talk to them with codewire_msg, codewire_request \
and codewire_reply. A session on another machine is addressed as node:session.";

/// How long the result of a task is kept, in milliseconds.
const TASK_KEPT: u64 = 60 * 60 * 1000;
/// Resources that one client may be subscribed to.
const SUBSCRIPTIONS: usize = 256;

/// The server for one client.
pub(super) struct Server {
    cli: Arc<Cli>,
    tools: Arc<BTreeMap<&'static str, Entry>>,
    tasks: TaskManager,
    watched: Mutex<HashMap<String, AbortHandle>>,
}

impl Server {
    pub(super) fn new(cli: Arc<Cli>) -> Self {
        Self {
            cli,
            tools: Arc::new(table()),
            tasks: TaskManager::new(),
            watched: Mutex::default(),
        }
    }

    fn turn(&self, manner: Manner) -> Turn {
        Turn {
            cli: Arc::clone(&self.cli),
            manner,
        }
    }

    /// Runs a long tool as a task: the client asks for its result when it likes.
    fn task(&self, name: &'static str, request: CallToolRequestParams) -> CreateTaskResult {
        let turn = self.turn(Manner::Task);
        let tools = Arc::clone(&self.tools);
        let options = TaskOptions::new().with_ttl_ms(TASK_KEPT);
        let task = self.tasks.spawn(options, move |context| {
            Box::pin(async move {
                let Some(entry) = tools.get(name) else {
                    return Err(TaskExit::Cancelled);
                };
                let call = (entry.run)(request.arguments.unwrap_or_default(), turn);
                tokio::select! {
                    result = call => Ok(result),
                    () = context.cancelled() => Err(TaskExit::Cancelled),
                }
            })
        });
        CreateTaskResult::new(task)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for (_, task) in self.watched.lock().drain() {
            task.abort();
        }
    }
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_resources()
            .enable_resources_subscribe()
            .enable_prompts()
            .enable_tasks()
            .build();
        ServerConfig::new(capabilities)
            .with_server_info(Implementation::new("codewire", env!("CARGO_PKG_VERSION")))
            .with_instructions(INSTRUCTIONS)
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let tools = self.tools.values().map(|entry| entry.description.clone());
        Ok(ListToolsResult::with_all_items(tools.collect()))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        self.tools.get(name).map(|entry| entry.description.clone())
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let name = request.name.clone();
        let Some((name, entry)) = self.tools.get_key_value(name.as_ref()) else {
            return Err(ErrorData::invalid_params(
                format!("unknown tool: {name}"),
                None,
            ));
        };
        let knows_tasks = context
            .client_capabilities()
            .is_some_and(|capabilities| capabilities.supports_tasks());
        if entry.long && knows_tasks {
            return Ok(CallToolResponse::Task(self.task(name, request)));
        }
        let manner = match context.meta.get_progress_token() {
            Some(token) => Manner::Progress(context.peer.clone(), token),
            None => Manner::Plain,
        };
        let call = (entry.run)(request.arguments.unwrap_or_default(), self.turn(manner));
        tokio::select! {
            result = call => Ok(result.into()),
            // Dropping the call closes its connection, which ends it on the node.
            () = context.ct.cancelled() => Err(ErrorData::internal_error("the call was cancelled", None)),
        }
    }

    async fn get_task(
        &self,
        request: GetTaskParams,
        _: RequestContext<RoleServer>,
    ) -> Result<GetTaskResult, ErrorData> {
        Ok(GetTaskResult::new(self.tasks.get_task(&request.task_id)?))
    }

    async fn update_task(
        &self,
        request: UpdateTaskParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.tasks
            .update_task(&request.task_id, request.input_responses)
    }

    async fn cancel_task(
        &self,
        request: CancelTaskParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.tasks.cancel_task(&request.task_id)
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let found = resources::list(&self.cli).await.map_err(broken)?;
        Ok(ListResourcesResult::with_all_items(found))
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        Ok(ListResourceTemplatesResult::with_all_items(
            resources::templates(),
        ))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let place: Place = request.uri.parse().map_err(missing)?;
        let contents = resources::read(&self.cli, &place).await.map_err(|error| {
            if error.code == "session_not_found" {
                missing(error)
            } else {
                broken(error)
            }
        })?;
        Ok(ReadResourceResult::new(vec![contents]).into())
    }

    async fn subscribe(
        &self,
        request: SubscribeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        let place: Place = request.uri.parse().map_err(missing)?;
        let (cli, uri) = (Arc::clone(&self.cli), request.uri.clone());
        let mut watched = self.watched.lock();
        if watched.len() >= SUBSCRIPTIONS {
            return Err(ErrorData::invalid_params("too many subscriptions", None));
        }
        let teller = Teller::Peer(context.peer.clone(), uri);
        let told = tokio::spawn(async move {
            if let Err(error) = resources::changes(&cli, &place, &teller).await {
                tracing::debug!(%error, "a resource is no longer followed");
            }
        });
        if let Some(before) = watched.insert(request.uri, told.abort_handle()) {
            before.abort();
        }
        Ok(())
    }

    async fn unsubscribe(
        &self,
        request: UnsubscribeRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        if let Some(task) = self.watched.lock().remove(&request.uri) {
            task.abort();
        }
        Ok(())
    }

    fn accepted_subscription_filter(
        &self,
        requested: &SubscriptionFilter,
    ) -> Option<SubscriptionFilter> {
        let mut accepted = SubscriptionFilter::default();
        accepted.resource_subscriptions = requested.resource_subscriptions.as_ref().map(|uris| {
            let known = uris.iter().filter(|uri| uri.parse::<Place>().is_ok());
            known.take(SUBSCRIPTIONS).cloned().collect()
        });
        Some(accepted)
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        let uris = context
            .accepted()
            .resource_subscriptions
            .clone()
            .unwrap_or_default();
        let mut all = tokio::task::JoinSet::new();
        for uri in uris {
            let Ok(place) = uri.parse::<Place>() else {
                continue;
            };
            let cli = Arc::clone(&self.cli);
            let teller = Teller::Sink(context.sink().clone(), uri);
            // What cannot be followed is never told of.
            all.spawn(async move { drop(resources::changes(&cli, &place, &teller).await) });
        }
        context.cancelled().await;
        Ok(())
    }

    async fn list_prompts(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        Ok(ListPromptsResult::with_all_items(prompts::list()))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        let arguments = request.arguments.unwrap_or_default();
        prompts::get(&request.name, &arguments)
            .map(Into::into)
            .ok_or_else(|| {
                ErrorData::invalid_params(format!("unknown prompt: {}", request.name), None)
            })
    }
}

fn missing(error: crate::error::Error) -> ErrorData {
    ErrorData::resource_not_found(error.message, None)
}

fn broken(error: crate::error::Error) -> ErrorData {
    let data = serde_json::json!({"code": error.code, "hint": error.hint});
    ErrorData::internal_error(error.message, Some(data))
}
