//! What is secret of a definition and of what is launched from it: given, used, and shown to nobody.

use super::*;

/// Bytes of the database, and of what is not yet in it.
fn stored(world: &World) -> Vec<u8> {
    let files = std::fs::read_dir(world.home()).unwrap().flatten();
    let of_store = files.filter(|file| file.file_name().to_string_lossy().starts_with("castra.db"));
    of_store.flat_map(|file| std::fs::read(file.path()).unwrap()).collect()
}

fn put(daemon: &Daemon<'_>, name: &str, body: &Value) -> castra_testkit::Reply {
    let json = [("content-type", "application/json")];
    let path = format!("/api/v1/definitions/{name}");
    daemon.http().call("PUT".parse().unwrap(), &path, &json, body.to_string().into())
}

#[test]
fn a_value_in_a_secret_place_reaches_the_agent_and_is_shown_to_nobody() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let http = daemon.http();
        let told = world.root().join("told");
        let mut task =
            body(world, "printf %s \"$TOKEN\" | sha256sum > deliverables/sum; echo DONE >> optio.log");
        task["session"]["env"]["TOKEN"] = json!("{{tok}}");
        task["params"] = json!({
            "tok": {"kind": "text", "default": "s3cret-of-the-file"},
            "what": {"kind": "text"},
        });
        task["hooks"] =
            json!([{"on": "after", "command": ["sh", "-c", format!("cat > {}", told.display())]}]);
        assert_eq!(put(daemon, "secret", &json!({"name": "secret", "task": task})).status, 200, "{cli}");
        let shown: Value = http.get("/api/v1/definitions/secret").expect(200);
        assert_eq!(shown["definition"]["task"]["params"]["tok"]["default"], "***", "{cli}: {shown:#}");

        let launch = |body: Value| -> Task {
            let shown: Shown = http.post("/api/v1/definitions/secret/launch", &body).expect(201);
            Task::of(&http, shown.id)
        };
        // `printf %s s3cret-of-the-launch | sha256sum`, and of the other
        let given = "fa88149d04ddc539d44a9dd232c4207e969e11f107a4dc869f759d456c9604e4  -\n";
        let default = "75a3702ceb41f3a345777b84a33350188ac3064c3de4eda3dd7a785e4c69458d  -\n";
        for (values, sum) in [
            (json!({"tok": "s3cret-of-the-launch", "what": "doors"}), given),
            (json!({"what": "doors"}), default),
        ] {
            let task = launch(json!({"values": values, "client_id": "tab-1"}));
            let done = task.wait();
            assert_eq!(done.state, TaskState::Done, "{cli}: {:?}", task.log());
            assert_eq!(task.http.get(&task.path("/deliverables/sum")).text(), sum, "{cli}");
            assert_eq!(done.spec.client_id.as_deref(), Some("tab-1"), "{cli}");
            let values = serde_json::to_value(&done.spec.values).unwrap();
            assert_eq!(values, json!({"tok": "***", "what": "doors"}), "{cli}");
            for text in [
                http.get(&task.path("")).text(),
                http.get("/api/v1/tasks?all").text(),
                http.get("/api/v1/definitions").text(),
                std::fs::read_to_string(&told).unwrap(),
            ] {
                assert!(text.contains("***") && !text.contains("s3cret-of"), "{cli}: {text}");
            }
        }
        assert!(!stored(world).windows(9).any(|bytes| bytes == b"s3cret-of"), "{cli}");
    });
}

#[test]
fn what_is_shown_of_a_secret_is_not_taken_for_one() {
    let cli = clis().remove(0);
    let world = World::new(CASTRA, &cli.path, SCRIPT);
    let daemon = world.daemon();
    let secret = json!({"task": {
        "instructions": "x",
        "session": {"env": {"TOKEN": "s3cret"}, "mcp_servers": {"a": {"type": "http", "url": "https://x/s3cret"}}},
    }});
    assert_eq!(put(&daemon, "d", &secret).status, 200);
    let shown = || -> Value { daemon.http().get("/api/v1/definitions/d").expect(200) };
    let mut back = shown()["definition"].clone();
    let refused = put(&daemon, "d", &back).problem();
    assert_eq!(refused.code, ErrorCode::InvalidRequest);
    assert!(refused.detail.contains("`***`") && refused.hint.is_some(), "{refused:?}");
    let task = &back["task"];
    for (path, body) in [
        ("sessions", task["session"].clone()),
        ("teams", json!({"name": "t", "agents": {"one": {"session": task["session"]}}})),
        ("tasks", task.clone()),
        ("tasks", json!({"children": [task]})),
        ("schedules", json!({"name": "s", "cron": "* * * * *", "task": task})),
    ] {
        let refused = daemon.http().post(&format!("/api/v1/{path}"), &body).problem();
        assert_eq!(refused.code, ErrorCode::InvalidRequest, "{path}: {refused:?}");
        assert!(refused.detail.contains("`***`"), "{path}: {refused:?}");
    }
    back["task"]["session"]["env"]["TOKEN"] = json!("another");
    assert_eq!(put(&daemon, "d", &back).problem().code, ErrorCode::InvalidRequest, "the URL's is still one");
    back["task"]["session"]["mcp_servers"]["a"]["url"] = json!("https://x/other");
    assert_eq!(put(&daemon, "d", &back).status, 200);
    back["name"] = json!("e");
    let refused = put(&daemon, "d", &back).problem();
    assert!(
        refused.code == ErrorCode::InvalidRequest && refused.detail.contains("another `name`"),
        "{refused:?}"
    );
    let refused = put(&daemon, "a%20b", &secret);
    assert_eq!(refused.status, 400, "{}", refused.text());
}
