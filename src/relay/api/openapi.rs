//! The API's description of itself (OpenAPI 3.1), made from what serves it.
//!
//! A route is added with its handlers ([`super::table`]), and each handler is described by the types
//! that it takes and gives: an extractor says which parameters, which body and which proof it reads
//! and what it refuses ([`Takes`]), an answer what it looks like ([`Gives`]); their shapes are those
//! of the Rust types. So there is no route without a description and none described that is not
//! there. Only what no type says is written beside a route: a sentence, the refusals of its own,
//! other statuses than 200. In tests every answer is held against it (`promise`).

mod kinds;

use std::collections::{BTreeMap, BTreeSet};

use axum::http::{Method, StatusCode};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::coord::request::SCHEME;
use crate::relay::error::{PROBLEM, Problem, codes};

/// What every answer may be instead.
const ALWAYS: &[&str] = &["timeout", "internal", "store_unavailable"];

/// Where the shapes of bodies are.
const SCHEMAS: &str = "/components/schemas";

/// One operation, as it comes to be described.
pub(super) struct Teller {
    /// The shapes of what is sent, and of what is answered.
    sent: SchemaGenerator,
    given: SchemaGenerator,
    told: Told,
}

/// What is said of one operation.
#[derive(Default)]
struct Told {
    path: &'static str,
    statuses: &'static [u16],
    parameters: Vec<Value>,
    body: Option<Value>,
    answers: BTreeMap<u16, Value>,
    codes: BTreeSet<&'static str>,
    proofs: Vec<&'static str>,
}

/// A kind of argument of a handler.
pub(super) trait Takes {
    /// What it reads and refuses.
    fn take(teller: &mut Teller);
}

/// A kind of result of a handler.
pub(super) trait Gives {
    /// What it looks like.
    fn give(teller: &mut Teller);
}

/// A handler, by its types. `T` keeps apart those of different numbers of arguments.
pub(super) trait Described<T> {
    /// All of it.
    fn describe(teller: &mut Teller);
}

/// What serves one method of a route, and what is said of it.
pub(super) struct Operation {
    pub(super) method: Method,
    /// The handler's path in the code.
    pub(super) name: &'static str,
    pub(super) summary: &'static str,
    pub(super) describe: fn(&mut Teller),
    pub(super) statuses: &'static [u16],
    pub(super) refuses: &'static [&'static str],
    pub(super) also: fn(&mut Teller),
}

impl Teller {
    fn new() -> Self {
        let settings = || {
            SchemaSettings::draft2020_12().with(|settings| {
                settings.definitions_path = SCHEMAS.into();
                settings.meta_schema = None;
            })
        };
        Self {
            sent: settings().for_deserialize().into_generator(),
            given: settings().for_serialize().into_generator(),
            told: Told::default(),
        }
    }

    /// It may be refused with these.
    pub(super) fn refuse(&mut self, codes: &[&'static str]) {
        self.told.codes.extend(codes);
    }

    /// It reads a header.
    pub(super) fn header(&mut self, name: &str, what: &str, schema: &Value) {
        self.parameter("header", name, false, what, schema);
    }

    /// Who it is may be shown so.
    fn proof(&mut self, name: &'static str) {
        self.told.proofs.push(name);
    }

    fn parameter(&mut self, place: &str, name: &str, required: bool, what: &str, schema: &Value) {
        self.told.parameters.push(json!({
            "in": place,
            "name": name,
            "required": required,
            "description": what,
            "schema": schema,
        }));
    }

    /// Each field of `T` is a parameter of the query.
    fn query<T: JsonSchema>(&mut self) {
        let schema = T::json_schema(&mut self.sent);
        let required: Vec<_> = values(&schema, "required").cloned().collect();
        let fields = schema.get("properties").and_then(Value::as_object).cloned();
        for (name, mut field) in fields.unwrap_or_default() {
            let what = field
                .as_object_mut()
                .and_then(|it| it.remove("description"));
            let what = what.as_ref().and_then(Value::as_str).unwrap_or_default();
            let is_required = required.contains(&json!(name));
            self.parameter("query", &name, is_required, what, &without_null(field));
        }
    }

    /// It reads a body of this type and shape.
    pub(super) fn body(&mut self, kind: &str, schema: &Value) {
        let body = json!({ "required": true, "content": { kind: { "schema": schema } } });
        self.told.body = Some(body);
    }

    /// It answers so, if it does it.
    pub(super) fn answer(&mut self, status: u16, kind: Option<&str>, schema: &Value) {
        let status_text = StatusCode::from_u16(status).ok();
        let text = status_text.and_then(|status| status.canonical_reason());
        let mut answer = json!({ "description": text.unwrap_or_default() });
        if let Some(kind) = kind {
            answer["content"] = json!({ kind: { "schema": schema } });
        }
        self.told.answers.insert(status, answer);
    }

    /// The answer of this status has these headers besides.
    pub(super) fn answer_headers(&mut self, status: u16, headers: &[(&str, &str)]) {
        if let Some(answer) = self.told.answers.get_mut(&status) {
            let headers = headers.iter().map(|(name, what)| {
                let header = json!({ "description": what, "schema": { "type": "string" } });
                ((*name).to_owned(), header)
            });
            answer["headers"] = headers.collect::<Map<_, _>>().into();
        }
    }

    /// The statuses of what goes well.
    fn statuses(&self) -> &'static [u16] {
        match self.told.statuses {
            [] => &[200],
            statuses => statuses,
        }
    }

    fn tell(&mut self, path: &'static str, operation: &Operation) -> Value {
        self.told = Told {
            path,
            statuses: operation.statuses,
            ..Told::default()
        };
        self.refuse(ALWAYS);
        self.refuse(operation.refuses);
        (operation.describe)(self);
        (operation.also)(self);
        let mut told = std::mem::take(&mut self.told);
        for (status, codes) in by_status(&told.codes) {
            told.answers.insert(status, refusal(&codes));
        }
        let answers = told.answers.into_iter();
        let mut shown = json!({
            "operationId": id_of(&operation.method, path),
            "tags": [tag_of(operation.name)],
            "summary": operation.summary,
            "responses": answers.map(|(status, it)| (status.to_string(), it)).collect::<Map<_, _>>(),
        });
        if !told.parameters.is_empty() {
            shown["parameters"] = told.parameters.into();
        }
        if let Some(body) = told.body {
            shown["requestBody"] = body;
        }
        if !told.proofs.is_empty() {
            let proofs = told.proofs.into_iter();
            shown["security"] = proofs.map(|proof| json!({ proof: [] })).collect();
        }
        shown
    }
}

/// The document of these routes.
pub(super) fn document<'a>(
    operations: impl Iterator<Item = (&'static str, &'a Operation)>,
) -> Value {
    let mut teller = Teller::new();
    let mut paths = Map::new();
    for (path, operation) in operations {
        let told = teller.tell(path, operation);
        let method = operation.method.as_str().to_lowercase();
        let at = paths.entry(plain(path)).or_insert_with(|| json!({}));
        at[method] = told;
    }
    let problem = teller.given.subschema_for::<Problem>();
    let mut schemas = teller.sent.take_definitions(true);
    schemas.extend(teller.given.take_definitions(true));
    debug_assert!(!problem.as_value().is_null(), "every refusal refers to it");
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "cw relay",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Introduces the nodes of a network to each other. What is refused is \
                told as application/problem+json, with a code that never changes and a hint.",
            "license": { "name": "MIT", "identifier": "MIT" },
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": { "schemas": schemas, "securitySchemes": proofs() },
    })
}

fn proofs() -> Value {
    let node = format!(
        "{SCHEME} <network>.<key>.<time>.<nonce>.<body>.<signature>: a request that a node has \
         signed, for itself and its owner"
    );
    json!({
        "token": {
            "type": "http",
            "scheme": "bearer",
            "description": "the relay's own token, or that of a login",
        },
        "node": { "type": "apiKey", "in": "header", "name": "Authorization", "description": node },
        "page": {
            "type": "apiKey",
            "in": "cookie",
            "name": "cw_page",
            "description": "a browser that has signed in at the status page; __Host-cw_page over TLS",
        },
    })
}

/// The path as OpenAPI has it: what goes on to the end is a parameter like others.
pub(super) fn plain(path: &str) -> String {
    path.replace("{*", "{")
}

fn by_status<'a>(codes: &BTreeSet<&'a str>) -> BTreeMap<u16, Vec<&'a str>> {
    let mut by_status: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
    for code in codes {
        // One that is not among them is told nowhere, and the tests fail.
        if let Some((status, _)) = codes::known(code) {
            by_status.entry(status).or_default().push(code);
        }
    }
    by_status
}

fn refusal(codes: &[&str]) -> Value {
    let all = json!({ "$ref": format!("#{SCHEMAS}/Problem") });
    let these = json!({ "properties": { "code": { "enum": codes } } });
    json!({
        "description": codes.join(", "),
        "content": { PROBLEM: { "schema": { "allOf": [all, these] } } },
    })
}

/// `get_networks_id_members`.
fn id_of(method: &Method, path: &str) -> String {
    let path = path.strip_prefix("/api/v1").unwrap_or(path);
    let words = path.split(|c: char| !c.is_ascii_alphanumeric());
    let words = words.filter(|word| !word.is_empty());
    let mut id = method.as_str().to_lowercase();
    for word in words {
        id.push('_');
        id.push_str(word);
    }
    id
}

/// The module of a handler, as `std::any::type_name` has it.
fn tag_of(name: &str) -> &str {
    name.rsplit("::").nth(1).unwrap_or_default()
}

fn values<'a>(schema: &'a Schema, name: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    schema
        .get(name)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

/// A query says nothing by leaving it out, and cannot say `null`.
fn without_null(mut schema: Value) -> Value {
    let is_null = |it: &Value| *it == json!("null") || *it == json!({ "type": "null" });
    for list in ["type", "anyOf"] {
        if let Some(Value::Array(kinds)) = schema.get_mut(list) {
            kinds.retain(|kind| !is_null(kind));
            if list == "type" && kinds.len() == 1 {
                schema[list] = kinds.remove(0);
            }
        }
    }
    if let Some(fields) = schema.as_object_mut() {
        fields.remove("default");
    }
    schema
}
