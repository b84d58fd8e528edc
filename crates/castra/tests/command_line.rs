//! The binary itself, where no daemon is needed: exit codes, pages, pipes, the background model.

// Helpers of tests, which clippy does not know for tests.
#![allow(clippy::unwrap_used)]

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn castra(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_castra"));
    command.env_clear().env("HOME", home).env("CASTRA_HOME", home.join("data")).stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn run(home: &Path, args: &[&str]) -> Output {
    castra(home).args(args).output().unwrap()
}

/// Waits for a condition, by its description, as long as a busy machine may need.
fn wait_until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn exit_codes_and_where_words_go() {
    let home = tempfile::tempdir().unwrap();
    let table: &[(&[&str], i32, bool)] = &[
        (&["--help"], 0, true),
        (&["--version"], 0, true),
        (&["errors"], 0, true),
        (&["man"], 0, true),
        (&["model", "script"], 0, true),
        (&["completions", "zsh"], 0, true),
        (&["config"], 0, true),
        (&[], 2, false),
        (&["host", "list"], 2, false),
        (&["ps", "--no-daemon-start"], 1, false),
        (&["run", "--label", "x", "hello"], 2, false),
        (&["--config", "missing.toml", "ps"], 2, false),
    ];
    for (args, exit, on_stdout) in table {
        let output = run(home.path(), args);
        assert_eq!(output.status.code(), Some(*exit), "{args:?}: {}", text(&output.stderr));
        assert_eq!(!output.stdout.is_empty(), *on_stdout, "{args:?}: stdout");
        assert_eq!(output.stderr.is_empty(), *on_stdout, "{args:?}: stderr {}", text(&output.stderr));
    }
    assert!(!home.path().join("data").exists(), "none of this needs a data folder");
}

#[test]
fn a_refusal_has_a_hint_and_no_colour() {
    let home = tempfile::tempdir().unwrap();
    let output = run(home.path(), &["ps", "--no-daemon-start"]);
    let socket = home.path().join("data/castra.sock");
    assert_eq!(
        text(&output.stderr),
        format!("error: no daemon answers at {}\nhint: `castra up -d` starts one\n", socket.display())
    );
}

#[test]
fn an_open_data_folder_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o755)).unwrap();
    let output = run(home.path(), &["ps"]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("is open to others (mode 0755)") && said.contains("chmod 700"), "{said}");
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let home = tempfile::tempdir().unwrap();
    let mut child =
        castra(home.path()).args(["man"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((child.wait().unwrap().code(), said.as_str()), (Some(0), ""));
}

#[test]
fn config_names_every_source() {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(home.path().join(".config/castra")).unwrap();
    std::fs::write(home.path().join(".config/castra/castra.toml"), "starts = 3\n").unwrap();
    let output = castra(home.path())
        .args(["config", "--json"])
        .env("CASTRA_CLAUDE_PATH", "/opt/claude")
        .output()
        .unwrap();
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let file = home.path().join(".config/castra/castra.toml");
    assert_eq!(told["file"], file.to_str().unwrap());
    assert_eq!(told["daemon"], serde_json::Value::Null);
    let settings = &told["settings"];
    let expected = serde_json::json!({
        "starts": {"value": 3, "source": file},
        "claude.path": {"value": "/opt/claude", "source": "CASTRA_CLAUDE_PATH"},
        "home": {"value": home.path().join("data"), "source": "CASTRA_HOME"},
        "log.level": {"value": "info", "source": "default"},
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&settings[key], value, "{key}");
    }
}

struct Model {
    child: std::process::Child,
    port: u64,
    key: String,
}

impl Drop for Model {
    fn drop(&mut self) {
        // A test that failed leaves no process behind; one that has ended already is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn background_model(home: &Path) -> Model {
    let data = home.join("data");
    let child = castra(home).args(["model", "serve", "--for-home"]).arg(&data).spawn().unwrap();
    let pid = u64::from(child.id());
    let file = wait_until("the model has said where it is", || {
        let text = std::fs::read(data.join("model.json")).ok()?;
        let file: serde_json::Value = serde_json::from_slice(&text).ok()?;
        (file["pid"] == pid).then_some(file)
    });
    Model { child, port: file["port"].as_u64().unwrap(), key: file["key"].as_str().unwrap().into() }
}

#[test]
fn a_killed_model_comes_back_where_it_was_and_goes_with_its_folder() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let mut first = background_model(home.path());
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    let mut second = background_model(home.path());
    assert_eq!((second.port, &second.key), (first.port, &first.key));

    std::fs::remove_dir_all(&data).unwrap();
    let status = wait_until("the model has ended by itself", || second.child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    assert!(!data.exists(), "it does not bring the folder back");
}

#[test]
fn a_second_model_takes_over_and_the_first_leaves() {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join("data")).unwrap();
    let mut first = background_model(home.path());
    let second = background_model(home.path());
    assert_ne!(first.port, second.port, "the first still holds its port");
    wait_until("the first has ended", || first.child.try_wait().unwrap());
}
