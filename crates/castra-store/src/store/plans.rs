//! The handle's calls on what makes tasks and what holds them back: schedules, definitions, launch blocks.

use super::{Backend, Store};
use crate::error::StoreError;
use crate::schedule::{Advance, DefinitionRow, ScheduleRow};
use castra_proto::task::{Firing, LaunchBlock};
use castra_proto::{BlockId, ScheduleId, TaskId, Timestamp};
use serde_json::Value;

impl Store {
    pub async fn put_block(&self, block: LaunchBlock) -> Result<(), StoreError> {
        on_backend!(self, db => db.put_block(block).await)
    }

    /// Oldest first; also those whose time is over: the store has no clock.
    pub async fn blocks(&self) -> Result<Vec<LaunchBlock>, StoreError> {
        on_backend!(self, db => db.blocks().await)
    }

    /// Whether there was one.
    pub async fn delete_block(&self, id: BlockId) -> Result<bool, StoreError> {
        on_backend!(self, db => db.delete_block(id).await)
    }

    /// `secrets` are stored encrypted. False: the name is taken.
    pub async fn create_schedule(
        &self,
        schedule: ScheduleRow,
        secrets: Option<Value>,
    ) -> Result<bool, StoreError> {
        on_backend!(self, db => db.create_schedule(schedule, secrets).await)
    }

    /// By name.
    pub async fn schedules(&self) -> Result<Vec<ScheduleRow>, StoreError> {
        on_backend!(self, db => db.schedules().await)
    }

    /// By name or id.
    pub async fn schedule(&self, name_or_id: &str) -> Result<Option<ScheduleRow>, StoreError> {
        on_backend!(self, db => db.schedule(name_or_id).await)
    }

    pub async fn schedule_secrets(&self, id: ScheduleId) -> Result<Option<Value>, StoreError> {
        on_backend!(self, db => db.schedule_secrets(id).await)
    }

    /// Enabled ones whose next firing is not after this, the longest due first.
    pub async fn due_schedules(&self, at: Timestamp, limit: u32) -> Result<Vec<ScheduleRow>, StoreError> {
        on_backend!(self, db => db.due_schedules(at, limit).await)
    }

    /// The first firing of all that is to come.
    pub async fn next_firing(&self) -> Result<Option<Timestamp>, StoreError> {
        on_backend!(self, db => db.next_firing().await)
    }

    /// False: somebody else was faster, or it is gone, and nothing was changed.
    pub async fn advance_schedule(&self, advance: Advance) -> Result<bool, StoreError> {
        on_backend!(self, db => db.advance_schedule(advance).await)
    }

    /// False: there is no such schedule.
    pub async fn enable_schedule(
        &self,
        id: ScheduleId,
        enabled: bool,
        next_at: Option<Timestamp>,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        on_backend!(self, db => db.enable_schedule(id, enabled, next_at, at).await)
    }

    /// Whether there was one.
    pub async fn delete_schedule(&self, id: ScheduleId) -> Result<bool, StoreError> {
        on_backend!(self, db => db.delete_schedule(id).await)
    }

    /// Newest first.
    pub async fn firings(&self, id: ScheduleId, limit: u32) -> Result<Vec<Firing>, StoreError> {
        on_backend!(self, db => db.firings(id, limit).await)
    }

    /// The tasks of its firings that are not over.
    pub async fn open_firings(&self, id: ScheduleId) -> Result<Vec<TaskId>, StoreError> {
        on_backend!(self, db => db.open_firings(id).await)
    }

    /// `secrets` are stored encrypted; what the name stood for is replaced.
    pub async fn put_definition(
        &self,
        definition: DefinitionRow,
        secrets: Option<Value>,
    ) -> Result<(), StoreError> {
        on_backend!(self, db => db.put_definition(definition, secrets).await)
    }

    /// By name.
    pub async fn definitions(&self) -> Result<Vec<DefinitionRow>, StoreError> {
        on_backend!(self, db => db.definitions().await)
    }

    pub async fn definition_secrets(&self, name: &str) -> Result<Option<Value>, StoreError> {
        on_backend!(self, db => db.definition_secrets(name).await)
    }

    /// Whether there was one.
    pub async fn delete_definition(&self, name: &str) -> Result<bool, StoreError> {
        on_backend!(self, db => db.delete_definition(name).await)
    }
}
