//! The smallest model that makes the real CLI run one tool: a loopback server that says the same to everyone.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::{fs, thread};

use serde_json::{Value, json};

/// The CLIs to test with. Without any there is no test, and that is a failure.
pub(crate) fn real_clis() -> Vec<String> {
    let paths = std::env::var("CASTRA_TEST_CLAUDE").unwrap_or_default();
    let paths: Vec<String> = paths.split(':').filter(|path| !path.is_empty()).map(str::to_owned).collect();
    assert!(
        !paths.is_empty(),
        "CASTRA_TEST_CLAUDE is not set: name the claude binaries, separated by colons"
    );
    paths.into_iter().map(|path| fs::canonicalize(path).unwrap().to_str().unwrap().to_owned()).collect()
}

/// Answers with one Bash call of `command`, and with `done` when its result is there. Returns the base URL.
pub(crate) fn serve(command: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let command = command.to_owned();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let command = command.clone();
            // A connection that the CLI drops is its own affair.
            thread::spawn(move || answer_all(stream, &command));
        }
    });
    url
}

fn answer_all(stream: TcpStream, command: &str) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut stream = stream;
    loop {
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if line == "\r\n" {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            head.push_str(&line);
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let (kind, text) = if head.starts_with("POST /v1/messages?") || head.starts_with("POST /v1/messages ")
        {
            ("text/event-stream", message(&body, command))
        } else {
            ("application/json", json!({"input_tokens": 1, "data": []}).to_string())
        };
        let length = text.len();
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{text}")
            .ok()?;
    }
}

fn message(request: &Value, command: &str) -> String {
    let has_tools = request["tools"].as_array().is_some_and(|tools| !tools.is_empty());
    let answered = request["messages"].to_string().contains("\"tool_result\"");
    let (block, delta, stop) = if has_tools && !answered {
        let input = json!({"command": command, "description": "test"}).to_string();
        (
            json!({"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {}}),
            json!({"type": "input_json_delta", "partial_json": input}),
            "tool_use",
        )
    } else {
        (json!({"type": "text", "text": ""}), json!({"type": "text_delta", "text": "done"}), "end_turn")
    };
    let usage = json!({"input_tokens": 1, "output_tokens": 1});
    let events = [
        json!({"type": "message_start", "message": {
            "id": "msg_1", "type": "message", "role": "assistant", "model": request["model"], "content": [],
            "stop_reason": null, "stop_sequence": null, "usage": usage,
        }}),
        json!({"type": "content_block_start", "index": 0, "content_block": block}),
        json!({"type": "content_block_delta", "index": 0, "delta": delta}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": null}, "usage": usage}),
        json!({"type": "message_stop"}),
    ];
    let frame =
        |event: &Value| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default());
    events.iter().map(frame).collect()
}
