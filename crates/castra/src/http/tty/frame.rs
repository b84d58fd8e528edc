//! The messages of ttyd's protocol, read and written. Pure.

use bytes::{BufMut, Bytes, BytesMut};
use castra_supervisor::terminal::Size;
use serde_json::{Value, json};

/// The subprotocol of ttyd.
pub(in crate::http) const PLAIN: &str = "tty";
/// The same, and the server tells the size that all viewers share.
pub(in crate::http) const SIZED: &str = "castra.tty";

/// What a client says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FromClient {
    /// The first message: who it is, and its window.
    Join {
        token: String,
        window: Window,
    },
    Input(Bytes),
    Resize(Window),
    /// It wants nothing for now, or something again.
    Pause(bool),
    /// ttyd passes over what it does not know, and so does this.
    Other,
}

/// Columns and rows; 0 is not said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) columns: u16,
    pub(super) rows: u16,
}

/// Reads one message, binary or text: ttyd makes no difference.
pub(super) fn read(message: Bytes) -> FromClient {
    match message.first() {
        Some(b'0') => FromClient::Input(message.slice(1..)),
        Some(b'1') => FromClient::Resize(window(&object(&message[1..]))),
        Some(b'2') => FromClient::Pause(true),
        Some(b'3') => FromClient::Pause(false),
        Some(b'{') => {
            let said = object(&message);
            let token = said["AuthToken"].as_str().unwrap_or_default().to_owned();
            FromClient::Join { token, window: window(&said) }
        }
        _ => FromClient::Other,
    }
}

/// What is no JSON says nothing, as in ttyd.
fn object(text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap_or_default()
}

fn window(said: &Value) -> Window {
    let number = |name: &str| {
        let number = said[name].as_u64().unwrap_or_default();
        u16::try_from(number).unwrap_or_default()
    };
    Window { columns: number("columns"), rows: number("rows") }
}

pub(super) fn output(bytes: &[u8]) -> Bytes {
    message(b'0', bytes)
}

pub(super) fn title(text: &str) -> Bytes {
    message(b'1', text.as_bytes())
}

/// Settings for ttyd's client. It warns who leaves that the command will be killed, which is not so here.
pub(super) fn preferences() -> Bytes {
    message(b'2', json!({"disableLeaveAlert": true}).to_string().as_bytes())
}

/// Only in [`SIZED`]: the size that all share, and whether this viewer's keys are taken.
pub(super) fn size(size: Size, writable: bool) -> Bytes {
    let text = json!({"columns": size.cols, "rows": size.rows, "writable": writable});
    message(b'3', text.to_string().as_bytes())
}

fn message(kind: u8, content: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(content.len() + 1);
    message.put_u8(kind);
    message.put_slice(content);
    message.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::fuzz_tty;
    use proptest::prelude::*;
    use std::path::Path;

    #[test]
    fn messages_are_read_as_ttyd_reads_them() {
        let window = |columns, rows| Window { columns, rows };
        let join = |token: &str, window| FromClient::Join { token: token.into(), window };
        let table = [
            (r#"{"AuthToken":"abc","columns":80,"rows":24}"#, join("abc", window(80, 24))),
            (r#"{"columns":80,"rows":24}"#, join("", window(80, 24))),
            (r#"{"AuthToken":null,"columns":80}"#, join("", window(80, 0))),
            (r#"{"AuthToken":7,"columns":-1,"rows":70000}"#, join("", window(0, 0))),
            ("{", join("", window(0, 0))),
            ("0ls\r", FromClient::Input("ls\r".into())),
            ("0", FromClient::Input("".into())),
            (r#"1{"columns":100,"rows":30}"#, FromClient::Resize(window(100, 30))),
            ("1", FromClient::Resize(window(0, 0))),
            ("1[1,2]", FromClient::Resize(window(0, 0))),
            ("2", FromClient::Pause(true)),
            ("3", FromClient::Pause(false)),
            ("3 and more", FromClient::Pause(false)),
            ("4", FromClient::Other),
            ("", FromClient::Other),
            ("ls", FromClient::Other),
        ];
        for (text, expected) in table {
            assert_eq!(read(text.into()), expected, "{text}");
        }
    }

    #[test]
    fn messages_are_written_as_ttyd_writes_them() {
        let wide = Size { rows: 50, cols: 200 };
        let table = [
            (output(b"\x1b[H"), "0\x1b[H"),
            (title("claude"), "1claude"),
            (preferences(), r#"2{"disableLeaveAlert":true}"#),
            (size(wide, false), r#"3{"columns":200,"rows":50,"writable":false}"#),
        ];
        for (written, expected) in table {
            assert_eq!(written, expected);
        }
    }

    #[test]
    fn the_corpus_is_read_or_passed_over() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/tty");
        let mut seen = 0;
        for file in std::fs::read_dir(corpus).unwrap() {
            fuzz_tty(&std::fs::read(file.unwrap().path()).unwrap());
            seen += 1;
        }
        assert!(seen >= 8, "{seen} files");
    }

    proptest! {
        #[test]
        fn random_bytes_are_read_or_passed_over(data in prop::collection::vec(any::<u8>(), 0..64)) {
            fuzz_tty(&data);
        }

        #[test]
        fn random_objects_are_read(kind in "[01{]", text in r#"\{?("(columns|rows|AuthToken)":[0-9"a.-]{0,6},?){0,3}\}?"#) {
            fuzz_tty(format!("{kind}{text}").as_bytes());
        }
    }
}
