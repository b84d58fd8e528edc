//! Schedules as they are made, shown and changed, and what is done when one fires.

use super::start::check_name;
use super::{Caller, Supervisor};
use crate::engine::{json_text, now};
use crate::task::cron::{CronError, Schedule as Plan};
use crate::task::firing::{Due, due};
use crate::{Error, Result, redact};
use castra_proto::task::{Firing, FiringOutcome, Overlap, Schedule, SchedulePatch, ScheduleSpec};
use castra_proto::{ErrorCode, Task, TaskId, TaskSpec, Timestamp};
use castra_store::{Advance, ScheduleRow};
use serde_json::Value;

/// What a schedule's tasks are known by.
pub(super) const LABEL: &str = "schedule";
/// Times that are shown of the plan, and of what was.
const NEXT_SHOWN: usize = 5;
const LAST_SHOWN: u32 = 20;
/// Schedules that are looked at in one go; the others come right after.
const AT_ONCE: u32 = 100;

impl Supervisor {
    /// A new schedule, on disk when this returns. Its tasks are made in the caller's name and with the scope that they
    /// have now: what they may not create is refused here already.
    ///
    /// Errors: `invalid_request`, `forbidden`; `conflict` for a taken name.
    pub async fn create_schedule(&self, spec: ScheduleSpec, caller: &Caller) -> Result<Schedule> {
        check_name(&spec.name)?;
        let plan = plan(&spec)?;
        self.checked(self.task_of(&spec).await?, caller).await?;
        let at = now();
        let (shown, secrets) = split(&spec);
        let row = ScheduleRow {
            id: castra_proto::ScheduleId::now(),
            name: spec.name.clone(),
            enabled: spec.enabled,
            next_at: plan.next_after(at).filter(|_| spec.enabled),
            by: caller.by.clone(),
            scope: caller.scope,
            spec: json_text(&shown)?,
            created_at: at,
            updated_at: at,
        };
        if !self.engine.store.create_schedule(row.clone(), secrets).await? {
            return Err(Error::with_hint(
                ErrorCode::Conflict,
                format!("there is a schedule {:?} already", spec.name),
                "choose another name, or remove that one",
            ));
        }
        self.read_limits().await?;
        self.engine.tasks.clock.notify_one();
        self.shown_schedule(row).await
    }

    /// The task of a firing.
    async fn task_of(&self, spec: &ScheduleSpec) -> Result<TaskSpec> {
        let mut task = match (&spec.task, &spec.definition) {
            (Some(task), None) if spec.values.is_empty() => task.clone(),
            (None, Some(name)) => self.task_of_definition(name, spec.values.clone()).await?,
            _ => {
                return Err(Error::with_hint(
                    ErrorCode::InvalidRequest,
                    "a schedule has either a `task`, or a `definition` with its `values`",
                    "leave one of them out",
                ));
            }
        };
        task.labels.insert(LABEL.into(), spec.name.clone());
        Ok(task)
    }

    /// By name.
    pub async fn schedules(&self) -> Result<Vec<Schedule>> {
        let mut shown = Vec::new();
        for row in self.engine.store.schedules().await? {
            shown.push(self.shown_schedule(row).await?);
        }
        Ok(shown)
    }

    /// By name or id. Errors: `not_found`.
    pub async fn schedule(&self, reference: &str) -> Result<Schedule> {
        let row = self.schedule_row(reference).await?;
        self.shown_schedule(row).await
    }

    async fn schedule_row(&self, reference: &str) -> Result<ScheduleRow> {
        self.engine.store.schedule(reference).await?.ok_or_else(|| {
            Error::with_hint(
                ErrorCode::NotFound,
                format!("there is no schedule {reference:?}"),
                "`castra schedule list` lists them",
            )
        })
    }

    /// One that this caller may change: whoever switches it on has its tasks made.
    async fn own_schedule_row(&self, reference: &str, caller: &Caller) -> Result<ScheduleRow> {
        let row = self.schedule_row(reference).await?;
        if caller.scope < row.scope {
            return Err(Error::with_hint(
                ErrorCode::Forbidden,
                format!("{} was made with the scope `{}`", row.name, row.scope.as_str()),
                "use a token with that scope",
            ));
        }
        Ok(row)
    }

    async fn shown_schedule(&self, row: ScheduleRow) -> Result<Schedule> {
        let spec = stored(&row)?;
        let plan = plan(&spec)?;
        let next = std::iter::successors(row.next_at, |at| plan.next_after(*at)).take(NEXT_SHOWN).collect();
        Ok(Schedule {
            last: self.engine.store.firings(row.id, LAST_SHOWN).await?,
            id: row.id,
            enabled: row.enabled,
            by: row.by,
            next,
            created_at: row.created_at,
            updated_at: row.updated_at,
            spec: ScheduleSpec { enabled: row.enabled, ..spec },
        })
    }

    /// Times that pass while it is off are not made up for.
    ///
    /// Errors: `not_found`; `forbidden` for a scope below the one that its tasks are made with.
    pub async fn patch_schedule(
        &self,
        reference: &str,
        patch: SchedulePatch,
        caller: &Caller,
    ) -> Result<Schedule> {
        let row = self.own_schedule_row(reference, caller).await?;
        if let Some(enabled) = patch.enabled.filter(|enabled| *enabled != row.enabled) {
            let at = now();
            let next_at = plan(&stored(&row)?)?.next_after(at).filter(|_| enabled);
            self.engine.store.enable_schedule(row.id, enabled, next_at, at).await?;
            self.engine.tasks.clock.notify_one();
        }
        self.schedule(&row.id.to_string()).await
    }

    /// Its tasks stay. Errors: as of `patch_schedule`.
    pub async fn remove_schedule(&self, reference: &str, caller: &Caller) -> Result<()> {
        let row = self.own_schedule_row(reference, caller).await?;
        self.engine.store.delete_schedule(row.id).await?;
        self.read_limits().await
    }

    /// Fires now, beside its plan, in the caller's name.
    ///
    /// Errors: `conflict` when its rule is `overlap: skip` and a task of it is not over; those of `create_task`.
    pub async fn run_schedule(&self, reference: &str, caller: &Caller) -> Result<Task> {
        let row = self.schedule_row(reference).await?;
        let spec = self.whole(&row).await?;
        if let Some(open) = self.overlapping(&row, &spec).await? {
            return Err(Error::with_hint(
                ErrorCode::Conflict,
                format!("task {open} of this schedule is not over"),
                "`castra task cancel ID` ends it; `overlap: allow` lets them run side by side",
            ));
        }
        let at = now();
        let key = key(&row, at);
        let task = self.create_task(self.task_of(&spec).await?, Some(&key), caller).await?;
        let firing = Firing {
            at,
            seen_at: at,
            outcome: FiringOutcome::Made,
            task_id: Some(task.id),
            message: Some(format!("asked for by {}", caller.by)),
        };
        let beside = Advance { id: row.id, at, from: None, to: None, firings: vec![firing] };
        self.engine.store.advance_schedule(beside).await?;
        Ok(task)
    }

    /// Sees to whatever is due: firings, and the ends of launch blocks. When it is to be called again, at the latest.
    pub(crate) async fn see_to_plans(&self, now: Timestamp) -> Result<Option<Timestamp>> {
        let store = &self.engine.store;
        let mut next: Option<Timestamp> = None;
        for block in store.blocks().await? {
            match block.until {
                Some(until) if until <= now => {
                    store.delete_block(block.id).await?;
                    self.engine.tasks.queue.notify_one();
                }
                until => next = next.into_iter().chain(until).min(),
            }
        }
        let mut failed = None;
        loop {
            let due = store.due_schedules(now, AT_ONCE).await?;
            let mut moved = false;
            for row in due {
                match self.see_to(&row, now).await {
                    Ok(one) => moved |= one,
                    // The others do not wait for this one.
                    Err(error) => failed = Some(error),
                }
            }
            if let Some(error) = failed {
                return Err(error);
            }
            if !moved {
                break;
            }
        }
        Ok(next.into_iter().chain(store.next_firing().await?).min())
    }

    /// One firing of this schedule. False: somebody else has seen to it.
    async fn see_to(&self, row: &ScheduleRow, now: Timestamp) -> Result<bool> {
        let Some(planned) = row.next_at else { return Ok(false) };
        let spec = self.whole(row).await?;
        let plan = match plan(&spec) {
            Ok(plan) => plan,
            // Its zone is not known any more: it is said, and not tried every minute.
            Err(error) => {
                let refused = firing(planned, now, FiringOutcome::Refused, error.problem().detail);
                let stop =
                    Advance { id: row.id, at: now, from: Some(planned), to: None, firings: vec![refused] };
                return Ok(self.engine.store.advance_schedule(stop).await?);
            }
        };
        let Some(Due { passed, fire, next }) = due(&plan, planned, now, spec.missed) else {
            return Ok(false);
        };
        let mut firings = Vec::new();
        if let Some((newest, count)) = passed {
            let message = format!("{count} from {planned} on, for which no daemon was there");
            firings.push(firing(newest, now, FiringOutcome::Missed, message));
        }
        if let Some(at) = fire {
            firings.push(self.fire(row, &spec, at, now).await?);
        }
        crate::failpoint::failpoint!("schedule.fired");
        let advance = Advance { id: row.id, at: now, from: Some(planned), to: next, firings };
        Ok(self.engine.store.advance_schedule(advance).await?)
    }

    /// The firing's task. Its id follows from the schedule and the time on the plan: however many see to it, and
    /// whenever they die, there is one.
    async fn fire(
        &self,
        row: &ScheduleRow,
        spec: &ScheduleSpec,
        at: Timestamp,
        now: Timestamp,
    ) -> Result<Firing> {
        let caller = Caller { by: row.by.clone(), scope: row.scope };
        let key = key(row, at);
        let id = TaskId::of_key(&caller.by, &key);
        let made =
            Firing { at, seen_at: now, outcome: FiringOutcome::Made, task_id: Some(id), message: None };
        if self.engine.store.task(id).await?.is_some() {
            return Ok(made);
        }
        if let Some(open) = self.overlapping(row, spec).await? {
            let message = format!("task {open} is not over");
            return Ok(firing(at, now, FiringOutcome::Overlapping, message));
        }
        let task = match self.task_of(spec).await {
            Ok(task) => self.create_task(task, Some(&key), &caller).await,
            Err(error) => Err(error),
        };
        match task {
            Ok(_) => Ok(made),
            Err(error) => {
                let problem = error.problem();
                let outcome = match problem.code {
                    // Not the schedule's fault: tried again.
                    ErrorCode::Internal | ErrorCode::DiskFull | ErrorCode::ShuttingDown => return Err(error),
                    ErrorCode::LaunchBlocked => FiringOutcome::Blocked,
                    _ => FiringOutcome::Refused,
                };
                Ok(firing(at, now, outcome, problem.detail))
            }
        }
    }

    /// A task of an earlier firing that this one must not run beside.
    async fn overlapping(&self, row: &ScheduleRow, spec: &ScheduleSpec) -> Result<Option<TaskId>> {
        if spec.overlap != Overlap::Skip {
            return Ok(None);
        }
        Ok(self.engine.store.open_firings(row.id).await?.pop())
    }

    /// With its secret values.
    async fn whole(&self, row: &ScheduleRow) -> Result<ScheduleSpec> {
        let mut spec = stored(row)?;
        if let Some(task) = spec.task.take() {
            let secrets = self.engine.store.schedule_secrets(row.id).await?;
            spec.task = Some(redact::restore_task(task, secrets)?);
        }
        Ok(spec)
    }
}

fn firing(at: Timestamp, seen_at: Timestamp, outcome: FiringOutcome, message: String) -> Firing {
    Firing { at, seen_at, outcome, task_id: None, message: Some(message) }
}

/// The same for everybody who sees to this firing.
fn key(row: &ScheduleRow, at: Timestamp) -> String {
    format!("schedule {} at {}", row.id, at.0)
}

fn plan(spec: &ScheduleSpec) -> Result<Plan> {
    let refuse = |error: CronError| {
        let field = if matches!(error, CronError::Zone { .. }) { "timezone" } else { "cron" };
        Error::with_hint(
            ErrorCode::InvalidRequest,
            format!("`{field}`: {error}"),
            "write it like `30 2 * * *`, or `@daily`; docs/tasks.md says more",
        )
    };
    Plan::parse(&spec.cron, &spec.timezone).map_err(refuse)
}

fn stored(row: &ScheduleRow) -> Result<ScheduleSpec> {
    serde_json::from_str(&row.spec).map_err(|error| {
        let detail = format!("the stored schedule {:?} cannot be read: {error}", row.name);
        Error::new(ErrorCode::Internal, detail)
    })
}

fn split(spec: &ScheduleSpec) -> (ScheduleSpec, Option<Value>) {
    let Some(task) = &spec.task else { return (spec.clone(), None) };
    let (task, secrets) = redact::split_task(task);
    (ScheduleSpec { task: Some(task), ..spec.clone() }, secrets)
}

#[cfg(test)]
#[path = "schedules_tests.rs"]
mod tests;
