//! What the fake says: claude's lines, modelled on 2.1.197, written to stdout; and its transcript.

use crate::json::{Json, quoted};
use std::io::{self, BufWriter, Write as _};
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

pub(crate) struct Voice {
    out: BufWriter<io::Stdout>,
    pub(crate) session: String,
    pub(crate) version: String,
    transcript: Option<PathBuf>,
    /// Nanoseconds at the start, so that two runs of one session never use an id twice.
    born: u64,
    ids: u64,
}

impl Voice {
    pub(crate) fn new(session: String, version: String) -> Self {
        let transcript = transcript(&session);
        let born = UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as u64);
        let out = BufWriter::with_capacity(1 << 16, io::stdout());
        Self { out, session, version, transcript, born, ids: 0 }
    }

    /// Version 4 in form.
    pub(crate) fn uuid(&mut self) -> String {
        self.ids += 1;
        format!("{:08x}-{:04x}-4000-8000-{:012x}", (self.born >> 16) as u32, self.born as u16, self.ids)
    }

    /// Bytes as they are, without waiting for company.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        // A reader that left is no reason to end: neither does claude (facts §0.2).
        let _ = self.out.write_all(bytes);
    }

    pub(crate) fn flush(&mut self) {
        let _ = self.out.flush();
    }

    /// `fields` without braces; `session_id` and `uuid` are added.
    pub(crate) fn line(&mut self, fields: &str) {
        let (uuid, session) = (self.uuid(), self.session.clone());
        self.raw(format!("{{{fields},\"session_id\":\"{session}\",\"uuid\":\"{uuid}\"}}\n").as_bytes());
    }

    pub(crate) fn state(&mut self, state: &str) {
        self.line(&format!(r#""type":"system","subtype":"session_state_changed","state":"{state}""#));
        self.flush();
    }

    pub(crate) fn init(&mut self) {
        let cwd = std::env::current_dir().unwrap_or_default();
        let (cwd, version) = (quoted(&cwd.to_string_lossy()), quoted(&self.version));
        self.line(&format!(
            r#""type":"system","subtype":"init","cwd":{cwd},"tools":["Bash"],"mcp_servers":[],"model":"fake","permissionMode":"default","slash_commands":[],"apiKeySource":"none","claude_code_version":{version},"output_style":"default","agents":[],"skills":[],"plugins":[]"#
        ));
    }

    /// The user's message again, as the sign that it was taken in.
    pub(crate) fn replay(&mut self, message: &Json, uuid: &str) {
        let session = self.session.clone();
        let uuid = if uuid.is_empty() { self.uuid() } else { uuid.to_owned() };
        let line = format!(
            r#"{{"type":"user","message":{message},"session_id":"{session}","parent_tool_use_id":null,"uuid":"{uuid}","isReplay":true}}"#
        );
        self.raw(line.as_bytes());
        self.raw(b"\n");
        self.flush();
        self.record("user", message, &uuid);
    }

    /// One text block; `text` in quotes already.
    pub(crate) fn assistant_line(&mut self, quoted_text: &str) {
        let id = self.ids;
        self.line(&format!(
            r#""type":"assistant","message":{{"id":"msg_{id}","type":"message","role":"assistant","model":"fake","content":[{{"type":"text","text":{quoted_text}}}],"stop_reason":null,"stop_sequence":null,"usage":{{"input_tokens":1,"output_tokens":1}}}},"parent_tool_use_id":null"#
        ));
    }

    pub(crate) fn assistant(&mut self, text: &str) {
        self.assistant_line(&quoted(text));
        let content =
            format!(r#"{{"role":"assistant","content":[{{"type":"text","text":{}}}]}}"#, quoted(text));
        let uuid = self.uuid();
        if let Some(message) = Json::parse(&content) {
            self.record("assistant", &message, &uuid);
        }
    }

    pub(crate) fn event(&mut self, event: &str) {
        self.line(&format!(r#""type":"stream_event","event":{event},"parent_tool_use_id":null"#));
    }

    pub(crate) fn result(&mut self, text: &str) {
        let text = quoted(text);
        self.line(&format!(
            r#""type":"result","subtype":"success","is_error":false,"duration_ms":1,"duration_api_ms":1,"num_turns":1,"result":{text},"stop_reason":"end_turn","total_cost_usd":0,"usage":{{"input_tokens":1,"output_tokens":1}},"modelUsage":{{}},"permission_denials":[],"terminal_reason":"completed""#
        ));
        self.flush();
    }

    pub(crate) fn interrupted(&mut self) {
        self.line(
            r#""type":"user","message":{"role":"user","content":[{"type":"text","text":"[Request interrupted by user]"}]},"parent_tool_use_id":null"#,
        );
        self.line(
            r#""type":"result","subtype":"error_during_execution","is_error":true,"duration_ms":1,"duration_api_ms":1,"num_turns":1,"stop_reason":null,"total_cost_usd":0,"usage":{},"modelUsage":{},"permission_denials":[],"errors":[],"terminal_reason":"aborted_streaming""#,
        );
        self.flush();
    }

    pub(crate) fn response(&mut self, request_id: &str, response: &str) {
        let id = quoted(request_id);
        self.raw(
            format!(
                "{{\"type\":\"control_response\",\"response\":{{\"subtype\":\"success\",\"request_id\":{id},\"response\":{response}}}}}\n"
            )
            .as_bytes(),
        );
        self.flush();
    }

    fn record(&mut self, kind: &str, message: &Json, uuid: &str) {
        let Some(path) = &self.transcript else { return };
        let line = format!(
            "{{\"type\":\"{kind}\",\"message\":{message},\"uuid\":\"{uuid}\",\"parentUuid\":null,\"isSidechain\":false,\"sessionId\":\"{}\"}}\n",
            self.session
        );
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
    }
}

/// `$CLAUDE_CONFIG_DIR/projects/<key>/<session>.jsonl`, where that folder can be made.
pub(crate) fn transcript(session: &str) -> Option<PathBuf> {
    let cwd = std::env::current_dir().ok()?;
    let key: String =
        cwd.to_str()?.chars().map(|char| if char.is_ascii_alphanumeric() { char } else { '-' }).collect();
    let folder = PathBuf::from(std::env::var_os("CLAUDE_CONFIG_DIR")?).join("projects").join(key);
    std::fs::create_dir_all(&folder).ok()?;
    Some(folder.join(format!("{session}.jsonl")))
}
