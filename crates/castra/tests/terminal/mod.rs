//! What the tests of terminal sessions share: the real TUI before a scripted model, driven by HTTP alone.
#![allow(dead_code, reason = "each test program uses a part")]

use castra_proto::api::{Message, MessageState, Screen};
use castra_testkit::{Daemon, Session};
use serde_json::{Value, json};
use std::path::PathBuf;

pub(crate) const CASTRA: &str = env!("CARGO_BIN_EXE_castra");

/// Prompts name their rule; what none names is echoed.
pub(crate) const SCRIPT: &str = r#"
[[rule]]
name = "still"
when.last_user.contains = "still there"
reply.text = "still here"
[[rule]]
name = "memory"
when.last_user.contains = "what did I say"
reply.text = "before this: {{user_texts}}"
[[rule]]
name = "slow"
when.last_user.contains = "slowly"
reply.text = "{{last_user}}: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20"
reply.pace = { chunk_chars = 4, delay_ms = 100 }
[[rule]]
name = "endless"
when.last_user.contains = "for ever"
reply.text = "It begins, and then"
reply.stall = { after_chars = 10, forever = true }
[[rule]]
name = "thinking about it"
when.last_user.contains = "never answer"
reply.text = "never said"
reply.start_delay_ms = 60000
[[rule]]
name = "sleep"
when.last_user.contains = "sleep a while"
reply.blocks = [
    { text = "I will sleep." },
    { tool_use = { name = "Bash", input = { command = "touch asleep; sleep 60", description = "Sleep" } } },
]
[[rule]]
name = "echo"
reply.text = "You said: {{last_user}}"
"#;

/// The rows of `tui.rs`'s painting, as xterm shows them, whatever its width.
pub(crate) const PAINTED: [&str; 20] = [
    "red plain",
    "",
    "    ┌──┐",
    "    │  │",
    "    └──┘",
    "",
    "wide 漢字 e\u{301} 🦀|",
    "a       b       c",
    "bXYcdef",
    "",
    "two",
    "three",
    "four",
    "",
    "kept",
    "xx",
    "",
    "",
    "C",
    "last",
];

/// A session on a terminal; `fields` of a SessionSpec.
#[track_caller]
pub(crate) fn terminal(daemon: &Daemon<'_>, mut fields: Value) -> Session {
    fields["mode"] = json!("terminal");
    daemon.session(fields)
}

/// Text and `ok` of the turn in which a message was delivered, which must be over in order.
#[track_caller]
pub(crate) fn answered(message: &Message) -> (&str, bool) {
    assert_eq!(message.state, MessageState::Answered, "{message:?}");
    let result = message.result.as_ref().unwrap_or_else(|| panic!("answered without a result: {message:?}"));
    (&result.text, result.ok)
}

/// `data` of the events of one kind.
pub(crate) fn data_of(session: &Session, kind: &str) -> Vec<Value> {
    let events = session.events_of(kind);
    events.iter().map(|event| serde_json::from_str(event.data.get()).expect("JSON")).collect()
}

pub(crate) fn work(session: &Session) -> PathBuf {
    session.show().cwd.expect("a folder").into()
}

/// The terminal as it is now.
#[track_caller]
pub(crate) fn screen(session: &Session) -> Screen {
    session.http.get(&session.path("/screen")).expect(200)
}

/// Keys by name, as a person would press them.
#[track_caller]
pub(crate) fn type_keys(session: &Session, keys: &[&str]) {
    let reply = session.http.post(&session.path("/keys"), &json!({ "keys": keys }));
    assert_eq!(reply.status, 204, "{}", reply.text());
}
