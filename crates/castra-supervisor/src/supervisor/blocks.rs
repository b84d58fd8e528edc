//! Launch blocks as they are made, listed and lifted; and what every launch has to pass.

use super::{Caller, Supervisor};
use crate::engine::now;
use crate::task::{block, document};
use crate::{Error, Result};
use castra_proto::task::{CreateBlock, LaunchBlock};
use castra_proto::{BlockId, ErrorCode, TaskId, TaskSpec};
use serde_json::Value;

/// Blocks at once: each launch is compared with every one.
const MOST: usize = 100;
/// Bytes of a reason.
const LONGEST: usize = 2000;

impl Supervisor {
    /// From now on no task that it means begins, until it is lifted or its time is over.
    ///
    /// Errors: `invalid_request` for a filter that is none, or means nothing.
    pub async fn block_launches(&self, request: CreateBlock, caller: &Caller) -> Result<LaunchBlock> {
        let refuse =
            |detail: &str, hint: &str| Err(Error::with_hint(ErrorCode::InvalidRequest, detail, hint));
        if request.reason.trim().is_empty() || request.reason.len() > LONGEST {
            return refuse("`reason` is empty, or too long", "say in a sentence why tasks are held back");
        }
        request.filter.as_ref().map(document::deciding).transpose()?;
        let at = now();
        if request.until.is_some_and(|until| until <= at) {
            return refuse("`until` is over already", "leave it out, or name a time that is to come");
        }
        if self.blocks().await?.len() >= MOST {
            return Err(Error::with_hint(
                ErrorCode::Overloaded,
                format!("there are {MOST} launch blocks"),
                "`castra task unblock ID` lifts one",
            ));
        }
        let block = LaunchBlock {
            id: BlockId::now(),
            filter: request.filter,
            reason: request.reason,
            until: request.until,
            by: caller.by.clone(),
            created_at: at,
        };
        self.engine.store.put_block(block.clone()).await?;
        // The clock knows when it ends.
        self.engine.tasks.clock.notify_one();
        Ok(block)
    }

    /// Those that hold, oldest first.
    pub async fn blocks(&self) -> Result<Vec<LaunchBlock>> {
        let at = now();
        let blocks = self.engine.store.blocks().await?;
        Ok(blocks.into_iter().filter(|block| block.until.is_none_or(|until| until > at)).collect())
    }

    /// Errors: `not_found`.
    pub async fn unblock(&self, id: BlockId) -> Result<()> {
        if !self.engine.store.delete_block(id).await? {
            return Err(Error::with_hint(
                ErrorCode::NotFound,
                format!("there is no launch block {id}"),
                "`castra task blocks` lists them",
            ));
        }
        self.engine.tasks.queue.notify_one();
        Ok(())
    }

    /// What a new task has to pass. One that is there already was let in before: asking for it again launches nothing.
    pub(super) async fn may_launch(&self, id: TaskId, spec: &TaskSpec) -> Result<()> {
        self.is_open(id, &document::to_be(id, spec)).await
    }

    /// What a further attempt has to pass.
    pub(super) async fn may_go_on(&self, id: TaskId) -> Result<()> {
        match self.engine.store.task(id).await? {
            Some(row) => {
                self.is_up()?;
                block::check(&self.engine, &document::to_begin(&row)).await
            }
            None => Ok(()),
        }
    }

    async fn is_open(&self, id: TaskId, task: &Value) -> Result<()> {
        self.is_up()?;
        match block::check(&self.engine, task).await {
            Err(_) if self.engine.store.task(id).await?.is_some() => Ok(()),
            checked => checked,
        }
    }

    /// Errors: `shutting_down` when this supervisor is about to end.
    pub(super) fn is_up(&self) -> Result<()> {
        if *self.engine.closing.borrow() {
            return Err(Error::with_hint(
                ErrorCode::ShuttingDown,
                "the daemon is about to end, and begins nothing more",
                "ask again when it is back",
            ));
        }
        Ok(())
    }
}
