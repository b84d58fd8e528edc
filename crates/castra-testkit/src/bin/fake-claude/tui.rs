//! The fake on a terminal: a composer between two rules, claude's state file and its transcript, and the faults that
//! the real one does not show on demand. `FAKE_CLAUDE` in its environment says which:
//!
//! `strange` (a screen that nobody knows, until Enter), `late MS` (nothing is shown so long, and then the first screen in
//! two pieces), `lossy` (the first Enter behind a paste is lost), `slow MS` (a paste is drawn so much later). All that it
//! reads is appended to `typed` in its configuration folder.

use crate::json::quoted;
use crate::voice::transcript;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, UNIX_EPOCH};

/// What can be asked of it: the first word of a prompt. Anything else is echoed.
pub(crate) const PROMPTS: [(&str, &str); 3] = [
    ("leave N", "complains in red, then exit code N"),
    ("spill BYTES", "writes so many bytes of lines to the screen"),
    ("paint", "draws on the alternate screen what terminals often get wrong; `q` ends it"),
];

/// Alternate screen, cursor addressing, line drawing, a scroll region, wide and combined characters, insertion and
/// deletion, tabs, wrapping: what must be seen of it is in the test.
const PAINTING: &str = "\x1b[?1049h\x1b[2J\x1b[H\x1b[1;31mred\x1b[0m plain\
    \x1b[3;5H\x1b(0lqqk\x1b(B\x1b[4;5H\x1b(0x\x1b(B  \x1b(0x\x1b(B\x1b[5;5H\x1b(0mqqj\x1b(B\
    \x1b[7;1Hwide \u{6f22}\u{5b57} e\u{301} \u{1f980}|\
    \x1b[8;1Ha\tb\tc\
    \x1b[9;1Habcdef\x1b[9;3H\x1b[2@XY\x1b[9;1H\x1b[1P\
    \x1b[11;1Hone\x1b[12;1Htwo\x1b[13;1Hthree\x1b[11;13r\x1b[13;1H\nfour\x1b[r\
    \x1b[15;1Hgone\x1b[15;1H\x1b[2Kkept\x1b[16;1Hxxxx\x1b[16;3H\x1b[K\
    \x1b[18;199HAB\x1b[19;1HC\x1b[20;1Hlast";

pub(crate) struct Tui {
    home: PathBuf,
    transcript: Option<PathBuf>,
    session: String,
    version: String,
    typed: Option<File>,
    fault: String,
    history: Vec<String>,
    composer: String,
    /// The newest record of the transcript.
    leaf: Option<String>,
    ids: u64,
    /// An Enter since the last paste was lost already.
    lost: bool,
}

fn millis() -> u128 {
    UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis())
}

/// The terminal passes every byte on, and changes none.
fn raw() {
    let _ = Command::new("stty").args(["raw", "-echo"]).stdin(Stdio::inherit()).status();
}

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

impl Tui {
    pub(crate) fn new(session: String, version: String, fault: &str) -> Self {
        let home = PathBuf::from(std::env::var_os("CLAUDE_CONFIG_DIR").unwrap_or_default());
        let typed = OpenOptions::new().create(true).append(true).open(home.join("typed")).ok();
        raw();
        let transcript = transcript(&session);
        Self {
            home,
            transcript,
            session,
            version,
            typed,
            fault: fault.to_owned(),
            history: vec!["fake-claude".to_owned()],
            composer: String::new(),
            leaf: None,
            ids: 0,
            lost: false,
        }
    }

    pub(crate) fn run(mut self) -> u8 {
        say("\x1b[?2004h\x1b[?1004h");
        if self.fault == "strange" {
            self.status("idle");
            say("\x1b[2J\x1b[HA new thing has come up!\r\n\r\n  > Do it\r\n    Leave it\r\n");
            while self.key() != Some(b'\r') {}
        }
        if let Some(delay) = self.millis_of("late ") {
            std::thread::sleep(delay);
            say("fake-claude\r\n\r\n\u{2500}\u{2500}\u{2500}");
            std::thread::sleep(Duration::from_millis(200));
        }
        self.status("idle");
        self.draw("\u{2733}");
        let mut pasting = false;
        let mut escape = Vec::new();
        while let Some(byte) = self.key() {
            if byte == 0x1b || !escape.is_empty() {
                escape.push(byte);
                match escape.as_slice() {
                    b"\x1b[200~" => (pasting, self.lost) = (true, false),
                    b"\x1b[201~" => {
                        pasting = false;
                        if let Some(delay) = self.millis_of("slow ") {
                            std::thread::sleep(delay);
                        }
                        self.draw("\u{2733}");
                    }
                    [.., last] if escape.len() > 2 && last.is_ascii_alphabetic() => {}
                    _ if escape.len() < 8 => continue,
                    _ => {}
                }
                escape.clear();
                continue;
            }
            match byte {
                b'\r' if !pasting => self.enter(),
                0x15 if !pasting => self.composer.clear(),
                _ => self.composer.push(char::from(byte)),
            }
            if !pasting {
                self.draw("\u{2733}");
            }
        }
        0
    }

    fn millis_of(&self, fault: &str) -> Option<Duration> {
        self.fault.strip_prefix(fault)?.parse().ok().map(Duration::from_millis)
    }

    /// None: the terminal is gone.
    fn key(&mut self) -> Option<u8> {
        let mut byte = [0];
        if std::io::stdin().read(&mut byte).ok()? == 0 {
            return None;
        }
        if let Some(typed) = &mut self.typed {
            let _ = typed.write_all(&byte);
        }
        Some(byte[0])
    }

    fn enter(&mut self) {
        if self.fault == "lossy" && !std::mem::replace(&mut self.lost, true) {
            return;
        }
        let prompt = std::mem::take(&mut self.composer).trim_end().to_owned();
        if prompt.is_empty() {
            return;
        }
        self.status("busy");
        self.history.push(format!("> {prompt}"));
        self.draw("\u{2802}");
        let (word, rest) = prompt.split_once(' ').unwrap_or((&prompt, ""));
        let answer = match word {
            "spill" => {
                let line = format!("{}\r\n", "spilled ".repeat(12));
                let mut left = rest.parse::<usize>().unwrap_or(0);
                while left > 0 {
                    say(&line);
                    left = left.saturating_sub(line.len());
                }
                "spilled".to_owned()
            }
            "leave" => {
                say("\x1b[2J\x1b[H\x1b[31mout of\x1b[0m coffee\r\n");
                std::process::exit(rest.parse().unwrap_or(1));
            }
            "paint" => {
                say(PAINTING);
                while self.key().is_some_and(|key| key != b'q') {}
                say("\x1b[?1049l");
                "painted".to_owned()
            }
            _ => prompt.clone(),
        };
        self.record(
            "user",
            &format!(r#"{{"role":"user","content":{}}}"#, quoted(&prompt)),
            r#","promptSource":"typed""#,
        );
        let text = quoted(&answer);
        let id = self.ids;
        self.record(
            "assistant",
            &format!(
                r#"{{"id":"msg_{id}","type":"message","role":"assistant","model":"fake","content":[{{"type":"text","text":{text}}}],"stop_reason":"end_turn","usage":{{"input_tokens":1,"output_tokens":1}}}}"#
            ),
            "",
        );
        self.record("system", "null", r#","subtype":"turn_duration","durationMs":1"#);
        self.history.push(answer);
        self.status("idle");
    }

    fn draw(&self, title: &str) {
        let window = rustix::termios::tcgetwinsize(std::io::stdout());
        let rule = "\u{2500}".repeat(window.map_or(80, |window| window.ws_col.into()));
        let recent = self.history.iter().rev().take(10).rev();
        let history: String = recent.map(|line| format!("{line}\r\n")).collect();
        let composer = self.composer.replace('\n', "\r\n  ");
        say(&format!(
            "\x1b]0;{title} Claude Code\x07\x1b[H\x1b[2J{history}\r\n{rule}\r\n\u{276f}\u{a0}{composer}\r\n{rule}\r\n  ? for shortcuts"
        ));
    }

    fn status(&self, status: &str) {
        let pid = std::process::id();
        let folder = self.home.join("sessions");
        let cwd = quoted(&std::env::current_dir().unwrap_or_default().to_string_lossy());
        let (session, version, now) = (&self.session, &self.version, millis());
        let state = format!(
            r#"{{"pid":{pid},"sessionId":"{session}","cwd":{cwd},"startedAt":{now},"version":"{version}","kind":"interactive","status":"{status}","statusUpdatedAt":{now}}}"#
        );
        let _ = std::fs::create_dir_all(&folder);
        let _ = std::fs::write(folder.join(format!("{pid}.json")), state);
    }

    fn record(&mut self, kind: &str, message: &str, more: &str) {
        self.ids += 1;
        let uuid = format!("{:08x}-0000-4000-8000-{:012x}", millis() as u32, self.ids);
        let parent = self.leaf.replace(uuid.clone()).map_or("null".to_owned(), |leaf| quoted(&leaf));
        let line = format!(
            "{{\"parentUuid\":{parent},\"isSidechain\":false,\"type\":\"{kind}\",\"message\":{message},\"uuid\":\"{uuid}\",\"sessionId\":\"{}\"{more}}}\n",
            self.session
        );
        let Some(path) = &self.transcript else { return };
        let file = OpenOptions::new().create(true).append(true).open(path);
        let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
    }
}
