//! Hooks that are told of what has happened, as commands: messages, uploads and states.

use super::*;

/// What each call was told of, in order.
fn told_of(world: &World, on: &str) -> Vec<(String, Value)> {
    let calls = calls(world);
    let calls = calls.iter().filter(|call| call["on"] == on);
    calls
        .map(|call| (call["event"]["kind"].as_str().unwrap().to_owned(), call["event"]["data"].clone()))
        .collect()
}

#[test]
fn messages_uploads_and_states_are_told_to_commands_in_their_order() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let mut spec = hooked(
            "echo 'ATTENTION: look' >> optio.log; echo 'BROWSER: \"https://example.com/login\"' >> optio.log; \
             echo 'CLIENT_MESSAGE: open {\"tab\": 2}' >> optio.log; \
             until [ -e uploads/go ]; do sleep 0.1; done; echo DONE >> optio.log",
            json!([
                write_down(world, "message"),
                write_down(world, "upload"),
                with(write_down(world, "state"), "states", json!(["running", "done"])),
            ]),
        );
        spec["client_id"] = json!("tab-1");
        let task = daemon.task(spec);
        wait_until("all three messages", || told_of(world, "message").len() == 3, DEADLINE);
        let octets = [("content-type", "application/octet-stream")];
        let go = task.path("/uploads?name=go");
        assert_eq!(task.http.call("POST".parse().unwrap(), &go, &octets, "x".into()).status, 201, "{cli}");
        assert_eq!(task.wait().state, TaskState::Done, "{cli}: {:?}", task.log());
        wait_until("the last state", || told_of(world, "state").len() == 2, DEADLINE);
        let kinds: Vec<String> = told_of(world, "message").into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(kinds, ["attention", "browser", "client_message"], "{cli}");
        let said: Vec<Value> = told_of(world, "message").into_iter().map(|(_, data)| data).collect();
        assert_eq!(
            (&said[0]["reason"], &said[1]["url"], &said[2]["data"]),
            (&json!("look"), &json!("https://example.com/login"), &json!({"tab": 2})),
            "{cli}: {said:?}"
        );
        wait_until("the upload", || !told_of(world, "upload").is_empty(), DEADLINE);
        let uploads = told_of(world, "upload");
        let paths: Vec<_> = uploads.iter().map(|(kind, data)| (kind.as_str(), &data["path"])).collect();
        assert_eq!(paths, [("upload", &json!("uploads/go"))], "{cli}: {uploads:?}");
        let to: Vec<Value> =
            told_of(world, "state").into_iter().map(|(_, data)| data["to"].clone()).collect();
        assert_eq!(to, [json!("running"), json!("done")], "{cli}");
        assert!(calls(world).iter().all(|call| call["task"]["id"] == json!(task.id)), "{cli}");
    });
}
