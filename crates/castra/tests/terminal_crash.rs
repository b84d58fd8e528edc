//! `kill -9` of the daemon while it types into a TUI and while the TUI writes: claude does not notice, each message is
//! entered once, and a subscriber misses nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod crash;

use castra_proto::api::MessageState;
use castra_proto::session::{ExitCause, Reaped};
use castra_proto::{RunState, Session as Shown};
use castra_testkit::{Cli, Projected, World, clis};
use crash::{CASTRA, Driver, lanes};
use serde_json::json;
use std::time::Duration;

const SCRIPT: &str = r#"
[[rule]]
name = "slow"
when.last_user.contains = "slowly"
reply.text = "Slowly: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20"
reply.pace = { chunk_chars = 4, delay_ms = 100 }
[[rule]]
name = "append"
when.last_user.regex = '^append (\S+)'
reply.blocks = [
    { text = "I will append." },
    { tool_use = { name = "Bash", input = { command = "echo {{capture:1}} >> tool.log", description = "Append" } } },
]
[[rule]]
name = "done"
when.tool_result = {}
reply.text = "done"
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
    shown: (RunState, u32, u32, u32),
}

/// One conversation: a slow answer into which messages are queued, a tool, a long text. `disturb` is called while the
/// first answer is written.
fn story(driver: &mut Driver<'_>, disturb: impl FnOnce(&mut Driver<'_>)) -> Outcome {
    driver.create(json!({"mode": "terminal", "allowed_tools": ["Bash"]}));
    let mut sent = vec![driver.send("count slowly")];
    driver.until("the first turn", |this| (this.get::<Shown>("").turn.n > 0).then_some(()));
    let claude = driver.get::<Shown>("").pid;
    assert!(claude.is_some());
    sent.push(driver.send("append one"));
    sent.push(driver.send("!ls is text"));
    disturb(driver);
    sent.push(driver.send("and the last, which is a little longer \\"));
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
    let (accepted, mut said) = lanes(&driver.pieced_together());
    // A blank that asked whether Enter was lost may be left before the next message; claude trims what it sends.
    said.iter_mut().for_each(|one| one.text = one.text.take().map(|text| text.trim().to_owned()));
    Outcome {
        accepted,
        said,
        heard: driver.world.calls().iter().map(|call| call.last_user.clone()).collect(),
        tool_log: driver.written("tool.log"),
        answers,
        shown: (shown.state, shown.run, shown.turns, shown.queued),
    }
}

fn undisturbed(cli: &Cli) -> Outcome {
    let world = World::new(CASTRA, &cli.path, SCRIPT);
    let outcome = story(&mut Driver::new(&world), |_| ());
    assert_eq!(outcome.tool_log, "one\n", "{cli}");
    assert!(outcome.answers.iter().all(|(state, text)| *state == MessageState::Answered && text.is_some()));
    // The tool's call is one more.
    assert_eq!((outcome.heard.len(), outcome.shown), (5, (RunState::Ended, 1, 4, 0)), "{cli}");
    outcome
}

fn dying(cli: &Cli, place: &str) -> Outcome {
    let world = World::new(CASTRA, &cli.path, SCRIPT);
    let mut driver = Driver::new(&world);
    driver.doom(place);
    let outcome = story(&mut driver, |_| ());
    assert_eq!(driver.deaths, 1, "{cli}, {place}: never reached");
    outcome
}

#[test]
fn killed_while_a_message_is_typed() {
    for cli in &clis() {
        let places = ["write.before", "write.after", "write.before:3", "write.after:3"];
        std::thread::scope(|scope| {
            let peace = scope.spawn(|| undisturbed(cli));
            let told = places.map(|place| scope.spawn(move || dying(cli, place)));
            let expected = peace.join().unwrap();
            for (place, outcome) in places.iter().zip(told) {
                assert_eq!(outcome.join().unwrap(), expected, "{cli}, {place}");
                println!("{cli}: survived {place}");
            }
        });
    }
}

const KILLS: usize = 12;

/// At any time, from the first words of the first answer on.
#[test]
fn killed_at_random_while_the_terminal_is_written() {
    let clis = clis();
    std::thread::scope(|scope| {
        for cli in &clis {
            scope.spawn(move || {
                let expected = undisturbed(cli);
                let world = World::new(CASTRA, &cli.path, SCRIPT);
                let mut driver = Driver::new(&world);
                let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 | 1;
                println!("{cli}: seed {seed}");
                let mut dice = seed;
                let outcome = story(&mut driver, |driver| {
                    for _ in 0..KILLS {
                        dice ^= dice << 13;
                        dice ^= dice >> 7;
                        dice ^= dice << 17;
                        std::thread::sleep(Duration::from_millis(dice % 700));
                        driver.daemon.kill9();
                        assert!(driver.revive());
                    }
                });
                assert_eq!(driver.deaths, KILLS, "{cli}");
                assert_eq!(outcome, expected, "{cli}, seed {seed}");
            });
        }
    });
}
