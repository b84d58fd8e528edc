//! Tasks whose daemon is killed at named places, and what a person would tell of them: to be compared, whole, with a
//! task that nobody disturbed.
#![allow(dead_code, reason = "each test program uses a part")]

use crate::task;
use castra_model::RequestLog;
use castra_proto::api::Page;
use castra_proto::task::TaskEventKind;
use castra_proto::{Session, Task as Shown, TaskId, TaskState};
use castra_testkit::{DEADLINE, Daemon, Http, Task, World, wait_for, wait_until};
use hyper::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a child says that was killed by SIGKILL.
const KILLED: i32 = -9;

/// Before the common rules: the agent goes on when it has heard what became of the file before, so that a word that
/// it hears twice is seen in what it does, and none comes too late to be heard.
const RULES: &str = r#"
[[rule]]
name = "a file was taken"
when.last_user.contains = "first.txt: accepted"
reply.blocks = [{ tool_use = { name = "Bash", input = { command = "echo DELIVERABLE: nowhere >> optio.log", description = "Hand over" } } }]
[[rule]]
name = "a file was refused"
when.last_user.contains = "nowhere: rejected"
reply.blocks = [{ tool_use = { name = "Bash", input = { command = "echo last > deliverables/last.txt; echo DELIVERABLE: deliverables/last.txt >> optio.log", description = "Hand over" } } }]
[[rule]]
name = "a file is to be revised"
when.last_user.contains = "first.txt: please revise"
reply.blocks = [{ tool_use = { name = "Bash", input = { command = "echo short > deliverables/first.txt; echo DELIVERABLE: deliverables/first.txt >> optio.log", description = "Revise" } } }]
[[rule]]
name = "it goes on"
when.last_user.contains = "you have been resumed"
reply.blocks = [{ tool_use = { name = "Bash", input = { command = "echo 'DONE: again' >> optio.log", description = "End" } } }]
[[rule]]
name = "the last file was taken"
when.last_user.contains = "last.txt: accepted"
reply.blocks = [{ tool_use = { name = "Bash", input = { command = 'echo left > deliverables/left.txt; echo DONE: $(cat deliverables/first.txt) >> optio.log', description = "End" } } }]
"#;

pub(crate) fn script() -> String {
    format!("{RULES}{}", task::SCRIPT)
}

/// The first of the three files of [`RULES`].
pub(crate) fn first(content: &str) -> String {
    format!(
        "echo 'STATUS: 20% begun' >> optio.log; {content} > deliverables/first.txt; \
         echo DELIVERABLE: deliverables/first.txt >> optio.log"
    )
}

/// What the agent hears of a task that begins with [`first`], after its first word.
pub(crate) const OF_FILES: [&str; 3] = [
    "deliverable deliverables/first.txt: accepted.",
    "deliverable nowhere: rejected: it is not below `deliverables/`. Move it there and hand it over again.",
    "deliverable deliverables/last.txt: accepted.",
];

/// What a person would tell of a task; the code of its messages, and ids, are others each time.
#[derive(Debug, PartialEq)]
pub(crate) struct Story {
    pub(crate) end: (TaskState, Option<String>, u32),
    pub(crate) deliverables: Vec<(String, u32, String)>,
    pub(crate) events: Vec<(TaskEventKind, String)>,
    /// What the model has heard of castra, as often as it heard it: by session, so by attempt.
    pub(crate) heard: Vec<Vec<String>>,
    /// What hooks were told, each once, where they write it to [`told`]: the point, and what it was about.
    pub(crate) fired: Vec<(String, Value)>,
}

impl Story {
    pub(crate) fn of(task: &Task, world: &World) -> Self {
        let shown = task.wait();
        // How far its children are is looked at now and then; an attempt names its session.
        let passing = |kind| {
            kind == TaskEventKind::Attempt || kind == TaskEventKind::Progress && !shown.children.is_empty()
        };
        let events = task.events().into_iter().filter(|event| !passing(event.kind));
        let deliverables = shown.deliverables.iter();
        let mut fired: Vec<_> =
            firings(world, &task.id).into_values().map(|(point, what, _)| (point, what)).collect();
        fired.sort_by_key(|fired| format!("{fired:?}"));
        Self {
            end: (shown.state, shown.result.clone(), shown.attempt),
            deliverables: deliverables
                .map(|one| (one.path.clone(), one.version, one.sha256.clone()))
                .collect(),
            events: events.map(|event| (event.kind, plain(&event.message))).collect(),
            heard: sessions(task).iter().map(|session| heard(world, session)).collect(),
            fired,
        }
    }

    /// The task's and its children's.
    pub(crate) fn of_all(task: &Task, world: &World) -> Vec<Self> {
        let shown = task.wait();
        let children = shown.children.iter().map(|child| child.id.to_string());
        let ids = std::iter::once(task.id.clone()).chain(children);
        ids.map(|id| Self::of(&Task::of(&task.http, id), world)).collect()
    }

    pub(crate) fn said(&self, kind: TaskEventKind) -> Vec<&str> {
        self.events.iter().filter(|(of, _)| *of == kind).map(|(_, text)| text.as_str()).collect()
    }
}

/// Without the task's code, and without ids.
fn plain(text: &str) -> String {
    let text =
        text.strip_prefix("System[").and_then(|text| text.split_once("]: ")).map_or(text, |(_, rest)| rest);
    let pieces = text.split_inclusive([' ', ':']).map(|piece| {
        let word = piece.trim_end_matches([' ', ':']);
        if word.parse::<TaskId>().is_ok() { piece.replace(word, "ID") } else { piece.to_owned() }
    });
    pieces.collect()
}

/// All that were ever begun for it, oldest first.
fn sessions(task: &Task) -> Vec<Session> {
    let path = format!("/api/v1/sessions?all=true&limit=500&label=task%3D{}", task.id);
    let mut sessions = task.http.get(&path).expect::<Page<Session>>(200).items;
    sessions.sort_by_key(|session| session.created_at);
    sessions
}

/// What the model has heard of castra, in order: messages, and results of castra's tools. Each call brings the whole
/// conversation, so the last one has all of it, as often as it was said.
fn heard(world: &World, session: &Session) -> Vec<String> {
    let of: Vec<String> = session.claude_session_ids.iter().map(ToString::to_string).collect();
    let calls = world.calls();
    let last = calls.iter().rfind(|call| of.contains(&call.conversation));
    last.map(texts).unwrap_or_default()
}

fn texts(call: &Arc<RequestLog>) -> Vec<String> {
    let body = call.json();
    let mut tools: BTreeMap<&str, &str> = BTreeMap::new();
    let mut heard = Vec::new();
    for message in body["messages"].as_array().expect("a conversation") {
        let text = |content: &Value| -> Vec<String> {
            let blocks = content.as_array().into_iter().flatten();
            let texts = blocks.filter_map(|block| block["text"].as_str()).chain(content.as_str());
            texts.map(str::to_owned).collect()
        };
        for block in message["content"].as_array().into_iter().flatten() {
            match block["type"].as_str() {
                Some("tool_use") => {
                    tools.insert(
                        block["id"].as_str().expect("an id"),
                        block["name"].as_str().expect("a name"),
                    );
                }
                Some("tool_result") => {
                    let name = block["tool_use_id"]
                        .as_str()
                        .and_then(|id| tools.get(id))
                        .copied()
                        .unwrap_or_default();
                    if let Some(name) = name.strip_prefix("mcp__castra__") {
                        heard.push(format!("{name}: {}", plain(&text(&block["content"]).concat())));
                    }
                }
                _ => {}
            }
        }
        if message["role"] != "assistant" {
            // Also within what claude puts around a message that comes while a tool runs.
            let texts = text(&message["content"]);
            let lines = texts.iter().flat_map(|text| text.lines());
            heard.extend(lines.filter(|line| line.starts_with("System[")).map(plain));
        }
    }
    heard
}

/// Where hooks write down what they are told.
pub(crate) fn told(world: &World) -> std::path::PathBuf {
    world.root().join("told")
}

/// What the hooks of a task were told, by id: the point, what it was about, and how often.
pub(crate) fn firings(world: &World, task: &str) -> BTreeMap<String, (String, Value, usize)> {
    let text = std::fs::read_to_string(told(world)).unwrap_or_default();
    let mut firings: BTreeMap<String, (String, Value, usize)> = BTreeMap::new();
    for call in text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")) {
        if call["task"]["id"] != task {
            continue;
        }
        let what = match (&call["deliverable"], &call["event"]) {
            (Value::Object(file), _) => file["text"].clone(),
            (_, Value::Object(event)) => event["message"].clone(),
            _ => call["outcome"]["state"].clone(),
        };
        let id = call["id"].as_str().expect("an id").to_owned();
        let point = call["on"].as_str().expect("a point").to_owned();
        let known = firings.entry(id).or_insert((point.clone(), what.clone(), 0));
        assert_eq!((&known.0, &known.1), (&point, &what), "one id, one thing");
        known.2 += 1;
    }
    firings
}

/// A hook that writes down what it is told, and then runs this; what it is told stands in `$told`.
pub(crate) fn hook(world: &World, on: &str, then: &str) -> Value {
    let text = format!("told=$(cat); printf '%s\\n' \"$told\" >> {}; {then}", told(world).display());
    json!({"on": on, "command": ["sh", "-c", text]})
}

/// An answer of a daemon that may be dead.
pub(crate) fn ask<T: serde::de::DeserializeOwned>(http: &Http, path: &str) -> Option<T> {
    Some(http.try_call(Method::GET, path, &[], Default::default()).ok()?.expect(200))
}

/// A request whose daemon dies again and again: whoever gets no answer asks again with the same key.
pub(crate) struct Doomed<'w> {
    world: &'w World,
    pub(crate) daemon: Daemon<'w>,
    path: &'static str,
    body: Value,
}

impl<'w> Doomed<'w> {
    /// `body` of a task, or of whatever is made at `path`.
    pub(crate) fn new(daemon: Daemon<'w>, world: &'w World, path: &'static str, body: Value) -> Self {
        Self { world, daemon, path, body }
    }

    /// The id of what was made; None: the daemon hung up.
    pub(crate) fn post(&self) -> Option<String> {
        let headers = [("Idempotency-Key", "the one")];
        let sent = self.body.to_string().into();
        let reply = self.daemon.http().try_call(Method::POST, self.path, &headers, sent).ok()?;
        let shown: Value = reply.expect(201);
        Some(shown["id"].as_str().expect("an id").to_owned())
    }

    fn start(&mut self, place: &str) {
        if !self.daemon.is_over() {
            self.daemon.kill9();
        }
        self.daemon.start_doomed(place);
    }

    /// Waits for the death that was asked for. A daemon that ends in another way, or lives on, never came to the place.
    #[track_caller]
    pub(crate) fn wait_killed(&mut self, place: &str) {
        wait_until(&format!("the daemon to die at {place}"), || self.daemon.is_over(), DEADLINE);
        assert_eq!(self.daemon.wait_over(), KILLED, "{place}");
    }

    /// A daemon that is to die at this place, once it has answered. The task.
    #[track_caller]
    pub(crate) fn begins(&mut self, place: &str) -> Task {
        self.start(place);
        let id = wait_for("an answer", || self.post(), DEADLINE);
        Task::of(&self.daemon.http(), id)
    }

    /// One daemon after the other: each dies at its place, in this order.
    #[track_caller]
    pub(crate) fn dies_at(&mut self, places: &[&str]) {
        let mut id = None;
        for (n, place) in places.iter().enumerate() {
            let what = format!("{place}, the {n}th");
            self.start(place);
            let answered = self.post();
            assert!(id.is_none() || answered.is_none() || id == answered, "{what}: one request is one thing");
            id = answered.or(id);
            self.wait_killed(&what);
        }
    }

    /// The same with a task that is there. `act` is tried again and again, whoever is there.
    #[track_caller]
    pub(crate) fn dies_while(&mut self, places: &[&str], act: impl Fn(&Http, &Shown) -> bool) {
        for place in places {
            self.start(place);
            let over = || {
                self.daemon.is_over() || self.shown().is_some_and(|shown| act(&self.daemon.http(), &shown))
            };
            wait_until(&format!("the daemon to die at {place}"), over, DEADLINE);
            self.wait_killed(place);
        }
    }

    /// Its task; None: the daemon hung up.
    fn shown(&self) -> Option<Shown> {
        ask(&self.daemon.http(), &format!("/api/v1/tasks/{}", self.post()?))
    }

    /// Each commit of a driver is lost with its daemon, and then made, and its daemon dies again; until the task is over.
    /// `act` is tried again and again, whoever is there, and says whether it is. How many commits were made so.
    #[track_caller]
    pub(crate) fn dies_around_each_commit(&mut self, act: impl Fn(&Http, &Shown) -> bool) -> usize {
        for n in 0.. {
            let place = if n % 2 == 0 { "task.commit" } else { "task.committed" };
            self.start(place);
            let over = wait_for(
                "the daemon to die, or the task to be over",
                || {
                    if self.daemon.is_over() {
                        return Some(false);
                    }
                    act(&self.daemon.http(), &self.shown()?).then_some(true)
                },
                DEADLINE,
            );
            if over {
                return n / 2;
            }
            self.wait_killed(place);
        }
        unreachable!("it is over before")
    }

    /// A daemon that lives; nothing on disk is damaged.
    #[track_caller]
    pub(crate) fn lives(&mut self) -> String {
        if !self.daemon.is_over() {
            self.daemon.process().kill9();
        }
        self.daemon.wait_over();
        self.daemon.start_again();
        let id = wait_for("an answer", || self.post(), DEADLINE);
        let damage: Value = serde_json::from_str(&self.world.cli(["check", "--json"]).ok()).expect("JSON");
        assert_eq!(damage["items"], json!([]));
        id
    }

    /// Its task, with a daemon that lives.
    #[track_caller]
    pub(crate) fn task(&mut self) -> Task {
        let id = self.lives();
        Task::of(&self.daemon.http(), id)
    }
}

/// The same, undisturbed: `act` is tried again and again until it says that the task is over.
#[track_caller]
pub(crate) fn undisturbed(daemon: &Daemon<'_>, body: &Value, act: impl Fn(&Http, &Shown) -> bool) -> Task {
    let task = Task::create(daemon.http(), body);
    wait_until("the task to be over", || act(&task.http, &task.show()), DEADLINE);
    task
}
