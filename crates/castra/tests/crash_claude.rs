//! `kill -9` of claude itself: idle, writing, in a tool, asking, just spoken to. What was accepted stands in the
//! conversation once, no tool runs twice, what was cut off says so, and `castra resume` goes on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod crash;

use castra_proto::api::{MessageAccepted, MessageState};
use castra_proto::permission::PermissionRequest;
use castra_proto::session::{ExitCause, Reaped};
use castra_proto::{RunState, Session as Shown};
use castra_testkit::{Cli, World, clis, proc};
use crash::{CASTRA, Driver, by_sigkill, is_on_disk, said_by_castra};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const SCRIPT: &str = r#"
[[rule]]
name = "memory"
when.last_user.contains = "what did I say"
reply.text = "before this: {{user_texts}}"
[[rule]]
name = "endless"
when.last_user.contains = "for ever"
reply.text = "It begins, and then"
reply.stall = { after_chars = 10, forever = true }
[[rule]]
name = "append"
when.last_user.regex = '^append (\S+)'
reply.blocks = [
    { tool_use = { name = "Bash", input = { command = "echo {{capture:1}} >> tool.log; tail -f /dev/null", description = "Append" } } },
]
[[rule]]
name = "after"
when.tool_result = {}
reply.text = "after the tool"
[[rule]]
name = "on"
when.last_user.contains = "Continue from where you left off"
reply.text = "carried on"
[[rule]]
name = "echo"
reply.text = "You said: {{last_user}}"
"#;

fn each(fields: &Value, test: impl Fn(&Cli, &mut Driver<'_>)) {
    for cli in clis() {
        let world = World::new(CASTRA, &cli.path, SCRIPT);
        let mut driver = Driver::new(&world);
        driver.create(fields.clone());
        let answer = driver.ask("the word is plum");
        assert_eq!(answer, "You said: the word is plum", "{cli}");
        // What claude had not written down when it dies is forgotten, also when it was answered.
        driver
            .until("the turn to be on disk", |this| is_on_disk(this.world, &this.id, &answer).then_some(()));
        test(&cli, &mut driver);
    }
}

/// Kills claude, and waits until the run is over: as a crash, with a tree that is proved empty.
fn kill_claude(cli: &Cli, driver: &mut Driver<'_>) -> Shown {
    let claude = proc::process(driver.get::<Shown>("").pid.expect("a pid")).expect("claude");
    assert!(claude.kill9());
    let shown = driver.wait_state(RunState::Ended);
    let exit = shown.exit.clone().expect("an exit");
    assert_eq!(
        (exit.cause, exit.reaped, by_sigkill(&exit)),
        (ExitCause::Crashed, Reaped::Proved, true),
        "{cli}: {exit:?}"
    );
    assert!(shown.pending.is_empty(), "{cli}: nobody waits for an answer any more");
    driver.wait_nobody();
    shown
}

/// The session remembers, each message stands once in the conversation, and nothing of it is left behind.
fn goes_on(cli: &Cli, driver: &mut Driver<'_>, said: &[MessageAccepted]) {
    let remembered = driver.ask("what did I say?");
    assert!(remembered.contains("the word is plum"), "{cli}: {remembered}");
    for message in said {
        assert_eq!(driver.times_in_transcript(message), 1, "{cli}: {message:?}");
    }
    let shown: Shown = driver.get("");
    assert_eq!((shown.run, shown.queued), (2, 0), "{cli}");
    driver.pieced_together();
}

/// A message whose answer has begun and will not end.
fn in_mid_stream(driver: &mut Driver<'_>) -> MessageAccepted {
    let message = driver.send("go on for ever");
    driver.until("text", |this| {
        let live = this.live.as_ref().unwrap().seen();
        let text = |partial: &Value| partial["text"].as_str().is_some_and(|text| text.contains("It"));
        live.partials.iter().any(text).then_some(())
    });
    written_down(driver, &message);
    message
}

/// claude writes down what it has begun with a moment after it has begun.
fn written_down(driver: &mut Driver<'_>, message: &MessageAccepted) {
    driver.until("the message to be on disk", |this| (this.times_in_transcript(message) == 1).then_some(()));
}

fn own_messages(driver: &mut Driver<'_>) -> Vec<String> {
    said_by_castra(&driver.session().events())
}

#[test]
fn killed_when_idle_nothing_was_cut_off() {
    each(&json!({}), |cli, driver| {
        let shown = kill_claude(cli, driver);
        assert_eq!(shown.turns, 1, "{cli}");
        driver.world.cli(["resume", &driver.id]).ok();
        goes_on(cli, driver, &[]);
        assert_eq!(own_messages(driver), [""; 0], "{cli}: there was nothing to go on with");
    });
}

#[test]
fn killed_in_mid_stream_the_message_is_interrupted_and_the_session_carries_on_once() {
    each(&json!({}), |cli, driver| {
        let message = in_mid_stream(driver);
        let waiting = driver.send("and then this");
        kill_claude(cli, driver);
        assert_eq!(driver.message(&message).state, MessageState::Interrupted, "{cli}");
        assert_eq!(driver.message(&message).result, None, "{cli}: what was cut off has no result");
        assert_eq!(driver.message(&waiting).state, MessageState::Queued, "{cli}: it waits for the next run");

        driver.world.cli(["resume", &driver.id]).ok();
        let answer = driver.settled(&waiting);
        let text = answer.result.map(|result| result.text);
        assert_eq!(text.as_deref(), Some("You said: and then this"), "{cli}");
        goes_on(cli, driver, &[message, waiting]);
        assert_eq!(own_messages(driver), ["Continue from where you left off."], "{cli}");
        let heard: Vec<_> = driver.world.calls().iter().filter_map(|call| call.rule.clone()).collect();
        assert_eq!(heard, ["echo", "endless", "on", "echo", "memory"], "{cli}: nothing is asked twice");
    });
}

#[test]
fn killed_in_a_tool_it_is_not_run_again_and_nobody_goes_on_by_himself() {
    each(&json!({"allowed_tools": ["Bash"]}), |cli, driver| {
        let message = driver.send("append one");
        driver.until("the tool", |this| (!this.written("tool.log").is_empty()).then_some(()));
        written_down(driver, &message);
        kill_claude(cli, driver);
        assert_eq!(driver.message(&message).state, MessageState::Interrupted, "{cli}");

        driver.world.cli(["resume", &driver.id]).ok();
        driver.wait_state(RunState::Idle);
        goes_on(cli, driver, &[message]);
        assert_eq!(own_messages(driver), [""; 0], "{cli}: only a person knows what the tool did");
        assert_eq!(driver.written("tool.log"), "one\n", "{cli}");
    });
}

#[test]
fn killed_while_it_asks_the_tool_never_runs() {
    each(&json!({}), |cli, driver| {
        let message = driver.send("append one");
        let request: PermissionRequest = driver.permission();
        written_down(driver, &message);
        kill_claude(cli, driver);
        assert_eq!(driver.message(&message).state, MessageState::Interrupted, "{cli}");
        let late = driver.session().answer(&request, &json!({"behavior": "allow"}));
        assert!(matches!(late.status, 404 | 409), "{cli}: {} {}", late.status, late.text());

        driver.world.cli(["resume", &driver.id]).ok();
        driver.wait_state(RunState::Idle);
        goes_on(cli, driver, &[message]);
        assert_eq!(driver.written("tool.log"), "", "{cli}");
        assert_eq!(own_messages(driver), [""; 0], "{cli}");
    });
}

/// From before claude has read the message to after its answer: whatever it had of it, it stands there once.
#[test]
fn killed_just_after_a_message_was_written() {
    for delay in [0, 40, 80, 150] {
        each(&json!({}), |cli, driver| {
            let message = driver.send("hello");
            let end = Instant::now() + Duration::from_millis(delay);
            // Not a synchronisation: where in its life the message is hit is what varies.
            std::thread::sleep(end.saturating_duration_since(Instant::now()));
            kill_claude(cli, driver);
            let before = driver.message(&message).state;
            driver.world.cli(["resume", &driver.id]).ok();
            let after = driver.settled(&message).state;
            println!("{cli}, {delay} ms: {before:?}, after the resume {after:?}");
            assert_eq!(
                after,
                if before == MessageState::Queued { MessageState::Answered } else { before },
                "{cli}, {delay} ms"
            );
            match before {
                // It may have been answered and not been written down: then claude has forgotten it.
                MessageState::Answered => goes_on(cli, driver, &[]),
                _ => goes_on(cli, driver, std::slice::from_ref(&message)),
            }
            assert!(driver.times_in_transcript(&message) <= 1, "{cli}, {delay} ms");
            let on: &[&str] = match before {
                MessageState::Interrupted => &["Continue from where you left off."],
                _ => &[],
            };
            assert_eq!(own_messages(driver), on, "{cli}, {delay} ms");
        });
    }
}

#[test]
fn killed_when_no_daemon_is_there_the_next_one_finds_the_same() {
    each(&json!({"allowed_tools": ["Bash"]}), |cli, driver| {
        let message = driver.send("append one");
        driver.until("the tool", |this| (!this.written("tool.log").is_empty()).then_some(()));
        written_down(driver, &message);
        let meta = driver.meta(1);
        driver.daemon.kill9();
        assert!(meta.claude.kill9());
        driver.revive();
        let exit = driver.wait_state(RunState::Ended).exit.expect("an exit");
        assert_eq!(
            (exit.cause, exit.reaped, by_sigkill(&exit)),
            (ExitCause::Crashed, Reaped::Proved, true),
            "{cli}: {exit:?}"
        );
        driver.wait_nobody();
        assert_eq!(driver.message(&message).state, MessageState::Interrupted, "{cli}");
        driver.resume();
        goes_on(cli, driver, &[message]);
        assert_eq!(driver.written("tool.log"), "one\n", "{cli}");
    });
}

/// Everything dies at the moment in which the daemon says "go on", twice.
#[test]
fn castra_says_go_on_once_though_the_daemon_dies_over_it() {
    for place in ["carry_on.before", "carry_on.after"] {
        each(&json!({}), |cli, driver| {
            let message = in_mid_stream(driver);
            kill_claude(cli, driver);
            let before = driver.deaths;
            driver.doom(place);
            driver.resume();
            driver.until("a death", |this| (this.deaths > before).then_some(()));
            driver.until("an answer", |this| {
                let events = this.session().events_of("result");
                events.iter().any(|event| event.data.get().contains("carried on")).then_some(())
            });
            goes_on(cli, driver, &[message]);
            assert_eq!(own_messages(driver), ["Continue from where you left off."], "{cli}, {place}");
        });
    }
}
