//! `flood-claude`: a CLI that costs next to nothing, so that what drives it is what is measured. Its lines have the
//! shape and size of claude 2.1.197's (facts/performance.md §1); they are made once and written in large pieces.
//! Refuses faults and oddities: those are fake-claude's.
//!
//! On a terminal it shows an empty composer, echoes keys, and for `F`, a number and Enter writes so many bytes: lines
//! that scroll by; for `R` the same lines, but each screen full of them drawn over the one before.
//! The prompt's first word decides: `deltas N`, `events N BYTES`, `line BYTES`; anything else is a plain turn.

use serde_json::{Value, json};
use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::process::ExitCode;

/// Text deltas of one message: a long answer. claude itself sends at most some ten thousand.
const DELTAS: usize = 1000;
/// Lines of one piece of a flood of events.
const EVENTS: usize = 200;
/// Digits of the number in each event, so that a lost or doubled one shows.
const DIGITS: usize = 9;

fn main() -> ExitCode {
    if std::env::args().any(|arg| arg == "--version" || arg == "-v") {
        let said = writeln!(std::io::stdout(), "2.1.999 (Claude Code)");
        return if said.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    if std::io::stdin().is_terminal() {
        // Whoever looked at it is gone.
        terminal().unwrap_or_default();
        return ExitCode::SUCCESS;
    }
    let id = std::env::args().find_map(|arg| {
        let of = |flag| arg.strip_prefix(flag).map(str::to_owned);
        of("--session-id=").or_else(|| of("--resume="))
    });
    let session = id.unwrap_or_else(|| "00000000-0000-4000-8000-000000000000".into());
    let mut stdin = std::io::stdin().lock();
    let mut line = Vec::new();
    loop {
        line.clear();
        if !stdin.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            return ExitCode::SUCCESS;
        }
        let Ok(message) = serde_json::from_slice::<Value>(&line) else { return ExitCode::FAILURE };
        let ok = match message["type"].as_str() {
            Some("control_request") => {
                let over = message["request"]["subtype"] == "end_session";
                let said = answer(&message);
                if over {
                    return ExitCode::SUCCESS;
                }
                said
            }
            Some("user") => turn(&message, &session),
            _ => Some(()),
        };
        // Whoever drove us is gone.
        if ok.is_none() {
            return ExitCode::SUCCESS;
        }
    }
}

/// Of the window.
const ROWS: usize = 50;

/// An empty composer as claude draws it at 200 columns.
fn composer() -> String {
    let rule = "\u{2500}".repeat(200);
    format!("\r\n{rule}\r\n\u{276f}\u{a0}\r\n{rule}\r\n  ? for shortcuts")
}

fn terminal() -> Option<()> {
    let stdin = rustix::stdio::stdin();
    let mut modes = rustix::termios::tcgetattr(stdin).ok()?;
    modes.make_raw();
    rustix::termios::tcsetattr(stdin, rustix::termios::OptionalActions::Now, &modes).ok()?;
    put(format!("\x1b[2J\x1b[H\x1b]0;\u{2733} flood\x07{}", composer()).as_bytes())?;
    // As a compiler or a test runner writes: some colour, lines of half a window.
    let line = format!("\x1b[32mok\x1b[0m {}\r\n", "words of a line ".repeat(6));
    let lines = (1 << 16) / line.len();
    let piece = line.repeat(lines);
    let drawn = format!("\x1b[H{}", line.repeat(ROWS - 1)).repeat(lines / ROWS);
    let mut keys = std::io::stdin().lock().bytes();
    loop {
        let key = keys.next()?.ok()?;
        let piece = match key {
            b'F' => &piece,
            b'R' => &drawn,
            key => {
                put(&[key])?;
                continue;
            }
        };
        let mut left = 0_usize;
        while let Some(digit) = keys.next()?.ok().filter(u8::is_ascii_digit) {
            left = left.checked_mul(10)?.checked_add(usize::from(digit - b'0'))?;
        }
        while left > 0 {
            let now = left.min(piece.len());
            put(&piece.as_bytes()[..now])?;
            left -= now;
        }
        put(format!("\x1b[0m\r\nthat was all{}", composer()).as_bytes())?;
    }
}

fn put(bytes: &[u8]) -> Option<()> {
    let mut from = 0;
    while from < bytes.len() {
        match rustix::io::write(rustix::stdio::stdout(), &bytes[from..]) {
            Ok(written) => from += written,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
    Some(())
}

fn answer(request: &Value) -> Option<()> {
    let response = match request["request"]["subtype"].as_str() {
        Some("initialize") => json!({
            "commands": [], "agents": [], "output_style": "default", "available_output_styles": [],
            "models": [], "account": {}, "pid": std::process::id(),
        }),
        _ => json!({}),
    };
    let said = json!({"type": "control_response", "response":
        {"subtype": "success", "request_id": request["request_id"], "response": response}});
    put(format!("{said}\n").as_bytes())
}

fn turn(message: &Value, session: &str) -> Option<()> {
    let content = &message["message"]["content"];
    let prompt = content.as_str().or_else(|| content[0]["text"].as_str()).unwrap_or_default();
    let mut words = prompt.split(' ');
    let word = words.next().unwrap_or_default();
    let mut number = |otherwise: usize| words.next().and_then(|n| n.parse().ok()).unwrap_or(otherwise);
    let opening = opening(message, session);
    match word {
        "deltas" => {
            put(opening.as_bytes())?;
            deltas(number(DELTAS), session)?;
        }
        "events" => {
            put(opening.as_bytes())?;
            events(number(EVENTS), number(240), session)?;
        }
        "line" => {
            put(opening.as_bytes())?;
            let text = "x".repeat(number(1 << 20));
            put(assistant("msg_line", &text, session).as_bytes())?;
        }
        // As the real CLI's plain turn; in one write, so that the driver alone decides how often it syncs.
        _ => {
            let said = plain(session);
            return put(format!("{opening}{said}{}", closing(session)).as_bytes());
        }
    }
    put(closing(session).as_bytes())
}

const UUID: &str = "5f0c1c1e-8d7b-4c3e-9a64-2f6d3b1a7c90";

fn line(fields: &str, session: &str) -> String {
    format!("{{{fields},\"session_id\":\"{session}\",\"uuid\":\"{UUID}\"}}\n")
}

fn state(state: &str, session: &str) -> String {
    line(&format!(r#""type":"system","subtype":"session_state_changed","state":"{state}""#), session)
}

/// What comes before an answer: the state, `init` (1.4 kB), the message again.
fn opening(message: &Value, session: &str) -> String {
    let tools = (0..60).map(|n| format!("\"mcp__tool_{n:04}\"")).collect::<Vec<_>>().join(",");
    let init = format!(
        r#""type":"system","subtype":"init","cwd":"/w","tools":[{tools}],"mcp_servers":[],"model":"fake","permissionMode":"default","slash_commands":[],"apiKeySource":"none","claude_code_version":"2.1.999","output_style":"default","agents":[],"skills":[],"plugins":[]"#
    );
    let replay = json!({"type": "user", "message": message["message"], "session_id": session,
        "parent_tool_use_id": null, "uuid": message["uuid"], "isReplay": true});
    format!("{}{}{replay}\n", state("running", session), line(&init, session))
}

fn closing(session: &str) -> String {
    let result = line(
        r#""type":"result","subtype":"success","is_error":false,"duration_ms":1,"duration_api_ms":1,"num_turns":1,"result":"done","stop_reason":"end_turn","total_cost_usd":0.01,"usage":{"input_tokens":1,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":1,"service_tier":"standard"},"modelUsage":{},"permission_denials":[],"terminal_reason":"completed""#,
        session,
    );
    format!("{result}{}", state("idle", session))
}

fn event(event: &str, session: &str) -> String {
    line(&format!(r#""type":"stream_event","event":{event},"parent_tool_use_id":null"#), session)
}

fn assistant(id: &str, text: &str, session: &str) -> String {
    line(
        &format!(
            r#""type":"assistant","message":{{"id":"{id}","type":"message","role":"assistant","model":"fake","content":[{{"type":"text","text":"{text}"}}],"stop_reason":null,"stop_sequence":null,"usage":{{"input_tokens":1,"output_tokens":1}}}},"parent_tool_use_id":null"#
        ),
        session,
    )
}

/// One message in `count` deltas of 242 bytes, with its beginning and its end.
fn message(id: &str, count: usize, session: &str) -> String {
    let piece = "twelve bytes";
    let mut out = event(
        &format!(
            r#"{{"type":"message_start","message":{{"id":"{id}","type":"message","role":"assistant","model":"fake","content":[],"stop_reason":null,"usage":{{"input_tokens":1,"output_tokens":1}}}}}}"#
        ),
        session,
    );
    out += &event(
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
        session,
    );
    let delta = event(
        &format!(
            r#"{{"type":"content_block_delta","index":0,"delta":{{"type":"text_delta","text":"{piece}"}}}}"#
        ),
        session,
    );
    out += &delta.repeat(count);
    out += &assistant(id, &piece.repeat(count), session);
    out += &event(r#"{"type":"content_block_stop","index":0}"#, session);
    out += &event(
        r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":1}}"#,
        session,
    );
    out += &event(r#"{"type":"message_stop"}"#, session);
    out
}

fn plain(session: &str) -> String {
    message("msg_plain", 3, session)
}

fn deltas(count: usize, session: &str) -> Option<()> {
    let piece = message("msg_flood", DELTAS, session);
    for _ in 0..count / DELTAS {
        put(piece.as_bytes())?;
    }
    match count % DELTAS {
        0 => Some(()),
        rest => put(message("msg_rest", rest, session).as_bytes()),
    }
}

/// Assistant lines of about `bytes` bytes, each with its own number.
fn events(count: usize, bytes: usize, session: &str) -> Option<()> {
    let zero = "0".repeat(DIGITS);
    let empty = assistant("msg_event", &format!("{zero}:"), session);
    let filling = "x".repeat(bytes.saturating_sub(empty.len()));
    let one = assistant("msg_event", &format!("{zero}:{filling}"), session);
    let at = one.find(&format!("{zero}:"))?;
    let mut piece = one.repeat(EVENTS.min(count)).into_bytes();
    let mut n = 0;
    while n < count {
        let lines = EVENTS.min(count - n);
        for line in 0..lines {
            let from = line * one.len() + at;
            let number = format!("{:0DIGITS$}", n + line);
            piece[from..from + DIGITS].copy_from_slice(number.as_bytes());
        }
        put(&piece[..lines * one.len()])?;
        n += lines;
    }
    Some(())
}
