//! What an event costs on its way to the disk. Plain, since a figure in µs of CPU is all that is asked for.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use bytes::Bytes;
use castra_proto::spec::Mode;
use castra_proto::{Kind, RunId, RunState, SessionId, Timestamp};
use castra_store::{Change, Commit, NewEvent, NewRun, NewSession, Options, RunUpdate, SessionUpdate, Store};
use serde_json::Value;
use std::time::{Duration, Instant};

const EVENT_BYTES: usize = 300;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    // `cargo test --benches` runs it too, then only to see that it works.
    let events = if std::env::args().any(|arg| arg == "--bench") { 200_000 } else { 2_000 };
    println!("{:>8} {:>8} {:>12} {:>12} {:>12}", "sessions", "batch", "events/s", "µs/event", "CPU µs/event");
    for (sessions, batch) in [(1, 1), (1, 10), (1, 100), (1, 1000), (4, 1000), (50, 1), (50, 10), (50, 100)] {
        let total = if batch == 1 { events / 20 } else { events };
        ingest(sessions, batch, total).await;
    }
    read(events).await;
}

async fn ingest(sessions: usize, batch: usize, events: usize) {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(home.path(), Options::default()).await.unwrap();
    let mut ids = Vec::new();
    for _ in 0..sessions {
        ids.push(create(&store).await);
    }
    let rounds = events / batch / sessions;
    let (began, cpu) = (Instant::now(), cpu_time());
    let actors: Vec<_> =
        ids.into_iter().map(|id| tokio::spawn(act(store.clone(), id, batch, rounds))).collect();
    for actor in actors {
        actor.await.unwrap();
    }
    let (wall, cpu) = (began.elapsed(), cpu_time() - cpu);
    let done = (rounds * batch * sessions) as f64;
    println!(
        "{sessions:>8} {batch:>8} {:>12.0} {:>12.2} {:>12.2}",
        done / wall.as_secs_f64(),
        wall.as_secs_f64() * 1e6 / done,
        cpu.as_secs_f64() * 1e6 / done,
    );
    store.close().await;
}

/// What a session's actor does: events, derived state and the run's cursor in one commit.
async fn act(store: Store, id: SessionId, batch: usize, rounds: usize) {
    let data = Bytes::from(format!("{{\"text\":\"{}\"}}", "x".repeat(EVENT_BYTES - 11)));
    let kind = Kind::of_claude("assistant");
    for round in 0..rounds {
        let mut commit = Commit::new(id, Timestamp(round as i64)).fenced_by(1);
        commit.events = (0..batch)
            .map(|n| NewEvent {
                at: Timestamp(n as i64),
                run: 1,
                turn: 1,
                kind: kind.clone(),
                data: data.clone(),
                raw: None,
            })
            .collect();
        let commit = commit
            .change(Change::Session(SessionUpdate {
                view: Some(format!("{{\"turns\":{round}}}")),
                ..SessionUpdate::default()
            }))
            .change(Change::Run(RunUpdate {
                n: 1,
                state: Some(RunState::Running),
                cursor: Some(round as u64),
                ..RunUpdate::default()
            }));
        store.commit(commit).await.unwrap();
    }
}

async fn read(events: usize) {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(home.path(), Options::default()).await.unwrap();
    let id = create(&store).await;
    act(store.clone(), id, 1000, events / 1000).await;
    let (began, cpu) = (Instant::now(), cpu_time());
    let mut after = 0;
    loop {
        let page = store.events(id, after, 1000, 4 << 20).await.unwrap();
        let Some(last) = page.last() else { break };
        after = last.seq;
    }
    let (wall, cpu) = (began.elapsed(), cpu_time() - cpu);
    println!(
        "read in pages of 1000: {:.0} events/s, CPU {:.2} µs/event",
        after as f64 / wall.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / after as f64
    );
}

async fn create(store: &Store) -> SessionId {
    let id = SessionId::now();
    let new = NewSession {
        name: None,
        host: "local".into(),
        owner: "bench".into(),
        mode: Mode::Stream,
        cwd: None,
        spec: "{}".into(),
        spec_secrets: None,
        view: "{}".into(),
        labels: Default::default(),
        fork_of: None,
    };
    let run = NewRun { n: 1, id: RunId::now(), epoch: 1, dir: "runs/1".into(), meta: Value::Null };
    let commit =
        Commit::new(id, Timestamp(0)).change(Change::Create(Box::new(new))).change(Change::StartRun(run));
    store.commit(commit).await.unwrap();
    id
}

/// Of all threads, in the clock ticks of `/proc/self/stat`, which are 10 ms on Linux.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // The name before it may hold anything, but ends with the last parenthesis.
    let fields: Vec<&str> = stat[stat.rfind(')').unwrap() + 2..].split(' ').collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}
