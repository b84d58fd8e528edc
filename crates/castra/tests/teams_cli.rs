//! `castra team` with the real CLI: files, what is printed and where, exit codes.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod team;

use castra_testkit::{Cli, DEADLINE, Output, World, clis, wait_until};
use serde_json::{Value, json};
use team::{CASTRA, SCRIPT, spec};

fn in_each_world(test: impl Fn(&Cli, &World)) {
    for cli in clis() {
        test(&cli, &World::new(CASTRA, &cli.path, SCRIPT));
    }
}

/// A team file in the folder in which commands are called.
fn file(world: &World, name: &str, spec: &Value) {
    std::fs::write(world.folder().join(name), spec.to_string()).unwrap();
}

fn team(world: &World, args: &[&str]) -> Output {
    world.castra(["team"]).args(args).run()
}

#[track_caller]
fn says(output: &Output, code: i32, stdout: &str, stderr: &[&str]) {
    assert_eq!((output.code, output.stdout.as_str()), (code, stdout), "{output:#?}");
    for part in stderr {
        assert!(output.stderr.contains(part), "{part:?} is not in {output:#?}");
    }
}

#[test]
fn a_team_is_made_of_a_file_asked_and_stopped() {
    in_each_world(|cli, world| {
        let mut of = spec(world, &[("fails", "YOU FAIL"), ("a", "")]);
        of["name"] = "duo".into();
        file(world, "team.json", &of);
        let none = team(world, &["ask", "a", "x"]);
        says(&none, 2, "", &["there is no team", "castra team up FILE"]);
        let up = team(world, &["up", "team.json"]);
        let id = up.stdout.trim().to_owned();
        says(&up, 0, &format!("{id}\n"), &["hint: castra team ask a TEXT --team duo"]);
        says(&team(world, &["up", "team.json"]), 1, "", &["bears the name \"duo\"", "castra team rm"]);

        // The only team is the one that is meant; a text is what it is.
        says(&team(world, &["ask", "a", "{0} {message} $(id)"]), 0, "heard: {0} {message} $(id)\n", &[]);
        says(&team(world, &["ask", "a", "--", "-x --demo"]), 0, "heard: -x --demo\n", &[]);
        let piped = world.castra(["team", "ask", "a", "-", "--key", "k"]).stdin("from a pipe").run();
        says(&piped, 0, "heard: from a pipe\n", &[]);
        says(&team(world, &["ask", "fails", "x"]), 1, "", &["error: ", "scripted"]);
        says(&team(world, &["ask", "b", "x"]), 1, "", &["no agent \"b\"", "it has a, fails"]);
        let fan = team(world, &["fanout", "y"]);
        says(&fan, 1, "a:\nheard: y\n\n", &["warning: fails: ", "scripted"]);
        let fan = team(world, &["fanout", "y", "--agents", "a", "--json"]).json();
        assert_eq!(fan["answers"][0]["text"], "heard: y", "{cli}");
        let routed = team(world, &["route", "z", "--from", "a", "--to", "a", "--wrap", "-<{message}> {0}"]);
        says(&routed, 0, "heard: -<heard: z> {0}\n", &[]);
        says(&team(world, &["route", "z", "--from", "fails", "--to", "a"]), 1, "", &["error: ", "scripted"]);

        // Too late for who asked first, and the answer of nobody else.
        let late = ["ask", "a", "late", "--idempotency-key", "L"];
        let cut = world.castra(["team"]).args(late).args(["--timeout", "1"]).run();
        says(&cut, 124, "", &["no answer within the time", "castra logs"]);
        says(&team(world, &["ask", "a", "next"]), 0, "heard: next\n", &[]);
        says(&team(world, &late), 0, "at last: late\n", &[]);

        let session = team(world, &["session", "a", "--key", "k", "--team", "duo"]).ok();
        let shown = world.cli(["show", session.trim(), "--json"]).json();
        assert_eq!(shown["spec"]["labels"], json!({"agent": "a", "key": "k", "team": "duo"}), "{cli}");
        // An answer is there before claude says that it is idle.
        let mut status = String::new();
        let idle = || {
            status = team(world, &["status"]).ok();
            let rows: Vec<Vec<&str>> = status.lines().map(|line| line.split_whitespace().collect()).collect();
            let of_a: Vec<_> = rows.iter().filter(|row| row[0] == "a").map(|row| (row[1], row[2])).collect();
            of_a == [("-", "idle"), ("k", "idle")]
        };
        wait_until("both conversations to be idle", idle, DEADLINE);
        assert!(status.contains("heard: from a pipe"), "{cli}: {status}");
        let pid = |output: &Value| output["pid"].as_i64().map(|pid| i32::try_from(pid).unwrap());
        let claude = castra_testkit::proc::process(pid(&shown).expect("a process")).expect("it runs");

        says(&team(world, &["stop"]), 2, "", &["--all"]);
        team(world, &["stop", "a"]).ok();
        assert!(!claude.is_alive(), "{cli}: its process is gone when this returns");
        let states = || {
            let shown = team(world, &["status", "--json"]).json();
            ["a", "fails"].map(|agent| shown["agents"][agent]["conversations"][0]["state"].clone())
        };
        assert_eq!(states(), ["ended", "idle"], "{cli}");
        says(&team(world, &["rm", "duo"]), 1, "", &["agent \"fails\" runs", "castra team stop"]);
        team(world, &["stop", "--all"]).ok();
        assert_eq!(states(), ["ended", "ended"], "{cli}");
        says(
            &team(world, &["ask", "a", "what was said before?", "--key", "k"]),
            0,
            "before: - from a pipe\n",
            &[],
        );
        team(world, &["clear", "a", "--key", "k"]).ok();
        says(
            &team(world, &["ask", "a", "what was said before?", "--key", "k"]),
            0,
            "before: (nothing yet)\n",
            &[],
        );
        says(&team(world, &["rm", "duo", "--force"]), 0, "duo\n", &[]);
        assert_eq!(team(world, &["list", "--json"]).json()["items"], json!([]), "{cli}");
        assert_eq!(world.cli(["ps", "-a", "-q"]).ok(), "", "{cli}");
        world.cli(["down"]).ok();
    });
}

#[test]
fn a_flow_is_run_step_by_step_and_its_team_is_removed() {
    in_each_world(|cli, world| {
        let mut of = spec(world, &[("a", ""), ("b", ""), ("fails", "YOU FAIL")]);
        of["lazy"] = true.into();
        of["flow"] = json!([
            {"ask": "a", "text": "of {message} {this}", "as": "draft"},
            {"fanout": ["fails", "b"], "text": "judge {draft}", "as": "verdicts", "need": "any"},
            {"route": "a", "from": "verdicts", "wrap": "{message} | {verdicts.b} | {verdicts.fails}"},
        ]);
        file(world, "flow.json", &of);
        let first = "heard: of doors {this}";
        let second = format!("heard: judge {first}");
        let third = format!("heard: b:\n{second} | {second} | {{verdicts.fails}}");
        let run = team(world, &["run", "flow.json", "doors"]);
        says(
            &run,
            0,
            &format!("a:\n{first}\n\nb:\n{second}\n\na:\n{third}\n\n"),
            &[
                "step 1 of 3 draft (a)",
                "step 2 of 3 verdicts (fails, b)",
                "warning: fails: ",
                "step 3 of 3 (a)",
            ],
        );
        assert_eq!(team(world, &["list", "--json"]).json()["items"], json!([]), "{cli}");
        assert_eq!(world.cli(["ps", "-a", "-q"]).ok(), "", "{cli}");
        says(&team(world, &["run", "flow.json"]), 2, "", &["a place for a message"]);

        of["flow"][1]["need"] = "all".into();
        of["name"] = "kept".into();
        file(world, "flow.json", &of);
        let run = team(world, &["run", "flow.json", "doors", "--keep", "--json"]);
        let done: Value = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!((run.code, &done["state"]), (1, &json!("failed")), "{cli}: {run:#?}");
        assert_eq!(done["steps"].as_array().map(Vec::len), Some(2), "{cli}: the flow ends there");
        // With the team that is there.
        says(
            &team(world, &["run", "kept", "walls"]),
            1,
            "a:\nheard: of walls {this}\n\nb:\nheard: judge heard: of walls {this}\n\n",
            &[],
        );
        team(world, &["rm", "kept", "--force"]).ok();
        world.cli(["down"]).ok();
    });
}

#[test]
fn what_is_sent_is_not_waited_for_and_answered_all_the_same() {
    in_each_world(|cli, world| {
        file(world, "team.json", &spec(world, &[("a", "")]));
        team(world, &["up", "team.json"]).ok();
        let late = ["send", "a", "late", "--idempotency-key", "L", "--key", "k"];
        let sent = team(world, &late);
        let id = sent.stdout.trim().to_owned();
        says(&sent, 0, &format!("{id}\n"), &[]);
        assert!(id.parse::<castra_proto::MessageId>().is_ok(), "{cli}: {sent:#?}");
        // Nobody waited: it is not answered yet, and said again it is the same.
        let again = world.castra(["team"]).args(late).arg("--json").run().json();
        assert_eq!((&again["state"], &again["message_id"]), (&json!("waiting"), &json!(id)), "{cli}");
        let rows = || team(world, &["status"]).ok();
        wait_until("its answer", || rows().contains("at last: late"), DEADLINE);
        let asked = team(world, &["ask", "a", "late", "--idempotency-key", "L", "--key", "k"]);
        says(&asked, 0, "at last: late\n", &[]);
        assert_eq!(world.calls().len(), 1, "{cli}: it was said once");
        says(&team(world, &["send", "b", "x"]), 1, "", &["no agent \"b\""]);
        world.cli(["down"]).ok();
    });
}

/// While the agents start there is nothing yet to remove, and nothing may be left when there is.
#[test]
fn ctrl_c_removes_the_team_that_was_made_for_a_flow_also_while_it_is_made() {
    in_each_world(|cli, world| {
        let daemon = world.daemon();
        let mut of = spec(world, &[("a", ""), ("b", ""), ("c", "")]);
        of["flow"] = json!([{"ask": "a", "text": "hang"}]);
        file(world, "flow.json", &of);
        let sessions = || {
            let page: castra_proto::api::Page<castra_proto::Session> =
                daemon.http().get("/api/v1/sessions?all=true").expect(200);
            page.items.len()
        };
        let hung = || world.calls().iter().filter(|call| call.last_user.as_deref() == Some("hang")).count();
        for what in ["the first agent to start", "a to hang"] {
            let before = hung();
            let run = world.castra(["team", "run", "flow.json"]).spawn();
            let begun = || if what == "a to hang" { hung() > before } else { sessions() > 0 };
            wait_until(what, begun, DEADLINE);
            let pid = i32::try_from(run.id()).unwrap();
            let process = castra_testkit::proc::process(pid).expect("it runs");
            assert!(process.signal(rustix::process::Signal::INT), "{cli}: {what}");
            let run = run.wait_with_output().unwrap();
            assert_eq!(run.status.code(), Some(130), "{cli}, {what}: {run:?}");
            assert_eq!(team(world, &["list", "--json"]).json()["items"], json!([]), "{cli}, {what}");
            assert_eq!(sessions(), 0, "{cli}, {what}");
        }
    });
}

/// Somebody else has removed it: what went wrong first is what is said, and that it cannot be removed again beside it.
#[test]
fn a_team_that_cannot_be_removed_hides_no_error() {
    let cli = &clis()[0];
    let world = World::new(CASTRA, &cli.path, SCRIPT);
    let mut of = spec(&world, &[("a", "")]);
    of["name"] = "gone".into();
    of["flow"] = json!([{"ask": "a", "text": "hang"}]);
    file(&world, "flow.json", &of);
    let run = world.castra(["team", "run", "flow.json"]).spawn();
    let hangs = || world.calls().iter().any(|call| call.last_user.as_deref() == Some("hang"));
    wait_until("a to hang", hangs, DEADLINE);
    team(&world, &["rm", "gone", "--force"]).ok();
    let run = run.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(1), "{said}");
    assert!(said.contains("was not removed: "), "{said}");
    world.cli(["down"]).ok();
}

#[test]
fn a_command_that_waits_survives_the_daemon() {
    let cli = &clis()[0];
    let world = World::new(CASTRA, &cli.path, SCRIPT);
    let mut daemon = world.daemon();
    let mut of = spec(&world, &[("a", ""), ("b", "YOU ARE SLOW")]);
    of["flow"] = json!([
        {"ask": "a", "text": "late", "as": "one"},
        {"fanout": ["a", "b"], "text": "<{one}>"},
    ]);
    file(&world, "flow.json", &of);
    let run = world.castra(["team", "run", "flow.json"]).spawn();
    wait_until("the first to be asked", || world.calls().len() == 1, DEADLINE);
    // It starts another one.
    daemon.kill9();
    let run = run.wait_with_output().unwrap();
    let said = "a:\nat last: late\n\na:\nat last: <at last: late>\n\nb:\nslowly: <at last: late>\n\n";
    assert_eq!(String::from_utf8_lossy(&run.stdout), said, "{run:?}");
    assert_eq!(world.calls().len(), 3, "nothing was said twice");
    assert_eq!(world.cli(["ps", "-a", "-q"]).ok(), "");
    world.cli(["down"]).ok();
}

#[test]
fn a_mistake_in_a_file_is_named_with_its_place() {
    let cli = &clis()[0];
    let world = World::new(CASTRA, &cli.path, SCRIPT);
    let write = |name: &str, text: &str| std::fs::write(world.folder().join(name), text).unwrap();
    for (name, text, parts) in [
        ("a.yaml", "name: x\nagnets: {}\n", vec!["a.yaml:2: unknown field `agnets`", "is `agents` meant?"]),
        (
            "b.yaml",
            "agents:\n  w:\n    session: {modle: opus}\n",
            vec!["unknown field `agents.w.session.modle`"],
        ),
        ("c.toml", "[agents.w.session]\nmodel = 3\n", vec!["c.toml:2: `agents.w.session.model`"]),
        ("d.yaml", "", vec!["d.yaml is empty", "castra team schema"]),
        ("e.json", "{\"agents\": {\"w\": {}}}", vec!["e.json has no flow"]),
    ] {
        write(name, text);
        let run = team(&world, &["run", name]);
        says(&run, 2, "", &parts);
    }
    assert!(team(&world, &["schema"]).json()["properties"]["agents"].is_object());
    world.cli(["down"]).ok();
}
