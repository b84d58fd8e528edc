//! What only a test build does: other versions offered, syncs that fail, no inotify. `--features failpoints`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]
#![cfg(feature = "failpoints")]

mod common;

use castra_proto::shim::{Command as Say, How, Note, Reason, SignalTarget, Stream, TailRule, Which};
use common::{Client, DEADLINE, Got, Run, bytes_of, notes_of, sh, spec, until};

#[test]
fn old_and_new_speak_the_highest_common_version() {
    for (offered, wanted, met) in
        [("2,3", vec![1, 2], true), ("2,3", vec![1], false), ("1", vec![1, 2, 3], true)]
    {
        let temp = tempfile::tempdir().unwrap();
        let run = Run::start_in(temp.path(), spec(&["cat"]), &[("CASTRA_TEST_SHIM_VERSIONS", offered)]);
        let mut client = Client { socket: run.dial().unwrap(), buf: Vec::new() };
        let mut hello = run.hello(1);
        hello.versions = wanted.clone();
        client.say(Say::Hello(hello));
        match client.answer() {
            Got::Hello(hello) => {
                let versions: Vec<u32> = offered.split(',').map(|v| v.parse().unwrap()).collect();
                assert_eq!((met, hello.versions), (true, versions));
            }
            got => {
                assert!(!met, "{got:?}");
                assert_eq!(got, Got::Refused(Reason::NoCommonVersion, None));
            }
        }
    }
}

#[test]
fn a_failed_sync_ends_the_segment_and_nothing_else() {
    let temp = tempfile::tempdir().unwrap();
    let spec = sh("echo one; read line; echo two; exit 0");
    let run = Run::start_in(temp.path(), spec, &[("CASTRA_TEST_SHIM_SYNC_FAILS", "1")]);
    let mut client = run.join();
    let failed = Note::SyncFailed { segment: 1, errno: libc::EIO };
    until("the failure is noted", DEADLINE, || notes_of(&run.log()).contains(&failed).then_some(()));
    assert!(temp.path().join("log/00000002.seg").exists());
    client.write(uuid::Uuid::new_v4(), b"\n");
    client.follow_to_exit(1);
    client.say(Say::Signal { target: SignalTarget::Claude, signo: 15 });
    let records = run.finish();
    assert_eq!(bytes_of(&records, Stream::Out), b"one\ntwo\n");
    assert_eq!(notes_of(&records).iter().filter(|n| **n == failed).count(), 1, "never retried");
}

#[test]
fn without_inotify_files_are_looked_at() {
    let home = tempfile::tempdir().unwrap();
    let temp = tempfile::tempdir().unwrap();
    let mut spec = sh("mkdir a; echo one > a/f.jsonl; read go; echo two >> a/f.jsonl; read go");
    spec.cwd = home.path().to_string_lossy().into_owned();
    spec.files = vec![TailRule {
        dir: spec.cwd.clone(),
        path: String::new(),
        suffix: ".jsonl".into(),
        depth: 1,
        which: Which::All,
        how: How::Append,
        known: Default::default(),
        skip_existing: false,
    }];
    let run = Run::start_in(temp.path(), spec, &[("CASTRA_TEST_SHIM_NO_INOTIFY", "1")]);
    let mut client = run.join();
    let first = client.follow_until(1, |r| r.stream == Stream::File(0));
    client.write(uuid::Uuid::new_v4(), b"\n");
    // On a connection of its own: the first may still be sending.
    let mut client = run.join();
    client.follow_until(first.last().unwrap().seq + 1, |r| r.stream == Stream::File(0));
    client.say(Say::Signal { target: SignalTarget::Tree, signo: 0 });
    assert_eq!(bytes_of(&run.finish(), Stream::File(0)), b"one\ntwo\n");
}
