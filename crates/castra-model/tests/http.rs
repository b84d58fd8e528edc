//! The protocol by raw HTTP: what any client of the API sees.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use castra_model::{Model, RequestLog, Script, StartError};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Generous: a broken server hangs, and this makes it a failure.
const DEADLINE: Duration = Duration::from_secs(60);

async fn model(script: &str) -> Model {
    Model::start(Script::parse(script).unwrap(), ([127, 0, 0, 1], 0).into()).await.unwrap()
}

#[derive(Debug)]
struct Response {
    status: u16,
    head: String,
    /// Chunked encoding undone.
    body: String,
    /// Whether the body came to its end.
    whole: bool,
}

impl Response {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    fn events(&self) -> Vec<Value> {
        self.body
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .map(|data| serde_json::from_str(data).unwrap())
            .collect()
    }

    fn text(&self) -> String {
        self.events().iter().filter_map(|event| event["delta"]["text"].as_str()).collect()
    }
}

fn head(method: &str, path: &str, headers: &str, length: usize) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n"
    )
}

async fn send(model: &Model, method: &str, path: &str, headers: &str, body: &str) -> Response {
    let mut socket = TcpStream::connect(model.addr()).await.unwrap();
    socket.write_all(head(method, path, headers, body.len()).as_bytes()).await.unwrap();
    socket.write_all(body.as_bytes()).await.unwrap();
    read(socket).await
}

async fn read(mut socket: TcpStream) -> Response {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(DEADLINE, socket.read_to_end(&mut bytes)).await;
    read.expect("the server ends its answer").ok();
    let text = String::from_utf8(bytes).unwrap();
    let (head, rest) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let (body, whole) = if head.to_lowercase().contains("transfer-encoding: chunked") {
        unchunk(rest)
    } else {
        (rest.to_owned(), true)
    };
    Response { status, head: head.to_owned(), body, whole }
}

fn unchunk(mut rest: &str) -> (String, bool) {
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return (body, true);
        }
        let Some(chunk) = after.get(..size) else { break };
        body.push_str(chunk);
        rest = after.get(size + 2..).unwrap_or("");
    }
    (body, false)
}

fn ask(text: &str, stream: bool) -> String {
    json!({"model": "claude-opus-4-8", "max_tokens": 100, "stream": stream,
        "messages": [{"role": "user", "content": text}]})
    .to_string()
}

async fn post(model: &Model, text: &str, stream: bool) -> Response {
    send(model, "POST", "/v1/messages?beta=true", "", &ask(text, stream)).await
}

const HELLO: &str =
    "[[rule]]\nname = \"hello\"\nwhen.last_user.contains = \"hello\"\nreply.text = \"Hi: {{last_user}}\"";

#[tokio::test]
async fn the_same_answer_streamed_and_whole() {
    let model = model(HELLO).await;
    let stream = post(&model, "hello é", true).await;
    assert_eq!((stream.status, stream.whole), (200, true));
    assert_eq!(stream.header("content-type"), Some("text/event-stream; charset=utf-8"));
    assert_eq!(stream.text(), "Hi: hello é");
    let names: Vec<_> = stream.body.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    let want = [
        "message_start",
        "content_block_start",
        "ping",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ];
    assert_eq!(names, want);
    let whole = post(&model, "hello é", false).await;
    assert_eq!((whole.status, whole.header("content-type")), (200, Some("application/json")));
    assert_eq!(whole.json()["content"], json!([{"type": "text", "text": "Hi: hello é"}]));
    assert!(whole.header("request-id").is_some_and(|id| id.starts_with("req_")));
    assert_ne!(whole.json()["id"], stream.events()[0]["message"]["id"], "a second call has a second id");
    model.shutdown().await;
}

#[tokio::test]
async fn ids_are_the_same_in_every_run_of_a_script() {
    let (one, two) = (model(HELLO).await, model(HELLO).await);
    for n in 0..3 {
        let (a, b) = (post(&one, "hello", false).await.json(), post(&two, "hello", false).await.json());
        assert_eq!(a["id"], b["id"], "call {n}");
    }
}

#[tokio::test]
async fn errors_have_the_shape_of_the_api() {
    let cases = [400, 401, 403, 404, 429, 500, 529];
    let rules = cases.map(|status| {
        let retry = if status == 429 { "retry_after = 7" } else { "" };
        format!("[[rule]]\nwhen.last_user.contains = \"{status}\"\n[rule.reply.error]\nstatus = {status}\nmessage = \"m\"\n{retry}\n")
    });
    let model = model(&rules.join("\n")).await;
    let kinds = [
        "invalid_request_error",
        "authentication_error",
        "permission_error",
        "not_found_error",
        "rate_limit_error",
        "api_error",
        "overloaded_error",
    ];
    for (status, kind) in cases.into_iter().zip(kinds) {
        let response = post(&model, &status.to_string(), true).await;
        assert_eq!(response.status, status);
        let body = response.json();
        assert_eq!(
            (&body["type"], &body["error"]),
            (&json!("error"), &json!({"type": kind, "message": "m"}))
        );
        assert_eq!(body["request_id"].as_str(), response.header("request-id"));
        assert_eq!(response.header("retry-after"), (status == 429).then_some("7"));
    }
}

#[tokio::test]
async fn what_is_no_request_or_no_route_is_an_error_in_shape() {
    let model = model(HELLO).await;
    let post_messages = ("POST", "/v1/messages");
    let table = [
        (post_messages, "{", 400, "invalid_request_error"),
        (post_messages, "{}", 400, "invalid_request_error"),
        (("GET", "/v1/messages"), "", 405, "invalid_request_error"),
        (("GET", "/v1/models/gpt"), "", 404, "not_found_error"),
        (("GET", "/v1/nothing"), "", 404, "not_found_error"),
        (("POST", "/api/oauth"), "", 404, "not_found_error"),
    ];
    for ((method, path), body, status, kind) in table {
        let response = send(&model, method, path, "", body).await;
        assert_eq!(
            (response.status, response.json()["error"]["type"].as_str()),
            (status, Some(kind)),
            "{method} {path}"
        );
    }
    let unmatched = post(&model, "something else", true).await;
    assert_eq!(unmatched.status, 400);
    let message = "castra-model: no rule of the script matches the user text \"something else\"";
    assert_eq!(unmatched.json()["error"]["message"], message);
}

#[tokio::test]
async fn models_and_tokens() {
    let model = model("models = [\"claude-a\", \"claude-b\"]").await;
    let list = send(&model, "GET", "/v1/models?limit=1000", "", "").await.json();
    let ids: Vec<_> = list["data"].as_array().unwrap().iter().map(|model| model["id"].clone()).collect();
    assert_eq!(
        (ids, &list["has_more"], &list["last_id"]),
        (vec![json!("claude-a"), json!("claude-b")], &json!(false), &json!("claude-b"))
    );
    let one = send(&model, "GET", "/v1/models/claude-b", "", "").await.json();
    assert_eq!((&one["id"], &one["type"]), (&json!("claude-b"), &json!("model")));
    let body = ask("12345678", false);
    let count = send(&model, "POST", "/v1/messages/count_tokens?beta=true", "", &body).await.json();
    assert_eq!(count, json!({"input_tokens": body.len() / 4}));
    assert_eq!(send(&model, "HEAD", "/", "", "").await.status, 200);
}

#[tokio::test]
async fn keys_may_be_required() {
    let model = model(&format!("keys = [\"good\"]\n{HELLO}")).await;
    let table = [
        ("x-api-key: good\r\n", 200),
        ("authorization: Bearer good\r\n", 200),
        ("x-api-key: bad\r\n", 401),
        ("authorization: Bearer bad\r\n", 401),
        ("", 401),
    ];
    for (headers, status) in table {
        let response = send(&model, "POST", "/v1/messages", headers, &ask("hello", false)).await;
        assert_eq!(response.status, status, "{headers}");
    }
}

#[tokio::test]
async fn a_cut_ends_the_connection_in_mid_stream() {
    let model =
        model("[[rule]]\nreply = { text = \"0123456789\", pace.chunk_chars = 3, cut_after_chars = 5 }").await;
    let stream = post(&model, "x", true).await;
    assert_eq!((stream.status, stream.text().as_str(), stream.whole), (200, "01234", false));
    let object = post(&model, "x", false).await;
    assert_eq!((object.status, object.whole, object.body.ends_with("\"text\":\"01234")), (200, false, true));
}

#[tokio::test]
async fn an_error_in_mid_stream_is_an_event() {
    let model = model("[[rule]]\nreply = { text = \"0123\", error = { status = 529, message = \"busy\", after_chars = 2 } }").await;
    let stream = post(&model, "x", true).await;
    assert_eq!((stream.status, stream.text().as_str(), stream.whole), (200, "01", true));
    let error = json!({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}});
    assert_eq!(stream.events().last(), Some(&error));
}

#[tokio::test]
async fn a_huge_text_arrives_whole_in_both_forms() {
    let model =
        model("[[rule]]\nreply.blocks = [{ text = \"all work and no play \", size = \"3MB\" }]").await;
    assert_eq!(post(&model, "x", true).await.text().len(), 3_000_000);
    let whole = post(&model, "x", false).await.json();
    assert_eq!(whole["content"][0]["text"].as_str().map(str::len), Some(3_000_000));
    assert_eq!(whole["usage"]["output_tokens"], 750_000);
}

#[tokio::test]
async fn a_stall_says_nothing_until_the_server_ends() {
    let model =
        model("[[rule]]\nreply = { text = \"0123456789\", stall = { after_chars = 4, forever = true } }")
            .await;
    let mut socket = TcpStream::connect(model.addr()).await.unwrap();
    let body = ask("x", true);
    socket.write_all(head("POST", "/v1/messages", "", body.len()).as_bytes()).await.unwrap();
    socket.write_all(body.as_bytes()).await.unwrap();
    let mut seen = String::new();
    while !seen.contains("\"0123\"") {
        let mut bytes = [0; 4096];
        let count = tokio::time::timeout(DEADLINE, socket.read(&mut bytes)).await.unwrap().unwrap();
        assert_ne!(count, 0, "closed after {seen}");
        seen.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
    }
    tokio::time::timeout(DEADLINE, model.shutdown()).await.expect("a stalled answer holds up no shutdown");
    let mut rest = String::new();
    tokio::time::timeout(DEADLINE, socket.read_to_string(&mut rest)).await.unwrap().ok();
    assert_eq!(rest, "", "nothing more was said");
}

#[tokio::test]
async fn dropping_the_model_closes_its_port() {
    let model = model(HELLO).await;
    let addr = model.addr();
    drop(model);
    let refused = async {
        while TcpStream::connect(addr).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, refused).await.expect("the port is closed");
}

#[tokio::test]
async fn scripts_may_be_changed_while_it_runs() {
    let model = model(HELLO).await;
    model.set_script(Script::parse("[[rule]]\nreply.text = \"call {{call}}\"").unwrap());
    post(&model, "x", true).await;
    assert_eq!(post(&model, "x", true).await.text(), "call 2");
}

#[tokio::test]
async fn requests_are_logged_with_their_secrets_masked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("requests.jsonl");
    let script = Script::parse(HELLO).unwrap();
    let model = Model::start_logged(script, ([127, 0, 0, 1], 0).into(), &path).await.unwrap();
    let headers = "x-api-key: sk-ant-api03-secret-1234\r\nx-claude-code-session-id: s-1\r\n";
    let body = json!({"model": "claude-opus-4-8", "max_tokens": 5, "messages": [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "Bash", "input": {}}]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "t", "content": "out"}, {"type": "text", "text": "hello"}]},
    ]});
    send(&model, "POST", "/v1/messages", headers, &body.to_string()).await;
    send(&model, "GET", "/v1/models", "", "").await;
    let logged: Vec<_> =
        model.requests().iter().map(|entry| serde_json::to_value(&**entry).unwrap()).collect();
    let mut first = logged[0].clone();
    assert!(first["at_ms"].take().as_u64().is_some());
    assert_eq!(first["headers"]["x-api-key"], "***1234");
    first["headers"].take();
    let want = json!({
        "n": 1, "at_ms": null, "method": "POST", "path": "/v1/messages", "headers": null, "status": 200,
        "rule": "hello", "side": null, "conversation": "s-1", "call": 1, "model": "claude-opus-4-8", "stream": false,
        "messages": 3, "last_user": "hello",
        "tool_results": [{"tool": "Bash", "text": "out", "is_error": false}],
        "body_bytes": body.to_string().len(), "body": body,
    });
    assert_eq!(first, want);
    let entry = model.requests()[0].clone();
    assert_eq!((entry.json(), entry.is_messages_call()), (body, true));

    let shown = send(&model, "GET", "/_castra/requests", "", "").await.json();
    assert_eq!(shown, json!({"items": logged, "next": null}));
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<RequestLog> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().map(|entry| serde_json::to_value(entry).unwrap()).collect::<Vec<_>>(), logged);
    assert!(!text.contains("secret"));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(send(&model, "DELETE", "/_castra/requests", "", "").await.status, 204);
    assert!(model.requests().is_empty());
}

#[tokio::test]
async fn only_loopback_is_served() {
    let script = Script::parse(HELLO).unwrap();
    let error = Model::start(script, ([0, 0, 0, 0], 0).into()).await.unwrap_err();
    assert!(matches!(error, StartError::NotLoopback(addr) if addr == ([0, 0, 0, 0], 0).into()));
    let model = model(HELLO).await;
    let taken = Model::start(Script::parse(HELLO).unwrap(), model.addr()).await.unwrap_err();
    assert!(matches!(taken, StartError::Bind { addr, .. } if addr == model.addr()));
    for (host, status) in
        [("evil.example", 403), ("127.0.0.1:80", 200), ("[::1]:80", 200), ("localhost", 200)]
    {
        let mut socket = TcpStream::connect(model.addr()).await.unwrap();
        let request = format!("GET /_castra/requests HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(read(socket).await.status, status, "{host}");
    }
}
