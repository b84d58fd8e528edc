//! The document holds what it says: complete, resolvable, and the same as the pages in docs/.

use super::*;
use crate::http::errors_markdown;
use crate::http::table::{Entry, Operation, Table};
use castra_proto::api::Scope;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

fn docs(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name)
}

/// Compares with a committed file; with UPDATE=1 writes it.
fn holds(name: &str, text: &str) {
    let path = docs(name);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == text,
        "docs/{name} is not what the code says; UPDATE=1 cargo test -p castra --lib http:: writes it"
    );
}

#[test]
fn the_committed_document_is_the_generated_one() {
    holds("openapi.json", &format!("{}\n", serde_json::to_string_pretty(document()).unwrap()));
}

#[test]
fn the_page_of_errors_is_the_table_of_codes() {
    holds("errors.md", &errors_markdown());
}

/// The rows of the table of routes in docs/api.md: `| METHOD path | scope | … |`.
fn rows() -> BTreeSet<(String, String, String)> {
    let page = std::fs::read_to_string(docs("api.md")).unwrap();
    let mut rows = BTreeSet::new();
    for line in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = line.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let Some((method, path)) =
            cells[1].split_once(' ').filter(|(method, _)| method.chars().all(char::is_uppercase))
        else {
            continue;
        };
        assert!(rows.insert((method.into(), path.into(), cells[2].into())), "twice: {line}");
    }
    rows
}

#[test]
fn the_table_for_people_has_every_route_and_its_scope() {
    let table = Table::of_document(document());
    let scope = |of: &Operation| if of.entry == Entry::Open { "none" } else { of.scope.as_str() };
    let routes = table.iter().map(|(method, path, of)| (method.into(), path.into(), scope(of).into()));
    assert_eq!(rows(), routes.collect());
}

fn operations() -> impl Iterator<Item = (String, &'static Value)> {
    let paths = document()["paths"].as_object().unwrap();
    paths.iter().flat_map(|(path, item)| {
        item.as_object()
            .unwrap()
            .iter()
            .map(move |(method, operation)| (format!("{method} {path}"), operation))
    })
}

#[test]
fn every_operation_says_what_it_is() {
    let mut ids = BTreeMap::new();
    for (name, operation) in operations() {
        assert!(
            operation["summary"].as_str().is_some_and(|summary| summary.ends_with('.')),
            "{name}: summary"
        );
        assert!(operation["tags"].as_array().is_some_and(|tags| tags.len() == 1), "{name}: tag");
        // Stated, not the default of the gate; or stated that none is needed.
        let scope = operation["security"][0]["token"][0].as_str().and_then(Scope::parse);
        assert!(scope.is_some() || operation["security"] == serde_json::json!([{}]), "{name}: scope");
        let responses = operation["responses"].as_object().unwrap();
        assert_eq!(responses["default"]["$ref"], "#/components/responses/Problem", "{name}");
        assert!(responses.keys().any(|status| status.starts_with('2')), "{name}: success");
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let described = parameter["description"].as_str().is_some_and(|text| !text.is_empty());
            assert!(described, "{name}: {}", parameter["name"]);
        }
        let path = name.split(' ').nth(1).unwrap();
        let expected: Vec<_> =
            path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let in_path: Vec<_> = parameters
            .filter(|parameter| parameter["in"] == "path")
            .map(|p| p["name"].as_str().unwrap())
            .collect();
        assert_eq!(in_path, expected, "{name}");
        let id = operation["operationId"].as_str().unwrap();
        assert_eq!(ids.insert(id, name.clone()), None, "{name}: {id} twice");
    }
}

#[test]
fn every_reference_leads_somewhere() {
    fn walk(value: &Value) {
        match value {
            Value::Object(object) => {
                if let Some(Value::String(reference)) = object.get("$ref") {
                    let pointer = reference.strip_prefix('#').unwrap();
                    assert!(document().pointer(pointer).is_some(), "{reference}");
                }
                object.values().for_each(walk);
            }
            Value::Array(items) => items.iter().for_each(walk),
            _ => {}
        }
    }
    assert!(document()["openapi"].as_str().unwrap().starts_with("3.1."));
    walk(document());
}

#[test]
fn defaults_are_in_it() {
    let spec = &document()["components"]["schemas"]["SessionSpec"]["properties"];
    let expected = [
        ("mode", json!("stream")),
        ("home", json!("isolated")),
        ("permission_mode", json!("default")),
        ("sandbox", json!("auto")),
        ("idle_after_s", json!(60)),
        ("start_timeout_s", json!(30)),
        ("partials", json!(true)),
        ("demo", json!(false)),
        ("nudges", json!(0)),
        ("allowed_tools", json!([])),
        ("env", json!({})),
        ("limits", json!({})),
        ("model", Value::Null),
    ];
    for (field, default) in expected {
        assert_eq!(spec[field].get("default"), Some(&default), "{field}");
    }
    let message = &document()["components"]["schemas"]["SendMessage"]["properties"];
    assert_eq!(message["if_busy"]["default"], "queue");
    let parameters = document()["paths"]["/api/v1/sessions"]["get"]["parameters"].as_array().unwrap();
    let limit = parameters.iter().find(|parameter| parameter["name"] == "limit").unwrap();
    assert_eq!(limit["schema"]["default"], 50);
}
