//! What a filter sees of a task, and which filters mean something there. Pure.

use super::filter::{self, Filter};
use super::view::TaskView;
use crate::{Error, Result};
use castra_proto::{ErrorCode, TaskId, TaskSpec, TaskState};
use castra_store::TaskRow;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Where a path of a filter may begin.
pub const FIELDS: [&str; 15] = [
    "id",
    "name",
    "state",
    "since",
    "attempt",
    "progress",
    "result",
    "reason",
    "session_id",
    "parent",
    "labels",
    "metadata",
    "priority",
    "created_at",
    "updated_at",
];

/// A filter over tasks, as it came.
///
/// # Errors
/// `invalid_request` with the place that is not understood.
pub fn read(text: &str) -> Result<Filter> {
    let value: Value = serde_json::from_str(text).map_err(|error| {
        Error::with_hint(ErrorCode::InvalidRequest, format!("filter: it is not JSON: {error}"), EXAMPLE)
    })?;
    understand(&value)
}

const EXAMPLE: &str =
    r#"write it like {"labels.team": "blue", "metadata.cost": {"gt": 5}}; docs/tasks.md has the operators"#;

/// The same, read already.
///
/// # Errors
/// As [`read`].
pub fn understand(value: &Value) -> Result<Filter> {
    let refuse = |detail: String, hint: &str| Error::with_hint(ErrorCode::InvalidRequest, detail, hint);
    let filter = filter::parse(value).map_err(|error| refuse(format!("filter: {error}"), EXAMPLE))?;
    for path in filter.paths() {
        let first = path.split('.').next().unwrap_or_default();
        if !FIELDS.contains(&first) {
            let hint = format!(
                "there are {}; of your own things there are labels.{first} and metadata.{first}",
                FIELDS.join(", ")
            );
            return Err(refuse(format!("filter: `{path}`: a task has no `{first}`"), &hint));
        }
    }
    Ok(filter)
}

/// A filter that decides what is ended or held back: one that compares nothing was not meant.
///
/// # Errors
/// As [`read`].
pub(crate) fn deciding(value: &Value) -> Result<Filter> {
    let filter = understand(value)?;
    if filter.paths().is_empty() {
        return Err(Error::with_hint(
            ErrorCode::InvalidRequest,
            "filter: it compares nothing",
            r#"`{"state": {"exists": true}}` means every task"#,
        ));
    }
    Ok(filter)
}

/// A task that is there.
pub(crate) fn of(row: &TaskRow, view: &TaskView) -> Value {
    let mut document = json!({
        "id": row.id,
        "name": row.name,
        "state": row.state,
        "since": view.since,
        "attempt": view.attempt(),
        "progress": view.progress,
        "result": view.result,
        "reason": view.reason.as_ref().map(|reason| reason.code),
        "session_id": row.session,
        "parent": row.parent,
        "priority": row.priority,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
    });
    with(&mut document, &row.labels, &row.metadata);
    document
}

/// A task that is to begin: one that goes on, too, is `queued` then.
pub(crate) fn to_begin(row: &TaskRow) -> Value {
    let mut document = json!({
        "id": row.id, "name": row.name, "state": TaskState::Queued, "parent": row.parent,
        "priority": row.priority, "created_at": row.created_at,
    });
    with(&mut document, &row.labels, &row.metadata);
    document
}

/// A task that is not there yet.
pub(crate) fn to_be(id: TaskId, spec: &TaskSpec) -> Value {
    let mut document = json!({
        "id": id, "name": spec.name, "state": TaskState::Queued, "parent": spec.parent,
        "priority": spec.priority,
    });
    with(&mut document, &spec.labels, spec.metadata.as_ref().unwrap_or(&Value::Null));
    document
}

fn with(document: &mut Value, labels: &BTreeMap<String, String>, metadata: &Value) {
    let Value::Object(fields) = document else { return };
    // No value is no value: `exists` is about what there is.
    fields.retain(|_, value| !value.is_null());
    let mut own = Map::new();
    // A path with dots would go through objects: names with dots of their own stand at the top too.
    for (name, value) in labels.iter().filter(|(name, _)| name.contains('.')) {
        own.insert(format!("labels.{name}"), json!(value));
    }
    for (name, value) in metadata.as_object().into_iter().flatten().filter(|(name, _)| name.contains('.')) {
        own.insert(format!("metadata.{name}"), value.clone());
    }
    fields.extend(own);
    fields.insert("labels".into(), json!(labels));
    if !metadata.is_null() {
        fields.insert("metadata".into(), metadata.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> TaskSpec {
        serde_json::from_value(json!({
            "name": "n",
            "labels": {"team": "blue", "app.io/part": "web"},
            "metadata": {"cost": 7, "a.b": 1, "deep": {"er": [true]}},
            "priority": 3,
        }))
        .unwrap()
    }

    #[test]
    fn a_filter_reaches_what_a_task_has() {
        let document = to_be(TaskId::now(), &spec());
        for (filter, expected) in [
            (json!({"labels.team": "blue"}), true),
            (json!({"labels.team": {"in": ["red"]}}), false),
            (json!({"labels.app.io/part": "web"}), true),
            (json!({"metadata.cost": {"gt": 5}, "priority": {"lte": 3}}), true),
            (json!({"metadata.a.b": 1}), true),
            (json!({"metadata.deep.er.0": true}), true),
            (json!({"state": "queued", "name": {"ne": "m"}}), true),
            (json!({"parent": {"exists": false}}), true),
            (json!({"not": {"metadata.cost": {"exists": true}}}), false),
            (json!({"or": [{"state": "done"}, {"labels.team": "blue"}]}), true),
            (json!({"and": []}), true),
        ] {
            assert_eq!(understand(&filter).unwrap().matches(&document), expected, "{filter}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_place() {
        for (text, part) in [
            ("{", "not JSON"),
            ("[]", "a filter is an object, not an array"),
            (r#"{"team": "blue"}"#, "`team`: a task has no `team`"),
            (r#"{"or": [{"state": "x"}, {"label.team": "blue"}]}"#, "`label.team`"),
            (r#"{"priority": {"above": 3}}"#, "`priority`: unknown operator `above`"),
        ] {
            let problem = read(text).unwrap_err().problem();
            assert!(problem.detail.contains(part) && problem.hint.is_some(), "{text}: {problem:?}");
            assert_eq!(problem.code, ErrorCode::InvalidRequest);
        }
        for nothing in [json!({"and": []}), json!({"not": {"or": []}})] {
            assert!(deciding(&nothing).unwrap_err().problem().detail.contains("compares nothing"));
        }
        assert!(deciding(&json!({"state": {"exists": true}})).is_ok());
    }
}
