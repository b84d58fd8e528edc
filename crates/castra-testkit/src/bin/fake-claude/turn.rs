//! One turn: the prompt says what the fake does.

use crate::json::quoted;
use crate::voice::Voice;
use crate::{Heard, Mind};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How a turn went on.
pub(crate) enum After {
    /// `result` was said, or is not wanted.
    Done,
    Interrupted,
    /// The process ends with this code.
    Exit(i32),
}

/// What can be asked of it: the first word of the prompt's last line. Anything else is echoed.
pub(crate) const PROMPTS: [(&str, &str); 16] = [
    ("echo TEXT", "answers TEXT"),
    ("flood N [BYTES]", "N assistant messages of BYTES each, as fast as they can be written"),
    ("deltas N [BYTES]", "one message in N text deltas of BYTES each"),
    ("linger N [BYTES]", "as deltas, and then nothing: its message stays open until an interrupt"),
    ("drip N MS", "one message in N words, one each MS milliseconds"),
    ("line SIZE", "one line with a text of SIZE bytes; kB and MB are known"),
    ("garbage", "lines that are none: NUL, arrays, numbers, binary, unknown types, kinds of castra's own"),
    ("half", "an answer, then half a line without a newline, then exit 0"),
    ("split", "a line in single bytes"),
    ("exit N", "exit code N before `result`"),
    ("hold", "an answer, then exit 0 while a child keeps stdout open"),
    ("ask", "asks whether Bash may run; answers what it was told"),
    ("deaf", "answers, then never reads stdin again"),
    ("hang", "says nothing any more; an interrupt ends it"),
    ("hog SIZE", "keeps SIZE bytes in memory"),
    ("stderr TEXT", "says TEXT on stderr as well"),
];

pub(crate) fn turn(voice: &mut Voice, mind: &mut Mind, prompt: &str) -> After {
    let line = prompt.lines().last().unwrap_or_default().trim();
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let mut numbers = rest.split(' ').map(size);
    let mut number = |otherwise: usize| numbers.next().flatten().unwrap_or(otherwise);
    match word {
        "flood" => flood(voice, number(1000), number(200)),
        "deltas" => deltas(voice, number(1000), number(20)),
        "linger" => return linger(voice, mind, number(1000), number(20)),
        "drip" => return drip(voice, mind, number(10), number(100)),
        "line" => say(voice, &"x".repeat(number(1 << 20))),
        "garbage" => garbage(voice),
        "half" => {
            say(voice, "before the half line");
            voice.raw(br#"{"type":"assistant","message":{"role":"assist"#);
            voice.flush();
            return After::Exit(0);
        }
        "split" => split(voice),
        "exit" => {
            voice.assistant("about to leave");
            voice.flush();
            return After::Exit(i32::try_from(number(0)).unwrap_or(1));
        }
        "hold" => {
            hold();
            say(voice, "somebody holds my stdout");
            return After::Exit(0);
        }
        "ask" => return ask(voice, mind),
        "deaf" => {
            mind.deaf = true;
            say(voice, "I do not listen any more");
        }
        "hang" => return pause(voice, mind, None),
        "hog" => {
            let mut pages = vec![0_u8; number(1 << 20)];
            pages.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
            mind.kept.push(pages);
            say(voice, "it is heavy");
        }
        "stderr" => {
            let _ = writeln!(std::io::stderr(), "{rest}");
            say(voice, rest);
        }
        "echo" => say(voice, rest),
        _ => say(voice, line),
    }
    After::Done
}

fn say(voice: &mut Voice, text: &str) {
    voice.assistant(text);
    voice.result(text);
}

fn size(text: &str) -> Option<usize> {
    let (digits, factor) = match (text.strip_suffix("MB"), text.strip_suffix("kB")) {
        (Some(digits), _) => (digits, 1 << 20),
        (_, Some(digits)) => (digits, 1 << 10),
        _ => (text, 1),
    };
    Some(digits.parse::<usize>().ok()? * factor)
}

/// Each line is its own: `n:xxxx…`, so that a lost or doubled one shows.
fn flood(voice: &mut Voice, count: usize, bytes: usize) {
    let filling = "x".repeat(bytes);
    for n in 0..count {
        voice.assistant_line(&format!("\"{n}:{filling}\""));
    }
    voice.result(&format!("{count} said"));
}

fn open_block(voice: &mut Voice) {
    voice.event(
        r#"{"type":"message_start","message":{"id":"msg_open","type":"message","role":"assistant","model":"fake","content":[],"stop_reason":null,"usage":{"input_tokens":1,"output_tokens":1}}}"#,
    );
    voice.event(r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#);
}

fn delta(voice: &mut Voice, text: &str) {
    let text = quoted(text);
    voice.event(&format!(
        r#"{{"type":"content_block_delta","index":0,"delta":{{"type":"text_delta","text":{text}}}}}"#
    ));
}

fn close_block(voice: &mut Voice, text: &str) {
    whole_block(voice, text);
    close_message(voice);
}

fn whole_block(voice: &mut Voice, text: &str) {
    let text = quoted(text);
    voice.line(&format!(
        r#""type":"assistant","message":{{"id":"msg_open","type":"message","role":"assistant","model":"fake","content":[{{"type":"text","text":{text}}}],"stop_reason":null,"usage":{{"input_tokens":1,"output_tokens":1}}}},"parent_tool_use_id":null"#
    ));
}

fn close_message(voice: &mut Voice) {
    voice.event(r#"{"type":"content_block_stop","index":0}"#);
    voice.event(r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":1}}"#);
    voice.event(r#"{"type":"message_stop"}"#);
}

fn deltas(voice: &mut Voice, count: usize, bytes: usize) {
    let piece = "y".repeat(bytes);
    open_block(voice);
    for _ in 0..count {
        delta(voice, &piece);
    }
    close_block(voice, &piece.repeat(count));
    voice.result(&format!("{count} deltas"));
}

/// Its text is whole and its message is not: a reader must keep the beginning of it, and show none of it.
fn linger(voice: &mut Voice, mind: &mut Mind, count: usize, bytes: usize) -> After {
    let piece = "y".repeat(bytes);
    open_block(voice);
    for _ in 0..count {
        delta(voice, &piece);
    }
    whole_block(voice, &piece.repeat(count));
    voice.flush();
    let after = pause(voice, mind, None);
    close_message(voice);
    after
}

fn drip(voice: &mut Voice, mind: &mut Mind, count: usize, ms: usize) -> After {
    open_block(voice);
    voice.flush();
    let mut text = String::new();
    for n in 1..=count {
        match pause(voice, mind, Some(Duration::from_millis(ms as u64))) {
            After::Done => {}
            other => {
                close_block(voice, &text);
                return other;
            }
        }
        let word = format!("{n} ");
        delta(voice, &word);
        voice.flush();
        text.push_str(&word);
    }
    close_block(voice, &text);
    voice.result(&text);
    After::Done
}

/// What stdout may hold if something else than claude writes to it. Each is one line of its own.
fn garbage(voice: &mut Voice) {
    for line in GARBAGE {
        voice.raw(line);
        voice.raw(b"\n");
    }
    say(voice, "that was all of it");
}

pub(crate) const GARBAGE: [&[u8]; 14] = [
    b"plain words",
    b"\0\0\0",
    b"[1,2,3]",
    b"5",
    b"\"text\"",
    b"null",
    b"{\"type\":",
    b"\xff\xfe\x00\x80 binary",
    b"\x1b[31mred\x1b[0m",
    b"{\"no\":\"type\"}",
    b"{\"type\":7}",
    b"{\"type\":\"never_heard_of\",\"x\":1}",
    // Not castra's word, whoever says it.
    b"{\"type\":\"permission_answered\",\"behavior\":\"allow\"}",
    b"{\"type\":\"exit\",\"cause\":\"finished\"}",
];

fn split(voice: &mut Voice) {
    let line = format!(
        "{{\"type\":\"assistant\",\"message\":{{\"id\":\"msg_s\",\"role\":\"assistant\",\"content\":[{{\"type\":\"text\",\"text\":\"é in pieces\"}}]}},\"session_id\":\"{}\",\"uuid\":\"{}\"}}\n",
        voice.session.clone(),
        voice.uuid()
    );
    for byte in line.as_bytes() {
        voice.raw(&[*byte]);
        voice.flush();
    }
    voice.result("é in pieces");
}

/// A child of a session of its own that has our stdout, as Bash's `cmd &` has.
fn hold() {
    let Ok(own) = std::env::current_exe() else { return };
    let _ = Command::new(own).arg("--hold").stdin(Stdio::null()).stderr(Stdio::null()).spawn();
}

fn ask(voice: &mut Voice, mind: &mut Mind) -> After {
    let id = voice.uuid();
    voice.raw(
        format!(
            "{{\"type\":\"control_request\",\"request_id\":\"{id}\",\"request\":{{\"subtype\":\"can_use_tool\",\"tool_name\":\"Bash\",\"input\":{{\"command\":\"touch a\"}},\"tool_use_id\":\"toolu_1\",\"permission_suggestions\":[]}}}}\n"
        )
        .as_bytes(),
    );
    voice.state("requires_action");
    loop {
        match mind.next(voice, None) {
            Heard::Response { request_id, response } if request_id == id => {
                voice.state("running");
                say(voice, &response.to_string());
                return After::Done;
            }
            Heard::Response { .. } | Heard::Nothing => {}
            Heard::Interrupt => {
                voice.raw(
                    format!("{{\"type\":\"control_cancel_request\",\"request_id\":\"{id}\"}}\n").as_bytes(),
                );
                return After::Interrupted;
            }
            Heard::End => return After::Exit(0),
        }
    }
}

/// `Done` when the time is over; without one it waits for ever.
fn pause(voice: &mut Voice, mind: &mut Mind, time: Option<Duration>) -> After {
    let end = time.map(|time| Instant::now() + time);
    loop {
        match mind.next(voice, end) {
            Heard::Interrupt => return After::Interrupted,
            Heard::End => return After::Exit(0),
            Heard::Nothing => return After::Done,
            Heard::Response { .. } => {}
        }
    }
}
