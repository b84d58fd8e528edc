//! The calls on schedules, launch blocks and definitions, and on groups of tasks.

use super::api::V1;
use super::{Call, Client, Error, escape};
use castra_proto::Task;
use castra_proto::api::Page;
use castra_proto::task::{
    CancelTasks, CancelledTasks, Catalogue, CreateBlock, Definition, KnownDefinition, Launch, LaunchBlock,
    Schedule, SchedulePatch, ScheduleSpec,
};
use hyper::Method;
use serde_json::Value;

fn path(noun: &str, name: &str, rest: &str) -> String {
    format!("{V1}/{noun}/{}{rest}", escape(name))
}

impl Client {
    pub async fn cancel_tasks(&self, request: &CancelTasks) -> Result<CancelledTasks, Error> {
        self.read(Call::post(format!("{V1}/tasks/cancel")).json(request)?).await
    }

    pub async fn create_block(&self, block: &CreateBlock) -> Result<LaunchBlock, Error> {
        self.read(Call::post(format!("{V1}/launch-blocks")).json(block)?).await
    }

    pub async fn blocks(&self) -> Result<Vec<LaunchBlock>, Error> {
        let page: Page<LaunchBlock> = self.read(Call::get(format!("{V1}/launch-blocks"))).await?;
        Ok(page.items)
    }

    pub async fn delete_block(&self, id: &str) -> Result<(), Error> {
        self.read::<Value>(Call::new(Method::DELETE, path("launch-blocks", id, ""))).await.map(drop)
    }

    pub async fn create_schedule(&self, spec: &ScheduleSpec) -> Result<Schedule, Error> {
        self.read(Call::post(format!("{V1}/schedules")).json(spec)?).await
    }

    pub async fn schedules(&self) -> Result<Vec<Schedule>, Error> {
        let page: Page<Schedule> = self.read(Call::get(format!("{V1}/schedules"))).await?;
        Ok(page.items)
    }

    pub async fn schedule(&self, name: &str) -> Result<Schedule, Error> {
        self.read(Call::get(path("schedules", name, ""))).await
    }

    pub async fn patch_schedule(&self, name: &str, patch: &SchedulePatch) -> Result<Schedule, Error> {
        self.read(Call::new(Method::PATCH, path("schedules", name, "")).json(patch)?).await
    }

    pub async fn delete_schedule(&self, name: &str) -> Result<(), Error> {
        self.read::<Value>(Call::new(Method::DELETE, path("schedules", name, ""))).await.map(drop)
    }

    pub async fn run_schedule(&self, name: &str) -> Result<Task, Error> {
        self.read(Call::post(path("schedules", name, "/run"))).await
    }

    /// `all`: hidden ones too.
    pub async fn catalogue(&self, all: bool) -> Result<Catalogue, Error> {
        self.read(Call::get(format!("{V1}/definitions?all={all}"))).await
    }

    pub async fn definition(&self, name: &str) -> Result<KnownDefinition, Error> {
        self.read(Call::get(path("definitions", name, ""))).await
    }

    pub async fn put_definition(
        &self,
        name: &str,
        definition: &Definition,
    ) -> Result<KnownDefinition, Error> {
        self.read(Call::new(Method::PUT, path("definitions", name, "")).json(definition)?).await
    }

    pub async fn delete_definition(&self, name: &str) -> Result<(), Error> {
        self.read::<Value>(Call::new(Method::DELETE, path("definitions", name, ""))).await.map(drop)
    }

    /// `key` makes it safe to repeat.
    pub async fn launch(&self, name: &str, launch: &Launch, key: &str) -> Result<Task, Error> {
        self.read(Call::post(path("definitions", name, "/launch")).json(launch)?.key(key)?).await
    }
}
