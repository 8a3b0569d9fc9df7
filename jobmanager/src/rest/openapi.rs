//! The OpenAPI document, made from the list of routes.

use axum::Json;
use serde_json::{Map, Value, json};

use super::error::Answer;
use super::routes::{self, Field, Route};

/// `GET /openapi.json`
pub(super) async fn document() -> Answer {
    let mut paths: Map<String, Value> = Map::new();
    for route in routes::all() {
        let methods = paths.entry(route.path).or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(methods) = methods {
            methods.insert(route.method.to_string(), operation(&route));
        }
    }
    Ok(Json(json!({
        "openapi": "3.0.3",
        "info": {
            "title": "Thalweg",
            "description": "The paths and shapes are those of Apache Flink's REST API. Every path is served below `/v1` too, and by \
                            every job manager: one that does not lead asks the leader.",
            "version": env!("CARGO_PKG_VERSION"),
        },
        "paths": paths,
        "components": {
            "schemas": {
                "Errors": {
                    "type": "object",
                    "required": ["errors"],
                    "properties": { "errors": { "type": "array", "items": { "type": "string" } } },
                },
            },
        },
    })))
}

fn operation(route: &Route) -> Value {
    let in_path = route.path.split('/').filter_map(|piece| piece.strip_prefix('{')?.strip_suffix('}'));
    let in_path = in_path.map(|name| {
        json!({ "name": name, "in": "path", "required": true, "description": meaning(name), "schema": { "type": "string" } })
    });
    let in_query = route.query.iter().map(|(name, kind, says)| {
        json!({ "name": name, "in": "query", "required": false, "description": says, "schema": { "type": kind } })
    });
    let mut operation = Map::from_iter([
        ("summary".to_string(), route.summary.into()),
        ("parameters".to_string(), in_path.chain(in_query).collect()),
        ("responses".to_string(), responses(route)),
    ]);
    if !route.body.is_empty() {
        let properties: Map<_, _> = route.body.iter().map(property).collect();
        let schema = json!({ "type": "object", "additionalProperties": false, "properties": properties });
        let body = json!({ "content": { "application/json": { "schema": schema } } });
        operation.insert("requestBody".to_string(), body);
    }
    Value::Object(operation)
}

fn property((name, kind, says): &Field) -> (String, Value) {
    ((*name).to_string(), json!({ "type": kind, "nullable": true, "description": says }))
}

fn responses(route: &Route) -> Value {
    let errors = json!({
        "description": "No, with cause and cure",
        "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Errors" } } },
    });
    json!({ "2XX": { "description": route.summary }, "default": errors })
}

/// What an id in a path is.
fn meaning(name: &str) -> &'static str {
    match name {
        "jobid" => "the id of a job: 32 hexadecimal digits",
        "vertexid" => "the id of a vertex of that job, as `/jobs/{jobid}` lists them: 32 hexadecimal digits",
        "subtaskindex" => "the number of a subtask, from 0",
        "checkpointid" => "the number of a checkpoint",
        "triggerid" => "the `request-id` of the request that began it",
        "taskmanagerid" => "the id of a task manager",
        _ => "the id of an uploaded job binary",
    }
}
