//! Tailed files: every byte once, in a stream of its own, with nobody else alive; what rules admit and refuse.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use castra_proto::shim::{
    Command as Say, How, MAX_RECORD, Note, SignalTarget, SpecError, StartError, StartSpec, Stream, TailRule,
    Which,
};
use common::{DEADLINE, Owned, Run, Tmpfs, check_offsets, exit_of, notes_of, sh, start_raw, until};

const END: Say<'static> = Say::Signal { target: SignalTarget::Tree, signo: 0 };

/// `*.jsonl` two levels below `projects/-w` of the session's configuration.
fn transcripts(dir: &Path) -> TailRule {
    TailRule {
        dir: dir.to_string_lossy().into_owned(),
        path: "projects/-w".into(),
        suffix: ".jsonl".into(),
        depth: 2,
        which: Which::All,
        how: How::Append,
        known: BTreeMap::new(),
        skip_existing: false,
    }
}

fn states(dir: &Path, which: Which) -> TailRule {
    TailRule {
        path: "sessions".into(),
        suffix: ".json".into(),
        depth: 0,
        which,
        how: How::Snapshot,
        ..transcripts(dir)
    }
}

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Home {
        Home(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// A script that runs in the home, with these rules.
    fn spec(&self, script: &str, files: Vec<TailRule>) -> StartSpec {
        StartSpec { cwd: self.path().to_string_lossy().into_owned(), files, ..sh(script) }
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

/// A tailed content as a reader pieces it together.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Content {
    rule: u8,
    path: String,
    /// Where in the file it begins.
    from: u64,
    /// Records, in order.
    pieces: Vec<Vec<u8>>,
}

impl Content {
    fn text(&self) -> String {
        String::from_utf8(self.pieces.concat()).unwrap()
    }
}

/// By the `file` notes alone, as a daemon does.
fn contents(records: &[Owned]) -> Vec<Content> {
    check_offsets(records);
    let mut streams: BTreeMap<u8, u32> = BTreeMap::new();
    let mut found: BTreeMap<u32, Content> = BTreeMap::new();
    let mut sizes: BTreeMap<u8, u64> = BTreeMap::new();
    for record in records {
        match record.stream {
            Stream::Shim => {
                if let Ok(Note::File { stream, file, rule, path, at, offset }) = Note::decode(&record.bytes) {
                    assert_eq!(offset, sizes.get(&stream).copied().unwrap_or(0));
                    streams.insert(stream, file);
                    let content = found.entry(file).or_insert_with(|| Content {
                        rule,
                        path: path.clone(),
                        from: at,
                        pieces: Vec::new(),
                    });
                    assert_eq!((content.rule, &content.path), (rule, &path));
                    let have = content.pieces.concat().len() as u64;
                    assert!(at == content.from + have || at == 0, "{path} goes on at {at} after {have}");
                }
            }
            Stream::File(n) => {
                found.get_mut(&streams[&n]).unwrap().pieces.push(record.bytes.clone());
                *sizes.entry(n).or_default() += record.bytes.len() as u64;
            }
            _ => (),
        }
    }
    found.into_values().collect()
}

/// Path and text of each.
fn texts(records: &[Owned]) -> Vec<(String, String)> {
    contents(records).into_iter().map(|c| (c.path.clone(), c.text())).collect()
}

fn pair(path: &str, text: &str) -> (String, String) {
    (path.to_owned(), text.to_owned())
}

#[test]
fn folders_and_files_that_come_later_are_followed_with_nobody_there() {
    let home = Home::new();
    let script = "mkdir -p projects/-w; printf 'one\\ntw' > projects/-w/a.jsonl; sleep 0.1
                  printf 'o\\n' >> projects/-w/a.jsonl; mkdir -p projects/-w/a/subagents
                  echo sub > projects/-w/a/subagents/agent-1.jsonl; echo no > projects/-w/notes.txt
                  mkdir -p projects/-other; echo no > projects/-other/b.jsonl
                  echo cleared > projects/-w/c.jsonl";
    let run = Run::start(home.spec(script, vec![transcripts(home.path())]));
    until("claude is gone", DEADLINE, || (!common::alive(run.meta.claude.unwrap())).then_some(()));
    let mut found = texts(&run.finish());
    found.sort();
    assert_eq!(
        found,
        [
            pair("a.jsonl", "one\ntwo\n"),
            pair("a/subagents/agent-1.jsonl", "sub\n"),
            pair("c.jsonl", "cleared\n")
        ]
    );
}

#[test]
fn what_is_appended_is_there_before_anything_ends() {
    let home = Home::new();
    let run = Run::start(home.spec(
        "mkdir -p projects/-w; for i in 1 2 3; do read go; echo line $i >> projects/-w/a.jsonl; done; read go",
        vec![transcripts(home.path())],
    ));
    let mut client = run.join();
    let mut seen = Vec::new();
    for round in 1..=3 {
        client.write(uuid::Uuid::new_v4(), b"\n");
        let from = seen.last().map_or(1, |r: &Owned| r.seq + 1);
        seen.extend(run.join().follow_until(from, |r| r.stream == Stream::File(0)));
        assert_eq!(contents(&seen)[0].pieces.last().unwrap(), format!("line {round}\n").as_bytes());
    }
    client.say(END);
    run.finish();
}

#[test]
fn a_resumed_file_goes_on_where_it_was_told_to() {
    for (skip_existing, old) in [(true, vec![]), (false, vec![pair("other.jsonl", "old\n")])] {
        let home = Home::new();
        home.put("projects/-w/a.jsonl", "known\nnot known\n");
        home.put("projects/-w/other.jsonl", "old\n");
        home.put("projects/-w/shorter.jsonl", "anew\n");
        let rule = TailRule {
            known: [("a.jsonl".into(), 6), ("shorter.jsonl".into(), 1000), ("none.jsonl".into(), 3)].into(),
            skip_existing,
            ..transcripts(home.path())
        };
        let script = "echo more >> projects/-w/a.jsonl; echo whole > projects/-w/none.jsonl";
        let records = Run::start(home.spec(script, vec![rule])).finish();
        let mut want = vec![
            pair("a.jsonl", "not known\nmore\n"),
            pair("none.jsonl", "whole\n"),
            // Not the file that was known: it is too short.
            pair("shorter.jsonl", "anew\n"),
        ];
        want.extend(old);
        want.sort();
        let mut found = texts(&records);
        found.sort();
        assert_eq!(found, want);
        let a = contents(&records).into_iter().find(|c| c.path == "a.jsonl").unwrap();
        assert_eq!(a.from, 6);
    }
}

#[test]
fn a_file_that_is_cut_short_or_replaced_is_another_one() {
    let home = Home::new();
    let script = "read go; echo first > projects/-w/a.jsonl; read go; echo 2 > projects/-w/a.jsonl; read go
                  echo third one, longer > new; mv new projects/-w/a.jsonl; read go
                  rm projects/-w/a.jsonl; echo fourth one, longer still > projects/-w/a.jsonl; read go
                  echo and more >> projects/-w/a.jsonl; read go";
    home.put("projects/-w/.keep", "");
    let run = Run::start(home.spec(script, vec![transcripts(home.path())]));
    let mut seen: Vec<Owned> = Vec::new();
    for end in ["first\n", "2\n", "third one, longer\n", "fourth one, longer still\n", "and more\n"] {
        run.join().write(uuid::Uuid::new_v4(), b"\n");
        let from = seen.last().map_or(1, |r| r.seq + 1);
        seen.extend(run.join().follow_until(from, |r| {
            matches!(r.stream, Stream::File(_)) && r.bytes.ends_with(end.as_bytes())
        }));
    }
    run.join().say(END);
    let texts: Vec<String> = contents(&run.finish()).iter().map(Content::text).collect();
    let want = ["first\n", "2\n", "third one, longer\n", "fourth one, longer still\nand more\n"];
    assert_eq!(texts, want);
}

#[test]
fn only_what_the_state_file_of_this_run_names() {
    let home = Home::new();
    // A stranger's claude, an earlier one of our own session, and a stale file that bears claude's number.
    home.put("projects/-w/other-session.jsonl", "theirs\n");
    home.put("projects/-w/told-session.jsonl", "told\n");
    home.put("sessions/1.json", r#"{"sessionId":"other-session"}"#);
    let script = "mkdir -p projects/-w/live-session/subagents projects/-w/other-session/subagents
        echo early > projects/-w/live-session.jsonl; echo sub > projects/-w/live-session/subagents/agent.jsonl
        echo theirs > projects/-w/other-session/subagents/agent.jsonl; echo theirs >> projects/-w/other-session.jsonl
        read go; echo '{\"sessionId\":\"live-session\",\"status\":\"idle\"}' > sessions/$$.json
        read go; echo '{\"sessionId\":\"next-session\",\"status\":\"busy\"}' > sessions/$$.json
        read go; echo next > projects/-w/next-session.jsonl; rm sessions/$$.json";
    let named = Which::Named(vec!["told-session".into()]);
    let rules = vec![states(home.path(), Which::Pid), TailRule { which: named, ..transcripts(home.path()) }];
    let run = Run::start(home.spec(script, rules));
    let state = format!("{}.json", run.meta.claude.unwrap().pid);
    let mut client = run.join();
    for snapshots in 1..=2 {
        client.write(uuid::Uuid::new_v4(), b"\n");
        let count =
            |log: &[Owned]| contents(log).iter().find(|c| c.path == state).map_or(0, |c| c.pieces.len());
        until("the state file is seen", DEADLINE, || (count(&run.log()) == snapshots).then_some(()));
    }
    client.write(uuid::Uuid::new_v4(), b"\n");
    let records = run.finish();
    let mut found = contents(&records);
    let state = found.remove(found.iter().position(|c| c.path == state).unwrap());
    let snapshots: Vec<String> = state.pieces.iter().map(|p| String::from_utf8(p.clone()).unwrap()).collect();
    assert_eq!(
        snapshots,
        [
            "{\"sessionId\":\"live-session\",\"status\":\"idle\"}\n",
            "{\"sessionId\":\"next-session\",\"status\":\"busy\"}\n",
            ""
        ]
    );
    let mut found: Vec<_> = found.iter().map(|c| (c.path.clone(), c.text())).collect();
    found.sort();
    assert_eq!(
        found,
        [
            pair("live-session.jsonl", "early\n"),
            pair("live-session/subagents/agent.jsonl", "sub\n"),
            pair("next-session.jsonl", "next\n"),
            pair("told-session.jsonl", "told\n"),
        ]
    );
}

#[test]
fn a_stale_state_file_with_claudes_number_is_nobodys_word() {
    let home = Home::new();
    home.put("projects/-w/stale-session.jsonl", "stale\n");
    // Whatever number claude gets, a file of that name is there before it.
    let first = std::process::id();
    fs::create_dir(home.path().join("sessions")).unwrap();
    let mut spec = home.spec("read go; sleep 0.1", vec![]);
    spec.files = vec![
        states(home.path(), Which::Pid),
        TailRule { which: Which::Named(Vec::new()), ..transcripts(home.path()) },
    ];
    for pid in first..first + 3000 {
        home.put(&format!("sessions/{pid}.json"), "{\"sessionId\":\"stale-session\"}");
    }
    let run = Run::start(spec);
    let number = run.meta.claude.unwrap().pid as u32;
    run.join().write(uuid::Uuid::new_v4(), b"\n");
    let records = run.finish();
    // Numbers start over at some point; then this proves nothing, and the next run of the test does.
    assert!((first..first + 3000).contains(&number) || number < first, "{number} after {first}");
    assert_eq!(contents(&records), []);
}

#[test]
fn no_link_is_followed_and_no_pipe_waits() {
    let home = Home::new();
    let outside = Home::new();
    outside.put("secret.jsonl", "secret\n");
    outside.put("projects/-w/secret.jsonl", "secret\n");
    let out = outside.path().display();
    let script = format!(
        "mkdir -p projects/-w; ln -s {out}/secret.jsonl projects/-w/link.jsonl; ln -s {out} projects/-w/dir
         mkfifo projects/-w/pipe.jsonl; echo real > projects/-w/real.jsonl; mkdir projects/-w/dir.jsonl
         ln -s {out}/projects projects/-w/sub"
    );
    let records = Run::start(home.spec(&script, vec![transcripts(home.path())])).finish();
    assert_eq!(texts(&records), [pair("real.jsonl", "real\n")]);
    // Not on the way to the rule's path either.
    let home = Home::new();
    std::os::unix::fs::symlink(outside.path().join("projects"), home.path().join("projects")).unwrap();
    let records =
        Run::start(home.spec("echo x >> projects/-w/secret.jsonl", vec![transcripts(home.path())])).finish();
    assert_eq!(contents(&records), []);
}

#[test]
fn long_files_are_whole_and_records_bounded() {
    let home = Home::new();
    let script =
        "mkdir -p projects/-w; i=0; while [ $i -lt 40 ]; do head -c 100000 /dev/urandom | base64 -w 0
                  i=$((i+1)); done | tee copy >> projects/-w/a.jsonl";
    let run = Run::start(home.spec(script, vec![transcripts(home.path())]));
    let records = run.finish();
    let found = contents(&records);
    assert!(found[0].pieces.iter().all(|p| p.len() <= MAX_RECORD));
    assert_eq!(found[0].pieces.concat(), fs::read(home.path().join("copy")).unwrap());
    assert_eq!(run.log(), records);
}

#[test]
fn more_files_than_streams() {
    let home = Home::new();
    let script = "mkdir -p projects/-w; for round in 1 2; do i=0; while [ $i -lt 300 ]; do
                  echo $round $i >> projects/-w/$i.jsonl; i=$((i+1)); done; done";
    let records = Run::start(home.spec(script, vec![transcripts(home.path())])).finish();
    let mut found = texts(&records);
    found.sort_by_key(|(path, _)| path.trim_end_matches(".jsonl").parse::<u32>().unwrap());
    let want: Vec<_> = (0..300).map(|i| (format!("{i}.jsonl"), format!("1 {i}\n2 {i}\n"))).collect();
    assert_eq!(found, want);
}

#[test]
fn a_file_that_is_long_for_nothing_is_cut() {
    let home = Home::new();
    let script = "mkdir -p projects/-w; truncate -s 1100M projects/-w/a.jsonl; echo b > projects/-w/b.jsonl";
    let Some(_room) = (rustix::fs::statvfs("/tmp").ok()).filter(|s| s.f_bavail * s.f_frsize > 3 << 30) else {
        return;
    };
    let rule = TailRule { known: BTreeMap::new(), ..transcripts(home.path()) };
    // All but the end of it is known, so that the test does not write a gigabyte.
    home.put("projects/-w/a.jsonl", "");
    fs::File::create(home.path().join("projects/-w/a.jsonl")).unwrap().set_len((1 << 30) - 100_000).unwrap();
    let rule = TailRule { skip_existing: true, ..rule };
    let run = Run::start(home.spec(script, vec![rule]));
    let records = run.finish();
    let cuts: Vec<Note> =
        notes_of(&records).into_iter().filter(|n| matches!(n, Note::FileCut { .. })).collect();
    let [Note::FileCut { rule: 0, path, at }] = &cuts[..] else { panic!("{cuts:?}") };
    assert_eq!(path, "a.jsonl");
    assert!((1 << 30..(1 << 30) + MAX_RECORD as u64).contains(at), "{at}");
    assert!(texts(&records).contains(&pair("b.jsonl", "b\n")));
}

#[test]
fn a_full_disk_loses_nothing_of_a_file() {
    let Some(disk) = Tmpfs::new(4 << 20) else {
        assert!(!rustix::process::geteuid().is_root(), "root can mount, unless in a container");
        return;
    };
    let home = Home::new();
    let ballast = disk.0.path().join("ballast");
    fs::write(&ballast, vec![0; 3 << 20]).unwrap();
    let spec = home.spec(
        "mkdir -p projects/-w; head -c 2400000 /dev/urandom | base64 -w 99 | tee copy > projects/-w/a.jsonl
         echo b > projects/-w/b.jsonl; read go",
        vec![transcripts(home.path())],
    );
    let dir = disk.0.path().join("run");
    fs::create_dir(&dir).unwrap();
    let run = Run::start_in(&dir, spec, &[]);
    let mut client = run.join();
    until("it is degraded", DEADLINE, || client.status().degraded.map(|_| ()));
    fs::remove_file(&ballast).unwrap();
    until("it goes on", DEADLINE, || client.status().degraded.is_none().then_some(()));
    client.write(uuid::Uuid::new_v4(), b"\n");
    let records = run.finish();
    let found = texts(&records);
    assert!(found.contains(&pair("b.jsonl", "b\n")));
    let copy = fs::read_to_string(home.path().join("copy")).unwrap();
    assert!(found.contains(&pair("a.jsonl", &copy)), "a.jsonl is whole");
    assert_eq!(exit_of(&records).0, Some(0));
}

#[test]
fn an_idle_tail_is_asleep() {
    let home = Home::new();
    let run =
        Run::start(home.spec(
            "mkdir -p projects/-w; echo x > projects/-w/a.jsonl; read go",
            vec![transcripts(home.path())],
        ));
    run.join().follow_until(1, |r| r.stream == Stream::File(0));
    let switches = || {
        let status = fs::read_to_string(format!("/proc/{}/status", run.shim())).unwrap();
        let line = status.lines().find(|l| l.starts_with("voluntary_ctxt_switches")).unwrap();
        line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    // What was told of our own reads has been dealt with: two looks a while apart agree but for the
    // collection of orphans, once in five seconds.
    until("it sleeps", DEADLINE, || {
        let before = switches();
        std::thread::sleep(std::time::Duration::from_millis(300));
        (switches() - before <= 1).then_some(())
    });
    run.join().say(END);
    run.finish();
}

#[test]
fn rules_that_cannot_be_are_refused_at_the_start() {
    let home = Home::new();
    let temp = tempfile::tempdir().unwrap();
    let refused = |name: &str, rule: TailRule| {
        let dir = temp.path().join(name);
        fs::create_dir(&dir).unwrap();
        start_raw(&dir, &home.spec("true", vec![rule]), &[]).unwrap_err()
    };
    let outside = TailRule { path: "../x".into(), ..transcripts(home.path()) };
    let want = SpecError::BadTail { rule: 0, field: "path".into() };
    assert_eq!(refused("outside", outside), StartError::Spec(want));
    match refused("missing", transcripts(Path::new("/nowhere"))) {
        StartError::Io { what, errno: libc::ENOENT, .. } => assert_eq!(what, "tailed directory"),
        other => panic!("{other:?}"),
    }
}
