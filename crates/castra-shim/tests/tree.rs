//! Whatever is killed, the tree dies: guard, shim, claude, both, and everything that tries to escape.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod common;

use std::time::Duration;

use castra_proto::shim::{
    Command as Say, ExitCause, Note, Reaped, SignalTarget, StartSpec, Stream, TreeProof,
};
use common::{DEADLINE, Run, alive, exit_of, kill, notes_of, sh, until, with_mark};
use uuid::Uuid;

/// What the issue promises.
const TREE_DEADLINE: Duration = Duration::from_secs(2);

/// A claude with everything that is known to survive: nohup, a session of its own, no environment and a
/// double fork, a process that ignores TERM. `mark` is in every command line of it.
fn escapees(mark: &str) -> StartSpec {
    sh(&format!(
        "nohup sh -c 'sleep 300; : {mark} a' >/dev/null 2>&1 &
         setsid sh -c 'sleep 300; : {mark} b' &
         env -i setsid sh -c 'setsid sh -c \"sleep 300; : {mark} c\" & : {mark}' &
         sh -c 'trap \"\" TERM HUP INT; sleep 300; : {mark} d' &
         sleep 0.2; echo up; read never; : {mark} e"
    ))
}

fn mark() -> String {
    format!("mark-{}", Uuid::new_v4().simple())
}

fn up(run: &Run, mark: &str) {
    run.join().follow_text(1, "up\n");
    until("all escapees run", DEADLINE, || (with_mark(mark).len() >= 5).then_some(()));
}

fn none_left(mark: &str) {
    until("the tree is dead", TREE_DEADLINE, || with_mark(mark).is_empty().then_some(()));
}

#[test]
fn shim_killed_the_guard_ends_everything_and_proves_it() {
    let mark = mark();
    let run = Run::start(escapees(&mark));
    up(&run, &mark);
    let before = run.log();
    kill(run.shim(), libc::SIGKILL);
    none_left(&mark);
    until("the guard ends", DEADLINE, || (!alive(run.meta.guard)).then_some(()));
    let reaped: Reaped = serde_json::from_slice(&std::fs::read(run.dir.join("reaped")).unwrap()).unwrap();
    assert_eq!((reaped.shim_code, reaped.shim_signal), (None, Some(libc::SIGKILL)));
    assert_eq!(run.log()[..before.len()], before, "the log is whole");
    assert!(!notes_of(&run.log()).iter().any(|n| matches!(n, Note::Exit { .. })), "lost, never an exit");
}

#[test]
fn guard_killed_the_shim_ends_everything_and_goes_on_serving() {
    let mark = mark();
    let run = Run::start(escapees(&mark));
    up(&run, &mark);
    kill(run.meta.guard.pid, libc::SIGKILL);
    none_left(&mark);
    let records = run.join().follow_to_exit(1);
    assert_eq!(exit_of(&records), (None, Some(libc::SIGKILL), false, TreeProof::Empty, ExitCause::GuardLost));
    assert!(alive(run.meta.shim));
    run.join().say(Say::Ack { seq: u64::MAX });
    run.gone();
}

#[test]
fn guard_and_shim_killed_claude_dies_and_nothing_proves_it() {
    let run = Run::start(sh("echo up; read never"));
    run.join().follow_text(1, "up\n");
    kill(run.meta.guard.pid, libc::SIGSTOP);
    kill(run.shim(), libc::SIGKILL);
    kill(run.meta.guard.pid, libc::SIGKILL);
    until("claude dies", TREE_DEADLINE, || (!alive(run.meta.claude.unwrap())).then_some(()));
    assert!(!run.dir.join("reaped").exists());
}

#[test]
fn claude_killed_its_tools_die_with_it() {
    let mark = mark();
    let run = Run::start(escapees(&mark));
    up(&run, &mark);
    kill(run.meta.claude.unwrap().pid, libc::SIGKILL);
    none_left(&mark);
    assert_eq!(exit_of(&run.finish()), (None, Some(libc::SIGKILL), false, TreeProof::Empty, ExitCause::Own));
}

#[test]
fn a_tree_signal_ends_everything_even_when_it_is_stopped() {
    let mark = mark();
    let run = Run::start(escapees(&mark));
    up(&run, &mark);
    for pid in with_mark(&mark) {
        kill(pid, libc::SIGSTOP);
    }
    run.join().say(Say::Signal { target: SignalTarget::Tree, signo: 0 });
    none_left(&mark);
    assert_eq!(
        exit_of(&run.finish()),
        (None, Some(libc::SIGKILL), false, TreeProof::Empty, ExitCause::Asked)
    );
}

#[test]
fn one_that_keeps_forking_is_caught() {
    let mark = mark();
    let run = Run::start(sh(&format!(
        "env -i sh -c 'while :; do setsid sh -c \": {mark}; sleep 0.05\" & sleep 0.005; done; : {mark}' & echo up; read never"
    )));
    run.join().follow_text(1, "up\n");
    until("it forks", DEADLINE, || (with_mark(&mark).len() > 3).then_some(()));
    run.join().say(Say::Signal { target: SignalTarget::Tree, signo: 0 });
    let (.., tree, cause) = exit_of(&run.finish());
    assert_eq!((tree, cause), (TreeProof::Empty, ExitCause::Asked));
    none_left(&mark);
}

#[test]
fn a_killall_of_the_agent_reaches_neither_guard_nor_shim() {
    let run = Run::start(sh("trap '' TERM; kill -TERM 0; echo alive"));
    let records = run.finish();
    assert_eq!(common::bytes_of(&records, Stream::Out), b"alive\n");
}

#[test]
fn orphans_that_end_leave_no_zombies() {
    let run = Run::start(sh("for i in 1 2 3 4 5 6 7 8; do (true &) ; done; echo up; read never"));
    run.join().follow_text(1, "up\n");
    let zombies = || {
        std::fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok())
            .filter(|pid| matches!(common::stat(*pid), Some((b'Z', parent, _)) if parent == run.shim()))
            .count()
    };
    until("they are collected", 2 * DEADLINE, || (zombies() == 0).then_some(()));
    run.join().say(Say::Signal { target: SignalTarget::Tree, signo: 0 });
    run.finish();
}
