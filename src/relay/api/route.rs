//! A route: what serves it together with what is said of it.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::http::Method;
use axum::routing::{MethodFilter, MethodRouter, on};
use serde_json::Value;

use super::openapi::{self, Described, Operation, Teller};
use crate::relay::app::App;

/// Routes, and what is said of them. Nothing is served that is not also described: both come from
/// one [`Endpoint`].
#[derive(Default)]
pub(crate) struct Routes {
    router: Router<Arc<App>>,
    operations: Vec<(&'static str, Operation)>,
}

/// One method of a route.
pub(super) struct Endpoint {
    serve: MethodRouter<Arc<App>>,
    operation: Operation,
}

impl Routes {
    /// Adds what is answered at `path`.
    pub(super) fn route(
        mut self,
        path: &'static str,
        endpoints: impl IntoIterator<Item = Endpoint>,
    ) -> Self {
        let mut methods = MethodRouter::new();
        for endpoint in endpoints {
            methods = methods.merge(endpoint.serve);
            self.operations.push((path, endpoint.operation));
        }
        self.router = self.router.route(path, methods);
        self
    }

    /// What serves.
    pub(super) fn router(self) -> Router<Arc<App>> {
        self.router
    }

    /// What is said.
    pub(super) fn document(&self) -> Value {
        let operations = self.operations.iter();
        openapi::document(operations.map(|(path, operation)| (*path, operation)))
    }
}

impl Endpoint {
    /// What its own rules refuse with.
    pub(super) fn refuses(mut self, codes: &'static [&'static str]) -> Self {
        self.operation.refuses = codes;
        self
    }

    /// Its statuses, where they are not 200.
    pub(super) fn status(mut self, statuses: &'static [u16]) -> Self {
        self.operation.statuses = statuses;
        self
    }

    /// What its types do not say.
    pub(super) fn also(mut self, tell: fn(&mut Teller)) -> Self {
        self.operation.also = tell;
        self
    }

    /// How long a body may be, bytes.
    pub(super) fn limit(mut self, bytes: usize) -> Self {
        self.serve = self.serve.route_layer(DefaultBodyLimit::max(bytes));
        self
    }
}

fn endpoint<H, T, D>(
    method: Method,
    filter: MethodFilter,
    handler: H,
    summary: &'static str,
) -> Endpoint
where
    H: Handler<T, Arc<App>> + Described<D>,
    T: 'static,
{
    Endpoint {
        serve: on(filter, handler),
        operation: Operation {
            method,
            name: std::any::type_name::<H>(),
            summary,
            describe: H::describe,
            statuses: &[],
            refuses: &[],
            also: |_| {},
        },
    }
}

pub(super) fn get<H, T, D>(handler: H, summary: &'static str) -> Endpoint
where
    H: Handler<T, Arc<App>> + Described<D>,
    T: 'static,
{
    endpoint(Method::GET, MethodFilter::GET, handler, summary)
}

pub(super) fn post<H, T, D>(handler: H, summary: &'static str) -> Endpoint
where
    H: Handler<T, Arc<App>> + Described<D>,
    T: 'static,
{
    endpoint(Method::POST, MethodFilter::POST, handler, summary)
}

pub(super) fn put<H, T, D>(handler: H, summary: &'static str) -> Endpoint
where
    H: Handler<T, Arc<App>> + Described<D>,
    T: 'static,
{
    endpoint(Method::PUT, MethodFilter::PUT, handler, summary)
}

pub(super) fn delete<H, T, D>(handler: H, summary: &'static str) -> Endpoint
where
    H: Handler<T, Arc<App>> + Described<D>,
    T: 'static,
{
    endpoint(Method::DELETE, MethodFilter::DELETE, handler, summary)
}
