//! Recorded terminal sessions of both CLIs: what they come to as events, and that decoding may start anew anywhere.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use castra_claude::fact::{Fact, SessionState};
use castra_claude::line::{RecordIn, StreamIn};
use castra_claude::tail::{PATIENCE, Source, Tail, Told};
use castra_claude::terminal::screen::{DialogKind, Screen, permission_mode, screen};
use castra_claude::terminal::signal::State;
use castra_proto::Timestamp;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const VERSIONS: [&str; 2] = ["2.1.197", "2.1.329"];

fn folder(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(version).join("tui")
}

fn files(version: &str, ending: &str) -> Vec<(String, String)> {
    let entries = std::fs::read_dir(folder(version)).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<(String, String)> = entries
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().replace(ending, "");
            (name, std::fs::read_to_string(&path).unwrap())
        })
        .collect();
    files.sort();
    assert!(files.len() >= 25, "{} files of {ending}", files.len());
    files
}

/// One record of a log, as the daemon feeds it.
#[derive(Clone, Debug)]
enum Step {
    Record(RecordIn),
    State(u64, u64, State),
    /// The run ended, and another follows, which began then.
    Run(u64, u64, Timestamp),
}

/// The timeline as records, cut into pieces of at most `size` bytes; with the tick that the daemon makes.
fn steps(timeline: &str, size: usize) -> Vec<Step> {
    let mut numbers: BTreeMap<String, u8> = BTreeMap::new();
    let (mut steps, mut seq, mut last) = (Vec::new(), 0, 0);
    let mut rest = timeline.lines();
    while let Some(line) = rest.next() {
        let entry: Value = serde_json::from_str(line).unwrap();
        let at = (entry["at"].as_f64().unwrap() * 1e9) as u64;
        last = at;
        seq += 1;
        if let Some(text) = entry["text"].as_str().filter(|_| entry["file"].is_string()) {
            let next = numbers.len() as u8;
            let number = *numbers.entry(entry["file"].as_str().unwrap().to_owned()).or_insert(next);
            let offset = entry["offset"].as_u64().unwrap();
            for (part, bytes) in text.as_bytes().chunks(size).enumerate() {
                let bytes = Bytes::copy_from_slice(bytes);
                let offset = offset + (part * size) as u64;
                steps.push(Step::Record(RecordIn { seq, at, stream: StreamIn::File(number), offset, bytes }));
                seq += 1;
            }
        } else if entry["state"].is_object() {
            let state = State::parse(entry["state"].to_string().as_bytes()).unwrap();
            steps.push(Step::State(seq, at, state));
        } else if entry["run"].is_array() {
            let started = rest.clone().find_map(|line| {
                let entry: Value = serde_json::from_str(line).unwrap();
                State::parse(entry["state"].to_string().as_bytes())?.started_ms
            });
            steps.push(Step::Run(seq, at, Timestamp(started.unwrap() as i64 * 1000)));
        } else {
            // Bytes of the terminal.
            let record = RecordIn { seq, at, stream: StreamIn::Shim, offset: 0, bytes: Bytes::new() };
            steps.push(Step::Record(record));
        }
    }
    let record = RecordIn {
        seq: seq + 1,
        at: last + PATIENCE,
        stream: StreamIn::Shim,
        offset: 0,
        bytes: Bytes::new(),
    };
    steps.push(Step::Record(record));
    steps
}

fn seq(step: &Step) -> u64 {
    match step {
        Step::Record(record) => record.seq,
        Step::State(seq, ..) | Step::Run(seq, ..) => *seq,
    }
}

fn feed(tail: &mut Tail, step: &Step, out: &mut Vec<Told>) {
    match step {
        Step::Record(record) => tail.step(record, out),
        Step::State(seq, at, state) => tail.state(*seq, *at, state, out),
        Step::Run(seq, at, started) => {
            tail.finish(*seq, *at, out);
            *tail = Tail::new();
            tail.since(*started);
        }
    }
}

fn decode(timeline: &str, size: usize) -> Vec<Told> {
    let mut tail = Tail::new();
    let mut out = Vec::new();
    steps(timeline, size).iter().for_each(|step| feed(&mut tail, step, &mut out));
    tail.finish(u64::MAX, u64::MAX, &mut out);
    assert_eq!((tail.hold(), tail.due()), (None, None), "all is told, and nothing waits");
    out
}

/// The events in short: who spoke, what came of it.
fn projection(told: &[Told]) -> Vec<String> {
    let say = |told: &Told| {
        let value: Value = serde_json::from_slice(&told.line.data).ok()?;
        let side = if value["isSidechain"] == true { "agent " } else { "" };
        let content = &value["message"]["content"];
        let first = content.get(0).and_then(|block| block["type"].as_str()).unwrap_or("words");
        Some(match (&told.line.fact, &told.prompt) {
            (Fact::SessionState(SessionState::Idle), _) => "idle".to_owned(),
            (Fact::SessionState(SessionState::Running), _) => "running".to_owned(),
            (Fact::SessionState(SessionState::RequiresAction), _) => "requires_action".to_owned(),
            (Fact::Result(result), _) => {
                let status = result.api_error_status.map(|status| format!(" {status}")).unwrap_or_default();
                let reason = result.terminal_reason.as_deref().unwrap_or_default();
                let text = result.text.as_deref().unwrap_or_default();
                let text: String = text.chars().take(24).collect();
                format!("result {} {reason}{status} {} {text:?}", result.subtype, result.ok)
            }
            (_, Some(prompt)) if prompt.source != Source::System => {
                let text: String = prompt.text.chars().take(24).collect();
                format!("{:?} {text:?}", prompt.source).to_lowercase()
            }
            (_, Some(_)) => "task".to_owned(),
            (Fact::Assistant(_), None) => format!("{side}assistant {first}"),
            (Fact::User(user), None) if user.interrupted => "interrupted".to_owned(),
            (Fact::User(_), None) => format!("{side}user {first}"),
            _ => told.line.kind.as_str().to_owned() + " " + value["subtype"].as_str().unwrap_or_default(),
        })
    };
    told.iter().filter_map(say).collect()
}

/// The screen in short.
fn look(text: &str) -> String {
    // The first line is the window's title.
    let (title, rows) = text.split_once('\n').unwrap();
    let rows: Vec<&str> = rows.lines().collect();
    match screen(&rows, title) {
        Screen::Prompt(composer) => format!("prompt {:?} {}", composer.text, composer.shell),
        Screen::Busy(composer) => format!("busy {:?}", composer.text),
        Screen::Dialog(dialog) => {
            let selected = dialog.options.iter().find(|option| option.selected).map(|option| option.number);
            let kind = match dialog.kind {
                DialogKind::Permission => "permission",
                DialogKind::Question => "question",
                DialogKind::Plan => "plan",
                DialogKind::SwitchModel => "switch",
            };
            format!("{kind} {:?} {:?} {} {selected:?}", dialog.title, dialog.question, dialog.options.len())
        }
        Screen::FirstRun(first) => format!("first {first:?}").to_lowercase(),
        Screen::Unknown => "unknown".to_owned(),
    }
}

/// `(scenario.screen, what it is in 2.1.197, and in 2.1.329 where that differs)`; the others are empty prompts.
const SCREENS: [(&str, &str, &str); 22] = [
    ("switch_model.dialog", SWITCH, SWITCH_NOW),
    ("first.trust", "first trust", ""),
    ("first.api_key", "first apikey", ""),
    ("first.bypass", "first bypass", ""),
    ("first.welcome", "first welcome", ""),
    ("esc_stream.busy", "busy \"\"", ""),
    ("esc_early.busy", "busy \"\"", ""),
    ("esc_tool.busy", "busy \"\"", ""),
    ("esc_early.interrupted", "prompt \"take a moment\" false", ""),
    ("queued.queued", "busy \"the third\"", ""),
    ("shell.mode", "prompt \"\" true", ""),
    ("slash.cost", "unknown", ""),
    ("plan.dialog", "plan \"Exit plan mode?\" \"Claude wants to exit plan mode\" 2 Some(1)", ""),
    ("question.dialog", "question \"☐ Choice\" \"Which?\" 4 Some(1)", ""),
    ("tool_write.dialog", "permission \"Create file\" \"Do you want to create a.txt?\" 3 Some(1)", ""),
    ("tool_allow.dialog", BASH_3, BASH_4),
    ("two_tools.dialog", BASH_3, BASH_4),
    (
        "tool_deny_message.amend",
        "permission \"Bash command\" \"Do you want to proceed?\" 3 Some(3)",
        AMENDED_4,
    ),
    (
        "tool_deny_message.amended",
        "permission \"Bash command\" \"Do you want to proceed?\" 3 Some(3)",
        AMENDED_4,
    ),
    ("plain.prompt", "prompt \"\" false", ""),
    ("first.fullscreen_prompt", "prompt \"\" false", ""),
    ("first.fullscreen_answered", "prompt \"\" false", ""),
];
const SWITCH: &str = "switch \"Switch model?\" \"gets re-read on your next message.\" 2 Some(1)";
const SWITCH_NOW: &str = "switch \"Switch model?\" \"gets re-read.\" 2 Some(1)";
const BASH_3: &str = "permission \"Bash command\" \"Do you want to proceed?\" 3 Some(1)";
const BASH_4: &str = "permission \"Bash command\" \"Do you want to proceed?\" 4 Some(1)";
const AMENDED_4: &str = "permission \"Bash command\" \"Do you want to proceed?\" 4 Some(4)";

#[test]
fn recorded_screens_are_what_they_were() {
    for version in VERSIONS {
        let files = files(version, ".txt");
        for (name, text) in &files {
            let known = SCREENS.iter().find(|(screen, ..)| screen == name);
            let expected = match known {
                Some((_, _, other)) if version == VERSIONS[1] && !other.is_empty() => *other,
                Some((_, expected, _)) => *expected,
                None => "prompt \"\" false",
            };
            assert_eq!(look(text), expected, "{version} {name}");
        }
        for (name, ..) in SCREENS {
            assert!(files.iter().any(|(file, _)| file == name), "{version} {name} is not there");
        }
    }
}

#[test]
fn the_footer_tells_the_permission_mode() {
    use castra_proto::spec::PermissionMode::{AcceptEdits, Auto, BypassPermissions, Default, Plan};
    for (name, mode) in [
        ("plain.prompt", Some(Default)),
        ("modes.mode0", Some(AcceptEdits)),
        ("modes.mode1", Some(Plan)),
        ("modes.mode2", Some(Auto)),
        ("modes.mode3", Some(Default)),
        ("plan.prompt", Some(Plan)),
        ("bypass.prompt", Some(BypassPermissions)),
        ("tool_allow.dialog", None),
    ] {
        for version in VERSIONS {
            let text = std::fs::read_to_string(folder(version).join(format!("{name}.txt"))).unwrap();
            let rows: Vec<&str> = text.lines().skip(1).collect();
            assert_eq!(permission_mode(&rows), mode, "{version} {name}");
        }
    }
}

const ANSWERED: [&str; 4] =
    ["assistant text", "system turn_duration", "result success completed true", "idle"];

/// The turns of a scenario: each its prompt, and how its result begins.
fn turns(version: &str, name: &str) -> Vec<(String, String)> {
    let timeline = std::fs::read_to_string(folder(version).join(format!("{name}.jsonl"))).unwrap();
    let mut turns = Vec::new();
    let mut prompt = String::new();
    for line in projection(&decode(&timeline, 1 << 16)) {
        if let Some(result) = line.strip_prefix("result ") {
            turns.push((std::mem::take(&mut prompt), result.to_owned()));
        } else if ["typed ", "queued ", "task", "shell "].iter().any(|source| line.starts_with(source)) {
            prompt = line;
        }
    }
    turns
}

#[test]
fn recorded_turns_come_to_what_they_came_to() {
    const OK: &str = "success completed true";
    const CUT: &str = "error_during_execution aborted_streaming false";
    const CUT_TOOL: &str = "error_during_execution aborted_tools false";
    const STORY: (&str, &str) = ("typed \"tell a story\"", OK);
    for (name, expected) in [
        ("plain", vec![STORY, ("typed \"another prompt\"", OK)]),
        ("tool_allow", vec![("typed \"make the file a.txt\"", OK)]),
        ("tool_deny", vec![("typed \"make the file a.txt\"", CUT_TOOL), ("typed \"go on\"", OK)]),
        ("tool_deny_message", vec![("typed \"make the file a.txt\"", OK)]),
        ("two_tools", vec![("typed \"make both files\"", OK)]),
        ("esc_early", vec![("typed \"take a moment\"", CUT), STORY]),
        ("esc_stream", vec![("typed \"count slowly\"", CUT), STORY]),
        ("esc_tool", vec![("typed \"sleep for 20\"", CUT_TOOL), STORY]),
        ("error_400", vec![("typed \"fail with 400\"", "success completed 400 false"), STORY]),
        ("error_401", vec![("typed \"fail with 401\"", "success completed 401 false"), STORY]),
        ("error_529", vec![("typed \"fail with 529\"", "success completed 529 false"), STORY]),
        ("max_tokens", vec![("typed \"run out of tokens\"", OK), STORY]),
        ("thinking", vec![("typed \"think first\"", "success completed true \"I thought.\""), STORY]),
        (
            "queued",
            vec![
                ("typed \"count slowly\"", OK),
                ("queued \"tell a story\"", OK),
                ("queued \"the third\"", OK),
                ("typed \"the last\"", OK),
            ],
        ),
        ("joined", vec![("typed \"sleep for 4\"", OK), ("typed \"the last\"", OK)]),
        ("background", vec![("typed \"start it in the backgrou\"", OK), ("task", OK), STORY]),
        ("clear", vec![STORY, ("typed \"another prompt\"", OK)]),
        ("question", vec![("typed \"ask me\"", OK)]),
        ("plan", vec![("typed \"plan it\"", CUT_TOOL), STORY]),
        ("switch_model", vec![STORY, ("typed \"another prompt\"", OK)]),
        ("bypass", vec![("typed \"make the file a.txt\"", OK)]),
        (
            "resume",
            vec![
                STORY,
                ("typed \"another prompt\"", OK),
                ("typed \"after the resume\"", OK),
                ("typed \"after the fork\"", OK),
            ],
        ),
        ("killed", vec![STORY, ("typed \"sleep for 20\"", CUT_TOOL), ("typed \"after the kill\"", OK)]),
    ] {
        for version in VERSIONS {
            let turns = turns(version, name);
            assert_eq!(turns.len(), expected.len(), "{version} {name}: {turns:#?}");
            for ((prompt, result), (said, came)) in turns.iter().zip(&expected) {
                assert!(prompt == said && result.starts_with(came), "{version} {name}: {prompt} {result}");
            }
        }
    }
    // 2.1.197 refuses; 2.1.329 has the model try once more, in the same turn.
    assert!(turns("2.1.197", "refusal")[0].1.starts_with("success completed false"));
    assert!(turns("2.1.329", "refusal")[0].1.starts_with(OK));
    // An agent of 2.1.329 works in the background, and its end is a turn.
    assert_eq!(turns("2.1.197", "subagent").len(), 2);
    assert_eq!(turns("2.1.329", "subagent").len(), 3);
    for version in VERSIONS {
        let fifty = turns(version, "fifty");
        let expected: Vec<String> = (0..50).map(|n| format!("typed \"prompt number {n}\"")).collect();
        assert_eq!(fifty.iter().map(|(prompt, _)| prompt.clone()).collect::<Vec<_>>(), expected, "{version}");
        assert!(fifty.iter().all(|(_, result)| result.starts_with(OK)), "{version}");
    }
}

#[test]
fn a_plain_turn_is_told_in_the_order_of_a_stream() {
    for version in VERSIONS {
        let timeline = std::fs::read_to_string(folder(version).join("plain.jsonl")).unwrap();
        let lines = projection(&decode(&timeline, 1 << 16));
        assert_eq!(lines[..2], ["running", "typed \"tell a story\""], "{version}");
        for (line, expected) in lines[2..6].iter().zip(ANSWERED) {
            assert!(line.starts_with(expected), "{version}: {lines:?}");
        }
    }
}

/// Each line of a transcript is an event with its own bytes, or claude's bookkeeping: nothing is unknown, and nothing
/// is told twice.
#[test]
fn recorded_transcripts_hold_nothing_unknown() {
    let mut kinds = BTreeSet::new();
    for version in VERSIONS {
        for (name, timeline) in files(version, ".jsonl") {
            let told = decode(&timeline, 700);
            let appended = appended(&timeline);
            let mut seen = BTreeSet::new();
            for told in &told {
                let line = &told.line;
                assert!(
                    line.json && line.note.is_none() && line.kind.as_str() != "unknown",
                    "{name}: {line:?}"
                );
                kinds.insert(line.kind.as_str().to_owned());
                if line.line.stream != StreamIn::Shim {
                    let own = format!("{}\n", std::str::from_utf8(&line.data).unwrap());
                    assert!(appended.contains(&own), "{version} {name}: not a line of its own");
                    let uuid = serde_json::from_slice::<Value>(&line.data).unwrap()["uuid"].clone();
                    assert!(
                        uuid.is_null() || seen.insert(uuid.to_string()),
                        "{version} {name}: {uuid} twice"
                    );
                }
            }
        }
    }
    let expected = ["assistant", "attachment", "cost-state", "result", "system", "user"];
    assert_eq!(kinds, expected.map(str::to_owned).into());
}

/// What was appended to the files, all in one.
fn appended(timeline: &str) -> String {
    let entries = timeline.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    entries
        .filter(|entry| entry["file"].is_string())
        .map(|entry| entry["text"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn decoding_may_start_anew_at_any_hold() {
    for version in VERSIONS {
        for (name, timeline) in files(version, ".jsonl") {
            for size in [1 << 16, 700] {
                let steps = steps(&timeline, size);
                let mut whole = Tail::new();
                let (mut told, mut cuts) = (Vec::new(), Vec::new());
                for (index, step) in steps.iter().enumerate() {
                    feed(&mut whole, step, &mut told);
                    cuts.push((index, seq(step), whole.hold(), told.len()));
                }
                for (index, cursor, hold, told_by_then) in
                    cuts.into_iter().step_by(if size == 700 { 17 } else { 1 })
                {
                    let from = hold.unwrap_or(cursor + 1);
                    // What the run began with is known to whoever starts anew.
                    let started = steps[..=index].iter().rev().find_map(|step| match step {
                        Step::Run(_, _, started) if seq(step) < from => Some(*started),
                        _ => None,
                    });
                    let mut anew = Tail::new();
                    started.into_iter().for_each(|started| anew.since(started));
                    let mut again = Vec::new();
                    steps[..=index]
                        .iter()
                        .filter(|s| seq(s) >= from)
                        .for_each(|s| feed(&mut anew, s, &mut again));
                    assert_eq!(anew.hold(), hold, "{version} {name} after {cursor}");
                    again.clear();
                    steps[index + 1..].iter().for_each(|step| feed(&mut anew, step, &mut again));
                    assert_eq!(again, told[told_by_then..], "{version} {name} after {cursor}");
                }
            }
        }
    }
}
