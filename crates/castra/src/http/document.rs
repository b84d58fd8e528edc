//! The OpenAPI document: what the routes say of themselves, completed by what holds for all of them.

use super::api::Api;
use super::routes;
use bytes::Bytes;
use castra_proto::Problem;
use serde_json::{Value, json};
use std::sync::LazyLock;
use utoipa::PartialSchema;

/// What a name in a path means.
const PATH_NAMES: [(&str, &str); 11] = [
    ("id", "The id of a session, task or team, a unique prefix of it (4 characters or more), or its name"),
    ("agent", "The name of an agent of the team"),
    ("path", "A path below `deliverables/`, its slashes as they are"),
    ("name", "A definition's name; of a schedule its name or id"),
    ("block_id", "A launch block's id"),
    ("message_id", "A message's id"),
    ("request_id", "A permission request's id, as claude gave it"),
    ("transcript_id", "claude's own session id"),
    ("token_id", "A token's id"),
    ("version", "A version, e.g. 2.1.197; of the built-in page's files, their hash"),
    ("file", "A name of a file"),
];

/// The document, as `GET /api/v1/openapi.json` serves it and docs/openapi.json holds it.
pub fn document() -> &'static Value {
    static DOCUMENT: LazyLock<Value> = LazyLock::new(complete);
    &DOCUMENT
}

/// The document's text.
pub(super) fn text() -> Bytes {
    static TEXT: LazyLock<Bytes> =
        LazyLock::new(|| serde_json::to_vec(document()).unwrap_or_default().into());
    TEXT.clone()
}

fn complete() -> Value {
    let (_, from_routes) = routes::all::<Api>().split_for_parts();
    let mut document = serde_json::to_value(from_routes).unwrap_or_default();
    document["info"] = json!({
        "title": "castra",
        "description": "Claude Code as supervised sessions and tasks. See docs/api.md.",
        "version": env!("CARGO_PKG_VERSION"),
        "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
    });
    let components = &mut document["components"];
    components["securitySchemes"] = json!({"token": {
        "type": "http",
        "scheme": "bearer",
        "description": "`castra token create` makes one. The role is the least scope: read < drive < approve < admin.",
    }});
    components["schemas"]["Problem"] = serde_json::to_value(Problem::schema()).unwrap_or_default();
    components["responses"] = json!({"Problem": {
        "description": "What went wrong; docs/errors.md lists the codes",
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }});
    if let Some(paths) = document["paths"].as_object_mut() {
        // OpenAPI knows no mark for a name that may have slashes in it.
        *paths = std::mem::take(paths).into_iter().map(|(path, of)| (path.replace("{*", "{"), of)).collect();
    }
    for (path, item) in document["paths"].as_object_mut().into_iter().flatten() {
        for operation in item.as_object_mut().into_iter().flatten().map(|(_, operation)| operation) {
            // Handlers are named within their module; an operation's id is unique in the document.
            let (tag, name) = (operation["tags"][0].as_str(), operation["operationId"].as_str());
            operation["operationId"] =
                format!("{}_{}", tag.unwrap_or_default(), name.unwrap_or_default()).into();
            operation["responses"]["default"] = json!({"$ref": "#/components/responses/Problem"});
            name_parameters(path, operation);
        }
    }
    document
}

fn name_parameters(path: &str, operation: &mut Value) {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let mut parameters: Vec<Value> = names
        .map(|name| {
            let description = PATH_NAMES.iter().find(|(known, _)| *known == name).map_or("", |(_, text)| *text);
            json!({"name": name, "in": "path", "required": true, "description": description, "schema": {"type": "string"}})
        })
        .collect();
    if let Some(others) = operation["parameters"].as_array() {
        parameters.extend(others.iter().cloned());
    }
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
}

#[cfg(test)]
#[path = "tests/document.rs"]
mod tests;
