//! What every Host does, run over the linked-in relay and over the same relay behind a pipe.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use castra_proto::shim::relay::{At, EntryKind, Exec, Proof, RelayError};
use castra_proto::shim::{
    ExitCause, How, Note, Pty, Reason, SignalTarget, StartError, StartSpec, Stream, TailRule, TreeProof,
    Which,
};
use castra_supervisor::host::{
    ConnError, Host, HostError, Join, Line, LocalHost, LogReader, PipeHost, Record, RunDir, ShimConn,
    ShimMsg, ShimReader, get, pack, put, shim_image, shim_image_id,
};
use uuid::Uuid;

const DEADLINE: Duration = Duration::from_secs(30);

/// A host under test and its home, which the test may look into from outside.
struct Bench {
    host: Box<dyn Host>,
    home: PathBuf,
    _temp: tempfile::TempDir,
}

impl Drop for Bench {
    /// A failed case must not leave a run behind: its guard ends it.
    fn drop(&mut self) {
        let Ok(sessions) = std::fs::read_dir(self.home.join("sessions")) else { return };
        for session in sessions.flatten() {
            let meta = std::fs::read(session.path().join("runs/1/meta.json")).unwrap_or_default();
            let Ok(meta) = serde_json::from_slice::<castra_proto::shim::Meta>(&meta) else { continue };
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", meta.shim.pid)).unwrap_or_default();
            if stat.split(' ').nth(21) == Some(meta.shim.start.to_string().as_str()) && !stat.contains(") Z")
            {
                kill(meta.shim.pid);
            }
        }
    }
}

/// Every case as one test per implementation.
macro_rules! contract {
    ($($case:ident),* $(,)?) => {
        mod local {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::within(super::$case(super::local().await)).await;
            })*
        }
        mod pipe {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::within(super::$case(super::pipe().await)).await;
            })*
        }
    };
}

contract!(
    echo_exit_and_acknowledge,
    follow_from_and_reconnect,
    input_is_written_once,
    higher_epochs_fence,
    a_wrong_run_is_refused,
    a_failed_start_says_why,
    long_messages_and_floods_together,
    next_is_cancel_safe,
    signals_and_the_tree,
    terminals_and_their_files,
    a_killed_shim_is_proved_empty,
    escapees_are_swept_when_both_are_killed,
    logs_are_read_without_a_shim,
    a_torn_tail_is_cut_and_damage_is_reported,
    a_compressed_log_reads_as_before,
    what_a_kill_leaves_of_compressing_is_harmless,
    a_torn_compressed_file_is_reported,
    files_beneath_a_root,
    links_lead_nowhere,
    trees_are_copied_and_removed,
    programs_run_to_their_end,
    a_dropped_program_is_killed,
    a_probe_knows_the_machine,
    the_image_is_installed_once_and_private,
    nobody_listens,
    many_requests_at_once,
);

async fn within(case: impl Future<Output = ()>) {
    tokio::time::timeout(Duration::from_secs(120), case).await.expect("the case ends");
}

async fn local() -> Bench {
    let temp = tempfile::tempdir().unwrap();
    let home = temp.path().join("home");
    Bench { host: Box::new(LocalHost::new(&home).unwrap()), home, _temp: temp }
}

async fn pipe() -> Bench {
    let temp = tempfile::tempdir().unwrap();
    let home = temp.path().join("home");
    let relay = temp.path().join("castra-shim");
    std::fs::write(&relay, shim_image()).unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&relay, std::fs::Permissions::from_mode(0o755)).unwrap();
    // As a login shell does: something before the relay speaks.
    let script = format!(
        "echo 'Welcome to this machine'; exec '{}' relay --home '{}'",
        relay.display(),
        home.display()
    );
    let host = PipeHost::spawn(&["sh".into(), "-c".into(), script]).await.unwrap();
    Bench { host: Box::new(host), home, _temp: temp }
}

async fn until<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let end = tokio::time::Instant::now() + DEADLINE;
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < end, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn sh(script: &str) -> StartSpec {
    StartSpec {
        run_id: Uuid::new_v4(),
        session_id: "s".into(),
        run: 1,
        epoch: 1,
        argv: vec!["sh".into(), "-c".into(), script.into()],
        env: BTreeMap::from([("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())]),
        cwd: "/".into(),
        wrapped: false,
        memory_bytes: None,
        segment_bytes: None,
        pty: None,
        files: Vec::new(),
    }
}

fn run_dir() -> RunDir {
    // As long as real ones: longer than a socket address.
    RunDir::new(&format!("{}-{}", Uuid::new_v4(), "x".repeat(60)), 1)
}

impl Bench {
    async fn start(&self, spec: &StartSpec) -> RunDir {
        let run = run_dir();
        self.host.start(&run, spec).await.unwrap();
        run
    }

    async fn join(&self, run: &RunDir, spec: &StartSpec) -> ShimConn {
        self.host.connect(run, Join { run: spec.run_id, epoch: spec.epoch, last: 0 }).await.unwrap()
    }

    async fn end(&self, run: &RunDir, spec: &StartSpec) -> Vec<Record> {
        let (mut reader, mut writer) = self.join(run, spec).await.split();
        writer.signal(SignalTarget::Tree, 0).await.unwrap();
        writer.follow(1).await.unwrap();
        let records = follow(&mut reader, is_exit).await;
        writer.ack(records.last().unwrap().seq).await.unwrap();
        until("the shim ends", async || {
            let state = self.host.tree_state(run).await.unwrap();
            (!state.locked && !state.shim_alive && !state.guard_alive).then_some(())
        })
        .await;
        records
    }
}

fn is_exit(record: &Record) -> bool {
    record.stream == Stream::Shim && matches!(Note::decode(&record.bytes), Ok(Note::Exit { .. }))
}

async fn follow(reader: &mut ShimReader, mut stop: impl FnMut(&Record) -> bool) -> Vec<Record> {
    let mut all: Vec<Record> = Vec::new();
    loop {
        if let ShimMsg::Records(records) = reader.next().await.unwrap() {
            for record in records {
                if let Some(last) = all.last() {
                    assert_eq!(record.seq, last.seq + 1);
                }
                let done = stop(&record);
                all.push(record);
                if done {
                    return all;
                }
            }
        }
    }
}

async fn follow_text(reader: &mut ShimReader, text: &str) -> Vec<Record> {
    let mut seen = Vec::new();
    follow(reader, |r| {
        if r.stream == Stream::Out {
            seen.extend_from_slice(&r.bytes);
        }
        let found = memchr::memmem::find(&seen, text.as_bytes()).is_some();
        // Only the end can become a match with what follows.
        seen.drain(..seen.len().saturating_sub(text.len()));
        found
    })
    .await
}

fn bytes_of(records: &[Record], stream: Stream) -> Vec<u8> {
    records.iter().filter(|r| r.stream == stream).flat_map(|r| r.bytes.iter().copied()).collect()
}

async fn echo_exit_and_acknowledge(bench: Bench) {
    let spec = sh("read line; echo got $line; echo err >&2; exit 5");
    let run = run_dir();
    let meta = bench.host.start(&run, &spec).await.unwrap();
    assert_eq!((meta.run_id, meta.session_id.as_str()), (spec.run_id, "s"));
    let state = bench.host.tree_state(&run).await.unwrap();
    assert_eq!(state.meta.as_ref(), Some(&meta));
    assert!(state.locked && state.shim_alive && state.guard_alive && state.claude_alive && !state.rebooted);
    assert_eq!(state.proof, Proof::None);

    let conn = bench.join(&run, &spec).await;
    assert_eq!((conn.hello.run, conn.hello.boot_id, conn.version), (spec.run_id, meta.boot_id, 1));
    let (mut reader, mut writer) = conn.split();
    let id = Uuid::new_v4();
    writer.write(id, b"hello\n").await.unwrap();
    assert_eq!(reader.next().await.unwrap(), ShimMsg::Written { input_id: id, duplicate: false });
    writer.follow(1).await.unwrap();
    let records = follow(&mut reader, is_exit).await;
    assert_eq!(bytes_of(&records, Stream::In), b"hello\n");
    assert_eq!(bytes_of(&records, Stream::Out), b"got hello\n");
    assert_eq!(bytes_of(&records, Stream::Err), b"err\n");
    let exit = Note::decode(&records.last().unwrap().bytes).unwrap();
    let tree = TreeProof::Empty;
    assert_eq!(
        exit,
        Note::Exit { code: Some(5), signal: None, tail_lost: false, tree, cause: ExitCause::Own }
    );
    writer.ack(records.last().unwrap().seq).await.unwrap();
    assert!(matches!(reader.next().await, Err(ConnError::Closed)));
    let state = until("all are gone", async || {
        let state = bench.host.tree_state(&run).await.unwrap();
        (!state.locked && !state.shim_alive && !state.guard_alive).then_some(state)
    })
    .await;
    assert_eq!(state.proof, Proof::Logged);
}

async fn follow_from_and_reconnect(bench: Bench) {
    let spec = sh("i=0; while :; do echo $i; i=$((i+1)); sleep 0.01; done");
    let run = bench.start(&spec).await;
    let mut pieces: Vec<Record> = Vec::new();
    for round in 1..=8 {
        let (mut reader, mut writer) = bench.join(&run, &spec).await.split();
        writer.follow(pieces.last().map_or(1, |r| r.seq + 1)).await.unwrap();
        pieces.extend(follow(&mut reader, |r| r.seq == round).await);
    }
    let all = bench.end(&run, &spec).await;
    pieces.retain(|r| r.seq <= 8);
    assert_eq!(pieces[..], all[..8]);
}

async fn input_is_written_once(bench: Bench) {
    let spec = sh("exec cat");
    let run = bench.start(&spec).await;
    let id = Uuid::new_v4();
    for (connection, duplicate) in [(0, false), (1, true), (2, true)] {
        let (mut reader, mut writer) = bench.join(&run, &spec).await.split();
        writer.write(id, b"once\n").await.unwrap();
        let want = ShimMsg::Written { input_id: id, duplicate };
        assert_eq!(reader.next().await.unwrap(), want, "{connection}");
    }
    let (mut reader, mut writer) = bench.join(&run, &spec).await.split();
    writer.follow(1).await.unwrap();
    follow_text(&mut reader, "once\n").await;
    assert_eq!(bytes_of(&bench.end(&run, &spec).await, Stream::Out), b"once\n");
}

async fn higher_epochs_fence(bench: Bench) {
    let mut spec = sh("exec cat");
    let run = bench.start(&spec).await;
    let (mut old, mut old_writer) = bench.join(&run, &spec).await.split();
    let join = |epoch| Join { run: spec.run_id, epoch, last: 0 };
    let _new = bench.host.connect(&run, join(3)).await.unwrap();
    match old.next().await.unwrap() {
        ShimMsg::Refused(refused) => assert_eq!(refused.reason, Reason::Fenced),
        other => panic!("{other:?}"),
    }
    assert!(matches!(old.next().await, Err(ConnError::Closed)));
    until("the old writer notices", async || old_writer.status().await.err()).await;
    match bench.host.connect(&run, join(2)).await.err() {
        Some(HostError::Conn(ConnError::Refused(Reason::Fenced))) => (),
        other => panic!("{other:?}"),
    }
    spec.epoch = 3;
    bench.end(&run, &spec).await;
}

async fn a_wrong_run_is_refused(bench: Bench) {
    let spec = sh("exec cat");
    let run = bench.start(&spec).await;
    let join = Join { run: Uuid::new_v4(), epoch: 9, last: 0 };
    match bench.host.connect(&run, join).await.err() {
        Some(HostError::Conn(ConnError::Refused(Reason::WrongRun))) => (),
        other => panic!("{other:?}"),
    }
    bench.end(&run, &spec).await;
}

async fn a_failed_start_says_why(bench: Bench) {
    let mut spec = sh("");
    spec.argv = vec!["/nowhere/claude".into()];
    let run = run_dir();
    match bench.host.start(&run, &spec).await.err() {
        Some(HostError::Relay(RelayError::Start {
            start: StartError::Spawn { errno: libc::ENOENT, .. },
        })) => (),
        other => panic!("{other:?}"),
    }
    let state = until("nothing is left", async || {
        Some(bench.host.tree_state(&run).await.unwrap()).filter(|s| !s.locked)
    })
    .await;
    assert_eq!(state.proof, Proof::Logged);

    let spec = sh("exec cat");
    let run = bench.start(&spec).await;
    match bench.host.start(&run, &spec).await.err() {
        Some(HostError::Relay(RelayError::Start { start: StartError::Busy })) => (),
        other => panic!("{other:?}"),
    }
    bench.end(&run, &spec).await;
}

async fn long_messages_and_floods_together(bench: Bench) {
    // Both directions at once, each far beyond every window, by one task that writes before it reads.
    let spec = sh("head -c 20000000 /dev/zero; head -c 9000000 | md5sum; exec cat");
    let run = bench.start(&spec).await;
    let (mut reader, mut writer) = bench.join(&run, &spec).await.split();
    writer.follow(1).await.unwrap();
    let message = vec![b'm'; 9_000_000];
    let sending = async { writer.write(Uuid::new_v4(), &message).await.unwrap() };
    let reading = follow_text(&mut reader, "  -\n");
    let ((), records) = tokio::join!(sending, reading);
    let out = bytes_of(&records, Stream::Out);
    assert_eq!(memchr::memchr(b'\n', &out).unwrap(), 20_000_000 + 35);
    let all = bench.end(&run, &spec).await;
    assert_eq!(bytes_of(&all, Stream::In), message);
}

async fn next_is_cancel_safe(bench: Bench) {
    let spec =
        sh("i=0; while [ $i -lt 300 ]; do echo line $i; head -c 5000 /dev/zero; i=$((i+1)); done; exec cat");
    let run = bench.start(&spec).await;
    let (mut reader, mut writer) = bench.join(&run, &spec).await.split();
    writer.follow(1).await.unwrap();
    let mut pieces: Vec<Record> = Vec::new();
    let mut cancelled = 0;
    while bytes_of(&pieces, Stream::Out).len() < 300 * 5000 {
        tokio::select! {
            biased;
            msg = reader.next() => if let ShimMsg::Records(records) = msg.unwrap() { pieces.extend(records) },
            () = tokio::task::yield_now() => cancelled += 1,
        }
    }
    assert!(cancelled > 0);
    let all = bench.end(&run, &spec).await;
    assert_eq!(pieces[..], all[..pieces.len()]);
}

async fn signals_and_the_tree(bench: Bench) {
    let spec = sh("trap 'echo term; exit 9' TERM; sleep 4711 & echo up; wait");
    let run = bench.start(&spec).await;
    let (mut reader, mut writer) = bench.join(&run, &spec).await.split();
    writer.follow(1).await.unwrap();
    follow_text(&mut reader, "up\n").await;
    writer.signal(SignalTarget::Claude, libc::SIGTERM).await.unwrap();
    let records = follow(&mut reader, is_exit).await;
    assert_eq!(bytes_of(&records, Stream::Out), b"term\n");
    match Note::decode(&records.last().unwrap().bytes).unwrap() {
        Note::Exit { code: Some(9), tree: TreeProof::Empty, cause: ExitCause::Asked, .. } => (),
        other => panic!("{other:?}"),
    }
    writer.resize(3, 4).await.unwrap();
    match reader.next().await.unwrap() {
        ShimMsg::Refused(refused) => assert_eq!(refused.reason, Reason::Exited),
        other => panic!("{other:?}"),
    }
    writer.ack(u64::MAX).await.unwrap();
}

async fn terminals_and_their_files(bench: Bench) {
    let temp = tempfile::tempdir().unwrap();
    let mut spec = sh("stty size; echo 'a line' >> said.jsonl; read go; stty size; exit 4");
    spec.cwd = temp.path().to_string_lossy().into_owned();
    spec.pty = Some(Pty { rows: 50, cols: 200 });
    spec.files = vec![TailRule {
        dir: spec.cwd.clone(),
        path: String::new(),
        suffix: ".jsonl".into(),
        depth: 0,
        which: Which::All,
        how: How::Append,
        known: BTreeMap::new(),
        skip_existing: false,
    }];
    let run = bench.start(&spec).await;
    let (mut reader, mut writer) = bench.join(&run, &spec).await.split();
    writer.follow(1).await.unwrap();
    // The line may be read before the size that was written before it.
    let (mut sized, mut filed) = (false, false);
    let first = follow(&mut reader, |r| {
        sized |= r.stream == Stream::Pty;
        filed |= r.stream == Stream::File(0);
        sized && filed
    })
    .await;
    assert_eq!(bytes_of(&first, Stream::File(0)), b"a line\n");
    writer.resize(24, 80).await.unwrap();
    writer.write(Uuid::new_v4(), b"\n").await.unwrap();
    let rest = follow(&mut reader, is_exit).await;
    let records: Vec<Record> = first.into_iter().chain(rest).collect();
    assert_eq!(bytes_of(&records, Stream::Pty), b"50 200\r\n\r\n24 80\r\n");
    let notes: Vec<Note> = (records.iter())
        .filter(|r| r.stream == Stream::Shim)
        .map(|r| Note::decode(&r.bytes).unwrap())
        .filter(|n| matches!(n, Note::Resized { .. } | Note::File { .. }))
        .collect();
    let file = Note::File { stream: 0, file: 0, rule: 0, path: "said.jsonl".into(), at: 0, offset: 0 };
    assert_eq!(notes, [Note::Resized { rows: 50, cols: 200 }, file, Note::Resized { rows: 24, cols: 80 }]);
    writer.ack(u64::MAX).await.unwrap();
}

async fn a_killed_shim_is_proved_empty(bench: Bench) {
    let spec = sh("env -i setsid sh -c 'setsid sleep 4711 &'; echo up; exec cat");
    let run = run_dir();
    let meta = bench.host.start(&run, &spec).await.unwrap();
    let (mut reader, mut writer) = bench.join(&run, &spec).await.split();
    writer.follow(1).await.unwrap();
    follow_text(&mut reader, "up\n").await;
    kill(meta.shim.pid);
    let state = until("the guard is done", async || {
        Some(bench.host.tree_state(&run).await.unwrap()).filter(|s| !s.locked && !s.guard_alive)
    })
    .await;
    assert!(!state.shim_alive && !state.claude_alive);
    match state.proof {
        Proof::Reaped(reaped) => assert_eq!(reaped.shim_signal, Some(libc::SIGKILL)),
        other => panic!("{other:?}"),
    }
    assert!(matches!(reader.next().await, Err(ConnError::Closed)));
}

async fn escapees_are_swept_when_both_are_killed(bench: Bench) {
    let spec = sh("setsid sleep 4711 & echo up; exec cat");
    let run = run_dir();
    let meta = bench.host.start(&run, &spec).await.unwrap();
    let (mut reader, mut writer) = bench.join(&run, &spec).await.split();
    writer.follow(1).await.unwrap();
    follow_text(&mut reader, "up\n").await;
    let stop = rustix::process::Signal::STOP;
    rustix::process::kill_process(rustix::process::Pid::from_raw(meta.guard.pid).unwrap(), stop).unwrap();
    kill(meta.shim.pid);
    kill(meta.guard.pid);
    until("both are dead", async || {
        Some(bench.host.tree_state(&run).await.unwrap()).filter(|s| !s.locked && !s.claude_alive)
    })
    .await;
    assert_eq!(bench.host.tree_state(&run).await.unwrap().proof, Proof::None);
    let swept = bench.host.sweep(spec.run_id).await.unwrap();
    assert_eq!((swept.killed.len(), swept.left.len()), (1, 0), "{swept:?}");
    let again = bench.host.sweep(spec.run_id).await.unwrap();
    assert_eq!((again.killed.len(), again.left.len()), (0, 0));
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

async fn read_log(bench: &Bench, run: &RunDir, from: u64) -> (Vec<Record>, u64) {
    let mut reader = LogReader::open(bench.host.files(), run, from).await.unwrap();
    let mut all = Vec::new();
    while let Some(records) = reader.next().await.unwrap() {
        all.extend(records);
    }
    (all, reader.torn())
}

async fn logs_are_read_without_a_shim(bench: Bench) {
    let mut spec = sh(
        "i=0; while [ $i -lt 30 ]; do head -c 40000 /dev/urandom; i=$((i+1)); done; echo END OF IT; exec cat",
    );
    spec.segment_bytes = Some(256 << 10);
    let run = bench.start(&spec).await;
    let (mut reader, mut writer) = bench.join(&run, &spec).await.split();
    writer.follow(1).await.unwrap();
    follow_text(&mut reader, "END OF IT\n").await;
    let all = bench.end(&run, &spec).await;
    assert_eq!(read_log(&bench, &run, 1).await, (all.clone(), 0));
    for from in [2, 9, 17, all.len() as u64, all.len() as u64 + 1] {
        assert_eq!(read_log(&bench, &run, from).await.0[..], all[from as usize - 1..], "{from}");
    }
    assert_eq!(read_log(&bench, &RunDir::new("none", 1), 1).await, (Vec::new(), 0));
}

async fn a_torn_tail_is_cut_and_damage_is_reported(bench: Bench) {
    let spec = sh("echo one; sleep 0.05; echo two; exec cat");
    let run = bench.start(&spec).await;
    let all = bench.end(&run, &spec).await;
    let file = bench.home.join(&run.0).join("log/00000001.seg");
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() - 3]).unwrap();
    let (records, torn) = read_log(&bench, &run, 1).await;
    assert_eq!(records[..], all[..all.len() - 1]);
    assert!(torn > 0);

    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    std::fs::write(&file, &damaged).unwrap();
    let mut reader = LogReader::open(bench.host.files(), &run, 1).await.unwrap();
    assert!(reader.next().await.is_err(), "damage in the middle is not a tail");
}

/// A run that is over, of five segments of noise and words; its records.
async fn long_run(bench: &Bench) -> (RunDir, Vec<Record>) {
    let noise = "head -c 40000 /dev/urandom; seq 9000 | tail -c 40000";
    let mut spec =
        sh(&format!("i=0; while [ $i -lt 12 ]; do {noise}; i=$((i+1)); done; echo END OF IT; exec cat"));
    spec.segment_bytes = Some(256 << 10);
    let run = bench.start(&spec).await;
    let (mut reader, mut writer) = bench.join(&run, &spec).await.split();
    writer.follow(1).await.unwrap();
    follow_text(&mut reader, "END OF IT\n").await;
    let all = bench.end(&run, &spec).await;
    (run, all)
}

fn names(bench: &Bench, run: &RunDir) -> Vec<String> {
    let dir = std::fs::read_dir(bench.home.join(&run.0).join("log")).unwrap();
    let mut names: Vec<String> = dir.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

async fn pack_all(bench: &Bench, run: &RunDir) -> (u64, u64) {
    let (mut before, mut after) = (0, 0);
    while let Some(packed) = pack(bench.host.files(), run).await.unwrap() {
        (before, after) = (before + packed.before, after + packed.after);
    }
    (before, after)
}

async fn a_compressed_log_reads_as_before(bench: Bench) {
    let (run, all) = long_run(&bench).await;
    let whole = names(&bench, &run);
    assert!(whole.len() > 3, "{whole:?}");
    let len: u64 = whole
        .iter()
        .map(|name| bench.home.join(&run.0).join("log").join(name).metadata().unwrap().len())
        .sum();
    // A reader that has listed the log before finds the segments under their other names.
    let mut early = LogReader::open(bench.host.files(), &run, 1).await.unwrap();
    let mut read = early.next().await.unwrap().unwrap();
    let (before, after) = pack_all(&bench, &run).await;
    assert_eq!(before, len);
    assert!(after < before * 7 / 8, "{after} of {before}");
    let packed: Vec<_> = whole.iter().map(|name| format!("{name}.gz")).collect();
    assert_eq!(names(&bench, &run), packed);
    while let Some(records) = early.next().await.unwrap() {
        read.extend(records);
    }
    assert_eq!(read, all);
    for from in [1, 2, 9, all.len() as u64 / 2, all.len() as u64, all.len() as u64 + 1] {
        assert_eq!(read_log(&bench, &run, from).await, (all[from as usize - 1..].to_vec(), 0), "{from}");
    }
    assert_eq!(pack_all(&bench, &run).await, (0, 0), "done is done");
}

async fn what_a_kill_leaves_of_compressing_is_harmless(bench: Bench) {
    let (run, all) = long_run(&bench).await;
    let log = bench.home.join(&run.0).join("log");
    let first = std::fs::read(log.join("00000001.seg")).unwrap();
    pack(bench.host.files(), &run).await.unwrap().unwrap();
    let packed = std::fs::read(log.join("00000001.seg.gz")).unwrap();
    // After the rename and before the removal: both are there, and the whole one is read.
    std::fs::write(log.join("00000001.seg"), &first).unwrap();
    assert_eq!(read_log(&bench, &run, 1).await, (all.clone(), 0));
    // Before the rename, and in the middle of writing: the rest of a temporary file.
    std::fs::remove_file(log.join("00000001.seg.gz")).unwrap();
    for len in [0, 1, packed.len() / 2, packed.len()] {
        std::fs::write(log.join("00000001.seg.gz.tmp"), &packed[..len]).unwrap();
        assert_eq!(read_log(&bench, &run, 1).await, (all.clone(), 0), "{len}");
    }
    // A longer one than the next attempt writes does not shine through.
    std::fs::write(log.join("00000001.seg.gz.tmp"), vec![7; first.len() + 5000]).unwrap();
    pack_all(&bench, &run).await;
    assert_eq!(std::fs::read(log.join("00000001.seg.gz")).unwrap(), packed);
    assert!(names(&bench, &run).iter().all(|name| name.ends_with(".seg.gz")), "{:?}", names(&bench, &run));
    assert_eq!(read_log(&bench, &run, 1).await, (all, 0));
}

async fn a_torn_compressed_file_is_reported(bench: Bench) {
    let (run, all) = long_run(&bench).await;
    pack_all(&bench, &run).await;
    let file = bench.home.join(&run.0).join("log/00000002.seg.gz");
    let whole = std::fs::read(&file).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 0x10;
    for damaged in [&whole[..0], &whole[..40], &whole[..whole.len() / 2], &whole[..whole.len() - 1], &flipped]
    {
        std::fs::write(&file, damaged).unwrap();
        let mut reader = LogReader::open(bench.host.files(), &run, 1).await.unwrap();
        reader.next().await.unwrap().unwrap();
        let error = reader.next().await.expect_err("what is gone is not read over").to_string();
        assert!(error.starts_with("segment 2: "), "{error}");
    }
    std::fs::write(&file, &whole).unwrap();
    assert_eq!(read_log(&bench, &run, 1).await, (all, 0));
}

async fn files_beneath_a_root(bench: Bench) {
    let files = bench.host.files();
    let dir = bench.home.join("sessions/a/work");
    files.mkdir(At::home("sessions/a/work"), 0o700).await.unwrap();
    let small = Bytes::from_static(b"hello");
    files.put(At::home("sessions/a/work/f"), 0o600, true, small.clone()).await.unwrap();
    assert_eq!(std::fs::read(dir.join("f")).unwrap(), b"hello");
    assert_eq!(get(files, At::home("sessions/a/work/f"), 100).await.unwrap(), Some(small));

    let big: Bytes = (0..5_000_000u32).map(|i| (i ^ (i >> 8)) as u8).collect::<Vec<_>>().into();
    // The same file by another root.
    let at = At::dir(dir.to_string_lossy(), "big");
    put(files, at.clone(), 0o640, true, big.clone()).await.unwrap();
    assert_eq!(get(files, at.clone(), 5_000_000).await.unwrap(), Some(big));
    assert_eq!(get(files, at.clone(), 4_999_999).await.unwrap(), None);
    let entry = files.stat(at.clone()).await.unwrap().unwrap();
    assert_eq!((entry.kind, entry.size, entry.mode), (EntryKind::File, 5_000_000, 0o640));

    files.rename(at, At::dir(dir.to_string_lossy(), "moved"), false).await.unwrap();
    let names: Vec<_> =
        files.list(At::home("sessions/a/work")).await.unwrap().into_iter().map(|e| e.name).collect();
    assert_eq!(names, ["f", "moved"], "no temporary file is left");
    files.remove(At::home("sessions")).await.unwrap();
    files.remove(At::home("sessions")).await.unwrap();
    assert_eq!(files.stat(At::home("sessions")).await.unwrap(), None);
    assert_eq!(files.stat(At::home("sessions/a/b")).await.unwrap(), None);
    match files.get(At::home("nothing"), 0, 1).await.err() {
        Some(HostError::Relay(e)) => assert_eq!(e.errno(), Some(libc::ENOENT)),
        other => panic!("{other:?}"),
    }
}

async fn links_lead_nowhere(bench: Bench) {
    let files = bench.host.files();
    files.mkdir(At::home("w/sub"), 0o700).await.unwrap();
    let secret = bench.home.parent().unwrap().join("secret");
    std::fs::create_dir(&secret).unwrap();
    std::fs::write(secret.join("key"), "s3cret").unwrap();
    let w = bench.home.join("w");
    std::os::unix::fs::symlink(&secret, w.join("dir")).unwrap();
    std::os::unix::fs::symlink(secret.join("key"), w.join("file")).unwrap();
    for path in
        ["w/dir/key", "w/file", "w/../../secret/key", "../secret/key", "/etc/passwd", "w//sub", "w/./sub"]
    {
        assert!(files.get(At::home(path), 0, 10).await.is_err(), "{path}");
        assert!(files.append(At::home(path), 0, 0o600, Bytes::from_static(b"x")).await.is_err(), "{path}");
    }
    for path in ["w/dir/new", "w/../../secret/new"] {
        assert!(files.put(At::home(path), 0o600, false, Bytes::from_static(b"x")).await.is_err(), "{path}");
        assert!(files.mkdir(At::home(path), 0o700).await.is_err(), "{path}");
        assert!(files.rename(At::home("w/sub"), At::home(path), false).await.is_err(), "{path}");
        assert!(files.symlink(At::home(path), "x".into()).await.is_err(), "{path}");
    }
    assert!(files.remove(At::home("w/dir/key")).await.is_err());
    assert!(files.list(At::home("w/dir")).await.is_err());
    // A put over a link replaces the link, and removing a tree with links removes the links.
    files.put(At::home("w/file"), 0o600, false, Bytes::from_static(b"mine")).await.unwrap();
    files.remove(At::home("w")).await.unwrap();
    assert_eq!(std::fs::read_to_string(secret.join("key")).unwrap(), "s3cret");
    assert_eq!(std::fs::read_dir(&secret).unwrap().count(), 1);

    files.mkdir(At::home("bin"), 0o700).await.unwrap();
    for target in ["/opt/claude", "/opt/claude2"] {
        files.symlink(At::home("bin/claude"), target.into()).await.unwrap();
        assert_eq!(std::fs::read_link(bench.home.join("bin/claude")).unwrap(), Path::new(target));
    }
}

async fn trees_are_copied_and_removed(bench: Bench) {
    let files = bench.host.files();
    let from = bench.home.join("seed");
    std::fs::create_dir_all(from.join("a/b")).unwrap();
    std::fs::write(from.join("a/b/run.sh"), "#!/bin/sh").unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(from.join("a/b/run.sh"), std::fs::Permissions::from_mode(0o750)).unwrap();
    std::os::unix::fs::symlink("b/run.sh", from.join("a/link")).unwrap();
    files.copy_tree(At::home("seed"), At::home("copy")).await.unwrap();
    let entry = files.stat(At::home("copy/a/b/run.sh")).await.unwrap().unwrap();
    assert_eq!((entry.mode, entry.size), (0o750, 9));
    assert_eq!(std::fs::read_link(bench.home.join("copy/a/link")).unwrap(), Path::new("b/run.sh"));
    assert!(files.copy_tree(At::home("seed"), At::home("copy")).await.is_err(), "never into what is there");

    // Deeper than descriptors and paths allow, and without permission: an agent can leave that.
    let deep = bench.home.join("deep");
    let script = "mkdir \"$0\" && cd \"$0\" && for i in $(seq 600); do mkdir d && cd d || exit 1; done; mkdir x; touch x/y; chmod 000 x";
    assert!(std::process::Command::new("sh").args(["-c", script]).arg(&deep).status().unwrap().success());
    files.remove(At::home("deep")).await.unwrap();
    let names: Vec<_> = files.list(At::home("")).await.unwrap().into_iter().map(|e| e.name).collect();
    assert!(names.iter().all(|n| n != "deep" && !n.starts_with(".castra")), "{names:?}");
}

fn exec(script: &str, timeout_ms: u64) -> Exec {
    Exec {
        argv: vec!["sh".into(), "-c".into(), script.into()],
        env: BTreeMap::from([("PATH".into(), "/usr/bin:/bin".into()), ("X".into(), "1".into())]),
        cwd: "/".into(),
        timeout_ms,
    }
}

async fn programs_run_to_their_end(bench: Bench) {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let theirs = Arc::clone(&lines);
    let progress: castra_supervisor::host::Progress =
        Arc::new(move |line: Line| theirs.lock().unwrap().push(line));
    let script = "cat; echo to stderr >&2; printf 'no newline'; exit 4";
    let stdin = Bytes::from_static(b"from stdin\nand more\n");
    let end = bench.host.exec(exec(script, 60_000), stdin, Some(progress)).await.unwrap();
    assert_eq!((end.code, end.signal, end.timed_out), (Some(4), None, false));
    assert_eq!(
        (end.stdout.as_str(), end.stderr.as_str()),
        ("from stdin\nand more\nno newline", "to stderr\n")
    );
    let lines = std::mem::take(&mut *lines.lock().unwrap());
    let out: Vec<_> = lines.iter().filter(|l| !l.stderr).map(|l| l.text.clone()).collect();
    assert_eq!(out, ["from stdin", "and more", "no newline"]);
    let err: Vec<_> = lines.iter().filter(|l| l.stderr).map(|l| l.text.clone()).collect();
    assert_eq!(err, ["to stderr"]);

    let end = bench.host.exec(exec("sleep 4711 & wait", 50), Bytes::new(), None).await.unwrap();
    assert_eq!((end.signal, end.timed_out), (Some(libc::SIGKILL), true));
    let env = bench
        .host
        .exec(exec("env | grep -v -e ^PWD -e ^SHLVL -e ^_ | sort", 60_000), Bytes::new(), None)
        .await;
    assert_eq!(env.unwrap().stdout, "PATH=/usr/bin:/bin\nX=1\n");
    let mut missing = exec("", 1000);
    missing.argv = vec!["/nowhere/npm".into()];
    match bench.host.exec(missing, Bytes::new(), None).await.err() {
        Some(HostError::Relay(e)) => assert_eq!(e.errno(), Some(libc::ENOENT)),
        other => panic!("{other:?}"),
    }
}

async fn a_dropped_program_is_killed(bench: Bench) {
    let mark = bench.home.join("pid");
    let script = format!("echo $$ > '{}'; while :; do sleep 0.01; done", mark.display());
    let running = bench.host.exec(exec(&script, 600_000), Bytes::new(), None);
    let pid = tokio::select! {
        end = running => panic!("{end:?}"),
        pid = until("it runs", async || std::fs::read_to_string(&mark).ok().filter(|t| t.ends_with('\n'))) => pid,
    };
    let stat = format!("/proc/{}/stat", pid.trim());
    until("it is dead", async || match std::fs::read_to_string(&stat) {
        Ok(text) if !text.contains(") Z") => None,
        _ => Some(()),
    })
    .await;
}

async fn a_probe_knows_the_machine(bench: Bench) {
    let probe = bench.host.probe().await.unwrap();
    assert_eq!(probe.machine_id.len(), 32);
    assert_eq!(probe.machine_id, bench.host.probe().await.unwrap().machine_id);
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert_eq!(probe.boot_id.to_string(), boot.trim());
    assert_eq!(Path::new(&probe.home), bench.home);
    assert_eq!(probe.arch, std::env::consts::ARCH);
    assert!(probe.cores >= 1 && probe.memory_bytes > 0 && probe.disk_free > 0 && probe.wmem_max > 0);
}

async fn the_image_is_installed_once_and_private(bench: Bench) {
    let spec = sh("exec cat");
    let run = bench.start(&spec).await;
    let path = format!("shims/{}/castra-shim", shim_image_id());
    let entry = bench.host.files().stat(At::home(&path)).await.unwrap().unwrap();
    assert_eq!((entry.mode, entry.size), (0o700, shim_image().len() as u64));
    let again = sh("exec cat");
    let second = bench.start(&again).await;
    assert_eq!(bench.host.files().stat(At::home(&path)).await.unwrap().unwrap().inode, entry.inode);
    let dirs = bench.host.files().list(At::home("shims")).await.unwrap();
    assert_eq!(dirs.len(), 1);
    bench.end(&run, &spec).await;
    bench.end(&second, &again).await;
}

async fn nobody_listens(bench: Bench) {
    let join = Join { run: Uuid::new_v4(), epoch: 1, last: 0 };
    match bench.host.connect(&run_dir(), join.clone()).await.err() {
        Some(HostError::Relay(RelayError::NoShim { .. })) => (),
        other => panic!("{other:?}"),
    }
    let state = bench.host.tree_state(&run_dir()).await.unwrap();
    assert_eq!((state.meta, state.locked, state.proof), (None, false, Proof::None));
    for bad in ["../x", "/x", "a/../b"] {
        assert!(bench.host.connect(&RunDir(bad.into()), join.clone()).await.is_err());
        assert!(bench.host.start(&RunDir(bad.into()), &sh("true")).await.is_err());
    }
}

async fn many_requests_at_once(bench: Bench) {
    let files = bench.host.files();
    let one = |i: usize| async move {
        let at = At::home(format!("f{i}"));
        let data = Bytes::from(vec![i as u8; 300_000]);
        files.put(at.clone(), 0o600, false, data.clone()).await.unwrap();
        assert_eq!(get(files, at, 300_000).await.unwrap(), Some(data));
    };
    futures::future::join_all((0..100).map(one)).await;
    assert_eq!(files.list(At::home("")).await.unwrap().len(), 100);
}
