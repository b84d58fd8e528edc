//! An agent is not its own judge: from inside a session castra's socket and commands answer nobody's permission
//! requests, and a token below `approve` makes no session that decides for itself.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use castra_proto::permission::PermissionState;
use castra_proto::{ErrorCode, RunState};
use castra_testkit::{Cli, Session, World, clis, fake_claude, wait_for};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

const CASTRA: &str = env!("CARGO_BIN_EXE_castra");

const SCRIPT: &str = r#"
[[rule]]
name = "prepare"
when.last_user.contains = "attack"
reply.blocks = [{ tool_use = { name = "Bash", input = { command = "bash prepare.sh", description = "Prepare" } } }]
[[rule]]
name = "refused"
when.tool_result.is_error = true
reply.text = "refused"
[[rule]]
name = "then ask"
when.tool_result.contains = "prepared"
reply.blocks = [{ tool_use = { name = "Bash", input = { command = "touch approved.txt", description = "Touch" } } }]
[[rule]]
name = "done"
when.tool_result = {}
reply.text = "done"
"#;

/// Leaves a process behind that tries each way to answer, while the next request waits, and writes down what it was
/// told. It belongs to nobody any more: its parent ends at once.
const PREPARE: &str = r#"
(setsid bash attack.sh </dev/null >/dev/null 2>&1 &)
echo prepared
"#;

/// `$SESSION`, `$CASTRA`, `$HOME_OF_CASTRA`, `$TCP` and `$TOKEN` are written in front.
const ATTACK: &str = r#"
socket=$HOME_OF_CASTRA/castra.sock
until [ -e request ]; do sleep 0.05; done
request=$(cat request)
say() { # NAME: what came of it, in one line
    printf '%s|%s\n' "$1" "$(cat)" | tr '\n' ' ' >>said.new
    echo >>said.new
}
cat >post.sh <<'POST'
exec curl --silent --show-error --max-time 20 --write-out ' %{http_code}' -H 'Content-Type: application/json' \
    -d '{"behavior":"allow"}' "$@" 2>&1
POST
at=/api/v1/sessions/$SESSION/permissions/$request
# As the process that was left behind, as a child of it, with the token of its own session, over TCP without one.
sh post.sh --unix-socket "$socket" "http://castra$at" | say socket
sh post.sh --unix-socket "$socket" -H "Authorization: Bearer $TOKEN" "http://castra$at" | say own-token
sh post.sh "http://$TCP$at" | say tcp
# Below more processes than anybody would look through.
cat >tower.sh <<'TOWER'
n=$1; shift
if [ "$n" -gt 0 ]; then sh tower.sh $((n - 1)) "$@"; exit $?; fi
"$@"; exit $?
TOWER
sh tower.sh 300 sh post.sh --unix-socket "$socket" "http://castra$at" | say tower
# With parents that end while the daemon looks at them.
for n in 1 2 3 4 5 6 7 8; do
    (sh -c '{ sh post.sh --unix-socket "$@" >race.$0.new; mv race.$0.new race.$0; } & exit' "$n" "$socket" "http://castra$at")
done
until [ "$(ls | grep -c '^race[.].$')" = 8 ]; do sleep 0.05; done
cat race.? | say race
# The command itself, as a person would.
env -i HOME="$HOME_OF_CASTRA/../home" PATH="$PATH" CASTRA_HOME="$HOME_OF_CASTRA" \
    "$CASTRA" approve --no-daemon-start "$SESSION" "$request" 2>&1 | say command
env -i HOME="$HOME_OF_CASTRA/../home" PATH="$PATH" CASTRA_HOME="$HOME_OF_CASTRA" \
    "$CASTRA" token create --no-daemon-start --scope admin 2>&1 | say token
mv said.new said
"#;

/// What each way was told, while the request that it tried to answer still waits.
fn attacked(cli: &Cli, sandbox: &str) -> Vec<(String, String)> {
    let world = World::new(CASTRA, &cli.path, SCRIPT);
    let daemon = world.daemon();
    let folder = fs::canonicalize(world.folder()).unwrap();
    let session = daemon.session(json!({"sandbox": sandbox, "workdir": folder}));
    // The most that a token of a session's own can be given.
    let token = world.cli(["token", "create", "--scope", "admin", "--session", &session.id]).ok();
    let facts = format!(
        "SESSION={} CASTRA='{CASTRA}' HOME_OF_CASTRA='{}' TCP={} TOKEN={}\n",
        session.id,
        world.home().display(),
        daemon.addr(),
        token.trim()
    );
    fs::write(folder.join("prepare.sh"), PREPARE).unwrap();
    fs::write(folder.join("attack.sh"), facts + ATTACK).unwrap();

    let message = session.send("attack");
    let first = session.wait_permission();
    assert_eq!(session.answer(&first, &json!({"behavior": "allow"})).status, 200);
    let waiting = wait_for(
        "the request that the agent would like to answer",
        || session.show().pending.into_iter().find(|one| one.request_id != first.request_id),
        castra_testkit::DEADLINE,
    );
    assert_eq!(waiting.input["command"], "touch approved.txt", "{cli} {sandbox}");
    write_at_once(&folder, "request", &waiting.request_id);
    let said = wait_for(
        "what it was told",
        || fs::read_to_string(folder.join("said")).ok(),
        castra_testkit::DEADLINE,
    );

    let shown = session.wait_state(RunState::RequiresAction);
    assert_eq!(shown.pending, std::slice::from_ref(&waiting), "{cli} {sandbox}: {said}");
    assert_eq!(waiting.state, PermissionState::Pending);
    assert!(!folder.join("approved.txt").exists(), "{cli} {sandbox}: {said}");
    let tokens: Value = daemon.http().get("/api/v1/tokens").expect(200);
    assert_eq!(
        tokens["items"].as_array().unwrap().len(),
        2,
        "{cli} {sandbox}: it made itself a token: {tokens}"
    );
    // And a person still can.
    world.cli(["approve", &session.id, &waiting.request_id]).ok();
    assert_eq!(session.answer_to(&message).result.unwrap().text, "done", "{cli} {sandbox}");
    assert!(folder.join("approved.txt").exists(), "{cli} {sandbox}");
    let answered = session.events_of("permission_answered");
    assert!(answered.iter().all(|event| !event.data.get().contains("\"by\":\"agent")), "{answered:?}");
    said.lines()
        .map(|line| line.split_once('|').unwrap())
        .map(|(way, told)| (way.into(), told.trim().into()))
        .collect()
}

fn write_at_once(folder: &Path, name: &str, text: &str) {
    let new = folder.join("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, folder.join(name)).unwrap();
}

#[test]
fn an_agent_without_a_sandbox_cannot_answer_its_own_request() {
    for cli in clis() {
        for (way, told) in attacked(&cli, "off") {
            match way.as_str() {
                "socket" | "own-token" | "tower" => {
                    assert!(told.ends_with(" 403") && told.contains("\"forbidden\""), "{cli} {way}: {told}");
                }
                // Eight at once: told no, or hung up on.
                "race" => assert!(told.contains(" 403") && !told.contains(" 200"), "{cli} {way}: {told}"),
                "tcp" => assert!(told.ends_with(" 401"), "{cli} {way}: {told}"),
                "command" | "token" => {
                    assert!(told.contains("error: an agent may use castra only"), "{cli} {way}: {told}")
                }
                other => panic!("{cli}: {other} {told}"),
            }
        }
    }
}

#[test]
fn an_agent_in_the_sandbox_does_not_even_reach_it() {
    for cli in clis() {
        for (way, told) in attacked(&cli, "strict") {
            match way.as_str() {
                // No socket, and no executable of ours either.
                "socket" | "own-token" | "tower" | "race" => {
                    assert!(told.contains("000") && !told.contains("forbidden"), "{cli} {way}: {told}");
                }
                // The network is the host's.
                "tcp" => assert!(told.ends_with(" 401"), "{cli} {way}: {told}"),
                "command" | "token" => assert!(told.contains("No such file"), "{cli} {way}: {told}"),
                other => panic!("{cli}: {other} {told}"),
            }
        }
    }
}

// --- Scopes -------------------------------------------------------------------------------------------------

/// What decides, in the caller's place, what is asked or what runs unasked.
fn decisive() -> Vec<Value> {
    vec![
        json!({"permission_mode": "acceptEdits"}),
        json!({"permission_mode": "auto"}),
        json!({"permission_mode": "bypassPermissions"}),
        json!({"allowed_tools": ["Bash"]}),
        json!({"settings": {"permissions": {"allow": ["Bash"]}}}),
        json!({"mcp_servers": {"a": {"type": "stdio", "command": "touch", "args": ["x"]}}}),
        json!({"plugins": ["/tmp"]}),
        json!({"extra_args": ["--debug"]}),
        json!({"agents": {"a": {"description": "a", "prompt": "a"}}}),
        json!({"env": {"LD_PRELOAD": "/tmp/a.so"}}),
        json!({"home": "user"}),
        json!({"sandbox": "off"}),
    ]
}

#[test]
fn a_token_below_approve_makes_no_session_that_decides_for_itself() {
    let world = World::new(CASTRA, fake_claude(), SCRIPT);
    let daemon = world.daemon();
    let as_scope = |scope: &str| {
        let token = world.cli(["token", "create", "--scope", scope]).ok();
        daemon.http_as(token.trim())
    };
    let (drive, approve) = (as_scope("drive"), as_scope("approve"));
    for fields in decisive() {
        let refused = drive.post("/api/v1/sessions", &fields).problem();
        assert_eq!(
            (refused.code, refused.hint.is_some()),
            (ErrorCode::Forbidden, true),
            "{fields}: {refused:?}"
        );
        let root = fields["permission_mode"] == "bypassPermissions";
        let reply = approve.post("/api/v1/sessions", &fields);
        // As root that mode is refused to everybody, for another reason.
        assert!(reply.status == 201 || root && reply.problem().code == ErrorCode::InvalidRequest, "{fields}");
    }
    // Also where the session goes on from a conversation that castra did not start.
    let adopt = format!("/api/v1/transcripts/{}/adopt", "00000000-0000-4000-8000-000000000000");
    assert_eq!(drive.post(&adopt, &json!({"sandbox": "off"})).problem().code, ErrorCode::Forbidden);
    assert_eq!(drive.post(&adopt, &json!({})).problem().code, ErrorCode::SessionNotFound);
    for mode in ["default", "plan", "dontAsk"] {
        let session = Session::create(drive.clone(), &json!({"permission_mode": mode}));
        for (mode, status) in [("plan", 200), ("acceptEdits", 403), ("bypassPermissions", 403)] {
            let patch = bytes::Bytes::from(json!({"permission_mode": mode}).to_string());
            let reply = drive.call(hyper::Method::PATCH, &session.path(""), &[], patch);
            assert_eq!(reply.status, status, "{mode}: {}", reply.text());
        }
        let control = json!({"subtype": "set_permission_mode", "mode": "acceptEdits"});
        assert_eq!(drive.post(&session.path("/control"), &control).status, 403);
        session.act("stop");
    }
}

#[test]
fn a_token_below_approve_names_only_folders_that_are_listed() {
    let listed = tempfile::tempdir_in("/tmp").unwrap();
    let listed = listed.path().canonicalize().unwrap();
    let inside = listed.join("project");
    std::fs::create_dir(&inside).unwrap();
    let world =
        World::new(CASTRA, fake_claude(), SCRIPT).with_env("CASTRA_WORKDIRS", listed.to_str().unwrap());
    std::os::unix::fs::symlink(world.folder(), listed.join("way-out")).unwrap();
    let daemon = world.daemon();
    let as_scope = |scope: &str| {
        let token = world.cli(["token", "create", "--scope", scope]).ok();
        daemon.http_as(token.trim())
    };
    let (drive, approve) = (as_scope("drive"), as_scope("approve"));
    for folder in [
        world.folder(),
        listed.join("way-out"),
        listed.join("project/../way-out"),
        listed.with_file_name(format!("{}-beside", listed.file_name().unwrap().to_str().unwrap())),
        "/no/such/folder".into(),
        "relative".into(),
    ] {
        for fields in [
            json!({"workdir": folder}),
            json!({"workdir": folder, "continue": true}),
            json!({"add_dirs": [inside, folder]}),
        ] {
            let refused = drive.post("/api/v1/sessions", &fields).problem();
            assert_eq!(
                (refused.code, refused.hint.is_some_and(|hint| hint.contains("workdirs"))),
                (ErrorCode::Forbidden, true),
                "{fields}: {}",
                refused.detail
            );
        }
    }
    let listed_session = Session::create(drive.clone(), &json!({"workdir": inside, "sandbox": "auto"}));
    assert_eq!(listed_session.wait_idle().cwd.map(std::path::PathBuf::from), Some(inside));
    Session::create(approve, &json!({"workdir": world.folder()})).wait_idle();
    Session::create(drive, &json!({})).wait_idle();
}

#[test]
fn a_token_below_approve_uploads_nothing_that_gives_orders() {
    let world = World::new(CASTRA, fake_claude(), SCRIPT);
    let daemon = world.daemon();
    let session = daemon.session(json!({}));
    let token = world.cli(["token", "create", "--scope", "drive", "--session", &session.id]).ok();
    let put = |http: &castra_testkit::Http, path: &str| {
        let headers = [("content-type", "application/octet-stream")];
        http.call(hyper::Method::POST, &session.path(&format!("/files?path={path}")), &headers, "{}".into())
    };
    let own = daemon.http_as(token.trim());
    assert_eq!(put(&own, "notes.txt").status, 201);
    for path in [
        ".claude/settings.local.json",
        "a/.claude/hooks.json",
        ".mcp.json",
        ".git/hooks/pre-commit",
        ".CLAUDE/x",
    ] {
        let refused = put(&own, path).problem();
        assert_eq!(
            (refused.code, refused.hint.is_some()),
            (ErrorCode::Forbidden, true),
            "{path}: {refused:?}"
        );
        assert_eq!(put(&daemon.http(), path).status, 201, "{path}");
    }
}
