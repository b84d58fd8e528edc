//! What a task has fetched before its agent begins: from the host, from a web server that breaks off, from repositories
//! and from other tasks; and what is refused.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "tasks_inputs/web.rs"]
mod web;

mod task;

use castra_proto::api::Scope;
use castra_proto::task::{ReasonCode, TaskEventKind};
use castra_proto::{ErrorCode, Task as Shown, TaskState};
use castra_testkit::{DEADLINE, Daemon, Task, World, clis, each, wait_until};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;
use task::{CASTRA, SCRIPT, instructed, work};
use web::Web;

fn git(folder: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "init.defaultBranch=main"])
        .args(args)
        .current_dir(folder)
        .output()
        .expect("git");
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// `file` says `one` in the tag `v1`, `two` in the branch `side`, and `three` in `main`.
fn repository(folder: &Path) {
    fs::create_dir(folder).unwrap();
    git(folder, &["init", "--quiet"]);
    for (text, mark) in [("one", ["tag", "v1"]), ("two", ["branch", "side"]), ("three", ["tag", "last"])] {
        fs::write(folder.join("file"), text).unwrap();
        git(folder, &["add", "."]);
        git(folder, &["commit", "--quiet", "-m", text]);
        git(folder, &mark);
    }
}

fn with_inputs(run: &str, inputs: Value) -> Value {
    let mut spec = instructed(run);
    spec["inputs"] = inputs;
    spec
}

fn url(path: &str, web: &Web, what: &str) -> Value {
    json!({"path": path, "from": {"url": web.url(what)}, "allow_private": true})
}

const DONE: &str = "echo DONE >> optio.log";

/// Why it was not begun.
#[track_caller]
fn refused_at_start(task: &Task) -> String {
    let shown = task.wait();
    let reason = shown.reason.unwrap_or_else(|| panic!("no reason: {:?}", task.log()));
    assert_eq!((shown.state, reason.code), (TaskState::Failed, ReasonCode::Start), "{:?}", task.log());
    assert_eq!(shown.session_id, None, "claude was never started");
    reason.message
}

fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

#[test]
fn inputs_of_every_kind_are_there_when_the_agent_begins() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let here = world.folder();
        repository(&here.join("repo"));
        fs::create_dir_all(here.join("data/sub")).unwrap();
        fs::write(here.join("data/sub/x.csv"), "x").unwrap();
        fs::write(here.join("tool.sh"), "echo tool").unwrap();
        fs::set_permissions(here.join("tool.sh"), fs::Permissions::from_mode(0o640)).unwrap();
        symlink(here.join("tool.sh"), here.join("link.sh")).unwrap();
        let commit = git(&here.join("repo"), &["rev-parse", "v1"]);
        let web = Web::serve("hello, world");
        let made = daemon.task(instructed("echo made > deliverables/m.txt; echo DONE >> optio.log"));
        let repo = here.join("repo");
        let local = |git: Value| {
            let mut git = git;
            git["path"] = json!(repo);
            json!({ "git": git })
        };
        let mut spec = with_inputs(
            "cat CLAUDE.md > deliverables/CLAUDE.md; git -C copy log --format=%s -1 > deliverables/log; echo DONE >> optio.log",
            json!([
                {"path": "in/x.csv", "from": {"file": here.join("data/sub/x.csv")}},
                {"path": "data", "from": {"file": here.join("data")}},
                {"path": "tool.sh", "from": {"file": here.join("link.sh")}, "mode": "755"},
                {"path": "as is.sh", "from": {"file": here.join("tool.sh")}},
                {"path": "web.txt", "from": {"url": web.url("/hop")}, "allow_private": true, "mode": "600",
                 "sha256": "09ca7e4eaa6e8ae9c7d261167129184883644d07dfba7cbfbc4c8a2e08360d5b"},
                {"path": "copy", "from": local(json!({"ref": "v1"}))},
                {"path": "head", "from": local(json!({}))},
                {"path": "side", "from": local(json!({"ref": "side"}))},
                {"path": "commit", "from": local(json!({ "ref": commit }))},
                {"path": "tree", "from": local(json!({"ref": "v1", "worktree": true}))},
                {"path": "made/m.txt", "from": {"blob": {"task": made.id, "path": "m.txt"}}},
            ]),
        );
        spec["depends_on"] = json!([made.id]);
        let task = daemon.task(spec);
        let shown = task.wait();
        assert_eq!(shown.state, TaskState::Done, "{cli}: {:?}", task.log());
        let work = work(&task);
        for (path, content) in [
            ("in/x.csv", "x"),
            ("data/sub/x.csv", "x"),
            ("tool.sh", "echo tool"),
            ("as is.sh", "echo tool"),
            ("web.txt", "hello, world"),
            ("copy/file", "one"),
            ("head/file", "three"),
            ("side/file", "two"),
            ("commit/file", "one"),
            ("tree/file", "one"),
            ("made/m.txt", "made\n"),
            ("deliverables/log", "one\n"),
        ] {
            assert_eq!(text(work.join(path)), content, "{cli}: {path}");
        }
        let mode = |path: &str| fs::symlink_metadata(work.join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("tool.sh"), mode("as is.sh"), mode("web.txt")), (0o755, 0o640, 0o600), "{cli}");
        assert!(git(&repo, &["worktree", "list"]).contains("/work/tree "), "{cli}");
        assert_eq!(git(&repo, &["status", "--porcelain"]), "", "{cli}");
        let told = text(work.join("deliverables/CLAUDE.md"));
        assert!(told.contains("- `made/m.txt`") && told.contains("- `as is.sh`"), "{cli}: {told}");
        let said = task.said(TaskEventKind::Progress);
        assert!(said.contains(&"fetching web.txt from 127.0.0.1".to_owned()), "{cli}: {said:?}");
        assert!(said.contains(&"web.txt is there, 12 bytes".to_owned()), "{cli}: {said:?}");
        // Nothing of the daemon's environment, and no login, got to the server.
        assert!(web.asked().iter().all(|request| !request.to_ascii_lowercase().contains("authorization")));
    });
}

/// Whoever runs the daemon has logins, a proxy and a configuration of curl: none of them is the task's.
#[test]
fn a_download_uses_nothing_of_the_daemons_user() {
    let cli = &clis()[0];
    let (web, proxy) = (Web::serve("hello, world"), Web::serve("from the proxy"));
    let world = World::new(CASTRA, &cli.path, SCRIPT)
        .with_env("http_proxy", &proxy.url(""))
        .with_env("HTTP_PROXY", &proxy.url(""))
        .with_env("ALL_PROXY", &proxy.url(""));
    let own = world.user_home();
    fs::write(own.join(".netrc"), "machine 127.0.0.1 login planted password planted\n").unwrap();
    fs::write(
        own.join(".curlrc"),
        "netrc\nuser-agent = planted\nheader = \"X-Own: planted\"\nuser = planted:x\n",
    )
    .unwrap();
    // What is planted is used by a curl that is not kept from it.
    let asked = |home: &Path| {
        let curl = Command::new("curl").args(["-s", &web.url("/own")]).env_clear().env("HOME", home).output();
        assert!(curl.expect("curl").status.success());
        web.asked().pop().unwrap().to_ascii_lowercase()
    };
    assert!(asked(&own).contains("planted"), "{:?}", web.asked());
    let daemon = world.daemon();
    let task = daemon.task(with_inputs(DONE, json!([url("web.txt", &web, "/file")])));
    // What claude does with that proxy is another matter.
    wait_until(
        "the file",
        || task.said(TaskEventKind::Progress).contains(&"web.txt is there, 12 bytes".to_owned()),
        DEADLINE,
    );
    let head = web.asked().pop().unwrap().to_ascii_lowercase();
    assert!(head.starts_with("get /file "), "{head}");
    assert!(!head.contains("planted") && !head.contains("authorization"), "{head}");
    let by_proxy: Vec<_> = proxy.asked().into_iter().filter(|head| head.contains("/file")).collect();
    assert_eq!(by_proxy, Vec::<String>::new());
    task.cancel();
    task.wait();
}

#[test]
fn a_download_that_breaks_off_goes_on_while_the_file_is_the_same() {
    let cli = &clis()[0];
    let world = World::new(CASTRA, &cli.path, SCRIPT);
    let daemon = world.daemon();
    let content: String = (0..40_000).map(|n| format!("{n:07}\n")).collect();
    let web = Web::serve(&content).breaking_off(2);
    let task = daemon.task(with_inputs(DONE, json!([url("big.txt", &web, "/big")])));
    assert_eq!(task.wait().state, TaskState::Done, "{:?}", task.log());
    assert!(text(work(&task).join("big.txt")) == content, "it is whole");
    let ranges = web.ranges();
    assert_eq!(ranges.len(), 3, "{ranges:?}");
    assert_eq!(ranges[0], None);
    for range in &ranges[1..] {
        let (range, mark) = range.as_ref().expect("the rest only");
        assert!(range.starts_with("bytes=") && range != "bytes=0-" && mark == "\"v1\"", "{ranges:?}");
    }

    // Another file by the time that it is asked for again.
    let web = Web::serve(&content).breaking_off(1).then_changing();
    let task = daemon.task(with_inputs(DONE, json!([url("big.txt", &web, "/big")])));
    assert_eq!(task.wait().state, TaskState::Done, "{:?}", task.log());
    assert!(text(work(&task).join("big.txt")) == web.changed(), "none of the first one is in it");
}

#[test]
fn killed_or_cancelled_in_the_middle_of_a_download() {
    let cli = &clis()[0];
    let world = World::new(CASTRA, &cli.path, SCRIPT);
    let mut daemon = world.daemon();
    let content: String = (0..40_000).map(|n| format!("{n:07}\n")).collect();
    let web = Web::serve(&content).stalling();
    fs::write(world.folder().join("small"), "small").unwrap();
    let small = json!({"path": "small", "from": {"file": world.folder().join("small")}});
    let task = daemon.task(with_inputs(DONE, json!([small, url("big.txt", &web, "/big")])));
    wait_until("half of it", || web.ranges().len() == 1, DEADLINE);
    wait_until(
        "progress",
        || {
            task.said(TaskEventKind::Progress)
                .iter()
                .any(|said| said.ends_with("bytes") && said.starts_with("big.txt: "))
        },
        DEADLINE,
    );
    daemon.kill9();
    web.go_on();
    daemon.start_again();
    assert_eq!(task.wait().state, TaskState::Done, "{:?}", task.log());
    assert!(text(work(&task).join("big.txt")) == content);
    assert!(web.ranges()[1].is_some(), "what had arrived was not asked for again: {:?}", web.ranges());
    let fetched =
        task.said(TaskEventKind::Progress).iter().filter(|said| said.starts_with("fetching small")).count();
    assert_eq!(fetched, 1, "what is in its place stays");

    let web = Web::serve(&content).stalling();
    let task = daemon.task(with_inputs(DONE, json!([url("big.txt", &web, "/big")])));
    wait_until("half of it", || web.ranges().len() == 1, DEADLINE);
    task.cancel();
    let shown = task.wait();
    assert_eq!((shown.state, shown.session_id), (TaskState::Cancelled, None), "{:?}", task.log());
    let curls = || world.processes().iter().filter(|one| one.arguments().contains("curl")).count();
    wait_until("curl to be gone", || curls() == 0, DEADLINE);
}

#[test]
fn what_cannot_be_had_fails_the_start_with_the_reason() {
    let cli = &clis()[0];
    let world = World::new(CASTRA, &cli.path, SCRIPT);
    let daemon = world.daemon();
    let here = world.folder();
    repository(&here.join("repo"));
    fs::write(here.join("file"), "x").unwrap();
    let web = Web::serve("hello");
    let other = daemon.task(instructed(DONE));
    other.wait();
    let file = |path: &str| json!({"path": path, "from": {"file": here.join("file")}});
    let mut wrong = url("a", &web, "/a");
    wrong["sha256"] = json!("0".repeat(64));
    let mut folder = file("a");
    (folder["from"]["file"], folder["mode"]) = (json!(here.join("repo")), json!("755"));
    let repo = here.join("repo");
    for (inputs, why) in [
        (json!([url("a", &web, "/missing")]), "it was answered 404"),
        (json!([url("a", &web, "/loop")]), "it leads on to"),
        (json!([url("a", &web, "/to-file")]), "it leads on to \"file:///etc/passwd\""),
        (json!([wrong]), "its SHA-256 is 2cf24dba"),
        (json!([{"path": "a", "from": {"blob": {"task": other.id, "path": "none"}}}]), "has not handed over"),
        (json!([{"path": "a", "from": {"git": {"path": repo, "ref": "none"}}}]), "git failed"),
        (json!([{"path": "a", "from": {"git": {"path": here.join("file")}}}]), "git failed"),
        (json!([folder]), "is a folder"),
        (json!([file("f"), file("f/g")]), "stands in its way"),
    ] {
        let task = daemon.task(with_inputs(DONE, inputs.clone()));
        let said = refused_at_start(&task);
        assert!(said.contains(why), "{inputs}: {said}");
    }
    assert_eq!(git(&repo, &["worktree", "list"]).lines().count(), 1);
    let dead = Web::serve("x");
    let gone = url("a", &dead, "/a");
    drop(dead);
    let said = refused_at_start(&daemon.task(with_inputs(DONE, json!([gone]))));
    assert!(said.contains("breaks off again and again"), "{said}");

    // Gone, or something else, since it was named.
    fs::create_dir(here.join("later")).unwrap();
    let first =
        daemon.task(instructed("until [ -e uploads/go ]; do sleep 0.1; done; echo DONE >> optio.log"));
    let mut spec = with_inputs(DONE, json!([{"path": "a", "from": {"file": here.join("later")}}]));
    spec["depends_on"] = json!([first.id]);
    let task = daemon.task(spec);
    fs::remove_dir(here.join("later")).unwrap();
    symlink("/etc", here.join("later")).unwrap();
    let go = first.path("/uploads?name=go");
    let octets = [("content-type", "application/octet-stream")];
    assert_eq!(first.http.call("POST".parse().unwrap(), &go, &octets, "".into()).status, 201);
    let said = refused_at_start(&task);
    assert!(said.contains("a link leads elsewhere now"), "{said}");
}

#[test]
fn what_a_repository_names_to_be_run_is_not_run() {
    let cli = &clis()[0];
    let world = World::new(CASTRA, &cli.path, SCRIPT);
    let daemon = world.daemon();
    let (repo, proof) = (world.folder().join("repo"), world.folder().join("proof"));
    repository(&repo);
    fs::write(repo.join(".gitattributes"), "* filter=evil\n").unwrap();
    git(&repo, &["add", "."]);
    git(&repo, &["commit", "--quiet", "-m", "attributes"]);
    let touch = format!("touch {}; cat", proof.display());
    for name in ["filter.evil.smudge", "filter.evil.process", "core.fsmonitor", "core.sshCommand"] {
        git(&repo, &["config", name, &touch]);
    }
    let hook = repo.join(".git/hooks/post-checkout");
    fs::write(&hook, format!("#!/bin/sh\n{touch}\n")).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    let task = daemon.task(with_inputs(
        DONE,
        json!([
            {"path": "tree", "from": {"git": {"path": repo, "worktree": true}}},
            {"path": "copy", "from": {"git": {"path": repo}}},
        ]),
    ));
    assert_eq!(task.wait().state, TaskState::Done, "{:?}", task.log());
    assert_eq!(text(work(&task).join("tree/file")), "three");
    assert_eq!(text(work(&task).join("copy/file")), "three");
    assert!(!proof.exists(), "{:?}", task.log());
}

#[test]
fn in_a_users_folder_they_lie_beside_it_and_follow_no_link() {
    let cli = &clis()[0];
    let world = World::new(CASTRA, &cli.path, SCRIPT);
    let daemon = world.daemon();
    let (folder, outside) = (world.folder().join("mine"), world.folder().join("outside"));
    fs::create_dir(&folder).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(world.folder().join("file"), "x").unwrap();
    let mut spec = with_inputs("", json!([{"path": "in/a", "from": {"file": world.folder().join("file")}}]));
    spec["instructions"] = json!("LOG: in the folder");
    spec["session"]["workdir"] = json!(folder);
    let task = daemon.task(spec);
    assert_eq!(task.wait().state, TaskState::Done, "{:?}", task.log());
    let own = fs::read_dir(folder.join(".castra")).unwrap().flatten().find(|e| e.path().is_dir()).unwrap();
    assert_eq!(text(own.path().join("in/a")), "x");
    assert!(!folder.join("in").exists());
    // An agent of an earlier attempt has put a link there.
    fs::remove_dir_all(own.path().join("in")).unwrap();
    symlink(&outside, own.path().join("in")).unwrap();
    assert_eq!(task.act("retry").status, 200);
    let said = refused_at_start(&task);
    assert!(said.contains("stands in its way"), "{said}");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn who_may_have_what_fetched() {
    let cli = &clis()[0];
    let listed = tempfile::Builder::new().prefix("ct-listed-").tempdir_in("/tmp").unwrap();
    let folder = listed.path().to_str().unwrap();
    let world = World::new(CASTRA, &cli.path, SCRIPT).with_env("CASTRA_WORKDIRS", folder);
    let daemon = world.daemon();
    for place in [listed.path(), &world.folder()] {
        fs::write(place.join("file"), "x").unwrap();
    }
    symlink(world.folder().join("file"), listed.path().join("link")).unwrap();
    let post = |scope: Scope, input: Value| {
        let token = world.cli(["token", "create", "--scope", scope.as_str()]).ok().trim().to_owned();
        let body = json!({"instructions": "x", "start": "manual", "inputs": [input], "depends_on": ["held"]});
        daemon.http_as(&token).post("/api/v1/tasks", &body)
    };
    hold(&daemon);
    let file = |path: &Path| json!({"path": "a", "from": {"file": path}});
    let own = world.home().join("key");
    for (scope, input, code) in [
        (Scope::Drive, file(&listed.path().join("file")), None),
        (Scope::Drive, file(&listed.path().join("link")), Some(ErrorCode::Forbidden)),
        (Scope::Drive, file(&world.folder().join("file")), Some(ErrorCode::Forbidden)),
        (Scope::Drive, file(&world.folder().join("none")), Some(ErrorCode::Forbidden)),
        (
            Scope::Drive,
            json!({"path": "a", "from": {"git": {"path": world.folder()}}}),
            Some(ErrorCode::Forbidden),
        ),
        (
            Scope::Drive,
            json!({"path": ".claude/settings.json", "from": {"url": "https://example.com/"}}),
            Some(ErrorCode::Forbidden),
        ),
        (Scope::Drive, json!({"path": "a", "from": {"url": "https://example.com/"}}), None),
        (
            Scope::Approve,
            json!({"path": "a", "from": {"url": "http://127.0.0.1/"}, "allow_private": true}),
            Some(ErrorCode::Forbidden),
        ),
        (
            Scope::Admin,
            json!({"path": "a", "from": {"url": "http://127.0.0.1/"}, "allow_private": true}),
            None,
        ),
        (
            Scope::Admin,
            json!({"path": "a", "from": {"url": "http://localhost:1/"}}),
            Some(ErrorCode::InvalidRequest),
        ),
        (Scope::Approve, file(&world.folder().join("file")), None),
        (Scope::Approve, file(&world.folder().join("none")), Some(ErrorCode::InvalidRequest)),
        (Scope::Admin, file(&own), Some(ErrorCode::InvalidRequest)),
        (Scope::Admin, file(Path::new("/")), Some(ErrorCode::InvalidRequest)),
        (
            Scope::Drive,
            json!({"path": "a", "from": {"blob": {"task": "nobody", "path": "x"}}}),
            Some(ErrorCode::NotFound),
        ),
    ] {
        let reply = post(scope, input.clone());
        match code {
            None => assert_eq!(reply.status, 201, "{scope:?} {input}: {}", reply.text()),
            Some(code) => assert_eq!(reply.problem().code, code, "{scope:?} {input}: {}", reply.text()),
        }
    }
    let blob = json!({"path": "a", "from": {"blob": {"task": "held", "path": "x"}}});
    let shown: Shown = post(Scope::Drive, blob).expect(201);
    let held: Shown = daemon.http().get("/api/v1/tasks/held").expect(200);
    let shown = serde_json::to_value(&shown.spec.inputs).unwrap();
    assert_eq!(shown[0]["from"]["blob"]["task"], json!(held.id), "by its id from now on");
}

/// A task that others wait for, so that none of them begins.
fn hold(daemon: &Daemon<'_>) {
    let body = json!({"name": "held", "instructions": "wait", "start": "manual"});
    assert_eq!(daemon.http().post("/api/v1/tasks", &body).status, 201);
}
