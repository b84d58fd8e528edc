//! Schedules over a change of the clock, by a clock that the test has in its hand. Several see to each firing at once,
//! as several servers would; nothing is let out of the queue.

use super::*;
use crate::{Config, TaskLimits};
use castra_proto::TaskState;
use castra_proto::api::Scope;
use castra_store::TaskFilter;
use serde_json::json;

async fn open(home: &tempfile::TempDir) -> Supervisor {
    let mut config = Config::new(home.path());
    config.tasks = TaskLimits { running: Some(0), ..TaskLimits::default() };
    Supervisor::open(config).await.unwrap()
}

fn home() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("cs-").tempdir_in("/tmp").unwrap()
}

fn at(text: &str) -> Timestamp {
    serde_json::from_value(text.into()).unwrap()
}

fn spec(fields: Value) -> ScheduleSpec {
    let mut spec = json!({
        "name": "s", "cron": "30 2 * * *", "timezone": "Europe/Berlin", "missed": "skip", "overlap": "allow",
        "task": {"instructions": "x"},
    });
    spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    serde_json::from_value(spec).unwrap()
}

/// Sees to everything each ten minutes of this time, four at once.
async fn through(supervisor: &Supervisor, from: &str, to: &str) {
    let (mut now, end) = (at(from), at(to));
    while now <= end {
        let each = (0..4).map(|_| supervisor.see_to_plans(now));
        futures::future::try_join_all(each).await.unwrap();
        now.0 += 600_000_000;
    }
}

/// The times at which a task was made, oldest first; each has one task, in the queue.
async fn made(supervisor: &Supervisor, name: &str) -> Vec<String> {
    let row = supervisor.schedule_row(name).await.unwrap();
    let all = supervisor.engine.store.firings(row.id, 1000).await.unwrap();
    let mut made: Vec<(Timestamp, TaskId)> = (all.iter())
        .filter(|firing| firing.outcome == FiringOutcome::Made)
        .map(|firing| (firing.at, firing.task_id.unwrap()))
        .collect();
    made.reverse();
    let label = Some((LABEL.to_owned(), name.to_owned()));
    let filter = TaskFilter { all: true, label, ..TaskFilter::default() };
    let rows = supervisor.engine.store.task_rows(&filter, None, 1000).await.unwrap();
    let tasks: Vec<TaskId> = rows.iter().rev().map(|(_, row)| row.id).collect();
    assert_eq!(tasks, made.iter().map(|(_, id)| *id).collect::<Vec<_>>(), "each firing has one task");
    assert!(rows.iter().all(|(_, row)| row.state == TaskState::Queued));
    made.iter().map(|(at, _)| at.to_string()[..16].to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nightly_task_is_made_once_a_night_over_both_changes_of_the_clock() {
    let home = home();
    let supervisor = open(&home).await;
    let caller = Caller::embedded();
    supervisor.create_schedule(spec(json!({})), &caller).await.unwrap();
    let hourly = spec(json!({"name": "hourly", "cron": "0 * * * *"}));
    supervisor.create_schedule(hourly, &caller).await.unwrap();

    // 2027-03-28: after 01:59:59 comes 03:00.
    through(&supervisor, "2027-03-27T00:00:00Z", "2027-03-27T00:00:00Z").await;
    through(&supervisor, "2027-03-27T00:10:00Z", "2027-03-29T02:00:00Z").await;
    assert_eq!(made(&supervisor, "s").await, ["2027-03-27T01:30", "2027-03-28T01:00", "2027-03-29T00:30"]);
    let hours = made(&supervisor, "hourly").await;
    assert_eq!(hours.len(), 51, "one every hour that there was: {hours:?}");

    // 2027-10-31: 02:00 to 02:59:59 twice.
    through(&supervisor, "2027-10-30T00:00:00Z", "2027-11-01T02:00:00Z").await;
    assert_eq!(
        made(&supervisor, "s").await[3..],
        ["2027-10-30T00:30", "2027-10-31T00:30", "2027-11-01T01:30"]
    );
    assert_eq!(made(&supervisor, "hourly").await.len(), 51 + 51);

    // What passed in between was missed, and one entry stands for it.
    let row = supervisor.schedule_row("s").await.unwrap();
    let all = supervisor.engine.store.firings(row.id, 1000).await.unwrap();
    let missed: Vec<String> = (all.iter().rev())
        .filter(|firing| firing.outcome == FiringOutcome::Missed)
        .map(|firing| firing.message.clone().unwrap())
        .collect();
    assert_eq!(missed.len(), 2, "{all:?}");
    assert!(missed[1].starts_with("214 from 2027-03-30T00:30:00"), "{missed:?}");
    supervisor.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_is_not_over_is_not_started_twice() {
    let home = home();
    let supervisor = open(&home).await;
    let caller = Caller::embedded();
    let skip = spec(json!({"overlap": "skip", "timezone": "UTC"}));
    supervisor.create_schedule(skip, &caller).await.unwrap();
    through(&supervisor, "2027-05-01T02:30:00Z", "2027-05-01T02:30:00Z").await;
    assert_eq!(made(&supervisor, "s").await, ["2027-05-01T02:30"]);
    through(&supervisor, "2027-05-02T02:30:00Z", "2027-05-02T02:30:00Z").await;
    let shown = supervisor.schedule("s").await.unwrap();
    let task = shown.last[1].task_id.unwrap();
    assert_eq!(
        (shown.last[0].outcome, shown.last[0].message.clone().unwrap()),
        (FiringOutcome::Overlapping, format!("task {task} is not over"))
    );
    assert_eq!(supervisor.run_schedule("s", &caller).await.unwrap_err().problem().code, ErrorCode::Conflict);
    supervisor.cancel_task(task, &Default::default(), &caller).await.unwrap();
    through(&supervisor, "2027-05-03T02:30:00Z", "2027-05-03T02:30:00Z").await;
    assert_eq!(supervisor.schedule("s").await.unwrap().last[0].outcome, FiringOutcome::Made);
    supervisor.close().await;
}

/// The scope is the one that its maker had; a block, and a name that is taken, are told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_firing_may_do_no_more_than_its_maker_and_is_held_back_like_any_launch() {
    let home = home();
    let supervisor = open(&home).await;
    let admin = Caller::embedded();
    let drive = Caller { by: "token:1".into(), scope: Scope::Drive };
    let define = async |task: Value| {
        let definition = serde_json::from_value(json!({"task": task})).unwrap();
        supervisor.put_definition("d", definition, &admin).await.unwrap();
    };
    define(json!({"instructions": "x"})).await;
    let of_definition = |name: &str| {
        let spec = json!({
            "name": name, "cron": "0 * * * *", "definition": "d", "overlap": "allow", "missed": "skip",
        });
        serde_json::from_value::<ScheduleSpec>(spec).unwrap()
    };
    let bold = spec(json!({"task": {"instructions": "x", "session": {"allowed_tools": ["Bash"]}}}));
    let refused = supervisor.create_schedule(bold, &drive).await.unwrap_err().problem();
    assert_eq!(refused.code, ErrorCode::Forbidden);
    supervisor.create_schedule(of_definition("hourly"), &drive).await.unwrap();
    // Whoever could switch on what others made would have tasks made with their scope.
    supervisor.create_schedule(of_definition("theirs"), &admin).await.unwrap();
    let patch = SchedulePatch { enabled: Some(false) };
    for refused in [
        supervisor.patch_schedule("theirs", patch, &drive).await.map(drop),
        supervisor.remove_schedule("theirs", &drive).await,
    ] {
        assert_eq!(refused.unwrap_err().problem().code, ErrorCode::Forbidden);
    }
    supervisor.remove_schedule("theirs", &admin).await.unwrap();
    let outcome = async |now: &str| {
        through(&supervisor, now, now).await;
        let last = supervisor.schedule("hourly").await.unwrap().last.remove(0);
        (last.outcome, last.message.unwrap_or_default())
    };
    assert_eq!(outcome("2027-05-01T01:00:00Z").await.0, FiringOutcome::Made);
    define(json!({"instructions": "x", "session": {"allowed_tools": ["Bash"]}})).await;
    let (refused, why) = outcome("2027-05-01T02:00:00Z").await;
    assert!(refused == FiringOutcome::Refused && why.contains("scope `approve`"), "{why}");
    define(json!({"instructions": "x", "name": "taken"})).await;
    assert_eq!(outcome("2027-05-01T03:00:00Z").await.0, FiringOutcome::Made);
    let (refused, why) = outcome("2027-05-01T04:00:00Z").await;
    assert!(refused == FiringOutcome::Refused && why.contains("bears the name"), "{why}");
    let block = json!({"filter": {"labels.schedule": "hourly"}, "reason": "service"});
    supervisor.block_launches(serde_json::from_value(block).unwrap(), &admin).await.unwrap();
    let (blocked, why) = outcome("2027-05-01T05:00:00Z").await;
    assert!(blocked == FiringOutcome::Blocked && why.contains("service"), "{why}");
    supervisor.remove_definition("d").await.unwrap();
    assert_eq!(outcome("2027-05-01T06:00:00Z").await.0, FiringOutcome::Refused);
    supervisor.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_off_is_not_made_up_for_and_a_block_ends_by_itself() {
    let home = home();
    let supervisor = open(&home).await;
    let caller = Caller::embedded();
    let off = spec(json!({"enabled": false, "missed": "once"}));
    assert_eq!(supervisor.create_schedule(off, &caller).await.unwrap().next, []);
    through(&supervisor, "2027-05-01T12:00:00Z", "2027-05-01T12:00:00Z").await;
    let on = SchedulePatch { enabled: Some(true) };
    let shown = supervisor.patch_schedule("s", on, &caller).await.unwrap();
    assert_eq!((shown.next.len(), shown.last), (5, vec![]));
    let until = Timestamp(now().0 + 3_600_000_000);
    let block = json!({"reason": "an hour", "until": until});
    supervisor.block_launches(serde_json::from_value(block).unwrap(), &caller).await.unwrap();
    // The clock is to look again when it ends, or before.
    assert!(supervisor.see_to_plans(now()).await.unwrap().unwrap() <= until);
    let task = serde_json::from_value::<TaskSpec>(json!({"instructions": "x"})).unwrap();
    let refused = supervisor.create_task(task.clone(), None, &caller).await.unwrap_err().problem();
    assert_eq!(refused.code, ErrorCode::LaunchBlocked);
    supervisor.see_to_plans(until).await.unwrap();
    supervisor.create_task(task.clone(), None, &caller).await.unwrap();
    supervisor.close().await;
    let refused = supervisor.create_task(task, None, &caller).await.unwrap_err().problem();
    assert_eq!(refused.code, ErrorCode::ShuttingDown);
}
