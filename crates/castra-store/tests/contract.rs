//! What every backend must do. `contract!` runs each of these over each backend; SQLite is the first.
#![allow(clippy::unwrap_used)]

mod support;

use bytes::Bytes;
use castra_proto::api::{IfBusy, MessageState, Priority, Scope};
use castra_proto::spec::Mode;
use castra_proto::{Kind, MessageId, OwnKind, RunId, RunState, SessionId, Timestamp, TokenId};
use castra_store::*;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use support::*;
use uuid::Uuid;

macro_rules! contract {
    ($($name:ident)*) => {
        mod sqlite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let home = super::Home::new().await;
                    super::$name(&home).await;
                    home.finish().await;
                }
            )*
        }
    };
}

contract! {
    a_session_reads_back_whole
    only_what_an_update_names_is_changed
    claude_session_ids_are_kept_in_order
    events_are_numbered_from_one_and_keep_their_bytes
    pages_end_by_count_and_by_bytes
    a_message_goes_from_accepted_to_answered
    the_queue_is_bounded
    a_repeated_message_changes_nothing
    fifty_retries_at_once_are_one_message
    a_key_is_good_for_one_request
    an_older_epoch_is_refused
    runs_follow_each_other_and_one_starter_wins
    a_subject_is_decided_once
    a_refused_commit_leaves_nothing
    a_refused_commit_does_not_touch_its_group
    concurrent_commits_keep_the_order_of_each_session
    names_and_prefixes_find_sessions
    listings_go_on_where_they_ended
    live_sessions_are_those_that_are_not_over
    a_thousand_live_sessions
    the_server_sequence_is_one
    removal_hides_at_once_and_purges_in_steps
    tokens_are_known_by_their_hash
    epochs_of_a_host_rise
    retention_forgets_what_is_old
    counts_are_of_what_is_there
    a_large_body_reads_back
}

async fn a_session_reads_back_whole(home: &Home) {
    let id = SessionId::now();
    let fork_of = SessionId::now();
    let labels = BTreeMap::from([("team".to_owned(), "a".to_owned())]);
    let new = NewSession {
        name: Some("nightly".into()),
        host: "box".into(),
        owner: "server-1".into(),
        mode: Mode::Terminal,
        cwd: Some("/src".into()),
        spec: r#"{"env":{"T":"***"}}"#.into(),
        spec_secrets: Some(json!({"env": {"T": "s3cret"}})),
        view: r#"{"turns":0}"#.into(),
        labels: labels.clone(),
        fork_of: Some(fork_of),
    };
    let commit = at(id, 5).fenced_by(4).change(Change::Create(Box::new(new))).event(event("{}"));
    let committed = home.store.commit(commit.clone()).await.unwrap();
    assert_eq!(committed, Committed { first_seq: 1, last_seq: 1, duplicate_of: None });
    let row = SessionRow {
        id,
        name: Some("nightly".into()),
        host: "box".into(),
        owner: "server-1".into(),
        epoch: 4,
        mode: Mode::Terminal,
        state: RunState::Queued,
        cwd: Some("/src".into()),
        head: 1,
        newest_run: 0,
        created_at: Timestamp(5),
        updated_at: Timestamp(5),
        labels,
        fork_of: Some(fork_of),
        claude_session_ids: vec![],
        spec: r#"{"env":{"T":"***"}}"#.into(),
        view: r#"{"turns":0}"#.into(),
        offers: "{}".into(),
    };
    assert_eq!(home.store.session(id).await.unwrap(), Some(row));
    assert_eq!(home.store.secrets(id).await.unwrap(), Some(json!({"env": {"T": "s3cret"}})));
    assert!(matches!(home.store.commit(commit).await, Err(CommitError::SessionExists(known)) if known == id));

    let nobody = SessionId::now();
    assert_eq!(home.store.session(nobody).await.unwrap(), None);
    assert_eq!(home.store.secrets(nobody).await.unwrap(), None);
    assert_eq!(home.store.head(nobody).await.unwrap(), None);
    let refused = home.store.commit(at(nobody, 1).event(event("{}"))).await;
    assert!(matches!(refused, Err(CommitError::NoSession(id)) if id == nobody));
}

async fn only_what_an_update_names_is_changed(home: &Home) {
    let id = create(&home.store, NewSession { name: Some("a".into()), ..new_session() }).await;
    let before = home.store.session(id).await.unwrap().unwrap();
    let view = SessionUpdate { view: Some(r#"{"turns":1}"#.into()), ..SessionUpdate::default() };
    home.store.commit(at(id, 9).change(Change::Session(view))).await.unwrap();
    let expected = SessionRow { view: r#"{"turns":1}"#.into(), updated_at: Timestamp(9), ..before };
    assert_eq!(home.store.session(id).await.unwrap(), Some(expected.clone()));

    let rest = SessionUpdate {
        state: Some(RunState::Lost),
        view: None,
        offers: Some(r#"{"tools":["Bash"]}"#.into()),
        name: Some(None),
        labels: Some(BTreeMap::from([("k".into(), "v".into())])),
        cwd: Some("/else".into()),
        spec: Some("{}".into()),
        spec_secrets: Some(json!("new")),
        owner: Some("other".into()),
        mode: Some(Mode::Terminal),
    };
    home.store.commit(at(id, 10).change(Change::Session(rest))).await.unwrap();
    let expected = SessionRow {
        state: RunState::Lost,
        name: None,
        labels: BTreeMap::from([("k".into(), "v".into())]),
        cwd: Some("/else".into()),
        spec: "{}".into(),
        offers: r#"{"tools":["Bash"]}"#.into(),
        owner: "other".into(),
        mode: Mode::Terminal,
        updated_at: Timestamp(10),
        ..expected
    };
    assert_eq!(home.store.session(id).await.unwrap(), Some(expected));
    assert_eq!(home.store.secrets(id).await.unwrap(), Some(json!("new")));
}

async fn claude_session_ids_are_kept_in_order(home: &Home) {
    let (one, two) = (home.session().await, home.session().await);
    let (a, b) = (Uuid::new_v4(), Uuid::new_v4());
    for (session, claude) in [(one, a), (one, a), (one, b), (one, a), (two, b)] {
        home.store.commit(at(session, 3).change(Change::ClaudeSession(claude))).await.unwrap();
    }
    assert_eq!(home.store.session(one).await.unwrap().unwrap().claude_session_ids, [a, b, a]);
    assert_eq!(home.store.claude_session(a).await.unwrap(), Some(one));
    assert_eq!(home.store.claude_session(b).await.unwrap(), Some(two), "the newest session has it");
    assert_eq!(home.store.claude_session(Uuid::new_v4()).await.unwrap(), None);
}

async fn events_are_numbered_from_one_and_keep_their_bytes(home: &Home) {
    let id = home.session().await;
    let own =
        NewEvent { kind: OwnKind::State.into(), run: 0, turn: 0, ..event(r#"{"b": 1.0,  "a":"\u00e9"}"#) };
    let unknown = NewEvent {
        kind: OwnKind::Unknown.into(),
        raw: Some(Bytes::from_static(b"\xff\x00 not JSON")),
        ..event("null")
    };
    let large = event(format!("\"{}\"", "x".repeat(20_000)));
    // Odd numbers and neighbours of every sort, so that each statement is used and none is off by one.
    let mut events = vec![own.clone(), unknown, large.clone(), event("")];
    events.extend((0..700).map(|n| NewEvent {
        at: Timestamp(n),
        kind: Kind::parse(["user", "assistant", "stderr"][n as usize % 3]),
        ..event(format!("{{\"n\":{n}}}"))
    }));
    events.extend([large, own]);
    let (first, rest) = events.split_at(3);
    let commit = |part: &[NewEvent]| Commit { events: part.to_vec(), ..at(id, 2) };
    let committed = home.store.commit(commit(first)).await.unwrap();
    assert_eq!((committed.first_seq, committed.last_seq), (1, 3));
    let committed = home.store.commit(commit(rest)).await.unwrap();
    assert_eq!((committed.first_seq, committed.last_seq), (4, events.len() as u64));
    let committed = home.store.commit(commit(&[])).await.unwrap();
    assert_eq!((committed.first_seq, committed.last_seq), (706, 706));

    let expected: Vec<_> = (1..).zip(&events).map(|(seq, event)| numbered(event, seq)).collect();
    assert_eq!(home.store.events(id, 0, 10_000, usize::MAX).await.unwrap(), expected);
    assert_eq!(home.store.event(id, 3).await.unwrap().as_ref(), Some(&expected[2]));
    for missing in [0, 707, u64::MAX] {
        assert_eq!(home.store.event(id, missing).await.unwrap(), None);
    }
    assert_eq!(home.store.head(id).await.unwrap(), Some(706));
}

async fn pages_end_by_count_and_by_bytes(home: &Home) {
    let id = home.session().await;
    let sizes = [100, 100, 30_000, 100, 100_000, 100];
    let events = sizes.map(|size| event("x".repeat(size))).to_vec();
    home.store.commit(Commit { events, ..at(id, 2) }).await.unwrap();
    for (after, limit, max_bytes, expected) in [
        (0, 10, usize::MAX, vec![1, 2, 3, 4, 5, 6]),
        (0, 2, usize::MAX, vec![1, 2]),
        (4, 2, usize::MAX, vec![5, 6]),
        (6, 2, usize::MAX, vec![]),
        (0, 10, 200, vec![1, 2]),
        (0, 10, 199, vec![1]),
        (0, 10, 30_200, vec![1, 2, 3]),
        (0, 10, 30_199, vec![1, 2]),
        (2, 10, 0, vec![3]),
        (4, 10, 99_999, vec![5]),
        (4, 10, 100_100, vec![5, 6]),
        (0, 0, 100, vec![]),
    ] {
        let page = home.store.events(id, after, limit, max_bytes).await.unwrap();
        let seqs: Vec<u64> = page.iter().map(|event| event.seq).collect();
        assert_eq!(seqs, expected, "after {after}, at most {limit} and {max_bytes} bytes");
    }
    assert_eq!(home.store.size(id).await.unwrap(), SessionSize { events: 6, bytes: 130_400 });
}

async fn a_message_goes_from_accepted_to_answered(home: &Home) {
    let id = home.running().await;
    let message_id = MessageId::now();
    let new = NewMessage {
        id: message_id,
        body: r#"{"text":"hi"}"#.into(),
        if_busy: IfBusy::Steer,
        priority: Some(Priority::Next),
        accepted: SeqAt::Event(1),
    };
    let accept = at(id, 3).change(Change::AddMessage(new)).event(event("0")).event(event("1"));
    home.store.commit(accept).await.unwrap();
    let mut row = MessageRow {
        id: message_id,
        seq: 2,
        state: MessageState::Queued,
        if_busy: IfBusy::Steer,
        priority: Some(Priority::Next),
        body: r#"{"text":"hi"}"#.into(),
        run: None,
        turn: None,
        delivered_seq: None,
        result: None,
        result_seq: None,
        created_at: Timestamp(3),
        updated_at: Timestamp(3),
    };
    assert_eq!(home.store.message(id, message_id).await.unwrap(), Some(row.clone()));

    let delivered = MessageUpdate {
        from: vec![MessageState::Queued, MessageState::Written],
        state: Some(MessageState::Delivered),
        run: Some(1),
        turn: Some(4),
        delivered: Some(SeqAt::Event(0)),
        ..MessageUpdate::new(message_id)
    };
    let deliver = at(id, 4).change(Change::Message(delivered)).event(event("2"));
    home.store.commit(deliver.clone()).await.unwrap();
    let again = home.store.commit(deliver).await;
    assert!(matches!(again, Err(CommitError::MessageConflict { state: MessageState::Delivered, .. })));

    let answered = MessageUpdate {
        state: Some(MessageState::Answered),
        result: Some(json!({"ok": true})),
        result_at: Some(SeqAt::Seq(3)),
        ..MessageUpdate::new(message_id)
    };
    home.store.commit(at(id, 5).change(Change::Message(answered))).await.unwrap();
    row = MessageRow {
        state: MessageState::Answered,
        run: Some(1),
        turn: Some(4),
        delivered_seq: Some(3),
        result: Some(json!({"ok": true})),
        result_seq: Some(3),
        updated_at: Timestamp(5),
        ..row
    };
    assert_eq!(home.store.messages(id, &[]).await.unwrap(), [row.clone()]);
    assert_eq!(home.store.messages(id, &[MessageState::Answered]).await.unwrap(), [row]);
    assert_eq!(home.store.messages(id, &[MessageState::Queued, MessageState::Written]).await.unwrap(), []);

    let unknown =
        home.store.commit(at(id, 6).change(message_state(MessageId::now(), MessageState::Written))).await;
    assert!(matches!(unknown, Err(CommitError::NoMessage(_))));
    let nowhere = home.store.commit(at(id, 6).change(message(MessageId::now()))).await;
    assert!(matches!(nowhere, Err(CommitError::Malformed(_))), "its event is not in the commit");
}

async fn the_queue_is_bounded(home: &Home) {
    let id = home.session().await;
    let accept = |message_id| {
        at(id, 3).guard(Guard::UndeliveredBelow(2)).change(message(message_id)).event(event("{}"))
    };
    let ids = [MessageId::now(), MessageId::now(), MessageId::now()];
    home.store.commit(accept(ids[0])).await.unwrap();
    home.store.commit(accept(ids[1])).await.unwrap();
    let full = home.store.commit(accept(ids[2])).await;
    assert!(matches!(full, Err(CommitError::QueueFull { waiting: 2, limit: 2 })));
    // A retry of what was accepted is answered even so.
    assert!(home.store.commit(accept(ids[1])).await.unwrap().duplicate_of.is_some());
    // Written is not delivered yet; delivered is.
    home.store.commit(at(id, 4).change(message_state(ids[0], MessageState::Written))).await.unwrap();
    assert!(home.store.commit(accept(ids[2])).await.is_err());
    home.store.commit(at(id, 4).change(message_state(ids[0], MessageState::Delivered))).await.unwrap();
    home.store.commit(accept(ids[2])).await.unwrap();
}

async fn a_repeated_message_changes_nothing(home: &Home) {
    let id = home.session().await;
    let message_id = MessageId::of_key(id, "k");
    let accept =
        at(id, 3).change(message(message_id)).event(event("{}")).server_event("session_state", json!(1));
    let first = home.store.commit(accept.clone()).await.unwrap();
    home.store.commit(at(id, 4).event(event("{}"))).await.unwrap();
    let row = home.store.session(id).await.unwrap();
    let again = home.store.commit(Commit { at: Timestamp(99), ..accept }).await.unwrap();
    let duplicate_of = Some(Duplicate { session: id, message: Some(message_id) });
    assert_eq!(again, Committed { duplicate_of, ..first });
    assert_eq!(home.store.session(id).await.unwrap(), row);
    assert_eq!(home.store.server_events(0, 10).await.unwrap().len(), 1);
}

async fn fifty_retries_at_once_are_one_message(home: &Home) {
    let id = home.session().await;
    let message_id = MessageId::of_key(id, "k");
    let tries: Vec<_> = (0..50)
        .map(|_| {
            let store = home.store.clone();
            let commit = at(id, 3).once(key("k", 1)).change(message(message_id)).event(event("{}"));
            tokio::spawn(async move { store.commit(commit).await.unwrap() })
        })
        .collect();
    let mut originals = 0;
    for one in tries {
        let committed = one.await.unwrap();
        assert_eq!((committed.first_seq, committed.last_seq), (1, 1));
        originals += u32::from(committed.duplicate_of.is_none());
    }
    assert_eq!(originals, 1);
    assert_eq!(home.store.messages(id, &[]).await.unwrap().len(), 1);
    assert_eq!(home.store.head(id).await.unwrap(), Some(1));
}

async fn a_key_is_good_for_one_request(home: &Home) {
    let first = SessionId::now();
    let make = |id, hash| {
        at(id, 3).once(key("new", hash)).change(Change::Create(Box::new(new_session()))).event(event("{}"))
    };
    home.store.commit(make(first, 1)).await.unwrap();
    // A retry comes with an id of its own, and is told of the session that there is.
    let second = SessionId::now();
    let again = home.store.commit(make(second, 1)).await.unwrap();
    let duplicate_of = Some(Duplicate { session: first, message: None });
    assert_eq!(again, Committed { first_seq: 1, last_seq: 1, duplicate_of });
    assert_eq!(home.store.session(second).await.unwrap(), None);
    let other = home.store.commit(make(second, 2)).await;
    assert!(matches!(other, Err(CommitError::IdempotencyMismatch)));
    let row = home.store.idempotency("messages", "new").await.unwrap().unwrap();
    assert_eq!((row.session, row.message, row.request_hash), (first, None, [1; 32]));
    assert_eq!(home.store.idempotency("sessions", "new").await.unwrap(), None);
}

async fn an_older_epoch_is_refused(home: &Home) {
    let id = home.session().await;
    for epoch in [3, 3, 5] {
        home.store.commit(at(id, 2).fenced_by(epoch).event(event("{}"))).await.unwrap();
    }
    let old = home.store.commit(at(id, 2).fenced_by(4).event(event("{}"))).await;
    assert!(matches!(old, Err(CommitError::Fenced { held: 5, offered: 4, .. })));
    // Whoever accepts for others names none.
    home.store.commit(at(id, 2).event(event("{}"))).await.unwrap();
    let row = home.store.session(id).await.unwrap().unwrap();
    assert_eq!((row.epoch, row.head), (5, 4));
}

async fn runs_follow_each_other_and_one_starter_wins(home: &Home) {
    let id = home.session().await;
    let ahead = home.store.commit(at(id, 2).change(Change::StartRun(run(2)))).await;
    assert!(matches!(ahead, Err(CommitError::RunConflict { newest: 0, state: RunState::Queued })));
    let first = NewRun { meta: json!({"pid": 1}), ..run(1) };
    home.store.commit(at(id, 3).change(Change::StartRun(first.clone()))).await.unwrap();
    let early = home.store.commit(at(id, 3).change(Change::StartRun(run(2)))).await;
    assert!(matches!(early, Err(CommitError::RunConflict { newest: 1, state: RunState::Queued })));

    let update = RunUpdate {
        n: 1,
        state: Some(RunState::Idle),
        cursor: Some(40),
        hold: Some(Some(38)),
        epoch: Some(2),
        meta: Some(json!({"pid": 2})),
        exit: None,
    };
    home.store.commit(at(id, 4).change(Change::Run(update))).await.unwrap();
    let mut row = RunRow {
        n: 1,
        id: first.id,
        state: RunState::Idle,
        epoch: 2,
        dir: "runs/1".into(),
        cursor: 40,
        hold: Some(38),
        meta: json!({"pid": 2}),
        exit: None,
        created_at: Timestamp(3),
        updated_at: Timestamp(4),
    };
    assert_eq!(home.store.run(id, 1).await.unwrap(), Some(row.clone()));
    assert_eq!(home.store.session(id).await.unwrap().unwrap().state, RunState::Idle);
    let end = RunUpdate {
        n: 1,
        state: Some(RunState::Ended),
        hold: Some(None),
        exit: Some(json!({"code": 0})),
        ..RunUpdate::default()
    };
    home.store.commit(at(id, 5).change(Change::Run(end))).await.unwrap();
    row = RunRow {
        state: RunState::Ended,
        hold: None,
        exit: Some(json!({"code": 0})),
        updated_at: Timestamp(5),
        ..row
    };
    assert_eq!(home.store.runs(id).await.unwrap(), [row]);

    let starts: Vec<_> = (0..20)
        .map(|_| {
            let store = home.store.clone();
            let commit = at(id, 6)
                .guard(Guard::NewestRun { n: 1, is_final: true })
                .change(Change::StartRun(run(2)))
                .event(event("{}"));
            tokio::spawn(async move { store.commit(commit).await })
        })
        .collect();
    let mut won = 0;
    for start in starts {
        match start.await.unwrap() {
            Ok(_) => won += 1,
            Err(error) => assert!(matches!(error, CommitError::RunConflict { newest: 2, .. }), "{error}"),
        }
    }
    assert_eq!(won, 1);
    let session = home.store.session(id).await.unwrap().unwrap();
    assert_eq!((session.newest_run, session.state, session.head), (2, RunState::Queued, 1));
    // What an older run still says does not become the session's state.
    home.store.commit(at(id, 7).change(run_state(1, RunState::Lost))).await.unwrap();
    assert_eq!(home.store.session(id).await.unwrap().unwrap().state, RunState::Queued);
    let none = home.store.commit(at(id, 7).change(run_state(3, RunState::Lost))).await;
    assert!(matches!(none, Err(CommitError::NoRun(3))));
    assert_eq!(home.store.run_by_id(first.id).await.unwrap(), Some((id, 1)));
    assert_eq!(home.store.run_by_id(RunId::now()).await.unwrap(), None);
}

async fn a_subject_is_decided_once(home: &Home) {
    let id = home.session().await;
    let decide =
        |by: &str| at(id, 3).change(Change::AddCommand(command(Some("req-1"), by))).event(event("{}"));
    let decisions: Vec<_> = (0..10)
        .map(|n| {
            let (store, commit) = (home.store.clone(), decide(&format!("person {n}")));
            tokio::spawn(async move { store.commit(commit).await.is_ok() })
        })
        .collect();
    let mut won = 0;
    for decision in decisions {
        won += u32::from(decision.await.unwrap());
    }
    assert_eq!((won, home.store.head(id).await.unwrap()), (1, Some(1)));
    let open = home.store.open_commands(id).await.unwrap();
    let [first] = &open[..] else { panic!("{open:?}") };
    match home.store.commit(decide("late")).await {
        Err(CommitError::CommandConflict { subject, command, by }) => {
            assert_eq!((subject.as_str(), command, by), ("req-1", first.id, first.by.clone()));
        }
        other => panic!("{other:?}"),
    }
    // Done is decided; superseded is not.
    let to = |state| at(id, 4).change(Change::Command { id: first.id, state, result: Some(json!("ok")) });
    home.store.commit(to(CommandState::Done)).await.unwrap();
    assert_eq!(home.store.open_commands(id).await.unwrap(), []);
    assert!(home.store.commit(decide("late")).await.is_err());
    home.store.commit(to(CommandState::Superseded)).await.unwrap();
    home.store.commit(decide("again")).await.unwrap();
    let row = CommandRow {
        state: CommandState::Superseded,
        result: Some(json!("ok")),
        updated_at: Timestamp(4),
        ..first.clone()
    };
    assert_eq!(home.store.command(first.id).await.unwrap(), Some(row));
    // Without a subject there is nothing to decide once.
    for _ in 0..2 {
        home.store.commit(at(id, 5).change(Change::AddCommand(command(None, "me")))).await.unwrap();
    }
    assert_eq!(home.store.open_commands(id).await.unwrap().len(), 3);
    let unknown = Change::Command { id: command(None, "").id, state: CommandState::Done, result: None };
    assert!(matches!(home.store.commit(at(id, 6).change(unknown)).await, Err(CommitError::NoCommand(_))));
}

async fn a_refused_commit_leaves_nothing(home: &Home) {
    let id = home.running().await;
    let before = home.store.session(id).await.unwrap();
    // The last change is refused after everything else was written.
    let commit = at(id, 9)
        .once(key("k", 1))
        .fenced_by(8)
        .change(message(MessageId::now()))
        .change(Change::AddCommand(command(Some("s"), "me")))
        .change(run_state(1, RunState::Idle))
        .change(Change::ClaudeSession(Uuid::new_v4()))
        .change(run_state(7, RunState::Idle))
        .event(event("{}"))
        .server_event("session_state", json!({}));
    assert!(matches!(home.store.commit(commit).await, Err(CommitError::NoRun(7))));
    assert_eq!(home.store.session(id).await.unwrap(), before);
    assert_eq!(home.store.run(id, 1).await.unwrap().unwrap().state, RunState::Queued);
    assert_eq!(home.store.messages(id, &[]).await.unwrap(), []);
    assert_eq!(home.store.open_commands(id).await.unwrap(), []);
    assert_eq!(home.store.idempotency("messages", "k").await.unwrap(), None);
    assert_eq!(home.store.server_events(0, 10).await.unwrap(), []);
    let moved = home.store.commit(at(id, 9).guard(Guard::HeadIs(1))).await;
    assert!(matches!(moved, Err(CommitError::HeadMoved(0))));
    home.store.commit(at(id, 9).guard(Guard::HeadIs(0))).await.unwrap();
}

async fn a_refused_commit_does_not_touch_its_group(home: &Home) {
    let id = home.session().await;
    let tries: Vec<_> = (0..300u64)
        .map(|n| {
            let store = home.store.clone();
            let good = at(id, 2).event(event(n.to_string()));
            // Every third writes, and is refused after that.
            let commit = if n % 3 == 0 { good.change(run_state(9, RunState::Idle)) } else { good };
            tokio::spawn(async move { (n, store.commit(commit).await) })
        })
        .collect();
    let mut expected = BTreeMap::new();
    for one in tries {
        match one.await.unwrap() {
            (n, Ok(committed)) => assert_eq!(expected.insert(committed.first_seq, n.to_string()), None),
            (n, Err(error)) => assert!(n % 3 == 0 && matches!(error, CommitError::NoRun(9)), "{n}: {error}"),
        }
    }
    let events = home.store.events(id, 0, 1000, usize::MAX).await.unwrap();
    let stored: BTreeMap<_, _> =
        events.iter().map(|e| (e.seq, String::from_utf8(e.data.to_vec()).unwrap())).collect();
    assert_eq!((stored.len(), stored), (200, expected));
}

async fn concurrent_commits_keep_the_order_of_each_session(home: &Home) {
    let mut actors = Vec::new();
    for _ in 0..8 {
        let (store, id) = (home.store.clone(), home.session().await);
        actors.push(tokio::spawn(async move {
            // Up to thirty futures are polled, and so queued, in order; nobody waits for the one before.
            let commits = (0..30).map(|n: u32| store.commit(at(id, 2).event(event(n.to_string()))));
            for (n, done) in futures::future::join_all(commits).await.into_iter().enumerate() {
                assert_eq!(done.unwrap().first_seq, n as u64 + 1);
            }
            id
        }));
    }
    for actor in actors {
        let id = actor.await.unwrap();
        let events = home.store.events(id, 0, 1000, usize::MAX).await.unwrap();
        let said: Vec<_> = events.iter().map(|e| e.data.clone()).collect();
        assert_eq!(said, (0..30).map(|n| Bytes::from(n.to_string())).collect::<Vec<_>>());
    }
}

async fn names_and_prefixes_find_sessions(home: &Home) {
    let make = |id: &str, name: Option<&str>| {
        let new = NewSession { name: name.map(str::to_owned), ..new_session() };
        at(id.parse().unwrap(), 1).change(Change::Create(Box::new(new)))
    };
    let ids = [
        "aaaa1111-0000-7000-8000-000000000001",
        "aaaa1111-0000-7000-8000-000000000002",
        "bbbb2222-0000-7000-8000-000000000003",
        "cccc3333-0000-7000-8000-000000000004",
    ];
    for (id, name) in ids.into_iter().zip([None, Some("nightly"), Some("aaaa"), Some("nightly")]) {
        home.store.commit(make(id, name)).await.unwrap();
    }
    let [one, two, three, four] = ids.map(|id| id.parse::<SessionId>().unwrap());
    let found = |text: &'static str| async move {
        match home.store.find(text).await.unwrap() {
            Found::One(row) => vec![row.id],
            Found::Ambiguous(ids) => ids,
            Found::None => vec![],
        }
    };
    for (text, expected) in [
        ("aaaa1111-0000-7000-8000-000000000001", vec![one]),
        ("aaaa1111", vec![two, one]),
        ("AAAA1111-0000-7000-8000-000000000002", vec![two]),
        ("aaaa1111-0000-7000-8000-00000000000", vec![two, one]),
        ("bbbb", vec![three]),
        ("bbb", vec![]),
        ("aaaa", vec![three]),
        ("nightly", vec![four]),
        ("dddd", vec![]),
        ("%", vec![]),
        ("bbbb*", vec![]),
        ("", vec![]),
    ] {
        assert_eq!(found(text).await, expected, "{text:?}");
    }
    // Of two of a name the one that goes on wins over the newer one.
    let over = SessionUpdate { state: Some(RunState::Ended), ..SessionUpdate::default() };
    home.store.commit(at(four, 2).change(Change::Session(over))).await.unwrap();
    assert_eq!(found("nightly").await, [two]);

    let taken = make("dddd4444-0000-7000-8000-000000000005", Some("nightly"))
        .guard(Guard::NameFree("nightly".into()));
    match home.store.commit(taken.clone()).await {
        Err(CommitError::NameTaken { name, by }) => assert_eq!((name.as_str(), by), ("nightly", two)),
        other => panic!("{other:?}"),
    }
    assert_eq!(found("dddd").await, [], "it was refused");
    home.store.commit(at(two, 2).guard(Guard::NameFree("nightly".into()))).await.unwrap();
    home.store.commit(at(two, 2).change(Change::Remove)).await.unwrap();
    home.store.commit(taken).await.unwrap();
    assert_eq!(
        home.store.newest_session_of_workdir("/work").await.unwrap().map(|id| id.to_string()),
        Some("dddd4444-0000-7000-8000-000000000005".into())
    );
    assert_eq!(home.store.newest_session_of_workdir("/wor").await.unwrap(), None);
}

async fn listings_go_on_where_they_ended(home: &Home) {
    let mut ids = Vec::new();
    for n in 0..7 {
        let labels = BTreeMap::from([("parity".to_owned(), ["even", "odd"][n % 2].to_owned())]);
        ids.push(
            create(&home.store, NewSession { name: Some(format!("s{n}")), labels, ..new_session() }).await,
        );
    }
    for id in &ids[..2] {
        let over = SessionUpdate { state: Some(RunState::Ended), ..SessionUpdate::default() };
        home.store.commit(at(*id, 2).change(Change::Session(over))).await.unwrap();
    }
    home.store.commit(at(ids[6], 3).change(Change::Remove)).await.unwrap();
    let list = |filter: SessionFilter| async move {
        let (mut found, mut after, mut pages) = (Vec::new(), None, 0);
        loop {
            let listing = home.store.sessions(&filter, after, 2).await.unwrap();
            found.extend(listing.items.iter().map(|row| row.name.clone().unwrap()));
            pages += 1;
            // As it comes back from a client.
            after = listing.next.map(|cursor| cursor.to_string().parse().unwrap());
            if after.is_none() {
                return (found.join(" "), pages);
            }
        }
    };
    let label = |value: &str| Some(("parity".to_owned(), value.to_owned()));
    let none = SessionFilter::default();
    for (filter, expected, pages) in [
        (none.clone(), "s5 s4 s3 s2", 2),
        (SessionFilter { all: true, ..none.clone() }, "s5 s4 s3 s2 s1 s0", 3),
        (SessionFilter { states: vec![RunState::Ended, RunState::Lost], ..none.clone() }, "s1 s0", 1),
        (SessionFilter { label: label("odd"), ..none.clone() }, "s5 s3", 1),
        (SessionFilter { label: label("odd"), all: true, ..none.clone() }, "s5 s3 s1", 2),
        (SessionFilter { label: label("'"), ..none.clone() }, "", 1),
        (SessionFilter { name: Some("s3".into()), ..none }, "s3", 1),
    ] {
        assert_eq!(list(filter.clone()).await, (expected.to_owned(), pages), "{filter:?}");
    }
}

async fn live_sessions_are_those_that_are_not_over(home: &Home) {
    let (fresh, running, ended, resumed, removed) = (
        home.session().await,
        home.running().await,
        home.running().await,
        home.running().await,
        home.running().await,
    );
    home.store.commit(at(running, 3).change(run_state(1, RunState::Running))).await.unwrap();
    for id in [ended, resumed] {
        home.store.commit(at(id, 3).change(run_state(1, RunState::Lost))).await.unwrap();
    }
    home.store.commit(at(resumed, 4).change(Change::StartRun(run(2)))).await.unwrap();
    home.store.commit(at(removed, 4).change(Change::Remove)).await.unwrap();
    let live = home.store.live_sessions().await.unwrap();
    let shown: Vec<_> = live
        .iter()
        .map(|live| (live.session.id, live.session.state, live.run.as_ref().map(|run| (run.n, run.state))))
        .collect();
    assert_eq!(
        shown,
        [
            (fresh, RunState::Queued, None),
            (running, RunState::Running, Some((1, RunState::Running))),
            (resumed, RunState::Queued, Some((2, RunState::Queued))),
        ]
    );
}

async fn a_thousand_live_sessions(home: &Home) {
    let commits = (0..1000).map(|n| {
        let id = SessionId::now();
        let new = NewSession { view: format!("{{\"n\":{n}}}"), ..new_session() };
        home.store.commit(at(id, n).change(Change::Create(Box::new(new))).change(Change::StartRun(run(1))))
    });
    for done in futures::future::join_all(commits).await {
        done.unwrap();
    }
    let live = home.store.live_sessions().await.unwrap();
    let mut seen = Vec::new();
    for live in live {
        let n = live.session.created_at.0;
        assert_eq!(live.session.view, format!("{{\"n\":{n}}}"));
        assert_eq!(
            live.run.map(|run| (run.n, run.created_at)),
            Some((1, Timestamp(n))),
            "the run of another"
        );
        seen.push(n);
    }
    // They were committed at the same time, in whatever order.
    seen.sort_unstable();
    assert_eq!(seen, (0..1000).collect::<Vec<i64>>());
}

async fn the_server_sequence_is_one(home: &Home) {
    let (a, b) = (home.session().await, home.session().await);
    assert_eq!(home.store.server_head().await.unwrap(), (0, 1));
    home.store
        .commit(
            at(a, 5).server_event("session_created", json!({"n": 1})).server_event("session_state", json!(2)),
        )
        .await
        .unwrap();
    let refused = at(b, 6).server_event("session_state", json!(0)).change(run_state(9, RunState::Idle));
    home.store.commit(refused).await.unwrap_err();
    home.store.commit(at(b, 6).server_event("session_state", json!(3))).await.unwrap();
    let told = home.store.server_events(0, 10).await.unwrap();
    let shown: Vec<_> =
        told.iter().map(|e| (e.seq, e.at.0, e.session_id, e.kind.as_str(), e.data.clone())).collect();
    assert_eq!(
        shown,
        [
            (1, 5, Some(a), "session_created", json!({"n": 1})),
            (2, 5, Some(a), "session_state", json!(2)),
            (3, 6, Some(b), "session_state", json!(3)),
        ]
    );
    assert_eq!(home.store.server_events(1, 1).await.unwrap(), told[1..2]);
    assert_eq!(home.store.server_head().await.unwrap(), (3, 1));
}

async fn removal_hides_at_once_and_purges_in_steps(home: &Home) {
    let (gone, kept) = (home.running().await, home.running().await);
    let message_id = MessageId::now();
    for id in [gone, kept] {
        let mut commit = at(id, 3)
            .change(message(message_id))
            .change(Change::AddCommand(command(Some("s"), "me")))
            .change(Change::ClaudeSession(Uuid::nil()));
        commit.events = (0..50).map(|n| event("x".repeat(n * 1000))).collect();
        home.store.commit(commit).await.unwrap();
    }
    let hash = [5; 32];
    let token = NewToken {
        id: TokenId::now(),
        name: None,
        scope: Scope::Drive,
        session: Some(gone),
        secret_hash: hash,
        created_at: Timestamp(1),
        expires_at: None,
    };
    home.store.create_token(token).await.unwrap();
    assert_eq!(home.store.purge(100).await.unwrap(), 0, "nothing is removed yet");
    home.store.commit(at(gone, 4).change(Change::Remove).event(event("{}"))).await.unwrap();
    assert_eq!(home.store.session(gone).await.unwrap(), None);
    assert_eq!(home.store.events(gone, 0, 10, 100).await.unwrap(), []);
    assert_eq!(home.store.messages(gone, &[]).await.unwrap(), []);
    assert_eq!(home.store.runs(gone).await.unwrap(), []);
    assert_eq!(home.store.open_commands(gone).await.unwrap(), []);
    assert_eq!(home.store.find(&gone.to_string()).await.unwrap(), Found::None);
    assert_eq!(home.store.claude_session(Uuid::nil()).await.unwrap(), Some(kept));
    assert_eq!(home.store.token_by_hash(&hash).await.unwrap(), None, "its token is gone with it");
    assert!(matches!(
        home.store.commit(at(gone, 5).event(event("{}"))).await,
        Err(CommitError::NoSession(_))
    ));

    let mut steps = Vec::new();
    loop {
        match home.store.purge(20).await.unwrap() {
            0 => break,
            deleted => steps.push(deleted),
        }
    }
    // 51 events and the 33 bodies above 16 KiB; then a message, a command, a run, and so on.
    assert_eq!((steps.len(), steps.iter().sum::<u64>()), (4, 51 + 33 + 7));
    assert_eq!(home.store.head(kept).await.unwrap(), Some(50));
    assert_eq!(home.store.events(kept, 0, 100, usize::MAX).await.unwrap().len(), 50);
}

async fn tokens_are_known_by_their_hash(home: &Home) {
    let new = |n: u8, expires_at| NewToken {
        id: TokenId::now(),
        name: Some(format!("t{n}")),
        scope: Scope::ALL[n as usize],
        session: None,
        secret_hash: [n; 32],
        created_at: Timestamp(i64::from(n)),
        expires_at,
    };
    let tokens = [new(0, None), new(1, Some(Timestamp(50)))];
    for token in &tokens {
        home.store.create_token(token.clone()).await.unwrap();
    }
    let rows = tokens.clone().map(|t| TokenRow {
        id: t.id,
        name: t.name,
        scope: t.scope,
        session: t.session,
        created_at: t.created_at,
        expires_at: t.expires_at,
    });
    assert_eq!(home.store.tokens().await.unwrap(), rows);
    assert_eq!(home.store.token_by_hash(&[1; 32]).await.unwrap().as_ref(), Some(&rows[1]));
    assert_eq!(home.store.token_by_hash(&[9; 32]).await.unwrap(), None);
    assert!(home.store.create_token(tokens[0].clone()).await.is_err(), "a secret belongs to one token");
    assert!(home.store.delete_token(rows[0].id).await.unwrap());
    assert!(!home.store.delete_token(rows[0].id).await.unwrap());
    assert_eq!(home.store.token_by_hash(&[0; 32]).await.unwrap(), None);
}

async fn epochs_of_a_host_rise(home: &Home) {
    let mut taken = Vec::new();
    for (host, owner) in [("local", "a"), ("local", "b"), ("box", "a"), ("local", "b")] {
        taken.push(home.store.take_epoch(host, owner, Timestamp(1)).await.unwrap());
    }
    assert_eq!(taken, [1, 2, 1, 3]);
}

async fn retention_forgets_what_is_old(home: &Home) {
    let mut ids = Vec::new();
    for n in [10, 20, 30] {
        let id = home.running().await;
        let commit = at(id, n)
            .once(key(&n.to_string(), 1))
            .change(run_state(1, RunState::Ended))
            .server_event("session_state", json!(n));
        home.store.commit(commit).await.unwrap();
        ids.push(id);
    }
    home.running().await;
    let ended = |n: usize| EndedSession { id: ids[n], updated_at: Timestamp(10 * (n as i64 + 1)) };
    assert_eq!(home.store.ended_before(Timestamp(30), 10).await.unwrap(), [ended(0), ended(1)]);
    assert_eq!(home.store.ended_before(Timestamp(31), 1).await.unwrap(), [ended(0)]);

    // Two keys and, as two are to stay, one server event; then the rest, but the numbers go on.
    assert_eq!(home.store.forget_before(Timestamp(21), 2).await.unwrap(), 3);
    assert_eq!(home.store.server_head().await.unwrap(), (3, 2));
    assert_eq!(home.store.forget_before(Timestamp(99), 0).await.unwrap(), 3);
    assert_eq!(home.store.server_head().await.unwrap(), (3, 4));
    home.store.commit(at(ids[0], 100).server_event("session_state", json!(4))).await.unwrap();
    assert_eq!(home.store.server_events(0, 10).await.unwrap()[0].seq, 4);
    assert_eq!(home.store.idempotency("messages", "10").await.unwrap(), None);
}

async fn counts_are_of_what_is_there(home: &Home) {
    let (a, b, gone) = (home.running().await, home.session().await, home.session().await);
    home.store.commit(at(a, 3).change(run_state(1, RunState::Idle))).await.unwrap();
    for id in [a, b, gone] {
        let commit =
            at(id, 4).change(message(MessageId::now())).change(Change::AddCommand(command(None, "me")));
        home.store.commit(commit.event(event("{}")).event(event("{}"))).await.unwrap();
    }
    home.store.commit(at(gone, 5).change(Change::Remove)).await.unwrap();
    let counts = home.store.counts().await.unwrap();
    let sessions = RunState::ALL.map(|state| match state {
        RunState::Queued | RunState::Idle => (state, 1),
        other => (other, 0),
    });
    let expected = Counts {
        sessions: sessions.to_vec(),
        events: 4,
        undelivered_messages: 2,
        open_commands: 2,
        database_bytes: counts.database_bytes,
    };
    assert_eq!(counts, expected);
    assert!(counts.database_bytes > 0 && counts.database_bytes % 4096 == 0);
}

async fn a_large_body_reads_back(home: &Home) {
    const SIZE: usize = 64 << 20;
    let id = home.session().await;
    let mut bytes = vec![0; SIZE];
    for (n, byte) in bytes.iter_mut().enumerate() {
        *byte = (n % 251) as u8;
    }
    let large = event(bytes);
    let commit = at(id, 2).event(event("1")).event(large.clone()).event(event("3"));
    home.store.commit(commit).await.unwrap();
    let page = home.store.events(id, 0, 10, 4 << 20).await.unwrap();
    assert_eq!(page.len(), 1, "the page ends before it");
    let page = home.store.events(id, 1, 10, 4 << 20).await.unwrap();
    assert_eq!(page.len(), 1, "the page has only it");
    assert!(page[0] == numbered(&large, 2), "the body was changed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_observer_sees_every_commit_once_and_in_order() {
    let seen: Arc<Mutex<Vec<CommittedBatch>>> = Arc::default();
    let log = Arc::clone(&seen);
    let on_commit = Observer::new(move |batch| {
        log.lock().unwrap().push(batch.clone());
        assert!(!batch.removed, "a panic does not end the writer");
    });
    let home = Home::with(Options { on_commit: Some(on_commit) }).await;
    let (a, b) = (home.session().await, home.session().await);
    let commits = (0..100u32).map(|n| {
        let id = if n % 2 == 0 { a } else { b };
        let commit = at(id, 2).event(event(n.to_string())).event(event("more"));
        let commit = if n % 10 == 9 { commit.change(run_state(9, RunState::Idle)) } else { commit };
        home.store.commit(commit.server_event("session_state", json!(n)))
    });
    let done = futures::future::join_all(commits).await;
    assert_eq!(done.iter().filter(|done| done.is_ok()).count(), 90);
    let repeated = at(a, 3).change(message(MessageId::of_key(a, "k"))).event(event("{}"));
    home.store.commit(repeated.clone()).await.unwrap();
    home.store.commit(repeated).await.unwrap();
    home.store.commit(at(b, 4).change(Change::Remove)).await.unwrap();
    home.store.commit(at(a, 5).event(event("after the panic"))).await.unwrap();

    let seen = seen.lock().unwrap().clone();
    // Two creations, ninety commits, one message, one removal, one more.
    assert_eq!(seen.len(), 2 + 90 + 1 + 1 + 1);
    let told: Vec<u64> = seen.iter().flat_map(|batch| &batch.server_events).map(|event| event.seq).collect();
    assert_eq!(told, (1..=90).collect::<Vec<u64>>());
    let observed: Vec<_> = seen
        .iter()
        .filter(|batch| batch.session == a)
        .flat_map(|batch| batch.numbered().map(|(seq, event)| numbered(event, seq)).collect::<Vec<_>>())
        .collect();
    assert_eq!(observed, home.store.events(a, 0, 1000, usize::MAX).await.unwrap());
    for batch in &seen {
        let last = batch.numbered().last().map_or(batch.head, |(seq, _)| seq);
        assert_eq!(last, batch.head);
    }
    home.finish().await;
}
