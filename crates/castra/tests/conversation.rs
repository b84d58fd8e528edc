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
use std::sync::{Arc, Mutex};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixListener;
use tokio::process::Command;

const SESSION: &str = "01928f6e-7b5a-7000-8000-000000000001";
const MESSAGE: &str = "01928f6e-7b5a-7000-8000-000000000002";

/// A daemon with one session, whose turn goes as the script says.
struct Daemon {
    home: tempfile::TempDir,
    asked: Arc<Mutex<Vec<String>>>,
}

#[derive(Clone)]
struct Stage {
    /// Frames of the event stream, with their ids.
    events: Vec<String>,
    /// The message in the end.
    message: Value,
    state: &'static str,
    pending: Arc<Mutex<Vec<Value>>>,
    asked: Arc<Mutex<Vec<String>>>,
    /// Moves when a permission was answered.
    answered: tokio::sync::watch::Sender<bool>,
}

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
        let home = tempfile::tempdir().unwrap();
        let data = home.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let listener = UnixListener::bind(data.join("castra.sock")).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let stage = Stage {
            events,
            message,
            state,
            pending: Arc::new(Mutex::new(pending)),
            asked: asked.clone(),
            answered: tokio::sync::watch::Sender::new(false),
        };
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
        let mut command = Command::new(env!("CARGO_BIN_EXE_castra"));
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

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
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
    session(stage.state).to_string()
}

async fn remove(State(stage): State<Stage>, Query(query): Query<HashMap<String, String>>) {
    stage.asked.lock().unwrap().push(format!("remove force={}", query["force"]));
}

async fn say(State(stage): State<Stage>, body: Bytes) -> String {
    let message: Value = serde_json::from_slice(&body).unwrap();
    let context =
        message["context"].as_str().map(|context| format!(" context={context}")).unwrap_or_default();
    stage.asked.lock().unwrap().push(format!("say {}{context}", message["text"].as_str().unwrap()));
    json!({"message_id": MESSAGE, "seq": 1}).to_string()
}

async fn message_now(State(stage): State<Stage>) -> String {
    stage.message.to_string()
}

async fn stream(State(stage): State<Stage>) -> Response {
    let waits = !stage.pending.lock().unwrap().is_empty();
    let mut answered = stage.answered.subscribe();
    let frames =
        async_stream(stage.events, move |frame: &str| waits && frame.contains("\"result\""), async move {
            answered.wait_for(|answered| *answered).await.unwrap();
        });
    ([(CONTENT_TYPE, "text/event-stream")], frames).into_response()
}

/// All frames, and then silence; the one that `held` names comes after `until`.
fn async_stream(
    frames: Vec<String>,
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
    stage.answered.send_replace(true);
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
