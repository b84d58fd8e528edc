//! `kill -9` of what holds a run together (shim, guard, both, claude) with a tree that tries to leave, with a
//! daemon and without one, with a sandbox and without: one end that is no success, nobody left, and the session
//! goes on with its memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod crash;

use castra_proto::session::{Exit, ExitCause, Reaped, SandboxKind};
use castra_proto::{RunState, Session as Shown};
use castra_testkit::proc::{self, Process};
use castra_testkit::{Cli, DEADLINE, Daemon, Session, World, clis, wait_for, wait_until};
use crash::{CASTRA, Meta, by_sigkill, is_on_disk};
use rustix::process::Signal;
use serde_json::json;
use std::time::{Duration, Instant};

/// In the tool: a child that ignores a hangup, and one of a session of its own, with two forks between it and
/// the tool and nothing in its environment.
const SCRIPT: &str = r#"
[[rule]]
name = "memory"
when.last_user.contains = "what did I say"
reply.text = "before this: {{user_texts}}"
[[rule]]
name = "tool"
when.last_user.contains = "the tool"
reply.blocks = [
    { tool_use = { name = "Bash", input = { command = "echo ran >> tool.log; nohup /bin/sleep 1001 >/dev/null 2>&1 & env -i /usr/bin/setsid --fork /bin/sh -c '/bin/sleep 1002 & exec /bin/sleep 1003' >/dev/null 2>&1; tail -f /dev/null", description = "Run" } } },
]
[[rule]]
name = "echo"
reply.text = "You said: {{last_user}}"
"#;

/// Of those in the tool, whom every tree must have before it is struck; by their whole arguments, since the shell's
/// own hold all of these.
const CHILDREN: [&str; 4] = ["/bin/sleep 1001", "/bin/sleep 1002", "/bin/sleep 1003", "tail -f /dev/null"];

/// On an idle machine the end is known well within this; others may use this one too.
const GOAL: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Claude,
    Shim,
    Guard,
    Both,
}

const VICTIMS: [Victim; 4] = [Victim::Claude, Victim::Shim, Victim::Guard, Victim::Both];

impl Victim {
    fn strike(self, meta: &Meta) {
        match self {
            Self::Claude => assert!(meta.claude.kill9()),
            Self::Shim => assert!(meta.shim.kill9()),
            Self::Guard => assert!(meta.guard.kill9()),
            Self::Both => {
                // Stopped first: neither sees the other's end.
                for one in [meta.guard, meta.shim] {
                    assert!(one.signal(Signal::STOP));
                }
                for one in [meta.guard, meta.shim] {
                    assert!(one.kill9());
                }
            }
        }
    }

    fn judge(self, what: &str, shown: &Shown, exit: &Exit) {
        match self {
            Self::Claude => {
                let told = (shown.state, exit.cause, by_sigkill(exit));
                assert_eq!(told, (RunState::Ended, ExitCause::Crashed, true), "{what}: {exit:?}");
            }
            _ => assert_eq!((shown.state, exit.cause), (RunState::Lost, ExitCause::Lost), "{what}"),
        }
        // Whoever is left of the two has killed the tree and proved it.
        if self != Self::Both {
            assert_eq!(exit.reaped, Reaped::Proved, "{what}");
        }
    }
}

/// One session before it is struck.
struct Case {
    what: String,
    victim: Victim,
    session: Session,
    meta: Meta,
    tree: Vec<Process>,
    /// Of the tree, those behind a double fork and without an environment.
    escapees: Vec<Process>,
    sandbox: SandboxKind,
}

fn prepare(world: &World, daemon: &Daemon<'_>, victim: Victim, in_tool: bool, sandbox: &str) -> Case {
    let session = daemon.session(json!({"allowed_tools": ["Bash"], "sandbox": sandbox}));
    let answer = session.ask("the word is plum");
    assert_eq!(answer, "You said: the word is plum");
    wait_until("the turn to be on disk", || is_on_disk(world, &session.id, &answer), DEADLINE);
    let meta = Meta::read(world, &session.id, 1);
    let family: &[&str] = if in_tool { &CHILDREN } else { &[] };
    if in_tool {
        session.send("run the tool");
    }
    let tree = wait_for(
        "the tool's whole family",
        || {
            let tree = meta.tree();
            let arguments: Vec<String> = tree.iter().map(|one| one.arguments()).collect();
            let there = |child: &&str| arguments.iter().any(|found| found == *child);
            family.iter().all(there).then_some(tree)
        },
        DEADLINE,
    );
    let shown = session.show();
    if sandbox == "off" {
        assert_eq!(shown.sandbox.kind, SandboxKind::None);
    }
    let what = format!("{victim:?}, in a tool: {in_tool}, sandbox {sandbox} ({:?})", shown.sandbox.kind);
    let has_left =
        |one: &Process| ["/bin/sleep 1002", "/bin/sleep 1003"].iter().any(|it| one.arguments() == *it);
    let escapees = tree.iter().copied().filter(has_left).collect();
    Case { what, victim, session, meta, tree, escapees, sandbox: shown.sandbox.kind }
}

impl Case {
    /// The end as castra tells it, and everybody gone.
    fn check(&self, struck: Instant) {
        let what = &self.what;
        let shown = wait_for(
            &format!("an end of {what}"),
            || Some(self.session.show()).filter(|shown| shown.state.is_final()),
            DEADLINE,
        );
        let told = struck.elapsed();
        let exit = shown.exit.clone().expect("an exit");
        self.victim.judge(what, &shown, &exit);
        let may_be_left = |one: &Process| {
            // What castra says that it cannot prove without a namespace: a double fork with an empty environment.
            self.victim == Victim::Both
                && self.sandbox == SandboxKind::None
                && exit.reaped == Reaped::Unproven
                && self.escapees.contains(one)
        };
        let left = || {
            let mut left: Vec<Process> = self.tree.iter().copied().filter(|one| one.is_alive()).collect();
            left.extend(proc::of_run(&self.meta.run));
            left
        };
        wait_until(&format!("nobody to be left of {what}"), || left().iter().all(may_be_left), DEADLINE);
        let gone = struck.elapsed();
        let escaped = left();
        println!(
            "{what}: {:?} {:?} {:?}, told after {} ms, gone after {} ms, {} of {} left{}",
            shown.state,
            exit.cause,
            exit.reaped,
            told.as_millis(),
            gone.as_millis(),
            escaped.len(),
            self.tree.len(),
            if told > GOAL { " (slower than the goal)" } else { "" },
        );
        for one in &escaped {
            one.kill9();
        }
        let asked: Vec<_> = self.session.events_of("result");
        assert_eq!(asked.len(), 1, "{what}: only the turn before was a success");
    }

    /// `castra resume`: the conversation is remembered, the tool is not run again.
    fn resume(&self, world: &World, in_tool: bool) {
        let what = &self.what;
        world.cli(["resume", &self.session.id]).ok();
        let remembered = self.session.ask("what did I say?");
        assert!(remembered.contains("the word is plum"), "{what}: {remembered}");
        assert_eq!(self.session.wait_idle().run, 2, "{what}");
        let log = world.home().join("sessions").join(&self.session.id).join("work/tool.log");
        let ran = std::fs::read_to_string(log).unwrap_or_default();
        assert_eq!(ran, if in_tool { "ran\n" } else { "" }, "{what}");
        self.session.act("stop");
    }
}

fn prepare_all(world: &World, daemon: &Daemon<'_>, in_tool: bool, sandbox: &str) -> [Case; 4] {
    std::thread::scope(|scope| {
        let cases =
            VICTIMS.map(|victim| scope.spawn(move || prepare(world, daemon, victim, in_tool, sandbox)));
        cases.map(|case| case.join().unwrap())
    })
}

fn resume_all(cases: &[Case], world: &World, in_tool: bool) {
    std::thread::scope(|scope| {
        cases.iter().for_each(|case| drop(scope.spawn(move || case.resume(world, in_tool))));
    });
}

fn each_victim(cli: &Cli, in_tool: bool, sandbox: &str) {
    let world = World::new(CASTRA, &cli.path, SCRIPT);
    let mut daemon = world.daemon();
    println!("{cli}, with a daemon:");
    let cases = prepare_all(&world, &daemon, in_tool, sandbox);
    for case in &cases {
        let struck = Instant::now();
        case.victim.strike(&case.meta);
        case.check(struck);
    }
    resume_all(&cases, &world, in_tool);

    println!("{cli}, without a daemon, counted from its start:");
    let cases = prepare_all(&world, &daemon, in_tool, sandbox);
    daemon.kill9();
    cases.iter().for_each(|case| case.victim.strike(&case.meta));
    daemon.start_again();
    let started = Instant::now();
    for case in &cases {
        case.check(started);
    }
    resume_all(&cases, &world, in_tool);
}

#[test]
fn idle_without_a_sandbox() {
    each_victim(&clis()[0], false, "off");
}

#[test]
fn idle_with_the_sandbox() {
    each_victim(&clis()[0], false, "auto");
}

#[test]
fn in_a_tool_without_a_sandbox() {
    each_victim(&clis()[0], true, "off");
}

#[test]
fn in_a_tool_of_the_newest_cli_without_a_sandbox() {
    each_victim(clis().last().unwrap(), true, "off");
}

#[test]
fn in_a_tool_with_the_sandbox() {
    each_victim(&clis()[0], true, "auto");
}

#[test]
fn in_a_tool_of_the_newest_cli_with_the_sandbox() {
    each_victim(clis().last().unwrap(), true, "auto");
}
