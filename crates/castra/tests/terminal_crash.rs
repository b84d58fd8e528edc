//! `kill -9` of the daemon while it types into a TUI and while the TUI writes: claude does not notice, each message is
//! entered once, and a subscriber misses nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod crash;
#[path = "terminal_web/mod.rs"]
mod tty;

use castra_proto::api::Screen;
use castra_proto::{RunState, Session as Shown};
use castra_testkit::tmux::Terminal;
use castra_testkit::{Cli, DEADLINE, World, clis, proc, wait_until};
use crash::{CASTRA, Dice, Driver, Outcome, Story};
use serde_json::json;
use std::time::Duration;
use tty::Tty;

const SCRIPT: &str = r#"
[[rule]]
name = "slow"
when.last_user.contains = "slowly"
reply.text = "Slowly: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20"
reply.pace = { chunk_chars = 4, delay_ms = 100 }
[[rule]]
name = "first part"
when.last_user.contains = "at length"
reply.blocks = [
    { text = "a1 a2 a3 a4 a5 a6 a7 a8 a9 a10 a11 a12 a13 a14 a15 a16 a17 a18 a19 a20" },
    { tool_use = { name = "Bash", input = { command = "until [ -e go1 ]; do sleep 0.1; done; echo gate one", description = "Wait" } } },
]
reply.pace = { chunk_chars = 3, delay_ms = 200 }
[[rule]]
name = "second part"
when.tool_result.contains = "gate one"
reply.blocks = [
    { text = "b1 b2 b3 b4 b5 b6 b7 b8 b9 b10 b11 b12 b13 b14 b15 b16 b17 b18 b19 b20" },
    { tool_use = { name = "Bash", input = { command = "until [ -e go2 ]; do sleep 0.1; done; echo gate two", description = "Wait" } } },
]
reply.pace = { chunk_chars = 3, delay_ms = 200 }
[[rule]]
name = "last part"
when.tool_result.contains = "gate two"
reply.text = "that is all"
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

const STORY: Story = Story { script: SCRIPT, tell: |driver| story(driver, |_| ()) };

/// One conversation: a slow answer into which messages are queued, a tool, a long text. `disturb` is called while the
/// first answer is written.
fn story(driver: &mut Driver<'_>, disturb: impl FnOnce(&mut Driver<'_>)) -> Outcome {
    driver.create(json!({"mode": "terminal", "allowed_tools": ["Bash"]}));
    let mut sent = vec![driver.send("count slowly")];
    driver.until("the first turn", |this| (this.get::<Shown>("").turn.n > 0).then_some(()));
    let claude = driver.get::<Shown>("").pid;
    sent.push(driver.send("append one"));
    sent.push(driver.send("!ls is text"));
    disturb(driver);
    sent.push(driver.send("and the last, which is a little longer \\"));
    let mut outcome = Outcome::of(driver, &sent, claude);
    // A blank that asked whether Enter was lost may be left before the next message; claude trims what it sends.
    outcome.said.iter_mut().for_each(|one| one.text = one.text.take().map(|text| text.trim().to_owned()));
    // The tool's call is one more.
    assert_eq!((outcome.heard.len(), outcome.shown), (5, (RunState::Ended, 1, 4, 0)));
    outcome
}

#[test]
fn killed_while_a_message_is_typed() {
    STORY.dies_at(&clis(), &["write.before", "write.after", "write.before:3", "write.after:3"]);
}

const KILLS: usize = 12;

/// At any time, from the first words of the first answer on.
#[test]
fn killed_at_random_while_the_terminal_is_written() {
    let clis = clis();
    std::thread::scope(|scope| {
        for cli in &clis {
            scope.spawn(move || {
                let expected = STORY.undisturbed(cli);
                let world = World::new(CASTRA, &cli.path, SCRIPT);
                let mut driver = Driver::new(&world);
                let mut dice = Dice::new(cli);
                let outcome = story(&mut driver, |driver| {
                    for _ in 0..KILLS {
                        // When it is hit is what varies.
                        std::thread::sleep(Duration::from_millis(dice.roll(700)));
                        driver.daemon.kill9();
                        assert!(driver.revive());
                    }
                });
                assert_eq!(driver.deaths, KILLS, "{cli}");
                similar_asserts::assert_eq!(outcome, expected, "{cli}");
            });
        }
    });
}

#[test]
fn killed_while_the_terminal_is_written_and_two_watch() {
    let clis = clis();
    std::thread::scope(|scope| clis.iter().for_each(|cli| drop(scope.spawn(|| watched(cli)))));
}

/// A person in a terminal of their own and a browser's connection, both at the same session.
fn watched(cli: &Cli) {
    let world = World::new(CASTRA, &cli.path, SCRIPT);
    let mut driver = Driver::new(&world);
    driver.create(json!({"mode": "terminal", "name": "tui", "allowed_tools": ["Bash"]}));
    let before = driver.wait_state(RunState::Idle);
    let bearer = format!("Bearer {}", driver.daemon.token(&json!({"scope": "approve"})).token);
    let sit = |driver: &Driver<'_>| {
        let path = driver.path("/terminal/ws");
        let headers = [("authorization", bearer.as_str())];
        let mut tty = Tty::open(driver.daemon.addr(), &path, "tty", &headers).unwrap();
        tty.join("", 100, 30);
        tty
    };
    let person = Terminal::run(&world, "person", (30, 100), "\"$CASTRA\" --no-daemon-start attach tui");
    let mut tty = sit(&driver);
    person.until("❯");
    let message = driver.send("write at length");
    // The turn cannot end before the test lets it.
    for (written, gate) in [("a5 ", "go1"), ("b5 ", "go2")] {
        person.until(written);
        tty.until_shown(written);
        let claude = proc::process(before.pid.unwrap()).unwrap();
        driver.daemon.kill9();
        assert_eq!(tty.until_closed(), 0, "{cli}: it did not say goodbye");
        person.until("the daemon is away");
        assert!(claude.is_alive(), "{cli}");
        assert!(driver.revive(), "{cli}");
        tty = sit(&driver);
        // What was on the screen is there again, and what came meanwhile.
        tty.until_shown(written);
        person.until_some("the TUI again", |screen| (!screen.contains("is away")).then_some(()));
        std::fs::write(driver.work().join(gate), "").unwrap();
    }
    assert_eq!(driver.settled(&message).result.expect("a result").text, "that is all", "{cli}");
    driver.wait_state(RunState::Idle);
    wait_until(
        "one screen for all",
        || {
            tty.take();
            let shown: Screen = driver.get("/screen");
            let rows = |text: &str| text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
            let (person, tty) = (rows(&person.screen()), rows(&tty.screen()));
            let daemon = rows(&shown.rows.join("\n"));
            daemon.contains("that is all")
                && person.trim_end() == daemon.trim_end()
                && tty == daemon.trim_end()
        },
        DEADLINE,
    );
    let shown: Shown = driver.get("");
    assert_eq!((driver.deaths, shown.pid, shown.run, shown.turns), (2, before.pid, 1, 1), "{cli}");
    let events = driver.pieced_together();
    let results = events.iter().filter(|event| event.kind.as_str() == "result").count();
    assert_eq!((results, world.calls().len()), (1, 3), "{cli}");
}
