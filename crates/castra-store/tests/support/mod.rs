//! What the store's tests share: a home in a temporary folder, and commits with as little in them as will do.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use bytes::Bytes;
use castra_proto::api::{IfBusy, MessageState};
use castra_proto::spec::Mode;
use castra_proto::{CommandId, Kind, MessageId, RunId, RunState, SessionId, Timestamp};
use castra_store::*;
use serde_json::{Value, json};
use std::path::Path;
use tempfile::TempDir;

pub struct Home {
    pub dir: TempDir,
    pub store: Store,
}

impl Home {
    pub async fn new() -> Self {
        Self::with(Options::default()).await
    }

    pub async fn with(options: Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), options).await.unwrap();
        Self { dir, store }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub async fn session(&self) -> SessionId {
        create(&self.store, new_session()).await
    }

    pub async fn running(&self) -> SessionId {
        let id = self.session().await;
        self.store.commit(at(id, 2).change(Change::StartRun(run(1)))).await.unwrap();
        id
    }

    /// Ends what it has checked: the database is sound after every test, and a row that was kept in memory is the
    /// one on disk.
    pub async fn finish(self) {
        let everything = SessionFilter { all: true, ..SessionFilter::default() };
        for row in self.store.sessions(&everything, None, 1000).await.unwrap().items {
            assert_eq!(self.store.session(row.id).await.unwrap(), Some(row));
        }
        assert_eq!(self.store.check().await.unwrap(), Vec::<String>::new());
        self.store.close().await;
    }
}

pub fn at(session: SessionId, at: i64) -> Commit {
    Commit::new(session, Timestamp(at))
}

pub fn new_session() -> NewSession {
    NewSession {
        name: None,
        host: "local".into(),
        owner: "server".into(),
        mode: Mode::Stream,
        cwd: Some("/work".into()),
        spec: r#"{"model":"opus"}"#.into(),
        spec_secrets: None,
        view: "{}".into(),
        labels: Default::default(),
        fork_of: None,
    }
}

pub async fn create(store: &Store, new: NewSession) -> SessionId {
    let id = SessionId::now();
    store.commit(at(id, 1).change(Change::Create(Box::new(new)))).await.unwrap();
    id
}

pub fn run(n: u32) -> NewRun {
    NewRun { n, id: RunId::now(), epoch: 1, dir: format!("runs/{n}"), meta: Value::Null }
}

pub fn run_state(n: u32, state: RunState) -> Change {
    Change::Run(RunUpdate { n, state: Some(state), ..RunUpdate::default() })
}

pub fn event(data: impl Into<Bytes>) -> NewEvent {
    NewEvent {
        at: Timestamp(7),
        run: 1,
        turn: 2,
        kind: Kind::of_claude("assistant"),
        data: data.into(),
        raw: None,
    }
}

pub fn numbered(event: &NewEvent, seq: u64) -> StoredEvent {
    let NewEvent { at, run, turn, kind, data, raw } = event.clone();
    StoredEvent { seq, at, run, turn, kind, data, raw }
}

pub fn message(id: MessageId) -> Change {
    Change::AddMessage(NewMessage {
        id,
        body: r#"{"text":"hello"}"#.into(),
        if_busy: IfBusy::Queue,
        priority: None,
        accepted: SeqAt::Event(0),
    })
}

pub fn message_state(id: MessageId, state: MessageState) -> Change {
    Change::Message(MessageUpdate { state: Some(state), ..MessageUpdate::new(id) })
}

pub fn command(subject: Option<&str>, by: &str) -> NewCommand {
    NewCommand {
        id: CommandId::now(),
        kind: "permission".into(),
        subject: subject.map(str::to_owned),
        args: json!({"behavior": "allow"}),
        by: by.into(),
        state: CommandState::Accepted,
        owner: None,
        epoch: Some(3),
    }
}

pub fn key(text: &str, hash: u8) -> Idempotency {
    Idempotency { scope: "messages".into(), key: text.into(), request_hash: [hash; 32] }
}
