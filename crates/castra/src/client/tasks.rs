//! The calls on tasks. `task` may be an id, a unique prefix or a name.

use super::api::{Download, V1};
use super::{Call, Client, Error, escape};
use bytes::Bytes;
use castra_proto::api::Page;
use castra_proto::task::{CancelTask, Level, LogLine, TaskTree, Uploaded};
use castra_proto::{Task, TaskSpec, TaskState};
use hyper::Method;
use serde_json::Value;

fn task_path(task: &str, rest: &str) -> String {
    format!("{V1}/tasks/{}{rest}", escape(task))
}

impl Client {
    /// `key` makes it safe to repeat.
    pub async fn create_task(&self, spec: &TaskSpec, key: &str) -> Result<Task, Error> {
        self.read(Call::post(format!("{V1}/tasks")).json(spec)?.key(key)?).await
    }

    /// All pages.
    pub async fn tasks(
        &self,
        all: bool,
        states: &[TaskState],
        label: Option<&str>,
        filter: Option<&Value>,
    ) -> Result<Vec<Task>, Error> {
        let filter = filter.map(Value::to_string);
        let states: Vec<&str> = states.iter().map(|state| state.as_str()).collect();
        let states = (!states.is_empty()).then(|| states.join(","));
        let mut found = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut path = format!("{V1}/tasks?all={all}");
            for (name, value) in [
                ("state", states.as_deref()),
                ("label", label),
                ("filter", filter.as_deref()),
                ("cursor", cursor.as_deref()),
            ] {
                if let Some(value) = value {
                    path.push_str(&format!("&{name}={}", escape(value)));
                }
            }
            let page: Page<Task> = self.read(Call::get(path)).await?;
            found.extend(page.items);
            match page.next {
                Some(next) => cursor = Some(next),
                None => return Ok(found),
            }
        }
    }

    pub async fn task(&self, task: &str) -> Result<Task, Error> {
        self.read(Call::get(task_path(task, ""))).await
    }

    /// The task with all that is below it.
    pub async fn task_tree(&self, task: &str) -> Result<TaskTree, Error> {
        self.read(Call::get(task_path(task, "/tree"))).await
    }

    /// The task when it is over, has handed over `deliverable`, or `seconds` have passed.
    pub async fn wait_task(
        &self,
        task: &str,
        deliverable: Option<&str>,
        seconds: u64,
    ) -> Result<Task, Error> {
        let deliverable =
            deliverable.map(|path| format!("&deliverable={}", escape(path))).unwrap_or_default();
        self.read(Call::get(task_path(task, &format!("?wait={seconds}{deliverable}")))).await
    }

    pub async fn cancel_task(&self, task: &str, request: &CancelTask) -> Result<Task, Error> {
        self.read(Call::post(task_path(task, "/cancel")).json(request)?).await
    }

    /// `resume` or `retry`: the task after it.
    pub async fn act_on_task(&self, task: &str, verb: &str) -> Result<Task, Error> {
        self.read(Call::post(task_path(task, &format!("/{verb}")))).await
    }

    pub async fn remove_task(&self, task: &str) -> Result<(), Error> {
        self.read::<Value>(Call::new(Method::DELETE, task_path(task, ""))).await.map(drop)
    }

    pub async fn task_log(&self, task: &str, level: Level, after: &str) -> Result<Page<LogLine>, Error> {
        let query = format!("/log?level={}&after={after}&limit=1000", level.as_str());
        self.read(Call::get(task_path(task, &query))).await
    }

    /// `key` makes it safe to repeat.
    pub async fn upload(
        &self,
        task: &str,
        name: &str,
        content: Bytes,
        replace: bool,
        key: &str,
    ) -> Result<Uploaded, Error> {
        let query = format!("/uploads?name={}&replace={replace}", escape(name));
        self.read(Call::post(task_path(task, &query)).bytes(content).key(key)?).await
    }

    pub async fn get_task_file(&self, task: &str, path: &str) -> Result<Download, Error> {
        self.download(task_path(task, &format!("/files?path={}", escape(path)))).await
    }

    pub async fn list_task_files(&self, task: &str, path: &str) -> Result<Page<Value>, Error> {
        // A final slash says that a folder is meant.
        let path = format!("{}/", path.trim_end_matches('/'));
        self.read(Call::get(task_path(task, &format!("/files?path={}", escape(&path))))).await
    }

    pub async fn get_deliverable(
        &self,
        task: &str,
        path: &str,
        version: Option<u32>,
    ) -> Result<Download, Error> {
        let path: Vec<String> = path.split('/').map(escape).collect();
        let version = version.map(|version| format!("?version={version}")).unwrap_or_default();
        self.download(task_path(task, &format!("/deliverables/{}{version}", path.join("/")))).await
    }
}
