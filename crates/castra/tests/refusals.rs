//! Bad input and bad surroundings: each is refused with a clear message and a next step, and makes nothing.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use castra_proto::{ErrorCode, Problem};
use castra_testkit::{Output, World, fake_claude};
use serde_json::{Value, json};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const CASTRA: &str = env!("CARGO_BIN_EXE_castra");
const SCRIPT: &str = "[[rule]]\nreply.text = \"never asked\"\n";

fn world() -> World {
    World::new(CASTRA, fake_claude(), SCRIPT)
}

/// `error: …` with these words, and `hint: …`.
#[track_caller]
fn refused(output: &Output, code: i32, words: &[&str]) {
    assert_eq!((output.code, output.stdout.as_str()), (code, ""), "{output:#?}");
    let line = |start: &str| output.stderr.lines().find(|line| line.starts_with(start)).map(str::to_owned);
    let error = line("error: ").unwrap_or_else(|| panic!("no error: {output:#?}"));
    for word in words {
        assert!(error.contains(word), "no {word:?}: {output:#?}");
    }
    assert!(line("hint: ").is_some(), "no next step: {output:#?}");
}

#[track_caller]
fn problem(problem: &Problem, code: ErrorCode, words: &[&str]) {
    assert_eq!(problem.code, code, "{problem:?}");
    for word in words {
        assert!(problem.detail.contains(word), "no {word:?}: {problem:?}");
    }
    assert!(problem.hint.as_ref().is_some_and(|hint| !hint.is_empty()), "no next step: {problem:?}");
}

fn sessions(world: &World) -> usize {
    world.cli(["ps", "--all", "--json"]).json()["items"].as_array().unwrap().len()
}

#[test]
fn a_request_that_cannot_be_meant_makes_nothing() {
    let world = world();
    let daemon = world.daemon();
    let http = daemon.http();
    let table: &[(Value, ErrorCode, &[&str])] = &[
        (json!({"modle": "opus"}), ErrorCode::UnknownField, &["modle"]),
        (json!({"limits": {"max_turn": 1}}), ErrorCode::UnknownField, &["max_turn"]),
        (json!({"permission_mode": "nonsense"}), ErrorCode::InvalidRequest, &["nonsense"]),
        (
            json!({"workdir": "/no/such/folder"}),
            ErrorCode::InvalidRequest,
            &["/no/such/folder", "does not exist"],
        ),
        (json!({"workdir": "relative"}), ErrorCode::InvalidRequest, &["relative", "absolute"]),
        (json!({"workdir": "/etc/hostname"}), ErrorCode::InvalidRequest, &["/etc/hostname"]),
        (json!({"name": "../../etc"}), ErrorCode::InvalidRequest, &["../../etc"]),
        (json!({"name": ""}), ErrorCode::InvalidRequest, &["name"]),
        (json!({"env": {"A=B": "c"}}), ErrorCode::InvalidRequest, &["A=B"]),
        (json!({"env": {"HOME": "/tmp"}}), ErrorCode::InvalidRequest, &["HOME"]),
        (json!({"extra_args": ["--resume=x"]}), ErrorCode::InvalidRequest, &["--resume"]),
        (json!({"extra_args": ["a prompt"]}), ErrorCode::InvalidRequest, &["a prompt"]),
        (json!({"tui": {"focus": true}}), ErrorCode::InvalidRequest, &["tui", "terminal session"]),
        (json!({"effort": "enormous"}), ErrorCode::InvalidRequest, &["enormous"]),
        (json!({"permission_mode": "bypassPermissions"}), ErrorCode::InvalidRequest, &["root"]),
        (json!({"system_prompt_file": "/no/such/file"}), ErrorCode::InvalidRequest, &["/no/such/file"]),
    ];
    for (fields, code, words) in table {
        if fields["permission_mode"] == "bypassPermissions" && !rustix_is_root() {
            // Only root is refused.
            continue;
        }
        let reply = http.post("/api/v1/sessions", &world.spec(fields.clone()));
        assert_ne!(reply.status, 201, "{fields}");
        problem(&reply.problem(), *code, words);
    }
    assert_eq!(sessions(&world), 0);
    let left = std::fs::read_dir(world.home().join("sessions")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "no folder is left");
}

fn rustix_is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

#[test]
fn a_command_that_cannot_be_meant_says_the_next_step() {
    let world = world();
    let _daemon = world.daemon();
    let table: &[(&[&str], i32, &[&str])] = &[
        (&["show", "nobody"], 1, &["nobody"]),
        (&["send", "nobody", "hello"], 1, &["nobody"]),
        (&["stop", "nobody"], 1, &["nobody"]),
        (&["approve", "nobody"], 1, &["nobody"]),
        (&["resume", "00000000-0000-4000-8000-000000000000"], 1, &["00000000-0000-4000-8000-000000000000"]),
        (&["run", "--workdir", "/no/such/folder", "hello"], 2, &["/no/such/folder"]),
        (&["run", "--fresh", "--name", "../../etc", "hello"], 2, &["../../etc"]),
    ];
    for (args, code, words) in table {
        refused(&world.cli(*args), *code, words);
    }
    assert_eq!(sessions(&world), 0);
}

#[test]
fn messages_that_cannot_be_meant() {
    let world = world();
    let daemon = world.daemon();
    let session = daemon.session(json!({"name": "s"}));
    let table: &[(Value, ErrorCode, &[&str])] = &[
        (json!({"txt": "hello"}), ErrorCode::UnknownField, &["txt"]),
        (json!({}), ErrorCode::InvalidRequest, &["text"]),
        (json!({"text": "a", "content": []}), ErrorCode::InvalidRequest, &["text", "content"]),
        (json!({"text": "a", "if_busy": "panic"}), ErrorCode::InvalidRequest, &["panic"]),
    ];
    for (body, code, words) in table {
        let problem = session.try_send(body).problem();
        assert_eq!(problem.code, *code, "{body}: {problem:?}");
        for word in *words {
            assert!(problem.detail.contains(word), "{body}: no {word:?}: {problem:?}");
        }
    }
    let taken = daemon.http().post("/api/v1/sessions", &world.spec(json!({"name": "s"}))).problem();
    problem(&taken, ErrorCode::Conflict, &["s"]);
    let alive = daemon.http().delete(&session.path("")).problem();
    problem(&alive, ErrorCode::Conflict, &[]);
}

#[test]
fn without_a_cli_and_with_installation_off_nothing_starts() {
    let named = World::new(CASTRA, "/no/such/claude", SCRIPT).with_env("CASTRA_CLAUDE_INSTALL", "never");
    let unnamed = World::without_claude(CASTRA, SCRIPT).with_env("CASTRA_CLAUDE_INSTALL", "never");
    for (world, word) in [(named, "/no/such/claude"), (unnamed, "claude")] {
        let daemon = world.daemon();
        let reply = daemon.http().post("/api/v1/sessions", &world.spec(json!({})));
        problem(&reply.problem(), ErrorCode::CliNotFound, &[word]);
        refused(&world.cli(["run", "--fresh", "hello"]), 1, &[word]);
        assert_eq!(sessions(&world), 0);
        let doctor = world.cli(["doctor"]);
        assert_eq!(doctor.code, 1, "{doctor:#?}");
    }
}

#[test]
fn a_second_daemon_on_one_data_folder_is_refused_and_harms_nothing() {
    let world = world();
    let daemon = world.daemon();
    let session = daemon.session(json!({}));
    let second = world.cli(["up", "--listen", "127.0.0.1:0"]);
    refused(&second, 1, &["another daemon", world.home().to_str().unwrap()]);
    assert!(second.stderr.contains(&format!("pid {}", daemon.pid())), "{second:#?}");
    assert_eq!(session.ask("echo undisturbed"), "undisturbed");
    assert_eq!(world.cli(["show", &session.id]).code, 0, "the socket is still the first one's");
}

#[test]
fn a_data_folder_that_others_can_enter_is_refused() {
    let world = world();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(world.home(), open).unwrap();
    refused(&world.cli(["up"]), 1, &["0755", world.home().to_str().unwrap()]);
}

#[test]
fn an_address_beyond_loopback_is_refused() {
    let world = world();
    refused(&world.cli(["up", "--listen", "0.0.0.0:0"]), 1, &["0.0.0.0"]);
}

#[test]
fn no_daemon_and_none_may_be_started() {
    let world = world();
    refused(&world.cli(["ps", "--no-daemon-start"]), 1, &["no daemon"]);
}

/// A file system of a few megabytes on the world's data folder.
struct Small(PathBuf);

impl Small {
    fn on(path: &Path) -> Self {
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=24m,mode=0700", "castra-test"])
            .arg(path)
            .output()
            .expect("mount");
        assert!(
            mount.status.success(),
            "this test needs a small disk of its own, and mounting one needs root (CAP_SYS_ADMIN): {}",
            String::from_utf8_lossy(&mount.stderr)
        );
        Self(path.to_owned())
    }

    /// Writes until nothing fits any more.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("filling");
        let mut file = std::fs::File::create(&path).unwrap();
        for size in [1 << 16, 1 << 12, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        path
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Lazily: whoever still has it open is about to be ended by the world.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_refuses_what_it_cannot_keep_and_loses_nothing() {
    let world = world();
    let disk = Small::on(&world.home());
    let daemon = world.daemon();
    let session = daemon.session(json!({}));
    assert_eq!(session.ask("echo before"), "before");

    let filling = disk.fill();
    // What is small may still find room in pages that SQLite has; what is large may not.
    let refusal = session.try_send(&json!({"text": format!("echo {}", "x".repeat(1 << 20))}));
    problem(&refusal.problem(), ErrorCode::DiskFull, &[]);
    assert_eq!(daemon.http().get("/healthz").status, 200, "it still answers");
    assert_eq!(session.show().turns, 1);

    std::fs::remove_file(filling).unwrap();
    assert_eq!(session.ask("echo after"), "after");
    let said: Vec<String> = castra_testkit::normalise(&session.events())
        .into_iter()
        .filter(|one| one.kind == "result")
        .filter_map(|one| one.text)
        .collect();
    assert_eq!(said, ["before", "after"]);
}
