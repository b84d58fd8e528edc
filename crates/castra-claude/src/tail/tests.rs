//! Tables: odd lines, records out of order, turns that end in every way, replay from any hold.

use super::*;
use crate::fact::{Fact, ResultFact, SessionState};
use crate::terminal::signal::Status;
use bytes::Bytes;
use serde_json::{Value, json};
use uuid::Uuid;

const SECOND: u64 = 1_000_000_000;

fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

/// What a run's log says, in the order of its records.
#[derive(Clone, Debug)]
enum Step {
    /// Bytes of a file, a second after the step before.
    File(u8, Vec<u8>),
    Status(Status),
    /// A record of some other stream, so many nanoseconds later.
    Later(u64),
}

fn lines(values: &[Value]) -> Step {
    Step::File(0, values.iter().map(|value| format!("{value}\n")).collect::<String>().into_bytes())
}

struct Log {
    tail: Tail,
    told: Vec<Told>,
    seq: u64,
    at: u64,
    offsets: BTreeMap<u8, u64>,
}

impl Log {
    fn new(tail: Tail) -> Self {
        Self { tail, told: Vec::new(), seq: 0, at: SECOND, offsets: BTreeMap::new() }
    }

    fn step(&mut self, step: &Step) {
        self.seq += 1;
        let (seq, at) = (self.seq, self.at);
        match step {
            Step::File(number, bytes) => {
                let offset = self.offsets.entry(*number).or_default();
                let record = RecordIn {
                    seq,
                    at,
                    stream: StreamIn::File(*number),
                    offset: *offset,
                    bytes: Bytes::copy_from_slice(bytes),
                };
                *offset += bytes.len() as u64;
                self.tail.step(&record, &mut self.told);
            }
            Step::Status(status) => {
                let state = State { status: Some(*status), ..State::default() };
                self.tail.state(seq, at, &state, &mut self.told);
            }
            Step::Later(nanoseconds) => {
                self.at += nanoseconds;
                let stream = StreamIn::Shim;
                let record = RecordIn { seq, at: self.at, stream, offset: 0, bytes: Bytes::new() };
                self.tail.step(&record, &mut self.told);
            }
        }
    }

    fn run(steps: &[Step]) -> Self {
        let mut log = Self::new(Tail::new());
        steps.iter().for_each(|step| log.step(step));
        log
    }

    fn names(&self) -> Vec<String> {
        self.told.iter().map(name).collect()
    }

    fn result(&self) -> (&ResultFact, Value) {
        let mut results = self.told.iter().filter_map(|told| match &told.line.fact {
            Fact::Result(result) => Some((&**result, serde_json::from_slice(&told.line.data).unwrap())),
            _ => None,
        });
        let result = results.next().expect("a result");
        assert!(results.next().is_none(), "one result");
        result
    }
}

fn name(told: &Told) -> String {
    let state = |state| match state {
        SessionState::Idle => "idle".to_owned(),
        SessionState::Running => "running".to_owned(),
        SessionState::RequiresAction => "requires_action".to_owned(),
    };
    match &told.line.fact {
        Fact::SessionState(it) => state(*it),
        Fact::Result(result) => format!("result {}", result.subtype),
        _ => {
            let value: Value = serde_json::from_slice(&told.line.data).unwrap_or_default();
            let uuid = value["uuid"].as_str().and_then(|uuid| Uuid::parse_str(uuid).ok());
            format!("{} {}", told.line.kind.as_str(), uuid.map_or(0, |uuid| uuid.as_u128()))
        }
    }
}

fn link(n: u128, parent: u128) -> Value {
    let parent = (parent > 0).then(|| id(parent));
    json!({"uuid": id(n), "parentUuid": parent, "isSidechain": false, "sessionId": id(99)})
}

fn with(mut base: Value, more: Value) -> Value {
    more.as_object().unwrap().iter().for_each(|(name, value)| base[name] = value.clone());
    base
}

fn user(n: u128, parent: u128, text: &str) -> Value {
    with(link(n, parent), json!({"type": "user", "message": {"role": "user", "content": text}}))
}

fn says(n: u128, parent: u128, message: &str, stop: Value, block: Value) -> Value {
    let usage =
        json!({"input_tokens": 10, "output_tokens": 5, "server_tool_use": {"web_search_requests": 1}});
    let message = json!({"id": message, "content": [block], "stop_reason": stop, "usage": usage});
    with(link(n, parent), json!({"type": "assistant", "message": message}))
}

fn text(n: u128, parent: u128, message: &str, words: &str) -> Value {
    says(n, parent, message, json!("end_turn"), json!({"type": "text", "text": words}))
}

fn calls(n: u128, parent: u128, message: &str, call: &str) -> Value {
    let block = json!({"type": "tool_use", "id": call, "name": "Bash", "input": {"command": "ls"}});
    says(n, parent, message, json!("tool_use"), block)
}

fn answers(n: u128, parent: u128, call: &str) -> Value {
    let content = json!([{"type": "tool_result", "tool_use_id": call, "content": "x"}]);
    with(link(n, parent), json!({"type": "user", "message": {"role": "user", "content": content}}))
}

fn over(n: u128, parent: u128) -> Value {
    with(link(n, parent), json!({"type": "system", "subtype": "turn_duration", "durationMs": 120}))
}

fn interrupted(n: u128, parent: u128) -> Value {
    let content = json!([{"type": "text", "text": "[Request interrupted by user]"}]);
    with(link(n, parent), json!({"type": "user", "message": {"role": "user", "content": content}}))
}

fn attached(n: u128, parent: u128) -> Value {
    with(link(n, parent), json!({"type": "attachment", "attachment": {"type": "skill_listing"}}))
}

fn failed(n: u128, parent: u128, status: Value) -> Value {
    let value = says(
        n,
        parent,
        "e",
        json!("stop_sequence"),
        json!({"type": "text", "text": "API Error: 529 Overloaded"}),
    );
    with(value, json!({"isApiErrorMessage": true, "apiErrorStatus": status}))
}

#[test]
fn a_turn_is_what_a_stream_would_have_told() {
    let thought = says(3, 2, "m1", json!("end_turn"), json!({"type": "thinking", "thinking": "hm"}));
    let log = Log::run(&[
        Step::Status(Status::Busy),
        lines(&[json!({"type": "mode", "mode": "normal"}), user(1, 0, "hello"), attached(2, 1), thought]),
        lines(&[calls(4, 3, "m1", "t"), answers(5, 4, "t"), text(6, 5, "m2", "Hi."), over(7, 6)]),
        Step::Status(Status::Idle),
    ]);
    assert_eq!(
        log.names(),
        [
            "running",
            "user 1",
            "assistant 3",
            "assistant 4",
            "user 5",
            "assistant 6",
            "system 7",
            "result success",
            "idle"
        ]
    );
    let (fact, data) = log.result();
    assert!(fact.ok);
    assert_eq!(
        data,
        json!({
            "type": "result",
            "subtype": "success",
            "is_error": false,
            "duration_ms": 120,
            "num_turns": 2,
            "result": "Hi.",
            "stop_reason": "end_turn",
            "terminal_reason": "completed",
            "session_id": id(99),
            "usage": {"input_tokens": 20, "output_tokens": 10, "server_tool_use": {"web_search_requests": 2}},
            "uuid": Uuid::new_v5(&id(1), b"castra result"),
            "synthetic": true,
        })
    );
    assert_eq!(log.told[1].prompt, Some(Prompt { text: "hello".into(), source: Source::Typed }));
    assert_eq!(log.told[1].line.data, user(1, 0, "hello").to_string());
    assert_eq!((log.tail.hold(), log.tail.due(), log.tail.calls()), (None, None, &[][..]));
}

#[test]
fn the_order_is_the_conversation_s_and_not_that_of_lines() {
    let in_order = ["running", "user 1", "assistant 3", "assistant 4", "system 5", "result success", "idle"];
    let records = [user(1, 0, "x"), attached(2, 1), text(3, 2, "m", "a"), text(4, 3, "m", "b"), over(5, 4)];
    for order in [[0, 1, 2, 3, 4], [2, 3, 4, 0, 1], [4, 3, 2, 1, 0], [0, 4, 3, 2, 1], [3, 0, 4, 1, 2]] {
        let shuffled = order.map(|at: usize| records[at].clone());
        for cut in 0..5 {
            let (one, two) = shuffled.split_at(cut);
            let log = Log::run(&[lines(one), lines(two), Step::Later(0)]);
            assert_eq!(log.names(), in_order, "{order:?} cut at {cut}");
        }
    }
}

#[test]
fn turns_end_in_every_way() {
    let begin = [Step::Status(Status::Busy), lines(&[user(1, 0, "x")])];
    let idle = Step::Status(Status::Idle);
    let leaf = |n| json!({"type": "last-prompt", "leafUuid": id(n)});
    let said = || text(2, 1, "m", "done");
    let partial = || says(2, 1, "m", json!(null), json!({"type": "text", "text": "par"}));
    let refused = || says(2, 1, "m", json!("refusal"), json!({"type": "text", "text": "I can not"}));
    let later = Step::Later(SETTLE);
    type Ended = (&'static str, bool, &'static str, Option<u16>, Option<&'static str>);
    let table: [(Vec<Step>, Ended); 11] = [
        (
            vec![lines(&[said(), over(3, 2)]), idle.clone()],
            ("success", true, "completed", None, Some("done")),
        ),
        (
            vec![lines(&[partial(), interrupted(3, 2)]), idle.clone()],
            ("error_during_execution", false, "aborted_streaming", None, None),
        ),
        (
            vec![lines(&[calls(2, 1, "m", "t"), answers(3, 2, "t"), interrupted(4, 3)]), idle.clone()],
            ("error_during_execution", false, "aborted_tools", None, None),
        ),
        // Taken back before anything was said: no record tells.
        (
            vec![idle.clone(), Step::Later(PATIENCE)],
            ("error_during_execution", false, "aborted_streaming", None, None),
        ),
        // 2.1.197, then 2.1.329 with and without the leaf.
        (
            vec![lines(&[failed(2, 1, json!(529)), over(3, 2)]), idle.clone()],
            ("success", false, "completed", Some(529), Some("API Error: 529 Overloaded")),
        ),
        (
            vec![lines(&[failed(2, 1, json!(null)), leaf(2)]), idle.clone()],
            ("success", false, "completed", Some(529), Some("API Error: 529 Overloaded")),
        ),
        (
            vec![lines(&[leaf(2), failed(2, 1, json!(401))]), idle.clone()],
            ("success", false, "completed", Some(401), Some("API Error: 529 Overloaded")),
        ),
        (
            vec![lines(&[failed(2, 1, json!(529))]), idle.clone(), later.clone()],
            ("success", false, "completed", Some(529), Some("API Error: 529 Overloaded")),
        ),
        (
            vec![lines(&[refused(), over(3, 2)]), idle.clone()],
            ("success", false, "completed", None, Some("I can not")),
        ),
        // An answer without any sign of an end.
        (vec![lines(&[said()]), idle.clone(), later], ("success", true, "completed", None, Some("done"))),
        // Its end comes after claude's word that it is idle.
        (
            vec![idle, Step::Later(PATIENCE - 1), lines(&[said(), over(3, 2)])],
            ("success", true, "completed", None, Some("done")),
        ),
    ];
    for (steps, (subtype, ok, reason, status, text)) in table {
        let log = Log::run(&[&begin[..], &steps].concat());
        let (fact, _) = log.result();
        let seen = (
            fact.subtype.as_str(),
            fact.ok,
            fact.terminal_reason.as_deref().unwrap(),
            fact.api_error_status,
            fact.text.as_deref(),
        );
        assert_eq!(seen, (subtype, ok, reason, status, text), "{steps:?}");
        assert_eq!(log.names().last().map(String::as_str), Some("idle"), "{steps:?}");
        assert_eq!((log.tail.hold(), log.tail.due()), (None, None), "{steps:?}");
    }
}

#[test]
fn the_next_prompt_ends_a_turn_that_left_nothing() {
    let log = Log::run(&[
        lines(&[user(1, 0, "taken back")]),
        Step::Status(Status::Idle),
        lines(&[user(2, 0, "instead"), text(3, 2, "m", "Yes."), over(4, 3)]),
    ]);
    assert_eq!(
        log.names(),
        [
            "running",
            "user 1",
            "result error_during_execution",
            "idle",
            "running",
            "user 2",
            "assistant 3",
            "system 4",
            "result success",
            "idle",
        ]
    );
}

#[test]
fn subagents_end_no_turn_and_are_told_as_such() {
    let side = |value: Value| with(value, json!({"isSidechain": true, "agentId": "a1"}));
    let agent: Vec<Value> = [text(12, 11, "s", "x"), user(11, 0, "look"), over(13, 12)].map(side).to_vec();
    let bytes: String = agent.iter().map(|value| format!("{value}\n")).collect();
    let file = Step::File(1, bytes.into_bytes());
    let begin = lines(&[user(1, 0, "x"), calls(2, 1, "m", "t")]);
    let end = lines(&[answers(3, 2, "t"), text(4, 3, "n", "ok"), over(5, 4)]);
    let main =
        ["running", "user 1", "assistant 2", "user 3", "assistant 4", "system 5", "result success", "idle"];
    let side_by_side = ["user 11", "assistant 12", "system 13"];
    // Its file may be on disk before the prompt that it works for.
    for steps in [[begin.clone(), file.clone(), end.clone()], [file.clone(), begin.clone(), end.clone()]] {
        let log = Log::run(&steps);
        let (agent, own): (Vec<String>, Vec<String>) =
            log.names().into_iter().partition(|name| side_by_side.contains(&name.as_str()));
        assert_eq!(
            (own, agent),
            (main.map(str::to_owned).to_vec(), side_by_side.map(str::to_owned).to_vec())
        );
        assert_eq!(log.names()[..2], ["running", "user 1"]);
        let spoke = log.told.iter().find(|told| name(told) == "assistant 12").unwrap();
        let Fact::Assistant(assistant) = &spoke.line.fact else { panic!("{spoke:?}") };
        assert_eq!(assistant.parent_tool_use_id.as_deref(), Some("a1"));
    }
    // In the background it outlives the turn; nobody waits for a parent that was told long ago.
    let mut log = Log::run(&[begin, file, end]);
    let late = side(text(14, 13, "s", "y")).to_string() + "\n";
    let before = log.told.len();
    log.step(&Step::Status(Status::Busy));
    log.step(&Step::File(1, late.into_bytes()));
    assert_eq!(log.names()[before..], ["running", "assistant 14"]);
}

#[test]
fn a_resumed_conversation_goes_on_where_it_ended() {
    let filler = with(
        says(12, 11, "f", json!("stop_sequence"), json!({"type": "text", "text": "No response requested."})),
        json!({"message": {"model": "<synthetic>", "id": "f", "content": [], "stop_reason": "stop_sequence"}}),
    );
    let log = Log::run(&[lines(&[
        answers(11, 10, "lost"),
        filler,
        user(13, 12, "go on"),
        text(14, 13, "m", "a"),
        over(15, 14),
    ])]);
    assert_eq!(
        log.names(),
        [
            "user 11",
            "assistant 12",
            "running",
            "user 13",
            "assistant 14",
            "system 15",
            "result success",
            "idle"
        ]
    );
}

#[test]
fn a_fork_s_old_history_is_not_told_again() {
    let dated = |value: Value, minute: u32| {
        with(value, json!({"timestamp": format!("2026-11-21T10:{minute:02}:00.000Z")}))
    };
    let old = [dated(user(1, 0, "old"), 1), dated(text(2, 1, "m", "old"), 1), dated(over(3, 2), 1)];
    let new = [dated(user(4, 3, "new"), 30), dated(text(5, 4, "n", "new"), 30), dated(over(6, 5), 30)];
    let started = serde_json::from_value(json!("2026-11-21T10:20:00Z")).unwrap();
    let mut tail = Tail::new();
    tail.since(started);
    let mut log = Log::new(tail);
    log.step(&lines(&[&old[..], &new].concat()));
    assert_eq!(log.names(), ["running", "user 4", "assistant 5", "system 6", "result success", "idle"]);
}

#[test]
fn odd_lines_are_kept_and_end_nothing() {
    let deep = format!("{{\"type\":\"user\",\"x\":{}{}}}", "[".repeat(500), "]".repeat(500));
    let cases: [(&[u8], &str, bool, Option<Note>); 9] = [
        (b"garbage", "unknown", false, Some(Note::NotJson)),
        (b"\0\0\0\0", "unknown", false, Some(Note::NotJson)),
        (b"[1]", "unknown", true, Some(Note::NotAMessage)),
        (b"{}", "unknown", true, Some(Note::NotAMessage)),
        (b"{\"type\":\"user\",\"x\":\"\xff\"}", "unknown", false, Some(Note::NotUtf8)),
        (deep.as_bytes(), "unknown", true, Some(Note::NotAMessage)),
        (b"{\"type\":\"permission_answered\"}", "unknown", true, None),
        (b"{\"type\":\"brand-new\"}", "brand-new", true, None),
        (b"{\"type\":\"user\",\"isReplay\":true}", "user", true, None),
    ];
    for (line, kind, json, note) in cases {
        let mut bytes = format!("{}\n", user(1, 0, "x")).into_bytes();
        bytes.extend_from_slice(line);
        bytes.extend_from_slice(format!("\n{}\n{}\n", text(2, 1, "m", "a"), over(3, 2)).as_bytes());
        let log = Log::run(&[Step::File(0, bytes)]);
        let shown = String::from_utf8_lossy(line);
        let odd = log.told.iter().find(|told| told.line.data == line).unwrap_or_else(|| panic!("{shown}"));
        assert_eq!((odd.line.kind.as_str(), odd.line.json, odd.line.note), (kind, json, note), "{shown}");
        assert!(!matches!(odd.line.fact, Fact::UserReplay { .. }), "{shown}");
        assert!(log.result().0.ok, "{shown}");
    }
    let mut log = Log::run(&[Step::File(0, b"{\"type\":\"user\"".to_vec())]);
    log.tail.finish(9, 9, &mut log.told);
    assert_eq!((log.told[0].line.note, log.told[0].line.kind.as_str()), (Some(Note::Torn), "unknown"));
    assert_eq!(log.tail.hold(), None);
}

mod replay;
mod signals;
