//! The routes of tasks: who may, what is refused, pages, the stream, and the bytes of a deliverable.

use crate::CASTRA;
use castra_proto::api::Page;
use castra_proto::task::{Deliverable, Level, LogLine, TaskEvent};
use castra_proto::{ErrorCode, Task, TaskState};
use castra_testkit::{Daemon, World, clis};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;

/// The agent hands over two versions of a file whose path is no word, and is done.
const SCRIPT: &str = r##"
[[rule]]
name = "work"
when.last_user.regex = '^System\['
reply.blocks = [
    { tool_use = { name = "Bash", input = { description = "Write", command = "mkdir -p 'deliverables/a b'; echo one > 'deliverables/a b/ü?.html'" } } },
    { tool_use = { name = "mcp__castra__deliver", input = { path = "deliverables/a b/ü?.html" } } },
    { tool_use = { name = "Bash", input = { description = "Write", command = "echo two > 'deliverables/a b/ü?.html'" } } },
    { tool_use = { name = "mcp__castra__deliver", input = { path = "deliverables/a b/ü?.html" } } },
    { tool_use = { name = "mcp__castra__report_status", input = { message = "nearly", percent = 90 } } },
    { tool_use = { name = "mcp__castra__done", input = {} } },
]
[[rule]]
reply.text = "Yes."
"##;

const FILE: &str = "/deliverables/a%20b/%C3%BC%3F.html";

fn spec(world: &World) -> Value {
    json!({
        "name": "two",
        "instructions": "Do it.",
        "labels": {"kind": "a=b"},
        "session": world.spec(json!({"allowed_tools": ["Bash"]})),
    })
}

/// Frames of a stream from behind `Last-Event-ID`, until `until` is among them.
fn stream(daemon: &Daemon<'_>, token: &str, path: &str, last: Option<&str>, until: u64) -> Vec<TaskEvent> {
    let mut socket = TcpStream::connect(daemon.addr()).unwrap();
    let last = last.map(|last| format!("Last-Event-ID: {last}\r\n")).unwrap_or_default();
    let (addr, accept) = (daemon.addr(), "text/event-stream");
    write!(socket, "GET {path} HTTP/1.0\r\nHost: {addr}\r\nAuthorization: Bearer {token}\r\nAccept: {accept}\r\n{last}\r\n")
        .unwrap();
    let mut events: Vec<TaskEvent> = Vec::new();
    let mut id = None;
    for line in BufReader::new(socket).lines() {
        let line = line.unwrap();
        if let Some(given) = line.strip_prefix("id: ") {
            id = Some(given.to_owned());
        } else if let Some(data) = line.strip_prefix("data: ") {
            let event: TaskEvent = serde_json::from_str(data).unwrap();
            assert_eq!(id.take(), Some(event.seq.to_string()));
            let seq = event.seq;
            events.push(event);
            if seq >= until {
                return events;
            }
        }
    }
    panic!("the stream ended: {events:?}");
}

#[test]
fn tasks_over_http() {
    let cli = clis().remove(0);
    let world = World::new(CASTRA, &cli.path, SCRIPT);
    let daemon = world.daemon();
    let http = daemon.http();
    let token = |scope: &str| world.cli(["token", "create", "--scope", scope]).ok().trim().to_owned();
    let (reader, driver) = (token("read"), token("drive"));

    // The same key is the same task, another body under it is refused; so is who may only read.
    let body = spec(&world);
    let key = [("idempotency-key", "one")];
    let task: Task = http.post_with("/api/v1/tasks", &key, &body).expect(201);
    let again: Task = http.post_with("/api/v1/tasks", &key, &body).expect(201);
    assert_eq!(again.id, task.id);
    let mut other = body.clone();
    other["priority"] = json!(1);
    assert_eq!(http.post_with("/api/v1/tasks", &key, &other).problem().code, ErrorCode::IdempotencyMismatch);
    let refused = |body: Value| http.post("/api/v1/tasks", &body).problem();
    let unknown = refused(json!({"prompt": "x"}));
    assert_eq!((unknown.code, unknown.status), (ErrorCode::UnknownField, 400));
    assert_eq!(refused(json!({"instructions": " "})).code, ErrorCode::InvalidRequest);
    assert_eq!(daemon.http_as(&reader).post("/api/v1/tasks", &body).problem().code, ErrorCode::Forbidden);

    let path = |below: &str| format!("/api/v1/tasks/two{below}");
    let done: Task = http.get(&path("?wait=120")).expect(200);
    assert_eq!((done.id, done.state), (task.id, TaskState::Done), "{done:?}");
    let there: Task = http.get(&path("?wait=0&deliverable=none")).expect(200);
    assert_eq!(there.state, TaskState::Done);
    assert_eq!(http.get(&path("?wait=3601")).problem().code, ErrorCode::InvalidRequest);
    // Over: it stays as it is.
    let cancelled: Task = http.post(&path("/cancel"), &Value::Null).expect(200);
    assert_eq!(cancelled.state, TaskState::Done);

    // Whoever is bound to a session sees no tasks, not even its own.
    let session = done.session_id.unwrap().to_string();
    let bound = world.cli(["token", "create", "--scope", "drive", "--session", &session]).ok();
    let bound = daemon.http_as(bound.trim());
    for path in ["/api/v1/tasks".to_owned(), path(""), path("/events"), path(FILE)] {
        assert_eq!(bound.get(&path).problem().code, ErrorCode::Forbidden, "{path}");
    }

    let listed = |query: &str| -> Vec<String> {
        let page: Page<Task> = http.get(&format!("/api/v1/tasks{query}")).expect(200);
        page.items.iter().map(|task| task.id.to_string()).collect()
    };
    let id = task.id.to_string();
    for query in ["?all", "?state=done", "?state=failed,done", "?all&label=kind%3Da%3Db&limit=1"] {
        assert_eq!(listed(query), std::slice::from_ref(&id), "{query}");
    }
    for query in ["", "?state=failed", "?all&label=kind%3Dc"] {
        assert_eq!(listed(query), Vec::<String>::new(), "{query}");
    }
    for query in ["?state=over", "?label=kind", "?cursor=x", "?colour=x"] {
        let code = http.get(&format!("/api/v1/tasks{query}")).problem().code;
        assert!(matches!(code, ErrorCode::InvalidRequest | ErrorCode::UnknownField), "{query}: {code}");
    }

    // Pages, the stream and the log tell the same.
    let events: Page<TaskEvent> = http.get(&path("/events?limit=1000")).expect(200);
    let (events, last) = (events.items, events.next.unwrap());
    assert_eq!(
        events.iter().map(|event| event.seq).collect::<Vec<_>>(),
        Vec::from_iter(1..=events.len() as u64)
    );
    let head = events.len() as u64;
    assert_eq!(last, head.to_string());
    let empty: Page<TaskEvent> = http.get(&path(&format!("/events?after={last}"))).expect(200);
    assert_eq!(empty, Page { items: Vec::new(), next: None });
    assert_eq!(stream(&daemon, &reader, &path("/events"), None, head), events);
    assert_eq!(stream(&daemon, &reader, &path("/events?after=1"), Some("3"), head), events[3..]);
    let accept = [("accept", "text/event-stream"), ("last-event-id", "99999")];
    let gone = http.call("GET".parse().unwrap(), &path("/events"), &accept, Default::default());
    assert_eq!(gone.problem().code, ErrorCode::Gone);
    for level in [Level::Debug, Level::Event, Level::Error] {
        let mut lines: Vec<LogLine> = Vec::new();
        let mut after = "0".to_owned();
        loop {
            let query = format!("/log?after={after}&limit=2&level={}", level.as_str());
            let page: Page<LogLine> = http.get(&path(&query)).expect(200);
            assert!(page.items.len() <= 2);
            lines.extend(page.items);
            match page.next {
                Some(next) => after = next,
                None => break,
            }
        }
        let expected: Vec<LogLine> = (events.iter().filter(|event| event.level >= level))
            .map(|event| LogLine {
                seq: event.seq,
                at: event.at,
                level: event.level,
                message: event.message.clone(),
            })
            .collect();
        assert_eq!(lines, expected, "{}", level.as_str());
    }

    // Bytes are saved, never shown.
    let all: Page<Deliverable> = http.get(&path("/deliverables")).expect(200);
    assert_eq!(
        all.items.iter().map(|one| (one.path.as_str(), one.version)).collect::<Vec<_>>(),
        [("a b/ü?.html", 1), ("a b/ü?.html", 2)]
    );
    let got = http.get(&path(FILE));
    let header = |name: &str| {
        got.headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    };
    assert_eq!((got.status, got.text().as_str()), (200, "two\n"));
    // `echo two | sha256sum`
    let etag = "\"27dd8ed44a83ff94d557f9fd0412ed5a8cbca69ea04922d88c01184a07300a5a\"".to_owned();
    assert_eq!(etag, format!("\"{}\"", all.items[1].sha256));
    for (name, value) in [
        ("content-type", "text/html"),
        ("content-disposition", "attachment; filename=\"__.html\"; filename*=UTF-8''%C3%BC%3F.html"),
        ("x-content-type-options", "nosniff"),
        ("etag", &etag),
    ] {
        assert_eq!(header(name), value);
    }
    assert_eq!(http.get(&path(&format!("{FILE}?version=1"))).text(), "one\n");
    assert_eq!(
        http.get(&path("/deliverables/a%20b%2F%C3%BC%3F.html")).text(),
        "two\n",
        "an encoded slash is one"
    );
    let same =
        http.call("GET".parse().unwrap(), &path(FILE), &[("if-none-match", &etag)], Default::default());
    assert_eq!((same.status, same.body.len()), (304, 0));
    for missing in [format!("{FILE}?version=3"), "/deliverables/../../x".into(), "/deliverables/a%20b".into()]
    {
        assert_eq!(http.get(&path(&missing)).problem().code, ErrorCode::NotFound, "{missing}");
    }

    assert_eq!(daemon.http_as(&driver).delete(&path("")).status, 204);
    assert_eq!(http.get(&path("")).problem().code, ErrorCode::NotFound);
}
