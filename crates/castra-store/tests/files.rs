//! The files of a SQLite store: who may read them, what can be read in them, and what opening refuses.
#![allow(clippy::unwrap_used)]

mod support;

use castra_store::*;
use serde_json::json;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use support::*;

async fn open(home: &Path) -> Result<Store, StoreError> {
    Store::open(home, Options::default()).await
}

async fn raw(home: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(home.join("castra.db")).connect().await.unwrap()
}

#[tokio::test]
async fn nobody_else_may_read_any_file() {
    let home = Home::new().await;
    home.session().await;
    home.store.backup(&home.path().join("backup.db")).await.unwrap();
    let mut modes: Vec<_> = fs::read_dir(home.path())
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            (entry.file_name().into_string().unwrap(), format!("{mode:o}"))
        })
        .collect();
    modes.sort();
    let names = ["backup.db", "castra.db", "castra.db-shm", "castra.db-wal", "key"];
    assert_eq!(modes, names.map(|name| (name.to_owned(), "600".to_owned())));
    home.finish().await;
}

#[tokio::test]
async fn secrets_are_in_no_file_in_the_clear() {
    const SECRET: &str = "sk-this-is-only-for-tests-0123456789";
    let home = Home::new().await;
    let new = NewSession {
        spec: json!({"env": {"TOKEN": "***"}}).to_string(),
        spec_secrets: Some(json!({"env": {"TOKEN": SECRET}})),
        ..new_session()
    };
    let id = create(&home.store, new).await;
    let replaced = SessionUpdate { spec_secrets: Some(json!([SECRET])), ..SessionUpdate::default() };
    home.store.commit(at(id, 2).change(Change::Session(replaced)).event(event("visible"))).await.unwrap();
    home.store.backup(&home.path().join("backup.db")).await.unwrap();
    let holds = |needle: &str| {
        let mut files = Vec::new();
        for entry in fs::read_dir(home.path()).unwrap() {
            let path = entry.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            if memchr::memmem::find(&bytes, needle.as_bytes()).is_some() {
                files.push(path.file_name().unwrap().to_str().unwrap().to_owned());
            }
        }
        files.sort();
        files
    };
    assert_eq!(holds("visible"), ["backup.db", "castra.db-wal"], "the search finds what is in the clear");
    assert_eq!(holds(SECRET), [""; 0]);
    assert_eq!(home.store.secrets(id).await.unwrap(), Some(json!([SECRET])));
    home.finish().await;
}

#[tokio::test]
async fn a_store_opens_again_with_what_was_in_it() {
    let home = Home::new().await;
    let id = create(&home.store, NewSession { spec_secrets: Some(json!("s")), ..new_session() }).await;
    home.store.commit(at(id, 2).event(event("{}"))).await.unwrap();
    let stream = home.store.stream_id();
    let row = home.store.session(id).await.unwrap();
    home.store.close().await;
    assert!(matches!(home.store.session(id).await, Err(StoreError::Closed)));
    let late = home.store.commit(at(id, 3).event(event("{}"))).await;
    assert!(matches!(late, Err(CommitError::Store(StoreError::Closed))));
    assert!(!home.path().join("castra.db-wal").exists(), "closing moves the log into the database");

    let store = open(home.path()).await.unwrap();
    assert_eq!(store.session(id).await.unwrap(), row);
    assert_eq!(store.secrets(id).await.unwrap(), Some(json!("s")));
    assert_eq!(store.stream_id(), stream);
}

#[tokio::test]
async fn a_key_that_is_missing_or_another_is_refused_and_left_alone() {
    let home = Home::new().await;
    home.store.close().await;
    let path = home.path().join("key");
    let key = fs::read(&path).unwrap();
    assert_eq!(key.len(), 32);

    fs::remove_file(&path).unwrap();
    assert!(matches!(open(home.path()).await, Err(StoreError::KeyMissing { path: named }) if named == path));
    assert!(!path.exists(), "a new key would hide that the old one is gone");

    fs::write(&path, [7; 32]).unwrap();
    assert!(matches!(open(home.path()).await, Err(StoreError::KeyWrong { path: named }) if named == path));
    assert_eq!(fs::read(&path).unwrap(), [7; 32]);

    fs::write(&path, &key[..31]).unwrap();
    assert!(matches!(open(home.path()).await, Err(StoreError::KeyMalformed { found: 31, .. })));

    fs::write(&path, &key).unwrap();
    open(home.path()).await.unwrap();
}

#[tokio::test]
async fn secrets_that_were_moved_to_another_session_do_not_open() {
    let home = Home::new().await;
    let with = |secret: &str| NewSession { spec_secrets: Some(json!(secret)), ..new_session() };
    let (a, b) = (create(&home.store, with("a")).await, create(&home.store, with("b")).await);
    let mut db = raw(home.path()).await;
    sqlx::query(
        "UPDATE specs SET secrets = (SELECT secrets FROM specs WHERE session_no = 1) WHERE session_no = 2",
    )
    .execute(&mut db)
    .await
    .unwrap();
    db.close().await.unwrap();
    assert_eq!(home.store.secrets(a).await.unwrap(), Some(json!("a")));
    assert!(
        matches!(home.store.secrets(b).await, Err(StoreError::SecretsDamaged { session }) if session == b)
    );
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let home = Home::new().await;
    home.store.close().await;
    let mut db = raw(home.path()).await;
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'from the future', TRUE, x'00', 0)",
    )
    .execute(&mut db)
    .await
    .unwrap();
    db.close().await.unwrap();
    let before = fs::read(home.path().join("castra.db")).unwrap();
    match open(home.path()).await {
        Err(StoreError::NewerSchema { path, found: 9999, known }) => {
            assert_eq!(path, home.path().join("castra.db"));
            assert!(known < 9999);
        }
        other => panic!("{other:?}"),
    }
    assert!(fs::read(home.path().join("castra.db")).unwrap() == before, "it was written to");
}

#[tokio::test]
async fn what_is_no_database_is_refused() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("castra.db"), vec![b'x'; 8192]).unwrap();
    assert!(matches!(open(home.path()).await, Err(StoreError::Database(_))));
    let missing = home.path().join("nowhere");
    assert!(matches!(open(&missing).await, Err(StoreError::Io { .. })));
}

#[tokio::test]
async fn a_backup_is_whole_and_has_cursors_of_its_own() {
    let home = Home::new().await;
    let id = create(&home.store, NewSession { spec_secrets: Some(json!("s")), ..new_session() }).await;
    let events = vec![event("1"), event("x".repeat(100_000))];
    home.store.commit(Commit { events, ..at(id, 2) }).await.unwrap();
    let copy = tempfile::tempdir().unwrap();
    let path = copy.path().join("castra.db");
    home.store.backup(&path).await.unwrap();
    assert!(matches!(home.store.backup(&path).await, Err(StoreError::BackupExists { .. })));
    assert_eq!(fs::read_dir(copy.path()).unwrap().count(), 1, "something lies beside the backup");

    fs::copy(home.path().join("key"), copy.path().join("key")).unwrap();
    let restored = open(copy.path()).await.unwrap();
    assert_eq!(restored.check().await.unwrap(), Vec::<String>::new());
    assert_eq!(restored.session(id).await.unwrap(), home.store.session(id).await.unwrap());
    assert_eq!(restored.secrets(id).await.unwrap(), Some(json!("s")));
    let all = |store: Store| async move { store.events(id, 0, 10, usize::MAX).await.unwrap() };
    assert_eq!(all(restored.clone()).await, all(home.store.clone()).await);
    assert_ne!(restored.stream_id(), home.store.stream_id());
    assert_eq!((home.store.mark(), home.store.shared_until(Some(id))), (None, 0));
    let mark = restored.stream_id().simple().to_string()[..8].to_owned();
    restored.commit(at(id, 3).event(event("3"))).await.unwrap();
    assert_eq!((restored.mark(), restored.shared_until(Some(id))), (Some(mark), 2), "event 3 is its own");
    assert_eq!(restored.shared_until(Some(castra_proto::SessionId::now())), 0);
    home.finish().await;
}

#[tokio::test]
async fn check_names_what_is_wrong() {
    for (harm, expected) in [
        ("DELETE FROM events WHERE seq = 2", "without gaps"),
        ("DELETE FROM events WHERE seq = 1", "without gaps"),
        ("UPDATE events SET seq = 9 WHERE seq = 4", "without gaps"),
        ("UPDATE sessions SET head = head + 1", "without gaps"),
        ("DELETE FROM bodies", "in one place"),
        ("UPDATE events SET data = x'00' WHERE seq = 3", "in one place"),
        ("UPDATE bodies SET seq = 77", "belongs to an event"),
        ("UPDATE sessions SET state = 'lost'", "the newest, and"),
        ("UPDATE messages SET delivered_seq = 99", "names events"),
        ("DELETE FROM views", "a spec and a view"),
        ("UPDATE commands SET session_no = 12", "belongs to nothing in sessions"),
    ] {
        let home = Home::new().await;
        let id = home.running().await;
        let mut commit = at(id, 3)
            .change(message(castra_proto::MessageId::now()))
            .change(Change::AddCommand(command(None, "me")));
        commit.events = vec![event("1"), event("2"), event("x".repeat(100_000)), event("4")];
        home.store.commit(commit).await.unwrap();
        assert_eq!(home.store.check().await.unwrap(), Vec::<String>::new());
        let mut db = raw(home.path()).await;
        sqlx::raw_sql("PRAGMA foreign_keys = OFF").execute(&mut db).await.unwrap();
        sqlx::raw_sql(harm).execute(&mut db).await.unwrap();
        db.close().await.unwrap();
        let wrong = home.store.check().await.unwrap();
        assert!(wrong.iter().any(|line| line.contains(expected)), "{harm}: {wrong:?}");
    }
}
