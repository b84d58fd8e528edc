//! `castra task schema` and `protocol`: pages made from the code itself.

use crate::http::document;
use castra_supervisor::task::protocol::Enabled;
use castra_supervisor::task::protocol::text::{Channels, Paths, protocol as page};
use serde_json::{Map, Value, json};

const IN_DOCUMENT: &str = "#/components/schemas/";

/// The JSON Schema of a task file: TaskSpec of the API, whole in itself.
pub(super) fn schema() -> Value {
    let schemas = &document()["components"]["schemas"];
    let mut definitions = Map::new();
    let mut root = schemas["TaskSpec"].clone();
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
    root["title"] = json!("A task of castra");
    root["$defs"] = definitions.into();
    root
}

pub(super) fn schema_text() -> String {
    format!("{:#}\n", schema())
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
    fn the_published_schema_is_the_generated_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/task.schema.json");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, schema_text()).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == schema_text(),
            "UPDATE=1 cargo test -p castra --lib schema writes docs/task.schema.json"
        );
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
