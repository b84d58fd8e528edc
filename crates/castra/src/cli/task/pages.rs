//! `castra task schema` and `protocol`, `castra team schema`: pages made from the code itself.

use crate::http::document;
use castra_supervisor::task::protocol::Enabled;
use castra_supervisor::task::protocol::text::{Channels, Paths, protocol as page};
use serde_json::{Map, Value, json};

const IN_DOCUMENT: &str = "#/components/schemas/";

/// The JSON Schema of a task file: TaskSpec of the API.
fn schema() -> Value {
    schema_of("TaskSpec", "A task of castra")
}

/// Of a type of the API, whole in itself.
fn schema_of(name: &str, title: &str) -> Value {
    let schemas = &document()["components"]["schemas"];
    let mut definitions = Map::new();
    let mut root = schemas[name].clone();
    let mut wanted = Vec::new();
    move_references(&mut root, &mut wanted);
    while let Some(name) = wanted.pop() {
        if !definitions.contains_key(&name) {
            let mut schema = schemas[&name].clone();
            move_references(&mut schema, &mut wanted);
            definitions.insert(name, schema);
        }
    }
    definitions.sort_keys();
    root["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    root["title"] = json!(title);
    root["$defs"] = definitions.into();
    root
}

pub(super) fn schema_text() -> String {
    format!("{:#}\n", schema())
}

/// Of a team file: TeamSpec of the API.
pub(in crate::cli) fn team_schema() -> String {
    format!("{:#}\n", schema_of("TeamSpec", "A team of castra"))
}

fn move_references(schema: &mut Value, wanted: &mut Vec<String>) {
    match schema {
        Value::Object(object) => {
            if let Some(Value::String(reference)) = object.get_mut("$ref")
                && let Some(name) = reference.strip_prefix(IN_DOCUMENT).map(str::to_owned)
            {
                *reference = format!("#/$defs/{name}");
                wanted.push(name);
            }
            object.values_mut().for_each(|value| move_references(value, wanted));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| move_references(value, wanted)),
        _ => {}
    }
}

/// What an agent is told of reporting, with every keyword.
pub(super) fn protocol() -> String {
    let all = Enabled { browser: true, client_messages: true, caller_messages: true };
    page(Channels { log: true, mcp: true }, &all, &Paths::fresh(), "CODE")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_schemas_are_the_generated_ones() {
        for (name, text) in [("task", schema_text()), ("team", team_schema())] {
            let path = format!("{}/../../docs/{name}.schema.json", env!("CARGO_MANIFEST_DIR"));
            if std::env::var_os("UPDATE").is_some() {
                std::fs::write(&path, &text).unwrap();
            }
            let committed = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(
                committed == text,
                "UPDATE=1 cargo test -p castra --lib schema writes docs/{name}.schema.json"
            );
        }
    }

    #[test]
    fn the_schema_is_whole_in_itself() {
        fn walk(value: &Value, root: &Value) {
            if let Some(reference) = value["$ref"].as_str() {
                assert!(root.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
            }
            value.as_object().into_iter().flatten().for_each(|(_, value)| walk(value, root));
            value.as_array().into_iter().flatten().for_each(|value| walk(value, root));
        }
        let schema = schema();
        walk(&schema, &schema);
        assert_eq!(schema["properties"]["session"]["$ref"], "#/$defs/SessionSpec");
        for of in [&schema, &schema["$defs"]["SessionSpec"]] {
            assert_eq!(of["additionalProperties"], false, "unknown fields are refused");
        }
    }

    #[test]
    fn every_keyword_is_explained() {
        let page = protocol();
        for row in castra_supervisor::task::protocol::table::TABLE {
            assert!(page.contains(row.shape), "{}", row.shape);
        }
    }
}
