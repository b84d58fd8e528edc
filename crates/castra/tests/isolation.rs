//! What a session gets, and what nobody gets: the daemon's environment, the user's own `~/.claude`, secrets, and the
//! daemon itself without a token.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use castra_proto::api::Scope;
use castra_proto::{ErrorCode, Problem};
use castra_testkit::{Cli, DEADLINE, Daemon, Session, World, clis, fake_claude, proc, wait_until};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, FileTimes};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

const CASTRA: &str = env!("CARGO_BIN_EXE_castra");
const SCRIPT: &str = r#"
[[rule]]
name = "run"
when.last_user.regex = '^run: (.+)$'
reply.blocks = [{ tool_use = { name = "Bash", input = { command = "{{capture:1}}", description = "Run" } } }]
[[rule]]
name = "anything else"
reply.text = "done"
"#;
/// What may be found nowhere. No tool prints it.
const CANARY: &str = "canary-7f3ac1";

fn canary(name: &str) -> String {
    format!("{CANARY}-{name}")
}

fn holds(bytes: &[u8], text: &str) -> bool {
    memchr::memmem::find(bytes, text.as_bytes()).is_some()
}

// --- The environment ----------------------------------------------------------------------------------------

/// Names that a daemon's environment may well have, each with a value of its own.
const INHERITED: [&str; 14] = [
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "ANTHROPIC_BASE_URL",
    "AWS_SECRET_ACCESS_KEY",
    "BASH_ENV",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "CLAUDE_CONFIG_DIR",
    "DATABASE_URL",
    "DBUS_SESSION_BUS_ADDRESS",
    "GITHUB_TOKEN",
    "NODE_EXTRA_ARGS",
    "NPM_TOKEN",
    "SSH_AUTH_SOCK",
    "TMUX",
];

fn environ(pid: i32) -> BTreeMap<String, String> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    text.split_terminator('\0')
        .map(|entry| entry.split_once('=').unwrap())
        .map(|(n, v)| (n.into(), v.into()))
        .collect()
}

#[test]
fn nothing_of_the_daemons_environment_reaches_a_session() {
    for (cli, sandbox) in clis().iter().flat_map(|cli| [(cli, "off"), (cli, "auto")]) {
        let world = INHERITED
            .iter()
            .fold(World::new(CASTRA, &cli.path, SCRIPT), |world, name| world.with_env(name, &canary(name)));
        let daemon = world.daemon();
        assert!(
            holds(&fs::read(format!("/proc/{}/environ", daemon.pid())).unwrap(), CANARY),
            "the daemon has them"
        );
        let session = daemon.session(json!({
            "sandbox": sandbox, "allowed_tools": ["Bash"], "env": {"GIVEN": "by the caller"},
        }));
        assert_eq!(
            session.ask("run: env -0 > env.bin; cat /proc/$PPID/environ > parent.bin"),
            "done",
            "{cli}"
        );

        let shown = session.show();
        let given = environ(shown.pid.expect("a pid"));
        let mut names: BTreeSet<&str> = given.keys().map(String::as_str).collect();
        // bwrap's own, which is the folder.
        names.remove("PWD");
        let expected = BTreeSet::from([
            "ANTHROPIC_API_KEY",
            "ANTHROPIC_BASE_URL",
            "CASTRA_RUN",
            "CLAUDE_CODE_ADDITIONAL_DIRECTORIES_CLAUDE_MD",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC",
            "CLAUDE_CODE_EMIT_SESSION_STATE_EVENTS",
            "CLAUDE_CONFIG_DIR",
            "DISABLE_AUTOUPDATER",
            "GIVEN",
            "HOME",
            "LANG",
            "PATH",
        ]);
        assert_eq!(names, expected, "{cli} {sandbox}");
        let home = world.home();
        assert!(
            Path::new(&given["HOME"]).starts_with(&home)
                && Path::new(&given["CLAUDE_CONFIG_DIR"]).starts_with(&home)
        );
        assert_eq!(given["GIVEN"], "by the caller");

        let work = PathBuf::from(shown.cwd.unwrap());
        for file in ["env.bin", "parent.bin"] {
            let bytes = fs::read(work.join(file)).unwrap();
            assert!(holds(&bytes, "GIVEN=by the caller\0"), "{cli} {sandbox}: {file}");
            assert!(!holds(&bytes, CANARY), "{cli} {sandbox}: {}", String::from_utf8_lossy(&bytes));
        }
        for one in proc::of_run(&given["CASTRA_RUN"]) {
            let bytes = fs::read(format!("/proc/{}/environ", one.pid)).unwrap_or_default();
            assert!(!holds(&bytes, CANARY), "{cli} {sandbox}: {}", one.arguments());
        }
    }
}

// --- The user's own ~/.claude -------------------------------------------------------------------------------

/// Plants what a user of claude has at home: hooks and rules that would show, a login, memories.
fn plant(home: &Path) -> Vec<PathBuf> {
    let hook = format!("touch {}", home.join("hook-ran").display());
    let hooks: serde_json::Map<String, Value> = ["SessionStart", "UserPromptSubmit", "PreToolUse", "Stop"]
        .into_iter()
        .map(|event| (event.to_owned(), json!([{"hooks": [{"type": "command", "command": hook}]}])))
        .collect();
    let settings = json!({
        "permissions": {"allow": ["Bash"]}, "hooks": hooks, "env": {"PLANTED": canary("settings")},
    });
    let files = [
        (".claude.json", json!({"oauthAccount": {"emailAddress": canary("account")}}).to_string()),
        (".claude/settings.json", settings.to_string()),
        (".claude/CLAUDE.md", format!("Always say {}.", canary("memory"))),
        (".claude/.credentials.json", json!({"claudeAiOauth": {"accessToken": canary("login")}}).to_string()),
        (
            ".claude/skills/planted/SKILL.md",
            format!("---\nname: planted\ndescription: {}\n---\n", canary("skill")),
        ),
        (".claude/agents/planted.md", format!("---\nname: planted\ndescription: {}\n---\n", canary("agent"))),
    ];
    let mut planted = Vec::new();
    for (path, text) in files {
        let path = home.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        planted.push(path);
    }
    planted.push(home.join(".claude"));
    planted
}

/// As if it had been read last before it was written last: then the next read shows, also with `relatime`.
fn make_old(path: &Path) {
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let times = FileTimes::new().set_accessed(at(1_000_000_000)).set_modified(at(1_100_000_000));
    fs::File::open(path).unwrap().set_times(times).unwrap();
}

/// Everything that reading or writing would change.
fn traces(paths: &[PathBuf]) -> Vec<(PathBuf, u64, i64, i64, i64, i64)> {
    let trace = |path: &PathBuf| {
        let meta = fs::symlink_metadata(path).unwrap();
        (path.clone(), meta.ino(), meta.size() as i64, meta.mtime(), meta.ctime_nsec(), meta.atime())
    };
    paths.iter().map(trace).collect()
}

fn untouched(cli: &Cli, sandbox: &str) {
    let world = World::new(CASTRA, &cli.path, SCRIPT);
    let home = world.user_home();
    let planted = plant(&home);
    let bytes: Vec<Option<Vec<u8>>> = planted.iter().map(|path| fs::read(path).ok()).collect();
    planted.iter().for_each(|path| make_old(path));
    let before = traces(&planted);

    let daemon = world.daemon();
    let session = daemon.session(json!({"sandbox": sandbox}));
    // Nothing of it decides: the planted rule would let the tool run unasked.
    let message = session.send("run: touch a.txt");
    let request = session.wait_permission();
    assert_eq!(session.answer(&request, &json!({"behavior": "allow"})).status, 200);
    assert_eq!(session.answer_to(&message).result.unwrap().text, "done", "{cli} {sandbox}");
    session.act("stop");
    session.act("resume");
    assert_eq!(session.ask("again"), "done", "{cli} {sandbox}");
    session.act("stop");

    assert_eq!(traces(&planted), before, "{cli} {sandbox}: read, written or replaced");
    assert!(!home.join("hook-ran").exists(), "{cli} {sandbox}");
    let now: Vec<Option<Vec<u8>>> = planted.iter().map(|path| fs::read(path).ok()).collect();
    assert_eq!(now, bytes, "{cli} {sandbox}");
    let mut entries: Vec<String> =
        fs::read_dir(&home).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    entries.sort();
    assert_eq!(entries, [".claude", ".claude.json"], "{cli} {sandbox}: nothing was put beside it");
    for request in world.model().requests() {
        let body = request.body.as_ref().map_or("", |body| body.get());
        assert!(!body.contains(CANARY), "{cli} {sandbox}: the model was told of it");
    }
    // Reading does show here, so what is above can fail.
    let read = planted[0].clone();
    make_old(&read);
    let before = traces(std::slice::from_ref(&read));
    fs::read(&read).unwrap();
    assert_ne!(traces(&[read]), before, "this file system keeps no access times: mount it with relatime");
}

#[test]
fn the_users_own_claude_folder_is_neither_read_nor_written_without_a_sandbox() {
    clis().iter().for_each(|cli| untouched(cli, "off"));
}

#[test]
fn the_users_own_claude_folder_is_neither_read_nor_written_in_the_sandbox() {
    clis().iter().for_each(|cli| untouched(cli, "auto"));
}

// --- What castra hands to claude --------------------------------------------------------------------------------

#[test]
fn settings_reach_claude_in_the_sandbox_and_are_not_the_agents_to_change() {
    let attempt = r#"run: f=$(tr '\0' '\n' </proc/$PPID/cmdline | sed -n 's/^--settings=//p'); { echo "$SEEN"; echo x >>"$f"; mv "$f" x; rm -r "${f%/*}"; } >out.txt 2>&1; true"#;
    for (cli, home) in clis().iter().flat_map(|cli| [(cli, "isolated"), (cli, "user")]) {
        let world = World::new(CASTRA, &cli.path, SCRIPT);
        let daemon = world.daemon();
        let session = daemon.session(json!({
            "home": home, "sandbox": "strict", "allowed_tools": ["Bash"], "settings": {"env": {"SEEN": "seen"}},
        }));
        assert_eq!(session.ask(attempt), "done", "{cli} {home}");
        let said = fs::read_to_string(Path::new(&session.show().cwd.unwrap()).join("out.txt")).unwrap();
        assert_eq!(said.lines().next(), Some("seen"), "{cli} {home}: {said}");
        assert!(said.matches("Read-only file system").count() >= 3, "{cli} {home}: {said}");
        session.act("stop");
    }
}

// --- Secrets ------------------------------------------------------------------------------------------------

/// Every file and folder below, links not followed.
fn walk(root: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        into.push(entry.path());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), into);
        }
    }
}

fn secret_spec(world: &World) -> Value {
    world.spec(json!({
        "allowed_tools": ["Bash"],
        "env": {"TOKEN": canary("env")},
        "settings": {"env": {"SETTING": canary("settings")}},
        "mcp_servers": {
            "remote": {
                "type": "http",
                "url": format!("http://u:{}@127.0.0.1:9/mcp?key={}", canary("user"), canary("query")),
                "headers": {"Authorization": canary("header")},
            },
            "local": {
                "type": "stdio", "command": "true", "args": ["--", canary("arg")], "env": {"PASSWORD": canary("mcp")},
            },
        },
        "agents": {"one": {
            "description": "An agent",
            "prompt": canary("prompt"),
            "mcpServers": [{"own": {"type": "stdio", "command": "true", "args": [canary("agent")]}}],
        }},
    }))
}

/// Arguments of every process, as long as `work` takes.
fn arguments_during<T>(work: impl FnOnce() -> T) -> (BTreeSet<String>, T) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut seen = BTreeSet::new();
            while !over.load(Ordering::Relaxed) {
                seen.extend(proc::all().into_iter().map(proc::Process::arguments));
                std::thread::sleep(Duration::from_millis(5));
            }
            seen
        });
        let done = work();
        over.store(true, Ordering::Relaxed);
        (watch.join().unwrap(), done)
    })
}

fn secrets_of(world: &World, token: &str) -> Vec<String> {
    let mut secrets = vec![CANARY.to_owned(), token.to_owned()];
    secrets.extend(
        world.model_env().into_iter().filter(|(name, _)| name.contains("KEY")).map(|(_, value)| value),
    );
    secrets
}

#[test]
fn secrets_are_in_no_argument_log_answer_event_or_database() {
    for cli in clis() {
        let world = World::new(CASTRA, &cli.path, SCRIPT);
        let daemon = world.daemon();
        let token = world.cli(["token", "create", "--scope", "drive"]).ok().trim().to_owned();
        let secrets = secrets_of(&world, &token);
        let clear = |bytes: &[u8]| secrets.iter().find(|secret| holds(bytes, secret)).cloned();
        let (arguments, session) = arguments_during(|| {
            let session = Session::create(daemon.http(), &secret_spec(&world));
            assert_eq!(session.ask("run: true"), "done", "{cli}");
            session.act("stop");
            session.act("resume");
            assert_eq!(session.ask("again"), "done", "{cli}");
            session
        });
        assert!(
            arguments.iter().any(|one| one.contains("--mcp-config=")),
            "{cli}: claude was seen: {arguments:#?}"
        );
        // A server that is started with a secret has it in its own arguments, and nobody else does.
        for one in arguments.iter().filter(|one| !one.starts_with("true ")) {
            // A test beside this one uses the same made-up key.
            let ours = one.contains(world.root().to_str().unwrap());
            let mut said = secrets.iter().take(if ours { secrets.len() } else { 2 });
            assert_eq!(said.find(|secret| one.contains(*secret)), None, "{cli}: in the arguments {one:?}");
        }

        // Every answer that tells of a session.
        for path in [
            "",
            "/events?limit=1000",
            "/info",
            "/permissions",
            "/export",
            "/export?format=transcript",
            "/log",
        ] {
            let reply = session.http.get(&session.path(path));
            assert_eq!(reply.status, 200, "{cli} {path}: {}", reply.text());
            assert_eq!(clear(&reply.body), None, "{cli}: {path}");
        }
        for path in ["/api/v1/sessions?all=true", "/api/v1/tokens", "/api/v1/doctor", "/healthz", "/metrics"]
        {
            let reply = session.http.get(path);
            assert_eq!((reply.status, clear(&reply.body)), (200, None), "{cli}: {path}");
        }

        // What is at rest: in the clear only what claude itself is to read.
        session.act("stop");
        let (mut files, mut for_claude) = (Vec::new(), 0);
        walk(&world.home(), &mut files);
        for path in files.iter().filter(|path| path.is_file() && !path.is_symlink()) {
            let inside = path.strip_prefix(world.home().join("sessions").join(&session.id)).unwrap_or(path);
            let mut bytes = fs::read(path).unwrap();
            if inside.starts_with("runs") {
                // Agents are told to claude by a message, which is journalled as every byte is.
                let text = String::from_utf8_lossy(&bytes).replace(&canary("prompt"), "");
                bytes = text.replace(&canary("agent"), "").into_bytes();
            }
            let Some(secret) = clear(&bytes) else { continue };
            assert!(inside.starts_with("home"), "{cli}: {secret} in {}", path.display());
            for_claude += 1;
        }
        assert!(for_claude > 0, "{cli}: claude got its settings by a file");
        assert!(files.iter().any(|path| path.ends_with("castra.db")), "the database was looked at");
    }
}

#[test]
fn what_a_tool_prints_of_a_secret_is_masked_in_the_raw_log() {
    for cli in clis() {
        let world = World::new(CASTRA, &cli.path, SCRIPT);
        let daemon = world.daemon();
        let session = Session::create(daemon.http(), &secret_spec(&world));
        assert_eq!(session.ask("run: echo \"$TOKEN and $SETTING\""), "done", "{cli}");
        for direction in ["in", "out", "both"] {
            let log = session.http.get(&session.path(&format!("/log?direction={direction}")));
            assert_eq!(log.status, 200);
            assert!(!holds(&log.body, CANARY), "{cli} {direction}: {}", log.text());
            assert_eq!(holds(&log.body, "*** and ***"), direction != "in", "{cli} {direction}");
        }
    }
}

#[test]
fn a_refusal_does_not_repeat_a_secret() {
    let world = World::new(CASTRA, fake_claude(), SCRIPT);
    let daemon = world.daemon();
    let spec = |fields: Value| {
        let mut spec = secret_spec(&world);
        fields.as_object().unwrap().iter().for_each(|(name, value)| spec[name] = value.clone());
        spec
    };
    let secret = canary("refused");
    for fields in [
        json!({"modle": "opus"}),
        json!({"permission_mode": "nonsense"}),
        json!({"workdir": "/no/such/folder"}),
        json!({"env": {"A=B": secret}}),
        json!({"env": {"HOME": secret}}),
        json!({"env": {"NUL": format!("{secret}\0")}}),
        json!({"env": secret}),
        json!({"env": [secret]}),
        json!({"mcp_servers": {"a": secret}}),
        json!({"mcp_servers": secret}),
        json!({"settings": secret}),
        json!({"settings": [secret]}),
    ] {
        let reply = daemon.http().post("/api/v1/sessions", &spec(fields.clone()));
        assert!((400..500).contains(&reply.status), "{fields}: {} {}", reply.status, reply.text());
        assert!(!holds(&reply.body, CANARY), "{fields}: {}", reply.text());
    }
    let log = fs::read(world.home().join("log/castra.log")).unwrap();
    assert!(!holds(&log, CANARY), "{}", String::from_utf8_lossy(&log));
}

#[test]
fn what_may_hold_a_secret_is_private_whatever_the_umask() {
    let cli = &clis()[0];
    let world = World::new(CASTRA, &cli.path, SCRIPT);
    // For the daemon, and with it for the shim and claude.
    let umask = rustix::process::umask(rustix::fs::Mode::empty());
    let daemon = world.daemon();
    rustix::process::umask(umask);
    let session = Session::create(daemon.http(), &secret_spec(&world));
    assert_eq!(session.ask("run: umask; touch free"), "done");
    let work = PathBuf::from(session.show().cwd.unwrap());
    assert_eq!(fs::metadata(work.join("free")).unwrap().mode() & 0o777, 0o666, "the umask was passed on");

    let root = world.home();
    let folder = root.join("sessions").join(&session.id);
    let mut files = Vec::new();
    walk(&root, &mut files);
    // Beneath 0700 folders, what the agent makes is its own business; `log` was made by this test's own hands.
    let agents = |path: &Path| {
        path.starts_with(folder.join("work")) && path != folder.join("work")
            || path.starts_with(folder.join("home"))
                && path != folder.join("home")
                && !path.starts_with(folder.join("home/.castra"))
    };
    let mut looked_at = BTreeSet::new();
    for path in
        files.iter().filter(|path| !agents(path) && !path.starts_with(root.join("log")) && !path.is_symlink())
    {
        let meta = fs::metadata(path).unwrap();
        let mode = meta.permissions().mode() & 0o777;
        // The image is no secret; that nobody else may change it is what counts.
        let image = path.starts_with(root.join("shims")) && meta.is_file();
        let forbidden = if image { 0o022 } else { 0o077 };
        assert_eq!(mode & forbidden, 0, "{} has mode {mode:04o}", path.display());
        looked_at.insert(path.strip_prefix(&root).unwrap().to_string_lossy().replace(&session.id, "ID"));
    }
    for name in [
        "castra.db",
        "castra.sock",
        "key",
        "daemon.json",
        "sessions/ID",
        "sessions/ID/home",
        "sessions/ID/work",
        "sessions/ID/runs/1/shim.sock",
        "sessions/ID/runs/1/meta.json",
        "sessions/ID/runs/1/log",
    ] {
        assert!(looked_at.contains(name), "no {name} among {looked_at:#?}");
    }
    assert!(looked_at.iter().any(|path| path.starts_with("sessions/ID/home/.castra/")), "{looked_at:#?}");
    assert!(looked_at.iter().any(|path| path.ends_with(".seg")), "{looked_at:#?}");
}

// --- The API ------------------------------------------------------------------------------------------------

/// One request as these very bytes; status and body of its answer.
fn raw(daemon: &Daemon<'_>, method: &str, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let mut socket = TcpStream::connect(daemon.addr()).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n");
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn code(body: &str) -> ErrorCode {
    serde_json::from_str::<Problem>(body).unwrap_or_else(|error| panic!("{error}: {body}")).code
}

/// `(method, path, least scope)` of every operation that the daemon itself documents, with a real session. None: for
/// whoever asks, since it holds nothing of anybody's.
fn operations(daemon: &Daemon<'_>, session: &Session) -> Vec<(String, String, Option<Scope>)> {
    let document: Value = daemon.http().get("/api/v1/openapi.json").expect(200);
    let (mut operations, mut public) = (Vec::new(), Vec::new());
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let scope = operation["security"][0]["token"][0].as_str().and_then(Scope::parse);
            if scope.is_none() {
                assert_eq!(operation["security"], json!([{}]), "{method} {path}");
                public.push(path.as_str());
            }
            let path = path.replace("{id}", &session.id);
            let path =
                path.split('/').map(|part| if part.starts_with('{') { session.id.as_str() } else { part });
            operations.push((method.to_uppercase(), path.collect::<Vec<_>>().join("/"), scope));
        }
    }
    assert!(operations.len() > 30, "{operations:?}");
    let page = ["/api/v1/assets/{version}/{file}", "/api/v1/sessions/{id}/terminal/", "/api/v1/sign-in"];
    public.sort_unstable();
    assert_eq!(public, page, "what needs no token");
    operations
}

#[test]
fn every_route_wants_a_token_of_its_scope_and_is_for_our_own_host_and_origin_only() {
    let world = World::new(CASTRA, fake_claude(), SCRIPT);
    let daemon = world.daemon();
    let session = daemon.session(json!({}));
    assert_eq!(session.ask("echo before"), "before");
    let token =
        |scope: &str| format!("Bearer {}", world.cli(["token", "create", "--scope", scope]).ok().trim());
    let tokens: BTreeMap<Scope, String> = ["read", "drive", "approve", "admin"]
        .map(|scope| (Scope::parse(scope).unwrap(), token(scope)))
        .into();
    let admin = tokens[&Scope::Admin].as_str();
    let other = daemon.session(json!({}));
    let bound = world.cli(["token", "create", "--scope", "admin", "--session", &other.id]).ok();
    let bound = format!("Bearer {}", bound.trim());
    let host = daemon.addr().to_string();
    let port = daemon.addr().port();
    let host = host.as_str();

    for (method, path, scope) in operations(&daemon, &session) {
        let ask = |headers: &[(&str, &str)]| raw(&daemon, &method, &path, headers);
        let wrongs = [None, Some("Bearer "), Some("Bearer castra_0000"), Some("Basic YWRtaW46YWRtaW4=")];
        for wrong in wrongs.into_iter().filter(|_| scope.is_some()) {
            let mut headers = vec![("Host", host)];
            headers.extend(wrong.map(|wrong| ("Authorization", wrong)));
            let (status, body) = ask(&headers);
            assert_eq!((status, code(&body)), (401, ErrorCode::Unauthorized), "{method} {path} {wrong:?}");
        }
        for (_, token) in scope.into_iter().flat_map(|scope| tokens.range(..scope)) {
            let (status, body) = ask(&[("Host", host), ("Authorization", token)]);
            assert_eq!((status, code(&body)), (403, ErrorCode::Forbidden), "{method} {path} needs {scope:?}");
        }
        for foreign in
            [format!("evil.example:{port}"), format!("localhost.evil.example:{port}"), "127.0.0.1:1".into()]
        {
            let (status, _) = ask(&[("Host", &foreign), ("Authorization", admin)]);
            assert_eq!(status, 421, "{method} {path} for {foreign}");
        }
        for foreign in ["null", "http://evil.example", "http://localhost:5173", &format!("https://{host}")] {
            let (status, _) = ask(&[("Host", host), ("Authorization", admin), ("Origin", foreign)]);
            assert_eq!(status, 403, "{method} {path} from {foreign}");
        }
        // What is another session's does not exist, or is not for such a token at all.
        if path.contains(&session.id) && scope.is_some() {
            let (status, body) = ask(&[("Host", host), ("Authorization", &bound)]);
            let said = (status, code(&body));
            let hidden = [(404, ErrorCode::SessionNotFound), (403, ErrorCode::Forbidden)].contains(&said);
            // A body that is missing is said first.
            assert!(hidden || said == (400, ErrorCode::InvalidRequest), "{method} {path}: {said:?}");
        }
    }
    // None of it was done.
    assert_eq!(session.ask("echo after"), "after");
    assert!(daemon.process().is_alive());
    let left: Value = daemon.http().get("/api/v1/tokens").expect(200);
    assert_eq!(left["items"].as_array().unwrap().len(), 6, "{left}");
    wait_until(
        "both sessions",
        || world.cli(["ps", "--json"]).json()["items"].as_array().unwrap().len() == 2,
        DEADLINE,
    );
}
