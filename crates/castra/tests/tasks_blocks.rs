//! What is held back and what is ended together: launch blocks, groups, filters. Scenario 40 of facts/optio.md §5.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod task;

use castra_proto::api::Page;
use castra_proto::task::{CancelledTasks, LaunchBlock, ReasonCode, TaskEventKind};
use castra_proto::{ErrorCode, Task as Shown, TaskState};
use castra_testkit::{DEADLINE, Daemon, Task, World, clis, each, wait_until};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use task::{CASTRA, SCRIPT, WAITS, instructed, work};

/// It waits for a file `go` in its folder, and is done.
fn labelled(run: &str, team: &str) -> Value {
    let mut task = instructed(run);
    task["labels"] = json!({"team": team});
    task
}

fn go(task: &Task) {
    std::fs::write(work(task).join("go"), "").unwrap();
}

fn token(world: &World, scope: &str) -> String {
    world.cli(["token", "create", "--scope", scope]).ok().trim().to_owned()
}

fn encoded(filter: &Value) -> String {
    filter.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn why(task: &Task) -> Option<ReasonCode> {
    task.show().reason.map(|reason| reason.code)
}

#[test]
fn scenario_40_what_is_held_back_is_refused_with_its_reason_and_stays_so_over_a_kill() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let http = daemon.http();
        let first = daemon.task(labelled(WAITS, "blue"));
        let mut then = labelled("echo DONE >> optio.log", "blue");
        then["depends_on"] = json!([first.id]);
        let queued = daemon.task(then);
        first.wait_said(TaskEventKind::Progress);

        let request = json!({"filter": {"labels.team": "blue"}, "reason": "the blue cluster is serviced"});
        let block: LaunchBlock = http.post("/api/v1/launch-blocks", &request).expect(201);
        let created = |team: &str| {
            let mut task = labelled("echo DONE >> optio.log", team);
            task["session"] = world.spec(task["session"].take());
            http.post("/api/v1/tasks", &task)
        };
        let refused = created("blue").problem();
        assert_eq!(refused.code, ErrorCode::LaunchBlocked, "{cli}");
        assert!(refused.detail.contains("serviced") && refused.hint.unwrap().contains("unblock"), "{cli}");
        // What runs goes on; what is over may not begin again, and what was queued waits.
        assert_eq!(first.act("retry").problem().code, ErrorCode::LaunchBlocked, "{cli}");
        go(&first);
        assert_eq!(first.wait().state, TaskState::Done, "{cli}: {:?}", first.log());
        for verb in ["retry", "resume"] {
            assert_eq!(first.act(verb).problem().code, ErrorCode::LaunchBlocked, "{cli}");
        }
        let red: Shown = created("red").expect(201);
        let red = Task::of(&http, red.id);
        assert_eq!(red.wait().state, TaskState::Done, "{cli}: {:?}", red.log());
        assert_eq!(
            (queued.show().state, why(&queued)),
            (TaskState::Queued, Some(ReasonCode::Blocked)),
            "{cli}"
        );

        // Who may only look changes nothing; who may only drive does not decide what is held back.
        let viewer = daemon.http_as(&token(world, "read"));
        let block_path = format!("/api/v1/launch-blocks/{}", block.id);
        let schedule = json!({"name": "s", "cron": "@daily", "task": {"instructions": "x"}});
        for (path, body) in [
            ("/api/v1/tasks", &json!({"instructions": "x"})),
            ("/api/v1/tasks/cancel", &json!({"filter": {"state": "queued"}})),
            ("/api/v1/launch-blocks", &request),
            ("/api/v1/schedules", &schedule),
            ("/api/v1/definitions/d/launch", &json!({})),
            (&*red.path("/retry"), &Value::Null),
        ] {
            assert_eq!(viewer.post(path, body).problem().code, ErrorCode::Forbidden, "{cli}: {path}");
        }
        let driver = daemon.http_as(&token(world, "drive"));
        assert_eq!(driver.post("/api/v1/launch-blocks", &request).status, 403, "{cli}");
        for http in [&viewer, &driver] {
            assert_eq!(http.delete(&block_path).status, 403, "{cli}");
            let seen: Page<LaunchBlock> = http.get("/api/v1/launch-blocks").expect(200);
            assert_eq!(seen.items, std::slice::from_ref(&block), "{cli}");
        }

        daemon.kill9();
        daemon.start_again();
        let there: Page<LaunchBlock> = http.get("/api/v1/launch-blocks").expect(200);
        assert_eq!(there.items, std::slice::from_ref(&block), "{cli}");
        assert_eq!(created("blue").problem().code, ErrorCode::LaunchBlocked, "{cli}");
        let red: Shown = created("red").expect(201);
        let red = Task::of(&http, red.id);
        assert_eq!(red.wait().state, TaskState::Done, "{cli}: the queue goes on around it");
        assert_eq!(
            (queued.show().state, why(&queued)),
            (TaskState::Queued, Some(ReasonCode::Blocked)),
            "{cli}"
        );

        assert_eq!(http.delete(&block_path).status, 204, "{cli}");
        assert_eq!(queued.wait().state, TaskState::Done, "{cli}: {:?}", queued.log());
        assert_eq!(http.delete(&block_path).problem().code, ErrorCode::NotFound, "{cli}");
        // A task that runs is not launched a second time.
        let running = daemon.task(labelled(WAITS, "blue"));
        running.wait_said(TaskEventKind::Progress);
        assert_eq!(running.act("retry").problem().code, ErrorCode::Conflict, "{cli}");
        running.cancel();
        running.wait();
    });
}

/// Whoever launches while the daemon ends gets an answer that is true. Answers that are under way are finished before the
/// supervisor closes, so nobody hears `shutting_down` over HTTP: schedules_tests.rs shows that refusal, where it is made.
#[test]
fn a_launch_while_the_daemon_ends_is_made_or_not_answered() {
    let cli = clis().remove(0);
    let world = World::new(CASTRA, &cli.path, SCRIPT).with_env("CASTRA_TASKS_RUNNING", "0");
    let mut daemon = world.daemon();
    let http = daemon.http();
    let body = json!({"instructions": "x"}).to_string();
    let (mut made, mut unanswered, mut asked) = (BTreeSet::new(), 0, false);
    for n in 0.. {
        let sent = http.try_call("POST".parse().unwrap(), "/api/v1/tasks", &[], body.clone().into());
        match sent {
            Ok(reply) if reply.status == 201 => drop(made.insert(reply.json::<Shown>().id)),
            Ok(reply) => panic!("{}: {}", reply.status, reply.text()),
            Err(_) => unanswered += 1,
        }
        if n == 20 {
            assert!(daemon.process().signal(rustix::process::Signal::TERM));
            asked = true;
        }
        if asked && daemon.is_over() {
            break;
        }
    }
    assert_eq!(daemon.wait_over(), 0);
    daemon.start_again();
    let there: BTreeSet<_> = pages(&daemon, "?limit=500").into_iter().map(|task| task.id).collect();
    assert!(made.is_subset(&there), "what was answered 201 is there");
    assert!(made.len() > 20 && there.len() <= made.len() + unanswered, "{} of {}", made.len(), there.len());
}

/// One whose body was on its way when the daemon was told to end.
#[test]
fn a_launch_that_is_under_way_is_made_before_the_daemon_ends() {
    let cli = clis().remove(0);
    let world = World::new(CASTRA, &cli.path, SCRIPT).with_env("CASTRA_TASKS_RUNNING", "0");
    let mut daemon = world.daemon();
    let token = token(&world, "admin");
    let mut socket = TcpStream::connect(daemon.addr()).unwrap();
    let (body, addr) = (json!({"name": "last", "instructions": "x"}).to_string(), daemon.addr());
    let (some, rest) = body.split_at(10);
    write!(
        socket,
        "POST /api/v1/tasks HTTP/1.1\r\nHost: {addr}\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{some}",
        body.len()
    )
    .unwrap();
    // Answered on another connection: the one before it was accepted.
    assert_eq!(daemon.http().get("/api/v1/tasks").status, 200);
    assert!(daemon.process().signal(rustix::process::Signal::TERM));
    wait_until("nobody to be let in any more", || TcpStream::connect(addr).is_err(), DEADLINE);
    socket.write_all(rest.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    assert_eq!(daemon.wait_over(), 0);
    daemon.start_again();
    assert_eq!(daemon.http().get("/api/v1/tasks/last").status, 200);
}

fn pages(daemon: &Daemon<'_>, query: &str) -> Vec<Shown> {
    daemon.http().pages(&format!("/api/v1/tasks{query}"))
}

#[test]
fn a_filter_finds_its_tasks_over_all_pages_and_says_what_it_does_not_understand() {
    let cli = clis().remove(0);
    let world = World::new(CASTRA, &cli.path, SCRIPT).with_env("CASTRA_TASKS_RUNNING", "0");
    let daemon = world.daemon();
    for n in 0..30 {
        let team = if n % 3 == 0 { "blue" } else { "red" };
        let body = json!({"instructions": "x", "name": format!("t{n}"), "labels": {"team": team}, "metadata": {"n": n}});
        daemon.http().post("/api/v1/tasks", &body).expect::<Shown>(201);
    }
    let names = |filter: &Value, more: &str| -> Vec<String> {
        let query = format!("?filter={}{more}", encoded(filter));
        pages(&daemon, &query).into_iter().filter_map(|task| task.name).collect()
    };
    let blue = json!({"labels.team": "blue", "metadata.n": {"gte": 12}});
    let expected = ["t27", "t24", "t21", "t18", "t15", "t12"];
    for limit in [1, 4, 6, 500] {
        assert_eq!(names(&blue, &format!("&limit={limit}")), expected, "limit {limit}");
    }
    let either = json!({"or": [{"metadata.n": {"in": [1, 2]}}, {"not": {"metadata.n": {"lt": 29}}}]});
    assert_eq!(names(&either, "&limit=2"), ["t29", "t2", "t1"]);
    assert_eq!(names(&json!({"metadata.cost": {"exists": true}}), ""), Vec::<String>::new());
    let cancelled: Shown = daemon.http().post("/api/v1/tasks/t5/cancel", &Value::Null).expect(200);
    assert_eq!(names(&json!({"state": "cancelled"}), ""), ["t5"]);
    assert_eq!(names(&json!({"reason": "cancelled", "metadata.n": 5}), "&all"), ["t5"]);
    assert_eq!(cancelled.state, TaskState::Cancelled);
    for (filter, place) in [
        (json!({"team": "blue"}), "`team`"),
        (json!({"metadata.n": {"above": 3}}), "`metadata.n`: unknown operator"),
    ] {
        let refused = daemon.http().get(&format!("/api/v1/tasks?filter={}", encoded(&filter))).problem();
        assert!(refused.code == ErrorCode::InvalidRequest && refused.detail.contains(place), "{refused:?}");
    }

    // The same from the command line.
    let filter = blue.to_string();
    let listed = world.cli(["task", "list", "-q", "--filter", &filter]).ok();
    assert_eq!(listed.lines().count(), 6);
    let wrong = world.cli(["task", "list", "--filter", r#"{"team": "blue"}"#]);
    assert!(wrong.code == 2 && wrong.stderr.contains("a task has no `team`"), "{wrong:#?}");
    let ended = world.cli(["task", "cancel", "--filter", &filter, "--reason", "enough", "--wait", "1m"]).ok();
    assert_eq!(BTreeSet::from_iter(ended.lines()), BTreeSet::from_iter(listed.lines()));
    assert_eq!(names(&blue, ""), Vec::<String>::new());
    let none = world.cli(["task", "cancel", "--filter", &filter]);
    assert_eq!((none.code, none.stdout.as_str()), (0, ""), "{none:#?}");
}

#[test]
fn a_group_is_ended_together_and_nobody_else() {
    for cli in clis() {
        let world = World::new(CASTRA, &cli.path, SCRIPT).with_env("CASTRA_TASKS_RUNNING", "5");
        let daemon = world.daemon();
        let http = daemon.http();
        let teams = ["blue", "red", "blue", "red", "blue"];
        let tasks = teams.map(|team| daemon.task(labelled(WAITS, team)));
        tasks.iter().for_each(|task| drop(task.wait_said(TaskEventKind::Progress)));
        for nothing in [json!({}), json!({"and": []}), json!({"not": {"or": []}})] {
            let refused = http.post("/api/v1/tasks/cancel", &json!({"filter": nothing})).problem();
            assert_eq!(refused.code, ErrorCode::InvalidRequest, "{cli}");
        }
        let request =
            json!({"filter": {"labels.team": "blue"}, "reason": "enough", "grace_s": 1, "wait_s": 60});
        let done: CancelledTasks = http.post("/api/v1/tasks/cancel", &request).expect(200);
        let ids = |tasks: &[&Task]| tasks.iter().map(|task| task.id.clone()).collect::<Vec<_>>();
        assert_eq!(
            done.asked.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ids(&[&tasks[0], &tasks[2], &tasks[4]]),
            "{cli}"
        );
        assert_eq!((done.open.len(), done.refused.len()), (0, 0), "{cli}");
        let states = tasks.each_ref().map(|task| task.show().state);
        let (gone, here) = (TaskState::Cancelled, TaskState::Running);
        assert_eq!(states, [gone, here, gone, here, gone], "{cli}");
        let reason = tasks[0].show().reason.unwrap().message;
        assert!(reason.ends_with("enough"), "{cli}: {reason}");
        for red in [&tasks[1], &tasks[3]] {
            go(red);
            assert_eq!(red.wait().state, TaskState::Done, "{cli}: {:?}", red.log());
        }
    }
}

/// What is cleared away for longer than the grace is cancelled all the same; who waits for less long is told.
#[test]
fn a_cancel_that_takes_long_is_waited_for_or_said_to_be_open_and_never_fails() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let gate = world.root().join("gate");
        let until = format!("until [ -e {} ]; do sleep 0.1; done", gate.display());
        let mut spec = labelled(WAITS, "slow");
        spec["hooks"] = json!([{"on": "after", "command": ["sh", "-c", until], "timeout_s": 600}]);
        let task = daemon.task(spec);
        task.wait_said(TaskEventKind::Progress);
        let filter = r#"{"labels.team": "slow"}"#;
        let short = ["task", "cancel", "--filter", filter, "--grace", "1s", "--wait"];
        let cut = world.castra(short).arg("3s").run();
        assert_eq!((cut.code, cut.stdout.as_str()), (124, &*format!("{}\n", task.id)), "{cli}: {cut:#?}");
        assert!(cut.stderr.contains("1 of them are not over yet"), "{cli}: {cut:#?}");
        assert!(!task.show().state.is_final(), "{cli}: {:?}", task.log());
        std::fs::write(&gate, "").unwrap();
        let shown = task.wait();
        let code = shown.reason.map(|reason| reason.code);
        assert_eq!(
            (shown.state, code),
            (TaskState::Cancelled, Some(ReasonCode::Cancelled)),
            "{cli}: {:?}",
            task.log()
        );
        let whole = world.castra(short).arg("1m").run();
        assert_eq!((whole.code, whole.stdout.as_str()), (0, ""), "{cli}: {whole:#?}");
    });
}

#[test]
fn blocks_stack_and_the_command_line_makes_and_lifts_them() {
    let cli = clis().remove(0);
    let world = World::new(CASTRA, &cli.path, SCRIPT).with_env("CASTRA_TASKS_RUNNING", "0");
    let daemon = world.daemon();
    let block = |args: &[&str]| world.castra(["task", "block"]).args(args).run().ok().trim().to_owned();
    let all = block(&["--reason", "all stop"]);
    let blue = block(&["--reason", "no blue ones", "--filter", r#"{"labels.team": "blue"}"#, "--for", "1h"]);
    let listed = world.cli(["task", "blocks"]).ok();
    assert!(listed.contains("all stop") && listed.contains("every task"), "{listed}");
    let launch = |team: &str| {
        let body = json!({"instructions": "x", "labels": {"team": team}});
        daemon.http().post("/api/v1/tasks", &body)
    };
    assert!(launch("blue").problem().detail.contains("all stop"));
    world.cli(["task", "unblock", &all]).ok();
    assert!(launch("blue").problem().detail.contains("no blue ones"));
    assert_eq!(launch("red").status, 201);
    // The same request, made again, was let in before.
    let keyed = |body: &Value| daemon.http().post_with("/api/v1/tasks", &[("Idempotency-Key", "k")], body);
    let body = json!({"instructions": "x"});
    let once: Shown = keyed(&body).expect(201);
    let all = block(&["--reason", "all stop"]);
    assert_eq!(keyed(&body).expect::<Shown>(201).id, once.id);
    world.cli(["task", "unblock", &all, &blue]).ok();
    let none = world.cli(["task", "blocks"]);
    assert_eq!((none.code, none.stdout.as_str()), (0, ""), "{none:#?}");
    wait_until("a blue task to be let in", || launch("blue").status == 201, DEADLINE);
    for wrong in [
        json!({"reason": " "}),
        json!({"reason": "x", "until": "2020-01-01T00:00:00Z"}),
        json!({"reason": "x", "filter": {}}),
    ] {
        let refused = daemon.http().post("/api/v1/launch-blocks", &wrong).problem();
        assert_eq!(refused.code, ErrorCode::InvalidRequest, "{wrong}");
    }
}
