//! Terminals: what claude finds, what comes of it, sizes, and ends that lose nothing and hang on nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod common;

use castra_proto::shim::{
    Command as Say, ExitCause, Note, Pty, Reason, SignalTarget, StartSpec, Stream, TreeProof,
};
use common::{DEADLINE, Got, Owned, Run, Tmpfs, alive, bytes_of, exit_of, kill, notes_of, sh, until};
use sha2::{Digest, Sha256};
use uuid::Uuid;

const END: Say<'static> = Say::Signal { target: SignalTarget::Tree, signo: 0 };
const SIZE: Pty = Pty { rows: 24, cols: 80 };

fn on_terminal(script: &str) -> StartSpec {
    StartSpec { pty: Some(SIZE), ..sh(script) }
}

/// What the terminal shows, lines ended by LF.
fn screen(records: &[Owned]) -> String {
    String::from_utf8_lossy(&bytes_of(records, Stream::Pty)).replace("\r\n", "\n")
}

fn follow_screen(run: &Run, text: &str) -> Vec<Owned> {
    let mut seen = Vec::new();
    run.join().follow_until(1, |r| {
        if r.stream == Stream::Pty {
            seen.extend_from_slice(&r.bytes);
        }
        seen.windows(text.len()).any(|w| w == text.as_bytes())
    })
}

fn resized(records: &[Owned]) -> Vec<(u16, u16)> {
    let size = |note| match note {
        Note::Resized { rows, cols } => Some((rows, cols)),
        _ => None,
    };
    notes_of(records).into_iter().filter_map(size).collect()
}

#[test]
fn claude_finds_a_terminal_of_its_own() {
    let run = Run::start(on_terminal(
        "test -t 0 && test -t 1 && test -t 2 && stty size </dev/tty && stty -a | grep -c ' iutf8'
         test \"$(ps -o tpgid= -p $$)\" -eq $$ && echo foreground; exit 3",
    ));
    let records = run.finish();
    assert_eq!(screen(&records), "24 80\n1\nforeground\n");
    assert_eq!(exit_of(&records), (Some(3), None, false, TreeProof::Empty, ExitCause::Own));
    assert!(matches!(
        notes_of(&records)[..2],
        [Note::Started { snd_buf: 0, .. }, Note::Resized { rows: 24, cols: 80 }]
    ));
    assert_eq!(run.log(), records);
}

#[test]
fn input_is_typed_once_and_journalled_before() {
    let run = Run::start(on_terminal("echo ready; cat"));
    follow_screen(&run, "ready\r\n");
    let mut client = run.join();
    let (hello, end) = (Uuid::new_v4(), Uuid::new_v4());
    client.write(hello, b"hello\n");
    assert_eq!(client.answer(), Got::Written(hello, false));
    client.write(hello, b"hello\n");
    assert_eq!(client.answer(), Got::Written(hello, true));
    client.write(end, b"\x04");
    let records = run.finish();
    assert_eq!(screen(&records), "ready\nhello\nhello\n");
    assert_eq!(bytes_of(&records, Stream::In), b"hello\n\x04");
    let inputs: Vec<Uuid> = (notes_of(&records).into_iter())
        .filter_map(|n| if let Note::Input { input_id, .. } = n { Some(input_id) } else { None })
        .collect();
    assert_eq!(inputs, [hello, end]);
    assert_eq!(exit_of(&records), (Some(0), None, false, TreeProof::Empty, ExitCause::Own));
}

#[test]
fn a_megabyte_is_typed_as_fast_as_it_is_read() {
    let run = Run::start(on_terminal("stty raw -echo; echo ready; sleep 0.2; head -c 1000000 | sha256sum"));
    follow_screen(&run, "ready");
    let text: Vec<u8> = (0..1_000_000usize).map(|i| (i * 7 + i / 256) as u8).collect();
    let mut client = run.join();
    let id = Uuid::new_v4();
    client.write(id, &text);
    assert_eq!(client.answer(), Got::Written(id, false));
    let records = run.finish();
    let hash: String = Sha256::digest(&text).iter().map(|b| format!("{b:02x}")).collect();
    assert!(screen(&records).contains(&hash), "{}", screen(&records));
}

#[test]
fn the_keys_of_signals_are_signals() {
    let run = Run::start(on_terminal("echo ready; exec sleep 1000"));
    follow_screen(&run, "ready");
    run.join().write(Uuid::new_v4(), b"\x03");
    assert_eq!(exit_of(&run.finish()).1, Some(libc::SIGINT));
}

#[test]
fn a_resize_stands_in_the_log_before_what_was_drawn_for_it() {
    let run = Run::start(on_terminal(
        "trap 'stty size; echo drawn' WINCH; echo ready; while :; do sleep 0.01; done",
    ));
    follow_screen(&run, "ready");
    let mut client = run.join();
    for (rows, cols) in [(0, 80), (24, 0), (0, 0)] {
        client.say(Say::Resize { rows, cols });
        assert_eq!(client.answer(), Got::Refused(Reason::Unsupported, None));
    }
    // The same size is nothing new to the child, and a record all the same.
    client.say(Say::Resize { rows: 24, cols: 80 });
    client.say(Say::Resize { rows: 50, cols: 200 });
    let records = follow_screen(&run, "drawn");
    assert_eq!(resized(&records), [(24, 80), (24, 80), (50, 200)]);
    assert!(screen(&records).ends_with("50 200\ndrawn\n"), "{}", screen(&records));
    let note = records.iter().rposition(|r| r.stream == Stream::Shim).unwrap();
    assert!(!screen(&records[..note]).contains("50 200"));
    client.say(END);
    let records = run.finish();
    assert_eq!(exit_of(&records).4, ExitCause::Asked);
}

#[test]
fn a_stream_run_has_no_size() {
    let run = Run::start(sh("read never"));
    let mut client = run.join();
    client.say(Say::Resize { rows: 50, cols: 200 });
    assert_eq!(client.answer(), Got::Refused(Reason::Unsupported, None));
    client.say(END);
    assert_eq!(resized(&run.finish()), []);
}

#[test]
fn a_flood_is_complete_and_identical() {
    let temp = tempfile::tempdir().unwrap();
    let mut spec = on_terminal("stty -opost; head -c 40000000 /dev/urandom | tee copy");
    spec.cwd = temp.path().to_string_lossy().into_owned();
    let run = Run::start(spec);
    let records = run.finish();
    let (got, copy) = (bytes_of(&records, Stream::Pty), std::fs::read(temp.path().join("copy")).unwrap());
    assert_eq!(got.len(), 40_000_000);
    assert_eq!(Sha256::digest(&got), Sha256::digest(&copy));
    assert_eq!(run.log(), records);
    assert!(std::fs::read_dir(run.dir.join("log")).unwrap().count() >= 3, "several segments");
}

#[test]
fn the_last_bytes_before_the_exit_are_there() {
    for round in 0..40u32 {
        // More than one read, less than what a terminal holds: claude is gone before it is read.
        let len = 1 + (round * 97) % 3900;
        let run = Run::start(on_terminal(&format!(
            "stty -opost; head -c {len} /dev/zero | tr '\\0' x; printf end"
        )));
        let records = run.finish();
        assert_eq!(screen(&records), format!("{}end", "x".repeat(len as usize)));
        assert!(!exit_of(&records).2, "nothing is lost");
    }
}

#[test]
fn nobody_who_holds_the_terminal_holds_the_run() {
    let run = Run::start(on_terminal(
        "(trap '' HUP; sleep 1000) & (trap '' HUP; exec setsid sleep 1000) & echo started; read go; echo last; exit 0",
    ));
    follow_screen(&run, "started");
    // Somebody outside of the tree too, whom the shim neither may nor does kill.
    let held = std::fs::File::options()
        .write(true)
        .open(std::fs::read_link(format!("/proc/{}/fd/1", run.meta.claude.unwrap().pid)).unwrap())
        .unwrap();
    run.join().write(Uuid::new_v4(), b"\n");
    let records = run.finish();
    assert!(screen(&records).ends_with("last\n"));
    assert_eq!(exit_of(&records), (Some(0), None, false, TreeProof::Empty, ExitCause::Own));
    drop(held);
}

#[test]
fn claude_may_close_its_terminal_and_open_it_again() {
    let run = Run::start(on_terminal(
        "echo one; exec </dev/null >/dev/null 2>&1; sleep 0.3; exec >/dev/tty; echo two",
    ));
    let records = run.finish();
    assert_eq!(screen(&records), "one\ntwo\n");
}

#[test]
fn a_killed_shim_takes_the_terminal_and_the_tree_along() {
    let run = Run::start(on_terminal("trap '' HUP; echo up; sleep 1000"));
    follow_screen(&run, "up");
    kill(run.shim(), libc::SIGKILL);
    run.gone();
    until("claude is dead", DEADLINE, || (!alive(run.meta.claude.unwrap())).then_some(()));
    assert_eq!(screen(&run.log()), "up\n");
}

#[test]
fn an_idle_terminal_writes_nothing() {
    let run = Run::start(on_terminal("echo up; read never"));
    let before = follow_screen(&run, "up\r\n");
    // A command that is answered: whatever the loop had to do before it is done.
    let status = run.join().status();
    assert_eq!(status.last, before.last().unwrap().seq);
    run.join().say(END);
    run.finish();
}

#[test]
fn a_full_disk_stops_the_terminal_and_loses_nothing() {
    let Some(disk) = Tmpfs::new(4 << 20) else {
        assert!(!rustix::process::geteuid().is_root(), "root can mount, unless in a container");
        return;
    };
    let copy = tempfile::tempdir().unwrap();
    let ballast = disk.0.path().join("ballast");
    std::fs::write(&ballast, vec![0; 3 << 20]).unwrap();
    let mut spec = on_terminal("stty -opost; head -c 2400000 /dev/urandom | tee copy; read never");
    spec.cwd = copy.path().to_string_lossy().into_owned();
    let dir = disk.0.path().join("run");
    std::fs::create_dir(&dir).unwrap();
    let run = Run::start_in(&dir, spec, &[]);
    let mut client = run.join();
    until("it is degraded", DEADLINE, || client.status().degraded.map(|_| ()));
    client.say(Say::Resize { rows: 1, cols: 1 });
    assert_eq!(client.answer(), Got::Refused(Reason::Full, None));
    let claude = run.meta.claude.unwrap().pid;
    until("claude is stopped", DEADLINE, || matches!(common::stat(claude), Some((b'T', ..))).then_some(()));
    std::fs::remove_file(&ballast).unwrap();
    until("it goes on", DEADLINE, || client.status().degraded.is_none().then_some(()));
    let told = |r: &Owned| r.stream == Stream::Pty && r.offset + r.bytes.len() as u64 == 2_400_000;
    run.join().follow_until(1, told);
    client.say(END);
    let records = run.finish();
    let copy = std::fs::read(copy.path().join("copy")).unwrap();
    assert_eq!(Sha256::digest(bytes_of(&records, Stream::Pty)), Sha256::digest(&copy));
    assert!(notes_of(&records).contains(&Note::Recovered { stopped: true }));
}
