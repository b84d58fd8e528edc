//! What a process that is killed has acknowledged is there when the store is opened again.
//!
//! The test starts itself as the victim, which commits in several tasks and says on its stdout what was
//! acknowledged, and kills it at some moment.
#![allow(clippy::unwrap_used)]

mod support;

use castra_proto::SessionId;
use castra_store::*;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use support::*;

const HOME: &str = "CASTRA_STORE_TEST_VICTIM_HOME";
const SESSIONS: usize = 4;
const ROUNDS: u64 = 8;

#[test]
fn what_was_acknowledged_survives_a_kill() {
    if let Some(home) = std::env::var_os(HOME) {
        victim(Path::new(&home));
    }
    let home = tempfile::tempdir().unwrap();
    let mut acknowledged: BTreeMap<SessionId, u64> = BTreeMap::new();
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "what_was_acknowledged_survives_a_kill", "--nocapture"])
            .env(HOME, home.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Another moment each time: after so many lines, wherever the writer then is.
        let mut left = 1 + round * round * 12;
        // All that was said counts, also what is read after the kill.
        while let Some(Ok(line)) = lines.next() {
            // The harness writes before the first one, on the same line.
            let said = line.split_once("committed ").and_then(|(_, rest)| rest.split_once(' '));
            if let Some((id, seq)) = said {
                let seen = acknowledged.entry(id.parse().unwrap()).or_default();
                // A line cut short by the kill would name a smaller number.
                *seen = (*seen).max(seq.parse().unwrap());
                left = left.saturating_sub(1);
            }
            if left == 0 {
                child.kill().unwrap();
                left = u64::MAX;
            }
        }
        let status = child.wait().unwrap();
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(9),
            "it ended by itself: {status}"
        );
        tokio::runtime::Runtime::new().unwrap().block_on(verify(home.path(), &acknowledged));
    }
    assert!(acknowledged.len() >= ROUNDS as usize, "a victim has acknowledged nothing: {acknowledged:?}");
}

async fn verify(home: &Path, acknowledged: &BTreeMap<SessionId, u64>) {
    let store = Store::open(home, Options::default()).await.unwrap();
    assert_eq!(store.check().await.unwrap(), Vec::<String>::new());
    for (id, seq) in acknowledged {
        let head = store.head(*id).await.unwrap().unwrap_or_default();
        assert!(head >= *seq, "{id} has {head} events, and {seq} were acknowledged");
        let events = store.events(*id, 0, u32::MAX, usize::MAX).await.unwrap();
        for (n, event) in (1..).zip(&events) {
            let said: u64 = std::str::from_utf8(&event.data).unwrap().trim().parse().unwrap();
            assert_eq!((event.seq, said), (n, n));
        }
    }
    store.close().await;
}

fn victim(home: &Path) -> ! {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Store::open(home, Options::default()).await.unwrap();
        let mut actors = Vec::new();
        for size in 1..=SESSIONS as u64 {
            let store = store.clone();
            actors.push(tokio::spawn(async move {
                let id = create(&store, new_session()).await;
                let mut next = 1;
                loop {
                    // Each says its own number; some are large enough to go to another table.
                    let events = (next..next + size)
                        .map(|seq| {
                            event(format!("{seq:>width$}", width = if seq % 9 == 0 { 20_000 } else { 1 }))
                        })
                        .collect();
                    let committed = store.commit(Commit { events, ..at(id, 2) }).await.unwrap();
                    next = committed.last_seq + 1;
                    let line = format!("committed {id} {}\n", committed.last_seq);
                    // One write: a pipe keeps it whole.
                    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
                }
            }));
        }
        // They never end, unless one fails.
        futures::future::select_all(actors).await.0.unwrap()
    });
    std::process::exit(1)
}
