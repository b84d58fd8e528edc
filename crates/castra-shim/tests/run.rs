//! One run from start to acknowledged exit: what is journalled, what is served, what is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod common;

use castra_proto::shim::{
    Command as Say, ExitCause, Note, Reason, SignalTarget, StartError, Stream, TreeProof,
};
use common::{Got, Run, bytes_of, exit_of, notes_of, sh, spec, start_raw, until};
use uuid::Uuid;

const END: Say<'static> = Say::Signal { target: SignalTarget::Tree, signo: 0 };

#[test]
fn output_exit_code_and_notes() {
    let run = Run::start(sh("echo out; echo err >&2; exit 7"));
    let records = run.finish();
    assert_eq!(bytes_of(&records, Stream::Out), b"out\n");
    assert_eq!(bytes_of(&records, Stream::Err), b"err\n");
    assert_eq!(exit_of(&records), (Some(7), None, false, TreeProof::Empty, ExitCause::Own));
    match &notes_of(&records)[0] {
        Note::Started { claude, shim, guard, epoch: 1, snd_buf, .. } => {
            assert_eq!((Some(*claude), *shim, *guard), (run.meta.claude, run.meta.shim, run.meta.guard));
            assert!(*snd_buf >= 200_000, "{snd_buf}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(run.log(), records, "the socket says what the files say");
    assert!(!run.dir.join("shim.sock").exists());
    assert!(!run.dir.join("reaped").exists(), "an acknowledged end needs no guard");
}

#[test]
fn input_is_journalled_then_written_and_only_once() {
    let run = Run::start(spec(&["cat"]));
    let mut client = run.join();
    let (a, b) = (Uuid::new_v4(), Uuid::new_v4());
    client.write(a, b"first\n");
    assert_eq!(client.answer(), Got::Written(a, false));
    client.write(a, b"first\n");
    assert_eq!(client.answer(), Got::Written(a, true));
    client.write(b, b"second\n");
    assert_eq!(client.answer(), Got::Written(b, false));
    client.follow_text(1, "second\n");
    client.say(Say::Signal { target: SignalTarget::Claude, signo: libc::SIGTERM });
    let records = run.finish();
    assert_eq!(bytes_of(&records, Stream::In), b"first\nsecond\n");
    assert_eq!(bytes_of(&records, Stream::Out), b"first\nsecond\n");
    let inputs: Vec<_> = notes_of(&records).into_iter().filter(|n| matches!(n, Note::Input { .. })).collect();
    assert_eq!(
        inputs,
        [
            Note::Input { input_id: a, offset: 0, len: 6, epoch: 1 },
            Note::Input { input_id: b, offset: 6, len: 7, epoch: 1 }
        ]
    );
    assert_eq!(exit_of(&records), (None, Some(libc::SIGTERM), false, TreeProof::Empty, ExitCause::Asked));
}

#[test]
fn stdin_and_stdout_cannot_be_opened_by_a_tool() {
    let script = r#"for fd in 0 1; do if (: >> /proc/$$/fd/$fd) 2>/dev/null; then echo forged $fd; else echo safe $fd; fi; done"#;
    let run = Run::start(sh(script));
    assert_eq!(bytes_of(&run.finish(), Stream::Out), b"safe 0\nsafe 1\n");
}

#[test]
fn the_environment_is_exactly_what_was_given() {
    let mut spec = spec(&["env"]);
    spec.env.insert("GREETING".into(), "hello world".into());
    let run = Run::start(spec);
    let out = String::from_utf8(bytes_of(&run.finish(), Stream::Out)).unwrap();
    let mut lines: Vec<_> = out.lines().collect();
    lines.sort_unstable();
    let mark = format!("CASTRA_RUN={}", run.spec.run_id);
    assert_eq!(lines, [mark.as_str(), "GREETING=hello world", "PATH=/usr/local/bin:/usr/bin:/bin"]);
}

#[test]
fn a_torn_last_line_is_flagged() {
    let run = Run::start(sh("printf 'whole\\nhalf'"));
    assert_eq!(exit_of(&run.finish()), (Some(0), None, true, TreeProof::Empty, ExitCause::Own));
}

#[test]
fn a_child_that_holds_stdout_open_does_not_delay_the_exit() {
    let run = Run::start(sh("sleep 4711 & echo done; exit 3"));
    let records = run.finish();
    assert_eq!(bytes_of(&records, Stream::Out), b"done\n");
    assert_eq!(exit_of(&records), (Some(3), None, false, TreeProof::Empty, ExitCause::Own));
}

#[test]
fn binary_bytes_come_through() {
    let run = Run::start(sh(r"printf 'a\000b\377\n\033[0m\r\n'"));
    assert_eq!(bytes_of(&run.finish(), Stream::Out), b"a\0b\xff\n\x1b[0m\r\n");
}

#[test]
fn an_exit_is_served_until_it_is_acknowledged() {
    let run = Run::start(sh("echo hi"));
    let records = run.join().follow_to_exit(1);
    let last = records.last().unwrap().seq;
    let mut client = run.join();
    let id = Uuid::new_v4();
    client.write(id, b"late\n");
    assert_eq!(client.answer(), Got::Refused(Reason::Exited, Some(id)));
    client.say(Say::Signal { target: SignalTarget::Claude, signo: libc::SIGTERM });
    assert_eq!(client.answer(), Got::Refused(Reason::Exited, None));
    client.say(Say::Ack { seq: last - 1 });
    let status = client.status();
    assert_eq!((status.acked, status.last, status.claude), (last - 1, last, None));
    assert_eq!(client.follow_to_exit(1), records, "again, from the beginning");
    client.say(Say::Ack { seq: u64::MAX });
    run.gone();
}

#[test]
fn epochs_fence() {
    let run = Run::start(spec(&["cat"]));
    let mut old = run.join_as(1).unwrap();
    let mut equal = run.join_as(1).unwrap();
    assert_eq!(equal.status().epoch, 1);
    let mut new = run.join_as(5).unwrap();
    for client in [&mut old, &mut equal] {
        assert_eq!(client.answer(), Got::Refused(Reason::Fenced, None));
        assert_eq!(client.answer(), Got::Closed);
    }
    assert_eq!(run.join_as(4).err(), Some(Reason::Fenced));
    assert_eq!(new.status().epoch, 5);
    new.say(Say::Signal { target: SignalTarget::Tree, signo: 0 });
    let records = new.follow_to_exit(1);
    assert_eq!(exit_of(&records), (None, Some(libc::SIGKILL), false, TreeProof::Empty, ExitCause::Asked));
    new.say(Say::Ack { seq: u64::MAX });
    run.gone();
}

#[test]
fn strangers_and_nonsense_are_turned_away() {
    let run = Run::start(spec(&["cat"]));
    let refused = |edit: fn(&mut castra_proto::shim::Hello)| {
        let mut client = common::Client { socket: run.dial().unwrap(), buf: Vec::new() };
        let mut hello = run.hello(1);
        edit(&mut hello);
        client.say(Say::Hello(hello));
        let got = client.answer();
        assert_eq!(client.answer(), Got::Closed);
        got
    };
    assert_eq!(refused(|h| h.run = Uuid::nil()), Got::Refused(Reason::WrongRun, None));
    assert_eq!(refused(|h| h.versions = vec![99]), Got::Refused(Reason::NoCommonVersion, None));
    assert_eq!(refused(|h| h.versions = vec![]), Got::Refused(Reason::NoCommonVersion, None));

    let mut client = common::Client { socket: run.dial().unwrap(), buf: Vec::new() };
    client.say(Say::Status);
    assert_eq!(client.answer(), Got::Refused(Reason::BadFrame, None), "hello comes first");

    let mut client = run.join();
    use std::io::Write;
    client.socket.write_all(&[2, 0, 0, 0, 99, 1, 2]).unwrap();
    assert_eq!(client.answer(), Got::Unsupported(99));
    client.say(Say::Resize { rows: 1, cols: 1 });
    assert_eq!(client.answer(), Got::Refused(Reason::Unsupported, None));
    client.socket.write_all(&[0xff, 0xff, 0xff, 0x7f, 1]).unwrap();
    assert_eq!(client.answer(), Got::Refused(Reason::BadFrame, None));
    assert_eq!(client.answer(), Got::Closed);
    assert_eq!(run.join().status().exit, None, "none of it hurt the run");
}

#[test]
fn what_cannot_be_started_says_why() {
    let temp = tempfile::tempdir().unwrap();
    let dir = |name: &str| {
        let dir = temp.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        dir
    };
    let missing = dir("missing");
    let wanted = spec(&["/nowhere/claude"]);
    match start_raw(&missing, &wanted, &[]) {
        Err(StartError::Spawn { errno: libc::ENOENT, .. }) => (),
        other => panic!("{other:?}"),
    }
    let log = common::read_log(&missing, wanted.run_id);
    assert!(matches!(notes_of(&log)[..], [Note::SpawnFailed { errno: libc::ENOENT, .. }]), "{log:?}");

    let mut bad = spec(&["true"]);
    bad.cwd = "/nowhere".into();
    assert!(matches!(start_raw(&dir("cwd"), &bad, &[]), Err(StartError::Spawn { .. })));
    let mut pty = spec(&["true"]);
    pty.pty = Some(castra_proto::shim::Pty { rows: 24, cols: 0 });
    let refused = castra_proto::shim::SpecError::PtySize;
    assert_eq!(start_raw(&dir("pty"), &pty, &[]), Err(StartError::Spec(refused)));
}

#[test]
fn a_directory_has_one_run_at_a_time_and_one_log_for_ever() {
    let run = Run::start(spec(&["cat"]));
    assert_eq!(start_raw(&run.dir, &sh("true"), &[]), Err(StartError::Busy));
    run.join().say(Say::Signal { target: SignalTarget::Tree, signo: 0 });
    run.finish();
    match start_raw(&run.dir, &sh("true"), &[]) {
        Err(StartError::Io { what, errno: libc::EEXIST, .. }) => assert_eq!(what, "log"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_tool_of_the_run_is_not_let_in() {
    // `socat` and friends may be missing: the test binary itself is the tool.
    let exe = std::env::current_exe().unwrap();
    let temp = tempfile::tempdir().unwrap();
    let mut spec = spec(&[exe.to_str().unwrap(), "--exact", "dial_from_inside", "--nocapture", "--ignored"]);
    spec.env.insert("CASTRA_TEST_DIAL".into(), temp.path().join("shim.sock").to_string_lossy().into_owned());
    let run = Run::start_in(temp.path(), spec, &[]);
    let out = String::from_utf8(bytes_of(&run.finish(), Stream::Out)).unwrap();
    assert!(out.contains("the shim said: not_allowed"), "{out}");
}

#[test]
fn a_tool_of_another_run_is_not_let_in() {
    let neighbour = Run::start(sh("echo up; read never"));
    let exe = std::env::current_exe().unwrap();
    let mut spec = spec(&[exe.to_str().unwrap(), "--exact", "dial_from_inside", "--nocapture", "--ignored"]);
    let socket = neighbour.dir.join("shim.sock").to_string_lossy().into_owned();
    spec.env.insert("CASTRA_TEST_DIAL".into(), socket);
    let out = String::from_utf8(bytes_of(&Run::start(spec).finish(), Stream::Out)).unwrap();
    assert!(out.contains("the shim said: not_allowed"), "{out}");
    // We are let in.
    neighbour.join().follow_text(1, "up\n");
}

#[test]
#[ignore = "run by a_tool_of_the_run_is_not_let_in and its neighbour, inside a run"]
fn dial_from_inside() {
    let path = std::env::var("CASTRA_TEST_DIAL").unwrap();
    let socket = std::os::unix::net::UnixStream::connect(path).unwrap();
    let mut client = common::Client { socket, buf: Vec::new() };
    match client.next_raw() {
        Got::Refused(Reason::NotAllowed, None) => println!("the shim said: not_allowed"),
        other => println!("{other:?}"),
    }
}

#[test]
fn a_wrapper_is_looked_through() {
    let mut spec = spec(&["timeout", "4711", "cat"]);
    spec.wrapped = true;
    let run = Run::start(spec);
    let claude = run.meta.claude.unwrap();
    let comm = std::fs::read_to_string(format!("/proc/{}/comm", claude.pid)).unwrap();
    assert_eq!(comm, "cat\n");
    run.join().say(Say::Signal { target: SignalTarget::Claude, signo: libc::SIGTERM });
    let records = run.finish();
    // `timeout` passes on how its child ended.
    assert_eq!(exit_of(&records), (None, Some(libc::SIGTERM), false, TreeProof::Empty, ExitCause::Asked));
}

/// Whether a sandbox can be made here at all: not in every container.
fn bwrap_works() -> bool {
    let args = ["--ro-bind", "/", "/", "--unshare-pid", "--proc", "/proc", "--dev", "/dev", "true"];
    std::process::Command::new("bwrap").args(args).output().is_ok_and(|o| o.status.success())
}

#[test]
fn claude_that_is_killed_in_a_sandbox_has_died_of_a_signal() {
    if !bwrap_works() {
        return;
    }
    let sandbox = ["bwrap", "--ro-bind", "/", "/", "--unshare-pid", "--proc", "/proc", "--dev", "/dev"];
    let mut spec = spec(&[&sandbox[..], &["cat"]].concat());
    spec.wrapped = true;
    let run = Run::start(spec);
    assert_ne!(run.meta.claude.unwrap(), run.meta.guard);
    run.join().say(Say::Signal { target: SignalTarget::Claude, signo: libc::SIGKILL });
    assert_eq!(
        exit_of(&run.finish()),
        (None, Some(libc::SIGKILL), false, TreeProof::Empty, ExitCause::Asked)
    );
}

#[test]
fn a_sandbox_is_looked_through_and_dies_whole() {
    if !bwrap_works() {
        return;
    }
    let script = "setsid sh -c 'sleep 4711' & echo up; exec cat";
    let sandbox = ["bwrap", "--ro-bind", "/", "/", "--unshare-pid", "--proc", "/proc", "--dev", "/dev"];
    let mut spec = spec(&[&sandbox[..], &["sh", "-c", script]].concat());
    spec.wrapped = true;
    let run = Run::start(spec);
    run.join().follow_text(1, "up\n");
    let claude = run.meta.claude.unwrap();
    let comm = until("claude is behind it", common::DEADLINE, || {
        std::fs::read_to_string(format!("/proc/{}/comm", claude.pid)).ok().filter(|c| c == "cat\n")
    });
    assert_eq!(comm, "cat\n");
    run.join().say(Say::Signal { target: SignalTarget::Claude, signo: libc::SIGTERM });
    let (code, _, _, tree, cause) = exit_of(&run.finish());
    assert_eq!((code, tree, cause), (Some(128 + libc::SIGTERM), TreeProof::Empty, ExitCause::Asked));
}

#[test]
fn memory_over_the_limit_ends_the_run() {
    // sh holds 64 MiB in a variable; the limit is a quarter of that.
    let mut spec = sh("x=$(head -c 67108864 /dev/zero | tr '\\000' a); echo big; sleep 4711");
    spec.memory_bytes = Some(16 << 20);
    let run = Run::start(spec);
    let records = run.finish();
    let (_, signal, _, tree, cause) = exit_of(&records);
    assert_eq!((signal, tree, cause), (Some(libc::SIGKILL), TreeProof::Empty, ExitCause::MemoryLimit));
    assert!(notes_of(&records).iter().any(|n| matches!(n, Note::MemoryLimit { limit: 16777216, .. })));
}

#[test]
fn last_words_of_a_connection_are_heard() {
    // Following a flood it never reads, it hangs up with a command still in its socket.
    let run = Run::start(sh("cat /dev/zero"));
    for _ in 0..20 {
        let mut client = run.join();
        client.say(Say::Follow { from: 1 });
        client.say(Say::Write { input_id: Uuid::new_v4(), part: 0, last: true, bytes: b"x" });
    }
    run.join().say(END);
    let records =
        run.join().follow_until(1, |r| r.stream == Stream::Shim && r.bytes.starts_with(b"{\"note\":\"exit"));
    let inputs = notes_of(&records).iter().filter(|n| matches!(n, Note::Input { .. })).count();
    assert_eq!(inputs, 20);
    run.finish();
}

#[test]
fn a_run_whose_directory_was_removed_ends_with_its_claude() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("run");
    std::fs::create_dir(&dir).unwrap();
    let run = Run::start_in(&dir, sh("read line; exit 0"), &[]);
    let mut client = run.join();
    std::fs::remove_dir_all(&dir).unwrap();
    client.write(Uuid::new_v4(), b"\n");
    run.gone();
}

#[test]
fn closed_stdin_is_said_and_no_error_for_the_rest() {
    let run = Run::start(sh("exec <&-; echo closed; sleep 4711"));
    let mut client = run.join();
    client.follow_text(1, "closed\n");
    let id = Uuid::new_v4();
    client.write(id, b"nobody reads this\n");
    assert_eq!(client.answer(), Got::Written(id, false));
    let closed = Note::StdinClosed { unsent: 18 };
    until("stdin_closed", common::DEADLINE, || notes_of(&run.log()).contains(&closed).then_some(()));
    let late = Uuid::new_v4();
    client.write(late, b"x");
    assert_eq!(client.answer(), Got::Refused(Reason::StdinClosed, Some(late)));
    client.say(Say::Signal { target: SignalTarget::Tree, signo: 0 });
    run.finish();
}
