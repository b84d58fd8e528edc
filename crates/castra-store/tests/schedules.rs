//! Schedules, launch blocks and definitions in the store: durable, and each firing seen to by one.
#![allow(clippy::unwrap_used)]

mod support;

use castra_proto::api::Scope;
use castra_proto::task::{Firing, FiringOutcome, LaunchBlock, TaskState};
use castra_proto::{BlockId, ScheduleId, TaskId, Timestamp};
use castra_store::*;
use serde_json::{Value, json};
use support::Home;

fn schedule(name: &str, next_at: Option<i64>) -> ScheduleRow {
    ScheduleRow {
        id: ScheduleId::now(),
        name: name.into(),
        enabled: true,
        next_at: next_at.map(Timestamp),
        by: "cli".into(),
        scope: Scope::Drive,
        spec: r#"{"env":{"TOKEN":"***"}}"#.into(),
        created_at: Timestamp(1),
        updated_at: Timestamp(1),
    }
}

fn firing(at: i64, outcome: FiringOutcome, task_id: Option<TaskId>) -> Firing {
    Firing { at: Timestamp(at), seen_at: Timestamp(at + 1), outcome, task_id, message: None }
}

fn advance(id: ScheduleId, from: i64, to: Option<i64>, firings: Vec<Firing>) -> Advance {
    Advance { id, at: Timestamp(9), from: Some(Timestamp(from)), to: to.map(Timestamp), firings }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_reads_back_whole_and_its_name_is_its_own() {
    let home = Home::new().await;
    let (store, row) = (&home.store, schedule("nightly", Some(50)));
    let secrets = json!({"env": {"TOKEN": "s3cret"}});
    assert!(store.create_schedule(row.clone(), Some(secrets.clone())).await.unwrap());
    assert!(!store.create_schedule(schedule("nightly", Some(60)), None).await.unwrap());
    assert_eq!(store.schedules().await.unwrap(), std::slice::from_ref(&row));
    for reference in ["nightly", &row.id.to_string()] {
        assert_eq!(store.schedule(reference).await.unwrap().as_ref(), Some(&row));
    }
    assert_eq!(store.schedule_secrets(row.id).await.unwrap(), Some(secrets));
    assert!(store.delete_schedule(row.id).await.unwrap());
    assert!(!store.delete_schedule(row.id).await.unwrap());
    assert_eq!(store.schedule("nightly").await.unwrap(), None);
    home.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_firing_is_seen_to_by_one_of_many() {
    let home = Home::new().await;
    let (store, row) = (&home.store, schedule("nightly", Some(50)));
    store.create_schedule(row.clone(), None).await.unwrap();
    let firings = vec![firing(50, FiringOutcome::Refused, None)];
    let tries = (0..20).map(|_| {
        let (store, advance) = (store.clone(), advance(row.id, 50, Some(60), firings.clone()));
        tokio::spawn(async move { store.advance_schedule(advance).await.unwrap() })
    });
    let won = futures::future::join_all(tries).await.into_iter().filter(|one| *one.as_ref().unwrap()).count();
    assert_eq!(won, 1);
    assert_eq!(store.firings(row.id, 10).await.unwrap(), firings);
    // What is not on the plan changes nothing of it.
    let by_hand = firing(55, FiringOutcome::Made, Some(TaskId::now()));
    let beside =
        Advance { from: None, to: None, firings: vec![by_hand.clone()], ..advance(row.id, 0, None, vec![]) };
    assert!(store.advance_schedule(beside).await.unwrap());
    assert_eq!(store.firings(row.id, 1).await.unwrap(), [by_hand]);
    assert_eq!(store.next_firing().await.unwrap(), Some(Timestamp(60)));
    // One that is off is not moved on.
    assert!(store.enable_schedule(row.id, false, None, Timestamp(70)).await.unwrap());
    assert!(!store.advance_schedule(advance(row.id, 60, Some(70), vec![])).await.unwrap());
    assert_eq!(store.next_firing().await.unwrap(), None);
    home.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_that_are_due_come_in_order_and_no_others() {
    let home = Home::new().await;
    let store = &home.store;
    for (name, next_at) in [("b", Some(20)), ("a", Some(10)), ("later", Some(31)), ("over", None)] {
        store.create_schedule(schedule(name, next_at), None).await.unwrap();
    }
    let due = store.due_schedules(Timestamp(30), 10).await.unwrap();
    let names: Vec<&str> = due.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(store.due_schedules(Timestamp(30), 1).await.unwrap().len(), 1);
    home.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_stack_and_definitions_replace() {
    let home = Home::new().await;
    let store = &home.store;
    let block = |at, filter| LaunchBlock {
        id: BlockId::now(),
        filter,
        reason: "service".into(),
        until: Some(Timestamp(5)),
        by: "cli".into(),
        created_at: Timestamp(at),
    };
    let (first, second) = (block(1, Some(json!({"labels.team": "blue"}))), block(2, None));
    store.put_block(second.clone()).await.unwrap();
    store.put_block(first.clone()).await.unwrap();
    assert_eq!(store.blocks().await.unwrap(), [first.clone(), second.clone()]);
    assert!(store.delete_block(first.id).await.unwrap());
    assert!(!store.delete_block(first.id).await.unwrap());
    assert_eq!(store.blocks().await.unwrap(), [second]);

    let row = |text: &str| DefinitionRow {
        name: "report".into(),
        definition: text.into(),
        by: "cli".into(),
        updated_at: Timestamp(3),
    };
    store.put_definition(row("one"), Some(json!("s3cret"))).await.unwrap();
    assert_eq!(store.definition_secrets("report").await.unwrap(), Some(json!("s3cret")));
    store.put_definition(row("two"), None).await.unwrap();
    assert_eq!(store.definitions().await.unwrap(), [row("two")]);
    assert_eq!(store.definition_secrets("report").await.unwrap(), None);
    assert!(store.delete_definition("report").await.unwrap());
    assert!(!store.delete_definition("report").await.unwrap());
    home.finish().await;
}

async fn task(store: &Store, state: TaskState) -> TaskId {
    let task = TaskId::now();
    let create = NewTask {
        name: None,
        request_hash: [1; 32],
        priority: 0,
        parent: None,
        labels: Default::default(),
        metadata: Value::Null,
        spec: "{}".into(),
        secrets: None,
        told: Vec::new(),
    };
    let commit = TaskCommit {
        task,
        at: Timestamp(1),
        create: Some(create),
        head: None,
        state,
        session: None,
        view: "{}".into(),
        events: Vec::new(),
        deliverables: Vec::new(),
        server_events: Vec::new(),
    };
    store.commit_task(commit).await.unwrap();
    task
}

/// By it the next firing knows that it would overlap, however many were skipped meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_firing_whose_task_is_not_over_is_kept_when_older_ones_go() {
    let home = Home::new().await;
    let (store, row) = (&home.store, schedule("often", Some(0)));
    store.create_schedule(row.clone(), None).await.unwrap();
    let (over, open) = (task(store, TaskState::Done).await, task(store, TaskState::Running).await);
    let made = [firing(0, FiringOutcome::Made, Some(over)), firing(1, FiringOutcome::Made, Some(open))];
    let overlapping = (2..2500).map(|at| firing(at, FiringOutcome::Overlapping, None));
    let firings: Vec<_> = made.iter().cloned().chain(overlapping).collect();
    assert!(store.advance_schedule(advance(row.id, 0, Some(2500), firings.clone())).await.unwrap());
    let kept = store.firings(row.id, 5000).await.unwrap();
    let expected: Vec<_> = firings[500..].iter().rev().chain([&firings[1]]).cloned().collect();
    assert!(kept == expected, "{} are kept, the oldest {:?}", kept.len(), kept.last());
    assert_eq!(store.open_firings(row.id).await.unwrap(), [open]);
    home.finish().await;
}
