//! How tasks go: with all that is below them, at once, or not at all.

use super::Supervisor;
use super::tasks::TRIES;
use crate::engine::now;
use crate::task::driver::caller;
use crate::task::held::parse;
use crate::task::view::TaskView;
use crate::{Error, Result};
use castra_proto::{ErrorCode, SessionId, TaskId};
use castra_store::{TaskError, TaskRow};
use std::collections::BTreeSet;

/// What goes together: tasks, as they were read, and their sessions.
#[derive(Default)]
struct Doomed {
    tasks: Vec<(TaskId, u64)>,
    sessions: Vec<(SessionId, TaskId)>,
}

impl Supervisor {
    /// Removes a task, whatever is above it, as [`Self::remove_task`] does. Rows first, all at once, so that nobody has one
    /// of them go on meanwhile; what is cut short behind them is made up for when the next daemon begins.
    pub(crate) async fn forget_task(&self, id: TaskId) -> Result<()> {
        for _ in 0..TRIES {
            let Some(row) = self.engine.store.task(id).await? else { return Ok(()) };
            let mut doomed = Doomed::default();
            self.doom(row, &mut doomed).await?;
            let server_head = match self.engine.store.remove_tasks(doomed.tasks.clone(), now()).await {
                // Somebody was faster.
                Err(TaskError::Moved(_) | TaskError::NoTask(_)) => continue,
                removed => removed?,
            };
            crate::failpoint::failpoint!("task.removed");
            let mut done = Ok(());
            for (session, task) in doomed.sessions {
                // Whoever has it go on since has it go on for nobody.
                match self.remove(session, true, &caller(task)).await {
                    Err(error) if error.problem().code == ErrorCode::SessionNotFound => {}
                    removed => done = done.and(removed),
                }
            }
            for (task, _) in doomed.tasks {
                self.engine.task_committed(task, true, server_head);
            }
            return done;
        }
        Err(Error::with_hint(ErrorCode::Conflict, "the task changes all the time", "try again"))
    }

    /// A task with all that is below it.
    ///
    /// Errors: `conflict` where one of them, or a session of theirs, is not over.
    async fn doom(&self, row: TaskRow, doomed: &mut Doomed) -> Result<()> {
        let refuse = |detail: String, hint: &str| Err(Error::with_hint(ErrorCode::Conflict, detail, hint));
        if !row.state.is_final() {
            return refuse(format!("task {} is {}", row.id, row.state), "`castra task cancel ID` ends it");
        }
        let view: TaskView = parse(&row, "state", &row.view)?;
        let sessions: BTreeSet<_> = view.attempts.iter().filter_map(|attempt| attempt.session_id).collect();
        for session in sessions {
            match self.engine.store.session(session).await?.map(|row| row.state) {
                Some(state) if !state.is_final() => {
                    return refuse(format!("its session {session} is {state}"), "`castra stop ID` ends it");
                }
                Some(_) => doomed.sessions.push((session, row.id)),
                None => {}
            }
        }
        doomed.tasks.push((row.id, row.head));
        for child in self.engine.store.child_tasks(row.id).await? {
            Box::pin(self.doom(child, doomed)).await?;
        }
        Ok(())
    }
}
