//! `castra run`, `send` and friends against a daemon of papier-mâché: what they print, where, and how they
//! exit. The real daemon and the real CLI have tests of their own.

// Helpers of tests, which clippy does not know for tests.
#![allow(clippy::unwrap_used)]

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

const SESSION: &str = "01928f6e-7b5a-7000-8000-000000000001";
const MESSAGE: &str = "01928f6e-7b5a-7000-8000-000000000002";

/// A daemon with one session, whose turn goes as the script says.
struct Daemon {
    home: tempfile::TempDir,
    asked: Arc<Mutex<Vec<String>>>,
}

#[derive(Clone)]
struct Stage {
    /// Frames of the event stream, with their ids; at a `CUT` the daemon hangs up, and the next connection is given
    /// what is behind it.
    events: Vec<String>,
    connections: Arc<AtomicUsize>,
    /// The frame that has this in it waits for the person: for an answer, or for words.
    held: Option<&'static str>,
    /// The newest event, as the session is shown.
    head: u64,
    /// The message in the end.
    message: Value,
    state: &'static str,
    pending: Arc<Mutex<Vec<Value>>>,
    asked: Arc<Mutex<Vec<String>>>,
    /// Moves when a permission was answered or something was said.
    heard: tokio::sync::watch::Sender<bool>,
}

/// How long a terminal may be silent before that is a failure.
const DEADLINE: Duration = Duration::from_secs(60);
const CUT: &str = "CUT";

fn session(state: &str) -> Value {
    json!({
        "id": SESSION, "state": state, "flags": {}, "busy": false, "since": "2026-11-21T07:30:45.000100Z",
        "created_at": "2026-11-21T07:30:45.000100Z", "run": 1, "turn": {"n": 1}, "queued": 0, "pending": [],
        "claude_session_ids": [], "host": "local", "permission_mode": "default", "cost_usd": 0.5, "turns": 1,
        "sandbox": {"kind": "none"}, "head_seq": 0, "spec": {},
        "exit": {"cause": "timeout", "reaped": "proved", "at": "2026-11-21T07:30:45.000100Z"},
    })
}

fn event(seq: u64, kind: &str, data: &Value) -> String {
    let event = json!({
        "seq": seq, "at": "2026-11-21T07:30:45.000100Z", "session_id": SESSION, "run": 1, "turn": 1,
        "kind": kind, "data": data,
    });
    format!("id: {seq}\ndata: {event}\n\n")
}

fn partial(offset: usize, text: &str) -> String {
    let data = json!({"message": "m", "block": 0, "kind": "text", "offset": offset, "text": text});
    format!("event: partial\ndata: {data}\n\n")
}

fn says(text: &str) -> Value {
    json!({"type":"assistant","message":{"id":"m","content":[{"type":"text","text":text}]},"parent_tool_use_id":null})
}

fn runs(command: &str) -> Value {
    json!({"type":"assistant","message":{"id":"m","content":[{"type":"tool_use","name":"Bash","input":{"command":command}}]}})
}

fn answer(ok: bool, text: &str, error: &Value) -> Value {
    json!({
        "message_id": MESSAGE, "session_id": SESSION, "state": "answered", "seq": 1,
        "result": {
            "seq": 9, "ok": ok, "subtype": "success", "text": text, "error": error, "cost_usd": 0.5,
            "duration_s": 1.5, "num_turns": 2,
        },
    })
}

fn request() -> Value {
    json!({
        "request_id": "req-1", "kind": "tool", "tool": "Bash", "input": {"command": "touch a"},
        "input_hash": "hash", "since": "2026-11-21T07:30:45.000100Z",
    })
}

impl Daemon {
    fn start(events: Vec<String>, mut message: Value, state: &'static str, pending: Vec<Value>) -> Self {
        if let Some(result) = message.get_mut("result") {
            result["seq"] = events.len().into();
        }
        let held = (!pending.is_empty()).then_some("\"result\"");
        Self::on(Stage {
            events,
            connections: Arc::default(),
            held,
            head: 0,
            message,
            state,
            pending: Arc::new(Mutex::new(pending)),
            asked: Arc::default(),
            heard: tokio::sync::watch::Sender::new(false),
        })
    }

    fn on(stage: Stage) -> Self {
        let home = tempfile::tempdir().unwrap();
        let data = home.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let listener = UnixListener::bind(data.join("castra.sock")).unwrap();
        let asked = stage.asked.clone();
        let one = format!("/api/v1/sessions/{SESSION}");
        let router = Router::new()
            .route("/healthz", get(|| async { "{}" }))
            .route("/api/v1/sessions", post(create))
            .route(&one, get(show).merge(delete(remove)))
            .route(&format!("{one}/messages"), post(say))
            .route(&format!("{one}/messages/{MESSAGE}"), get(message_now))
            .route(&format!("{one}/events"), get(stream))
            .route(&format!("{one}/permissions"), get(permissions))
            .route(&format!("{one}/permissions/{{id}}"), post(decide))
            .route(&format!("{one}/{{verb}}"), post(act))
            .with_state(stage);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { home, asked }
    }

    /// A turn that ends with this message after these events.
    fn with_turn(events: &[(&str, Value)], message: Value) -> Self {
        let events =
            events.iter().zip(1..).map(|((kind, data), seq)| event(seq, kind, data)).collect::<Vec<_>>();
        Self::start(events, message, "idle", vec![])
    }

    fn command(&self, args: &[&str]) -> Command {
        self.program(env!("CARGO_BIN_EXE_castra"), args)
    }

    fn program(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(args)
            .env_clear()
            .env("HOME", self.home.path())
            .env("CASTRA_HOME", self.home.path().join("data"))
            .current_dir(self.home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    async fn run(&self, args: &[&str]) -> (i32, String, String) {
        said(&self.command(args).output().await.unwrap())
    }

    /// The command in a terminal of its own.
    fn in_terminal(&self, args: &[&str]) -> Terminal {
        let line = [&[env!("CARGO_BIN_EXE_castra")], args].concat().join(" ");
        let script = ["--quiet", "--return", "--flush", "--command", &line, "/dev/null"];
        // Without TERM nothing spins.
        let mut command = self.program("/usr/bin/script", &script);
        let mut child = command.env("NO_COLOR", "1").stdin(Stdio::piped()).spawn().unwrap();
        let (keys, shows) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Terminal { child, keys, shows, screen: String::new() }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// A command and the terminal that it runs in, which util-linux makes.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    shows: ChildStdout,
    /// All that was written to it, its own echo too.
    screen: String,
}

impl Terminal {
    /// Reads until the screen ends with this.
    async fn until(&mut self, end: &str) {
        while !self.screen.ends_with(end) {
            assert!(self.read().await, "it ended before {end:?}: {:?}", self.screen);
        }
    }

    async fn types(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).await.unwrap();
    }

    /// The exit code and the whole screen.
    async fn whole(mut self) -> (i32, String) {
        while self.read().await {}
        (self.child.wait().await.unwrap().code().unwrap(), self.screen)
    }

    /// False at the end.
    async fn read(&mut self) -> bool {
        let mut bytes = [0; 4096];
        let read = tokio::time::timeout(DEADLINE, self.shows.read(&mut bytes)).await;
        let n = read.unwrap_or_else(|_| panic!("nothing comes behind {:?}", self.screen)).unwrap();
        self.screen.push_str(std::str::from_utf8(&bytes[..n]).unwrap());
        n > 0
    }
}

fn said(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

async fn create(State(stage): State<Stage>, body: Bytes) -> String {
    let spec: Value = serde_json::from_slice(&body).unwrap();
    stage.asked.lock().unwrap().push(format!("create demo={}", spec["demo"] == true));
    session("starting").to_string()
}

async fn show(State(stage): State<Stage>) -> String {
    let mut session = session(stage.state);
    session["head_seq"] = stage.head.into();
    session.to_string()
}

async fn remove(State(stage): State<Stage>, Query(query): Query<HashMap<String, String>>) {
    stage.asked.lock().unwrap().push(format!("remove force={}", query["force"]));
}

async fn say(State(stage): State<Stage>, body: Bytes) -> String {
    let message: Value = serde_json::from_slice(&body).unwrap();
    let context =
        message["context"].as_str().map(|context| format!(" context={context}")).unwrap_or_default();
    stage.asked.lock().unwrap().push(format!("say {}{context}", message["text"].as_str().unwrap()));
    if stage.pending.lock().unwrap().is_empty() {
        stage.heard.send_replace(true);
    }
    json!({"message_id": MESSAGE, "seq": 1}).to_string()
}

async fn message_now(State(stage): State<Stage>) -> String {
    stage.message.to_string()
}

async fn stream(State(stage): State<Stage>) -> Response {
    let nth = stage.connections.fetch_add(1, SeqCst);
    let mut parts = stage.events.split(|frame| frame == CUT).skip(nth);
    let frames = parts.next().unwrap_or_default().to_vec();
    let more = parts.next().is_some();
    let mut heard = stage.heard.subscribe();
    let held = move |frame: &str| stage.held.is_some_and(|held| frame.contains(held));
    let frames = async_stream(frames, more, held, async move {
        heard.wait_for(|heard| *heard).await.unwrap();
    });
    ([(CONTENT_TYPE, "text/event-stream")], frames).into_response()
}

/// All frames, and then the end, or silence; the one that `held` names comes after `until`.
fn async_stream(
    frames: Vec<String>,
    ends: bool,
    held: impl Fn(&str) -> bool + Send + 'static,
    until: impl Future<Output = ()> + Send + 'static,
) -> Body {
    let state = (frames.into_iter(), Some(Box::pin(until)));
    Body::from_stream(futures::stream::unfold(state, move |(mut frames, mut until)| {
        let next = frames.next();
        let hold = next.as_deref().is_some_and(&held);
        async move {
            let frame = match next {
                Some(frame) => frame,
                None if ends => return None,
                None => std::future::pending().await,
            };
            if hold && let Some(until) = until.take() {
                until.await;
            }
            Some((Ok::<_, std::convert::Infallible>(frame), (frames, until)))
        }
    }))
}

async fn permissions(State(stage): State<Stage>) -> String {
    json!({"items": *stage.pending.lock().unwrap(), "next": null}).to_string()
}

async fn decide(State(stage): State<Stage>, Path(id): Path<String>, body: Bytes) -> String {
    let answer: Value = serde_json::from_slice(&body).unwrap();
    stage.asked.lock().unwrap().push(format!("decide {id} {answer}"));
    stage.pending.lock().unwrap().clear();
    stage.heard.send_replace(true);
    request().to_string()
}

async fn act(State(stage): State<Stage>, Path(verb): Path<String>) -> String {
    stage.asked.lock().unwrap().push(verb);
    session("ended").to_string()
}

fn plain_turn() -> Vec<(&'static str, Value)> {
    vec![
        ("assistant", runs("ls")),
        ("user", json!({"message":{"content":[{"type":"tool_result","content":"a\nb"}]}})),
        ("assistant", says("Two files.")),
        ("result", json!({"type":"result","subtype":"success"})),
    ]
}

#[tokio::test]
async fn in_a_pipe_there_is_the_answer_and_nothing_else() {
    let daemon = Daemon::with_turn(&plain_turn(), answer(true, "Two files.", &Value::Null));
    assert_eq!(daemon.run(&["run", "--demo", "list"]).await, (0, "Two files.\n".into(), String::new()));
    assert_eq!(daemon.asked(), ["create demo=true", "say list", "stop"]);
}

#[tokio::test]
async fn what_is_started_is_ended_as_it_was_asked() {
    let table: &[(&[&str], &[&str])] = &[
        (&["run", "x"], &["create demo=false", "say x", "stop"]),
        (&["run", "--keep", "x"], &["create demo=false", "say x"]),
        (&["run", "--rm", "x"], &["create demo=false", "say x", "remove force=true"]),
        (&["run", "-d", "x"], &["create demo=false", "say x"]),
    ];
    for (args, asked) in table {
        let daemon = Daemon::with_turn(&plain_turn(), answer(true, "ok", &Value::Null));
        let (exit, stdout, stderr) = daemon.run(args).await;
        let expected = if args.contains(&"-d") { format!("{SESSION}\n") } else { "ok\n".into() };
        assert_eq!((exit, stdout, stderr), (0, expected, String::new()), "{args:?}");
        assert_eq!(daemon.asked(), *asked, "{args:?}");
    }
}

#[tokio::test]
async fn an_api_error_is_no_answer() {
    let problem = json!({"title": "t", "status": 502, "code": "auth_failed", "detail": "API Error: 401"});
    let daemon = Daemon::with_turn(&plain_turn(), answer(false, "API Error: 401", &problem));
    let (exit, stdout, stderr) = daemon.run(&["run", "x"]).await;
    assert_eq!((exit, stdout.as_str()), (1, ""));
    assert!(stderr.starts_with("error: API Error: 401 (auth_failed)\n"), "{stderr}");
}

#[tokio::test]
async fn a_limit_of_time_is_124_with_what_there_is() {
    let unanswered = json!({"message_id": MESSAGE, "session_id": SESSION, "state": "delivered", "seq": 1});
    let events = vec![event(1, "assistant", &says("So far")), event(2, "exit", &json!({"cause":"timeout"}))];
    let daemon = Daemon::start(events, unanswered, "ended", vec![]);
    let (exit, stdout, stderr) = daemon.run(&["run", "--timeout", "1s", "x"]).await;
    assert_eq!((exit, stdout.as_str()), (124, "So far\n"));
    assert!(stderr.starts_with("error: a limit of time was reached\n"), "{stderr}");
}

#[tokio::test]
async fn json_is_the_result_and_stream_json_the_events() {
    let message = answer(true, "Two files.", &Value::Null);
    let daemon = Daemon::with_turn(&plain_turn(), message.clone());
    let (exit, stdout, stderr) = daemon.run(&["run", "--json", "x"]).await;
    let told: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((exit, stderr.as_str(), &told["result"]["text"]), (0, "", &message["result"]["text"]));

    let daemon = Daemon::with_turn(&plain_turn(), message);
    let (exit, stdout, _) = daemon.run(&["run", "--output-format", "stream-json", "x"]).await;
    let kinds: Vec<String> = stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["kind"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!((exit, kinds), (0, ["assistant", "user", "assistant", "result"].map(String::from).to_vec()));
}

#[tokio::test]
async fn a_pipe_is_context_to_a_prompt_and_a_prompt_without_one() {
    let table: &[(&[&str], &str)] = &[
        (&["run", "sum it up"], "say sum it up context=piped"),
        (&["run"], "say piped"),
        (&["run", "-"], "say piped"),
        (&["run", "--context", "-", "x"], "say x context=piped"),
        (&["run", "--context", "given", "x"], "say x context=given"),
    ];
    for (args, expected) in table {
        let daemon = Daemon::with_turn(&plain_turn(), answer(true, "ok", &Value::Null));
        let mut child = daemon.command(args).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A command that has its context by a flag does not read: its closed end is no failure of it.
        let _ = stdin.write_all(b"piped").await;
        drop(stdin);
        let output = child.wait_with_output().await.unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(daemon.asked()[1], *expected, "{args:?}");
    }
}

#[tokio::test]
async fn without_a_terminal_the_command_that_answers_is_named_and_works() {
    let events = vec![
        event(1, "permission_requested", &request()),
        event(2, "assistant", &says("Done.")),
        event(3, "result", &json!({"subtype":"success"})),
    ];
    let daemon =
        Daemon::start(events, answer(true, "Done.", &Value::Null), "requires_action", vec![request()]);
    let mut child = daemon.command(&["run", "x"]).spawn().unwrap();
    let mut stderr = tokio::io::BufReader::new(child.stderr.take().unwrap());
    let mut lines = String::new();
    for _ in 0..2 {
        tokio::io::AsyncBufReadExt::read_line(&mut stderr, &mut lines).await.unwrap();
    }
    let hint = format!("castra approve {SESSION} req-1   or   castra deny {SESSION} req-1 --message …");
    assert_eq!(lines, format!("waiting for permission: Bash touch a\nhint: {hint}\n"));

    let (exit, stdout, _) = daemon.run(&["approve", SESSION]).await;
    assert_eq!((exit, stdout.as_str()), (0, "allowed Bash req-1\n"));
    let output = child.wait_with_output().await.unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), b"Done.\n".as_slice()));
    let decided = r#"decide req-1 {"behavior":"allow","input_hash":"hash"}"#;
    assert!(daemon.asked().contains(&decided.to_owned()), "{:?}", daemon.asked());
}

#[tokio::test]
async fn a_message_to_a_session_and_its_answer() {
    let daemon = Daemon::with_turn(&plain_turn(), answer(true, "Two files.", &Value::Null));
    let sent = daemon.run(&["send", SESSION, "hello"]).await;
    assert_eq!(sent, (0, format!("{MESSAGE}\n"), String::new()));
    let waited = daemon.run(&["send", SESSION, "hello", "--wait"]).await;
    assert_eq!(waited, (0, "Two files.\n".into(), String::new()));
    assert_eq!(daemon.asked(), ["say hello", "say hello"]);
}

#[tokio::test]
async fn a_conversation_by_lines() {
    let daemon = Daemon::with_turn(&plain_turn(), answer(true, "Two files.", &Value::Null));
    let mut child = daemon.command(&["attach", SESSION]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = tokio::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    tokio::io::AsyncBufReadExt::read_line(&mut stdout, &mut line).await.unwrap();
    assert_eq!(line, "Two files.\n");
    stdin.write_all(b"hello\n/quit\n").await.unwrap();
    let (exit, _, stderr) = said(&child.wait_with_output().await.unwrap());
    assert_eq!(exit, 0, "{stderr}");
    assert_eq!(daemon.asked(), ["say hello"]);
    let shown: Vec<&str> = stderr.lines().collect();
    assert!(shown.contains(&"● Bash  ls") && shown.contains(&"  ⎿ a (+1 line)"), "{stderr}");
    assert!(
        stderr.ends_with(&format!("the session goes on; `castra attach {SESSION}` returns to it\n")),
        "{stderr}"
    );
}

fn state(from: &str, to: &str) -> Value {
    json!({"from": from, "to": to, "cause": "claude"})
}

fn accepted(message: &str, by: &str, text: &str) -> Value {
    json!({"message_id": message, "by": by, "text": text, "if_busy": "queue"})
}

#[tokio::test]
async fn a_terminal_asks_for_a_line_and_shows_each_once() {
    let other = "01928f6e-7b5a-7000-8000-000000000003";
    let events: Vec<String> = [
        ("input_accepted", accepted(other, "token:phone", "from afar")),
        ("assistant", says("I hear.")),
        ("state", state("running", "idle")),
        ("input_accepted", accepted(MESSAGE, "cli", "hello")),
        ("input_delivered", json!({"message_id": MESSAGE})),
        ("state", state("idle", "running")),
        ("assistant", says("You too.")),
        ("state", state("running", "idle")),
        ("input_accepted", accepted(other, "token:phone", "are you there")),
    ]
    .iter()
    .zip(1..)
    .map(|((kind, data), seq)| event(seq, kind, data))
    .collect();
    let daemon = Daemon::on(Stage {
        events,
        connections: Arc::default(),
        held: Some("\"hello\""),
        head: 3,
        message: Value::Null,
        state: "idle",
        pending: Arc::default(),
        asked: Arc::default(),
        heard: tokio::sync::watch::Sender::new(false),
    });
    let mut terminal = daemon.in_terminal(&["attach", SESSION]);
    terminal.until("> ").await;
    terminal.types("hello\n").await;
    // What another one says goes below the prompt, and is no answer to it.
    terminal.until("are you there\r\n> ").await;
    terminal.types("/quit\n").await;
    let (exit, screen) = terminal.whole().await;
    let expected = format!(
        "session {SESSION} (idle); /help, /quit\r\n\
         token:phone> from afar\r\n\
         I hear.\r\n\
         > hello\r\n\
         You too.\r\n\
         > \r\n\
         token:phone> are you there\r\n\
         > /quit\r\n\
         the session goes on; `castra attach {SESSION}` returns to it\r\n"
    );
    assert_eq!((exit, screen), (0, expected));
    assert_eq!(daemon.asked(), ["say hello"]);
}

#[tokio::test]
async fn a_daemon_that_comes_back_repeats_nothing_on_the_terminal() {
    let result = event(2, "result", &json!({"type": "result", "subtype": "success"}));
    let whole = event(1, "assistant", &says("Two files."));
    let away = "(the daemon was away and is back; nothing was missed)\r\n";
    let table: [(&[String], String); 3] = [
        // In the middle of the text: the rest is added.
        (
            &[partial(0, "Two fi"), CUT.into(), partial(0, "Two"), partial(3, " file"), whole.clone()],
            format!("Two fi\r\n{away}les.\r\n"),
        ),
        // Written to its end while the daemon was away.
        (&[partial(0, "Two fi"), CUT.into(), whole.clone()], format!("Two fi\r\n{away}les.\r\n")),
        // Behind the text: a daemon that reads the shim's log again has it open for a moment.
        (
            &[partial(0, "Two fi"), whole, CUT.into(), partial(0, "Two fi"), partial(6, "les.")],
            format!("Two files.\r\n{away}"),
        ),
    ];
    for (events, expected) in table {
        let events = [events, std::slice::from_ref(&result)].concat();
        let mut message = answer(true, "Two files.", &Value::Null);
        message["result"]["seq"] = 2.into();
        let daemon = Daemon::on(Stage {
            events,
            connections: Arc::default(),
            held: None,
            head: 0,
            message,
            state: "idle",
            pending: Arc::default(),
            asked: Arc::default(),
            heard: tokio::sync::watch::Sender::new(false),
        });
        let (exit, screen) = daemon.in_terminal(&["run", "list"]).whole().await;
        let last = format!("✓ $0.5000 · 1.5 s · 2 turns · session {SESSION}\r\n");
        assert_eq!((exit, screen), (0, expected + &last));
    }
}
