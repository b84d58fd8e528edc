//! The catalogue of definitions: from files and as they were put; and launching one.

use super::start::check_name;
use super::{Caller, Supervisor};
use crate::engine::{json_text, now};
use crate::task::params;
use crate::{Error, Result, redact};
use castra_proto::api::Scope;
use castra_proto::task::{
    Catalogue, Definition, DefinitionFault, KnownDefinition, Launch, Overlap, ScheduleSpec,
};
use castra_proto::{ErrorCode, Task, TaskId, TaskSpec};
use castra_store::DefinitionRow;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What a definition's tasks are known by.
pub(super) const LABEL: &str = "definition";
/// Bytes of a title, a description, a warning.
const LONGEST: usize = 10_000;

/// Definitions by name, with their secret values.
struct Known {
    items: BTreeMap<String, KnownDefinition>,
    faults: Vec<DefinitionFault>,
}

impl Supervisor {
    /// All definitions, as the files are now. Whatever is wrong with one is said, and stands in nobody's way.
    pub async fn catalogue(&self) -> Result<Catalogue> {
        let mut known = self.known_definitions().await?;
        let items = known.items.values_mut();
        items.for_each(|one| one.definition.task = redact::split_task(&one.definition.task).0);
        Ok(Catalogue { items: known.items.into_values().collect(), faults: known.faults, read_at: now() })
    }

    /// Errors: `not_found`.
    pub async fn definition(&self, name: &str) -> Result<KnownDefinition> {
        let mut found = self.known_definition(name).await?;
        found.definition.task = redact::split_task(&found.definition.task).0;
        Ok(found)
    }

    /// Makes it, or puts another in its place.
    ///
    /// Errors: `invalid_request`; `conflict` when a file has this name.
    pub async fn put_definition(
        &self,
        name: &str,
        definition: Definition,
        caller: &Caller,
    ) -> Result<KnownDefinition> {
        if definition.name.as_ref().is_some_and(|own| own != name) {
            return Err(invalid(format!("the path says {name:?}, and the definition another `name`")));
        }
        let definition = Definition { name: None, ..definition };
        check_definition(name, &definition).map_err(invalid)?;
        if let Some(file) = self.known_definitions().await?.items.remove(name).and_then(|known| known.file) {
            return Err(Error::with_hint(
                ErrorCode::Conflict,
                format!("{name:?} is defined in {file}"),
                "change that file, or choose another name",
            ));
        }
        let (task, secrets) = redact::split_task(&definition.task);
        redact::refuse_masked(secrets.as_ref())?;
        let row = DefinitionRow {
            name: name.into(),
            definition: json_text(&Definition { task, ..definition })?,
            by: caller.by.clone(),
            updated_at: now(),
        };
        self.engine.store.put_definition(row, secrets).await?;
        self.definition(name).await
    }

    /// Its tasks go on. Errors: `not_found`; `conflict` when a file has it.
    pub async fn remove_definition(&self, name: &str) -> Result<()> {
        if let Some(file) = self.known_definition(name).await?.file {
            return Err(Error::with_hint(
                ErrorCode::Conflict,
                format!("{name:?} is defined in {file}"),
                "remove that file",
            ));
        }
        self.engine.store.delete_definition(name).await?;
        self.known_definitions().await.map(drop)
    }

    /// A task of this definition. What it may do is decided by who launches it, not by who defined it.
    ///
    /// Errors: `not_found`; `conflict` for a warning that was not confirmed; those of `create_task`.
    pub async fn launch_definition(
        &self,
        name: &str,
        launch: Launch,
        key: Option<&str>,
        caller: &Caller,
    ) -> Result<Task> {
        let definition = self.known_definition(name).await?.definition;
        if let Some(warning) = definition.warning.as_ref().filter(|_| !launch.confirmed) {
            return Err(Error::with_hint(
                ErrorCode::Conflict,
                format!("{name} has a warning: {warning}"),
                "`confirmed: true`, or `castra task launch --yes`, says that it was read",
            ));
        }
        let mut spec = filled(name, definition, launch.values);
        spec.name = launch.task_name.or(spec.name);
        spec.client_id = launch.client_id.or(spec.client_id);
        self.create_task(spec, key, caller).await
    }

    /// The task that a launch of this definition would be.
    pub(super) async fn task_of_definition(
        &self,
        name: &str,
        values: BTreeMap<String, Value>,
    ) -> Result<TaskSpec> {
        Ok(filled(name, self.known_definition(name).await?.definition, values))
    }

    /// Errors: `forbidden` where its definition says so, but for admins.
    pub(super) async fn may_cancel(&self, id: TaskId, caller: &Caller) -> Result<()> {
        if caller.scope == Scope::Admin {
            return Ok(());
        }
        let Some(row) = self.engine.store.task(id).await? else { return Ok(()) };
        let Some(name) = row.labels.get(LABEL).filter(|_| !row.state.is_final()) else { return Ok(()) };
        match self.known_definition(name).await {
            Ok(known) if known.definition.cancellable == Some(false) => Err(Error::with_hint(
                ErrorCode::Forbidden,
                format!("tasks of the definition {name} are not to be cancelled"),
                "a token with the scope `admin` may",
            )),
            Err(error) if error.problem().code != ErrorCode::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    async fn known_definition(&self, name: &str) -> Result<KnownDefinition> {
        self.known_definitions().await?.items.remove(name).ok_or_else(|| {
            Error::with_hint(
                ErrorCode::NotFound,
                format!("there is no definition {name:?}"),
                "`castra task definitions -a` lists all",
            )
        })
    }

    /// From the files as they are now, and from the store. What they say of concurrency holds from here on.
    async fn known_definitions(&self) -> Result<Known> {
        let mut known = Known { items: BTreeMap::new(), faults: Vec::new() };
        for row in self.engine.store.definitions().await? {
            let mut definition: Definition = serde_json::from_str(&row.definition).map_err(|error| {
                let detail = format!("the stored definition {:?} cannot be read: {error}", row.name);
                Error::new(ErrorCode::Internal, detail)
            })?;
            let secrets = self.engine.store.definition_secrets(&row.name).await?;
            definition.task = redact::restore_task(definition.task, secrets)?;
            let one = KnownDefinition { name: row.name.clone(), file: None, by: Some(row.by), definition };
            known.items.insert(row.name, one);
        }
        if let Some(files) = self.engine.config.definitions.clone() {
            let read = tokio::task::spawn_blocking(move || files.read())
                .await
                .map_err(|_| Error::new(ErrorCode::Internal, "the files of definitions could not be read"))?;
            known.faults = read.faults;
            for (file, definition) in read.found {
                known.add(file, definition);
            }
        }
        self.set_limits(&known).await?;
        Ok(known)
    }

    /// What definitions and schedules say of how many of their tasks may run at once.
    pub(crate) async fn read_limits(&self) -> Result<()> {
        self.known_definitions().await.map(drop)
    }

    async fn set_limits(&self, known: &Known) -> Result<()> {
        let mut limits: BTreeMap<String, usize> = (known.items.iter())
            .filter_map(|(name, one)| {
                Some((format!("{LABEL}={name}"), one.definition.max_concurrency? as usize))
            })
            .collect();
        for row in self.engine.store.schedules().await? {
            let spec: Option<ScheduleSpec> = serde_json::from_str(&row.spec).ok();
            if spec.is_some_and(|spec| spec.overlap == Overlap::Queue) {
                limits.insert(format!("{}={}", super::schedules::LABEL, row.name), 1);
            }
        }
        self.engine.tasks.set_limits(limits);
        Ok(())
    }
}

impl Known {
    fn add(&mut self, file: String, definition: Definition) {
        let name = definition.name.clone().unwrap_or_default();
        let problem = match self.items.get(&name) {
            Some(KnownDefinition { file: Some(other), .. }) => {
                Some(format!("{name:?} is defined in {other}"))
            }
            Some(_) => Some(format!("a definition {name:?} was put, and stands before this one")),
            None => check_definition(&name, &definition).err(),
        };
        match problem {
            Some(problem) => self.faults.push(DefinitionFault { file, problem }),
            None => {
                let one = KnownDefinition { name: name.clone(), file: Some(file), by: None, definition };
                self.items.insert(name, one);
            }
        }
    }
}

fn invalid(detail: String) -> Error {
    Error::with_hint(ErrorCode::InvalidRequest, detail, "docs/tasks.md says what a definition has")
}

/// What is wrong with it, apart from what only a launch can show.
fn check_definition(name: &str, definition: &Definition) -> std::result::Result<(), String> {
    check_name(name)
        .map_err(|_| format!("{name:?} cannot be a name: letters, digits, `.`, `_` and `-`, at most 64"))?;
    params::declared(&definition.task.params)
        .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
    if definition.max_concurrency == Some(0) {
        return Err(
            "`max_concurrency` is 0: nothing would ever run; `hidden`, or a launch block, may be meant"
                .into(),
        );
    }
    let texts = [
        ("title", &definition.title),
        ("description", &definition.description),
        ("warning", &definition.warning),
    ];
    match texts.iter().find(|(_, text)| text.as_ref().is_some_and(|text| text.len() > LONGEST)) {
        Some((field, _)) => Err(format!("`{field}` is longer than {LONGEST} bytes")),
        None => Ok(()),
    }
}

/// Its task with these values, under its label and with its title.
fn filled(name: &str, definition: Definition, values: BTreeMap<String, Value>) -> TaskSpec {
    let mut spec = definition.task;
    spec.values.extend(values);
    spec.labels.insert(LABEL.into(), name.into());
    // Values that are refused are refused when the task is made.
    let given = params::check(&spec.params, &spec.values);
    if let (Some(title), Ok(given)) = (definition.title, given) {
        let title = params::expand(&title, &given);
        match &mut spec.metadata {
            None | Some(Value::Null) => spec.metadata = Some(json!({ "title": title })),
            Some(Value::Object(fields)) => drop(fields.entry("title").or_insert_with(|| json!(title))),
            // Metadata of another shape has no place for it.
            Some(_) => {}
        }
    }
    spec
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(value: Value) -> Definition {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_launch_has_label_values_and_title() {
        let template = definition(json!({
            "title": "About {{what}}, {{n}} times",
            "task": {
                "instructions": "Write about {{what}}",
                "params": {"what": {"kind": "text", "required": true}, "n": {"kind": "number", "default": 2}},
                "labels": {"team": "blue"},
                "metadata": {"cost": 1},
            },
        }));
        let spec = filled("report", template.clone(), BTreeMap::from([("what".into(), json!("doors"))]));
        let labels: Vec<_> =
            spec.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(labels, [("definition", "report"), ("team", "blue")]);
        assert_eq!(spec.metadata, Some(json!({"cost": 1, "title": "About doors, 2 times"})));
        assert_eq!(spec.values, BTreeMap::from([("what".into(), json!("doors"))]));
        // Without what is needed there is no title; creating it says what is missing.
        assert_eq!(filled("report", template, BTreeMap::new()).metadata, Some(json!({"cost": 1})));
    }

    #[test]
    fn of_two_with_one_name_the_first_stands_and_the_other_is_told() {
        let mut known = Known { items: BTreeMap::new(), faults: Vec::new() };
        let named = |name: &str| definition(json!({"name": name, "task": {"instructions": "x"}}));
        known.add("/a/report.yaml".into(), named("report"));
        known.add("/b/report.toml".into(), named("report"));
        known.add("/b/no name.toml".into(), named("no name"));
        let none = definition(json!({"name": "none", "max_concurrency": 0, "task": {"instructions": "x"}}));
        known.add("/b/none.toml".into(), none);
        assert_eq!(known.items.keys().collect::<Vec<_>>(), ["report"]);
        let files: Vec<&str> = known.faults.iter().map(|fault| fault.file.as_str()).collect();
        assert_eq!(files, ["/b/report.toml", "/b/no name.toml", "/b/none.toml"]);
        assert!(known.faults[0].problem.contains("/a/report.yaml"));
    }
}
