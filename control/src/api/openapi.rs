//! The OpenAPI 3.1 document, collected from the routes as they are registered. Its schemas are those that the
//! handlers' own types derive.

use serde_json::{Map, Value, json};

use crate::domain::roles::{Verb, roles_for};

/// A route with its types.
pub(super) struct Operation<'a> {
    pub method: &'static str,
    pub path: &'static str,
    pub verb: Verb,
    pub summary: &'static str,
    pub query: &'a Value,
    pub body: RequestBody,
    /// `None` for answers that are not JSON.
    pub answer: Option<Value>,
}

/// What a route reads.
pub(super) enum RequestBody {
    None,
    /// JSON of this schema.
    Json(Value),
    Bytes,
}

/// The document under construction.
pub(super) struct Document {
    paths: Map<String, Value>,
}

impl Document {
    pub(super) fn new() -> Self {
        Self { paths: Map::new() }
    }

    pub(super) fn add(&mut self, operation: &Operation<'_>) {
        let path = format!(
            "{}{}",
            super::registry::BASE,
            operation.path.replace('*', "")
        );
        let methods = self
            .paths
            .entry(path)
            .or_insert_with(|| Value::Object(Map::new()));
        methods[operation.method.to_lowercase()] = described(operation);
    }

    pub(super) fn finish(self, schemas: &Map<String, Value>) -> Value {
        json!({
            "openapi": "3.1.0",
            "info": {
                "title": "Sluice control plane",
                "version": env!("CARGO_PKG_VERSION"),
                "description": "Records, states and decisions. Every refusal is an RFC 9457 problem. Writes take an Idempotency-Key; changes take If-Match with the ETag of what was read. x-verb names the right that an operation takes, x-roles who has it.",
                "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
            },
            "servers": [{ "url": "/" }],
            "security": [{ "bearer": [] }, {}],
            "paths": self.paths,
            "components": {
                "schemas": schemas,
                "securitySchemes": { "bearer": { "type": "http", "scheme": "bearer" } },
            },
        })
    }
}

fn described(operation: &Operation<'_>) -> Value {
    let roles: Vec<&str> = roles_for(operation.verb)
        .iter()
        .map(|role| role.word())
        .collect();
    let mut described = json!({
        "operationId": operation_id(operation),
        "summary": operation.summary,
        "tags": [operation.path.split('/').nth(1).unwrap_or("")],
        "parameters": parameters(operation),
        "responses": responses(operation),
        "x-verb": operation.verb,
        "x-roles": roles,
    });
    match &operation.body {
        RequestBody::None => {}
        RequestBody::Json(schema) => {
            let required = schema.get("required").is_some() || schema.get("$ref").is_some();
            described["requestBody"] = json!({
                "required": required,
                "content": { "application/json": { "schema": schema } },
            });
        }
        // OpenAPI 3.1 leaves the schema of what is no JSON away.
        RequestBody::Bytes => {
            described["requestBody"] = json!({
                "required": true,
                "content": { "application/octet-stream": {} },
            });
        }
    }
    described
}

/// `get_models_by_model_versions`.
fn operation_id(operation: &Operation<'_>) -> String {
    let path = operation
        .path
        .trim_matches('/')
        .replace('/', "_")
        .replace('{', "by_")
        .replace(['}', '.', '*'], "");
    format!("{}_{path}", operation.method.to_lowercase())
}

fn parameters(operation: &Operation<'_>) -> Vec<Value> {
    let mut all: Vec<Value> = operation
        .path
        .split('/')
        .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| name.trim_start_matches('*'))
        .map(|name| {
            json!({ "name": name, "in": "path", "required": true, "description": "An id, or a name where names are unique.",
                    "schema": { "type": "string", "minLength": 1 } })
        })
        .collect();
    let required = operation.query["required"].as_array();
    if let Some(fields) = operation.query["properties"].as_object() {
        all.extend(fields.iter().map(|(name, schema)| {
            let needed = required.is_some_and(|required| required.iter().any(|it| it == name));
            json!({ "name": name, "in": "query", "required": needed, "schema": not_null(schema) })
        }));
    }
    // A PUT that is repeated does the same by itself.
    if !["GET", "PUT"].contains(&operation.method) {
        all.push(json!({ "name": "Idempotency-Key", "in": "header", "required": false,
                         "schema": { "type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[!-~]+$" } }));
    }
    if reads_a_record(operation) {
        all.push(
            json!({ "name": "If-None-Match", "in": "header", "required": false,
                         "description": "The ETag of what is known; 304 if it is still that.",
                         "schema": { "type": "string" } }),
        );
    }
    if ["PATCH", "DELETE"].contains(&operation.method) {
        all.push(
            json!({ "name": "If-Match", "in": "header", "required": false,
                         "schema": { "type": "string", "pattern": "^\"[0-9]{1,18}\"$" } }),
        );
    }
    all
}

/// Whether the answer is one record, with an `ETag`.
fn reads_a_record(operation: &Operation<'_>) -> bool {
    let named = operation.answer.as_ref();
    let named = named.and_then(|schema| schema["$ref"].as_str());
    operation.method == "GET" && named.is_some_and(|it| it.ends_with("Record"))
}

/// A parameter is absent rather than null.
fn not_null(schema: &Value) -> Value {
    let mut schema = schema.clone();
    if let Some(kinds) = schema["type"].as_array() {
        let kinds: Vec<&Value> = kinds.iter().filter(|kind| *kind != "null").collect();
        schema["type"] = match kinds.as_slice() {
            [one] => (*one).clone(),
            several => json!(several),
        };
    }
    if let Some(choices) = schema["anyOf"].as_array() {
        let choices: Vec<Value> = choices
            .iter()
            .filter(|choice| choice["type"] != "null")
            .cloned()
            .collect();
        schema["anyOf"] = Value::Array(choices);
    }
    schema
}

fn responses(operation: &Operation<'_>) -> Value {
    let problem = json!({
        "description": "A problem",
        "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } },
    });
    let mut responses = Map::new();
    let nothing = operation
        .answer
        .as_ref()
        .is_some_and(|schema| schema["$ref"] == "#/components/schemas/Nothing");
    match &operation.answer {
        None => {
            let media = match operation.path.rsplit('/').next() {
                Some("events") => "text/event-stream",
                Some("docs") => "text/html",
                Some("{*path}") => "application/octet-stream",
                _ => "application/json",
            };
            let success = json!({ "description": "Success", "content": { media: {} } });
            if media == "application/octet-stream" {
                responses.insert("206".into(), success.clone());
            }
            responses.insert("200".into(), success);
        }
        Some(_) if nothing => {
            responses.insert("204".into(), json!({ "description": "Done" }));
        }
        Some(schema) => {
            let success = json!({ "description": "Success", "content": { "application/json": { "schema": schema } } });
            responses.insert("200".into(), success.clone());
            if reads_a_record(operation) {
                responses.insert("304".into(), json!({ "description": "Not modified" }));
            }
            if operation.method == "POST" {
                responses.insert("201".into(), success);
            }
        }
    }
    responses.insert("default".into(), problem);
    Value::Object(responses)
}
