//! The shim's bytes are frozen: committed fixtures decode to these values and encode to these bytes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::path::{Path, PathBuf};

use castra_proto::shim::*;
use proptest::prelude::*;
use uuid::Uuid;

fn dir(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Compares with the committed file; `CASTRA_BLESS=1` writes a new one, never an old one anew.
fn committed(name: &str, bytes: &[u8]) {
    let path = dir("fixtures/shim-v1").join(name);
    if !path.exists() && std::env::var_os("CASTRA_BLESS").is_some() {
        std::fs::write(&path, bytes).unwrap();
    }
    let want = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert_eq!(want, bytes, "{name} is frozen");
}

fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn process(pid: i32) -> ProcessId {
    ProcessId { pid, start: 1000 + pid as u64 }
}

fn hello() -> Hello {
    Hello { versions: vec![1], build: "0.1.0".into(), run: id(1), epoch: 7, boot_id: id(2), last: 42 }
}

fn commands() -> Vec<(&'static str, Command<'static>)> {
    vec![
        ("hello.frame", Command::Hello(hello())),
        ("follow.frame", Command::Follow { from: 43 }),
        ("ack.frame", Command::Ack { seq: 42 }),
        (
            "write.frame",
            Command::Write { input_id: id(3), part: 0, last: true, bytes: b"{\"type\":\"user\"}\n" },
        ),
        ("write-part.frame", Command::Write { input_id: id(3), part: 2, last: false, bytes: &[0, 255, 10] }),
        ("signal-claude.frame", Command::Signal { target: SignalTarget::Claude, signo: 15 }),
        ("signal-tree.frame", Command::Signal { target: SignalTarget::Tree, signo: 9 }),
        ("resize.frame", Command::Resize { rows: 24, cols: 80 }),
        ("status.frame", Command::Status),
        ("prune.frame", Command::Prune { before: 41 }),
    ]
}

const REASONS: [(&str, Reason); 10] = [
    ("fenced", Reason::Fenced),
    ("full", Reason::Full),
    ("exited", Reason::Exited),
    ("stdin_closed", Reason::StdinClosed),
    ("unsupported", Reason::Unsupported),
    ("bad_frame", Reason::BadFrame),
    ("no_common_version", Reason::NoCommonVersion),
    ("wrong_run", Reason::WrongRun),
    ("not_allowed", Reason::NotAllowed),
    ("too_large", Reason::TooLarge),
];

fn answers(records: &[u8]) -> Vec<(String, Answer<'_>)> {
    let status = Status {
        epoch: 7,
        last: 42,
        acked: 40,
        claude: Some(process(12)),
        pending_input: 5,
        degraded: None,
        exit: None,
    };
    let ended = Status {
        claude: None,
        degraded: Some(99),
        exit: Some(StatusExit { code: Some(0), signal: None }),
        ..status.clone()
    };
    let mut all = vec![
        ("answer-hello.frame".to_owned(), Answer::Hello(hello())),
        ("answer-records.frame".to_owned(), Answer::Records(records)),
        ("answer-written.frame".to_owned(), Answer::Written { input_id: id(3), duplicate: true }),
        ("answer-status.frame".to_owned(), Answer::Status(status)),
        ("answer-status-ended.frame".to_owned(), Answer::Status(ended)),
        ("answer-unsupported.frame".to_owned(), Answer::Unsupported { kind: 99 }),
    ];
    for (name, reason) in REASONS {
        let input_id = (reason == Reason::Full).then(|| id(3));
        all.push((format!("answer-refused-{name}.frame"), Answer::Refused(Refused { reason, input_id })));
    }
    all
}

fn notes() -> Vec<Note> {
    vec![
        Note::Started {
            claude: process(12),
            shim: process(11),
            guard: process(10),
            boot_id: id(2),
            wall_ns: 1_700_000_000_000_000_000,
            boot_ns: 5_000,
            snd_buf: 425_984,
            epoch: 7,
        },
        Note::SpawnFailed { errno: 2, message: "No such file or directory".into() },
        Note::Input { input_id: id(3), offset: 0, len: 16, epoch: 7 },
        Note::StdinClosed { unsent: 3 },
        Note::Signal { target: SignalTarget::Tree, signo: 9, epoch: 7 },
        Note::MemoryLimit { bytes: 2, limit: 1 },
        Note::Degraded { since: 6_000, errno: 28 },
        Note::Recovered { stopped: true },
        Note::SyncFailed { segment: 1, errno: 5 },
        Note::Resized { rows: 24, cols: 80 },
        Note::Exit {
            code: Some(143),
            signal: None,
            tail_lost: true,
            tree: TreeProof::Empty,
            cause: ExitCause::Asked,
        },
        Note::Exit {
            code: None,
            signal: Some(9),
            tail_lost: false,
            tree: TreeProof::Unproven,
            cause: ExitCause::GuardLost,
        },
    ]
}

fn header() -> SegmentHeader {
    SegmentHeader {
        version: SEGMENT_VERSION,
        run: id(1),
        first_seq: 1,
        boot_id: id(2),
        wall_ns: 1_700_000_000_000_000_000,
        boot_ns: 5_000,
    }
}

/// All streams, all notes, an empty and a binary record.
fn segment() -> (Vec<u8>, Vec<usize>) {
    let mut out = header().encode().to_vec();
    let mut ends = Vec::new();
    let mut seq = 0;
    let mut add = |stream, offset, bytes: &[u8]| {
        seq += 1;
        encode_record(&mut out, seq, 5_000 + seq, stream, offset, bytes);
        ends.push(out.len() - SEGMENT_HEADER);
    };
    let mut offset = 0;
    for note in notes() {
        let bytes = note.encode();
        add(Stream::Shim, offset, &bytes);
        offset += bytes.len() as u64;
    }
    for stream in [Stream::In, Stream::Out, Stream::Err, Stream::Pty, Stream::File(0), Stream::File(239)] {
        add(stream, 0, b"line\n\0\xff half");
        add(stream, 12, b"");
    }
    (out, ends)
}

#[test]
fn commands_are_frozen() {
    for (name, command) in commands() {
        let mut bytes = Vec::new();
        command.encode(&mut bytes);
        committed(name, &bytes);
        let (frame, used) = split_frame(&bytes, MAX_COMMAND).unwrap().unwrap();
        assert_eq!((Command::decode(frame).unwrap(), used), (command, bytes.len()));
        for cut in 0..bytes.len() {
            assert!(split_frame(&bytes[..cut], MAX_COMMAND).unwrap().is_none(), "{name} cut at {cut}");
        }
    }
}

#[test]
fn answers_are_frozen() {
    let mut records = Vec::new();
    encode_record(&mut records, 1, 2, Stream::Out, 0, b"hello\n");
    for (name, answer) in answers(&records) {
        let mut bytes = Vec::new();
        answer.encode(&mut bytes);
        committed(&name, &bytes);
        let (frame, used) = split_frame(&bytes, MAX_RECORDS).unwrap().unwrap();
        assert_eq!((Answer::decode(frame).unwrap(), used), (answer, bytes.len()));
    }
}

#[test]
fn the_log_is_frozen() {
    let (bytes, ends) = segment();
    committed("segment.seg", &bytes);
    assert_eq!(SegmentHeader::decode(&bytes), Ok(header()));
    let records: Vec<_> = Records::expecting(&bytes[SEGMENT_HEADER..], 1).collect::<Result<_, _>>().unwrap();
    assert_eq!(records.len(), ends.len());
    let read: Vec<Note> =
        records.iter().filter(|r| r.stream == Stream::Shim).map(|r| Note::decode(r.bytes).unwrap()).collect();
    assert_eq!(read, notes());
}

#[test]
fn specs_and_files_are_frozen() {
    let spec = StartSpec {
        run_id: id(1),
        session_id: "s1".into(),
        run: 3,
        epoch: 7,
        argv: vec!["claude".into(), "-p".into()],
        env: [("HOME".to_owned(), "/h".to_owned())].into(),
        cwd: "/w".into(),
        wrapped: true,
        memory_bytes: Some(1 << 30),
        segment_bytes: None,
        pty: None,
        files: Vec::new(),
    };
    let meta = Meta {
        run_id: id(1),
        session_id: "s1".into(),
        run: 3,
        boot_id: id(2),
        guard: process(10),
        shim: process(11),
        claude: Some(process(12)),
        build: "0.1.0".into(),
    };
    let reaped = Reaped { boot_id: id(2), shim_code: None, shim_signal: Some(9), passes: 3 };
    let failed = Ready::Failed(StartError::Spawn { errno: 2, message: "no".into() });
    committed("spec.json", &serde_json::to_vec(&spec).unwrap());
    committed("meta.json", &serde_json::to_vec(&meta).unwrap());
    committed("reaped.json", &serde_json::to_vec(&reaped).unwrap());
    committed("ready-started.json", &serde_json::to_vec(&Ready::Started(meta)).unwrap());
    committed("ready-failed.json", &serde_json::to_vec(&failed).unwrap());
    let read: StartSpec =
        serde_json::from_slice(&std::fs::read(dir("fixtures/shim-v1/spec.json")).unwrap()).unwrap();
    assert_eq!(read, spec);
    assert_eq!(spec.check(), Ok(()));
}

fn rule() -> TailRule {
    TailRule {
        dir: "/h/.claude".into(),
        path: "projects/-w".into(),
        suffix: ".jsonl".into(),
        depth: 2,
        which: Which::All,
        how: How::Append,
        known: Default::default(),
        skip_existing: false,
    }
}

#[test]
fn what_terminals_added_is_frozen_too() {
    let text = std::fs::read(dir("fixtures/shim-v1/spec.json")).unwrap();
    let mut spec: StartSpec = serde_json::from_slice(&text).unwrap();
    spec.pty = Some(Pty { rows: 50, cols: 200 });
    spec.files = vec![
        TailRule { known: [("s1.jsonl".to_owned(), 42)].into(), skip_existing: true, ..rule() },
        TailRule { which: Which::Named(vec!["s1-is-the-id".into()]), ..rule() },
        TailRule {
            path: "sessions".into(),
            suffix: ".json".into(),
            depth: 0,
            which: Which::Pid,
            how: How::Snapshot,
            ..rule()
        },
    ];
    assert_eq!(spec.check(), Ok(()));
    let bytes = serde_json::to_vec(&spec).unwrap();
    committed("spec-terminal.json", &bytes);
    assert_eq!(serde_json::from_slice::<StartSpec>(&bytes).unwrap(), spec);
    // A rule needs no more than this.
    let least: TailRule = serde_json::from_str(r#"{"dir":"/d","suffix":".jsonl"}"#).unwrap();
    assert_eq!(least, TailRule { dir: "/d".into(), path: String::new(), depth: 0, ..rule() });

    let notes = [
        Note::File {
            stream: 3,
            file: 17,
            rule: 1,
            path: "s1/subagents/agent-1.jsonl".into(),
            at: 42,
            offset: 7,
        },
        Note::FileCut { rule: 1, path: "s1.jsonl".into(), at: 1 << 30 },
    ];
    let mut lines = Vec::new();
    for note in &notes {
        lines.extend_from_slice(&note.encode());
        lines.push(b'\n');
    }
    committed("notes-terminal.jsonl", &lines);
    let read: Vec<Note> =
        lines.split(|&b| b == b'\n').filter(|l| !l.is_empty()).map(|l| Note::decode(l).unwrap()).collect();
    assert_eq!(read, notes);
}

#[test]
fn what_a_spec_may_not_say() {
    let text = std::fs::read(dir("fixtures/shim-v1/spec.json")).unwrap();
    let good: StartSpec = serde_json::from_slice(&text).unwrap();
    let bad = |field: &str| SpecError::BadString { field: field.into() };
    let bad_tail = |rule: u64, field: &str| SpecError::BadTail { rule, field: field.into() };
    type Edit = fn(&mut StartSpec);
    let table: [(Edit, SpecError); 14] = [
        (|s| s.argv.clear(), SpecError::NoArgv),
        (|s| s.argv[0].clear(), SpecError::NoArgv),
        (|s| s.cwd = "w".into(), SpecError::RelativeCwd),
        (|s| s.argv[1].push('\0'), bad("argv")),
        (|s| drop(s.env.insert("A=B".into(), String::new())), bad("env")),
        (|s| drop(s.env.insert(String::new(), String::new())), bad("env")),
        (|s| s.segment_bytes = Some(1), SpecError::SegmentTooSmall),
        (|s| s.pty = Some(Pty { rows: 0, cols: 80 }), SpecError::PtySize),
        (|s| s.pty = Some(Pty { rows: 24, cols: 0 }), SpecError::PtySize),
        (|s| s.files.push(TailRule { dir: "h".into(), ..rule() }), bad_tail(0, "dir")),
        (|s| s.files.push(TailRule { path: "a/../b".into(), ..rule() }), bad_tail(0, "path")),
        (|s| s.files.push(TailRule { suffix: "/x".into(), ..rule() }), bad_tail(0, "suffix")),
        (|s| s.files.extend([rule(), TailRule { depth: 7, ..rule() }]), bad_tail(1, "depth")),
        (|s| s.files = vec![rule(); 9], bad_tail(8, "files")),
    ];
    for (index, (edit, want)) in table.into_iter().enumerate() {
        let mut spec = good.clone();
        edit(&mut spec);
        assert_eq!(spec.check(), Err(want), "{index}");
    }
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_at_the_last_whole_record() {
    let (bytes, ends) = segment();
    let body = &bytes[SEGMENT_HEADER..];
    let last = ends[ends.len() - 3];
    for cut in last..body.len() {
        let mut records = Records::expecting(&body[..cut], 1);
        let whole = ends.iter().filter(|&&end| end <= cut).count();
        let good = ends[whole - 1];
        assert_eq!(records.by_ref().take_while(Result::is_ok).count(), whole, "cut at {cut}");
        assert_eq!(records.good(), good);
        let end = Records::expecting(&body[..cut], 1).last().unwrap();
        match end {
            Ok(_) => assert_eq!(good, cut),
            Err(LogError::Torn { at, lost, .. }) => assert_eq!((at, lost), (good, cut - good)),
            Err(other) => panic!("{other} for a cut at {cut}"),
        }
        // Zeros after the cut, as a file system leaves them.
        let mut zeroed = body[..cut].to_vec();
        zeroed.resize(cut + 500, 0);
        match Records::expecting(&zeroed, 1).last() {
            // A record whose lost bytes were zeros is whole again.
            Some(Err(LogError::Torn { at, .. })) => {
                let whole = ends.iter().rfind(|&&end| zeroed.get(..end) == Some(&body[..end]));
                assert_eq!(Some(&at), whole);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn any_flipped_bit_before_the_last_record_is_damage() {
    let (bytes, ends) = segment();
    let body = &bytes[SEGMENT_HEADER..];
    let last = ends[ends.len() - 2];
    for at in 0..last {
        let mut flipped = body.to_vec();
        flipped[at] ^= 1 << (at % 8);
        let hit = ends.iter().position(|&end| at < end).unwrap();
        let start = hit.checked_sub(1).map_or(0, |i| ends[i]);
        match Records::expecting(&flipped, 1).last().unwrap() {
            Err(LogError::Damaged { at: damaged, resumes_at, .. }) => {
                assert_eq!((damaged, resumes_at), (start, ends[hit]), "bit at {at}");
            }
            other => panic!("{other:?} for a bit at {at}"),
        }
    }
}

#[test]
fn a_missing_record_is_a_gap() {
    let (bytes, ends) = segment();
    let mut body = bytes[SEGMENT_HEADER..].to_vec();
    body.drain(ends[0]..ends[1]);
    let last = Records::expecting(&body, 1).last().unwrap();
    assert_eq!(last, Err(LogError::Gap { at: ends[0], expected: 2, found: 3 }));
    assert_eq!(
        Records::expecting(&body, 5).last().unwrap(),
        Err(LogError::Gap { at: 0, expected: 5, found: 1 })
    );
}

#[test]
fn headers_that_are_none() {
    let good = header().encode();
    assert_eq!(SegmentHeader::decode(&good[..20]), Err(BadSegment::Short { have: 20 }));
    for at in 0..good.len() {
        let mut bad = good;
        bad[at] ^= 4;
        let want = if at < 8 { BadSegment::Magic } else { BadSegment::Checksum };
        assert_eq!(SegmentHeader::decode(&bad), Err(want), "{at}");
    }
    let newer = SegmentHeader { version: 2, ..header() }.encode();
    assert_eq!(SegmentHeader::decode(&newer), Err(BadSegment::Version { version: 2 }));
    assert_eq!(header().wall(5_000 + 7), 1_700_000_000_000_000_007);
    assert_eq!(header().wall(4_000), 1_699_999_999_999_999_000);
}

#[test]
fn versions_meet_at_the_highest_common() {
    let table: [(&[u32], &[u32], Option<u32>); 5] = [
        (&[1], &[1], Some(1)),
        (&[1, 2], &[2, 3], Some(2)),
        (&[3, 1, 2], &[1, 2], Some(2)),
        (&[1], &[2, 3], None),
        (&[], &[1], None),
    ];
    for (a, b, want) in table {
        assert_eq!(highest_common(a, b), want, "{a:?} {b:?}");
    }
}

#[test]
fn frames_over_the_limit_are_refused_before_they_come() {
    let header = [0xff, 0xff, 0xff, 0x7f, 4];
    assert!(matches!(split_frame(&header, MAX_COMMAND), Err(FrameError::TooLong { .. })));
    let (frame, _) = split_frame(&[0, 0, 0, 0, 77], MAX_COMMAND).unwrap().unwrap();
    assert!(matches!(Command::decode(frame), Err(FrameError::Unknown { kind: 77 })));
    assert!(matches!(Answer::decode(frame), Err(FrameError::Unknown { kind: 77 })));
}

#[test]
fn parts_are_the_message() {
    for len in [0, 1, WRITE_PART, WRITE_PART + 1, 3 * WRITE_PART] {
        let message: Vec<u8> = (0..len).map(|i| i as u8).collect();
        let mut whole = Vec::new();
        let parts: Vec<_> = write_parts(id(9), &message).collect();
        for (index, part) in parts.iter().enumerate() {
            let Command::Write { input_id, part, last, bytes } = part else { panic!("{part:?}") };
            assert_eq!((*input_id, *part as usize, *last), (id(9), index, index + 1 == parts.len()));
            whole.extend_from_slice(bytes);
        }
        assert_eq!(whole, message);
    }
}

#[test]
fn the_corpora_pass() {
    for (name, run) in [("frames", fuzz_frames as fn(&[u8])), ("records", fuzz_records)] {
        let mut seen = 0;
        for entry in std::fs::read_dir(dir("fuzz/corpus").join(name)).unwrap() {
            run(&std::fs::read(entry.unwrap().path()).unwrap());
            seen += 1;
        }
        assert!(seen >= 5, "{name}: {seen}");
    }
    for entry in std::fs::read_dir(dir("fixtures/shim-v1")).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        fuzz_frames(&bytes);
        fuzz_records(&bytes);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
        fuzz_frames(&bytes);
        fuzz_records(&bytes);
    }

    #[test]
    fn any_damage_to_a_log_is_survived(at in 0usize..2000, byte in any::<u8>(), cut in 0usize..2500) {
        let (mut bytes, _) = segment();
        let at = at % bytes.len();
        bytes[at] = byte;
        bytes.truncate(bytes.len().saturating_sub(cut).max(1));
        fuzz_records(&bytes);
    }

    #[test]
    fn records_come_back(payload in prop::collection::vec(any::<u8>(), 0..MAX_RECORD), seq: u64, at: u64, offset: u64) {
        let mut bytes = Vec::new();
        encode_record(&mut bytes, seq, at, Stream::Out, offset, &payload);
        let (record, used) = split_record(&bytes).unwrap();
        prop_assert_eq!(used, bytes.len());
        prop_assert_eq!(record, Record { seq, at, stream: Stream::Out, offset, bytes: &payload });
    }
}
