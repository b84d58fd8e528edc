//! Many tasks at once: those that a filter means, listed and ended.

use super::{Caller, Supervisor, read_cursor};
use crate::Result;
use crate::task::document;
use crate::task::filter::Filter;
use crate::task::held::parse;
use crate::task::view::TaskView;
use castra_proto::api::Page;
use castra_proto::task::{CancelTask, CancelTasks, CancelledTasks};
use castra_proto::{ErrorCode, Task, TaskId};
use castra_store::{TaskFilter, TaskRow};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Rows that are read at once, and for one page: a page of a filter that means few tasks ends before it is full.
const BATCH: u32 = 250;
const MOST_ROWS: usize = 5000;

impl Supervisor {
    /// Newest first, of those that `wanted` means too. A page may have fewer than `limit`, even none, and go on: its work
    /// is bounded, not its yield.
    pub async fn tasks_where(
        &self,
        filter: &TaskFilter,
        wanted: &Filter,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page<Task>> {
        let mut after = read_cursor(cursor)?;
        // Whoever asks for a state means those that are over too.
        let of_state = wanted.paths().contains(&"state");
        let filter = TaskFilter { all: filter.all || of_state, ..filter.clone() };
        let limit = limit.clamp(1, 1000);
        let (mut items, mut seen) = (Vec::new(), 0);
        let blocks = self.engine.store.blocks().await?;
        loop {
            let rows = self.engine.store.task_rows(&filter, after, BATCH).await?;
            let more = rows.len() == BATCH as usize;
            for (place, row) in rows {
                (after, seen) = (Some(place), seen + 1);
                if self.means(wanted, &row)? {
                    items.push(self.shown_task(row, &blocks).await?);
                    if items.len() == limit {
                        return Ok(Page { items, next: after.map(|place| place.to_string()) });
                    }
                }
            }
            if !more {
                return Ok(Page { items, next: None });
            }
            if seen >= MOST_ROWS {
                return Ok(Page { items, next: after.map(|place| place.to_string()) });
            }
        }
    }

    fn means(&self, wanted: &Filter, row: &TaskRow) -> Result<bool> {
        let view: TaskView = parse(row, "state", &row.view)?;
        Ok(wanted.matches(&document::of(row, &view)))
    }

    /// Asks every task that is not over and that the filter means to end, as `cancel_task` does. It does not wait for
    /// that: `wait_tasks` does.
    ///
    /// Errors: `invalid_request` for a filter that is none, or compares nothing.
    pub async fn cancel_tasks(&self, request: &CancelTasks, caller: &Caller) -> Result<CancelledTasks> {
        let wanted = document::deciding(&request.filter)?;
        let one = CancelTask { reason: request.reason.clone(), grace_s: request.grace_s };
        let mut live = self.engine.store.live_tasks().await?;
        live.sort_by_key(|row| (row.created_at, row.id));
        let mut done = CancelledTasks::default();
        for row in live {
            if !self.means(&wanted, &row)? {
                continue;
            }
            match self.cancel_task(row.id, &one, caller).await {
                Ok(_) => done.asked.push(row.id),
                Err(error) => match error.problem().code {
                    ErrorCode::Forbidden => done.refused.push(row.id),
                    // Removed meanwhile.
                    ErrorCode::NotFound => {}
                    _ => return Err(error),
                },
            }
        }
        done.open = self.wait_tasks(&done.asked, Duration::ZERO).await?;
        Ok(done)
    }

    /// Waits until all of them are over, or `wait` is; those that are not over then.
    pub async fn wait_tasks(&self, tasks: &[TaskId], wait: Duration) -> Result<Vec<TaskId>> {
        let mut changed = self.engine.tasks.changed.subscribe();
        let mut closing = self.engine.closing.subscribe();
        let deadline = Instant::now() + wait;
        let mut open = tasks.to_vec();
        loop {
            changed.mark_unchanged();
            let mut left = Vec::new();
            for id in open {
                if self.engine.store.task(id).await?.is_some_and(|row| !row.state.is_final()) {
                    left.push(id);
                }
            }
            open = left;
            if open.is_empty() {
                return Ok(open);
            }
            tokio::select! {
                moved = timeout_at(deadline, changed.changed()) => if !matches!(moved, Ok(Ok(()))) {
                    return Ok(open);
                },
                // Who waits for a daemon that ends would hold it up.
                _ = closing.wait_for(|closing| *closing) => return Ok(open),
            }
        }
    }
}
