//! Bytes in quantity: floods, tails, big messages, slow and vanishing readers, a full disk, memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod common;

use std::io::Write;

use castra_proto::shim::{
    Command as Say, ExitCause, Note, Reason, SignalTarget, Stream, TreeProof, VERSIONS,
};
use common::{Client, DEADLINE, Got, Owned, Run, Tmpfs, bytes_of, exit_of, notes_of, sh, spec, until};
use sha2::{Digest, Sha256};
use uuid::Uuid;

const END: Say<'static> = Say::Signal { target: SignalTarget::Tree, signo: 0 };

#[test]
fn a_flood_and_its_tail_are_complete_and_identical() {
    // 48 MiB in lines, the last 3 MiB of it in one line at the exit.
    let script = "i=0; while [ $i -lt 45 ]; do head -c 786432 /dev/urandom | base64 -w 239; i=$((i+1)); done | tee copy;
                  (head -c 2359296 /dev/urandom | base64 -w 0; echo) | tee -a copy";
    let temp = tempfile::tempdir().unwrap();
    let mut spec = sh(script);
    spec.cwd = temp.path().to_string_lossy().into_owned();
    let run = Run::start(spec);
    let records = run.finish();
    let got = bytes_of(&records, Stream::Out);
    let copy = std::fs::read(temp.path().join("copy")).unwrap();
    assert!(copy.len() > 48_000_000, "{}", copy.len());
    assert_eq!(got.len(), copy.len());
    assert_eq!(Sha256::digest(&got), Sha256::digest(&copy));
    assert_eq!(exit_of(&records), (Some(0), None, false, TreeProof::Empty, ExitCause::Own));
    assert_eq!(run.log(), records);
    assert!(std::fs::read_dir(run.dir.join("log")).unwrap().count() >= 3, "several segments");
}

#[test]
fn nobody_reading_delays_nothing() {
    let run = Run::start(sh("head -c 33554432 /dev/zero; echo done >&2; read never"));
    let mut stuck = run.join();
    stuck.say(Say::Follow { from: 1 });
    // Never read. The output is drained into the log all the same.
    let mut other = run.join();
    until("all is drained", DEADLINE, || (bytes_of(&run.log(), Stream::Err) == b"done\n").then_some(()));
    assert_eq!(bytes_of(&run.log(), Stream::Out).len(), 32 << 20);
    other.say(END);
    run.finish();
}

#[test]
fn a_reader_killed_fifty_times_pieces_the_same_log_together() {
    // Over 300 records, however much of it comes in one read.
    let run = Run::start({
        let mut spec =
            sh("i=0; while [ $i -lt 700 ]; do head -c 30000 /dev/urandom; i=$((i+1)); done; read never");
        spec.segment_bytes = Some(256 << 10);
        spec
    });
    let mut pieces: Vec<Owned> = Vec::new();
    for round in 0..50u64 {
        // Each time in the middle: after a number of records that differs from round to round.
        let from = pieces.last().map_or(1, |r| r.seq + 1);
        let stop = from + round % 7;
        let got = run.join().follow_until(from, |r| r.seq == stop);
        pieces.extend(got);
    }
    run.join().say(END);
    let from = pieces.last().unwrap().seq + 1;
    pieces.extend(run.join().follow_to_exit(from));
    assert_eq!(pieces, run.log());
    run.finish();
}

#[test]
fn every_record_can_be_followed_from() {
    let mut spec = sh("i=0; while [ $i -lt 60 ]; do head -c 30000 /dev/urandom; i=$((i+1)); done");
    spec.segment_bytes = Some(400 << 10);
    let run = Run::start(spec);
    let all = run.join().follow_to_exit(1);
    for (index, record) in all.iter().enumerate() {
        assert_eq!(run.join().follow_to_exit(record.seq), all[index..]);
    }
    run.finish();
}

#[test]
fn sixty_four_megabytes_of_input() {
    let run = Run::start(sh("head -c 67108864 | sha256sum; read never"));
    let mut client = run.join();
    let message: Vec<u8> = (0..64usize << 20).map(|i| (i * 31 + i / 1000) as u8).collect();
    let id = Uuid::new_v4();
    client.write(id, &message);
    assert_eq!(client.answer(), Got::Written(id, false));
    let hash: String = Sha256::digest(&message).iter().map(|b| format!("{b:02x}")).collect();
    client.follow_text(1, &hash);
    assert_eq!(bytes_of(&run.log(), Stream::In), message);
    client.write(id, &message);
    assert_eq!(client.answer(), Got::Written(id, true));
    run.join().say(END);
    run.finish();
}

#[test]
fn a_message_cut_off_half_way_has_not_happened() {
    let run = Run::start(spec(&["cat"]));
    let id = Uuid::new_v4();
    let mut client = run.join();
    client.say(Say::Write { input_id: id, part: 0, last: false, bytes: b"half of " });
    assert_eq!(client.status().pending_input, 0);
    drop(client);
    let mut client = run.join();
    client.say(Say::Write { input_id: id, part: 1, last: true, bytes: b"a message\n" });
    assert_eq!(client.answer(), Got::Refused(Reason::BadFrame, None));
    let mut client = run.join();
    client.write(id, b"whole\n");
    assert_eq!(client.answer(), Got::Written(id, false));
    client.follow_text(1, "whole\n");
    assert_eq!(bytes_of(&run.log(), Stream::In), b"whole\n");
    client.say(END);
    run.finish();
}

#[test]
fn a_claude_that_never_reads_is_bounded() {
    let run = Run::start(sh("echo up; sleep 4711"));
    let mut client = run.join();
    let message = vec![b'x'; 40 << 20];
    let mut answers = Vec::new();
    for _ in 0..5 {
        let id = Uuid::new_v4();
        client.write(id, &message);
        answers.push(match client.answer() {
            Got::Written(got, false) if got == id => "written",
            Got::Refused(Reason::Full, Some(got)) if got == id => "full",
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(answers[..3], ["written"; 3]);
    assert_eq!(answers.last(), Some(&"full"));
    let too_large = Uuid::new_v4();
    client.write(too_large, &vec![0; (80 << 20) + 1]);
    assert_eq!(client.answer(), Got::Refused(Reason::TooLarge, Some(too_large)));
    assert!(client.status().pending_input <= 128 << 20);
    client.say(END);
    run.finish();
}

#[test]
fn a_full_disk_stops_claude_and_loses_nothing() {
    let Some(disk) = Tmpfs::new(4 << 20) else {
        assert!(!rustix::process::geteuid().is_root(), "root can mount, unless in a container");
        return;
    };
    let copy = tempfile::tempdir().unwrap();
    let ballast = disk.0.path().join("ballast");
    std::fs::write(&ballast, vec![0; 3 << 20]).unwrap();
    let mut spec = sh(
        "i=0; while [ $i -lt 40 ]; do head -c 60000 /dev/urandom | base64 -w 99; i=$((i+1)); done | tee copy; read never",
    );
    spec.cwd = copy.path().to_string_lossy().into_owned();
    let dir = disk.0.path().join("run");
    std::fs::create_dir(&dir).unwrap();
    let run = Run::start_in(&dir, spec, &[]);
    let mut client = run.join();
    until("it is degraded", DEADLINE, || client.status().degraded.map(|_| ()));
    let id = Uuid::new_v4();
    client.write(id, b"x");
    assert_eq!(client.answer(), Got::Refused(Reason::Full, Some(id)));
    let claude = run.meta.claude.unwrap().pid;
    until("claude is stopped", DEADLINE, || matches!(common::stat(claude), Some((b'T', ..))).then_some(()));
    let before = run.log();
    assert!(!before.is_empty(), "what is there is whole");

    std::fs::remove_file(&ballast).unwrap();
    until("it goes on", DEADLINE, || client.status().degraded.is_none().then_some(()));
    client.write(id, b"\n");
    assert_eq!(client.answer(), Got::Written(id, false));
    let records = run.finish();
    let out = bytes_of(&records, Stream::Out);
    assert_eq!(Sha256::digest(&out), Sha256::digest(std::fs::read(copy.path().join("copy")).unwrap()));
    assert!(out.len() > 3_000_000 / 2);
    let notes = notes_of(&records);
    assert!(notes.iter().any(|n| matches!(n, Note::Degraded { errno: libc::ENOSPC, .. })), "{notes:?}");
    assert!(notes.contains(&Note::Recovered { stopped: true }), "{notes:?}");
}

#[test]
fn a_kill_works_on_a_full_disk_and_its_exit_is_told_when_there_is_room() {
    let Some(disk) = Tmpfs::new(1 << 20) else { return };
    let dir = disk.0.path().join("run");
    std::fs::create_dir(&dir).unwrap();
    let run = Run::start_in(&dir, sh("cat /dev/zero"), &[]);
    let mut client = run.join();
    until("it is degraded", DEADLINE, || client.status().degraded.map(|_| ()));
    client.say(END);
    until("claude is dead", DEADLINE, || (!common::alive(run.meta.claude.unwrap())).then_some(()));
    let exit = until("its exit is known", DEADLINE, || client.status().exit);
    assert_eq!((exit.code, exit.signal), (None, Some(libc::SIGKILL)));
    let resized = std::process::Command::new("mount")
        .args(["-o", "remount,size=64m"])
        .arg(disk.0.path())
        .status()
        .unwrap();
    assert!(resized.success());
    let (_, signal, _, tree, cause) = exit_of(&run.finish());
    assert_eq!((signal, tree, cause), (Some(libc::SIGKILL), TreeProof::Empty, ExitCause::Asked));
}

fn rss(pid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find(|l| l.starts_with("Rss:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn shim_and_guard_stay_small() {
    let run = Run::start(sh("head -c 67108864 /dev/zero; echo done >&2; cat"));
    let mut client = run.join();
    client.follow_until(1, |r| r.stream == Stream::Err);
    let id = Uuid::new_v4();
    client.write(id, &vec![b'y'; 4 << 20]);
    assert_eq!(client.answer(), Got::Written(id, false));
    until("cat has it", DEADLINE, || (client.status().pending_input == 0).then_some(()));
    let (shim, guard) = (rss(run.shim()), rss(run.meta.guard.pid));
    println!("rss: shim {} KiB, guard {} KiB", shim >> 10, guard >> 10);
    // Debug builds too. The static release build is about half of it (README).
    assert!(shim < 5 << 20, "shim: {shim}");
    assert!(guard < 5 << 20, "guard: {guard}");
    client.say(END);
    run.finish();
}

#[test]
fn bytes_in_any_portions_are_the_same_commands() {
    let run = Run::start(spec(&["cat"]));
    let mut client = Client { socket: run.dial().unwrap(), buf: Vec::new() };
    let mut bytes = Vec::new();
    Say::Hello(run.hello(1)).encode(&mut bytes);
    let id = Uuid::new_v4();
    Say::Write { input_id: id, part: 0, last: true, bytes: b"slowly\n" }.encode(&mut bytes);
    for byte in &bytes {
        client.socket.write_all(&[*byte]).unwrap();
    }
    assert!(matches!(client.answer(), Got::Hello(h) if h.versions == VERSIONS));
    assert_eq!(client.answer(), Got::Written(id, false));
    client.follow_text(1, "slowly\n");
    client.say(END);
    run.finish();
}
