//! A daemon goes, another one comes: of another build, speaking another version to the shims, to many sessions at
//! once, in the middle of their starts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod crash;

use castra_proto::session::Flags;
use castra_proto::{RunState, Session as Shown};
use castra_testkit::{DEADLINE, Daemon, Events, Session, World, clis, fake_claude, wait_until};
use crash::{CASTRA, Driver};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const SCRIPT: &str = r#"
[[rule]]
name = "slow"
when.last_user.contains = "slowly"
reply.text = "Slowly: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20"
reply.pace = { chunk_chars = 2, delay_ms = 150 }
[[rule]]
name = "append"
when.last_user.regex = '^append (\S+)'
reply.blocks = [
    { tool_use = { name = "Bash", input = { command = "echo {{capture:1}} >> tool.log; sleep 4; echo appended", description = "Append" } } },
]
[[rule]]
name = "done"
when.tool_result = {}
reply.text = "done: {{tool_result:100}}"
[[rule]]
name = "echo"
reply.text = "You said: {{last_user}}"
"#;

const SHIM_VERSIONS: &str = "CASTRA_TEST_SHIM_VERSIONS";
const DAEMON_VERSIONS: &str = "CASTRA_TEST_DAEMON_VERSIONS";

/// What the shims offer that the old daemon started, and what each of the daemons speaks.
struct Skew {
    shims: &'static str,
    old: &'static str,
    new: &'static str,
}

const SKEWS: [Skew; 2] =
    [Skew { shims: "1", old: "1", new: "1,2" }, Skew { shims: "1,2", old: "1,2", new: "1" }];

/// The same program in other bytes.
fn other_build(world: &World) -> PathBuf {
    let path = world.root().join("castra-next");
    let mut bytes = std::fs::read(CASTRA).unwrap();
    bytes.extend_from_slice(b"another build");
    std::fs::write(&path, bytes).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    path
}

fn take_over(daemon: &mut Daemon<'_>, skew: &Skew, next: &Path) {
    daemon.kill9();
    daemon.start_again_as(next, &[(DAEMON_VERSIONS, skew.new), (SHIM_VERSIONS, skew.new)]);
    let program = std::fs::read_link(format!("/proc/{}/exe", daemon.pid())).unwrap();
    assert_eq!(program, next);
}

/// Before the takeover: who is it, and who listens.
struct Busy {
    session: Session,
    live: Events,
    shown: Shown,
    message: castra_proto::api::MessageAccepted,
}

fn busy(daemon: &Daemon<'_>, fields: Value, prompt: &str) -> Busy {
    let session = daemon.session(fields);
    let live = session.follow(0);
    let message = session.send(prompt);
    let shown = session.wait_state(RunState::Running);
    Busy { session, live, shown, message }
}

impl Busy {
    /// Its process is the same, its turn is whole, its subscriber has every event once.
    fn check(&self, text: &str) {
        let answer = self.session.answer_to(&self.message).result.expect("a result");
        assert!(answer.ok);
        assert_eq!(answer.text, text);
        let now = self.session.wait_idle();
        assert_eq!((now.pid, now.shim_pid, now.run), (self.shown.pid, self.shown.shim_pid, 1));
        let read = |events: Vec<castra_proto::Event>| -> Vec<String> {
            events.iter().map(|event| serde_json::to_string(event).unwrap()).collect()
        };
        let all = || self.live.seen().events.last().is_some_and(|event| event.seq >= now.head_seq);
        wait_until("the subscriber to have all", all, DEADLINE);
        assert_eq!(read(self.live.events()), read(self.session.events()));
    }
}

#[test]
fn twenty_busy_sessions_do_not_notice_a_daemon_of_another_build() {
    for skew in &SKEWS {
        let world = World::new(CASTRA, fake_claude(), SCRIPT);
        let next = other_build(&world);
        let mut daemon = world.daemon();
        daemon.kill9();
        daemon.start_again_as(Path::new(CASTRA), &[(DAEMON_VERSIONS, skew.old), (SHIM_VERSIONS, skew.shims)]);
        let sessions: Vec<Busy> = (0..20).map(|_| busy(&daemon, json!({}), "drip 100 100")).collect();
        take_over(&mut daemon, skew, &next);
        let during = sessions.iter().filter(|one| one.session.show().state == RunState::Running).count();
        println!("shims {}, daemon {} then {}: {during} of 20 still busy", skew.shims, skew.old, skew.new);
        assert!(during > 0, "the takeover came too late to show anything");
        let text: String = (1..=100).map(|n| format!("{n} ")).collect();
        sessions.iter().for_each(|one| one.check(&text));
        for one in &sessions {
            assert_eq!(one.session.ask("echo and now"), "and now", "the new daemon writes to the old shim");
        }
        assert_eq!(daemon.session(json!({})).ask("echo new"), "new");
        // And back again.
        daemon.kill9();
        daemon.start_again();
        for one in &sessions {
            assert_eq!(one.session.ask("echo back"), "back");
            assert_eq!(one.session.show().pid, one.shown.pid);
        }
    }
}

#[test]
fn a_daemon_that_speaks_no_common_version_harms_nothing() {
    let world = World::new(CASTRA, fake_claude(), SCRIPT);
    let mut daemon = world.daemon();
    let one = busy(&daemon, json!({}), "drip 100 100");
    daemon.kill9();
    daemon.start_again_as(Path::new(CASTRA), &[(DAEMON_VERSIONS, "9")]);
    // The session says why nobody drives it; the run is neither lost nor killed.
    let flags = || one.session.show().flags;
    wait_until("a refusal", || flags().trouble.is_some(), DEADLINE);
    let reason = flags().trouble.map(|trouble| trouble.reason);
    let expected = "the run's shim speaks no protocol version that this daemon knows";
    assert_eq!(reason.as_deref(), Some(expected));
    assert_eq!(one.session.show().state, RunState::Running);
    let id = one.session.show().id.to_string();
    let shown = world.cli(["show", &id]).ok();
    assert!(
        shown.lines().any(|line| line.starts_with(&format!("trouble       {expected} (since "))),
        "{shown}"
    );
    let log = std::fs::read_to_string(world.home().join("log/castra.log")).unwrap_or_default();
    assert_eq!(log.matches("NoCommonVersion").count(), 1, "said once, however often it is tried");
    daemon.kill9();
    daemon.start_again();
    one.check(&(1..=100).map(|n| format!("{n} ")).collect::<String>());
    assert_eq!(flags(), Flags::default());
}

#[test]
fn three_sessions_of_the_real_cli_do_not_notice_a_daemon_of_another_build() {
    for cli in clis() {
        let skew = &SKEWS[0];
        let world = World::new(CASTRA, &cli.path, SCRIPT);
        let next = other_build(&world);
        let mut daemon = world.daemon();
        let tools = || json!({"allowed_tools": ["Bash"]});
        let slow = busy(&daemon, tools(), "count slowly");
        let tool = busy(&daemon, tools(), "append one");
        let asks = daemon.session(json!({}));
        let asked = asks.send("append two");
        let request = asks.wait_permission();
        let pid = asks.show().pid;
        take_over(&mut daemon, skew, &next);
        assert_eq!(asks.wait_permission(), request, "{cli}");
        let _: Value = asks.answer(&request, &json!({"behavior": "allow"})).expect(200);
        slow.check("Slowly: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20");
        tool.check("done: appended");
        assert_eq!(
            asks.answer_to(&asked).result.map(|result| result.text).as_deref(),
            Some("done: appended")
        );
        assert_eq!(asks.show().pid, pid, "{cli}");
        let log =
            |one: &Session| std::fs::read_to_string(Path::new(&one.show().cwd.unwrap()).join("tool.log"));
        assert_eq!((log(&tool.session).unwrap(), log(&asks).unwrap()), ("one\n".into(), "two\n".into()));
    }
}

#[test]
fn two_hundred_sessions_answer_again_after_the_daemon_was_killed() {
    const COUNT: usize = 200;
    let world = World::new(CASTRA, fake_claude(), SCRIPT);
    let mut daemon = world.daemon();
    let sessions: Vec<Session> = (0..COUNT).map(|_| daemon.session(json!({}))).collect();
    let shown: Vec<Shown> = sessions.iter().map(Session::wait_idle).collect();
    daemon.kill9();
    let killed = Instant::now();
    daemon.start_again();
    let up = killed.elapsed();
    std::thread::scope(|scope| {
        for some in sessions.chunks(COUNT / 8) {
            scope.spawn(|| some.iter().for_each(|one| assert_eq!(one.ask("echo again"), "again")));
        }
    });
    let (up, answered) = (up.as_millis(), killed.elapsed().as_millis());
    println!(
        "{COUNT} sessions after kill -9: daemon up after {up} ms, all have answered after {answered} ms"
    );
    let pids = |shown: &[Shown]| shown.iter().map(|one| (one.pid, one.shim_pid, one.run)).collect::<Vec<_>>();
    let now: Vec<Shown> = sessions.iter().map(Session::show).collect();
    assert_eq!(pids(&now), pids(&shown), "every process is the same");
}

#[test]
fn a_daemon_killed_at_any_moment_of_a_start_leaves_one_run_that_answers() {
    let world = World::new(CASTRA, fake_claude(), SCRIPT);
    let mut driver = Driver::new(&world);
    for step in 0..25 {
        let spec = world.spec(json!({"name": format!("s{step}")}));
        let shown: Shown = driver.daemon.http().post("/api/v1/sessions", &spec).expect(201);
        driver.id = shown.id.to_string();
        // Where in the start it is hit is what varies.
        std::thread::sleep(Duration::from_millis(step * 6));
        driver.daemon.kill9();
        driver.revive();
        assert_eq!(driver.ask("echo here"), "here", "after {} ms", step * 6);
        let shown = driver.wait_state(RunState::Idle);
        assert_eq!((shown.run, shown.turns), (1, 1), "after {} ms", step * 6);
        driver.stop();
        driver.wait_nobody();
    }
    assert_eq!(driver.deaths, 25);
}
