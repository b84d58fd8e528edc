//! The real Claude Code CLI against the scripted model. `CASTRA_TEST_CLAUDE` names the binaries, separated
//! by colons; each test runs with all of them, and fails where there is none.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use castra_model::{Model, Script};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

const DEADLINE: Duration = Duration::from_secs(120);

fn clis() -> Vec<PathBuf> {
    let paths = std::env::var_os("CASTRA_TEST_CLAUDE").unwrap_or_default();
    let paths: Vec<_> = std::env::split_paths(&paths).filter(|path| !path.as_os_str().is_empty()).collect();
    assert!(
        !paths.is_empty(),
        "CASTRA_TEST_CLAUDE is not set: name the claude binaries to test with, separated by colons"
    );
    for path in &paths {
        assert!(path.is_file(), "CASTRA_TEST_CLAUDE names {}, which is no file", path.display());
    }
    paths
}

/// One headless claude that asks us for permissions.
struct Claude {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    home: tempfile::TempDir,
    requests: u32,
}

impl Claude {
    fn start(cli: &Path, model: &Model) -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("work")).unwrap();
        let mut child = Command::new(cli)
            .args(["-p", "--input-format", "stream-json", "--output-format", "stream-json", "--verbose"])
            .args(["--permission-prompt-tool", "stdio"])
            .current_dir(home.path().join("work"))
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", home.path())
            .env("CLAUDE_CONFIG_DIR", home.path().join(".claude"))
            .env("ANTHROPIC_BASE_URL", model.base_url())
            .env("ANTHROPIC_API_KEY", "sk-ant-api03-made-up-0000")
            .env("DISABLE_AUTOUPDATER", "1")
            .env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, stdin, lines, home, requests: 0 }
    }

    fn work(&self) -> PathBuf {
        self.home.path().join("work")
    }

    async fn write(&mut self, value: Value) {
        self.stdin.write_all(format!("{value}\n").as_bytes()).await.unwrap();
    }

    async fn say(&mut self, text: &str) {
        let message = json!({"role": "user", "content": [{"type": "text", "text": text}]});
        self.write(json!({"type": "user", "message": message, "parent_tool_use_id": null, "session_id": ""}))
            .await;
    }

    /// The next line that `wanted` takes; permission requests on the way are answered by `allow`.
    async fn until<T>(&mut self, what: &str, allow: bool, mut wanted: impl FnMut(&Value) -> Option<T>) -> T {
        let found = async {
            loop {
                let line = self
                    .lines
                    .next_line()
                    .await
                    .unwrap()
                    .unwrap_or_else(|| panic!("claude ended before {what}"));
                let line: Value = serde_json::from_str(&line).unwrap();
                if let Some(found) = wanted(&line) {
                    return found;
                }
                if line["type"] == "control_request" {
                    self.answer(&line, allow).await;
                }
            }
        };
        tokio::time::timeout(DEADLINE, found)
            .await
            .unwrap_or_else(|_| panic!("no {what} within {DEADLINE:?}"))
    }

    async fn answer(&mut self, request: &Value, allow: bool) {
        let mut input = request["request"]["input"].clone();
        if let Some(question) = input["questions"][0]["question"].as_str().map(str::to_owned) {
            input["answers"] = json!({ question: "Tea" });
        }
        let decision = if allow {
            json!({"behavior": "allow", "updatedInput": input})
        } else {
            json!({"behavior": "deny", "message": "no way"})
        };
        let id = &request["request_id"];
        let response = json!({"subtype": "success", "request_id": id, "response": decision});
        self.write(json!({"type": "control_response", "response": response})).await;
    }

    /// The text of the turn's result.
    async fn turn(&mut self, text: &str, allow: bool) -> String {
        self.say(text).await;
        self.result(allow).await
    }

    async fn result(&mut self, allow: bool) -> String {
        let result = |line: &Value| {
            (line["type"] == "result").then(|| line["result"].as_str().unwrap_or_default().to_owned())
        };
        self.until("result", allow, result).await
    }

    async fn control(&mut self, request: Value) -> Value {
        self.requests += 1;
        let id = format!("t{}", self.requests);
        self.write(json!({"type": "control_request", "request_id": id, "request": request})).await;
        let mine = |line: &Value| {
            let response = &line["response"];
            (line["type"] == "control_response" && response["request_id"] == id.as_str())
                .then(|| response["response"].clone())
        };
        self.until("control response", true, mine).await
    }

    async fn end(mut self) {
        drop(self.stdin);
        tokio::time::timeout(DEADLINE, self.child.wait()).await.expect("claude ends with its stdin").unwrap();
    }
}

async fn start(cli: &Path, script: Script) -> (Model, Claude) {
    let model = Model::start(script, ([127, 0, 0, 1], 0).into()).await.unwrap();
    let claude = Claude::start(cli, &model);
    (model, claude)
}

/// The rules that answered, without side calls.
fn rules(model: &Model) -> Vec<String> {
    let calls = model.requests();
    let calls = calls.iter().filter(|entry| entry.is_messages_call() && entry.side.is_none());
    calls.map(|entry| entry.rule.clone().unwrap_or_default()).collect()
}

#[tokio::test]
async fn the_demo_by_hand() {
    for cli in clis() {
        let (model, mut claude) = start(&cli, Script::default_demo().unwrap()).await;
        let table = [
            ("hello", "Hello!", &["hello"][..]),
            ("list the files", "Bash says:", &["list-files", "tool-done"]),
            ("run: echo one && echo two > out.txt", "Bash says:\n\n```\none\n```", &["run", "tool-done"]),
            ("read out.txt", "Read says:", &["read-here", "tool-done"]),
            ("write a haiku to haiku.txt", "Written.", &["write-haiku", "written"]),
            ("ask me something", "Thank you.", &["ask", "answered"]),
            ("think about tea", "I thought about it: tea", &["think"]),
            (
                "plan a picnic",
                "The plan is approved.",
                &["plan", "plan-entered", "plan-written", "plan-approved"],
            ),
            ("fail with 529", "There was a 529;", &["fail-529", "fail-529", "after-failing"]),
            ("write a lot", "All work and no play", &["flood"]),
            (
                "what did I ask you before?",
                "Before this you wrote:\n\n- hello\n- list the files\n",
                &["memory"],
            ),
            ("anything else", "You said: anything else", &["echo"]),
        ];
        for (prompt, answer, used) in table {
            model.clear_requests();
            let result = claude.turn(prompt, true).await;
            assert!(result.starts_with(answer), "{}: {prompt}: {result}", cli.display());
            assert_eq!(rules(&model), used, "{}: {prompt}", cli.display());
        }
        let haiku = std::fs::read_to_string(claude.work().join("haiku.txt")).unwrap();
        assert!(haiku.starts_with("A prompt in the dark,\n"), "{haiku}");
        claude.end().await;
        model.shutdown().await;
    }
}

#[tokio::test]
async fn a_denied_tool_is_accepted_gracefully() {
    for cli in clis() {
        let (_model, mut claude) = start(&cli, Script::default_demo().unwrap()).await;
        let result = claude.turn("run: touch never", false).await;
        assert_eq!(result, "You did not allow Bash, so I leave it. I was told: no way");
        assert!(!claude.work().join("never").exists());
        claude.end().await;
    }
}

#[tokio::test]
async fn side_calls_use_up_no_rule() {
    let script = r#"
        [[rule]]
        name = "first"
        when.call = 1
        reply.text = "one"
        [[rule]]
        name = "second"
        when.call = 2
        reply.text = "two"
    "#;
    for cli in clis() {
        let (model, mut claude) = start(&cli, Script::parse(script).unwrap()).await;
        assert_eq!(claude.turn("hello", true).await, "one");
        let title = json!({"subtype": "generate_session_title", "description": "the quick fox"});
        assert_eq!(claude.control(title).await["title"], "the quick fox");
        let question = json!({"subtype": "side_question", "question": "what is up?"});
        let answer = claude.control(question).await["response"].clone();
        assert_eq!(answer, "A scripted answer beside the conversation, to: what is up?");
        assert_eq!(claude.turn("again", true).await, "two");
        claude.turn("/compact", true).await;
        let sides: Vec<_> = model.requests().iter().filter_map(|entry| entry.side.clone()).collect();
        assert_eq!(sides, ["title", "side_question", "compact"], "{}", cli.display());
        assert_eq!(rules(&model), ["first", "second"]);
        claude.end().await;
    }
}

#[tokio::test]
async fn a_message_sent_during_a_tool_is_the_last_user_text() {
    for cli in clis() {
        let (model, mut claude) = start(&cli, Script::default_demo().unwrap()).await;
        claude.say("run: touch begun; until [ -e go ]; do sleep 0.05; done").await;
        let asked = |line: &Value| (line["type"] == "control_request").then(|| line.clone());
        let request = claude.until("permission request", true, asked).await;
        claude.answer(&request, true).await;
        let begun = claude.work().join("begun");
        let started = async {
            while !begun.exists() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(DEADLINE, started).await.expect("the tool starts");
        claude.say("count to 3").await;
        // stdin is handled in order: this answer says that the message is in.
        claude.control(json!({"subtype": "mcp_status"})).await;
        std::fs::write(claude.work().join("go"), "").unwrap();
        assert_eq!(claude.result(true).await, "1 2 3", "{}", cli.display());
        assert_eq!(rules(&model), ["run", "count"]);
        let last = model.requests().last().unwrap().clone();
        assert_eq!((last.last_user.as_deref(), last.tool_results.len()), (Some("count to 3"), 1));
        claude.end().await;
    }
}
