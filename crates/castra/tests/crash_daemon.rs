//! `kill -9` of the daemon at each numbered step of a message's and an event's life (design.md §3, §4), and at
//! random: claude does not notice, nothing accepted is lost or doubled, and a subscriber misses nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod crash;

use castra_proto::api::MessageState;
use castra_proto::session::{ExitCause, Reaped};
use castra_proto::{Event, RunState, Session as Shown};
use castra_testkit::{Cli, Projected, World, clis};
use crash::{CASTRA, Driver, lanes};
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

/// What came out of the story.
#[derive(Debug, PartialEq)]
struct Outcome {
    accepted: Vec<Projected>,
    said: Vec<Projected>,
    /// What the model heard.
    heard: Vec<Option<String>>,
    tool_log: String,
    answers: Vec<(MessageState, Option<String>)>,
    sandbox: castra_proto::session::SandboxKind,
    shown: (RunState, u32, u32, u32),
}

/// One session from its creation to its end: messages queued in mid-stream and during a tool, a permission.
/// Returns how often the daemon died, and what a client sees.
fn story(driver: &mut Driver<'_>) -> Outcome {
    driver.create(json!({"name": "story"}));
    let mut sent = vec![driver.send("count slowly")];
    driver.until("text", |this| this.is_writing().then_some(()));
    let claude = driver.get::<Shown>("").pid;
    assert!(claude.is_some());
    sent.push(driver.send("append one"));
    sent.push(driver.send("after the tool"));
    let request = driver.permission();
    assert_eq!(driver.written("tool.log"), "", "nothing runs before it is allowed");
    driver.allow(&request);
    driver.until("the tool", |this| (!this.written("tool.log").is_empty()).then_some(()));
    sent.push(driver.send("last"));
    let answers = sent
        .iter()
        .map(|message| driver.settled(message))
        .map(|message| (message.state, message.result.map(|result| result.text)))
        .collect();
    let shown: Shown = driver.wait_state(RunState::Idle);
    assert_eq!(shown.pid, claude, "claude is the same process");

    driver.stop();
    let shown = driver.wait_state(RunState::Ended);
    let exit = shown.exit.clone().expect("an exit");
    assert_eq!((exit.cause, exit.reaped), (ExitCause::Stopped, Reaped::Proved));
    driver.wait_nobody();
    // Written down behind the answer: only now is it all there.
    for message in &sent {
        assert_eq!(driver.times_in_transcript(message), 1, "{message:?}");
    }
    let events = driver.pieced_together();
    let (accepted, said) = lanes(&events);
    Outcome {
        accepted,
        said,
        heard: driver.world.calls().iter().map(|call| call.last_user.clone()).collect(),
        tool_log: driver.written("tool.log"),
        answers,
        sandbox: shown.sandbox.kind,
        shown: (shown.state, shown.run, shown.turns, shown.queued),
    }
}

fn undisturbed(cli: &Cli) -> Outcome {
    let world = World::new(CASTRA, &cli.path, SCRIPT);
    let mut driver = Driver::new(&world);
    let outcome = story(&mut driver);
    assert_eq!((driver.deaths, outcome.tool_log.as_str()), (0, "one\n"));
    assert!(outcome.answers.iter().all(|(state, text)| *state == MessageState::Answered && text.is_some()));
    outcome
}

/// Tells the story once in peace, and once for each place at which the daemon dies; all at the same time, since
/// a story is mostly waiting.
fn dies_at(clis: &[Cli], places: &[&str]) {
    for cli in clis {
        std::thread::scope(|scope| {
            let peace = scope.spawn(|| undisturbed(cli));
            let told: Vec<_> = places.iter().map(|place| scope.spawn(|| dying(cli, place))).collect();
            let expected = peace.join().unwrap();
            for (place, outcome) in places.iter().zip(told) {
                assert_eq!(outcome.join().unwrap(), expected, "{cli}, {place}");
                println!("{cli}: survived {place}");
            }
        });
    }
}

fn dying(cli: &Cli, place: &str) -> Outcome {
    let world = World::new(CASTRA, &cli.path, SCRIPT);
    let mut driver = Driver::new(&world);
    driver.doom(place);
    let outcome = story(&mut driver);
    assert_eq!(driver.deaths, 1, "{cli}, {place}: never reached");
    outcome
}

fn npm() -> Vec<Cli> {
    vec![clis().remove(0)]
}

#[test]
fn killed_while_a_session_begins() {
    dies_at(&npm(), &["created", "start.before", "start.prepared", "start.after", "joined"]);
}

#[test]
fn killed_while_a_message_is_accepted() {
    dies_at(&clis(), &["accept.before", "accept.after"]);
    dies_at(&npm(), &["accept.after:2", "accept.after:4"]);
}

#[test]
fn killed_while_a_message_is_written() {
    dies_at(&clis(), &["write.before", "write.after"]);
    dies_at(&npm(), &["write.after:2", "write.before:4"]);
}

#[test]
fn killed_before_what_was_decoded_is_committed() {
    dies_at(&npm(), &["decoded", "decoded:4", "decoded:12", "decoded:25"]);
}

#[test]
fn killed_at_the_commit() {
    dies_at(&npm(), &["commit.before", "commit.before:5", "commit.before:14"]);
}

#[test]
fn killed_behind_the_commit() {
    dies_at(&npm(), &["commit.after:2", "commit.after:8", "acked:3", "acked:12"]);
}

#[test]
fn killed_when_a_permission_was_decided() {
    dies_at(&clis(), &["answer.after"]);
    dies_at(&npm(), &["answer.written"]);
}

#[test]
fn killed_while_a_session_is_stopped() {
    dies_at(&npm(), &["stop", "exit.before", "exit.after"]);
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

/// xorshift: the seed is printed, so that a failure can be told again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
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
        let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 | 1;
        println!("{cli}: seed {seed}");
        let (expected, (accepted, said, _)) = std::thread::scope(|scope| {
            let peace = scope.spawn(|| {
                let world = World::new(CASTRA, &cli.path, SCRIPT);
                long_story(&mut Driver::new(&world), None)
            });
            let world = World::new(CASTRA, &cli.path, SCRIPT);
            let mut driver = Driver::new(&world);
            let killed = long_story(&mut driver, Some(Dice(seed)));
            assert_eq!(driver.deaths, KILLS);
            let connections = driver.live.as_ref().unwrap().seen().connections;
            println!("{cli}: {KILLS} kills, {} events, {connections} connections", killed.2.len());
            (peace.join().unwrap(), killed)
        });
        assert_eq!((accepted, said), (expected.0, expected.1), "{cli}, seed {seed}");
    }
}
