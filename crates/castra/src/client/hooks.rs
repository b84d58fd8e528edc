//! What a command hook may do while it runs: its token is the client's.

use super::api::{Download, V1};
use super::{Call, Client, Error, escape};
use bytes::Bytes;
use castra_proto::task::{HookExec, HookExecEnd, HookProgress, HookText};
use serde_json::Value;

fn hook_path(task: &str, rest: &str) -> String {
    format!("{V1}/tasks/{}/hook/{rest}", escape(task))
}

impl Client {
    pub async fn hook_exec(&self, task: &str, request: &HookExec) -> Result<HookExecEnd, Error> {
        self.read(Call::post(hook_path(task, "exec")).json(request)?).await
    }

    pub async fn hook_put(&self, task: &str, path: &str, content: Bytes) -> Result<(), Error> {
        let target = hook_path(task, &format!("files?path={}", escape(path)));
        self.read::<Value>(Call::post(target).bytes(content)).await.map(drop)
    }

    /// Without a path: what is handed over.
    pub async fn hook_get(&self, task: &str, path: Option<&str>) -> Result<Download, Error> {
        let query = path.map(|path| format!("?path={}", escape(path))).unwrap_or_default();
        self.download(hook_path(task, &format!("files{query}"))).await
    }

    pub async fn hook_progress(&self, task: &str, said: &HookProgress) -> Result<(), Error> {
        self.read::<Value>(Call::post(hook_path(task, "progress")).json(said)?).await.map(drop)
    }

    pub async fn hook_send(&self, task: &str, said: &HookText) -> Result<(), Error> {
        self.read::<Value>(Call::post(hook_path(task, "send")).json(said)?).await.map(drop)
    }
}
