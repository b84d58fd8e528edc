//! Tasks that are made of tasks, as they are shown and found.

use super::Supervisor;
use super::tasks::no_task;
use crate::task::group::{MAX_CHILDREN, MAX_DEPTH, name_of};
use crate::task::held::parse;
use crate::task::view::TaskView;
use crate::{Error, Result};
use castra_proto::task::{Child, LaunchBlock, TaskTree};
use castra_proto::{ErrorCode, TaskId, TaskSpec};
use castra_store::TaskRow;

impl Supervisor {
    /// A task with all that is below it; of the children those of the newest attempt, and those that were made for it.
    ///
    /// Errors: `not_found`; `invalid_request` where there are too many for one answer.
    pub async fn task_tree(&self, id: TaskId) -> Result<TaskTree> {
        let row = self.engine.store.task(id).await?.ok_or_else(|| no_task(&id.to_string()))?;
        let mut left = 2 * MAX_CHILDREN;
        let blocks = self.engine.store.blocks().await?;
        self.tree(row, &blocks, MAX_DEPTH * 2, &mut left).await
    }

    async fn tree(
        &self,
        row: TaskRow,
        blocks: &[LaunchBlock],
        depth: usize,
        left: &mut usize,
    ) -> Result<TaskTree> {
        let view: TaskView = parse(&row, "state", &row.view)?;
        let below = self.children(row.id, &view).await?;
        *left = match left.checked_sub(below.len()) {
            Some(left) if depth > 0 => left,
            _ => {
                return Err(Error::with_hint(
                    ErrorCode::InvalidRequest,
                    "there are too many tasks below it for one answer",
                    "ask for the tree of one of its children",
                ));
            }
        };
        let task = self.shown_task(row, blocks).await?;
        let mut children = Vec::with_capacity(below.len());
        for row in below {
            children.push(Box::pin(self.tree(row, blocks, depth - 1, left)).await?);
        }
        Ok(TaskTree { task, children })
    }

    /// Those that its newest attempt declares, in their order, then those that somebody has made for it.
    async fn children(&self, id: TaskId, view: &TaskView) -> Result<Vec<TaskRow>> {
        let mut declared = Vec::new();
        let mut others = Vec::new();
        for row in self.engine.store.child_tasks(id).await? {
            if let Some(n) = view.children.iter().position(|(child, _)| *child == row.id) {
                declared.push((n, row));
            } else if parse::<TaskView>(&row, "state", &row.view)?.sibling.is_none() {
                others.push(row);
            }
        }
        declared.sort_by_key(|(n, _)| *n);
        Ok(declared.into_iter().map(|(_, row)| row).chain(others).collect())
    }

    pub(super) async fn shown_children(&self, row: &TaskRow, view: &TaskView) -> Result<Vec<Child>> {
        let rows = self.children(row.id, view).await?;
        let mut shown = Vec::with_capacity(rows.len());
        for row in rows {
            let view: TaskView = parse(&row, "state", &row.view)?;
            let spec: TaskSpec = parse(&row, "spec", &row.spec)?;
            shown.push(Child {
                id: row.id,
                name: spec.name,
                state: row.state,
                progress: view.progress,
                result: view.result,
                reason: view.reason,
            });
        }
        Ok(shown)
    }

    /// `PARENT/NAME`, where a child without a name is `child-N`, counted from 1.
    pub(super) async fn resolve_child(&self, parent: TaskId, name: &str) -> Result<TaskId> {
        let row = self.engine.store.task(parent).await?.ok_or_else(|| no_task(&parent.to_string()))?;
        let view: TaskView = parse(&row, "state", &row.view)?;
        let spec: TaskSpec = parse(&row, "spec", &row.spec)?;
        let n = (0..spec.children.len()).find(|n| name_of(&spec.children, *n) == name);
        let found = n.and_then(|n| view.children.get(n)).map(|(id, _)| *id);
        found.ok_or_else(|| no_task(&format!("{parent}/{name}")))
    }
}
