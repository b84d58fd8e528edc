//! `castra run` with the real CLI: what is printed, where, and how it exits.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use castra_testkit::{World, clis};
use std::io::BufRead as _;

const CASTRA: &str = env!("CARGO_BIN_EXE_castra");

const SCRIPT: &str = r#"
[[rule]]
name = "refused"
when.last_user.contains = "be refused"
reply.error = { status = 400, message = "the scripted model does not like this" }
[[rule]]
name = "echo"
reply.text = "You said: {{last_user}}"
"#;

#[test]
fn the_demo_answers_without_account_or_daemon() {
    for cli in clis() {
        let world = World::new(CASTRA, &cli.path, SCRIPT);
        let output = world.cli(["run", "--demo", "hello"]);
        assert_eq!(output.code, 0, "{cli}: {output:#?}");
        assert!(
            output.stdout.starts_with("Hello! I am the scripted model of castra's demo."),
            "{cli}: {output:#?}"
        );
        assert!(output.stdout.ends_with("Ask me what I can do.\n"), "{cli}: {output:#?}");
        assert_eq!(output.stderr, "", "{cli}: in a pipe there is nothing but the answer");

        let listed = world.cli(["ps", "--all", "--json"]).json();
        let states: Vec<_> =
            listed["items"].as_array().unwrap().iter().map(|one| one["state"].clone()).collect();
        assert_eq!(states, ["ended"], "{cli}: what `run` started it ends");
    }
}

#[test]
fn an_api_error_is_exit_1_with_its_text() {
    for cli in clis() {
        let world = World::new(CASTRA, &cli.path, SCRIPT);
        let run = |prompt| world.castra(["run", "--fresh"]).args(world.run_flags()).arg(prompt).run();
        let refused = run("be refused");
        assert_eq!((refused.code, refused.stdout.as_str()), (1, ""), "{cli}: {refused:#?}");
        assert!(refused.stderr.contains("the scripted model does not like this"), "{cli}: {refused:#?}");
        assert!(refused.stderr.contains("(api_error)"), "{cli}: {refused:#?}");

        let answered = run("be nice");
        assert_eq!(
            (answered.code, answered.stdout.as_str()),
            (0, "You said: be nice\n"),
            "{cli}: {answered:#?}"
        );
    }
}

#[test]
fn a_prompt_by_pipe_and_a_context_beside_a_prompt() {
    let cli = clis().remove(0);
    let world = World::new(CASTRA, &cli.path, SCRIPT);
    let run = || world.castra(["run", "--fresh"]).args(world.run_flags());
    assert_eq!(run().arg("-").stdin("from a pipe").run().ok(), "You said: from a pipe\n");
    assert_eq!(
        run().arg("what is it?").stdin("a log\n").run().ok(),
        "You said: Context:\na log\n\n\nUser message:\nwhat is it?\n"
    );
}

#[test]
fn stream_json_is_every_event_and_json_is_the_message() {
    let cli = clis().remove(0);
    let world = World::new(CASTRA, &cli.path, SCRIPT);
    let run = |format| world.castra(["run", "--fresh", "--output-format", format]).args(world.run_flags());
    let lines = run("stream-json").arg("one").run().ok();
    let events: Vec<castra_proto::Event> =
        lines.lines().map(|line| serde_json::from_str(line).expect("an event a line")).collect();
    let expected: Vec<u64> = (1..=events.len() as u64).collect();
    assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), expected, "no event is left out");
    assert!(events.iter().any(|event| event.kind.as_str() == "result"), "{lines}");

    let message = run("json").arg("two").run().json();
    assert_eq!(
        (&message["state"], &message["result"]["text"]),
        (&"answered".into(), &"You said: two".into())
    );
}

#[test]
fn a_reader_that_leaves_early_ends_what_was_started() {
    let cli = clis().remove(0);
    let world = World::new(CASTRA, &cli.path, SCRIPT);
    let mut run = world
        .castra(["run", "--fresh", "--output-format", "stream-json"])
        .args(world.run_flags())
        .arg("one")
        .spawn();
    let mut first = String::new();
    // The pipe is closed behind the first line, as `| head -1` does.
    std::io::BufReader::new(run.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.starts_with(r#"{"seq":1,"#), "{first}");
    let status = run.wait().unwrap();
    assert!(status.success(), "a closed pipe is no error: {status}");
    let listed = world.cli(["ps", "--all", "--json"]).json();
    assert_eq!(listed["items"][0]["state"], "ended", "{listed:#}");
}
