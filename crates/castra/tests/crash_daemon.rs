//! `kill -9` of the daemon at each numbered step of a message's and an event's life (design.md §3, §4), and at
//! random: claude does not notice, nothing accepted is lost or doubled, and a subscriber misses nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod crash;

use castra_proto::api::MessageState;
use castra_proto::session::{ExitCause, Reaped};
use castra_proto::{Event, RunState, Session as Shown};
use castra_testkit::{Cli, Projected, World, clis};
use crash::{CASTRA, Dice, Driver, Outcome, Story, lanes};
use serde_json::json;
use std::time::Duration;

const SCRIPT: &str = r#"
[[rule]]
name = "slow"
when.last_user.contains = "slowly"
reply.text = "Slowly: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20"
reply.pace = { chunk_chars = 4, delay_ms = 40 }
[[rule]]
name = "long"
when.last_user.contains = "at length"
reply.blocks = [{ text = "a word and another ", repeat = 60 }]
reply.pace = { chunk_chars = 4, delay_ms = 50 }
[[rule]]
name = "append"
when.last_user.regex = '^append (\S+)'
reply.blocks = [
    { text = "I will append." },
    { tool_use = { name = "Bash", input = { command = "echo {{capture:1}} >> tool.log; sleep 0.7; echo appended {{capture:1}}", description = "Append" } } },
]
[[rule]]
name = "done"
when.tool_result = {}
reply.text = "done: {{tool_result:100}}"
[[rule]]
name = "echo"
reply.text = "You said: {{last_user}}"
"#;

const STORY: Story = Story { script: SCRIPT, tell: story };

/// One session from its creation to its end: messages queued in mid-stream and during a tool, a permission.
fn story(driver: &mut Driver<'_>) -> Outcome {
    driver.create(json!({"name": "story"}));
    let mut sent = vec![driver.send("count slowly")];
    driver.until("text", |this| this.is_writing().then_some(()));
    let claude = driver.get::<Shown>("").pid;
    sent.push(driver.send("append one"));
    sent.push(driver.send("after the tool"));
    let request = driver.permission();
    assert_eq!(driver.written("tool.log"), "", "nothing runs before it is allowed");
    driver.allow(&request);
    driver.until("the tool", |this| (!this.written("tool.log").is_empty()).then_some(()));
    sent.push(driver.send("last"));
    let outcome = Outcome::of(driver, &sent, claude);
    // Written down behind the answer: only now is it all there.
    for message in &sent {
        assert_eq!(driver.times_in_transcript(message), 1, "{message:?}");
    }
    outcome
}

fn npm() -> Vec<Cli> {
    vec![clis().remove(0)]
}

#[test]
fn killed_while_a_session_begins() {
    STORY.dies_at(&npm(), &["created", "start.before", "start.prepared", "start.after", "joined"]);
}

#[test]
fn killed_while_a_message_is_accepted() {
    STORY.dies_at(&clis(), &["accept.before", "accept.after"]);
    STORY.dies_at(&npm(), &["accept.after:2", "accept.after:4"]);
}

#[test]
fn killed_while_a_message_is_written() {
    STORY.dies_at(&clis(), &["write.before", "write.after"]);
    STORY.dies_at(&npm(), &["write.after:2", "write.before:4"]);
}

#[test]
fn killed_before_what_was_decoded_is_committed() {
    STORY.dies_at(&npm(), &["decoded", "decoded:4", "decoded:12", "decoded:25"]);
}

#[test]
fn killed_at_the_commit() {
    STORY.dies_at(&npm(), &["commit.before", "commit.before:5", "commit.before:14"]);
}

#[test]
fn killed_behind_the_commit() {
    STORY.dies_at(&npm(), &["commit.after:2", "commit.after:8", "acked:3", "acked:12"]);
}

#[test]
fn killed_when_a_permission_was_decided() {
    STORY.dies_at(&clis(), &["answer.after"]);
    STORY.dies_at(&npm(), &["answer.written"]);
}

#[test]
fn killed_while_a_session_is_stopped() {
    STORY.dies_at(&npm(), &["stop", "exit.before", "exit.after"]);
}

/// A stop that no command asked for is gone on with by the next daemon too.
#[test]
fn killed_when_a_limit_had_ended_the_run() {
    let world = World::new(CASTRA, &npm()[0].path, SCRIPT);
    let mut driver = Driver::new(&world);
    driver.doom("stop");
    driver.create(json!({"limits": {"max_runtime_s": 3}}));
    let exit = driver.wait_state(RunState::Ended).exit.expect("an exit");
    assert_eq!((driver.deaths, exit.cause, exit.reaped), (1, ExitCause::Timeout, Reaped::Proved));
    driver.wait_nobody();
}

/// What follows the end of a run follows it though the daemon died in between.
#[test]
fn killed_between_the_end_and_what_follows_it() {
    let world = World::new(CASTRA, &npm()[0].path, SCRIPT);
    let mut driver = Driver::new(&world);
    driver.create(json!({"auto_resume": true}));
    assert_eq!(driver.ask("hello"), "You said: hello");
    driver.doom("exit.after");
    assert!(driver.meta(1).claude.kill9());
    let shown = driver.until("the next run", |this| {
        Some(this.get::<Shown>("")).filter(|shown| shown.run == 2 && shown.state == RunState::Idle)
    });
    assert_eq!((driver.deaths, shown.turns), (1, 1));
    assert_eq!(driver.ask("and now"), "You said: and now");
    driver.stop();
    driver.wait_nobody();
}

const KILLS: usize = 24;

/// A long stream, messages queued into it, a tool; killed again and again, at any time, until the end.
fn long_story(
    driver: &mut Driver<'_>,
    mut dice: Option<Dice>,
) -> (Vec<Projected>, Vec<Projected>, Vec<Event>) {
    driver.create(json!({"allowed_tools": ["Bash"]}));
    let mut sent = vec![driver.send("talk at length")];
    driver.until("text", |this| this.is_writing().then_some(()));
    let claude = driver.get::<Shown>("").pid;
    let mut texts = ["append one", "second", "append two", "third"].into_iter();
    let mut kills = 0;
    loop {
        if let Some(dice) = &mut dice
            && kills < KILLS
        {
            std::thread::sleep(Duration::from_millis(dice.roll(300)));
            driver.daemon.kill9();
            kills += 1;
            // Now and then nobody is there for a while.
            std::thread::sleep(Duration::from_millis(dice.roll(4) * dice.roll(60)));
            assert!(driver.revive());
        }
        if kills % 3 == 0
            && let Some(text) = texts.next()
        {
            sent.push(driver.send(text));
        }
        if (dice.is_none() || kills == KILLS) && texts.len() == 0 {
            break;
        }
    }
    for message in &sent {
        let message = driver.settled(message);
        assert_eq!(message.state, MessageState::Answered, "{message:?}");
    }
    assert_eq!(driver.wait_state(RunState::Idle).pid, claude, "claude is the same process");
    assert_eq!(driver.written("tool.log"), "one\ntwo\n");
    driver.stop();
    driver.wait_nobody();
    for message in &sent {
        assert_eq!(driver.times_in_transcript(message), 1, "{message:?}");
    }
    let events = driver.pieced_together();
    let (accepted, said) = lanes(&events);
    (accepted, said, events)
}

#[test]
fn killed_at_random_during_a_long_stream() {
    for cli in clis() {
        let dice = Dice::new(&cli);
        let (expected, (accepted, said, _)) = std::thread::scope(|scope| {
            let peace = scope.spawn(|| {
                let world = World::new(CASTRA, &cli.path, SCRIPT);
                long_story(&mut Driver::new(&world), None)
            });
            let world = World::new(CASTRA, &cli.path, SCRIPT);
            let mut driver = Driver::new(&world);
            let killed = long_story(&mut driver, Some(dice));
            assert_eq!(driver.deaths, KILLS);
            let connections = driver.live.as_ref().unwrap().seen().connections;
            println!("{cli}: {KILLS} kills, {} events, {connections} connections", killed.2.len());
            (peace.join().unwrap(), killed)
        });
        assert_eq!((accepted, said), (expected.0, expected.1), "{cli}");
    }
}
