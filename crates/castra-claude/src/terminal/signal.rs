//! What a running TUI says about itself beside the transcript: its state file, the window's title, notifications.
//!
//! Measured on 2.1.197 and 2.1.329 (docs/terminal.md). Refuses to conclude: who hears two signals decides.

use crate::field::{number, string, text, uuid};
use serde_json::Value;
use uuid::Uuid;

/// claude's own word on what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Also while a background shell runs, which claude calls `shell`.
    Idle,
    Busy,
    /// A dialog is open.
    Waiting,
}

/// The content of `sessions/<pid>.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub pid: Option<i32>,
    /// Of the conversation; another one after `/clear`.
    pub session_id: Option<Uuid>,
    pub cwd: Option<String>,
    pub version: Option<String>,
    /// Not yet there at the very start; none also where it is a word that this version of castra does not know.
    pub status: Option<Status>,
    /// `permission prompt`, `input needed` (2.1.329: a question) or `dialog open` (claude's own, such as `/config`).
    pub waiting_for: Option<String>,
    /// A shell runs in the background.
    pub shell: bool,
    /// Since when it is in this state, by claude's clock; Unix milliseconds. Another number for the same words is
    /// another dialog.
    pub since_ms: Option<u64>,
    /// When claude started, by the same clock.
    pub started_ms: Option<u64>,
}

impl State {
    /// None: no JSON object; a reader that races claude's write sees half of it.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(bytes).ok()?;
        value.as_object()?;
        let word = text(&value, "status");
        Some(Self {
            pid: number::<u32>(&value, "pid").and_then(|pid| pid.try_into().ok()),
            session_id: uuid(&value, "sessionId"),
            cwd: string(&value, "cwd"),
            version: string(&value, "version"),
            status: match word {
                Some("idle" | "shell") => Some(Status::Idle),
                Some("busy") => Some(Status::Busy),
                Some("waiting") => Some(Status::Waiting),
                _ => None,
            },
            waiting_for: string(&value, "waitingFor"),
            shell: word == Some("shell"),
            since_ms: number(&value, "statusUpdatedAt"),
            started_ms: number(&value, "startedAt"),
        })
    }

    /// claude shows a dialog that somebody at the keyboard has opened; no turn waits for it.
    pub fn is_own_dialog(&self) -> bool {
        self.waiting_for.as_deref() == Some("dialog open")
    }
}

/// What the terminal's OSC sequences say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// OSC 0: `✳ name` while idle *and while a dialog waits*; `⠂ name` and `⠐ name` (2.1.197), `◐ name` and `◑ name`
    /// (2.1.329) while busy. The name is `Claude Code`, later claude's title of the conversation (2.1.197).
    Title { busy: Option<bool>, name: String },
    /// OSC 9: claude wants attention.
    Notification(String),
}

/// Reads the payload of an OSC sequence: what stands between its number's semicolon and its end.
pub fn osc(number: u32, payload: &str) -> Option<Signal> {
    match number {
        0 | 2 => {
            let mark = payload.chars().next();
            let busy = match mark {
                Some('✳') => Some(false),
                Some('◐' | '◑' | '◒' | '◓' | '\u{2801}'..='\u{28ff}') => Some(true),
                _ => None,
            };
            let name = payload.strip_prefix(|first| busy.is_some() && Some(first) == mark).unwrap_or(payload);
            Some(Signal::Title { busy, name: name.trim_start().to_owned() })
        }
        // `4;…` is progress, as some terminals show it.
        9 if !payload.starts_with("4;") => Some(Signal::Notification(payload.to_owned())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn states_of_both_versions() {
        let id = Uuid::from_u128(7);
        for (status, waiting_for, known, shell, own) in [
            (json!("idle"), json!(null), Some(Status::Idle), false, false),
            (json!("shell"), json!(null), Some(Status::Idle), true, false),
            (json!("busy"), json!(null), Some(Status::Busy), false, false),
            (json!("waiting"), json!("permission prompt"), Some(Status::Waiting), false, false),
            (json!("waiting"), json!("dialog open"), Some(Status::Waiting), false, true),
            (json!("meditating"), json!(null), None, false, false),
            (json!(5), json!(5), None, false, false),
            (json!(null), json!(null), None, false, false),
        ] {
            let file = json!({"pid": 12, "sessionId": id, "cwd": "/w", "version": "2.1.329", "status": status,
                "waitingFor": waiting_for, "statusUpdatedAt": 1795257904970_u64,
                "startedAt": 1795257904467_u64});
            let state = State::parse(file.to_string().as_bytes()).unwrap();
            let expected = State {
                pid: Some(12),
                session_id: Some(id),
                cwd: Some("/w".into()),
                version: Some("2.1.329".into()),
                status: known,
                waiting_for: waiting_for.as_str().map(str::to_owned),
                shell,
                since_ms: Some(1_795_257_904_970),
                started_ms: Some(1_795_257_904_467),
            };
            assert_eq!((state.is_own_dialog(), state), (own, expected));
        }
    }

    #[test]
    fn half_a_state_is_none() {
        for bytes in [&b""[..], b"{\"pid\":1", b"[1]", b"null", b"\0\0"] {
            assert_eq!(State::parse(bytes), None);
        }
        assert_eq!(State::parse(b"{}"), Some(State::default()));
    }

    #[test]
    fn titles_and_notifications() {
        let title = |busy, name: &str| Some(Signal::Title { busy, name: name.into() });
        for (number, payload, signal) in [
            (0, "✳ Claude Code", title(Some(false), "Claude Code")),
            (0, "⠂ make the file", title(Some(true), "make the file")),
            (0, "⠐ x", title(Some(true), "x")),
            (0, "◐ Claude Code", title(Some(true), "Claude Code")),
            (2, "◑ Claude Code", title(Some(true), "Claude Code")),
            (0, "", title(None, "")),
            (0, "vim", title(None, "vim")),
            (0, "✳", title(Some(false), "")),
            (
                9,
                "Claude needs your permission",
                Some(Signal::Notification("Claude needs your permission".into())),
            ),
            (9, "4;0;", None),
            (8, ";https://example.org", None),
        ] {
            assert_eq!(osc(number, payload), signal, "{number} {payload:?}");
        }
    }
}
