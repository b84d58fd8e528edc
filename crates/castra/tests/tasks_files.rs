//! Files into a task and out of its workspace, on the real CLI: scenario 30 of facts/optio.md §5, and what becomes of
//! what is handed in before, while and after a task runs.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod task;

use bytes::Bytes;
use castra_proto::task::{TaskEventKind, Uploaded};
use castra_proto::{ErrorCode, TaskState};
use castra_testkit::{DEADLINE, Reply, Task, World, each, wait_until};
use hyper::Method;
use serde_json::{Value, json};
use std::os::unix::fs::symlink;
use task::{CASTRA, SCRIPT, instructed, replies, work};

const OCTETS: (&str, &str) = ("content-type", "application/octet-stream");

/// `query` behind `?name=`, percent-encoded.
fn upload(task: &Task, query: &str, key: Option<&str>, content: &str) -> Reply {
    let key = key.map(|key| ("idempotency-key", key));
    let headers: Vec<(&str, &str)> = [OCTETS].into_iter().chain(key).collect();
    let path = task.path(&format!("/uploads?name={query}"));
    task.http.call(Method::POST, &path, &headers, Bytes::copy_from_slice(content.as_bytes()))
}

/// How often the agent heard of a file.
fn heard(world: &World, path: &str) -> usize {
    world.times_heard(&format!("a file was handed in: {path}"))
}

#[test]
fn scenario_30_files_go_in_under_a_safe_name_and_out_by_the_paths_rules() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let task =
            daemon.task(instructed("ln -s /etc/passwd uploads/link; echo 'STATUS: ready' >> optio.log"));
        task.wait_said(TaskEventKind::Progress);
        task.session().wait_idle();
        let uploaded: Uploaded = upload(&task, "../../a%20b.txt", Some("k1"), "one").expect(201);
        assert_eq!((uploaded.path.as_str(), uploaded.size), ("uploads/a b.txt", 3), "{cli}");
        let lies = work(&task).join("uploads/a b.txt");
        assert_eq!(std::fs::read_to_string(&lies).unwrap(), "one", "{cli}");
        wait_until("the agent to hear of it", || heard(world, "uploads/a b.txt") == 1, DEADLINE);

        // Again with the key, and again without one: the same file, and no word more.
        for key in [Some("k1"), None] {
            assert_eq!(upload(&task, "a%20b.txt", key, "one").expect::<Uploaded>(201), uploaded, "{cli}");
        }
        let other = upload(&task, "a%20b.txt", Some("k1"), "two").problem();
        assert_eq!(other.code, ErrorCode::IdempotencyMismatch, "{cli}");
        let taken = upload(&task, "a%20b.txt", None, "two").problem();
        assert_eq!((taken.status, taken.code), (409, ErrorCode::Conflict), "{cli}");
        assert!(taken.hint.is_some_and(|hint| hint.contains("replace")), "{cli}");
        std::fs::write(work(&task).join("uploads/theirs"), "the agent's").unwrap();
        assert_eq!(upload(&task, "theirs", None, "mine").problem().code, ErrorCode::Conflict, "{cli}");
        upload(&task, "a%20b.txt&replace=true", None, "two").expect::<Uploaded>(201);
        assert_eq!(std::fs::read_to_string(&lies).unwrap(), "two", "{cli}");
        wait_until("the agent to hear of the other one", || replies(&task).len() == 2, DEADLINE);

        // Links of the agent's are neither followed nor replaced.
        for name in ["link", "link&replace=true"] {
            let refused = upload(&task, name, None, "x").problem();
            assert_eq!(
                (refused.status, refused.code),
                (400, ErrorCode::InvalidRequest),
                "{cli}: {refused:?}"
            );
        }
        assert_eq!(upload(&task, "..", None, "x").problem().code, ErrorCode::InvalidRequest, "{cli}");
        let outside = world.folder().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::rename(work(&task).join("uploads"), work(&task).join("away")).unwrap();
        symlink(&outside, work(&task).join("uploads")).unwrap();
        let refused = upload(&task, "b", None, "x").problem();
        assert_eq!(refused.code, ErrorCode::InvalidRequest, "{cli}: {refused:?}");
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0, "{cli}");
        let events = task.said(TaskEventKind::Upload);
        assert_eq!(events, ["uploads/a b.txt, 3 bytes", "uploads/a b.txt, 3 bytes"], "{cli}");

        // Out of the workspace.
        let get = |path: &str| task.http.get(&task.path(&format!("/files?path={path}")));
        let got = get("away/a%20b.txt");
        assert_eq!((got.status, got.text().as_str()), (200, "two"), "{cli}");
        assert!(got.headers["content-disposition"].to_str().unwrap().starts_with("attachment"), "{cli}");
        let listed: Value = get("").expect(200);
        let names: Vec<_> = listed["items"].as_array().unwrap().iter().map(|entry| &entry["name"]).collect();
        assert!(names.contains(&&json!("optio.log")), "{cli}: {names:?}");
        for (path, status) in
            [("none.txt", 404), ("../x", 400), ("/etc/passwd", 400), ("away/link", 400), ("uploads/x", 400)]
        {
            assert_eq!(get(path).status, status, "{cli}: {path}");
        }
        task.cancel();
        task.wait();
        assert_eq!(get("away/a%20b.txt").text(), "two", "{cli}: also when it is over");
        assert_eq!(task.http.delete(&task.session().path("")).status, 204, "{cli}");
        assert_eq!(get("away/a%20b.txt").status, 404, "{cli}: the workspace is gone");
        let blobs = |folder: &str| std::fs::read_dir(world.home().join(folder)).unwrap().count();
        assert_eq!((blobs("blobs"), blobs(&format!("blobs/{}", task.id))), (1, 2), "{cli}");
        assert_eq!(task.http.delete(&task.path("")).status, 204, "{cli}");
        assert_eq!(blobs("blobs"), 0, "{cli}: what was handed in goes with its task");
    });
}

#[test]
fn what_is_handed_in_before_the_start_is_there_in_every_attempt() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let first =
            daemon.task(instructed("until [ -e uploads/go ]; do sleep 0.1; done; echo DONE >> optio.log"));
        let mut spec = instructed(
            "cat uploads/* > deliverables/all; cp CLAUDE.md deliverables; echo 'ERROR: so' >> optio.log",
        );
        spec["depends_on"] = json!([first.id]);
        let task = daemon.task(spec);
        upload(&task, "a.txt", None, "old").expect::<Uploaded>(201);
        upload(&task, "a.txt&replace", None, "one\n").expect::<Uploaded>(201);
        upload(&task, "b.txt", None, "two\n").expect::<Uploaded>(201);
        assert_eq!(task.http.get(&task.path("/files?path=uploads/")).status, 404, "{cli}: not yet");
        upload(&first, "go", None, "").expect::<Uploaded>(201);
        assert_eq!(first.wait().state, TaskState::Done, "{cli}: {:?}", first.log());
        let delivered = |version: u32| {
            let get = |name: &str| {
                let path = task.path(&format!("/deliverables/{name}?version={version}"));
                task.http.get(&path).text()
            };
            let instructions = get("CLAUDE.md");
            let named = instructions.lines().filter(|line| line.starts_with("- `uploads/")).count();
            (get("all"), named)
        };
        assert_eq!(task.wait().state, TaskState::Failed, "{cli}: {:?}", task.log());
        assert_eq!(delivered(1), ("one\ntwo\n".to_owned(), 2), "{cli}");
        // While it is over: kept for the attempt to come.
        upload(&task, "c.txt", None, "three\n").expect::<Uploaded>(201);
        assert_eq!(task.act("retry").status, 200, "{cli}");
        wait_until(
            "the second attempt's end",
            || task.show().attempts.get(1).is_some_and(|a| a.ended_at.is_some()),
            DEADLINE,
        );
        assert_eq!(delivered(2), ("one\ntwo\nthree\n".to_owned(), 3), "{cli}: {:?}", task.log());
        assert_eq!(replies(&task), Vec::<String>::new(), "{cli}: they stand in the instructions");
        for name in ["a.txt", "b.txt", "c.txt"] {
            assert_eq!(heard(world, &format!("uploads/{name}")), 0, "{cli}: {name}");
        }

        upload(&task, "d.txt", None, "four\n").expect::<Uploaded>(201);
        assert_eq!(task.act("resume").status, 200, "{cli}");
        wait_until("the agent to hear of it", || heard(world, "uploads/d.txt") == 1, DEADLINE);
        assert_eq!(std::fs::read_to_string(work(&task).join("uploads/d.txt")).unwrap(), "four\n", "{cli}");
        task.cancel();
        task.wait();
    });
}

#[test]
fn in_a_users_folder_they_lie_beside_it_and_the_command_line_does_the_same() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let folder = world.folder().join("mine");
        std::fs::create_dir(&folder).unwrap();
        let mut spec = instructed("");
        spec["instructions"] = json!("wait");
        spec["name"] = json!("mine");
        spec["session"]["workdir"] = json!(folder);
        let task = daemon.task(spec);
        task.wait_state(TaskState::Running);
        std::fs::write(world.folder().join("in.txt"), "hello").unwrap();
        let said = world.cli(["task", "upload", "mine", "in.txt", "--name", "x/other.txt"]).ok();
        let path = said.trim().strip_suffix(" (5 B)").unwrap_or_else(|| panic!("{cli}: {said}")).to_owned();
        assert!(path.starts_with(".castra/") && path.ends_with("/uploads/other.txt"), "{cli}: {said}");
        assert_eq!(std::fs::read_to_string(folder.join(&path)).unwrap(), "hello", "{cli}");
        wait_until("the agent to hear of it", || heard(world, &path) == 1, DEADLINE);
        assert!(!folder.join("uploads").exists() && !folder.join("other.txt").exists(), "{cli}");
        assert_eq!(world.cli(["task", "files", "mine", &path, "-o", "-"]).ok(), "hello", "{cli}");
        let uploads = path.trim_end_matches("other.txt");
        assert!(world.cli(["task", "files", "mine", uploads]).ok().contains("other.txt"), "{cli}");
        assert!(
            world.cli(["task", "files", "mine", uploads.trim_end_matches('/')]).ok().contains("other.txt"),
            "{cli}"
        );
        world.cli(["task", "files", "mine", &path]).ok();
        assert_eq!(std::fs::read_to_string(world.folder().join("other.txt")).unwrap(), "hello", "{cli}");
        let again = world.cli(["task", "files", "mine", &path]);
        assert!(again.code != 0 && again.stderr.contains("is there already"), "{cli}: {again:?}");
        let none = world.cli(["task", "upload", "mine", "none.txt"]);
        assert!(none.code != 0 && none.stderr.contains("cannot read none.txt"), "{cli}: {none:?}");
        let many = world.cli(["task", "upload", "mine", "in.txt", "in.txt", "--name", "x"]);
        assert_eq!(many.code, 2, "{cli}: {many:?}");
        task.cancel();
        task.wait();
    });
}

/// Whoever got no answer asks again with the same key: the file is there, and the agent has heard of it once. One daemon
/// after the other dies where the last one's successor comes next.
#[cfg(feature = "failpoints")]
#[test]
fn killed_while_a_file_is_handed_in() {
    let world = World::new(CASTRA, &castra_testkit::clis()[0].path, SCRIPT);
    let mut daemon = world.daemon();
    let task = daemon.task(instructed("echo 'STATUS: ready' >> optio.log"));
    task.wait_said(TaskEventKind::Progress);
    task.session().wait_idle();
    let path = task.path("/uploads?name=a.txt");
    let headers = [OCTETS, ("idempotency-key", "k")];
    let send = || task.http.try_call(Method::POST, &path, &headers, Bytes::from_static(b"one"));
    daemon.kill9();
    for place in ["upload.placed", "upload.kept", "upload.tell"] {
        daemon.start_doomed(place);
        let _ = send();
        wait_until(&format!("the daemon to die at {place}"), || daemon.is_over(), DEADLINE);
        assert_eq!(daemon.wait_over(), -9, "{place}");
        assert_eq!(heard(&world, "uploads/a.txt"), 0, "{place}");
    }
    // Told, and nothing says so yet.
    daemon.start_doomed("task.commit");
    let _ = send();
    wait_until("the daemon to die when the agent was told", || daemon.is_over(), DEADLINE);
    assert_eq!(daemon.wait_over(), -9);
    daemon.start_again();
    let uploaded: Uploaded = castra_testkit::wait_for("an answer", || send().ok(), DEADLINE).expect(201);
    assert_eq!(uploaded.path, "uploads/a.txt");
    wait_until("the agent to hear of it", || heard(&world, "uploads/a.txt") > 0, DEADLINE);
    assert_eq!(std::fs::read_to_string(work(&task).join("uploads/a.txt")).unwrap(), "one");
    wait_until("the reply to be written down", || replies(&task).len() == 1, DEADLINE);
    task.session().wait_idle();
    task.cancel();
    task.wait();
    assert_eq!(task.said(TaskEventKind::Upload).len(), 1);
    assert_eq!((replies(&task).len(), heard(&world, "uploads/a.txt")), (1, 1));
}
