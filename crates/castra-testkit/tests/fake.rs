//! `fake-claude` by itself: what it says to each prompt. A fault that it does not produce tests nothing.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

struct Fake {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    home: tempfile::TempDir,
}

const SESSION: &str = "11111111-1111-4111-8111-111111111111";

impl Fake {
    fn start(mode: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_fake-claude"))
            .args(["-p", "--verbose", &format!("--session-id={SESSION}")])
            .env_clear()
            .env("FAKE_CLAUDE", mode)
            .env("CLAUDE_CONFIG_DIR", home.path())
            .current_dir(home.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdin, stdout, home }
    }

    fn ready() -> Self {
        let mut fake = Self::start("");
        assert_eq!(fake.control("initialize")["commands"], json!([]));
        fake
    }

    fn write(&mut self, value: &Value) {
        self.stdin.write_all(format!("{value}\n").as_bytes()).unwrap();
    }

    fn say(&mut self, prompt: &str) {
        let message = json!({"role": "user", "content": [{"type": "text", "text": prompt}]});
        self.write(&json!({"type": "user", "message": message, "uuid": "u-1"}));
    }

    fn line(&mut self) -> Option<Vec<u8>> {
        let mut line = Vec::new();
        let read = self.stdout.read_until(b'\n', &mut line).unwrap();
        (read > 0).then_some(line)
    }

    fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let line = self.line().expect("more lines");
            if let Ok(value) = serde_json::from_slice::<Value>(&line)
                && wanted(&value)
            {
                return value;
            }
        }
    }

    fn control(&mut self, subtype: &str) -> Value {
        self.write(&json!({"type": "control_request", "request_id": "c-1", "request": {"subtype": subtype}}));
        let answer =
            self.until(|line| line["type"] == "control_response" && line["response"]["request_id"] == "c-1");
        answer["response"]["response"].clone()
    }

    /// Types of the lines of a whole turn and how often each came; the result's text.
    fn turn(&mut self, prompt: &str) -> (BTreeMap<String, usize>, String) {
        self.say(prompt);
        let (mut types, mut result) = (BTreeMap::new(), String::new());
        while let Some(line) = self.line() {
            let value: Value = serde_json::from_slice(&line).unwrap_or(Value::Null);
            *types.entry(value["type"].as_str().unwrap_or("none").to_owned()).or_default() += 1;
            if value["type"] == "result" {
                value["result"].as_str().unwrap_or("none").clone_into(&mut result);
            }
            if value["state"] == "idle" {
                break;
            }
        }
        (types, result)
    }

    fn end(mut self) -> Option<i32> {
        drop(self.stdin);
        self.child.wait().unwrap().code()
    }
}

impl Fake {
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn counts(counts: &[(&str, usize)]) -> BTreeMap<String, usize> {
    counts.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect()
}

#[test]
fn prompts_and_what_comes_of_them() {
    type Row<'a> = (&'a str, &'a str, &'a [(&'a str, usize)]);
    // Each turn has `running`, `init`, `idle` and the replay beside what it says.
    let table: &[Row<'_>] = &[
        ("echo a b", "a b", &[("assistant", 1)]),
        ("whatever else", "whatever else", &[("assistant", 1)]),
        ("flood 5 10", "5 said", &[("assistant", 5)]),
        ("deltas 3 2", "3 deltas", &[("assistant", 1), ("stream_event", 8)]),
        ("drip 2 1", "1 2 ", &[("assistant", 1), ("stream_event", 7)]),
        ("split", "é in pieces", &[("assistant", 1)]),
        (
            "garbage",
            "that was all of it",
            &[("assistant", 1), ("none", 11), ("never_heard_of", 1), ("permission_answered", 1), ("exit", 1)],
        ),
        ("hog 1MB", "it is heavy", &[("assistant", 1)]),
    ];
    let mut fake = Fake::ready();
    for (prompt, answer, more) in table {
        let mut expected = counts(&[("system", 3), ("user", 1), ("result", 1)]);
        expected.extend(counts(more));
        assert_eq!(fake.turn(prompt), (expected, (*answer).to_owned()), "{prompt}");
    }
    let size = 3 << 20;
    assert_eq!(fake.turn("line 3MB").1.len(), size);
    let projects = fake.home.path().join("projects");
    let key = std::fs::read_dir(&projects).unwrap().next().unwrap().unwrap().path();
    let transcript = std::fs::read_to_string(key.join(format!("{SESSION}.jsonl"))).unwrap();
    assert!(transcript.lines().next().unwrap().contains("\"uuid\":\"u-1\""), "{transcript}");
    assert_eq!(fake.end(), Some(0));
}

#[test]
fn it_asks_and_is_interrupted() {
    let mut fake = Fake::ready();
    fake.say("ask");
    let request = fake.until(|line| line["type"] == "control_request");
    let answer = json!({"behavior": "allow", "updatedInput": {}});
    let id = &request["request_id"];
    let response = json!({"subtype": "success", "request_id": id, "response": answer});
    fake.write(&json!({"type": "control_response", "response": response}));
    let result = fake.until(|line| line["type"] == "result");
    assert_eq!(serde_json::from_str::<Value>(result["result"].as_str().unwrap()).unwrap(), answer);
    fake.until(|line| line["state"] == "idle");

    fake.say("hang");
    fake.until(|line| line["isReplay"] == true);
    assert_eq!(fake.control("interrupt"), json!({}));
    assert_eq!(fake.until(|line| line["type"] == "result")["subtype"], "error_during_execution");
    fake.until(|line| line["state"] == "idle");
    assert_eq!(fake.turn("echo well").1, "well");
    assert_eq!(fake.control("end_session"), json!({}));
    assert_eq!(fake.child.wait().unwrap().code(), Some(0));
}

#[test]
fn ends_before_the_result() {
    let mut fake = Fake::ready();
    fake.say("exit 7");
    fake.until(|line| line["type"] == "assistant");
    assert_eq!((fake.line(), fake.child.wait().unwrap().code()), (None, Some(7)));

    let mut fake = Fake::ready();
    fake.say("half");
    fake.until(|line| line["type"] == "result");
    assert!(!fake.line().unwrap().ends_with(b"\n"));
    assert_eq!(fake.child.wait().unwrap().code(), Some(0));

    let mut fake = Fake::ready();
    fake.say("hold");
    fake.until(|line| line["type"] == "result");
    assert_eq!(fake.child.wait().unwrap().code(), Some(0));
    let own = fake.home.path().to_str().unwrap().to_owned();
    let holders = castra_testkit::proc::mentioning(&own);
    assert_eq!(holders.len(), 1, "the child lives");
    assert!(holders[0].kill9());
    assert_eq!(fake.stdout.read_to_end(&mut Vec::new()).unwrap(), 0, "only now is stdout at its end");
}

#[test]
fn starts_that_are_none() {
    let mut fake = Fake::start("exit 3");
    assert_eq!((fake.line(), fake.child.wait().unwrap().code()), (None, Some(3)));

    let mut fake = Fake::start("noise");
    assert_eq!(fake.line().unwrap(), b"plain words\n");
    assert_eq!(fake.control("initialize")["commands"], json!([]));
    assert_eq!(fake.end(), Some(0));

    let mut fake = Fake::start("deaf");
    let line = [b'x'; 1 << 16];
    let pipe = rustix::fs::fcntl_setfl(&fake.stdin, rustix::fs::OFlags::NONBLOCK);
    pipe.unwrap();
    let full = std::iter::repeat_with(|| fake.stdin.write(&line)).take(64).find_map(Result::err);
    assert_eq!(full.map(|error| error.kind()), Some(std::io::ErrorKind::WouldBlock), "it does not read");
    fake.kill();
}

#[test]
fn it_is_of_any_version_that_the_file_beside_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("claude");
    std::fs::copy(env!("CARGO_BIN_EXE_fake-claude"), &copy).unwrap();
    let version = || {
        let output = Command::new(&copy).arg("--version").env_clear().output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(version(), "2.1.999 (Claude Code)\n");
    std::fs::write(folder.path().join("claude.version"), "GNU sed 4.9").unwrap();
    assert_eq!(version(), "GNU sed 4.9\n");
}
