//! `fake-claude`: stands in for the CLI where a test needs faults and floods that the real one does not produce
//! on demand. Speaks enough stream-json to be driven; the prompt says what it does (`turn.rs`, `--help`).
//! Refuses to be a model of claude's behaviour: what claude does is tested with claude.
//!
//! Where stdin is a terminal it is a TUI (`tui.rs`). Before the first prompt `FAKE_CLAUDE` in its environment decides: `hang` (never answers `initialize`), `deaf`
//! (never reads), `noise` (garbage before the answer), `exit N`. `--version` prints what the file
//! `<executable>.version` holds, else `2.1.999 (Claude Code)`.

mod json;
mod tui;
mod turn;
mod voice;

use json::Json;
use std::collections::VecDeque;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Instant;
use turn::After;
use voice::Voice;

/// A line of stdin, understood.
pub(crate) enum Line {
    User { message: Json, uuid: String, prompt: String },
    Control { request_id: String, subtype: String },
    Response { request_id: String, response: Json },
}

/// What concerns the turn that is running.
pub(crate) enum Heard {
    Interrupt,
    Response {
        request_id: String,
        response: Json,
    },
    /// Nothing in the time given.
    Nothing,
    /// `end_session`, or the end of stdin.
    End,
}

/// What it has heard and not yet done.
pub(crate) struct Mind {
    lines: Receiver<Line>,
    /// Messages that came during a turn.
    later: VecDeque<Line>,
    pub(crate) deaf: bool,
    /// Memory that was asked for.
    pub(crate) kept: Vec<Vec<u8>>,
}

impl Mind {
    /// Answers control requests and keeps messages until something concerns the turn, or until `end`.
    pub(crate) fn next(&mut self, voice: &mut Voice, end: Option<Instant>) -> Heard {
        loop {
            let line = match end {
                Some(end) => match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                    Ok(line) => line,
                    Err(RecvTimeoutError::Timeout) => return Heard::Nothing,
                    Err(RecvTimeoutError::Disconnected) => return Heard::End,
                },
                None => match self.lines.recv() {
                    Ok(line) => line,
                    Err(_) => return Heard::End,
                },
            };
            match line {
                Line::User { .. } => self.later.push_back(line),
                Line::Response { request_id, response } => return Heard::Response { request_id, response },
                Line::Control { request_id, subtype } => {
                    voice.response(&request_id, &answer(&subtype));
                    match subtype.as_str() {
                        "interrupt" => return Heard::Interrupt,
                        "end_session" => return Heard::End,
                        _ => {}
                    }
                }
            }
        }
    }
}

/// To a control request; whatever it is, it succeeds.
fn answer(subtype: &str) -> String {
    match subtype {
        "initialize" => format!(
            r#"{{"commands":[],"agents":[],"output_style":"default","available_output_styles":[],"models":[],"account":{{}},"pid":{}}}"#,
            std::process::id()
        ),
        "cancel_async_message" => r#"{"cancelled":false}"#.into(),
        _ => "{}".into(),
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    if has("--version") || has("-v") {
        return said(&version());
    }
    if has("--help") {
        let prompts = turn::PROMPTS.into_iter().chain(tui::PROMPTS);
        let lines: Vec<String> = prompts.map(|(prompt, meaning)| format!("{prompt:20} {meaning}")).collect();
        return said(&lines.join("\n"));
    }
    if has("--hold") {
        park();
    }
    let value = |flag: &str| {
        let prefix = format!("{flag}=");
        args.iter().find_map(|arg| arg.strip_prefix(&prefix).map(str::to_owned))
    };
    let session = value("--session-id").or_else(|| value("--resume"));
    let session = session.unwrap_or_else(|| "00000000-0000-4000-8000-000000000000".into());
    let version = version();
    let start = std::env::var("FAKE_CLAUDE").unwrap_or_default();
    if std::io::stdin().is_terminal() {
        let version = version.split(' ').next().unwrap_or_default().to_owned();
        return ExitCode::from(tui::Tui::new(session, version, &start).run());
    }
    let mut voice = Voice::new(session, version.split(' ').next().unwrap_or_default().to_owned());
    match start.split_once(' ').unwrap_or((&start, "")) {
        ("exit", code) => {
            let _ = writeln!(std::io::stderr(), "fake-claude was told to leave");
            return ExitCode::from(code.parse().unwrap_or(1));
        }
        ("deaf", _) => park(),
        ("hang", _) => {
            // Reads, and ends with its stdin as claude does.
            let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
            return ExitCode::SUCCESS;
        }
        ("noise", _) => {
            for line in turn::GARBAGE {
                voice.raw(line);
                voice.raw(b"\n");
            }
            voice.flush();
        }
        _ => {}
    }
    ExitCode::from(converse(voice))
}

/// Until it is killed: whoever tests that a tree ends wants one that does not end by itself.
fn park() -> ! {
    loop {
        std::thread::park();
    }
}

fn said(text: &str) -> ExitCode {
    let _ = writeln!(std::io::stdout(), "{text}");
    ExitCode::SUCCESS
}

fn version() -> String {
    let beside = std::env::current_exe().map(|path| path.with_extension("version"));
    let told = beside.and_then(std::fs::read_to_string);
    told.map_or_else(|_| "2.1.999 (Claude Code)".to_owned(), |text| text.trim().to_owned())
}

fn converse(mut voice: Voice) -> u8 {
    let (sender, lines) = sync_channel(0);
    std::thread::spawn(move || listen(&sender));
    let mut mind = Mind { lines, later: VecDeque::new(), deaf: false, kept: Vec::new() };
    loop {
        if mind.deaf {
            park();
        }
        let line = match mind.later.pop_front() {
            Some(line) => line,
            None => match mind.lines.recv() {
                Ok(line) => line,
                Err(_) => return 0,
            },
        };
        match line {
            Line::Control { request_id, subtype } => {
                voice.response(&request_id, &answer(&subtype));
                if subtype == "end_session" {
                    return 0;
                }
            }
            Line::User { message, uuid, prompt } => {
                voice.state("running");
                voice.init();
                voice.replay(&message, &uuid);
                match turn::turn(&mut voice, &mut mind, &prompt) {
                    After::Done => {}
                    After::Interrupted => voice.interrupted(),
                    After::Exit(code) => {
                        voice.flush();
                        return u8::try_from(code).unwrap_or(1);
                    }
                }
                voice.state("idle");
            }
            // An answer that nobody asked for is ignored, as claude does.
            Line::Response { .. } => {}
        }
    }
}

/// Reads one line ahead of who listens, so that a deaf fake leaves stdin unread.
fn listen(lines: &SyncSender<Line>) {
    let mut stdin = std::io::stdin().lock();
    let mut line = Vec::new();
    loop {
        line.clear();
        match stdin.read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let Some(value) = std::str::from_utf8(&line).ok().and_then(Json::parse) else {
            // As claude does (facts §0.3).
            let _ = writeln!(std::io::stderr(), "not a line of JSON");
            std::process::exit(1);
        };
        if let Some(line) = understand(&value)
            && lines.send(line).is_err()
        {
            return;
        }
    }
}

fn understand(value: &Json) -> Option<Line> {
    let text = |value: &Json| value.text().to_owned();
    match value.get("type").text() {
        "user" => {
            let message = value.get("message").clone();
            let prompt = match message.get("content") {
                Json::List(blocks) => {
                    let texts: Vec<&str> = blocks.iter().map(|block| block.get("text").text()).collect();
                    texts.join("\n")
                }
                content => text(content),
            };
            Some(Line::User { message, uuid: text(value.get("uuid")), prompt })
        }
        "control_request" => {
            let request_id = text(value.get("request_id"));
            Some(Line::Control { request_id, subtype: text(value.get("request").get("subtype")) })
        }
        "control_response" => {
            let response = value.get("response");
            let request_id = text(response.get("request_id"));
            Some(Line::Response { request_id, response: response.get("response").clone() })
        }
        _ => None,
    }
}
