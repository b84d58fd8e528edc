//! Tasks in the store: one transaction each, refused when somebody else was faster.
#![allow(clippy::unwrap_used)]

mod support;

use bytes::Bytes;
use castra_proto::task::{Deliverable, Level, TaskEventKind, TaskState};
use castra_proto::{TaskId, Timestamp};
use castra_store::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use support::Home;

fn new(name: Option<&str>, request: u8) -> NewTask {
    NewTask {
        name: name.map(str::to_owned),
        request_hash: [request; 32],
        priority: 0,
        parent: None,
        labels: BTreeMap::from([("team".to_owned(), "blue".to_owned())]),
        metadata: json!({"ticket": 7}),
        spec: r#"{"env":{"TOKEN":"***"}}"#.into(),
        secrets: Some(json!({"env": {"TOKEN": "s3cret"}})),
        told: Vec::new(),
    }
}

fn commit(task: TaskId, head: Option<u64>, state: TaskState, events: &[&str]) -> TaskCommit {
    TaskCommit {
        task,
        at: Timestamp(1),
        create: None,
        head,
        state,
        session: None,
        view: "{}".into(),
        events: events
            .iter()
            .map(|message| NewTaskEvent {
                at: Timestamp(2),
                attempt: 1,
                kind: TaskEventKind::Progress,
                level: Level::Info,
                message: (*message).to_owned(),
                data: Value::Null,
            })
            .collect(),
        deliverables: Vec::new(),
        server_events: Vec::new(),
    }
}

fn create(task: TaskId, new: NewTask) -> TaskCommit {
    TaskCommit { create: Some(new), ..commit(task, None, TaskState::Queued, &["queued"]) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_reads_back_whole_and_its_secrets_only_by_themselves() {
    let home = Home::new().await;
    let (store, id) = (&home.store, TaskId::now());
    assert_eq!(
        store.commit_task(create(id, new(Some("report"), 1))).await.unwrap(),
        TaskCommitted { head: 1, existed: false, server_head: None }
    );
    let row = store.task(id).await.unwrap().unwrap();
    assert_eq!((row.name.as_deref(), row.state, row.head), (Some("report"), TaskState::Queued, 1));
    assert_eq!((row.metadata, row.labels["team"].as_str()), (json!({"ticket": 7}), "blue"));
    assert_eq!(store.task_secrets(id).await.unwrap(), Some(json!({"env": {"TOKEN": "s3cret"}})));
    assert!(matches!(store.find_task("report").await.unwrap(), FoundTask::One(row) if row.id == id));
    assert!(
        matches!(store.find_task(&id.to_string()[..13]).await.unwrap(), FoundTask::One(row) if row.id == id)
    );
    assert_eq!(store.find_task("no").await.unwrap(), FoundTask::None);
    home.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_request_is_one_task_and_another_under_its_id_is_refused() {
    let home = Home::new().await;
    let (store, id) = (&home.store, TaskId::now());
    store.commit_task(create(id, new(None, 1))).await.unwrap();
    let again = store.commit_task(create(id, new(None, 1))).await.unwrap();
    assert_eq!(again, TaskCommitted { head: 1, existed: true, server_head: None });
    assert!(matches!(store.commit_task(create(id, new(None, 2))).await, Err(TaskError::Mismatch)));
    assert_eq!(store.task_events(id, 0, 9).await.unwrap().len(), 1);
    home.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_is_free_again_when_its_task_is_over() {
    let home = Home::new().await;
    let (store, first, second) = (&home.store, TaskId::now(), TaskId::now());
    store.commit_task(create(first, new(Some("report"), 1))).await.unwrap();
    let taken = store.commit_task(create(second, new(Some("report"), 2))).await;
    assert!(matches!(taken, Err(TaskError::NameTaken { by, .. }) if by == first));
    store.commit_task(commit(first, Some(1), TaskState::Done, &["done"])).await.unwrap();
    store.commit_task(create(second, new(Some("report"), 2))).await.unwrap();
    assert!(matches!(store.find_task("report").await.unwrap(), FoundTask::One(row) if row.id == second));
    // The first cannot go on under a name that is another's now.
    let again = store.commit_task(commit(first, Some(2), TaskState::Queued, &["again"])).await;
    assert!(matches!(again, Err(TaskError::NameTaken { by, .. }) if by == second), "{again:?}");
    assert_eq!(store.live_tasks().await.unwrap().len(), 1);
    home.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_wants_any_longer_is_found() {
    let home = Home::new().await;
    let store = &home.store;
    let mut ids = Vec::new();
    for (n, spec, state) in [
        (1, r#"{"ttl_s":3}"#, TaskState::Done),
        (2, r#"{"ttl_s":4}"#, TaskState::Failed),
        (3, r#"{"ttl_s":3}"#, TaskState::Running),
        (4, r#"{"ephemeral":true}"#, TaskState::Cancelled),
        (5, "{}", TaskState::Done),
    ] {
        let id = TaskId::now();
        store.commit_task(create(id, NewTask { spec: spec.into(), ..new(None, n) })).await.unwrap();
        store.commit_task(commit(id, Some(1), state, &["over"])).await.unwrap();
        ids.push(id);
    }
    // They were over in the first microsecond.
    assert_eq!(store.outlived_tasks(Timestamp(3_000_000), 9).await.unwrap(), [ids[3]]);
    assert_eq!(store.outlived_tasks(Timestamp(3_000_001), 9).await.unwrap(), [ids[0], ids[3]]);
    assert_eq!(store.outlived_tasks(Timestamp(i64::MAX), 2).await.unwrap(), [ids[0], ids[1]]);
    home.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_child_is_left_below_a_task_that_is_over() {
    let home = Home::new().await;
    let (store, parent, child) = (&home.store, TaskId::now(), TaskId::now());
    let made = || create(child, NewTask { parent: Some(parent), ..new(None, 2) });
    store.commit_task(create(parent, new(None, 1))).await.unwrap();
    let early = store.commit_task(made()).await;
    assert!(matches!(early, Err(TaskError::ParentIdle(id)) if id == parent));
    store.commit_task(commit(parent, Some(1), TaskState::Running, &["a"])).await.unwrap();
    store.commit_task(made()).await.unwrap();
    for state in [TaskState::Done, TaskState::Queued] {
        let over = store.commit_task(commit(parent, Some(2), state, &["b"])).await;
        assert!(matches!(over, Err(TaskError::Moved(2))), "{state}");
    }
    store.commit_task(commit(child, Some(1), TaskState::Cancelled, &["c"])).await.unwrap();
    store.commit_task(commit(parent, Some(2), TaskState::Done, &["b"])).await.unwrap();
    let late =
        store.commit_task(create(TaskId::now(), NewTask { parent: Some(parent), ..new(None, 3) })).await;
    assert!(matches!(late, Err(TaskError::ParentIdle(_))));
    let below: Vec<TaskId> = store.child_tasks(parent).await.unwrap().iter().map(|row| row.id).collect();
    assert_eq!(below, [child]);
    home.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_was_overtaken_changes_nothing() {
    let home = Home::new().await;
    let (store, id) = (&home.store, TaskId::now());
    store.commit_task(create(id, new(None, 1))).await.unwrap();
    store.commit_task(commit(id, Some(1), TaskState::Starting, &["a", "b"])).await.unwrap();
    let late = store.commit_task(commit(id, Some(1), TaskState::Cancelled, &["late"])).await;
    assert!(matches!(late, Err(TaskError::Moved(3))));
    assert_eq!(store.task(id).await.unwrap().unwrap().state, TaskState::Starting);
    let said: Vec<(u64, String)> = store
        .task_events(id, 1, 9)
        .await
        .unwrap()
        .into_iter()
        .map(|event| (event.seq, event.message))
        .collect();
    assert_eq!(said, [(2, "a".into()), (3, "b".into())]);
    let nobody = store.commit_task(commit(TaskId::now(), Some(0), TaskState::Done, &[])).await;
    assert!(matches!(nobody, Err(TaskError::NoTask(_))));
    assert_eq!(store.check().await.unwrap(), Vec::<String>::new());
    home.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_goes_with_its_events_and_what_it_has_handed_over() {
    let home = Home::new().await;
    let store = &home.store;
    let handed = |version| Deliverable {
        path: "a.bin".into(),
        version,
        size: 7,
        sha256: "0".repeat(64),
        media_type: "application/octet-stream".into(),
        at: Timestamp(3),
        attempt: 1,
    };
    let ids = [TaskId::now(), TaskId::now()];
    for id in ids {
        store.commit_task(create(id, new(None, 1))).await.unwrap();
        let handed_over =
            TaskCommit { deliverables: vec![handed(1)], ..commit(id, Some(1), TaskState::Done, &["x"]) };
        store.commit_task(handed_over).await.unwrap();
    }
    let (bytes, folder) = (Bytes::from_static(b"a content"), home.path().join("blobs"));
    let mut sha256 = String::new();
    for id in ids {
        sha256 = store.put_blob(id, bytes.clone()).await.unwrap();
    }
    assert_eq!(store.remove_tasks(vec![(ids[0], 2)], Timestamp(9)).await.unwrap(), Some(1));
    let again = store.remove_tasks(vec![(ids[0], 2)], Timestamp(9)).await;
    assert!(matches!(again, Err(TaskError::NoTask(id)) if id == ids[0]));
    assert_eq!(store.task(ids[0]).await.unwrap(), None);
    assert_eq!(store.blob(ids[0], &sha256).await.unwrap(), None);
    assert_eq!(store.blob(ids[1], &sha256).await.unwrap(), Some(bytes));
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1, "nothing is left of it");
    assert_eq!(store.task_events(ids[0], 0, 9).await.unwrap(), []);
    assert_eq!(store.deliverables(ids[0]).await.unwrap(), []);
    assert_eq!(store.deliverables(ids[1]).await.unwrap(), [handed(1)]);
    home.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_go_together_or_not_at_all() {
    let home = Home::new().await;
    let (store, [parent, child, late]) = (&home.store, [(); 3].map(|()| TaskId::now()));
    let made_for = |request| NewTask { parent: Some(parent), ..new(None, request) };
    store.commit_task(create(parent, new(None, 1))).await.unwrap();
    store.commit_task(commit(parent, Some(1), TaskState::Running, &["begins"])).await.unwrap();
    store.commit_task(create(child, made_for(2))).await.unwrap();
    let remove = async |tasks: &[(TaskId, u64)]| store.remove_tasks(tasks.to_vec(), Timestamp(9)).await;
    assert!(matches!(remove(&[(parent, 2), (child, 1)]).await, Err(TaskError::Moved(2))), "it is at work");
    store.commit_task(create(late, made_for(3))).await.unwrap();
    for id in [child, late] {
        store.commit_task(commit(id, Some(1), TaskState::Done, &["done"])).await.unwrap();
    }
    store.commit_task(commit(parent, Some(2), TaskState::Done, &["done"])).await.unwrap();
    assert!(matches!(remove(&[(parent, 3), (child, 2)]).await, Err(TaskError::Moved(3))), "there is another");
    let all = [(parent, 3), (child, 2), (late, 2)];
    // Somebody has one of them go on.
    store.commit_task(commit(late, Some(2), TaskState::Failed, &["again"])).await.unwrap();
    assert!(matches!(remove(&all).await, Err(TaskError::Moved(3))));
    for id in [parent, child, late] {
        assert!(store.task(id).await.unwrap().is_some(), "nothing is gone yet");
    }
    assert_eq!(remove(&[(parent, 3), (child, 2), (late, 3)]).await.unwrap(), Some(3));
    for id in [parent, child, late] {
        assert_eq!(store.task(id).await.unwrap(), None);
    }
    home.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contents_that_no_task_has_are_swept() {
    let home = Home::new().await;
    let (store, [known, unknown]) = (&home.store, [(); 2].map(|()| TaskId::now()));
    store.commit_task(create(known, new(None, 1))).await.unwrap();
    let bytes = Bytes::from_static(b"a content");
    let sha256 = store.put_blob(known, bytes.clone()).await.unwrap();
    store.put_blob(unknown, bytes.clone()).await.unwrap();
    store.sweep_blobs().await.unwrap();
    assert_eq!(store.blob(known, &sha256).await.unwrap(), Some(bytes));
    assert_eq!(store.blob(unknown, &sha256).await.unwrap(), None);
    home.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listings_are_filtered_and_go_on_where_they_ended() {
    let home = Home::new().await;
    let store = &home.store;
    let mut ids = Vec::new();
    for n in 0..5 {
        let id = TaskId::now();
        let task = NewTask { priority: i32::from(n == 2), ..new(None, n) };
        store.commit_task(create(id, task)).await.unwrap();
        ids.push(id);
    }
    store.commit_task(commit(ids[0], Some(1), TaskState::Failed, &["failed"])).await.unwrap();
    let list = async |filter: TaskFilter, limit| {
        let (mut all, mut cursor) = (Vec::new(), None);
        loop {
            let page = store.tasks(&filter, cursor, limit).await.unwrap();
            all.extend(page.items.into_iter().map(|row| row.id));
            cursor = page.next;
            if cursor.is_none() {
                return all;
            }
        }
    };
    let newest_first = |some: &[usize]| some.iter().map(|n| ids[*n]).collect::<Vec<_>>();
    assert_eq!(list(TaskFilter::default(), 2).await, newest_first(&[4, 3, 2, 1]));
    assert_eq!(
        list(TaskFilter { all: true, ..TaskFilter::default() }, 2).await,
        newest_first(&[4, 3, 2, 1, 0])
    );
    let failed = TaskFilter { states: vec![TaskState::Failed], ..TaskFilter::default() };
    assert_eq!(list(failed, 9).await, newest_first(&[0]));
    let red = TaskFilter { label: Some(("team".into(), "red".into())), ..TaskFilter::default() };
    assert_eq!(list(red, 9).await, []);
    // As they leave the queue: the higher priority first, then in order.
    let live: Vec<TaskId> = store.live_tasks().await.unwrap().into_iter().map(|row| row.id).collect();
    assert_eq!(live, newest_first(&[2, 1, 3, 4]));
    home.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_queue_reads_all_that_hangs_together_and_of_the_rest_as_much_as_is_wanted() {
    let home = Home::new().await;
    let store = &home.store;
    let waits_for = |id: TaskId| json!({"depends_on": [id]}).to_string();
    let [running, child, waiting, first, second, urgent] = std::array::from_fn(|_| TaskId::now());
    for (n, (id, priority, parent, view)) in [
        (running, 0, None, "{}".to_owned()),
        (first, 0, None, json!({"depends_on": []}).to_string()),
        (second, 0, None, "{}".to_owned()),
        (waiting, 0, None, waits_for(first)),
        (urgent, 5, None, "{}".to_owned()),
    ]
    .into_iter()
    .enumerate()
    {
        let new = NewTask { priority, parent, ..new(None, n as u8) };
        store.commit_task(TaskCommit { view, ..create(id, new) }).await.unwrap();
    }
    store.commit_task(commit(running, Some(1), TaskState::Running, &["runs"])).await.unwrap();
    store.commit_task(create(child, NewTask { parent: Some(running), ..new(None, 9) })).await.unwrap();
    for (plain, expected) in [
        (0, vec![running, waiting, child]),
        (1, vec![urgent, running, waiting, child]),
        (2, vec![urgent, running, first, waiting, child]),
        (9, vec![urgent, running, first, second, waiting, child]),
    ] {
        let found: Vec<TaskId> = store.queue(plain).await.unwrap().into_iter().map(|row| row.id).collect();
        assert_eq!(found, expected, "{plain} of the plain ones");
    }
    assert!(store.is_waited_for(first).await.unwrap());
    assert!(!store.is_waited_for(second).await.unwrap());
    store.commit_task(commit(waiting, Some(1), TaskState::Starting, &["begins"])).await.unwrap();
    assert!(!store.is_waited_for(first).await.unwrap(), "whoever has begun waits no more");
    // What is over below a task that is over does not begin anew by itself.
    store.commit_task(commit(child, Some(1), TaskState::Failed, &["fails"])).await.unwrap();
    store.commit_task(commit(running, Some(2), TaskState::Failed, &["fails"])).await.unwrap();
    let again = store.commit_task(commit(child, Some(2), TaskState::Queued, &["again"])).await;
    assert!(matches!(again, Err(TaskError::ParentIdle(parent)) if parent == running), "{again:?}");
    home.finish().await;
}
